//! What came late to one series.
//!
//! ```text
//!   runs   [· · · · · · · · · · · ·][· · · · ·]      in the series' own memory, each sorted
//!   tail   [·  · ··   ·  · ·][ ·   ·    ]            in blocks of the pool that all series share, as they came
//! ```
//!
//! A sample goes to the tail, which looks for nothing and allocates nothing. A full tail is sorted behind the runs, together
//! with every run that is no longer than what stands behind it: a sample is sorted again only when what it is sorted
//! with has doubled. So a series may arrive backwards, and who looks for a time looks at a logarithm of runs.
//!
//! Tried before: a tree, and its chunk decoded for each sample to say whether its time was there: 1,300 ns. A list of its
//! own for each series, grown by half: 110 ns, most of it in the allocator. This: see `benches/out_of_order.rs`.
//!
//! Always: times rise strictly within a run; of samples with one time the one that stands further behind came later and
//! counts; a run is longer than all runs behind it together.

use model::{Sample, Timestamp};

/// Samples of a block.
const BLOCK_SAMPLES: usize = 7;
/// Samples that wait unsorted, at most: sorting them costs some ten nanoseconds each, and whoever looks for one looks at
/// all of them.
const TAIL_SAMPLES: usize = 9 * BLOCK_SAMPLES;
/// Blocks that are allocated at once.
const PAGE_BLOCKS: usize = 512;
/// Stands for no block.
const NO_BLOCK: u32 = u32::MAX;

/// Samples whose time was there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameAgain {
    /// With the same value.
    pub repeated: u64,
    /// With another value, which it took the place of.
    pub replaced: u64,
}

impl CameAgain {
    /// All of them.
    pub fn count(&self) -> u64 {
        self.repeated + self.replaced
    }

    /// Counts others too.
    pub fn add(&mut self, others: CameAgain) {
        self.repeated += others.repeated;
        self.replaced += others.replaced;
    }

    /// Counts one that came when its time had the value `old`.
    pub(crate) fn note(&mut self, old: f64, new: f64) {
        let is_same = old.to_bits() == new.to_bits();
        self.repeated += u64::from(is_same);
        self.replaced += u64::from(!is_same);
    }
}

/// Where the tails of all series wait.
#[derive(Debug)]
pub(super) struct TailPool {
    pages: Vec<Box<[Block]>>,
    /// Blocks that were ever in use.
    used: usize,
    /// The first of those that are not in use any more.
    free: u32,
}

/// Some samples of one series.
#[derive(Clone, Debug)]
struct Block {
    samples: [Sample; BLOCK_SAMPLES],
    /// Of a tail the block before, of the free ones any other.
    before: u32,
}

const EMPTY: Block =
    Block { samples: [Sample { timestamp: Timestamp::MIN, value: 0.0 }; BLOCK_SAMPLES], before: NO_BLOCK };

impl Default for TailPool {
    fn default() -> TailPool {
        TailPool { pages: Vec::new(), used: 0, free: NO_BLOCK }
    }
}

impl TailPool {
    /// Bytes of the blocks that were ever in use; less than a page is allocated beyond.
    pub(super) fn bytes(&self) -> usize {
        self.used * size_of::<Block>()
    }

    /// A block that goes on behind `before`.
    fn take(&mut self, before: u32) -> u32 {
        let taken = match self.free {
            NO_BLOCK => self.add(),
            free => {
                self.free = self.block(free).before;
                free
            }
        };
        self.block_mut(taken).before = before;
        taken
    }

    #[cold]
    fn add(&mut self) -> u32 {
        if self.used == self.pages.len() * PAGE_BLOCKS {
            self.pages.push(vec![EMPTY; PAGE_BLOCKS].into_boxed_slice());
        }
        let added = u32::try_from(self.used).expect("4 billion blocks are more than memory takes");
        self.used += 1;
        added
    }

    fn give_back(&mut self, block: u32) {
        let free = std::mem::replace(&mut self.free, block);
        self.block_mut(block).before = free;
    }

    fn block(&self, block: u32) -> &Block {
        &self.pages[block as usize / PAGE_BLOCKS][block as usize % PAGE_BLOCKS]
    }

