//! A query's view of the store: a moment is fixed at once, then series are looked at and read piece by piece.
//!
//! ```text
//! select        the moment: ids of the series that may be meant, the segments, a mark in the memtable      no wait
//! next_piece    segments say which rows of their directories may be meant                               until all have
//!   some thousand label values are tested, where an expression has to be, and fewer series are meant  until all are
//!   if there are any: series in memory are put by slot (directories are sorted by it), some hundred at a time  until all are
//!     and what they hold is taken ahead, as much as may be held
//!     for each slot: directory blocks that reach into it are read
//!   some hundred series in memory are looked at: matched, described, their samples taken     those of the slot, or all
//!   some thousand samples of one series are read (`merge.rs`)                          until what was taken is read
//!     then series of the slot that only segments hold are read, or told by their rows, some hundred at once (`summary.rs`)
//! ```
//!
//! What a view shows of each series that had been met at the moment of [`Store::select`]: every sample in the range
//! that was applied by then, whatever is flushed, forgotten or dropped meanwhile; and of what was applied later
//! possibly some, a value that replaces an older one included, but never one without those of the same series that
//! were applied before it: a series is looked at once, in one step. Series that were met later are not shown.
//!
//! Whoever reads may do other work between two pieces: a piece takes a few tenths of a millisecond, however
//! large the answer is. This room knows no executor; the caller yields. In memory are the set of ids
//! that may be meant, an id or two per series where segments are read, the series at hand, what was taken ahead, and the directory rows at hand: [`Selection::bytes`].
//! A part that was frozen stays in memory, on the store's account, until the views end that may still look at it. A
//! view ends when all series in memory have been looked at; at the selection's end if it may not hold so much ahead.
//!
//! Read next: `select/memory.rs`, `select/directories.rs`, then `merge.rs`.

mod directories;
mod memory;

#[cfg(test)]
mod tests;

use super::merge::SeriesMerge;
use super::summary::ByRows;
use super::{ChunkSummary, RowSums, Store, Summarised, Told};
use crate::deletes::{Delete, Hidden};
use crate::disk::Disk;
use crate::index::NAME_LABEL;
use crate::memtable::SeriesSlice;
use crate::segment::{ChunkRow, ListedSeries, PairHash, SegmentEntry, SegmentError, Workspace, segment_path};
use directories::Directories;
use memory::{InMemory, MemorySeries};
use model::{Arrival, Condition, LabelSet, Matcher, MetricKind, Sample, Slot, Timestamp};
use std::collections::VecDeque;
use std::rc::Rc;

/// Chunks and late samples taken in one step, directory rows decoded for the same series, and what looking at
/// these costs in the same measure: 0.2 ms at worst. A step ends with the series that reaches it.
const WORK_PER_LOOK: usize = 2048;
/// Series of segments that are begun or told in one step.
const SERIES_PER_STEP: usize = 256;
/// Directory rows decoded for them in one step, about, some 10 ns each: of those that are told, of those that then are
/// not, and of those that are outside the range. A step ends with the series that reaches it.
const ROWS_PER_STEP: usize = 4096;

/// See the head of this file.
pub struct Selection<D: Disk> {
    wanted: Wanted,
    stage: Stage,
    memory: InMemory,
    directories: Directories<D>,
    /// Series to be read next.
    waiting: VecDeque<Source>,
    waiting_bytes: usize,
    reading: Option<Reading<D>>,
    workspace: Workspace,
    /// See [`Selection::hold_ahead`].
    ahead_bytes_max: usize,
    by_rows: ByRows,
    /// Those of the moment.
    deletes: Rc<[Delete]>,
    warnings: Vec<SegmentError>,
}

/// Which series and samples a selection is to find.
struct Wanted {
    name: String,
    /// That of the name among them.
    matchers: Vec<Matcher>,
    /// Pairs that each such series has.
    pairs: Vec<PairHash>,
    /// Both included.
    start: Timestamp,
    end: Timestamp,
    shard: usize,
    shards: usize,
}

impl Wanted {
    fn owns(&self, slot: Slot) -> bool {
        slot.owner(self.shards) == self.shard
    }

