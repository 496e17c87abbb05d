//! `Net` over real sockets on loopback: what a loop may rely on, seen from its own side and from a peer's.
//!
//! Every test drives its `Net` on its own thread and gives up after `PATIENCE`, so that a lost event fails rather
//! than hangs. Peers are plain std sockets on other threads, which the loop cannot favour.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shard::bell::Bell;
use shard::net::{ConnId, Event, Net, NetConfig, NetError, Wait, probe_port};

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

/// A turn that waits for several events because a crowd was heard ends all the same when one comes alone.
/// Method: a bound of 50 ms, so that any pace of the machine is fast; a turn that waited for its eight events
/// without that bound would never end.
#[test]
fn a_lone_event_after_a_crowd_is_not_waited_with_for_ever() {
    let coalesce = Duration::from_millis(50);
    let mut net = Net::new(NetConfig { coalesce, ..config() }).unwrap();
    let addr = net.listen(LOOPBACK, 256).unwrap();
    let peers = thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for _ in 0..100 {
            for stream in &mut streams {
                stream.write_all(b"?").unwrap();
            }
            for stream in &mut streams {
                stream.read_exact(&mut [0]).unwrap();
            }
        }
        for stream in streams.iter_mut().take(4) {
            stream.write_all(b".").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    });
    let mut lone = 0;
    drive(&mut net, |net, event| {
        if let Event::Received { conn, buf } = event {
            lone += net.bytes(&buf).iter().filter(|byte| **byte == b'.').count();
            net.release(buf);
            net.send(conn, b"!");
        }
        lone == 4
    });
    peers.join().unwrap();
}

/// 200 peers, ten rounds each: every byte comes back to the one who sent it, and every connection ends once.
#[test]
fn echoes_to_two_hundred_connections() {
    let mut net = Net::new(config()).unwrap();
    let addr = net.listen(LOOPBACK, 256).unwrap();
    let peers = thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for round in 0..10 {
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.write_all(format!("<{i:03} {round:03}>").as_bytes()).unwrap();
            }
            for (i, stream) in streams.iter_mut().enumerate() {
                let mut answer = [0; 9];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer, format!("<{i:03} {round:03}>").as_bytes());
            }
        }
    });
    let mut alive = HashSet::new();
    let (mut accepted, mut closed) = (0, 0);
    drive(&mut net, |net, event| {
        match event {
            Event::Accepted { conn, .. } => {
                assert!(alive.insert(conn));
                accepted += 1;
            }
            Event::Received { conn, buf } => {
                let bytes = net.bytes(&buf).to_vec();
                net.release(buf);
                net.send(conn, &bytes);
            }
            Event::EndOfStream { conn } => net.close(conn),
            Event::Closed { conn, error } => {
                assert!(alive.remove(&conn));
                assert!(error.is_none(), "{error:?}");
                closed += 1;
            }
            event => panic!("{event:?}"),
        }
        closed == 200
    });
    peers.join().unwrap();
    assert_eq!(accepted, 200);
    assert_eq!(net.connections(), 0);
    assert_eq!(net.stats().accepted, 200);
}

