//! Series that came before, known again by a hash of the text that names them: senders repeat themselves.
//!
//! ```text
//! a series begins        does the text that is as long as what came behind the last one hash to the same?
//!   yes                  it is that one: nothing of it is read ([`Sequence::follows`])
//!   no                   its text is measured and looked up ([`Sequence::find`]); what is new is read, and remembered
//!                        as what comes behind the last one ([`Sequence::remember`])
//! first of a body        expected is what came behind the last one of the connection's last body ([`Repeat`])
//! ```
//!
//! Of a series this keeps 128 bits of a hash keyed with the process' seed, and a length: 24 bytes, and no text. Where
//! a template of the text is worth its room, as for small JSON bodies, see `metrics/repeats.rs`.
//! Always: what is expected is only a guess; only texts that were taken are remembered, so no rule is left out.
//! Bounds: so many series as [`Sequence::new`] is told, some 40 bytes each. When there is no place all are forgotten;
//! if they were too many to be of use nothing is remembered for a while, twice as long each time.

use crate::Repeat;
use hashbrown::HashTable;
use model::{RepeatId, TextHash, TextKey};
use std::num::NonZeroU64;

/// After it was of no use as many series as have a place are not remembered, doubled up to so many times.
const RESTS_MAX: u32 = 64;

#[derive(Clone, Copy, Debug)]
struct Seen {
    hash: TextHash,
    len: u32,
    /// What came behind it.
    next: Repeat,
}

const _: () = assert!(size_of::<Seen>() == 24);

/// What one decoder remembers.
#[derive(Debug)]
pub(crate) struct Sequence {
    key: TextKey,
    seen: Vec<Seen>,
    /// Places in `seen`, by their hashes.
    places: HashTable<u32>,
    places_max: usize,
    /// The one before, and what is expected behind it.
    last: Repeat,
    expected: Repeat,
    /// Series that were remembered once and are not any more.
    forgotten: u64,
    /// Series that were met again since all was forgotten.
    met_again: usize,
    /// Series to come that are not remembered, and as how many times all places that began.
    resting: usize,
    rests: u32,
}

impl Sequence {
    /// Nothing is remembered, and never more than so many. The seed keeps a client from choosing texts that collide.
    pub(crate) fn new(seed: u64, places_max: usize) -> Sequence {
        Sequence {
            key: TextKey::new(seed),
            seen: Vec::new(),
            places: HashTable::new(),
            places_max: places_max.min(u32::MAX as usize - 1),
            last: Repeat::NONE,
            expected: Repeat::NONE,
            forgotten: 0,
            met_again: 0,
            resting: 0,
            rests: 0,
        }
    }

    /// A body begins, of a sender whose last one ended so.
    pub(crate) fn begin(&mut self, last: Repeat) {
        self.last = last;
        self.expected = self.seen.get(last.0 as usize).map_or(Repeat::NONE, |seen| seen.next);
    }

    /// What the body ended with.
    pub(crate) fn last(&self) -> Repeat {
        self.last
    }

    pub(crate) fn hash(&self, text: &[u8]) -> TextHash {
        self.key.hash(text)
    }

    /// How long the text is that is expected here, if one is.
    #[inline]
    pub(crate) fn expected_len(&self) -> Option<usize> {
        self.seen.get(self.expected.0 as usize).map(|seen| seen.len as usize)
    }

