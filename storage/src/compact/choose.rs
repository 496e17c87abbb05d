//! Which segments to merge: a pure choice.
//!
//! ```text
//! fresh    begins before the open window and reaches beyond its own, or lies in the open window
//! settled  lies in one window that is complete
//!
//! foreign (another number of shards)                       → rewritten alone, one segment per owner
//! fresh and reaching into complete windows, 4 of them
//!   or one that lies in complete windows alone             → merged, split by windows
//! settled, of one window, with what is fresh and reaches
//!   into it: from the newest on, as long as the next
//!   older one is at most twice what is there               → merged; all, where there are 8
//! fresh, 16 of them                                        → merged by the same rule
//! ```
//!
//! What each number is for. 8 h: flushes come every 2 h at least, so a window has four or more; 2 h windows would be
//! written once more and spare a query four files at most. A day: three of these, and what dashboards ask for. Then four
//! times as long each, up to a tenth of the retention: what has expired and is not gone yet is at most that. Twice as
//! large: a sample is written again only with at least half as many that are newer, so late ones that trickle into old
//! windows cost a logarithm. 16: a store under pressure flushes every minute or so, and a query looks at each of them.

use crate::manifest::SegmentEntry;
use std::collections::{BTreeMap, BTreeSet};

const HOUR_MS: i64 = 3_600_000;
/// Longest window, where the retention has no end: 4,096 days. Two centuries to each side of 1970 are 40 of them.
const LENGTHS: usize = 8;
/// Fresh segments that reach into complete windows before they are worth a merge.
const REACHING_MAX: usize = 4;
/// Settled segments of one window.
const SETTLED_MAX: usize = 8;
/// Fresh segments.
const FRESH_MAX: usize = 16;
/// How much larger the next older segment may be than all newer ones together, to be merged with them.
const SIZE_RATIO: u64 = 2;
/// Segments in one merge: each holds a read and a chunk's samples in memory.
const INPUTS_MAX: usize = 32;
/// Bytes in one merge. At some 50 MiB/s it takes a minute or two, which is what a crash costs at most.
pub(super) const INPUT_BYTES_MAX: u64 = 4 << 30;
/// A segment that is cleaned is one of so many parts of all at most,
const CLEANED_SHARE: u64 = 10;
/// or as small as a journal file.
const CLEANED_BYTES_MIN: u64 = 64 << 20;

/// The lengths of windows, and when one is complete.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Rising, each a multiple of the one before.
    lengths_ms: Vec<i64>,
    grace_ms: i64,
}

/// Milliseconds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first.
    pub first_ms: i64,
    /// The last; none for the open window, which has no end.
    pub last_ms: i64,
}

/// Whose segments are chosen from.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The shard.
    pub shard: usize,
    /// Of so many.
    pub shards: usize,
}

impl Windows {
    /// Milliseconds of each length, rising.
    pub fn lengths_ms(&self) -> &[i64] {
        &self.lengths_ms
    }

    /// Windows for a retention, or for one without end. A window is complete once it has ended for `grace_ms`: as long
    /// as samples may be on their way to a segment.
    pub fn new(retention_ms: Option<i64>, grace_ms: i64) -> Windows {
        let longest = retention_ms.map_or(i64::MAX, |retention| retention / 10);
        let days = (0..LENGTHS as u32 - 1).map(|n| 24 * HOUR_MS * 4i64.pow(n));
        let mut lengths_ms: Vec<i64> = std::iter::once(8 * HOUR_MS).chain(days).collect();
        lengths_ms.retain(|length| *length <= longest);
        if lengths_ms.is_empty() {
            lengths_ms.push(longest.max(1));
        }
        Windows { lengths_ms, grace_ms }
    }

    /// The first millisecond that lies in no complete window.
    fn open_ms(&self, now_ms: i64) -> i64 {
        let smallest = self.lengths_ms[0];
        now_ms.saturating_sub(self.grace_ms).div_euclid(smallest) * smallest
    }

