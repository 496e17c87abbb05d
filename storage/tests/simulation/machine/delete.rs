//! A delete: each executor carries out its part with a flush of all that was answered before.

use super::super::record::Deletion;
use super::super::script::Random;
use super::{Machine, NAMES, Positions, owner};
use storage::deletes::Delete;
use storage::manifest::Tombstone;

/// What a client wants gone, on its way to the flush that takes it along.
pub(super) struct Wanted {
    /// Which name, and which of its series, all without a number.
    name: &'static str,
    series: Option<u32>,
    millis: (i64, i64),
    /// Batches that were answered when it was asked for.
    answered: Vec<usize>,
}

/// What a flush takes along.
pub(super) type Deletes = Vec<(Tombstone, Deletion)>;

impl Machine {
    /// A client deletes a name or a series, all of it or some milliseconds; what was answered is applied first.
    pub(crate) fn delete(&mut self, random: &mut Random) {
        if self.positions == Positions::Told {
            return;
        }
        let name = NAMES[random.below(2) as usize];
        let series = (!random.one_in(3)).then(|| random.below(9) as u32);
        let series = series.map(|series| series + u32::from(NAMES[series as usize % 2] != name));
        let start = self.now_ms - 60 + random.below(60) as i64;
        let millis = if random.one_in(3) { (i64::MIN, i64::MAX) } else { (start, start + 40) };
        for at in 0..self.shards {
            self.drain(at, usize::MAX);
            let answered = self.record.answered_of(self.run);
            self.executors[at].wanted_deletes.push(Wanted { name, series, millis, answered });
            self.executors[at].at_once = true;
        }
    }

    /// What was asked for goes with the flush that has just frozen the memory.
    pub(super) fn take_deletes(&mut self, at: usize) -> Deletes {
        let mut deletes = Deletes::new();
        for Wanted { name, series, millis, answered } in
            std::mem::take(&mut self.executors[at].wanted_deletes)
        {
            let id = self.next_segment.replace(self.next_segment.get() + 1);
            let n = series.map_or(String::new(), |n| format!(",n=\"{n}\""));
            let selector = format!("{{__name__=\"{name}\"{n}}}");
            let (shards, shard, (start_ms, end_ms)) = (self.shards as u16, at as u16, millis);
            let tombstone = Tombstone { id, shards, shard, start_ms, end_ms, selector };
            let (run, applied) = (self.run, &self.executors[at].applied_stamps);
            let is_applied = |stamp| applied.contains(&stamp);
            let batches = self.record.batches.iter().enumerate();
            let hides = batches
                .filter(|(_, batch)| batch.run != run || batch.stamp.is_some_and(is_applied))
                .map(|(at, _)| at)
                .collect();
            let is_meant =
                move |row: u32| NAMES[row as usize % 2] == name && series.is_none_or(|series| series == row);
            let shards = self.shards;
            let is_ours = move |series: u32| {
                is_meant(series) && owner(super::labels_of(series).as_ref().hash(), shards) == at
            };
            let deletion =
                Deletion::new(hides, millis, (0..=self.next_series).filter(|n| is_ours(*n)).collect());
            for batch in answered {
                assert!(
                    !self.record.has_row_of(batch, &deletion) || deletion.hides(batch),
                    "what was answered before a delete is deleted: batch {batch}"
                );
            }
            deletes.push((tombstone, deletion));
        }
        deletes
    }

    /// The manifest names them.
    pub(super) fn deleted(&mut self, at: usize, deletes: Deletes) {
        self.deletes += deletes.len();
        let read = |(tombstone, _): &(Tombstone, Deletion)| {
            Delete::new(tombstone.clone()).expect("the script's selectors can be read")
        };
        self.executors[at].store.add_deletes(deletes.iter().map(read).collect());
        self.record.deletions.extend(deletes.into_iter().map(|(_, deletion)| deletion.done()));
    }
}
