//! Bytes that come in: nothing is lost, whatever the pace of the loop.

use super::*;

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
