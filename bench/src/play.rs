//! `bench scenario`: a scenario's load against a server, and whether everything came out as the file expects.

use crate::check::Check;
use crate::figures::Figures;
use crate::load::Live;
use crate::measure::Subjects;
use crate::plan::{Plan, Target};
use crate::progress::Progress;
use crate::record::Round;
use crate::scenario::{KNOWN, Scenario};
use crate::setup::Setup;
use crate::table::{figure, thousands};
use crate::trial::{self, TrialError};
use crate::{Verdict, record, report};
use clap::Args;
use std::error::Error;
use std::path::PathBuf;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct ScenarioArguments {
    /// A scenario's name, a file, or `all`
    #[arg(value_name = "NAME|FILE")]
    scenario: String,
    /// A server that is there; without it one is started with the scenario's settings
    #[arg(value_name = "HOST:PORT")]
    target: Option<String>,
    /// How often
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// A fraction of a second on a few connections: whether it works, not how fast
    #[arg(long)]
    short: bool,
    /// Do not ask the server what it stored: for servers that are no ringwatch
    #[arg(long, requires = "target")]
    no_check: bool,
    /// Where its data goes while it runs; the disk below it decides what `synced` costs
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    data_parent: PathBuf,
    /// Further settings for it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    setup: Setup,
    /// A line each second, even when nobody watches
    #[arg(long)]
    progress: bool,
}

/// What came of one round.
#[derive(Debug)]
pub(crate) struct Played {
    /// Of the scenario's load.
    pub figures: Figures,
    /// Of the closed loop before, if there was one.
    pub closed: Option<Figures>,
    /// What is not as expected.
    pub faults: Vec<String>,
    plan: Plan,
}

/// Plays the scenarios, and fails when one does not come out as its file expects.
pub(crate) fn run(arguments: &ScenarioArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let names: Vec<&str> = match arguments.scenario.as_str() {
        "all" => KNOWN.iter().map(|(name, _)| *name).collect(),
        one => vec![one],
    };
    let mut failed = Vec::new();
    for name in names {
        let scenario = Scenario::find(name)?;
        let scenario = if arguments.short { scenario.short() } else { scenario };
        println!("{name}: {}", scenario.about);
        let mut rounds = Vec::new();
        for round in 1..=arguments.rounds {
            let played = round_of(arguments, &scenario, live)?;
            print!("{}", report::text(&played.plan, &played.figures));
            if let Some(closed) = &played.closed {
                println!("{}", beside_the_closed_loop(&played.figures, closed));
            }
            for fault in &played.faults {
                println!("FAILED: {fault}");
            }
            if played.faults.is_empty() {
                println!(
                    "as expected; {} samples are stored, each once\n",
                    played.figures.acknowledged_samples
                );
            } else {
                failed.push(name);
            }
            let side = if arguments.target.is_some() { "given" } else { "ringwatch" };
            rounds.push(Round {
                scenario: scenario.name.clone(),
                side: side.to_owned(),
                connections: scenario.connections,
                round,
                maximum_per_s: played.closed.as_ref().map(Figures::accepted_per_s),
                device_sync_us: None,
                figures: played.figures,
            });
        }
        if let Some(file) = &arguments.setup.json {
            record::append(file, &rounds)?;
        }
    }
    failed.dedup();
    if !failed.is_empty() {
        println!("FAILED: {}", failed.join(", "));
    }
    Ok(Verdict::from_failed(!failed.is_empty()))
}

/// What the closed loop before came to, and the load in its measure.
fn beside_the_closed_loop(figures: &Figures, closed: &Figures) -> String {
    let p99_ms = |figures: &Figures| figure(figures.server_latency_us().map(|latency| latency.p99 / 1e3), 1);
    format!(
        "closed loop before it: {} accepted requests/s, p99 {} ms; now {:.0} % of that, p99 from sending {} ms; \
         grown by {} MiB",
        thousands(closed.accepted_per_s()),
        p99_ms(closed),
        figures.accepted_per_s() / closed.accepted_per_s() * 100.0,
        p99_ms(figures),
        figure(figures.grown_mib(), 1),
    )
}

