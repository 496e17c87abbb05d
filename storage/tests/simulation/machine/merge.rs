//! An executor's merges, and what leaves the retention.

use super::{Machine, RETENTION_MS};
use model::Timestamp;
use std::collections::BTreeSet;
use storage::compact::{Merge, Windows, expired};
use storage::disk::{Disk as _, SimDisk, ready};
use storage::manifest::{Manifest, may_be_stored};
use storage::segment::segment_path;

/// How long after its end a window may still be written into.
const GRACE_MS: i64 = 100;
/// Steps of a merge between two steps of the script: few, so that flushes, queries and retention come between.
const MERGE_STEPS: usize = 40;

impl Machine {
    /// Takes out of the manifest what has left the retention.
    pub(super) fn expire(&self, manifest: &mut Manifest) -> Vec<u64> {
        let expired = expired(&manifest.segments, self.now_ms - RETENTION_MS, None);
        manifest.segments.retain(|entry| !expired.contains(&entry.id));
        manifest.forget_deletes();
        expired
    }

    /// The manifest does not name them any more.
    pub(super) fn drop_expired(&mut self, expired: &[u64]) {
        self.expired += expired.len();
        for executor in &mut self.executors {
            executor.store.replace_segments(expired, &[]);
        }
        for id in expired {
            // As in the server: what stays costs room alone.
            let _ = ready(self.disk.remove(&segment_path(*id)));
        }
    }

    /// An executor's merge goes some steps further, or one is begun if it is worth it.
    pub(crate) fn merge_step(&mut self, at: usize) {
        let (now_ms, oldest) = (self.now_ms, Timestamp::from_ticks(self.oldest()));
        let executor = &mut self.executors[at];
        let Some(mut merge) = executor.merge.take() else {
            let windows = Windows::new(Some(RETENTION_MS), GRACE_MS);
            let next = self.next_segment.clone();
            let next_id = move || next.replace(next.get() + 1);
            executor.merge = executor.store.begin_merge(now_ms, oldest, &windows, &BTreeSet::new(), next_id);
            return;
        };
        for _ in 0..MERGE_STEPS {
            match ready(merge.step()) {
                Ok(true) => {}
                Ok(false) => return self.switch_merged(merge),
                Err(error) => {
                    assert!(self.faulty || self.disk.is_cut(), "{error}");
                    ready(merge.abandon());
                    return;
                }
            }
        }
        executor.merge = Some(merge);
    }

    /// Whether an executor's merge has begun and not ended.
    pub(crate) fn is_merging(&self, at: usize) -> bool {
        self.executors[at].merge.is_some()
    }

    fn switch_merged(&mut self, merge: Merge<SimDisk>) {
        let merged = merge.end();
        let mut manifest = self.manifest.clone();
        let named = manifest.segments.extract_if(.., |entry| merged.removed.contains(&entry.id)).count();
        let entries = merged.entries();
        let ids = entries.iter().map(|entry| entry.id + 1);
        manifest.next_segment = ids.max().unwrap_or(0).max(manifest.next_segment);
        manifest.segments.extend(entries);
        let expired = self.expire(&mut manifest);
        // What has left the manifest meanwhile does not come back.
        let is_stale = named != merged.removed.len();
        if is_stale {
            ready(merged.abandon(&self.disk));
            return;
        }
        if let Err(error) = ready(manifest.store(&self.disk)) {
            if !may_be_stored(&error) {
                ready(merged.abandon(&self.disk));
            }
            return;
        }
        self.stored(manifest);
        self.merges += 1;
        for executor in &mut self.executors {
            executor.store.replace_segments(&merged.removed, &merged.added);
        }
        for id in merged.removed {
            let _ = ready(self.disk.remove(&segment_path(id)));
        }
        self.drop_expired(&expired);
    }
}
