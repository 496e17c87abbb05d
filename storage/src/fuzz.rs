//! What must hold of every decoder of this crate whatever bytes it gets: one body each, fed by guessing (`bench/fuzz`).
//!
//! Always: a body panics where a promise is broken, and nowhere else; it says whether its bytes were taken, so that a
//! test can tell that its seeds are. A checksum would stop every guess, so bodies begin behind it, or mend it first.
//! Promised everywhere: no panic, no memory by a count alone, and what is decoded comes back the same when it is encoded.
//! Not here: who guesses, and how.
//! Read next: `journal/fuzz.rs`, `segment/fuzz.rs` and `checkpoint/fuzz.rs` for what their modules keep to themselves.

use crate::checkpoint::fuzz as checkpoint;
use crate::chunk::{Chunk, OpenChunk, Samples};
use crate::column::{COLUMN_SAMPLES_MAX, ColumnName, Heat, Scratch};
use crate::column::{decode_clock, decode_values, encode_clock, encode_values};
use crate::journal::fuzz as journal;
use crate::manifest::{CheckpointEntry, Manifest, ManifestError, SegmentEntry, Tombstone};
use crate::segment::fields::Fields;
use crate::segment::fuzz as segment;
use model::{Sample, Timestamp};

/// Holds bytes against what is promised of their decoder; whether they were taken.
pub type Body = fn(&[u8]) -> bool;

/// Some bytes that are taken, from which guessing starts.
pub type Seeds = fn() -> Vec<Vec<u8>>;

/// Each decoder's name, body and seeds.
pub const TARGETS: &[(&str, Body, Seeds)] = &[
    ("journal-head", journal::file_head, journal::file_heads),
    ("journal-frame", journal::frame_payload, journal::frame_payloads),
    ("journal-replay", journal::replay, journal::replays),
    ("chunk", chunk, chunks),
    ("chunk-state", chunk_state, chunk_states),
    ("column-clock", clock, clocks),
    ("column-values", values, columns),
    ("segment", segment::file, segment::files),
    ("segment-ends", segment::ends, segment::all_ends),
    ("segment-index", segment::index, segment::indexes),
    ("segment-directory", segment::directory, segment::directories),
    ("segment-filter", segment::filter, segment::filters),
    ("segment-label-head", segment::label_head, segment::label_heads),
    ("segment-label-values", segment::label_values, segment::label_blocks),
    ("checkpoint", checkpoint::file, checkpoint::files),
    ("checkpoint-series", checkpoint::series, checkpoint::series_blocks),
    ("checkpoint-numbers", checkpoint::numbers, checkpoint::numbers_blocks),
    ("manifest", manifest, manifests),
];

/// Samples as bits, for a NaN is not equal to itself.
pub(crate) fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
    samples.iter().map(|sample| (sample.timestamp.ticks(), sample.value.to_bits())).collect()
}

/// A plain history: steady times with one in between, values of several kinds, one of them late.
pub(crate) fn history(count: i64) -> Vec<Sample> {
    let ticks =
        |i: i64| (1_700_000_000_000 + i * 1_000) * model::TICKS_PER_MILLI + i64::from(i % 7 == 3) * 17;
    let value = |i: i64| [i as f64, 0.1 * i as f64, f64::NAN, -0.0, 85.0][i as usize % 5];
    (0..count).map(|i| Sample { timestamp: Timestamp::from_ticks(ticks(i)), value: value(i) }).collect()
}

/// A byte says how many samples, the others are the chunk.
fn chunk(data: &[u8]) -> bool {
    let Some((&count, bytes)) = data.split_first() else { return false };
    let mut samples = vec![Sample { timestamp: Timestamp::MIN, value: 7.0 }];
    let one_by_one: Result<Vec<Sample>, _> = Samples::new(bytes, u32::from(count)).collect();
    let at_once = Samples::new(bytes, u32::from(count)).decode_into(&mut samples);
    assert_eq!(samples.remove(0).value, 7.0, "what was there stays");
    match one_by_one {
        Ok(one_by_one) => {
            assert!(at_once.is_ok() && bits(&one_by_one) == bits(&samples));
        }
        Err(error) => {
            assert!(at_once == Err(error) && samples.is_empty());
            return false;
        }
    }
    assert!(samples.is_sorted_by(|a, b| a.timestamp < b.timestamp));
    let (mut again, mut back) = (Vec::new(), Vec::new());
    Chunk::encode_into(&samples, &mut again);
    for chunk in &again {
        chunk.samples().decode_into(&mut back).expect("a chunk just made is one");
    }
    assert_eq!(bits(&samples), bits(&back));
    !samples.is_empty()
}

