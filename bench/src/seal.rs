//! `bench seal`: what it costs those who write that memory goes to segments, and segments are merged.
//!
//! ```text
//! all series twice → requests on a clock, while the server flushes by its own and merges what it flushed
//!   beside it the server is asked every 20 ms what is under way: requests that met a flush or a merge, and the others
//! ```
//!
//! Samples are of the day before, so that each flush meets windows that are over, whose segments are merged.
//! Always: a request that was under way at any moment between two answers, one of which names a flush or a merge, or
//! between which one has ended, counts as one beside it. Quiet is the rest, the journals' sync before a flush among it.
//! Not here: what sealing costs by itself (`cargo bench -p storage --bench column`).

use crate::check::Check;
use crate::fetch::FetchError;
use crate::figures::{Figures, Quantiles};
use crate::load::{self, Live, Timing, latencies};
use crate::measure::Subjects;
use crate::metrics_page::MetricsPage;
use crate::peer::Peer;
use crate::plan::{
    BATCH_MAX, CONNECTIONS_MAX, Durability, LABELS_MAX, Offer, Plan, RATE_MAX, Target, parse_duration,
};
use crate::progress::Progress;
use crate::request::Form;
use crate::setup::Setup;
use crate::table::{Table, figure, thousands};
use crate::trial::closed_loop;
use crate::{Verdict, check, pin, record, report};
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct SealArguments {
    /// Series in all
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    series: u32,
    /// Requests a second, on a clock
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
    /// Samples per request, of as many series
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX as i64))]
    batch: u32,
    /// Connections that write
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// Labels of each series beside three
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(0..=LABELS_MAX as i64))]
    labels: u32,
    /// How often the server flushes
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    flush_every: Duration,
    /// How old samples are: what a window holds that is over is merged
    #[arg(long, default_value = "20h", value_parser = parse_duration)]
    age: Duration,
    /// Length of the measured window
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    duration: Duration,
    /// Load before it
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    warmup: Duration,
    /// The p99 beside flushes and merges over that of the others, at most
    #[arg(long, default_value_t = 2.0)]
    at_most: f64,
    /// Where its data goes while it runs
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    data_parent: PathBuf,
    /// Further settings for it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    setup: Setup,
}

/// How often the server is asked what is under way.
const LOOK: Duration = Duration::from_millis(20);
/// Rounds over all series before the clock runs.
const ROUNDS_BEFORE: u64 = 2;

/// What the server said at one time.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Before it was asked, and when it had answered.
    from: Instant,
    until: Instant,
    flushes: bool,
    merges: bool,
    writes_checkpoint: bool,
    /// Flushes, merges and checkpoints that have ended.
    ended: [f64; 3],
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Seal {
    series: u32,
    load: Figures,
    /// Ended while the load was on.
    flushes: f64,
    merges: f64,
    checkpoints: f64,
    /// Of the window, by what was under way; a moment of two counts for both.
    flushing_seconds: f64,
    merging_seconds: f64,
    quiet: Latency,
    flush: Latency,
    merge: Latency,
    /// Any of both.
    sealing: Latency,
    /// A checkpoint and none of both.
    checkpoint: Latency,
    /// Of sealing over quiet.
    p50_ratio: Option<f64>,
    p99_ratio: Option<f64>,
    p99_9_ratio: Option<f64>,
}

/// Of those requests.
#[derive(Debug, Serialize)]
struct Latency {
    requests: u64,
    latency_us: Option<Quantiles>,
}

/// Runs it, and fails when sealing makes the p99 of writing more than so many times longer.
pub(crate) fn run(arguments: &SealArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    arguments.setup.cores_apart()?;
    let mut sets = vec![
        format!("storage.flush_interval={}ms", arguments.flush_every.as_millis()),
        // The answer at the end is asked of all samples at once.
        "query.memory_bytes_max=4GiB".to_owned(),
    ];
    sets.extend(arguments.sets.iter().cloned());
    let ours = arguments.setup.ours(Some(Durability::Written), Some(&arguments.data_parent), sets);
    let peer = ours.start()?;
    let seal = measure(arguments, &peer, live)?;
    print!("{}", table(&seal));
    println!(
        "{} flushes in {:.1} s and {} merges in {:.1} s of {:.0} s; sealing over quiet: p50 {}, p99 {}, p99.9 {}",
        seal.flushes,
        seal.flushing_seconds,
        seal.merges,
        seal.merging_seconds,
        seal.load.window_seconds,
        figure(seal.p50_ratio, 2),
        figure(seal.p99_ratio, 2),
        figure(seal.p99_9_ratio, 2)
    );
    if let Some(file) = &arguments.setup.json {
        record::append(file, &seal)?;
    }
    let is_missed = report::is_failure(&seal.load);
    if is_missed {
        println!("FAILED: the load was not offered, or not answered, as it should be");
    }
    let is_exceeded = seal.p99_ratio.is_none_or(|ratio| ratio > arguments.at_most);
    let verdict = if is_exceeded { "FAILED: more than" } else { "at most" };
    println!("{verdict} {} times the p99 while nothing was sealed", arguments.at_most);
    Ok(Verdict::from_failed(is_missed || is_exceeded))
}

