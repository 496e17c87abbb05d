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
    passed: Vec<u64>,
    limited: usize,
    waiting: usize,
    /// Every so many messages one finds no place.
    loses_every: usize,
}

impl Loops {
    fn new(loops: usize, limit: u32, delay: u64) -> Loops {
        Loops {
            now: 77_777_777_777,
            delay,
            loops: (0..loops).map(|index| RateLimit::new(limit, index, loops, 42)).collect(),
            under_way: BinaryHeap::new(),
            messages: Vec::new(),
            passed: Vec::new(),
            limited: 0,
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
                for (_, verdict) in decided {
                    self.waiting -= 1;
                    self.count(verdict);
                }
            }
        }
        self.now = to;
    }

    fn request(&mut self, index: usize, client: &[u8]) -> Verdict {
        let verdict = self.on(index, |one, now, mut send| {
            let client = one.client(client);
            one.decide(client, 0, now, &mut send)
        });
        self.count(verdict);
        verdict
    }

    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass { until_nanos } => {
                assert!(until_nanos > self.now);
                self.passed.push(self.now);
            }
            Verdict::Limited { frees_after_nanos } => {
                assert!(frees_after_nanos < SECOND + SECOND / 10);
                self.limited += 1;
            }
            Verdict::Wait => self.waiting += 1,
            Verdict::Crowded => {}
        }
    }

    fn most_in_a_second(&self) -> usize {
        let first = |at: usize| self.passed.partition_point(|passed| passed + SECOND <= self.passed[at]);
        (0..self.passed.len()).map(|at| at + 1 - first(at)).max().unwrap_or(0)
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

#[test]
fn a_full_table_refuses_newcomers_only() {
    let mut limit: RateLimit<()> = RateLimit::new(5, 0, 1, 1);
    let mut none = |_: usize, _: Portion| -> bool { panic!("a single loop has nobody to ask") };
    for id in 0..CLIENTS_MAX as u64 {
        let verdict = limit.decide(limit.client(&id.to_le_bytes()), (), 10, &mut none);
        assert!(matches!(verdict, Verdict::Pass { .. }));
    }
    assert_eq!(limit.decide(Client(u128::MAX), (), 10, &mut none), Verdict::Crowded);
    let verdict = limit.decide(limit.client(&3u64.to_le_bytes()), (), 10, &mut none);
    assert!(matches!(verdict, Verdict::Pass { .. }));
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
}
