//! What a directory row says of a chunk, in place of its samples.
//!
//! A row speaks for a chunk where every sample of it counts, and nothing else at its times:
//! - all of it lies in the range that was asked for, and in one step of it;
//! - no other source of the series holds a sample between its first and its last time: segments that overlap, what came
//!   late, and memory are read sample by sample;
//! - no delete reaches into it.
//!
//! A series that rows tell whole is given so, many at once ([`ToldSeries`]): nothing is lined up for it, and its label set
//! lies where those of the others do. Of the others those chunks are told that can be, between their samples.
//!
//! What is in memory has no rows, and is read. Count, least, greatest, first, last and resets are then what the samples say,
//! to the last bit (of zeros of both signs that are the least or the greatest, either); staleness markers are counted apart and in nothing else. So is the sum where its pair is exact
//! (`../column/sum.rs`): whoever adds pairs and samples up without loss gets the same from either, in any order. Of
//! segments before version 5, and where two doubles do not hold it, the sum is rounded: [`RowSums`] says whether that will do.
//! Resets are those inside the chunk: from its last value to the next first one is for the reader to compare.

use crate::column::Aggregates;
use crate::segment::ChunkRow;
use model::{Arrival, LabelSetRef, MetricKind, Timestamp};

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

/// Which sums of rows will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowSums {
    /// Those that are the sum itself; chunks of others are read.
    #[default]
    Exact,
    /// All: the last place may differ from what the samples come to.
    Rounded,
}

/// Which chunks of a selection are told by their rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByRows {
    pub(super) summarised: Summarised,
    pub(super) sums: RowSums,
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

/// Series that are told whole, one behind the other; kept and filled again.
#[derive(Debug, Default)]
pub struct Told {
    series: Vec<ToldEnd>,
    /// Canonical bytes of all label sets.
    labels: Vec<u8>,
    chunks: Vec<ChunkSummary>,
}

#[derive(Clone, Copy, Debug)]
struct ToldEnd {
    kind: MetricKind,
    arrival: Arrival,
    labels_end: usize,
    chunks_end: usize,
}

/// One series that is told whole.
#[derive(Clone, Copy, Debug)]
pub struct ToldSeries<'a> {
    /// The label set.
    pub labels: LabelSetRef<'a>,
    /// What the client called it, last.
    pub kind: MetricKind,
    /// When it first arrived: the earliest that segments say.
    pub arrival: Arrival,
    /// All its chunks in the range, in order of time; at least one.
    pub chunks: &'a [ChunkSummary],
}