/// With four small buffers a greedy sender ends its receive again and again; nothing is lost or doubled, and a
/// neighbour is heard all the same.
#[test]
fn a_sender_faster_than_the_buffers_loses_nothing() {
    let mut net = Net::new(NetConfig { recv_buffers: 4, recv_buffer_bytes: 512, ..config() }).unwrap();
    let addr = net.listen(LOOPBACK, 16).unwrap();
    let sent = pattern(3 << 20);
    let greedy = {
        let sent = sent.clone();
        thread::spawn(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(&sent).unwrap();
        })
    };
    let mut stream = TcpStream::connect(addr).unwrap();
    let neighbour_addr = stream.local_addr().unwrap();
    let neighbour = thread::spawn(move || {
        for i in 0..50_u8 {
            stream.write_all(&[i]).unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [i]);
        }
    });
    let mut received: HashMap<ConnId, Vec<u8>> = HashMap::new();
    let mut answered = None;
    let mut ended = 0;
    drive(&mut net, |net, event| {
        match event {
            Event::Accepted { conn, peer } if peer == neighbour_addr => answered = Some(conn),
            Event::Received { conn, buf } => {
                let bytes = net.bytes(&buf).to_vec();
                net.release(buf);
                if answered == Some(conn) {
                    net.send(conn, &bytes);
                }
                received.entry(conn).or_default().extend_from_slice(&bytes);
            }
            Event::EndOfStream { conn } => {
                net.close(conn);
                ended += 1;
            }
            _ => {}
        }
        ended == 2
    });
    greedy.join().unwrap();
    neighbour.join().unwrap();
    assert!(received.values().any(|bytes| *bytes == sent), "the greedy sender's bytes are not whole");
    assert!(net.stats().buffers_exhausted > 0, "the test met no shortage: {:?}", net.stats());
}

/// Buffers that the reader keeps cost no spin: the starved receive waits until one comes back.
#[test]
fn held_buffers_starve_without_spinning() {
    let mut net = Net::new(NetConfig { recv_buffers: 2, recv_buffer_bytes: 64, ..config() }).unwrap();
    let (_, mut stream) = accept_one(&mut net);
    stream.write_all(&pattern(1000)).unwrap();
    let mut held = Vec::new();
    drive(&mut net, |_, event| match event {
        Event::Received { buf, .. } => {
            held.push(buf);
            held.len() == 2
        }
        event => panic!("{event:?}"),
    });
    settle(&mut net, |_, event| panic!("{event:?}"));
    assert!(net.stats().buffers_exhausted <= 2, "{:?}", net.stats());
    let mut bytes = Vec::new();
    for buf in held {
        bytes.extend_from_slice(net.bytes(&buf));
        net.release(buf);
    }
    drive(&mut net, |net, event| {
        if let Event::Received { buf, .. } = event {
            bytes.extend_from_slice(net.bytes(&buf));
            net.release(buf);
        }
        bytes.len() == 1000
    });
    assert_eq!(bytes, pattern(1000));
}

/// A peer that does not read: several megabytes in small, large and owned sends, over many turns, cut into partial
/// sends by the socket; when it reads at last, everything is there in order, and the close comes after it.
#[test]
fn a_peer_that_reads_late_gets_everything_in_order() {
    let mut net = Net::new(NetConfig { send_arena_bytes: 200_000, ..config() }).unwrap();
    let (conn, mut stream) = accept_one(&mut net);
    let all = pattern(MORE_THAN_SOCKETS_HOLD);
    let mut from = 0;
    let mut turn = 0;
    while from < all.len() {
        // Small ones that fill the socket by themselves at first, several a turn, then all three kinds mixed.
        for kind in 0..4 {
            let len = match (turn, kind) {
                (0..60, _) => 40_000,
                (_, 1) => 150_001,
                (_, 2) => 700,
                (_, 3) => 3,
                _ => 30_000,
            };
            let part = &all[from..(from + len).min(all.len())];
            match kind {
                1 if turn >= 60 => net.send_owned(conn, part.to_vec()),
                _ => net.send(conn, part),
            }
            from += part.len();
        }
        net.turn(Wait::No).unwrap();
        while let Some(event) = net.next_event() {
            assert!(matches!(event, Event::Drained { .. }), "{event:?}");
        }
        turn += 1;
    }
    let stats = net.stats();
    assert!(stats.sends_delayed > 0, "the socket took everything at once: {stats:?}");
    assert!(net.pending_send_bytes(conn) > 1_000_000);
    let reader = thread::spawn(move || {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        read
    });
    net.close(conn);
    drive(&mut net, |_, event| match event {
        Event::Closed { error, .. } => {
            assert!(error.is_none(), "{error:?}");
            true
        }
        _ => false,
    });
    assert!(reader.join().unwrap() == all, "bytes lost, doubled or out of order");
}