fn measure(arguments: &SealArguments, peer: &Peer, live: &Live) -> Result<Seal, Box<dyn Error>> {
    let subjects = Subjects {
        pids: vec![peer.pid()],
        server_cores: vec![arguments.setup.server_core().0],
        generator_core: arguments.setup.generator_core(),
    };
    let plan = plan(arguments, peer.addr(), subjects.complete(peer.addr()));
    let rounds = u64::from(arguments.series) * ROUNDS_BEFORE;
    let fill = Plan {
        offer: Offer::Accepted { requests: rounds.div_ceil(u64::from(arguments.batch)) },
        warmup: Duration::ZERO,
        duration: Duration::from_secs(120),
        tells_each: false,
        // An hour before the others, so that no sample of theirs has the time of one of these.
        age: plan.age + Duration::from_secs(3_600),
        ..plan.clone()
    };
    let filled = load::run(&fill, live)?;
    let is_over = AtomicBool::new(false);
    let (outcome, looks) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&plan, &is_over));
        let outcome = load::run(&plan, live);
        is_over.store(true, Ordering::Relaxed);
        let looks = watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (outcome, looks)
    });
    let (outcome, looks) = (outcome?, looks?);
    let expected = check::Expected {
        acknowledged: filled.acknowledged_samples + outcome.acknowledged_samples,
        unanswered: filled.unanswered_samples + outcome.unanswered_samples,
    };
    let begin_ms = shard::clock::unix_millis() - fill.age.as_millis() as i64 - CHECK_MARGIN_MS;
    let times = begin_ms..=shard::clock::unix_millis();
    check::check(Check::Stored, peer.addr(), &plan.metric, times, expected)?;
    Ok(told(arguments.series, Figures::of(&plan, &outcome), &outcome.each, &looks))
}

/// The load before, the load and the check take less.
const CHECK_MARGIN_MS: i64 = 3_600_000;

fn plan(arguments: &SealArguments, addr: SocketAddr, subjects: Subjects) -> Plan {
    Plan {
        target: Target { addr, path: Form::RemoteWrite.path().to_owned() },
        offer: Offer::evenly(arguments.rate),
        warmup: arguments.warmup,
        duration: arguments.duration,
        form: Form::RemoteWrite,
        batch: arguments.batch,
        series: arguments.series.div_ceil(arguments.connections),
        labels: arguments.labels,
        age: arguments.age,
        tells_each: true,
        durability: Some(Durability::Written),
        progress: Progress::here(false),
        ..closed_loop(addr, arguments.connections, subjects)
    }
}

/// Asks what is under way until the load is over.
fn watch(plan: &Plan, is_over: &AtomicBool) -> Result<Vec<Look>, Box<FetchError>> {
    // Anywhere else is as good: it mostly sleeps.
    let _ = pin(plan.subjects.generator_core);
    let mut looks = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let from = Instant::now();
        let page = MetricsPage::fetch(plan.target.addr)?;
        let value = |name: &str| page.total(name).unwrap_or(0.0);
        looks.push(Look {
            from,
            until: Instant::now(),
            flushes: value("store_flush_under_way") > 0.0,
            merges: value("store_merge_under_way") > 0.0,
            writes_checkpoint: value("checkpoint_under_way") > 0.0,
            ended: ["store_flushes_total", "store_merges_total", "checkpoint_writes_total"].map(value),
        });
        thread::sleep(LOOK);
    }
    Ok(looks)
}

/// What may have been under way in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct UnderWay {
    flush: bool,
    merge: bool,
    checkpoint: bool,
}

/// Between two looks, both included.
fn between(a: &Look, b: &Look) -> UnderWay {
    let ended = |of: usize| b.ended[of] > a.ended[of];
    UnderWay {
        flush: a.flushes || b.flushes || ended(0),
        merge: a.merges || b.merges || ended(1),
        checkpoint: a.writes_checkpoint || b.writes_checkpoint || ended(2),
    }
}

/// What a request may have met; nothing is known of one that the looks do not span.
fn met(timing: &Timing, looks: &[Look]) -> Option<UnderWay> {
    let answered = timing.intended + timing.took;
    // The last look that had ended before it left, and the first that began behind its answer.
    let first = looks.partition_point(|look| look.until <= timing.intended).checked_sub(1)?;
    let last = looks.partition_point(|look| look.from < answered);
    if last >= looks.len() {
        return None;
    }
    let mut all = UnderWay::default();
    for pair in looks[first..=last].windows(2) {
        let under_way = between(&pair[0], &pair[1]);
        all.flush |= under_way.flush;
        all.merge |= under_way.merge;
        all.checkpoint |= under_way.checkpoint;
    }
    Some(all)
}