    /// Whether all of that time lies in the range.
    fn holds(&self, first: Timestamp, last: Timestamp) -> bool {
        self.start <= first && last <= self.end
    }
}

/// What is to be done once all that waits is read.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Asking segments which of their rows may be meant.
    Asking,
    /// Putting the series in memory by slot.
    Sorting,
    /// Reading directory blocks that reach into the slot.
    Searching(Slot),
    /// Looking at the series in memory: those of the slot, or all where no segment holds the name.
    Looking,
    /// Beginning those of the slot that only segments hold.
    SegmentsAlone,
    Done,
}

/// One series of an answer.
#[derive(Clone, Debug)]
pub struct SelectedSeries {
    /// The label set.
    pub labels: Rc<LabelSet>,
    /// What the client called it, last: as the newest says that holds samples in the range.
    pub kind: MetricKind,
    /// When it first arrived: the earliest that those say that hold samples in the range.
    pub arrival: Arrival,
}

/// What one step of reading gives. Kept and filled again.
#[derive(Debug, Default)]
pub struct Piece {
    /// The series that begins with this piece; none when the one before goes on.
    pub begins: Option<SelectedSeries>,
    /// Samples of the series at hand, times rising strictly from piece to piece; often none.
    pub samples: Vec<Sample>,
    /// Chunks of it that their directory rows speak for ([`Selection::summarise`]), in order of time: they lie between the
    /// samples where their times say.
    pub summaries: Vec<ChunkSummary>,
    /// Series that rows tell whole: each begins and ends here, whatever series is at hand.
    pub told: Told,
}

/// Where the samples of one series lie.
struct Source {
    series: SelectedSeries,
    in_segments: Vec<(usize, Vec<ChunkRow>)>,
    frozen: SeriesSlice,
    memtable: SeriesSlice,
    /// Of `bytes`, what lies in shared chunks that perhaps nobody else holds.
    shared_bytes: usize,
    bytes: usize,
}

/// The series at hand.
struct Reading<D: Disk> {
    /// Until it begins.
    series: Option<SelectedSeries>,
    merge: SeriesMerge<D>,
    /// As its [`Source`] says.
    shared_bytes: usize,
}

impl<D: Disk> Store<D> {
    /// The series of that metric name that meet all matchers, with their samples from `start` to `end`,
    /// both included; what is before `oldest`, the bound of retention, is hidden.
    ///
    /// Series come in no order; each says when it arrived.
    pub fn select(
        &self,
        name: &str,
        matchers: &[Matcher],
        start: Timestamp,
        end: Timestamp,
        oldest: Timestamp,
    ) -> Selection<D> {
        let start = start.max(oldest);
        let (shard, shards) = (self.shard, self.shards);
        let required =
            matchers.iter().filter_map(|matcher| Some((&*matcher.label, matcher.required_value()?)));
        let pairs = required.chain([(NAME_LABEL, name)]).map(|(label, value)| PairHash::new(label, value));
        let named = Matcher { label: NAME_LABEL.to_owned(), condition: Condition::Equal(name.to_owned()) };
        let wanted = Wanted {
            name: name.to_owned(),
            matchers: [named].into_iter().chain(matchers.iter().cloned()).collect(),
            pairs: pairs.collect(),
            start,
            end,
            shard,
            shards,
        };
        let hold = self.views.begin(self.freezes + u64::from(self.frozen.is_none()));
        let segments = self.segments.iter().filter(|reader| reader.overlaps(start, end));
        Selection {
            memory: InMemory::new(&self.memtable, self.frozen.clone(), hold, &wanted),
            directories: Directories::new(segments.cloned().collect()),
            wanted,
            stage: Stage::Asking,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            reading: None,
            workspace: Workspace::default(),
            ahead_bytes_max: 0,
            by_rows: ByRows::NOTHING,
            deletes: self.deletes.clone(),
            warnings: self.unopened(start, end),
        }
    }
}

