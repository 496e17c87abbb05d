//! Which names, labels and label pairs have the most series: counted some thousand values at a time, merged over shards.
//!
//! Series of one name lie on all shards, so their counts are added; a value of a label may be on all of them, too, but is
//! one value. Of each label's values the hashes that are least are kept: as long as there are no more than that, their
//! number is exact, and beyond it the greatest of them tells how dense they lie.
//!
//! ```text
//!   of n values with hashes spread over 0 to 1, the k-th least lies at about k / n
//! ```
//!
//! Whoever counts beside others that come and go is off by what moved meanwhile.

use super::Index;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use xxhash_rust::xxh3::xxh3_64;

/// Names, pairs and labels of one shard that are told, those with the most: more than anybody is shown, so that what is
/// among the first of all shards together is among these.
const NAMES_MAX: usize = 10_000;
const PAIRS_MAX: usize = 1_000;
const LABELS_MAX: usize = 200;
/// Hashes of a label's values that are kept: beyond so many values their number is right to within some 3 %.
const HASHES_MAX: usize = 1024;
/// Values looked at in one step.
const VALUES_PER_STEP: usize = 4096;

/// What was counted; of one shard, or merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series.
    pub series: u64,
    /// Label pairs, the name among them; those of each shard counted.
    pub pairs: u64,
    /// Chunks of samples in memory.
    pub chunks: u64,
    /// The first and last millisecond of those samples.
    pub range_ms: Option<(i64, i64)>,
    series_by_name: Vec<(Box<str>, u64)>,
    series_by_pair: Vec<(Box<str>, u64)>,
    labels: Vec<LabelCount>,
}

/// What was counted of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LabelCount {
    name: Box<str>,
    /// Of the shard that has the most.
    values: u64,
    /// Memory, by estimate.
    bytes: u64,
    /// The least hashes of values, rising.
    hashes: Vec<u64>,
}

impl Cardinality {
    /// What several shards have counted, together.
    pub fn merged(counted: Vec<Cardinality>) -> Cardinality {
        let mut all = Cardinality::default();
        counted.into_iter().for_each(|counted| all.take(counted));
        add_up(&mut all.series_by_name);
        add_up(&mut all.series_by_pair);
        all
    }

    /// Adds what another shard has counted, but for counts of one name, which stand beside each other until they are
    /// added up.
    fn take(&mut self, other: Cardinality) {
        self.series += other.series;
        self.pairs += other.pairs;
        self.chunks += other.chunks;
        if let Some((first, last)) = other.range_ms {
            self.add_range(first, last);
        }
        self.series_by_name.extend(other.series_by_name);
        self.series_by_pair.extend(other.series_by_pair);
        for label in other.labels {
            match self.labels.binary_search_by(|known| known.name.cmp(&label.name)) {
                Ok(at) => self.labels[at].merge(label),
                Err(at) => self.labels.insert(at, label),
            }
        }
    }

    /// Samples reach from that millisecond to that.
    pub(crate) fn add_range(&mut self, first: i64, last: i64) {
        let (begin, end) = self.range_ms.unwrap_or((first, last));
        self.range_ms = Some((begin.min(first), end.max(last)));
    }

    /// The metric names with the most series, and how many these are.
    pub fn series_by_name(&self, limit: usize) -> Vec<(&str, u64)> {
        most(self.series_by_name.iter().map(|(name, series)| (&**name, *series)), limit)
    }

    /// The label pairs with the most series, as `label=value`, and how many these are.
    pub fn series_by_pair(&self, limit: usize) -> Vec<(&str, u64)> {
        most(self.series_by_pair.iter().map(|(pair, series)| (&**pair, *series)), limit)
    }

    /// The labels with the most values, and about how many these are.
    pub fn values_by_label(&self, limit: usize) -> Vec<(&str, u64)> {
        most(self.labels.iter().map(|label| (&*label.name, label.distinct())), limit)
    }

    /// The labels that take the most memory in the index, and how many bytes.
    pub fn bytes_by_label(&self, limit: usize) -> Vec<(&str, u64)> {
        most(self.labels.iter().map(|label| (&*label.name, label.bytes)), limit)
    }
}

