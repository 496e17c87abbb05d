//! Series that no longer get samples: which they are, and the way of their samples to a segment of their own.
//!
//! ```text
//! tick, by the caller's clock        a sample notes the present one in its row, and nothing else
//! stopped_in                         rows whose last sample is many ticks old, measured by what they are used to
//! freeze_stopped                     their samples are taken away; all others go on as if nothing had happened
//! ```
//!
//! Always: silence is measured by arrival, not by the samples' own times: who sends what is old has not stopped.
//! Not here: when that is worth it, and dictionaries, which name such series still (`store/stopped.rs`).

use super::seal::FROZEN_SERIES_BYTES;
use super::series::{AllLate, SeriesSamples};
use super::{Frozen, Memtable, Series, SeriesId};
use crate::chunk::{Chunk, OpenChunk};
use std::ops::Range;
use std::rc::Rc;

/// How long a series is silent that has stopped.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// So many ticks at least, 9 at most: rows count up to 63 of them and then from 0 again.
    pub ticks: u8,
    /// Milliseconds of a tick.
    pub tick_ms: i64,
}

/// A series that has missed so many of its own samples has stopped.
const MISSED: i64 = 3;
/// One whose interval is not known, for it has a single sample in memory or none, is given so many times longer.
const UNKNOWN_INTERVAL: u8 = 5;

/// When a series got its last sample: the last six bits of the tick, and the freezes since that found none, up to three.
///
/// One byte, for with two more a row would take 16.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard(u8);

const TICKS: u8 = 1 << 6;
/// Silent for so many, a series has stopped whatever it is used to: rows cannot count much further. One that is slower goes
/// to a segment by each sample, and costs that much more, once in so long a time.
const SILENT_MAX: u8 = 48;
const _: () = assert!(SILENT_MAX < TICKS - 8, "a look may be some ticks late");
/// Series whose late samples are sorted in one step, some microseconds each.
const SORTED_PER_STEP: usize = 128;

impl Heard {
    fn next(self) -> Heard {
        Heard(self.0.wrapping_add(4))
    }

    /// So that a silence beyond [`SILENT_MAX`] ticks stays that long, and does not begin anew when ticks do.
    fn hold(&mut self, now: Heard) {
        if now.ticks_since(*self) > SILENT_MAX {
            let ticks = (now.0 >> 2).wrapping_sub(SILENT_MAX) % TICKS;
            self.0 = ticks << 2 | self.idle_cycles();
        }
    }

    fn ticks_since(self, heard: Heard) -> u8 {
        (self.0 >> 2).wrapping_sub(heard.0 >> 2) % TICKS
    }

    /// Freezes in a row that found no sample.
    pub(super) fn idle_cycles(self) -> u8 {
        self.0 % 4
    }

    /// One more.
    pub(super) fn found_idle(&mut self) {
        self.0 += u8::from(self.idle_cycles() < 3);
    }
}

impl Memtable {
    /// The caller's clock goes on by one tick.
    pub fn tick(&mut self) {
        self.tick = self.tick.next();
    }

    /// Gives the series in these rows that have stopped; says which row is the next to be looked at. What came late to them
    /// is sorted on the way, or it would all have to be when their samples are taken away, in one step.
    pub fn stopped_in(&mut self, rows: Range<u32>, silence: Silence, mut take: impl FnMut(SeriesId)) -> u32 {
        debug_assert!(silence.ticks * UNKNOWN_INTERVAL <= SILENT_MAX);
        let mut sorted = 0;
        for row in rows.clone() {
            let Some(Some(series)) = self.series.get_mut(row as usize) else { continue };
            series.heard.hold(self.tick);
            if !series.has_stopped(self.tick, silence) {
                continue;
            }
            take(SeriesId(row));
            let late = &mut series.samples.late;
            if late.is_in_pool() {
                late.leave_pool(&mut self.late.pool, &mut self.sample_bytes, &mut self.late.again);
                sorted += 1;
            }
            if sorted == SORTED_PER_STEP {
                return row + 1;
            }
        }
        rows.end
    }

