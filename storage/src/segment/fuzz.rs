//! What holds of a segment's bytes whatever they are; see `crate::fuzz`.

use super::directory::{BlockBuilder, BlockRows, ChunkRows, Form};
use super::filter::Filter;
use super::label_index::{Part, Values, decode_head, encode_head};
use super::layout::{Block, FOOTER_BYTES, Footer, HEAD_BYTES, Head, MAGIC};
use super::{ChunkRow, PairHash, Rows, SegmentReader, SegmentWriter, SeriesList, Workspace, segment_path};
use crate::column::{Codec, ColumnName, Heat, put_varint};
use crate::disk::{Disk, DiskFile, SimDisk, ready};
use crate::fuzz::history;
use model::{Arrival, Condition, LabelSet, LabelSetRef, Matcher, MetricKind, Timestamp};
use roaring::RoaringBitmap;
use std::collections::BTreeSet;

const ID: u64 = 7;
/// Of the part to which label heads and values are said to belong.
const PART_ROWS: u32 = 100_000;
/// The last version with long rows in the directory, and the first with short ones.
const LONG_ROWS: u8 = 4;
const SHORT_ROWS: u8 = LONG_ROWS + 1;

/// A small segment: some series of three names, of one chunk and of several.
fn specimen(series: u32, samples: i64) -> Vec<u8> {
    let mut sets: Vec<LabelSet> = (0..series)
        .map(|n| {
            let labels = [("job", "node"), ("n", &*n.to_string())];
            LabelSet::new(["cpu", "mem", "up"][n as usize % 3], &labels).expect("labels as they should be")
        })
        .collect();
    sets.sort_by_key(|set| (set.as_ref().hash().slot().number(), set.clone()));
    let disk = SimDisk::new(1);
    let write = async {
        let mut writer = SegmentWriter::create(&disk, ID, 0, 1, Heat::Fresh).await?;
        for (at, set) in sets.iter().enumerate() {
            writer.begin_series(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(at as u128)).await?;
            writer.push(&history(samples)[at % 3..]).await?;
        }
        writer.finish().await
    };
    ready(write).expect("a disk without faults takes a small segment");
    disk.contents(&segment_path(ID)).unwrap_or_default()
}

/// Where things lie in a file whose ends are in order.
struct Places {
    footer: Footer,
    index: std::ops::Range<usize>,
    filter: std::ops::Range<usize>,
    blocks: Vec<Block>,
    parts: Vec<Part>,
}

fn places(file: &[u8]) -> Option<Places> {
    let footer_at = file.len().checked_sub(FOOTER_BYTES)?;
    let footer = Footer::decode(&file[footer_at..]).ok()?;
    let index_at = usize::try_from(footer.index_offset).ok()?;
    let index = index_at..index_at.checked_add(footer.index_len as usize)?;
    let filter = index.end..index.end.checked_add(footer.filter_len as usize)?;
    file.get(filter.clone())?;
    let (blocks, behind) = Block::decode_all(&file[index.clone()], footer.blocks)?;
    let parts = Part::decode_all(behind, footer.parts)?;
    Some(Places { footer, index, filter, blocks, parts })
}

pub(crate) fn files() -> Vec<Vec<u8>> {
    vec![specimen(1, 3), specimen(7, 40), specimen(3, 1_100)]
}

