//! `bench syscalls`: system calls per request at saturation, counted in more than one way.
//!
//! The server's own counters cost nothing and see what it counts; perf sees every call of every thread. So does strace,
//! which stops the server at each call and keeps it from saturation: it stands in only where perf may not count.

use crate::load::{self, Live, Outcome};
use crate::measure::{Subjects, process};
use crate::metrics_page::MetricsPage;
use crate::peer::Peer;
use crate::plan::{CONNECTIONS_MAX, Durability, Offer, Plan, RATE_MAX, parse_duration};
use crate::progress::Progress;
use crate::setup::Setup;
use crate::table::{Table, figure, percent};
use crate::trial::closed_loop;
use crate::{Verdict, record};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::collections::VecDeque;
use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Counting {
    /// The server's own counters of ring enters and journal calls
    Counters,
    /// perf stat, on the kernel's trace point for every call
    Perf,
    /// strace -c -f
    Strace,
}

impl Counting {
    fn name(self) -> &'static str {
        match self {
            Counting::Counters => "own counters",
            Counting::Perf => "perf",
            Counting::Strace => "strace",
        }
    }
}

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct SyscallsArguments {
    /// Connections, each with one request in flight
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// Requests a second, one by one on a clock, in place of saturation
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// While all connections are open and none sends
    #[arg(long, conflicts_with = "rate")]
    idle: bool,
    /// How long to count, each way
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    duration: Duration,
    /// Ways to count; those that this machine does not allow are named and passed over, perf for strace
    #[arg(long, value_enum, value_delimiter = ',', default_value = "counters,perf")]
    by: Vec<Counting>,
    /// System calls per request that are allowed; when idle, per second
    #[arg(long, default_value_t = 0.1)]
    at_most: f64,
    /// Level of durability
    #[arg(long, value_enum, default_value = "written")]
    durability: Durability,
    #[command(flatten)]
    setup: Setup,
}

/// What one way found.
#[derive(Debug, Serialize)]
struct Finding {
    counted_by: &'static str,
    calls: f64,
    requests: f64,
    /// Under a load.
    calls_per_request: Option<f64>,
    /// Without one.
    calls_per_idle_second: Option<f64>,
    server_busy: Option<f64>,
}

impl Finding {
    /// By the unit of its kind.
    fn calls(&self) -> Option<f64> {
        self.calls_per_request.or(self.calls_per_idle_second)
    }
}

/// What was counted in the same time.
#[derive(Clone, Copy, Debug)]
struct Count {
    calls: f64,
    requests: f64,
}

/// From the load's begin to the counting's, warm-up included.
const SETTLE: Duration = Duration::from_secs(2);

/// The same before an idle server is counted: it shares its counters once more after the last connection has come.
const IDLE_SETTLE: Duration = Duration::from_secs(4);

/// Load beyond the counting, which is slow to start and to end.
const MARGIN: Duration = Duration::from_secs(4);

/// How long strace may take to attach or to detach.
const ATTACH_PATIENCE: Duration = Duration::from_secs(3);

/// Counts, and fails when a way finds more than allowed or none works.
pub(crate) fn run(arguments: SyscallsArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let peer = arguments.setup.ours(Some(arguments.durability), None, Vec::new());
    let peer = peer.start()?;
    let unit = if arguments.idle { "idle second" } else { "request" };
    let mut table = Table::new(&["counted by", &format!("calls/{unit}"), "core busy"]);
    let mut findings = Vec::new();
    let mut ways = VecDeque::from(arguments.by.clone());
    // Asking the server for its counters is no idling.
    ways.retain(|by| !(arguments.idle && *by == Counting::Counters));
    while let Some(by) = ways.pop_front() {
        let subjects = Subjects {
            pids: vec![peer.pid()],
            server_cores: vec![arguments.setup.server_core().0],
            generator_core: arguments.setup.generator_core(),
        };
        let load = Plan {
            warmup: Duration::from_secs(1),
            duration: arguments.duration + IDLE_SETTLE + MARGIN,
            durability: Some(arguments.durability),
            offer: arguments.rate.map_or(Offer::Closed, Offer::evenly),
            progress: Progress::here(false),
            ..closed_loop(peer.addr(), arguments.connections, subjects.complete(peer.addr()))
        };
        // Idle for as long as the counting takes, and then one request on each connection, so that the load can end.
        let plan = match arguments.idle {
            true => Plan { offer: Offer::Once, warmup: Duration::ZERO, idle: load.duration, ..load },
            false => load,
        };
        let settle = if arguments.idle { IDLE_SETTLE } else { plan.idle + SETTLE };
        let (count, outcome) =
            during_load(&plan, live, settle, || count(by, &peer, live, arguments.duration))?;
        match count {
            Ok(count) => {
                let finding = Finding {
                    counted_by: by.name(),
                    calls: count.calls,
                    requests: count.requests,
                    calls_per_request: (!arguments.idle).then(|| count.calls / count.requests.max(1.0)),
                    calls_per_idle_second: arguments
                        .idle
                        .then(|| count.calls / arguments.duration.as_secs_f64()),
                    server_busy: outcome.usage.server_busy,
                };
                table.row(vec![
                    finding.counted_by.to_owned(),
                    figure(finding.calls(), 4),
                    percent(finding.server_busy.filter(|_| !arguments.idle)),
                ]);
                findings.push(finding);
            }
            Err(reason) => {
                eprintln!("{}: {reason}", by.name());
                if by == Counting::Perf && !ways.contains(&Counting::Strace) {
                    ways.push_back(Counting::Strace);
                }
            }
        }
    }
    print!("{table}");
    if findings.is_empty() {
        return Err("no way to count worked here".into());
    }
    if let Some(file) = &arguments.setup.json {
        record::append(file, &findings)?;
    }
    let is_exceeded =
        findings.iter().any(|finding| finding.calls().is_none_or(|calls| calls > arguments.at_most));
    let verdict = if is_exceeded { "FAILED: more than" } else { "at most" };
    println!("{verdict} {} system calls per {unit}", arguments.at_most);
    Ok(Verdict::from_failed(is_exceeded))
}

