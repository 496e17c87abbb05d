//! Count and sum of samples, so exact that equal values average to that value.
//!
//! A plain sum of 0.1 + 0.1 + 0.1 divided by 3 is above 0.1, and a rule `> 0.1` would fire on values of 0.1.
//! The sum is therefore kept in two doubles, what the first cannot hold being in the second (Knuth's two-sum,
//! 106 bits in all), and the division takes its remainder into account.

/// Count and sum of some finite values; parts of shards add up to the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WindowPart {
    count: u64,
    sum: f64,
    /// What `sum` is short of the true sum.
    rest: f64,
}

impl WindowPart {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The average, unless there is no value. Infinite when the sum is beyond a double's range.
    pub fn average(&self) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let count = self.count as f64;
        let quotient = self.sum / count;
        let remainder = (-quotient).mul_add(count, self.sum) + self.rest;
        Some(if remainder.is_finite() { quotient + remainder / count } else { quotient })
    }

    /// Takes one more value in.
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        self.add_to_sum(value, 0.0);
    }

    /// Takes a value out that was added before.
    pub(crate) fn remove(&mut self, value: f64) {
        self.count -= 1;
        if self.count == 0 {
            *self = WindowPart::default();
        } else {
            self.add_to_sum(-value, 0.0);
        }
    }

    /// Takes all values of another part in.
    pub(crate) fn add_part(&mut self, other: WindowPart) {
        self.count += other.count;
        self.add_to_sum(other.sum, other.rest);
    }

    fn add_to_sum(&mut self, value: f64, rest: f64) {
        let sum = self.sum + value;
        let taken = sum - self.sum;
        let lost = (self.sum - (sum - taken)) + (value - taken);
        let rest = self.rest + rest + lost;
        self.sum = sum + rest;
        self.rest = rest - (self.sum - sum);
        if !self.sum.is_finite() {
            // An infinite sum has no rest; NaN there would hide on which side of a threshold it lies.
            *self = WindowPart { count: self.count, sum, rest: 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(values: &[f64]) -> WindowPart {
        let mut part = WindowPart::default();
        values.iter().for_each(|&value| part.add(value));
        part
    }

    #[test]
    fn a_sum_beyond_a_doubles_range_is_infinite_not_nan() {
        assert_eq!(part(&[f64::MAX; 3]).average(), Some(f64::INFINITY));
        assert_eq!(part(&[f64::MIN; 3]).average(), Some(f64::NEG_INFINITY));
        assert_eq!(part(&[]).average(), None);
    }

    proptest! {
        /// A rule `> v` must not fire when every sample is v, however many there are on however many shards.
        #[test]
        fn equal_values_average_to_that_value(
            value in -1e300f64..1e300,
            counts in proptest::collection::vec(1usize..300, 1..4),
        ) {
            let mut whole = WindowPart::default();
            counts.iter().for_each(|&count| whole.add_part(part(&vec![value; count])));
            prop_assert_eq!(whole.average(), Some(value));
            prop_assert_eq!(whole.count() as usize, counts.iter().sum::<usize>());
        }

        /// Whole numbers have exact sums, so parts in any grouping and with replaced values are exact.
        #[test]
        fn grouping_and_removal_change_nothing(
            values in proptest::collection::vec(-1_000_000i64..1_000_000, 1..50),
            removed in proptest::collection::vec(-1e12f64..1e12, 0..10),
            cut in any::<proptest::sample::Index>(),
        ) {
            let doubles: Vec<f64> = values.iter().map(|&value| value as f64 / 64.0).collect();
            let (left, right) = doubles.split_at(cut.index(doubles.len()));
            let mut whole = part(left);
            removed.iter().for_each(|&value| whole.add(value));
            whole.add_part(part(right));
            removed.iter().for_each(|&value| whole.remove(value));
            let expected = values.iter().sum::<i64>() as f64 / 64.0 / values.len() as f64;
            prop_assert_eq!(whole.average(), Some(expected));
        }
    }
}
