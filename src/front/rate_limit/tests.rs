//! Several loops on one simulated clock; messages take a while, and clocks are read at other moments.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const SECOND: u64 = 1_000_000_000;

/// Loops, what is under way between them, and when whose requests passed.
struct Loops {
    now: u64,
    delay: u64,
    loops: Vec<RateLimit<u64>>,
    under_way: BinaryHeap<Reverse<(u64, u64, usize, usize)>>,
    messages: Vec<Portion>,
    /// Which client's, and when.
    passed: Vec<(u64, u64)>,
    limited: usize,
    crowded: usize,
    waiting: usize,
    /// Every so many messages one finds no place.
    loses_every: usize,
}

impl Loops {
    fn new(loops: usize, limit: u32, delay: u64) -> Loops {
        Loops::with_room(loops, limit, delay, CLIENTS_MAX, CROWD_WINDOWS)
    }

    fn with_room(loops: usize, limit: u32, delay: u64, clients_max: usize, crowd_windows: usize) -> Loops {
        let one = |index| RateLimit::with_room(limit, (index, loops), 42, clients_max, crowd_windows);
        Loops {
            now: 77_777_777_777,
            delay,
            loops: (0..loops).map(one).collect(),
            under_way: BinaryHeap::new(),
            messages: Vec::new(),
            passed: Vec::new(),
            limited: 0,
            crowded: 0,
            waiting: 0,
            loses_every: usize::MAX,
        }
    }

    /// Runs one loop's part, carrying off what it sends.
    fn on<R>(
        &mut self,
        index: usize,
        part: impl FnOnce(&mut RateLimit<u64>, u64, &mut dyn FnMut(usize, Portion) -> bool) -> R,
    ) -> R {
        let (now, delay, loses_every) = (self.now, self.delay, self.loses_every);
        let (messages, under_way) = (&mut self.messages, &mut self.under_way);
        let mut send = |to: usize, message: Portion| {
            let sequence = messages.len() as u64;
            messages.push(message);
            let has_place = messages.len() % loses_every != 0;
            if has_place {
                under_way.push(Reverse((now + delay, sequence, index, to)));
            }
            has_place
        };
        part(&mut self.loops[index], now, &mut send)
    }

    /// Lets time pass up to a moment: messages arrive, portions expire.
    fn advance(&mut self, to: u64) {
        loop {
            let message_at = self.under_way.peek().map(|Reverse((at, ..))| *at);
            let expiry = self
                .loops
                .iter()
                .enumerate()
                .filter_map(|(of, one)| Some((one.tend_at_nanos(self.now)?, of)))
                .min();
            let expires_at = expiry.map(|(at, _)| at);
            let next = [message_at, expires_at].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= to) else { break };
            self.now = self.now.max(next);
            if expires_at == Some(next) {
                let (_, of) = expiry.unwrap();
                self.on(of, |one, now, mut send| one.tend(now, &mut send));
            } else {
                let Reverse((_, sequence, from, to)) = self.under_way.pop().unwrap();
                let message = self.messages[sequence as usize];
                let mut decided = Vec::new();
                self.on(to, |one, now, mut send| {
                    one.take(from, message, now, &mut send, &mut |request, verdict| {
                        decided.push((request, verdict))
                    });
                });
                for (of, verdict) in decided {
                    self.waiting -= 1;
                    self.count(of, verdict);
                }
            }
        }
        self.now = to;
    }

    fn request(&mut self, index: usize, client: &[u8]) -> Verdict {
        let of = self.number(client);
        let verdict = self.on(index, |one, now, mut send| {
            let client = one.client(client);
            one.decide(client, of, now, &mut send)
        });
        self.count(of, verdict);
        verdict
    }

    fn number(&self, client: &[u8]) -> u64 {
        self.loops[0].client(client).0 as u64
    }

    fn count(&mut self, of: u64, verdict: Verdict) {
        match verdict {
            Verdict::Pass { until_nanos } => {
                assert!(until_nanos > self.now);
                self.passed.push((of, self.now));
            }
            Verdict::Limited { frees_after_nanos } => {
                assert!(frees_after_nanos < SECOND + SECOND / 10);
                self.limited += 1;
            }
            Verdict::Wait => self.waiting += 1,
            Verdict::Crowded => self.crowded += 1,
        }
    }

    /// The most that one client had in a second.
    fn most_in_a_second(&self) -> usize {
        let mut by_client = std::collections::BTreeMap::<u64, Vec<u64>>::new();
        for (of, at) in &self.passed {
            by_client.entry(*of).or_default().push(*at);
        }
        let most = |passed: &Vec<u64>| {
            let first = |at: usize| passed.partition_point(|earlier| earlier + SECOND <= passed[at]);
            (0..passed.len()).map(|at| at + 1 - first(at)).max().unwrap_or(0)
        };
        by_client.values().map(most).max().unwrap_or(0)
    }
}

/// On one connection, wherever its client is owned, exactly the limit passes, and the next is told when to come.
#[test]
fn one_connection_gets_exactly_the_limit() {
    for limit in [1, 5, 16, 100, 1_000] {
        for index in 0..3 {
            let mut loops = Loops::new(3, limit, 30_000);
            for _ in 0..limit + 50 {
                loops.request(index, b"client");
                let answered = loops.now + 100_000;
                loops.advance(answered);
                assert_eq!(loops.waiting, 0, "a connection sends its next request after the answer");
            }
            assert_eq!(
                (loops.passed.len(), loops.limited),
                (limit as usize, 50),
                "limit {limit} on loop {index}"
            );
        }
    }
}

