//! The values of one chunk: which codec takes them, and back.
//!
//! ```text
//!   all the same bits                             → constant
//!   plan decimal; plan a dictionary if it may be shorter
//!     neither takes 2.5 bytes a value             → plan the bits as integers, too
//!     it may be undercut by one bit a value       → how long would Gorilla be?
//!   the shortest; Gorilla, which is slow to read, only if it saves a hundredth
//!   cold data                                     → zstd over that, if it saves a tenth
//! ```
//!
//! Plans count bytes exactly and write nothing, so one codec writes, once.

use super::fields::Fields;
use super::{COLUMN_SAMPLES_MAX, Codec, ColumnError, ColumnName, Scratch};
use super::{decimal, dictionary, general, gorilla, integers};

/// How often a column will be read, as far as its writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// Just written, and read again and again.
    Fresh,
    /// Merged: worth a few microseconds of reading for a tenth of the bytes.
    Cold,
}

/// The shortest plan so far.
enum Chosen {
    Decimal(decimal::DecimalPlan),
    Dictionary(dictionary::DictionaryPlan),
    Bits(integers::Plan),
    Gorilla,
}

/// Appends the column of these values, 1 to [`COLUMN_SAMPLES_MAX`] of them, and says how they are packed.
///
/// # Panics
/// If there is none, or there are too many.
pub fn encode_values(values: &[f64], heat: Heat, scratch: &mut Scratch, out: &mut Vec<u8>) -> ColumnName {
    assert!((1..=COLUMN_SAMPLES_MAX).contains(&values.len()));
    let from = out.len();
    let first = values[0].to_bits();
    let codec = if values.iter().all(|value| value.to_bits() == first) {
        out.extend_from_slice(&first.to_le_bytes());
        Codec::Constant
    } else {
        encode_shortest(values, scratch, out)
    };
    let is_compressed = heat == Heat::Cold
        && codec != Codec::Constant
        && general::compress(codec, from, &mut scratch.zstd, out);
    ColumnName { codec: if is_compressed { Codec::General } else { codec } }
}

fn encode_shortest(values: &[f64], scratch: &mut Scratch, out: &mut Vec<u8>) -> Codec {
    let count = values.len();
    // No column is longer than Gorilla's at its worst.
    let mut len = super::COLUMN_BYTES_MAX + 1;
    let mut chosen = Chosen::Gorilla;
    if let Some(plan) = decimal::plan(values, scratch).filter(|plan| plan.len() < len) {
        (len, chosen) = (plan.len(), Chosen::Decimal(plan));
    }
    if let Some(plan) = dictionary::plan(values, len, scratch) {
        (len, chosen) = (plan.len(), Chosen::Dictionary(plan));
    }
    if len * 2 > count * 5 {
        scratch.bits.iter_mut().zip(values).for_each(|(bits, value)| *bits = value.to_bits() as i64);
        let plan = integers::plan(&scratch.bits[..count], &mut scratch.plan);
        if plan.len() < len {
            (len, chosen) = (plan.len(), Chosen::Bits(plan));
        }
    }
    // The first value whole, a bit for each other.
    let gorilla_len_min = 8 + count / 8;
    if gorilla_len_min < len && gorilla::encoded_len(values) < len - len / 100 {
        chosen = Chosen::Gorilla;
    }
    match chosen {
        Chosen::Decimal(plan) => {
            decimal::encode(values, &plan, scratch, out);
            Codec::Decimal
        }
        Chosen::Dictionary(plan) => {
            dictionary::encode(count, &plan, scratch, out);
            Codec::Dictionary
        }
        Chosen::Bits(plan) => {
            integers::encode(&scratch.bits[..count], &plan, &mut scratch.plan, out);
            Codec::Bits
        }
        Chosen::Gorilla => {
            gorilla::encode(values, out);
            Codec::Gorilla
        }
    }
}

/// Decodes as many values as `out` has places from exactly the bytes of a column of that name.
///
/// On an error `out` holds anything.
pub fn decode_values(
    name: ColumnName,
    bytes: &[u8],
    scratch: &mut Scratch,
    out: &mut [f64],
) -> Result<(), ColumnError> {
    if !(1..=COLUMN_SAMPLES_MAX).contains(&out.len()) {
        return Err(ColumnError::Count);
    }
    if name.codec != Codec::General {
        return decode_plain(name.codec, bytes, scratch, out);
    }
    // The contexts step aside while another codec uses the rest of the scratch.
    let mut contexts = std::mem::take(&mut scratch.zstd);
    let within = general::decompress(bytes, &mut contexts);
    let decoded = within.and_then(|(codec, bytes)| decode_plain(codec, bytes, scratch, out));
    scratch.zstd = contexts;
    decoded
}

fn decode_plain(
    codec: Codec,
    bytes: &[u8],
    scratch: &mut Scratch,
    out: &mut [f64],
) -> Result<(), ColumnError> {
    match codec {
        Codec::Constant => {
            let mut fields = Fields(bytes);
            out.fill(f64::from_bits(fields.u64()?));
            fields.end()
        }
        Codec::Gorilla => gorilla::decode(bytes, out),
        Codec::Decimal => decimal::decode(bytes, scratch, out),
        Codec::Dictionary => dictionary::decode(bytes, scratch, out),
        Codec::Bits => {
            let mut fields = Fields(bytes);
            integers::decode(&mut fields, out.len(), &mut scratch.numbers)?;
            for (value, bits) in out.iter_mut().zip(scratch.numbers.iter()) {
                *value = f64::from_bits(*bits as u64);
            }
            fields.end()
        }
        // `general` refuses to hold another of its kind.
        Codec::General => Err(ColumnError::Form),
    }
}
