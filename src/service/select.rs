//! One shard's share of a query, and the answer once all shares are in.
//!
//! Between two steps, each of some thousand samples at most, others get their turn (`yield_if_needed`).

use super::{Shard, send_to_loop, send_to_peer};
use crate::fan_in::{Gather, Inquiry, Part, QueryError, Question};
use crate::front::Now;
use crate::message::{ToLoop, ToPeer};
use crate::query_memory::Holding;
use model::Timestamp;
use query::{Partial, Query};
use shard::executor;
use std::sync::Arc;
use storage::store::Piece;

/// Answers one executor's question with this shard's share.
pub async fn answer(shard: Shard, ticket: u64, to: usize, question: Arc<Question>) {
    let partial = match &question.inquiry {
        Inquiry::Samples(query) => gather(&shard, &question, query).await.map(Part::Samples),
        Inquiry::Alerts(_) => Ok(Part::Alerts(shard.borrow().rules.standings())),
    };
    drop(question);
    let from = shard.borrow().index;
    send_to_peer(&shard, to, ToPeer::Partial { ticket, from, partial }).await;
}

async fn gather(shard: &Shard, question: &Question, query: &Query) -> Result<Partial, QueryError> {
    let selector = &query.selector;
    let matchers = selector.matchers().map_err(QueryError::Matchers)?;
    let mut selection = {
        let mut service = shard.borrow_mut();
        let now = Now::read();
        // What was answered before the question lies in the rings by now.
        let mut jobs = Vec::new();
        service.drain(usize::MAX, &mut jobs);
        for job in jobs {
            super::start(shard, job);
        }
        let (start, end) = selector.bounds();
        let oldest = service.shared.config.oldest_ms(now.unix_ms);
        let oldest = oldest.map_or(Timestamp::MIN, Timestamp::first_of_milli);
        service.store.select(&selector.name, &matchers, start, end, oldest)
    };
    // What the drain found may call for a flush, and no mail may come for a while.
    super::admission::settle(shard);
    let mut partial = query.partial();
    let mut holding = Holding::of(&question.memory);
    let mut piece = Piece::default();
    while selection.next_piece(&mut piece).await {
        if let Some(series) = &piece.begins {
            partial.push_series((*series.labels).as_ref(), series.arrival);
        }
        for sample in &piece.samples {
            partial.push(*sample);
        }
        holding.cover(partial.bytes())?;
        question.deadline.check()?;
        executor::yield_if_needed().await;
        while partial.tidy() {
            holding.cover(partial.bytes())?;
            executor::yield_if_needed().await;
        }
    }
    if let Some(damage) = selection.warnings().first() {
        return Err(QueryError::Storage(damage.to_string()));
    }
    Ok(partial.finish())
}

/// Merges the shares and answers the client.
pub async fn finish(shard: Shard, gather: Box<Gather>) {
    let (to, conn) = gather.to;
    let answer = gather.answer().await;
    {
        let service = shard.borrow();
        let counters = service.counters();
        counters.queries.add(1);
        counters.query_failures.add(u64::from(answer.is_err()));
    }
    send_to_loop(&shard, to, ToLoop::Answer { conn, answer }).await;
}