    /// The largest complete window around a millisecond, or the open one.
    pub fn around(&self, ms: i64, now_ms: i64) -> Window {
        let open_ms = self.open_ms(now_ms);
        let complete = self.lengths_ms.iter().rev().find_map(|length| {
            let first_ms = ms.div_euclid(*length) * length;
            let end_ms = first_ms.checked_add(*length).filter(|end_ms| *end_ms <= open_ms)?;
            Some(Window { first_ms, last_ms: end_ms - 1 })
        });
        complete.unwrap_or(Window { first_ms: open_ms, last_ms: i64::MAX })
    }
}

/// The segments to be merged next, the oldest first; none when nothing is worth it. `unmergeable` are left as they are.
///
/// Carried out as chosen it comes to an end: what a merge leaves is fewer fresh or fewer settled segments.
pub fn choose(
    segments: &[SegmentEntry],
    owner: Owner,
    now_ms: i64,
    windows: &Windows,
    unmergeable: &BTreeSet<u64>,
) -> Option<Vec<SegmentEntry>> {
    let mut all: Vec<&SegmentEntry> = segments.iter().collect();
    all.sort_unstable_by_key(|entry| (entry.newest, entry.id));
    let choice = Choice { all, unmergeable, owner };
    let open_ms = windows.open_ms(now_ms);
    let may = |entry: &&&SegmentEntry| !unmergeable.contains(&entry.id);

    let is_ours_to_rewrite = |entry: &&SegmentEntry| {
        !choice.is_own(entry) && usize::from(entry.shard) % owner.shards == owner.shard && may(&entry)
    };
    if let Some(foreign) = choice.all.iter().copied().find(is_ours_to_rewrite) {
        return Some(vec![*foreign]);
    }

    let own = || choice.all.iter().copied().filter(|entry| choice.is_own(entry) && may(&entry));
    let around = |entry: &SegmentEntry| {
        let window = windows.around(entry.min_ms, now_ms);
        (window.last_ms < open_ms && entry.max_ms <= window.last_ms).then_some(window)
    };
    let fresh: Vec<&SegmentEntry> = own().filter(|entry| around(entry).is_none()).collect();
    let reaching: Vec<&SegmentEntry> = fresh.iter().copied().filter(|entry| entry.min_ms < open_ms).collect();
    let is_due = reaching.len() >= REACHING_MAX || reaching.iter().any(|entry| entry.max_ms < open_ms);
    if is_due && let Some(chosen) = choice.longest_from_oldest(&reaching, 1) {
        return Some(chosen);
    }

    let mut settled: BTreeMap<Window, Vec<&SegmentEntry>> = BTreeMap::new();
    for entry in own() {
        if let Some(window) = around(entry) {
            settled.entry(window).or_default().push(entry);
        }
    }
    let runs = settled.iter().filter_map(|(window, of_window)| {
        // The flush that began in the window and ended behind it is a part of it.
        let reaches_in =
            |entry: &&&SegmentEntry| entry.min_ms <= window.last_ms && entry.max_ms >= window.first_ms;
        let mut run: Vec<&SegmentEntry> = of_window.clone();
        run.extend(reaching.iter().filter(reaches_in));
        run.sort_unstable_by_key(|entry| (entry.newest, entry.id));
        let is_many = of_window.len() >= SETTLED_MAX;
        let similar = if is_many { &run } else { of_similar_size(&run) };
        let has_settled = similar.iter().any(|entry| around(entry).is_some());
        if has_settled { choice.longest_from_newest(similar) } else { None }
    });
    // The least first: most segments fewer for the work.
    if let Some(run) = runs.min_by_key(|run| bytes_of(run)) {
        return Some(run);
    }
    let is_crowd = fresh.len() >= FRESH_MAX;
    if is_crowd { choice.longest_from_newest(of_similar_size(&fresh)) } else { None }
}

