//! Labels that were read before: senders repeat themselves, so most need not be read twice.
//!
//! ```text
//! a row begins             is it, but for its numbers, what came behind the last row the time before?
//!   yes                    its numbers are read, and nothing else (`template.rs`)
//! its labels begin         do they read on as those that came behind the last row's the time before?
//!   yes, and its name too  its label set is known: one comparison of bytes, one copy; next time the whole row is
//!   no                     they are read, and remembered as what comes behind the last row's
//! first row of a body      expected is what the connection's last body began with ([`Repeat`])
//! ```
//!
//! Always: what is expected is only a guess; text that equals a JSON object byte by byte is that object, wherever it
//! stands. Only labels that were taken are remembered, so no rule is left out.
//! Bounds: [`SEEN_MAX`] label sets of [`TEXT_BYTES_MAX`] together and templates of [`TEMPLATE_BYTES_MAX`], some 10 MiB
//! a decoder. When there is no place for a label set all are forgotten; if they were too many to be of use, nothing is
//! remembered for a while, twice as long each time. When there is no place for a template it is not remembered.

use super::template::{Reading, Template};
use crate::json::Reader;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use model::{LabelSetRef, MetricKind, RepeatId};
use std::hash::BuildHasher;
use std::num::NonZeroU64;

/// Label sets remembered: so many [`RepeatId`]s in a row may be in use at a time.
pub const SEEN_MAX: usize = 32 * 1024;
/// Bytes of text and label sets remembered.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Bytes of templates remembered, their label sets beside them.
const TEMPLATE_BYTES_MAX: usize = 4 << 20;
/// Labels of more text than this are read each time: such a sender is rare, and would crowd out many others.
const ROW_BYTES_MAX: usize = 2048;
/// How often in a row a row may be written otherwise than its template before it has none any more.
const TEMPLATE_MISSES_MAX: u8 = 4;
/// Rows that are read without remembering after it was of no use; doubled up to 64 times as many.
const REST_ROWS: u32 = SEEN_MAX as u32;
const REST_ROWS_MAX: u32 = 64 * REST_ROWS;

/// Where a sender stands: what its last body began with, or ended with, as its decoder remembers it. A guess, never
/// wrong to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat(pub(crate) u32);

impl Repeat {
    /// Nothing came yet.
    pub const NONE: Repeat = Repeat(u32::MAX);
}

impl Default for Repeat {
    fn default() -> Repeat {
        Repeat::NONE
    }
}

/// Where the text of one row lies: its name, its labels as JSON, its label set.
#[derive(Clone, Copy, Debug)]
struct Seen {
    hash: u64,
    start: u32,
    name_len: u16,
    json_len: u16,
    set_len: u16,
    /// What came behind it.
    next: Repeat,
    written: Written,
}

/// How a row was written when its labels were known last.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    template: Option<Template>,
    /// Where its text begins, the label set behind it, and how many bytes there are for both.
    start: u32,
    room: u16,
    /// Times in a row that it was written otherwise.
    misses: u8,
}

/// The label set of a row that came before.
pub(super) struct Known<'r> {
    pub(super) labels: LabelSetRef<'r>,
    pub(super) repeat: RepeatId,
}

/// What one decoder remembers.
#[derive(Debug)]
pub(super) struct Repeats {
    text: Vec<u8>,
    templates: Vec<u8>,
    seen: Vec<Seen>,
    /// Places in `seen`, by the hash of name and labels.
    places: HashTable<u32>,
    hasher: FixedState,
    /// The row before.
    last: Repeat,
    /// What is expected next.
    expected: Repeat,
    /// The first row of the body.
    first: Repeat,
    /// Rows that were remembered once and are not any more.
    forgotten: u64,
    /// Rows that came as expected since all was forgotten.
    repeated: usize,
    /// Rows to come that are not remembered, and how many it were to be.
    resting: u32,
    rest: u32,
}

impl Repeats {
    /// Nothing is remembered. The seed keeps a client from choosing labels that collide.
    pub(super) fn new(seed: u64) -> Repeats {
        Repeats {
            text: Vec::new(),
            templates: Vec::new(),
            seen: Vec::new(),
            places: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            last: Repeat::NONE,
            expected: Repeat::NONE,
            first: Repeat::NONE,
            forgotten: 0,
            repeated: 0,
            resting: 0,
            rest: 0,
        }
    }

    /// A body begins, of a sender whose last one began so.
    pub(super) fn begin(&mut self, first: Repeat) {
        if first != Repeat::NONE {
            self.expected = first;
        }
        self.first = Repeat::NONE;
    }

    /// What the body began with.
    pub(super) fn first(&self) -> Repeat {
        self.first
    }

