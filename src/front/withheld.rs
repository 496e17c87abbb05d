//! Which answers may go now, which wait for the journal, and what a failure makes of them: the choice alone.
//!
//! ```text
//! turn's end   every answer of the turn, in order → admit     it goes, or lines up behind those that wait
//! sync came    release until nothing is given                 in order, up to the synced position
//! failure      refuse_lost (the turn's), lose (those that     beyond the last good position nothing is
//!              wait)                                          acknowledged, and nothing waits for more than it
//! ```
//!
//! Always: positions in the line rise, so that the answers which a sync lets go are a prefix; the answers of a
//! connection keep their order, so one that needs nothing waits behind the earlier ones of its connection; no
//! position stands in the line that no sync can reach.
//! Not here: sockets, the journal itself, how many answers a connection has waiting (`connection.rs`).
//! Read next: `answers.rs` for who calls this.

use crate::config::Durability;
use std::collections::VecDeque;
use storage::journal::JournalPosition;

#[cfg(test)]
mod tests;

/// An answer of this turn, and what has to happen first.
pub struct Pending<R> {
    /// The answer.
    pub reply: R,
    /// The level it has to reach.
    pub level: Durability,
    /// Which of the turn's frames holds what it answers, or would.
    pub frame: usize,
}

/// Answers that wait for the journal, in the order in which they will go.
pub struct Withheld<R> {
    line: VecDeque<(JournalPosition, R)>,
}

impl<R> Withheld<R> {
    /// Nobody waits.
    pub fn new() -> Withheld<R> {
        Withheld { line: VecDeque::new() }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Gives an answer back if it may go at once, or lines it up. `synced_end` is the position that has to be
    /// synced first, if one has; `behind_own` says that an earlier answer of its connection waits here.
    pub fn admit(&mut self, reply: R, synced_end: Option<JournalPosition>, behind_own: bool) -> Option<R> {
        if synced_end.is_none() && !behind_own {
            return Some(reply);
        }
        // In rising order. One that waits only for those before it must not name an end of its own: a failed
        // write may have taken that back, and no sync would ever reach it.
        let behind = self.line.back().map(|(position, _)| *position);
        match synced_end.max(behind) {
            Some(position) => self.line.push_back((position, reply)),
            None => return Some(reply),
        }
        None
    }

    /// How many answers a journal synced so far lets go.
    pub fn released_by(&self, synced_through: JournalPosition) -> usize {
        self.line.partition_point(|(position, _)| *position <= synced_through)
    }

    /// The next answer that a journal synced so far lets go.
    pub fn release(&mut self, synced_through: JournalPosition) -> Option<R> {
        let (_, reply) = self.line.pop_front_if(|(position, _)| *position <= synced_through)?;
        Some(reply)
    }

    /// Everything behind `last_good` is lost: answers that wait for more are refused, and wait on only where one
    /// before them does. Gives those that may go now, in order.
    pub fn lose(&mut self, last_good: JournalPosition, mut refuse: impl FnMut(&mut R)) -> VecDeque<R> {
        let kept = self.released_by(last_good);
        let mut lost = self.line.split_off(kept);
        for (position, reply) in &mut lost {
            refuse(reply);
            *position = last_good;
        }
        if kept > 0 {
            self.line.append(&mut lost);
        }
        lost.into_iter().map(|(_, reply)| reply).collect()
    }
}

/// The same for the answers of the turn: refuses those whose frame lies behind `last_good`, or was still open.
/// They wait for no level any more.
pub fn refuse_lost<R>(
    turn: &mut [Pending<R>],
    sealed_end: impl Fn(usize) -> Option<JournalPosition>,
    last_good: JournalPosition,
    mut refuse: impl FnMut(&mut R),
) {
    for pending in turn {
        if sealed_end(pending.frame).is_none_or(|end| end > last_good) {
            refuse(&mut pending.reply);
            pending.level = Durability::Memory;
        }
    }
}
