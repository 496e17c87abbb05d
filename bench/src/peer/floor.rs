//! The floor as a peer: this very program, answering on one core.

use super::{Peer, PeerError, Start, folder, free_addr};
use shard::topology::CoreId;
use std::process::Command;

const NAME: &str = "floor";

/// Starts it on a core and waits until it answers.
pub(crate) fn start(core: CoreId, connections: u32) -> Result<Peer, PeerError> {
    let io = |source| PeerError::Io { name: NAME, source };
    let addr = free_addr().map_err(io)?;
    let mut command = Command::new(std::env::current_exe().map_err(io)?);
    command.arg("floor").arg(addr.port().to_string()).args(["--core", &core.to_string()]);
    command.args(["--connections-max", &connections.saturating_add(super::CONNECTIONS_SPARE).to_string()]);
    let start = Start { name: NAME, command, stop: None, addr, ready: "/", core: None };
    Peer::start(start, folder(None).map_err(io)?)
}
