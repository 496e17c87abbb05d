//! What a file of a simulated disk holds: now, for certain, and in every state between that a power cut may leave.

use std::cell::RefCell;
use std::rc::Rc;

/// What a device writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

pub(super) type SharedInode = Rc<RefCell<Inode>>;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) now: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Written { position: usize, bytes: Vec<u8> },
    Cut(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Written { position, bytes: written } => {
                let end = position + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*position..end].copy_from_slice(written);
            }
            Change::Cut(len) => bytes.resize(*len, 0),
        }
    }
}

impl Inode {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.synced);
        }
    }

    pub(super) fn after_power_cut(&self, random: &mut u64) -> Vec<u8> {
        // The states since the last sync are the prefixes of the list of changes. Each sector comes from a
        // prefix of its own; going through the prefixes in order, a sector is taken when its turn comes.
        let mut state = self.synced.clone();
        let mut lengths = vec![state.len()];
        for change in &self.unsynced {
            change.apply(&mut state);
            lengths.push(state.len());
        }
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let prefixes = lengths.len() as u64;
        let mut left = vec![0; longest];
        let chosen: Vec<u64> =
            (0..longest.div_ceil(SECTOR_BYTES)).map(|_| next_random(random) % prefixes).collect();
        let mut take = |prefix: u64, state: &[u8]| {
            for (sector, _) in chosen.iter().enumerate().filter(|(_, chosen)| **chosen == prefix) {
                let start = (sector * SECTOR_BYTES).min(state.len());
                let end = (start + SECTOR_BYTES).min(state.len());
                left[start..end].copy_from_slice(&state[start..end]);
            }
        };
        let mut state = self.synced.clone();
        take(0, &state);
        for (prefix, change) in (1..).zip(&self.unsynced) {
            change.apply(&mut state);
            take(prefix, &state);
        }
        left.truncate(lengths[(next_random(random) % prefixes) as usize]);
        left
    }
}

/// SplitMix64: small, and the same on every machine.
pub(super) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
