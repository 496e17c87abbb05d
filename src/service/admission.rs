//! What an executor lets the loops take in, by what its memory holds; and the way out of full tables.
//!
//! ```text
//!   full                        → nothing goes in until a flush has ended, or idle series were forgotten
//!   full of series              → known series go in, new ones do not, until idle ones were forgotten
//!   many idle series are named  → they are let go of (`renewal.rs`)
//! ```
//!
//! Always: nothing here waits for what it has closed. A flush needs positions, not samples; a loop begins a new
//! dictionary without accepting anything; a failed flush is tried again by the clock.
//! Read next: `storage::store::Memory` for the bounds, `front/admission.rs` for what a loop does with it.

use super::renewal::{Renewal, Urgency};
use super::{Service, Shard, send_to_loop};
use crate::front::Now;
use crate::log;
use crate::message::ToLoop;
use crate::shared::{KNOWN_SERIES_BYTES_MAX, KnownSeries};
use model::{SeriesHash, Share};
use shard::executor::{self, TaskClass};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use storage::store::Memory;

/// Where new series are refused, samples are taken away from all this often at least: only then it shows which series
/// have become idle, and few samples of many series would not fill the memory for hours.
const FREEZE_INTERVAL: Duration = Duration::from_secs(600);
/// How often it is looked again while something is refused.
const WATCH: Duration = Duration::from_secs(1);

/// What an owner takes of its series' samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admitted {
    /// All.
    #[default]
    Everything,
    /// Those of series in its table; why no new ones.
    KnownSeries(Arc<str>),
    /// None; why.
    Nothing(Arc<str>),
}

/// What an owner tells the loops.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// What it takes.
    pub admitted: Admitted,
    /// Which series are in its table; while new ones are refused, or a limit may refuse them.
    pub known: Option<Arc<KnownSeries>>,
    /// Metric names of which no new series is let in: they have their share of `storage.series_per_name_max`.
    pub full_names: Arc<BTreeSet<Box<str>>>,
}

/// Where the admission of one executor stands.
pub struct Gate {
    admission: Admission,
    /// Loops that have not been told.
    owed: Vec<bool>,
    /// A task that tells them is under way.
    telling: bool,
    /// A task that looks again by the clock is under way.
    watching: bool,
    renewal: Renewal,
    /// Why the last flush failed, until one has not.
    flush_error: Option<Arc<str>>,
    froze_at_nanos: u64,
}

impl Gate {
    /// Everything goes in.
    pub fn new(loops: usize) -> Gate {
        Gate {
            admission: Admission::default(),
            owed: vec![false; loops],
            telling: false,
            watching: false,
            renewal: Renewal::default(),
            flush_error: None,
            froze_at_nanos: Now::read().nanos,
        }
    }

    /// Series had samples taken away just now: those that get none from now on are idle.
    pub fn froze(&mut self) {
        self.froze_at_nanos = Now::read().nanos;
    }

    /// How the last flush ended.
    pub fn flushed(&mut self, result: Result<(), &str>) {
        self.flush_error = result.err().map(Arc::from);
    }
}

impl Service {
    /// Counts series that a share brought, or a flush or a new dictionary took, against the limit.
    pub fn count_series(&self, left: i64) {
        if let Some(limit) = &self.shared.series_limit {
            limit.give(left);
        }
    }

    /// Enters the series that a share defines, while somebody looks them up.
    pub fn note_known(&self, share: &Share) {
        if let Some(known) = &self.gate.admission.known {
            share.definitions().for_each(|(_, _, labels)| known.note(labels.hash()));
        }
    }

    /// Series have left the table.
    pub fn forgot(&self, hashes: &[SeriesHash]) {
        self.count_series(hashes.len() as i64);
        if let Some(known) = &self.gate.admission.known {
            hashes.iter().for_each(|hash| known.forget(*hash));
        }
    }

