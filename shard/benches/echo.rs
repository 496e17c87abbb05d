//! What the sockets alone cost: one loop answers every request of fixed size with a fixed response, closed loop, one
//! request in flight per connection; the generator is a `Net` too.
//!
//! Expected, before the first run: 4 to 5 µs of the server's CPU a request, nearly all of it the kernel's loopback TCP
//! (DESIGN §2, D5), and 0.03 to 0.04 system calls a request at 1,000 connections.
//! The right answer: as many whole responses as requests, on every connection. At 1,000 connections the server makes
//! at most 0.1 system calls a request, or the run fails. Idle, a connection costs the process less than 256 bytes.
//!
//! `cargo bench -p shard --bench echo` measures (server on the first core, generator on the second);
//! under `cargo test` it runs small and only checks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use shard::net::{Event, Net, NetConfig, NetStats, Wait};

/// A one-sample JSON request's size, and its answer's.
const REQUEST: &[u8] = &[b'q'; 152];
const RESPONSE: &[u8] = &[b'a'; 44];

fn main() {
    let full = env::args().any(|arg| arg == "--bench");
    let cases: &[usize] = if full { &[1, 64, 1_000, 8_000] } else { &[1, 64] };
    let time = if full { Duration::from_secs(3) } else { Duration::from_millis(50) };
    println!(
        "connections  requests/s  server µs/request  busy  enters/request  completions/request  idle B/conn"
    );
    for &connections in cases {
        run(connections, time, full);
    }
}

/// What the server's thread has to tell.
struct Served {
    requests: u64,
    stats: NetStats,
    cpu: Duration,
    wall: Duration,
}

fn run(connections: usize, time: Duration, measured: bool) {
    let stop = Arc::new(AtomicBool::new(false));
    let measuring = Arc::new(AtomicBool::new(false));
    let (address, listening) = mpsc::channel();
    let server = {
        let (stop, measuring) = (Arc::clone(&stop), Arc::clone(&measuring));
        thread::spawn(move || serve(connections, address, &stop, &measuring))
    };
    let addr = listening.recv().expect("the server's thread listens before it ends");
    pin(1);
    let idle_bytes = generate(addr, connections, time, &measuring);
    stop.store(true, Ordering::Relaxed);
    let served = server.join().expect("the server's thread does not panic");
    let requests = served.requests as f64;
    let enters = served.stats.enters as f64 / requests;
    println!(
        "{connections:11}  {:10.0}  {:17.2}  {:3.0}%  {enters:14.4}  {:19.3}  {idle_bytes:11.0}",
        requests / served.wall.as_secs_f64(),
        served.cpu.as_secs_f64() * 1e6 / requests,
        100.0 * served.cpu.as_secs_f64() / served.wall.as_secs_f64(),
        served.stats.completions as f64 / requests,
    );
    if measured && connections == 1_000 {
        assert!(enters <= 0.1, "{enters} system calls a request");
    }
}

fn config(connections: usize) -> NetConfig {
    NetConfig {
        connections_max: connections as u32 + 1,
        completions: 16_384,
        submissions: 4096,
        ..NetConfig::default()
    }
}

fn serve(
    connections: usize,
    address: Sender<SocketAddr>,
    stop: &AtomicBool,
    measuring: &AtomicBool,
) -> Served {
    pin(0);
    let mut net = Net::new(config(connections)).expect("a ring of this size");
    address
        .send(net.listen(([127, 0, 0, 1], 0).into(), 4096).expect("a free port"))
        .expect("the caller waits");
    let mut partial = vec![0_usize; connections + 256];
    let mut requests = 0;
    let mut base = None;
    while !stop.load(Ordering::Relaxed) {
        net.turn(Wait::Until(Instant::now() + Duration::from_millis(100))).expect("a working ring");
        if base.is_none() && measuring.load(Ordering::Relaxed) {
            base = Some((net.stats(), thread_cpu(), Instant::now()));
            requests = 0;
        }
        while let Some(event) = net.next_event() {
            match event {
                Event::Received { conn, buf } => {
                    let bytes = net.bytes(&buf);
                    assert!(bytes.iter().all(|&byte| byte == b'q'));
                    let whole = &mut partial[conn.index()];
                    *whole += bytes.len();
                    net.release(buf);
                    while *whole >= REQUEST.len() {
                        *whole -= REQUEST.len();
                        requests += 1;
                        net.send(conn, RESPONSE);
                    }
                }
                Event::EndOfStream { conn } => net.close(conn),
                _ => {}
            }
        }
    }
    let (stats, cpu, start) = base.expect("measuring begins before the end");
    let now = net.stats();
    let stats = NetStats {
        enters: now.enters - stats.enters,
        completions: now.completions - stats.completions,
        ..now
    };
    Served { requests, stats, cpu: thread_cpu() - cpu, wall: start.elapsed() }
}

/// Opens the connections, measures what they cost idle, and keeps one request in flight on each.
fn generate(addr: SocketAddr, connections: usize, time: Duration, measuring: &AtomicBool) -> f64 {
    let mut net = Net::new(config(connections)).expect("a ring of this size");
    let mut left = vec![0_usize; connections + 256];
    let mut conns = Vec::with_capacity(connections);
    let before = resident_bytes();
    while conns.len() < connections {
        for _ in 0..64.min(connections - conns.len()) {
            net.connect(addr, None).expect("a free slot");
        }
        let target = (conns.len() + 64).min(connections);
        while conns.len() < target {
            net.turn(Wait::Block).expect("a working ring");
            while let Some(event) = net.next_event() {
                match event {
                    Event::Connected { conn } => conns.push(conn),
                    event => panic!("{event:?}"),
                }
            }
        }
    }
    thread::sleep(Duration::from_millis(200));
    let idle_bytes = resident_bytes().saturating_sub(before) as f64 / connections as f64;
    for &conn in &conns {
        left[conn.index()] = RESPONSE.len();
        net.send(conn, REQUEST);
    }
    let start = Instant::now();
    let mut ending = 0;
    while ending < connections {
        net.turn(Wait::Block).expect("a working ring");
        let over = net.now() >= start + time;
        if net.now() >= start + time / 4 {
            measuring.store(true, Ordering::Relaxed);
        }
        while let Some(event) = net.next_event() {
            match event {
                Event::Received { conn, buf } => {
                    let len = buf.len();
                    net.release(buf);
                    let missing = &mut left[conn.index()];
                    *missing = missing.checked_sub(len).expect("no more than one response a request");
                    if *missing == 0 && over {
                        ending += 1;
                    } else if *missing == 0 {
                        *missing = RESPONSE.len();
                        net.send(conn, REQUEST);
                    }
                }
                // Thousands at once may press on the kernel's socket memory; the send went the slow way.
                Event::Drained { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    }
    idle_bytes
}

fn pin(place: usize) {
    if let Some(core) = core_affinity::get_core_ids().and_then(|cores| cores.get(place).copied()) {
        core_affinity::set_for_current(core);
    }
}

fn thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
