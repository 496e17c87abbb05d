//! One shard's rows: a table of label sets, and rows that point into it, in runs that rise in time.
//!
//! Each series comes as one run or a few, and nothing is sorted: whoever wants the rows in order merges the
//! runs while it reads them. With a limit the builder holds about half as many rows again as the limit:
//!
//! ```text
//! push(row):   a cut was made and row does not sort before its last kept row → drop
//!              else append to the run at hand
//! tidy():      limit + max(limit / 2, 512) rows held → cut, some thousand rows a step
//! cut:         merge the runs into one of the `limit` rows that sort first, with the label sets these need
//! ```
//!
//! A cut merges as many rows as are held and frees a third of their places at least, so a row costs a
//! constant number of merges; once the early rows are known, late ones are dropped by one comparison.

use crate::blocks::{BLOCKS_DROPPED_PER_STEP, Blocks};
use model::{Arrival, LabelSetRef, Sample, Timestamp};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Rows or runs that one step of a merge takes; some 0.2 ms.
pub(crate) const ROWS_PER_STEP: usize = 2048;
/// Rows gathered between two cuts at least, so that a small limit does not cut at every row.
const ROWS_BETWEEN_CUTS_MIN: usize = 512;
/// Label sets lie back to back in blocks of this size.
const LABELS_BLOCK_BYTES: usize = 64 * 1024;

/// One row of a partial.
#[derive(Clone, Copy, Debug)]
struct Row {
    timestamp: Timestamp,
    value: f64,
    /// Place of the label set in the table.
    series: usize,
}

/// Label sets, canonical bytes, in blocks that do not move.
#[derive(Debug, Default)]
struct SeriesTable {
    bytes: Vec<Vec<u8>>,
    /// Bytes allocated for all blocks but the last.
    closed_bytes: usize,
    entries: Blocks<SeriesEntry>,
}

#[derive(Clone, Copy, Debug)]
struct SeriesEntry {
    block: usize,
    start: usize,
    end: usize,
    /// Of two rows with one time that of the earlier series comes first.
    arrival: Arrival,
}

impl SeriesTable {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry(&self, series: usize) -> &SeriesEntry {
        self.entries.get(series).expect("rows point into the table")
    }

    fn get(&self, series: usize) -> LabelSetRef<'_> {
        let SeriesEntry { block, start, end, .. } = *self.entry(series);
        LabelSetRef::from_canonical(&self.bytes[block][start..end])
    }

    fn push(&mut self, labels: LabelSetRef<'_>, arrival: Arrival) {
        let bytes = labels.bytes();
        let fits = |last: &Vec<u8>| last.len() + bytes.len() <= last.capacity().max(LABELS_BLOCK_BYTES);
        if !self.bytes.last().is_some_and(fits) {
            // The first block grows, so that a short table is small.
            self.closed_bytes += self.bytes.last().map_or(0, Vec::capacity);
            let capacity = if self.bytes.is_empty() { bytes.len() } else { LABELS_BLOCK_BYTES };
            self.bytes.push(Vec::with_capacity(capacity.max(bytes.len())));
        }
        let block = self.bytes.len() - 1;
        let start = self.bytes[block].len();
        self.bytes[block].extend_from_slice(bytes);
        self.entries.push(SeriesEntry { block, start, end: start + bytes.len(), arrival });
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop() {
            self.bytes[entry.block].truncate(entry.start);
        }
    }

    /// Lets go of some; `false` when nothing is left. What stays is not read any more.
    fn let_go(&mut self) -> bool {
        self.closed_bytes = 0;
        self.bytes.truncate(self.bytes.len().saturating_sub(BLOCKS_DROPPED_PER_STEP));
        let entries = self.entries.let_go();
        entries || !self.bytes.is_empty()
    }

    fn bytes_held(&self) -> usize {
        self.closed_bytes + self.bytes.last().map_or(0, Vec::capacity) + self.entries.bytes()
    }
}

/// Rows one after the other that rise in time, from one place to before another.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: usize,
    end: usize,
}

/// A shard's rows, in runs that rise in time.
#[derive(Debug, Default)]
pub struct RowsPartial {
    rows: Blocks<Row>,
    runs: Blocks<Run>,
    series: SeriesTable,
}

impl RowsPartial {
    /// Rows in the partial.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row at that place, if there is one.
    pub(crate) fn get(&self, index: usize) -> Option<(LabelSetRef<'_>, Sample)> {
        let row = self.rows.get(index)?;
        Some((self.series.get(row.series), Sample { timestamp: row.timestamp, value: row.value }))
    }

    /// Bytes of memory held, and what merging the runs will take.
    fn bytes(&self) -> usize {
        self.rows.bytes() + self.runs.bytes() + self.runs.len() * size_of::<Head>() + self.series.bytes_held()
    }