    fn block_mut(&mut self, block: u32) -> &mut Block {
        &mut self.pages[block as usize / PAGE_BLOCKS][block as usize % PAGE_BLOCKS]
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Late {
    runs: Option<Box<Runs>>,
    /// The last block of the tail.
    last: u32,
    tail_len: u32,
}

#[derive(Debug, Default)]
struct Runs {
    samples: Vec<Sample>,
    /// Where each run ends.
    ends: Vec<usize>,
}

impl Default for Late {
    fn default() -> Late {
        Late { runs: None, last: NO_BLOCK, tail_len: 0 }
    }
}

impl Late {
    /// Samples; one that came again counts until that has turned out.
    pub(super) fn len(&self) -> usize {
        self.tail_len as usize + self.runs.as_ref().map_or(0, |runs| runs.samples.len())
    }

    /// Bytes of memory beside the pool's blocks.
    pub(super) fn own_bytes(&self) -> usize {
        self.runs.as_ref().map_or(0, |runs| {
            size_of::<Runs>()
                + runs.samples.capacity() * size_of::<Sample>()
                + runs.ends.capacity() * size_of::<usize>()
        })
    }

    /// Takes a sample in, and adds to `bytes` what that took; `again` hears of those of which it turns out that they came
    /// again.
    #[inline]
    pub(super) fn push(
        &mut self,
        sample: Sample,
        pool: &mut TailPool,
        bytes: &mut usize,
        again: &mut CameAgain,
    ) {
        let at = self.tail_len as usize % BLOCK_SAMPLES;
        if at == 0 {
            self.add_block(pool, bytes, again);
        }
        pool.block_mut(self.last).samples[at] = sample;
        self.tail_len += 1;
    }

    #[inline(never)]
    fn add_block(&mut self, pool: &mut TailPool, bytes: &mut usize, again: &mut CameAgain) {
        let before = pool.bytes() + self.own_bytes();
        if self.tail_len as usize == TAIL_SAMPLES {
            self.settle(pool, again);
        }
        self.last = pool.take(self.last);
        *bytes += pool.bytes() + self.own_bytes() - before;
    }

    /// The tail becomes a run.
    fn settle(&mut self, pool: &mut TailPool, again: &mut CameAgain) {
        let Runs { samples, ends } = &mut **self.runs.get_or_insert_default();
        // Those that are no longer than what stands behind them are sorted anew.
        let behind = samples.len() + self.tail_len as usize;
        let mut start = samples.len();
        while let Some(end) = ends.pop() {
            let run_start = ends.last().copied().unwrap_or(0);
            if end - run_start > behind - end {
                ends.push(end);
                break;
            }
            start = run_start;
        }
        if samples.capacity() < behind {
            // By half, for where one series has late samples, many have.
            samples.reserve_exact((behind - samples.len()).max(samples.len() / 2));
        }
        let tail_start = samples.len();
        samples.extend(tail(self.last, self.tail_len, pool));
        samples[tail_start..].reverse();
        let kept = sort(&mut samples[start..], again);
        samples.truncate(start + kept);
        ends.push(start + kept);
        self.give_back_tail(pool);
    }

    /// Whether it has samples in the pool.
    pub(super) fn is_in_pool(&self) -> bool {
        self.tail_len > 0
    }

    /// Leaves the pool, and adds to `bytes` what that took: all that was in the tail is in a run.
    pub(super) fn leave_pool(&mut self, pool: &mut TailPool, bytes: &mut usize, again: &mut CameAgain) {
        if self.tail_len > 0 {
            let before = self.own_bytes();
            self.settle(pool, again);
            *bytes += self.own_bytes() - before;
        }
    }

    fn give_back_tail(&mut self, pool: &mut TailPool) {
        self.tail_len = 0;
        while self.last != NO_BLOCK {
            let before = pool.block(self.last).before;
            pool.give_back(self.last);
            self.last = before;
        }
    }

    /// Empties it, which `bytes` hears of; returns what was in it, times rising strictly.
    pub(super) fn take_all(
        &mut self,
        pool: &mut TailPool,
        bytes: &mut usize,
        again: &mut CameAgain,
    ) -> Vec<Sample> {
        let all = self.sorted(Timestamp::MIN, Timestamp::MAX, usize::MAX, pool, again);
        *bytes -= self.own_bytes();
        self.give_back_tail(pool);
        self.runs = None;
        all
    }

    /// The runs, the longest first.
    fn runs(&self) -> impl DoubleEndedIterator<Item = &[Sample]> {
        self.runs.iter().flat_map(|runs| {
            let start = |at: usize| at.checked_sub(1).map_or(0, |before| runs.ends[before]);
            (0..runs.ends.len()).map(move |at| &runs.samples[start(at)..runs.ends[at]])
        })
    }

    /// The earliest and the latest time.
    pub(super) fn range(&self, pool: &TailPool) -> Option<(Timestamp, Timestamp)> {
        let ends = self.runs().flat_map(|run| run.first().into_iter().chain(run.last()));
        let times = ends.chain(tail(self.last, self.tail_len, pool)).map(|sample| sample.timestamp);
        times.fold(None, |range, time| {
            let (first, last) = range.unwrap_or((time, time));
            Some((first.min(time), last.max(time)))
        })
    }

    /// Puts another value in place of the one that counts at that time, which is returned.
    pub(super) fn replace(&mut self, sample: Sample, pool: &mut TailPool) -> Option<f64> {
        let (mut block, mut in_block) = (self.last, self.tail_len as usize);
        while block != NO_BLOCK {
            in_block = (in_block - 1) % BLOCK_SAMPLES + 1;
            let Block { samples, before } = pool.block_mut(block);
            if let Some(of) = samples[..in_block].iter_mut().rfind(|of| of.timestamp == sample.timestamp) {
                return Some(std::mem::replace(&mut of.value, sample.value));
            }
            (block, in_block) = (*before, BLOCK_SAMPLES);
        }
        let Runs { samples, ends } = self.runs.as_deref_mut()?;
        let starts = ends.iter().rev().skip(1).copied().chain([0]);
        ends.iter().rev().zip(starts).find_map(|(end, start)| {
            let run = &mut samples[start..*end];
            let at = run.binary_search_by_key(&sample.timestamp, |of| of.timestamp).ok()?;
            Some(std::mem::replace(&mut run[at].value, sample.value))
        })
    }

    /// Whether there is a sample from `start` to `end`, both included.
    pub(super) fn has_any(&self, start: Timestamp, end: Timestamp, pool: &TailPool) -> bool {
        tail(self.last, self.tail_len, pool).any(|of| start <= of.timestamp && of.timestamp <= end)
            || self.runs().any(|run| !within(run, start, end).is_empty())
    }

    /// The first samples, at most `max`, from `start` to `end`, both included: times rise strictly. `again` hears of those
    /// of which it turns out that they came again.
    pub(super) fn sorted(
        &self,
        start: Timestamp,
        end: Timestamp,
        max: usize,
        pool: &TailPool,
        again: &mut CameAgain,
    ) -> Vec<Sample> {
        // What of a run stands behind its first `max` is not among the first `max` of all.
        let parts =
            || self.runs().map(|run| within(run, start, end)).map(|part| &part[..part.len().min(max)]);
        let in_tail =
            || tail(self.last, self.tail_len, pool).filter(|of| start <= of.timestamp && of.timestamp <= end);
        let in_runs = parts().map(<[Sample]>::len).sum::<usize>();
        // As many places as samples: whoever takes a slice accounts for them.
        let mut sorted = Vec::with_capacity(in_runs + in_tail().count());
        parts().for_each(|part| sorted.extend_from_slice(part));
        sorted.extend(in_tail());
        sorted[in_runs..].reverse();
        let kept = sort(&mut sorted, again);
        sorted.truncate(kept.min(max));
        sorted
    }
}

/// The samples of a tail, what came last first.
fn tail(last: u32, len: u32, pool: &TailPool) -> impl Iterator<Item = &Sample> {
    let in_last = (len as usize).wrapping_sub(1) % BLOCK_SAMPLES + 1;
    let blocks = std::iter::successors(Some((last, in_last)), |(block, _)| {
        Some((pool.block(*block).before, BLOCK_SAMPLES))
    });
    let blocks = blocks.take((len as usize).div_ceil(BLOCK_SAMPLES));
    blocks.flat_map(|(block, len)| pool.block(block).samples[..len].iter().rev())
}

/// What of a run lies from `start` to `end`, both included.
fn within(run: &[Sample], start: Timestamp, end: Timestamp) -> &[Sample] {
    let run = &run[run.partition_point(|sample| sample.timestamp < start)..];
    &run[..run.partition_point(|sample| sample.timestamp <= end)]
}

/// Brings samples in order of time, those with one time in the order in which they stand, and keeps the last of each;
/// returns how many these are.
fn sort(samples: &mut [Sample], again: &mut CameAgain) -> usize {
    // Stable, and quick where there are runs.
    samples.sort_by_key(|sample| sample.timestamp);
    let mut kept = 0;
    for at in 1..samples.len() {
        if samples[at].timestamp == samples[kept].timestamp {
            again.note(samples[kept].value, samples[at].value);
        } else {
            kept += 1;
        }
        samples[kept] = samples[at];
    }
    samples.len().min(kept + 1)
}
