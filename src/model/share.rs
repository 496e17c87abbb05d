//! What crosses a ring from a loop to an executor: one owner's share of what a loop accepted in a turn.

use crate::{LabelSetRef, MetricKind, Sample};

/// The number under which a loop knows a series, in its journal and in its rings alike.
///
/// Numbers count from 0 in each journal file and mean nothing outside it: `(dictionary, number)` names a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesNumber(pub u32);

/// Orders what was accepted, over all loops of one machine and over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Starts of this data directory; kept in the manifest.
    pub run: u64,
    /// Monotonic clock when the turn was journaled, strictly rising per loop.
    pub nanos: u64,
    /// The loop, so that no two stamps are equal.
    pub loop_index: u16,
}

/// One owner's samples of one turn, in order of arrival, with the series met for the first time.
///
/// Plain rows in one box that goes round: loop → executor → back to the loop, emptied.
#[derive(Debug, Default)]
pub struct Share {
    /// When the turn was journaled.
    pub stamp: Stamp,
    /// Which dictionary the numbers belong to: the sequence number of the journal file.
    pub dictionary: u64,
    /// Where the journal stood after the turn's frame: everything before is journaled.
    pub journal_end: u64,
    /// Of the definitions, those for which the loop spent from the limit of series.
    pub new_series: u32,
    defined_labels: Vec<u8>,
    defined: Vec<Definition>,
    samples: Vec<(SeriesNumber, Sample)>,
}

#[derive(Clone, Copy, Debug)]
struct Definition {
    number: SeriesNumber,
    kind: MetricKind,
    labels_end: u32,
}

impl Share {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.new_series = 0;
        self.defined_labels.clear();
        self.defined.clear();
        self.samples.clear();
    }

    /// Samples in the share.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Bytes that it keeps waiting in a ring.
    pub fn bytes(&self) -> usize {
        self.defined_labels.len()
            + self.defined.len() * size_of::<Definition>()
            + self.samples.len() * size_of::<(SeriesNumber, Sample)>()
    }

    /// Whether there is neither sample nor definition.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.defined.is_empty()
    }

    /// Tells the owner which series a number means, before the first sample under that number.
    pub fn define(&mut self, number: SeriesNumber, kind: MetricKind, labels: LabelSetRef<'_>) {
        self.defined_labels.extend_from_slice(labels.bytes());
        let labels_end = u32::try_from(self.defined_labels.len()).expect("a turn is far below 4 GiB");
        self.defined.push(Definition { number, kind, labels_end });
    }

    /// Adds a sample.
    #[inline]
    pub fn push(&mut self, number: SeriesNumber, sample: Sample) {
        self.samples.push((number, sample));
    }

    /// Adds samples of one series; gives them back as they came.
    #[inline]
    pub fn push_all(
        &mut self,
        number: SeriesNumber,
        samples: impl Iterator<Item = Sample>,
    ) -> impl ExactSizeIterator<Item = Sample> {
        let before = self.samples.len();
        self.samples.extend(samples.map(|sample| (number, sample)));
        self.samples[before..].iter().map(|(_, sample)| *sample)
    }

    /// The series met for the first time, in order.
    pub fn definitions(&self) -> impl Iterator<Item = (SeriesNumber, MetricKind, LabelSetRef<'_>)> {
        let mut start = 0;
        self.defined.iter().map(move |definition| {
            let end = definition.labels_end as usize;
            let labels = LabelSetRef::from_canonical(&self.defined_labels[start..end]);
            start = end;
            (definition.number, definition.kind, labels)
        })
    }

    /// The samples, in order of arrival.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = (SeriesNumber, Sample)> {
        self.samples.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelSet, Timestamp};

    #[test]
    fn a_cleared_share_carries_nothing_into_its_next_turn() {
        let mut share = Share::default();
        for host in ["a", "b"] {
            let labels = LabelSet::new("cpu", &[("host", host)]).unwrap();
            share.clear();
            share.define(SeriesNumber(4), MetricKind::Counter, labels.as_ref());
            share.push(SeriesNumber(4), Sample { timestamp: Timestamp::from_ticks(1), value: 2.0 });
            let defined: Vec<_> = share.definitions().map(|(n, k, l)| (n, k, l.to_owned())).collect();
            assert_eq!(defined, [(SeriesNumber(4), MetricKind::Counter, labels)]);
            assert_eq!(share.len(), 1);
            let again = Sample { timestamp: Timestamp::from_ticks(2), value: 2.0 };
            let added = share.push_all(SeriesNumber(4), [again; 2].into_iter());
            assert!(
                added.map(|sample| sample.timestamp.ticks()).eq([2, 2]),
                "what was there before is not among them"
            );
            assert_eq!(share.len(), 3);
            assert!(share.samples().all(|(n, s)| n == SeriesNumber(4) && s.value == 2.0));
        }
    }
}
