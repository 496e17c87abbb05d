//! Who runs where, chosen alike for every subcommand that starts a ringwatch of its own, and where the record goes.

use crate::peer::ringwatch::{self, Ringwatch};
use crate::plan::Durability;
use clap::Args;
use shard::topology::{self, CoreId};
use std::path::{Path, PathBuf};

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct Setup {
    /// The release binary (default: beside this one)
    #[arg(long, value_name = "FILE")]
    ringwatch: Option<PathBuf>,
    /// Core for the server
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core for the generator (default: the last one allowed)
    #[arg(long)]
    core: Option<usize>,
    /// Append the figures, machine, date, commit and command as one line
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Setup {
    /// The server's program.
    pub(crate) fn binary(&self) -> PathBuf {
        self.ringwatch.clone().unwrap_or_else(ringwatch::default_binary)
    }

    /// The server's core.
    pub(crate) fn server_core(&self) -> CoreId {
        CoreId(self.server_core)
    }

    /// A server on its core, with its data below that folder, or below the temporary one.
    pub(crate) fn ours(
        &self,
        durability: Option<Durability>,
        data_parent: Option<&Path>,
        sets: Vec<String>,
    ) -> Ringwatch {
        Ringwatch {
            binary: self.binary(),
            core: Some(self.server_core()),
            durability,
            data_parent: data_parent.map(Path::to_owned),
            sets,
        }
    }

    /// The generator's core; none where the machine does not tell its cores.
    pub(crate) fn generator_core(&self) -> Option<usize> {
        self.core.or_else(default_core)
    }

    /// Refuses a comparison of costs on a core that both would burn.
    pub(crate) fn cores_apart(&self) -> Result<(), &'static str> {
        if self.generator_core() == Some(self.server_core) {
            return Err("generator and server would share a core: choose another --core or --server-core");
        }
        Ok(())
    }
}

/// The generator's core when none is named: the last one allowed.
pub(crate) fn default_core() -> Option<usize> {
    topology::discover().ok()?.allowed.last().map(|core| core.0)
}
