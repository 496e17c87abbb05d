//! What queries hold of the process's memory, counted.
//!
//! ```text
//! process: a quarter of memory_bytes_max, for all queries together      [`QueryBudget`], in `Shared`
//!   query: query.memory_bytes_max at most, over all shards              [`QueryMemory`], shared by its shards
//!     a shard's search and its partial, the body: portions as they grow [`Holding`]
//! ```
//!
//! Always: a portion is counted with the query and with the process before its bytes are used, but for the
//! one step of a query that outgrows it; a query gives back everything at once when it is dropped, whichever way it
//! ended.
//! Not here: what takes the bytes (`query` and the store's selections tell), samples that a query reads where they lie
//! (`storage::store::Memory`), a body that is on its way to its client (`shard::net`), what a
//! client hears (`api.rs`).

use crate::fan_in::QueryError;
use crate::shared::memory_parts;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes are taken from the account in portions of this size.
const PORTION_BYTES: usize = 256 * 1024;

/// What all queries of the process may hold together.
#[derive(Debug)]
pub struct QueryBudget {
    bytes_max: usize,
    taken: AtomicUsize,
}

/// What one query holds, on all shards.
#[derive(Debug)]
pub struct QueryMemory {
    budget: Arc<QueryBudget>,
    bytes_max: usize,
    setting: &'static str,
    taken: AtomicUsize,
}

/// One growing thing of a query. What it has taken stays with the query until that ends.
#[derive(Debug)]
pub struct Holding<'a> {
    memory: &'a QueryMemory,
    bytes: usize,
}

impl QueryBudget {
    /// The part of what the process may have that is for queries.
    pub fn of_process(memory_bytes_max: u64) -> QueryBudget {
        let bytes_max = memory_parts::QUERIES.of(memory_bytes_max) as usize;
        QueryBudget { bytes_max, taken: AtomicUsize::new(0) }
    }

    /// Bytes that queries hold now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), QueryError> {
        let bytes_max = self.bytes_max;
        add_up_to(&self.taken, bytes, bytes_max).map_err(|_| QueryError::MemoryInUse { bytes_max })
    }
}

impl QueryMemory {
    /// Nothing taken yet, and `bytes_max` (`query.memory_bytes_max`) at most to be taken.
    pub fn new(budget: Arc<QueryBudget>, bytes_max: usize) -> QueryMemory {
        let (bytes_max, setting) = if bytes_max <= budget.bytes_max {
            (bytes_max, "query.memory_bytes_max")
        } else {
            (budget.bytes_max, "a quarter of memory_bytes_max")
        };
        QueryMemory { budget, bytes_max, setting, taken: AtomicUsize::new(0) }
    }

    /// Bytes that a shard's search may hold ahead of what it needs: half of what is left of one quarter, so that the
    /// other three are there for what this query and others need.
    pub fn spare(&self) -> usize {
        let left = |bytes_max: usize, taken: &AtomicUsize| {
            (bytes_max / 4).saturating_sub(taken.load(Ordering::Relaxed)) / 2
        };
        left(self.bytes_max, &self.taken).min(left(self.budget.bytes_max, &self.budget.taken))
    }

    fn take(&self, bytes: usize) -> Result<(), QueryError> {
        add_up_to(&self.taken, bytes, self.bytes_max).map_err(|before| {
            let (bytes_max, setting) = (self.bytes_max, self.setting);
            QueryError::TooLarge { bytes: before + bytes, bytes_max, setting }
        })?;
        self.budget.take(bytes).inspect_err(|_| {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        })
    }
}

/// Adds if the sum is within the bound; else says what there is. What is refused is never added, not even for the
/// moment in which another would be refused for it.
fn add_up_to(taken: &AtomicUsize, bytes: usize, bytes_max: usize) -> Result<(), usize> {
    let within = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= bytes_max);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).map(|_| ())
}

impl Drop for QueryMemory {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(*self.taken.get_mut(), Ordering::Relaxed);
    }
}

