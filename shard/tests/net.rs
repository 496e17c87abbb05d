//! `Net` over real sockets on loopback: what a loop may rely on, seen from its own side and from a peer's.
//!
//! Every test drives its `Net` on its own thread and gives up after `PATIENCE`, so that a lost event fails rather
//! than hangs. Peers are plain std sockets on other threads, which the loop cannot favour.
//! Here is what all of them need; they lie by act in `net/`.

#[path = "net/accept.rs"]
mod accept;
#[path = "net/close.rs"]
mod close;
#[path = "net/connect.rs"]
mod connect;
#[path = "net/receive.rs"]
mod receive;
#[path = "net/send.rs"]
mod send;
#[path = "net/turn.rs"]
mod turn;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shard::bell::Bell;
use shard::net::{ClaimedPort, ConnId, Event, Net, NetConfig, NetError, Wait};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOPBACK: SocketAddr = loopback(1);

/// A free port of a loopback address. Tests that let go of a port and count on its staying free take an address that
/// no other test has: ports are free or taken per address.
const fn loopback(last: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0)
}

/// More bytes than the two sockets of a connection hold while nobody reads: Linux lets them grow to 4 and 6 MiB, since
/// 6.16 to 4 and 32 (the last figures of `tcp_wmem` and `tcp_rmem`).
const MORE_THAN_SOCKETS_HOLD: usize = 37 << 20;

fn config() -> NetConfig {
    NetConfig {
        connections_max: 512,
        submissions: 64,
        completions: 256,
        recv_buffers: 64,
        ..NetConfig::default()
    }
}

/// Turns and hands over events until `done` says so, and once more to submit what it queued last.
fn drive(net: &mut Net, mut done: impl FnMut(&mut Net, Event) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        while let Some(event) = net.next_event() {
            if done(net, event) {
                return net.turn(Wait::No).unwrap();
            }
        }
        assert!(Instant::now() < deadline, "nothing more happened: {:?}", net.stats());
        net.turn(Wait::Until(deadline)).unwrap();
    }
}

/// Turns until something is true that no event tells of; an event would be a surprise.
fn turn_until(net: &mut Net, mut is_so: impl FnMut(&Net) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(net) {
        assert!(Instant::now() < deadline, "nothing more happened: {:?}", net.stats());
        net.turn(Wait::Until(Instant::now() + Duration::from_millis(5))).unwrap();
        if let Some(event) = net.next_event() {
            panic!("{event:?}");
        }
    }
}

/// Takes what the kernel has by now, without expecting anything.
fn settle(net: &mut Net, mut each: impl FnMut(&mut Net, Event)) {
    for _ in 0..20 {
        net.turn(Wait::Until(Instant::now() + Duration::from_millis(5))).unwrap();
        while let Some(event) = net.next_event() {
            each(net, event);
        }
    }
}

/// A repeatable stream of bytes in which every place is recognisable.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

/// A pair of a connection in `net` and its peer.
fn accept_one(net: &mut Net) -> (ConnId, TcpStream) {
    let addr = net.listen(LOOPBACK, 16).unwrap();
    let peer = thread::spawn(move || TcpStream::connect(addr).unwrap());
    let mut accepted = None;
    drive(net, |_, event| match event {
        Event::Accepted { conn, peer } => {
            accepted = Some((conn, peer));
            true
        }
        event => panic!("{event:?}"),
    });
    let stream = peer.join().unwrap();
    let (conn, from) = accepted.unwrap();
    assert_eq!(from, stream.local_addr().unwrap(), "the peer's address comes with the accept");
    (conn, stream)
}
