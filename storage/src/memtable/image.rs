//! What a checkpoint takes of the table, series by series while samples arrive, and how a start brings it back.

use super::series::{AllLate, SeriesSamples, chunk_bytes};
use super::{CameAgain, Memtable, SeriesId, TailPool, hash_key, key_of};
use crate::checkpoint::{SeriesBlock, SeriesRecord, Sink};
use crate::chunk::{Chunk, OpenChunk};
use crate::index::Runs;
use hashbrown::hash_table::Entry;
use model::{LabelSetRef, Sample, Timestamp};

/// Late samples in one record.
const LATE_PER_RECORD: usize = if cfg!(test) { 16 } else { 256 };

/// When ids began to mean what they mean, and samples to be where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    clearings: u32,
    freezes: u64,
}

/// Where the taking of an image stands. It stays right whatever is appended.
#[derive(Debug, Default)]
pub(crate) struct ImageCursor {
    id: u32,
    part: Part,
    series: u64,
    /// Those of the series at hand.
    labels: Vec<u8>,
}

#[derive(Debug)]
enum Part {
    /// The late samples from that time on.
    Late(Timestamp),
    /// The closed chunks from that one on, then the open one.
    Chunks(usize),
}

impl Default for Part {
    fn default() -> Part {
        Part::Late(Timestamp::MIN)
    }
}

impl ImageCursor {
    /// Series that were put down, to their end.
    pub(crate) fn series(&self) -> u64 {
        self.series
    }

    fn next_row(&mut self) {
        (self.id, self.part) = (self.id + 1, Part::default());
    }
}

impl Memtable {
    /// What holds until series leave the table or a freeze takes the samples.
    pub(crate) fn cut(&self) -> Cut {
        Cut { clearings: self.clearings, freezes: self.freezes }
    }

    /// Puts down what comes next, until the block is full or so many rows were looked at, holes among them; false when there
    /// is no more.
    pub(crate) fn write_image(
        &self,
        cursor: &mut ImageCursor,
        rows_max: usize,
        block: &mut SeriesBlock,
    ) -> bool {
        for _ in 0..rows_max {
            if block.is_full() {
                return true;
            }
            let Some(place) = self.series.get(cursor.id as usize) else { return false };
            let Some(row) = place else {
                cursor.next_row();
                continue;
            };
            cursor.labels.clear();
            row.labels.write_to(&mut cursor.labels);
            let labels = LabelSetRef::from_canonical(&cursor.labels);
            block.begin_series(cursor.id, labels, row.kind, row.arrival);
            if !row.samples.write_image(&mut cursor.part, &self.late.pool, block) {
                return true;
            }
            cursor.series += 1;
            cursor.next_row();
        }
        true
    }

    /// Begins to take in what a checkpoint holds, about so many series, into a table that has none. Until
    /// [`Self::end_restoring`] nobody finds them.
    pub(crate) fn begin_restoring(&mut self, series: usize) -> Restored {
        self.series.reserve_exact(series);
        Restored { runs: Runs::beginning_at(self.id_end()), ..Restored::default() }
    }

    /// Takes in a block of it; `restored` is the same for all of them.
    pub(crate) fn restoring<'a>(&'a mut self, restored: &'a mut Restored) -> Restoring<'a> {
        Restoring { table: self, restored }
    }

    /// All blocks were taken in; returns the ids that the checkpoint gave the series, by their ids here. They rise.
    ///
    /// `None`, and the table is to be thrown away, where a label set is there twice: a bug of who wrote it, for what was
    /// read had its checksum.
    pub(crate) fn end_restoring(&mut self, mut restored: Restored) -> Option<Vec<u32>> {
        Restoring { table: self, restored: &mut restored }.end_series();
        self.series_bytes += self.index.end_runs(restored.runs);
        // They were met long before.
        self.fresh_bytes = 0;
        self.find_by_labels().then_some(restored.ids)
    }

    /// Makes the table by which label sets are found; false where one is there twice. All at once, for then one series
    /// need not wait until the place of the one before has come into the cache.
    fn find_by_labels(&mut self) -> bool {
        let Memtable { series, by_labels, .. } = self;
        by_labels.clear();
        by_labels.reserve(series.len(), |id| key_of(series, *id));
        for (index, row) in series.iter().enumerate() {
            let Some(row) = row else { continue };
            let is_same = |other: &SeriesId| {
                let other = series[other.0 as usize].as_ref();
                other.is_some_and(|other| other.hash == row.hash && other.labels == row.labels)
            };
            match by_labels.entry(hash_key(row.hash), is_same, |id| key_of(series, *id)) {
                Entry::Occupied(_) => return false,
                // Ids are 32 bits.
                Entry::Vacant(place) => place.insert(SeriesId(index as u32)),
            };
        }
        true
    }
}

