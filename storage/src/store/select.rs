//! A query's view of the store: taken at once, read piece by piece, undisturbed by what comes after.
//!
//! ```text
//! select        the memtable's series and their slices, and the segments that may hold more   no wait
//! next_piece    the series of the memtable are indexed by labels, some at a time              if there are segments
//!               one directory block of one segment is searched                                until all are
//!               some thousand samples of the series at hand (`merge.rs`)                      until all are read
//! ```
//!
//! Whoever reads may do other work between two pieces: a piece takes a few tenths of a millisecond, however
//! large the answer is. This room knows no executor; the caller yields.

use super::Store;
use super::merge::SeriesMerge;
use crate::disk::Disk;
use crate::memtable::SeriesSlice;
use crate::segment::{ChunkRow, SegmentError, SegmentReader};
use model::{Arrival, LabelSet, Matcher, MetricKind, Sample, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Series of the memtable indexed at a time.
const SERIES_PER_PIECE: usize = 256;

/// See the head of this file. It shares what is immutable and copies the rest; appends, flushes and
/// retention go on beside it.
pub struct Selection<D: Disk> {
    name: String,
    matchers: Vec<Matcher>,
    start: Timestamp,
    end: Timestamp,
    shard: usize,
    shards: usize,
    /// Ids rising.
    segments: Vec<Rc<SegmentReader<D>>>,
    search: Search,
    /// Where in `waiting` a series lies; it shrinks again with `waiting`.
    places: BTreeMap<Rc<LabelSet>, usize>,
    waiting: VecDeque<Source>,
    reading: Option<(Option<SelectedSeries>, SeriesMerge<D>)>,
    warnings: Vec<SegmentError>,
}

/// How far the search for series is.
#[derive(Clone, Copy, Debug)]
enum Search {
    /// So many of the memtable's series are indexed.
    Indexing(usize),
    /// The next directory block.
    Blocks {
        segment: usize,
        block: usize,
    },
    Done,
}

/// One series of an answer.
#[derive(Clone, Debug)]
pub struct SelectedSeries {
    /// The label set.
    pub labels: Rc<LabelSet>,
    /// What the client called it, last.
    pub kind: MetricKind,
    /// When it first arrived: the earliest that memory and segments say.
    pub arrival: Arrival,
}

/// What one step of reading gives. Kept and filled again.
#[derive(Debug, Default)]
pub struct Piece {
    /// The series that begins with this piece; none when the one before goes on.
    pub begins: Option<SelectedSeries>,
    /// Samples of the series at hand, times rising strictly from piece to piece; often none.
    pub samples: Vec<Sample>,
}

/// Where the samples of one series lie.
struct Source {
    labels: Rc<LabelSet>,
    kind: MetricKind,
    arrival: Arrival,
    /// By index into the selection's segments, rising.
    in_segments: Vec<(usize, Vec<ChunkRow>)>,
    frozen: SeriesSlice,
    memtable: SeriesSlice,
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
        let mut waiting = VecDeque::new();
        for id in self.memtable.select(name, matchers) {
            let Some((labels, kind, arrival)) = self.memtable.describe(id) else { continue };
            let memtable = self.memtable.slice(id, start, end);
            let frozen = self.frozen.as_ref().map(|frozen| frozen.slice(id, start, end)).unwrap_or_default();
            waiting.push_back(Source { labels, kind, arrival, in_segments: Vec::new(), frozen, memtable });
        }
        let holding = |reader: &&Rc<SegmentReader<D>>| reader.overlaps(start, end) && reader.may_hold(name);
        let segments: Vec<_> = self.segments.iter().filter(holding).cloned().collect();
        Selection {
            name: name.to_owned(),
            matchers: matchers.to_vec(),
            start,
            end,
            shard: self.shard,
            shards: self.shards,
            search: if segments.is_empty() { Search::Done } else { Search::Indexing(0) },
            segments,
            places: BTreeMap::new(),
            waiting,
            reading: None,
            warnings: Vec::new(),
        }
    }
}

impl<D: Disk> Selection<D> {
    /// Does the next step and says what it gave; `false` when everything has been given.
    ///
    /// Each series with samples in the range begins once, its samples follow at once.
    pub async fn next_piece(&mut self, piece: &mut Piece) -> bool {
        piece.begins = None;
        piece.samples.clear();
        match self.search {
            Search::Indexing(indexed) => self.index(indexed),
            Search::Blocks { segment, block } => self.search_block(segment, block).await,
            Search::Done => {
                let Some((series, merge)) = &mut self.reading else { return self.begin_series() };
                let goes_on = merge.next_piece(&mut piece.samples, &mut self.warnings).await;
                if !piece.samples.is_empty() {
                    piece.begins = series.take();
                }
                if !goes_on {
                    self.reading = None;
                }
            }
        }
        true
    }

    /// What could not be read so far and is missing from the answer.
    pub fn warnings(&self) -> &[SegmentError] {
        &self.warnings
    }

    fn index(&mut self, indexed: usize) {
        let next = self.waiting.len().min(indexed + SERIES_PER_PIECE);
        for (place, source) in self.waiting.range(indexed..next).enumerate() {
            self.places.insert(source.labels.clone(), indexed + place);
        }
        let is_done = next == self.waiting.len();
        self.search = if is_done { Search::Blocks { segment: 0, block: 0 } } else { Search::Indexing(next) };
    }

    /// Finds in one block of a segment's directory which series it names and where their chunks lie.
    async fn search_block(&mut self, index: usize, block: usize) {
        let Some(segment) = self.segments.get(index) else {
            self.search = Search::Done;
            return;
        };
        if block == segment.block_count() {
            self.search = Search::Blocks { segment: index + 1, block: 0 };
            return;
        }
        let (shard, shards) = (self.shard, self.shards);
        let range = (self.start, self.end);
        let owned = |slot: model::Slot| slot.owner(shards) == shard;
        let found =
            segment.find_in_block(block, &self.name, &self.matchers, range, owned, &mut self.warnings).await;
        for series in found {
            let place = match self.places.get(&series.labels) {
                Some(&place) => place,
                None => {
                    let labels = Rc::new(series.labels);
                    self.places.insert(labels.clone(), self.waiting.len());
                    self.waiting.push_back(Source {
                        labels,
                        kind: series.kind,
                        arrival: series.arrival,
                        in_segments: Vec::new(),
                        frozen: SeriesSlice::default(),
                        memtable: SeriesSlice::default(),
                    });
                    self.waiting.len() - 1
                }
            };
            let source = &mut self.waiting[place];
            source.arrival = source.arrival.min(series.arrival);
            source.in_segments.push((index, series.chunks));
        }
        self.search = Search::Blocks { segment: index, block: block + 1 };
    }

    /// Lines up the sources of the next series; `false` when there is none.
    fn begin_series(&mut self) -> bool {
        let Some(source) = self.waiting.pop_front() else { return false };
        self.places.remove(&source.labels);
        let Source { labels, kind, arrival, in_segments, frozen, memtable } = source;
        let mut merge = SeriesMerge::new(labels.clone(), self.start, self.end);
        for (index, rows) in in_segments {
            merge.add_segment(self.segments[index].clone(), rows);
        }
        merge.add_slice(frozen);
        merge.add_slice(memtable);
        self.reading = Some((Some(SelectedSeries { labels, kind, arrival }), merge));
        true
    }
}
