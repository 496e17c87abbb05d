//! What reading chunks takes beside the segments: room to decode, and clocks that were read before.

use super::directory::Extent;
use crate::column::{COLUMN_SAMPLES_MAX, Scratch};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::rc::Rc;

/// Bytes of clocks kept at most: those of a day of one scrape, or of an hour of fifty.
const KEPT_BYTES_MAX: usize = 256 * 1024;
const ENTRY_BYTES: usize = 96;

/// One for whoever reads, however many series and segments: the series of a scrape share their clocks. It takes memory
/// from the first chunk on.
#[derive(Default)]
pub struct Workspace {
    clocks: Clocks,
    room: Option<Box<Room>>,
}

/// Checked bytes of clocks, by segment and offset.
#[derive(Default)]
struct Clocks {
    kept: HashMap<(u64, u64), Rc<[u8]>, RandomState>,
    /// The oldest first.
    order: VecDeque<(u64, u64)>,
    bytes: usize,
}

/// Room for one chunk.
pub(super) struct Room {
    pub(super) scratch: Scratch,
    pub(super) values: [f64; COLUMN_SAMPLES_MAX],
}

impl Workspace {
    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let room = |room: &Room| size_of::<Room>() + room.scratch.bytes();
        self.clocks.bytes + self.room.as_deref().map_or(0, room)
    }

    pub(super) fn room(&mut self) -> &mut Room {
        self.room.get_or_insert_with(|| {
            Box::new(Room { scratch: Scratch::default(), values: [0.0; COLUMN_SAMPLES_MAX] })
        })
    }

    /// A clock of that segment, if it is kept.
    pub(super) fn clock(&self, segment: u64, at: Extent) -> Option<&Rc<[u8]>> {
        self.clocks.kept.get(&(segment, at.offset))
    }

    /// Keeps a clock whose checksum was right.
    pub(super) fn keep(&mut self, segment: u64, at: Extent, column: Rc<[u8]>) {
        let clocks = &mut self.clocks;
        clocks.bytes += ENTRY_BYTES + column.len();
        match clocks.kept.insert((segment, at.offset), column) {
            None => clocks.order.push_back((segment, at.offset)),
            Some(before) => clocks.bytes -= ENTRY_BYTES + before.len(),
        }
        while clocks.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = clocks.order.pop_front()
        {
            let dropped = clocks.kept.remove(&oldest);
            clocks.bytes -= dropped.map_or(0, |column| ENTRY_BYTES + column.len());
        }
    }
}