/// The kernel's answer to a send out of the arena that the socket takes in part is the count that it took, and the
/// rest follows, with `Drained` once it has gone. Method: one send larger than any socket buffer, alone in its turn.
#[test]
fn a_partial_send_goes_on_where_it_stopped() {
    let all = pattern(MORE_THAN_SOCKETS_HOLD);
    let mut net = Net::new(NetConfig { send_arena_bytes: all.len(), ..config() }).unwrap();
    let (conn, mut stream) = accept_one(&mut net);
    net.send(conn, &all);
    net.turn(Wait::No).unwrap();
    assert_eq!(net.stats().sends_delayed, 1);
    let pending = net.pending_send_bytes(conn);
    assert!(pending > 0 && pending < all.len(), "{pending} bytes are left: not a partial send");
    let len = all.len();
    let reader = thread::spawn(move || {
        let mut read = vec![0; len];
        stream.read_exact(&mut read).unwrap();
        (read, stream)
    });
    drive(&mut net, |_, event| matches!(event, Event::Drained { .. }));
    assert_eq!(net.pending_send_bytes(conn), 0);
    // And then the fast way again.
    net.send(conn, b"!");
    net.turn(Wait::No).unwrap();
    let (read, mut stream) = reader.join().unwrap();
    assert!(read == all);
    let mut last = [0];
    stream.read_exact(&mut last).unwrap();
    assert_eq!(&last, b"!");
}

/// All three ways of sending in one turn, the first of them cut short by the socket: the others stay behind its rest.
#[test]
fn a_short_send_stays_ahead_of_what_was_sent_after_it() {
    let first = MORE_THAN_SOCKETS_HOLD;
    let all = pattern(first + (1 << 20));
    let mut net = Net::new(NetConfig { send_arena_bytes: all.len(), ..config() }).unwrap();
    let (conn, mut stream) = accept_one(&mut net);
    net.send(conn, &all[..first]);
    net.send_owned(conn, all[first..all.len() - 9].to_vec());
    net.send(conn, &all[all.len() - 9..]);
    net.close(conn);
    // Submitted while nobody reads: a reader that keeps up would let the socket take everything at once.
    net.turn(Wait::No).unwrap();
    assert!(net.stats().sends_delayed > 0, "the socket took everything at once: {:?}", net.stats());
    let reader = thread::spawn(move || {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        read
    });
    drive(&mut net, |_, event| matches!(event, Event::Closed { error: None, .. }));
    assert!(reader.join().unwrap() == all, "bytes lost, doubled or out of order");
}

/// Sends of several connections mixed within one turn, far more than the submission queue holds: each stream keeps
/// its order, and success costs no completion.
#[test]
fn mixed_sends_of_one_turn_keep_each_streams_order() {
    let mut net = Net::new(NetConfig { submissions: 4, ..config() }).unwrap();
    let addr = net.listen(LOOPBACK, 64).unwrap();
    let peers = thread::spawn(move || (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect::<Vec<_>>());
    let mut conns = HashMap::new();
    drive(&mut net, |_, event| {
        if let Event::Accepted { conn, peer } = event {
            conns.insert(peer, conn);
        }
        conns.len() == 20
    });
    let before = net.stats();
    for round in 0..50 {
        for (peer, conn) in &conns {
            net.send_with(*conn, |out| write!(out, "{}:{round};", peer.port()).unwrap());
            net.send(*conn, b".");
        }
    }
    net.turn(Wait::No).unwrap();
    assert_eq!(net.stats().completions, before.completions, "a send that succeeds says nothing");
    assert!(net.stats().enters_extra > before.enters_extra);
    for mut stream in peers.join().unwrap() {
        let port = stream.local_addr().unwrap().port();
        let expected: String = (0..50).map(|round| format!("{port}:{round};.")).collect();
        let mut read = vec![0; expected.len()];
        stream.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), expected);
    }
}

