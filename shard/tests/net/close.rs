//! Ends of connections, and of a `Net`.

use super::*;

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

/// A connection is not ended by the late end of the one that had its slot before: the kernel ends our direction of a
/// lingering one on a thread of its own, which may run when that one is closed already.
/// Method: few slots; crowds of peers are gone as soon as they have their answers, and further ones want theirs.
#[test]
fn a_reused_slot_is_not_ended_with_its_predecessor() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 10;
    const CROWD: usize = 100;
    let mut net = Net::new(NetConfig { connections_max: 100, ..config() }).unwrap();
    let addr = net.listen(LOOPBACK, 1024).unwrap();
    let crowds = || {
        for _ in 0..ROUNDS {
            let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| TcpStream::connect(addr).unwrap()).collect();
            crowd.iter_mut().for_each(|stream| stream.write_all(b"?").unwrap());
            crowd.into_iter().for_each(|mut stream| stream.read_exact(&mut [0]).unwrap());
        }
    };
    thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(crowds)));
        let mut closed = 0;
        drive(&mut net, |net, event| {
            match event {
                Event::Received { conn, buf } => {
                    net.release(buf);
                    net.send(conn, b"!");
                    net.close_lingering(conn);
                }
                Event::Closed { .. } => closed += 1,
                _ => {}
            }
            closed == THREADS * ROUNDS * CROWD
        });
    });
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
    while let Err(error) = ClaimedPort::claim(port) {
        assert!(Instant::now() < deadline, "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}