impl<'a> Holding<'a> {
    /// Something of that query, of no size yet.
    pub fn of(memory: &'a QueryMemory) -> Holding<'a> {
        Holding { memory, bytes: 0 }
    }

    /// It has grown to that size.
    ///
    /// # Errors
    /// [`QueryError::TooLarge`] when the query has come to its own bound, [`QueryError::MemoryInUse`] when others
    /// hold what it needs.
    pub fn cover(&mut self, bytes: usize) -> Result<(), QueryError> {
        if bytes > self.bytes {
            let more = (bytes - self.bytes).next_multiple_of(PORTION_BYTES);
            self.memory.take(more)?;
            self.bytes += more;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_query_is_refused_at_its_own_bound_and_gives_everything_back() {
        let budget = Arc::new(QueryBudget::of_process(64 << 20));
        let memory = QueryMemory::new(budget.clone(), 4 * MIB);
        let (mut partial, mut body) = (Holding::of(&memory), Holding::of(&memory));
        assert_eq!(memory.spare(), MIB / 2);
        partial.cover(1).unwrap();
        assert_eq!(budget.taken(), PORTION_BYTES);
        assert_eq!(memory.spare(), (MIB - PORTION_BYTES) / 2);
        partial.cover(3 * MIB).unwrap();
        assert_eq!((budget.taken(), memory.spare()), (3 * MIB, 0));
        body.cover(MIB).unwrap();
        let too_large = QueryError::TooLarge {
            bytes: 4 * MIB + PORTION_BYTES,
            bytes_max: 4 * MIB,
            setting: "query.memory_bytes_max",
        };
        assert_eq!(partial.cover(3 * MIB + 1), Err(too_large.clone()));
        assert_eq!(body.cover(MIB + 1), Err(too_large));
        assert_eq!(budget.taken(), 4 * MIB, "a refused portion is not counted");
        drop(memory);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn queries_together_are_refused_at_the_budget_of_the_process() {
        let budget = Arc::new(QueryBudget::of_process(64 << 20));
        let one = QueryMemory::new(budget.clone(), 12 * MIB);
        Holding::of(&one).cover(12 * MIB).unwrap();
        let other = QueryMemory::new(budget.clone(), 12 * MIB);
        let mut holding = Holding::of(&other);
        holding.cover(4 * MIB).unwrap();
        assert_eq!(holding.cover(5 * MIB), Err(QueryError::MemoryInUse { bytes_max: 16 * MIB }));
        drop(one);
        holding.cover(12 * MIB).unwrap();
        assert_eq!(budget.taken(), 12 * MIB);
    }

    /// What is refused to one is never missing to another.
    /// Method: one asks without end for more than there is, while another takes and gives back what there is.
    #[test]
    fn a_refused_portion_is_never_in_anothers_way() {
        let budget = Arc::new(QueryBudget::of_process(64 << 20));
        let (first, greedy) = [(); 2].map(|_| QueryMemory::new(budget.clone(), 16 * MIB)).into();
        Holding::of(&first).cover(6 * MIB).expect("it is there");
        let is_over = AtomicBool::new(false);
        let modest = || {
            while !is_over.load(Ordering::Relaxed) {
                let memory = QueryMemory::new(budget.clone(), 16 * MIB);
                Holding::of(&memory).cover(10 * MIB).expect("it is there");
            }
        };
        std::thread::scope(|scope| {
            let modest = scope.spawn(modest);
            for _ in 0..5_000_000 {
                let refused = Holding::of(&greedy).cover(11 * MIB);
                assert_eq!(refused, Err(QueryError::MemoryInUse { bytes_max: 16 * MIB }));
            }
            is_over.store(true, Ordering::Relaxed);
            modest.join().expect("it was never refused");
        });
        drop(first);
        assert_eq!(budget.taken(), 0);
    }

    /// A bound above the budget could never be reached: such a query is told so, not to come back.
    #[test]
    fn the_budget_bounds_a_single_query_too() {
        let budget = Arc::new(QueryBudget::of_process(64 << 20));
        let memory = QueryMemory::new(budget, 512 * MIB);
        let refused = Holding::of(&memory).cover(17 * MIB);
        assert!(matches!(refused, Err(QueryError::TooLarge { bytes_max, .. }) if bytes_max == 16 * MIB));
    }
}