impl LabelCount {
    fn merge(&mut self, other: LabelCount) {
        self.values = self.values.max(other.values);
        self.bytes += other.bytes;
        self.hashes.extend(other.hashes);
        self.hashes.sort_unstable();
        self.hashes.dedup();
        self.hashes.truncate(HASHES_MAX);
    }

    fn distinct(&self) -> u64 {
        match self.hashes.last() {
            Some(&last) if self.hashes.len() == HASHES_MAX => {
                let dense = (HASHES_MAX - 1) as f64 / (last as f64 / u64::MAX as f64);
                self.values.max(dense as u64)
            }
            _ => self.hashes.len() as u64,
        }
    }
}

/// Makes one of the counts of one name.
fn add_up(counts: &mut Vec<(Box<str>, u64)>) {
    counts.sort_unstable();
    counts.dedup_by(|later, first| {
        let is_same = later.0 == first.0;
        first.1 += if is_same { later.1 } else { 0 };
        is_same
    });
}

/// The greatest first, equal ones by name, at most `limit` of them.
pub(crate) fn most<'a>(all: impl Iterator<Item = (&'a str, u64)>, limit: usize) -> Vec<(&'a str, u64)> {
    let mut sorted: Vec<(&str, u64)> = all.collect();
    sorted.sort_unstable_by_key(|&(name, count)| (Reverse(count), name));
    sorted.truncate(limit);
    sorted
}

/// A count that is under way.
pub(crate) struct Counting {
    /// Rising.
    labels: Vec<Box<str>>,
    label: usize,
    value: usize,
    at_hand: LabelCount,
    hashes: BinaryHeap<u64>,
    names: Greatest,
    pairs: Greatest,
    counted: BinaryHeap<Reverse<ByValues>>,
    done: Cardinality,
}

/// A label, in the order of how many values it has.
struct ByValues(LabelCount);

impl PartialEq for ByValues {
    fn eq(&self, other: &ByValues) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByValues {}

impl PartialOrd for ByValues {
    fn partial_cmp(&self, other: &ByValues) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByValues {
    fn cmp(&self, other: &ByValues) -> std::cmp::Ordering {
        (self.0.values, &self.0.name).cmp(&(other.0.values, &other.0.name))
    }
}

/// The greatest counts so far, at most so many.
struct Greatest {
    max: usize,
    counts: BinaryHeap<Reverse<(u64, Box<str>)>>,
}

impl Greatest {
    fn of(max: usize) -> Greatest {
        Greatest { max, counts: BinaryHeap::new() }
    }

    fn push(&mut self, count: u64, name: impl FnOnce() -> Box<str>) {
        if self.counts.len() == self.max {
            // The least of them makes room for a greater one.
            if self.counts.peek().is_some_and(|Reverse((least, _))| *least >= count) {
                return;
            }
            self.counts.pop();
        }
        self.counts.push(Reverse((count, name())));
    }

    fn end(self) -> Vec<(Box<str>, u64)> {
        let mut counts: Vec<_> =
            self.counts.into_iter().map(|Reverse((count, name))| (name, count)).collect();
        counts.sort_unstable();
        counts
    }
}

impl Counting {
    pub(super) fn begin(index: &Index) -> Counting {
        Counting {
            labels: index.labels().into_iter().map(|(label, _)| label.into()).collect(),
            label: 0,
            value: 0,
            at_hand: LabelCount::default(),
            hashes: BinaryHeap::new(),
            names: Greatest::of(NAMES_MAX),
            pairs: Greatest::of(PAIRS_MAX),
            counted: BinaryHeap::new(),
            done: Cardinality { series: index.all.len(), ..Cardinality::default() },
        }
    }