/// A whole file, whose checksums are put right as far as its own places lead: opened, searched, verified, read.
pub(crate) fn file(data: &[u8]) -> bool {
    let disk = SimDisk::new(1);
    let write = async {
        disk.create_dir(super::SEGMENTS_FOLDER).await?;
        disk.create(&segment_path(ID)).await?.write_at(0, &mended(data)).await
    };
    ready(write).expect("a disk without faults takes a small file");
    let Ok(reader) = ready(SegmentReader::open(&disk, ID)) else { return false };
    let (mut errors, mut workspace) = (Vec::new(), Workspace::default());
    (0..reader.part_count()).for_each(|part| ready(reader.verify_part(part, &mut errors)));
    let mut samples = 0;
    for block in 0..reader.block_count() {
        samples += ready(reader.verify_block(block, &mut workspace, &mut errors)).samples;
    }
    let matchers = [
        Matcher { label: "__name__".to_owned(), condition: Condition::Equal("cpu".to_owned()) },
        Matcher { label: "n".to_owned(), condition: Condition::NotEqual("1".to_owned()) },
    ];
    let mut rows = Rows::default();
    (0..reader.part_count())
        .for_each(|part| ready(reader.search_part(part, &matchers, &mut rows, &mut errors)));
    reader.add_unindexed_rows("cpu", &mut rows);
    let mut next = 0;
    while let Some((block, _)) = reader.next_block(next, &rows, |_| true) {
        assert!(block >= next && block < reader.block_count());
        let range = (Timestamp::MIN, Timestamp::MAX);
        let mut list = SeriesList::default();
        ready(reader.find_in_block(block, &rows, &matchers, |_| true, (&mut list, &mut errors)));
        for found in list.iter() {
            assert!(matchers.iter().all(|matcher| matcher.matches(found.labels)));
            let chunks = reader.chunks_of(&found, range, &mut errors);
            assert!(chunks.is_sorted_by(|a, b| a.last() < b.first()));
        }
        next = block + 1;
    }
    for error in &errors {
        assert!(error.path() == Some(reader.path()), "{error}");
    }
    errors.is_empty() && samples > 0 && samples == reader.sample_count()
}

/// The file with the checksums that its parts would have, where they lie within it.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut file = data.to_vec();
    let Some(footer_at) = file.len().checked_sub(FOOTER_BYTES).filter(|at| *at >= HEAD_BYTES) else {
        return file;
    };
    let put = |file: &mut [u8], at: usize, crc: u32| file[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&file[..HEAD_BYTES - 4]);
    put(&mut file, HEAD_BYTES - 4, crc);
    file[footer_at + FOOTER_BYTES - 8..].copy_from_slice(&MAGIC);
    let crc = crc32c::crc32c(&file[footer_at..footer_at + FOOTER_BYTES - 12]);
    put(&mut file, footer_at + FOOTER_BYTES - 12, crc);
    let Some(Places { mut footer, index, filter, mut blocks, mut parts }) = places(&file) else {
        return file;
    };
    let sum = |file: &[u8], at: u64, len: u32| {
        let at = usize::try_from(at).ok()?;
        file.get(at..at.checked_add(len as usize)?).map(crc32c::crc32c)
    };
    let mut bytes = Vec::new();
    for block in &mut blocks {
        block.crc = sum(&file, block.offset, block.len).unwrap_or(block.crc);
        block.encode(&mut bytes);
    }
    for part in &mut parts {
        let head_at = part.offset.saturating_add(u64::from(part.blocks_len));
        part.head_crc = sum(&file, head_at, part.head_len).unwrap_or(part.head_crc);
        part.encode(&mut bytes);
    }
    if bytes.len() == index.len() {
        file[index.clone()].copy_from_slice(&bytes);
    }
    (footer.index_crc, footer.filter_crc) = (crc32c::crc32c(&file[index]), crc32c::crc32c(&file[filter]));
    file[footer_at..].copy_from_slice(&footer.encode());
    file
}

/// Head and footer, whose checksums are put right first.
pub(crate) fn ends(data: &[u8]) -> bool {
    let _ = (Head::decode(data), Footer::decode(data));
    if data.len() != HEAD_BYTES + FOOTER_BYTES {
        return false;
    }
    let mended = mended(data);
    let (head, footer) = mended.split_at(HEAD_BYTES);
    let (Ok(head), Ok(footer)) = (Head::decode(head), Footer::decode(footer)) else { return false };
    assert_eq!((Head::decode(&head.encode()), Footer::decode(&footer.encode())), (Ok(head), Ok(footer)));
    true
}

pub(crate) fn all_ends() -> Vec<Vec<u8>> {
    let ends = |file: Vec<u8>| [&file[..HEAD_BYTES], &file[file.len() - FOOTER_BYTES..]].concat();
    files().into_iter().map(ends).collect()
}

