//! Every decoder of the house, the promises that it makes for any bytes, and seeds from which guessing starts.
//!
//! One body per decoder, used twice: `tests.rs` feeds each a few hundred guesses in every test run, and `guided/` (a
//! workspace of its own, so that its dependencies never enter our build) feeds it millions, led by what they reach.
//! Always: a body panics where a promise is broken and nowhere else; it says whether its bytes were taken, and every seed
//! is taken, so no body guesses at nothing.
//! Not here: the bodies of what `storage` keeps to itself, which live beside their decoders (`storage::fuzz`); each
//! finding, which is one small test in the crate that it was found in.
//! Read next: `doors.rs` for what senders send, `http.rs` for what carries it, `questions.rs` for what is asked;
//! `bench/README.md` says how to run them.

mod doors;
mod http;
mod questions;

#[cfg(test)]
mod tests;

use storage::fuzz::{Body, Seeds};

/// A decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// As one asks for it.
    pub name: &'static str,
    /// What must hold.
    pub body: Body,
    /// Bytes that are taken.
    pub seeds: Seeds,
}

/// All, in the order of a sample's way back: from the disk to the doors.
pub fn targets() -> impl Iterator<Item = Target> {
    let rooms = [storage::fuzz::TARGETS, doors::TARGETS, http::TARGETS, questions::TARGETS];
    rooms.into_iter().flatten().map(|&(name, body, seeds)| Target { name, body, seeds })
}

/// The decoder of that name.
pub fn target(name: &str) -> Option<Target> {
    targets().find(|target| target.name == name)
}
