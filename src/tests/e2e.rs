//! The whole process, from outside: the real binary, real sockets, a real disk.
//!
//! Owner: nobody's crate; each test starts servers of its own on free ports, with a directory of its own,
//! and ends them by their process id.
//! Always: what the specification shows is compared byte for byte; every wait has a deadline; nothing here
//! asserts how fast something is.
//! Not here: what a room promises by itself; that is tested beside the room, where it can be tested faster.
//! Read next: `e2e/server.rs` for the fixture, `e2e/contract.rs` for the specification's examples.

// A test has no outside: `pub` says that other modules of it use the item.
#![allow(unreachable_pub)]

#[path = "e2e/client.rs"]
mod client;
#[path = "e2e/remote_body.rs"]
mod remote_body;
#[path = "e2e/server.rs"]
mod server;

#[path = "e2e/alerts.rs"]
mod alerts;
#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/bad_start.rs"]
mod bad_start;
#[path = "e2e/checkpoint.rs"]
mod checkpoint;
#[path = "e2e/compaction.rs"]
mod compaction;
#[path = "e2e/compressed.rs"]
mod compressed;
#[path = "e2e/connections.rs"]
mod connections;
#[path = "e2e/contract.rs"]
mod contract;
#[path = "e2e/crash.rs"]
mod crash;
#[path = "e2e/damage.rs"]
mod damage;
#[path = "e2e/deletes.rs"]
mod deletes;
#[path = "e2e/disk_full.rs"]
mod disk_full;
#[path = "e2e/export.rs"]
mod export;
#[path = "e2e/http.rs"]
mod http_wire;
#[path = "e2e/inspect.rs"]
mod inspect;
#[path = "e2e/lines.rs"]
mod lines;
#[path = "e2e/memory.rs"]
mod memory;
#[path = "e2e/rate_limit.rs"]
mod rate_limit;
#[path = "e2e/remote_write.rs"]
mod remote_write;
#[path = "e2e/retention.rs"]
mod retention;
#[path = "e2e/snapshots.rs"]
mod snapshots;
#[path = "e2e/stopped.rs"]
mod stopped;
#[path = "e2e/wakes.rs"]
mod wakes;
#[path = "e2e/watching.rs"]
mod watching;
