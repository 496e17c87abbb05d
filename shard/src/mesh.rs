//! All rings of one kind: every sender has one to every receiver, and every receiver one bell.
//!
//! Owner: an [`Outbox`] belongs to its sending thread, an [`Inbox`] to its receiving thread; both move there once.
//! Always: between one sender and one receiver order is kept; between senders there is none but what
//! [`Inbox::pop_earliest`] makes from the values' own keys.
//! Not here: when to publish and when to ring (the loops know their turns), what the values are.

use crate::{
    bell::Bell,
    ring::{Consumer, Producer, ring},
};

/// Rings from `senders` threads to one thread per bell, each with at least `places` places (rounded up as
/// [`ring`] does). The n-th outbox is the n-th sender's, the n-th inbox that of the n-th bell's sleeper.
pub fn mesh<T: Send>(senders: usize, bells: &[Bell], places: usize) -> (Vec<Outbox<T>>, Vec<Inbox<T>>) {
    let mut outboxes: Vec<Outbox<T>> = (0..senders)
        .map(|_| Outbox { producers: Vec::with_capacity(bells.len()), bells: bells.to_vec() })
        .collect();
    let mut inboxes = Vec::with_capacity(bells.len());
    for _ in bells {
        let mut consumers = Vec::with_capacity(senders);
        for outbox in &mut outboxes {
            let (producer, consumer) = ring(places);
            outbox.producers.push(producer);
            consumers.push(consumer);
        }
        inboxes.push(Inbox { consumers });
    }
    (outboxes, inboxes)
}

/// One sender's rings to all receivers.
#[derive(Debug)]
pub struct Outbox<T> {
    producers: Vec<Producer<T>>,
    bells: Vec<Bell>,
}

impl<T> Outbox<T> {
    /// Receivers of the mesh.
    pub fn receivers(&self) -> usize {
        self.producers.len()
    }

    /// The ring to `receiver`: look for free places, push, publish.
    ///
    /// # Panics
    /// If there is no such receiver, which is a mistake of the caller.
    pub fn to(&mut self, receiver: usize) -> &mut Producer<T> {
        &mut self.producers[receiver]
    }

    /// Sends one value at once, behind what is staged: pushes it, publishes, and wakes `receiver` if it sleeps. A
    /// ring without a free place gives the value back, and nothing is published.
    ///
    /// # Errors
    /// The value, when there is no place.
    ///
    /// # Panics
    /// If there is no such receiver.
    pub fn send(&mut self, receiver: usize, value: T) -> Result<(), T> {
        let producer = &mut self.producers[receiver];
        producer.push(value)?;
        producer.publish();
        self.bells[receiver].ring();
        Ok(())
    }

    /// Publishes what is staged to any receiver. Returns how many values that were.
    pub fn publish_all(&mut self) -> usize {
        self.producers.iter_mut().map(Producer::publish).sum()
    }

    /// Publishes what is staged to any receiver, and wakes those of them that sleep. Whoever gets nothing is left alone:
    /// a receiver that is woken for nothing and does the same wakes its waker, and so on without end.
    pub fn publish_and_wake(&mut self) {
        for (producer, bell) in self.producers.iter_mut().zip(&self.bells) {
            if producer.publish() > 0 {
                bell.ring();
            }
        }
    }

    /// Wakes `receiver` if it sleeps; call it after publishing. Returns whether it cost a system call.
    ///
    /// # Panics
    /// If there is no such receiver.
    pub fn ring_bell(&self, receiver: usize) -> bool {
        self.bells[receiver].ring()
    }

    /// Whether at least `values` places to `receiver` are in use, staged values included. Looks at the receiver's
    /// cache line only if the last look does not say no.
    ///
    /// # Panics
    /// If there is no such receiver.
    pub fn holds(&mut self, receiver: usize, values: usize) -> bool {
        let producer = &mut self.producers[receiver];
        let free_below = (producer.capacity() + 1).saturating_sub(values);
        !producer.has_free(free_below)
    }
}