impl Told {
    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = ToldSeries<'_>> + Clone {
        let (mut labels_begin, mut chunks_begin) = (0, 0);
        self.series.iter().map(move |end| {
            let labels = &self.labels[std::mem::replace(&mut labels_begin, end.labels_end)..end.labels_end];
            let chunks = &self.chunks[std::mem::replace(&mut chunks_begin, end.chunks_end)..end.chunks_end];
            let (kind, arrival) = (end.kind, end.arrival);
            ToldSeries { labels: LabelSetRef::from_canonical(labels), kind, arrival, chunks }
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Chunks of all.
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn clear(&mut self) {
        self.series.clear();
        self.labels.clear();
        self.chunks.clear();
    }

    /// A chunk of the next series, which comes behind all before.
    #[inline]
    pub(super) fn push(&mut self, row: &ChunkRow) {
        self.chunks.push(ChunkSummary::of(row));
    }

    /// Forgets the chunks that were pushed since a series ended; `false`, for it is not told.
    pub(super) fn undo(&mut self) -> bool {
        self.chunks.truncate(self.series.last().map_or(0, |series| series.chunks_end));
        false
    }

    /// The chunks that were pushed are those of this series; without one it is left out.
    pub(super) fn end_series(&mut self, labels: LabelSetRef<'_>, kind: MetricKind, arrival: Arrival) {
        let (chunks_end, before) = (self.chunks.len(), self.series.last().map_or(0, |last| last.chunks_end));
        if chunks_end > before {
            self.labels.extend_from_slice(labels.bytes());
            self.series.push(ToldEnd { kind, arrival, labels_end: self.labels.len(), chunks_end });
        }
    }
}

impl ByRows {
    pub(super) const NOTHING: ByRows = ByRows { summarised: Summarised::None, sums: RowSums::Exact };

    /// Whether this row may speak for its chunk, if that is alone in its time and in the range.
    #[inline]
    pub(super) fn may_tell(self, row: &ChunkRow) -> bool {
        let is_in_one_step = match self.summarised {
            Summarised::None => false,
            Summarised::InRange => true,
            Summarised::InSteps { from, millis } => {
                let step =
                    |at: Timestamp| at.millis().saturating_sub(from.millis()).div_euclid(millis.max(1));
                step(row.first()) == step(row.last())
            }
        };
        is_in_one_step && (self.sums == RowSums::Rounded || row.aggregates.sum.is_exact)
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
    use super::super::tests::{at, flush, open, put, set};
    use super::super::{Piece, Selection, Store};
    use super::*;
    use crate::disk::{SimDisk, ready};
    use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A NaN of these bits says that a series has ended.
    const STALE: u64 = 0x7ff0_0000_0000_0002;

    /// What the samples of one series come to in one step, in the order of their times.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Fold {
        count: u64,
        stale: u64,
        resets: u64,
        /// First, last, least, greatest, sum; of what is no staleness marker.
        values: Option<[f64; 5]>,
    }

    const NOTHING: Fold = Fold { count: 0, stale: 0, resets: 0, values: None };

    /// Of one sample, or of a chunk as its row tells it.
    type Part = (Timestamp, Fold);

    fn of_sample(sample: &Sample) -> Part {
        let Sample { timestamp, value } = *sample;
        let is_stale = value.to_bits() == STALE;
        let values = (!is_stale).then_some([value; 5]);
        (timestamp, Fold { count: 1, stale: u64::from(is_stale), resets: 0, values })
    }

    fn of_summary(summary: &ChunkSummary) -> Part {
        let Aggregates { stale, resets, first, last, min, max, sum } = summary.aggregates;
        let (count, stale) = (u64::from(summary.count), u64::from(stale));
        let values = (count > stale).then_some([first, last, min, max, sum.high]);
        (summary.first, Fold { count, stale, resets: u64::from(resets), values })
    }

    /// What follows joined to what is there.
    fn join(before: Fold, next: Fold) -> Fold {
        let is_reset = before.values.zip(next.values).is_some_and(|(before, next)| next[0] < before[1]);
        let both = |before: [f64; 5], next: [f64; 5]| {
            [before[0], next[1], before[2].min(next[2]), before[3].max(next[3]), before[4] + next[4]]
        };
        Fold {
            count: before.count + next.count,
            stale: before.stale + next.stale,
            resets: before.resets + next.resets + u64::from(is_reset),
            values: match (before.values, next.values) {
                (Some(before), Some(next)) => Some(both(before, next)),
                (before, next) => before.or(next),
            },
        }
    }

    /// What each step of each series comes to, and how many chunks were told by their rows.
    fn ask(mut selection: Selection<SimDisk>, millis: i64) -> (BTreeMap<(LabelSet, i64), Fold>, usize) {
        let (mut parts, mut piece) = (BTreeMap::<LabelSet, Vec<Part>>::new(), Piece::default());
        let (mut at_hand, mut told) = (None, 0);
        while ready(selection.next_piece(&mut piece)) {
            if let Some(series) = &piece.begins {
                assert!(!parts.contains_key(&*series.labels), "a series begins once");
                at_hand = Some((*series.labels).clone());
            }
            let here = piece.samples.iter().map(of_sample).chain(piece.summaries.iter().map(of_summary));
            let here: Vec<Part> = here.collect();
            if !here.is_empty() {
                let labels = at_hand.clone().expect("a series begins before what it holds");
                parts.entry(labels).or_default().extend(here);
            }
            for series in piece.told.iter() {
                let chunks = series.chunks.iter().map(of_summary).collect();
                assert!(parts.insert(series.labels.to_owned(), chunks).is_none(), "a series begins once");
                told += series.chunks.len();
            }
            told += piece.summaries.len();
        }
        assert!(selection.take_warnings().is_empty());
        let mut steps = BTreeMap::new();
        for (labels, mut parts) in parts {
            parts.sort_by_key(|(at, _)| *at);
            for (at, part) in parts {
                let step = steps.entry((labels.clone(), at.millis().div_euclid(millis))).or_insert(NOTHING);
                *step = join(*step, part);
            }
        }
        (steps, told)
    }

    /// The same samples to some series.
    fn put_all(store: &mut Store<SimDisk>, series: std::ops::Range<u32>, samples: &[Sample]) {
        let mut share = Share::default();
        for n in series {
            share.define(SeriesNumber(n), MetricKind::Counter, set(n).as_ref());
            samples.iter().for_each(|sample| share.push(SeriesNumber(n), *sample));
        }
        assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
    }

    /// Whole numbers that go up and down, and a staleness marker now and then.
    fn value(n: i64) -> f64 {
        if n % 97 == 0 { f64::from_bits(STALE) } else { (n * 7 % 31) as f64 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However samples of some series lie in segments and in memory, some late and some replaced, rows in place of
        /// chunks change nothing of what each step of each comes to.
        /// Method: each is asked sample by sample and by rows; whatever is told is joined in the order of time.
        #[test]
        fn rows_say_what_samples_say(
            flushes in proptest::collection::vec((0u32..4, 1u32..4, 0i64..60, 1i64..400, 1i64..4), 1..7),
            is_all_flushed in any::<bool>(),
            millis in prop_oneof![Just(1i64 << 30), 1i64..3_000],
            range in prop_oneof![Just((0, 1 << 30)), (0i64..2_000, 500i64..4_000)],
            deleted in proptest::option::of((0i64..2_000, 0i64..2_000, 0u32..5)),
        ) {
            let disk = SimDisk::new(1);
            let mut store = open(&disk, 0, 1, &[]);
            let mut values = 0;
            let count_of_flushes = flushes.len() as u64;
            for (id, (series, many, from, count, gap)) in (1..).zip(flushes) {
                let sample = |n: i64| at((from * 50 + n * gap) << 20, value(values + n));
                let samples: Vec<Sample> = (0..count).map(sample).collect();
                values += count;
                put_all(&mut store, series..series + many, &samples);
                if is_all_flushed || id < count_of_flushes {
                    flush(&mut store, &disk, id);
                }
            }
            if let Some((start_ms, millis, series)) = deleted {
                let tombstone = crate::manifest::Tombstone {
                    id: count_of_flushes + 1,
                    shards: 1,
                    shard: 0,
                    start_ms,
                    end_ms: start_ms + millis,
                    selector: format!(r#"{{__name__="cpu",n="{series}"}}"#),
                };
                store.add_deletes(vec![crate::deletes::Delete::new(tombstone).unwrap()]);
            }
            let (start, end) = (Timestamp::first_of_milli(range.0), Timestamp::first_of_milli(range.0 + range.1));
            let select = || store.select("cpu", &[], start, end, Timestamp::MIN);
            let (expected, none) = ask(select(), millis);
            prop_assert_eq!(none, 0);
            for summarised in
                [Summarised::InSteps { from: Timestamp::first_of_milli(0), millis }, Summarised::InRange]
            {
                if summarised == Summarised::InRange && millis < 1 << 30 {
                    continue;
                }
                let mut selection = select();
                selection.summarise(summarised, RowSums::Exact);
                prop_assert_eq!(&ask(selection, millis).0, &expected);
            }
        }
    }

    /// Chunks that are alone in their time are told, those that another segment overlaps are read; a series of several
    /// segments is told whole where these follow each other.
    #[test]
    fn chunks_that_are_alone_are_not_read() {
        let disk = SimDisk::new(1);
        let mut store = open(&disk, 0, 1, &[]);
        for half in [0..2_500i64, 2_500..5_000] {
            let samples: Vec<Sample> = half.clone().map(|n| at(n << 20, n as f64)).collect();
            put_all(&mut store, 0..3, &samples);
            flush(&mut store, &disk, 1 + half.start as u64);
        }
        let ask_all = |store: &Store<SimDisk>, summarised| {
            let mut selection = store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
            selection.summarise(summarised, RowSums::Exact);
            let (steps, told) = ask(selection, 1 << 30);
            (steps.into_values().map(|fold| fold.values.map(|values| values[4])).collect::<Vec<_>>(), told)
        };
        let sum = Some(4_999.0 * 2_500.0);
        assert_eq!(ask_all(&store, Summarised::InRange), (vec![sum; 3], 3 * 6));
        assert_eq!(ask_all(&store, Summarised::None), (vec![sum; 3], 0));
        put(&mut store, 1, at(1_500 << 20, 0.0));
        let replaced = sum.map(|sum| sum - 1_500.0);
        // One value is replaced from memory.
        assert_eq!(ask_all(&store, Summarised::InRange), (vec![sum, replaced, sum], 3 * 6 - 1));
        // All chunks of the first half lie in one step each, of the second half the last.
        let steps = Summarised::InSteps { from: Timestamp::first_of_milli(0), millis: 1_024 };
        assert_eq!(ask_all(&store, steps), (vec![sum, replaced, sum], 3 * 4 - 1));
    }
}