fn chunks() -> Vec<Vec<u8>> {
    let mut whole = Vec::new();
    let samples: Vec<Sample> = history(200).into_iter().filter(|s| s.timestamp.fine() == 0).collect();
    Chunk::encode_into(&samples, &mut whole);
    Chunk::encode_into(&history(40)[3..], &mut whole);
    let mut seeds: Vec<Vec<u8>> =
        whole.iter().map(|chunk| [&[chunk.count() as u8], chunk.bytes()].concat()).collect();
    // A steady one is the same in the form of earlier versions.
    let mut steady = OpenChunk::new(history(1)[0]);
    history(3)[1..].iter().try_for_each(|sample| steady.append(*sample)).expect("few, and all whole");
    let (earlier, later) = (0, 2);
    let steady = steady.seal();
    assert_eq!(steady.bytes()[0], later);
    seeds.push([&[steady.count() as u8, earlier], &steady.bytes()[1..]].concat());
    seeds
}

/// A closed chunk, or an open one, as a checkpoint has it.
fn chunk_state(data: &[u8]) -> bool {
    let mut taken = false;
    let mut fields = Fields(data);
    if let Some(chunk) = Chunk::decode(&mut fields) {
        let mut again = Vec::new();
        chunk.encode(&mut again);
        let back = Chunk::decode(&mut Fields(&again)).expect("a chunk comes back");
        assert_eq!((back.bytes(), back.count()), (chunk.bytes(), chunk.count()));
        assert_eq!((back.first(), back.last()), (chunk.first(), chunk.last()));
        taken = chunk.samples().all(|sample| sample.is_ok());
    }
    if let Some(mut chunk) = OpenChunk::decode(&mut Fields(data)) {
        let is_sound = chunk.is_sound();
        let next = Timestamp::from_ticks(chunk.last().timestamp.ticks().saturating_add(1 << 20));
        let before = chunk.seal();
        let appended = chunk.append(Sample { timestamp: next, value: 0.5 });
        if is_sound {
            let samples: Result<Vec<Sample>, _> = chunk.seal().samples().collect();
            let samples = samples.expect("a sound chunk takes a sample and can be read");
            assert_eq!(samples.len() as u32, before.count() + u32::from(appended.is_ok()));
            taken = true;
        }
    }
    taken
}

fn chunk_states() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for samples in [&history(3)[..], &history(40)[3..], &history(1)] {
        let mut open = OpenChunk::new(samples[0]);
        let _ = samples[1..].iter().try_for_each(|sample| open.append(*sample));
        let (mut state, mut closed) = (Vec::new(), Vec::new());
        open.encode(&mut state);
        open.seal().encode(&mut closed);
        all.extend([state, closed]);
    }
    all
}

/// Two bytes say how many samples, the others are the clock.
fn clock(data: &[u8]) -> bool {
    let Some((count, bytes)) = data.split_first_chunk() else { return false };
    let count = usize::from(u16::from_le_bytes(*count));
    let mut scratch = Scratch::default();
    let Ok(ticks) = decode_clock(bytes, count, &mut scratch) else { return false };
    let times: Vec<Timestamp> = ticks.iter().map(|ticks| Timestamp::from_ticks(*ticks)).collect();
    assert!(times.len() == count && times.is_sorted_by(|a, b| a < b));
    let mut again = Vec::new();
    encode_clock(&times, &mut scratch, &mut again);
    let back = decode_clock(&again, count, &mut scratch).expect("a clock just made is one");
    assert!(times.iter().map(|time| time.ticks()).eq(back.iter().copied()));
    true
}

