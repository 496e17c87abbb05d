//! Bytes that go out: in order, whatever the pace of the peer.

use super::*;

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
