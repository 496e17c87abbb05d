//! The label index of a segment: from a label and its value to the rows of the directory, in parts.
//!
//! ```text
//!   part: rows a to b of the directory, some hundred thousand
//!     blocks    of one label each: its values in the order of their texts, the rows that carry each
//!     head      the labels by name, and of each label's blocks length, checksum and first value
//! ```
//!
//! A part is what the writer holds of it in memory at most, so a merge of any number of series needs no more. Whoever
//! searches reads the head of each part and then, of each label that is asked for, the block in which a value must lie,
//! or those that a test goes through. Damage costs the part: its rows are looked at one by one.
//!
//! Read next: `label_index/find.rs`; the writer's side is in `write.rs`.

mod find;
mod verify;

#[cfg(test)]
mod tests;

pub(super) use find::Cache;
pub use find::Rows;

use super::fields::Fields;
use crate::column::put_varint;
use crate::index::{Ids, IdsView};
use model::LABEL_VALUE_BYTES_MAX;
use roaring::RoaringBitmap;

/// A block of values is closed when it has reached this size.
pub(super) const VALUES_BYTES_TARGET: usize = 32 * 1024;
/// What a writer holds of a part, by the estimate of [`crate::index::Index`], unless it is told otherwise. A million series
/// of ten labels take some 110 MiB, and each part costs a search a head and, where they repeat, the same values again.
pub(crate) const PART_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The least that it is told.
const PART_BYTES_MIN: usize = 8 * 1024 * 1024;

/// What writers of a store may hold of parts that has so much memory.
pub(crate) fn part_bytes_max(memory_bytes_max: usize) -> usize {
    (memory_bytes_max / 16).clamp(PART_BYTES_MIN, PART_BYTES_MAX)
}
/// Bytes of a part in the index.
pub(super) const PART_ENTRY_BYTES: usize = 28;

/// Where a part lies and which rows it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Where its blocks begin, one right behind the other.
    pub(super) offset: u64,
    pub(super) blocks_len: u32,
    /// Of its head, which follows them.
    pub(super) head_len: u32,
    pub(super) head_crc: u32,
    /// The first row, and how many.
    pub(super) first_row: u32,
    pub(super) rows: u32,
}

impl Part {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        for number in [self.blocks_len, self.head_len, self.head_crc, self.first_row, self.rows] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// All parts, none if the bytes are not exactly `parts` of them, or their rows not one behind the other.
    pub(super) fn decode_all(bytes: &[u8], parts: u32) -> Option<Vec<Part>> {
        if bytes.len() != PART_ENTRY_BYTES * parts as usize {
            return None;
        }
        let mut fields = Fields(bytes);
        let mut rows_end = 0;
        let mut part = || {
            let offset = fields.u64()?;
            let (blocks_len, head_len, head_crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let (first_row, rows) = (fields.u32()?, fields.u32()?);
            let follows = first_row == rows_end && rows > 0;
            rows_end = first_row.checked_add(rows)?;
            follows.then_some(Part { offset, blocks_len, head_len, head_crc, first_row, rows })
        };
        (0..parts).map(|_| part()).collect()
    }

    /// Bytes in the file.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.blocks_len) + u64::from(self.head_len)
    }
}

/// One label, as the head of a part knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct LabelHead {
    pub(super) name: Box<str>,
    pub(super) values: u32,
    /// Rows that carry it.
    pub(super) rows: u32,
    pub(super) blocks: Vec<ValuesBlock>,
}

/// One block of a label's values.
#[derive(Clone, Debug)]
pub(super) struct ValuesBlock {
    /// Less that of the part; not written, for blocks follow each other.
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) first: Box<str>,
}

/// The bytes are no part of a label index. The checksum was right, so only a writer at fault or a forger brings it
/// about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoLabelIndex;

/// A head, labels rising.
pub(super) fn encode_head(labels: &[LabelHead]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, labels.len() as u64);
    for label in labels {
        put_text(&mut out, &label.name);
        for number in [label.values, label.rows, label.blocks.len() as u32] {
            put_varint(&mut out, u64::from(number));
        }
        for block in &label.blocks {
            put_varint(&mut out, u64::from(block.len));
            out.extend_from_slice(&block.crc.to_le_bytes());
            put_text(&mut out, &block.first);
        }
    }
    out
}

