//! What the directory says of a chunk's values, so that a query over whole chunks need not read them.

use super::Sum;

/// The values of a chunk in a few numbers. Staleness markers, which say that there is no value, are counted and left
/// out of all else.
#[derive(Clone, Copy, Debug)]
pub struct Aggregates {
    /// Staleness markers.
    pub stale: u16,
    /// How often a value is below the one before: a counter that began anew.
    pub resets: u16,
    /// The first value; NaN where there is none, and in all below.
    pub first: f64,
    /// The last value.
    pub last: f64,
    /// The least value; NaN only if there is no other.
    pub min: f64,
    /// The greatest value; NaN only if there is no other.
    pub max: f64,
    /// All added up.
    pub sum: Sum,
}

/// A NaN of these bits is Prometheus' word for "the series has ended here".
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Comparisons run side by side, so that none waits for the one before.
const LANES: usize = 8;

impl Aggregates {
    /// What these values come to.
    pub fn of(values: &[f64]) -> Aggregates {
        if let Some(first) = values.first()
            && values.iter().all(|value| value.to_bits() == first.to_bits())
        {
            return Aggregates::of_constant(*first, values.len());
        }
        let stale = values.iter().filter(|value| value.to_bits() == STALE_BITS).count();
        if stale == 0 {
            return of_present(values);
        }
        let present: Vec<f64> =
            values.iter().copied().filter(|value| value.to_bits() != STALE_BITS).collect();
        Aggregates { stale: stale as u16, ..of_present(&present) }
    }

    /// What one value comes to so many times: a chunk of it needs no list of these.
    pub fn of_constant(value: f64, count: usize) -> Aggregates {
        if value.to_bits() == STALE_BITS {
            return Aggregates { stale: count as u16, ..of_present(&[]) };
        }
        Aggregates {
            stale: 0,
            resets: 0,
            first: value,
            last: value,
            min: value,
            max: value,
            sum: Sum::of_constant(value, count),
        }
    }

    /// The sum of these as rows held it before version 5 of the format.
    pub(crate) fn sum_before_version_5(values: &[f64]) -> f64 {
        let present: Vec<f64> =
            values.iter().copied().filter(|value| value.to_bits() != STALE_BITS).collect();
        if present.is_empty() { f64::NAN } else { Sum::before_version_5(&present) }
    }

    /// Equal to the last bit.
    pub fn same_bits(&self, other: &Aggregates) -> bool {
        self.same_but_sum(other) && self.sum.same_bits(&other.sum)
    }

    /// Whether all but the sum is equal to the last bit.
    pub(crate) fn same_but_sum(&self, other: &Aggregates) -> bool {
        let bits = |of: &Aggregates| [of.first, of.last, of.min, of.max].map(f64::to_bits);
        (self.stale, self.resets) == (other.stale, other.resets) && bits(self) == bits(other)
    }
}

fn of_present(values: &[f64]) -> Aggregates {
    let (Some(&first), Some(&last)) = (values.first(), values.last()) else {
        let (none, sum) = (f64::NAN, Sum::of(&[]));
        return Aggregates { stale: 0, resets: 0, first: none, last: none, min: none, max: none, sum };
    };
    let resets = values.windows(2).filter(|pair| pair[1] < pair[0]).count() as u16;
    let (mut mins, mut maxs) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let mut add = |values: &[f64]| {
        for (lane, &value) in values.iter().enumerate() {
            // A comparison with NaN is false: it is passed over.
            mins[lane] = if value < mins[lane] { value } else { mins[lane] };
            maxs[lane] = if value > maxs[lane] { value } else { maxs[lane] };
        }
    };
    let (blocks, rest) = values.as_chunks::<LANES>();
    blocks.iter().for_each(|block| add(block));
    add(rest);
    let (mut min, mut max) = (mins[0], maxs[0]);
    mins.iter().for_each(|&lane| min = if lane < min { lane } else { min });
    maxs.iter().for_each(|&lane| max = if lane > max { lane } else { max });
    let is_number = min <= max;
    Aggregates {
        stale: 0,
        resets,
        first,
        last,
        min: if is_number { min } else { f64::NAN },
        max: if is_number { max } else { f64::NAN },
        sum: Sum::of(values),
    }
}
