//! What is in a block of series: records, one behind the other, each a tag and what belongs to the series named last.
//!
//! ```text
//!   1  a series      id less that of the series before, varint │ kind u8 │ arrival less that before, varint of 128 bits
//!                    │ pieces varint │ a bit per piece: as in the series before │ per other piece: bytes varint │ bytes
//!   2  late samples  count varint │ per sample: zigzag of the ticks' distance varint │ value u64
//!   3  a chunk       `chunk/state.rs`
//!   4  the open one  `chunk/state.rs`
//! ```
//!
//! A piece is the metric name or a label with its value, in their canonical bytes: series that arrive one behind the
//! other mostly have the same labels but for one or two. A block needs no other: distances begin at 0, and a series that
//! goes on in the next block is named there again.

use super::layout::{BlockHead, BlockKind};
use crate::chunk::{Chunk, OpenChunk};
use crate::column::put_varint;
use crate::segment::fields::Fields;
use model::{Arrival, LABELS_MAX, LabelPiece, LabelSetRef, MetricKind, Sample, Timestamp};

const SERIES: u8 = 1;
const LATE: u8 = 2;
const CHUNK: u8 = 3;
const OPEN: u8 = 4;

/// The metric name, and the labels.
const PIECES_MAX: usize = 1 + LABELS_MAX;

/// A block that is being filled.
pub(crate) struct SeriesBlock {
    target: usize,
    bytes: Vec<u8>,
    series: u32,
    id: u32,
    arrival: u128,
    /// Those of the series named last; empty before the first.
    labels: Vec<u8>,
    /// Of the samples; `None` as long as there is none.
    times: Option<(Timestamp, Timestamp)>,
}

impl SeriesBlock {
    /// An empty one that is full at so many bytes.
    pub(crate) fn with_target(target: usize) -> SeriesBlock {
        SeriesBlock {
            target,
            bytes: Vec::new(),
            series: 0,
            id: 0,
            arrival: 0,
            labels: Vec::new(),
            times: None,
        }
    }

    /// Whether it takes no more records.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= self.target
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The records that follow are of this series. Ids rise.
    pub(crate) fn begin_series(
        &mut self,
        id: u32,
        labels: LabelSetRef<'_>,
        kind: MetricKind,
        arrival: Arrival,
    ) {
        self.bytes.push(SERIES);
        put_varint(&mut self.bytes, u64::from(id.wrapping_sub(self.id)));
        self.bytes.push(kind as u8);
        let bits = arrival.to_bits();
        put_varint_128(&mut self.bytes, bits.wrapping_sub(self.arrival));
        self.put_labels(labels);
        (self.id, self.arrival) = (id, bits);
        self.series += 1;
    }

    fn put_labels(&mut self, labels: LabelSetRef<'_>) {
        let mut before = std::mem::take(&mut self.labels);
        self.put_pieces(labels, (!before.is_empty()).then(|| LabelSetRef::from_canonical(&before)));
        before.clear();
        before.extend_from_slice(labels.bytes());
        self.labels = before;
    }

    fn put_pieces(&mut self, labels: LabelSetRef<'_>, before: Option<LabelSetRef<'_>>) {
        let pieces = labels.pieces().map(LabelPiece::bytes);
        let before = before.iter().flat_map(|before| before.pieces());
        let mut others = before.map(LabelPiece::bytes);
        let count_at = self.bytes.len();
        // What precedes the pieces, at most: it is shortened to what there is.
        let (mut same, mut count) = (0u128, 0);
        let mut literals: [&[u8]; PIECES_MAX] = [&[]; PIECES_MAX];
        for piece in pieces {
            if others.next() == Some(piece) {
                same |= 1 << count;
            } else {
                literals[count] = piece;
            }
            count += 1;
        }
        put_varint(&mut self.bytes, count as u64);
        debug_assert_eq!(self.bytes.len(), count_at + 1, "the count of pieces is below 128");
        self.bytes.extend_from_slice(&same.to_le_bytes()[..count.div_ceil(8)]);
        for literal in literals[..count].iter().filter(|literal| !literal.is_empty()) {
            put_varint(&mut self.bytes, literal.len() as u64);
            self.bytes.extend_from_slice(literal);
        }
    }

