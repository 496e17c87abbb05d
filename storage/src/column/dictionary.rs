//! Few distinct values: they, and for each sample which of them.
//!
//! ```text
//!   values u8, less one │ their bits u64 each, in order of first use │ which, as integers
//! ```
//!
//! Numbers given in order of first use make runs of zero distances, so levels that seldom change cost next to nothing.

use super::fields::Fields;
use super::integers::{self, Plan};
use super::{ColumnError, Scratch};

/// Distinct values at most.
const VALUES_MAX: usize = 128;
const PLACES: usize = 4 * VALUES_MAX;
const EMPTY: u8 = u8::MAX;
const _: () = assert!(VALUES_MAX <= EMPTY as usize && PLACES.is_power_of_two());

/// A plan; the numbers that it is about are in the scratch until the next plan.
pub(super) struct DictionaryPlan {
    values: Vec<u64>,
    which: Plan,
    len: usize,
}

impl DictionaryPlan {
    /// Bytes that [`encode`] will write.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// How the samples are packed by a dictionary; `None` where that takes at least `len_max` bytes, or has too many values.
pub(super) fn plan(samples: &[f64], len_max: usize, scratch: &mut Scratch) -> Option<DictionaryPlan> {
    let values_max = VALUES_MAX.min(len_max.saturating_sub(4) / 8);
    let mut places = [EMPTY; PLACES];
    let mut values = Vec::with_capacity(values_max);
    for (number, sample) in scratch.which.iter_mut().zip(samples) {
        let bits = sample.to_bits();
        let mut at = place_of(bits);
        let which = loop {
            match places[at] {
                EMPTY if values.len() == values_max => return None,
                EMPTY => {
                    places[at] = values.len() as u8;
                    values.push(bits);
                    break places[at];
                }
                which if values[usize::from(which)] == bits => break which,
                _ => at = (at + 1) % PLACES,
            }
        };
        *number = i64::from(which);
    }
    let which = integers::plan(&scratch.which[..samples.len()], &mut scratch.plan);
    let len = 1 + values.len() * 8 + which.len();
    (len < len_max).then_some(DictionaryPlan { values, which, len })
}

/// The best bits of a product: doubles of few levels differ in the upper bits alone.
fn place_of(bits: u64) -> usize {
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.trailing_zeros())) as usize
}

pub(super) fn encode(count: usize, plan: &DictionaryPlan, scratch: &mut Scratch, out: &mut Vec<u8>) {
    // At least one, as there is at least one sample.
    out.push((plan.values.len() - 1) as u8);
    plan.values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    integers::encode(&scratch.which[..count], &plan.which, &mut scratch.plan, out);
}

pub(super) fn decode(bytes: &[u8], scratch: &mut Scratch, out: &mut [f64]) -> Result<(), ColumnError> {
    let mut fields = Fields(bytes);
    let count = usize::from(fields.byte()?) + 1;
    // A table of all that a number can name, so that no sample needs a check; what is too large is told at the end.
    let mut values = [0.0; 256];
    for (value, bits) in values.iter_mut().zip(fields.slice(count * 8)?.as_chunks::<8>().0) {
        *value = f64::from_bits(u64::from_le_bytes(*bits));
    }
    integers::decode(&mut fields, out.len(), &mut scratch.numbers)?;
    let mut largest = 0;
    for (value, which) in out.iter_mut().zip(scratch.numbers.iter()) {
        *value = values[usize::from(*which as u8)];
        largest = largest.max(*which as u64);
    }
    if largest >= count as u64 { Err(ColumnError::Form) } else { fields.end() }
}
