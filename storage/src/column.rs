//! A column: the times or the values of one chunk of a segment, each by itself, in the form that packs it best.
//!
//! Pure functions over slices: numbers in, bytes out, and back. A clock is a column of times; the series of one scrape
//! share it. A value column is named by a [`ColumnName`], which stands in the directory of the segment:
//!
//! ```text
//!   constant     the value                                        all samples are the same bits
//!   gorilla      XOR with the value before                        always legal; what the open chunk did
//!   decimal      v = m / 10^e, and how many last places it is off   most of what people measure
//!   dictionary   distinct values, and which of them                few levels
//!   bits         the doubles' bits as integers                    noise, full precision
//!   general      zstd over one of the others                      cold data, where it saves a tenth
//! ```
//!
//! Integers below all of these (`column/integers.rs`) are packed with one width, what does not fit is patched.
//! Always: every double comes back to the last bit, NaN payloads, -0, infinities and denormals included; decoding any
//! bytes ends in a column or an error, never in a panic, and asks for no memory beyond a column's.
//! Not here: checksums, which samples make a chunk, where columns lie (`segment`).
//! Read next: `column/values.rs` for the choice, `column/integers.rs` for what nearly all columns end in,
//! `column/clock.rs`, then `docs/format/segment.md` for the bytes.

mod aggregates;
mod clock;
mod decimal;
mod dictionary;
mod fields;
mod general;
mod gorilla;
mod integers;
mod pack;
mod sum;
mod values;

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

pub use aggregates::Aggregates;
pub use clock::{decode_clock, encode_clock};
pub use sum::Sum;
pub use values::{Heat, decode_values, encode_values};

pub(crate) use fields::{put_varint, take_varint};

use std::fmt;

/// Samples in one column at most: beyond it nothing is won, and a damaged or unwanted one costs no more than this.
pub const COLUMN_SAMPLES_MAX: usize = 1024;

/// Bytes of a column at most: each value as 77 bits, the worst that the Gorilla code does, and its first one whole.
pub const COLUMN_BYTES_MAX: usize = (COLUMN_SAMPLES_MAX * 77 + 64).div_ceil(8);

/// How a value column is packed. The numbers are the format's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// All samples are the same.
    Constant = 0,
    /// XOR with the value before.
    Gorilla = 1,
    /// Decimal fractions.
    Decimal = 2,
    /// Few distinct values.
    Dictionary = 3,
    /// The doubles' bits as integers.
    Bits = 4,
    /// One of the others, compressed by zstd.
    General = 5,
}

impl Codec {
    /// All, numbers rising.
    pub const ALL: [Codec; 6] =
        [Codec::Constant, Codec::Gorilla, Codec::Decimal, Codec::Dictionary, Codec::Bits, Codec::General];

    /// As the format's page calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Constant => "constant",
            Codec::Gorilla => "gorilla",
            Codec::Decimal => "decimal",
            Codec::Dictionary => "dictionary",
            Codec::Bits => "bits",
            Codec::General => "general",
        }
    }
}

/// What stands before a value column: the kind of its samples, and how they are packed.
///
/// A byte: kind in the upper half, codec in the lower. Kind 0 is a double; the others are for histograms to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnName {
    /// How the samples are packed.
    pub codec: Codec,
}

impl ColumnName {
    /// As a segment holds it.
    pub const fn to_byte(self) -> u8 {
        self.codec as u8
    }

    /// `None` for a kind or a codec that this version does not know.
    pub fn from_byte(byte: u8) -> Option<ColumnName> {
        Codec::ALL.get(usize::from(byte)).map(|&codec| ColumnName { codec })
    }
}

/// Why bytes are no column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnError {
    /// The bytes end before the samples do.
    TooShort,
    /// Bytes are left behind the last sample.
    TooLong,
    /// More samples than [`COLUMN_SAMPLES_MAX`], or none.
    Count,
    /// A time is not later than the one before, or outside what a timestamp can hold.
    Time,
    /// A number lies outside what its place allows.
    Form,
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnError::TooShort => "column ends before its samples do",
            ColumnError::TooLong => "bytes behind the last sample of a column",
            ColumnError::Count => "a column of no or too many samples",
            ColumnError::Time => "times in a clock do not rise",
            ColumnError::Form => "a number in a column lies outside its bounds",
        })
    }
}

impl std::error::Error for ColumnError {}

/// Room for the numbers of one column, kept and used again, so that coding allocates nothing.
pub struct Scratch {
    /// Mantissas of decimals, milliseconds of a clock, and whatever is decoded.
    numbers: Box<Numbers>,
    /// Last places of decimals, fine parts of a clock.
    others: Box<Numbers>,
    /// Which value of a dictionary.
    which: Box<Numbers>,
    /// Doubles as integers.
    bits: Box<Numbers>,
    plan: integers::Room,
    zstd: general::Contexts,
}

/// As many as a column has at most: whole blocks of the unpacking.
type Numbers = [i64; COLUMN_SAMPLES_MAX];

const _: () = assert!(COLUMN_SAMPLES_MAX.is_multiple_of(pack::BLOCK));

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            numbers: Box::new([0; COLUMN_SAMPLES_MAX]),
            others: Box::new([0; COLUMN_SAMPLES_MAX]),
            which: Box::new([0; COLUMN_SAMPLES_MAX]),
            bits: Box::new([0; COLUMN_SAMPLES_MAX]),
            plan: integers::Room::default(),
            zstd: general::Contexts::default(),
        }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Scratch {
    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        size_of::<Scratch>() + 4 * size_of::<Numbers>() + self.plan.bytes() + self.zstd.bytes()
    }
}