/// One receiver's rings from all senders.
#[derive(Debug)]
pub struct Inbox<T> {
    consumers: Vec<Consumer<T>>,
}

impl<T> Inbox<T> {
    /// Senders of the mesh.
    pub fn senders(&self) -> usize {
        self.consumers.len()
    }

    /// Whether nothing published is left in any ring, as of now; a sleeper's last look.
    pub fn is_empty(&self) -> bool {
        self.consumers.iter().all(Consumer::is_empty)
    }

    /// Takes the next value in the order of the senders: all that the first one published, then the second's.
    pub fn pop(&mut self) -> Option<(usize, T)> {
        self.consumers.iter_mut().enumerate().find_map(|(sender, consumer)| Some((sender, consumer.pop()?)))
    }

    /// Takes the value with the smallest key among the oldest of every sender, if that key is below `bound`; of equal
    /// keys the lower sender's. Where keys rise within each sender, as stamps do, repeating this until it gives nothing
    /// yields everything below the bound in the order of the keys.
    ///
    /// A ring that looks empty is looked at again in every call, so read the clock that gives the bound first.
    pub fn pop_earliest<K: Ord>(&mut self, key: impl Fn(&T) -> K, bound: &K) -> Option<(usize, T)> {
        let mut earliest: Option<(usize, K)> = None;
        for (sender, consumer) in self.consumers.iter_mut().enumerate() {
            let Some(key) = consumer.peek().map(&key) else { continue };
            if key < *bound && earliest.as_ref().is_none_or(|(_, least)| key < *least) {
                earliest = Some((sender, key));
            }
        }
        let (sender, _) = earliest?;
        Some((sender, self.consumers[sender].pop()?))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    fn bells(count: usize) -> Vec<Bell> {
        (0..count).map(|_| Bell::new().unwrap()).collect()
    }

    #[test]
    fn every_sender_reaches_every_receiver_and_no_other() {
        let (mut outboxes, mut inboxes) = mesh(3, &bells(2), 4);
        assert_eq!((outboxes.len(), inboxes.len()), (3, 2));
        for (sender, outbox) in outboxes.iter_mut().enumerate() {
            assert_eq!(outbox.receivers(), 2);
            for receiver in 0..2 {
                outbox.to(receiver).push((sender, receiver)).unwrap();
            }
            assert_eq!(outbox.publish_all(), 2);
        }
        for (receiver, inbox) in inboxes.iter_mut().enumerate() {
            assert_eq!(inbox.senders(), 3);
            assert!(!inbox.is_empty());
            let got: Vec<_> = std::iter::from_fn(|| inbox.pop()).collect();
            assert_eq!(got, [(0, (0, receiver)), (1, (1, receiver)), (2, (2, receiver))]);
            assert!(inbox.is_empty());
        }
    }

    /// Stamps that rise per sender come out in one rising order, and what is not below the bound stays.
    #[test]
    fn values_come_out_in_the_order_of_their_keys() {
        let (mut outboxes, mut inboxes) = mesh(3, &bells(1), 8);
        let stamps: [&[u64]; 3] = [&[1, 5, 6, 30], &[], &[2, 3, 5, 7]];
        for (outbox, stamps) in outboxes.iter_mut().zip(stamps) {
            for stamp in stamps {
                outbox.to(0).push(*stamp).unwrap();
            }
            outbox.publish_all();
        }
        let mut inbox = inboxes.remove(0);
        let below_seven: Vec<_> = std::iter::from_fn(|| inbox.pop_earliest(|stamp| *stamp, &7)).collect();
        assert_eq!(below_seven, [(0, 1), (2, 2), (2, 3), (0, 5), (2, 5), (0, 6)]);
        assert_eq!(inbox.pop_earliest(|stamp| *stamp, &7), None);
        assert_eq!(inbox.pop_earliest(|stamp| *stamp, &8), Some((2, 7)));
        assert_eq!(inbox.pop(), Some((0, 30)), "it stayed");
    }

    /// One call does all three steps, behind what was staged; without a place it does none of them.
    #[test]
    fn a_sent_value_is_published_and_wakes_the_sleeper() {
        let bells = bells(1);
        let (mut outboxes, mut inboxes) = mesh(1, &bells, 4);
        let outbox = &mut outboxes[0];
        outbox.to(0).push(1).unwrap();
        bells[0].prepare_sleep();
        assert_eq!(outbox.send(0, 2), Ok(()));
        assert!(!outbox.ring_bell(0), "it was rung already");
        bells[0].wait_blocking();
        assert_eq!(
            (inboxes[0].pop(), inboxes[0].pop(), inboxes[0].pop()),
            (Some((0, 1)), Some((0, 2)), None)
        );

        for value in 0..4 {
            outbox.to(0).push(value).unwrap();
        }
        bells[0].prepare_sleep();
        assert_eq!(outbox.send(0, 9), Err(9));
        assert!(inboxes[0].is_empty() && outbox.ring_bell(0), "nothing was published, nobody woken");
    }

    /// Of three sleepers the one with mail is woken.
    #[test]
    fn who_gets_nothing_sleeps_on() {
        let bells = bells(3);
        let (mut outboxes, mut inboxes) = mesh(1, &bells, 4);
        let outbox = &mut outboxes[0];
        bells.iter().for_each(Bell::prepare_sleep);
        outbox.to(1).push(7).unwrap();
        outbox.publish_and_wake();
        outbox.publish_and_wake();
        assert_eq!(inboxes[1].pop(), Some((0, 7)));
        let sleeps: Vec<bool> = (0..3).map(|receiver| outbox.ring_bell(receiver)).collect();
        assert_eq!(sleeps, [true, false, true], "ringing wakes whoever still sleeps");
    }

    #[test]
    fn a_ring_says_whether_it_holds_so_many_values() {
        let (mut outboxes, mut inboxes) = mesh(1, &bells(1), 4);
        let outbox = &mut outboxes[0];
        outbox.to(0).push(0).unwrap();
        assert!(outbox.holds(0, 1) && !outbox.holds(0, 2));
        outbox.to(0).push(1).unwrap();
        assert!(outbox.holds(0, 2), "a staged value counts");
        outbox.publish_all();
        assert_eq!(inboxes[0].pop(), Some((0, 0)));
        assert!(outboxes[0].holds(0, 1) && !outboxes[0].holds(0, 2));
        for value in 2..5 {
            outboxes[0].to(0).push(value).unwrap();
        }
        assert!(outboxes[0].holds(0, 4) && !outboxes[0].holds(0, 5), "full, and never more than that");
    }

    /// The ends move into their threads, and the receiver's one bell serves all its senders.
    /// Method: each sender fills rings of two places and waits by yielding; a lost wake hangs the test.
    #[test]
    fn two_senders_wake_one_sleeper() {
        const VALUES: u64 = 5_000;
        let bells = bells(1);
        let (outboxes, mut inboxes) = mesh(2, &bells, 2);
        let senders: Vec<_> = outboxes
            .into_iter()
            .map(|mut outbox| {
                thread::spawn(move || {
                    for value in 0..VALUES {
                        while !outbox.to(0).has_free(1) {
                            thread::yield_now();
                        }
                        outbox.to(0).push(value).unwrap();
                        outbox.publish_all();
                        outbox.ring_bell(0);
                    }
                })
            })
            .collect();
        let (mut inbox, bell) = (inboxes.remove(0), &bells[0]);
        let mut next = [0; 2];
        while next != [VALUES; 2] {
            match inbox.pop() {
                Some((sender, value)) => {
                    assert_eq!(value, next[sender]);
                    next[sender] += 1;
                }
                None => {
                    bell.prepare_sleep();
                    if inbox.is_empty() {
                        bell.wait_blocking();
                    }
                    bell.awake();
                }
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    }
}
