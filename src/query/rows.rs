//! One shard's rows: a table of label sets, and rows that point into it, sorted by time.
//!
//! With a limit the builder holds about twice as many rows as the limit at most, and their label sets:
//!
//! ```text
//! push(row):   a cut was made and row is not earlier than its last kept row → drop
//!              else append; limit + max(limit, 64) rows held → cut
//! cut:         keep the `limit` rows that sort first, remember the last of them, drop unused label sets
//! ```
//!
//! A cut takes as many steps as rows are held and frees at least half of their places, so a row costs
//! constant time; once the early rows are known, late ones are dropped by one comparison.

use crate::TooLarge;
use model::{LabelSetRef, Sample, Timestamp};

/// One row of a partial.
#[derive(Clone, Copy, Debug)]
struct Row {
    timestamp: Timestamp,
    value: f64,
    /// Place of the label set in the table.
    series: usize,
}

impl Row {
    /// By time to the tick, then by the order in which the series came.
    fn key(&self) -> (Timestamp, usize) {
        (self.timestamp, self.series)
    }
}

/// Counted per row: the row, and as much again for what growing and sorting hold beside it.
const ROW_BYTES_COUNTED: usize = 2 * size_of::<Row>();
/// Rows gathered between two cuts at least, so that a small limit does not cut at every row.
const ROWS_BETWEEN_CUTS_MIN: usize = 64;
/// Counted per label set beside its bytes.
const SERIES_BYTES_COUNTED: usize = 2 * size_of::<usize>();

/// Canonical bytes of label sets, back to back.
#[derive(Debug, Default)]
struct SeriesTable {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl SeriesTable {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn start(&self, series: usize) -> usize {
        if series == 0 { 0 } else { self.ends[series - 1] }
    }

    fn get(&self, series: usize) -> LabelSetRef<'_> {
        LabelSetRef::from_canonical(&self.bytes[self.start(series)..self.ends[series]])
    }

    fn push(&mut self, labels: LabelSetRef<'_>) {
        self.bytes.extend_from_slice(labels.bytes());
        self.ends.push(self.bytes.len());
    }

    fn truncate(&mut self, len: usize) {
        let end = self.start(len);
        self.bytes.truncate(end);
        self.ends.truncate(len);
    }

    fn bytes_counted(&self) -> usize {
        self.bytes.len() + self.ends.len() * SERIES_BYTES_COUNTED
    }
}

/// A shard's rows, sorted by time and then by the order in which it met the series.
#[derive(Debug)]
pub struct RowsPartial {
    rows: Vec<Row>,
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

    /// The time of the row at that place, if there is one; what a merge compares.
    pub(crate) fn timestamp(&self, index: usize) -> Option<Timestamp> {
        self.rows.get(index).map(|row| row.timestamp)
    }
}

#[derive(Debug)]
pub(crate) struct RowsBuilder {
    rows: Vec<Row>,
    series: SeriesTable,
    /// Whether the last series of the table has given a row. A series that gives none is taken out again,
    /// so that a search for rare values does not carry the labels of all others.
    last_series_used: bool,
    limit: Option<usize>,
    /// The time of the last row that the latest cut kept. A row of that time still to come is of a later
    /// series, so it sorts behind and is not wanted either.
    last_kept: Option<Timestamp>,
    bytes_max: usize,
}

impl RowsBuilder {
    pub(crate) fn new(limit: Option<usize>, bytes_max: usize) -> RowsBuilder {
        RowsBuilder {
            rows: Vec::new(),
            series: SeriesTable::default(),
            last_series_used: true,
            limit,
            last_kept: None,
            bytes_max,
        }
    }

    pub(crate) fn push_series(&mut self, labels: LabelSetRef<'_>) -> Result<(), TooLarge> {
        if !self.last_series_used {
            self.series.truncate(self.series.len() - 1);
        }
        self.make_room(labels.bytes().len() + SERIES_BYTES_COUNTED)?;
        self.series.push(labels);
        self.last_series_used = false;
        Ok(())
    }

