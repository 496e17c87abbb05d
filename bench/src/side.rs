//! The sides of a comparison: ours and its peers, each with the request that it takes and the question that shows what
//! it stored.
//!
//! Always: one process a server, though VictoriaMetrics may stand on several sides, one for each of its ways in.

use crate::check::Check;
use crate::measure::Subjects;
use crate::peer::{Peer, PeerError, floor, nginx, stores};
use crate::plan::{Durability, Plan, Target};
use crate::request::Form;
use crate::scenario::Scenario;
use shard::topology::CoreId;
use std::rc::Rc;

/// Servers beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rival {
    /// Debian's nginx-light with a fixed 202
    Nginx,
    /// The least that this kernel allows
    Floor,
    /// VictoriaMetrics, Prometheus' text format
    VictoriaText,
    /// VictoriaMetrics, InfluxDB's line protocol
    VictoriaInflux,
    /// VictoriaMetrics, JSON lines
    VictoriaJson,
    /// VictoriaMetrics, remote write
    VictoriaRemoteWrite,
    /// Prometheus, remote write
    Prometheus,
}

/// Who is asked, how, and for which level.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// In tables and records.
    pub name: &'static str,
    /// The server.
    pub peer: Rc<Peer>,
    /// In place of the scenario's, for a server that takes another.
    form: Option<Form>,
    durability: Option<Durability>,
    /// Who knows what is stored.
    pub check: Check,
}

impl Side {
    /// Our own server.
    pub(crate) fn ours(name: &'static str, peer: &Rc<Peer>, durability: Option<Durability>) -> Side {
        Side { name, peer: Rc::clone(peer), form: None, durability, check: Check::Stored }
    }

    /// The scenario's load against this side. `maximum` as [`Scenario::plan`] wants it.
    pub(crate) fn plan(&self, scenario: &Scenario, cores: Cores, maximum: Option<f64>) -> Plan {
        let subjects = Subjects {
            pids: vec![self.peer.pid()],
            server_cores: vec![cores.server.0],
            generator_core: cores.generator,
        };
        let scenario = Scenario {
            form: self.form.unwrap_or(scenario.form),
            durability: self.durability,
            ..scenario.clone()
        };
        let target = Target { addr: self.peer.addr(), path: scenario.form.path().to_owned() };
        scenario.plan(target, subjects.complete(self.peer.addr()), maximum)
    }
}

/// Where both run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// All servers'.
    pub server: CoreId,
    /// The load's; anywhere without one.
    pub generator: Option<usize>,
}

/// Starts the rivals on the servers' core, each once.
pub(crate) fn start(rivals: &[Rival], core: CoreId, connections: u32) -> Result<Vec<Side>, PeerError> {
    let mut victoria: Option<Rc<Peer>> = None;
    let mut sides = Vec::new();
    for rival in rivals {
        let promql = |flush| Check::PromQl { flush };
        let (peer, form, check) = match rival {
            Rival::Nginx => (Rc::new(nginx::start(core)?), None, Check::Nothing),
            Rival::Floor => (Rc::new(floor::start(core, connections)?), None, Check::Nothing),
            Rival::Prometheus => {
                (Rc::new(stores::start_prometheus(core)?), Some(Form::RemoteWrite), promql(None))
            }
            Rival::VictoriaText
            | Rival::VictoriaInflux
            | Rival::VictoriaJson
            | Rival::VictoriaRemoteWrite => {
                let peer = match &victoria {
                    Some(peer) => Rc::clone(peer),
                    None => Rc::new(stores::start_victoria_metrics(core)?),
                };
                victoria = Some(Rc::clone(&peer));
                let form = match rival {
                    Rival::VictoriaText => Form::PrometheusText,
                    Rival::VictoriaInflux => Form::InfluxLine,
                    Rival::VictoriaRemoteWrite => Form::RemoteWrite,
                    _ => Form::JsonLine,
                };
                (peer, Some(form), promql(Some(stores::VICTORIA_METRICS_FLUSH)))
            }
        };
        sides.push(Side { name: rival.name(), peer, form, durability: None, check });
    }
    Ok(sides)
}

impl Rival {
    /// As on the command line.
    fn name(self) -> &'static str {
        match self {
            Rival::Nginx => "nginx",
            Rival::Floor => "floor",
            Rival::VictoriaText => "victoria-text",
            Rival::VictoriaInflux => "victoria-influx",
            Rival::VictoriaJson => "victoria-json",
            Rival::VictoriaRemoteWrite => "victoria-remote-write",
            Rival::Prometheus => "prometheus",
        }
    }
}
