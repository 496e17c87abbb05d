//! How many syncs a device takes when N journals are synced at the same time, each by its own shard: whether the kernel
//! and the device let several share one flush.

use super::Effort;
use crate::figures::Quantiles;
use crate::load::{Latencies, latencies};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What one sync covers: a page, in a file that was written and synced before, as a journal's is.
const BYTES: usize = 4096;
const FILE_BYTES: usize = 1 << 20;

/// As many files on one device.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct OfFiles {
    pub files: usize,
    /// Of all files together.
    pub syncs_per_s: f64,
    /// Of one write and its sync.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
}

/// Writes a page into each file and syncs it, again and again; the round with most syncs. The files are gone afterwards.
pub(super) fn measure(files: usize, folder: &Path, effort: &Effort) -> io::Result<OfFiles> {
    let folder = tempfile::Builder::new().prefix("ringwatch-bench-").tempdir_in(folder)?;
    let prepare = |number: usize| {
        let path = folder.path().join(number.to_string());
        let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
        file.write_all(&vec![0; FILE_BYTES])?;
        file.sync_all()?;
        io::Result::Ok(file)
    };
    let prepared: Vec<File> = (0..files).map(prepare).collect::<Result<_, _>>()?;
    let mut best = round(&prepared, effort.time)?;
    for _ in 1..effort.timed_rounds {
        let other = round(&prepared, effort.time)?;
        if other.syncs_per_s > best.syncs_per_s {
            best = other;
        }
    }
    Ok(best)
}

fn round(prepared: &[File], time: Duration) -> io::Result<OfFiles> {
    let mut all = latencies();
    let begun_at = Instant::now();
    thread::scope(|scope| {
        let sync_on = |file| scope.spawn(move || sync_again_and_again(file, begun_at, time));
        let threads: Vec<_> = prepared.iter().map(sync_on).collect();
        for thread in threads {
            let took = thread.join().expect("a thread that syncs does not panic")?;
            all.add(took).expect("all have the same bounds");
        }
        io::Result::Ok(())
    })?;
    let seconds = begun_at.elapsed().as_secs_f64();
    let quantiles = Quantiles::of(&all);
    Ok(OfFiles {
        files: prepared.len(),
        syncs_per_s: all.len() as f64 / seconds,
        p50_us: quantiles.map(|quantiles| quantiles.p50),
        p99_us: quantiles.map(|quantiles| quantiles.p99),
    })
}

fn sync_again_and_again(mut file: &File, begun_at: Instant, time: Duration) -> io::Result<Latencies> {
    let mut took = latencies();
    let mut page = 0;
    loop {
        let at = Instant::now();
        file.seek(SeekFrom::Start((page * BYTES) as u64))?;
        file.write_all(&[b'x'; BYTES])?;
        file.sync_data()?;
        took.saturating_record(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX));
        page = (page + 1) % (FILE_BYTES / BYTES);
        if begun_at.elapsed() >= time {
            return Ok(took);
        }
    }
}
