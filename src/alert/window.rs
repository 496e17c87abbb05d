//! One shard's samples of a metric in the last so many milliseconds, as counts and sums per bucket.
//!
//! ```text
//!   now = 1234 ms, window = 300 ms, buckets of 100 ms:
//!
//!       8     9    10    11    12 ┊  13    14         bucket = sample's own time / 100 ms
//!           └────── counted ──────┘└── ahead ──┘
//! ```
//!
//! A sample counts from the beginning of its bucket until the end of its bucket has left the window. So
//! every sample of (now - window, now] counts, and at either edge samples of at most one bucket more do.
//! Since the window is a whole number of buckets, the count changes only where a bucket begins: that is
//! what [`Window::next_change_ms`] tells, and one timer per rule is enough.
//!
//! A sample ahead of the clock waits in its bucket until its time has come. The buckets are a queue without
//! gaps that reaches from the oldest sample to the newest, so time ahead costs memory only when somebody
//! sends it: at most window + future, 24 bytes per bucket (60 s and 10 min: 158 KB).

use crate::{WINDOW_MS_MAX, WindowPart, WindowRule};
use model::{Sample, Timestamp};
use std::collections::VecDeque;

/// The grain of a window.
pub const BUCKET_MS: i64 = 100;

/// A sample further ahead of the clock than this is not kept for later, whatever ingest lets in.
pub const FUTURE_MS_MAX: i64 = 60 * 60 * 1_000;

const _: () =
    assert!((WINDOW_MS_MAX + FUTURE_MS_MAX) / BUCKET_MS * (size_of::<WindowPart>() as i64) < 2 << 20);

/// A rule's window over the samples of one shard.
#[derive(Debug)]
pub struct Window {
    /// Without gaps; may reach outside of what counts, never outside of window and future at the last `add`.
    buckets: VecDeque<WindowPart>,
    /// The number of the first bucket; meaningless when there is none.
    first: i64,
    window_buckets: i64,
    future_buckets: i64,
}

impl Window {
    /// An empty window for a rule. Samples up to `future_ms` ahead of the clock count when their time has
    /// come; more than [`FUTURE_MS_MAX`] is taken as that.
    pub fn new(rule: &WindowRule, future_ms: i64) -> Window {
        Window {
            buckets: VecDeque::new(),
            first: 0,
            window_buckets: rule.window_ms() / BUCKET_MS,
            future_buckets: future_ms.clamp(0, FUTURE_MS_MAX) / BUCKET_MS,
        }
    }

    /// Takes a sample in, unless it is too old to count, too far ahead, or no finite number. Returns whether
    /// it counts already at `now_ms`.
    pub fn add(&mut self, now_ms: i64, sample: Sample) -> bool {
        if !sample.value.is_finite() {
            return false;
        }
        match self.bucket_at(now_ms, sample.timestamp) {
            Some(bucket) => bucket.add(sample.value),
            None => return false,
        }
        bucket_of(sample.timestamp.millis()) <= bucket_of(now_ms)
    }

    /// Tells that a sample was replaced by another value at its time. Returns whether that changes what
    /// counts at `now_ms`.
    pub fn replace(&mut self, now_ms: i64, old: Sample, new_value: f64) -> bool {
        let mut changed = false;
        if old.value.is_finite()
            && let Some(bucket) = self.bucket_at(now_ms, old.timestamp)
            // The bucket may be empty: a window starts empty, its store need not.
            && bucket.count() > 0
        {
            bucket.remove(old.value);
            changed = bucket_of(old.timestamp.millis()) <= bucket_of(now_ms);
        }
        self.add(now_ms, Sample { value: new_value, ..old }) || changed
    }

    /// Count and sum of what counts at `now_ms`, summed anew from the buckets: a window of 60 s adds 601.
    pub fn part(&self, now_ms: i64) -> WindowPart {
        let now = bucket_of(now_ms);
        let mut whole = WindowPart::default();
        let counted = self.used().skip_while(|(number, _)| *number < now - self.window_buckets);
        for (_, part) in counted.take_while(|(number, _)| *number <= now) {
            whole.add_part(part);
        }
        whole
    }

