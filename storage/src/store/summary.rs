//! What a directory row says of a chunk, in place of its samples.
//!
//! A row speaks for a chunk where every sample of it counts, and nothing else at its times:
//! - all of it lies in the range that was asked for, and in one step of it;
//! - no other source of the series holds a sample between its first and its last time: segments that overlap, what came
//!   late, and memory are read sample by sample;
//! - no delete reaches into it.
//!
//! What is in memory has no rows, and is read. Count, least, greatest, first, last and resets are then what the samples say,
//! to the last bit; staleness markers are counted apart and in nothing else. The sum was added up with what each addition
//! loses kept beside, and rounded once: where all partial sums are whole numbers below 2⁵³ it is that of any order.
//! Resets are those inside the chunk: from its last value to the next first one is for the reader to compare.

use crate::column::Aggregates;
use crate::segment::ChunkRow;
use model::Timestamp;

/// Which chunks are told by their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summarised {
    /// None.
    None,
    /// All that lie in the range.
    InRange,
    /// Those that lie in one step: of steps of so many milliseconds, one of which begins at that time.
    InSteps {
        /// Where a step begins.
        from: Timestamp,
        /// How long each is; at least 1.
        millis: i64,
    },
}

/// A chunk in a few numbers.
#[derive(Clone, Copy, Debug)]
pub struct ChunkSummary {
    /// The time of its first sample.
    pub first: Timestamp,
    /// The time of its last sample.
    pub last: Timestamp,
    /// Samples, staleness markers among them.
    pub count: u32,
    /// What the values come to.
    pub aggregates: Aggregates,
}

impl Summarised {
    pub(super) fn may_tell(self, first: Timestamp, last: Timestamp) -> bool {
        match self {
            Summarised::None => false,
            Summarised::InRange => true,
            Summarised::InSteps { from, millis } => {
                let step =
                    |at: Timestamp| at.millis().saturating_sub(from.millis()).div_euclid(millis.max(1));
                step(first) == step(last)
            }
        }
    }
}

impl ChunkSummary {
    pub(super) fn of(row: &ChunkRow) -> ChunkSummary {
        ChunkSummary {
            first: row.first(),
            last: row.last(),
            count: row.clock.count,
            aggregates: row.aggregates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, flush, open, put};
    use super::super::{Piece, Selection};
    use super::*;
    use crate::disk::{SimDisk, ready};
    use proptest::prelude::*;

    /// Count, greatest and sum of each step: by what is told, and how many chunks were.
    fn ask(mut selection: Selection<SimDisk>, millis: i64) -> (Vec<(i64, u64, f64, f64)>, usize) {
        let (mut steps, mut piece, mut told) = (Vec::<(i64, u64, f64, f64)>::new(), Piece::default(), 0);
        let mut add = |at: Timestamp, count: u32, max: f64, sum: f64| {
            let step = at.millis().div_euclid(millis);
            if !steps.iter().any(|of| of.0 == step) {
                steps.push((step, 0, f64::MIN, 0.0));
            }
            let of = steps.iter_mut().find(|of| of.0 == step).unwrap();
            (of.1, of.2, of.3) = (of.1 + u64::from(count), of.2.max(max), of.3 + sum);
        };
        while ready(selection.next_piece(&mut piece)) {
            piece.samples.iter().for_each(|s| add(s.timestamp, 1, s.value, s.value));
            piece.summaries.iter().for_each(|s| add(s.first, s.count, s.aggregates.max, s.aggregates.sum));
            told += piece.summaries.len();
        }
        assert!(selection.take_warnings().is_empty());
        steps.sort_by_key(|of| of.0);
        (steps, told)
    }

    proptest! {
        /// However samples lie in segments and in memory, some late and some replaced, rows in place of chunks change
        /// nothing of what each step comes to.
        #[test]
        fn rows_say_what_samples_say(
            flushes in proptest::collection::vec((0i64..40, 1i64..400, 1i64..4), 1..5),
            millis in prop_oneof![Just(1i64 << 30), 1i64..3_000],
            range in (0i64..2_000, 500i64..4_000),
            deleted in proptest::option::of((0i64..2_000, 0i64..2_000)),
        ) {
            let disk = SimDisk::new(1);
            let mut store = open(&disk, 0, 1, &[]);
            let mut value = 0.0;
            let last = flushes.len() - 1;
            for (id, (from, count, gap)) in flushes.into_iter().enumerate() {
                for n in 0..count {
                    value += 1.0;
                    put(&mut store, 0, at((from * 50 + n * gap) << 20, value));
                }
                if id < last {
                    flush(&mut store, &disk, id as u64 + 1);
                }
            }
            if let Some((start_ms, millis)) = deleted {
                let tombstone = crate::manifest::Tombstone {
                    id: last as u64 + 1,
                    shards: 1,
                    shard: 0,
                    start_ms,
                    end_ms: start_ms + millis,
                    selector: r#"{__name__="cpu"}"#.to_owned(),
                };
                store.add_deletes(vec![crate::deletes::Delete::new(tombstone).unwrap()]);
            }
            let (start, end) = (Timestamp::first_of_milli(range.0), Timestamp::first_of_milli(range.0 + range.1));
            let select = || store.select("cpu", &[], start, end, Timestamp::MIN);
            let (expected, none) = ask(select(), millis);
            prop_assert_eq!(none, 0);
            let mut selection = select();
            selection.summarise(Summarised::InSteps { from: Timestamp::first_of_milli(0), millis });
            prop_assert_eq!(ask(selection, millis).0, expected);
        }
    }

    /// Chunks that are alone in their time are told, those that another segment overlaps are read.
    #[test]
    fn chunks_that_are_alone_are_not_read() {
        let disk = SimDisk::new(1);
        let mut store = open(&disk, 0, 1, &[]);
        (0..5_000i64).for_each(|n| put(&mut store, 0, at(n << 20, n as f64)));
        flush(&mut store, &disk, 1);
        let ask_all = |store: &super::super::Store<SimDisk>| {
            let mut selection = store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
            selection.summarise(Summarised::InRange);
            ask(selection, 1 << 30)
        };
        let whole = |sum: f64| vec![(0, 5_000, 4_999.0, sum)];
        let sum = 4_999.0 * 2_500.0;
        assert_eq!(ask_all(&store), (whole(sum), 5));
        put(&mut store, 0, at(1_500 << 20, 0.0));
        assert_eq!(ask_all(&store), (whole(sum - 1_500.0), 4), "one value is replaced from memory");
    }
}
