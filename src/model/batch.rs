//! What a decoder makes of one request body: samples with their label sets.
//!
//! A batch is kept and cleared, never dropped, so a loop in its stride allocates nothing.

use crate::{LabelSetRef, MetricKind, Timestamp};
use std::num::NonZeroU64;
use std::ops::Range;

/// The samples of one body in the order in which they stood there.
#[derive(Debug, Default)]
pub struct Batch {
    /// Of all rows, back to back.
    labels: Vec<u8>,
    rows: Vec<Row>,
}

/// A row as it is kept: half a cache line, written in one go.
#[derive(Clone, Copy, Debug)]
struct Row {
    value: f64,
    /// Of no meaning where there is no time.
    timestamp: Timestamp,
    repeat: Option<RepeatId>,
    labels_end: u32,
    kind: MetricKind,
    has_time: bool,
    /// It is of the series of the row before, whose labels are not said again.
    goes_on: bool,
}

const _: () = assert!(size_of::<Row>() == 32);

/// Under which number the decoder of a batch remembers a label set: as long as that decoder lives, equal numbers are
/// equal label sets. Those of two decoders have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RepeatId(pub NonZeroU64);

/// One sample of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct BatchRow<'a> {
    /// The series it belongs to; absent where who asked for the batch knows it by `repeat`, and said so.
    pub labels: Option<LabelSetRef<'a>>,
    /// The same for who knows the decoder; absent for a series that it does not remember, and where it names none.
    pub repeat: Option<RepeatId>,
    /// Whether it is of the series of the row before.
    pub goes_on: bool,
    /// What the client called it.
    pub kind: MetricKind,
    /// Absent when the server's clock is to say.
    pub timestamp: Option<Timestamp>,
    /// The reading.
    pub value: f64,
}

/// Samples in a row of a [`Batch`] that are of one series.
#[derive(Clone, Copy, Debug)]
pub struct BatchRun<'a> {
    /// The first of them.
    pub first: BatchRow<'a>,
    rows: &'a [Row],
}

impl<'a> BatchRun<'a> {
    /// Times and values of all of them, in order.
    #[inline]
    pub fn samples(&self) -> impl ExactSizeIterator<Item = (Option<Timestamp>, f64)> + 'a {
        self.rows.iter().map(|row| (row.time(), row.value))
    }
}

impl Row {
    #[inline]
    fn time(&self) -> Option<Timestamp> {
        self.has_time.then_some(self.timestamp)
    }
}

impl Batch {
    /// Forgets the samples, keeps the memory.
    pub fn clear(&mut self) {
        self.labels.clear();
        self.rows.clear();
    }

