//! What the loops call the series: so that replay need not read the journals from their dictionaries' beginning.
//!
//! ```text
//!   loop u16 │ dictionary u64 │ first number varint │ count varint │ per number: 0, or 1 + zigzag of the id's distance
//! ```
//!
//! Numbers and ids both rise as series arrive, so most take one byte.

use super::layout::BLOCK_BYTES_TARGET;
use crate::column::put_varint;
use crate::memtable::SeriesId;
use crate::segment::fields::Fields;
use crate::store::{NO_SERIES, SERIES_NUMBERS_MAX};

/// The numbers of one loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoopNumbers {
    /// Which loop.
    pub(crate) loop_index: u16,
    /// By which dictionary it numbers.
    pub(crate) dictionary: u64,
    /// By number; [`NO_SERIES`] where another shard owns it.
    pub(crate) series: Vec<SeriesId>,
}

impl LoopNumbers {
    /// Appends the numbers from `from` on, as many as a block takes; returns the next one.
    pub(super) fn encode(&self, from: usize, out: &mut Vec<u8>) -> usize {
        /// One takes no more.
        const NUMBER_BYTES_MAX: usize = 5;
        let until = self.series.len().min(from + BLOCK_BYTES_TARGET / NUMBER_BYTES_MAX);
        out.extend_from_slice(&self.loop_index.to_le_bytes());
        out.extend_from_slice(&self.dictionary.to_le_bytes());
        put_varint(out, from as u64);
        put_varint(out, (until - from) as u64);
        let mut before = 0;
        for id in &self.series[from..until] {
            if *id == NO_SERIES {
                out.push(0);
                continue;
            }
            let distance = i64::from(id.0) - before;
            before = i64::from(id.0);
            put_varint(out, 1 + ((distance << 1) ^ (distance >> 63)) as u64);
        }
        until
    }

    /// Takes in a block of [`Self::encode`]; says how many numbers were in it. `None` where it holds no numbers, or not
    /// those that come next.
    pub(super) fn decode_into(payload: &[u8], all: &mut Vec<LoopNumbers>) -> Option<u64> {
        let mut fields = Fields(payload);
        let (loop_index, dictionary) = (fields.u16()?, fields.u64()?);
        let (first, count) = (fields.varint()?, fields.varint()?);
        if count > payload.len() as u64 || first.checked_add(count)? > u64::from(SERIES_NUMBERS_MAX) {
            return None;
        }
        if all.last().is_none_or(|last| last.loop_index != loop_index) {
            all.push(LoopNumbers { loop_index, dictionary, series: Vec::new() });
        }
        let numbers = all.last_mut()?;
        if numbers.dictionary != dictionary || numbers.series.len() as u64 != first {
            return None;
        }
        let mut before = 0i64;
        for _ in 0..count {
            let id = match fields.varint()? {
                0 => NO_SERIES,
                coded => {
                    let zigzag = coded - 1;
                    before = before.checked_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))?;
                    SeriesId(u32::try_from(before).ok().filter(|id| *id != NO_SERIES.0)?)
                }
            };
            numbers.series.push(id);
        }
        fields.0.is_empty().then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(
            ids in proptest::collection::vec(prop_oneof![3 => 0u32..50, 1 => any::<u32>()], 0..300),
            dictionary in any::<u64>(),
        ) {
            let series = ids.into_iter().map(SeriesId).collect();
            let numbers = LoopNumbers { loop_index: 3, dictionary, series };
            let (mut bytes, mut all) = (Vec::new(), Vec::new());
            prop_assert_eq!(numbers.encode(0, &mut bytes), numbers.series.len());
            prop_assert_eq!(LoopNumbers::decode_into(&bytes, &mut all), Some(numbers.series.len() as u64));
            prop_assert_eq!(&all[..], &[numbers][..]);
            prop_assert_eq!(LoopNumbers::decode_into(&bytes[..bytes.len() - 1], &mut Vec::new()), None);
        }

        #[test]
        fn any_bytes_are_refused_or_numbers(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut all = Vec::new();
            let _ = LoopNumbers::decode_into(&bytes, &mut all);
            prop_assert!(all.iter().all(|numbers| numbers.series.len() <= bytes.len()));
        }
    }
}
