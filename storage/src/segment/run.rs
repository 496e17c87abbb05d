//! Chunks that are read at once: columns that lie one behind the other, and the clocks they need.
//!
//! The series that was the first to have a clock has it between its columns: there one read gives all. For the others the
//! clocks are read once and kept ([`Workspace`]); a clock of one or two times is not read at all, for its row says them.
//! Series that are read one after the other, as they lie, share a read: small ones would cost a system call each.

use super::directory::{ChunkRow, ClockRow, Extent, ValuesAt};
use super::workspace::{Room, Workspace};
use super::{SegmentError, SegmentReader};
use crate::column::{Aggregates, decode_clock, decode_values};
use crate::disk::{Disk, DiskFile};
use model::{LabelSet, Sample, Timestamp};
use std::rc::Rc;

/// Bytes of columns read at once, and held per source by whoever merges several.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Chunks read at once: constant ones take no bytes.
const READ_CHUNKS_MAX: usize = 64;

/// What was read of some chunks of one series.
#[derive(Debug, Default)]
pub struct ChunkRun {
    offset: u64,
    bytes: Vec<u8>,
    /// Bytes that were asked for.
    len: usize,
    /// Of each chunk, in order: where its clock lies, and the clock if its checksum was right.
    clocks: Vec<(u64, Option<Rc<[u8]>>)>,
}

impl ChunkRun {
    /// Bytes of memory held; clocks are shared with the workspace and counted here all the same.
    pub fn bytes(&self) -> usize {
        let clocks = self.clocks.iter().map(|(_, clock)| clock.as_ref().map_or(0, |clock| clock.len()));
        self.bytes.capacity()
            + self.clocks.capacity() * size_of::<(u64, Option<Rc<[u8]>>)>()
            + clocks.sum::<usize>()
    }

    /// Whether the chunk was read with it; its bytes may be missing all the same where the file ends early.
    pub fn holds(&self, chunk: &ChunkRow) -> bool {
        let has_column = chunk.column().is_none_or(|column| {
            let from = column.offset.checked_sub(self.offset);
            let end = from.and_then(|from| from.checked_add(u64::from(column.len)));
            end.is_some_and(|end| end <= self.len as u64)
        });
        let has_clock = || self.clocks.iter().any(|(offset, _)| *offset == chunk.clock.at.offset);
        has_column && (chunk.clock.told().is_some() || has_clock())
    }

    /// The bytes of a part, as far as they were read.
    fn part(&self, at: Extent) -> &[u8] {
        let from = at.offset.checked_sub(self.offset).and_then(|from| usize::try_from(from).ok());
        let until = from.and_then(|from| from.checked_add(at.len as usize));
        from.zip(until).and_then(|(from, until)| self.bytes.get(from..until)).unwrap_or(&[])
    }
}

/// A clock's bytes, if their checksum is right.
fn checked(column: &[u8], at: Extent) -> Option<Rc<[u8]>> {
    (column.len() == at.len as usize && crc32c::crc32c(column) == at.crc).then(|| column.into())
}

/// How many of the first chunks may be read at once; 1 at least.
pub fn run_len(chunks: &[ChunkRow]) -> usize {
    columns(chunks).1.max(1)
}

/// Where the columns of the first chunks lie, and how many chunks these are.
fn columns(chunks: &[ChunkRow]) -> (Span, usize) {
    let mut span = Span::default();
    if let Some((clock, column)) = chunks.first().and_then(|chunk| Some((chunk.clock.at, chunk.column()?)))
        && clock.end() == column.offset
        && chunks[0].clock.told().is_none()
    {
        span.takes(clock);
    }
    let some = chunks.iter().take(READ_CHUNKS_MAX);
    let count = some.take_while(|chunk| chunk.column().is_none_or(|column| span.takes(column))).count();
    (span, count)
}

/// A part of the file in which wanted parts lie, in order.
#[derive(Clone, Copy, Default)]
struct Span {
    offset: u64,
    end: u64,
}