    /// What a text hashes to that belongs to another, which several share.
    pub(crate) fn hash_behind(&self, TextHash([low, high]): TextHash, text: &[u8]) -> TextHash {
        let TextHash([of_text, above]) = self.hash(text);
        let mut both = [0; 32];
        for (place, word) in both.chunks_exact_mut(8).zip([low, high, of_text, above]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.hash(&both)
    }

    /// Takes a text of that hash and length for what is expected here, if it is that.
    #[inline]
    pub(crate) fn follows(&mut self, hash: TextHash, len: usize) -> Option<RepeatId> {
        let place = self.expected;
        let seen = self.seen.get(place.0 as usize)?;
        if seen.hash != hash || seen.len as usize != len {
            return None;
        }
        (self.last, self.expected) = (place, seen.next);
        self.met_again += 1;
        Some(self.id(place))
    }

    /// The same wherever it came before; from now on it is expected behind the last one.
    pub(crate) fn find(&mut self, hash: TextHash) -> Option<RepeatId> {
        let seen = &self.seen;
        let place = Repeat(*self.places.find(hash.0[0], |place| seen[*place as usize].hash == hash)?);
        self.met_again += 1;
        self.step_to(place);
        Some(self.id(place))
    }

    /// Remembers a text that was not found, as what comes behind the last one.
    pub(crate) fn remember(&mut self, hash: TextHash, len: usize) -> Option<RepeatId> {
        if self.resting > 0 {
            self.resting -= 1;
            return None;
        }
        if self.seen.len() >= self.places_max {
            self.forget();
            return None;
        }
        let place = Repeat(self.seen.len() as u32);
        self.seen.push(Seen { hash, len: u32::try_from(len).ok()?, next: Repeat::NONE });
        let seen = &self.seen;
        self.places.insert_unique(hash.0[0], place.0, |place| seen[*place as usize].hash.0[0]);
        self.step_to(place);
        Some(self.id(place))
    }

    fn step_to(&mut self, place: Repeat) {
        if let Some(last) = self.seen.get_mut(self.last.0 as usize) {
            last.next = place;
        }
        (self.last, self.expected) = (place, self.seen[place.0 as usize].next);
    }

    /// No other text ever has the same.
    #[inline]
    fn id(&self, place: Repeat) -> RepeatId {
        RepeatId(NonZeroU64::MIN.saturating_add(self.forgotten + u64::from(place.0)))
    }

    #[cold]
    fn forget(&mut self) {
        let was_of_use = self.met_again >= self.seen.len();
        self.rests = if was_of_use { 0 } else { (2 * self.rests).clamp(1, RESTS_MAX) };
        self.resting = self.rests as usize * self.places_max;
        self.met_again = 0;
        self.forgotten += self.seen.len() as u64;
        self.seen.clear();
        self.places.clear();
        (self.last, self.expected) = (Repeat::NONE, Repeat::NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// As a decoder does it; the id, and whether the text was expected.
    fn meet(sequence: &mut Sequence, text: &str) -> (Option<RepeatId>, bool) {
        if sequence.expected_len() == Some(text.len())
            && let Some(id) = sequence.follows(sequence.hash(text.as_bytes()), text.len())
        {
            return (Some(id), true);
        }
        let hash = sequence.hash(text.as_bytes());
        let id = sequence.find(hash).or_else(|| sequence.remember(hash, text.len()));
        (id, false)
    }

    /// Two connections in turns, each with its own series, cut into bodies at changing places.
    #[test]
    fn what_comes_in_the_same_order_again_is_expected_wherever_bodies_are_cut() {
        let mut sequence = Sequence::new(7, 10_000);
        let mut last = [Repeat::NONE; 2];
        let mut unexpected = 0;
        for body in 0..60 {
            for (sender, last) in last.iter_mut().enumerate() {
                sequence.begin(*last);
                for row in body * 70..(body + 1) * 70 {
                    let (id, was_expected) = meet(&mut sequence, &format!("{sender} {}", row % 500));
                    assert!(id.is_some());
                    unexpected += usize::from(!was_expected);
                }
                *last = sequence.last();
            }
        }
        assert!(unexpected <= 2 * (500 + 1), "{unexpected}");
    }

    /// More series than have a place: memory stays bounded, and soon nothing is spent on remembering.
    #[test]
    fn where_nobody_repeats_himself_little_is_remembered() {
        let mut sequence = Sequence::new(7, 100);
        let remembered = (0..10_000).filter(|row| meet(&mut sequence, &row.to_string()).0.is_some()).count();
        assert!(remembered <= 10 * 100, "{remembered}");
        assert!(sequence.seen.capacity() <= 200);
    }

    proptest! {
        /// An id means one text for ever, and a text that has one keeps it until all are forgotten.
        #[test]
        fn an_id_means_one_text(rows in proptest::collection::vec(0..40u8, 0..400), places in 1..60usize) {
            let mut sequence = Sequence::new(3, places);
            let mut texts = HashMap::new();
            for (at, row) in rows.iter().enumerate() {
                if at % 7 == 0 {
                    let last = sequence.last();
                    sequence.begin(if at % 2 == 0 { last } else { Repeat(u32::from(*row)) });
                }
                if let (Some(RepeatId(id)), _) = meet(&mut sequence, &row.to_string()) {
                    prop_assert_eq!(*texts.entry(id).or_insert(*row), *row);
                }
            }
        }
    }
}
