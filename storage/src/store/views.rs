//! Which selections keep parts of memory that may be on disk, and how the store takes them back.
//!
//! ```text
//!   freezes   ... n            n + 1
//!   parts         part n       part n + 1
//!   a selection of a moment between the two keeps part n while that is on its way to disk, and part n + 1
//! ```
//!
//! Nothing waits here: a selection that is broken off is told so by its reader's next look, and ends.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

/// The views of one store that keep something.
#[derive(Default)]
pub(super) struct Views(RefCell<Vec<Weak<Hold>>>);

/// What one selection keeps, as long as it lives.
pub(super) struct Hold {
    /// The number of the oldest part that it may keep.
    oldest_part: u64,
    is_broken_off: Cell<bool>,
}

impl Views {
    /// A selection of now.
    pub(super) fn begin(&self, oldest_part: u64) -> Rc<Hold> {
        let hold = Rc::new(Hold { oldest_part, is_broken_off: Cell::new(false) });
        let mut views = self.0.borrow_mut();
        views.retain(|hold| hold.strong_count() > 0);
        views.push(Rc::downgrade(&hold));
        hold
    }

    /// Breaks off all that may keep that part, or an older one.
    pub(super) fn break_off(&self, part: u64) {
        let views = self.0.borrow();
        let holds = views.iter().filter_map(Weak::upgrade).filter(|hold| hold.oldest_part <= part);
        holds.for_each(|hold| hold.is_broken_off.set(true));
    }
}

impl Hold {
    pub(super) fn is_broken_off(&self) -> bool {
        self.is_broken_off.get()
    }
}
