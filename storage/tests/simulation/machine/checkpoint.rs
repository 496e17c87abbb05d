//! An executor's checkpoint: taken, synced for, switched in.

use super::{Checkpoint, Flush, Machine};
use storage::checkpoint::{CheckpointEntry, CheckpointError, CheckpointJob, Pace};
use storage::disk::{SimDisk, ready};
use storage::journal::JournalPosition;
use storage::manifest::{Manifest, may_be_stored};

/// Steps of a checkpoint between two of the script, and little in each, so that samples come while series are written.
const CHECKPOINT_STEPS: usize = 8;
const PACE: Pace = Pace { rows_per_step: 1, block_bytes: 100 };

impl Machine {
    /// Whether samples lie in segments, in checkpoints, and above the positions in the journals.
    pub(crate) fn has_data_everywhere(&self) -> bool {
        let Manifest { segments, checkpoints, .. } = &self.manifest;
        let ends = self.loops.iter().map(|state| state.writer.end());
        let is_above = ends.enumerate().any(|(of, end)| end > self.manifest.highest_position(of));
        !segments.is_empty() && !checkpoints.is_empty() && is_above
    }

    /// Whether an executor's checkpoint has begun and not ended.
    pub(crate) fn is_checkpointing(&self, at: usize) -> bool {
        !matches!(self.executors[at].checkpoint, Checkpoint::Resting)
    }

    /// An executor's checkpoint goes one step further, or one is begun.
    pub(crate) fn checkpoint_step(&mut self, at: usize) {
        let executor = &mut self.executors[at];
        match std::mem::replace(&mut executor.checkpoint, Checkpoint::Resting) {
            Checkpoint::Resting => {
                if !matches!(executor.flush, Flush::Resting) || executor.at_once {
                    return;
                }
                let id = self.next_segment.replace(self.next_segment.get() + 1);
                if let Some(job) = executor.store.begin_checkpoint(id, PACE) {
                    executor.checkpoint = Checkpoint::Writing(job, executor.applied.clone());
                }
            }
            Checkpoint::Writing(mut job, positions) => {
                for _ in 0..CHECKPOINT_STEPS {
                    let entry = match ready(job.step()) {
                        Ok(None) => continue,
                        Ok(Some(entry)) => entry,
                        Err(error) => {
                            let is_expected = matches!(error, CheckpointError::Superseded);
                            assert!(is_expected || self.faulty || self.disk.is_cut(), "{error}");
                            return ready(job.abandon());
                        }
                    };
                    if executor.at_once || !matches!(executor.flush, Flush::Resting) {
                        return ready(job.abandon());
                    }
                    let told = self.ask_all(at);
                    self.executors[at].checkpoint = Checkpoint::Syncing { job, positions, entry, told };
                    return;
                }
                executor.checkpoint = Checkpoint::Writing(job, positions);
            }
            Checkpoint::Syncing { job, positions, entry, told } => {
                if executor.at_once || !job.is_current() {
                    ready(job.abandon());
                } else if told.iter().all(Option::is_some) {
                    self.switch_checkpoint(entry, &positions, job);
                } else {
                    executor.checkpoint = Checkpoint::Syncing { job, positions, entry, told };
                }
            }
        }
    }

    fn switch_checkpoint(
        &mut self,
        entry: CheckpointEntry,
        positions: &[JournalPosition],
        job: CheckpointJob<SimDisk>,
    ) {
        let mut manifest = self.manifest.clone();
        let switched = manifest.switch_checkpoint(entry, positions);
        let Ok(replaced) = switched else { panic!("no flush was switched in since the cut: {switched:?}") };
        if let Err(error) = ready(manifest.store(&self.disk)) {
            if !may_be_stored(&error) {
                ready(job.abandon());
            }
            return;
        }
        self.stored(manifest);
        self.checkpoints += 1;
        self.cut_journals(replaced);
    }
}
