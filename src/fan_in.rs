//! One question over all shards: the executor that a client's loop belongs to asks every executor, itself
//! included, and merges one part from each.
//!
//! Always: every question gets exactly one answer, a merged one or the first error; the number of questions
//! that are out is bounded by the loops (`query.concurrency` each); one deadline and one account of memory hold
//! from the question's arrival to its answer, on all shards together.
//! Not here: how a shard gathers its partial (`service/select.rs`), how partials merge (`query`, `alerts.rs`).
//! Read next: `query_memory.rs` for the account.

use crate::alerts::{AlertsQuery, Standing};
use crate::delete_series::DeleteSeries;
use crate::front::Now;
use crate::query_memory::{Holding, QueryMemory};
use crate::storage_status::{self, StorageShare};
use crate::tsdb_status::TsdbStatus;
use model::MatcherError;
use query::{Answer, Partial, PercentileSearch, Query, RowsRenderer};
use shard::net::ConnId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use storage::compact::Windows;
use storage::store::Cardinality;

/// What a client may ask of all executors.
pub enum Inquiry {
    /// Samples, or a percentile of them.
    Samples(Query),
    /// Where the rules stand.
    Alerts(AlertsQuery),
    /// Samples to be deleted.
    Delete(DeleteSeries),
    /// All that was answered to be in segments, and a snapshot of these; executor 0 is asked, which keeps the manifest.
    Snapshot,
    /// What is deleted to be gone from the disk.
    CleanTombstones,
    /// What samples take on the disk.
    StorageStatus,
    /// Which names and labels have the most series.
    Cardinality(TsdbStatus),
}

/// What one executor answers to an [`Inquiry`] of the same kind.
pub enum Part {
    /// Its samples, and what is missing of them for its file is damaged.
    Samples(Box<Partial>, Warnings),
    /// It has deleted them, or done what else was asked.
    Done,
    /// What its samples take.
    Storage(Box<StorageShare>),
    /// The rules it owns.
    Alerts(Vec<Standing>),
    /// What it counted.
    Cardinality(Box<Cardinality>),
}

/// A question with what bounds its answer. All shards share it; when the last lets go of it, its memory is free.
pub struct Question {
    /// What was asked.
    pub inquiry: Inquiry,
    /// Set when the question arrived.
    pub deadline: Deadline,
    /// What its partials and its body take.
    pub memory: QueryMemory,
    /// The lengths of windows by which segments are merged.
    pub windows: Windows,
}

/// A whole answer, ready to be sent.
pub struct QueryAnswer {
    /// JSON; absent where it was done and there is nothing to say.
    pub body: Option<Vec<u8>>,
    /// What is missing, and why.
    pub warnings: Warnings,
}

/// Texts for people; mostly none. Values with them cross rings, so they take two words.
pub type Warnings = Box<[String]>;

/// Damaged places that one shard names in an answer; the others are in the log.
pub const WARNINGS_MAX: usize = 4;

/// Why a query was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// It needs more memory than one query may have, by that setting.
    TooLarge { bytes: usize, bytes_max: usize, setting: &'static str },
    /// It would fit, but other queries hold what it needs.
    MemoryInUse { bytes_max: usize },
    /// It kept samples in memory that are on disk by now, and new ones needed the room.
    BrokenOff,
    /// It took longer than `query.timeout`.
    TimedOut { seconds: u64 },
    /// As many as `query.concurrency` allows are running.
    TooMany { concurrency: usize },
    /// Its regular expressions, which are compiled only where series are selected.
    Matchers(MatcherError),
    /// A file could not be read.
    Storage(String),
    /// It is not deleted, or not sure to be after a restart.
    NotDeleted(String),
    /// A snapshot was not taken, or what is deleted not cleaned.
    NotDone(String),
    /// The journals are still being replayed.
    Starting,
}

/// A question that went to all executors.
pub struct Gather {
    /// The loop, and the client on it.
    pub to: (usize, ConnId),
    question: Arc<Question>,
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
    pub fn begin(&mut self, to: (usize, ConnId), question: Arc<Question>, shards: usize) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let parts = (0..shards).map(|_| None).collect();
        self.gathers.insert(ticket, Gather { to, question, parts, error: None, missing: shards });
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

/// Bytes rendered before others get their turn: some hundred rows, a few tenths of a millisecond.
const PIECE_BYTES: usize = 32 * 1024;

impl Gather {
    /// What was asked.
    pub fn inquiry(&self) -> &Inquiry {
        &self.question.inquiry
    }