#[test]
fn clients_do_not_share_a_budget() {
    let mut loops = Loops::new(2, 3, 30_000);
    for client in [b"one", b"two"] {
        for _ in 0..5 {
            loops.request(0, client);
            let answered = loops.now + 100_000;
            loops.advance(answered);
        }
    }
    assert_eq!((loops.passed.len(), loops.limited), (6, 4));
}

/// A client that sends three times its limit over all loops gets at least nine tenths of it, and never more.
#[test]
fn nine_tenths_of_the_limit_pass_under_pressure() {
    for (count, limit) in [(1, 100), (2, 100), (2, 3_000), (4, 1_000), (8, 50), (64, 2_000)] {
        let mut loops = Loops::new(count, limit, 40_000);
        let begin = loops.now;
        let gap = SECOND / (3 * u64::from(limit));
        for n in 0..u64::from(limit) * 3 * 3 {
            loops.advance(begin + n * gap);
            loops.request((n as usize * 7) % count, b"client");
        }
        assert!(loops.most_in_a_second() <= limit as usize, "{count} loops, limit {limit}");
        let share = loops.passed.len() as f64 / (3.0 * f64::from(limit));
        assert!(share >= 0.9, "{count} loops, limit {limit}: {share}");
    }
}

/// What one loop took and does not use, the others have soon.
#[test]
fn what_idles_is_taken_back() {
    let mut loops = Loops::new(2, 160, 40_000);
    let client = b"client";
    let owner =
        (0..2).find(|index| loops.loops[*index].owner(loops.loops[0].client(client)) == *index).unwrap();
    // A portion of five goes to the other loop, which uses one of them.
    loops.request(1 - owner, client);
    let soon = loops.now + SECOND / 10;
    loops.advance(soon);
    for _ in 0..200 {
        loops.request(owner, client);
    }
    assert_eq!(loops.passed.len(), 160);
}

/// Two loops with room for few: one known client within its limit, on both, and a flood of ids, each sent once.
#[test]
fn a_flood_of_ids_takes_nothing_from_a_known_client_and_refuses_nobody_unheard() {
    const LIMIT: u32 = 100;
    let mut loops = Loops::with_room(2, LIMIT, 40_000, 50, 8);
    loops.request(0, b"known");
    loops.request(1, b"known");
    let settled = loops.now + 2 * SECOND;
    loops.advance(settled);
    let begin = loops.now;
    let known = loops.passed.len();
    let gap = SECOND / 20_000;
    let mut sent = 0;
    for n in 0..5 * 20_000u64 {
        loops.advance(begin + n * gap);
        loops.request(n as usize % 2, &n.to_le_bytes());
        if n % 250 == 0 {
            loops.request((n as usize / 250) % 2, b"known");
            sent += 1;
        }
    }
    loops.advance(begin + 6 * SECOND);
    let of_known = loops.number(b"known");
    let passed = loops.passed.iter().skip(known).filter(|(of, _)| *of == of_known).count();
    assert_eq!((passed, loops.crowded, loops.waiting), (sent, 0, 0));
    let others = loops.passed.len() - known - passed;
    assert!(others > 5 * 8 * LIMIT as usize / 2, "newcomers pass as far as the shared windows go: {others}");
    assert!(loops.loops.iter().all(|one| one.held.is_empty()), "what holds nothing is forgotten");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes when and where, with messages slow or without a place: no second holds more than the
    /// limit, and every request is decided once, at the latest when all messages have arrived.
    #[test]
    fn never_more_than_the_limit_and_every_request_is_decided(
        count in 1usize..5,
        limit in 1u32..40,
        delay in 0u64..60_000_000,
        loses_every in 2usize..40,
        requests in proptest::collection::vec((0u64..20_000_000, 0usize..5, 0u8..2, 1usize..30), 1..150),
    ) {
        for client in 0..2 {
            let mut alone = Loops::new(count, limit, delay);
            alone.loses_every = loses_every;
            for (pause, index, of, burst) in &requests {
                alone.advance(alone.now + pause);
                for _ in 0..if *of == client { *burst } else { 0 } {
                    alone.request(index % count, &[client]);
                }
            }
            alone.loses_every = usize::MAX;
            alone.advance(alone.now + SECOND);
            prop_assert_eq!(alone.waiting, 0);
            prop_assert!(alone.most_in_a_second() <= limit as usize);
        }
    }

    /// The same where clients come into the table, fall out of it, and share windows in between.
    #[test]
    fn never_more_than_the_limit_of_anybody_in_a_crowd(
        count in 1usize..4,
        limit in 1u32..20,
        loses_every in 2usize..40,
        (clients_max, crowd_windows) in (1usize..4, 1usize..4),
        requests in proptest::collection::vec((0u64..90_000_000, 0usize..4, 0u8..12, 1usize..12), 1..300),
    ) {
        let mut loops = Loops::with_room(count, limit, 40_000, clients_max, crowd_windows);
        loops.loses_every = loses_every;
        for (pause, index, of, burst) in &requests {
            loops.advance(loops.now + pause);
            // Some come seldom enough to be forgotten.
            for _ in 0..if *of < 10 { *burst } else { 0 } {
                loops.request(index % count, &[*of]);
            }
        }
        loops.loses_every = usize::MAX;
        loops.advance(loops.now + SECOND);
        prop_assert_eq!(loops.waiting, 0);
        prop_assert!(loops.most_in_a_second() <= limit as usize);
        prop_assert!(loops.loops.iter().all(|one| one.held.is_empty()));
    }
}
