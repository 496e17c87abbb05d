//! Servers that the bench starts itself, each in a folder of its own, and ends whatever happens.
//!
//! Always: dropping a peer ends its processes and removes its folder; a start that fails shows the end of its log.
//! Not here: what is measured.

use crate::fetch;
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) mod nginx;
pub(crate) mod ringwatch;

/// How long a peer may take to answer after its start.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long a peer may take to end when asked.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

const POLL: Duration = Duration::from_millis(20);

const LOG: &str = "output.log";

/// Lines of the log that an error shows.
const LOG_LINES: usize = 12;

/// Why a peer does not serve.
#[derive(Debug)]
pub(crate) enum PeerError {
    /// Its binary is nowhere.
    Missing {
        /// Which.
        name: &'static str,
        /// What to do about it.
        hint: String,
    },
    /// No folder, port or process for it.
    Io {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It ended, or did not answer in time.
    NotServing {
        /// Which.
        name: &'static str,
        /// The end of what it said.
        log: String,
    },
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::Missing { name, hint } => write!(f, "{name} is not to be found: {hint}"),
            PeerError::Io { name, source } => write!(f, "{name} could not be started: {source}"),
            PeerError::NotServing { name, log } => write!(f, "{name} does not serve; it said:\n{log}"),
        }
    }
}

impl std::error::Error for PeerError {}

/// A running server.
#[derive(Debug)]
pub(crate) struct Peer {
    name: &'static str,
    child: Child,
    addr: SocketAddr,
    /// Ends it in order; without one it is killed.
    stop: Option<Command>,
    /// Removed after the process has ended, being dropped after `drop` ran.
    _folder: TempDir,
}

impl Peer {
    /// Starts the command with its output in the folder's log, and waits until `GET ready` is answered with 200.
    fn start(
        name: &'static str,
        mut command: Command,
        stop: Option<Command>,
        addr: SocketAddr,
        ready: &str,
        folder: TempDir,
    ) -> Result<Peer, PeerError> {
        let io = |source| PeerError::Io { name, source };
        let log = folder.path().join(LOG);
        let output = fs::File::create(&log).map_err(io)?;
        let errors = output.try_clone().map_err(io)?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().map_err(io)?;
        let mut peer = Peer { name, child, addr, stop, _folder: folder };
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if matches!(fetch::get(addr, ready), Ok((200, _))) {
                return Ok(peer);
            }
            let has_ended = peer.child.try_wait().map_err(io)?.is_some();
            if has_ended || Instant::now() > deadline {
                return Err(PeerError::NotServing { name, log: log_end(&log) });
            }
            thread::sleep(POLL);
        }
    }

    /// How it is called in tables.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The process that was started; it may have children.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn has_ended_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(mut stop) = self.stop.take() {
            let asked = stop.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            if asked.is_ok() && self.has_ended_within(STOP_PATIENCE) {
                return;
            }
        }
        // Either fails only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of loopback that was free a moment ago.
fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A folder for one peer, below `parent` or where the system keeps such things.
fn folder(parent: Option<&Path>) -> io::Result<TempDir> {
    let parent: PathBuf = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    tempfile::Builder::new().prefix("ringwatch-bench-").tempdir_in(parent)
}

fn log_end(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_ends_at_once_shows_what_it_said_and_leaves_no_folder() {
        let folder = folder(None).unwrap();
        let path = folder.path().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck; exit 1"]);
        let error = Peer::start("sh", command, None, free_addr().unwrap(), "/", folder).unwrap_err();
        assert!(error.to_string().contains("no such luck"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn dropping_a_peer_ends_its_process() {
        let server = crate::responder::Responder::storing(0);
        let mut command = Command::new("sleep");
        command.arg("600");
        let peer = Peer::start("sleep", command, None, server.addr(), "/", folder(None).unwrap()).unwrap();
        let pid = peer.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(peer);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
