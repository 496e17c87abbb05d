//! Accepting: how many a turn takes in.

use super::*;

const FEW: usize = 2;
const MANY: usize = 6;

/// One turn: how many it took in, and how many pieces it received.
fn turn(net: &mut Net) -> (usize, usize) {
    net.turn(Wait::Until(Instant::now() + PATIENCE)).unwrap();
    let (mut accepted, mut received) = (0, 0);
    while let Some(event) = net.next_event() {
        match event {
            Event::Accepted { .. } => accepted += 1,
            Event::Received { buf, .. } => {
                received += 1;
                net.release(buf);
            }
            event => panic!("{event:?}"),
        }
    }
    (accepted, received)
}

fn crowd(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(addr).unwrap()).collect()
}

/// Newcomers have their part of each turn and no more: few come in beside little, more beside much.
/// Method: crowds that stand in the backlog; before the second, everybody of the first sends a byte.
#[test]
fn a_turn_takes_in_more_connections_when_it_receives_more() {
    const FIRST: usize = 40;
    const SECOND: usize = 30;
    let (accepts_min, accepts_max) = (FEW as u16, MANY as u16);
    let mut net = Net::new(NetConfig { accepts_min, accepts_max, ..config() }).unwrap();
    let addr = net.listen(LOOPBACK, 64).unwrap();
    let mut first = crowd(addr, FIRST);
    let mut taken_in = 0;
    while taken_in < FIRST {
        let (accepted, _) = turn(&mut net);
        assert!(accepted <= FEW, "{accepted} beside nothing");
        taken_in += accepted;
    }

    first.iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
    let _second = crowd(addr, SECOND);
    let (mut most, mut earlier, mut before, mut heard) = (0, 0, 0, 0);
    taken_in = 0;
    while taken_in < SECOND || heard < FIRST {
        let (accepted, received) = turn(&mut net);
        // What was armed after the turn before the last stays armed if nobody came.
        let allowed = (before.max(earlier) / 4).clamp(FEW, MANY);
        assert!(accepted <= allowed, "{accepted} after {before} pieces");
        (most, earlier, before) = (most.max(accepted), before, received);
        (taken_in, heard) = (taken_in + accepted, heard + received);
    }
    assert!(most > FEW, "a full turn admits no more than an empty one");
}
