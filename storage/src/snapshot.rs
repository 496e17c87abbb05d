//! Snapshots: what a manifest names, under names of its own, and back into a new directory.
//!
//! ```text
//! DATA/snapshots/NAME/segments/…    hard links: segments never change, so a link costs no room and no time
//! DATA/snapshots/NAME/MANIFEST      stored last: a snapshot without it was not finished
//! ```
//!
//! A file system that refuses links gets copies. Whoever takes a snapshot flushes before, so that journals need not be in
//! it, and changes no manifest meanwhile.
//! Always: a folder with a manifest is a whole snapshot of what the disk had, after any crash; a restored directory has been read back and
//! every checksum of it was right.
//! Not here: names and when to flush (the server), rules and alerts: those are no samples.

use crate::disk::{Disk, DiskFile};
use crate::manifest::{MANIFEST_FILE, MANIFEST_FILE_NEXT, Manifest, ManifestError, may_be_stored};
use crate::segment::{SEGMENTS_FOLDER, SegmentError, SegmentReader, Workspace, segment_path};
use std::fmt;
use std::io;

/// The folder of snapshots, within the data directory.
pub const SNAPSHOTS_FOLDER: &str = "snapshots";

/// Where a data directory has its journals.
const JOURNALS_FOLDER: &str = "journal";
/// Bytes copied at once.
const STEP_BYTES: usize = 1024 * 1024;

/// What was put under another name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Samples in them, where they were read.
    pub samples: u64,
    /// Files that the manifest names and the disk has not: they are not in it, nor does its manifest name them.
    pub missing: Vec<String>,
}

/// Why a snapshot was not restored. What was written of the target has no manifest, and is no data directory.
#[derive(Debug)]
pub enum RestoreError {
    /// There is no whole snapshot.
    Manifest(ManifestError),
    /// It is a data directory, whose journals hold what is in no segment.
    HasJournals,
    /// There is something in the target.
    NotEmpty {
        /// What was found first.
        name: String,
    },
    /// The disk refused.
    Disk(io::Error),
    /// A segment is not as it was written.
    Segment(SegmentError),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Manifest(ManifestError::Foreign) => {
                f.write_str("this is no whole snapshot: it has no MANIFEST")
            }
            RestoreError::Manifest(error) => error.fmt(f),
            RestoreError::HasJournals => f.write_str(
                "this is a data directory with journals: have its server take a snapshot, and restore that",
            ),
            RestoreError::NotEmpty { name } => {
                write!(f, "the target holds {name}: a snapshot is restored to a new directory")
            }
            RestoreError::Disk(error) => error.fmt(f),
            RestoreError::Segment(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> RestoreError {
        RestoreError::Disk(error)
    }
}

/// The folder of that snapshot, within the data directory.
pub fn folder(name: &str) -> String {
    format!("{SNAPSHOTS_FOLDER}/{name}")
}

/// Gives all that the manifest names another name, in a folder that is not there yet; what is not on the disk is told, and
/// not named by its manifest. After an error what was made of it
/// is removed, as far as the disk allows; it has no manifest.
pub async fn take<D: Disk>(disk: &D, manifest: &Manifest, name: &str) -> io::Result<Put> {
    let within = Within { disk: disk.clone(), folder: folder(name) };
    // What is there is not ours to remove, should it come to that.
    if within.list("").await.is_ok_and(|files| !files.is_empty()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("there is a snapshot {name}")));
    }
    let taken = put(disk, &within, manifest).await;
    // Where its manifest may be found after a crash all else is synced: it is whole, and stays so.
    if taken.as_ref().is_err_and(|error| !may_be_stored(error)) {
        remove(&within).await;
    }
    taken
}

