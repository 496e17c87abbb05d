//! Our own server as a peer: one shard on one core where one is named, data in a folder that is removed afterwards.

use super::{Peer, PeerError, Start, folder, free_addr};
use crate::plan::Durability;
use shard::topology::CoreId;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "ringwatch";

/// How it is started.
#[derive(Clone, Debug)]
pub(crate) struct Ringwatch {
    /// The binary.
    pub binary: PathBuf,
    /// Its one core; without one it has shards and cores as it finds them.
    pub core: Option<CoreId>,
    /// What it promises where a request asks for nothing; its own default without one.
    pub durability: Option<Durability>,
    /// Below which its data goes; the disk below it decides what `synced` costs.
    pub data_parent: Option<PathBuf>,
    /// Further settings, `KEY=VALUE`.
    pub sets: Vec<String>,
}

impl Ringwatch {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Result<Peer, PeerError> {
        if !self.binary.is_file() {
            return Err(PeerError::Missing {
                name: NAME,
                hint: format!(
                    "build {} with `cargo build --release`, or name it by --ringwatch",
                    self.binary.display()
                ),
            });
        }
        let io = |source| PeerError::Io { name: NAME, source };
        let folder = folder(self.data_parent.as_deref()).map_err(io)?;
        let addr = free_addr().map_err(io)?;
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--listen", &addr.to_string()]);
        let mut settings = vec![format!("data_dir={}", folder.path().join("data").display())];
        if let Some(core) = self.core {
            settings.extend(["shards=1".to_owned(), format!("cores={core}")]);
        }
        settings.extend(self.durability.map(|level| format!("ingest.durability={}", level.name())));
        for setting in settings.iter().chain(&self.sets) {
            command.args(["--set", setting]);
        }
        Peer::start(Start { name: NAME, command, stop: None, addr, ready: "/-/ready", core: None }, folder)
    }
}

/// The release binary beside this one.
pub(crate) fn default_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or(Path::new("target/release")).join("ringwatch")
}
