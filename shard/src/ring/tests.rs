use super::*;

#[cfg(not(loom))]
mod one_thread {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::VecDeque, sync::Arc, thread};

    #[test]
    fn places_round_up_to_a_power_of_two_and_to_two() {
        for (asked, got) in [(0, 2), (1, 2), (2, 2), (3, 4), (5, 8), (64, 64)] {
            let (producer, consumer) = ring::<u8>(asked);
            assert_eq!((producer.capacity(), consumer.capacity()), (got, got), "asked for {asked}");
        }
    }

    #[test]
    fn a_staged_value_is_invisible_until_published() {
        let (mut producer, mut consumer) = ring(4);
        producer.push(1).unwrap();
        producer.push(2).unwrap();
        assert!(consumer.is_empty());
        assert_eq!(consumer.pop(), None);
        assert_eq!(producer.publish(), 2);
        assert_eq!(producer.publish(), 0);
        assert_eq!(consumer.peek(), Some(&1));
        assert_eq!(consumer.pop(), Some(1));
        assert_eq!(consumer.pop(), Some(2));
    }

    /// A claim of places, once looked up, holds until the producer uses it.
    #[test]
    fn what_is_free_stays_free() {
        let (mut producer, mut consumer) = ring(4);
        assert_eq!(producer.free(), 4);
        for value in 0..4 {
            producer.push(value).unwrap();
        }
        assert_eq!((producer.free(), producer.occupied()), (0, 4));
        assert!(!producer.has_free(1));
        assert_eq!(producer.push(9), Err(9), "a full ring gives the value back");
        producer.publish();
        assert_eq!(consumer.pop(), Some(0));
        assert!(producer.has_free(1) && !producer.has_free(2));
    }

    #[test]
    fn closing_is_seen_from_the_other_end_after_its_last_value() {
        let (mut producer, mut consumer) = ring(2);
        assert!(!consumer.is_closed());
        producer.push(1).unwrap();
        producer.publish();
        drop(producer);
        assert!(consumer.is_closed());
        assert_eq!(consumer.pop(), Some(1));
        assert_eq!(consumer.pop(), None);
        let (producer, consumer) = ring::<u8>(2);
        assert!(!producer.is_closed());
        drop(consumer);
        assert!(producer.is_closed());
    }

    /// Every value is dropped exactly once, wherever it was when the ends went.
    /// Method: values that share one counter, one of them staged, one published, one published after the consumer left.
    #[test]
    fn whatever_is_left_is_dropped_once() {
        for consumer_first in [true, false] {
            let alive = Arc::new(());
            let (mut producer, mut consumer) = ring(8);
            for _ in 0..3 {
                producer.push(alive.clone()).unwrap();
            }
            producer.publish();
            drop(consumer.pop());
            producer.push(alive.clone()).unwrap();
            assert_eq!(Arc::strong_count(&alive), 4);
            if consumer_first {
                drop(consumer);
                assert_eq!(Arc::strong_count(&alive), 2, "the consumer took what was published");
                producer.publish();
                producer.push(alive.clone()).unwrap();
                drop(producer);
            } else {
                drop(producer);
                assert_eq!(Arc::strong_count(&alive), 3, "the staged value went with the producer");
                drop(consumer);
            }
            assert_eq!(Arc::strong_count(&alive), 1);
        }
    }

    #[test]
    fn a_million_values_cross_in_order() {
        const VALUES: u32 = 1_000_000;
        let (mut producer, mut consumer) = ring_from(64, usize::MAX - 500_000);
        let sender = thread::spawn(move || {
            let mut next = 0;
            while next < VALUES {
                for _ in 0..producer.free().min(17) {
                    if next < VALUES {
                        producer.push(Box::new(next)).expect("the place was free");
                        next += 1;
                    }
                }
                if producer.publish() == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < VALUES {
            match consumer.pop() {
                Some(value) => {
                    assert_eq!(*value, expected);
                    expected += 1;
                }
                None => thread::yield_now(),
            }
        }
        sender.join().unwrap();
        assert!(consumer.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// The ring does what two queues do: one staged, one published. The counters start just below their wrap.
        #[test]
        fn agrees_with_two_queues(places in 1usize..9, before_wrap in 0usize..40, acts in prop::collection::vec(0u8..6, 0..200)) {
            let (mut producer, mut consumer) = ring_from(places, usize::MAX - before_wrap);
            let (mut staged, mut published) = (VecDeque::new(), VecDeque::new());
            for (value, act) in acts.into_iter().enumerate() {
                let in_use = staged.len() + published.len();
                match act {
                    0..=2 => {
                        let fits = in_use < producer.capacity();
                        prop_assert_eq!(producer.push(Box::new(value)).is_ok(), fits);
                        if fits {
                            staged.push_back(value);
                        }
                    }
                    3 => {
                        prop_assert_eq!(producer.publish(), staged.len());
                        published.append(&mut staged);
                    }
                    4 => prop_assert_eq!(consumer.pop().map(|value| *value), published.pop_front()),
                    _ => prop_assert_eq!(consumer.peek().map(|value| **value), published.front().copied()),
                }
                let in_use = staged.len() + published.len();
                prop_assert_eq!(producer.occupied(), in_use);
                prop_assert_eq!(producer.free(), producer.capacity() - in_use);
                prop_assert_eq!(consumer.occupied(), published.len());
            }
        }
    }
}

#[cfg(loom)]
mod explored {
    use super::*;
    use crate::bell::Bell;
    use loom::thread;
    use std::sync::Arc;

    /// Three batches through a ring of two places arrive whole, in order, and once, and nobody sleeps for ever, in
    /// every interleaving: the producer sleeps on its own bell when the ring is full, the consumer on the other when
    /// it is empty, and both the place index and the counters wrap.
    /// Method: loom, every interleaving with at most PREEMPTIONS involuntary switches of thread (each voluntary one
    /// is always explored; three would miss a wake that an earlier form of the bell lost, five find it, and take half
    /// a minute in a release build); the eventfd is a counter under loom's own lock. A lost wake is a deadlock, which loom
    /// reports; a place touched by two threads is a race, which it reports too.
    #[test]
    fn three_batches_pass_a_ring_of_two_places_with_sleep_and_wake() {
        const PREEMPTIONS: usize = 5;
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(|| {
            let alive = Arc::new(());
            let (mut producer, mut consumer) = ring_from(2, usize::MAX - 1);
            let (room, news) = (Bell::new().unwrap(), Bell::new().unwrap());
            let (room_there, news_there, alive_there) = (room.clone(), news.clone(), alive.clone());
            let sender = thread::spawn(move || {
                for batch in 0..3 {
                    while producer.free() == 0 {
                        room_there.prepare_sleep();
                        if producer.free() == 0 {
                            room_there.wait_blocking();
                        }
                        room_there.awake();
                    }
                    producer.push((batch, alive_there.clone())).expect("a free place stays free");
                    producer.publish();
                    news_there.ring();
                }
            });
            for expected in 0..3 {
                let batch = loop {
                    if let Some((batch, _)) = consumer.pop() {
                        break batch;
                    }
                    news.prepare_sleep();
                    if consumer.is_empty() {
                        news.wait_blocking();
                    }
                    news.awake();
                };
                assert_eq!(batch, expected);
                room.ring();
            }
            sender.join().unwrap();
            assert!(consumer.is_closed() && consumer.is_empty());
            drop(consumer);
            assert_eq!(Arc::strong_count(&alive), 1, "every batch was dropped");
        });
    }

    /// What is staged is never seen, and a whole turn's batches appear at once.
    /// Method: loom, every interleaving, no bound.
    #[test]
    fn a_turn_appears_whole() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring(2);
            let sender = thread::spawn(move || {
                producer.push(1).unwrap();
                producer.push(2).unwrap();
                producer.publish();
            });
            if consumer.pop() == Some(1) {
                assert_eq!(consumer.pop(), Some(2));
            }
            sender.join().unwrap();
        });
    }

    /// Either end may go first, at any moment, without a value lost to memory or dropped twice.
    /// Method: loom, every interleaving, no bound; the values count themselves.
    #[test]
    fn either_end_may_leave_first() {
        loom::model(|| {
            let alive = Arc::new(());
            let (mut producer, consumer) = ring(2);
            let there = alive.clone();
            let sender = thread::spawn(move || {
                producer.push(there.clone()).unwrap();
                producer.publish();
                producer.push(there).unwrap();
            });
            drop(consumer);
            sender.join().unwrap();
            assert_eq!(Arc::strong_count(&alive), 1);
        });
    }
}
