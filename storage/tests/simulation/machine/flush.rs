//! An executor's samples: drained from the rings into the memtable, from there to a segment.

use super::super::record::Deletion;
use super::super::script::{Random, rest};
use super::{Checkpoint, Deletes, Executor, Flush, Machine, Message, Positions, SILENCE, labels_of};
use model::Share;
use storage::checkpoint::{CheckpointEntry, checkpoint_path};
use storage::disk::{Disk as _, SimDisk, ready};
use storage::journal::{self, JournalPosition};
use storage::manifest::{Manifest, may_be_stored};
use storage::store::{FlushJob, Flushed, Stopped};

impl Machine {
    /// An executor forgets the series that no dictionary names.
    pub(crate) fn forget_idle(&mut self, at: usize) {
        self.executors[at].store.forget_idle();
    }

    /// An executor sends what it holds of series that have stopped to a segment of their own, or, where it holds nothing,
    /// has their names taken back.
    pub(crate) fn send_stopped(&mut self, at: usize, ticks: u64) {
        let executor = &mut self.executors[at];
        (0..ticks).for_each(|_| executor.store.tick());
        let mut stopped = Stopped::default();
        while executor.store.find_stopped(SILENCE, usize::MAX, &mut stopped) {}
        let mut names = executor.store.names_of_stopped(&stopped);
        while executor.store.find_names(&mut names) {}
        for mut names in names.end() {
            let mut share = Share::default();
            while executor.store.take_some_names(&mut names, SILENCE, 3, &mut share) {
                let state = &mut self.loops[names.loop_index];
                state.writer.take_back(&share);
                state.taken_back.push((at, std::mem::take(&mut share)));
            }
        }
        let is_free =
            matches!((&executor.flush, &executor.checkpoint), (Flush::Resting, Checkpoint::Resting));
        if !is_free || executor.at_once {
            return;
        }
        let id = self.next_segment.get();
        if let Some(job) = executor.store.begin_part_flush(id, SILENCE, &stopped) {
            self.next_segment.set(id + 1);
            self.record.froze();
            executor.flush = Flush::Writing { job: Some(job), deletes: Deletes::new() };
        }
    }

    /// Flushes what was asked for at once, to its end.
    pub(crate) fn flush_at_once(&mut self, random: &mut Random) {
        for _ in 0..16 {
            rest(self, random);
            for at in 0..self.shards {
                let executor = &self.executors[at];
                if executor.at_once || !matches!(executor.flush, Flush::Resting) {
                    self.flush_step(at);
                }
            }
        }
    }

    /// An executor takes up to so many messages, the earliest first over all loops.
    pub(crate) fn drain(&mut self, at: usize, messages_max: usize) {
        let Executor {
            store, rings, flush, checkpoint, applied, at_once, in_memtable, applied_stamps, ..
        } = &mut self.executors[at];
        for _ in 0..messages_max {
            let fronts =
                rings.iter().enumerate().filter_map(|(from, ring)| Some((ring.front()?.key(), from)));
            let Some((_, from)) = fronts.min() else { return };
            match rings[from].pop_front() {
                Some(Message::Share(share)) => {
                    let of_share = store.apply(from, &share, &mut |_, _, _| {});
                    assert_eq!(of_share.unknown, 0, "a loop defines a series before its first sample");
                    let end = JournalPosition { sequence: share.dictionary, offset: share.journal_end };
                    applied[from] = applied[from].max(end);
                    in_memtable.insert(share.stamp);
                    applied_stamps.insert(share.stamp);
                }
                Some(Message::Dictionary { dictionary, .. }) => store.begin_dictionary(from, dictionary),
                Some(Message::Flush { .. }) => *at_once = true,
                Some(Message::NamesTaken { names, .. }) => store.take_names_back(from, &names),
                Some(Message::Position { position, .. }) => {
                    applied[from] = applied[from].max(position);
                    if let Flush::Asking(told) | Flush::AskingSynced { told, .. } = flush {
                        told[from] = Some(position);
                    }
                    if let Checkpoint::Syncing { told, .. } = checkpoint {
                        told[from] = Some(position);
                    }
                }
                None => return,
            }
        }
    }

    pub(super) fn ask_all(&mut self, executor: usize) -> Vec<Option<JournalPosition>> {
        for state in &mut self.loops {
            state.asks.push((executor, None));
        }
        vec![None; self.shards]
    }

    /// Whether an executor's flush is under way, or wanted at once.
    pub(crate) fn is_flushing(&self, at: usize) -> bool {
        self.executors[at].at_once || !matches!(self.executors[at].flush, Flush::Resting)
    }

