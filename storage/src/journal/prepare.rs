//! Making the files that a writer goes on in, and taking away those that nobody needs.

use super::{JournalPosition, file_path, folder};
use crate::disk::Disk;
use std::io;

/// A file that a writer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextFile {
    /// Its number.
    pub sequence: u64,
    /// Its size.
    pub bytes: u64,
}

/// A file that is on the device, full of zeros, under its name. Only [`prepare`] makes one.
#[derive(Debug)]
pub struct PreparedFile {
    pub(super) file: NextFile,
}

impl PreparedFile {
    /// Its number.
    pub fn sequence(&self) -> u64 {
        self.file.sequence
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.file.bytes
    }
}

/// Creates a journal file and writes it full of zeros, so that no later write has to grow it: on a growing
/// file a synced write costs 1.5 to 2 times as much, and a full disk would show in the middle of a frame.
///
/// # Errors
/// The disk's own; when the file does not fit ([`crate::disk::is_full`]), the part that did is removed again.
pub async fn prepare<D: Disk>(disk: &D, loop_index: u16, file: NextFile) -> io::Result<PreparedFile> {
    let folder = folder(loop_index);
    let path = file_path(loop_index, file.sequence);
    disk.create_dir(&folder).await?;
    if let Err(error) = disk.create_zeroed(&path, file.bytes).await {
        // The first error is the one to tell; whether the remains could be removed does not change it, and
        // recovery takes them for a file never begun.
        let _ = disk.remove(&path).await;
        return Err(error);
    }
    disk.sync_dir(&folder).await?;
    disk.sync_dir("journal").await?;
    disk.sync_dir("").await?;
    Ok(PreparedFile { file })
}

/// Removes the files of `sequences` that lie wholly below `below`; the file in which the position lies
/// stays. Returns those removed, oldest first.
pub async fn truncate<D: Disk>(
    disk: &D,
    loop_index: u16,
    sequences: &[u64],
    below: JournalPosition,
) -> io::Result<Vec<u64>> {
    let mut removed: Vec<u64> =
        sequences.iter().copied().filter(|sequence| *sequence < below.sequence).collect();
    removed.sort_unstable();
    for &sequence in &removed {
        match disk.remove(&file_path(loop_index, sequence)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if !removed.is_empty() {
        disk.sync_dir(&folder(loop_index)).await?;
    }
    Ok(removed)
}