impl<D: Disk> Store<D> {
    /// What is missing of that time because its segments could not be opened.
    pub(super) fn unopened(&self, start: Timestamp, end: Timestamp) -> Vec<SegmentError> {
        let overlaps = |entry: &&SegmentEntry| entry.min_ms <= end.millis() && entry.max_ms >= start.millis();
        let error = |entry: &SegmentEntry| SegmentError::Damaged {
            path: segment_path(entry.id),
            offset: 0,
            series: None,
            what: "a segment that can be opened",
        };
        self.unopened.iter().filter(overlaps).map(error).collect()
    }
}

impl<D: Disk> Selection<D> {
    /// About so many bytes may be held of samples in memory before they are read, so that the parts of memory where
    /// they lie need not be kept meanwhile; nothing when it was not said. To be said before the first piece.
    pub fn hold_ahead(&mut self, bytes_max: usize) {
        self.ahead_bytes_max = bytes_max;
    }

    /// Whole chunks of segments are told by their directory rows where these may speak for them, and are not read. To be
    /// said before the first piece.
    ///
    /// Chunks whose sum the row does not say as `sums` asks for are read.
    pub fn summarise(&mut self, summarised: Summarised, sums: RowSums) {
        self.by_rows = ByRows { summarised, sums };
    }

    /// Whether it keeps parts of memory that would otherwise be free once they are on disk.
    pub fn keeps_memory(&self) -> bool {
        self.memory.keeps_parts()
    }

    /// Whether the store needs back what this keeps: it is to be let go of.
    pub fn is_broken_off(&self) -> bool {
        self.memory.is_broken_off()
    }

    /// Does the next step and says what it gave; `false` when everything has been given.
    ///
    /// Each series with samples in the range begins once, its samples follow at once.
    pub async fn next_piece(&mut self, piece: &mut Piece) -> bool {
        piece.begins = None;
        piece.samples.clear();
        piece.summaries.clear();
        piece.told.clear();
        if self.memory.free_some() {
            return true;
        }
        if self.reading.is_some() || (!self.looks_ahead() && self.begin_series()) {
            self.read(piece).await;
            return true;
        }
        let stage = self.stage;
        self.stage = match stage {
            Stage::Asking if self.directories.ask_some(&self.wanted, &mut self.warnings).await => {
                Stage::Asking
            }
            Stage::Asking if self.directories.is_empty() => Stage::Looking,
            Stage::Asking => Stage::Sorting,
            Stage::Sorting if self.memory.sort_some(&self.wanted, self.ahead_bytes_max) => Stage::Sorting,
            Stage::Sorting => self.next_slot(),
            Stage::Searching(slot) => {
                let more = self.directories.read_some(slot, &self.wanted, &mut self.warnings).await;
                if more { Stage::Searching(slot) } else { self.begin_slot(slot) }
            }
            Stage::Looking if self.look() => Stage::Looking,
            Stage::Looking => Stage::SegmentsAlone,
            Stage::SegmentsAlone if self.begin_segments_alone(&mut piece.told) => Stage::SegmentsAlone,
            Stage::SegmentsAlone => self.next_slot(),
            Stage::Done => return false,
        };
        true
    }

    /// What could not be read since it was last asked and is missing from the answer. Taken often it takes no memory,
    /// however much is damaged.
    pub fn take_warnings(&mut self) -> Vec<SegmentError> {
        std::mem::take(&mut self.warnings)
    }

    /// Bytes of memory held. It costs some additions per source of the series at hand.
    pub fn bytes(&self) -> usize {
        size_of::<Selection<D>>()
            + self.memory.bytes()
            + self.directories.bytes()
            + self.waiting.capacity() * size_of::<Source>()
            + self.waiting_bytes
            + self.workspace.bytes()
            + self.reading.as_ref().map_or(0, |reading| reading.merge.bytes() + reading.shared_bytes)
    }

    /// Lets go of some of what is held, of the store's memory first; `false` when nothing is left. A selection that is dropped whole may take
    /// milliseconds, and tens of them where it is the last that kept what was frozen.
    pub fn let_go(&mut self) -> bool {
        self.stage = Stage::Done;
        self.reading = None;
        self.workspace = Workspace::default();
        self.memory.let_parts_go();
        let mut work = 0;
        while work < WORK_PER_LOOK {
            let Some(source) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= source.bytes;
            work += WORK_PER_LOOK / SERIES_PER_STEP + source.frozen.len() + source.memtable.len();
        }
        if !self.waiting.is_empty() {
            return true;
        }
        self.waiting = VecDeque::new();
        self.directories.let_go() || self.memory.let_go()
    }

