//! The operating system: every call that is not in std, one file per subject.
//!
//! Always: unsafe code is here, in `ring.rs` and in `buf.rs`, and nowhere else in the product; each site says why it
//! is sound. What leaves these files is safe to call.

pub mod clock;
pub(crate) mod descriptor;
pub(crate) mod direct;
pub(crate) mod eventfd;
pub(crate) mod limits;
pub(crate) mod probe;
pub(crate) mod socket;
pub(crate) mod thread;
pub(crate) mod uring;
pub(crate) mod write_back;