    /// When, after `now_ms`, the part changes by time alone: a bucket leaves, or one from ahead comes in.
    pub fn next_change_ms(&self, now_ms: i64) -> Option<i64> {
        let now = bucket_of(now_ms);
        let mut used =
            self.used().map(|(number, _)| number).skip_while(|number| *number < now - self.window_buckets);
        let oldest = used.next()?;
        let ahead = if oldest > now { Some(oldest) } else { used.find(|number| *number > now) };
        let leaves = oldest + self.window_buckets + 1;
        Some(ahead.map_or(leaves, |begins| begins.min(leaves)) * BUCKET_MS)
    }

    /// The buckets that hold samples, oldest first, with their numbers.
    fn used(&self) -> impl Iterator<Item = (i64, WindowPart)> {
        (self.first..).zip(self.buckets.iter().copied()).filter(|(_, part)| part.count() > 0)
    }

    /// The bucket of a time, unless that is too old to count or too far ahead. Drops what has become so,
    /// which after a clock was set back may be the newest.
    fn bucket_at(&mut self, now_ms: i64, timestamp: Timestamp) -> Option<&mut WindowPart> {
        let now = bucket_of(now_ms);
        let kept = now - self.window_buckets..=now + self.future_buckets;
        while !self.buckets.is_empty() && self.first < *kept.start() {
            self.buckets.pop_front();
            self.first += 1;
        }
        while !self.buckets.is_empty() && self.first + self.buckets.len() as i64 - 1 > *kept.end() {
            self.buckets.pop_back();
        }

        let number = bucket_of(timestamp.millis());
        if !kept.contains(&number) {
            return None;
        }
        if self.buckets.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.buckets.push_front(WindowPart::default());
            self.first -= 1;
        }
        // Both lie within `kept`, so the difference is small and not negative.
        let index = (number - self.first) as usize;
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, WindowPart::default());
        }
        self.buckets.get_mut(index)
    }
}