/// An answer and a close in one turn, with nothing else going on: the peer has both although no completion comes.
#[test]
fn close_after_a_send_needs_no_further_event() {
    let mut net = Net::new(config()).unwrap();
    let (conn, mut stream) = accept_one(&mut net);
    let reader = thread::spawn(move || {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        read
    });
    net.send(conn, b"last words");
    net.close(conn);
    drive(&mut net, |_, event| matches!(event, Event::Closed { error: None, .. }));
    net.turn(Wait::No).unwrap();
    assert_eq!(reader.join().unwrap(), b"last words");
}

/// A lingering close: the peer still sends, and can read the answer to its end all the same.
#[test]
fn a_lingering_close_lets_the_peer_read_the_answer() {
    let mut net = Net::new(NetConfig { linger_timeout: PATIENCE, ..config() }).unwrap();
    let (conn, mut stream) = accept_one(&mut net);
    let peer = thread::spawn(move || {
        // Far more than sockets buffer, so that closing at once would reset the connection.
        stream.write_all(&pattern(8 << 20)).unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        read
    });
    let mut refused = false;
    drive(&mut net, |net, event| match event {
        Event::Received { buf, .. } => {
            assert!(!refused, "bytes after the close");
            refused = true;
            net.release(buf);
            net.send(conn, b"too large");
            net.close_lingering(conn);
            false
        }
        Event::Closed { error, .. } => {
            assert!(error.is_none());
            true
        }
        event => panic!("{event:?}"),
    });
    assert_eq!(peer.join().unwrap(), b"too large");
}

/// A peer that never ends cannot hold a lingering connection open.
#[test]
fn lingering_ends_with_its_time() {
    let linger_timeout = Duration::from_millis(20);
    let mut net = Net::new(NetConfig { linger_timeout, ..config() }).unwrap();
    let (conn, stream) = accept_one(&mut net);
    net.close_lingering(conn);
    drive(&mut net, |_, event| matches!(event, Event::Closed { error: None, .. }));
    drop(stream);
}

/// A peer that takes nothing for the time allowed is closed, and said to have timed out.
#[test]
fn a_send_without_progress_closes_the_connection() {
    let send_timeout = Duration::from_millis(40);
    let mut net = Net::new(NetConfig { send_timeout, ..config() }).unwrap();
    let (conn, stream) = accept_one(&mut net);
    net.send_owned(conn, pattern(MORE_THAN_SOCKETS_HOLD));
    drive(&mut net, |_, event| match event {
        Event::Closed { error: Some(error), .. } => {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            true
        }
        event => panic!("{event:?}"),
    });
    assert_eq!(net.stats().sends_timed_out, 1);
    // The slot is free once the send was cancelled.
    turn_until(&mut net, |net| net.connections() == 0);
    drop(stream);
}

/// A slot that is used again takes none of its predecessor's bytes. Method: one slot; each peer writes its own
/// number many times over and is closed upon the first bytes, with more of them in flight and in the event queue.
#[test]
fn a_reused_slot_never_hears_its_predecessor() {
    let mut net = Net::new(NetConfig { connections_max: 1, recv_buffer_bytes: 128, ..config() }).unwrap();
    let addr = net.listen(LOOPBACK, 64).unwrap();
    let peers = thread::spawn(move || {
        for number in 0..100_u8 {
            let mut stream = TcpStream::connect(addr).unwrap();
            // The other side closes in the middle of this: failing is fine.
            let _ = stream.write_all(&[number; 5000]);
            let _ = stream.read(&mut [0; 1]);
        }
    });
    let mut next = 0_u8;
    let mut current = None;
    let mut ids = HashSet::new();
    drive(&mut net, |net, event| {
        match event {
            Event::Accepted { conn, .. } => {
                assert!(ids.insert(conn), "an id came twice");
                assert_eq!(current.replace(conn), None);
            }
            Event::Received { conn, buf } => {
                assert_eq!(current, Some(conn), "bytes of a connection that was closed");
                assert!(net.bytes(&buf).iter().all(|&byte| byte == next), "a predecessor's bytes");
                net.release(buf);
                net.close_now(conn);
                net.send(conn, b"to nobody");
            }
            Event::Closed { conn, .. } => {
                assert_eq!(current.take(), Some(conn));
                next += 1;
            }
            event => panic!("{event:?}"),
        }
        next == 100
    });
    peers.join().unwrap();
    // One peer's bytes fill 40 of 64 buffers: running out would mean that some never came back.
    assert_eq!(net.stats().buffers_exhausted, 0, "buffers were lost");
}