async fn put<D: Disk>(disk: &D, within: &Within<D>, manifest: &Manifest) -> io::Result<Put> {
    within.create_dir(SEGMENTS_FOLDER).await?;
    let mut put = Put::default();
    for entry in &manifest.segments {
        let path = segment_path(entry.id);
        if let Err(refused) = disk.link(&path, &within.path(&path)).await {
            // The server goes on without it, and so would never have a snapshot again.
            if refused.kind() == io::ErrorKind::NotFound {
                put.missing.push(path);
                continue;
            }
            let may_copy = matches!(
                refused.kind(),
                io::ErrorKind::Unsupported
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::TooManyLinks
                    | io::ErrorKind::CrossesDevices
            );
            if !may_copy {
                return Err(refused);
            }
            copy(disk, within, &path).await?;
        }
        put.segments += 1;
        put.bytes += entry.bytes;
        disk.give_way().await;
    }
    within.sync_dir(SEGMENTS_FOLDER).await?;
    within.sync_dir("").await?;
    disk.sync_dir(SNAPSHOTS_FOLDER).await?;
    disk.sync_dir("").await?;
    // What a checkpoint holds came after the flush, like what lies in journals.
    let mut manifest = Manifest { checkpoints: Vec::new(), ..manifest.clone() };
    manifest.segments.retain(|entry| !put.missing.contains(&segment_path(entry.id)));
    manifest.store(within).await?;
    Ok(put)
}

/// Removes the files of snapshots that were not finished; their folders stay.
pub async fn remove_unfinished<D: Disk>(disk: &D) -> io::Result<()> {
    let names = match disk.list(SNAPSHOTS_FOLDER).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    for name in names {
        let within = Within { disk: disk.clone(), folder: folder(&name) };
        // A file beside the folders is none of ours.
        let Ok(files) = within.list("").await else { continue };
        if !files.iter().any(|file| file == MANIFEST_FILE) {
            remove(&within).await;
        }
    }
    Ok(())
}

/// What stays is no harm: without a manifest it is no snapshot.
async fn remove<D: Disk>(within: &Within<D>) {
    let _ = within.remove(MANIFEST_FILE_NEXT).await;
    for name in within.list(SEGMENTS_FOLDER).await.unwrap_or_default() {
        let _ = within.remove(&format!("{SEGMENTS_FOLDER}/{name}")).await;
    }
}

/// Copies a snapshot into an empty directory, and reads back and checks every byte of the copy.
pub async fn restore<D: Disk, E: Disk>(
    snapshot: &D,
    target: &E,
    mut told: impl FnMut(&Put),
) -> Result<Put, RestoreError> {
    let manifest = Manifest::load(snapshot).await.map_err(RestoreError::Manifest)?;
    let manifest = manifest.ok_or(RestoreError::Manifest(ManifestError::Foreign))?;
    if snapshot.list("").await?.iter().any(|name| name == JOURNALS_FOLDER) {
        return Err(RestoreError::HasJournals);
    }
    if let Some(name) = target.list("").await?.into_iter().next() {
        return Err(RestoreError::NotEmpty { name });
    }
    target.create_dir(SEGMENTS_FOLDER).await?;
    let (mut put, mut workspace) = (Put::default(), Workspace::default());
    for entry in &manifest.segments {
        copy(snapshot, target, &segment_path(entry.id)).await?;
        let copied = SegmentReader::open_named(target, entry).await.map_err(RestoreError::Segment)?;
        let mut errors = Vec::new();
        for part in 0..copied.part_count() {
            copied.verify_part(part, &mut errors).await;
        }
        if let Some(error) = errors.pop() {
            return Err(RestoreError::Segment(error));
        }
        for block in 0..copied.block_count() {
            put.samples += copied.verify_block(block, &mut workspace, &mut errors).await.samples;
            if let Some(error) = errors.pop() {
                return Err(RestoreError::Segment(error));
            }
        }
        put.segments += 1;
        put.bytes += entry.bytes;
        told(&put);
    }
    target.sync_dir(SEGMENTS_FOLDER).await?;
    target.sync_dir("").await?;
    manifest.store(target).await?;
    Ok(put)
}

/// Copies a file to the same path of another disk, and syncs it.
async fn copy<D: Disk, E: Disk>(from: &D, to: &E, path: &str) -> io::Result<()> {
    let (source, copy) = (from.open(path).await?, to.create(path).await?);
    let mut position = 0;
    loop {
        let bytes = source.read_at(position, STEP_BYTES).await?;
        if bytes.is_empty() {
            return copy.sync().await;
        }
        copy.write_at(position, &bytes).await?;
        position += bytes.len() as u64;
        from.give_way().await;
    }
}