    /// Takes away the samples of those of the series that have stopped still; the table keeps them all. `None` where
    /// none of them has a sample.
    ///
    /// Ids are to rise. Views that were taken before find the samples in the frozen part, and those of all other
    /// series in the table, or where a later freeze puts them.
    pub fn freeze_stopped(&mut self, ids: &[SeriesId], silence: Silence) -> Option<Rc<Frozen>> {
        let mut frozen = Frozen::default();
        frozen.series.reserve_exact(ids.len());
        let mut late = 0;
        for &id in ids {
            let Some(Some(row)) = self.series.get_mut(id.0 as usize) else { continue };
            if row.samples.is_empty() || !row.has_stopped(self.tick, silence) {
                continue;
            }
            late += row.samples.late.len() as u64;
            let AllLate { pool, again, .. } = &mut self.late;
            row.samples.late.leave_pool(pool, &mut self.sample_bytes, again);
            frozen.bytes += row.samples.bytes();
            frozen.sample_count += row.samples.count();
            frozen.label_bytes += row.labels.bytes();
            frozen.series.push(row.freeze(id));
        }
        if frozen.series.is_empty() {
            return None;
        }
        // How many of those that were told came to these series is not counted apart: they are late ones.
        let told = self.late.told.min(late);
        self.late.told -= told;
        frozen.tell(told);
        self.active_count -= frozen.series.len();
        self.sample_bytes -= frozen.bytes;
        // Each that is left has one.
        let left = self.sample_count().saturating_sub(frozen.sample_count);
        self.sample_count = left.max(self.active_count as u64) + self.late.again.count();
        if self.active_count == 0 {
            // All tails are given back: what is left of their pool is no sample.
            self.late = AllLate { again: self.late.again, ..AllLate::default() };
            (self.sample_bytes, self.sample_count) = (0, self.late.again.count());
        }
        frozen.bytes += frozen.series.len() * FROZEN_SERIES_BYTES;
        self.freezes += 1;
        let views = std::mem::take(&mut self.next_freeze);
        frozen.next = Some(self.next_freeze.clone());
        let frozen = Rc::new(frozen);
        // Nobody else sets it, and this one has left the table.
        let _ = views.set(frozen.clone());
        Some(frozen)
    }

    /// Whether a series that had stopped is silent still and has no sample in memory: what its interval was nobody knows
    /// once they are taken away.
    pub fn is_silent_and_empty(&self, id: SeriesId, silence: Silence) -> bool {
        let is_silent = |row: &Series| self.tick.ticks_since(row.heard) >= silence.ticks;
        self.row(id).is_some_and(|row| row.samples.is_empty() && is_silent(row))
    }
}

impl Series {
    fn has_stopped(&self, now: Heard, silence: Silence) -> bool {
        let silent = now.ticks_since(self.heard);
        silent >= SILENT_MAX
            || silent >= silence.ticks
                && match self.samples.interval_ms() {
                    Some(interval_ms) => i64::from(silent) * silence.tick_ms >= MISSED * interval_ms,
                    None => silent >= UNKNOWN_INTERVAL * silence.ticks,
                }
    }
}

impl SeriesSamples {
    /// From sample to sample on average, as far as the last chunk tells.
    fn interval_ms(&self) -> Option<i64> {
        let open = self.open.as_ref()?;
        let (first, count) = match self.closed.last() {
            Some(closed) if open.count() == 1 => (closed.first(), closed.count() + 1),
            _ => (open.first(), open.count()),
        };
        let span_ms = open.last().timestamp.millis() - first.millis();
        (count > 1).then(|| span_ms / (i64::from(count) - 1))
    }

    /// Samples, one counted twice that came late in the place of another.
    fn count(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|chunk: &Chunk| u64::from(chunk.count())).sum();
        let open = self.open.as_ref().map_or(0, |open: &OpenChunk| u64::from(open.count()));
        closed + open + self.late.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memtable::Memtable;
    use model::{Arrival, LabelSet, MetricKind, Sample, Timestamp};

    const SILENCE: Silence = Silence { ticks: 8, tick_ms: 15_000 };

    fn stopped(table: &mut Memtable) -> Vec<u32> {
        let mut found = Vec::new();
        table.stopped_in(0..table.id_end(), SILENCE, |id| found.push(id.0));
        found
    }

