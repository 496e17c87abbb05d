//! Percentiles by nearest rank: exact, over all values.

use crate::blocks::Blocks;
use crate::json;
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
pub struct ValuesPartial(Blocks<f64>);

#[derive(Debug, Default)]
pub(crate) struct ValuesBuilder {
    values: Blocks<f64>,
}

impl ValuesBuilder {
    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.values.bytes()
    }

    pub(crate) fn finish(self) -> ValuesPartial {
        ValuesPartial(self.values)
    }

    /// Lets go of some of the values; `false` when none is left.
    pub(crate) fn let_go(&mut self) -> bool {
        self.values.let_go()
    }
}

impl ValuesPartial {
    /// Lets go of some of the values; `false` when none is left.
    pub(crate) fn let_go(&mut self) -> bool {
        self.0.let_go()
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

/// Bits of a key that one pass looks at.
const DIGIT_BITS: u32 = 16;
/// Blocks of values that one step looks at: 32,768 values, some 0.1 ms.
const BLOCKS_PER_STEP: usize = 8;
/// So few values are sorted out in one step.
const VALUES_IN_ONE_STEP: usize = 4096;

/// Finds the value at one rank among those of all shards, in bounded steps and in the memory that they have.
///
/// ```text
/// key(value)   64 bits that sort as the values do, every NaN last
/// pass         count the values by the next 16 bits of their keys; the rank falls into one of the counts:
///              only its values can be it, and the rank counts among them from now on
///              (the next pass drops the others on its way)
/// few left     select among them; after four passes all that are left are equal
/// ```
#[derive(Debug)]
pub struct PercentileSearch {
    percentile: Percentile,
    count: usize,
    /// Candidates not yet looked at in this pass, then those that were.
    ahead: Vec<Vec<f64>>,
    behind: Vec<Vec<f64>>,
    /// The rank among the candidates, from 0.
    rank: usize,
    /// How many candidates the pass will have looked at.
    candidates: usize,
    /// Bits of the key that are known, and what they are.
    known_bits: u32,
    prefix: u64,
    counts: Vec<usize>,
    found: Option<f64>,
}

impl PercentileSearch {
    /// Nothing has been looked at yet.
    pub(crate) fn new(percentile: Percentile, partials: impl Iterator<Item = ValuesPartial>) -> Self {
        let ahead: Vec<Vec<f64>> = partials.flat_map(|partial| partial.0.into_blocks()).collect();
        let count = ahead.iter().map(Vec::len).sum();
        let rank = NonZeroUsize::new(count).map_or(0, |count| percentile.rank(count) - 1);
        PercentileSearch {
            percentile,
            count,
            ahead,
            behind: Vec::new(),
            rank,
            candidates: count,
            known_bits: 0,
            prefix: 0,
            counts: Vec::new(),
            found: None,
        }
    }

    /// Does the next step, some 0.1 ms; `false` once the answer is there, which it then stays.
    pub fn step(&mut self) -> bool {
        if self.found.is_some() {
            self.ahead.truncate(self.ahead.len().saturating_sub(BLOCKS_PER_STEP));
            return !self.ahead.is_empty();
        }
        if self.count == 0 {
            return false;
        }
        if self.candidates <= VALUES_IN_ONE_STEP {
            self.select_among_few();
            return self.found.is_none() || !self.ahead.is_empty();
        }
        if self.counts.is_empty() {
            self.counts.resize(1 << DIGIT_BITS, 0);
        }
        for _ in 0..BLOCKS_PER_STEP {
            let Some(mut values) = self.ahead.pop() else {
                self.narrow();
                break;
            };
            self.drop_others(&mut values);
            let shift = u64::BITS - DIGIT_BITS - self.known_bits;
            for value in &values {
                self.counts[(key(*value) >> shift) as usize & ((1 << DIGIT_BITS) - 1)] += 1;
            }
            if !values.is_empty() {
                self.behind.push(values);
            }
        }
        true
    }

    /// Lets go of some of the values before the answer is there; `false` when none is left. No step is done any
    /// more.
    pub fn let_go(&mut self) -> bool {
        let values = if self.ahead.is_empty() { &mut self.behind } else { &mut self.ahead };
        values.truncate(values.len().saturating_sub(BLOCKS_PER_STEP));
        !self.ahead.is_empty() || !self.behind.is_empty()
    }

    /// The answer, once [`PercentileSearch::step`] has said that it is there.
    pub fn answer(&self) -> PercentileAnswer {
        PercentileAnswer { percentile: self.percentile, value: self.found, count: self.count }
    }

    /// Keeps the values whose keys begin as is known by now.
    fn drop_others(&self, values: &mut Vec<f64>) {
        if let Some(shift) = u64::BITS.checked_sub(self.known_bits).filter(|shift| *shift < u64::BITS) {
            values.retain(|value| key(*value) >> shift == self.prefix);
        }
    }

    /// The end of a pass: the count that the rank falls into says the next bits.
    fn narrow(&mut self) {
        let mut before = 0;
        for (digit, count) in self.counts.iter_mut().enumerate() {
            let count = std::mem::take(count);
            if self.rank >= before && self.rank < before + count {
                self.prefix = self.prefix << DIGIT_BITS | digit as u64;
                self.candidates = count;
                self.rank -= before;
                before = usize::MAX;
            } else if before != usize::MAX {
                before += count;
            }
        }
        self.known_bits += DIGIT_BITS;
        std::mem::swap(&mut self.ahead, &mut self.behind);
        if self.known_bits == u64::BITS {
            self.found = Some(value_of(self.prefix));
        }
    }

    /// Some steps that throw blocks out, and the one that gathers what is left and selects.
    fn select_among_few(&mut self) {
        for _ in 0..BLOCKS_PER_STEP {
            let Some(mut values) = self.ahead.pop() else {
                let mut few = self.behind.concat();
                let (_, value, _) = few.select_nth_unstable_by_key(self.rank, |value| key(*value));
                self.found = Some(*value);
                return;
            };
            self.drop_others(&mut values);
            if !values.is_empty() {
                self.behind.push(values);
            }
        }
    }
}

/// Sorts as the numbers do, -0 before 0; every NaN is the same and behind all numbers.
fn key(value: f64) -> u64 {
    if value.is_nan() {
        return u64::MAX;
    }
    let bits = value.to_bits();
    // A negative number has all bits turned, a positive one the sign alone.
    bits ^ (((bits as i64 >> 63) as u64) | 1 << 63)
}

fn value_of(key: u64) -> f64 {
    match key {
        u64::MAX => f64::NAN,
        key if key >> 63 == 1 => f64::from_bits(key ^ 1 << 63),
        key => f64::from_bits(!key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIFTEEN: [f64; 15] =
        [10., 12., 15., 18., 20., 25., 30., 35., 45., 60., 80., 100., 150., 200., 500.];

    fn answer(percentile: Percentile, shards: &[Vec<f64>]) -> PercentileAnswer {
        let partials = shards.iter().map(|values| {
            let mut builder = ValuesBuilder::default();
            values.iter().for_each(|value| builder.push(*value));
            builder.finish()
        });
        let mut search = PercentileSearch::new(percentile, partials);
        while search.step() {}
        assert!(!search.step());
        search.answer()
    }

    /// By sorting everything.
    fn naive(percentile: Percentile, shards: &[Vec<f64>]) -> Option<f64> {
        let mut all = shards.concat();
        all.sort_by(|a, b| a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(b)));
        NonZeroUsize::new(all.len()).map(|count| all[percentile.rank(count) - 1])
    }

    /// Which NaN it is makes no difference.
    fn bits(value: Option<f64>) -> Option<u64> {
        value.map(|value| if value.is_nan() { f64::NAN } else { value }).map(f64::to_bits)
    }

    fn rendered(percentile: f64, values: &[f64]) -> String {
        let answer = answer(Percentile::new(percentile).unwrap(), &[values.to_vec()]);
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

    /// Passes narrow down to the value where many share its first bits, or all of them.
    /// Method: more values than one step takes, at every 7 % of them.
    #[test]
    fn many_values_alike_are_told_apart() {
        let near = |i: u64| f64::from_bits(100f64.to_bits() + i % 40_000);
        let spread = |i: u64| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let of = |value: fn(u64) -> f64| -> Vec<f64> { (0..60_000).map(value).collect() };
        let shards: [Vec<Vec<f64>>; 4] = [
            vec![of(|_| -0.5)],
            vec![(0..60_000).map(near).collect(), vec![1.0]],
            vec![(0..60_000).map(spread).collect(), of(|i| -(i as f64))],
            vec![vec![f64::NAN; 30_000], of(|i| (i % 2) as f64 * -0.0), vec![f64::INFINITY; 20_000]],
        ];
        for shards in &shards {
            for percentile in (0..=100).step_by(7) {
                let percentile = Percentile::new(f64::from(percentile)).unwrap();
                let answer = answer(percentile, shards);
                assert_eq!(bits(answer.value), bits(naive(percentile, shards)), "{percentile:?}");
                assert_eq!(answer.count, shards.iter().map(Vec::len).sum::<usize>());
            }
        }
    }

    proptest! {
        #[test]
        fn keys_sort_as_numbers_and_lead_back(a in proptest::num::f64::ANY, b in proptest::num::f64::ANY) {
            let order = a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(&b));
            if !(a.is_nan() && b.is_nan()) {
                prop_assert_eq!(key(a).cmp(&key(b)), order);
            }
            prop_assert_eq!(bits(Some(value_of(key(a)))), bits(Some(a)));
        }

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
            let answer = answer(percentile, &shards);
            prop_assert_eq!(answer.count, shards.iter().map(Vec::len).sum::<usize>());
            prop_assert_eq!(bits(answer.value), bits(naive(percentile, &shards)));
        }
    }
}
