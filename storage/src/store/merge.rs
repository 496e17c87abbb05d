//! One series out of all its sources, in order of time and some thousand samples at a time.
//!
//! ```text
//!   heads: of each source the time of its next sample, or of its next chunk if that is not decoded yet
//!   take the earliest head, of several with one time that of the newest source:
//!     its chunk is not decoded → decode it
//!     else                     → take its samples up to the next head; what is not later than the last taken
//!                                has been said by a newer source
//! ```
//!
//! Where it was asked for (`summary.rs`), a chunk of a segment that is alone in its time is told by its directory row and
//! not read.
//! Always: what is given rises strictly in time; one piece costs a bounded number of decoded samples and of
//! steps; in memory are, per source, one chunk's samples and the bytes of one read.
//! Not here: which sources a series has (`select.rs`, `../compact/merge.rs`).

use super::summary::{ByRows, ChunkSummary};
use crate::chunk::Chunk;
use crate::deletes::Hidden;
use crate::disk::Disk;
use crate::memtable::SeriesSlice;
use crate::segment::{ChunkRow, ChunkRun, SegmentError, SegmentReader, Workspace, run_len};
use model::{LabelSet, Sample, Timestamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

/// Samples decoded or handed out, and steps from one source to another, in one piece: a few tenths of a
/// millisecond at worst. A piece ends with the chunk that reaches it.
pub(super) const PIECE_WORK: usize = 4096;

/// See the head of this file.
pub(crate) struct SeriesMerge<D: Disk> {
    labels: Rc<LabelSet>,
    start: Timestamp,
    end: Timestamp,
    /// Oldest first: of samples with one time that of the last counts.
    sources: Vec<Source<D>>,
    /// The greatest is the earliest, of one time the newest source.
    heads: BinaryHeap<(Reverse<Timestamp>, usize)>,
    last: Option<Timestamp>,
    by_rows: ByRows,
    /// Told and not yet taken, times rising.
    summaries: Vec<ChunkSummary>,
}

/// Samples of one source: those at hand, and where more come from.
struct Source<D: Disk> {
    samples: Vec<Sample>,
    taken: usize,
    chunks: Chunks<D>,
    /// Bytes of memory that its list of chunks takes.
    list_bytes: usize,
}

/// Chunks not decoded yet, in order of time.
enum Chunks<D: Disk> {
    Memory(std::vec::IntoIter<Chunk>),
    Segment {
        segment: Rc<SegmentReader<D>>,
        rows: std::vec::IntoIter<ChunkRow>,
        run: ChunkRun,
        hidden: Hidden,
    },
}

impl<D: Disk> SeriesMerge<D> {
    /// A series without sources; only samples from `start` to `end`, both included, will be given.
    pub(crate) fn new(labels: Rc<LabelSet>, start: Timestamp, end: Timestamp) -> SeriesMerge<D> {
        SeriesMerge {
            labels,
            start,
            end,
            sources: Vec::new(),
            heads: BinaryHeap::new(),
            last: None,
            by_rows: ByRows::NOTHING,
            summaries: Vec::new(),
        }
    }

    /// From now on chunks are told by their rows where they may be.
    pub(super) fn summarise(&mut self, by_rows: ByRows) {
        self.by_rows = by_rows;
    }

    /// Appends what pieces have told by rows since this was last asked.
    pub(super) fn take_summaries(&mut self, out: &mut Vec<ChunkSummary>) {
        out.append(&mut self.summaries);
    }

    /// Adds what a segment holds and is not hidden, which is newer than all sources before.
    pub(crate) fn add_segment(
        &mut self,
        segment: Rc<SegmentReader<D>>,
        mut rows: Vec<ChunkRow>,
        hidden: Hidden,
    ) {
        rows.retain(|row| !hidden.covers(row.first(), row.last()));
        let list_bytes = rows.capacity() * size_of::<ChunkRow>();
        let chunks = Chunks::Segment { segment, rows: rows.into_iter(), run: ChunkRun::default(), hidden };
        self.add(Source { samples: Vec::new(), taken: 0, chunks, list_bytes });
    }

    /// Adds what memory holds, which is newer than all sources before; its late samples are newer still.
    pub(super) fn add_slice(&mut self, slice: SeriesSlice) {
        let list_bytes = slice.bytes();
        let chunks = Chunks::Memory(slice.chunks.into_iter());
        self.add(Source { samples: Vec::new(), taken: 0, chunks, list_bytes });
        let chunks = Chunks::Memory(Vec::new().into_iter());
        let mut late = Source { samples: slice.late, taken: 0, chunks, list_bytes: 0 };
        late.clip(self.start, self.end);
        self.add(late);
    }

    fn add(&mut self, source: Source<D>) {
        if let Some(time) = source.next_time() {
            self.heads.push((Reverse(time), self.sources.len()));
            self.sources.push(source);
        }
    }

    /// Appends the next samples, possibly none; `false` when there are no more.
    pub(crate) async fn next_piece(
        &mut self,
        out: &mut Vec<Sample>,
        workspace: &mut Workspace,
        warnings: &mut Vec<SegmentError>,
    ) -> bool {
        let mut work = 0;
        while work < PIECE_WORK {
            let Some((_, newest)) = self.heads.pop() else { return false };
            work += 1;
            let until = self.heads.peek().map(|(Reverse(time), _)| *time);
            let source = &mut self.sources[newest];
            if source.taken < source.samples.len() {
                work += source.take(until, PIECE_WORK, &mut self.last, out);
            } else {
                // A chunk that is alone in its time need not be looked through sample by sample.
                let is_whole = source.next_chunk().is_some_and(|(first, last)| {
                    let is_in_range = self.start <= first && last <= self.end;
                    is_in_range && until.is_none_or(|until| last < until) && self.last < Some(first)
                });
                if is_whole && let Some(summary) = source.summarise_next(self.by_rows) {
                    self.last = Some(summary.last);
                    self.summaries.push(summary);
                    match source.next_time() {
                        Some(time) => self.heads.push((Reverse(time), newest)),
                        None => source.end(),
                    }
                    continue;
                }
                let before = out.len();
                let decoded = match is_whole {
                    true => source.decode_next(&self.labels, workspace, Some(out)).await,
                    false => source.decode_next(&self.labels, workspace, None).await,
                };
                warnings.extend(decoded.err());
                source.clip(self.start, self.end);
                work += source.samples.len() + (out.len() - before);
                self.last = self.last.max(out[before..].last().map(|sample| sample.timestamp));
            }
            match source.next_time() {
                Some(time) => self.heads.push((Reverse(time), newest)),
                None => source.end(),
            }
        }
        true
    }

    /// Bytes of memory held. It costs an addition or two per source.
    pub(super) fn bytes(&self) -> usize {
        self.sources.iter().map(Source::bytes).sum()
    }
}

impl<D: Disk> Source<D> {
    fn bytes(&self) -> usize {
        let run = match &self.chunks {
            Chunks::Memory(_) => 0,
            Chunks::Segment { run, .. } => run.bytes(),
        };
        size_of::<Source<D>>() + self.list_bytes + self.samples.capacity() * size_of::<Sample>() + run
    }

    /// Everything has been given: what it held is free.
    fn end(&mut self) {
        let chunks = Chunks::Memory(Vec::new().into_iter());
        *self = Source { samples: Vec::new(), taken: 0, chunks, list_bytes: 0 };
    }

    /// No later than its next sample; none when there is no more.
    fn next_time(&self) -> Option<Timestamp> {
        self.samples.get(self.taken).map(|sample| sample.timestamp).or_else(|| match &self.chunks {
            Chunks::Memory(chunks) => chunks.as_slice().first().map(Chunk::first),
            Chunks::Segment { rows, .. } => rows.as_slice().first().map(ChunkRow::first),
        })
    }

    /// Hands out the samples before `until`, or the one at it, at most `samples_max` of them; says how many
    /// were passed.
    fn take(
        &mut self,
        until: Option<Timestamp>,
        samples_max: usize,
        last: &mut Option<Timestamp>,
        out: &mut Vec<Sample>,
    ) -> usize {
        let rest = &self.samples[self.taken..self.samples.len().min(self.taken + samples_max)];
        let before = until.map_or(rest.len(), |until| rest.partition_point(|s| s.timestamp < until));
        // None is before: then the first lies at `until`, and this is the newest source of that time.
        let passed = &rest[..before.max(1)];
        let said = last.map_or(0, |last| passed.partition_point(|s| s.timestamp <= last));
        out.extend_from_slice(&passed[said..]);
        *last = (*last).max(passed.last().map(|s| s.timestamp));
        self.taken += passed.len();
        passed.len()
    }

    /// First and last time of the next chunk.
    fn next_chunk(&self) -> Option<(Timestamp, Timestamp)> {
        match &self.chunks {
            Chunks::Memory(chunks) => chunks.as_slice().first().map(|chunk| (chunk.first(), chunk.last())),
            Chunks::Segment { rows, .. } => rows.as_slice().first().map(|row| (row.first(), row.last())),
        }
    }

    /// What the row of the next chunk says, if it may speak for it: then the chunk is passed over.
    fn summarise_next(&mut self, by_rows: ByRows) -> Option<ChunkSummary> {
        let Chunks::Segment { rows, hidden, .. } = &mut self.chunks else { return None };
        let row = rows.as_slice().first()?;
        let may = by_rows.may_tell(row) && !hidden.reaches(row.first(), row.last());
        may.then(|| rows.next().map(|row| ChunkSummary::of(&row)))?
    }

    /// Decodes the next chunk to the end of `whole`, or to the samples at hand. A run of chunks that cannot be read, and
    /// a chunk that is damaged, is passed over and told.
    async fn decode_next(
        &mut self,
        labels: &LabelSet,
        workspace: &mut Workspace,
        whole: Option<&mut Vec<Sample>>,
    ) -> Result<(), SegmentError> {
        self.samples.clear();
        self.taken = 0;
        let out = whole.unwrap_or(&mut self.samples);
        match &mut self.chunks {
            Chunks::Memory(chunks) => {
                let Some(chunk) = chunks.next() else { return Ok(()) };
                let decoded = chunk.samples().decode_into(out);
                decoded.map_err(|error| SegmentError::Memory { series: format!("{labels:?}"), error })
            }
            Chunks::Segment { segment, rows, run, hidden } => {
                let Some(row) = rows.as_slice().first().copied() else { return Ok(()) };
                if !run.holds(&row) {
                    let ahead = rows.as_slice();
                    let ahead = &ahead[..run_len(ahead)];
                    match segment.read_run(ahead, workspace).await {
                        Ok(read) => *run = read,
                        Err(error) => {
                            let unreadable = ahead.len();
                            rows.nth(unreadable - 1);
                            return Err(error);
                        }
                    }
                }
                rows.next();
                let begin = out.len();
                segment.decode_chunk(labels, &row, run, workspace, out)?;
                hidden.take_out(out, begin);
                Ok(())
            }
        }
    }

    /// Passes over the samples at hand that lie outside the range.
    fn clip(&mut self, start: Timestamp, end: Timestamp) {
        self.samples.truncate(self.samples.partition_point(|sample| sample.timestamp <= end));
        self.taken = self.samples.partition_point(|sample| sample.timestamp < start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimDisk, ready};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(ticks: i64, value: f64) -> Sample {
        Sample { timestamp: Timestamp::from_ticks(ticks), value }
    }

    /// Chunks of some samples each, as a memtable would have closed them.
    fn chunks(samples: &[Sample], samples_per_chunk: usize) -> Vec<Chunk> {
        let mut out = Vec::new();
        samples.chunks(samples_per_chunk).for_each(|run| Chunk::encode_into(run, &mut out));
        out
    }

    fn merge(slices: Vec<SeriesSlice>, start: i64, end: i64) -> SeriesMerge<SimDisk> {
        let labels = Rc::new(LabelSet::new("cpu", &[]).unwrap());
        let mut merge = SeriesMerge::new(labels, Timestamp::from_ticks(start), Timestamp::from_ticks(end));
        slices.into_iter().for_each(|slice| merge.add_slice(slice));
        merge
    }

    fn drain(mut merge: SeriesMerge<SimDisk>) -> Vec<(i64, u64)> {
        let (mut out, mut warnings) = (Vec::new(), Vec::new());
        let mut more = true;
        while more {
            let before = out.len();
            more = ready(merge.next_piece(&mut out, &mut Workspace::default(), &mut warnings));
            assert!(out.len() - before <= PIECE_WORK + crate::chunk::CHUNK_SAMPLES_MAX as usize);
        }
        assert!(warnings.is_empty());
        out.iter().map(|s: &Sample| (s.timestamp.ticks(), s.value.to_bits())).collect()
    }

    /// Everything at once: decoded, sorted by time, the newest of each time kept.
    fn naive(slices: &[SeriesSlice], start: i64, end: i64) -> Vec<(i64, u64)> {
        let mut all: Vec<Sample> = Vec::new();
        for slice in slices {
            slice.chunks.iter().for_each(|chunk| chunk.samples().decode_into(&mut all).unwrap());
            all.extend_from_slice(&slice.late);
        }
        all.retain(|sample| (start..=end).contains(&sample.timestamp.ticks()));
        all.sort_by_key(|sample| sample.timestamp);
        all.dedup_by(|later, kept| {
            let same = later.timestamp == kept.timestamp;
            if same {
                *kept = *later;
            }
            same
        });
        all.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())).collect()
    }

    fn slices() -> impl Strategy<Value = Vec<SeriesSlice>> {
        let times = || proptest::collection::btree_set(0i64..300, 0..120);
        let slice = (times(), times(), 1usize..60);
        proptest::collection::vec(slice, 0..5).prop_map(|slices| {
            let mut value = 0.0;
            let mut samples = |times: BTreeSet<i64>| -> Vec<Sample> {
                times
                    .into_iter()
                    .map(|ticks| {
                        value += 1.0;
                        at(ticks, value)
                    })
                    .collect()
            };
            let slice = |(times, late, per_chunk)| SeriesSlice {
                chunks: chunks(&samples(times), per_chunk),
                late: samples(late),
            };
            slices.into_iter().map(slice).collect()
        })
    }

    proptest! {
        /// However sources overlap, the pieces are what sorting everything gives.
        #[test]
        fn pieces_are_those_of_one_sort(slices in slices(), start in -5i64..300, end in 0i64..310) {
            let expected = naive(&slices, start, end);
            prop_assert_eq!(drain(merge(slices, start, end)), expected);
        }
    }

    /// Many samples that interleave one by one: no piece is longer than its bound, none is lost.
    /// (`drain` asserts the bound.)
    #[test]
    fn a_long_series_comes_in_bounded_pieces() {
        let even: Vec<Sample> = (0..40_000).map(|i| at(2 * i, 0.0)).collect();
        let odd: Vec<Sample> = (0..40_000).map(|i| at(2 * i + 1, 1.0)).collect();
        let late: Vec<Sample> = (0..20_000).map(|i| at(4 * i, 2.0)).collect();
        let slices = vec![
            SeriesSlice { chunks: chunks(&even, 200), late: Vec::new() },
            SeriesSlice { chunks: chunks(&odd, 200), late },
        ];
        let expected = naive(&slices, 0, 100_000);
        assert_eq!(drain(merge(slices, 0, 100_000)), expected);
        // A source of one piece, as a series that arrived backwards is.
        let backwards = SeriesSlice { chunks: Vec::new(), late: even };
        assert_eq!(drain(merge(vec![backwards], 0, 100_000)).len(), 40_000);
    }
}
