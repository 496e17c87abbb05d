//! What holds of a journal's bytes whatever they are; see `crate::fuzz`.

use super::frame::{
    FrameHead, SampleEncoder, decode_definitions, decode_samples, define_client, define_series,
};
use super::head::{FileHead, HEAD_BYTES, HeadFound};
use super::{ClientNumber, JournalPosition, OnDamage, Previous, Replay, file_path, folder, recover};
use crate::disk::{Disk, DiskFile, SimDisk, ready};
use crate::fuzz::{bits, history};
use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Stamp};

const RUN: u64 = 1;
const FILE_BYTES: usize = 3 * HEAD_BYTES;

/// A copy of a file's head, whose checksum is put right first.
pub(crate) fn file_head(data: &[u8]) -> bool {
    const COPY_BYTES: usize = 80;
    let _ = FileHead::find(data, 1, 2);
    let Some(copy) = data.first_chunk::<COPY_BYTES>() else { return false };
    let mut block = [0; HEAD_BYTES];
    block[..COPY_BYTES].copy_from_slice(copy);
    let crc = crc32c::crc32c(&copy[..COPY_BYTES - 4]);
    block[COPY_BYTES - 4..COPY_BYTES].copy_from_slice(&crc.to_le_bytes());
    let sequence = u64::from_le_bytes(*copy[24..].first_chunk().expect("80 bytes are more than 32"));
    let HeadFound::Good(head) = FileHead::find(&block, u16::from_le_bytes([copy[12], copy[13]]), sequence)
    else {
        return false;
    };
    assert_eq!(FileHead::find(&head.encode(), head.loop_index, head.sequence), HeadFound::Good(head));
    true
}

fn head(sequence: u64, previous: Previous) -> FileHead {
    FileHead { run: RUN, loop_index: 0, sequence, first_offset: 0, file_bytes: FILE_BYTES as u64, previous }
}

pub(crate) fn file_heads() -> Vec<Vec<u8>> {
    let end = JournalPosition { sequence: 1, offset: 8_192 };
    let previous = Previous { end, synced: 4_096, abandoned: true };
    [head(1, Previous::default()), head(2, previous)].map(|head| head.encode()[..80].to_vec()).to_vec()
}

/// Two bytes say how many of the others define series and clients; samples are behind them.
pub(crate) fn frame_payload(data: &[u8]) -> bool {
    let Some((defining, payload)) = data.split_first_chunk() else { return false };
    let (definitions, samples) =
        payload.split_at(payload.len().min(usize::from(u16::from_le_bytes(*defining))));
    let mut again = Vec::new();
    let mut clients = Vec::new();
    let read = decode_definitions(
        definitions,
        |number, kind, labels| define_series(&mut again, number, kind, labels.bytes()),
        |number, client| define_client(&mut clients, number, client),
    );
    if let Err(error) = read {
        assert!(error.at <= definitions.len(), "{error}");
        return false;
    }
    // In another order, where they were mixed.
    again.extend(clients);
    assert!(again.len() <= definitions.len(), "as short as ever");
    let Some(read) = read_samples(samples) else { return false };
    let mut encoder = SampleEncoder::default();
    encoder.begin_batch(ClientNumber(3));
    read.iter().for_each(|(number, sample)| encoder.push(*number, *sample));
    assert_eq!(encoder.records() as usize, read.len());
    let back = read_samples(encoder.bytes()).expect("samples just encoded are some");
    assert!(read.iter().map(|(number, _)| number).eq(back.iter().map(|(number, _)| number)));
    let samples = |read: &[(SeriesNumber, Sample)]| bits(&read.iter().map(|(_, s)| *s).collect::<Vec<_>>());
    assert_eq!(samples(&read), samples(&back));
    true
}

fn read_samples(bytes: &[u8]) -> Option<Vec<(SeriesNumber, Sample)>> {
    let mut read = Vec::new();
    match decode_samples(bytes, |_| (), |number, sample| read.push((number, sample))) {
        Ok(()) => Some(read),
        Err(error) => {
            assert!(error.at <= bytes.len(), "{error}");
            None
        }
    }
}

/// Definitions and samples of a few series.
fn payload(series: u32, samples: i64) -> (Vec<u8>, Vec<u8>) {
    let mut definitions = Vec::new();
    define_client(&mut definitions, ClientNumber(0), b"client");
    for n in 0..series {
        let labels = LabelSet::new("cpu_usage", &[("n", &n.to_string())]).expect("labels as they should be");
        define_series(&mut definitions, SeriesNumber(n), MetricKind::Counter, labels.as_ref().bytes());
    }
    let mut encoder = SampleEncoder::default();
    encoder.begin_batch(ClientNumber(0));
    for sample in history(samples) {
        (0..series).for_each(|n| encoder.push(SeriesNumber(n), sample));
    }
    (definitions, encoder.bytes().to_vec())
}

pub(crate) fn frame_payloads() -> Vec<Vec<u8>> {
    [(1, 1), (3, 7), (2, 200)]
        .map(|(series, samples)| {
            let (definitions, samples) = payload(series, samples);
            [&(definitions.len() as u16).to_le_bytes()[..], &definitions, &samples].concat()
        })
        .to_vec()
}

