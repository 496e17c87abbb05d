//! A directory block: series in slot order with what their chunks come to and where they lie, readable by itself.
//!
//! Symbols (texts of labels) and clocks stand at its head, each once, and rows name them by number. Both are the block's
//! own, not the segment's: so an open segment holds neither in memory, and damage to a block costs that block alone.
//! The chunks of a series are passed over where a row is not asked for, and read where they are needed ([`ChunkRows`]).

use super::fields::Fields;
use crate::column::{Aggregates, COLUMN_BYTES_MAX, COLUMN_SAMPLES_MAX, Codec, ColumnName, Sum, put_varint};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::{Arrival, LABELS_MAX, LabelSetRef, MetricKind, Slot, Timestamp};
use std::ops::Range;

/// A directory block is closed when it has reached this size; it is the unit of reading and of damage.
pub(super) const BLOCK_BYTES_TARGET: usize = 32 * 1024;
/// Bytes of a clock at most: milliseconds and fine parts, each packed as wide as can be.
pub(super) const CLOCK_BYTES_MAX: usize = 2 * (COLUMN_SAMPLES_MAX * 8 + 64);
const COUNTS_BYTES: usize = 12;
/// Bytes of a chunk's row at least: the number of its clock, the name of its column, and one value.
const CHUNK_BYTES_MIN: usize = 1 + 1 + 8;

/// What a byte of a chunk says, so that what follows from it is not written.
mod says {
    /// Its column begins where the one before ends.
    pub(super) const FOLLOWS: u8 = 1;
    /// There are no staleness markers and no resets.
    pub(super) const PLAIN: u8 = 2;
    /// The least value is the first.
    pub(super) const LEAST_IS_FIRST: u8 = 4;
    /// The greatest value is the last.
    pub(super) const GREATEST_IS_LAST: u8 = 8;
    /// The sum has a lower part other than zero.
    pub(super) const SUM_HAS_LOW: u8 = 16;
    /// Both parts together are the sum.
    pub(super) const SUM_IS_EXACT: u8 = 32;
    /// All of them.
    pub(super) const ALL: u8 = 63;
}

/// How chunks are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Up to version 4: every field of every chunk, sums of one double.
    Long,
    /// From version 5 on.
    #[default]
    Short,
}

impl Form {
    pub(super) fn of_version(version: u16) -> Form {
        if version < 5 { Form::Long } else { Form::Short }
    }
}

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte in the file.
    pub offset: u64,
    /// Its bytes.
    pub len: u32,
    /// CRC32C of its bytes.
    pub crc: u32,
}

impl Extent {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// Where the times of chunks lie, and what they span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRow {
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// How many there are.
    pub count: u32,
    /// Where the column lies.
    pub at: Extent,
}

impl ClockRow {
    /// All its times where they are no more than the two that the row says: the column need not be read for them.
    pub(super) fn told(&self) -> Option<[i64; 2]> {
        (self.count <= 2).then(|| [self.first.ticks(), self.last.ticks()])
    }
}

/// Where the values of a chunk are.
#[derive(Clone, Copy, Debug)]
pub enum ValuesAt {
    /// All are this one, and take no place in the file.
    Here(f64),
    /// A column of that name, there.
    Column(ColumnName, Extent),
}

/// One chunk of a series.
#[derive(Clone, Copy, Debug)]
pub struct ChunkRow {
    /// Its times.
    pub clock: ClockRow,
    /// Its values.
    pub values: ValuesAt,
    /// What they come to.
    pub aggregates: Aggregates,
}

impl ChunkRow {
    /// The time of its first sample.
    pub fn first(&self) -> Timestamp {
        self.clock.first
    }

    /// The time of its last sample.
    pub fn last(&self) -> Timestamp {
        self.clock.last
    }

    /// Its samples, 1 to [`COLUMN_SAMPLES_MAX`].
    pub fn count(&self) -> usize {
        self.clock.count as usize
    }

    /// Bytes of its values in the file.
    pub fn values_len(&self) -> usize {
        self.column().map_or(0, |column| column.len as usize)
    }

