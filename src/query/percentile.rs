//! Percentiles by nearest rank: exact, over all values.

use crate::{TooLarge, json};
use std::num::NonZeroUsize;

/// A percentile from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentile(f64);

impl Percentile {
    /// The 50th.
    pub const MEDIAN: Percentile = Percentile(50.0);

    /// Nothing when the number lies outside 0 to 100 or is none.
    pub fn new(percentile: f64) -> Option<Percentile> {
        // Adding zero makes 0 of -0, which would print as p-0.
        (0.0..=100.0).contains(&percentile).then_some(Percentile(percentile + 0.0))
    }

    /// ⌈p·n/100⌉ and at least 1: the place in the sorted values, counted from 1.
    ///
    /// p is taken as the decimal number that it prints as, that is, as the client wrote it, and the product
    /// is made of whole numbers. In floating point 99.9·1000 is a little above 99900, and ⌈…⌉ would
    /// make that one rank too many.
    fn rank(self, count: NonZeroUsize) -> usize {
        let scientific = format!("{:e}", self.0);
        let (digits, exponent) = scientific.split_once('e').expect("the exponent form has an exponent");
        let exponent: i32 = exponent.parse().expect("an exponent is a whole number");
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mantissa: u128 = format!("{whole}{fraction}").parse().expect("a shortest double has digits only");
        // p = mantissa / 10^places; p ≤ 100 has places ≥ -2.
        let places = fraction.len() as i32 - exponent + 2;
        let rank = match u32::try_from(places) {
            // Mantissa < 10^17 and count < 2^64: the product is below 2·10^36. Where the divisor does not
            // fit 128 bits it exceeds that by far.
            Ok(places) => match 10u128.checked_pow(places) {
                Some(divisor) => (mantissa * count.get() as u128).div_ceil(divisor),
                None => 1,
            },
            Err(_) => count.get() as u128,
        };
        (rank as usize).clamp(1, count.get())
    }
}

/// A shard's values, in no order.
#[derive(Debug)]
pub struct ValuesPartial(pub(crate) Vec<f64>);

/// Counted per value: the value, and as much again for growing here and for joining where they merge.
const VALUE_BYTES_COUNTED: usize = 2 * size_of::<f64>();

#[derive(Debug)]
pub(crate) struct ValuesBuilder {
    values: Vec<f64>,
    bytes_max: usize,
}

impl ValuesBuilder {
    pub(crate) fn new(bytes_max: usize) -> ValuesBuilder {
        ValuesBuilder { values: Vec::new(), bytes_max }
    }

    pub(crate) fn push(&mut self, value: f64) -> Result<(), TooLarge> {
        let bytes = (self.values.len() + 1) * VALUE_BYTES_COUNTED;
        if bytes > self.bytes_max {
            return Err(TooLarge { bytes, bytes_max: self.bytes_max });
        }
        self.values.push(value);
        Ok(())
    }

    pub(crate) fn finish(self) -> ValuesPartial {
        ValuesPartial(self.values)
    }
}

/// One value out of many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PercentileAnswer {
    /// Which was asked for.
    pub percentile: Percentile,
    /// Nothing when there was no value.
    pub value: Option<f64>,
    /// How many values there were.
    pub count: usize,
}

impl PercentileAnswer {
    /// The exact percentile of all shards' values. A NaN counts, as larger than every number.
    pub(crate) fn of(percentile: Percentile, mut partials: Vec<Vec<f64>>) -> PercentileAnswer {
        // The largest is not copied, and each other is freed once it was.
        let largest = (0..partials.len()).max_by_key(|&i| partials[i].len());
        let mut values = largest.map(|i| partials.swap_remove(i)).unwrap_or_default();
        values.reserve_exact(partials.iter().map(Vec::len).sum());
        for partial in partials {
            values.extend_from_slice(&partial);
        }
        let value =
            NonZeroUsize::new(values.len()).map(|count| nearest_rank(&mut values, percentile.rank(count)));
        PercentileAnswer { percentile, value, count: values.len() }
    }