    /// Runs in the partial.
    pub(crate) fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Lets go of some of what is held; `false` when nothing is left. What stays is not read any more.
    pub(crate) fn let_go(&mut self) -> bool {
        let (rows, runs, series) = (self.rows.let_go(), self.runs.let_go(), self.series.let_go());
        rows || runs || series
    }
}

/// Runs of one partial or several, merged by time and arrival while they are read.
#[derive(Debug)]
pub(crate) struct RunMerge {
    heads: BinaryHeap<Head>,
}

/// The next row of a run.
#[derive(Clone, Copy, Debug)]
struct Head {
    timestamp: Timestamp,
    arrival: Arrival,
    partial: usize,
    series: usize,
    at: usize,
    end: usize,
}

impl Head {
    fn key(&self) -> (Timestamp, Arrival, usize) {
        (self.timestamp, self.arrival, self.partial)
    }
}

/// The greatest is the first to be read.
impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Head {}

impl RunMerge {
    /// Room for so many runs, none added yet.
    pub(crate) fn new(runs: usize) -> RunMerge {
        RunMerge { heads: BinaryHeap::with_capacity(runs) }
    }

    /// Adds run `run` of partial `index`.
    pub(crate) fn add(&mut self, index: usize, partial: &RowsPartial, run: usize) {
        let Some(&Run { start, end }) = partial.runs.get(run) else { return };
        let Some(row) = partial.rows.get(start).filter(|_| start < end) else { return };
        let arrival = partial.series.entry(row.series).arrival;
        self.heads.push(Head {
            timestamp: row.timestamp,
            arrival,
            partial: index,
            series: row.series,
            at: start,
            end,
        });
    }

    /// The next row over all runs: its partial and its place there. `partials` are those that runs were
    /// added of.
    pub(crate) fn next(&mut self, partials: &[RowsPartial]) -> Option<(usize, usize)> {
        let mut head = self.heads.peek_mut()?;
        let (index, at) = (head.partial, head.at);
        let partial = &partials[index];
        match partial.rows.get(at + 1).filter(|_| at + 1 < head.end) {
            // Replacing the head in place sifts once, where a pop and a push would sift twice.
            Some(row) => {
                head.at += 1;
                head.timestamp = row.timestamp;
                if head.series != row.series {
                    head.series = row.series;
                    head.arrival = partial.series.entry(row.series).arrival;
                }
            }
            None => {
                PeekMut::pop(head);
            }
        }
        Some((index, at))
    }
}

#[derive(Debug)]
pub(crate) struct RowsBuilder {
    /// The last run is not among its runs yet: it begins at `run_start`.
    gathered: RowsPartial,
    run_start: usize,
    last_timestamp: Timestamp,
    /// Of the series at hand.
    arrival: Option<Arrival>,
    /// Whether the last series of the table has given a row. A series that gives none is taken out again,
    /// so that a search for rare values does not carry the labels of all others.
    last_series_used: bool,
    limit: Option<usize>,
    /// Time and arrival of the last row that the latest cut kept.
    last_kept: Option<(Timestamp, Arrival)>,
    cut: Option<Box<Cut>>,
    /// What a cut has left, to be let go of.
    garbage: RowsPartial,
}

/// A cut under way.
#[derive(Debug)]
struct Cut {
    /// The rows that were gathered, as a list of one.
    from: [RowsPartial; 1],
    merge: RunMerge,
    runs_added: usize,
    kept: RowsPartial,
    /// By place in the old table: the place in the new one, counted from 1, or 0.
    places: Vec<usize>,
}

impl RowsBuilder {
    pub(crate) fn new(limit: Option<usize>) -> RowsBuilder {
        RowsBuilder {
            gathered: RowsPartial::default(),
            run_start: 0,
            last_timestamp: Timestamp::MIN,
            arrival: None,
            last_series_used: true,
            limit,
            last_kept: None,
            cut: None,
            garbage: RowsPartial::default(),
        }
    }

    pub(crate) fn push_series(&mut self, labels: LabelSetRef<'_>, arrival: Arrival) {
        self.finish_tidying();
        self.close_run();
        if !self.last_series_used {
            self.gathered.series.pop();
        }
        self.gathered.series.push(labels, arrival);
        self.arrival = Some(arrival);
        self.last_series_used = false;
    }

    pub(crate) fn push(&mut self, sample: Sample) {
        let arrival = self.arrival.expect("a series is begun before its samples");
        let Sample { timestamp, value } = sample;
        if self.limit == Some(0) || self.last_kept.is_some_and(|last| (timestamp, arrival) > last) {
            return;
        }
        self.finish_tidying();
        if timestamp < self.last_timestamp {
            self.close_run();
        }
        self.last_timestamp = timestamp;
        self.gathered.rows.push(Row { timestamp, value, series: self.gathered.series.len() - 1 });
        self.last_series_used = true;
    }

