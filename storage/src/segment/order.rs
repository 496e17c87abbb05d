//! The order of series in a segment, slots rising and within a slot by labels, found a step at a time.
//!
//! Sorting a million label sets is a second's work, and whoever else has work on the core waits for it. So one slot is
//! sorted at a time, when its turn comes, and one with many series by runs, which are merged as they are asked for.
//! Always: no step takes longer than a run does, however many series there are; the label set that was made to sort by is
//! given with its series.

use crate::memtable::{Frozen, FrozenSeries};
use model::{LabelSet, SLOTS};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Series that are looked at in one step, for their slots: some hundred microseconds.
const SERIES_PER_STEP: usize = 2048;
/// Series that are sorted in one step: a slot of a million series has ten times as many.
const RUN_SERIES: usize = 128;

/// All series of a frozen memtable by their slots.
pub(super) struct BySlot<'f> {
    left: &'f [FrozenSeries],
    slots: Vec<Vec<&'f FrozenSeries>>,
}

/// The series of one slot.
pub(super) struct InOrder<'f> {
    unsorted: Vec<&'f FrozenSeries>,
    runs: BinaryHeap<Run<'f>>,
}

/// The last is the first.
struct Run<'f>(Vec<(LabelSet, &'f FrozenSeries)>);

impl<'f> BySlot<'f> {
    pub(super) fn new(frozen: &'f Frozen) -> BySlot<'f> {
        BySlot { left: frozen.series(), slots: vec![Vec::new(); usize::from(SLOTS)] }
    }

    /// Looks at some; `false` when none is left.
    pub(super) fn step(&mut self) -> bool {
        let (now, later) = self.left.split_at(SERIES_PER_STEP.min(self.left.len()));
        self.left = later;
        for series in now {
            self.slots[usize::from(series.hash().slot().number())].push(series);
        }
        !self.left.is_empty()
    }

    /// The slots, rising; those of which [`Self::step`] has seen nothing are empty.
    pub(super) fn slots(self) -> impl Iterator<Item = InOrder<'f>> {
        self.slots.into_iter().map(|unsorted| InOrder { unsorted, runs: BinaryHeap::new() })
    }
}

impl<'f> InOrder<'f> {
    /// Sorts some; `false` when none is left to be sorted.
    pub(super) fn sort_some(&mut self) -> bool {
        let rest = self.unsorted.len().saturating_sub(RUN_SERIES);
        let of_run = self.unsorted.drain(rest..);
        let mut run: Vec<_> = of_run.map(|series| (series.labels().to_label_set(), series)).collect();
        run.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        if !run.is_empty() {
            self.runs.push(Run(run));
        }
        !self.unsorted.is_empty()
    }

    /// The next in order of those that are sorted.
    pub(super) fn next(&mut self) -> Option<(LabelSet, &'f FrozenSeries)> {
        let mut first = self.runs.peek_mut()?;
        let next = first.0.pop();
        if first.0.is_empty() {
            PeekMut::pop(first);
        }
        next
    }
}

impl Run<'_> {
    fn first(&self) -> Option<&LabelSet> {
        self.0.last().map(|(labels, _)| labels)
    }
}

/// The greatest run is the one that begins first.
impl Ord for Run<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.first().cmp(&self.first())
    }
}

impl PartialOrd for Run<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Run<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memtable::Memtable;
    use model::{Arrival, MetricKind, Sample, Timestamp};

    /// Method: some thousand series of one memtable against all of them sorted at once; a slot of more series than a run is
    /// made of those of all slots.
    #[test]
    fn series_come_by_slot_and_labels_however_many_a_slot_has() {
        let mut table = Memtable::new(Box::new(|_| 0));
        for n in 0..3 * SERIES_PER_STEP as u128 / 2 {
            let labels =
                LabelSet::new("a", &[("n", &(n * 7_919 % 6_007).to_string()), ("m", &n.to_string())]);
            let id =
                table.intern(labels.unwrap().as_ref(), MetricKind::Gauge, Arrival::from_bits(n)).unwrap();
            let sample = Sample { timestamp: Timestamp::from_millis(1).unwrap(), value: 1.0 };
            table.append(id, sample).unwrap();
        }
        let frozen = table.freeze(|_| true);
        let mut expected: Vec<_> = frozen
            .series()
            .iter()
            .map(|series| (series.hash().slot(), series.labels().to_label_set()))
            .collect();
        expected.sort();
        let mut by_slot = BySlot::new(&frozen);
        assert!(by_slot.step() && !by_slot.step());
        let all: Vec<&FrozenSeries> = frozen.series().iter().collect();
        let mut found = Vec::new();
        for mut slot in by_slot.slots() {
            while slot.sort_some() {}
            found.extend(std::iter::from_fn(|| slot.next()).map(|(labels, of)| (of.hash().slot(), labels)));
        }
        assert_eq!(found, expected);
        let mut one = InOrder { unsorted: all, runs: BinaryHeap::new() };
        let steps = std::iter::from_fn(|| one.sort_some().then_some(())).count() + 1;
        assert_eq!(steps, frozen.series().len().div_ceil(RUN_SERIES));
        let mut expected: Vec<LabelSet> = expected.into_iter().map(|(_, labels)| labels).collect();
        expected.sort();
        let found: Vec<LabelSet> = std::iter::from_fn(|| one.next()).map(|(labels, _)| labels).collect();
        assert_eq!(found, expected);
    }
}
