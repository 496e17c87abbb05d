//! Chunks as a checkpoint holds them: closed ones as their bytes, open ones with the encoder's state, so that after a
//! restart appending goes on as if there had been none.
//!
//! ```text
//!   closed   first i64 │ last − first varint │ count varint │ bytes varint │ bytes
//!   open     first i64 │ last − first varint │ count varint │ bits varint  │ bytes
//!            │ distance varint │ value u64 │ window u8 u8 │ base, last, step varint, where the first byte says fine
//!            │ 1 behind a gap, else 0, where the first byte says that there may be gaps
//! ```
//!
//! What is read back was under a checksum; still, whatever the bytes are, it is a chunk that takes samples, or nothing.

use super::bits::BitWriter;
use super::open::FinePrediction;
use super::xor::XorEncoder;
use super::{CHUNK_BYTES_MAX, CHUNK_SAMPLES_MAX, Chunk, FINE_MASK, Form, OpenChunk};
use crate::column::put_varint;
use crate::segment::fields::Fields;
use model::Timestamp;

/// Bytes of a chunk's state at most, the chunk's own not counted.
#[cfg(test)]
const STATE_BYTES_MAX: usize = 8 + 10 + 3 + 3 + 10 + 8 + 2 + 3 * 5 + 1;

/// What both begin with.
struct Bounds {
    first: Timestamp,
    last: Timestamp,
    count: u32,
}

impl Bounds {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.ticks().to_le_bytes());
        put_varint(out, self.last.ticks().wrapping_sub(self.first.ticks()) as u64);
        put_varint(out, u64::from(self.count));
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Bounds> {
        let first = fields.timestamp()?;
        let last = first.ticks().checked_add_unsigned(fields.varint()?)?;
        let count = u32::try_from(fields.varint()?).ok()?;
        let is_one = last == first.ticks();
        let is_chunk = (1..=CHUNK_SAMPLES_MAX).contains(&count) && is_one == (count == 1);
        is_chunk.then_some(Bounds { first, last: Timestamp::from_ticks(last), count })
    }
}

impl Chunk {
    /// Appends the chunk.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        Bounds { first: self.first, last: self.last, count: self.count }.encode(out);
        put_varint(out, self.bytes.len() as u64);
        out.extend_from_slice(&self.bytes);
    }

    /// The mirror of [`Self::encode`].
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Chunk> {
        let Bounds { first, last, count } = Bounds::decode(fields)?;
        let len = usize::try_from(fields.varint()?).ok().filter(|len| *len <= CHUNK_BYTES_MAX)?;
        Some(Chunk { bytes: fields.slice(len)?.into(), count, first, last })
    }
}