    /// A run ends where the next begins: at another series, and where time falls.
    fn close_run(&mut self) {
        let (start, end) = (self.run_start, self.gathered.rows.len());
        if start < end {
            self.gathered.runs.push(Run { start, end });
        }
        self.run_start = end;
        self.last_timestamp = Timestamp::MIN;
    }

    /// Does a step of the work that has come up; `false` when there is none. Rows are pushed in between only
    /// when it has said so, or the rest is done at once.
    pub(crate) fn tidy(&mut self) -> bool {
        if let Some(cut) = &mut self.cut {
            if cut.step(self.limit.unwrap_or(usize::MAX)) {
                return true;
            }
            self.end_cut();
            return true;
        }
        if self.garbage.let_go() {
            return true;
        }
        let wants_cut = |limit: usize| {
            let spare = (limit / 2).max(ROWS_BETWEEN_CUTS_MIN);
            self.gathered.rows.len() >= limit.saturating_add(spare)
        };
        if !self.limit.is_some_and(wants_cut) {
            return false;
        }
        self.close_run();
        let from = std::mem::take(&mut self.gathered);
        self.cut = Some(Box::new(Cut {
            merge: RunMerge::new(from.runs.len()),
            runs_added: 0,
            kept: RowsPartial::default(),
            places: vec![0; from.series.len()],
            from: [from],
        }));
        true
    }

    fn finish_tidying(&mut self) {
        while self.cut.is_some() {
            self.tidy();
        }
    }

    fn end_cut(&mut self) {
        let Some(cut) = self.cut.take() else { return };
        let Cut { from: [from], mut kept, places, .. } = *cut;
        let last = kept.rows.len().checked_sub(1).and_then(|last| kept.rows.get(last));
        self.last_kept = last.map(|row| (row.timestamp, kept.series.entry(row.series).arrival));
        // The series at hand may go on, and is to be the last of the table.
        let current = from.series.len() - 1;
        self.last_series_used = false;
        kept.series.push(from.series.get(current), from.series.entry(current).arrival);
        debug_assert!(places.len() == current + 1);
        self.garbage = from;
        self.gathered = kept;
        self.run_start = self.gathered.rows.len();
        self.last_timestamp = Timestamp::MIN;
    }

    pub(crate) fn finish(mut self) -> RowsPartial {
        self.finish_tidying();
        self.close_run();
        self.gathered
    }

    /// Lets go of some of what is held; `false` when nothing is left. Nothing is pushed any more.
    pub(crate) fn let_go(&mut self) -> bool {
        if self.garbage.let_go() {
            return true;
        }
        let Some(cut) = self.cut.take() else { return self.gathered.let_go() };
        // What is gathered was taken by the cut.
        let Cut { from: [from], kept, .. } = *cut;
        (self.gathered, self.garbage) = (kept, from);
        true
    }

    /// Bytes of memory held, by what is allocated.
    pub(crate) fn bytes(&self) -> usize {
        let cut = self.cut.as_ref().map_or(0, |cut| cut.from[0].bytes() + cut.kept.bytes());
        self.gathered.bytes() + cut
    }
}

