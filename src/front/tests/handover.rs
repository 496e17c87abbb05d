//! Goal: executors learn of samples in time, and are woken for nothing else.
//! Method: the test turns the loop itself, and holds the executor's end of ring and bell.

use super::*;

/// An executor is woken at the latest for the oldest sample in its rings. When another loop has woken it before, it
/// has taken this loop's samples, too.
#[test]
fn an_executor_is_woken_for_what_waits_and_not_for_what_it_has_taken() {
    let (mut rig, parts) = Rig::laid(None, None);
    let mut front = Front::new(parts).unwrap();
    let mut client = Client::connect(rig.address);
    for has_taken in [true, false, true] {
        client.send(post("memory", BODY)).unwrap();
        while front.handover_at[0].is_none() {
            front.turn().unwrap();
        }
        let bell = rig.shared.store_bells[0].clone();
        bell.prepare_sleep();
        if has_taken {
            while rig.inboxes[0].pop().is_some() {}
        }
        while front.handover_at[0].is_some() {
            front.turn().unwrap();
        }
        let still_sleeps = bell.ring();
        assert_eq!(still_sleeps, has_taken);
        while rig.inboxes[0].pop().is_some() {}
    }
}
