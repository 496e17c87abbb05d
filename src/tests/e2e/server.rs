//! A server process of one test: started light, on a free port, ended by its process id when it goes.

use crate::client::{self, Answer, Client};
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take that will surely happen.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Small journal files and bodies keep a start light.
const LIGHT: [&str; 4] = ["--set", "storage.journal_file_bytes=4MiB", "--set", "http.body_bytes_max=1MiB"];

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    output: Lines,
    errors: Lines,
}

/// How a server ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub errors: String,
}

impl Ended {
    /// The kernel had no room for a ring; glommio says it of the second call of a ring's making in its own way.
    fn found_no_locked_memory(&self) -> bool {
        ["Cannot allocate memory (os error 12)", "Failed to register a probe"]
            .iter()
            .any(|told| self.errors.contains(told))
    }
}

impl Server {
    /// Starts with one shard, waits until it is ready. `arguments` come last, so they win.
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Server {
        let mut all = vec!["--set", "shards=1"];
        all.extend_from_slice(arguments);
        Server::spawn(command(data_dir, &all))
    }

    /// Runs a command that becomes a server, and waits until it is ready.
    pub fn spawn(command: Command) -> Server {
        Server::try_spawn(command).unwrap_or_else(|ended| panic!("no start: {ended:?}"))
    }

    /// Runs a command that becomes a server, or ends.
    ///
    /// The rings of all processes of an ordinary user count against one limit of locked memory, those of a server
    /// killed a moment ago among them: a start that finds it spent by other tests' servers is tried again.
    pub fn try_spawn(mut command: Command) -> Result<Server, Ended> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Server::spawn_once(&mut command) {
                Err(ended) if ended.found_no_locked_memory() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                tried => return tried,
            }
        }
    }

    fn spawn_once(command: &mut Command) -> Result<Server, Ended> {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.expect("the binary was built with this test");
        let output = Lines::of(child.stdout.take().expect("piped above"));
        let errors = Lines::of(child.stderr.take().expect("piped above"));
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { address: unknown, child, output, errors };
        let url = server.output.wait_for(|line| line.split_once(" on http://").map(|(_, at)| at.to_owned()));
        match url.and_then(|at| at.parse().ok()) {
            Some(address) => {
                server.address = address;
                Ok(server)
            }
            None => Err(server.wait()),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// One `GET` on a connection of its own.
    pub fn get(&self, target: &str) -> Answer {
        client::get(self.address, target)
    }

    /// One body of metrics on a connection of its own, which must be accepted.
    pub fn accept(&self, body: &str) {
        let answer = client::post(self.address, body);
        assert_eq!(answer.status, 202, "{body} → {}", answer.body);
    }

    /// What it printed so far, by line.
    pub fn printed(&self) -> Vec<String> {
        self.output.so_far()
    }

    /// What it reported on standard error so far, by line.
    pub fn reported(&self) -> Vec<String> {
        self.errors.so_far()
    }

    /// Waits until it has printed a line that `of` takes.
    pub fn wait_for_line<T>(&self, of: impl Fn(&str) -> Option<T>) -> T {
        self.output.wait_for(of).unwrap_or_else(|| {
            panic!("the line did not come; printed: {:#?}, reported: {:#?}", self.printed(), self.reported())
        })
    }

    /// Waits until it has reported a line with `part` on standard error, which comes by a way of its own: what was
    /// reported before something was printed may be read after it.
    pub fn wait_for_report(&self, part: &str) {
        let found = self.errors.wait_for(|line| line.contains(part).then_some(()));
        found.unwrap_or_else(|| panic!("{part:?} was not reported: {:#?}", self.reported()));
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status: ExitStatus = poll_until(deadline, || self.child.try_wait().expect("our own child"));
        let errors = self.errors.all_until_end().join("\n");
        Ended { code: status.code(), errors }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The binary with a light configuration; `arguments` come last, so they win.
pub fn command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = bare_command();
    let data_dir = data_dir.to_str().expect("a temporary directory has a plain name");
    command.args(["--set", "listen=127.0.0.1:0", "--set", &format!("data_dir={data_dir}")]);
    command.args(LIGHT).args(arguments);
    command
}

/// The binary, without what the environment of the test would set.
pub fn bare_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwatch"));
    for (name, _) in std::env::vars() {
        if name.starts_with("RINGWATCH_") {
            command.env_remove(name);
        }
    }
    command
}

/// A start that must fail.
pub fn ends(command: Command) -> Ended {
    match Server::try_spawn(command) {
        Ok(server) => panic!("it started: {:#?}", server.printed()),
        Err(ended) => ended,
    }
}

/// Sends a signal by its name to one process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(sent.expect("every system has a shell").success(), "kill -{name} {pid}");
}

/// Waits for a child that was told to end.
pub fn wait_child(child: &mut Child) -> ExitStatus {
    poll(|| child.try_wait().expect("our own child"))
}

/// Files in a folder of a data directory; none where there is no such folder.
pub fn files(data_dir: &Path, folder: &str) -> usize {
    std::fs::read_dir(data_dir.join(folder)).map_or(0, Iterator::count)
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as i64
}

impl Server {
    /// The sum of one of its own metrics over all shards, of the series with that label alone where one is named.
    pub fn counted(&self, name: &str, label: &str) -> u64 {
        let page = self.get("/metrics").body;
        let series = format!("ringwatch_{name}{{");
        let lines = page.lines().filter(|line| line.starts_with(&series) && line.contains(label));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

/// Asks again until there is an answer.
pub fn poll<T>(ask: impl FnMut() -> Option<T>) -> T {
    poll_until(Instant::now() + PATIENCE, ask)
}

fn poll_until<T>(deadline: Instant, mut ask: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it did not happen in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a process writes, kept by line as it comes.
struct Lines {
    shared: Arc<(Mutex<Written>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let shared = Arc::new((Mutex::new(Written::default()), Condvar::new()));
        let theirs = shared.clone();
        let reader = std::thread::spawn(move || {
            let (written, changed) = &*theirs;
            for line in BufReader::new(pipe).lines() {
                // Bytes that are no text would be a finding of their own: they come as an error and end it.
                let Ok(line) = line else { break };
                written.lock().unwrap().lines.push(line);
                changed.notify_all();
            }
            written.lock().unwrap().ended = true;
            changed.notify_all();
        });
        Lines { shared, reader: Some(reader) }
    }

    fn so_far(&self) -> Vec<String> {
        self.shared.0.lock().unwrap().lines.clone()
    }

    /// None when the stream ended, or patience did, before the line came.
    fn wait_for<T>(&self, of: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (written, changed) = &*self.shared;
        let deadline = Instant::now() + PATIENCE;
        let mut written = written.lock().unwrap();
        let mut seen = 0;
        loop {
            if let Some(found) = written.lines[seen..].iter().find_map(|line| of(line)) {
                return Some(found);
            }
            seen = written.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if written.ended || left.is_zero() {
                return None;
            }
            written = changed.wait_timeout(written, left).unwrap().0;
        }
    }

    fn all_until_end(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.so_far()
    }
}
