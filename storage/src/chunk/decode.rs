//! The decoder: samples out of the bytes of a chunk, whatever those bytes are.

use super::bits::BitReader;
use super::open::FinePrediction;
use super::xor::XorDecoder;
use super::{CHUNK_SAMPLES_MAX, FINE_BITS, FINE_MASK, Form, GAP_TIMES};
use model::{MILLIS_MAX, Sample, TICKS_PER_MILLI, Timestamp};
use std::fmt;

/// Why bytes are no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// The first byte names no form that this version knows.
    UnknownForm(u8),
    /// The bytes end before the samples do.
    TooShort,
    /// Bytes are left behind the last sample.
    TooLong,
    /// A time is not later than the one before, or outside what a timestamp can hold.
    Time,
    /// A value names bits outside a double, or a fine part outside a millisecond.
    Value,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChunkError::UnknownForm(form) => write!(f, "chunk form {form} is unknown"),
            ChunkError::TooShort => f.write_str("chunk ends before its samples do"),
            ChunkError::TooLong => f.write_str("bytes behind the last sample of a chunk"),
            ChunkError::Time => f.write_str("times in a chunk do not rise"),
            ChunkError::Value => f.write_str("a value in a chunk lies outside its bits"),
        }
    }
}

impl std::error::Error for ChunkError {}

/// The samples of a chunk, times rising strictly. After an error there is no further item.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    bits: BitReader<'a>,
    left: u32,
    started: bool,
    form: Form,
    millis: i64,
    distance: i64,
    fine: FinePrediction,
    last_ticks: i64,
    values: XorDecoder,
}

/// Milliseconds that a timestamp may have, [`Timestamp::MIN`] and [`Timestamp::MAX`] included.
const MILLIS: std::ops::RangeInclusive<i64> = -(MILLIS_MAX + 2)..=MILLIS_MAX + 1;
/// Above any distance of two timestamps, and a power of two: so distances are below it where all their bits together are.
const DISTANCE_END: u64 = (2 * (MILLIS_MAX + 2)) as u64;
const _: () = assert!(DISTANCE_END.is_power_of_two() && DISTANCE_END < (1 << 62) / CHUNK_SAMPLES_MAX as u64);
const _: () = assert!((MILLIS_MAX + 1) * TICKS_PER_MILLI == i64::MAX - (TICKS_PER_MILLI - 1));
const _: () = assert!(-(MILLIS_MAX + 2) * TICKS_PER_MILLI == i64::MIN);

