//! A bounded ring of owned values from one thread to one other: the only road between two threads of a shard.
//!
//! Owner: the producer's thread writes `tail`, the consumer's thread writes `head`; each keeps a copy of the
//! other's counter and looks at the shared one only when its copy says full or empty.
//! Always: `head ≤ tail ≤ head + places` (counters wrap, they are never reset); a place is written only while
//! the producer owns it (`tail..head + places`) and read only while the consumer owns it (`head..tail`).
//! Not here: waking the other side (`bell.rs`), many rings (`mesh.rs`), batching policy (the callers).
//!
//! ```text
//! push      put the value in the next place; nobody else looks there yet
//! publish   tail.store(staged tail, Release)        one store, however many values were staged
//! pop       copy exhausted? tail.load(Acquire); take the value; head.store(head + 1, Release)
//! free      head.load(Acquire); the places behind it are the producer's again
//! ```
//!
//! Messages are whole batches, so `pop` hands its place back at once: a place given back late would only make
//! the producer refuse early. `benches/ring.rs` has the price.
#![allow(unsafe_code)] // a place is handed from thread to thread by two counters, which no safe type expresses

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crossbeam_utils::CachePadded;
use std::{fmt, mem::MaybeUninit};

/// Fewest places of a ring; fewer asked for is rounded up.
pub const RING_PLACES_MIN: usize = 2;

/// loom's cell wants its accesses in closures; this gives the real one the same face.
#[cfg(not(loom))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

struct Shared<T> {
    /// Values ever published; written by the producer alone.
    tail: CachePadded<AtomicUsize>,
    /// Values ever taken; written by the consumer alone.
    head: CachePadded<AtomicUsize>,
    /// Set by the end that goes first.
    closed: AtomicBool,
    places: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: every place belongs to exactly one thread at a time (the counters say which, and change hands by
// release and acquire), so sharing the ring moves values between threads and never aliases them: T: Send suffices.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the ring owns its values.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn place(&self, counter: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // The number of places is a power of two, so the mask also holds where the counter wraps.
        &self.places[counter & (self.places.len() - 1)]
    }

    /// Moves the value out of the place of `counter`.
    ///
    /// # Safety
    /// The place holds a value, the caller's thread owns it, and never reads it again.
    unsafe fn take(&self, counter: usize) -> T {
        // SAFETY: promised by the caller.
        self.place(counter).with(|place| unsafe { (*place).assume_init_read() })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone. What was published after the consumer's last look is still here.
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: head..tail were published and not taken, and nobody else is left.
            drop(unsafe { self.take(head) });
            head = head.wrapping_add(1);
        }
    }
}

/// A ring with at least `places` places, rounded up to a power of two and to [`RING_PLACES_MIN`].
///
/// # Panics
/// If that many places do not fit in memory, as any allocation does.
pub fn ring<T: Send>(places: usize) -> (Producer<T>, Consumer<T>) {
    ring_from(places, 0)
}

/// The counters begin at `start`, so that a test can watch them wrap.
fn ring_from<T: Send>(places: usize, start: usize) -> (Producer<T>, Consumer<T>) {
    let places = places.max(RING_PLACES_MIN).next_power_of_two();
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicUsize::new(start)),
        head: CachePadded::new(AtomicUsize::new(start)),
        closed: AtomicBool::new(false),
        places: (0..places).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer = Producer { shared: shared.clone(), published: start, staged: start, head: start };
    (producer, Consumer { shared, head: start, tail: start })
}

/// The sending end. Lives on one thread; moves there once.
///
/// Dropping it drops what was staged and not published; what was published stays for the consumer.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// The shared tail.
    published: usize,
    /// Where the next pushed value goes.
    staged: usize,
    /// The consumer's head when we last looked: never above the true one, so our idea of free places is never too large.
    head: usize,
}

