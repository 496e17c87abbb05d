//! The sum of a chunk, to be added up further without loss: two doubles that do not overlap.
//!
//! ```text
//! high  the exact sum, rounded to the nearest double (ties to even)
//! low   what is lacking then, rounded likewise: zero where the sum is a double
//! ```
//!
//! Both are what the values are, not how they were added: any order gives the same bits. They are the sum itself
//! ([`Sum::is_exact`]) wherever its bits lie within two doubles, which a thousand decimals of one kind do; else they are
//! right to 2⁻¹⁰⁵ of it. A reader that adds sums up without loss, whether from rows or from samples, may so use those
//! that are exact and has to read the samples of the others; one that is content with a place or two uses all.
//! What an infinity or a NaN comes to is high, and exact: no order changes it. A sum that is beyond the largest double, if
//! only on the way, may be said not to be exact though it is, by the order of adding, and never the other way.
//!
//! ```text
//! of 1,024 values: eight lanes, each a sum and what its additions have lost      as good as always nothing else is lost
//!   something else was lost → all values into one list of doubles that do not overlap (Shewchuk's expansion)
//! the lanes, or the values → that list → high: the list rounded; low: what is left of it rounded
//! ```

use super::COLUMN_SAMPLES_MAX;

/// See the head of this file.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    /// The sum as one double; NaN where there is no value.
    pub high: f64,
    /// What it lacks; zero where that is nothing, or is not known.
    pub low: f64,
    /// Whether both together are the sum.
    pub is_exact: bool,
}

/// Times this no sum of a column is beyond the largest double.
const SMALL: f64 = 1.0 / COLUMN_SAMPLES_MAX as f64;

/// Sums run side by side, so that no addition waits for the one before.
const LANES: usize = 8;

impl Sum {
    /// Of these values; NaN if there is none.
    pub fn of(values: &[f64]) -> Sum {
        if values.is_empty() {
            return Sum { high: f64::NAN, low: 0.0, is_exact: true };
        }
        let lanes = Lanes::of(values);
        // Zero exactly if each addition's loss was kept whole.
        let found = if lanes.missed.iter().sum::<f64>() == 0.0 {
            Expansion::of(lanes.sums.into_iter().chain(lanes.lost)).sum()
        } else {
            Expansion::of(values.iter().copied()).sum()
        };
        if let Some(sum) = found {
            return sum;
        }
        if values.iter().all(|value| value.is_finite()) {
            // Beyond the largest double, perhaps only on the way.
            let high = Expansion::of(values.iter().map(|value| value * SMALL)).rounded() / SMALL;
            return Sum { high, low: 0.0, is_exact: false };
        }
        let high: f64 = values.iter().filter(|value| !value.is_finite()).sum();
        // The bits of a NaN that an addition makes are the machine's choice.
        Sum { high: if high.is_nan() { f64::NAN } else { high }, low: 0.0, is_exact: true }
    }

    /// Of one value so many times, at most [`COLUMN_SAMPLES_MAX`].
    pub fn of_constant(value: f64, count: usize) -> Sum {
        if count == 0 || !value.is_finite() {
            let high = if count == 0 || value.is_nan() { f64::NAN } else { value };
            return Sum { high, low: 0.0, is_exact: true };
        }
        // Each half of its bits times the count is a double.
        let upper = f64::from_bits(value.to_bits() & !0x7ff_ffff);
        let (high, low) = add(upper * count as f64, (value - upper) * count as f64);
        if high.is_finite() {
            Sum { high: high + 0.0, low: low + 0.0, is_exact: true }
        } else {
            Sum { high: value * SMALL * count as f64 / SMALL, low: 0.0, is_exact: false }
        }
    }

    /// Equal to the last bit.
    pub fn same_bits(&self, other: &Sum) -> bool {
        let bits = |of: &Sum| (of.high.to_bits(), of.low.to_bits(), of.is_exact);
        bits(self) == bits(other)
    }