/// Two bytes say how many blocks and parts, the others are the index.
pub(crate) fn index(data: &[u8]) -> bool {
    let Some(([blocks, parts], bytes)) = data.split_first_chunk() else { return false };
    let Some((blocks, behind)) = Block::decode_all(bytes, u32::from(*blocks)) else { return false };
    let Some(parts) = Part::decode_all(behind, u32::from(*parts)) else { return false };
    let mut again = Vec::new();
    blocks.iter().for_each(|block| block.encode(&mut again));
    parts.iter().for_each(|part| part.encode(&mut again));
    assert_eq!(again, bytes);
    assert!(blocks.is_sorted_by(|a, b| a.first_row + a.rows == b.first_row));
    let _ = blocks.iter().map(|block| block.slots().count() + usize::from(block.may_hold(9))).sum::<usize>();
    true
}

pub(crate) fn indexes() -> Vec<Vec<u8>> {
    let index = |file: Vec<u8>| {
        let Places { index, blocks, parts, .. } = places(&file)?;
        Some([&[blocks.len() as u8, parts.len() as u8], &file[index]].concat())
    };
    files().into_iter().filter_map(index).collect()
}

/// A byte says of which version it is, for that decides how rows are written; the others are a block of the directory.
pub(crate) fn directory(data: &[u8]) -> bool {
    let Some((&version, block)) = data.split_first() else { return false };
    let mut builder = BlockBuilder::default();
    let form = Form::of_version(u16::from(version));
    let Some(read) = read_directory(block, form, &mut builder) else { return false };
    // The builder knows clocks by where they lie; one place with two clocks is nothing that it makes.
    let clocks = |chunks: &[ChunkRow]| chunks.iter().map(|chunk| chunk.clock).collect::<Vec<_>>();
    let all: Vec<_> = read.iter().flat_map(|(_, chunks)| clocks(chunks)).collect();
    let places: BTreeSet<u64> = all.iter().map(|clock| clock.at.offset).collect();
    let distinct: BTreeSet<String> = all.iter().map(|clock| format!("{clock:?}")).collect();
    if places.len() == distinct.len() {
        let again = read_directory(&builder.take(), Form::Short, &mut BlockBuilder::default());
        let again = again.expect("a block just built is one");
        assert_eq!(format!("{read:?}"), format!("{again:?}"));
    }
    !read.is_empty()
}

/// The rows, each put into the builder too.
fn read_directory(
    block: &[u8],
    form: Form,
    builder: &mut BlockBuilder,
) -> Option<Vec<(String, Vec<ChunkRow>)>> {
    let mut rows = BlockRows::new(block, form).ok()?;
    let (mut read, mut labels) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next_wanted(&mut labels, |_| true) {
        let row = row.ok()?;
        let set = LabelSetRef::from_bytes(&labels).expect("a row's labels are checked");
        let chunks = ChunkRows::new(rows.chunk_bytes(&row), rows.clocks(), row.column, rows.form());
        let chunks: Vec<ChunkRow> = chunks.collect::<Result<_, _>>().ok()?;
        builder.push(row.slot, row.kind, row.arrival, set, &chunks);
        read.push((format!("{:?} {:?} {:?} {set:?}", row.slot, row.kind, row.arrival), chunks));
        labels.clear();
    }
    Some(read)
}

pub(crate) fn directories() -> Vec<Vec<u8>> {
    let block = |file: Vec<u8>| {
        let block = places(&file)?.blocks.into_iter().next()?;
        let block = file.get(block.offset as usize..block.offset as usize + block.len as usize)?;
        Some([&[SHORT_ROWS], block].concat())
    };
    files().into_iter().filter_map(block).chain([[&[LONG_ROWS], &*long_block()].concat()]).collect()
}

