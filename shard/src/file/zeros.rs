//! Writing a new file full of zeros without a copy of each: from one buffer to the device, past the page cache.
//!
//! ```text
//!   whole blocks                     direct, where the file system takes that
//!   what is left, or else the whole  through the page cache
//! ```
//!
//! Through the page cache 64 MiB of zeros cost 27 to 52 ms of a core, directly 5; the writes that follow find no pages
//! there and pay 4 ms of it again (16 to 64 KiB each, ext4). Under batches a tenth of the server went there.

use super::{ExecutorFile, REQUEST_BYTES_MAX, named};
use crate::{executor::blocking, sys::direct};
use std::{
    io::{self, ErrorKind, Write},
    path::Path,
};

/// What any device is content with, for positions, lengths and memory.
const ALIGNMENT: usize = 4096;
const _: () = assert!(REQUEST_BYTES_MAX.is_multiple_of(ALIGNMENT));

/// Fills the empty file at `path`, which `file` has open, with so many zeros.
pub(super) async fn fill(path: &Path, file: &ExecutorFile, bytes: u64) -> io::Result<()> {
    let direct = path.to_owned();
    let mut position =
        blocking(move || fill_directly(&direct, bytes).map_err(|error| named("writing", &direct, error)))
            .await??;
    let zeros = vec![0; (bytes - position).min(REQUEST_BYTES_MAX as u64) as usize];
    while position < bytes {
        let step = &zeros[..zeros.len().min((bytes - position) as usize)];
        file.write_at(position, step).await?;
        position += step.len() as u64;
    }
    Ok(())
}

/// Writes as many of them as fill whole blocks, and says how many. None, or only the first of them, where the file system
/// has no such way.
fn fill_directly(path: &Path, bytes: u64) -> io::Result<u64> {
    let whole = bytes - bytes % ALIGNMENT as u64;
    let longest = whole.min(REQUEST_BYTES_MAX as u64) as usize;
    let memory = vec![0_u8; longest + ALIGNMENT];
    let aligned = memory.as_ptr().align_offset(ALIGNMENT);
    let zeros = &memory[aligned..aligned + longest];
    let mut position = 0;
    let mut write_all = || -> io::Result<()> {
        let mut file = direct::open(path)?;
        while position < whole {
            let step = zeros.len().min((whole - position) as usize);
            file.write_all(&zeros[..step])?;
            position += step as u64;
        }
        Ok(())
    };
    match write_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {}
        result => result?,
    }
    Ok(position)
}

#[cfg(test)]
mod tests {
    use crate::executor::tests::on_executor;
    use crate::file::{Directory, REQUEST_BYTES_MAX};
    use std::path::Path;

    /// Shorter than a block, some blocks, longer than a request and no multiple of anything; over what was there.
    /// Method: in a folder in memory, and beside the test's program, most likely on a disk.
    #[test]
    fn a_file_of_zeros_has_its_length_and_nothing_else_in_it() {
        let built = std::env::current_exe().unwrap();
        let places = [Path::new("/dev/shm"), built.parent().unwrap()];
        for place in places.into_iter().filter(|place| place.is_dir()) {
            let folder = tempfile::tempdir_in(place).unwrap();
            let root = folder.path().to_path_buf();
            on_executor(|| async move {
                let disk = Directory::new(root);
                for bytes in [0, 1, 4095, 3 * 4096, REQUEST_BYTES_MAX + 4096, 2 * REQUEST_BYTES_MAX + 12_345]
                {
                    disk.create("zeros").await.unwrap().write_at(0, &[7; 9_000]).await.unwrap();
                    disk.create_zeroed("zeros", bytes as u64).await.unwrap();
                    let read = disk.open("zeros").await.unwrap().read_at(0, bytes + 9_000).await.unwrap();
                    assert!(read.len() == bytes && read.iter().all(|byte| *byte == 0), "{bytes}");
                }
            });
        }
    }
}