    /// The first admission says which series there are, where a limit needs it: the table as replay has left it.
    pub fn open_gate(&mut self) {
        let shards = self.shared.shard_count();
        let per_name = self.shared.config.storage_series_per_name_max;
        if per_name > 0 {
            // Series of a name are spread by their hash.
            self.store.limit_names(per_name.div_ceil(shards as u64) as usize);
        }
        if self.may_refuse_series() {
            // Twice an even spread; the memory holds no more than this whatever the limit says.
            let limit = self.shared.series_limit.as_ref();
            let even = limit.map_or(usize::MAX, |limit| 2 * (limit.max as usize / shards + 1));
            self.gate.admission.known = Some(self.known_series(even));
            self.gate.owed.fill(true);
        }
    }

    /// Whether a limit is set that may refuse new series at any time.
    fn may_refuse_series(&self) -> bool {
        self.shared.series_limit.is_some() || self.shared.config.storage_series_per_name_max > 0
    }

    fn known_series(&self, at_most: usize) -> Arc<KnownSeries> {
        /// A series with one label takes as much.
        const SERIES_BYTES_MIN: usize = 256;
        const _: () =
            assert!(16 * KNOWN_SERIES_BYTES_MAX <= SERIES_BYTES_MIN, "a sixteenth of what holds them");
        let fitting = self.store.memory().max / SERIES_BYTES_MIN;
        let known = KnownSeries::with_capacity(fitting.min(at_most).max(self.store.series_count()));
        self.store.each_series(|hash| known.note(hash));
        Arc::new(known)
    }

    fn admitted(&self, memory: &Memory) -> Admitted {
        let shards = self.shared.shard_count();
        let cause = |why: &str| {
            let (budget, share) = (self.shared.memory_bytes_max >> 20, memory.max >> 20);
            let cause = format!(
                "shard {} has used up the {share} MiB for its samples and series \
                 (11/32 of memory_bytes_max = {budget} MiB, divided by {shards}): {why}",
                self.index
            );
            Arc::from(cause)
        };
        if memory.is_full() {
            Admitted::Nothing(match &self.gate.flush_error {
                Some(error) => cause(&format!("they cannot be flushed: {error}")),
                None if memory.is_full_of_series() => {
                    cause("more series than it holds; idle ones are being let go")
                }
                None => cause("they are being flushed, or on disk and still read by queries"),
            })
        } else if memory.is_full_of_series() {
            Admitted::KnownSeries(cause("more series than it holds; those that are known go on"))
        } else {
            Admitted::Everything
        }
    }

    /// Begins what the memory calls for, and notes what is to be told.
    fn settle(&mut self) {
        self.relieve();
        if self.store.wants_flush() || self.flush.is_wanted_at_once() || self.hides_idle_series() {
            self.begin_flush();
        }
        self.store.break_off_queries();
        let memory = self.store.memory();
        self.count_memory(&memory);
        if let Some(names) = self.store.full_names() {
            if let Some(name) = names.first().filter(|_| self.gate.admission.full_names.is_empty()) {
                log::warning(format_args!(
                    "shard {}: new series of {name:?}, and of others that may follow, are refused: \
                     storage.series_per_name_max",
                    self.index
                ));
            }
            self.gate.admission.full_names = Arc::new(names);
            self.gate.owed.fill(true);
        }
        let admitted = self.admitted(&memory);
        if admitted == self.gate.admission.admitted {
            return;
        }
        match &admitted {
            Admitted::Everything => log::info(format_args!("shard {} takes everything again", self.index)),
            Admitted::KnownSeries(cause) => log::warning(format_args!("new series are refused: {cause}")),
            Admitted::Nothing(cause) => log::warning(format_args!("samples are refused: {cause}")),
        }
        let known = match (&admitted, &self.gate.admission.known) {
            (_, Some(known)) if self.may_refuse_series() => Some(known.clone()),
            (Admitted::KnownSeries(_), None) => Some(self.known_series(usize::MAX)),
            (Admitted::KnownSeries(_), Some(known)) => Some(known.clone()),
            _ => None,
        };
        self.gate.admission.admitted = admitted;
        self.gate.admission.known = known;
        self.gate.owed.fill(true);
    }

