//! Beginnings of connections, either way.

use super::*;

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
    let claimed = ClaimedPort::claim(loopback(21)).unwrap();
    let unused = claimed.addr();
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
    is_taken(taken.local_addr().unwrap());

    let claimed = ClaimedPort::claim(loopback(22)).unwrap();
    let port = claimed.addr();
    assert_ne!(port.port(), 0);
    let (mut first, mut second) = (Net::new(config()).unwrap(), Net::new(config()).unwrap());
    assert_eq!(first.listen(port, 16).unwrap(), port);
    assert_eq!(second.listen(port, 16).unwrap(), port);
    drop(claimed);
    is_taken(port);
}

/// Two servers that start at the same moment do not share a port: it is taken before anybody listens, and the claim
/// takes no connections.
#[test]
fn a_claimed_port_is_nobody_elses_before_anybody_listens() {
    let claimed = ClaimedPort::claim(loopback(23)).unwrap();
    let port = claimed.addr();
    is_taken(port);
    assert_eq!(TcpListener::bind(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(TcpStream::connect(port).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    drop(claimed);
    ClaimedPort::claim(port).unwrap();
}

fn is_taken(port: SocketAddr) {
    let Err(NetError::Listen { source, .. }) = ClaimedPort::claim(port) else { panic!("{port} looks free") };
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
}
