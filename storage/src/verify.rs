//! Verifying a data directory offline: every checksum of every file that the manifest names is read, and nothing is
//! written.
//!
//! Always: what is wrong is told and the rest goes on; in memory is one directory block at a time, and one part of a label
//! index.
//! Not here: mending. What cannot be read costs itself, and a server goes on without it.

use crate::checkpoint::{CheckpointEntry, CheckpointError, Loader, SeriesRecord, Sink};
use crate::chunk::{Chunk, OpenChunk};
use crate::disk::{Disk, DiskFile};
use crate::journal::{self, OnDamage, RecoverError};
use crate::manifest::{Manifest, ManifestError};
use crate::segment::{SegmentEntry, SegmentError, SegmentReader, Workspace, run_len};
use model::{Sample, Timestamp};
use std::fmt;
use std::io;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments that the manifest names.
    pub segments: u64,
    /// Series of them, those of each segment counted.
    pub series: u64,
    /// Samples of them that are as they were written.
    pub samples: u64,
    /// Checkpoints that the manifest names.
    pub checkpoints: u64,
    /// Series of them, whose samples are counted among the others.
    pub checkpoint_series: u64,
    /// Files of the journals that hold something.
    pub journal_files: u64,
    /// Records of them that are as they were written.
    pub records: u64,
    /// Journals that end in the middle of a frame, as a crash leaves them: the next start cuts them there.
    pub torn: u64,
}

/// Something that is not as it was written.
#[derive(Debug)]
pub struct Finding {
    /// What and where.
    pub what: String,
    /// The first and last millisecond of the samples that may be lost, where that is known.
    pub lost_ms: Option<(i64, i64)>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.lost_ms {
            Some((first, last)) => write!(f, ", samples from {first} to {last} ms"),
            None => Ok(()),
        }
    }
}

/// Reads all that the directory's manifest names, and tells `tell` of each thing that is wrong; a directory without a
/// manifest is an error.
pub async fn verify<D: Disk>(disk: &D, mut tell: impl FnMut(Finding)) -> Result<Verified, ManifestError> {
    let manifest = Manifest::load(disk).await?.ok_or(ManifestError::Foreign)?;
    let mut verified = Verified::default();
    for entry in &manifest.segments {
        verified.segments += 1;
        verify_segment(disk, entry, &mut verified, &mut tell).await;
    }
    for entry in &manifest.checkpoints {
        verified.checkpoints += 1;
        verify_checkpoint(disk, entry, &mut verified, &mut tell).await;
    }
    for loop_index in 0..manifest.shards {
        verify_journal(disk, loop_index, &mut verified, &mut tell).await;
    }
    Ok(verified)
}

async fn verify_segment<D: Disk>(
    disk: &D,
    entry: &SegmentEntry,
    verified: &mut Verified,
    tell: &mut impl FnMut(Finding),
) {
    let whole = Some((entry.min_ms, entry.max_ms));
    let segment = match SegmentReader::open_named(disk, entry).await {
        Ok(segment) => segment,
        Err(error) => return tell(Finding { what: error.to_string(), lost_ms: whole }),
    };
    for part in 0..segment.part_count() {
        let mut errors: Vec<SegmentError> = Vec::new();
        segment.verify_part(part, &mut errors).await;
        // The directory knows the series, so nothing is lost but time.
        errors.iter().for_each(|error| tell(Finding { what: error.to_string(), lost_ms: None }));
    }
    let mut workspace = Workspace::default();
    for block in 0..segment.block_count() {
        let mut errors: Vec<SegmentError> = Vec::new();
        let all = segment.series_in_block(block, |_| true, &mut errors).await;
        // A block tells of its series, so without it nobody knows whose samples they were.
        errors.iter().for_each(|error| tell(Finding { what: error.to_string(), lost_ms: whole }));
        for series in all {
            verified.series += 1;
            let mut rest = &series.chunks[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(run_len(rest));
                rest = later;
                let millis = |first: Timestamp, last: Timestamp| Some((first.millis(), last.millis()));
                let run = match segment.read_run(now, &mut workspace).await {
                    Ok(run) => run,
                    Err(error) => {
                        let lost_ms = millis(now[0].first(), now[now.len() - 1].last());
                        let what = format!("{error} (series {:?})", series.labels);
                        tell(Finding { what, lost_ms });
                        continue;
                    }
                };
                for chunk in now {
                    match segment.verify_chunk(&series.labels, chunk, &run, &mut workspace) {
                        Ok(samples) => verified.samples += samples as u64,
                        Err(error) => {
                            let lost_ms = millis(chunk.first(), chunk.last());
                            tell(Finding { what: error.to_string(), lost_ms });
                        }
                    }
                }
            }
        }
    }
}