    /// Whether new series are refused and none counts as idle, for long.
    fn hides_idle_series(&self) -> bool {
        let is_closed_to_new = matches!(self.gate.admission.admitted, Admitted::KnownSeries(_));
        let is_due =
            |nanos: u64| nanos.saturating_sub(self.gate.froze_at_nanos) >= FREEZE_INTERVAL.as_nanos() as u64;
        is_closed_to_new && !self.store.has_idle_share() && is_due(Now::read().nanos)
    }

    /// How pressing it is that idle series which only dictionaries name make room.
    fn urgency(&self) -> Urgency {
        let has_idle_share = self.store.has_idle_share();
        let presses = self.store.wants_new_dictionaries()
            || match self.gate.admission.admitted {
                Admitted::Everything => false,
                Admitted::KnownSeries(_) => has_idle_share && self.store.has_churned(),
                Admitted::Nothing(_) => has_idle_share && self.store.memory().is_full_of_series(),
            };
        match self.gate.admission.admitted {
            _ if presses => Urgency::Pressing,
            Admitted::KnownSeries(_) if has_idle_share => Urgency::Calm,
            _ => Urgency::None,
        }
    }

    /// Lets go of idle series that only dictionaries name: asks for new ones, and once all loops have begun them
    /// forgets what these do not name.
    fn relieve(&mut self) {
        let urgency = self.urgency();
        if urgency == Urgency::None && !self.gate.renewal.is_pending() {
            return;
        }
        let now_nanos = Now::read().nanos;
        let dictionaries: Vec<Option<u64>> =
            (0..self.shared.shard_count()).map(|of| self.store.dictionary(of)).collect();
        if !self.gate.renewal.is_pending() {
            for (of, dictionary) in dictionaries.iter().enumerate() {
                let ask = dictionary.map(|dictionary| ToLoop::RenewDictionary { dictionary });
                // A loop so far behind has more pressing news; the next drain tries again.
                if ask.is_some_and(|ask| self.loops.send(of, ask).is_err()) {
                    return;
                }
            }
            self.gate.renewal.asked(dictionaries.clone(), now_nanos);
        }
        if self.gate.renewal.is_due(urgency, &dictionaries, now_nanos) && !self.store.is_flushing() {
            self.gate.renewal.forgot();
            let hashes = self.store.forget_idle();
            self.forgot(&hashes);
        }
    }
}

/// Looks at the memory and does what follows. After whatever changes it: a drain, the end of a flush or of a query.
pub fn settle(shard: &Shard) {
    shard.borrow_mut().settle();
    super::flush::ask_again(shard);
    let mut service = shard.borrow_mut();
    let gate = &mut service.gate;
    let is_owed = gate.owed.iter().any(|owed| *owed);
    if is_owed && !std::mem::replace(&mut gate.telling, true) {
        executor::spawn_local(TaskClass::Store, tell(shard.clone())).detach();
    }
    let is_open = gate.admission.admitted == Admitted::Everything;
    if !is_open && !std::mem::replace(&mut gate.watching, true) {
        executor::spawn_local(TaskClass::Background, watch(shard.clone())).detach();
    }
}

/// Tells the loops, one after another and each the latest, so that nothing old arrives after something new.
async fn tell(shard: Shard) {
    loop {
        let next = {
            let mut service = shard.borrow_mut();
            let executor = service.index;
            let gate = &mut service.gate;
            let Some(to) = gate.owed.iter().position(|owed| *owed) else {
                gate.telling = false;
                return;
            };
            gate.owed[to] = false;
            (to, ToLoop::Admission { executor, admission: gate.admission.clone() })
        };
        send_to_loop(&shard, next.0, next.1).await;
    }
}

/// While something is refused the rings may stay empty, and no drain would look again.
async fn watch(shard: Shard) {
    loop {
        executor::sleep(WATCH).await;
        if shard.borrow().gate.admission.admitted == Admitted::Everything {
            shard.borrow_mut().gate.watching = false;
            return;
        }
        settle(&shard);
    }
}
