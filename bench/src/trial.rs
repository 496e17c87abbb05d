//! One load with all that belongs to it: a name of its own, the load, the figures, and the check of what is stored.

use crate::check::{self, Check, CheckError, Expected};
use crate::figures::Figures;
use crate::load::{self, Live, LoadError};
use crate::measure::Subjects;
use crate::plan::{Lifetime, Offer, Plan, Refusals, Target};
use crate::progress::Progress;
use crate::request::{Form, mix};
use shard::clock;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a trial failed.
#[derive(Debug)]
pub(crate) enum TrialError {
    /// The load did not take place.
    Load(LoadError),
    /// The load took place and what is stored is wrong.
    Check(Box<Figures>, CheckError),
}

impl fmt::Display for TrialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrialError::Load(cause) => cause.fmt(f),
            TrialError::Check(_, cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for TrialError {}

/// Runs the load and checks what came of it.
pub(crate) fn run(plan: &Plan, live: &Live, check: Check) -> Result<Figures, TrialError> {
    let begin_ms = clock::unix_millis();
    let outcome = load::run(plan, live).map_err(TrialError::Load)?;
    let figures = Figures::of(plan, &outcome);
    let expected =
        Expected { acknowledged: outcome.acknowledged_samples, unanswered: outcome.unanswered_samples };
    let times = begin_ms..=clock::unix_millis();
    match check::check(check, plan.target.addr, &plan.metric, times, expected) {
        Ok(_) => Ok(figures),
        Err(cause) => Err(TrialError::Check(Box::new(figures), cause)),
    }
}

/// A closed loop of single samples on `/metrics`, for two seconds after half a second: what the comparisons start
/// from.
pub(crate) fn closed_loop(addr: SocketAddr, connections: u32, subjects: Subjects) -> Plan {
    Plan {
        target: Target { addr, path: crate::plan::INGEST_PATH.to_owned() },
        offer: Offer::Closed,
        connections,
        lifetime: Lifetime::Kept,
        refusals: Refusals::Obeyed,
        patience: None,
        seed: 1,
        warmup: Duration::from_millis(500),
        duration: Duration::from_secs(2),
        idle: Duration::from_millis(300),
        form: Form::Json,
        batch: 1,
        series: 1,
        labels: 0,
        run: 1,
        tenth_replaced_every: None,
        age: Duration::ZERO,
        tells_each: false,
        durability: None,
        metric: metric_name(),
        subjects,
        progress: Progress::Silent,
    }
}

/// A metric name that no other run has.
pub(crate) fn metric_name() -> String {
    let random = mix(clock::monotonic_nanos() ^ (clock::unix_millis() as u64) << 20);
    format!("bench_{}_{random:016x}", std::process::id())
}
