//! Servers that the bench starts itself, each in a folder of its own, and ends whatever happens.
//!
//! Always: dropping a peer ends its processes and removes its folder; a start that fails shows the end of its log.
//! Not here: what is measured.

use crate::fetch;
use shard::topology::{self, CoreId};
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) mod floor;
pub(crate) mod nginx;
pub(crate) mod ringwatch;
pub(crate) mod stores;

/// How long a peer may take to answer after its start.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long a peer may take to end when asked.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// How finely a start's time is known.
const POLL: Duration = Duration::from_millis(5);

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

/// Room for connections beyond those of a load: questions around it, and ports that are closing.
const CONNECTIONS_SPARE: u32 = 1_024;

/// How a server is started.
#[derive(Debug)]
struct Start {
    name: &'static str,
    command: Command,
    /// Ends it in order; without one it is killed.
    stop: Option<Command>,
    addr: SocketAddr,
    /// Answered with 2xx once it serves.
    ready: &'static str,
    /// To which the process is bound from outside, if it does not bind itself.
    core: Option<CoreId>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Peer {
    start: Start,
    child: Child,
    startup: Startup,
    /// Removed after the process has ended, being dropped after `drop` ran.
    folder: TempDir,
}

/// When a process was started, and how long it took to be ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Startup {
    /// Just before the process was made.
    pub begun_at: Instant,
    /// From then until the first 2xx.
    pub took: Duration,
}

impl Peer {
    /// Starts the command with its output in the folder's log, and waits until `GET ready` is answered with 2xx.
    fn start(mut start: Start, folder: TempDir) -> Result<Peer, PeerError> {
        let begun_at = Instant::now();
        let name = start.name;
        let child = start.spawn(&folder).map_err(|source| PeerError::Io { name, source })?;
        let startup = Startup { begun_at, took: Duration::ZERO };
        let mut peer = Peer { start, child, startup, folder };
        peer.wait_until_ready(START_PATIENCE)?;
        Ok(peer)
    }

    /// Kills the process as `kill -9` does. Its folder stays, for [`Peer::start_again`].
    pub(crate) fn kill(&mut self) -> Result<(), PeerError> {
        let name = self.name();
        let io = |source| PeerError::Io { name, source };
        self.child.kill().map_err(io)?;
        self.child.wait().map_err(io)?;
        Ok(())
    }

    /// Waits until a killed peer's port can be had again. The kernel takes a dead process's io_uring apart in its own
    /// time, and until then the listener that the ring holds lives on.
    pub(crate) fn wait_until_port_is_free(&self) -> Result<(), PeerError> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match TcpListener::bind(self.start.addr) {
                Ok(_) => return Ok(()),
                Err(source) if Instant::now() > deadline => {
                    return Err(PeerError::Io { name: self.name(), source });
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    /// Starts the same command on the same folder, once its process has ended; the log begins anew.
    pub(crate) fn start_again(&mut self, patience: Duration) -> Result<(), PeerError> {
        let name = self.name();
        let io = |source| PeerError::Io { name, source };
        let begun_at = Instant::now();
        self.child = self.start.spawn(&self.folder).map_err(io)?;
        self.startup = Startup { begun_at, took: Duration::ZERO };
        self.wait_until_ready(patience)
    }

    fn wait_until_ready(&mut self, patience: Duration) -> Result<(), PeerError> {
        let name = self.name();
        let deadline = self.startup.begun_at + patience;
        loop {
            if matches!(fetch::get(self.start.addr, self.start.ready), Ok((200..300, _))) {
                self.startup.took = self.startup.begun_at.elapsed();
                return Ok(());
            }
            let ended = self.child.try_wait().map_err(|source| PeerError::Io { name, source })?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(PeerError::NotServing { name, log: log_end(&self.log()) });
            }
            thread::sleep(POLL);
        }
    }

    /// How it is called in tables.
    pub(crate) fn name(&self) -> &'static str {
        self.start.name
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.start.addr
    }

    /// The process that was started; it may have children.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Of its present process.
    pub(crate) fn startup(&self) -> Startup {
        self.startup
    }

