//! One question over all shards: the executor that a client's loop belongs to asks every executor, itself
//! included, and merges one part from each.
//!
//! Always: every question gets exactly one answer, a merged one or the first error; the number of questions
//! that are out is bounded by the loops (`query.concurrency` each).
//! Not here: how a shard gathers its partial (`service/select.rs`), how partials merge (`query`, `alerts.rs`).

use crate::alerts::{AlertsQuery, Standing};
use crate::front::Now;
use model::MatcherError;
use query::{Answer, Partial, Query, RowsRenderer};
use shard::net::ConnId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a client may ask of all executors.
pub enum Inquiry {
    /// Samples, or a percentile of them.
    Samples(Query),
    /// Where the rules stand.
    Alerts(AlertsQuery),
}

/// What one executor answers to an [`Inquiry`] of the same kind.
pub enum Part {
    /// Its samples.
    Samples(Partial),
    /// The rules it owns.
    Alerts(Vec<Standing>),
}

/// A whole answer, ready to be sent.
pub struct QueryAnswer {
    /// JSON.
    pub body: Vec<u8>,
}

/// Why a query was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// It needs more memory than one query may have.
    TooLarge { bytes: usize, bytes_max: usize },
    /// It took longer than `query.timeout`.
    TimedOut { seconds: u64 },
    /// As many as `query.concurrency` allows are running.
    TooMany { concurrency: usize },
    /// Its regular expressions, which are compiled only where series are selected.
    Matchers(MatcherError),
    /// A file could not be read, or is damaged.
    Storage(String),
    /// The journals are still being replayed.
    Starting,
}

/// A question that went to all executors.
pub struct Gather {
    /// The loop, and the client on it.
    pub to: (usize, ConnId),
    /// What was asked.
    pub inquiry: Arc<Inquiry>,
    parts: Vec<Option<Part>>,
    error: Option<QueryError>,
    missing: usize,
}

/// The questions of one executor that are out.
#[derive(Default)]
pub struct FanIn {
    gathers: HashMap<u64, Gather>,
    next_ticket: u64,
}

impl FanIn {
    /// Notes a question to `shards` executors; its ticket goes with it and comes back with each part.
    pub fn begin(&mut self, to: (usize, ConnId), inquiry: Arc<Inquiry>, shards: usize) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let parts = (0..shards).map(|_| None).collect();
        self.gathers.insert(ticket, Gather { to, inquiry, parts, error: None, missing: shards });
        ticket
    }

    /// Takes one executor's share; gives the whole back when it was the last.
    pub fn take(&mut self, ticket: u64, from: usize, part: Result<Part, QueryError>) -> Option<Gather> {
        let gather = self.gathers.get_mut(&ticket)?;
        match part {
            Ok(part) => gather.parts[from] = Some(part),
            Err(error) => {
                gather.error.get_or_insert(error);
            }
        }
        gather.missing -= 1;
        if gather.missing == 0 { self.gathers.remove(&ticket) } else { None }
    }
}

/// Bytes rendered before others get their turn.
const PIECE_BYTES: usize = 64 * 1024;

impl Gather {
    /// Merges and renders, yielding between pieces.
    pub async fn answer(self, deadline: Deadline, bytes_max: usize) -> Result<QueryAnswer, QueryError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut partials = Vec::new();
        let mut standings = Vec::new();
        for part in self.parts.into_iter().flatten() {
            match part {
                Part::Samples(partial) => partials.push(partial),
                Part::Alerts(owned) => standings.extend(owned),
            }
        }
        let mut body = Vec::new();
        let query = match &*self.inquiry {
            Inquiry::Samples(query) => query,
            Inquiry::Alerts(alerts) => return Ok(QueryAnswer { body: alerts.render(standings) }),
        };
        match query.merge(partials) {
            Answer::Percentile(answer) => answer.render(&mut body),
            Answer::Rows(rows) => {
                let mut renderer = RowsRenderer::new(rows);
                while renderer.next_piece(&mut body, PIECE_BYTES) {
                    if body.len() > bytes_max {
                        return Err(QueryError::TooLarge { bytes: body.len(), bytes_max });
                    }
                    deadline.check()?;
                    shard::executor::yield_if_needed().await;
                }
            }
        }
        Ok(QueryAnswer { body })
    }
}

/// When a query has had its time.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at_nanos: u64,
    timeout: Duration,
}

impl Deadline {
    /// So much time from now on.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline { at_nanos: Now::read().nanos.saturating_add(timeout.as_nanos() as u64), timeout }
    }

    /// Fails once the time is over.
    pub fn check(self) -> Result<(), QueryError> {
        if Now::read().nanos <= self.at_nanos {
            Ok(())
        } else {
            Err(QueryError::TimedOut { seconds: self.timeout.as_secs() })
        }
    }
}