async fn verify_checkpoint<D: Disk>(
    disk: &D,
    entry: &CheckpointEntry,
    verified: &mut Verified,
    tell: &mut impl FnMut(Finding),
) {
    let finding = |error: CheckpointError| {
        let lost_ms = match &error {
            CheckpointError::Damaged { lost, .. } => lost.millis,
            _ => None,
        };
        Finding { what: error.to_string(), lost_ms }
    };
    let mut loader = match Loader::open(disk, entry).await {
        Ok(loader) => loader,
        Err(error) => return tell(finding(error)),
    };
    let mut counted = Counted { last_id: None, series: 0, samples: 0 };
    loop {
        match loader.read().await {
            Ok(block) => {
                if !loader.take(block, &mut counted) {
                    break;
                }
            }
            Err(error) => {
                tell(finding(error));
                break;
            }
        }
        disk.give_way().await;
    }
    verified.checkpoint_series += counted.series;
    verified.samples += counted.samples;
    loader.end().1.into_iter().for_each(|error| tell(finding(error)));
}

/// Decodes what a checkpoint holds, and keeps nothing of it.
struct Counted {
    last_id: Option<u32>,
    series: u64,
    samples: u64,
}

impl Sink for Counted {
    fn series(&mut self, series: &SeriesRecord<'_>) -> bool {
        self.series += u64::from(self.last_id.replace(series.id) != Some(series.id));
        true
    }

    fn late(&mut self, samples: &[Sample]) -> bool {
        self.samples += samples.len() as u64;
        true
    }

    fn chunk(&mut self, chunk: Chunk) -> bool {
        let is_sound = chunk.samples().all(|sample| sample.is_ok());
        self.samples += if is_sound { u64::from(chunk.count()) } else { 0 };
        is_sound
    }

    fn open(&mut self, chunk: OpenChunk) -> bool {
        let is_sound = chunk.is_sound();
        self.samples += if is_sound { u64::from(chunk.count()) } else { 0 };
        is_sound
    }
}

async fn verify_journal<D: Disk>(
    disk: &D,
    loop_index: u16,
    verified: &mut Verified,
    tell: &mut impl FnMut(Finding),
) {
    let mut find = |what: String| tell(Finding { what, lost_ms: None });
    match journal::recover(&Untouched(disk.clone()), loop_index, OnDamage::Skip).await {
        Ok(recovered) => {
            verified.journal_files += recovered.files.len() as u64;
            let runs = recovered.files.iter().flat_map(|file| &file.runs);
            verified.records += runs.map(|run| run.records.end - run.records.start).sum::<u64>();
            verified.torn += u64::from(recovered.torn.is_some());
            recovered.damage.iter().for_each(|damage| find(damage.to_string()));
        }
        Err(RecoverError::Damaged(damage)) => find(damage.to_string()),
        Err(error) => find(error.to_string()),
    }
}

/// A disk that is read and on which nothing is changed: what would be is said to be done.
#[derive(Clone)]
struct Untouched<D: Disk>(D);

/// A file of an [`Untouched`] disk.
struct UntouchedFile<D: Disk>(D::File);

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "verifying makes no file")
}

impl<D: Disk> Disk for Untouched<D> {
    type File = UntouchedFile<D>;

    async fn open(&self, path: &str) -> io::Result<UntouchedFile<D>> {
        self.0.open(path).await.map(UntouchedFile)
    }

