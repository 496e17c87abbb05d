//! Finding rows by matchers: of each part first what is named, then what has to be tested, and no block that is not asked for.

use super::{LabelHead, NoLabelIndex, Part, Values, ValuesBlock, decode_head};
use crate::disk::Disk;
use crate::index::Pick;
use crate::segment::{SegmentError, SegmentReader};
use model::{Condition, Matcher};
use roaring::RoaringBitmap;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::{Discriminant, discriminant};
use std::rc::Rc;

/// Looking at a row of the directory costs as much as testing so many values.
const TESTS_PER_ROW: u64 = 8;
/// Bytes of answers that a segment keeps at most.
const CACHE_BYTES_MAX: usize = 256 * 1024;

/// Rows of a segment's directory.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// By part, or by directory block where no part knows them: the first row, and a set of rows less that; first
    /// rows rising.
    sets: Vec<(u32, RoaringBitmap)>,
}

impl Rows {
    /// Adds rows behind all that are there.
    pub(in crate::segment) fn push(&mut self, first_row: u32, rows: RoaringBitmap) {
        if !rows.is_empty() {
            self.sets.push((first_row, rows));
        }
    }

    /// The rows from `from` on and below `until`, rising.
    pub(in crate::segment) fn between(&self, from: u32, until: u32) -> impl Iterator<Item = u32> + '_ {
        let at = self.sets.partition_point(|(first, _)| *first <= from).saturating_sub(1);
        let reaching = self.sets[at..].iter().take_while(move |(first, _)| *first < until);
        reaching.flat_map(move |(first, rows)| {
            rows.range(from.saturating_sub(*first)..until - *first).map(move |row| *first + row)
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.sets.iter().map(|(_, rows)| rows.len()).sum()
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let sets: usize = self.sets.iter().map(|(_, rows)| rows.serialized_size()).sum();
        self.sets.capacity() * size_of::<(u32, RoaringBitmap)>() + sets
    }
}

/// What tests over all values of a label have found, kept for the next query with the same matcher; what was asked for
/// last is kept longest. Segments never change, so it is right as long as they are there.
#[derive(Debug)]
pub(in crate::segment) struct Cache {
    /// The last asked for at the end.
    answers: RefCell<VecDeque<Answer>>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Answer {
    part: usize,
    label: Box<str>,
    /// Which of the four it is, and its text: a compiled expression would take far more than its answer.
    sign: Discriminant<Condition>,
    text: Box<str>,
    rows: Rc<RoaringBitmap>,
}

fn text_of(condition: &Condition) -> &str {
    match condition {
        Condition::Equal(text) | Condition::NotEqual(text) => text,
        Condition::Matches(pattern) | Condition::NotMatches(pattern) => pattern.source(),
    }
}

impl Cache {
    /// For a segment of so many series: room for some tests that many of them pass.
    pub(in crate::segment) fn new(series: u64) -> Cache {
        let bytes_max = usize::try_from(series).unwrap_or(usize::MAX).min(CACHE_BYTES_MAX);
        Cache { answers: RefCell::default(), bytes_max }
    }

    /// Bytes of memory that it may hold.
    pub(in crate::segment) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes of memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.answers.borrow().iter().map(Answer::bytes).sum()
    }

    fn find(&self, part: usize, matcher: &Matcher) -> Option<Rc<RoaringBitmap>> {
        let mut answers = self.answers.borrow_mut();
        let (sign, text) = (discriminant(&matcher.condition), text_of(&matcher.condition));
        let is_same = |answer: &Answer| {
            answer.part == part
                && answer.sign == sign
                && *answer.label == *matcher.label
                && *answer.text == *text
        };
        let at = answers.iter().position(is_same)?;
        let answer = answers.remove(at)?;
        let rows = answer.rows.clone();
        answers.push_back(answer);
        Some(rows)
    }

