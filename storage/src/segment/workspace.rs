//! What reading chunks takes beside the segments: room to decode, clocks that were read before, and what was read ahead.

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
    /// By segment; the one that came first goes first.
    ahead: Vec<(u64, Ahead)>,
}

/// What lies behind what was read last of one segment, where reading goes forward by small steps.
#[derive(Default)]
pub(super) struct Ahead {
    offset: u64,
    bytes: Vec<u8>,
    /// Where the last part ended that was asked for.
    asked_until: u64,
}

/// Bytes read at once where small parts follow each other.
const AHEAD_BYTES: usize = 32 * 1024;
/// A part that begins so far behind the one before follows it.
const FOLLOWS_WITHIN: u64 = AHEAD_BYTES as u64 / 2;
/// Segments of which something is kept: those of a merge, or of a query of some days.
const AHEAD_SEGMENTS_MAX: usize = 12;

impl Ahead {
    /// Bytes that were read before.
    pub(super) fn part(&mut self, offset: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let part = self.bytes.get(from..from.checked_add(len)?)?;
        self.asked_until = offset + len as u64;
        Some(part)
    }

    /// How much to read for the sake of a part that was not: more than that where it follows the one before.
    pub(super) fn wanted(&mut self, offset: u64, len: usize) -> usize {
        let follows = offset.checked_sub(self.asked_until).is_some_and(|gap| gap <= FOLLOWS_WITHIN);
        let has_begun = self.asked_until > 0;
        self.asked_until = offset + len as u64;
        if has_begun && follows { len.max(AHEAD_BYTES) } else { len }
    }

    pub(super) fn keep(&mut self, offset: u64, bytes: Vec<u8>) {
        (self.offset, self.bytes) = (offset, bytes);
    }
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
    /// Times that a directory row says.
    pub(super) few: [i64; 2],
}

impl Workspace {
    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let room = |room: &Room| size_of::<Room>() + room.scratch.bytes();
        let ahead = self.ahead.iter().map(|(_, ahead)| ahead.bytes.capacity()).sum::<usize>();
        self.clocks.bytes
            + self.room.as_deref().map_or(0, room)
            + ahead
            + self.ahead.capacity() * size_of::<(u64, Ahead)>()
    }

    /// What was read of that segment last.
    pub(super) fn ahead(&mut self, segment: u64) -> &mut Ahead {
        let known = self.ahead.iter().position(|(of, _)| *of == segment);
        let at = known.unwrap_or_else(|| {
            if self.ahead.len() == AHEAD_SEGMENTS_MAX {
                self.ahead.remove(0);
            }
            self.ahead.push((segment, Ahead::default()));
            self.ahead.len() - 1
        });
        &mut self.ahead[at].1
    }

    pub(super) fn room(&mut self) -> &mut Room {
        self.room.get_or_insert_with(|| {
            Box::new(Room { scratch: Scratch::default(), values: [0.0; COLUMN_SAMPLES_MAX], few: [0; 2] })
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
