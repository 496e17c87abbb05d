//! One shard's share of a query, and the answer once all shares are in.
//!
//! Between two steps, each of some hundred series or some thousand samples at most, others get their turn
//! (`yield_if_needed`); also when what was gathered is let go of, whichever way the query ended.
//! Always: what a step has left in memory, of the search for series and of the share, is on the query's account
//! before the next one.

use super::{Shard, send_to_loop, send_to_peer};
use crate::damage::Damage;
use crate::fan_in::{Gather, Inquiry, Part, QueryError, Question, WARNINGS_MAX, Warnings};
use crate::front::Now;
use crate::message::{ToLoop, ToPeer};
use crate::query_memory::Holding;
use crate::storage_status::StorageShare;
use query::{Partial, PartialBuilder, Query};
use shard::executor;
use std::sync::Arc;
use storage::disk::{Disk, DiskFile as _};
use storage::segment::SegmentError;
use storage::store::{Cardinality, Piece, Selection};

/// Answers one executor's question with this shard's share.
pub async fn answer(shard: Shard, ticket: u64, to: usize, question: Arc<Question>) {
    let partial = match &question.inquiry {
        Inquiry::Samples(query) => {
            let gathered = gather(&shard, &question, query).await;
            gathered.map(|(partial, warnings)| Part::Samples(Box::new(partial), warnings))
        }
        Inquiry::Delete(request) => {
            let deleted = super::flush::delete(&shard, request.clone()).await;
            deleted.map(|()| Part::Done).map_err(QueryError::NotDeleted)
        }
        Inquiry::Snapshot => {
            let flushed = super::flush::flush_all(&shard).await;
            flushed.map(|()| Part::Done).map_err(QueryError::NotDone)
        }
        Inquiry::CleanTombstones => {
            let cleaned = super::compact::clean(&shard).await;
            cleaned.map(|()| Part::Done).map_err(QueryError::NotDone)
        }
        Inquiry::StorageStatus => Ok(Part::Storage(Box::new(storage_share(&shard).await))),
        Inquiry::Cardinality(_) => count(&shard, &question).await.map(Part::Cardinality),
        Inquiry::Alerts(_) => Ok(Part::Alerts(shard.borrow().rules.standings())),
    };
    drop(question);
    let from = shard.borrow().index;
    send_to_peer(&shard, to, ToPeer::Partial { ticket, from, partial }).await;
}

/// What this shard's samples take. A journal that cannot be listed counts nothing.
async fn storage_share(shard: &Shard) -> StorageShare {
    let (mut share, disk, journal) = {
        let service = shard.borrow();
        let windows = super::compact::windows(&service.shared.config);
        let mut share = StorageShare::of(service.store.told_segments(), &windows);
        share.flushed_bytes = service.counters().flushed_bytes.get();
        share.merged_bytes = service.counters().merged_bytes.get();
        share.checkpoint_unix_s = service.counters().checkpoint_unix_seconds.get();
        share.memory_samples = service.store.memtable_samples();
        (share, service.disk.clone(), storage::journal::folder(service.index as u16))
    };
    for name in disk.list(&journal).await.unwrap_or_default() {
        if let Ok(file) = disk.open(&format!("{journal}/{name}")).await {
            share.wal_bytes += file.len().await.unwrap_or(0);
        }
    }
    share
}

/// Which names and labels have the most series here.
async fn count(shard: &Shard, question: &Question) -> Result<Box<Cardinality>, QueryError> {
    let mut counting = shard.borrow().store.count_cardinality();
    while counting.step() {
        question.deadline.check()?;
        executor::yield_if_needed().await;
    }
    Ok(Box::new(counting.end()))
}

/// The share, and what is missing of it.
async fn gather(
    shard: &Shard,
    question: &Question,
    query: &Query,
) -> Result<(Partial, Warnings), QueryError> {
    let selector = &query.selector;
    let matchers = selector.matchers().map_err(QueryError::Matchers)?;
    let now = Now::read();
    super::drain_answered(shard);
    let mut selection = {
        let service = shard.borrow();
        let (start, end) = selector.bounds();
        let oldest = service.shared.config.oldest(now.unix_ms);
        service.store.select(&selector.name, &matchers, start, end, oldest)
    };
    super::admission::settle(shard);
    selection.hold_ahead(question.memory.spare());
    let mut partial = query.partial();
    // It may have kept samples in memory that are on disk by now, and so closed the store.
    let let_go = || super::admission::settle(shard);
    let shared = shard.borrow().shared.clone();
    let filled = fill(&mut partial, &mut selection, question, let_go, &shared.damage).await;
    let mut is_left = selection.let_go();
    super::admission::settle(shard);
    while is_left {
        executor::yield_if_needed().await;
        is_left = selection.let_go();
    }
    match filled {
        Ok(missing) => Ok((partial.finish(), missing.told())),
        Err(error) => {
            while partial.let_go() {
                executor::yield_if_needed().await;
            }
            Err(error)
        }
    }
}

/// What is missing from an answer: the first of it by name, and how much more.
#[derive(Debug, Default)]
pub(super) struct Missing {
    texts: Vec<String>,
    more: u64,
}

impl Missing {
    /// Counts damage. A disk that does not answer may answer later, and so may memory.
    pub(super) fn note(&mut self, damage: &Damage, warnings: Vec<SegmentError>) -> Result<(), QueryError> {
        for error in warnings {
            if let SegmentError::Io { .. } | SegmentError::Memory { .. } = &error {
                return Err(QueryError::Storage(error.to_string()));
            }
            let text = damage.note(&error);
            if self.texts.len() < WARNINGS_MAX {
                self.texts.push(text);
            } else {
                self.more += 1;
            }
        }
        Ok(())
    }

