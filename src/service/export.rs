//! A page of an export: this executor's series from a place on, as text.
//!
//! ```text
//! first page of an executor   what was answered before it is drained from the rings, then the series in memory are looked at
//! each page                   a walk of the store from its place on, until there is a page of text, or it has read long enough
//! ```
//!
//! Always: what a page holds is on its own account, as a query's; a walk that finds nothing ends all the same.
//! Not here: which parameters there are, and what a page knows (`export.rs`).

use super::select::Missing;
use super::{Shard, admission, send_to_loop};
use crate::export::{ExportPage, ExportedPage, PAGE_BYTES};
use crate::fan_in::{Deadline, QueryError};
use crate::front::Now;
use crate::message::ToLoop;
use crate::query_memory::{Holding, QueryMemory};
use model::{LabelSet, Sample, Timestamp};
use query::ExportRenderer;
use shard::executor;
use shard::net::ConnId;
use std::rc::Rc;
use std::sync::Arc;
use storage::store::{Piece, Place, WalkPlan, WalkRange, Walked};

/// Directory blocks read for one page, some 50 µs each.
const BLOCKS_MAX: usize = 4096;

/// Makes a page and sends it to the loop that asked.
pub async fn run(shard: Shard, to: usize, conn: ConnId, page: Box<ExportPage>) {
    let made = make(&shard, &page).await;
    {
        let service = shard.borrow();
        service.counters().queries.add(1);
        service.counters().query_failures.add(u64::from(made.is_err()));
    }
    send_to_loop(&shard, to, ToLoop::Page { conn, page: made.map(Box::new) }).await;
}

async fn make(shard: &Shard, page: &ExportPage) -> Result<ExportedPage, QueryError> {
    let (shared, now) = (shard.borrow().shared.clone(), Now::read());
    let oldest = shared.config.oldest(now.unix_ms);
    let known = match &page.range {
        Some(known) => known.clone(),
        None => Arc::new(page.request.range(oldest).map_err(QueryError::Matchers)?),
    };
    let range = WalkRange { start: known.start.max(oldest), ..(*known).clone() };
    let memory = QueryMemory::new(shared.query_budget.clone(), shared.config.query_memory_bytes_max);
    let deadline = Deadline::after(now, shared.config.query_timeout);
    let mut holding = Holding::of(&memory);
    let plan = match &page.plan {
        Some(plan) => plan.clone(),
        None => Arc::new(plan_walk(shard, &range, &mut holding, deadline).await?),
    };
    let mut text = Vec::new();
    if page.is_first {
        text.extend_from_slice(page.request.format.head().as_bytes());
    }
    let mut renderer = ExportRenderer::new(page.request.format);
    let mut went_on = page.last;
    let mut at_hand: Option<Rc<LabelSet>> = None;
    let (mut missing, mut blocks, mut piece) = (Missing::default(), 0, Piece::default());
    let mut walk = shard.borrow().store.walk(range, page.place.clone());
    let next = 'walk: loop {
        let walked = shard.borrow().store.walk_on(&mut walk, &plan);
        match walked {
            Walked::Done => break None,
            // What was read is thrown away with the page: it ends only where the next one begins further on.
            Walked::Block if blocks >= BLOCKS_MAX && *walk.place() != page.place => {
                break Some((walk.place().clone(), None));
            }
            Walked::Block => {
                blocks += 1;
                walk.read_block().await;
            }
            Walked::Slot => {
                while walk.next_piece(&mut piece).await {
                    if let Some(series) = &piece.begins {
                        let is_known = |(labels, _): &&(LabelSet, Timestamp)| *labels == *series.labels;
                        let goes_on = page.place.after.as_ref().filter(is_known).is_some();
                        let last = went_on.take().filter(|_| goes_on);
                        renderer.begin_series((*series.labels).as_ref(), series.kind, last);
                        at_hand = Some(series.labels.clone());
                    }
                    let full_at = write_page(&piece.samples, &mut renderer, &mut text);
                    missing.note(&shared.damage, walk.take_warnings())?;
                    holding.cover(plan.bytes() + walk.bytes() + text.capacity())?;
                    deadline.check()?;
                    if let (Some(labels), Some(timestamp)) = (&at_hand, full_at) {
                        let slot = (**labels).as_ref().hash().slot().number();
                        let after = Some(((**labels).clone(), timestamp));
                        break 'walk Some((Place { slot, after }, renderer.last()));
                    }
                    executor::yield_if_needed().await;
                }
            }
        }
        missing.note(&shared.damage, walk.take_warnings())?;
        holding.cover(plan.bytes() + walk.bytes() + text.capacity())?;
        deadline.check()?;
        executor::yield_if_needed().await;
    };
    missing.note(&shared.damage, walk.take_warnings())?;
    let next = match next {
        Some((place, last)) => {
            let (request, shard, plan) = (page.request.clone(), page.shard, Some(plan));
            Some(ExportPage { request, shard, place, last, range: Some(known), plan, is_first: false })
        }
        None if page.shard + 1 < shared.shard_count() => Some(page.of_next_shard(known)),
        None => {
            text.extend_from_slice(page.request.format.foot().as_bytes());
            None
        }
    };
    let format = page.request.format;
    Ok(ExportedPage { format, text, next: next.map(Box::new), warnings: missing.told() })
}

/// Writes samples until there is a page of text; the time of the last one written, where that is so. A line may be a
/// megabyte, and a piece has thousands: a page ends inside a piece.
fn write_page(samples: &[Sample], renderer: &mut ExportRenderer, text: &mut Vec<u8>) -> Option<Timestamp> {
    for sample in samples {
        renderer.push(*sample, text);
        if text.len() >= PAGE_BYTES {
            return Some(sample.timestamp);
        }
    }
    None
}

/// Looks for the series in memory, all those included whose samples were answered by now.
async fn plan_walk(
    shard: &Shard,
    range: &WalkRange,
    holding: &mut Holding<'_>,
    deadline: Deadline,
) -> Result<WalkPlan, QueryError> {
    super::drain_answered(shard);
    admission::settle(shard);
    let mut plan = WalkPlan::default();
    while shard.borrow().store.plan_walk(range, &mut plan) {
        holding.cover(plan.bytes())?;
        deadline.check()?;
        executor::yield_if_needed().await;
    }
    Ok(plan)
}
