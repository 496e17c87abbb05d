//! Why a server did not start, each cause with what mends it.

use crate::reshard::ReshardError;
use shard::executor::ExecutorError;
use shard::file::LockError;
use shard::net::NetError;
use shard::probe::ProbeError;
use shard::topology::TopologyError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use storage::checkpoint::CheckpointError;
use storage::journal::{RecoverError, ReplayError};
use storage::manifest::ManifestError;

/// Why the server did not start, or did not end well.
#[derive(Debug)]
pub enum LaunchError {
    /// The kernel or the limits lack something.
    System(ProbeError),
    /// The shards cannot be laid out as asked.
    Topology(TopologyError),
    /// The data directory cannot be made, read or written.
    DataDirectory { path: PathBuf, cause: io::Error },
    /// There is a file where the data directory, or a folder above it, would be.
    NotADirectory { path: PathBuf },
    /// The data directory holds something else.
    Foreign { path: PathBuf, name: String },
    /// Somebody else has the data directory.
    Locked(LockError),
    /// The port is taken, or the address is not this machine's.
    Listen { address: SocketAddr, cause: NetError },
    /// The manifest cannot be used.
    Manifest(ManifestError),
    /// A journal cannot be used.
    Journal(RecoverError),
    /// A checkpoint cannot be used.
    Checkpoint(CheckpointError),
    /// A journal could not be replayed.
    Replay(ReplayError),
    /// The move to another number of shards failed; the directory is as it was.
    Reshard(ReshardError),
    /// A loop ended early.
    Loop { index: usize, cause: String },
    /// An executor did not start or ended early.
    Executor { index: usize, cause: ExecutorError },
    /// An executor gave up.
    Store { index: usize, cause: String },
    /// Signals or wake-ups cannot be had.
    Os(io::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::System(error) => error.fmt(f),
            LaunchError::Topology(error) => error.fmt(f),
            LaunchError::DataDirectory { path, cause } if storage::disk::is_full(cause) => {
                write!(
                    f,
                    "cannot use the data directory {}: {cause}; free some space there, even a start writes a few bytes",
                    path.display()
                )
            }
            LaunchError::DataDirectory { path, cause } => write!(
                f,
                "cannot use the data directory {}: {cause}; make it writable, or choose another with --set data_dir=…",
                path.display()
            ),
            LaunchError::NotADirectory { path } => write!(
                f,
                "cannot use the data directory {}: it, or what it would lie in, is a file and not a directory; choose \
                 another with --set data_dir=…",
                path.display()
            ),
            LaunchError::Foreign { path, name } => write!(
                f,
                "{} is not a ringwatch data directory: it holds {name:?} and no MANIFEST; choose an empty one with \
                 --set data_dir=…",
                path.display()
            ),
            LaunchError::Locked(error) => error.fmt(f),
            LaunchError::Listen { address, cause } => match std::error::Error::source(cause)
                .and_then(|source| source.downcast_ref::<io::Error>())
                .map(io::Error::kind)
            {
                Some(io::ErrorKind::AddrInUse) => write!(
                    f,
                    "port {} is in use: stop who has it, or choose another port with `ringwatch PORT` or --listen {}:PORT",
                    address.port(),
                    address.ip()
                ),
                _ => write!(f, "{cause}; choose another address with --listen"),
            },
            LaunchError::Manifest(error) => error.fmt(f),
            LaunchError::Journal(RecoverError::Damaged(damage)) => write!(
                f,
                "{damage}\nThe samples in it cannot be read back. To start with everything that is intact: \
                 --set storage.on_damage=skip"
            ),
            LaunchError::Journal(error) => error.fmt(f),
            LaunchError::Checkpoint(error @ CheckpointError::Damaged { .. }) => write!(
                f,
                "{error}\nThe samples in it cannot be read back. To start with everything that is intact: \
                 --set storage.on_damage=skip"
            ),
            LaunchError::Checkpoint(error) => error.fmt(f),
            LaunchError::Replay(error) => error.fmt(f),
            LaunchError::Reshard(error) => error.fmt(f),
            LaunchError::Loop { index, cause } => write!(f, "the I/O loop of shard {index}: {cause}"),
            LaunchError::Executor { index, cause } => write!(f, "the executor of shard {index}: {cause}"),
            LaunchError::Store { index, cause } => write!(f, "the store of shard {index}: {cause}"),
            LaunchError::Os(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LaunchError {}
