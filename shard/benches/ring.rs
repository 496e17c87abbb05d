//! What a message costs between two threads: the ring, batched and not, beside std's bounded channel.
//!
//! Expected, before the first run: one moved cache line per message at most, so 2 to 7 ns batched on two cores of one
//! socket (the sketch: 2.1 to 2.7); std's channel takes two contended atomics a message, so ten times that.
//! The right answer: every message arrives, in order; a checksum says so, and a wrong one fails the run.
//!
//! `cargo bench -p shard --bench ring` measures; under `cargo test` it runs small and only checks.

use shard::ring::ring;
use std::{env, hint, sync::mpsc, thread, time::Instant};

/// The size of a message that carries a batch by pointer, with a stamp.
type Message = [u64; 4];

const PLACES: usize = 1_024;
const ROUNDS: usize = 5;

fn main() {
    // `cargo bench` says so; `cargo test --benches` does not.
    let (messages, rounds) =
        if env::args().any(|arg| arg == "--bench") { (10_000_000, ROUNDS) } else { (20_000, 1) };
    for batch in [1, 8, 64] {
        report(&format!("ring, {batch} a publish"), rounds, messages, || through_ring(messages, batch));
    }
    report("ring, one thread", rounds, messages, || on_one_thread(messages));
    report("std sync_channel", rounds, messages / 4, || through_channel(messages / 4));
}

fn report(name: &str, rounds: usize, messages: u64, run: impl Fn() -> u64) {
    let mut nanos: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let checksum = run();
            let elapsed = start.elapsed();
            assert_eq!(checksum, expected(messages), "{name} lost or changed a message");
            elapsed.as_nanos() as f64 / messages as f64
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    println!("{name:24} {:7.2} ns a message, median of {rounds}; best {:.2}", nanos[rounds / 2], nanos[0]);
}

/// Order counts: each message is weighted by when it came.
fn add(checksum: u64, message: &Message) -> u64 {
    checksum.wrapping_mul(31).wrapping_add(message[0])
}

fn expected(messages: u64) -> u64 {
    (0..messages).fold(0, |checksum, number| add(checksum, &[number, 0, 0, 0]))
}

fn on_last_core<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(|| {
        pin(usize::MAX);
        work()
    })
}

fn pin(index: usize) {
    let allowed = shard::topology::discover().map(|found| found.allowed).unwrap_or_default();
    if let Some(core) = allowed.get(index.min(allowed.len().saturating_sub(1))) {
        // Unpinned the figures scatter more; they are still right.
        let _ = shard::topology::pin(*core);
    }
}

/// Spins, and gives the core away now and then: on a busy machine the other side may not be running at all.
fn wait(spins: &mut u32) {
    *spins = spins.wrapping_add(1);
    if spins.is_multiple_of(1_024) {
        thread::yield_now();
    } else {
        hint::spin_loop();
    }
}

fn through_ring(messages: u64, batch: u64) -> u64 {
    let (mut producer, mut consumer) = ring::<Message>(PLACES);
    let receiver = on_last_core(move || {
        let (mut checksum, mut left, mut spins) = (0, messages, 0);
        while left > 0 {
            match consumer.pop() {
                Some(message) => {
                    checksum = add(checksum, &message);
                    left -= 1;
                }
                None => wait(&mut spins),
            }
        }
        checksum
    });
    let sender = thread::spawn(move || {
        pin(0);
        let (mut next, mut spins) = (0, 0);
        while next < messages {
            let count = batch.min(messages - next);
            while !producer.has_free(count as usize) {
                wait(&mut spins);
            }
            for number in next..next + count {
                producer.push([number, 1, 2, 3]).expect("the places were free");
            }
            producer.publish();
            next += count;
        }
    });
    sender.join().expect("the sender does not panic");
    receiver.join().expect("the receiver does not panic")
}

/// The instructions alone, without a cache line that moves: the figure that holds on a busy machine.
fn on_one_thread(messages: u64) -> u64 {
    let (mut producer, mut consumer) = ring::<Message>(PLACES);
    let (mut checksum, mut next) = (0, 0);
    while next < messages {
        let count = 64.min(messages - next);
        for number in next..next + count {
            producer.push([number, 1, 2, 3]).expect("the ring was empty");
        }
        producer.publish();
        while let Some(message) = consumer.pop() {
            checksum = add(checksum, &message);
        }
        next += count;
    }
    checksum
}

fn through_channel(messages: u64) -> u64 {
    let (sender, receiver) = mpsc::sync_channel::<Message>(PLACES);
    let receiver = on_last_core(move || receiver.iter().fold(0, |checksum, message| add(checksum, &message)));
    let sender = thread::spawn(move || {
        pin(0);
        for number in 0..messages {
            sender.send([number, 1, 2, 3]).expect("the receiver waits for all");
        }
    });
    sender.join().expect("the sender does not panic");
    receiver.join().expect("the receiver does not panic")
}