fn told(series: u32, load: Figures, each: &[Timing], looks: &[Look]) -> Seal {
    let of = |belongs: fn(UnderWay) -> bool| {
        let mut histogram = latencies();
        for timing in each {
            if met(timing, looks).is_some_and(belongs) {
                histogram.saturating_record(u64::try_from(timing.took.as_nanos()).unwrap_or(u64::MAX));
            }
        }
        Latency { requests: histogram.len(), latency_us: Quantiles::of(&histogram) }
    };
    let seconds = |is: fn(UnderWay) -> bool| {
        let pairs = looks.windows(2).filter(|pair| is(between(&pair[0], &pair[1])));
        pairs.map(|pair| (pair[1].until - pair[0].until).as_secs_f64()).sum()
    };
    let ended = |of: usize| match (looks.first(), looks.last()) {
        (Some(first), Some(last)) => last.ended[of] - first.ended[of],
        _ => 0.0,
    };
    let quiet = of(|under_way| under_way == UnderWay::default());
    let sealing = of(|under_way| under_way.flush || under_way.merge);
    let ratio = |of: fn(Quantiles) -> f64| Some(sealing.latency_us.map(of)? / quiet.latency_us.map(of)?);
    Seal {
        series,
        load,
        flushes: ended(0),
        merges: ended(1),
        checkpoints: ended(2),
        flushing_seconds: seconds(|under_way| under_way.flush),
        merging_seconds: seconds(|under_way| under_way.merge),
        p50_ratio: ratio(|latency| latency.p50),
        p99_ratio: ratio(|latency| latency.p99),
        p99_9_ratio: ratio(|latency| latency.p99_9),
        flush: of(|under_way| under_way.flush),
        merge: of(|under_way| under_way.merge),
        checkpoint: of(|under_way| under_way.checkpoint && !under_way.flush && !under_way.merge),
        quiet,
        sealing,
    }
}

fn table(seal: &Seal) -> Table {
    let mut table = Table::new(&["", "requests", "p50 µs", "p99 µs", "p99.9 µs", "max µs"]);
    for (name, of) in [
        ("quiet", &seal.quiet),
        ("sealing", &seal.sealing),
        ("flush", &seal.flush),
        ("merge", &seal.merge),
        ("checkpoint", &seal.checkpoint),
    ] {
        let at = |quantile: fn(Quantiles) -> f64| figure(of.latency_us.map(quantile), 0);
        table.row(vec![
            name.to_owned(),
            thousands(of.requests as f64),
            at(|latency| latency.p50),
            at(|latency| latency.p99),
            at(|latency| latency.p99_9),
            at(|latency| latency.max),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks a tenth of a second apart that take a hundredth each: quiet, a flush in the second and third, quiet.
    fn looks(begin: Instant) -> Vec<Look> {
        let look = |(n, flushes): (u32, bool)| {
            let from = begin + Duration::from_millis(100) * n;
            let until = from + Duration::from_millis(10);
            let ended = [if n > 3 { 1.0 } else { 0.0 }, 0.0, 0.0];
            Look { from, until, flushes, merges: false, writes_checkpoint: false, ended }
        };
        (0..).zip([false, false, true, true, false, false, false]).map(look).collect()
    }

    #[test]
    fn a_request_that_may_have_met_a_flush_is_not_quiet() {
        let begin = Instant::now();
        let looks = looks(begin);
        let flushes = |from_ms, took_ms| {
            let intended = begin + Duration::from_millis(from_ms);
            met(&Timing { intended, took: Duration::from_millis(took_ms) }, &looks).map(|met| met.flush)
        };
        assert_eq!(flushes(20, 1), Some(false), "between two quiet looks");
        assert_eq!(flushes(120, 1), Some(true), "it may have begun by then");
        assert_eq!(flushes(20, 150), Some(true), "it was answered by then");
        assert_eq!(flushes(220, 1), Some(true));
        assert_eq!(flushes(320, 1), Some(true), "it may not have ended yet");
        assert_eq!(flushes(420, 1), Some(false));
        assert_eq!(flushes(105, 1), Some(true), "a look was being answered: only the next one is behind it");
        assert_eq!(flushes(0, 1), None, "no look before it");
        assert_eq!(flushes(550, 70), None, "none behind it");
    }

    #[test]
    fn a_flush_that_no_look_met_shows_by_its_count() {
        let begin = Instant::now();
        let mut looks = looks(begin);
        looks.iter_mut().for_each(|look| look.flushes = false);
        assert_eq!(between(&looks[2], &looks[3]), UnderWay::default());
        assert_eq!(between(&looks[3], &looks[4]), UnderWay { flush: true, ..UnderWay::default() });
    }
}