/// Paused, a connection is not read from; resumed, nothing is missing.
#[test]
fn pause_holds_bytes_back_and_resume_brings_them() {
    let mut net = Net::new(config()).unwrap();
    let (conn, mut stream) = accept_one(&mut net);
    net.pause_receive(conn);
    settle(&mut net, |_, event| panic!("{event:?}"));
    stream.write_all(b"held back").unwrap();
    settle(&mut net, |_, event| panic!("{event:?}"));
    // In one turn: on, off, on again.
    net.resume_receive(conn);
    net.pause_receive(conn);
    net.resume_receive(conn);
    let mut bytes = Vec::new();
    drive(&mut net, |net, event| {
        if let Event::Received { buf, .. } = event {
            bytes.extend_from_slice(net.bytes(&buf));
            net.release(buf);
        }
        bytes == b"held back"
    });
    stream.shutdown(Shutdown::Write).unwrap();
    drive(&mut net, |_, event| matches!(event, Event::EndOfStream { .. }));
}

/// A peer's reset is the connection's end, with the error.
#[test]
fn a_reset_closes_with_its_error() {
    let mut net = Net::new(config()).unwrap();
    let (conn, stream) = accept_one(&mut net);
    net.send(conn, b"unread");
    net.turn(Wait::No).unwrap();
    // Closing with unread bytes resets; wait until they are there.
    stream.peek(&mut [0; 1]).unwrap();
    drop(stream);
    drive(&mut net, |_, event| match event {
        Event::Closed { error: Some(error), .. } => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            true
        }
        event => panic!("{event:?}"),
    });
    assert_eq!(net.connections(), 0);
}

/// The bound on connections leaves the rest in the backlog, and each close lets one in.
#[test]
fn a_full_table_leaves_connections_in_the_backlog() {
    let mut net = Net::new(NetConfig { connections_max: 3, accepts_max: 2, ..config() }).unwrap();
    let addr = net.listen(LOOPBACK, 16).unwrap();
    let peers: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut open = Vec::new();
    drive(&mut net, |_, event| match event {
        Event::Accepted { conn, .. } => {
            open.push(conn);
            open.len() == 3
        }
        event => panic!("{event:?}"),
    });
    settle(&mut net, |_, event| panic!("{event:?}"));
    assert_eq!((net.connections(), net.stats().accepts_held), (3, 1));
    for conn in open {
        net.close(conn);
    }
    let mut late = 0;
    drive(&mut net, |_, event| {
        late += usize::from(matches!(event, Event::Accepted { .. }));
        late == 2
    });
    assert_eq!(net.connections(), 2);
    drop(peers);
}

/// After `stop_listening` nobody connects, and what is open goes on.
#[test]
fn a_stopped_listener_refuses_and_keeps_what_is_open() {
    let mut net = Net::new(config()).unwrap();
    let (conn, mut stream) = accept_one(&mut net);
    net.stop_listening();
    settle(&mut net, |_, event| panic!("{event:?}"));
    assert!(
        TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, stream.peer_addr().unwrap().port())))
            .is_err()
    );
    net.send(conn, b"still here");
    net.turn(Wait::No).unwrap();
    let mut read = [0; 10];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"still here");
    // And it may listen again.
    net.listen(LOOPBACK, 1).unwrap();
}