    pub(super) fn column(&self) -> Option<Extent> {
        match self.values {
            ValuesAt::Here(_) => None,
            ValuesAt::Column(_, at) => Some(at),
        }
    }
}

/// Collects the rows of one block; kept and used again.
#[derive(Default)]
pub(super) struct BlockBuilder {
    symbols: Interned<Box<[u8]>>,
    clocks: Interned<u64>,
    rows: Vec<u8>,
    row_count: u32,
    /// The chunks of the row at hand.
    chunks: Vec<u8>,
    /// Where the first column of the row before lies.
    row_column: u64,
    /// Where the next clock is thought to lie.
    clock_end: u64,
}

/// Things by number, and their bytes in order.
struct Interned<K> {
    numbers: HashMap<K, u32, RandomState>,
    bytes: Vec<u8>,
}

impl<K> Default for Interned<K> {
    fn default() -> Interned<K> {
        Interned { numbers: HashMap::default(), bytes: Vec::new() }
    }
}

impl<K> Interned<K> {
    fn clear(&mut self) {
        self.numbers.clear();
        self.bytes.clear();
    }
}

impl BlockBuilder {
    /// Rows so far.
    pub(super) fn row_count(&self) -> u32 {
        self.row_count
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        COUNTS_BYTES + self.symbols.bytes.len() + self.clocks.bytes.len() + self.rows.len()
    }

    /// Appends the row of a series.
    pub(super) fn push(
        &mut self,
        slot: Slot,
        kind: MetricKind,
        arrival: Arrival,
        labels: LabelSetRef<'_>,
        chunks: &[ChunkRow],
    ) {
        self.row_count += 1;
        self.rows.extend_from_slice(&slot.number().to_le_bytes());
        self.rows.push(kind as u8);
        self.rows.extend_from_slice(&arrival.to_bits().to_le_bytes());
        let name = self.symbol(labels.name());
        put_varint(&mut self.rows, name);
        put_varint(&mut self.rows, labels.labels().count() as u64);
        for (label, value) in labels.labels() {
            let (label, value) = (self.symbol(label), self.symbol(value));
            put_varint(&mut self.rows, label);
            put_varint(&mut self.rows, value);
        }
        let row_column = chunks.iter().find_map(ChunkRow::column).map_or(self.row_column, |at| at.offset);
        self.chunks.clear();
        let mut column_end = row_column;
        chunks.iter().for_each(|chunk| self.push_chunk(chunk, &mut column_end));
        put_varint(&mut self.rows, self.chunks.len() as u64);
        put_varint(&mut self.rows, row_column.wrapping_sub(self.row_column));
        self.rows.extend_from_slice(&self.chunks);
        self.row_column = row_column;
    }

