//! What holds of a checkpoint's bytes whatever they are; see `crate::fuzz`.

use super::layout::{BLOCK_ALIGN, BLOCK_HEAD_BYTES, BlockHead, BlockKind, HEAD_BYTES, Head};
use super::series::{Record, Records, SeriesRecord};
use super::{CHECKPOINTS_FOLDER, CheckpointEntry, LoopNumbers, Pace, SeriesBlock, checkpoint_path};
use crate::disk::{Disk, DiskFile, SimDisk, ready};
use crate::fuzz::{bits, history};
use crate::memtable::SeriesId;
use crate::store::{Piece, Store, StoreOptions};
use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Stamp, Timestamp};

const ID: u64 = 3;
const PACE: Pace = Pace { rows_per_step: 8, block_bytes: 400 };

fn store(disk: &SimDisk) -> Store<SimDisk> {
    Store::new(disk.clone(), 0, 1, StoreOptions { memory_bytes_max: 64 << 20 }, Box::new(|_| 0))
}

/// A checkpoint of what is in memory.
fn write(store: &Store<SimDisk>, disk: &SimDisk, id: u64) -> Option<(CheckpointEntry, Vec<u8>)> {
    let mut job = store.begin_checkpoint(id, PACE)?;
    let entry = loop {
        if let Some(entry) = ready(job.step()).expect("a disk without faults takes a small checkpoint") {
            break entry;
        }
    };
    Some((entry, disk.contents(&checkpoint_path(id)).unwrap_or_default()))
}

fn labels(n: u32) -> LabelSet {
    let labels = [("job", "node"), ("n", &*n.to_string())];
    LabelSet::new(["cpu", "mem"][n as usize % 2], &labels).expect("labels as they should be")
}

pub(crate) fn files() -> Vec<Vec<u8>> {
    let file = |series: u32, samples: i64| {
        let disk = SimDisk::new(1);
        let mut store = store(&disk);
        let mut share = Share::default();
        (share.stamp, share.dictionary) = (Stamp { run: 1, nanos: 1, loop_index: 0 }, 7);
        for n in 0..series {
            share.define(SeriesNumber(n), MetricKind::Counter, labels(n).as_ref());
            // The last is late.
            let samples = history(samples);
            samples[1..].iter().chain(&samples[..1]).for_each(|sample| share.push(SeriesNumber(n), *sample));
        }
        store.apply(0, &share, &mut |_, _, _| {});
        write(&store, &disk, ID).map(|(_, bytes)| bytes)
    };
    [file(1, 1), file(3, 5), file(2, 300)].into_iter().flatten().collect()
}

/// Everything in memory, as text and bits.
fn contents(store: &Store<SimDisk>) -> Vec<(String, Vec<(i64, u64)>)> {
    let mut all: Vec<(String, Vec<(i64, u64)>)> = Vec::new();
    for name in ["cpu", "mem"] {
        let mut selection = store.select(name, &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
        let mut piece = Piece::default();
        while ready(selection.next_piece(&mut piece)) {
            if let Some(series) = &piece.begins {
                all.push((format!("{:?} {:?} {:?}", series.labels, series.kind, series.arrival), Vec::new()));
            }
            if let Some((_, samples)) = all.last_mut() {
                samples.extend(bits(&piece.samples));
            }
        }
    }
    all
}

/// A whole file, whose checksums are put right as far as its own lengths lead: what is loaded can be asked, and is the
/// same after another checkpoint.
pub(crate) fn file(data: &[u8]) -> bool {
    let bytes = mended(data);
    let load = |bytes: &[u8], id: u64| {
        let disk = SimDisk::new(1);
        let write = async {
            disk.create_dir(CHECKPOINTS_FOLDER).await?;
            disk.create(&checkpoint_path(id)).await?.write_at(0, bytes).await
        };
        ready(write).expect("a disk without faults takes a small file");
        let entry = CheckpointEntry { id, shards: 1, shard: 0, bytes: bytes.len() as u64 };
        let mut store = store(&disk);
        let loaded = ready(store.load_checkpoint(&entry));
        loaded.ok().map(|loaded| (store, disk, loaded))
    };
    let Some((store, disk, loaded)) = load(&bytes, ID) else { return false };
    for damaged in &loaded.damaged {
        assert!(!damaged.to_string().is_empty());
    }
    let held = contents(&store);
    if let Some((_, again)) = write(&store, &disk, ID + 1) {
        let (again, _, loaded) = load(&again, ID + 1).expect("a checkpoint comes back");
        // A chunk that says other times than it holds is told by nothing but its checksum, which was put right.
        if loaded.damaged.is_empty() {
            assert_eq!(held, contents(&again));
        }
    }
    loaded.damaged.is_empty() && loaded.samples > 0
}

fn mended(data: &[u8]) -> Vec<u8> {
    let mut file = data.to_vec();
    if file.len() < HEAD_BYTES {
        return file;
    }
    file[..HEAD_BYTES].copy_from_slice(&Head { id: ID, shards: 1, shard: 0 }.encode());
    let mut at = HEAD_BYTES;
    while let Some(head) = file.get(at..at + BLOCK_HEAD_BYTES) {
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let i64_at = |at: usize| i64::from(u32_at(at)) | i64::from(u32_at(at + 4)) << 32;
        let kind =
            [BlockKind::Numbers, BlockKind::Series, BlockKind::End][u32_at(0).wrapping_sub(1) as usize % 3];
        let payload_bytes = u32_at(4).min((file.len() - at - BLOCK_HEAD_BYTES) as u32);
        let begin = at + BLOCK_HEAD_BYTES;
        let payload_crc = crc32c::crc32c(&file[begin..begin + payload_bytes as usize]);
        let head = BlockHead {
            kind,
            payload_bytes,
            series: u32_at(8),
            payload_crc,
            min_ms: i64_at(16),
            max_ms: i64_at(24),
        };
        file[at..begin].copy_from_slice(&head.encode(ID, at as u64));
        at = (begin + payload_bytes as usize).next_multiple_of(BLOCK_ALIGN);
    }
    file
}

/// Which payloads of a kind the files hold.
fn payloads(kind: BlockKind) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for file in files() {
        let mut at = HEAD_BYTES;
        while let Some(head) = file.get(at..).and_then(|bytes| BlockHead::decode(bytes, ID, at as u64)) {
            let begin = at + BLOCK_HEAD_BYTES;
            if head.kind == kind {
                all.push(file[begin..begin + head.payload_bytes as usize].to_vec());
            }
            at += head.block_bytes();
        }
    }
    all
}