    fn keep(&self, part: usize, matcher: &Matcher, rows: &Rc<RoaringBitmap>) {
        let (label, text) = (matcher.label.as_str().into(), text_of(&matcher.condition).into());
        let sign = discriminant(&matcher.condition);
        let answer = Answer { part, label, sign, text, rows: rows.clone() };
        let Some(room) = self.bytes_max.checked_sub(answer.bytes()) else { return };
        while self.bytes() > room {
            self.answers.borrow_mut().pop_front();
        }
        self.answers.borrow_mut().push_back(answer);
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        let (texts, rows) = (self.label.len() + self.text.len(), self.rows.serialized_size());
        size_of::<Answer>() + texts + rows + size_of::<RoaringBitmap>()
    }
}

/// Why a part could not be searched.
enum Unsearched {
    /// The disk refused, or a checksum is wrong.
    Unread(SegmentError),
    /// At that offset.
    Malformed(u64),
}

impl<D: Disk> SegmentReader<D> {
    /// Parts of the label index, to be searched one by one.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// Adds to `rows` those of a part that may meet all matchers: it reads the head of the part and the blocks of values
    /// that are asked for. A part that cannot be read is told, and all its rows may: the directory knows.
    ///
    /// # Panics
    /// If there is no such part.
    pub async fn search_part(
        &self,
        part: usize,
        matchers: &[Matcher],
        rows: &mut Rows,
        warnings: &mut Vec<SegmentError>,
    ) {
        let of = self.parts[part];
        let found = match self.search(part, matchers).await {
            Ok(found) => found,
            Err(unsearched) => {
                warnings.push(match unsearched {
                    // Nothing is missing from the answer: what the disk refuses of the directory, too, is told there.
                    Unsearched::Unread(SegmentError::Io { .. }) => {
                        self.damaged(of.offset, None, "a label index that can be read")
                    }
                    Unsearched::Unread(error) => error,
                    Unsearched::Malformed(offset) => {
                        self.damaged(offset, None, "the form of the label index")
                    }
                });
                all_rows(&of)
            }
        };
        rows.push(of.first_row, found);
    }

    async fn search(&self, part: usize, matchers: &[Matcher]) -> Result<RoaringBitmap, Unsearched> {
        let of = self.parts[part];
        let labels = self.read_head(&of).await?;
        let label_of = |matcher: &Matcher| {
            let at = labels.binary_search_by(|label| (*label.name).cmp(&matcher.label)).ok()?;
            Some(&labels[at])
        };
        let mut named = Vec::new();
        let mut tested = Vec::new();
        for matcher in matchers {
            let pick = Pick::of(matcher);
            match (label_of(matcher), &pick.texts) {
                (None, _) if pick.keeps => return Ok(RoaringBitmap::new()),
                (None, _) => {}
                (Some(label), Some(texts)) => {
                    // About so many rows carry one of the texts.
                    let rows = u64::from(label.rows) * texts.len() as u64 / u64::from(label.values.max(1));
                    named.push((!pick.keeps, rows, label, pick));
                }
                (Some(label), None) => tested.push((label.values, label, matcher, pick)),
            }
        }
        named.sort_by_key(|(drops, rows, ..)| (*drops, *rows));
        tested.sort_by_key(|(values, ..)| *values);
        let mut found: Option<RoaringBitmap> = None;
        for (_, _, label, pick) in named {
            let rows = self.named_values(&of, label, pick.texts.as_deref().unwrap_or_default()).await?;
            narrow(&mut found, &of, pick.keeps, &rows);
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                return Ok(RoaringBitmap::new());
            }
        }
        for (values, label, matcher, pick) in tested {
            let left = found.as_ref().map_or(u64::from(of.rows), RoaringBitmap::len);
            let rows = match self.cache.find(part, matcher) {
                Some(rows) => rows,
                // The directory tells sooner.
                None if left * TESTS_PER_ROW < u64::from(values) => continue,
                None => {
                    let rows = Rc::new(self.test_values(&of, label, matcher, &pick).await?);
                    self.cache.keep(part, matcher, &rows);
                    rows
                }
            };
            narrow(&mut found, &of, pick.keeps, &rows);
        }
        Ok(found.unwrap_or_else(|| all_rows(&of)))
    }