    /// The file that its present process writes to.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join(LOG)
    }

    /// Where its files lie.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the process in order. Its folder stays, for [`Peer::start_again`].
    pub(crate) fn end(&mut self, patience: Duration) -> Result<(), PeerError> {
        let name = self.name();
        let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid())]).status();
        asked.map_err(|source| PeerError::Io { name, source })?;
        match self.has_ended_within(patience) {
            true => Ok(()),
            false => Err(PeerError::NotServing { name, log: log_end(&self.log()) }),
        }
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
        if let Some(mut stop) = self.start.stop.take() {
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

impl Start {
    /// Starts the command with its output in the folder's log, which begins anew.
    fn spawn(&mut self, folder: &TempDir) -> io::Result<Child> {
        let output = fs::File::create(folder.path().join(LOG))?;
        let errors = output.try_clone()?;
        self.command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let Some(core) = self.core else { return self.command.spawn() };
        // A process inherits the cores of the thread that makes it, so a thread of that thread's own does.
        thread::scope(|scope| {
            let pinned = scope.spawn(|| match topology::pin(core) {
                true => self.command.spawn(),
                false => Err(io::Error::other(format!("core {core} is not one that may be used here"))),
            });
            pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// In the search path, or where Debian puts what only administrators call.
fn find(binary: &str) -> Option<PathBuf> {
    find_in(&std::env::var_os("PATH").unwrap_or_default(), binary)
}

fn find_in(search: &std::ffi::OsStr, binary: &str) -> Option<PathBuf> {
    let folders = std::env::split_paths(search).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(binary)).find(|binary| binary.is_file())
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

    fn start(name: &'static str, command: Command, addr: SocketAddr) -> Start {
        Start { name, command, stop: None, addr, ready: "/", core: None }
    }

    #[test]
    fn the_binary_is_searched_in_the_path_first() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("nginx"), "").unwrap();
        assert_eq!(find_in(folder.path().as_os_str(), "nginx"), Some(folder.path().join("nginx")));
        assert_eq!(find_in(folder.path().as_os_str(), "no-such-server"), None);
    }

    #[test]
    fn a_peer_is_bound_to_the_core_that_is_named() {
        let server = crate::responder::Responder::storing(0);
        let core = topology::discover().unwrap().allowed[0];
        let mut command = Command::new("sleep");
        command.arg("600");
        let start = Start { core: Some(core), ..start("sleep", command, server.addr()) };
        let peer = Peer::start(start, folder(None).unwrap()).unwrap();
        let pinned = crate::measure::process::pinned_cores(peer.pid());
        assert_eq!(pinned.into_iter().collect::<Vec<_>>(), [core.0]);
    }

    #[test]
    fn a_peer_that_ends_at_once_shows_what_it_said_and_leaves_no_folder() {
        let folder = folder(None).unwrap();
        let path = folder.path().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck; exit 1"]);
        let error = Peer::start(start("sh", command, free_addr().unwrap()), folder).unwrap_err();
        assert!(error.to_string().contains("no such luck"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_killed_peer_starts_again_on_its_folder_with_a_new_log() {
        let server = crate::responder::Responder::storing(0);
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$; exec sleep 600"]);
        let mut peer = Peer::start(start("sh", command, server.addr()), folder(None).unwrap()).unwrap();
        let (first, log) = (peer.pid(), peer.log());
        peer.kill().unwrap();
        assert!(!Path::new(&format!("/proc/{first}")).exists());
        peer.start_again(START_PATIENCE).unwrap();
        assert_ne!(first, peer.pid());
        assert_eq!(log, peer.log());
        let deadline = Instant::now() + START_PATIENCE;
        while fs::read_to_string(&log).unwrap() != format!("{}\n", peer.pid()) {
            assert!(Instant::now() < deadline, "the log is {:?}", fs::read_to_string(&log));
            thread::yield_now();
        }
    }

    #[test]
    fn dropping_a_peer_ends_its_process() {
        let server = crate::responder::Responder::storing(0);
        let mut command = Command::new("sleep");
        command.arg("600");
        let peer = Peer::start(start("sleep", command, server.addr()), folder(None).unwrap()).unwrap();
        let pid = peer.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(peer);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
