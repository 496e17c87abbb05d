//! Compaction: few large segments in place of many small ones, each within one window of time.
//!
//! ```text
//!   flushes        0h─┬──┬──┬──┬──┬─ now        as they come: they begin and end anywhere, late samples reach far back
//!   8 h windows    ├───────┤                    once nobody is expected to write into it any more
//!   1 d windows    ├───────────────────────┤    and so on, up to a tenth of the retention
//! ```
//!
//! [`choose`] is a pure choice over what a manifest names: which segments are worth merging now. A [`Merge`] carries it
//! out in steps, between which its caller lets others have the core; then the caller switches the manifest, once, and
//! lets go of what was merged. Until then, and after a crash, the old set holds and the new files are orphans.
//!
//! What is deleted goes with the next merge of its segment; where none comes, the segment is written anew for that.
//!
//! Always: a merge leaves every sample that a query would find, and no other: of several with one time that of the
//! newest segment. Segments are ordered by the newest flush in them ([`SegmentEntry::newest`]), and no segment that is
//! left out of a merge lies between those in it, in this order and in time.
//! Not here: manifests, clocks, who waits for whom; the server's executor has the turn.
//! Read next: `compact/choose.rs`, then `compact/merge.rs`; `compact/retention.rs` for what leaves,
//! `compact/retention_clock.rs` for the time by which it does.

mod choose;
mod merge;
mod retention;
mod retention_clock;

#[cfg(test)]
mod tests;

pub use choose::{Owner, Window, Windows, choose, choose_to_clean};
pub use merge::{Merge, MergeError, Merged, OpenSegment};
pub use retention::expired;
pub use retention_clock::RetentionClock;

#[cfg(doc)]
use crate::manifest::SegmentEntry;