fn bucket_of(millis: i64) -> i64 {
    millis.div_euclid(BUCKET_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Comparison, Condition};
    use proptest::prelude::*;

    const NOW: i64 = 1_696_789_234_567;

    fn window(window_ms: i64, future_ms: i64) -> Window {
        let condition = Condition { comparison: Comparison::Greater, threshold: 80.0 };
        Window::new(&WindowRule::new("cpu", "cpu", window_ms, condition).unwrap(), future_ms)
    }

    fn sample(millis: i64, value: f64) -> Sample {
        Sample { timestamp: Timestamp::first_of_milli(millis), value }
    }

    fn count_and_average(part: WindowPart) -> (u64, Option<f64>) {
        (part.count(), part.average())
    }

    #[test]
    fn a_sample_counts_until_its_bucket_has_left() {
        let mut window = window(60_000, 0);
        assert!(window.add(1_000, sample(950, 85.0)));
        assert_eq!(count_and_average(window.part(1_000)), (1, Some(85.0)));
        assert_eq!(window.next_change_ms(1_000), Some(61_000));
        assert_eq!(window.part(60_999).count(), 1);
        assert_eq!(window.part(61_000).count(), 0);
        assert_eq!(window.next_change_ms(61_000), None);
        assert_eq!(window.next_change_ms(i64::MAX), None);
    }

    #[test]
    fn a_sample_ahead_of_the_clock_counts_when_its_time_has_come() {
        let mut window = window(1_000, 5_000);
        assert!(!window.add(NOW, sample(NOW + 3_000, 1.0)));
        assert!(!window.add(NOW, sample(NOW + 6_000, 9.0)), "too far ahead to be kept");
        assert_eq!(window.part(NOW).count(), 0);
        let begins = window.next_change_ms(NOW).unwrap();
        assert!((NOW + 2_900..=NOW + 3_000).contains(&begins));
        assert_eq!(window.part(begins - 1).count(), 0);
        assert_eq!(count_and_average(window.part(begins)), (1, Some(1.0)));
        assert_eq!(window.next_change_ms(begins), Some(begins + 1_100));
        assert_eq!(window.next_change_ms(begins + 1_100), None);
    }

    #[test]
    fn a_replaced_value_is_corrected_and_not_counted_twice() {
        let mut window = window(1_000, 0);
        for value in [10.0, 20.0, 30.0] {
            window.add(NOW, sample(NOW, value));
        }
        assert!(window.replace(NOW, sample(NOW, 30.0), 60.0));
        assert_eq!(count_and_average(window.part(NOW)), (3, Some(30.0)));
        assert!(window.replace(NOW, sample(NOW, 60.0), f64::NAN), "a value that cannot be averaged leaves");
        assert_eq!(count_and_average(window.part(NOW)), (2, Some(15.0)));
        let mut window = self::window(1_000, 0);
        window.replace(NOW, sample(NOW, 1.0), 5.0);
        assert_eq!(count_and_average(window.part(NOW)), (1, Some(5.0)), "the old value was never seen here");
        assert!(!window.replace(NOW, sample(NOW - 5_000, 1.0), 5.0), "too old to count");
        assert_eq!(window.part(NOW).count(), 1);
    }

    #[test]
    fn what_is_no_finite_number_is_left_out() {
        let mut window = window(1_000, 0);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!window.add(NOW, sample(NOW, value)));
        }
        assert_eq!(window.part(NOW), WindowPart::default());
    }

    /// Whatever times come and however the clock jumps, the queue stays within window and future.
    #[test]
    fn memory_stays_bounded_when_times_and_clock_jump() {
        let mut window = window(60_000, 600_000);
        let day_ms = 86_400_000;
        for now in [NOW, NOW + day_ms, NOW - day_ms, 0, NOW, i64::MAX, i64::MIN, NOW] {
            for millis in
                [now.saturating_add(600_000), now.saturating_sub(60_000), 0, i64::MAX, i64::MIN, now]
            {
                window.add(now, sample(millis, 1.0));
                assert!(window.buckets.len() <= 6_601);
                let _ = (window.part(now), window.next_change_ms(now));
            }
        }
        assert_eq!(window.part(NOW).count(), 2);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(i64),
        Add { age_ms: i64, value: i32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0i64..700).prop_map(Step::Pass),
            (-1_500i64..2_500, -1_000i32..1_000).prop_map(|(age_ms, value)| Step::Add { age_ms, value }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// The window equals one that keeps every sample and counts it from the beginning of its 100 ms to
        /// `window` after their end; and it misses no sample of (now - window, now], nor counts one that lies
        /// more than a bucket outside.
        #[test]
        fn the_window_is_the_naive_one_on_the_grain_of_buckets(
            steps in proptest::collection::vec(step(), 1..120),
        ) {
            const WINDOW_MS: i64 = 1_000;
            const FUTURE_MS: i64 = 500;
            let mut window = window(WINDOW_MS, FUTURE_MS);
            let mut naive: Vec<(i64, f64)> = Vec::new();
            let mut now = NOW;
            for step in steps {
                match step {
                    Step::Pass(ms) => now += ms,
                    Step::Add { age_ms, value } => {
                        let millis = now - age_ms;
                        let counts = window.add(now, sample(millis, f64::from(value)));
                        let begins = millis / BUCKET_MS * BUCKET_MS;
                        if begins <= now / BUCKET_MS * BUCKET_MS + FUTURE_MS {
                            naive.push((millis, f64::from(value)));
                        }
                        prop_assert_eq!(counts, begins <= now && begins + BUCKET_MS > now - WINDOW_MS);
                    }
                }
                let counted: Vec<(i64, f64)> = naive.iter().copied().filter(|(millis, _)| {
                    let begins = millis / BUCKET_MS * BUCKET_MS;
                    begins <= now && begins + BUCKET_MS > now - WINDOW_MS
                }).collect();
                let part = window.part(now);
                prop_assert_eq!(part.count(), counted.len() as u64);
                let sum: f64 = counted.iter().map(|(_, value)| value).sum();
                prop_assert_eq!(part.average(), (!counted.is_empty()).then(|| sum / counted.len() as f64));

                let within = |slack: i64| naive.iter()
                    .filter(|(millis, _)| (now - WINDOW_MS - slack < *millis) && *millis <= now + slack)
                    .count() as u64;
                prop_assert!(within(0) <= part.count() && part.count() <= within(BUCKET_MS));

                // Nothing changes before the time that was told, and something does then.
                match window.next_change_ms(now) {
                    None => prop_assert_eq!(window.part(now + 10_000).count(), 0),
                    Some(at) => {
                        prop_assert!(at > now);
                        prop_assert_eq!(window.part(at - 1), part);
                        let (from, to) = (at - 1, at);
                        let changes = naive.iter().any(|(millis, _)| {
                            let begins = millis / BUCKET_MS * BUCKET_MS;
                            let counts = |now: i64| begins <= now && begins + BUCKET_MS > now - WINDOW_MS;
                            counts(from) != counts(to)
                        });
                        prop_assert!(changes, "woken for nothing");
                    }
                }
            }
        }
    }
}