    /// Appends `{"p99":500,"count":15}`.
    pub fn render(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"p");
        json::write_number(self.percentile.0, out);
        out.extend_from_slice(b"\":");
        match self.value {
            Some(value) => json::write_number(value, out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"count\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.count).as_bytes());
        out.push(b'}');
    }
}

/// The value at place `rank`, counted from 1 and at most their number, once sorted with NaN last.
fn nearest_rank(values: &mut [f64], rank: usize) -> f64 {
    // The total order puts NaN with its sign set first: so all NaN go behind the numbers by hand.
    let mut numbers = values.len();
    let mut i = 0;
    while i < numbers {
        if values[i].is_nan() {
            numbers -= 1;
            values.swap(i, numbers);
        } else {
            i += 1;
        }
    }
    if rank > numbers {
        return f64::NAN;
    }
    *values[..numbers].select_nth_unstable_by(rank - 1, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIFTEEN: [f64; 15] =
        [10., 12., 15., 18., 20., 25., 30., 35., 45., 60., 80., 100., 150., 200., 500.];

    fn rendered(percentile: f64, values: &[f64]) -> String {
        let answer = PercentileAnswer::of(Percentile::new(percentile).unwrap(), vec![values.to_vec()]);
        let mut out = Vec::new();
        answer.render(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_fifteen_values_of_the_contract() {
        assert_eq!(rendered(99.0, &FIFTEEN), r#"{"p99":500,"count":15}"#);
        assert_eq!(rendered(50.0, &FIFTEEN), r#"{"p50":35,"count":15}"#);
        assert_eq!(rendered(50.0, &[]), r#"{"p50":null,"count":0}"#);
        assert_eq!(rendered(99.9, &[1.5]), r#"{"p99.9":1.5,"count":1}"#);
        assert_eq!(rendered(0.0, &FIFTEEN), r#"{"p0":10,"count":15}"#);
        assert_eq!(rendered(-0.0, &FIFTEEN), r#"{"p0":10,"count":15}"#);
        assert_eq!(rendered(100.0, &FIFTEEN), r#"{"p100":500,"count":15}"#);
    }

    #[test]
    fn the_rank_is_exact_where_floating_point_is_not() {
        for (percentile, count, expected) in [
            (99.0, 100, 99),
            (29.0, 100, 29),
            (58.0, 100, 58),
            (99.9, 1_000, 999),
            (0.1, 1_000, 1),
            (0.1, 1_001, 2),
            (33.3, 1_000, 333),
            (0.0, 7, 1),
            (100.0, usize::MAX, usize::MAX),
            (100.0, 1, 1),
            (5e-324, usize::MAX, 1),
            (1e-18, usize::MAX, 1),
            (1e-17, usize::MAX, 2),
            (1.2345678901234567e-5, 1_000_000_000, 124),
        ] {
            let count = NonZeroUsize::new(count).unwrap();
            assert_eq!(Percentile(percentile).rank(count), expected, "p{percentile} of {count}");
        }
    }

    #[test]
    fn nan_sorts_last_whatever_its_sign() {
        let values = [f64::NAN, 2.0, -f64::NAN, f64::NEG_INFINITY, 1.0];
        assert_eq!(rendered(20.0, &values), r#"{"p20":"-Inf","count":5}"#);
        assert_eq!(rendered(60.0, &values), r#"{"p60":2,"count":5}"#);
        assert_eq!(rendered(80.0, &values), r#"{"p80":"NaN","count":5}"#);
    }

    #[test]
    fn the_bound_on_bytes_is_kept_and_told() {
        let mut builder = ValuesBuilder::new(3 * VALUE_BYTES_COUNTED);
        for _ in 0..3 {
            builder.push(1.0).unwrap();
        }
        let bytes = 4 * VALUE_BYTES_COUNTED;
        assert_eq!(builder.push(1.0), Err(TooLarge { bytes, bytes_max: 3 * VALUE_BYTES_COUNTED }));
    }

    proptest! {
        /// For percentiles of two decimals the rank is ⌈p·n/100⌉ in whole numbers.
        #[test]
        fn rank_agrees_with_whole_numbers(hundredths in 0u64..=10_000, count in 1usize..1_000_000) {
            let percentile = Percentile::new(hundredths as f64 / 100.0).unwrap();
            let expected = (hundredths as usize * count).div_ceil(10_000).max(1);
            prop_assert_eq!(percentile.rank(NonZeroUsize::new(count).unwrap()), expected);
        }

        /// Any share of the values among any shards gives the value that sorting all of them gives.
        #[test]
        fn shards_agree_with_sorting_everything(
            shards in proptest::collection::vec(
                proptest::collection::vec(proptest::num::f64::ANY, 0..40), 0..5,
            ),
            percentile in 0.0f64..=100.0,
        ) {
            let percentile = Percentile::new(percentile).unwrap();
            let mut all = shards.concat();
            all.sort_by(|a, b| a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(b)));
            let expected = NonZeroUsize::new(all.len()).map(|count| all[percentile.rank(count) - 1]);
            let answer = PercentileAnswer::of(percentile, shards);
            prop_assert_eq!(answer.count, all.len());
            // Which NaN it is makes no difference.
            let one_nan = |v: f64| if v.is_nan() { f64::NAN } else { v };
            let bits = |value: Option<f64>| value.map(one_nan).map(f64::to_bits);
            prop_assert_eq!(bits(answer.value), bits(expected));
        }
    }
}
