//! Goal: a client that pipelines thousands of requests makes nobody wait for more than its share of a turn.
//! Method: the test turns the loop itself and counts what each turn takes, beside a client that sends one request
//! after the other. Bytes may come late on a busy machine; what a turn takes of one connection is the same on any.

use super::*;
use crate::front::connection::{REQUEST_SHARE, SHARE_OF_TURN};

/// More small requests than this are no turn's share of one connection.
const SHARE_REQUESTS: u64 = SHARE_OF_TURN as u64 / REQUEST_SHARE as u64;

/// Turns until the greedy client has all its answers; gives the most requests that a turn took, and how many of the
/// other client's were answered meanwhile.
fn most_in_a_turn(request: &str, requests: usize) -> (u64, usize) {
    let (mut rig, parts) = Rig::laid(None, None);
    let mut front = Front::new(parts).unwrap();
    let mut greedy = Client::connect(rig.address);
    let mut modest = Client::connect(rig.address);
    let pipeline = request.repeat(requests);
    let greedy = std::thread::spawn(move || {
        greedy.send(pipeline).unwrap();
        (0..requests).all(|_| [200, 202].contains(&greedy.answer().status))
    });
    let taken = |rig: &Rig| rig.counters().requests.get();
    let (mut most, mut modest_answers) = (0, 0);
    modest.send(get("/-/healthy")).unwrap();
    while taken(&rig) < (requests + modest_answers + 1) as u64 {
        let before = taken(&rig);
        front.turn().unwrap();
        most = most.max(taken(&rig) - before);
        rig.catch_up();
        if modest.is_answered() {
            assert_eq!(modest.answer().status, 200);
            modest_answers += 1;
            modest.send(get("/-/healthy")).unwrap();
        }
    }
    rig.shared.stop();
    while !front.turn().unwrap() {}
    assert!(greedy.join().unwrap(), "every request of a pipeline is answered");
    (most, modest_answers)
}

#[test]
fn a_long_pipeline_takes_its_share_of_a_turn_and_no_more() {
    for (request, requests) in [(get("/-/healthy"), 6_000), (post("written", BODY), 3_000)] {
        let (most, modest_answers) = most_in_a_turn(&request, requests);
        assert!(most <= SHARE_REQUESTS + 1, "a turn took {most} requests");
        assert!(modest_answers > 0);
    }
}

/// Large answers count by their bytes: fewer of them are a share.
#[test]
fn a_pipeline_of_large_reads_takes_its_share_of_a_turn_and_no_more() {
    let page_bytes = {
        let rig = Rig::start(None);
        let mut client = rig.client();
        client.send(get("/metrics")).unwrap();
        client.answer().body.len()
    };
    let pages = u64::from(SHARE_OF_TURN) / page_bytes as u64 + 1;
    assert!(2 * pages < SHARE_REQUESTS, "too small a page to tell");
    let (most, _) = most_in_a_turn(&get("/metrics"), 500);
    // And one of the other client's.
    assert!(most <= pages + 1, "a turn took {most} of at most {pages} pages");
}

/// Many of them together have one share of a turn among them, or each would make others wait for all.
/// Method: their bytes are in the sockets before the first turn; late ones would only make more turns of it.
#[test]
fn many_long_pipelines_share_what_is_left_for_later() {
    const GREEDY: usize = 8;
    const REQUESTS: usize = 1_500;
    let (rig, parts) = Rig::laid(None, None);
    let mut front = Front::new(parts).unwrap();
    let mut clients: Vec<Client> = (0..GREEDY).map(|_| Client::connect(rig.address)).collect();
    for client in &mut clients {
        client.send(get("/-/healthy").repeat(REQUESTS)).unwrap();
    }
    let taken = || rig.counters().requests.get();
    let all = (GREEDY * REQUESTS) as u64;
    let mut turns = 0;
    while taken() < all {
        let before = taken();
        front.turn().unwrap();
        turns += u64::from(taken() > before);
    }
    assert!(turns > all / SHARE_REQUESTS / 2, "{all} requests in {turns} turns");
    rig.shared.stop();
    while !front.turn().unwrap() {}
    for mut client in clients {
        assert_eq!(statuses(&mut client, REQUESTS), [200; REQUESTS]);
    }
}