impl Cut {
    /// Merges some more; `false` when the first `limit` rows are there.
    fn step(&mut self, limit: usize) -> bool {
        let runs = self.from[0].runs.len();
        if self.runs_added < runs {
            let next = runs.min(self.runs_added + ROWS_PER_STEP);
            (self.runs_added..next).for_each(|run| self.merge.add(0, &self.from[0], run));
            self.runs_added = next;
            return true;
        }
        for _ in 0..ROWS_PER_STEP {
            let next = if self.kept.rows.len() < limit { self.merge.next(&self.from) } else { None };
            let Some((_, at)) = next else {
                self.kept.runs.push(Run { start: 0, end: self.kept.rows.len() });
                return false;
            };
            let from = &self.from[0];
            let row = *from.rows.get(at).expect("the merge gives rows of the partial");
            let place = &mut self.places[row.series];
            if *place == 0 {
                self.kept.series.push(from.series.get(row.series), from.series.entry(row.series).arrival);
                *place = self.kept.series.len();
            }
            self.kept.rows.push(Row { series: *place - 1, ..row });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LabelSet;
    use proptest::prelude::*;

    fn labels(series: usize) -> LabelSet {
        LabelSet::new("cpu", &[("host", &format!("host-{series:04}"))]).unwrap()
    }

    /// Unlike the order in which tests push series.
    fn arrival(series: usize) -> Arrival {
        Arrival::from_bits((series as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_007)
    }

    fn sample(ticks: i64, value: f64) -> Sample {
        Sample { timestamp: Timestamp::from_ticks(ticks), value }
    }

    /// The first rows, in order.
    fn contents(partial: RowsPartial, limit: Option<usize>) -> Vec<(String, i64, f64)> {
        let partials = [partial];
        let mut merge = RunMerge::new(partials[0].run_count());
        (0..partials[0].run_count()).for_each(|run| merge.add(0, &partials[0], run));
        let mut rows = Vec::new();
        while let Some((_, at)) = merge.next(&partials) {
            let (labels, sample) = partials[0].get(at).expect("within the length");
            rows.push((labels.get("host").to_owned(), sample.timestamp.ticks(), sample.value));
        }
        rows.truncate(limit.unwrap_or(usize::MAX));
        rows
    }

    #[test]
    fn a_series_without_rows_leaves_no_labels_behind() {
        let mut builder = RowsBuilder::new(None);
        for series in 0..1_000 {
            builder.push_series(labels(series).as_ref(), arrival(series));
            if series == 500 {
                builder.push(sample(7, 1.0));
            }
        }
        let partial = builder.finish();
        assert!(partial.series.len() <= 2);
        assert_eq!(contents(partial, None), [("host-0500".to_owned(), 7, 1.0)]);
    }

    /// What is said to be held covers the rows, the labels and the merge to come.
    #[test]
    fn the_bytes_told_grow_with_rows_and_with_labels() {
        let mut builder = RowsBuilder::new(None);
        for series in 0..100 {
            builder.push_series(labels(series).as_ref(), arrival(series));
            (0..1_000).for_each(|ticks| builder.push(sample(ticks, 0.0)));
        }
        let label_bytes = labels(0).as_ref().bytes().len();
        let rows_bytes = 100_000 * size_of::<Row>();
        let least = rows_bytes + 100 * (label_bytes + size_of::<Head>());
        assert!((least..least * 11 / 10 + 2 * LABELS_BLOCK_BYTES).contains(&builder.bytes()));
    }

    /// A limit makes a search over any number of rows and series fit, whichever way time runs.
    #[test]
    fn with_a_limit_memory_does_not_grow_with_the_rows() {
        for times in [(0..50_000).collect::<Vec<i64>>(), (0..50_000).rev().collect()] {
            let mut builder = RowsBuilder::new(Some(10));
            for ticks in times {
                builder
                    .push_series(labels(ticks as usize % 10_000).as_ref(), arrival(ticks as usize % 10_000));
                builder.push(sample(ticks, 0.0));
                while builder.tidy() {}
                assert!(builder.gathered.rows.len() <= 10 + ROWS_BETWEEN_CUTS_MIN);
                assert!(builder.gathered.series.len() <= builder.gathered.rows.len() + 1);
            }
            let kept = contents(builder.finish(), Some(10));
            let kept: Vec<i64> = kept.into_iter().map(|(_, ticks, _)| ticks).collect();
            assert_eq!(kept, (0..10).collect::<Vec<i64>>());
        }
    }

    /// A cut of many rows goes step by step, and the rows come out the same.
    #[test]
    fn a_large_cut_takes_many_short_steps() {
        let mut builder = RowsBuilder::new(Some(20_000));
        let mut steps = 0;
        for series in 0..40 {
            builder.push_series(labels(series).as_ref(), arrival(series));
            (0..1_000).for_each(|i| builder.push(sample(i * 40 + series as i64, 0.0)));
            while builder.tidy() {
                steps += 1;
            }
        }
        assert!(steps >= 20_000 / ROWS_PER_STEP);
        let kept = contents(builder.finish(), Some(20_000));
        let kept: Vec<i64> = kept.into_iter().map(|(_, ticks, _)| ticks).collect();
        assert_eq!(kept, (0..20_000).collect::<Vec<i64>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// The builder keeps what sorting everything and taking the first `limit` rows would keep, whenever
        /// it is tidied. Method: random series, each with distinct times in random order, many of them
        /// shared between series.
        #[test]
        fn rows_with_a_limit_are_the_first_of_all_rows(
            all in proptest::collection::vec(
                proptest::collection::hash_set(0i64..400, 0..300), 0..12,
            ),
            limit in proptest::option::of(0usize..200),
            tidied_every in 1usize..400,
        ) {
            let mut builder = RowsBuilder::new(limit);
            let mut expected = Vec::new();
            for (series, times) in all.iter().enumerate() {
                builder.push_series(labels(series).as_ref(), arrival(series));
                for &ticks in times {
                    builder.push(sample(ticks, ticks as f64));
                    expected.push((ticks, arrival(series), series));
                    if expected.len() % tidied_every == 0 {
                        while builder.tidy() {}
                    }
                }
            }
            expected.sort_unstable();
            expected.truncate(limit.unwrap_or(usize::MAX));
            let expected: Vec<_> = expected.into_iter()
                .map(|(ticks, _, series)| (format!("host-{series:04}"), ticks, ticks as f64)).collect();
            prop_assert_eq!(contents(builder.finish(), limit), expected);
        }
    }
}