    /// An executor's flush goes one step further, if nothing is missing for it.
    pub(crate) fn flush_step(&mut self, at: usize) {
        let flush = std::mem::replace(&mut self.executors[at].flush, Flush::Resting);
        let next = match flush {
            Flush::Resting
                if self.executors[at].store.memtable_samples() == 0
                    && self.executors[at].wanted_deletes.is_empty() =>
            {
                Flush::Resting
            }
            // Answers of the loops do not say to which question.
            Flush::Resting if matches!(self.executors[at].checkpoint, Checkpoint::Syncing { .. }) => {
                Flush::Resting
            }
            Flush::Resting => Flush::Asking(self.ask_all(at)),
            Flush::Asking(told) => match told.iter().copied().collect::<Option<Vec<_>>>() {
                Some(positions) => self.freeze(at, positions),
                None => Flush::Asking(told),
            },
            Flush::Writing { job, deletes } => self.write_segment(at, job, deletes),
            Flush::AskingSynced { flushed, deletes, told } => {
                if told.iter().all(Option::is_some) {
                    Flush::Switching { flushed, deletes }
                } else {
                    Flush::AskingSynced { flushed, deletes, told }
                }
            }
            Flush::Switching { flushed, deletes } => {
                self.switch(at, flushed, deletes);
                Flush::Resting
            }
        };
        self.executors[at].flush = next;
    }

    fn freeze(&mut self, at: usize, told: Vec<JournalPosition>) -> Flush {
        let id = self.next_segment.replace(self.next_segment.get() + 1);
        let executor = &mut self.executors[at];
        let job = executor.store.begin_flush(id);
        let mut deletes = Deletes::new();
        if !job.as_ref().is_some_and(FlushJob::is_retry) {
            executor.at_once = false;
            executor.in_frozen = std::mem::take(&mut executor.in_memtable);
            executor.frozen_positions = match self.positions {
                Positions::Told => told,
                Positions::Frozen => executor.applied.clone(),
            };
            // What a failed flush left was frozen before they were asked for.
            deletes = self.take_deletes(at);
        }
        self.record.froze();
        Flush::Writing { job, deletes }
    }

    fn write_segment(&mut self, at: usize, job: Option<FlushJob>, deletes: Deletes) -> Flush {
        self.executors[at].is_part = job.as_ref().is_some_and(FlushJob::is_part);
        let flushed = match job.map(|job| ready(job.run(&self.disk))) {
            Some(Ok(flushed)) => Some(flushed),
            Some(Err(error)) => {
                assert!(self.faulty || self.disk.is_cut(), "{error}");
                self.executors[at].store.abort_flush();
                return Flush::Resting;
            }
            None => None,
        };
        match self.positions {
            Positions::Told => Flush::Switching { flushed, deletes },
            Positions::Frozen => Flush::AskingSynced { flushed, deletes, told: self.ask_all(at) },
        }
    }

    fn switch(&mut self, at: usize, flushed: Option<Flushed<SimDisk>>, deletes: Deletes) {
        let mut manifest = self.manifest.clone();
        let ids = deletes.iter().map(|(tombstone, _)| tombstone.id + 1);
        manifest.next_segment = ids.fold(manifest.next_segment, u64::max);
        manifest.deletes.extend(deletes.iter().map(|(tombstone, _)| tombstone.clone()));
        if let Some(flushed) = &flushed {
            manifest.next_segment = manifest.next_segment.max(flushed.entry().id + 1);
            manifest.segments.push(*flushed.entry());
        }
        let is_part = self.executors[at].is_part;
        let positions = &self.executors[at].frozen_positions;
        let needless = if is_part { None } else { manifest.switch_flush(at, positions) };
        let expired = self.expire(&mut manifest);
        if let Err(error) = ready(manifest.store(&self.disk)) {
            self.executors[at].store.abort_flush();
            if may_be_stored(&error) || self.disk.is_cut() {
                self.record.deletions.extend(deletes.into_iter().map(|(_, deletion)| deletion));
            }
            return;
        }
        self.stored(manifest);
        self.flushes += usize::from(!is_part);
        self.part_flushes += usize::from(is_part);
        if !is_part {
            self.record.kept(at, self.shards, &self.executors[at].in_frozen, labels_of);
        }
        if let Some(flushed) = flushed {
            self.executors[at].store.finish_flush(flushed);
        }
        self.deleted(at, deletes);
        self.drop_expired(&expired);
        self.cut_journals(needless);
    }

    /// The manifest was switched; what another one may have named it does not.
    pub(super) fn stored(&mut self, manifest: Manifest) {
        self.manifest = manifest;
        self.record.deletions.retain(Deletion::is_done);
    }

    /// What the manifest has let go of: a checkpoint, and journals below every position.
    pub(super) fn cut_journals(&mut self, needless: Option<CheckpointEntry>) {
        if let Some(entry) = needless {
            let _ = ready(self.disk.remove(&checkpoint_path(entry.id)));
        }
        for journal in 0..self.manifest.positions.first().map_or(0, Vec::len) {
            let lowest = self.manifest.lowest_position(journal);
            let Ok(names) = ready(self.disk.list(&journal::folder(journal as u16))) else { continue };
            let sequences: Vec<u64> = names.iter().filter_map(|name| journal::sequence_of(name)).collect();
            let _ = ready(journal::truncate(&self.disk, journal as u16, &sequences, lowest));
        }
    }
}