/// The labels of a head, as [`encode_head`] has put them.
pub(super) fn decode_head(bytes: &[u8], part: &Part) -> Result<Vec<LabelHead>, NoLabelIndex> {
    let mut fields = Fields(bytes);
    let mut offset = 0;
    let labels = read_head(&mut fields, &mut offset).ok_or(NoLabelIndex)?;
    let is_whole = fields.0.is_empty() && offset == part.blocks_len;
    let in_order = labels.is_sorted_by(|a, b| a.name < b.name)
        && labels.iter().all(|label| label.blocks.is_sorted_by(|a, b| a.first < b.first));
    if is_whole && in_order { Ok(labels) } else { Err(NoLabelIndex) }
}

fn read_head(fields: &mut Fields<'_>, offset: &mut u32) -> Option<Vec<LabelHead>> {
    let mut labels = Vec::new();
    // Each takes a byte at least, so a count that is forged asks for no more memory than the head has bytes.
    for _ in 0..fields.varint()? {
        let name = take_text(fields)?.into();
        let (values, rows) = (take_u32(fields)?, take_u32(fields)?);
        let mut blocks = Vec::new();
        for _ in 0..fields.varint()? {
            let (len, crc) = (take_u32(fields)?, fields.u32()?);
            blocks.push(ValuesBlock { offset: *offset, len, crc, first: take_text(fields)?.into() });
            *offset = offset.checked_add(len)?;
        }
        labels.push(LabelHead { name, values, rows, blocks });
    }
    Some(labels)
}

/// Collects the values of one block; kept and used again.
#[derive(Default)]
pub(super) struct ValuesBuilder {
    bytes: Vec<u8>,
    /// The value that came last.
    last: Vec<u8>,
    rows: Vec<u8>,
}

impl ValuesBuilder {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a value, which must come behind the one before, and the rows that carry it; says how many those are.
    pub(super) fn push(&mut self, value: &str, ids: &Ids) -> u32 {
        let shared = value.bytes().zip(&self.last).take_while(|(a, b)| a == *b).count();
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, (value.len() - shared) as u64);
        self.bytes.extend_from_slice(&value.as_bytes()[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&value.as_bytes()[shared..]);
        match ids.view() {
            IdsView::List(&[row]) => {
                put_varint(&mut self.bytes, u64::from(ROW));
                put_varint(&mut self.bytes, u64::from(row));
                1
            }
            IdsView::List(rows) => self.push_rows(rows.iter().copied(), None),
            IdsView::Bitmap(rows) => self.push_rows(rows.iter(), Some(rows)),
        }
    }

    /// As a list of distances or as a bitmap, whichever is shorter.
    fn push_rows(&mut self, rows: impl Iterator<Item = u32>, bitmap: Option<&RoaringBitmap>) -> u32 {
        let bitmap = bitmap.map(|rows| {
            let mut rows = rows.clone();
            rows.optimize();
            rows
        });
        let bytes_max = bitmap.as_ref().map_or(usize::MAX, RoaringBitmap::serialized_size);
        self.rows.clear();
        let (mut next, mut count) = (0, 0);
        for row in rows {
            put_varint(&mut self.rows, u64::from(row - next));
            next = row + 1;
            count += 1;
        }
        let form = match bitmap.filter(|_| self.rows.len() > bytes_max) {
            Some(bitmap) => {
                self.rows.clear();
                bitmap.serialize_into(&mut self.rows).expect("a list in memory takes all bytes");
                BITMAP
            }
            None => LIST,
        };
        put_varint(&mut self.bytes, u64::from(form));
        put_varint(&mut self.bytes, self.rows.len() as u64);
        self.bytes.extend_from_slice(&self.rows);
        count
    }

    /// The block, and an empty builder.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.last.clear();
        std::mem::take(&mut self.bytes)
    }
}

