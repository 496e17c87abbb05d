//! The wake protocol: who sleeps says so first, who publishes rings only then.
//!
//! Owner: one sleeper (an executor or an I/O loop) and any number of ringers, each holding a clone.
//! Always: a value published before `ring` is either seen by the sleeper's last look, or the sleeper is woken.
//! Not here: the values (`ring.rs`), waiting inside an executor (`executor::BellWaiter`), when to ring (the loops).
//!
//! ```text
//! sleeper                           ringer
//! asleep := true                    publish
//! fence                             fence
//! look into every ring              asleep? then asleep := false and, if we were the one, write the eventfd
//! nothing? wait for the eventfd
//! asleep := false
//! ```
//!
//! Of the two fences one comes first in their single order: either the ringer sees the flag, or the sleeper sees
//! the value. Both may happen, so a wait can end with nothing to do; it never fails to end.

#[cfg(not(loom))]
use crate::sys::eventfd::EventFd;
#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

use crossbeam_utils::CachePadded;
#[cfg(not(loom))]
use std::os::fd::{AsFd, BorrowedFd};
use std::{fmt, io};

struct Shared {
    asleep: CachePadded<AtomicBool>,
    wake: EventFd,
}

/// A doorbell over an eventfd and a flag that says whether anybody needs it. Clones ring the same bell.
#[derive(Clone)]
pub struct Bell {
    shared: Arc<Shared>,
}

impl Bell {
    /// A bell whose sleeper is awake.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let shared = Shared { asleep: CachePadded::new(AtomicBool::new(false)), wake: EventFd::new()? };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sleeper: from here on ringers write. Look into every ring once more *after* this and before waiting.
    pub fn prepare_sleep(&self) {
        self.shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Sleeper: the rings are being looked at again, ringers need not write.
    pub fn awake(&self) {
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    /// Ringer: wakes the sleeper if it sleeps or is about to. Call it after publishing. Returns whether it cost a
    /// write; if not, the sleeper is awake or another ringer has just woken it.
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // The exchange lets one of several ringers write; the load before it keeps the line shared while nobody sleeps.
        // An exchange that fails must leave no store behind: a swap's second `false`, next to the sleeper's next `true`,
        // made loom find a sleeper whom nobody wakes.
        let asleep = &self.shared.asleep;
        let write = asleep.load(Ordering::Relaxed)
            && asleep.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if write {
            self.shared.wake.write();
        }
        write
    }

    /// Sleeper: waits in the kernel until rung, and takes all that was written so far. For threads that neither run
    /// an executor nor a ring. Call [`prepare_sleep`](Self::prepare_sleep) and look into the rings first.
    pub fn wait_blocking(&self) {
        self.shared.wake.read();
        self.awake();
    }
}

/// The eventfd, for a ring to read: 8 bytes, in blocking mode, so that io_uring waits for it instead of answering EAGAIN.
#[cfg(not(loom))]
impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("asleep", &self.shared.asleep).finish()
    }
}

/// What an eventfd is, as far as loom can see it: a counter, and a read that waits for it to be above zero.
#[cfg(loom)]
struct EventFd {
    count: loom::sync::Mutex<u64>,
    written: loom::sync::Condvar,
}

#[cfg(loom)]
impl EventFd {
    fn new() -> io::Result<Self> {
        Ok(Self { count: loom::sync::Mutex::new(0), written: loom::sync::Condvar::new() })
    }

    fn write(&self) {
        *self.count.lock().expect("no test panics with the lock held") += 1;
        self.written.notify_one();
    }

    fn read(&self) {
        let mut count = self.count.lock().expect("no test panics with the lock held");
        while *count == 0 {
            count = self.written.wait(count).expect("no test panics with the lock held");
        }
        *count = 0;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ring::ring;
    use std::{os::fd::AsRawFd, thread};

    #[test]
    fn an_awake_sleeper_costs_no_write() {
        let bell = Bell::new().unwrap();
        assert!(!bell.ring());
        bell.prepare_sleep();
        bell.awake();
        assert!(!bell.ring());
    }

    #[test]
    fn of_two_ringers_one_writes() {
        let bell = Bell::new().unwrap();
        let other = bell.clone();
        bell.prepare_sleep();
        assert!(other.ring());
        assert!(!bell.ring());
        bell.wait_blocking();
        assert!(!bell.ring());
    }

    #[test]
    fn a_bell_rung_before_the_wait_ends_it() {
        let bell = Bell::new().unwrap();
        bell.prepare_sleep();
        bell.ring();
        bell.wait_blocking();
    }

    #[test]
    fn a_clone_is_the_same_descriptor() {
        let bell = Bell::new().unwrap();
        assert_eq!(bell.clone().as_fd().as_raw_fd(), bell.as_fd().as_raw_fd());
    }

    /// No wake is lost however the two threads meet. A lost one hangs the test.
    /// Method: a ring of two places and one bell each way, many more values than places; loom explores the small case.
    #[test]
    fn values_pass_between_two_sleepers() {
        const VALUES: usize = 20_000;
        let (mut producer, mut consumer) = ring(2);
        let (full, empty) = (Bell::new().unwrap(), Bell::new().unwrap());
        let (full_there, empty_there) = (full.clone(), empty.clone());
        let sender = thread::spawn(move || {
            for value in 0..VALUES {
                while !producer.has_free(1) {
                    full_there.prepare_sleep();
                    if producer.free() == 0 {
                        full_there.wait_blocking();
                    }
                    full_there.awake();
                }
                producer.push(value).unwrap();
                producer.publish();
                empty_there.ring();
            }
        });
        for expected in 0..VALUES {
            let value = loop {
                if let Some(value) = consumer.pop() {
                    break value;
                }
                empty.prepare_sleep();
                if consumer.is_empty() {
                    empty.wait_blocking();
                }
                empty.awake();
            };
            assert_eq!(value, expected);
            full.ring();
        }
        sender.join().unwrap();
    }
}
