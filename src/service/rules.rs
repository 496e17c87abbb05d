//! The window rules of one shard: its own samples in each rule's window, and, for the rules it owns, what
//! all shards report.
//!
//! ```text
//! sample of a watched metric → this shard's window → at most 100 ms later: its part to the rule's owner
//!   → the owner adds the parts up, steps the rule, prints a change once, and keeps it (`rule_file.rs`)
//! ```
//!
//! At start every shard fills its windows from its store and reports, and the owner takes up the state in which
//! the rule was left; nothing is decided before all have reported.

use super::{Shard, rule_file, send_to_peer};
use crate::adapt::ShardDisk;
use crate::alerts::{Standing, StateName};
use crate::console::{Console, Lines};
use crate::front::Now;
use crate::log;
use crate::message::ToPeer;
use crate::shared::{Shared, StoreCounters};
use alert::{RuleState, State, Window, WindowPart, WindowRule};
use model::{LabelSetRef, Sample, Timestamp};
use shard::executor::{self, LocalEvent};
use std::rc::Rc;
use std::time::Duration;
use storage::memtable::Appended;
use storage::store::{Piece, Store};

/// From a sample to its part's report; half of what SPEC allows, the other half is for the way.
const REPORT_AFTER: Duration = Duration::from_millis(50);

/// All rules, as one shard sees them.
pub struct Rules {
    rules: Vec<RuleShare>,
    console: Console,
    future_ms: i64,
    index: usize,
    shards: usize,
    is_saving: bool,
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
    /// The state has changed since it was kept on disk.
    is_unsaved: bool,
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
                // So that the owner hears of every shard once.
                changed: true,
                moves_at_ms: None,
                state: None,
                is_unsaved: false,
                rule: rule.clone(),
            }
        });
        let console = shared.console.clone();
        Rules { rules: rules.collect(), console, future_ms, index, shards, is_saving: false }
    }

    /// Takes up where the process was left: windows from the store, states from their files.
    pub async fn restore(&mut self, store: &Store<ShardDisk>, disk: &ShardDisk, now_ms: i64) {
        for share in &mut self.rules {
            let start = Timestamp::first_of_milli(now_ms - share.rule.window_ms());
            let mut selection = store.select(share.rule.metric(), &[], start, Timestamp::MAX, Timestamp::MIN);
            let mut piece = Piece::default();
            while selection.next_piece(&mut piece).await {
                for sample in &piece.samples {
                    share.window.add(now_ms, *sample);
                }
                executor::yield_if_needed().await;
            }
            if share.owner == self.index {
                let state = rule_file::load(disk, &share.rule).await;
                share.state = Some(RuleState::new(share.rule.clone(), self.shards, state));
            }
        }
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
                // Of a watched series no sample is said to be late.
                Appended::New | Appended::Late => share.window.add(now_ms, sample),
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
        for share in &mut self.rules {
            let Some(state) = &mut share.state else { continue };
            if let Some(event) = state.evaluate(now_ms) {
                self.console.tell(Lines::Notices, &format!("{}\n", event.console_line(state.rule())));
                share.is_unsaved = true;
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

    /// Where the rules stand that this shard owns.
    pub fn standings(&self) -> Vec<Standing> {
        let owned =
            self.rules.iter().enumerate().filter_map(|(index, share)| Some((index, share.state.as_ref()?)));
        let standing = |(index, state): (usize, &RuleState)| Standing {
            index,
            rule: state.rule().name().to_owned(),
            state: match state.state() {
                State::Inactive => StateName::Inactive,
                State::Firing { .. } => StateName::Firing,
            },
            value: state.average(),
            since_ms: state.since_ms(),
        };
        owned.map(standing).collect()
    }

    /// Whether a state has changed that nobody is keeping yet.
    pub fn wants_saving(&self) -> bool {
        !self.is_saving && self.rules.iter().any(|share| share.is_unsaved)
    }

    /// Whether everything that was told is kept.
    pub fn is_saved(&self) -> bool {
        !self.is_saving && !self.rules.iter().any(|share| share.is_unsaved)
    }

    /// The next change to keep.
    fn next_unsaved(&mut self) -> Option<(WindowRule, Option<i64>)> {
        let share = self.rules.iter_mut().find(|share| share.is_unsaved)?;
        share.is_unsaved = false;
        let since_ms = match share.state.as_ref()?.state() {
            State::Firing { since_ms, .. } => Some(since_ms),
            State::Inactive => None,
        };
        Some((share.rule.clone(), since_ms))
    }

    fn any_changed(&self) -> bool {
        self.rules.iter().any(|share| share.changed)
    }
}

/// Keeps what has changed, one rule after another; one task at a time.
pub async fn save(shard: Shard) {
    if !shard.borrow().rules.wants_saving() {
        return;
    }
    shard.borrow_mut().rules.is_saving = true;
    loop {
        let (next, disk) = {
            let mut service = shard.borrow_mut();
            (service.rules.next_unsaved(), service.disk.clone())
        };
        let Some((rule, since_ms)) = next else { break };
        if let Err(error) = rule_file::store(&disk, &rule, since_ms).await {
            // It is told, and holds in memory; after a restart it may be told once more.
            log::warning(format_args!("the state of alert {} could not be kept: {error}", rule.name()));
        }
    }
    let mut service = shard.borrow_mut();
    service.rules.is_saving = false;
    service.shared.store_bells[service.index].ring();
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
        save(shard.clone()).await;
        for (rule, owner, part) in parts {
            send_to_peer(&shard, owner, ToPeer::RulePart { rule, from: index, part }).await;
        }
    }
}