    /// Whether series in memory are looked at before those that wait are read.
    fn looks_ahead(&self) -> bool {
        matches!(self.stage, Stage::Looking) && self.memory.may_look_ahead() && self.ahead_room() > 0
    }

    /// Bytes that may still be held ahead.
    fn ahead_room(&self) -> usize {
        let waiting = self.waiting.len() * size_of::<Source>() + self.waiting_bytes;
        self.ahead_bytes_max.saturating_sub(waiting)
    }

    fn next_slot(&mut self) -> Stage {
        let slots = [self.directories.next_slot(), self.memory.next_slot()];
        let next = slots.into_iter().flatten().min();
        if next.is_none() {
            // What they held was given.
            while self.directories.let_go() {}
        }
        next.map_or(Stage::Done, Stage::Searching)
    }

    /// All that segments hold of the slot is found.
    fn begin_slot(&mut self, slot: Slot) -> Stage {
        self.directories.begin_slot(slot);
        self.memory.begin_slot(slot);
        Stage::Looking
    }

    /// Takes what memory holds of some series; `false` when none is left to be looked at.
    fn look(&mut self) -> bool {
        let room = self.ahead_room();
        let Selection { wanted, memory, directories, waiting, waiting_bytes, warnings, .. } = self;
        let range = (wanted.start, wanted.end);
        memory.look(wanted, room, |series| {
            let mut bytes = series.bytes();
            let MemorySeries { labels, kind, arrival, frozen, memtable, shared_bytes } = series;
            let mut series = SelectedSeries { labels, kind, arrival };
            let (mut in_segments, mut rows) = (Vec::new(), 0);
            directories.look_up((*series.labels).as_ref(), |(index, segment), known| {
                rows += row_count_max(&known);
                let chunks = segment.chunks_of(&known, range, warnings);
                if chunks.is_empty() {
                    return;
                }
                series.arrival = series.arrival.min(known.arrival);
                bytes += put(&mut in_segments, index, chunks);
            });
            if in_segments.is_empty() && frozen.is_empty() && memtable.is_empty() {
                return rows;
            }
            *waiting_bytes += bytes;
            waiting.push_back(Source { series, in_segments, frozen, memtable, shared_bytes, bytes });
            rows
        })
    }

    /// Begins or tells some of the series that only segments hold, of the slot at hand and of those behind it of which
    /// all is found and memory holds nothing; `false` when none is left.
    fn begin_segments_alone(&mut self, told: &mut Told) -> bool {
        let mut rows = 0;
        for _ in 0..SERIES_PER_STEP {
            if self.directories.next_series() {
                if !self.tell(told, &mut rows) {
                    rows += self.begin_at_hand();
                }
            } else {
                let next = self.directories.next_found_slot();
                let next = next.filter(|next| self.memory.next_slot().is_none_or(|slot| slot > *next));
                let Some(next) = next else { return false };
                self.directories.begin_slot(next);
            }
            if rows >= ROWS_PER_STEP {
                break;
            }
        }
        true
    }

    /// Tells the series at hand by its rows, if they may speak for all of it; counts those that it decodes.
    fn tell(&self, told: &mut Told, row_count: &mut usize) -> bool {
        if self.by_rows.summarised == Summarised::None {
            return false;
        }
        let (mut last, mut of) = (None, None);
        for ((_, segment), series) in self.directories.at_hand() {
            // Deletes are few, and mostly there are none.
            let hidden =
                (!self.deletes.is_empty()).then(|| Hidden::of(&self.deletes, segment.entry(), series.labels));
            let before = told.chunk_count();
            for row in series.chunks() {
                *row_count += 1;
                let Ok(row) = row else {
                    // What is wrong with a row is told where it is lined up.
                    told.undo();
                    return false;
                };
                if row.last() < self.wanted.start || row.first() > self.wanted.end {
                    continue;
                }
                // Those of a newer segment lie behind those of an older one; else they are lined up.
                let is_alone = last < Some(row.first()) && self.wanted.holds(row.first(), row.last());
                let is_hidden = hidden.as_ref().is_some_and(|hidden| hidden.reaches(row.first(), row.last()));
                if is_hidden || !is_alone || !self.by_rows.may_tell(&row) {
                    told.undo();
                    return false;
                }
                last = Some(row.last());
                told.push(&row);
            }
            if told.chunk_count() == before {
                // Only those that hold samples in the range say what the series is.
                continue;
            }
            let arrival = of.map_or(series.arrival, |(_, _, arrival)| series.arrival.min(arrival));
            of = Some((series.labels, series.kind, arrival));
        }
        if let Some((labels, kind, arrival)) = of {
            told.end_series(labels, kind, arrival);
        }
        true
    }

