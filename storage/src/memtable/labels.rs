//! The labels of the rows: metric name and label names are kept once for all series that have the same, and each row has
//! its values.
//!
//! ```text
//!   shape   metric name, label names rising                       one for many rows
//!   row     its shape, and per label: bytes of the value, varint of 14 bits │ value
//! ```
//!
//! Names are half of a label set's text, and a metric has few shapes. Measured at a million series of ten labels: 216
//! bytes a row and not 344, of canonical bytes in two allocations.
//!
//! Always: one shape for one list of names; a label set that is put together again has the bytes that it came with.

use crate::index::NAME_LABEL;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::{LabelPiece, LabelSet, LabelSetRef, Matcher};
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

/// The label set of a row, shared with whoever holds what the row held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLabels {
    shape: Rc<Shape>,
    values: Rc<[u8]>,
}

#[derive(Debug, PartialEq, Eq)]
struct Shape {
    name: Box<str>,
    labels: Box<[Box<str>]>,
}

/// The shapes of a table.
#[derive(Default)]
pub(super) struct Shapes {
    shapes: HashTable<Rc<Shape>>,
    hasher: RandomState,
    /// The one asked for last: series that come one behind the other mostly have the same.
    last: Option<Rc<Shape>>,
    /// Where values are put together.
    values: Vec<u8>,
}

const _: () = assert!(model::LABEL_VALUE_BYTES_MAX < 1 << 14);

/// What an allocation costs beside its bytes, on average, and one that is shared its counts.
const SHARED_BYTES: usize = 16 + 2 * size_of::<usize>();
/// What a shape takes beside its names: a place in a table that is two thirds full, and its lists.
const SHAPE_BYTES: usize = 16 + size_of::<Shape>() + 2 * SHARED_BYTES;
/// The same of each name.
const NAME_BYTES: usize = size_of::<Box<str>>() + 16;

impl Shape {
    fn is_of(&self, labels: LabelSetRef<'_>) -> bool {
        let mut pieces = labels.pieces().map(LabelPiece::name_bytes);
        pieces.next() == Some(self.name.as_bytes())
            && pieces.eq(self.labels.iter().map(|label| label.as_bytes()))
    }

    /// Bytes of memory, by estimate.
    fn bytes(&self) -> usize {
        let labels = self.labels.iter().map(|label| NAME_BYTES + label.len());
        SHAPE_BYTES + self.name.len() + labels.sum::<usize>()
    }
}

impl Shapes {
    /// A label set as a row keeps it; how many bytes that takes, and its shape if it is new.
    pub(super) fn keep(&mut self, labels: LabelSetRef<'_>) -> (RowLabels, usize) {
        let (shape, shape_bytes) = self.shape(labels);
        self.values.clear();
        for piece in labels.pieces().skip(1) {
            let value = piece.value_bytes();
            put_len(&mut self.values, value.len());
            self.values.extend_from_slice(value);
        }
        let row = RowLabels { shape, values: self.values.as_slice().into() };
        let bytes = shape_bytes + row.bytes();
        (row, bytes)
    }

    fn shape(&mut self, labels: LabelSetRef<'_>) -> (Rc<Shape>, usize) {
        if let Some(last) = self.last.as_ref().filter(|last| last.is_of(labels)) {
            return (last.clone(), 0);
        }
        let Shapes { shapes, hasher, .. } = self;
        let hash = hash_of(hasher, labels.pieces().map(LabelPiece::name_bytes));
        let known = shapes.find(hash, |shape| shape.is_of(labels)).cloned();
        let (shape, bytes) = match known {
            Some(shape) => (shape, 0),
            None => {
                let names = labels.labels().map(|(label, _)| label.into()).collect();
                let shape = Rc::new(Shape { name: labels.name().into(), labels: names });
                shapes.insert_unique(hash, shape.clone(), |shape| hash_of(hasher, shape.names()));
                let bytes = shape.bytes();
                (shape, bytes)
            }
        };
        self.last = Some(shape.clone());
        (shape, bytes)
    }

    /// Gives back the shapes that nobody has any more; says how many bytes that freed.
    pub(super) fn give_back(&mut self) -> usize {
        self.last = None;
        let mut bytes = 0;
        self.shapes.retain(|shape| {
            let is_used = Rc::strong_count(shape) > 1;
            bytes += if is_used { 0 } else { shape.bytes() };
            is_used
        });
        let Shapes { shapes, hasher, .. } = self;
        if shapes.len() < shapes.capacity() / 4 {
            shapes.shrink_to_fit(|shape| hash_of(hasher, shape.names()));
        }
        bytes
    }
}

impl Shape {
    fn names(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.name.as_bytes()).chain(self.labels.iter().map(|label| label.as_bytes()))
    }
}

fn hash_of<'a>(hasher: &RandomState, names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut state = hasher.build_hasher();
    for name in names {
        state.write_u8(name.len() as u8);
        state.write(name);
    }
    state.finish()
}

impl RowLabels {
    /// The metric name.
    pub fn name(&self) -> &str {
        &self.shape.name
    }

