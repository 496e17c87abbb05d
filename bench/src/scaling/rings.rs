//! What a value costs on its way through one of N rings, and what it costs to look at N rings: a mesh has one from each
//! shard to each, and a receiver takes the value with the earliest stamp of all its senders.

use super::Effort;
use serde::Serialize;
use shard::bell::Bell;
use shard::mesh::{Inbox, Outbox, mesh};
use std::hint::{self, black_box};
use std::thread;
use std::time::Instant;

/// As large as what the server sends: a pointer, a stamp, and which of its messages it is.
type Value = [u64; 4];

/// As the server's rings to executors.
const PLACES: usize = 256;
/// Places that the server wants free before it takes a body.
const LOOKED_FOR: usize = 65;

/// As many rings to one receiver as so many shards have.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct OfShards {
    pub shards: usize,
    /// One thread sends a value through each ring and takes them: the instructions, with everything in its cache.
    pub ns_a_value_one_core: f64,
    /// One thread sends for all, another one on another core takes.
    pub ns_a_value_two_cores: f64,
    /// Whether all rings of one sender have room.
    pub ns_a_look: f64,
}

pub(super) fn measure(shards: usize, effort: &Effort) -> OfShards {
    let least =
        |round: &dyn Fn() -> f64| (0..effort.ring_rounds).map(|_| round()).fold(f64::INFINITY, f64::min);
    OfShards {
        shards,
        ns_a_value_one_core: least(&|| on_one_core(shards, effort)),
        ns_a_value_two_cores: least(&|| on_two_cores(shards, effort)),
        ns_a_look: least(&|| look(shards, effort)),
    }
}

/// To one receiver.
fn rings(shards: usize) -> (Vec<Outbox<Value>>, Inbox<Value>) {
    let bell = Bell::new().expect("a process that begins has a descriptor left");
    let (outboxes, mut inboxes) = mesh(shards, &[bell], PLACES);
    (outboxes, inboxes.pop().expect("one bell has one inbox"))
}

/// Numbers from 0 on through the rings in turns, as far as there is room in each.
fn send(outbox: &mut Outbox<Value>, number: u64) -> bool {
    let is_sent = outbox.to(0).push([number, 0, 0, 0]).is_ok();
    outbox.publish_all();
    is_sent
}

fn take(inbox: &mut Inbox<Value>) -> Option<u64> {
    inbox.pop_earliest(|value| value[0], &u64::MAX).map(|(_, value)| value[0])
}

fn on_one_core(shards: usize, effort: &Effort) -> f64 {
    pin_this(effort.cores[0]);
    let (mut outboxes, mut inbox) = rings(shards);
    let rounds = effort.values.div_ceil(shards as u64);
    let begun_at = Instant::now();
    let mut next = 0;
    for _ in 0..rounds {
        let first = next;
        for outbox in &mut outboxes {
            assert!(send(outbox, next), "every ring was emptied");
            next += 1;
        }
        for expected in first..next {
            assert_eq!(take(&mut inbox), Some(expected), "the earliest of all senders");
        }
    }
    begun_at.elapsed().as_nanos() as f64 / next as f64
}

fn on_two_cores(shards: usize, effort: &Effort) -> f64 {
    let (mut outboxes, mut inbox) = rings(shards);
    let (values, sender_core) = (effort.values, effort.cores[1]);
    pin_this(effort.cores[0]);
    let begun_at = Instant::now();
    let sum = thread::scope(|scope| {
        scope.spawn(move || {
            pin_this(sender_core);
            let mut spins = 0;
            for number in 0..values {
                let outbox = &mut outboxes[number as usize % shards];
                while !send(outbox, number) {
                    wait(&mut spins);
                }
            }
        });
        let (mut sum, mut left, mut spins) = (0_u64, values, 0);
        while left > 0 {
            match take(&mut inbox) {
                Some(number) => {
                    sum = sum.wrapping_add(number);
                    left -= 1;
                }
                None => wait(&mut spins),
            }
        }
        sum
    });
    let took = begun_at.elapsed();
    assert_eq!(sum, (0..values).fold(0, u64::wrapping_add), "every value arrives once");
    took.as_nanos() as f64 / values as f64
}

fn look(shards: usize, effort: &Effort) -> f64 {
    pin_this(effort.cores[0]);
    let bells: Vec<Bell> = (0..shards).map(|_| Bell::new().expect("64 descriptors are no many")).collect();
    let (mut outboxes, _inboxes) = mesh::<Value>(1, &bells, PLACES);
    let outbox = &mut outboxes[0];
    let looks = effort.values.div_ceil(shards as u64);
    let begun_at = Instant::now();
    for _ in 0..looks {
        let all = (0..shards).all(|owner| black_box(outbox.to(owner)).has_free(LOOKED_FOR));
        assert!(all, "nothing was sent");
    }
    begun_at.elapsed().as_nanos() as f64 / looks as f64
}

/// Unpinned the figures scatter more; they are still right.
fn pin_this(core: Option<usize>) {
    let _ = crate::pin(core);
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
