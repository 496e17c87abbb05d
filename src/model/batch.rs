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
}

const _: () = assert!(size_of::<Row>() == 32);

/// Under which number the decoder of a batch remembers a label set: as long as that decoder lives, equal numbers are
/// equal label sets. Those of two decoders have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepeatId(pub NonZeroU64);

/// One sample of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct BatchRow<'a> {
    /// The series it belongs to.
    pub labels: LabelSetRef<'a>,
    /// The same for who knows the decoder; absent for a series that it does not remember, and where it names none.
    pub repeat: Option<RepeatId>,
    /// What the client called it.
    pub kind: MetricKind,
    /// Absent when the server's clock is to say.
    pub timestamp: Option<Timestamp>,
    /// The reading.
    pub value: f64,
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
        self.labels_start(rows.end) - self.labels_start(rows.start)
    }

    /// Where a piece of the batch ends that begins at `row`: after `rows_max` rows, or before the row with which it
    /// would have more than `label_bytes_max` bytes of labels; one row it always has.
    pub fn piece_end(&self, row: usize, rows_max: usize, label_bytes_max: usize) -> usize {
        let rows = &self.rows[row..self.len().min(row + rows_max.max(1))];
        let limit = self.labels_start(row).saturating_add(label_bytes_max);
        row + rows.partition_point(|row| row.labels_end as usize <= limit).max(1).min(rows.len())
    }

    fn labels_start(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.rows[row - 1].labels_end as usize }
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
        self.rows.push(Row { value, timestamp, repeat, labels_end, kind, has_time });
    }

    /// The canonical label bytes of the sample added last; none when there is none.
    pub fn last_labels(&self) -> &[u8] {
        &self.labels[self.labels_start(self.len().saturating_sub(1))..]
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
        let mut start = self.labels_start(rows.start);
        self.rows[rows].iter().map(move |row| {
            let end = row.labels_end as usize;
            let labels = LabelSetRef::from_canonical(&self.labels[start..end]);
            start = end;
            let timestamp = row.has_time.then_some(row.timestamp);
            BatchRow { labels, repeat: row.repeat, kind: row.kind, timestamp, value: row.value }
        })
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
            batch.rows().map(|r| (r.labels.to_owned(), r.kind, r.timestamp, r.value)).collect();
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
}