/// As a client: from a chosen source address, both ways, beside a server in the same `Net`.
#[test]
fn connects_from_a_chosen_address() {
    let mut net = Net::new(config()).unwrap();
    let addr = net.listen(LOOPBACK, 16).unwrap();
    let sources: Vec<SocketAddr> = (2..6).map(|last| SocketAddr::from(([127, 0, 0, last], 0))).collect();
    let clients: Vec<ConnId> =
        sources.iter().map(|source| net.connect(addr, Some(*source)).unwrap()).collect();
    let mut from = HashSet::new();
    let mut answers = 0;
    drive(&mut net, |net, event| {
        match event {
            Event::Connected { conn } => net.send(conn, b"?"),
            Event::Accepted { peer, .. } => {
                from.insert(peer.ip());
            }
            Event::Received { conn, buf } => {
                let bytes = net.bytes(&buf).to_vec();
                net.release(buf);
                match &bytes[..] {
                    b"?" => net.send(conn, b"!"),
                    b"!" => answers += usize::from(clients.contains(&conn)),
                    other => panic!("{other:?}"),
                }
            }
            event => panic!("{event:?}"),
        }
        answers == 4
    });
    assert_eq!(from, sources.iter().map(SocketAddr::ip).collect());
}

/// A refused connect says so once, and its slot can be used again.
#[test]
fn a_refused_connect_is_told() {
    let mut net = Net::new(NetConfig { connections_max: 1, ..config() }).unwrap();
    let unused = probe_port(loopback(21)).unwrap();
    for _ in 0..3 {
        let wanted = net.connect(unused, None).unwrap();
        assert!(matches!(net.connect(unused, None), Err(NetError::ConnectionsFull { connections_max: 1 })));
        drive(&mut net, |_, event| match event {
            Event::ConnectFailed { conn, error } => {
                assert_eq!((conn, error.kind()), (wanted, io::ErrorKind::ConnectionRefused));
                true
            }
            event => panic!("{event:?}"),
        });
        net.turn(Wait::No).unwrap();
    }
}

/// A port that somebody listens on is noticed even if they would share it, and port 0 becomes one that loops share.
#[test]
fn a_taken_port_is_noticed() {
    let taken = TcpListener::bind(LOOPBACK).unwrap();
    let Err(NetError::Listen { source, .. }) = probe_port(taken.local_addr().unwrap()) else {
        panic!("not noticed")
    };
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);

    let port = probe_port(loopback(22)).unwrap();
    assert_ne!(port.port(), 0);
    let (mut first, mut second) = (Net::new(config()).unwrap(), Net::new(config()).unwrap());
    assert_eq!(first.listen(port, 16).unwrap(), port);
    assert_eq!(second.listen(port, 16).unwrap(), port);
    let Err(NetError::Listen { source, .. }) = probe_port(port) else { panic!("a shared port looks free") };
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
}

/// A waiting turn ends at the moment it was given, not early, with nothing to tell.
#[test]
fn a_wait_ends_at_its_moment() {
    let mut net = Net::new(config()).unwrap();
    let at = Instant::now() + Duration::from_millis(10);
    net.turn(Wait::Until(at)).unwrap();
    assert!(net.now() >= at);
    assert!(net.next_event().is_none());
}