/// A folder of a disk, as a disk.
#[derive(Clone)]
struct Within<D: Disk> {
    disk: D,
    folder: String,
}

impl<D: Disk> Within<D> {
    fn path(&self, path: &str) -> String {
        if path.is_empty() { self.folder.clone() } else { format!("{}/{path}", self.folder) }
    }
}

impl<D: Disk> Disk for Within<D> {
    type File = D::File;

    async fn open(&self, path: &str) -> io::Result<D::File> {
        self.disk.open(&self.path(path)).await
    }

    async fn create(&self, path: &str) -> io::Result<D::File> {
        self.disk.create(&self.path(path)).await
    }

    async fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.link(&self.path(from), &self.path(to)).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.path(from), &self.path(to)).await
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(&self.path(path)).await
    }

    async fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(&self.path(folder)).await
    }

    async fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.disk.create_dir(&self.path(folder)).await
    }

    async fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.disk.sync_dir(&self.path(folder)).await
    }

    async fn give_way(&self) {
        self.disk.give_way().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, SimDisk, Times, ready};
    use crate::manifest::Tombstone;
    use crate::store::{Store, StoreOptions};
    use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Timestamp};

    /// A directory of two segments and a delete that waits for one of them.
    fn directory() -> (SimDisk, Manifest) {
        let disk = SimDisk::new(1);
        let options = StoreOptions { memory_bytes_max: 16 << 20 };
        let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
        let mut manifest = Manifest::new(1);
        for id in 1..3 {
            let mut share = Share::default();
            let labels = LabelSet::new("cpu", &[("n", "1")]).unwrap();
            share.define(SeriesNumber(0), MetricKind::Gauge, labels.as_ref());
            for i in 0..2_000i64 {
                let timestamp = Timestamp::from_millis(1_000_000 * id as i64 + i).unwrap();
                share.push(SeriesNumber(0), Sample { timestamp, value: (i * 7_919 % 997) as f64 });
            }
            store.apply(0, &share, &mut |_, _, _| {});
            let flushed = ready(store.begin_flush(id).unwrap().run(&disk)).unwrap();
            manifest.segments.push(*flushed.entry());
            store.finish_flush(flushed);
        }
        manifest.next_segment = 4;
        let selector = r#"{n="1"}"#.to_owned();
        manifest.deletes =
            vec![Tombstone { id: 3, shards: 1, shard: 0, start_ms: 0, end_ms: 1_000_500, selector }];
        ready(manifest.store(&disk)).unwrap();
        ready(disk.sync_dir(SEGMENTS_FOLDER)).unwrap();
        (disk, manifest)
    }

    fn restored(disk: &SimDisk, name: &str) -> Result<(SimDisk, Put), RestoreError> {
        let target = SimDisk::new(2);
        let snapshot = Within { disk: disk.clone(), folder: folder(name) };
        ready(restore(&snapshot, &target, |_| {})).map(|put| (target, put))
    }

    #[test]
    fn a_snapshot_stays_when_the_directory_goes_on_and_is_restored_whole() {
        let (disk, manifest) = directory();
        let bytes = disk.calls(Call::Write);
        let taken = ready(take(&disk, &manifest, "one")).unwrap();
        assert_eq!(taken.segments, 2);
        let again = ready(take(&disk, &manifest, "one")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.calls(Call::Write), bytes + 1, "its manifest alone is written");
        for entry in &manifest.segments {
            ready(disk.remove(&segment_path(entry.id))).unwrap();
        }
        let (target, put) = restored(&disk, "one").unwrap();
        assert_eq!((put.segments, put.bytes, put.samples), (2, taken.bytes, 4_000));
        assert_eq!(ready(Manifest::load(&target)).unwrap(), Some(manifest), "deletes and all");
        assert!(matches!(restored(&disk, "two"), Err(RestoreError::Manifest(ManifestError::Foreign))));
        let again = ready(restore(&Within { disk, folder: folder("one") }, &target, |_| {}));
        assert!(matches!(again, Err(RestoreError::NotEmpty { .. })));
    }

    /// A segment that is lost does not end snapshots for good: what there is is taken, and what is not is told.
    #[test]
    fn what_is_missing_is_told_and_the_rest_is_taken() {
        let (disk, mut manifest) = directory();
        let lost = crate::manifest::SegmentEntry { id: 77, ..manifest.segments[0] };
        manifest.segments.push(lost);
        let taken = ready(take(&disk, &manifest, "one")).unwrap();
        assert_eq!(taken.missing, [segment_path(77)]);
        let (restored, put) = restored(&disk, "one").unwrap();
        assert_eq!((put.samples, taken.segments), (4_000, put.segments));
        let named = ready(Manifest::load(&restored)).unwrap().unwrap();
        assert!(!named.segments.contains(&lost));
    }

    /// A disk that fails when all is in its place leaves a snapshot that is whole.
    /// Method: the sync behind the manifest's new name fails.
    #[test]
    fn a_snapshot_whose_manifest_may_be_found_keeps_its_segments() {
        let (disk, manifest) = directory();
        let before = disk.calls(Call::Sync);
        ready(take(&disk, &manifest, "before")).unwrap();
        let syncs = disk.calls(Call::Sync) - before;
        disk.fail(Call::Sync, disk.calls(Call::Sync) + syncs - 1, Times::Once, io::ErrorKind::Other);
        let error = ready(take(&disk, &manifest, "one")).unwrap_err();
        assert!(may_be_stored(&error), "{error}");
        assert_eq!(restored(&disk, "one").unwrap().1.samples, 4_000);
    }

    #[test]
    fn a_disk_that_refuses_links_gets_copies_and_a_full_one_is_left_as_it_was() {
        let (disk, manifest) = directory();
        disk.fail(Call::Link, 0, Times::FromThenOn, io::ErrorKind::Unsupported);
        ready(take(&disk, &manifest, "one")).unwrap();
        assert_eq!(restored(&disk, "one").unwrap().1.samples, 4_000);
        let files = disk.files();
        disk.set_capacity(Some(disk.bytes_used() + manifest.segments[0].bytes));
        let full = ready(take(&disk, &manifest, "two")).unwrap_err();
        assert!(crate::disk::is_full(&full), "{full}");
        assert_eq!(disk.files(), files);
    }

    #[test]
    fn damage_is_found_before_a_restored_directory_counts() {
        let (disk, manifest) = directory();
        ready(take(&disk, &manifest, "one")).unwrap();
        let bytes = manifest.segments[0].bytes;
        for at in (0..bytes).step_by(bytes as usize / 60) {
            assert!(disk.flip_bit(&segment_path(manifest.segments[0].id), at * 8 + 2));
            let error = restored(&disk, "one").err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("byte {at}"));
            assert!(error.contains("segments/0000000000000001.segment"), "{error}");
            assert!(disk.flip_bit(&segment_path(manifest.segments[0].id), at * 8 + 2));
        }
        assert!(restored(&disk, "one").is_ok());
    }

    /// A power cut at any operation of a snapshot leaves the directory as it was, and a whole snapshot or none.
    /// Method: count the operations of one, then cut at each; what is left over is removed by the next.
    #[test]
    fn a_cut_at_any_operation_leaves_a_whole_snapshot_or_none() {
        let (disk, manifest) = directory();
        let before = disk.operations();
        ready(take(&disk, &manifest, "one")).unwrap();
        let count = disk.operations() - before;
        assert!(count > 8);
        let mut wholes = 0;
        for cut in 0..=count {
            for seed in 0..4 {
                let (disk, manifest) = directory();
                disk.cut_at(disk.operations() + cut);
                let taken = ready(take(&disk, &manifest, "one"));
                let left = disk.after_power_cut(seed);
                assert_eq!(ready(Manifest::load(&left)).unwrap().as_ref(), Some(&manifest));
                match restored(&left, "one") {
                    Ok((_, put)) => {
                        assert_eq!(put.samples, 4_000);
                        wholes += 1;
                    }
                    Err(error) => {
                        assert!(matches!(error, RestoreError::Manifest(ManifestError::Foreign)), "{error}");
                        assert!(taken.is_err(), "what was answered is there");
                        ready(remove_unfinished(&left)).unwrap();
                        let names = left.files();
                        assert!(!names.iter().any(|name| name.starts_with(SNAPSHOTS_FOLDER)), "{names:?}");
                    }
                }
            }
        }
        assert!(wholes >= 4);
    }
}