/// Runs the load on a thread, and the act beside it once it has settled.
fn during_load<T>(
    plan: &Plan,
    live: &Live,
    settle: Duration,
    act: impl FnOnce() -> T,
) -> Result<(T, Outcome), Box<dyn Error>> {
    thread::scope(|scope| {
        let load = scope.spawn(|| load::run(plan, live));
        thread::sleep(settle);
        let acted = act();
        let outcome = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((acted, outcome))
    })
}

fn count(by: Counting, peer: &Peer, live: &Live, time: Duration) -> Result<Count, String> {
    match by {
        Counting::Counters => by_counters(peer, time),
        Counting::Perf => by_perf(peer.pid(), live, time),
        Counting::Strace => by_strace(peer.pid(), live, time),
    }
}

fn by_counters(peer: &Peer, time: Duration) -> Result<Count, String> {
    let read = || -> Result<Count, String> {
        let page = MetricsPage::fetch(peer.addr()).map_err(|cause| cause.to_string())?;
        let calls = ["loop_enters_total", "journal_writes_total", "journal_syncs_total"];
        let calls: Option<f64> = calls.iter().map(|name| page.total(name)).sum();
        let requests = page.total("http_requests_total");
        calls
            .zip(requests)
            .map(|(calls, requests)| Count { calls, requests })
            .ok_or_else(|| "GET /metrics lacks a counter".to_owned())
    };
    let before = read()?;
    thread::sleep(time);
    let after = read()?;
    Ok(Count { calls: after.calls - before.calls, requests: after.requests - before.requests })
}

fn by_perf(pid: u32, live: &Live, time: Duration) -> Result<Count, String> {
    let seconds = time.as_secs_f64();
    let (begin, answers) = (Instant::now(), live.answers.load(Ordering::Relaxed));
    let output = Command::new("perf")
        .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string(), "--", "sleep"])
        .arg(seconds.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| format!("perf could not be started: {cause}"))?;
    // perf starts and ends a little beside the time it counts, so the requests are taken as a rate.
    let answered = live.answers.load(Ordering::Relaxed) - answers;
    let requests = answered as f64 / begin.elapsed().as_secs_f64() * seconds;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let calls = perf_count(&said).ok_or_else(|| format!("perf did not count: {}", first_line(&said)))?;
    Ok(Count { calls, requests })
}

/// `count,unit,event,…`. Of processes that never ran perf says `<not counted>`; an event that cannot be counted here is
/// `<not supported>`.
fn perf_count(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.contains("raw_syscalls:sys_enter") && line.contains(','))?;
    match line.split(',').next()?.trim() {
        "<not counted>" => Some(0.0),
        count => count.parse().ok(),
    }
}

fn by_strace(pid: u32, live: &Live, time: Duration) -> Result<Count, String> {
    let folder = tempfile::tempdir().map_err(|cause| cause.to_string())?;
    let summary = folder.path().join("summary");
    // strace sums up when interrupted; timeout does that, and ends it whatever happens.
    let mut strace = Command::new("timeout")
        .args(["--signal=INT", "--kill-after=5"])
        .arg(time.as_secs_f64().to_string())
        .args(["strace", "-c", "-f", "-p", &pid.to_string(), "-o"])
        .arg(&summary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|cause| format!("strace could not be started: {cause}"))?;
    let attached = poll(ATTACH_PATIENCE, || process::is_traced(pid));
    let before = live.answers.load(Ordering::Relaxed);
    let detached = attached && poll(time + ATTACH_PATIENCE, || !process::is_traced(pid));
    let requests = live.answers.load(Ordering::Relaxed) - before;
    let waited = strace.wait();
    if !detached {
        return Err(format!("strace could not attach (see kernel.yama.ptrace_scope): {waited:?}"));
    }
    let text = std::fs::read_to_string(&summary).map_err(|cause| cause.to_string())?;
    let calls = strace_total(&text).ok_or("strace gave no summary")?;
    Ok(Count { calls, requests: requests as f64 })
}

/// The calls in the summary's last line: `100.00 0.5 12 40321 17 total`, the errors being left out when none.
fn strace_total(summary: &str) -> Option<f64> {
    let line = summary.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn poll(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if is_so() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_strace_summary_is_its_calls() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n 90.00    0.9   20     40000   17 io_uring_enter\n\
            ------ ----------- ----------- --------- --------- ----------------\n100.00    1.0   24     40321        17 total\n";
        assert_eq!(strace_total(summary), Some(40_321.0));
        assert_eq!(strace_total("100.00    1.0   24     40321           total\n"), Some(40_321.0));
        assert_eq!(strace_total(""), None);
    }

    #[test]
    fn perf_counts_are_read_and_its_excuses_are_not() {
        assert_eq!(perf_count("1234,,raw_syscalls:sys_enter,3000,100.00,,\n"), Some(1_234.0));
        assert_eq!(perf_count("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), Some(0.0));
        assert_eq!(perf_count("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        assert_eq!(perf_count("event syntax error: 'raw_syscalls:sys_enter'\n"), None);
    }
}