/// Another thread's eight bytes end a waiting turn, every time. (A pipe stands in for the bell's eventfd.)
#[test]
fn the_bell_ends_a_waiting_turn() {
    let mut net = Net::new(config()).unwrap();
    let (reader, mut writer) = io::pipe().unwrap();
    net.wake_on(reader.as_fd()).unwrap();
    assert!(matches!(net.wake_on(reader.as_fd()), Err(NetError::Wake(_))));
    drop(reader);
    for _ in 0..3 {
        let ringer = thread::spawn(move || {
            writer.write_all(&1_u64.to_ne_bytes()).unwrap();
            writer
        });
        drive(&mut net, |_, event| matches!(event, Event::Woken));
        writer = ringer.join().unwrap();
    }
    // A bell that can never ring again is an error, not a spin.
    drop(writer);
    assert!(net.turn(Wait::Block).is_err());
}

/// The same with the real bell: rung while the loop sleeps, by a thread that saw it asleep.
#[test]
fn a_loop_sleeps_on_its_bell() {
    let mut net = Net::new(config()).unwrap();
    let bell = Arc::new(Bell::new().unwrap());
    net.wake_on(bell.as_fd()).unwrap();
    for _ in 0..3 {
        bell.prepare_sleep();
        let ringer = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || assert!(bell.ring()))
        };
        drive(&mut net, |_, event| matches!(event, Event::Woken));
        bell.awake();
        ringer.join().unwrap();
        assert!(!bell.ring(), "nobody sleeps");
    }
}

/// A buffer of one ring opens no memory of another.
#[test]
#[should_panic(expected = "another ring")]
fn a_foreign_buffer_is_a_bug() {
    let (mut net, mut other) = (Net::new(config()).unwrap(), Net::new(config()).unwrap());
    let (_, mut stream) = accept_one(&mut net);
    stream.write_all(b"ours").unwrap();
    drive(&mut net, |_, event| match event {
        Event::Received { buf, .. } => {
            other.release(buf);
            true
        }
        event => panic!("{event:?}"),
    });
}

/// A sync answers under its token; one that the kernel refuses brings the error.
#[test]
fn syncs_answer_under_their_token() {
    let mut net = Net::new(config()).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"frame").unwrap();
    let (reader, _writer) = io::pipe().unwrap();
    net.sync_data(file.as_fd(), u64::MAX);
    net.sync_data(reader.as_fd(), 7);
    let mut results = HashMap::new();
    drive(&mut net, |_, event| {
        if let Event::Synced { token, result } = event {
            results.insert(token, result.is_ok());
        }
        results.len() == 2
    });
    assert_eq!(results, HashMap::from([(u64::MAX, true), (7, false)]));
}

/// A configuration out of bounds, or beyond what the process may have, is refused with what to do.
#[test]
fn impossible_sizes_are_refused() {
    for bad in [
        NetConfig { recv_buffers: 3, ..config() },
        NetConfig { connections_max: 0, ..config() },
        NetConfig { accepts_max: 0, ..config() },
        NetConfig { completions: 1, ..config() },
    ] {
        assert!(matches!(Net::new(bad), Err(NetError::Config(_))));
    }
    // More than the kernel's own bound on a file table, whatever the limit of this process is.
    let Err(error) = Net::new(NetConfig { connections_max: 200_000_000, ..config() }) else { panic!("made") };
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}

/// Dropping a `Net` with everything under way (a large send, receives, accepts, a bell) returns and frees its port.
#[test]
fn dropping_ends_what_is_under_way() {
    let mut net = Net::new(config()).unwrap();
    let (conn, stream) = accept_one(&mut net);
    let (reader, _writer) = io::pipe().unwrap();
    net.wake_on(reader.as_fd()).unwrap();
    net.send_owned(conn, pattern(16 << 20));
    net.turn(Wait::No).unwrap();
    net.send(conn, b"never submitted");
    let port = stream.peer_addr().unwrap();
    drop(net);
    // Our side of the connection is gone; the peer sees the end, after whatever had been sent.
    let mut stream = stream;
    let _ = io::copy(&mut stream, &mut io::sink());
    drop(stream);
    // The kernel takes a ring apart in its own time, and the listener's last reference with it.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = probe_port(port) {
        assert!(Instant::now() < deadline, "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}