    /// Late samples, times rising; at least one.
    pub(crate) fn late(&mut self, samples: &[Sample]) {
        self.bytes.push(LATE);
        put_varint(&mut self.bytes, samples.len() as u64);
        let mut before = 0i64;
        for Sample { timestamp, value } in samples {
            let distance = timestamp.ticks().wrapping_sub(before);
            before = timestamp.ticks();
            put_varint(&mut self.bytes, ((distance << 1) ^ (distance >> 63)) as u64);
            self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        if let [first, .., last] | [first @ last] = samples {
            self.cover(first.timestamp, last.timestamp);
        }
    }

    /// A closed chunk.
    pub(crate) fn chunk(&mut self, chunk: &Chunk) {
        self.bytes.push(CHUNK);
        chunk.encode(&mut self.bytes);
        self.cover(chunk.first(), chunk.last());
    }

    /// The open chunk; nothing of the series follows.
    pub(crate) fn open(&mut self, chunk: &OpenChunk) {
        self.bytes.push(OPEN);
        chunk.encode(&mut self.bytes);
        self.cover(chunk.first(), chunk.last().timestamp);
    }

    fn cover(&mut self, first: Timestamp, last: Timestamp) {
        let (from, to) = self.times.get_or_insert((first, last));
        (*from, *to) = ((*from).min(first), (*to).max(last));
    }

    /// What is in it, with the head that belongs to it; it is empty afterwards and keeps its memory.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) -> BlockHead {
        std::mem::swap(out, &mut self.bytes);
        let millis = self.times.map(|(first, last)| (first.millis(), last.millis()));
        let (min_ms, max_ms) = millis.unwrap_or((i64::MAX, i64::MIN));
        let head = BlockHead {
            kind: BlockKind::Series,
            payload_bytes: out.len() as u32,
            series: self.series,
            payload_crc: crc32c::crc32c(out),
            min_ms,
            max_ms,
        };
        let (bytes, labels) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.labels));
        *self = SeriesBlock { bytes, labels, ..SeriesBlock::with_target(self.target) };
        self.bytes.clear();
        self.labels.clear();
        head
    }
}

/// Which series the records that follow are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeriesRecord<'a> {
    /// That of the table that was put down.
    pub(crate) id: u32,
    pub(crate) labels: LabelSetRef<'a>,
    /// Where each piece of the labels ends.
    ends: &'a [usize],
    /// A bit for each piece that stands in the same place in the labels of the record before, in this block.
    same: u128,
    pub(crate) kind: MetricKind,
    pub(crate) arrival: Arrival,
}

impl<'a> SeriesRecord<'a> {
    /// Pieces of the labels.
    pub(crate) fn pieces(&self) -> usize {
        self.ends.len()
    }

    /// Those that are others than the record before has in this place, and their places.
    pub(crate) fn others(&self) -> impl Iterator<Item = (usize, LabelPiece<'a>)> {
        let SeriesRecord { labels, ends, same, .. } = *self;
        let places = (0..ends.len()).filter(move |at| same >> at & 1 == 0);
        places.map(move |at| {
            let start = at.checked_sub(1).map_or(0, |before| ends[before]);
            (at, LabelPiece::from_canonical(&labels.bytes()[start..ends[at]]))
        })
    }
}

/// A record of a block.
#[derive(Debug)]
pub(super) enum Record<'a> {
    Series(SeriesRecord<'a>),
    Late(&'a [Sample]),
    Chunk(Chunk),
    Open(OpenChunk),
}

/// The records of a block, whatever its bytes are.
pub(super) struct Records<'a> {
    fields: Fields<'a>,
    id: u32,
    arrival: u128,
    is_begun: bool,
    /// The label set at hand, and the one before, whose memory is kept for the next.
    labels: Pieces,
    before: Pieces,
    late: Vec<Sample>,
}

