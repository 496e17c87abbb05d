//! Journal, memtable, checkpoint, segments, manifest: what keeps an accepted sample.
//!
//! Owner: each loop has its journal, each executor its store, the directory one manifest.
//! Always: an accepted sample is in a journal until a segment or a checkpoint that the manifest names holds it; whatever is
//! read from a disk is checked against its checksum before it is used.
//! Not here: clocks, sockets, threads. Files are opened by a [`disk::Disk`] alone, so that a test can cut,
//! tear and fill it; the journal's writer does no I/O at all.
//! Read next: `disk.rs`, then a sample's way: `journal.rs`, `memtable.rs`, `index.rs`, `column.rs`, `segment.rs`,
//! `store.rs`, `compact.rs`, `checkpoint.rs`;
//! `docs/format/` draws every byte on the disk.

pub mod disk;
pub mod journal;
pub mod manifest;

pub mod chunk;
pub mod column;
mod index;
pub mod memtable;
pub mod segment;
pub mod store;

pub mod checkpoint;
pub mod compact;
pub mod deletes;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod inspect;
pub mod snapshot;
pub mod verify;