impl Span {
    /// Grows by a part that lies behind and not too far; says whether it did.
    fn takes(&mut self, part: Extent) -> bool {
        if self.end == 0 {
            *self = Span { offset: part.offset, end: part.end() };
            return true;
        }
        let fits = self.end <= part.offset && part.end() - self.offset <= READ_BYTES_MAX as u64;
        if fits {
            self.end = part.end();
        }
        fits
    }

    fn len(&self) -> usize {
        (self.end - self.offset) as usize
    }
}

impl<D: Disk> SegmentReader<D> {
    /// Reads chunks of one series, as many as [`run_len`] says.
    pub async fn read_run(
        &self,
        chunks: &[ChunkRow],
        workspace: &mut Workspace,
    ) -> Result<ChunkRun, SegmentError> {
        // A caller that asks for more than may be read at once has the rest told as damaged.
        let (span, _) = columns(chunks);
        let bytes = self.read(span, workspace).await?;
        let mut run = ChunkRun { offset: span.offset, bytes, len: span.len(), clocks: Vec::new() };
        let unread: Vec<&ChunkRow> = chunks.iter().filter(|chunk| chunk.clock.told().is_none()).collect();
        run.clocks.reserve_exact(unread.len());
        let mut rest = unread.as_slice();
        while let Some(chunk) = rest.first() {
            let at = chunk.clock.at;
            let known = workspace.clock(self.entry().id, at).cloned();
            if let Some(clock) = known.or_else(|| checked(run.part(at), at)) {
                run.clocks.push((at.offset, Some(clock)));
                rest = &rest[1..];
                continue;
            }
            let mut span = Span::default();
            let some = rest.iter().take_while(|chunk| span.takes(chunk.clock.at)).count();
            let (now, later) = rest.split_at(some);
            rest = later;
            let bytes = self.read(span, workspace).await?;
            for at in now.iter().map(|chunk| chunk.clock.at) {
                let from = (at.offset - span.offset) as usize;
                let clock = checked(bytes.get(from..from + at.len as usize).unwrap_or(&[]), at);
                run.clocks.push((at.offset, clock));
            }
        }
        for (chunk, (_, clock)) in unread.iter().zip(&run.clocks) {
            clock.iter().for_each(|clock| workspace.keep(self.entry().id, chunk.clock.at, clock.clone()));
        }
        Ok(run)
    }

    async fn read(&self, span: Span, workspace: &mut Workspace) -> Result<Vec<u8>, SegmentError> {
        if span.len() == 0 {
            return Ok(Vec::new());
        }
        let ahead = workspace.ahead(self.entry().id);
        if let Some(bytes) = ahead.part(span.offset, span.len()) {
            return Ok(bytes.to_vec());
        }
        let failed = |error| self.failed(error);
        let wanted = ahead.wanted(span.offset, span.len());
        let bytes = self.file().read_at(span.offset, wanted).await.map_err(failed)?;
        if wanted == span.len() {
            return Ok(bytes);
        }
        // What is asked for may lie at the file's end and be shorter than it should be.
        let first = bytes[..span.len().min(bytes.len())].to_vec();
        ahead.keep(span.offset, bytes);
        Ok(first)
    }

    /// Appends the samples of one chunk of a run to `out`; nothing when it is not as its row says.
    pub fn decode_chunk(
        &self,
        labels: &LabelSet,
        chunk: &ChunkRow,
        run: &ChunkRun,
        workspace: &mut Workspace,
        out: &mut Vec<Sample>,
    ) -> Result<(), SegmentError> {
        let Decoded { times, values } = self.decode(labels, chunk, run, workspace.room())?;
        out.reserve(times.len());
        out.extend(
            times
                .iter()
                .zip(values)
                .map(|(&ticks, &value)| Sample { timestamp: Timestamp::from_ticks(ticks), value }),
        );
        Ok(())
    }