    /// The series at hand is one of those to be read next, if it has chunks in the range; how many rows were decoded
    /// to find out, at most.
    fn begin_at_hand(&mut self) -> usize {
        let Selection { wanted, directories, waiting, waiting_bytes, warnings, .. } = self;
        let range = (wanted.start, wanted.end);
        let (mut series, mut bytes, mut in_segments, mut rows) = (None, 0, Vec::new(), 0);
        for ((index, segment), known) in directories.at_hand() {
            rows += row_count_max(&known);
            let chunks = segment.chunks_of(&known, range, warnings);
            if chunks.is_empty() {
                continue;
            }
            bytes += put(&mut in_segments, index, chunks);
            let series = series.get_or_insert_with(|| SelectedSeries {
                labels: Rc::new(known.labels.to_owned()),
                kind: known.kind,
                arrival: known.arrival,
            });
            series.kind = known.kind;
            series.arrival = series.arrival.min(known.arrival);
        }
        let Some(series) = series else { return rows };
        bytes += (*series.labels).as_ref().bytes().len();
        *waiting_bytes += bytes;
        let (frozen, memtable) = (SeriesSlice::default(), SeriesSlice::default());
        waiting.push_back(Source { series, in_segments, frozen, memtable, shared_bytes: 0, bytes });
        rows
    }

    /// Lines up the sources of the next series; `false` when none waits.
    fn begin_series(&mut self) -> bool {
        let Some(source) = self.waiting.pop_front() else { return false };
        let Source { series, in_segments, frozen, memtable, shared_bytes, bytes } = source;
        self.waiting_bytes -= bytes;
        let mut merge = SeriesMerge::new(series.labels.clone(), self.wanted.start, self.wanted.end);
        merge.summarise(self.by_rows);
        for (segment, rows) in in_segments {
            let segment = self.directories.segment(segment).clone();
            let hidden = Hidden::of(&self.deletes, segment.entry(), (*series.labels).as_ref());
            merge.add_segment(segment, rows, hidden);
        }
        merge.add_slice(frozen);
        merge.add_slice(memtable);
        self.reading = Some(Reading { series: Some(series), merge, shared_bytes });
        true
    }

    /// Reads some samples of the series at hand.
    async fn read(&mut self, piece: &mut Piece) {
        let Some(Reading { series, merge, .. }) = &mut self.reading else { return };
        let goes_on = merge.next_piece(&mut piece.samples, &mut self.workspace, &mut self.warnings).await;
        merge.take_summaries(&mut piece.summaries);
        if !(piece.samples.is_empty() && piece.summaries.is_empty()) {
            piece.begins = series.take();
        }
        if !goes_on {
            self.reading = None;
        }
    }
}

/// Rows at most that a segment has of a series, in the range or not: counting them would be decoding them.
fn row_count_max(series: &ListedSeries<'_>) -> usize {
    series.chunks().size_hint().1.unwrap_or(0)
}

/// Appends what a segment holds of a series; its bytes.
fn put(in_segments: &mut Vec<(usize, Vec<ChunkRow>)>, segment: usize, chunks: Vec<ChunkRow>) -> usize {
    let bytes = size_of::<(usize, Vec<ChunkRow>)>() + chunks.capacity() * size_of::<ChunkRow>();
    in_segments.push((segment, chunks));
    bytes
}