impl<T> Producer<T> {
    /// Places that can be pushed to now.
    ///
    /// What is free stays free: only this producer uses places up. So a caller may look once, journal, and then push
    /// that many without a refusal.
    pub fn free(&mut self) -> usize {
        self.head = self.shared.head.load(Ordering::Acquire);
        self.capacity() - self.staged.wrapping_sub(self.head)
    }

    /// Whether at least `places` are free. Looks at the other thread's cache line only if the last look does not say yes.
    pub fn has_free(&mut self, places: usize) -> bool {
        self.capacity() - self.staged.wrapping_sub(self.head) >= places || self.free() >= places
    }

    /// Stages `value` behind those pushed before; the consumer sees it after the next [`publish`](Self::publish).
    ///
    /// # Errors
    /// Gives the value back if the ring is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if !self.has_free(1) {
            return Err(value);
        }
        // SAFETY: the place is free, so the consumer took what was there (its head was read with Acquire) and will not
        // look at it again before the tail passes it, which only this producer does.
        self.shared.place(self.staged).with_mut(|place| unsafe {
            (*place).write(value);
        });
        self.staged = self.staged.wrapping_add(1);
        Ok(())
    }

    /// Shows everything staged to the consumer, with one store. Returns how many values that were.
    pub fn publish(&mut self) -> usize {
        let count = self.staged.wrapping_sub(self.published);
        if count > 0 {
            self.shared.tail.store(self.staged, Ordering::Release);
            self.published = self.staged;
        }
        count
    }

    /// Places in use, staged ones included, as of now.
    pub fn occupied(&mut self) -> usize {
        self.capacity() - self.free()
    }

    /// Places of the ring.
    pub fn capacity(&self) -> usize {
        self.shared.places.len()
    }

    /// Whether the consumer is gone: what is pushed now nobody will take.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // Release: whoever sees this also sees the last tail.
        self.shared.closed.store(true, Ordering::Release);
        while self.published != self.staged {
            // SAFETY: pushed and not published: the place holds a value that only this end knows of.
            drop(unsafe { self.shared.take(self.published) });
            self.published = self.published.wrapping_add(1);
        }
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("published", &self.published).field("staged", &self.staged).finish()
    }
}

/// The receiving end. Lives on one thread; moves there once.
///
/// Dropping it drops what was published by then; later values are dropped with the producer.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The shared head.
    head: usize,
    /// The producer's tail when we last looked.
    tail: usize,
}

impl<T> Consumer<T> {
    /// The oldest value, which stays in the ring.
    pub fn peek(&mut self) -> Option<&T> {
        if !self.has_value() {
            return None;
        }
        // SAFETY: below the tail, so the place holds a value that is this end's; the reference borrows the consumer,
        // so it cannot be taken meanwhile.
        Some(self.shared.place(self.head).with(|place| unsafe { (*place).assume_init_ref() }))
    }

    /// Takes the oldest value and gives its place back.
    pub fn pop(&mut self) -> Option<T> {
        if !self.has_value() {
            return None;
        }
        // SAFETY: below the tail, so the place holds a value that is this end's; the head moves past it at once.
        let value = unsafe { self.shared.take(self.head) };
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Whether nothing published is left, as of now. This is what a sleeper asks between setting its flag and sleeping.
    pub fn is_empty(&self) -> bool {
        self.occupied() == 0
    }

    /// Values published and not taken, as of now.
    pub fn occupied(&self) -> usize {
        self.shared.tail.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    /// Places of the ring.
    pub fn capacity(&self) -> usize {
        self.shared.places.len()
    }

    /// Whether the producer is gone. Ask this first: if yes and the ring is then empty, nothing will ever come.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    fn has_value(&mut self) -> bool {
        if self.head == self.tail {
            self.tail = self.shared.tail.load(Ordering::Acquire);
        }
        self.head != self.tail
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        while self.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).field("tail", &self.tail).finish()
    }
}

#[cfg(test)]
mod tests;