/// What a guess writes into a journal: the bytes are read as such steps, one behind the other.
///
/// ```text
///   0  a frame       definition bytes u16 │ payload bytes u16 │ records │ offset less than it should be │ synced │ payload
///   1  bare bytes    bytes u16 │ bytes
///   2  the next file
/// ```
fn write(data: &[u8], disk: &SimDisk) -> std::io::Result<()> {
    ready(disk.create_dir(&folder(0)))?;
    let (mut sequence, mut file) = (1, vec![0; FILE_BYTES]);
    file[..HEAD_BYTES].copy_from_slice(&head(1, Previous::default()).encode());
    let (mut at, mut offset, mut nanos) = (HEAD_BYTES, 0u64, 0);
    let mut rest = data;
    while let Some((&step, behind)) = rest.split_first() {
        rest = behind;
        let bytes = match (step, rest.split_first_chunk::<7>()) {
            (0, Some((head, behind))) => {
                let length = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
                let payload = &behind[..length(2).min(behind.len())];
                rest = &behind[payload.len()..];
                nanos += 1;
                let head = FrameHead {
                    payload_bytes: payload.len() as u32,
                    definition_bytes: length(0).min(payload.len()) as u32,
                    records: u32::from(head[4]),
                    first_offset: offset.wrapping_sub(u64::from(head[5])),
                    stamp: Stamp { run: RUN, nanos, loop_index: 0 },
                    synced_through: u32::from(head[6]) * 64,
                    payload_crc: crc32c::crc32c(payload),
                };
                offset = head.first_offset.wrapping_add(u64::from(head.records));
                let mut frame = head.encode(sequence, at as u64).to_vec();
                frame.extend_from_slice(payload);
                frame
            }
            (1, Some((head, behind))) => {
                let len = usize::from(u16::from_le_bytes([head[0], head[1]])).min(behind.len());
                rest = &behind[len..];
                behind[..len].to_vec()
            }
            (2, _) if sequence < 4 => {
                put(disk, sequence, &file)?;
                let previous = Previous {
                    end: JournalPosition { sequence, offset: at as u64 },
                    synced: at as u64,
                    abandoned: false,
                };
                sequence += 1;
                let next = FileHead { first_offset: offset, ..head(sequence, previous) };
                file = vec![0; FILE_BYTES];
                file[..HEAD_BYTES].copy_from_slice(&next.encode());
                at = HEAD_BYTES;
                continue;
            }
            _ => continue,
        };
        let end = (at + bytes.len()).min(file.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
        at = end.next_multiple_of(super::FRAME_ALIGN).min(FILE_BYTES);
    }
    put(disk, sequence, &file)
}

fn put(disk: &SimDisk, sequence: u64, bytes: &[u8]) -> std::io::Result<()> {
    let file = ready(disk.create(&file_path(0, sequence)))?;
    ready(file.write_at(0, bytes))?;
    ready(file.sync())
}

/// A journal of frames that hold anything: recovery ends, what it leaves is found again as it is, and replay ends.
pub(crate) fn replay(data: &[u8]) -> bool {
    let disk = SimDisk::new(1);
    write(data, &disk).expect("a disk without faults takes a few kilobytes");
    let Ok(recovered) = ready(recover(&disk, 0, OnDamage::Skip)) else { return false };
    let runs = |recovered: &super::Recovered| -> Vec<_> {
        recovered
            .files
            .iter()
            .flat_map(|file| file.runs.clone())
            .map(|run| (run.bytes, run.records))
            .collect()
    };
    let found = runs(&recovered);
    assert!(found.iter().all(|(bytes, records)| bytes.start < bytes.end && records.start <= records.end));
    let again = ready(recover(&disk, 0, OnDamage::Skip)).expect("what recovery left is a journal");
    assert!(runs(&again) == found, "{found:?} and then {again:?}");
    // What is damaged is told at each start.
    assert!(again.torn.is_none() || !again.damage.is_empty(), "{again:?}");
    let mut share = Share::default();
    let Ok(mut replay) = Replay::open(&disk, &[again], &[], &[]) else { return false };
    let mut samples = 0;
    // A frame takes a head at least, and the bytes are few.
    for _ in 0..data.len() + 1 {
        match ready(replay.next(&mut share, |_| true)) {
            Ok(Some(_)) => samples += share.len(),
            Ok(None) => return samples > 0,
            Err(_) => return false,
        }
    }
    panic!("replay does not end");
}

pub(crate) fn replays() -> Vec<Vec<u8>> {
    let (definitions, samples) = payload(2, 3);
    let length = |bytes: usize| (bytes as u16).to_le_bytes();
    let mut frame = vec![0];
    frame.extend(length(definitions.len()));
    frame.extend(length(definitions.len() + samples.len()));
    frame.extend([6, 0, 0]);
    frame.extend([&definitions[..], &samples].concat());
    let junk = [&[1][..], &length(20), &[0; 5], &[7; 20]].concat();
    vec![
        frame.clone(),
        [&frame[..], &frame].concat(),
        [&frame[..], &[2], &frame].concat(),
        [&frame[..], &junk, &frame].concat(),
    ]
}
