//! The window rules of one shard: its own samples in each rule's window, and, for the rules it owns, what
//! all shards report.
//!
//! ```text
//! sample of a watched metric → this shard's window → at most 100 ms later: its part to the rule's owner
//!   → the owner adds the parts up, steps the rule, and prints a change once
//! ```

use super::{Shard, send_to_peer};
use crate::front::Now;
use crate::message::ToPeer;
use crate::shared::{Shared, StoreCounters};
use alert::{RuleState, State, Window, WindowPart, WindowRule};
use model::{LabelSetRef, Sample};
use shard::executor::{self, LocalEvent};
use std::rc::Rc;
use std::time::Duration;
use storage::memtable::Appended;

/// From a sample to its part's report; half of what SPEC allows, the other half is for the way.
const REPORT_AFTER: Duration = Duration::from_millis(50);

/// All rules, as one shard sees them.
pub struct Rules {
    rules: Vec<RuleShare>,
    future_ms: i64,
}

struct RuleShare {
    rule: WindowRule,
    owner: usize,
    window: Window,
    /// A sample came since the last report.
    changed: bool,
    /// When the window's content changes by time alone.
    moves_at_ms: Option<i64>,
    /// Kept by the owner only.
    state: Option<RuleState>,
}

impl Rules {
    /// The rules of the process, for shard `index`.
    pub fn new(rules: &[WindowRule], shared: &Shared, index: usize) -> Rules {
        let shards = shared.shard_count();
        let future_ms = shared.config.ingest_future_max.as_millis() as i64;
        let rules = rules.iter().map(|rule| {
            let owner = rule.owner(shards);
            RuleShare {
                owner,
                window: Window::new(rule, future_ms),
                changed: false,
                moves_at_ms: None,
                state: (owner == index).then(|| RuleState::new(rule.clone(), shards)),
                rule: rule.clone(),
            }
        });
        Rules { rules: rules.collect(), future_ms }
    }

    /// The tag for series of that label set: one bit per rule that watches its metric.
    pub fn watch_of(rules: &[WindowRule], labels: LabelSetRef<'_>) -> u16 {
        let watching = rules.iter().enumerate().filter(|(_, rule)| rule.metric() == labels.name());
        watching.fold(0, |tag, (index, _)| tag | 1 << index)
    }

    /// A sample of a watched series was stored; says whether a report has become due.
    pub fn observe(&mut self, watch: u16, sample: Sample, appended: Appended, now_ms: i64) -> bool {
        let mut due = false;
        let age_ms = now_ms - sample.timestamp.millis();
        for (index, share) in self.rules.iter_mut().enumerate() {
            let counts = age_ms <= share.rule.window_ms() && -age_ms <= self.future_ms;
            if watch & (1 << index) == 0 || !counts {
                continue;
            }
            match appended {
                Appended::Same => continue,
                Appended::New => share.window.add(now_ms, sample),
                Appended::Replaced { old } => {
                    share.window.replace(now_ms, Sample { value: old, ..sample }, sample.value)
                }
            };
            due |= !share.changed;
            share.changed = true;
        }
        due
    }

    /// A shard's part has come to the owner; prints what changed by it.
    pub fn report(
        &mut self,
        rule: usize,
        from: usize,
        part: WindowPart,
        now_ms: i64,
        counters: &StoreCounters,
    ) {
        if let Some(state) = self.rules.get_mut(rule).and_then(|share| share.state.as_mut()) {
            state.report(from, part);
        }
        self.evaluate(now_ms, counters);
    }

    fn evaluate(&mut self, now_ms: i64, counters: &StoreCounters) {
        let mut firing = 0;
        for state in self.rules.iter_mut().filter_map(|share| share.state.as_mut()) {
            if let Some(event) = state.evaluate(now_ms) {
                print_line(&event.console_line(state.rule()));
            }
            firing += u64::from(!matches!(state.state(), State::Inactive));
        }
        counters.alerts_firing.set(firing);
    }

    /// The parts that are to be reported now.
    fn due_parts(&mut self, now_ms: i64) -> Vec<(usize, usize, WindowPart)> {
        let mut parts = Vec::new();
        for (index, share) in self.rules.iter_mut().enumerate() {
            if share.changed || share.moves_at_ms.is_some_and(|at| at <= now_ms) {
                share.changed = false;
                parts.push((index, share.owner, share.window.part(now_ms)));
                share.moves_at_ms = share.window.next_change_ms(now_ms);
            }
        }
        parts
    }

    /// When something changes by time alone, if ever.
    fn next_ms(&self) -> Option<i64> {
        let moves = self.rules.iter().filter_map(|share| share.moves_at_ms);
        let deadlines = self.rules.iter().filter_map(|share| share.state.as_ref()?.deadline_ms());
        moves.chain(deadlines).min()
    }

    fn any_changed(&self) -> bool {
        self.rules.iter().any(|share| share.changed)
    }
}

/// What the console is told goes out at once, whole; a closed standard output is no reason to stop.
fn print_line(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Reports parts when samples changed them and when time alone does. Sleeps without a timer while no rule
/// has a sample in its window.
pub async fn run_clock(shard: Shard, due: Rc<LocalEvent>) {
    loop {
        let (changed, next_ms) = {
            let service = shard.borrow();
            (service.rules.any_changed(), service.rules.next_ms())
        };
        let now_ms = Now::read().unix_ms;
        match next_ms {
            _ if changed => executor::sleep(REPORT_AFTER).await,
            Some(at) if at > now_ms => {
                // Not longer than a report may take: a sample that comes meanwhile is not to wait for it.
                let wait = Duration::from_millis((at - now_ms) as u64).min(2 * REPORT_AFTER);
                executor::sleep(wait).await;
            }
            Some(_) => {}
            None => {
                due.wait().await;
                continue;
            }
        }
        let (index, parts) = {
            let mut service = shard.borrow_mut();
            let now_ms = Now::read().unix_ms;
            let parts = service.rules.due_parts(now_ms);
            let service = &mut *service;
            service.rules.evaluate(now_ms, &service.shared.shards[service.index].store);
            (service.index, parts)
        };
        for (rule, owner, part) in parts {
            send_to_peer(&shard, owner, ToPeer::RulePart { rule, from: index, part }).await;
        }
    }
}
