//! How `memory_bytes_max` is divided. Each part is kept by whoever holds the memory; together they are no more than
//! the whole.

/// One part, divided further among the shards by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPart {
    eighths: u64,
}

/// Samples and series in memory, and what queries keep of samples that are on disk by now. The largest part: the more
/// of it, the rarer flushes, and the longer what is asked for most is answered from memory.
pub const STORES: MemoryPart = MemoryPart { eighths: 3 };
/// What queries gather and answer.
pub const QUERIES: MemoryPart = MemoryPart { eighths: 2 };
/// Shares that wait in rings.
pub const RINGS: MemoryPart = MemoryPart { eighths: 1 };
/// The loops' dictionaries.
pub const DICTIONARIES: MemoryPart = MemoryPart { eighths: 1 };
/// Requests that have not come whole.
pub const UNFINISHED: MemoryPart = MemoryPart { eighths: 1 };

const EIGHTHS: u64 =
    STORES.eighths + QUERIES.eighths + RINGS.eighths + DICTIONARIES.eighths + UNFINISHED.eighths;
const _: () = assert!(EIGHTHS <= 8, "the parts are no more than the whole");

impl MemoryPart {
    /// Its bytes, of so many in all.
    pub fn of(self, memory_bytes_max: u64) -> u64 {
        memory_bytes_max / 8 * self.eighths
    }
}