    fn push_chunk(&mut self, chunk: &ChunkRow, column_end: &mut u64) {
        let clock = self.clock(&chunk.clock);
        let out = &mut self.chunks;
        put_varint(out, clock);
        let (name, at) = match chunk.values {
            ValuesAt::Here(value) => {
                out.push(ColumnName { codec: Codec::Constant }.to_byte());
                out.extend_from_slice(&value.to_bits().to_le_bytes());
                return;
            }
            ValuesAt::Column(name, at) => (name, at),
        };
        out.push(name.to_byte());
        let Aggregates { stale, resets, first, last, min, max, sum } = chunk.aggregates;
        let is_same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let said = [
            (says::FOLLOWS, at.offset == *column_end),
            (says::PLAIN, (stale, resets) == (0, 0)),
            (says::LEAST_IS_FIRST, is_same(min, first)),
            (says::GREATEST_IS_LAST, is_same(max, last)),
            (says::SUM_HAS_LOW, sum.low.to_bits() != 0),
            (says::SUM_IS_EXACT, sum.is_exact),
        ];
        let said = said.into_iter().fold(0, |all, (says, is_so)| all | if is_so { says } else { 0 });
        let has = |says: u8| said & says != 0;
        out.push(said);
        if !has(says::FOLLOWS) {
            put_varint(out, at.offset.wrapping_sub(*column_end));
        }
        put_varint(out, u64::from(at.len));
        out.extend_from_slice(&at.crc.to_le_bytes());
        *column_end = at.end();
        if !has(says::PLAIN) {
            put_varint(out, u64::from(stale));
            put_varint(out, u64::from(resets));
        }
        let numbers = [
            (true, first),
            (true, last),
            (!has(says::LEAST_IS_FIRST), min),
            (!has(says::GREATEST_IS_LAST), max),
            (true, sum.high),
            (has(says::SUM_HAS_LOW), sum.low),
        ];
        for (_, number) in numbers.into_iter().filter(|(is_written, _)| *is_written) {
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
    }

    fn symbol(&mut self, text: &str) -> u64 {
        let next = self.symbols.numbers.len() as u32;
        if let Some(known) = self.symbols.numbers.get(text.as_bytes()) {
            return u64::from(*known);
        }
        self.symbols.numbers.insert(text.as_bytes().into(), next);
        put_varint(&mut self.symbols.bytes, text.len() as u64);
        self.symbols.bytes.extend_from_slice(text.as_bytes());
        u64::from(next)
    }

    fn clock(&mut self, clock: &ClockRow) -> u64 {
        let Interned { numbers, bytes } = &mut self.clocks;
        let next = numbers.len() as u32;
        if let Some(known) = numbers.get(&clock.at.offset) {
            return u64::from(*known);
        }
        numbers.insert(clock.at.offset, next);
        bytes.extend_from_slice(&clock.first.ticks().to_le_bytes());
        put_varint(bytes, clock.last.ticks().wrapping_sub(clock.first.ticks()) as u64);
        put_varint(bytes, u64::from(clock.count));
        put_varint(bytes, clock.at.offset.wrapping_sub(self.clock_end));
        put_varint(bytes, u64::from(clock.at.len));
        bytes.extend_from_slice(&clock.at.crc.to_le_bytes());
        self.clock_end = clock.at.end();
        u64::from(next)
    }

    /// The block, and an empty builder.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(self.len());
        for count in [self.symbols.numbers.len() as u32, self.clocks.numbers.len() as u32, self.row_count] {
            block.extend_from_slice(&count.to_le_bytes());
        }
        block.extend_from_slice(&self.symbols.bytes);
        block.extend_from_slice(&self.clocks.bytes);
        block.extend_from_slice(&self.rows);
        self.symbols.clear();
        self.clocks.clear();
        self.rows.clear();
        (self.row_count, self.row_column, self.clock_end) = (0, 0, 0);
        block
    }
}

/// The rows of a block, in order.
pub(super) struct BlockRows<'a> {
    block: &'a [u8],
    form: Form,
    symbols: Vec<&'a [u8]>,
    clocks: Vec<ClockRow>,
    rows_left: u32,
    fields: Fields<'a>,
    /// Where the first column of the row at hand lies.
    row_column: u64,
}

/// One series of a block, beside its labels.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) slot: Slot,
    pub(super) kind: MetricKind,
    pub(super) arrival: Arrival,
    /// Whether it was asked for: else it has left no labels.
    pub(super) is_wanted: bool,
    /// Where in the block its chunks stand.
    pub(super) chunks: Range<usize>,
    /// Where its first column lies.
    pub(super) column: u64,
}

/// The bytes are no directory block. The checksum was right, so only a writer at fault or a forger brings it about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoBlock;

