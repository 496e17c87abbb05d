//! The values of one label: their texts back to back, and the ids that carry each.
//!
//! Texts lie in the order of arrival: going through all of them, as a regular expression must, reads memory from front
//! to back. A value that nobody carries leaves its place to the next new one; its text stays until half of all texts
//! is of such.

use super::ALLOCATION_BYTES;
use super::ids::Ids;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use roaring::RoaringBitmap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;
use std::ops::Range;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Values {
    places: HashTable<Place>,
    /// By number; one without ids waits in `free`.
    values: Vec<Value>,
    text: String,
    free: Vec<u32>,
    /// Bytes of `text` that no value has.
    waste: usize,
}

/// Where a text is found by its hash.
#[derive(Clone, Copy)]
struct Place {
    /// Kept, so that a table that grows need not read the texts.
    hash: u32,
    number: u32,
}

struct Value {
    span: Span,
    ids: Ids,
}

/// A part of the texts: where it begins, above 16 bits for its length.
#[derive(Clone, Copy)]
struct Span(u64);

const _: () = assert!(model::LABEL_VALUE_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(size_of::<Value>() == 24);

/// What a value costs beside its text and ids: its row, a place in a table that is two thirds full; lists that double
/// when they are full.
pub(super) const VALUE_BYTES: usize = (size_of::<Value>() + size_of::<Place>() + 1) * 3 / 2;
/// Texts are written anew only where it frees some memory.
const WASTE_BYTES_MIN: usize = 64 * ALLOCATION_BYTES;

impl Span {
    fn new(at: usize, len: usize) -> Span {
        Span((at as u64) << 16 | len as u64)
    }

    fn of(self, text: &str) -> &str {
        let (at, len) = ((self.0 >> 16) as usize, (self.0 & 0xffff) as usize);
        &text[at..at + len]
    }
}

impl Values {
    /// Enters an id under a value; says how many bytes that took, by estimate.
    pub(super) fn insert(&mut self, hasher: &RandomState, value: &str, id: u32) -> usize {
        let (ids, bytes) = self.find_or_add(hasher, value);
        bytes + ids.insert(id)
    }

    /// The same of ids that follow on one another and are all above those that are there; at least one.
    pub(super) fn append(&mut self, hasher: &RandomState, value: &str, run: Range<u32>) -> usize {
        let (ids, bytes) = self.find_or_add(hasher, value);
        bytes + ids.append(run)
    }

    /// The ids of a value, to which some are to be added; how many bytes it takes beside these, if it is new.
    fn find_or_add(&mut self, hasher: &RandomState, value: &str) -> (&mut Ids, usize) {
        let hash = short_hash(hasher, value);
        let Values { places, values, text, free, .. } = self;
        let same = |place: &Place| place.hash == hash && values[place.number as usize].span.of(text) == value;
        if let Some(place) = places.find(spread(hash), same) {
            return (&mut values[place.number as usize].ids, 0);
        }
        let new = Value { span: Span::new(text.len(), value.len()), ids: Ids::NONE };
        text.push_str(value);
        let number = match free.pop() {
            Some(number) => {
                values[number as usize] = new;
                number
            }
            None => {
                // Each has an id at least, and ids are 32 bits.
                values.push(new);
                (values.len() - 1) as u32
            }
        };
        places.insert_unique(spread(hash), Place { hash, number }, |place| spread(place.hash));
        (&mut values[number as usize].ids, VALUE_BYTES + value.len())
    }

    /// Takes `gone` out of the ids of a value that carries `id`, one of them; says how many bytes that freed.
    pub(super) fn remove(
        &mut self,
        hasher: &RandomState,
        value: &str,
        id: u32,
        gone: &RoaringBitmap,
    ) -> usize {
        let hash = short_hash(hasher, value);
        let Values { places, values, text, free, waste } = self;
        let same = |place: &Place| place.hash == hash && values[place.number as usize].span.of(text) == value;
        let Ok(entry) = places.find_entry(spread(hash), same) else { return 0 };
        let number = entry.get().number;
        let ids = &mut values[number as usize].ids;
        if !ids.contains(id) {
            return 0;
        }
        let bytes = ids.subtract(gone);
        if !ids.is_empty() {
            return bytes;
        }
        entry.remove();
        free.push(number);
        *waste += value.len();
        bytes + VALUE_BYTES + value.len()
    }

    /// Gives back what values have left that nobody carries any more. Numbers change.
    pub(super) fn give_back(&mut self) {
        let wastes_text = self.waste > WASTE_BYTES_MIN && self.waste > self.text.len() / 2;
        if !wastes_text && self.free.len() <= self.values.len() / 2 {
            return;
        }
        let mut text = String::with_capacity(self.text.len() - self.waste);
        let mut values = Vec::with_capacity(self.places.len());
        let mut numbers = vec![0; self.values.len()];
        for (old, value) in std::mem::take(&mut self.values).into_iter().enumerate() {
            if value.ids.is_empty() {
                continue;
            }
            let of = value.span.of(&self.text);
            let span = Span::new(text.len(), of.len());
            text.push_str(of);
            numbers[old] = values.len() as u32;
            values.push(Value { span, ids: value.ids });
        }
        self.places.iter_mut().for_each(|place| place.number = numbers[place.number as usize]);
        self.places.shrink_to_fit(|place| spread(place.hash));
        (self.text, self.values, self.free, self.waste) = (text, values, Vec::new(), 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// All values, to be sorted by text and then given.
    pub(crate) fn sorted(&self) -> SortedValues<'_> {
        let living = self.values.iter().enumerate().filter(|(_, value)| !value.ids.is_empty());
        let numbers = living.map(|(number, _)| number as u32).collect();
        SortedValues { values: self, numbers, sorted: 0, heads: BinaryHeap::new() }
    }

    fn text(&self, number: u32) -> &str {
        self.values[number as usize].span.of(&self.text)
    }

    /// The ids that carry a value.
    pub(super) fn ids(&self, hasher: &RandomState, value: &str) -> Option<&Ids> {
        let hash = short_hash(hasher, value);
        let same = |place: &Place| {
            place.hash == hash && self.values[place.number as usize].span.of(&self.text) == value
        };
        self.places.find(spread(hash), same).map(|place| &self.values[place.number as usize].ids)
    }

    /// The values of these numbers and their ids, and whether there are numbers behind them.
    pub(super) fn some(&self, from: usize, count: usize) -> (impl Iterator<Item = (&str, &Ids)>, bool) {
        let from = from.min(self.values.len());
        let until = from.saturating_add(count).min(self.values.len());
        let living = self.values[from..until].iter().filter(|value| !value.ids.is_empty());
        (living.map(|value| (value.span.of(&self.text), &value.ids)), until < self.values.len())
    }
}

/// The values of a label in the order of their texts. Pieces are sorted, so that others get their turn between them,
/// and then merged as they are given.
pub(crate) struct SortedValues<'a> {
    values: &'a Values,
    numbers: Vec<u32>,
    /// Numbers in pieces that are sorted.
    sorted: usize,
    /// The next of each piece, the first text on top; where it lies.
    heads: BinaryHeap<Reverse<(&'a str, usize)>>,
}

/// Values sorted at once, half a millisecond.
const SORTED_AT_ONCE: usize = 4096;

impl<'a> SortedValues<'a> {
    /// Sorts a piece; `false` when all are.
    pub(crate) fn sort_some(&mut self) -> bool {
        let until = self.numbers.len().min(self.sorted + SORTED_AT_ONCE);
        let piece = &mut self.numbers[self.sorted..until];
        let values = self.values;
        piece.sort_unstable_by_key(|number| values.text(*number));
        self.heads.extend(piece.first().map(|number| Reverse((values.text(*number), self.sorted))));
        self.sorted = until;
        until < self.numbers.len()
    }
}

impl<'a> Iterator for SortedValues<'a> {
    type Item = (&'a str, &'a Ids);

    fn next(&mut self) -> Option<(&'a str, &'a Ids)> {
        let Reverse((text, at)) = self.heads.pop()?;
        let values = self.values;
        if (at + 1) % SORTED_AT_ONCE != 0 && at + 1 < self.numbers.len() {
            self.heads.push(Reverse((values.text(self.numbers[at + 1]), at + 1)));
        }
        Some((text, &values.values[self.numbers[at] as usize].ids))
    }
}

fn short_hash(hasher: &RandomState, value: &str) -> u32 {
    (hasher.hash_one(value) >> 32) as u32
}

/// The table looks at the lowest bits and at the highest seven.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