    /// Merges and renders, yielding between steps. What is left when it breaks off is let go of in steps, too.
    pub async fn answer(self) -> Result<QueryAnswer, QueryError> {
        let mut partials = Vec::new();
        let mut standings = Vec::new();
        let mut shares = Vec::new();
        let mut cardinalities = Vec::new();
        let mut warnings = Vec::new();
        for part in self.parts.into_iter().flatten() {
            match part {
                Part::Samples(partial, missing) => {
                    partials.push(*partial);
                    warnings.extend(missing);
                }
                Part::Done => {}
                Part::Storage(share) => shares.push(*share),
                Part::Alerts(owned) => standings.extend(owned),
                Part::Cardinality(counted) => cardinalities.push(*counted),
            }
        }
        if let Some(error) = self.error {
            for mut partial in partials {
                while partial.let_go() {
                    shard::executor::yield_if_needed().await;
                }
            }
            return Err(error);
        }
        let warnings: Warnings = warnings.into();
        let question = self.question;
        let mut body = Vec::new();
        let query = match &question.inquiry {
            Inquiry::Samples(query) => query,
            Inquiry::Alerts(alerts) => {
                let body = alerts.render(standings);
                return Ok(QueryAnswer { body: Some(body), warnings });
            }
            Inquiry::StorageStatus => {
                let body = storage_status::render(&shares, &question.windows);
                return Ok(QueryAnswer { body: Some(body), warnings });
            }
            Inquiry::Delete(_) | Inquiry::Snapshot | Inquiry::CleanTombstones => {
                return Ok(QueryAnswer { body: None, warnings });
            }
            Inquiry::Cardinality(status) => {
                let body = status.render(cardinalities);
                return Ok(QueryAnswer { body: Some(body), warnings });
            }
        };
        match query.merge(partials) {
            Answer::Percentile(mut search) => {
                if let Err(error) = find(&mut search, &question).await {
                    while search.let_go() {
                        shard::executor::yield_if_needed().await;
                    }
                    return Err(error);
                }
                search.answer().render(&mut body);
            }
            Answer::Rows(rows) => {
                let mut renderer = RowsRenderer::new(rows);
                if let Err(error) = render(&mut renderer, &mut body, &question).await {
                    while renderer.let_go() {
                        shard::executor::yield_if_needed().await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(QueryAnswer { body: Some(body), warnings })
    }
}

async fn find(search: &mut PercentileSearch, question: &Question) -> Result<(), QueryError> {
    while search.step() {
        question.deadline.check()?;
        shard::executor::yield_if_needed().await;
    }
    Ok(())
}

async fn render(
    renderer: &mut RowsRenderer,
    body: &mut Vec<u8>,
    question: &Question,
) -> Result<(), QueryError> {
    let mut holding = Holding::of(&question.memory);
    let rows = renderer.remaining();
    while renderer.next_piece(body, PIECE_BYTES) {
        reserve_the_rest(body, rows, renderer.remaining());
        holding.cover(body.len())?;
        question.deadline.check()?;
        shard::executor::yield_if_needed().await;
    }
    Ok(())
}

/// Makes room for the rows to come, by the length of those that are there, so that a large body is not moved
/// again and again; at most as much as there is already, since the rows that are there may be the long ones.
fn reserve_the_rest(body: &mut Vec<u8>, rows: usize, remaining: usize) {
    if body.capacity() - body.len() < 2 * PIECE_BYTES && remaining > 0 {
        let bytes_per_row = body.len() / (rows - remaining).max(1) + 1;
        let rest = remaining.saturating_mul(bytes_per_row + bytes_per_row / 16);
        body.reserve_exact(rest.min(body.len()) + 4 * PIECE_BYTES);
    }
}

/// When a query has had its time.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at_nanos: u64,
    timeout: Duration,
}

impl Deadline {
    /// So much time from that moment on.
    pub fn after(now: Now, timeout: Duration) -> Deadline {
        Deadline { at_nanos: now.nanos.saturating_add(timeout.as_nanos() as u64), timeout }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows to come are guessed by those that are there, and these may be the long ones.
    #[test]
    fn an_answer_takes_room_for_as_much_again_at_most() {
        const ROWS: usize = 3_000;
        let mut body = vec![b'a'; 240_000];
        reserve_the_rest(&mut body, ROWS + 1, ROWS);
        let grown = body.capacity();
        assert!(grown >= body.len() + 2 * PIECE_BYTES, "{grown}");
        assert!(grown <= 2 * body.len() + 4 * PIECE_BYTES, "{grown}");
        reserve_the_rest(&mut body, ROWS + 1, ROWS);
        assert_eq!(body.capacity(), grown, "there is room");

        let mut last = Vec::new();
        reserve_the_rest(&mut last, ROWS, 0);
        assert_eq!(last.capacity(), 0, "nothing is to come");
    }
}
