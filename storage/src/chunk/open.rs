//! The encoder: a chunk that still takes samples.

use super::bits::BitWriter;
use super::xor::{Code, HEAD_BITS_MAX, XorEncoder};
use super::{CHUNK_BYTES_TARGET, CHUNK_SAMPLES_MAX, Chunk, FINE_BITS, FINE_MASK, Form, GAP_TIMES};
use model::{Sample, Timestamp};

/// Why a chunk did not take a sample; it is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAppended {
    /// The sample is not later than the last one.
    NotLater,
    /// The sample has a fine part and the chunk holds whole milliseconds: seal it.
    FinePart,
    /// The chunk holds as much as it may: seal it.
    Full,
}

/// A chunk at the end of a series.
#[derive(Clone, Debug)]
pub struct OpenChunk {
    pub(super) bits: BitWriter,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Milliseconds between the last two samples that had no gap between them.
    pub(super) distance: i64,
    pub(super) values: XorEncoder,
    pub(super) fine: FinePrediction,
    pub(super) form: Form,
    /// Whether there is a gap before the last sample.
    pub(super) is_behind_gap: bool,
    pub(super) count: u16,
}

const _: () = assert!(CHUNK_SAMPLES_MAX <= u16::MAX as u32);

/// What the next fine part is thought to be; encoder and decoder keep the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct FinePrediction {
    /// Of the first sample in the current millisecond.
    pub(super) base: u32,
    pub(super) last: u32,
    /// Between the last two samples within one millisecond.
    pub(super) step: u32,
}

impl FinePrediction {
    pub(super) fn new(first: u64) -> FinePrediction {
        let first = (first & FINE_MASK) as u32;
        FinePrediction { base: first, last: first, step: 1 }
    }

    #[inline(always)]
    pub(super) fn predict(&self, same_milli: bool) -> u64 {
        u64::from(if same_milli { self.last.wrapping_add(self.step) } else { self.base }) & FINE_MASK
    }

    #[inline(always)]
    pub(super) fn learn(&mut self, same_milli: bool, fine: u64) {
        let fine = (fine & FINE_MASK) as u32;
        if same_milli {
            self.step = fine.wrapping_sub(self.last);
        } else {
            self.base = fine;
        }
        self.last = fine;
    }
}

/// The codes of a time and of a value's head fit one word.
const _: () = assert!(24 + (2 + FINE_BITS) + HEAD_BITS_MAX <= 64);

impl OpenChunk {
    /// A chunk that begins with this sample.
    pub fn new(sample: Sample) -> OpenChunk {
        OpenChunk::with_form(sample, Form { is_fine: sample.timestamp.fine() != 0, has_gaps: true })
    }

    /// The same in another form, which is fine exactly if the sample is.
    pub(super) fn with_form(sample: Sample, form: Form) -> OpenChunk {
        let timestamp = sample.timestamp;
        let fine = timestamp.fine() as u64;
        let mut bits = BitWriter::default();
        bits.put(u64::from(form.to_byte()), 8);
        bits.put(timestamp.millis() as u64 & ((1 << 48) - 1), 48);
        if form.is_fine {
            bits.put(fine, 24);
        }
        let value_bits = sample.value.to_bits();
        bits.put(value_bits, 64);
        OpenChunk {
            bits,
            first: timestamp,
            last: timestamp,
            distance: 0,
            values: XorEncoder::new(value_bits),
            fine: FinePrediction::new(fine),
            form,
            is_behind_gap: false,
            count: 1,
        }
    }

    /// Adds a sample behind the last.
    #[inline]
    pub fn append(&mut self, sample: Sample) -> Result<(), NotAppended> {
        let timestamp = sample.timestamp;
        if timestamp <= self.last {
            return Err(NotAppended::NotLater);
        }
        if u32::from(self.count) >= CHUNK_SAMPLES_MAX || self.bits.len() >= CHUNK_BYTES_TARGET {
            return Err(NotAppended::Full);
        }
        let distance = timestamp.millis() - self.last.millis();
        if !self.form.is_fine && timestamp.fine() != 0 {
            return Err(NotAppended::FinePart);
        }
        let mut code = self.distance_code(distance);
        if self.form.is_fine {
            code = code.then(self.fine_code(distance == 0, timestamp.fine() as u64));
        }
        self.values.put(code, sample.value.to_bits(), &mut self.bits);
        self.last = timestamp;
        self.count += 1;
        Ok(())
    }

