//! bench: offers load to a whole server, checks that it did what it answered, and says what it cost.
//!
//! Always: everything ends by itself; servers and folders that a run made are gone afterwards, after errors too; a run
//! whose samples are not stored exactly as acknowledged fails, however fast it was.
//! Not here: micro-benchmarks, which live with their crates.
//! Read next: `load.rs` for the generator, `measure.rs` for what is read from the kernel, `compare.rs` for the
//! reference.

mod answers;
mod arrivals;
mod load;
mod pauses;
mod plan;
mod progress;
mod request;

mod scenario;
mod side;

mod check;
mod fetch;
mod figures;
mod measure;
mod metrics_page;
mod trial;

mod peer;
mod setup;

mod beside;
mod churn;
mod compare;
mod first_result;
mod floor;
mod hostile;
mod idle;
mod play;
mod replay;
mod run;
mod scaling;
mod scraped;
mod seal;
mod syscalls;

mod plot;
mod record;
mod report;
mod table;

#[cfg(test)]
mod responder;

use clap::{Parser, Subcommand};
use load::Live;
use shard::signal::Signals;
use shard::topology::CoreId;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

#[derive(Parser)]
#[command(name = "bench", version, about = "Load for ringwatch and its peers, with the right answer checked")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Offer load to a server and check what it stored
    Run(run::RunArguments),
    /// Play a scenario from a file and check that everything came out as it expects
    Scenario(play::ScenarioArguments),
    /// Start ours and its peers on one core and compare them in turns
    Compare(compare::CompareArguments),
    /// Compare writing alone with writing beside a client that asks without rest
    Beside(beside::BesideArguments),
    /// Compare writing alone with writing beside clients that behave badly
    Hostile(hostile::HostileArguments),
    /// Hold many idle connections, read their cost in memory, then use each once
    Connections(idle::IdleArguments),
    /// Count system calls per request at saturation
    Syscalls(syscalls::SyscallsArguments),
    /// Fill a journal, kill the server, and time its start until all of it is there again
    Replay(replay::ReplayArguments),
    /// Answer every request with the same bytes, at the least cost that this kernel allows
    Floor(floor::FloorArguments),
    /// Measure what grows with the number of shards: rings, syncs, memory
    Scaling(scaling::ScalingArguments),
    /// Let a Prometheus send what it scrapes, and say what each of both keeps on the disk
    Scraped(scraped::ScrapedArguments),
    /// Compare the latency of writing while memory goes to segments with that while nothing does
    Seal(seal::SealArguments),
    /// Compare what a server takes while series come and go with what it takes while they stay
    Churn(churn::ChurnArguments),
    /// Draw records as plots in one page
    Report(plot::ReportArguments),
    /// Time a first start until a sample was accepted and queried
    FirstResult(first_result::FirstResultArguments),
}

/// Whether figures and checks are as they should be; an error is another matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
}

impl Verdict {
    fn from_failed(failed: bool) -> Verdict {
        if failed { Verdict::Failed } else { Verdict::Passed }
    }
}

/// Exit codes: 0 passed, 1 failed or could not, 2 wrong usage (clap's).
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let live = Arc::new(Live::default());
    stop_on_signal(&live);
    let result = match arguments.command {
        Command::Run(arguments) => run::run(arguments, &live),
        Command::Scenario(arguments) => play::run(&arguments, &live),
        Command::Compare(arguments) => compare::run(&arguments, &live),
        Command::Beside(arguments) => beside::run(&arguments, &live),
        Command::Hostile(arguments) => hostile::run(&arguments, &live),
        Command::Connections(arguments) => idle::run(arguments, &live),
        Command::Syscalls(arguments) => syscalls::run(arguments, &live),
        Command::Replay(arguments) => replay::run(arguments, &live),
        Command::Floor(arguments) => floor::run(&arguments, &live),
        Command::Scaling(arguments) => scaling::run(&arguments),
        Command::Scraped(arguments) => scraped::run(&arguments, &live),
        Command::Seal(arguments) => seal::run(&arguments, &live),
        Command::Churn(arguments) => churn::run(&arguments, &live),
        Command::Report(arguments) => plot::run(&arguments),
        Command::FirstResult(arguments) => first_result::run(arguments, &live),
    };
    match result {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first signal ends the load in order, so that peers and folders go too; the second ends the process.
fn stop_on_signal(live: &Arc<Live>) {
    let Ok(mut signals) = Signals::catch() else { return };
    let live = Arc::clone(live);
    thread::spawn(move || {
        signals.wait();
        live.stop.store(true, Ordering::Relaxed);
        signals.wait();
        std::process::exit(1);
    });
}

/// Binds this thread to the core, if one is named.
fn pin(core: Option<usize>) -> Result<(), String> {
    match core.map(CoreId) {
        Some(core) if !shard::topology::pin(core) => {
            Err(format!("core {core} is not one that may be used here"))
        }
        _ => Ok(()),
    }
}
