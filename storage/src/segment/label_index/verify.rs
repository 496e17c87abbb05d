//! Holding a part of the label index against the directory rows that it tells of.

use super::{NoLabelIndex, Values, decode_head};
use crate::disk::Disk;
use crate::index::Index;
use crate::segment::{SegmentError, SegmentReader};
use roaring::RoaringBitmap;

impl<D: Disk> SegmentReader<D> {
    /// Reads and checks all of a part of the label index: that it leads to exactly the rows that the directory has, where
    /// that can be read. What is wrong is told, once.
    ///
    /// # Panics
    /// If there is no such part.
    pub async fn verify_part(&self, part: usize, errors: &mut Vec<SegmentError>) {
        let expected = self.labels_of(part).await;
        errors.extend(self.compare(part, expected.as_ref()).await.err());
    }

    /// The labels of the part's rows, as the directory has them; none where it cannot be read.
    async fn labels_of(&self, part: usize) -> Option<Index> {
        let part = self.parts[part];
        let mut index = Index::default();
        for (at, block) in self.blocks().iter().enumerate() {
            let reaches =
                block.first_row < part.first_row + part.rows && part.first_row < block.first_row + block.rows;
            if !reaches {
                continue;
            }
            let mut errors = Vec::new();
            let all = self.series_in_block(at, |_| true, &mut errors).await;
            if !errors.is_empty() || all.len() != block.rows as usize {
                return None;
            }
            for (row, series) in (block.first_row..).zip(all) {
                if let Some(row) = row.checked_sub(part.first_row).filter(|row| *row < part.rows) {
                    index.insert(series.labels.as_ref(), row);
                }
            }
        }
        Some(index)
    }

    async fn compare(&self, part: usize, expected: Option<&Index>) -> Result<(), SegmentError> {
        let part = self.parts[part];
        let damaged = |at, what| self.damaged(at, None, what);
        let head_at = part.offset + u64::from(part.blocks_len);
        let checked = |at, error: Option<SegmentError>| {
            error.unwrap_or_else(|| damaged(at, "the checksum of the label index"))
        };
        let malformed = |at| move |NoLabelIndex| damaged(at, "the form of the label index");
        let wrong = |at| damaged(at, "the label index does not lead to the rows of the directory");
        let head = self.read_checked(head_at, part.head_len as usize, part.head_crc).await;
        let head = head.map_err(|error| checked(head_at, error))?;
        let labels = decode_head(&head, &part).map_err(malformed(head_at))?;
        let mut pairs = 0;
        for label in &labels {
            let mut last: Option<String> = None;
            for block in &label.blocks {
                let at = part.offset + u64::from(block.offset);
                let bytes = self.read_checked(at, block.len as usize, block.crc).await;
                let bytes = bytes.map_err(|error| checked(at, error))?;
                let (mut values, mut is_first) = (Values::new(&bytes, &part), true);
                while let Some(value) = values.next() {
                    let (value, of) = value.map_err(malformed(at))?;
                    let mut rows = RoaringBitmap::new();
                    of.add_to(&mut rows).map_err(malformed(at))?;
                    let is_next = last.as_deref().is_none_or(|last| last < value)
                        && (!std::mem::take(&mut is_first) || *block.first == *value);
                    let is_right =
                        expected.is_none_or(|index| index.ids_of(&label.name, value).as_ref() == Some(&rows));
                    if !is_next || !is_right || rows.is_empty() {
                        return Err(wrong(at));
                    }
                    pairs += 1;
                    last = Some(value.to_owned());
                }
            }
        }
        let expected = expected.map(|index| index.labels().iter().map(|(_, values)| values.len()).sum());
        if expected.is_none_or(|expected: usize| expected == pairs) { Ok(()) } else { Err(wrong(head_at)) }
    }
}