    /// A sample every 15 s, every minute, every two minutes, one alone, and every six minutes: each has stopped once it was
    /// silent for two minutes and three times its interval; the one alone after ten minutes, the slowest after twelve, and
    /// then it stays so, however long nobody takes it.
    #[test]
    fn a_series_has_stopped_by_what_it_is_used_to() {
        let mut table = Memtable::new(Box::new(|_| 0));
        for (n, interval_s) in [15i64, 60, 120, 1_200, 360].into_iter().enumerate() {
            let labels = LabelSet::new("a", &[("n", &n.to_string())]).unwrap();
            let id = table.intern(labels.as_ref(), MetricKind::Gauge, Arrival::from_bits(n as u128)).unwrap();
            for at in (0..=1_000).step_by(interval_s as usize) {
                let timestamp = Timestamp::from_millis(at * 1_000).unwrap();
                table.append(id, Sample { timestamp, value: 1.0 }).unwrap();
            }
        }
        let mut after = [None; 5];
        for tick in 1..3 * TICKS {
            table.tick();
            for id in stopped(&mut table) {
                after[id as usize].get_or_insert(tick);
            }
        }
        assert_eq!(after, [Some(8), Some(12), Some(24), Some(40), Some(48)]);
        assert_eq!(stopped(&mut table), [0, 1, 2, 3, 4]);
        // One is heard of; of the others the samples go, and nothing else.
        let heard = Sample { timestamp: Timestamp::from_millis(2_000_000).unwrap(), value: 2.0 };
        table.append(SeriesId(1), heard).unwrap();
        assert_eq!(stopped(&mut table), [0, 2, 3, 4]);
        let (bytes, samples) = (table.sample_bytes(), table.sample_count());
        let part = table.freeze_stopped(&[0, 1, 2, 3, 4].map(SeriesId), SILENCE).unwrap();
        assert_eq!((part.series().len(), part.is_part(), table.series_count()), (4, true, 5));
        assert_eq!(part.sample_count() + table.sample_count(), samples);
        assert!(table.has_samples() && table.sample_bytes() <= bytes);
        assert!(
            table.is_silent_and_empty(SeriesId(0), SILENCE)
                && !table.is_silent_and_empty(SeriesId(1), SILENCE)
        );
        assert!(table.freeze_stopped(&[SeriesId(0)], SILENCE).is_none(), "nothing is left of it");
    }

    /// The counts of samples hold where series leave whose late samples were told to replace others, and of those that stay
    /// it turns out later that they came again. Once none has a sample, no memory is left of them.
    #[test]
    fn the_counts_hold_when_series_with_late_samples_leave() {
        let mut table = Memtable::new(Box::new(|_| 0));
        let mut intern = |n: u8| {
            let labels = LabelSet::new("a", &[("n", &n.to_string())]).unwrap();
            table.intern(labels.as_ref(), MetricKind::Gauge, Arrival::from_bits(u128::from(n))).unwrap()
        };
        let (leaves, stays) = (intern(0), intern(1));
        let append = |table: &mut Memtable, id, second: i64, value: f64| {
            let timestamp = Timestamp::from_millis(second * 1_000).unwrap();
            table.append(id, Sample { timestamp, value }).unwrap();
        };
        for second in 0..64 {
            append(&mut table, leaves, second, 1.0);
            append(&mut table, leaves, second, 2.0);
        }
        append(&mut table, stays, 1_000, 1.0);
        for n in 0..63 {
            append(&mut table, stays, 500, f64::from(n));
        }
        assert_eq!(table.sample_count(), 64 + 64);
        (0..TICKS - 1).for_each(|_| table.tick());
        append(&mut table, stays, 1_001, 1.0);
        let part = table.freeze_stopped(&[leaves, stays], SILENCE).unwrap();
        assert_eq!((part.series().len(), part.sample_count(), table.sample_count()), (1, 64, 65));
        for n in 0..64 {
            append(&mut table, stays, 500, f64::from(n));
        }
        let again = table.take_came_again();
        assert!(again.count() >= 62, "{again:?}");
        assert!((3..=67).contains(&table.sample_count()), "{}", table.sample_count());
        (0..TICKS - 1).for_each(|_| table.tick());
        table.freeze_stopped(&[leaves, stays], SILENCE).unwrap();
        assert_eq!((table.sample_bytes(), table.sample_count()), (0, 0));
    }
}
