//! How `memory_bytes_max` is divided. Each part is kept by whoever holds the memory; together they are no more than
//! the whole.

/// One part, divided further among the shards by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPart {
    thirty_seconds: u64,
}

/// Samples and series in memory, and what queries keep of samples that are on disk by now. The largest part: the more
/// of it, the rarer flushes, and the longer what is asked for most is answered from memory.
pub const STORES: MemoryPart = MemoryPart { thirty_seconds: 11 };
/// What queries gather and answer.
pub const QUERIES: MemoryPart = MemoryPart { thirty_seconds: 8 };
/// Shares that wait in rings.
pub const RINGS: MemoryPart = MemoryPart { thirty_seconds: 2 };
/// The loops' dictionaries.
pub const DICTIONARIES: MemoryPart = MemoryPart { thirty_seconds: 4 };
/// Requests that have not come whole.
pub const UNFINISHED: MemoryPart = MemoryPart { thirty_seconds: 4 };

/// Large bodies with the executor, and back as batches.
pub const LARGE_BODIES: MemoryPart = MemoryPart { thirty_seconds: 2 };
/// Tables of known series, where new ones are refused or a limit may refuse them.
pub const KNOWN_SERIES: MemoryPart = MemoryPart { thirty_seconds: 1 };

const PARTS: [MemoryPart; 7] = [STORES, QUERIES, RINGS, DICTIONARIES, UNFINISHED, LARGE_BODIES, KNOWN_SERIES];
const _: () = {
    let (mut sum, mut at) = (0, 0);
    while at < PARTS.len() {
        sum += PARTS[at].thirty_seconds;
        at += 1;
    }
    assert!(sum <= 32, "the parts are no more than the whole");
};
// A series that a store has room for takes at most a sixteenth of its own bytes in the table.
const _: () = assert!(STORES.thirty_seconds <= 16 * KNOWN_SERIES.thirty_seconds);

impl MemoryPart {
    /// Its bytes, of so many in all.
    pub fn of(self, memory_bytes_max: u64) -> u64 {
        memory_bytes_max / 32 * self.thirty_seconds
    }
}