    pub(crate) fn push(&mut self, sample: Sample) -> Result<(), TooLarge> {
        let Sample { timestamp, value } = sample;
        assert!(self.series.len() > 0, "a series is begun before its samples");
        if self.limit == Some(0) || self.last_kept.is_some_and(|last| timestamp >= last) {
            return Ok(());
        }
        self.make_room(ROW_BYTES_COUNTED)?;
        // Read only now: a cut that made room may have moved the series.
        self.rows.push(Row { timestamp, value, series: self.series.len() - 1 });
        self.last_series_used = true;
        if let Some(limit) = self.limit
            && self.rows.len() >= limit.saturating_add(limit.max(ROWS_BETWEEN_CUTS_MIN))
        {
            self.cut(limit);
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> RowsPartial {
        if let Some(limit) = self.limit
            && self.rows.len() > limit
        {
            self.cut(limit);
        }
        // A stable sort finds and merges runs: each series mostly comes sorted.
        self.rows.sort_by_key(Row::key);
        RowsPartial { rows: self.rows, series: self.series }
    }

    fn bytes_counted(&self) -> usize {
        self.rows.len() * ROW_BYTES_COUNTED + self.series.bytes_counted()
    }

    /// Sees to it that so many more bytes fit.
    fn make_room(&mut self, bytes_more: usize) -> Result<(), TooLarge> {
        if self.bytes_counted() + bytes_more <= self.bytes_max {
            return Ok(());
        }
        // Cut only where it frees a good share of the rows: else each further row would cost a cut.
        if let Some(limit) = self.limit
            && self.rows.len() > limit.saturating_add(limit / 4)
        {
            self.cut(limit);
        }
        let bytes = self.bytes_counted() + bytes_more;
        if bytes > self.bytes_max {
            return Err(TooLarge { bytes, bytes_max: self.bytes_max });
        }
        Ok(())
    }

    /// Keeps the first `limit` rows and the series that these and the next rows need. `limit` is not 0 and
    /// more rows than that are held.
    fn cut(&mut self, limit: usize) {
        let (_, last, _) = self.rows.select_nth_unstable_by_key(limit - 1, Row::key);
        self.last_kept = Some(last.timestamp);
        self.rows.truncate(limit);

        const UNUSED: usize = usize::MAX;
        let current = self.series.len() - 1;
        let mut places = vec![UNUSED; self.series.len()];
        for row in &self.rows {
            places[row.series] = 0;
        }
        self.last_series_used = places[current] != UNUSED;
        places[current] = 0;
        let mut kept = SeriesTable::default();
        for (series, place) in places.iter_mut().enumerate().filter(|(_, place)| **place != UNUSED) {
            *place = kept.len();
            kept.push(self.series.get(series));
        }
        for row in &mut self.rows {
            row.series = places[row.series];
        }
        self.series = kept;
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

    fn sample(ticks: i64, value: f64) -> Sample {
        Sample { timestamp: Timestamp::from_ticks(ticks), value }
    }

    fn contents(partial: &RowsPartial) -> Vec<(String, i64, f64)> {
        (0..partial.rows.len())
            .map(|i| partial.get(i).expect("within the length"))
            .map(|(labels, sample)| (labels.get("host").to_owned(), sample.timestamp.ticks(), sample.value))
            .collect()
    }

    #[test]
    fn a_series_without_rows_leaves_no_labels_behind() {
        let mut builder = RowsBuilder::new(None, 10_000);
        for series in 0..1_000 {
            builder.push_series(labels(series).as_ref()).unwrap();
            if series == 500 {
                builder.push(sample(7, 1.0)).unwrap();
            }
        }
        let partial = builder.finish();
        assert_eq!(contents(&partial), [("host-0500".to_owned(), 7, 1.0)]);
        assert!(partial.series.len() <= 2);
    }

    #[test]
    fn the_bound_on_bytes_is_kept_and_told() {
        let series_bytes = labels(0).as_ref().bytes().len() + SERIES_BYTES_COUNTED;
        let bytes_max = 10 * ROW_BYTES_COUNTED + series_bytes;
        let mut builder = RowsBuilder::new(None, bytes_max);
        builder.push_series(labels(0).as_ref()).unwrap();
        let mut pushed = 0;
        let refused = loop {
            match builder.push(sample(pushed, 0.0)) {
                Ok(()) => pushed += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(pushed, 10);
        assert_eq!(refused.bytes_max, bytes_max);
        assert!(refused.bytes > bytes_max);
        assert!(RowsBuilder::new(None, 10).push_series(labels(0).as_ref()).is_err());
    }

    /// A limit makes a search over any number of rows and series fit, whichever way time runs.
    #[test]
    fn with_a_limit_memory_does_not_grow_with_the_rows() {
        for times in [(0..50_000).collect::<Vec<i64>>(), (0..50_000).rev().collect()] {
            let mut builder = RowsBuilder::new(Some(10), 100 * (ROW_BYTES_COUNTED + 64));
            for ticks in times {
                builder.push_series(labels(ticks as usize % 10_000).as_ref()).unwrap();
                builder.push(sample(ticks, 0.0)).unwrap();
                assert!(builder.rows.len() <= 10 + ROWS_BETWEEN_CUTS_MIN);
                assert!(builder.series.len() <= builder.rows.len() + 1);
            }
            let kept: Vec<i64> = contents(&builder.finish()).into_iter().map(|(_, ticks, _)| ticks).collect();
            assert_eq!(kept, (0..10).collect::<Vec<i64>>());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// The builder keeps what sorting everything and taking the first `limit` rows would keep, also when
        /// the bound on bytes forces cuts. Method: random series, each with distinct times in random order.
        #[test]
        fn rows_with_a_limit_are_the_first_of_all_rows(
            all in proptest::collection::vec(
                proptest::collection::hash_set(0i64..400, 0..60), 0..12,
            ),
            limit in proptest::option::of(0usize..200),
            tight in any::<bool>(),
        ) {
            let series_bytes = labels(0).as_ref().bytes().len() + SERIES_BYTES_COUNTED;
            let most = limit.map_or(usize::MAX, |limit| limit + limit / 4 + 2);
            let tight_bytes = most.saturating_mul(ROW_BYTES_COUNTED + series_bytes);
            let bytes_max = if tight { tight_bytes } else { usize::MAX };
            let mut builder = RowsBuilder::new(limit, bytes_max);
            let mut expected = Vec::new();
            for (series, times) in all.iter().enumerate() {
                builder.push_series(labels(series).as_ref()).unwrap();
                for &ticks in times {
                    builder.push(sample(ticks, ticks as f64)).unwrap();
                    expected.push((ticks, series));
                }
            }
            expected.sort_unstable();
            expected.truncate(limit.unwrap_or(usize::MAX));
            let expected: Vec<_> = expected.into_iter()
                .map(|(ticks, series)| (format!("host-{series:04}"), ticks, ticks as f64)).collect();
            prop_assert_eq!(contents(&builder.finish()), expected);
        }
    }
}
