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

    /// Forgets the chunks that were pushed since a series ended.
    pub(super) fn undo(&mut self) {
        self.chunks.truncate(self.series.last().map_or(0, |series| series.chunks_end));
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
    use crate::column::Sum;
    use crate::disk::{SimDisk, ready};
    use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Stamp};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A NaN of these bits says that a series has ended.
    const STALE: u64 = 0x7ff0_0000_0000_0002;

    /// What a selection gives of one series.
    struct Given {
        kind: MetricKind,
        arrival: Arrival,
        samples: Vec<Sample>,
        /// Told by their rows.
        chunks: Vec<ChunkSummary>,
    }

    impl Given {
        fn begin(kind: MetricKind, arrival: Arrival) -> Given {
            Given { kind, arrival, samples: Vec::new(), chunks: Vec::new() }
        }

        /// All values added up, by way of the pairs where chunks are told.
        fn sum(&self) -> Sum {
            let of_samples = self.samples.iter().map(|sample| sample.value);
            let present = of_samples.filter(|value| value.to_bits() != STALE);
            let told = self.chunks.iter().filter(|chunk| chunk.count > u32::from(chunk.aggregates.stale));
            let of_chunks = told.map(|chunk| chunk.aggregates.sum).flat_map(|sum| [sum.high, sum.low]);
            Sum::of(&present.chain(of_chunks).collect::<Vec<_>>())
        }

        /// Each chunk says what the samples come to that it stands for, and the others are here.
        fn assert_says(&self, samples: &[Sample]) {
            let bits = |sample: &Sample| (sample.timestamp, sample.value.to_bits());
            assert!(self.chunks.is_sorted_by(|a, b| a.last < b.first));
            for chunk in &self.chunks {
                let told = samples.iter().filter(|sample| chunk.holds(sample));
                let (times, values): (Vec<_>, Vec<_>) =
                    told.map(|sample| (sample.timestamp, sample.value)).unzip();
                let ends = (times.first().copied(), times.last().copied());
                assert_eq!(ends, (Some(chunk.first), Some(chunk.last)));
                assert_eq!(times.len(), chunk.count as usize);
                let expected = Aggregates::of(&values);
                assert!(chunk.aggregates.same_bits(&expected), "{chunk:?} for {expected:?}");
            }
            let is_told = |sample: &Sample| self.chunks.iter().any(|chunk| chunk.holds(sample));
            let others: Vec<_> = samples.iter().filter(|sample| !is_told(sample)).map(bits).collect();
            assert_eq!(self.samples.iter().map(bits).collect::<Vec<_>>(), others);
        }
    }

    impl ChunkSummary {
        fn holds(&self, sample: &Sample) -> bool {
            (self.first..=self.last).contains(&sample.timestamp)
        }
    }

    type Answer = BTreeMap<LabelSet, Given>;

    fn ask(mut selection: Selection<SimDisk>) -> Answer {
        let (mut answer, mut piece) = (Answer::new(), Piece::default());
        let mut at_hand = None;
        while ready(selection.next_piece(&mut piece)) {
            if let Some(series) = &piece.begins {
                let labels = (*series.labels).clone();
                at_hand = Some(labels.clone());
                let given = Given::begin(series.kind, series.arrival);
                assert!(answer.insert(labels, given).is_none(), "a series begins once");
            }
            if !(piece.samples.is_empty() && piece.summaries.is_empty()) {
                let given = at_hand.as_ref().and_then(|labels| answer.get_mut(labels));
                let given = given.expect("a series begins before what it holds");
                given.samples.extend_from_slice(&piece.samples);
                given.chunks.extend_from_slice(&piece.summaries);
            }
            for series in piece.told.iter() {
                let mut given = Given::begin(series.kind, series.arrival);
                given.chunks.extend_from_slice(series.chunks);
                assert!(answer.insert(series.labels.to_owned(), given).is_none(), "a series begins once");
            }
        }
        assert!(selection.take_warnings().is_empty());
        answer
    }

    /// How many chunks are told by their rows.
    fn told(answer: &Answer) -> usize {
        answer.values().map(|given| given.chunks.len()).sum()
    }

    /// The same samples to some series of that kind, which are met at that time if they are new.
    fn put_all(
        store: &mut Store<SimDisk>,
        series: std::ops::Range<u32>,
        (kind, nanos): (MetricKind, u64),
        samples: &[Sample],
    ) {
        let mut share = Share::default();
        share.stamp = Stamp { run: 1, nanos, loop_index: 0 };
        for n in series {
            share.define(SeriesNumber(n), kind, set(n).as_ref());
            samples.iter().for_each(|sample| share.push(SeriesNumber(n), *sample));
        }
        assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
    }

    /// Values as clients send them, and those that a sum might get wrong.
    const VALUES: [fn(i64) -> f64; 6] = [
        // Whole numbers that go up and down, and a staleness marker now and then.
        |n| if n % 97 == 0 { f64::from_bits(STALE) } else { (n * 7 % 31) as f64 },
        |n| (n * 7 % 31 - 9) as f64 / 10.0,
        |n| if n % 53 == 0 { f64::NAN } else { n as f64 },
        |n| [f64::INFINITY, f64::NEG_INFINITY].get(n as usize % 307).copied().unwrap_or(0.25),
        |n| if n % 5 == 0 { 0.0 } else { -0.0 },
        // Far from each other, so that two doubles do not hold the sum of many.
        |n| [1e300, 1.0, -1e300, 1e-300, 0.1][n as usize * 7 % 11 % 5],
    ];

    const KINDS: [MetricKind; 3] = [MetricKind::Counter, MetricKind::Gauge, MetricKind::Summary];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However samples of some series lie in segments and in memory, some late and some replaced, and whatever is said of
        /// their kind and arrival: rows say what the samples say that they stand for, and what those who hold them say.
        /// Method: each is asked sample by sample and by rows; each chunk that is told is held against its samples.
        #[test]
        fn rows_say_what_samples_say(
            flushes in proptest::collection::vec(
                (
                    (0u32..4, 1u32..4, 0usize..3, 0u64..9, any::<bool>()),
                    (0i64..60, 1i64..400, 1i64..4, 0..VALUES.len()),
                ), 1..7),
            is_all_flushed in any::<bool>(),
            millis in prop_oneof![Just(1i64 << 30), 1i64..3_000],
            range in prop_oneof![Just((0, 1 << 30)), (0i64..2_000, 500i64..4_000)],
            deleted in proptest::option::of((0i64..2_000, 0i64..2_000, 0u32..5)),
        ) {
            let disk = SimDisk::new(1);
            let (mut store, mut entries) = (open(&disk, 0, 1, &[]), Vec::new());
            let mut values = 0;
            let count_of_flushes = flushes.len() as u64;
            for (id, (of_series, (from, count, gap, form))) in (1..).zip(flushes) {
                let (series, many, kind, nanos, is_reopened) = of_series;
                let sample = |n: i64| at((from * 50 + n * gap) << 20, VALUES[form](values + n));
                let samples: Vec<Sample> = (0..count).map(sample).collect();
                values += count;
                put_all(&mut store, series..series + many, (KINDS[kind], nanos), &samples);
                if is_all_flushed || id < count_of_flushes {
                    entries.extend(flush(&mut store, &disk, id));
                    if is_reopened {
                        // What is met again has another arrival.
                        store = open(&disk, 0, 1, &entries);
                    }
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
            let expected = ask(select());
            prop_assert_eq!(told(&expected), 0);
            let step_of = |at: Timestamp| at.millis().div_euclid(millis);
            let in_steps = Summarised::InSteps { from: Timestamp::first_of_milli(0), millis };
            let all = [in_steps, Summarised::InRange].map(|by| [(by, RowSums::Exact), (by, RowSums::Rounded)]);
            for (summarised, sums) in all.into_iter().flatten() {
                let mut selection = select();
                selection.summarise(summarised, sums);
                let found = ask(selection);
                prop_assert!(found.keys().eq(expected.keys()));
                for (found, expected) in found.values().zip(expected.values()) {
                    prop_assert_eq!((found.kind, found.arrival), (expected.kind, expected.arrival));
                    found.assert_says(&expected.samples);
                    let is_in_one_step = |chunk: &ChunkSummary| step_of(chunk.first) == step_of(chunk.last);
                    prop_assert!(summarised == Summarised::InRange || found.chunks.iter().all(is_in_one_step));
                    let is_exact = found.chunks.iter().all(|chunk| chunk.aggregates.sum.is_exact);
                    prop_assert!(is_exact || sums == RowSums::Rounded);
                    // What rounded pairs come to together is nearly that.
                    prop_assert!(!is_exact || found.sum().same_bits(&expected.sum()));
                }
            }
        }
    }

    /// A chunk whose sum two doubles do not hold is read, where the series is alone in a segment and where it is not.
    #[test]
    fn a_sum_that_is_not_exact_is_told_only_where_a_rounded_one_will_do() {
        let disk = SimDisk::new(1);
        let mut store = open(&disk, 0, 1, &[]);
        for (n, values) in [(0, [1e300, 1.0, 1e-300]), (1, [1e300, 1.0, 2.0])] {
            let samples: Vec<Sample> =
                (0..).zip(values).map(|(milli, value)| at(milli << 20, value)).collect();
            put_all(&mut store, n..n + 1, (MetricKind::Gauge, 0), &samples);
        }
        flush(&mut store, &disk, 1);
        for in_memory in [0, 1] {
            for (sums, read) in [(RowSums::Exact, 3), (RowSums::Rounded, 0)] {
                let mut selection = store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
                selection.summarise(Summarised::InRange, sums);
                let answer = ask(selection);
                let samples: Vec<usize> = answer.values().map(|given| given.samples.len()).collect();
                assert_eq!(samples, [read + in_memory, in_memory], "{sums:?}");
            }
            put_all(&mut store, 0..2, (MetricKind::Gauge, 0), &[at(9 << 20, 1.0)]);
        }
    }

    /// A segment without a sample of the series in the range, which is asked for the sake of others, says nothing of it.
    #[test]
    fn kind_and_arrival_are_told_by_those_that_hold_samples_in_the_range() {
        let disk = SimDisk::new(1);
        let steps = |millis: std::ops::Range<i64>| -> Vec<Sample> {
            millis.step_by(100).map(|milli| at(milli << 20, 1.0)).collect()
        };
        let mut store = open(&disk, 0, 1, &[]);
        put_all(&mut store, 1..2, (MetricKind::Counter, 20), &steps(0..1_000));
        put_all(&mut store, 2..3, (MetricKind::Gauge, 20), &steps(0..9_000));
        let older = flush(&mut store, &disk, 1).unwrap();
        let mut store = open(&disk, 0, 1, &[older]);
        put_all(&mut store, 1..2, (MetricKind::Gauge, 10), &steps(5_000..6_000));
        put_all(&mut store, 3..4, (MetricKind::Gauge, 10), &steps(0..9_000));
        let newer = flush(&mut store, &disk, 2).unwrap();
        let mut store = open(&disk, 0, 1, &[older, newer]);
        let said = |store: &Store<SimDisk>, (start, end), summarised| {
            let (start, end) = (Timestamp::first_of_milli(start), Timestamp::first_of_milli(end));
            let mut selection = store.select("cpu", &[], start, end, Timestamp::MIN);
            selection.summarise(summarised, RowSums::Exact);
            ask(selection).get(&set(1)).map(|given| (given.kind, given.arrival))
        };
        let arrival = |nanos| Arrival::new(Stamp { run: 1, nanos, loop_index: 0 }, SeriesNumber(1));
        for summarised in [Summarised::None, Summarised::InRange] {
            let said = said(&store, (0, 2_000), summarised);
            assert_eq!(said, Some((MetricKind::Counter, arrival(20))), "{summarised:?}");
        }
        put_all(&mut store, 1..2, (MetricKind::Summary, 30), &steps(3_000..3_500));
        for summarised in [Summarised::None, Summarised::InRange] {
            let said = said(&store, (2_000, 4_000), summarised);
            assert_eq!(said, Some((MetricKind::Summary, arrival(30))), "{summarised:?}");
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
            put_all(&mut store, 0..3, (MetricKind::Counter, 0), &samples);
            flush(&mut store, &disk, 1 + half.start as u64);
        }
        let ask_all = |store: &Store<SimDisk>, summarised| {
            let mut selection = store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
            selection.summarise(summarised, RowSums::Exact);
            let answer = ask(selection);
            (answer.values().map(|given| given.sum().high).collect::<Vec<_>>(), told(&answer))
        };
        let sum = 4_999.0 * 2_500.0;
        assert_eq!(ask_all(&store, Summarised::InRange), (vec![sum; 3], 3 * 6));
        assert_eq!(ask_all(&store, Summarised::None), (vec![sum; 3], 0));
        put(&mut store, 1, at(1_500 << 20, 0.0));
        let replaced = sum - 1_500.0;
        // One value is replaced from memory.
        assert_eq!(ask_all(&store, Summarised::InRange), (vec![sum, replaced, sum], 3 * 6 - 1));
        // All chunks of the first half lie in one step each, of the second half the last.
        let steps = Summarised::InSteps { from: Timestamp::first_of_milli(0), millis: 1_024 };
        assert_eq!(ask_all(&store, steps), (vec![sum, replaced, sum], 3 * 4 - 1));
    }
}