/// A block of long rows, which nothing writes any more: a series of three chunks, one of them constant.
fn long_block() -> Vec<u8> {
    let (mut block, (symbols, clocks, rows)) = (Vec::new(), (1u32, 2u32, 1u32));
    [symbols, clocks, rows].iter().for_each(|count| block.extend_from_slice(&count.to_le_bytes()));
    put_varint(&mut block, 2);
    block.extend_from_slice(b"up");
    for first in [0i64, 100] {
        let (span, count, distance, len, crc) = (50, 5, 64, 9, 0u32);
        block.extend_from_slice(&first.to_le_bytes());
        [span, count, distance, len].iter().for_each(|number| put_varint(&mut block, *number));
        block.extend_from_slice(&crc.to_le_bytes());
    }
    block.extend_from_slice(&7u16.to_le_bytes());
    block.push(MetricKind::Gauge as u8);
    block.extend_from_slice(&Arrival::from_bits(1).to_bits().to_le_bytes());
    let (name, labels, chunks) = (0, 0, 3);
    [name, labels, chunks].iter().for_each(|number| put_varint(&mut block, *number));
    for clock in [0, 1] {
        put_varint(&mut block, clock);
        block.push(ColumnName { codec: Codec::Gorilla }.to_byte());
        let (distance, len, crc, stale, resets) = (40, 30, 0u32, 1, 2);
        [distance, len].iter().for_each(|number| put_varint(&mut block, *number));
        block.extend_from_slice(&crc.to_le_bytes());
        [stale, resets].iter().for_each(|number| put_varint(&mut block, *number));
        let (first, last, min, max, sum) = (1.0f64, 2.5, -0.5, 4.0, 7.0);
        for number in [first, last, min, max, sum] {
            block.extend_from_slice(&number.to_bits().to_le_bytes());
        }
    }
    put_varint(&mut block, 1);
    block.push(ColumnName { codec: Codec::Constant }.to_byte());
    block.extend_from_slice(&85f64.to_bits().to_le_bytes());
    block
}

/// A filter.
pub(crate) fn filter(data: &[u8]) -> bool {
    let Some(mut filter) = Filter::decode(data) else { return false };
    assert_eq!(filter.encode(), data);
    let pair = PairHash::new("job", "node");
    let held = filter.may_hold(pair);
    filter.insert(pair);
    filter.fold();
    assert!(filter.may_hold(pair));
    held
}

pub(crate) fn filters() -> Vec<Vec<u8>> {
    files().into_iter().filter_map(|file| Some(file[places(&file)?.filter].to_vec())).collect()
}

/// Where the part is said to be: any bytes of values, so that the head alone decides.
fn part(blocks_len: u32) -> Part {
    Part { offset: 0, blocks_len, head_len: 0, head_crc: 0, first_row: 0, rows: PART_ROWS }
}

/// Four bytes say how many bytes of values come before it, the others are the head of a part.
pub(crate) fn label_head(data: &[u8]) -> bool {
    let Some((blocks_len, head)) = data.split_first_chunk() else { return false };
    let part = part(u32::from_le_bytes(*blocks_len));
    let Ok(labels) = decode_head(head, &part) else { return false };
    let again = decode_head(&encode_head(&labels), &part).expect("a head comes back");
    assert_eq!(format!("{labels:?}"), format!("{again:?}"));
    true
}

pub(crate) fn label_heads() -> Vec<Vec<u8>> {
    let head = |file: Vec<u8>| {
        let part = places(&file)?.parts.into_iter().next()?;
        let at = part.offset as usize + part.blocks_len as usize;
        let head = file.get(at..at + part.head_len as usize)?;
        Some([&part.blocks_len.to_le_bytes(), head].concat())
    };
    files().into_iter().filter_map(head).collect()
}

/// A block of a label's values.
pub(crate) fn label_values(data: &[u8]) -> bool {
    let part = part(0);
    let mut values = Values::new(data, &part);
    let mut is_whole = !data.is_empty();
    while let Some(value) = values.next() {
        let Ok((value, rows)) = value else { return false };
        assert!(value.len() <= model::LABEL_VALUE_BYTES_MAX);
        let mut set = RoaringBitmap::new();
        is_whole &= rows.add_to(&mut set).is_ok();
        assert!(set.max().is_none_or(|last| last < PART_ROWS));
    }
    is_whole
}

pub(crate) fn label_blocks() -> Vec<Vec<u8>> {
    let block = |file: Vec<u8>| {
        let part = places(&file)?.parts.into_iter().next()?;
        let at = part.offset as usize + part.blocks_len as usize;
        let labels = decode_head(file.get(at..at + part.head_len as usize)?, &part).ok()?;
        let block = labels.last()?.blocks.first()?;
        let at = part.offset as usize + block.offset as usize;
        file.get(at..at + block.len as usize).map(<[u8]>::to_vec)
    };
    // The last has its rows as a bitmap.
    files().into_iter().filter_map(block).collect()
}