impl SeriesSamples {
    /// False where the block is full before all is in it.
    fn write_image(&self, part: &mut Part, pool: &TailPool, block: &mut SeriesBlock) -> bool {
        while let Part::Late(from) = *part {
            // By time, into whatever run they are sorted meanwhile.
            let record =
                self.late.sorted(from, Timestamp::MAX, LATE_PER_RECORD, pool, &mut CameAgain::default());
            if !record.is_empty() {
                block.late(&record);
            }
            let is_full_record = record.len() == LATE_PER_RECORD;
            let behind = record.last().and_then(|last| last.timestamp.ticks().checked_add(1));
            *part = match behind {
                Some(behind) if is_full_record => Part::Late(Timestamp::from_ticks(behind)),
                _ => Part::Chunks(0),
            };
            if block.is_full() {
                return false;
            }
        }
        if let Part::Chunks(next) = part {
            while let Some(chunk) = self.closed.get(*next) {
                if block.is_full() {
                    return false;
                }
                block.chunk(chunk);
                *next += 1;
            }
        }
        self.open.iter().for_each(|open| block.open(open));
        true
    }

    /// Takes in a chunk behind those that are there.
    fn restore_chunk(&mut self, chunk: Chunk, bytes: &mut usize) -> bool {
        let is_next =
            self.open.is_none() && self.closed.last().is_none_or(|last| last.last() < chunk.first());
        if is_next {
            *bytes += chunk_bytes(&chunk);
            self.closed.push(chunk);
        }
        is_next
    }

    fn restore_open(&mut self, chunk: OpenChunk, bytes: &mut usize) -> bool {
        let is_next =
            self.open.is_none() && self.closed.last().is_none_or(|last| last.last() < chunk.first());
        if is_next {
            *bytes += chunk.heap_bytes();
            self.open = Some(chunk);
        }
        is_next
    }

    /// What a damaged block has torn apart becomes a series again: one with samples has an open chunk, and no late
    /// sample is later than that.
    fn end_restored(&mut self, bytes: &mut usize, all_late: &mut AllLate) {
        let mut rising = Vec::new();
        if self.open.is_none()
            && let Some(chunk) = self.closed.pop()
        {
            *bytes -= chunk_bytes(&chunk);
            rising.extend(chunk.samples().map_while(Result::ok));
        }
        let open_last = self.open.as_ref().map(|open| open.last());
        let last = open_last.or(rising.last().copied()).map(|last| last.timestamp);
        let AllLate { pool, again, .. } = all_late;
        if self.late.range(pool).is_some_and(|(_, latest)| last < Some(latest)) {
            let mut late = self.late.take_all(pool, bytes, again);
            let later = late.split_off(late.partition_point(|sample| Some(sample.timestamp) <= last));
            late.into_iter().for_each(|sample| self.late.push(sample, pool, bytes, again));
            rising.extend(later);
        }
        for sample in rising {
            self.append(sample, false, bytes, all_late);
        }
    }
}

/// Where the filling of a table stands.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// By id: which one the checkpoint gave that series.
    ids: Vec<u32>,
    /// Whose samples come.
    current: Option<SeriesId>,
    /// Bytes of its samples.
    bytes: usize,
    runs: Runs,
}

/// A table that is being filled from a checkpoint.
pub(crate) struct Restoring<'a> {
    table: &'a mut Memtable,
    restored: &'a mut Restored,
}

impl Restoring<'_> {
    fn end_series(&mut self) {
        let Some(id) = self.restored.current.take() else { return };
        let Some(Some(row)) = self.table.series.get_mut(id.0 as usize) else { return };
        row.samples.end_restored(&mut self.restored.bytes, &mut self.table.late);
        self.table.active_count += usize::from(!row.samples.is_empty());
        self.table.sample_bytes += std::mem::take(&mut self.restored.bytes);
        let in_chunks = row.samples.closed.iter().map(|chunk| u64::from(chunk.count())).sum::<u64>();
        let in_open = row.samples.open.as_ref().map_or(0, |open| u64::from(open.count()));
        // One that a late sample has replaced counts twice: to tell would take decoding its chunk.
        self.table.sample_count += in_chunks + in_open + row.samples.late.len() as u64;
    }

    fn samples(&mut self) -> Option<(&mut SeriesSamples, &mut usize, &mut AllLate)> {
        let row = self.table.series.get_mut(self.restored.current?.0 as usize)?.as_mut()?;
        Some((&mut row.samples, &mut self.restored.bytes, &mut self.table.late))
    }
}

impl Sink for Restoring<'_> {
    fn series(&mut self, series: &SeriesRecord<'_>) -> bool {
        let SeriesRecord { id, labels, kind, arrival, .. } = *series;
        if let Some(current) = self.restored.current.filter(|_| self.restored.ids.last() == Some(&id)) {
            return self.table.labels(current).is_some_and(|of| of.is(labels));
        }
        self.end_series();
        let Some(row) = self.table.add_row(labels, labels.hash(), kind, arrival) else { return false };
        let Memtable { index, series_bytes, .. } = &mut *self.table;
        *series_bytes += index.go_on(&mut self.restored.runs, series.pieces(), series.others());
        self.restored.ids.push(id);
        self.restored.current = Some(row);
        true
    }

    fn late(&mut self, samples: &[Sample]) -> bool {
        let Some((series, bytes, all_late)) = self.samples() else { return false };
        let AllLate { pool, again, .. } = all_late;
        samples.iter().for_each(|sample| series.late.push(*sample, pool, bytes, again));
        true
    }

    fn chunk(&mut self, chunk: Chunk) -> bool {
        self.samples().is_some_and(|(series, bytes, _)| series.restore_chunk(chunk, bytes))
    }

    fn open(&mut self, chunk: OpenChunk) -> bool {
        self.samples().is_some_and(|(series, bytes, _)| series.restore_open(chunk, bytes))
    }
}