    /// What a row held before version 5 of the format: one double, right to the last place but one.
    pub(crate) fn before_version_5(values: &[f64]) -> f64 {
        let Lanes { sums, lost, .. } = Lanes::of(values);
        let (mut sum, mut behind) = (0.0, 0.0);
        for lane in sums {
            let (rounded, loss) = add(sum, lane);
            (sum, behind) = (rounded, behind + loss);
        }
        // An infinity leaves NaN behind it in what was lost.
        let sum: f64 = if f64::is_finite(sum) { sum + behind + lost.iter().sum::<f64>() } else { sum };
        if sum.is_nan() { f64::NAN } else { sum }
    }
}

/// The rounded sum, and what rounding has lost: together they are the sum, unless it is no finite number.
#[inline(always)]
fn add(a: f64, b: f64) -> (f64, f64) {
    let rounded = a + b;
    let added = rounded - a;
    (rounded, (a - (rounded - added)) + (b - added))
}

struct Lanes {
    sums: [f64; LANES],
    /// What the sums have lost.
    lost: [f64; LANES],
    /// How much of that was lost in turn, added up without signs; NaN where there was an infinity or a NaN.
    missed: [f64; LANES],
}

impl Lanes {
    fn of(values: &[f64]) -> Lanes {
        let (mut sums, mut lost, mut missed) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let mut add_row = |values: &[f64]| {
            for (lane, &value) in values.iter().enumerate() {
                let (sum, loss) = add(sums[lane], value);
                let (losses, loss) = add(lost[lane], loss);
                (sums[lane], lost[lane]) = (sum, losses);
                missed[lane] += loss.abs();
            }
        };
        let (rows, rest) = values.as_chunks::<LANES>();
        rows.iter().for_each(|row| add_row(row));
        add_row(rest);
        Lanes { sums, lost, missed }
    }
}

/// A number as a sum of doubles none of which overlaps another, the least first: whatever finite doubles are added.
#[derive(Default)]
struct Expansion(Vec<f64>);

impl Expansion {
    fn of(values: impl Iterator<Item = f64>) -> Expansion {
        let mut all = Expansion::default();
        values.for_each(|value| all.add(value));
        all
    }

    fn add(&mut self, value: f64) {
        let (mut carried, mut kept) = (value, 0);
        for at in 0..self.0.len() {
            let (sum, loss) = add(carried, self.0[at]);
            if loss != 0.0 {
                self.0[kept] = loss;
                kept += 1;
            }
            carried = sum;
        }
        self.0.truncate(kept);
        self.0.push(carried);
    }

    /// To the nearest double, ties to even; no finite one where the number is beyond all.
    fn rounded(&self) -> f64 {
        let mut parts = self.0.iter().rev().copied();
        let (mut high, mut low) = (parts.next().unwrap_or(0.0), 0.0);
        for part in parts.by_ref() {
            (high, low) = add(high, part);
            if low != 0.0 {
                break;
            }
        }
        // What is lost may be half of the last place: then what lies behind says to which side.
        if let Some(behind) = parts.find(|part| *part != 0.0)
            && (low < 0.0) == (behind < 0.0)
        {
            let (next, loss) = add(high, 2.0 * low);
            if loss == 0.0 {
                high = next;
            }
        }
        high
    }