    /// Counts some values; `false` when all are.
    pub(crate) fn step(&mut self, index: &Index) -> bool {
        let Some(label) = self.labels.get(self.label) else { return false };
        let mut more = false;
        if let Some(values) = index.values(label) {
            let (some, goes_on) = values.some(self.value, VALUES_PER_STEP);
            for (text, ids) in some {
                let series = ids.len() as u64;
                self.at_hand.values += 1;
                self.at_hand.bytes += (text.len() + super::values::VALUE_BYTES + ids.bytes()) as u64;
                self.hashes.push(xxh3_64(text.as_bytes()));
                if self.hashes.len() > HASHES_MAX {
                    self.hashes.pop();
                }
                if **label == *super::NAME_LABEL {
                    self.names.push(series, || text.into());
                }
                self.pairs.push(series, || format!("{label}={text}").into());
            }
            (self.value, more) = (self.value + VALUES_PER_STEP, goes_on);
        }
        if !more {
            let mut label = std::mem::take(&mut self.at_hand);
            label.name = self.labels[self.label].clone();
            label.hashes = std::mem::take(&mut self.hashes).into_sorted_vec();
            self.done.pairs += label.values;
            self.counted.push(Reverse(ByValues(label)));
            if self.counted.len() > LABELS_MAX {
                self.counted.pop();
            }
            (self.label, self.value) = (self.label + 1, 0);
        }
        self.label < self.labels.len()
    }

    /// What was counted.
    pub(crate) fn end(self) -> Cardinality {
        let mut labels: Vec<LabelCount> =
            self.counted.into_iter().map(|Reverse(ByValues(label))| label).collect();
        labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Cardinality {
            series_by_name: self.names.end(),
            series_by_pair: self.pairs.end(),
            labels,
            ..self.done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LabelSet;

    fn counted(series: impl Iterator<Item = u32>) -> Cardinality {
        let mut index = Index::default();
        for (id, n) in series.enumerate() {
            let labels = [("pod", &*format!("p{n}")), ("zone", &*format!("z{}", n % 3)), ("job", "a")];
            let name = if n % 10 == 0 { "rare" } else { "often" };
            index.insert(LabelSet::new(name, &labels).unwrap().as_ref(), id as u32);
        }
        let mut counting = Counting::begin(&index);
        while counting.step(&index) {}
        counting.end()
    }

    /// Few values are counted exactly on however many shards they lie, many to within a few hundredths; series always
    /// exactly.
    #[test]
    fn counts_of_shards_are_merged() {
        let of_shard = |shard| counted((0..10_000).filter(|n| n % 4 == shard));
        let all = Cardinality::merged([1, 0, 2, 3].map(of_shard).into());
        // What one shard has is merged with nothing.
        let alone = counted(0..10_000);
        for (counted, pods) in [(&all, 9_500..10_500), (&alone, 10_000..10_500)] {
            assert_eq!(counted.series, 10_000);
            assert_eq!(counted.series_by_name(9), [("often", 9_000), ("rare", 1_000)]);
            assert_eq!(counted.series_by_name(1), [("often", 9_000)]);
            let pairs = counted.series_by_pair(4);
            assert_eq!(pairs[..2], [("job=a", 10_000), ("__name__=often", 9_000)]);
            assert_eq!(pairs[2..], [("zone=z0", 3_334), ("zone=z1", 3_333)]);
            let values = counted.values_by_label(4);
            assert!(values[0].0 == "pod" && pods.contains(&values[0].1), "{values:?}");
            assert_eq!(values[1..], [("zone", 3), ("__name__", 2), ("job", 1)]);
            assert_eq!(counted.bytes_by_label(1)[0].0, "pod");
        }
        assert_eq!(alone.pairs, 10_000 + 3 + 2 + 1);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let mut index = Index::default();
        for n in 0..NAMES_MAX as u32 + 500 {
            let label = format!("l{}", n % (LABELS_MAX as u32 + 50));
            let labels = [(&*label, &*format!("v{n}"))];
            index.insert(LabelSet::new(&format!("m{n}"), &labels).unwrap().as_ref(), n);
        }
        let mut counting = Counting::begin(&index);
        while counting.step(&index) {}
        let all = counting.end();
        assert_eq!(
            (all.series_by_name.len(), all.series_by_pair.len(), all.labels.len()),
            (NAMES_MAX, PAIRS_MAX, LABELS_MAX)
        );
        assert!(all.labels.iter().all(|label| label.hashes.len() <= HASHES_MAX));
        assert_eq!(
            all.values_by_label(1),
            [("__name__", all.labels.iter().find(|l| &*l.name == "__name__").unwrap().distinct())]
        );
    }
}