    async fn create(&self, _path: &str) -> io::Result<UntouchedFile<D>> {
        Err(read_only())
    }

    async fn link(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(read_only())
    }

    async fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(read_only())
    }

    async fn remove(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    async fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.0.list(folder).await
    }

    async fn create_dir(&self, _folder: &str) -> io::Result<()> {
        Err(read_only())
    }

    async fn sync_dir(&self, _folder: &str) -> io::Result<()> {
        Ok(())
    }
}

impl<D: Disk> DiskFile for UntouchedFile<D> {
    async fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(position, len).await
    }

    async fn write_at(&self, _position: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        self.0.len().await
    }

    async fn truncate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimDisk, ready};
    use crate::segment::segment_path;
    use crate::store::{Store, StoreOptions};
    use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share};

    /// A directory of one segment, and how large that is.
    fn directory() -> (SimDisk, u64) {
        let disk = SimDisk::new(1);
        let options = StoreOptions { memory_bytes_max: 16 << 20 };
        let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
        let mut share = Share::default();
        for n in 0..20u32 {
            let labels = LabelSet::new("cpu", &[("n", &n.to_string())]).unwrap();
            share.define(SeriesNumber(n), MetricKind::Gauge, labels.as_ref());
            for i in 0..300i64 {
                let timestamp = Timestamp::from_millis(1_000 * i).unwrap();
                let value = f64::from(n) + (i * 7_919 % 997) as f64 / 7.0;
                share.push(SeriesNumber(n), Sample { timestamp, value });
            }
        }
        store.apply(0, &share, &mut |_, _, _| {});
        let flushed = ready(store.begin_flush(1).unwrap().run(&disk)).unwrap();
        let mut manifest = Manifest::new(1);
        manifest.segments.push(*flushed.entry());
        ready(manifest.store(&disk)).unwrap();
        (disk, flushed.entry().bytes)
    }

    fn findings(disk: &SimDisk) -> (Verified, Vec<Finding>) {
        let mut found = Vec::new();
        let verified = ready(verify(disk, |finding| found.push(finding))).unwrap();
        (verified, found)
    }

    #[test]
    fn a_sound_directory_is_counted_and_left_as_it_is() {
        let (disk, _) = directory();
        let writes = disk.calls(crate::disk::Call::Write);
        let (verified, found) = findings(&disk);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!((verified.segments, verified.series, verified.samples), (1, 20, 6_000));
        assert_eq!(disk.calls(crate::disk::Call::Write), writes);
        assert!(ready(verify(&SimDisk::new(1), |_| {})).is_err(), "no manifest, no data directory");
    }

    /// A byte is turned in each part of the file: each is found, what is sound beside it is counted, and where it is a
    /// chunk's the series and the time of its samples are named.
    #[test]
    fn each_turned_byte_is_found_and_costs_its_part_alone() {
        let (_, bytes) = directory();
        let mut named = 0;
        for at in (0..bytes).step_by(bytes as usize / 120) {
            let (disk, _) = directory();
            assert!(disk.flip_bit(&segment_path(1), at * 8 + 3));
            let (verified, found) = findings(&disk);
            assert!(!found.is_empty(), "byte {at}");
            let text = found[0].to_string();
            assert!(text.contains("segments/0000000000000001.segment"), "{text}");
            assert!(text.contains("offset"), "{text}");
            if text.contains("series cpu") && found.len() == 1 {
                named += 1;
                assert_eq!(verified.samples, 5_700, "{text}");
                assert_eq!(found[0].lost_ms, Some((0, 299_000)), "{text}");
            }
        }
        assert!(named > 20, "{named}");
    }

    #[test]
    fn a_segment_that_is_gone_is_named_with_its_time() {
        let (disk, _) = directory();
        ready(disk.remove(&segment_path(1))).unwrap();
        let (verified, found) = findings(&disk);
        assert_eq!((verified.samples, found.len()), (0, 1));
        assert_eq!(found[0].lost_ms, Some((0, 299_000)));
    }
}