    /// Whether a chunk of a run comes to what its row says, besides being whole; its number of samples.
    pub fn verify_chunk(
        &self,
        labels: &LabelSet,
        chunk: &ChunkRow,
        run: &ChunkRun,
        workspace: &mut Workspace,
    ) -> Result<usize, SegmentError> {
        let Decoded { times, values } = self.decode(labels, chunk, run, workspace.room())?;
        if self.says(chunk, values) {
            Ok(times.len())
        } else {
            let offset = chunk.column().map_or(chunk.clock.at.offset, |column| column.offset);
            Err(self.damaged(offset, Some(format!("{labels:?}")), "what the values of a chunk come to"))
        }
    }

    /// Whether the values come to what the row says. Before version 5 the sum was one double, added up otherwise.
    fn says(&self, chunk: &ChunkRow, values: &[f64]) -> bool {
        let (row, found) = (&chunk.aggregates, Aggregates::of(values));
        match chunk.values {
            ValuesAt::Column(..) if self.version() < 5 => {
                let sum = Aggregates::sum_before_version_5(values);
                row.same_but_sum(&found) && row.sum.high.to_bits() == sum.to_bits()
            }
            _ => row.same_bits(&found),
        }
    }

    /// Whether a clock that readers need not look at is what its row says.
    pub(super) async fn verify_clock(
        &self,
        labels: &LabelSet,
        clock: &ClockRow,
        workspace: &mut Workspace,
    ) -> Result<(), SegmentError> {
        let Some(told) = clock.told() else { return Ok(()) };
        let at = clock.at;
        let damaged = |what| self.damaged(at.offset, Some(format!("{labels:?}")), what);
        let read = self.read_checked(at.offset, at.len as usize, at.crc).await;
        let bytes = read.map_err(|error| error.unwrap_or_else(|| damaged("the checksum of a clock")))?;
        let count = clock.count as usize;
        match decode_clock(&bytes, count, &mut workspace.room().scratch) {
            Ok(times) if *times == told[..count] => Ok(()),
            Ok(_) => Err(damaged("the bounds of a clock")),
            Err(_) => Err(damaged("the form of a clock")),
        }
    }

    /// Checks and decodes one chunk; what is not as its row says is not used.
    fn decode<'a>(
        &self,
        labels: &LabelSet,
        chunk: &ChunkRow,
        run: &ChunkRun,
        room: &'a mut Room,
    ) -> Result<Decoded<'a>, SegmentError> {
        let damaged = |offset, what| self.damaged(offset, Some(format!("{labels:?}")), what);
        let count = chunk.count();
        let Room { scratch, values, few } = room;
        let values = &mut values[..count];
        let at = chunk.clock.at.offset;
        match chunk.values {
            ValuesAt::Here(value) => values.fill(value),
            ValuesAt::Column(name, column) => {
                let bytes = run.part(column);
                if bytes.len() != column.len as usize || crc32c::crc32c(bytes) != column.crc {
                    return Err(damaged(column.offset, "the checksum of a column"));
                }
                let decoded = decode_values(name, bytes, scratch, values);
                decoded.map_err(|_| damaged(column.offset, "the form of a column"))?;
            }
        }
        if let Some(told) = chunk.clock.told() {
            *few = told;
            return Ok(Decoded { times: &few[..count], values });
        }
        let clock = run.clocks.iter().find(|(offset, _)| *offset == at);
        let clock = clock.and_then(|(_, clock)| clock.as_deref());
        let clock = clock.ok_or_else(|| damaged(at, "the checksum of a clock"))?;
        let times = decode_clock(clock, count, scratch).map_err(|_| damaged(at, "the form of a clock"))?;
        if (times[0], times[count - 1]) != (chunk.first().ticks(), chunk.last().ticks()) {
            return Err(damaged(at, "the bounds of a clock"));
        }
        Ok(Decoded { times, values })
    }
}

/// The samples of one chunk.
struct Decoded<'a> {
    times: &'a [i64],
    values: &'a [f64],
}