fn clocks() -> Vec<Vec<u8>> {
    let of = |times: Vec<Timestamp>| {
        let mut bytes = (times.len() as u16).to_le_bytes().to_vec();
        encode_clock(&times, &mut Scratch::default(), &mut bytes);
        bytes
    };
    let times: Vec<Timestamp> = history(100).iter().map(|sample| sample.timestamp).collect();
    let steady: Vec<Timestamp> = times.iter().copied().filter(|time| time.fine() == 0).collect();
    vec![of(times[..1].to_vec()), of(steady), of(times)]
}

/// A byte is the column's name, two say how many samples, the others are the column.
fn values(data: &[u8]) -> bool {
    let Some((head, bytes)) = data.split_first_chunk::<3>() else { return false };
    let count = usize::from(u16::from_le_bytes([head[1], head[2]]));
    let Some(name) = ColumnName::from_byte(head[0]) else { return false };
    let mut scratch = Scratch::default();
    let mut decoded = vec![0.0; count];
    if decode_values(name, bytes, &mut scratch, &mut decoded).is_err() {
        return false;
    }
    assert!((1..=COLUMN_SAMPLES_MAX).contains(&count));
    for heat in [Heat::Fresh, Heat::Cold] {
        let (mut again, mut back) = (Vec::new(), vec![0.0; count]);
        let name = encode_values(&decoded, heat, &mut scratch, &mut again);
        decode_values(name, &again, &mut scratch, &mut back).expect("a column just made is one");
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<u64>>();
        assert_eq!(bits(&decoded), bits(&back), "{name:?}");
    }
    true
}

fn columns() -> Vec<Vec<u8>> {
    let of = |heat: Heat, value: &dyn Fn(i32) -> f64| {
        let values: Vec<f64> = (0..200).map(value).collect();
        let mut bytes = Vec::new();
        let name = encode_values(&values, heat, &mut Scratch::default(), &mut bytes);
        [&[name.to_byte()], &(values.len() as u16).to_le_bytes()[..], &bytes].concat()
    };
    let noise = |i: i32| f64::from_bits((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
    vec![
        of(Heat::Fresh, &|_| 85.0),
        of(Heat::Fresh, &|i| f64::from(i * i % 97) * 0.01),
        of(Heat::Fresh, &|i| 1.0 / f64::from(i % 3 + 3)),
        of(Heat::Fresh, &noise),
        of(Heat::Fresh, &|i| if i % 50 == 0 { noise(i) } else { 1.0 / 3.0 }),
        of(Heat::Cold, &|i| f64::from((i % 25) * (i % 25) * 131 % 997)),
    ]
}

/// Bytes of a manifest, whose checksums are put right first.
fn manifest(data: &[u8]) -> bool {
    const HEAD_BYTES: usize = 24;
    let mut bytes = data.to_vec();
    if let Some((head, body)) = bytes.split_at_mut_checked(HEAD_BYTES) {
        head[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
        head[16..20].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        let crc = crc32c::crc32c(&head[..20]);
        head[20..].copy_from_slice(&crc.to_le_bytes());
    }
    match Manifest::decode(&bytes) {
        Ok(manifest) => {
            let again = Manifest::decode(&manifest.encode()).expect("a manifest comes back");
            assert_eq!(manifest, again);
            let _ = (manifest.lowest_position(1), manifest.highest_position(2), manifest.checkpoint(0));
            true
        }
        Err(ManifestError::Damaged { at, .. }) => {
            assert!(at <= bytes.len() as u64, "the place lies within the file");
            false
        }
        Err(_) => false,
    }
}

fn manifests() -> Vec<Vec<u8>> {
    let mut full = Manifest::new(2);
    let segment = |id| SegmentEntry {
        id,
        shards: 2,
        shard: (id % 2) as u16,
        min_ms: 5,
        max_ms: 9_000,
        bytes: 4_096,
        newest: id,
        deletes_through: 0,
    };
    full.segments = (1..5).map(segment).collect();
    let selector = "{__name__=\"cpu\"}".to_owned();
    full.deletes.push(Tombstone { id: 7, shards: 2, shard: 1, start_ms: 0, end_ms: 50, selector });
    full.checkpoints.push(CheckpointEntry { id: 8, shards: 2, shard: 0, bytes: 512 });
    full.believed_ms = Some(1_700_000_000_000);
    vec![Manifest::new(1).encode(), full.encode()]
}
