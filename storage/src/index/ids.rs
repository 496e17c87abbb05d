//! The ids that carry one value, in the form that is smallest for so many of them.
//!
//! Most values are carried by very few (a pod, a request's id) or by very many (a region). Measured at a million series
//! with ten labels, of two bitmaps' worth of overhead (some 100 bytes each) a value of one id would pay all.

use super::ALLOCATION_BYTES;
use roaring::RoaringBitmap;
use std::ops::Range;

/// Ids that stand in the value's own place.
const INLINE_MAX: usize = 3;
/// Ids in a plain list at most. A bitmap takes some 50 bytes for each 65,536 ids that it touches, so fewer than these,
/// far apart, would take more there.
const LIST_MAX: usize = 128;

/// See the head of this file. Which form it is depends on how many there are alone.
pub(crate) enum Ids {
    /// Sorted, the first so many.
    Inline(u8, [u32; INLINE_MAX]),
    /// Sorted.
    #[expect(clippy::box_collection, reason = "a list in its place would make each value a third larger")]
    List(Box<Vec<u32>>),
    Bitmap(Box<RoaringBitmap>),
}

const _: () = assert!(size_of::<Ids>() == 16);

/// [`Ids`], to be read.
pub(crate) enum IdsView<'a> {
    /// Sorted.
    List(&'a [u32]),
    Bitmap(&'a RoaringBitmap),
}

/// What a list costs beside its ids.
const LIST_BYTES: usize = size_of::<Vec<u32>>() + 2 * ALLOCATION_BYTES;
/// A place in a list that doubles when it is full, on average.
const LIST_ID_BYTES: usize = size_of::<u32>() * 3 / 2;
/// What a bitmap costs beside its ids, where they lie in four parts of 65,536.
const BITMAP_BYTES: usize = size_of::<RoaringBitmap>() + 2 * ALLOCATION_BYTES + 4 * (48 + ALLOCATION_BYTES);
/// An id in a bitmap: two bytes in a list that doubles, and its share of what 65,536 of them cost; far less where
/// they lie close together.
const BITMAP_ID_BYTES: usize = 4;
/// More ids are more bytes.
const _: () =
    assert!(BITMAP_BYTES + (LIST_MAX + 1) * BITMAP_ID_BYTES >= LIST_BYTES + LIST_MAX * LIST_ID_BYTES);

impl Ids {
    /// The empty set.
    pub(super) const NONE: Ids = Ids::Inline(0, [0; INLINE_MAX]);

    pub(super) fn len(&self) -> usize {
        match self {
            Ids::Inline(count, _) => usize::from(*count),
            Ids::List(ids) => ids.len(),
            Ids::Bitmap(ids) => ids.len() as usize,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Ids::Inline(0, _))
    }

    /// Bytes of memory behind its place, by estimate: a function of how many there are.
    pub(super) fn bytes(&self) -> usize {
        match self.len() {
            0..=INLINE_MAX => 0,
            len @ ..=LIST_MAX => LIST_BYTES + len * LIST_ID_BYTES,
            len => BITMAP_BYTES + len * BITMAP_ID_BYTES,
        }
    }

    /// Adds an id that is not there; says how many bytes that took.
    pub(super) fn insert(&mut self, id: u32) -> usize {
        match self {
            // Its length need not be counted.
            Ids::Bitmap(ids) => {
                ids.insert(id);
                return BITMAP_ID_BYTES;
            }
            Ids::List(ids) if ids.len() < LIST_MAX => {
                insert_sorted(ids, id);
                return LIST_ID_BYTES;
            }
            Ids::Inline(count, ids) if usize::from(*count) < INLINE_MAX => {
                let at = ids[..usize::from(*count)].partition_point(|other| *other < id);
                ids.copy_within(at..usize::from(*count), at + 1);
                ids[at] = id;
                *count += 1;
                return 0;
            }
            _ => {}
        }
        let before = self.bytes();
        *self = match self {
            Ids::Inline(_, ids) => {
                let mut list = ids.to_vec();
                insert_sorted(&mut list, id);
                Ids::List(Box::new(list))
            }
            Ids::List(ids) => Ids::Bitmap(Box::new(ids.iter().copied().chain([id]).collect())),
            Ids::Bitmap(_) => unreachable!("returned above"),
        };
        self.bytes() - before
    }

    /// Adds ids that follow on one another and are all above those that are there; says how many bytes that took.
    pub(super) fn append(&mut self, mut run: Range<u32>) -> usize {
        let mut bytes = 0;
        while !run.is_empty() {
            if let Ids::Bitmap(ids) = self {
                bytes += run.len() * BITMAP_ID_BYTES;
                // It stops at an id that is not above the others; the set is right all the same.
                if ids.append(run.clone()).is_err() {
                    ids.extend(run);
                }
                break;
            }
            bytes += self.insert(run.start);
            run.start += 1;
        }
        bytes
    }

    /// The ids, whichever way they are kept.
    pub(crate) fn view(&self) -> IdsView<'_> {
        match self {
            Ids::Inline(count, ids) => IdsView::List(&ids[..usize::from(*count)]),
            Ids::List(ids) => IdsView::List(ids),
            Ids::Bitmap(ids) => IdsView::Bitmap(ids),
        }
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        match self.view() {
            IdsView::List(ids) => ids.binary_search(&id).is_ok(),
            IdsView::Bitmap(ids) => ids.contains(id),
        }
    }

    /// Takes these out, as far as they are there; says how many bytes that freed.
    pub(super) fn subtract(&mut self, gone: &RoaringBitmap) -> usize {
        let before = self.bytes();
        if let Ids::Bitmap(ids) = self {
            **ids -= gone;
            if ids.len() as usize > LIST_MAX {
                return before - self.bytes();
            }
        }
        let left: Vec<u32> = match self.view() {
            IdsView::List(ids) => ids.iter().copied().filter(|id| !gone.contains(*id)).collect(),
            IdsView::Bitmap(ids) => ids.iter().collect(),
        };
        *self = if left.len() <= INLINE_MAX {
            let mut ids = [0; INLINE_MAX];
            ids[..left.len()].copy_from_slice(&left);
            Ids::Inline(left.len() as u8, ids)
        } else {
            Ids::List(Box::new(left))
        };
        before - self.bytes()
    }

    /// Adds them to a set.
    pub(super) fn add_to(&self, set: &mut RoaringBitmap) {
        match self.view() {
            IdsView::List(ids) => set.extend(ids),
            IdsView::Bitmap(ids) => *set |= ids,
        }
    }

    /// Those that are in a set, too.
    pub(super) fn within(&self, set: &RoaringBitmap) -> RoaringBitmap {
        match self.view() {
            IdsView::List(ids) => ids.iter().filter(|id| set.contains(**id)).collect(),
            IdsView::Bitmap(ids) => ids & set,
        }
    }

    /// Takes them out of a set.
    pub(super) fn remove_from(&self, set: &mut RoaringBitmap) {
        match self.view() {
            IdsView::List(ids) => {
                for id in ids {
                    set.remove(*id);
                }
            }
            IdsView::Bitmap(ids) => *set -= ids,
        }
    }
}

/// Ids mostly rise, so a new one is appended; one that is given again is put in its place.
fn insert_sorted(ids: &mut Vec<u32>, id: u32) {
    match ids.last() {
        Some(&last) if last > id => ids.insert(ids.partition_point(|&other| other < id), id),
        _ => ids.push(id),
    }
}
