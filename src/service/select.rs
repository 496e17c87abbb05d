//! One shard's share of a query, and the answer once all shares are in.

use super::{Shard, send_to_loop, send_to_peer};
use crate::fan_in::{Deadline, Gather, Inquiry, Part, QueryError};
use crate::front::Now;
use crate::message::{ToLoop, ToPeer};
use model::Timestamp;
use query::{Partial, Query};
use shard::executor;
use std::sync::Arc;

/// Samples taken before others get their turn.
const SAMPLES_PER_STEP: usize = 4096;

/// Answers one executor's question with this shard's share.
pub async fn answer(shard: Shard, ticket: u64, to: usize, inquiry: Arc<Inquiry>) {
    let partial = match &*inquiry {
        Inquiry::Samples(query) => gather(&shard, query).await.map(Part::Samples),
        Inquiry::Alerts(_) => Ok(Part::Alerts(shard.borrow().rules.standings())),
    };
    let from = shard.borrow().index;
    send_to_peer(&shard, to, ToPeer::Partial { ticket, from, partial }).await;
}

async fn gather(shard: &Shard, query: &Query) -> Result<Partial, QueryError> {
    let matchers = query.selector.matchers().map_err(QueryError::Matchers)?;
    let (mut selection, deadline, bytes_max) = {
        let mut service = shard.borrow_mut();
        let now = Now::read();
        // What was answered before the question lies in the rings by now.
        let mut jobs = Vec::new();
        service.drain(usize::MAX, &mut jobs);
        for job in jobs {
            super::start(shard, job);
        }
        let config = &service.shared.config;
        let deadline = Deadline::after(config.query_timeout);
        let bytes_max = config.query_memory_bytes_max / service.shared.shard_count();
        let (start, end) = query.selector.bounds();
        let oldest = config.oldest_ms(now.unix_ms).map_or(Timestamp::MIN, Timestamp::first_of_milli);
        let selection = service.store.select(&query.selector.name, &matchers, start, end, oldest);
        (selection, deadline, bytes_max)
    };
    let too_large =
        |error: query::TooLarge| QueryError::TooLarge { bytes: error.bytes, bytes_max: error.bytes_max };
    let mut partial = query.partial(bytes_max);
    while let Some(series) = selection.next().await {
        partial.push_series((*series.labels).as_ref()).map_err(too_large)?;
        for samples in series.samples.chunks(SAMPLES_PER_STEP) {
            for sample in samples {
                partial.push(*sample).map_err(too_large)?;
            }
            deadline.check()?;
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
    let (deadline, bytes_max) = {
        let service = shard.borrow();
        let config = &service.shared.config;
        (Deadline::after(config.query_timeout), config.query_memory_bytes_max)
    };
    let (to, conn) = gather.to;
    let answer = gather.answer(deadline, bytes_max).await;
    {
        let service = shard.borrow();
        let counters = service.counters();
        counters.queries.add(1);
        counters.query_failures.add(u64::from(answer.is_err()));
    }
    send_to_loop(&shard, to, ToLoop::Answer { conn, answer }).await;
}
