//! A query's view of the store: taken at once, read series by series, undisturbed by what comes after.

use super::Store;
use crate::disk::Disk;
use crate::memtable::SeriesSlice;
use crate::segment::{ChunkRow, SegmentError, SegmentReader};
use model::{LabelSet, Matcher, MetricKind, Sample, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// See the head of this file. It shares what is immutable and copies the rest; appends, flushes and
/// retention go on beside it.
pub struct Selection<D: Disk> {
    name: String,
    matchers: Vec<Matcher>,
    start: Timestamp,
    end: Timestamp,
    shard: usize,
    shards: usize,
    /// Ids rising. Read before the first series is handed out.
    segments: Vec<Rc<SegmentReader<D>>>,
    located: bool,
    waiting: VecDeque<Source>,
    warnings: Vec<SegmentError>,
}

/// One series of an answer.
#[derive(Clone, Debug)]
pub struct SelectedSeries {
    /// The label set.
    pub labels: Rc<LabelSet>,
    /// What the client called it, last.
    pub kind: MetricKind,
    /// At least one sample; times rise strictly.
    pub samples: Vec<Sample>,
}

/// Where the samples of one series lie.
struct Source {
    labels: Rc<LabelSet>,
    kind: MetricKind,
    /// By index into the selection's segments, rising.
    in_segments: Vec<(usize, Vec<ChunkRow>)>,
    frozen: SeriesSlice,
    memtable: SeriesSlice,
}

impl<D: Disk> Store<D> {
    /// The series of that metric name that meet all matchers, with their samples from `start` to `end`,
    /// both included; what is before `oldest`, the bound of retention, is hidden.
    ///
    /// Order: series of the memtable as they arrived, then those only in segments by their labels.
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
            let Some((labels, kind)) = self.memtable.describe(id) else { continue };
            let memtable = self.memtable.slice(id, start, end);
            let frozen = self.frozen.as_ref().map(|frozen| frozen.slice(id, start, end)).unwrap_or_default();
            waiting.push_back(Source { labels, kind, in_segments: Vec::new(), frozen, memtable });
        }
        let holding = |reader: &&Rc<SegmentReader<D>>| reader.overlaps(start, end) && reader.may_hold(name);
        Selection {
            name: name.to_owned(),
            matchers: matchers.to_vec(),
            start,
            end,
            shard: self.shard,
            shards: self.shards,
            segments: self.segments.iter().filter(holding).cloned().collect(),
            located: false,
            waiting,
            warnings: Vec::new(),
        }
    }
}

impl<D: Disk> Selection<D> {
    /// The next series that has samples in the range.
    pub async fn next(&mut self) -> Option<SelectedSeries> {
        if !self.located {
            self.located = true;
            self.locate().await;
        }
        while let Some(source) = self.waiting.pop_front() {
            let samples = self.read(&source).await;
            if !samples.is_empty() {
                return Some(SelectedSeries { labels: source.labels, kind: source.kind, samples });
            }
        }
        None
    }

    /// What could not be read so far and is missing from the answer.
    pub fn warnings(&self) -> &[SegmentError] {
        &self.warnings
    }

    /// Finds in the directories of the segments where the series lie.
    async fn locate(&mut self) {
        let known: BTreeMap<Rc<LabelSet>, usize> =
            self.waiting.iter().enumerate().map(|(at, source)| (source.labels.clone(), at)).collect();
        let mut only_in_segments: BTreeMap<LabelSet, Source> = BTreeMap::new();
        let (shard, shards) = (self.shard, self.shards);
        for (index, segment) in self.segments.iter().enumerate() {
            let range = (self.start, self.end);
            let owned = |slot: model::Slot| slot.owner(shards) == shard;
            let found = segment.find(&self.name, &self.matchers, range, owned, &mut self.warnings).await;
            for series in found {
                let source = match known.get(&series.labels) {
                    Some(&at) => &mut self.waiting[at],
                    None => only_in_segments.entry(series.labels.clone()).or_insert_with(|| Source {
                        labels: Rc::new(series.labels),
                        kind: series.kind,
                        in_segments: Vec::new(),
                        frozen: SeriesSlice::default(),
                        memtable: SeriesSlice::default(),
                    }),
                };
                source.in_segments.push((index, series.chunks));
            }
        }
        self.waiting.extend(only_in_segments.into_values());
    }

    /// The samples of one series from all sources, oldest source first, so that the last of several with
    /// one time is the one that counts.
    async fn read(&mut self, source: &Source) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (index, chunks) in &source.in_segments {
            let segment = &self.segments[*index];
            segment.read_samples(&source.labels, chunks, &mut samples, &mut self.warnings).await;
        }
        for slice in [&source.frozen, &source.memtable] {
            for chunk in &slice.chunks {
                if let Err(error) = chunk.samples().decode_into(&mut samples) {
                    self.warnings
                        .push(SegmentError::Memory { series: format!("{:?}", source.labels), error });
                }
            }
            samples.extend_from_slice(&slice.late);
        }
        samples.retain(|sample| (self.start..=self.end).contains(&sample.timestamp));
        keep_last_of_each_time(&mut samples);
        samples
    }
}

/// Sorts by time; of samples with one time the last counts. Sources that follow each other in time, as
/// nearly all do, cost one look at each sample.
fn keep_last_of_each_time(samples: &mut Vec<Sample>) {
    if samples.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
        return;
    }
    samples.sort_by_key(|sample| sample.timestamp);
    samples.dedup_by(|later, kept| {
        let same_time = later.timestamp == kept.timestamp;
        if same_time {
            *kept = *later;
        }
        same_time
    });
}