    /// What to write for a distance; a leap of more than 20 bits is written at once and leaves nothing.
    #[inline(always)]
    fn distance_code(&mut self, distance: i64) -> Code {
        let change = distance - self.distance;
        if (-64..=63).contains(&change) {
            self.distance = distance;
            self.is_behind_gap = false;
            return if change == 0 {
                Code { bits: 0, len: 1 }
            } else {
                Code { bits: 0b10 << 7 | low(change, 7), len: 9 }
            };
        }
        self.far_code(distance, change)
    }

    #[inline(always)]
    fn far_code(&mut self, distance: i64, change: i64) -> Code {
        if let Some(gap) = self.gap_code(distance, change) {
            self.is_behind_gap = true;
            return gap;
        }
        self.distance = distance;
        self.is_behind_gap = false;
        match change {
            -2048..=2047 => Code { bits: 0b110 << 12 | low(change, 12), len: 15 },
            -524_288..=524_287 => Code { bits: 0b1110 << 20 | low(change, 20), len: 24 },
            _ => {
                let prefix = if self.form.has_gaps { (0b1_1111, 5) } else { (0b1111, 4) };
                self.bits.put(prefix.0, prefix.1);
                self.bits.put(change as u64, 64);
                Code::NONE
            }
        }
    }

    /// What to write where the distance is a small multiple of the one before: then the same may follow again. It is so
    /// much longer than that, so [`Self::may_hold`] stays right.
    #[inline(always)]
    fn gap_code(&self, distance: i64, change: i64) -> Option<Code> {
        if change < 0 || self.is_behind_gap || !self.form.has_gaps {
            return None;
        }
        // Half a distance more, so that the nearest multiple is found. The first distance is that from 0.
        let times = (distance + self.distance / 2) / self.distance.max(1);
        let miss = distance - times.wrapping_mul(self.distance);
        let is_gap = GAP_TIMES.contains(&times) && (-64..=63).contains(&miss);
        let bits = 0b1_1110 << 10 | low(times - GAP_TIMES.start(), 3) << 7 | low(miss, 7);
        is_gap.then_some(Code { bits, len: 15 })
    }

    #[inline(always)]
    fn fine_code(&mut self, same_milli: bool, fine: u64) -> Code {
        let miss = fine as i64 - self.fine.predict(same_milli) as i64;
        self.fine.learn(same_milli, fine);
        match miss {
            0 => Code { bits: 0, len: 1 },
            -32..=31 => Code { bits: 0b10 << 6 | ((miss << 1) ^ (miss >> 63)) as u64, len: 8 },
            _ => Code { bits: 0b11 << FINE_BITS | fine, len: 2 + FINE_BITS },
        }
    }

    /// The time of the first sample.
    pub fn first(&self) -> Timestamp {
        self.first
    }

    /// The last sample.
    pub fn last(&self) -> Sample {
        Sample { timestamp: self.last, value: f64::from_bits(self.values.value_bits()) }
    }

    /// Whether the chunk may hold a sample of that time. When it says no, there is none.
    ///
    /// Between the last two samples lies nothing: so a series with one sample in the future, behind which
    /// all that follow are late, is answered without decoding.
    pub fn may_hold(&self, timestamp: Timestamp) -> bool {
        // Or a later time, where the last two have a gap between them.
        let before_last = self.last.millis() - self.distance;
        self.first == timestamp
            || self.last == timestamp
            || (self.first < timestamp && timestamp.millis() <= before_last)
            || (self.distance == 0 && self.first < timestamp && timestamp < self.last)
    }

    /// Samples in the chunk, at least 1.
    pub fn count(&self) -> u32 {
        u32::from(self.count)
    }

    /// Bytes that the chunk would have if it were sealed now.
    pub fn bytes(&self) -> usize {
        self.bits.len()
    }

    /// Bytes of heap that the chunk holds; the first of its bytes lie in itself.
    pub fn heap_bytes(&self) -> usize {
        self.bits.heap_bytes()
    }

    /// An immutable copy of what was appended so far.
    pub fn seal(&self) -> Chunk {
        Chunk {
            bytes: self.bits.to_bytes().into(),
            count: u32::from(self.count),
            first: self.first,
            last: self.last,
        }
    }
}

/// The lowest bits of a number.
#[inline(always)]
fn low(number: i64, bits: u32) -> u64 {
    number as u64 & ((1 << bits) - 1)
}