impl<'a> Samples<'a> {
    /// Reads `count` samples from `bytes`.
    pub fn new(bytes: &'a [u8], count: u32) -> Samples<'a> {
        Samples {
            bits: BitReader::new(bytes),
            left: count,
            started: false,
            form: Form { is_fine: false, has_gaps: false },
            millis: 0,
            distance: 0,
            fine: FinePrediction::new(0),
            last_ticks: i64::MIN,
            values: XorDecoder::new(0),
        }
    }

    /// Appends all samples to `out`. On an error `out` is as it was.
    pub fn decode_into(mut self, out: &mut Vec<Sample>) -> Result<(), ChunkError> {
        if self.left == 0 {
            return Ok(());
        }
        let before = out.len();
        // The count may be damaged: no sample takes less than two bits.
        out.reserve((self.left as usize).min(self.bits.len_bits() / 2 + 1));
        if !self.started {
            out.push(self.first()?);
        }
        let begun = out.len();
        if !self.form.is_fine {
            if self.whole_into(out) {
                return Ok(());
            }
            // What is wrong is found out sample by sample.
            out.truncate(begun);
        }
        // A copy whose address nobody has taken: the loop keeps it in registers and is a quarter faster.
        let mut rest = self;
        while rest.left > 0 {
            match rest.later() {
                Ok(sample) => out.push(sample),
                Err(error) => {
                    out.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Appends all samples that are left of a chunk of whole milliseconds. `false` where something is wrong with any of
    /// them; then `out` has anything behind what it had.
    ///
    /// The loop compares nothing that can be compared once: where all distances are positive and none is longer than all
    /// of time, which the bits that any of them has tell, times rise from the first to a last that may be too late; and
    /// whoever reads past the end reads zeros, which are samples too.
    fn whole_into(&self, out: &mut Vec<Sample>) -> bool {
        let Samples { mut bits, left, form, mut millis, mut distance, mut values, .. } = self.clone();
        // No sample takes less than two bits: so the count is bounded by what there is.
        if left as usize > bits.len_bits() / 2 {
            return false;
        }
        let (mut outside, mut is_wrong) = (0, false);
        out.extend((0..left).map(|_| {
            let peeked = bits.peek();
            let (mut used, mut behind, mut step) = (1, peeked << 1, distance);
            if peeked >> 62 == 0b10 {
                distance = distance.wrapping_add((peeked << 2) as i64 >> 57);
                (used, behind, step) = (9, peeked << 9, distance);
            } else if peeked >> 63 != 0 {
                (distance, step, used) = far(peeked, distance, form, &mut bits);
                behind = if used == 0 { bits.peek() } else { peeked << used };
            }
            outside |= step.wrapping_sub(1) as u64;
            millis = millis.wrapping_add(step);
            is_wrong |= values.take(used, behind, &mut bits).is_err();
            Sample {
                timestamp: Timestamp::from_ticks(millis.wrapping_mul(TICKS_PER_MILLI)),
                value: f64::from_bits(values.value_bits()),
            }
        }));
        // So many distances, each at most all of time, add up to far less than 2^63.
        let is_rising = outside < DISTANCE_END && left <= CHUNK_SAMPLES_MAX;
        !is_wrong && is_rising && MILLIS.contains(&millis) && !bits.overran() && bits.at_end()
    }

    fn first(&mut self) -> Result<Sample, ChunkError> {
        self.started = true;
        let form = self.bits.take(8) as u8;
        self.form = Form::from_byte(form).ok_or(ChunkError::UnknownForm(form))?;
        self.millis = sign_extended(self.bits.take(48), 48);
        let mut fine = 0;
        if self.form.is_fine {
            fine = self.bits.take(24);
            self.fine = FinePrediction::new(fine);
        }
        self.values = XorDecoder::new(self.bits.take(64));
        if fine > FINE_MASK {
            return Err(ChunkError::Value);
        }
        if !MILLIS.contains(&self.millis) {
            return Err(ChunkError::Time);
        }
        self.finish(fine)
    }

    /// Any sample but the first.
    #[inline(always)]
    fn later(&mut self) -> Result<Sample, ChunkError> {
        // One look at the bits serves time and value, as long as the value's head lies within it.
        let peeked = self.bits.peek();
        let (distance, step, mut used) = match peeked.leading_ones() {
            0 => (self.distance, self.distance, 1),
            _ => far(peeked, self.distance, self.form, &mut self.bits),
        };
        // Wrapping: whatever comes of damaged bytes is caught by the bounds below.
        self.distance = distance;
        self.millis = self.millis.wrapping_add(step);
        if step < 0 || !MILLIS.contains(&self.millis) {
            return Err(ChunkError::Time);
        }
        let (mut fine, mut behind) = (0, peeked << used);
        if self.form.is_fine {
            self.bits.skip(used);
            let peeked = self.bits.peek();
            (fine, used) = self.fine(step == 0, peeked)?;
            behind = peeked << used;
        } else if used == 0 {
            behind = self.bits.peek();
        }
        let ticks_before = self.last_ticks;
        self.values.take(used, behind, &mut self.bits)?;
        let sample = self.finish(fine)?;
        if self.last_ticks <= ticks_before { Err(ChunkError::Time) } else { Ok(sample) }
    }

    #[inline(always)]
    fn finish(&mut self, fine: u64) -> Result<Sample, ChunkError> {
        if self.bits.overran() {
            return Err(ChunkError::TooShort);
        }
        self.left -= 1;
        if self.left == 0 && !self.bits.at_end() {
            return Err(ChunkError::TooLong);
        }
        self.last_ticks = self.millis * TICKS_PER_MILLI + fine as i64;
        Ok(Sample {
            timestamp: Timestamp::from_ticks(self.last_ticks),
            value: f64::from_bits(self.values.value_bits()),
        })
    }

    /// The fine part and how many bits it takes; they are still to be skipped.
    #[inline(always)]
    fn fine(&mut self, same_milli: bool, peeked: u64) -> Result<(u64, u32), ChunkError> {
        let predicted = self.fine.predict(same_milli);
        let (fine, used) = if peeked >> 63 == 0 {
            (predicted, 1)
        } else if peeked >> 62 == 0b10 {
            let zigzag = (peeked >> 56 & 63) as i64;
            (predicted.wrapping_add_signed((zigzag >> 1) ^ -(zigzag & 1)), 8)
        } else {
            (peeked << 2 >> (64 - FINE_BITS), 2 + FINE_BITS)
        };
        if fine > FINE_MASK {
            return Err(ChunkError::Value);
        }
        self.fine.learn(same_milli, fine);
        Ok((fine, used))
    }
}

impl Iterator for Samples<'_> {
    type Item = Result<Sample, ChunkError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let item = if self.started { self.later() } else { self.first() };
        if item.is_err() {
            self.left = 0;
        }
        Some(item)
    }
}

/// The distance that is kept, the one to the next sample, and how many bits it took of those that were looked at; none
/// where they were taken. Those that are looked at begin with a one.
#[inline(always)]
fn far(peeked: u64, distance: i64, form: Form, bits: &mut BitReader<'_>) -> (i64, i64, u32) {
    let of = |prefix: u32, bits: u32| (peeked << prefix) as i64 >> (64 - bits);
    let (change, used) = match (peeked.leading_ones(), form.has_gaps) {
        (1, _) => (of(2, 7), 9),
        (2, _) => (of(3, 12), 15),
        (3, _) => (of(4, 20), 24),
        (4, true) => {
            let times = (peeked << 5 >> 61) as i64 + GAP_TIMES.start();
            return (distance, distance.wrapping_mul(times).wrapping_add(of(8, 7)), 15);
        }
        (_, has_gaps) => {
            bits.skip(if has_gaps { 5 } else { 4 });
            (bits.take(64) as i64, 0)
        }
    };
    let distance = distance.wrapping_add(change);
    (distance, distance, used)
}

fn sign_extended(value: u64, bits: u32) -> i64 {
    (value << (64 - bits)) as i64 >> (64 - bits)
}
