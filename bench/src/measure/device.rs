//! What the device itself takes to keep 4 KiB: what `synced` has to be compared with.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

/// Writes of a measurement; the median tells.
const WRITES: usize = 200;

/// One write, as large as a page.
const BYTES: [u8; 4096] = [b'x'; 4096];

/// Microseconds of one 4 KiB append and its sync in a file of that folder, the median of 200. The file is gone
/// afterwards.
pub(crate) fn sync_us(folder: &Path) -> io::Result<f64> {
    let folder = tempfile::Builder::new().prefix("ringwatch-bench-").tempdir_in(folder)?;
    let mut file = OpenOptions::new().create_new(true).append(true).open(folder.path().join("synced"))?;
    let mut took_us = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let begun_at = Instant::now();
        file.write_all(&BYTES)?;
        file.sync_data()?;
        took_us.push(begun_at.elapsed().as_secs_f64() * 1e6);
    }
    Ok(crate::figures::median(took_us).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        assert!(sync_us(folder.path()).unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(sync_us(&folder.path().join("nowhere")).is_err());
    }
}
