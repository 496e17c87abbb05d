//! Cores, pinning, executor, rings, mesh, sockets, files; knows no monitoring word.
//!
//! Owner of everything that is particular to Linux or to one core: which cores become shards, the two threads on
//! each (an I/O loop on a raw io_uring, an executor), the rings and bells between threads, sockets and files.
//! Always: a value has one owning thread and crosses by being moved through a ring; whatever waits, waits in the
//! kernel and costs nothing; every ring and table has a bound given by its maker.
//! Not here: HTTP, samples, journals, policy. What travels is a type parameter or bytes. glommio, io-uring and
//! core_affinity are named in no other crate.
//! Read next: `topology.rs` for the layout, `ring.rs` and `bell.rs` for how threads meet (checked under loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p shard --release --lib`), `executor.rs` for the seam around glommio.

// Under loom only what it explores is built.
pub mod bell;
#[cfg(not(loom))]
mod buf;
#[cfg(not(loom))]
pub mod executor;
#[cfg(not(loom))]
pub mod file;
#[cfg(not(loom))]
pub mod memory;
#[cfg_attr(loom, allow(dead_code))] // used by the modules that are left out there
pub mod mesh;
#[cfg(not(loom))]
pub mod net;
#[cfg(not(loom))]
pub mod probe;
pub mod ring;
#[cfg(not(loom))]
pub mod signal;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
pub mod topology;

#[cfg(not(loom))]
pub use sys::{
    clock,
    limits::{Limits, locked_memory_limit, raise_descriptor_limit},
    thread::{be_nicer_by, run_when_idle},
};