    /// None where a part is no finite number.
    fn sum(mut self) -> Option<Sum> {
        // A sum of nothing but -0 is zero, as among other values.
        let high = self.rounded() + 0.0;
        if !high.is_finite() || self.0.iter().any(|part| !part.is_finite()) {
            return None;
        }
        self.add(-high);
        let low = self.rounded() + 0.0;
        self.add(-low);
        Some(Sum { high, low, is_exact: self.0.iter().all(|part| *part == 0.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values as whole numbers of 2⁻⁶⁰, of at most 2⁶⁰: their sum in integers is exact.
    fn in_units(values: &[f64]) -> i128 {
        values.iter().map(|value| (value * 2f64.powi(30) * 2f64.powi(30)) as i128).sum()
    }

    /// Digits before and behind the point that are far from each other, too.
    fn values() -> impl Strategy<Value = Vec<f64>> {
        let value = prop_oneof![
            (-1_000_000i64..1_000_000).prop_map(|n| n as f64 / 100.0),
            (-1_000_000i64..1_000_000).prop_map(|n| n as f64 * 2f64.powi(-60)),
            (-50i64..50).prop_map(|n| n as f64 * 2f64.powi(50)),
            prop_oneof![Just(0.0), Just(-0.0), Just(1.0), Just(2f64.powi(53)), Just(2f64.powi(-53))],
        ];
        let value = value.prop_map(|value: f64| {
            // A whole number of the units.
            (value * 2f64.powi(60)).trunc() * 2f64.powi(-60)
        });
        proptest::collection::vec(value, 1..60)
    }

    proptest! {
        /// The pair is the exact sum rounded, and what that lacks; the same whatever the order.
        #[test]
        fn the_pair_is_what_integers_say(values in values(), turn in any::<proptest::sample::Index>()) {
            let found = Sum::of(&values);
            let exact = in_units(&values);
            // An integer becomes the nearest double, ties to even.
            let unit = 2f64.powi(-60);
            prop_assert_eq!(found.high, exact as f64 * unit);
            let lacking = exact - (exact as f64) as i128;
            prop_assert_eq!(found.low, lacking as f64 * unit);
            prop_assert_eq!(found.is_exact, (lacking as f64) as i128 == lacking);
            let mut turned = values.clone();
            turned.rotate_left(turn.index(values.len()));
            prop_assert!(Sum::of(&turned).same_bits(&found));
            turned.reverse();
            prop_assert!(Sum::of(&turned).same_bits(&found));
            turned.sort_by(f64::total_cmp);
            prop_assert!(Sum::of(&turned).same_bits(&found));
        }

        /// One value so many times is what a list of it comes to.
        #[test]
        fn a_constant_is_a_list_of_it(bits in any::<u64>(), count in 1..COLUMN_SAMPLES_MAX) {
            let value = f64::from_bits(bits);
            let (of_one, of_all) = (Sum::of_constant(value, count), Sum::of(&vec![value; count]));
            prop_assert!(of_one.same_bits(&of_all), "{of_one:?} {of_all:?}");
        }
    }

    #[test]
    fn sums_at_the_edges_of_a_double() {
        let of = |values: &[f64]| {
            let Sum { high, low, is_exact } = Sum::of(values);
            (high, low, is_exact)
        };
        assert_eq!(of(&[1e300, 1.0, -1e300]), (1.0, 0.0, true));
        assert_eq!(of(&[1e300, 1.0, 1e-300]), (1e300, 1.0, false));
        assert_eq!(of(&[1.0, 2f64.powi(-53)]), (1.0, 2f64.powi(-53), true));
        // Half of the last place, and a little: to one side or to the other.
        assert_eq!(of(&[1.0, 2f64.powi(-53), 1e-300]).0, 1.0 + f64::EPSILON);
        assert_eq!(of(&[1.0, 2f64.powi(-53), -1e-300]).0, 1.0);
        assert_eq!(of(&[f64::MAX, f64::MAX]), (f64::INFINITY, 0.0, false));
        assert_eq!(of(&[f64::INFINITY, 1.0]), (f64::INFINITY, 0.0, true));
        assert_eq!(of(&[f64::NEG_INFINITY, f64::MAX, f64::MAX]), (f64::NEG_INFINITY, 0.0, true));
        assert!(of(&[f64::INFINITY, f64::NEG_INFINITY]).0.is_nan() && of(&[f64::NAN, 1.0]).0.is_nan());
        assert!(of(&[]).0.is_nan());
        assert_eq!(Sum::of(&[-0.0, -0.0]).high.to_bits(), 0);
        let least = f64::from_bits(1);
        assert_eq!(of(&[least, least, -1.0, 1.0]), (2.0 * least, 0.0, true));
    }
}
