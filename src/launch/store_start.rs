//! An executor's beginning: from what lies on disk to a store that serves.

use super::LaunchError;
use crate::adapt::ShardDisk;
use crate::log;
use crate::message::{ToLoop, ToPeer, ToStore};
use crate::service::{Checkpoints, Keeper, Rules, Service, ServiceParts};
use crate::shared::Shared;
use alert::WindowRule;
use shard::file::Directory;
use shard::mesh::{Inbox, Outbox};
use std::sync::Arc;
use storage::checkpoint::CheckpointError;
use storage::deletes::Delete;
use storage::journal::{JournalPosition, NextFile, OnDamage, Recovered, Replay, ReplayError};
use storage::manifest::Manifest;
use storage::store::{Store, StoreOptions};

/// What an executor needs to replay and to begin.
pub struct StoreStart {
    /// What all threads may read.
    pub shared: Arc<Shared>,
    /// Which executor.
    pub index: usize,
    /// The manifest as it stands on disk.
    pub manifest: Manifest,
    /// All journals, recovered.
    pub journals: Arc<Vec<Recovered>>,
    /// The rules of the process.
    pub rules: Arc<[WindowRule]>,
    /// The journal file that its loop begins with.
    pub first_file: Option<NextFile>,
    /// From the loops.
    pub inbox: Inbox<ToStore>,
    /// To the loops.
    pub loops: Outbox<ToLoop>,
    /// From the executors.
    pub peer_inbox: Inbox<ToPeer>,
    /// To the executors.
    pub peers: Outbox<ToPeer>,
}

impl StoreStart {
    /// Opens the segments, loads the checkpoint, replays, hands the loop its first journal file, and serves until the process stops.
    pub async fn run(mut self) -> Result<(), LaunchError> {
        let index = self.index;
        let shards = self.shared.shard_count();
        let disk = ShardDisk::new(Directory::new(self.shared.data_dir.clone()));
        let watched = self.rules.clone();
        let watch_of = Box::new(move |labels: model::LabelSetRef<'_>| Rules::watch_of(&watched, labels));
        let options = StoreOptions { memory_bytes_max: self.shared.store_bytes_max() };
        let mut store = Store::new(disk.clone(), index, shards, options, watch_of);
        for refused in store.open_segments(&self.manifest.segments).await {
            log::error(format!("shard {index}: a segment is left out: {refused}"));
        }
        let deletes = self.manifest.deletes.iter().cloned().map(Delete::new);
        match deletes.collect() {
            Ok(deletes) => store.add_deletes(deletes),
            Err(error) => {
                log::error(format!("shard {index}: a delete in the manifest cannot be read: {error}"))
            }
        }
        let found = self.load_checkpoint(&mut store).await.map_err(LaunchError::Checkpoint)?;
        let mut rules = Rules::new(&self.rules, &self.shared, index);
        let from = &self.manifest.positions[index];
        self.replay(&disk, &mut store, from).await.map_err(LaunchError::Replay)?;
        if self.shared.is_stopping() {
            // Executor 0, should it serve already, waits for everybody's last word.
            let _ = self.peers.send(0, ToPeer::Finished);
            return Ok(());
        }
        rules.restore(&store, &disk, shard::clock::unix_millis()).await;

        if let Some(next) = self.first_file {
            let prepared = crate::service::prepare(&self.shared, &disk, index, next).await;
            // The ring is empty: nobody has sent anything yet.
            let _ = self.loops.to(index).push(ToLoop::JournalFile(prepared));
            self.loops.to(index).publish();
        }
        let applied = (0..shards).map(|of| {
            let replayed = self.journals[of].end();
            replayed.max(self.manifest.position(index, of))
        });
        let applied: Vec<JournalPosition> = applied.collect();
        let counters = &self.shared.shards[index].store;
        let checkpoints = Checkpoints::new(found, counters.samples_replayed.get());
        let keeper = (index == 0).then(|| Keeper::new(self.manifest));
        let parts = ServiceParts {
            shared: self.shared,
            index,
            store,
            rules,
            applied,
            checkpoints,
            disk,
            keeper,
            inbox: self.inbox,
            loops: self.loops,
            peer_inbox: self.peer_inbox,
            peers: self.peers,
        };
        Service::run(parts).await.map_err(|error| LaunchError::Store { index, cause: error.to_string() })
    }

    /// Brings back the memory as it was written; returns the size of the file. What is damaged is told, and the rest used.
    async fn load_checkpoint(&self, store: &mut Store<ShardDisk>) -> Result<u64, CheckpointError> {
        let Some(entry) = self.manifest.checkpoint(self.index) else { return Ok(0) };
        let mut loaded = store.load_checkpoint(entry).await?;
        // As with a journal: nothing else has these samples, so nobody starts without them unasked.
        if self.shared.config.storage_on_damage == OnDamage::Stop
            && let Some(damage) = loaded.damaged.pop()
        {
            return Err(damage);
        }
        loaded.damaged.iter().for_each(|error| self.shared.damage.note_in_checkpoint(error));
        self.shared.shards[self.index].store.samples_loaded.set(loaded.samples);
        Ok(entry.bytes)
    }

    async fn replay(
        &self,
        disk: &ShardDisk,
        store: &mut Store<ShardDisk>,
        from: &[JournalPosition],
    ) -> Result<(), ReplayError> {
        let shards = self.shared.shard_count();
        let counters = &self.shared.shards[self.index].store;
        let mut replay = Replay::open(disk, &self.journals, from, &store.known_numbers())?;
        let mut share = model::Share::default();
        let mut lost = 0;
        while let Some(replayed) =
            replay.next(&mut share, |hash| ingest::owner(hash, shards) == self.index).await?
        {
            lost += u64::from(replayed.unknown);
            store.apply(usize::from(replayed.stamp.loop_index), &share, &mut |_, _, _| {});
            counters.samples_replayed.add(share.len() as u64);
            if self.shared.is_stopping() {
                // Nothing was changed on disk; the next start begins anew.
                return Ok(());
            }
            shard::executor::yield_if_needed().await;
        }
        if lost > 0 {
            log::error(format!("{lost} samples are lost: the names of their series lie in a damaged range"));
        }
        // What the journals named and no sample above the positions came for need not stay.
        store.end_dictionaries();
        store.forget_idle();
        if let Some(limit) = &self.shared.series_limit {
            limit.give(-(store.series_count() as i64));
        }
        Ok(())
    }
}