/// A label set that is put together.
#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
    /// Where each piece ends.
    ends: Vec<usize>,
}

impl<'a> Records<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Records<'a> {
        Records {
            fields: Fields(payload),
            id: 0,
            arrival: 0,
            is_begun: false,
            labels: Pieces::default(),
            before: Pieces::default(),
            late: Vec::new(),
        }
    }

    /// The next record; `Ok(None)` at the end. After an error, which is what stands there instead of a record, no
    /// further one can be had.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, &'static str> {
        let Some(tag) = self.fields.byte() else { return Ok(None) };
        let record = match tag {
            SERIES => self.series(),
            _ if !self.is_begun => return Err("samples before the first series of a block"),
            LATE => self.late(),
            CHUNK => Chunk::decode(&mut self.fields).map(Record::Chunk),
            OPEN => OpenChunk::decode(&mut self.fields).map(Record::Open),
            _ => return Err("a record of no known kind"),
        };
        record.map(Some).ok_or("a record that cannot be read")
    }

    /// Those of the series named last.
    pub(super) fn labels(&self) -> Option<LabelSetRef<'_>> {
        LabelSetRef::from_bytes(&self.labels.bytes).ok()
    }

    fn series(&mut self) -> Option<Record<'_>> {
        let distance = u32::try_from(self.fields.varint()?).ok()?;
        if self.is_begun && distance == 0 {
            return None;
        }
        self.id = self.id.checked_add(distance)?;
        let kind = MetricKind::from_byte(self.fields.byte()?)?;
        self.arrival = self.arrival.wrapping_add(take_varint_128(&mut self.fields)?);
        std::mem::swap(&mut self.labels, &mut self.before);
        let Some(same) = self.labels.read(&mut self.fields, &self.before) else {
            // The series named last is still that one.
            std::mem::swap(&mut self.labels, &mut self.before);
            return None;
        };
        self.is_begun = true;
        // Each piece was checked when it was met first, and the order of their names.
        let labels = LabelSetRef::from_canonical(&self.labels.bytes);
        let (id, ends, arrival) = (self.id, &self.labels.ends[..], Arrival::from_bits(self.arrival));
        Some(Record::Series(SeriesRecord { id, labels, ends, same, kind, arrival }))
    }

    fn late(&mut self) -> Option<Record<'_>> {
        let count = self.fields.varint()?;
        self.late.clear();
        let mut ticks = 0i64;
        for _ in 0..count {
            let zigzag = self.fields.varint()?;
            ticks = ticks.wrapping_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            let value = self.fields.double()?;
            self.late.push(Sample { timestamp: Timestamp::from_ticks(ticks), value });
        }
        self.late.is_sorted_by(|a, b| a.timestamp < b.timestamp).then_some(Record::Late(&self.late))
    }
}

impl Pieces {
    /// Reads the pieces that follow; says which of them are as `before`.
    fn read(&mut self, fields: &mut Fields<'_>, before: &Pieces) -> Option<u128> {
        self.bytes.clear();
        self.ends.clear();
        let count = fields.varint().filter(|count| (1..=PIECES_MAX as u64).contains(count))? as usize;
        let mut bits = [0; 16];
        bits[..count.div_ceil(8)].copy_from_slice(fields.slice(count.div_ceil(8))?);
        // Behind the last piece's bit the byte may say anything.
        let same = u128::from_le_bytes(bits) & ((1 << count) - 1);
        let is_same = |at: usize| same >> at & 1 == 1;
        let mut at = 0;
        while at < count {
            if is_same(at) {
                // Mostly many in a row are: one copy.
                let until = (at..count).find(|next| !is_same(*next)).unwrap_or(count);
                let (start, end) = (before.start(at)?, *before.ends.get(until - 1)?);
                let moved = self.bytes.len();
                self.bytes.extend_from_slice(before.bytes.get(start..end)?);
                self.ends.extend(before.ends[at..until].iter().map(|end| end - start + moved));
                at = until;
            } else {
                let len = usize::try_from(fields.varint()?).ok()?;
                let bytes = fields.slice(len)?;
                if at == 0 { LabelPiece::of_name(bytes) } else { LabelPiece::of_label(bytes) }?;
                self.bytes.extend_from_slice(bytes);
                self.ends.push(self.bytes.len());
                at += 1;
            }
        }
        let is_new_beside = |at: &usize| !(is_same(at - 1) && is_same(*at));
        let mut beside = (2..count).filter(is_new_beside);
        beside.all(|at| self.name_bytes(at - 1) < self.name_bytes(at)).then_some(same)
    }