/// A segment to be written anew for nothing but what is deleted in it: the smallest of `with_deleted`.
///
/// The old one and the new one lie on the disk together for a while, so it is a tenth of all at most, or small: one after
/// another they are cleaned with the disk never above 1.1 times what it holds. What is too large for that waits for a
/// merge, or until there is more beside it; it is hidden meanwhile.
pub fn choose_to_clean(
    segments: &[SegmentEntry],
    owner: Owner,
    with_deleted: &BTreeSet<u64>,
    unmergeable: &BTreeSet<u64>,
) -> Option<SegmentEntry> {
    let bytes_max = (bytes_of(segments) / CLEANED_SHARE).max(CLEANED_BYTES_MIN);
    let may = |entry: &&SegmentEntry| {
        usize::from(entry.shards) == owner.shards
            && with_deleted.contains(&entry.id)
            && !unmergeable.contains(&entry.id)
            && entry.bytes <= bytes_max
    };
    segments.iter().filter(may).min_by_key(|entry| (entry.bytes, entry.id)).copied()
}

/// From the newest on, as long as the next older one is not much larger than what is there.
fn of_similar_size<'s, 'e>(run: &'s [&'e SegmentEntry]) -> &'s [&'e SegmentEntry] {
    let mut bytes = 0u64;
    let similar = run.iter().rev().take_while(|entry| {
        let fits = bytes == 0 || entry.bytes <= bytes.saturating_mul(SIZE_RATIO);
        bytes = bytes.saturating_add(entry.bytes);
        fits
    });
    let count = similar.count();
    &run[run.len() - count..]
}

fn bytes_of(run: &[SegmentEntry]) -> u64 {
    run.iter().fold(0, |sum, entry| sum.saturating_add(entry.bytes))
}

struct Choice<'a> {
    /// By the order in which they count.
    all: Vec<&'a SegmentEntry>,
    unmergeable: &'a BTreeSet<u64>,
    owner: Owner,
}

impl Choice<'_> {
    fn is_own(&self, entry: &SegmentEntry) -> bool {
        usize::from(entry.shards) == self.owner.shards
    }

    /// As many as may be merged, from the oldest on, at least `count_min`.
    fn longest_from_oldest(&self, run: &[&SegmentEntry], count_min: usize) -> Option<Vec<SegmentEntry>> {
        (count_min..=run.len().min(INPUTS_MAX)).rev().find_map(|count| self.closed(&run[..count]))
    }

    /// As many as may be merged, from the newest on, at least two.
    fn longest_from_newest(&self, run: &[&SegmentEntry]) -> Option<Vec<SegmentEntry>> {
        let counts = 2..=run.len().min(INPUTS_MAX);
        counts.rev().find_map(|count| self.closed(&run[run.len() - count..]))
    }

    /// The run with all that lies between its segments, in order and in time; none where that cannot be merged, or is
    /// too much. One alone may be as large as it is.
    fn closed(&self, run: &[&SegmentEntry]) -> Option<Vec<SegmentEntry>> {
        let mut chosen: BTreeSet<u64> = run.iter().map(|entry| entry.id).collect();
        loop {
            let of_chosen = || self.all.iter().filter(|entry| chosen.contains(&entry.id));
            let (oldest, newest) = (of_chosen().next()?.newest, of_chosen().next_back()?.newest);
            let min_ms = of_chosen().map(|entry| entry.min_ms).min()?;
            let max_ms = of_chosen().map(|entry| entry.max_ms).max()?;
            // What is as new as the newest is a piece of the same merge: the result would be as new as it, and hold
            // what is older.
            let lies_between = |entry: &&&SegmentEntry| {
                !chosen.contains(&entry.id)
                    && (oldest + 1..=newest).contains(&entry.newest)
                    && entry.min_ms <= max_ms
                    && entry.max_ms >= min_ms
            };
            let Some(between) = self.all.iter().find(lies_between) else {
                let chosen: Vec<SegmentEntry> = of_chosen().map(|entry| **entry).collect();
                let fits = chosen.len() == 1 || bytes_of(&chosen) <= INPUT_BYTES_MAX;
                return (fits && chosen.len() <= INPUTS_MAX).then_some(chosen);
            };
            if !self.is_own(between) || self.unmergeable.contains(&between.id) {
                return None;
            }
            chosen.insert(between.id);
        }
    }
}
