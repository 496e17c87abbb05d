//! What ends a turn's wait, and what a turn is given.

use super::*;

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

/// A loop that polls network cards serves sockets that have none (here over loopback), and a kernel that cannot poll is
/// named.
#[test]
fn polling_the_card_leaves_sockets_without_one_as_they_are() {
    let busy_poll = Duration::from_micros(50);
    let mut net = match Net::new(NetConfig { busy_poll, ..config() }) {
        Ok(net) => net,
        Err(error) => return assert!(error.to_string().contains("CONFIG_NET_RX_BUSY_POLL"), "{error}"),
    };
    let addr = net.listen(LOOPBACK, 4).unwrap();
    let peer = thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        for _ in 0..3 {
            stream.write_all(b"?").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    });
    let mut answered = 0;
    drive(&mut net, |net, event| {
        if let Event::Received { conn, buf } = event {
            net.release(buf);
            net.send(conn, b"!");
            answered += 1;
        }
        answered == 3
    });
    peer.join().unwrap();
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
        NetConfig { accepts_min: 0, ..config() },
        NetConfig { completions: 1, ..config() },
    ] {
        assert!(matches!(Net::new(bad), Err(NetError::Config(_))));
    }
    // More than the kernel's own bound on a file table, whatever the limit of this process is.
    let Err(error) = Net::new(NetConfig { connections_max: 200_000_000, ..config() }) else { panic!("made") };
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}