fn round_of(
    arguments: &ScenarioArguments,
    scenario: &Scenario,
    live: &Live,
) -> Result<Played, Box<dyn Error>> {
    let mut subjects = Subjects { generator_core: arguments.setup.generator_core(), ..Subjects::default() };
    let mut settings = scenario.settings();
    settings.extend(arguments.sets.iter().cloned());
    let peer = match &arguments.target {
        Some(_) => None,
        None => Some(arguments.setup.ours(None, Some(&arguments.data_parent), settings).start()?),
    };
    let addr = match (&peer, &arguments.target) {
        (Some(peer), _) => {
            subjects.pids = vec![peer.pid()];
            subjects.server_cores = vec![arguments.setup.server_core().0];
            peer.addr()
        }
        (None, given) => Target::parse(given.as_deref().unwrap_or_default())?.addr,
    };
    let target = Target { addr, path: scenario.form.path().to_owned() };
    let subjects = subjects.complete(addr);
    if subjects.share_a_core() {
        return Err("generator and server would share a core: choose another --core or --server-core".into());
    }
    let check = if arguments.no_check { Check::Nothing } else { Check::Stored };
    let progress = Progress::here(arguments.progress);
    Ok(play(scenario, &target, &subjects, check, progress, live)?)
}

/// One round: the closed loop before it if the scenario asks for a share, the load, the check, the expectations.
pub(crate) fn play(
    scenario: &Scenario,
    target: &Target,
    subjects: &Subjects,
    check: Check,
    progress: Progress,
    live: &Live,
) -> Result<Played, TrialError> {
    let plan_of = |scenario: &Scenario, maximum| Plan {
        progress,
        ..scenario.plan(target.clone(), subjects.clone(), maximum)
    };
    let closed = match scenario.probe() {
        Some(probe) => Some(trial::run(&plan_of(&probe, None), live, check)?),
        None => None,
    };
    let maximum = closed.as_ref().map(Figures::accepted_per_s);
    let plan = plan_of(scenario, maximum);
    let (figures, wrong_count) = match trial::run(&plan, live, check) {
        Ok(figures) => (figures, None),
        Err(TrialError::Check(figures, cause)) => (*figures, Some(cause.to_string())),
        Err(cause) => return Err(cause),
    };
    let mut faults = scenario.expect.faults(&figures, scenario.connections, closed.as_ref());
    faults.extend(wrong_count);
    if figures.levels_missed > 0 {
        faults.push(format!("{} answers missed the durability asked for", figures.levels_missed));
    }
    if figures.acknowledged_samples == 0 {
        faults.push("nothing was accepted".to_owned());
    }
    Ok(Played { figures, closed, faults, plan })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::{Reply, Responder};

    fn play_short(scenario: &Scenario, server: &Responder) -> Played {
        let target = Target { addr: server.addr(), path: scenario.form.path().to_owned() };
        play(scenario, &target, &Subjects::default(), Check::Stored, Progress::Silent, &Live::default())
            .unwrap()
    }

    /// So that no scenario rots: each runs, is answered, and its samples are counted.
    /// Method: the short form of each against a tiny server that names the level that was asked for.
    #[test]
    fn every_scenario_runs_small() {
        for (name, _) in KNOWN {
            let scenario = Scenario::find(name).unwrap().short();
            let server = Responder::counting(|_| None);
            let played = play_short(&Scenario { durability: None, ..scenario }, &server);
            assert_eq!(played.faults, [""; 0], "{name}");
            assert!(played.figures.acknowledged_samples > 0, "{name}");
        }
    }

    /// The server's own part of the latency is held to that of the closed loop before.
    /// Method: bounds that nothing can keep, and such that anything does.
    #[test]
    fn a_load_is_measured_by_the_closed_loop_before_it() {
        let text = "about = \"x\"\nconnections = 2\narrival = \"constant\"\nshare_of_maximum = 0.5\n";
        let mut scenario = Scenario::parse("f", text).unwrap().short();
        for (most, is_kept) in [(1e9, true), (1e-9, false)] {
            scenario.expect.p99_of_maximum_max = Some(most);
            let played = play_short(&scenario, &Responder::counting(|_| None));
            assert!(played.closed.is_some());
            let mut told = played.faults.iter().filter(|fault| fault.starts_with("p99 from sending"));
            match is_kept {
                // A machine that does other things may have answered nothing in so short a time.
                true => assert!(told.all(|fault| !fault.contains("at most")), "{:?}", played.faults),
                false => assert!(told.next().is_some(), "{:?}", played.faults),
            }
        }
    }

    #[test]
    fn a_status_that_the_file_does_not_name_is_a_failure() {
        let text = "about = \"x\"\nconnections = 2\narrival = \"closed\"\nexpect.failed = 0\n";
        let scenario = Scenario::parse("f", text).unwrap().short();
        let refusing = || {
            Responder::counting(|post| {
                (post == 1).then(|| Reply::Answer(429, "Retry-After: 0\r\n", "{}".to_owned()))
            })
        };
        let played = play_short(&scenario, &refusing());
        assert!(played.faults[0].contains("1 had an unexpected status"), "{:?}", played.faults);
        let mut allowing = scenario;
        allowing.expect.statuses = vec![429];
        assert_eq!(play_short(&allowing, &refusing()).faults, [""; 0]);
    }
}
