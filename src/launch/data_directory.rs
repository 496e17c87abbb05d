//! The data directory, before anything is laid in it.
//!
//! Always: a directory that holds something else stays as it is.

use super::LaunchError;
use shard::file::LOCK_FILE_NAME;
use std::io;
use std::path::{Path, PathBuf};
use storage::checkpoint::CHECKPOINTS_FOLDER;
use storage::manifest::{MANIFEST_FILE, MANIFEST_FILE_NEXT};
use storage::segment::SEGMENTS_FOLDER;
use storage::snapshot::SNAPSHOTS_FOLDER;

/// Names that may lie in a data directory.
const OUR_NAMES: [&str; 9] = [
    LOCK_FILE_NAME,
    MANIFEST_FILE,
    MANIFEST_FILE_NEXT,
    "alerts",
    "journal",
    SEGMENTS_FOLDER,
    CHECKPOINTS_FOLDER,
    SNAPSHOTS_FOLDER,
    "lost+found",
];

/// Makes it if need be, and looks at what lies in it: one of ours, or nothing.
pub(super) fn make(path: &Path) -> Result<PathBuf, LaunchError> {
    let failed = |cause| LaunchError::DataDirectory { path: path.into(), cause };
    std::fs::create_dir_all(path).map_err(|cause| match cause.kind() {
        // The kernel says of a file in the directory's place that it exists.
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            LaunchError::NotADirectory { path: path.into() }
        }
        _ => failed(cause),
    })?;
    let path = path.canonicalize().map_err(failed)?;
    let mut foreign = None;
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name == MANIFEST_FILE {
            return Ok(path);
        }
        if !OUR_NAMES.contains(&name.as_str()) {
            foreign = Some(name);
        }
    }
    match foreign {
        None => Ok(path),
        Some(name) => Err(LaunchError::Foreign { path, name }),
    }
}