impl<'a> BlockRows<'a> {
    pub(super) fn new(block: &'a [u8], form: Form) -> Result<BlockRows<'a>, NoBlock> {
        let mut rows = BlockRows {
            block,
            form,
            symbols: Vec::new(),
            clocks: Vec::new(),
            rows_left: 0,
            fields: Fields(block),
            row_column: 0,
        };
        rows.read_head().ok_or(NoBlock)?;
        Ok(rows)
    }

    fn read_head(&mut self) -> Option<()> {
        let fields = &mut self.fields;
        let (symbols, clocks) = (fields.u32()?, fields.u32()?);
        self.rows_left = fields.u32()?;
        // Each takes a byte at least, so a count that is forged asks for no more memory than the block has bytes.
        for _ in 0..symbols {
            let len = fields.varint()?;
            self.symbols.push(fields.slice(usize::try_from(len).ok()?)?);
        }
        let mut clock_end = 0u64;
        for _ in 0..clocks {
            let first = fields.timestamp()?;
            let last = Timestamp::from_ticks(first.ticks().wrapping_add(fields.varint()? as i64));
            let count = u32::try_from(fields.varint()?).ok()?;
            let offset = clock_end.wrapping_add(fields.varint()?);
            let len = u32::try_from(fields.varint()?).ok()?;
            let at = Extent { offset, len, crc: fields.u32()? };
            let possible = (first < last || (first == last && count == 1))
                && (count > 1 || first == last)
                && (1..=COLUMN_SAMPLES_MAX).contains(&(count as usize))
                && (1..=CLOCK_BYTES_MAX).contains(&(len as usize));
            if !possible {
                return None;
            }
            clock_end = at.end();
            self.clocks.push(ClockRow { first, last, count, at });
        }
        Some(())
    }

    /// The clocks that rows name by number.
    pub(super) fn clocks(&self) -> &[ClockRow] {
        &self.clocks
    }

    /// How chunks are written.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// The chunks of a row, as they stand there.
    pub(super) fn chunk_bytes(&self, row: &Row) -> &'a [u8] {
        self.block.get(row.chunks.clone()).unwrap_or(&[])
    }

    /// The next row. If its slot is wanted, its canonical label bytes are appended to `labels`; `None` behind the last one,
    /// an error once for a row that is not in the form, and nothing behind it.
    pub(super) fn next_wanted(
        &mut self,
        labels: &mut Vec<u8>,
        wanted: impl FnOnce(Slot) -> bool,
    ) -> Option<Result<Row, NoBlock>> {
        if self.rows_left == 0 {
            let is_whole = self.fields.0.is_empty();
            self.fields.0 = &[];
            return (!is_whole).then_some(Err(NoBlock));
        }
        self.rows_left -= 1;
        let row = self.read_row(labels, wanted);
        if row.is_none() {
            (self.rows_left, self.fields.0) = (0, &[]);
        }
        Some(row.ok_or(NoBlock))
    }

    fn read_row(&mut self, labels: &mut Vec<u8>, wanted: impl FnOnce(Slot) -> bool) -> Option<Row> {
        let slot = Slot::new(self.fields.u16()?)?;
        let [kind] = self.fields.take()?;
        let kind = MetricKind::from_byte(kind)?;
        let arrival = Arrival::from_bits(u128::from_le_bytes(self.fields.take()?));
        let is_wanted = wanted(slot);
        let begin = labels.len();
        let name = self.symbol()?;
        labels.push(u8::try_from(name.len()).ok()?);
        labels.extend_from_slice(name);
        let pairs = self.fields.varint()?;
        if pairs > LABELS_MAX as u64 {
            return None;
        }
        for _ in 0..pairs {
            let (label, value) = (self.symbol()?, self.symbol()?);
            if !is_wanted {
                continue;
            }
            labels.push(u8::try_from(label.len()).ok()?);
            labels.extend_from_slice(label);
            labels.extend_from_slice(&u16::try_from(value.len()).ok()?.to_le_bytes());
            labels.extend_from_slice(value);
        }
        if is_wanted {
            LabelSetRef::from_bytes(&labels[begin..]).ok()?;
        } else {
            labels.truncate(begin);
        }
        let (chunks, column) = self.pass_chunks()?;
        Some(Row { slot, kind, arrival, is_wanted, chunks, column })
    }

    /// Where the chunks of the row at hand stand, and where its first column lies.
    fn pass_chunks(&mut self) -> Option<(Range<usize>, u64)> {
        let len = self.block.len();
        let at = |fields: &Fields<'_>| len - fields.0.len();
        let number = self.fields.varint()?;
        if self.form == Form::Short {
            self.row_column = self.row_column.wrapping_add(self.fields.varint()?);
            let begin = at(&self.fields);
            let len = self.fields.slice(usize::try_from(number).ok()?)?.len();
            return Some((begin..begin + len, self.row_column));
        }
        // They are as long as they are: only reading them tells where they end.
        let (begin, column) = (at(&self.fields), self.row_column);
        let mut chunks = ChunkRows::new(self.fields.0, &self.clocks, column, Form::Long);
        for _ in 0..number {
            chunks.next()?.ok()?;
        }
        let (end, column_end) = (at(&chunks.fields), chunks.column_end);
        (self.fields.0, self.row_column) = (self.block.get(end..)?, column_end);
        Some((begin..end, column))
    }