    pub(super) fn told(mut self) -> Warnings {
        if self.more > 0 {
            self.texts.push(format!("{} more damaged places", self.more));
        }
        self.texts.into()
    }
}

/// Reads the selection to its end, or to the query's; tells when it does not keep the store's memory any more.
async fn fill<D: Disk>(
    partial: &mut PartialBuilder<'_>,
    selection: &mut Selection<D>,
    question: &Question,
    let_go: impl Fn(),
    damage: &Damage,
) -> Result<Missing, QueryError> {
    let mut missing = Missing::default();
    let mut holding = Holding::of(&question.memory);
    let mut piece = Piece::default();
    holding.cover(selection.bytes())?;
    let mut keeps_memory = selection.keeps_memory();
    while selection.next_piece(&mut piece).await {
        if std::mem::replace(&mut keeps_memory, selection.keeps_memory()) && !keeps_memory {
            let_go();
        }
        if let Some(series) = &piece.begins {
            partial.push_series((*series.labels).as_ref(), series.arrival);
        }
        for sample in &piece.samples {
            partial.push(*sample);
        }
        holding.cover(selection.bytes() + partial.bytes())?;
        question.deadline.check()?;
        if selection.is_broken_off() {
            return Err(QueryError::BrokenOff);
        }
        // Damage costs what it hit, and the answer says so.
        missing.note(damage, selection.take_warnings())?;
        executor::yield_if_needed().await;
        while partial.tidy() {
            holding.cover(selection.bytes() + partial.bytes())?;
            executor::yield_if_needed().await;
        }
    }
    missing.note(damage, selection.take_warnings())?;
    Ok(missing)
}

/// Merges the shares and answers the client.
pub async fn finish(shard: Shard, gather: Box<Gather>) {
    let (to, conn) = gather.to;
    let is_snapshot = matches!(gather.inquiry(), Inquiry::Snapshot);
    let mut answer = gather.answer().await;
    if let Ok(done) = &mut answer
        && is_snapshot
    {
        match super::keeper::snapshot(&shard).await {
            Ok((name, missing)) => {
                let mut body = format!(r#"{{"status":"success","data":{{"name":"{name}"}}"#).into_bytes();
                for (at, path) in missing.iter().enumerate() {
                    body.extend_from_slice(if at == 0 { br#","warnings":["# } else { b"," });
                    query::json::write_text(&format!("{path} is missing"), &mut body);
                }
                body.extend_from_slice(if missing.is_empty() { b"}" } else { b"]}" });
                done.body = Some(body);
            }
            Err(cause) => answer = Err(QueryError::NotDone(cause)),
        }
    }
    {
        let service = shard.borrow();
        let counters = service.counters();
        counters.queries.add(1);
        counters.query_failures.add(u64::from(answer.is_err()));
    }
    send_to_loop(&shard, to, ToLoop::Answer { conn, answer }).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fan_in::Deadline;
    use crate::query_memory::{QueryBudget, QueryMemory};
    use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Timestamp};
    use query::Endpoint;
    use std::borrow::Cow;
    use std::time::Duration;
    use storage::disk::{SimDisk, ready};
    use storage::store::{Store, StoreOptions};

    /// So many series that what names them is more than the query may hold: it is refused before any is looked at,
    /// and holds nothing.
    #[test]
    fn a_search_among_too_many_series_is_refused_at_its_first_step() {
        const BYTES_MAX: usize = 32 << 10;
        let options = StoreOptions { memory_bytes_max: 1 << 30 };
        let mut store = Store::new(SimDisk::new(1), 0, 1, options, Box::new(|_| 0));
        let mut share = Share::default();
        for n in 0..300_000u32 {
            let labels = LabelSet::new("cpu", &[("n", &n.to_string())]).expect("valid labels");
            share.define(SeriesNumber(n), MetricKind::Gauge, labels.as_ref());
            share.push(SeriesNumber(n), Sample { timestamp: Timestamp::from_ticks(1), value: 1.0 });
        }
        store.apply(0, &share, &mut |_, _, _| {});
        let query = |name: &'static str| {
            let parameters = [(Cow::from("name"), Cow::from(name))];
            Query::from_parameters(Endpoint::Percentile, parameters.into_iter()).expect("a valid question")
        };
        let budget = Arc::new(QueryBudget::of_process(64 << 20));
        let question = Question {
            inquiry: Inquiry::Samples(query("cpu")),
            deadline: Deadline::after(Now::read(), Duration::from_secs(60)),
            memory: QueryMemory::new(budget.clone(), BYTES_MAX),
            windows: storage::compact::Windows::new(None, 0),
        };
        let fill_from = |name: &'static str| {
            let mut selection = store.select(name, &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
            let query = query(name);
            let mut partial = query.partial();
            ready(fill(&mut partial, &mut selection, &question, || {}, &Damage::default()))
        };
        let refused = fill_from("cpu");
        // A bit each.
        let held = 300_000 / 8;
        assert!(
            matches!(refused, Err(QueryError::TooLarge { bytes, bytes_max: BYTES_MAX, .. }) if bytes >= held),
            "{refused:?}"
        );
        assert_eq!(budget.taken(), 0);
    }
}
