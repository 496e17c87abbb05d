//! `bench connections`: many idle connections, what each costs in memory, and whether every one is then answered.

use crate::check::Check;
use crate::figures::Figures;
use crate::load::Live;
use crate::measure::Subjects;
use crate::plan::{CONNECTIONS_MAX, Durability, Offer, Plan, Target, parse_duration};
use crate::progress::Progress;
use crate::record::Round;
use crate::setup::Setup;
use crate::trial::{self, closed_loop};
use crate::{Verdict, record, report};
use clap::Args;
use std::error::Error;
use std::time::Duration;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct IdleArguments {
    /// A server that is there; without it one is started
    #[arg(value_name = "URL")]
    target: Option<String>,
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// How long they stay idle before each sends one request
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    hold: Duration,
    /// Resident bytes of the server per idle connection that are allowed
    #[arg(long, default_value_t = 2048)]
    bytes_max: u32,
    #[command(flatten)]
    setup: Setup,
}

/// Runs it, and fails unless every connection is answered with 202 and none costs too much.
pub(crate) fn run(arguments: IdleArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let (peer, target) = match &arguments.target {
        Some(text) => (None, Target::parse(text)?),
        None => {
            let ours = arguments.setup.ours(Some(Durability::Written), None, Vec::new());
            let peer = ours.start()?;
            let target = Target { addr: peer.addr(), path: crate::plan::INGEST_PATH.to_owned() };
            (Some(peer), target)
        }
    };
    let subjects = Subjects {
        pids: peer.iter().map(|peer| peer.pid()).collect(),
        server_cores: Vec::new(),
        generator_core: arguments.setup.generator_core(),
    };
    let plan = Plan {
        offer: Offer::Once,
        warmup: Duration::ZERO,
        idle: arguments.hold,
        progress: Progress::here(false),
        ..closed_loop(target.addr, arguments.connections, subjects.complete(target.addr))
    };
    let figures = trial::run(&Plan { target, ..plan.clone() }, live, Check::Stored)?;
    print!("{}", report::text(&plan, &figures));
    let faults = faults(&figures, arguments.connections, arguments.bytes_max);
    if let Some(file) = &arguments.setup.json {
        let side = if arguments.target.is_some() { "given" } else { "ringwatch" }.to_owned();
        let connections = arguments.connections;
        let round = Round {
            scenario: None,
            side,
            connections,
            round: 1,
            maximum_per_s: None,
            device_sync_us: None,
            figures,
        };
        record::append(file, &[round])?;
    }
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    if faults.is_empty() {
        println!("all {} connections were held and answered", arguments.connections);
    }
    Ok(Verdict::from_failed(!faults.is_empty()))
}

fn faults(figures: &Figures, connections: u32, bytes_max: u32) -> Vec<String> {
    let mut faults = Vec::new();
    let accepted = figures.statuses.get(&202).copied().unwrap_or(0);
    if accepted != u64::from(connections) {
        faults.push(format!("{accepted} of {connections} connections were answered with 202"));
    }
    if figures.connections_lost + figures.connects_failed > 0 {
        faults.push(format!(
            "{} connections were lost and {} connects failed",
            figures.connections_lost, figures.connects_failed
        ));
    }
    match figures.bytes_per_connection(connections) {
        None => faults
            .push("the server's memory could not be read: name it by a local URL or run as its user".into()),
        Some(bytes) if bytes > f64::from(bytes_max) => {
            faults.push(format!("an idle connection costs {bytes:.0} bytes, more than {bytes_max}"));
        }
        Some(_) => {}
    }
    faults
}