impl OpenChunk {
    /// Appends the chunk and where its encoder stands.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        Bounds { first: self.first, last: self.last, count: self.count() }.encode(out);
        put_varint(out, self.bits.len_bits() as u64);
        self.bits.append_to(out);
        // A distance is that of two times that rise.
        put_varint(out, self.distance as u64);
        out.extend_from_slice(&self.values.value_bits().to_le_bytes());
        let (leading, trailing) = self.values.window();
        out.extend_from_slice(&[leading, trailing]);
        if self.form.is_fine {
            [self.fine.base, self.fine.last, self.fine.step]
                .iter()
                .for_each(|part| put_varint(out, u64::from(*part)));
        }
        if self.form.has_gaps {
            out.push(u8::from(self.is_behind_gap));
        }
    }

    /// The mirror of [`Self::encode`].
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<OpenChunk> {
        let Bounds { first, last, count } = Bounds::decode(fields)?;
        let len_bits = usize::try_from(fields.varint()?).ok().filter(|bits| *bits <= CHUNK_BYTES_MAX * 8)?;
        let bytes = fields.slice(len_bits.div_ceil(8))?;
        let form = Form::from_byte(*bytes.first()?)?;
        let bits = BitWriter::behind(bytes, len_bits)?;
        let distance = i64::try_from(fields.varint()?).ok()?;
        let is_within = distance <= last.millis().checked_sub(first.millis())?;
        let value_bits = fields.u64()?;
        let values = XorEncoder::from_state(value_bits, (fields.byte()?, fields.byte()?))?;
        let mut fine = FinePrediction::new(0);
        if form.is_fine {
            let mut part = || u32::try_from(fields.varint()?).ok();
            (fine.base, fine.last, fine.step) = (part()?, part()?, part()?);
        }
        let is_behind_gap = match form.has_gaps.then(|| fields.byte()) {
            None | Some(Some(0)) => false,
            Some(Some(1)) => true,
            Some(_) => return None,
        };
        let is_sound = is_within && u64::from(fine.base.max(fine.last)) <= FINE_MASK;
        // The bound of samples is below that of the field.
        let count = count as u16;
        is_sound.then_some(OpenChunk {
            bits,
            first,
            last,
            distance,
            values,
            fine,
            form,
            is_behind_gap,
            count,
        })
    }

    /// Whether the bytes hold what the state says: so many samples, and the encoder where they leave it.
    pub(crate) fn is_sound(&self) -> bool {
        let sealed = self.seal();
        let mut samples = Vec::new();
        if sealed.samples().decode_into(&mut samples).is_err() {
            return false;
        }
        let Some((first, later)) = samples.split_first() else { return false };
        let mut again = OpenChunk::with_form(*first, self.form);
        let all = later.iter().all(|sample| again.append(*sample).is_ok());
        let bytes = |chunk: &OpenChunk| {
            let mut bytes = Vec::new();
            chunk.encode(&mut bytes);
            bytes
        };
        all && bytes(&again) == bytes(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Sample;
    use proptest::prelude::*;

    /// Samples as far as one chunk takes them.
    fn chunk_of(samples: &[(i64, f64)], has_gaps: bool) -> Option<OpenChunk> {
        let mut samples = samples
            .iter()
            .map(|(ticks, value)| Sample { timestamp: Timestamp::from_ticks(*ticks), value: *value });
        let first = samples.next()?;
        let mut chunk = OpenChunk::with_form(first, Form { is_fine: first.timestamp.fine() != 0, has_gaps });
        let _ = samples.try_for_each(|sample| chunk.append(sample));
        Some(chunk)
    }

    proptest! {
        /// A chunk that was put down and taken up again goes on to the very bytes that it would have come to.
        #[test]
        fn an_open_chunk_goes_on_where_it_was(
            steps in proptest::collection::vec((0i64..5_000_000, prop_oneof![Just(0u8), any::<u8>()]), 1..300),
            at in 0usize..300,
            begin in prop_oneof![Just(0i64), Just(1_700_000_000_000i64 << 20), any::<i64>().prop_map(|t| t / 4)],
            has_gaps in any::<bool>(),
        ) {
            let mut ticks = begin;
            let samples: Vec<(i64, f64)> = steps.iter().map(|(step, value)| {
                ticks += match step % 4 {
                    0 => step << 20,
                    1 => ((1 + step % 8) * 15_000) << 20,
                    2 => 15_000 << 20,
                    _ => *step,
                };
                (ticks, f64::from(*value) * 0.1)
            }).collect();
            let (before, after) = samples.split_at(at.clamp(1, samples.len()));
            let mut uncut = chunk_of(before, has_gaps).unwrap();
            let mut bytes = Vec::new();
            uncut.encode(&mut bytes);
            prop_assert!(bytes.len() <= uncut.bytes() + STATE_BYTES_MAX);
            let mut fields = Fields(&bytes);
            let mut again = OpenChunk::decode(&mut fields).unwrap();
            prop_assert!(fields.0.is_empty() && again.is_sound());
            for (ticks, value) in after {
                let sample = Sample { timestamp: Timestamp::from_ticks(*ticks), value: *value };
                prop_assert_eq!(uncut.append(sample), again.append(sample));
            }
            let (mut one, mut other) = (Vec::new(), Vec::new());
            uncut.encode(&mut one);
            again.encode(&mut other);
            prop_assert_eq!(one, other);
            let sealed = uncut.seal();
            let mut bytes = Vec::new();
            sealed.encode(&mut bytes);
            let back = Chunk::decode(&mut Fields(&bytes)).unwrap();
            prop_assert_eq!((back.bytes(), back.count()), (sealed.bytes(), sealed.count()));
            prop_assert_eq!((back.first(), back.last()), (sealed.first(), sealed.last()));
        }

        /// Any bytes are refused, or a chunk that can be sealed, read and appended to without a panic.
        #[test]
        fn any_bytes_are_refused_or_a_chunk(
            head in any::<(i64, u8, u8, u8)>(),
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = head.0.to_le_bytes().to_vec();
            bytes.extend([head.1, head.2 % 8, head.3]);
            bytes.extend(rest);
            if let Some(mut open) = OpenChunk::decode(&mut Fields(&bytes)) {
                let _ = (open.is_sound(), open.seal().samples().count());
                let next = open.last().timestamp.ticks().saturating_add(1);
                let sample = Sample { timestamp: Timestamp::from_ticks(next), value: 1.0 };
                let _ = (open.append(sample), open.may_hold(sample.timestamp));
            }
            if let Some(chunk) = Chunk::decode(&mut Fields(&bytes)) {
                let _ = chunk.samples().count();
            }
        }
    }
}