    /// Passes the object that begins here if it is written as the expected row was, and gives what it says with its
    /// label set.
    #[inline]
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Option<(Reading, Known<'_>)> {
        let place = self.expected;
        let seen = self.seen.get_mut(place.0 as usize)?;
        let template = seen.written.template?;
        let text = self.templates.get(seen.written.start as usize..)?;
        let reading = template.read(text, reader)?;
        if seen.written.misses > 0 {
            seen.written.misses = 0;
        }
        let (start, next) = (seen.written.start as usize + template.len(), seen.next);
        let set = start..start + usize::from(seen.set_len);
        self.repeated += 1;
        self.step_to(place, next);
        let labels = LabelSetRef::from_canonical(&self.templates[set]);
        Some((reading, Known { labels, repeat: self.id(place) }))
    }

    /// Remembers how the row is written whose label set was [taken](Self::take) last.
    pub(super) fn learn(&mut self, object: &str, kind: MetricKind) {
        let Some(seen) = self.seen.get_mut(self.last.0 as usize) else { return };
        let written = &mut seen.written;
        written.template = None;
        written.misses = written.misses.saturating_add(1);
        if written.misses > TEMPLATE_MISSES_MAX || object.len() > ROW_BYTES_MAX {
            return;
        }
        let set = seen.start as usize + usize::from(seen.name_len) + usize::from(seen.json_len);
        let set = &self.text[set..set + usize::from(seen.set_len)];
        let end = self.templates.len();
        let Some(template) = Template::cut(object, kind, &mut self.templates) else { return };
        self.templates.extend_from_slice(set);
        let room = self.templates.len() - end;
        if room <= usize::from(written.room) {
            self.templates.copy_within(end.., written.start as usize);
            self.templates.truncate(end);
        } else if self.templates.len() <= TEMPLATE_BYTES_MAX {
            (written.start, written.room) = (end as u32, room as u16);
        } else {
            self.templates.truncate(end);
            return;
        }
        written.template = Some(template);
    }

    /// How many bytes of `rest` are the labels that are expected here.
    #[inline]
    pub(super) fn follows(&self, rest: &[u8]) -> Option<usize> {
        let seen = self.seen.get(self.expected.0 as usize)?;
        let json = self.parts(seen).1;
        (!json.is_empty() && rest.starts_with(json)).then_some(json.len())
    }

    /// Whether the row that is expected here has no labels.
    #[inline]
    pub(super) fn expects_none(&self) -> bool {
        self.seen.get(self.expected.0 as usize).is_some_and(|seen| seen.json_len == 0)
    }

    /// The label set of the row whose labels were as expected, if its name is so too.
    #[inline]
    pub(super) fn take(&mut self, name: &str) -> Option<Known<'_>> {
        let place = self.expected;
        let seen = *self.seen.get(place.0 as usize)?;
        if self.parts(&seen).0 != name.as_bytes() {
            return None;
        }
        self.repeated += 1;
        self.step_to(place, seen.next);
        let labels = LabelSetRef::from_canonical(self.parts(&seen).2);
        Some(Known { labels, repeat: self.id(place) })
    }

    /// No other row ever has the same.
    #[inline]
    fn id(&self, place: Repeat) -> RepeatId {
        RepeatId(NonZeroU64::MIN.saturating_add(self.forgotten + u64::from(place.0)))
    }

    /// Remembers what was read as what comes behind the row before; `json` is empty where there were no labels.
    pub(super) fn remember(&mut self, name: &str, json: &str, set: &[u8]) {
        if self.resting > 0 {
            self.resting -= 1;
            return;
        }
        if name.len() + json.len() + set.len() > ROW_BYTES_MAX {
            return;
        }
        let hash = self.hasher.hash_one((name, json));
        let is_it = |place: &u32| {
            let seen = &self.seen[*place as usize];
            seen.hash == hash
                && self.parts(seen).0 == name.as_bytes()
                && self.parts(seen).1 == json.as_bytes()
        };
        let place = match self.places.find(hash, is_it) {
            Some(place) => Repeat(*place),
            None if self.seen.len() < SEEN_MAX && self.text.len() + ROW_BYTES_MAX <= TEXT_BYTES_MAX => {
                self.add(hash, name, json, set)
            }
            None => return self.forget(),
        };
        if let Some(last) = self.seen.get_mut(self.last.0 as usize) {
            last.next = place;
        }
        self.step_to(place, self.seen[place.0 as usize].next);
    }

    fn add(&mut self, hash: u64, name: &str, json: &str, set: &[u8]) -> Repeat {
        let place = self.seen.len() as u32;
        self.seen.push(Seen {
            hash,
            start: self.text.len() as u32,
            name_len: name.len() as u16,
            json_len: json.len() as u16,
            set_len: set.len() as u16,
            next: Repeat::NONE,
            written: Written::default(),
        });
        for part in [name.as_bytes(), json.as_bytes(), set] {
            self.text.extend_from_slice(part);
        }
        let seen = &self.seen;
        self.places.insert_unique(hash, place, |place| seen[*place as usize].hash);
        Repeat(place)
    }

    /// There is no place for more.
    #[cold]
    fn forget(&mut self) {
        let was_of_use = self.repeated >= self.seen.len();
        self.rest = if was_of_use { 0 } else { (2 * self.rest).clamp(REST_ROWS, REST_ROWS_MAX) };
        self.resting = self.rest;
        self.repeated = 0;
        self.forgotten += self.seen.len() as u64;
        self.text.clear();
        self.templates.clear();
        self.seen.clear();
        self.places.clear();
        (self.last, self.expected, self.first) = (Repeat::NONE, Repeat::NONE, Repeat::NONE);
    }

    #[inline]
    fn step_to(&mut self, place: Repeat, next: Repeat) {
        if self.first == Repeat::NONE {
            self.first = place;
        }
        self.last = place;
        self.expected = next;
    }

    /// Name, labels as JSON, label set.
    #[inline]
    fn parts(&self, seen: &Seen) -> (&[u8], &[u8], &[u8]) {
        let (name, rest) = self.text[seen.start as usize..].split_at(usize::from(seen.name_len));
        let (json, rest) = rest.split_at(usize::from(seen.json_len));
        (name, json, &rest[..usize::from(seen.set_len)])
    }
}

