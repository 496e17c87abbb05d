//! The format page again, for the reader's side: one number at a time, with text for bits and no care for speed.

use super::{Codec, ColumnName};
use crate::chunk::Chunk;

/// Takes bytes off the front; a test's own, so `None` is all it says of damage.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken.to_vec())
    }

    fn number(&mut self, len: usize) -> Option<u64> {
        Some(self.take(len)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn varint(&mut self) -> Option<u64> {
        let byte = self.number(1)?;
        if byte < 128 { Some(byte) } else { Some((byte - 128) + self.varint()? * 128) }
    }

    fn signed(&mut self) -> Option<i128> {
        let zigzag = i128::from(self.varint()?);
        Some(if zigzag % 2 == 0 { zigzag / 2 } else { -(zigzag + 1) / 2 })
    }

    fn packed(&mut self, count: usize, width: usize) -> Option<Vec<u64>> {
        let bytes = self.take((count * width).div_ceil(8))?;
        let text: String =
            bytes.iter().map(|byte| format!("{byte:08b}").chars().rev().collect::<String>()).collect();
        let number =
            |bits: &str| bits.chars().rev().fold(0, |number, bit| number << 1 | u64::from(bit == '1'));
        Some((0..count).map(|at| number(&text[at * width..(at + 1) * width])).collect())
    }
}

fn integers(bytes: &mut Bytes<'_>, count: usize) -> Option<Vec<i64>> {
    let (form, width) = (bytes.number(1)?, bytes.number(1)? as usize);
    let first = bytes.signed()?;
    let divisor = if form & 4 != 0 { i128::from(bytes.varint()?) } else { 1 };
    let base = bytes.signed()?;
    let way = form & 3;
    let aux = if way >= 2 { bytes.signed()? } else { 0 };
    let residuals = match way {
        1 => count - 1,
        2 => count.saturating_sub(2),
        _ => count,
    };
    let patches =
        if form & 8 != 0 { (bytes.number(2)? as usize, bytes.number(1)? as usize) } else { (0, width) };
    let mut packed = bytes.packed(residuals, width)?;
    let places: Vec<u64> = (0..patches.0).map(|_| bytes.number(2)).collect::<Option<_>>()?;
    let upper = bytes.packed(patches.0, patches.1 - width)?;
    for (place, upper) in places.iter().zip(upper) {
        packed[*place as usize] += upper << width;
    }
    let residuals: Vec<i128> = packed.iter().map(|number| i128::from(*number as i64) + base).collect();
    let mut distances = Vec::new();
    for at in 0..count {
        distances.push(match (way, at) {
            (0, _) => residuals[at],
            (3, _) => residuals[at] + ((aux * at as i128) >> 16),
            (_, 0) => 0,
            (1, _) => distances[at - 1] + residuals[at - 1],
            (_, 1) => aux,
            (_, _) => 2 * distances[at - 1] - distances[at - 2] + residuals[at - 2],
        });
    }
    // Arithmetic that has not wrapped yet does so here.
    Some(distances.iter().map(|distance| first.wrapping_add(distance.wrapping_mul(divisor)) as i64).collect())
}

/// The ticks of a clock, if its bytes are one.
pub(super) fn clock(bytes: &[u8], count: usize) -> Option<Vec<i64>> {
    let mut bytes = Bytes(bytes);
    let form = bytes.number(1)?;
    let millis = integers(&mut bytes, count)?;
    let fine = if form == 1 { integers(&mut bytes, count)? } else { vec![0; count] };
    let ticks = millis.iter().zip(fine).map(|(millis, fine)| (millis << 20) + fine).collect();
    bytes.0.is_empty().then_some(ticks)
}

/// The bits of the values of a column that is whole.
pub(super) fn values(name: ColumnName, column: &[u8], count: usize) -> Option<Vec<u64>> {
    let mut bytes = Bytes(column);
    let values = match name.codec {
        Codec::Constant => vec![bytes.number(8)?; count],
        Codec::Gorilla => return gorilla(column, count),
        Codec::Decimal => {
            let head = bytes.number(1)?;
            let power = format!("1e{}", head & 31).parse::<f64>().ok()?;
            let mantissas = integers(&mut bytes, count)?;
            let ulps = if head & 64 != 0 { integers(&mut bytes, count)? } else { vec![0; count] };
            let value =
                |(m, ulps): (&i64, i64)| ((*m as f64 / power).to_bits() as i64).wrapping_add(ulps) as u64;
            let mut values: Vec<u64> = mantissas.iter().zip(ulps).map(value).collect();
            if head & 128 != 0 {
                let exceptions = bytes.number(2)?;
                let places: Vec<u64> = (0..exceptions).map(|_| bytes.number(2)).collect::<Option<_>>()?;
                for place in places {
                    values[place as usize] = bytes.number(8)?;
                }
            }
            values
        }
        Codec::Dictionary => {
            let count_of_values = bytes.number(1)? + 1;
            let values: Vec<u64> = (0..count_of_values).map(|_| bytes.number(8)).collect::<Option<_>>()?;
            integers(&mut bytes, count)?.iter().map(|which| values[*which as usize]).collect()
        }
        Codec::Bits => integers(&mut bytes, count)?.iter().map(|bits| *bits as u64).collect(),
        Codec::General => {
            let codec = Codec::ALL[bytes.number(1)? as usize];
            let plain = zstd::decode_all(bytes.0).ok()?;
            return self::values(ColumnName { codec }, &plain, count);
        }
    };
    bytes.0.is_empty().then_some(values)
}

/// The codes of `chunk.rs`, out of text.
fn gorilla(column: &[u8], count: usize) -> Option<Vec<u64>> {
    let text: String = column.iter().map(|byte| format!("{byte:08b}")).collect();
    let number = |bits: &str| u64::from_str_radix(bits, 2).ok();
    let mut value = number(text.get(..64)?)?;
    let (mut values, mut at, mut window) = (vec![value], 64, (0, 0));
    while values.len() < count {
        if text.get(at..at + 1)? == "0" {
            at += 1;
        } else {
            at += 2;
            if text.get(at - 1..at)? == "1" {
                let (leading, len) = (number(text.get(at..at + 5)?)?, number(text.get(at + 5..at + 11)?)?);
                window = (leading as usize, if len == 0 { 64 } else { len as usize });
                at += 11;
            }
            value ^= number(text.get(at..at + window.1)?)? << (64 - window.0 - window.1);
            at += window.1;
        }
        values.push(value);
    }
    Some(values)
}

/// Bytes that the open chunk's code takes for the same samples, in chunks as the memtable makes them.
pub(super) fn gorilla_chunks_len(samples: &[model::Sample]) -> usize {
    let mut chunks = Vec::new();
    Chunk::encode_into(samples, &mut chunks);
    chunks.iter().map(|chunk| chunk.bytes().len()).sum()
}