    /// Samples in the batch.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of the label sets of some of the rows.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn label_bytes(&self, rows: Range<usize>) -> usize {
        if rows.is_empty() { 0 } else { self.labels_end(rows.end) - self.labels_start(rows.start) }
    }

    /// Where a piece of the batch ends that begins at `row`: after `rows_max` rows, or before the row with which it
    /// would have more than `label_bytes_max` bytes of labels; one row it always has.
    pub fn piece_end(&self, row: usize, rows_max: usize, label_bytes_max: usize) -> usize {
        let rows = &self.rows[row..self.len().min(row + rows_max.max(1))];
        let limit = self.labels_start(row).saturating_add(label_bytes_max);
        row + rows.partition_point(|row| row.labels_end as usize <= limit).max(1).min(rows.len())
    }

    /// Where the labels of a row begin; those of the rows that go on with a series are its first row's.
    fn labels_start(&self, row: usize) -> usize {
        let goes_on = self.rows[row.min(self.len())..].first().is_some_and(|row| row.goes_on);
        let first = if goes_on { self.rows[..row].iter().rposition(|row| !row.goes_on) } else { Some(row) };
        match first.unwrap_or_default().checked_sub(1) {
            Some(before) => self.rows[before].labels_end as usize,
            None => 0,
        }
    }

    fn labels_end(&self, row_end: usize) -> usize {
        row_end.checked_sub(1).map_or(0, |last| self.rows[last].labels_end as usize)
    }

    /// Adds one sample whose canonical label bytes `write_labels` appends to the buffer it is given.
    /// When that fails nothing is added.
    pub fn push<E>(
        &mut self,
        write_labels: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        kind: MetricKind,
        timestamp: Option<Timestamp>,
        value: f64,
    ) -> Result<(), E> {
        let start = self.labels.len();
        if let Err(error) = write_labels(&mut self.labels) {
            self.labels.truncate(start);
            return Err(error);
        }
        self.push_row(None, kind, timestamp, value);
        Ok(())
    }

    /// Adds one sample of a label set that came before, by its canonical bytes.
    #[inline]
    pub fn push_repeat(
        &mut self,
        labels: LabelSetRef<'_>,
        repeat: Option<RepeatId>,
        kind: MetricKind,
        timestamp: Option<Timestamp>,
        value: f64,
    ) {
        self.labels.extend_from_slice(labels.bytes());
        self.push_row(repeat, kind, timestamp, value);
    }

    /// Adds one sample of a series that needs no labels.
    #[inline]
    pub fn push_named(
        &mut self,
        repeat: RepeatId,
        kind: MetricKind,
        timestamp: Option<Timestamp>,
        value: f64,
    ) {
        self.push_row(Some(repeat), kind, timestamp, value);
    }

    /// Says under which number the label set of the row added last is remembered.
    pub fn name_last(&mut self, repeat: Option<RepeatId>) {
        if let Some(last) = self.rows.last_mut() {
            last.repeat = repeat;
        }
    }

    /// Adds another sample of the series of the row before.
    ///
    /// # Panics
    /// When there is no row.
    #[inline]
    pub fn push_again(&mut self, timestamp: Timestamp, value: f64) {
        let before = self.rows[self.len() - 1];
        self.rows.push(Row { value, timestamp, has_time: true, goes_on: true, ..before });
    }

    /// Adds further samples of the series of the row before, in one go.
    ///
    /// # Panics
    /// When there is no row.
    #[inline]
    pub fn push_all_again(&mut self, samples: impl Iterator<Item = (Timestamp, f64)>) {
        let before = Row { has_time: true, goes_on: true, ..self.rows[self.len() - 1] };
        self.rows.extend(samples.map(|(timestamp, value)| Row { value, timestamp, ..before }));
    }

    /// Adds another sample of that series, and says the labels again if there are some: so whoever begins to read here
    /// need not look for them further back.
    ///
    /// # Panics
    /// When there is no row.
    pub fn push_anew(&mut self, timestamp: Timestamp, value: f64) {
        let before = self.rows[self.len() - 1];
        self.labels.extend_from_within(self.labels_start(self.len() - 1)..);
        self.push_row(before.repeat, before.kind, Some(timestamp), value);
    }

    /// Drops the rows for which `keep` says no by their place, and those that go on with them, for which it is not asked.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let labels = std::mem::take(&mut self.labels);
        let (mut end_before, mut is_kept) = (0, true);
        for (at, row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            let own = std::mem::replace(&mut end_before, row.labels_end as usize)..row.labels_end as usize;
            is_kept = if row.goes_on { is_kept } else { keep(at) };
            if is_kept {
                self.labels.extend_from_slice(&labels[own]);
                // No more than there were.
                self.rows.push(Row { labels_end: self.labels.len() as u32, ..row });
            }
        }
    }

    /// Drops the rows from that one on.
    pub fn truncate(&mut self, rows: usize) {
        self.labels.truncate(self.labels_end(rows.min(self.len())));
        self.rows.truncate(rows);
    }

    #[inline]
    fn push_row(
        &mut self,
        repeat: Option<RepeatId>,
        kind: MetricKind,
        timestamp: Option<Timestamp>,
        value: f64,
    ) {
        let labels_end = u32::try_from(self.labels.len()).expect("a body is far below 4 GiB");
        let (has_time, timestamp) = (timestamp.is_some(), timestamp.unwrap_or(Timestamp::MIN));
        self.rows.push(Row { value, timestamp, repeat, labels_end, kind, has_time, goes_on: false });
    }

    /// The canonical label bytes of the sample added last; none when there is none.
    pub fn last_labels(&self) -> &[u8] {
        &self.labels[self.labels_start(self.len().saturating_sub(1))..]
    }

    /// What the client called the sample added last.
    pub fn last_kind(&self) -> Option<MetricKind> {
        self.rows.last().map(|row| row.kind)
    }

    /// The samples, in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = BatchRow<'_>> {
        self.rows_in(0..self.len())
    }

    /// Some of the samples, in order.
    ///
    /// # Panics
    /// If there are no such rows.
    #[inline]
    pub fn rows_in(&self, rows: Range<usize>) -> impl ExactSizeIterator<Item = BatchRow<'_>> {
        let mut start = if rows.is_empty() { 0 } else { self.labels_start(rows.start) };
        let mut last_end = start;
        self.rows[rows].iter().map(move |row| {
            if !row.goes_on {
                start = last_end;
            }
            last_end = row.labels_end as usize;
            self.row(row, start..last_end)
        })
    }

    /// The same, the rows of a series that follow each other together. What of a series is in the range is a run of it,
    /// also where its first row is not.
    ///
    /// # Panics
    /// If there are no such rows.
    #[inline]
    pub fn runs_in(&self, rows: Range<usize>) -> impl Iterator<Item = BatchRun<'_>> {
        let mut start = if rows.is_empty() { 0 } else { self.labels_start(rows.start) };
        let mut left = &self.rows[rows];
        std::iter::from_fn(move || {
            let (first, others) = left.split_first()?;
            let others = others.iter().position(|row| !row.goes_on).unwrap_or(others.len());
            let (rows, behind) = left.split_at(1 + others);
            left = behind;
            let begin = std::mem::replace(&mut start, first.labels_end as usize);
            Some(BatchRun { first: self.row(first, begin..start), rows })
        })
    }

    #[inline]
    fn row(&self, row: &Row, labels: Range<usize>) -> BatchRow<'_> {
        let labels = &self.labels[labels];
        let labels = (!labels.is_empty()).then(|| LabelSetRef::from_canonical(labels));
        let Row { repeat, goes_on, kind, value, .. } = *row;
        BatchRow { labels, repeat, goes_on, kind, timestamp: row.time(), value }
    }

    /// The rows that came with a time, by their places, in order.
    pub fn times(&self) -> impl Iterator<Item = (usize, Timestamp)> {
        self.rows.iter().enumerate().filter(|(_, row)| row.has_time).map(|(at, row)| (at, row.timestamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelError, LabelSet};

    #[test]
    fn what_is_not_retained_takes_what_goes_on_with_it_along() {
        let mut batch = Batch::default();
        let at = |n: i64| Timestamp::first_of_milli(n);
        for name in ["a", "b", "c"] {
            let labels = LabelSet::new(name, &[]).unwrap();
            batch.push_repeat(labels.as_ref(), None, MetricKind::Gauge, Some(at(0)), 1.0);
            batch.push_again(at(1), 2.0);
            batch.push_anew(at(2), 3.0);
            batch.push_again(at(3), 4.0);
        }
        let rows = |batch: &Batch| -> Vec<(String, i64)> {
            let row =
                |row: BatchRow<'_>| (row.labels.unwrap().name().to_owned(), row.timestamp.unwrap().millis());
            batch.rows().map(row).collect()
        };
        let mut asked = Vec::new();
        batch.retain(|row| {
            asked.push(row);
            ![0, 4, 6].contains(&row)
        });
        assert_eq!(asked, [0, 2, 4, 6, 8, 10]);
        let kept = [("a", 2), ("a", 3), ("c", 0), ("c", 1), ("c", 2), ("c", 3)];
        assert_eq!(rows(&batch), kept.map(|(name, millis)| (name.to_owned(), millis)));
        assert_eq!(batch.label_bytes(0..6), 3 * LabelSet::new("a", &[]).unwrap().as_ref().bytes().len());
        batch.retain(|_| false);
        assert!(batch.is_empty() && batch.last_labels().is_empty());
    }

    #[test]
    fn a_refused_row_leaves_the_batch_as_it_was() {
        let mut batch = Batch::default();
        let set = LabelSet::new("cpu", &[("host", "a")]).unwrap();
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(set.as_ref().bytes());
            Ok::<(), LabelError>(())
        };
        batch.push(write, MetricKind::Counter, None, 1.5).unwrap();
        let half = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half");
            Err(LabelError::NameEmpty)
        };
        assert_eq!(batch.push(half, MetricKind::Gauge, None, 2.0), Err(LabelError::NameEmpty));
        let repeat = Some(RepeatId(NonZeroU64::MIN));
        batch.push_repeat(set.as_ref(), repeat, MetricKind::Gauge, Some(Timestamp::from_ticks(7)), 3.0);
        assert_eq!(batch.times().collect::<Vec<_>>(), [(1, Timestamp::from_ticks(7))]);
        assert_eq!(batch.rows().map(|r| r.repeat).collect::<Vec<_>>(), [None, repeat]);
        let rows: Vec<_> =
            batch.rows().map(|r| (r.labels.unwrap().to_owned(), r.kind, r.timestamp, r.value)).collect();
        assert_eq!(batch.rows_in(1..2).map(|r| r.value).collect::<Vec<_>>(), [3.0]);
        assert_eq!(batch.label_bytes(1..2), set.as_ref().bytes().len());
        let set_bytes = set.as_ref().bytes().len();
        for (row, rows_max, label_bytes_max, end) in [
            (0, 9, 9_999, 2),
            (0, 1, 9_999, 1),
            (0, 9, 2 * set_bytes, 2),
            (0, 9, set_bytes, 1),
            (1, 9, 0, 2),
            (2, 9, 9, 2),
        ] {
            assert_eq!(batch.piece_end(row, rows_max, label_bytes_max), end);
        }
        assert_eq!(
            rows,
            [
                (set.clone(), MetricKind::Counter, None, 1.5),
                (set.clone(), MetricKind::Gauge, Some(Timestamp::from_ticks(7)), 3.0)
            ]
        );
    }

    /// Rows that go on with a series have its labels wherever a reader begins, and those that need none have none.
    #[test]
    fn the_labels_of_a_series_are_said_once_for_all_its_rows() {
        let mut batch = Batch::default();
        let sets = ["a", "b"].map(|host| LabelSet::new("cpu", &[("host", host)]).unwrap());
        let at = |ticks| Timestamp::from_ticks(ticks);
        let id = RepeatId(NonZeroU64::MIN);
        batch.push_repeat(sets[0].as_ref(), None, MetricKind::Gauge, Some(at(0)), 0.0);
        batch.push_again(at(1), 1.0);
        batch.push_named(id, MetricKind::Gauge, Some(at(2)), 2.0);
        batch.push_again(at(3), 3.0);
        batch.push_repeat(sets[1].as_ref(), None, MetricKind::Gauge, Some(at(4)), 4.0);
        batch.push_again(at(5), 5.0);
        batch.name_last(Some(id));
        let expected = [Some(&sets[0]), Some(&sets[0]), None, None, Some(&sets[1]), Some(&sets[1])];
        let bytes = sets[0].as_ref().bytes().len();
        for begin in 0..=6 {
            for end in begin..=6 {
                let rows: Vec<_> = batch.rows_in(begin..end).collect();
                let labels: Vec<_> = rows.iter().map(|row| row.labels).collect();
                let wanted: Vec<_> =
                    expected[begin..end].iter().map(|set| set.map(|set| set.as_ref())).collect();
                assert_eq!(labels, wanted, "{begin}..{end}");
                assert!(rows.iter().zip(begin..).all(|(row, at)| row.value == at as f64));
                let runs: Vec<_> = batch.runs_in(begin..end).collect();
                let of_runs = runs.iter().flat_map(|run| {
                    let samples = run.samples().enumerate();
                    samples
                        .map(|(at, sample)| (run.first.labels, (at == 0).then_some(run.first.repeat), sample))
                });
                let of_rows = rows.iter().enumerate().map(|(at, row)| {
                    let begins = at == 0 || !row.goes_on;
                    (row.labels, begins.then_some(row.repeat), (row.timestamp, row.value))
                });
                assert!(of_runs.eq(of_rows), "{begin}..{end}");
                let sets_of = wanted.iter().flatten().fold(Vec::new(), |mut sets, set| {
                    if sets.last() != Some(set) {
                        sets.push(*set);
                    }
                    sets
                });
                assert_eq!(batch.label_bytes(begin..end), sets_of.len() * bytes, "{begin}..{end}");
            }
        }
        assert_eq!(
            batch.rows().map(|row| row.repeat.is_some()).collect::<Vec<_>>(),
            [false, false, true, true, false, true]
        );
        batch.push_anew(at(6), 6.0);
        assert_eq!(
            batch.rows_in(6..7).map(|row| row.labels.unwrap().to_owned()).collect::<Vec<_>>(),
            [sets[1].clone()]
        );
        assert_eq!(batch.label_bytes(0..7), 3 * bytes);
        batch.truncate(4);
        batch.push_anew(at(4), 4.0);
        let named = batch.rows_in(4..5).next().unwrap();
        assert_eq!((named.labels, named.repeat, named.goes_on), (None, Some(id), false));
        batch.truncate(4);
        assert_eq!(batch.label_bytes(0..4), bytes);
        batch.truncate(1);
        assert_eq!((batch.len(), batch.label_bytes(0..1)), (1, bytes));
        batch.truncate(0);
        assert_eq!((batch.last_labels(), batch.len()), (&b""[..], 0));
    }
}