/// How rows are written.
const ROW: u8 = 0;
const LIST: u8 = 1;
const BITMAP: u8 = 2;

/// The values of a block, in order, each in the place of the one before.
pub(super) struct Values<'a> {
    fields: Fields<'a>,
    value: String,
    /// Of the part.
    rows: u32,
}

/// The rows that carry a value, not yet read.
pub(super) struct RowsOf<'a> {
    form: u8,
    bytes: &'a [u8],
    /// Of the part.
    rows: u32,
}

impl<'a> Values<'a> {
    pub(super) fn new(block: &'a [u8], part: &Part) -> Values<'a> {
        Values { fields: Fields(block), value: String::new(), rows: part.rows }
    }

    /// The next value; `None` behind the last one, an error once for one that is not in the form, and nothing behind it.
    pub(super) fn next(&mut self) -> Option<Result<(&str, RowsOf<'a>), NoLabelIndex>> {
        if self.fields.0.is_empty() {
            return None;
        }
        let Some(rows) = self.read() else {
            self.fields.0 = &[];
            return Some(Err(NoLabelIndex));
        };
        Some(Ok((&self.value, rows)))
    }

    #[inline]
    fn read(&mut self) -> Option<RowsOf<'a>> {
        let shared = usize::try_from(self.fields.varint()?).ok()?;
        let behind = usize::try_from(self.fields.varint()?).ok()?;
        if shared > self.value.len() || shared + behind.min(usize::from(u16::MAX)) > LABEL_VALUE_BYTES_MAX {
            return None;
        }
        let behind = self.fields.slice(behind)?;
        self.put(shared, behind)?;
        let form = u8::try_from(self.fields.varint()?).ok()?;
        let whole = self.fields.0;
        let bytes = if form == ROW {
            self.fields.varint()?;
            &whole[..whole.len() - self.fields.0.len()]
        } else {
            let len = usize::try_from(self.fields.varint()?).ok()?;
            self.fields.slice(len)?
        };
        Some(RowsOf { form, bytes, rows: self.rows })
    }

    /// The value shares so many bytes with the one before, and these follow; none where that is no text.
    fn put(&mut self, shared: usize, behind: &[u8]) -> Option<()> {
        // What is shared was looked at before.
        if self.value.is_char_boundary(shared)
            && let Ok(behind) = std::str::from_utf8(behind)
        {
            self.value.truncate(shared);
            self.value.push_str(behind);
            return Some(());
        }
        // It ends, or what follows begins, amid a character.
        let mut value = std::mem::take(&mut self.value).into_bytes();
        value.truncate(shared);
        value.extend_from_slice(behind);
        self.value = String::from_utf8(value).ok()?;
        Some(())
    }
}

impl RowsOf<'_> {
    /// Adds the rows, counted from the first of the part, to a set.
    pub(super) fn add_to(&self, set: &mut RoaringBitmap) -> Result<(), NoLabelIndex> {
        match self.form {
            ROW | LIST => {
                let (mut fields, mut next) = (Fields(self.bytes), 0u32);
                while !fields.0.is_empty() {
                    let distance = take_u32(&mut fields).ok_or(NoLabelIndex)?;
                    let row =
                        next.checked_add(distance).filter(|row| *row < self.rows).ok_or(NoLabelIndex)?;
                    set.insert(row);
                    next = row + 1;
                }
            }
            BITMAP => {
                let mut bytes = self.bytes;
                let rows = RoaringBitmap::deserialize_from(&mut bytes).map_err(|_| NoLabelIndex)?;
                if !bytes.is_empty() || rows.max().is_none_or(|last| last >= self.rows) {
                    return Err(NoLabelIndex);
                }
                *set |= rows;
            }
            _ => return Err(NoLabelIndex),
        }
        Ok(())
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(fields: &mut Fields<'a>) -> Option<&'a str> {
    let len = usize::try_from(fields.varint()?).ok()?;
    std::str::from_utf8(fields.slice(len)?).ok()
}

fn take_u32(fields: &mut Fields<'_>) -> Option<u32> {
    u32::try_from(fields.varint()?).ok()
}
