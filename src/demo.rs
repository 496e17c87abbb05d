//! `ringwatch demo`: the whole way of a sample, shown in under a minute on real readings of this machine.
//!
//! Always: it speaks to its server through the public API only; what is made up is labelled
//! `source="synthetic"`, what is read from the kernel `source="proc"`; it ends by itself and leaves nothing
//! behind unless it is asked to keep the server running.
//! Read next: `demo/readings.rs` for where the numbers come from, `demo/client.rs` for the requests.

mod client;
mod readings;

use crate::config::{Config, Sources};
use crate::console::FLUSH_PATIENCE;
use crate::launch::{self, Server};
use crate::log;
use clap::Args;
use client::Client;
use readings::Readings;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Readings before the load begins.
const CALM_READINGS: usize = 3;
/// By then the alert has fired, unless the machine gives us no processor time.
const FIRE_TIMEOUT: Duration = Duration::from_secs(60);
/// By then it has resolved: by then the loaded seconds have left the window of 60 s.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(90);
const READING_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What `ringwatch demo` takes.
#[derive(Args)]
pub struct DemoArguments {
    /// Port on loopback; a free one when not given
    #[arg(default_value_t = 0)]
    port: u16,
    /// Leave the server running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Runs the demo from start to end.
pub fn run(arguments: DemoArguments) -> Outcome<()> {
    let interrupted = watch_signals()?;
    let folder = Folder::make()?;
    let sets = vec![
        ("listen".to_owned(), format!("127.0.0.1:{}", arguments.port)),
        ("data_dir".to_owned(), folder.0.display().to_string()),
    ];
    let config = Config::load(&Sources { sets, ..Sources::default() })?;
    let server = launch::start(config)?;
    let replay_time = server.wait_until_ready()?;
    log::say(format_args!("{}", server.banner(replay_time)));

    let result = show(&server, &interrupted);
    if arguments.keep && result.is_ok() {
        log::say(format_args!("\nThe server goes on at http://{}; Ctrl-C ends it.\n", server.address()));
        let feeder = Feeder::start(server.address().port());
        while !interrupted.load(Ordering::Relaxed) {
            sleep(LOOK_EVERY);
        }
        feeder.stop();
    }
    server.shared.stop();
    let console = server.shared.console.clone();
    let stopped = server.wait_until_stopped();
    console.finish(FLUSH_PATIENCE);
    stopped?;
    result
}

/// Set once the demo is to end early: then it still stops its server and clears up.
fn watch_signals() -> std::io::Result<Arc<AtomicBool>> {
    let mut signals = shard::signal::Signals::catch()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = interrupted.clone();
    std::thread::spawn(move || {
        signals.wait();
        told.store(true, Ordering::Relaxed);
    });
    Ok(interrupted)
}

/// A folder for the data that is gone when the demo is.
struct Folder(PathBuf);

impl Folder {
    fn make() -> std::io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("ringwatch-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left in the folder for temporary files, it is the system's to clear.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn show(server: &Server, interrupted: &AtomicBool) -> Outcome<()> {
    let port = server.address().port();
    let mut client = Client::connect(port)?;
    heading("An hour of history, so that there is something to see (synthetic, and labelled so)");
    write_history(&mut client)?;
    heading("Real readings of this machine, one a second: processor, memory, disk, network");
    let feeder = Feeder::start(port);
    wait_for(interrupted, Duration::from_secs(10), "reading", || feeder.taken() >= CALM_READINGS);
    show_queries(&mut client)?;

    heading("All cores are loaded until cpu_usage averages above 80 over 60 s");
    let load = Load::start();
    let fired =
        wait_for(interrupted, FIRE_TIMEOUT, "loading, the alert comes from the server itself", || {
            client.rules_firing().is_ok_and(|firing| firing > 0)
        });
    load.stop();
    if !fired {
        feeder.stop();
        stop_if(interrupted)?;
        return Err(format!(
            "the alert did not fire within {} s: this machine gave the load too little processor time; run it again \
             when less else wants the processors",
            FIRE_TIMEOUT.as_secs()
        )
        .into());
    }
    heading("The load has stopped; now the average has to come back");
    let resolved = wait_for(interrupted, RESOLVE_TIMEOUT, "waiting for the alert to resolve", || {
        client.rules_firing().is_ok_and(|firing| firing == 0)
    });
    feeder.stop();
    if !resolved {
        stop_if(interrupted)?;
        return Err(format!(
            "all was shown but the last step: the alert did not resolve within {} s, so something else keeps this \
             machine above 80 %; see what with `top`, and run it again when it is done",
            RESOLVE_TIMEOUT.as_secs()
        )
        .into());
    }
    show_queries(&mut client)?;
    log::say(format_args!("\n{}\n", client.get("/health")?));
    Ok(())
}

fn stop_if(interrupted: &AtomicBool) -> Outcome<()> {
    if interrupted.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
}

fn heading(text: &str) {
    log::say(format_args!("\n── {text}\n"));
}

/// Polls until `done`, with a line that moves where somebody looks; false when the time is up.
fn wait_for(interrupted: &AtomicBool, timeout: Duration, what: &str, mut done: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    let is_watched = std::io::stderr().is_terminal();
    let mut finished = done();
    while !finished && begun.elapsed() < timeout && !interrupted.load(Ordering::Relaxed) {
        if is_watched {
            eprint!("\r   {what} … {} s ", begun.elapsed().as_secs());
            // Only for the eye.
            let _ = std::io::stderr().flush();
        }
        sleep(LOOK_EVERY);
        finished = done();
    }
    if is_watched {
        eprint!("\r{:80}\r", "");
    }
    finished
}

/// A reading every ten seconds for the hour that ended when the longest rule's window began, so that no
/// made-up value takes part in an alert.
fn write_history(client: &mut Client) -> Outcome<()> {
    let end_ms = shard::clock::unix_millis() - 61_000;
    let mut members = Vec::new();
    for step in 0..360i64 {
        let timestamp = end_ms - (359 - step) * 10_000;
        let swing = (step as f64 / 30.0).sin();
        for (name, value) in [("cpu_usage", 35.0 + 25.0 * swing), ("memory_usage", 55.0 + 3.0 * swing)] {
            members.push(format!(
                r#"{{"name":"{name}","value":{value:.2},"timestamp":{timestamp},"labels":{{"source":"synthetic"}}}}"#
            ));
        }
    }
    let answer = client.post("/metrics", &format!(r#"{{"metrics":[{}]}}"#, members.join(",")))?;
    log::say(format_args!("   POST /metrics  {answer}\n"));
    Ok(())
}

fn show_queries(client: &mut Client) -> Outcome<()> {
    let now_ms = shard::clock::unix_millis();
    for target in [
        format!("/query?name=cpu_usage&start={}&match={{source=\"proc\"}}&limit=3", now_ms - 60_000),
        "/percentile?name=cpu_usage&percentile=50".to_owned(),
        "/percentile?name=cpu_usage&percentile=99".to_owned(),
    ] {
        log::say(format_args!("   GET {target}\n       {}\n", client.get(&client::escaped(&target))?));
    }
    log::say(format_args!(
        "   cpu_usage, the last hour: {}\n",
        client.graph("cpu_usage", now_ms - 3_600_000, now_ms)?
    ));
    Ok(())
}

/// Sends a reading every second until it is told to stop.
struct Feeder {
    stop: Arc<AtomicBool>,
    taken: Arc<std::sync::atomic::AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Feeder {
    fn start(port: u16) -> Feeder {
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (stopped, count) = (stop.clone(), taken.clone());
        let thread = std::thread::spawn(move || {
            let Ok(mut client) = Client::connect(port) else { return };
            let mut readings = Readings::begin();
            while !stopped.load(Ordering::Relaxed) {
                sleep(READING_EVERY);
                // A reading that is refused is one the graph lacks; the next comes in a second.
                if client.post("/metrics", &readings.next_body()).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Feeder { stop, taken, thread }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A feeder that panicked has printed why; the demo's result does not hang on it.
        let _ = self.thread.join();
    }
}

/// One busy thread per core.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..cores).map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        });
        Load { threads: threads.collect(), stop }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // It only counts time; it cannot fail.
            let _ = thread.join();
        }
    }
}
