//! Deletes: which samples of which segments are hidden.
//!
//! Owner: the store of one shard; a selection and a merge go by those of the moment they began.
//! Always: a delete hides what was there when it was made and nothing that came later, a sample of the same time
//! included; it is in the manifest before anybody is told of it.
//! Not here: memory. A delete is switched in with a flush of all that came before it (`store/flush.rs`).
//! Read next: `docs/format/manifest.md` for how deletes and segments are ordered.

#[cfg(test)]
mod tests;

use crate::manifest::{SegmentEntry, Tombstone};
use crate::segment::PairHash;
use model::{LabelSetRef, Matcher, MatcherError, Sample, Timestamp, parse_matchers};

/// A delete, ready to be asked.
#[derive(Clone, Debug)]
pub struct Delete {
    /// As the manifest holds it.
    pub tombstone: Tombstone,
    matchers: Vec<Matcher>,
}

/// Times of one series in one segment that are hidden, both included; in no order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hidden(Vec<(Timestamp, Timestamp)>);

impl Delete {
    /// Reads the selector; a manifest holds none that cannot be read.
    pub fn new(tombstone: Tombstone) -> Result<Delete, MatcherError> {
        let matchers = parse_matchers(&tombstone.selector)?;
        Ok(Delete { tombstone, matchers })
    }

    /// Pairs that each series has which it hides.
    pub(crate) fn required_pairs(&self) -> Vec<PairHash> {
        let pair = |matcher: &Matcher| Some(PairHash::new(&matcher.label, matcher.required_value()?));
        self.matchers.iter().filter_map(pair).collect()
    }

    /// Each shard has a delete of its own, whose place among the flushes is right for its own series alone.
    fn hides(&self, labels: LabelSetRef<'_>) -> bool {
        let Tombstone { shards, shard, .. } = self.tombstone;
        self.matchers.iter().all(|matcher| matcher.matches(labels))
            && labels.hash().slot().owner(usize::from(shards).max(1)) == usize::from(shard)
    }
}

impl Hidden {
    /// What these hide of a series in that segment.
    pub(crate) fn of(deletes: &[Delete], segment: &SegmentEntry, labels: LabelSetRef<'_>) -> Hidden {
        let hiding =
            deletes.iter().filter(|delete| delete.tombstone.concerns(segment) && delete.hides(labels));
        let range = |delete: &Delete| {
            let Tombstone { start_ms, end_ms, .. } = delete.tombstone;
            (Timestamp::first_of_milli(start_ms), Timestamp::last_of_milli(end_ms))
        };
        Hidden(hiding.map(range).collect())
    }

    /// Whether all of that time is hidden by one of them: nothing of it need be read.
    pub(crate) fn covers(&self, first: Timestamp, last: Timestamp) -> bool {
        self.0.iter().any(|(start, end)| *start <= first && last <= *end)
    }

    /// Whether some of that time is hidden.
    pub(crate) fn reaches(&self, first: Timestamp, last: Timestamp) -> bool {
        self.0.iter().any(|(start, end)| *start <= last && first <= *end)
    }

    /// Takes the hidden ones out of those from index `begin` on.
    pub(crate) fn take_out(&self, samples: &mut Vec<Sample>, begin: usize) {
        if self.0.is_empty() {
            return;
        }
        let mut kept = begin;
        for at in begin..samples.len() {
            let sample = samples[at];
            if !self.covers(sample.timestamp, sample.timestamp) {
                samples[kept] = sample;
                kept += 1;
            }
        }
        samples.truncate(kept);
    }
}