/// A block of series.
pub(crate) fn series(data: &[u8]) -> bool {
    let mut block = SeriesBlock::with_target(1 << 20);
    let Some(read) = read_series(data, &mut block) else { return false };
    let mut again = Vec::new();
    let head = block.take(&mut again);
    assert_eq!(head.payload_bytes as usize, again.len());
    let back = read_series(&again, &mut block).expect("a block just made is one");
    assert_eq!(read, back);
    !read.is_empty()
}

/// The records as text and bits, each put into the block too.
fn read_series(payload: &[u8], block: &mut SeriesBlock) -> Option<Vec<String>> {
    let (mut records, mut read) = (Records::new(payload), Vec::new());
    loop {
        read.push(match records.next().ok()? {
            None => return Some(read),
            Some(Record::Series(SeriesRecord { id, labels, kind, arrival, .. })) => {
                block.begin_series(id, labels, kind, arrival);
                format!("{id} {labels:?} {kind:?} {arrival:?}")
            }
            Some(Record::Late(samples)) => {
                block.late(samples);
                format!("late {:?}", bits(samples))
            }
            Some(Record::Chunk(chunk)) => {
                block.chunk(&chunk);
                let samples: Result<Vec<Sample>, _> = chunk.samples().collect();
                format!("chunk {:?}", samples.map(|samples| bits(&samples)))
            }
            Some(Record::Open(chunk)) => {
                block.open(&chunk);
                let samples: Result<Vec<Sample>, _> = chunk.seal().samples().collect();
                format!("open {} {:?}", chunk.is_sound(), samples.map(|samples| bits(&samples)))
            }
        });
    }
}

pub(crate) fn series_blocks() -> Vec<Vec<u8>> {
    payloads(BlockKind::Series)
}

/// A block of the loops' numbers.
pub(crate) fn numbers(data: &[u8]) -> bool {
    let mut all = Vec::new();
    let Some(count) = LoopNumbers::decode_into(data, &mut all) else { return false };
    let [numbers] = &all[..] else { panic!("one block is of one loop") };
    assert_eq!(numbers.series.len() as u64, count);
    let (mut again, mut back) = (Vec::new(), Vec::new());
    assert_eq!(numbers.encode(0, &mut again) as u64, count);
    assert_eq!(LoopNumbers::decode_into(&again, &mut back), Some(count));
    assert_eq!(all, back);
    true
}

pub(crate) fn numbers_blocks() -> Vec<Vec<u8>> {
    let mut others = Vec::new();
    let series = [4, u32::MAX, 0, 70_000].map(SeriesId).to_vec();
    LoopNumbers { loop_index: 1, dictionary: 9, series }.encode(0, &mut others);
    [payloads(BlockKind::Numbers), vec![others]].concat()
}
