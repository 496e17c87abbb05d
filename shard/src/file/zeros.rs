//! Writing a new file full of zeros without a copy of each: from one buffer to the device, past the page cache.
//!
//! ```text
//!   whole blocks                     direct, where the file system takes that
//!   what is left, or else the whole  through the page cache
//! ```
//!
//! Through the page cache 64 MiB of zeros cost 27 to 52 ms of a core, directly 5; the writes that follow find no pages
//! there and pay 4 ms of it again (16 to 64 KiB each, ext4). Under batches a tenth of the server went there.

use super::{ExecutorFile, REQUEST_BYTES_MAX, io_error};
use glommio::io::OpenOptions;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// Fills the empty file at `path`, which `file` has open, with so many zeros.
pub(super) async fn fill(path: &Path, file: &ExecutorFile, bytes: u64) -> io::Result<()> {
    let mut position = match fill_directly(path, bytes).await {
        // What a file system says that knows no direct I/O, or wants it aligned in another way.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => 0,
        direct => direct?,
    };
    let zeros = vec![0; (bytes - position).min(REQUEST_BYTES_MAX as u64) as usize];
    while position < bytes {
        let step = &zeros[..zeros.len().min((bytes - position) as usize)];
        file.write_at(position, step).await?;
        position += step.len() as u64;
    }
    Ok(())
}

/// Writes as many of them as fill whole blocks of the device; says how many.
async fn fill_directly(path: &Path, bytes: u64) -> io::Result<u64> {
    let file = OpenOptions::new().write(true).dma_open(path).await.map_err(io_error)?;
    let whole = file.align_down(bytes);
    let mut zeros = file.alloc_dma_buffer(whole.min(REQUEST_BYTES_MAX as u64) as usize);
    zeros.as_bytes_mut().fill(0);
    let mut zeros = Rc::new(zeros);
    let mut position = 0;
    while position < whole {
        if whole - position < zeros.len() as u64 {
            let mut rest = file.alloc_dma_buffer((whole - position) as usize);
            rest.as_bytes_mut().fill(0);
            zeros = Rc::new(rest);
        }
        let count = file.write_rc_at(zeros.clone(), position).await.map_err(io_error)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "the file takes no more bytes"));
        }
        position += count as u64;
    }
    file.close().await.map_err(io_error)?;
    Ok(whole)
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
        for place in [Path::new("/dev/shm"), built.parent().unwrap()] {
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