    fn start(&self, at: usize) -> Option<usize> {
        at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())
    }

    /// The name in the piece at that place, which has been checked.
    fn name_bytes(&self, at: usize) -> &[u8] {
        let start = self.start(at).unwrap_or_default();
        let name = start + 1;
        &self.bytes[name..name + usize::from(self.bytes[start])]
    }
}

fn put_varint_128(out: &mut Vec<u8>, mut number: u128) {
    while number >= 1 << 7 {
        out.push(number as u8 | 1 << 7);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint_128(fields: &mut Fields<'_>) -> Option<u128> {
    let mut number = 0u128;
    for shift in (0..128).step_by(7) {
        let byte = fields.byte()?;
        let seven = u128::from(byte & 0x7f);
        if shift == 126 && seven > 3 {
            return None;
        }
        number |= seven << shift;
        if byte < 1 << 7 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LabelSet;
    use proptest::prelude::*;

    fn read(payload: &[u8]) -> Result<Vec<String>, &'static str> {
        let mut records = Records::new(payload);
        let mut all = Vec::new();
        while let Some(record) = records.next()? {
            all.push(format!("{record:?}"));
        }
        Ok(all)
    }

    proptest! {
        /// Series in any order of labels come back, each with its own.
        #[test]
        fn series_come_back(
            rows in proptest::collection::vec(
                (1u32..9, 0u8..4, any::<u128>(), "[ab]{1,2}", proptest::collection::btree_map("[a-d]", "[xyz]{1,2}", 0..5)),
                1..40,
            ),
        ) {
            let mut block = SeriesBlock::with_target(1 << 16);
            let (mut id, mut before, mut expected) = (0, None::<LabelSet>, Vec::new());
            for (step, kind, arrival, name, labels) in &rows {
                id += step;
                let pairs: Vec<_> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let labels = LabelSet::new(name, &pairs).unwrap();
                let (kind, arrival) = (MetricKind::from_byte(*kind).unwrap(), Arrival::from_bits(*arrival));
                block.begin_series(id, labels.as_ref(), kind, arrival);
                let late: Vec<Sample> = (0..step % 3)
                    .map(|i| Sample { timestamp: Timestamp::from_ticks(i64::from(i) * 7 - 3), value: f64::from(i) })
                    .collect();
                let before = before.replace(labels.clone());
                let labels = labels.as_ref();
                let others = before.iter().flat_map(|before| before.as_ref().pieces());
                let pairs = labels.pieces().zip(others).enumerate();
                let same = pairs.fold(0, |same, (at, (a, b))| same | u128::from(a == b) << at);
                let ends: Vec<usize> = labels.pieces().scan(0, |end, piece| {
                    *end += piece.bytes().len();
                    Some(*end)
                }).collect();
                let record = SeriesRecord { id, labels, ends: &ends, same, kind, arrival };
                expected.push(format!("{:?}", Record::Series(record)));
                if !late.is_empty() {
                    block.late(&late);
                    expected.push(format!("{:?}", Record::Late(&late)));
                }
            }
            let mut payload = Vec::new();
            let head = block.take(&mut payload);
            prop_assert_eq!(head.series as usize, rows.len());
            prop_assert_eq!(read(&payload), Ok(expected));
            prop_assert!(block.is_empty());
        }

        /// Any bytes are refused or read; nothing panics, nothing is made of a count alone.
        #[test]
        fn any_bytes_are_refused_or_records(
            bytes in proptest::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..120),
        ) {
            let _ = read(&bytes);
        }
    }
}