const _: () = assert!(2 * ROW_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(TEXT_BYTES_MAX <= u32::MAX as usize && TEMPLATE_BYTES_MAX <= u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::{REST_ROWS, Repeat, Repeats, SEEN_MAX};
    use model::{LabelSet, RepeatId};
    use std::collections::HashMap;

    fn set_of(name: &str, number: usize) -> (String, LabelSet) {
        let host = number.to_string();
        (format!("{{\"host\":\"{host}\"}}"), LabelSet::new(name, &[("host", &host)]).unwrap())
    }

    /// A row as the decoder handles it; whether it was taken as a repeat.
    fn row(repeats: &mut Repeats, name: &str, number: usize) -> bool {
        let (json, set) = set_of(name, number);
        if repeats.follows(json.as_bytes()).is_some()
            && let Some(known) = repeats.take(name)
        {
            assert_eq!(known.labels, set.as_ref(), "the set of another row");
            return true;
        }
        repeats.remember(name, &json, set.as_ref().bytes());
        false
    }

    #[test]
    fn what_comes_in_the_same_order_again_is_known() {
        let mut repeats = Repeats::new(7);
        repeats.begin(Repeat::NONE);
        assert!((0..100).all(|number| !row(&mut repeats, "cpu", number)));
        let first = repeats.first();
        repeats.begin(first);
        assert!((0..100).all(|number| row(&mut repeats, "cpu", number)));
        assert_eq!(repeats.first(), first);
        repeats.begin(first);
        assert!(!row(&mut repeats, "mem", 0), "the labels are the same and the name is not");
    }

    /// Two senders in turns: each goes on where its own last body began.
    #[test]
    fn senders_that_take_turns_are_each_known() {
        let mut repeats = Repeats::new(7);
        let mut first = [Repeat::NONE; 2];
        for round in 0..4 {
            for (sender, first) in first.iter_mut().enumerate() {
                repeats.begin(*first);
                let known = (0..50).filter(|row_of| row(&mut repeats, "cpu", sender * 1000 + row_of)).count();
                assert!(round < 2 || known == 50, "round {round}, sender {sender}: {known} of 50");
                *first = repeats.first();
            }
        }
    }

    /// More series than are remembered: memory stays bounded, and soon nothing is spent on remembering.
    #[test]
    fn where_nobody_repeats_himself_little_is_remembered() {
        let mut repeats = Repeats::new(7);
        let mut remembered = 0;
        let rows = 20 * SEEN_MAX;
        for number in 0..rows {
            repeats.begin(Repeat::NONE);
            let before = repeats.seen.len();
            assert!(!row(&mut repeats, "cpu", number));
            remembered += usize::from(repeats.seen.len() > before);
        }
        assert!(repeats.seen.len() <= SEEN_MAX && repeats.seen.capacity() <= 2 * SEEN_MAX);
        assert!(remembered <= rows / 3, "{remembered} of {rows}");
        assert!(repeats.rest > REST_ROWS);
    }

    /// What goes by the number of a label set never meets another set under it. Method: so many series that all are
    /// forgotten again and again, each seen three times in a row.
    #[test]
    fn a_number_means_one_label_set_however_much_is_forgotten() {
        let (mut repeats, mut sets) = (Repeats::new(7), HashMap::<u64, String>::new());
        for number in 0..4 * SEEN_MAX {
            let (json, set) = set_of("cpu", number);
            repeats.remember("cpu", &json, set.as_ref().bytes());
            for _ in 0..2 {
                repeats.begin(repeats.last);
                let Some(known) = repeats.take("cpu") else { continue };
                let RepeatId(id) = known.repeat;
                let set = format!("{:?}", known.labels);
                assert_eq!(sets.entry(id.get()).or_insert_with(|| set.clone()), &set);
            }
        }
        assert!(sets.len() > SEEN_MAX, "{}", sets.len());
    }
}