    /// The labels, names rising, the metric name not among them.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &self.values[..];
        self.shape.labels.iter().map(move |label| {
            let value = take_value(&mut rest);
            // It was a value of a label set.
            (&**label, std::str::from_utf8(value).unwrap_or_default())
        })
    }

    /// The labels, the metric name before them as that of `__name__`.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        std::iter::once((NAME_LABEL, self.name())).chain(self.labels())
    }

    /// The value of a label; `__name__` is the metric name, an absent label is `""`.
    pub fn get(&self, label: &str) -> &str {
        if label == NAME_LABEL {
            return self.name();
        }
        let mut rest = &self.values[..];
        let mut named = self.shape.labels.iter().map(|name| (name, take_value(&mut rest)));
        let found = named.find(|(name, _)| ***name == *label);
        // It was a value of a label set.
        found.map_or("", |(_, value)| std::str::from_utf8(value).unwrap_or_default())
    }

    /// Whether they meet a matcher.
    pub fn meet(&self, matcher: &Matcher) -> bool {
        matcher.meets(self.get(&matcher.label))
    }

    /// Whether it is this label set.
    pub(crate) fn is(&self, labels: LabelSetRef<'_>) -> bool {
        let mut rest = &self.values[..];
        self.shape.is_of(labels)
            && labels.pieces().skip(1).all(|piece| take_value(&mut rest) == piece.value_bytes())
    }

    /// Appends the canonical bytes.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        // Names and values are no longer than a label set allows.
        out.push(self.shape.name.len() as u8);
        out.extend_from_slice(self.shape.name.as_bytes());
        let mut rest = &self.values[..];
        for label in &self.shape.labels {
            let value = take_value(&mut rest);
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
            out.extend_from_slice(&(value.len() as u16).to_le_bytes());
            out.extend_from_slice(value);
        }
    }

    /// The label set by itself.
    pub fn to_label_set(&self) -> LabelSet {
        let mut bytes = Vec::with_capacity(self.canonical_len());
        self.write_to(&mut bytes);
        LabelSet::from_canonical(bytes)
    }

    /// Bytes of the label set by itself.
    pub(crate) fn canonical_len(&self) -> usize {
        let mut rest = &self.values[..];
        let labels = self.shape.labels.iter().map(|label| label.len() + 3 + take_value(&mut rest).len());
        1 + self.shape.name.len() + labels.sum::<usize>()
    }

    /// Bytes of memory of its own, by estimate.
    pub(super) fn bytes(&self) -> usize {
        SHARED_BYTES + self.values.len()
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    if len >= 1 << 7 {
        out.push(len as u8 | 1 << 7);
        out.push((len >> 7) as u8);
    } else {
        out.push(len as u8);
    }
}

/// The value that stands first, of what [`put_len`] and its value were put into.
fn take_value<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (len, behind) = match **rest {
        [low, high, ..] if low >= 1 << 7 => (usize::from(low & 0x7f) | usize::from(high) << 7, &rest[2..]),
        [len, ..] => (usize::from(len), &rest[1..]),
        [] => (0, *rest),
    };
    let (value, behind) = behind.split_at(len);
    *rest = behind;
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever label sets come, each is put together again as it came, and what is the same is known to be.
        #[test]
        fn labels_come_back_as_they_came(
            sets in proptest::collection::vec(
                ("[ab]{1,2}", proptest::collection::btree_map("[a-c]", prop_oneof!["[xé]{1,3}", "y{126,129}"], 0..4)),
                1..30,
            ),
        ) {
            let set = |(name, labels): &(String, std::collections::BTreeMap<String, String>)| {
                let pairs: Vec<_> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                LabelSet::new(name, &pairs).unwrap()
            };
            let sets: Vec<LabelSet> = sets.iter().map(set).collect();
            let (mut shapes, mut bytes) = (Shapes::default(), 0);
            let kept: Vec<RowLabels> = sets.iter().map(|set| {
                let (row, taken) = shapes.keep(set.as_ref());
                bytes += taken;
                row
            }).collect();
            for (row, set) in kept.iter().zip(&sets) {
                prop_assert_eq!(&row.to_label_set(), set);
                prop_assert_eq!(row.canonical_len(), set.as_ref().bytes().len());
                prop_assert_eq!(row.name(), set.as_ref().name());
                prop_assert!(row.labels().eq(set.as_ref().labels()));
                for label in ["__name__", "a", "b", "c", "d"] {
                    prop_assert_eq!(row.get(label), set.as_ref().get(label));
                }
                for (other, of_other) in kept.iter().zip(&sets) {
                    prop_assert_eq!(row == other, set == of_other);
                    prop_assert_eq!(row.is(of_other.as_ref()), set == of_other);
                    let same_names = row.labels().map(|(label, _)| label).eq(other.labels().map(|(label, _)| label));
                    let same_shape = same_names && row.name() == other.name();
                    prop_assert_eq!(Rc::ptr_eq(&row.shape, &other.shape), same_shape);
                }
            }
            bytes -= kept.iter().map(RowLabels::bytes).sum::<usize>();
            prop_assert_eq!(shapes.give_back(), 0);
            drop(kept);
            prop_assert_eq!((shapes.give_back(), shapes.shapes.len()), (bytes, 0));
        }
    }
}