    fn symbol(&mut self) -> Option<&'a [u8]> {
        let number = self.fields.varint()?;
        self.symbols.get(usize::try_from(number).ok()?).copied()
    }
}

/// The chunks of one series, read from its row one by one.
#[derive(Clone, Debug)]
pub(super) struct ChunkRows<'a> {
    fields: Fields<'a>,
    clocks: &'a [ClockRow],
    /// Where the next column is thought to lie.
    column_end: u64,
    form: Form,
}

impl<'a> ChunkRows<'a> {
    /// Of these bytes, which name these clocks by number; the first column lies at `column`.
    pub(super) fn new(bytes: &'a [u8], clocks: &'a [ClockRow], column: u64, form: Form) -> ChunkRows<'a> {
        ChunkRows { fields: Fields(bytes), clocks, column_end: column, form }
    }

    // A row that is handed on by way of memory costs more than reading it does.
    #[inline(always)]
    fn read(&mut self) -> Option<ChunkRow> {
        let fields = &mut self.fields;
        let clock = *self.clocks.get(usize::try_from(fields.varint()?).ok()?)?;
        let [name] = fields.take()?;
        let name = ColumnName::from_byte(name)?;
        if name.codec == Codec::Constant {
            let value = fields.double()?;
            let aggregates = Aggregates::of_constant(value, clock.count as usize);
            return Some(ChunkRow { clock, values: ValuesAt::Here(value), aggregates });
        }
        let said = if self.form == Form::Short { fields.byte()? } else { 0 };
        let has = |says: u8| said & says != 0;
        if said & !says::ALL != 0 {
            return None;
        }
        let distance = if has(says::FOLLOWS) { 0 } else { fields.varint()? };
        let offset = self.column_end.wrapping_add(distance);
        let len = u32::try_from(fields.varint()?).ok()?;
        let at = Extent { offset, len, crc: fields.u32()? };
        self.column_end = at.end();
        let (stale, resets) = if has(says::PLAIN) {
            (0, 0)
        } else {
            (u16::try_from(fields.varint()?).ok()?, u16::try_from(fields.varint()?).ok()?)
        };
        let (first, last) = (fields.double()?, fields.double()?);
        let min = if has(says::LEAST_IS_FIRST) { first } else { fields.double()? };
        let max = if has(says::GREATEST_IS_LAST) { last } else { fields.double()? };
        let high = fields.double()?;
        let low = if has(says::SUM_HAS_LOW) { fields.double()? } else { 0.0 };
        if !(1..=COLUMN_BYTES_MAX).contains(&(len as usize)) {
            return None;
        }
        let sum = Sum { high, low, is_exact: has(says::SUM_IS_EXACT) };
        let aggregates = Aggregates { stale, resets, first, last, min, max, sum };
        Some(ChunkRow { clock, values: ValuesAt::Column(name, at), aggregates })
    }
}

impl Iterator for ChunkRows<'_> {
    type Item = Result<ChunkRow, NoBlock>;

    /// An error once for a chunk that is not in the form, and nothing behind it.
    #[inline(always)]
    fn next(&mut self) -> Option<Result<ChunkRow, NoBlock>> {
        if self.fields.0.is_empty() {
            return None;
        }
        match self.read() {
            Some(chunk) => Some(Ok(chunk)),
            None => {
                self.fields.0 = &[];
                Some(Err(NoBlock))
            }
        }
    }

    /// As many as the bytes may be, for only reading them tells how many there are.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let bytes = self.fields.0.len();
        (usize::from(bytes > 0), Some(bytes.div_ceil(CHUNK_BYTES_MIN)))
    }
}