    async fn read_head(&self, part: &Part) -> Result<Vec<LabelHead>, Unsearched> {
        let at = part.offset + u64::from(part.blocks_len);
        let bytes = self.read_of_index(at, part.head_len, part.head_crc).await?;
        decode_head(&bytes, part).map_err(|NoLabelIndex| Unsearched::Malformed(at))
    }

    async fn read_of_index(&self, at: u64, len: u32, crc: u32) -> Result<Vec<u8>, Unsearched> {
        let read = self.read_checked(at, len as usize, crc).await;
        let damaged = || self.damaged(at, None, "the checksum of the label index");
        read.map_err(|error| Unsearched::Unread(error.unwrap_or_else(damaged)))
    }

    /// The rows that carry one of these values, which rise; each block is read once.
    async fn named_values(
        &self,
        part: &Part,
        label: &LabelHead,
        texts: &[&str],
    ) -> Result<RoaringBitmap, Unsearched> {
        let mut rows = RoaringBitmap::new();
        let mut rest = texts;
        while let Some(text) = rest.first() {
            let behind = label.blocks.partition_point(|block| *block.first <= **text);
            let until = label.blocks.get(behind).map(|block| &*block.first);
            let (here, later) =
                rest.split_at(rest.partition_point(|text| until.is_none_or(|until| *text < until)));
            rest = later;
            let Some(block) = behind.checked_sub(1).map(|at| &label.blocks[at]) else { continue };
            let mut here = here.iter().peekable();
            self.each_value(part, block, |value, of| {
                while here.next_if(|text| **text < value).is_some() {}
                if here.next_if(|text| **text == value).is_some() {
                    of.add_to(&mut rows)?;
                }
                Ok(here.peek().is_some())
            })
            .await?;
        }
        Ok(rows)
    }

    /// The rows of all values that are picked.
    async fn test_values(
        &self,
        part: &Part,
        label: &LabelHead,
        matcher: &Matcher,
        pick: &Pick<'_>,
    ) -> Result<RoaringBitmap, Unsearched> {
        let mut rows = RoaringBitmap::new();
        let begins = |text: &str| text.starts_with(pick.prefix) || *text < *pick.prefix;
        // Those that begin with the prefix lie side by side; the first may lie behind the begin of its block.
        let from = label.blocks.partition_point(|block| *block.first <= *pick.prefix).saturating_sub(1);
        for block in label.blocks[from..].iter().take_while(|block| begins(&block.first)) {
            self.each_value(part, block, |value, of| {
                if matcher.meets(value) == pick.keeps {
                    of.add_to(&mut rows)?;
                }
                Ok(true)
            })
            .await?;
        }
        Ok(rows)
    }

    /// Gives the values of a block to `take`, until that says `false`.
    async fn each_value(
        &self,
        part: &Part,
        block: &ValuesBlock,
        mut take: impl FnMut(&str, super::RowsOf<'_>) -> Result<bool, NoLabelIndex>,
    ) -> Result<(), Unsearched> {
        let at = part.offset + u64::from(block.offset);
        let bytes = self.read_of_index(at, block.len, block.crc).await?;
        let malformed = |NoLabelIndex| Unsearched::Malformed(at);
        let mut values = Values::new(&bytes, part);
        while let Some(value) = values.next() {
            let (text, rows) = value.map_err(malformed)?;
            if !take(text, rows).map_err(malformed)? {
                break;
            }
        }
        Ok(())
    }
}

fn all_rows(part: &Part) -> RoaringBitmap {
    let mut rows = RoaringBitmap::new();
    rows.insert_range(0..part.rows);
    rows
}

/// Keeps what is in `rows`, or what is not.
fn narrow(found: &mut Option<RoaringBitmap>, part: &Part, keeps: bool, rows: &RoaringBitmap) {
    match found {
        None if keeps => *found = Some(rows.clone()),
        _ if keeps => *found.get_or_insert_default() &= rows,
        _ => *found.get_or_insert_with(|| all_rows(part)) -= rows,
    }
}
