//! The bytes of a frame: one turn's accepted samples behind a checked head.
//!
//! Owner: nobody; functions over bytes, used by the writer, by recovery and by replay.
//! Always: a head verifies only at the position and in the file for which it was made, so stale bytes of
//! another file, or of a frame moved, are never taken for a frame; decoders bear any bytes.
//! Read next: `docs/format/journal.md` draws every field.

use model::{LabelSetRef, MetricKind, Sample, SeriesNumber, Stamp, TICKS_PER_MILLI, Timestamp};
use std::fmt;

/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 48;
/// Frames begin at multiples of this, so that a search for the next one knows where to look.
pub const FRAME_ALIGN: usize = 8;
/// No sample takes more bytes than this, and writing one touches no more.
pub const SAMPLE_BYTES_MAX: usize = 40;
/// Samples behind one count byte.
const GROUP_SAMPLES_MAX: usize = 255;
/// Tag, client (varint), count.
const GROUP_HEAD_BYTES_MAX: usize = 1 + 5 + 1;
/// Tag, number (varint), kind, length (varint) around a definition's bytes.
const DEFINITION_HEAD_BYTES_MAX: usize = 1 + 5 + 1 + 5;

const _: () = assert!(FRAME_HEAD_BYTES.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(SAMPLE_BYTES_MAX >= 1 + 5 + 10 + 8 + 8, "a value is stored by a whole word");

const TAG_SERIES: u8 = 1;
const TAG_CLIENT: u8 = 2;
const TAG_FLOATS: u8 = 3;
const TAG_FLOATS_CONTINUED: u8 = 4;

// A sample's first byte: value bytes in bits 0-3, how its time is told in bits 4-5, its number in bits 6-7.
const TIME_SAME: u8 = 0 << 4;
const TIME_MILLIS: u8 = 1 << 4;
const TIME_TICKS: u8 = 2 << 4;
const NUMBER_SAME: u8 = 0 << 6;
const NUMBER_NEXT: u8 = 1 << 6;
const NUMBER_DELTA: u8 = 2 << 6;

/// The number under which a journal file knows who sent a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientNumber(pub u32);

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes behind the head, padding not counted; at least 1.
    pub payload_bytes: u32,
    /// The first of them that define series and clients.
    pub definition_bytes: u32,
    /// Samples in the frame.
    pub records: u32,
    /// Offset of the first of them.
    pub first_offset: u64,
    /// When the turn was journaled.
    pub stamp: Stamp,
    /// Up to here this file, and every earlier one, was known to be on the device when the frame was made;
    /// 0 when nothing of this file was.
    pub synced_through: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
}

/// Bytes that pass their checksum and are no payload: a bug in what wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where in the payload.
    pub at: usize,
    /// What should have stood there.
    pub expected: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the payload: expected {}", self.at, self.expected)
    }
}

/// A bound on what a batch takes in the open frame: `label_bytes` of all its label sets, as if none was
/// known, and the client's own bytes.
pub const fn batch_bytes_max(samples: usize, label_bytes: usize, client_bytes: usize) -> usize {
    let groups = samples / GROUP_SAMPLES_MAX + 1;
    samples * (SAMPLE_BYTES_MAX + DEFINITION_HEAD_BYTES_MAX)
        + label_bytes
        + groups * GROUP_HEAD_BYTES_MAX
        + DEFINITION_HEAD_BYTES_MAX
        + client_bytes
}

/// Bytes from a frame's start to where the next may begin.
pub(super) const fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEAD_BYTES + payload_bytes).next_multiple_of(FRAME_ALIGN)
}

/// What a head's checksum starts from: it differs for every place in every file.
fn crc_seed(loop_index: u16, sequence: u64, position: u64) -> u32 {
    let mut place = [0; 18];
    place[..8].copy_from_slice(&sequence.to_le_bytes());
    place[8..16].copy_from_slice(&position.to_le_bytes());
    place[16..].copy_from_slice(&loop_index.to_le_bytes());
    crc32c::crc32c(&place)
}

impl FrameHead {
    /// The head's bytes for that place.
    pub(super) fn encode(&self, sequence: u64, position: u64) -> [u8; FRAME_HEAD_BYTES] {
        let mut bytes = [0; FRAME_HEAD_BYTES];
        bytes[0..4].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.definition_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first_offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stamp.run.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.stamp.nanos.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.records.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.synced_through.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        let seed = crc_seed(self.stamp.loop_index, sequence, position);
        let crc = crc32c::crc32c_append(seed, &bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The head at that place, if one stands there.
    pub fn decode(bytes: &[u8], loop_index: u16, sequence: u64, position: u64) -> Option<FrameHead> {
        let bytes: &[u8; FRAME_HEAD_BYTES] = bytes.first_chunk()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let (payload_bytes, definition_bytes) = (u32_at(0), u32_at(4));
        // Most places that are looked at are zeros, so this goes before the checksum.
        if payload_bytes == 0 || definition_bytes > payload_bytes {
            return None;
        }
        let seed = crc_seed(loop_index, sequence, position);
        if u32_at(44) != crc32c::crc32c_append(seed, &bytes[..44]) {
            return None;
        }
        Some(FrameHead {
            payload_bytes,
            definition_bytes,
            records: u32_at(32),
            first_offset: u64_at(8),
            stamp: Stamp { run: u64_at(16), nanos: u64_at(24), loop_index },
            synced_through: u32_at(36),
            payload_crc: u32_at(40),
        })
    }

    /// Whether these are the payload's bytes.
    pub fn holds(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize && crc32c::crc32c(payload) == self.payload_crc
    }

    /// Bytes from the frame's start to where the next may begin.
    pub fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_bytes as usize) as u64
    }
}

/// The samples of the open frame, being encoded.
#[derive(Debug, Default)]
pub(super) struct SampleEncoder {
    /// Always some bytes longer than what is used: a sample is stored in whole words.
    bytes: Vec<u8>,
    used: usize,
    number: u32,
    ticks: i64,
    value: u64,
    client: u32,
    count_at: usize,
    count: usize,
    records: u32,
}

impl SampleEncoder {
    /// Forgets the frame, keeps the memory.
    pub(super) fn clear(&mut self) {
        *self = SampleEncoder { bytes: std::mem::take(&mut self.bytes), ..SampleEncoder::default() };
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    pub(super) fn begin_batch(&mut self, client: ClientNumber) {
        self.client = client.0;
        self.begin_group(TAG_FLOATS);
    }

    fn begin_group(&mut self, tag: u8) {
        self.make_room();
        self.bytes[self.used] = tag;
        self.used = put_varint(&mut self.bytes, self.used + 1, u64::from(self.client));
        self.count_at = self.used;
        self.bytes[self.count_at] = 0;
        self.used += 1;
        self.count = 0;
    }

    #[inline]
    fn make_room(&mut self) {
        if self.bytes.len() < self.used + SAMPLE_BYTES_MAX {
            self.bytes.resize((self.used + SAMPLE_BYTES_MAX) * 2, 0);
        }
    }

    /// Counts what the group holds, begins the next one when it is full, and makes room for a sample.
    #[cold]
    fn make_place(&mut self) {
        if self.count == GROUP_SAMPLES_MAX {
            self.bytes[self.count_at] = self.count as u8;
            self.begin_group(TAG_FLOATS_CONTINUED);
        }
        self.make_room();
    }

    #[inline]
    pub(super) fn push(&mut self, number: SeriesNumber, sample: Sample) {
        self.push_all(number, std::iter::once(sample));
    }

    /// Adds samples of one series. What the next sample is told from stays in registers between them.
    #[inline]
    pub(super) fn push_all(&mut self, number: SeriesNumber, samples: impl Iterator<Item = Sample>) {
        let mut number_delta = number.0.wrapping_sub(self.number) as i32;
        let (mut used, mut last_ticks, mut last_value) = (self.used, self.ticks, self.value);
        let (mut count, mut records) = (self.count, self.records);
        for sample in samples {
            if count == GROUP_SAMPLES_MAX || self.bytes.len() < used + SAMPLE_BYTES_MAX {
                (self.used, self.count) = (used, count);
                self.make_place();
                (used, count) = (self.used, self.count);
            }
            // One bounds check for the whole sample.
            let room: &mut [u8; SAMPLE_BYTES_MAX] =
                self.bytes[used..].first_chunk_mut().expect("room was made for a whole sample");
            let mut len = 1;

            let number_code = match std::mem::take(&mut number_delta) {
                0 => NUMBER_SAME,
                1 => NUMBER_NEXT,
                delta => {
                    len = put_varint(room, len, u64::from(((delta << 1) ^ (delta >> 31)) as u32));
                    NUMBER_DELTA
                }
            };

            let ticks = sample.timestamp.ticks();
            let time_code = if ticks == last_ticks {
                TIME_SAME
            } else if sample.timestamp.fine() == 0 {
                let previous = Timestamp::from_ticks(last_ticks).millis();
                len = put_varint(room, len, zigzag(sample.timestamp.millis().wrapping_sub(previous)));
                TIME_MILLIS
            } else {
                len = put_varint(room, len, zigzag(ticks.wrapping_sub(last_ticks)));
                TIME_TICKS
            };
            last_ticks = ticks;

            let bits = sample.value.to_bits();
            let value_bytes = if bits == last_value {
                0
            } else {
                // Most readings are short: whole numbers end in zero bytes. Zero itself counts as one byte,
                // since no byte means "as before".
                let value_bytes = 8 - (bits.trailing_zeros() as usize / 8).min(7);
                let stripped = bits >> (64 - 8 * value_bytes);
                room[len..len + 8].copy_from_slice(&stripped.to_le_bytes());
                value_bytes
            };
            last_value = bits;

            room[0] = value_bytes as u8 | time_code | number_code;
            used += len + value_bytes;
            count += 1;
            records += 1;
        }
        if records > self.records {
            self.number = number.0;
            (self.used, self.ticks, self.value) = (used, last_ticks, last_value);
            (self.count, self.records) = (count, records);
            self.bytes[self.count_at] = count as u8;
        }
    }
}

/// Appends the definition of a series.
pub(super) fn define_series(out: &mut Vec<u8>, number: SeriesNumber, kind: MetricKind, labels: &[u8]) {
    out.push(TAG_SERIES);
    push_varint(out, u64::from(number.0));
    out.push(kind as u8);
    push_varint(out, labels.len() as u64);
    out.extend_from_slice(labels);
}

/// Appends the definition of a client.
pub(super) fn define_client(out: &mut Vec<u8>, number: ClientNumber, client: &[u8]) {
    out.push(TAG_CLIENT);
    push_varint(out, u64::from(number.0));
    push_varint(out, client.len() as u64);
    out.extend_from_slice(client);
}

/// Reads the definitions at the start of a payload (its first [`FrameHead::definition_bytes`]), in order.
pub fn decode_definitions(
    bytes: &[u8],
    mut on_series: impl FnMut(SeriesNumber, MetricKind, LabelSetRef<'_>),
    mut on_client: impl FnMut(ClientNumber, &[u8]),
) -> Result<(), Malformed> {
    let mut at = 0;
    while at < bytes.len() {
        let tag = bytes[at];
        let number = read_u32(bytes, at + 1, "a number")?;
        match tag {
            TAG_SERIES => {
                let kind_at = number.end;
                let kind = bytes.get(kind_at).copied().and_then(MetricKind::from_byte);
                let kind = kind.ok_or(Malformed { at: kind_at, expected: "a metric kind" })?;
                let (labels, end) = read_bytes(bytes, kind_at + 1)?;
                let labels = LabelSetRef::from_bytes(labels)
                    .map_err(|_| Malformed { at: kind_at + 1, expected: "a canonical label set" })?;
                on_series(SeriesNumber(number.value), kind, labels);
                at = end;
            }
            TAG_CLIENT => {
                let (client, end) = read_bytes(bytes, number.end)?;
                on_client(ClientNumber(number.value), client);
                at = end;
            }
            _ => return Err(Malformed { at, expected: "the tag of a definition" }),
        }
    }
    Ok(())
}

/// Reads the samples behind the definitions of a payload, in order of arrival. `on_batch` is told the client
/// before the first sample of each batch.
pub fn decode_samples(
    bytes: &[u8],
    mut on_batch: impl FnMut(ClientNumber),
    mut on_sample: impl FnMut(SeriesNumber, Sample),
) -> Result<(), Malformed> {
    let (mut number, mut ticks, mut value) = (0u32, 0i64, 0u64);
    let mut at = 0;
    while at < bytes.len() {
        let tag = bytes[at];
        let client = read_u32(bytes, at + 1, "a client number")?;
        match tag {
            TAG_FLOATS => on_batch(ClientNumber(client.value)),
            TAG_FLOATS_CONTINUED => {}
            _ => return Err(Malformed { at, expected: "the tag of a batch" }),
        }
        at = client.end;
        let count = *bytes.get(at).ok_or(Malformed { at, expected: "a count of samples" })?;
        at += 1;
        for _ in 0..count {
            let start = at;
            let head = *bytes.get(at).ok_or(Malformed { at, expected: "a sample" })?;
            at += 1;
            match head & 0xc0 {
                NUMBER_SAME => {}
                NUMBER_NEXT => number = number.wrapping_add(1),
                NUMBER_DELTA => {
                    let (raw, end) = read_varint(bytes, at, "the step of a series number")?;
                    let raw = raw as u32;
                    number = number.wrapping_add((raw >> 1) ^ (raw & 1).wrapping_neg());
                    at = end;
                }
                _ => return Err(Malformed { at: start, expected: "how the series number is told" }),
            }
            match head & 0x30 {
                TIME_SAME => {}
                TIME_MILLIS => {
                    let (raw, end) = read_varint(bytes, at, "a step in milliseconds")?;
                    let millis = Timestamp::from_ticks(ticks).millis().wrapping_add(unzigzag(raw));
                    ticks = millis.wrapping_mul(TICKS_PER_MILLI);
                    at = end;
                }
                TIME_TICKS => {
                    let (raw, end) = read_varint(bytes, at, "a step in ticks")?;
                    ticks = ticks.wrapping_add(unzigzag(raw));
                    at = end;
                }
                _ => return Err(Malformed { at: start, expected: "how the time is told" }),
            }
            let value_bytes = usize::from(head & 0x0f);
            if value_bytes > 8 {
                return Err(Malformed { at: start, expected: "at most 8 bytes of value" });
            }
            if value_bytes > 0 {
                let word = if let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
                    u64::from_le_bytes(*word)
                } else {
                    let rest = bytes.get(at..at + value_bytes);
                    let rest = rest.ok_or(Malformed { at, expected: "the bytes of a value" })?;
                    let mut word = [0; 8];
                    word[..value_bytes].copy_from_slice(rest);
                    u64::from_le_bytes(word)
                };
                value = word << (64 - 8 * value_bytes);
                at += value_bytes;
            }
            let timestamp = Timestamp::from_ticks(ticks);
            on_sample(SeriesNumber(number), Sample { timestamp, value: f64::from_bits(value) });
        }
    }
    Ok(())
}

fn zigzag(delta: i64) -> u64 {
    ((delta << 1) ^ (delta >> 63)) as u64
}

fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

/// Writes a varint at `at` and says where it ends; the caller has made room.
#[inline]
fn put_varint(bytes: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        bytes[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    bytes[at] = value as u8;
    at + 1
}

fn push_varint(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; 10];
    let len = put_varint(&mut bytes, 0, value);
    out.extend_from_slice(&bytes[..len]);
}

#[inline]
fn read_varint(bytes: &[u8], at: usize, expected: &'static str) -> Result<(u64, usize), Malformed> {
    let mut value = 0;
    for (i, &byte) in bytes.get(at..).unwrap_or_default().iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok((value, at + i + 1));
        }
    }
    Err(Malformed { at, expected })
}

struct Number {
    value: u32,
    end: usize,
}

fn read_u32(bytes: &[u8], at: usize, expected: &'static str) -> Result<Number, Malformed> {
    let (value, end) = read_varint(bytes, at, expected)?;
    Ok(Number { value: u32::try_from(value).map_err(|_| Malformed { at, expected })?, end })
}

fn read_bytes(bytes: &[u8], at: usize) -> Result<(&[u8], usize), Malformed> {
    let len = read_u32(bytes, at, "a length")?;
    let end = len.end.saturating_add(len.value as usize);
    let found = bytes.get(len.end..end).ok_or(Malformed { at, expected: "a length within the payload" })?;
    Ok((found, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A series, and samples of it in a row: ticks and bits of the value.
    fn run() -> impl Strategy<Value = (u32, Vec<(i64, u64)>)> {
        let number = prop_oneof![0..20u32, any::<u32>()];
        let millis = 1_700_000_000_000i64..1_700_000_001_000;
        let ticks = prop_oneof![millis.prop_map(|millis| millis * TICKS_PER_MILLI), any::<i64>()];
        let value = prop_oneof![(-9..9i32).prop_map(|v| f64::from(v).to_bits()), any::<u64>()];
        let one = (ticks, value);
        let some = prop_oneof![
            8 => proptest::collection::vec(one.clone(), 0..3),
            1 => proptest::collection::vec(one, 0..600)
        ];
        (number, some)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Batches of any samples come back bit for bit, with their clients, in their order; and the bytes are the same
        /// whether the samples of a series are pushed together or one by one.
        #[test]
        fn batches_come_back(batches in proptest::collection::vec(
            (any::<u32>(), proptest::collection::vec(run(), 0..60)), 0..5)) {
            let (mut encoder, mut one_by_one) = (SampleEncoder::default(), SampleEncoder::default());
            let mut bound = 0;
            let mut pushed = Vec::new();
            for (client, runs) in &batches {
                encoder.begin_batch(ClientNumber(*client));
                one_by_one.begin_batch(ClientNumber(*client));
                let mut rows = Vec::new();
                for (number, samples) in runs {
                    let of = |(ticks, value)| {
                        Sample { timestamp: Timestamp::from_ticks(ticks), value: f64::from_bits(value) }
                    };
                    let samples = samples.iter().copied();
                    encoder.push_all(SeriesNumber(*number), samples.clone().map(of));
                    samples.clone().for_each(|row| one_by_one.push(SeriesNumber(*number), of(row)));
                    rows.extend(samples.map(|(ticks, value)| (*number, ticks, value)));
                }
                bound += batch_bytes_max(rows.len(), 0, 0);
                pushed.push((*client, rows));
            }
            prop_assert!(encoder.bytes().len() <= bound);
            prop_assert_eq!(encoder.bytes(), one_by_one.bytes());
            let samples = pushed.iter().map(|(_, rows)| rows.len() as u32).sum::<u32>();
            prop_assert_eq!(encoder.records(), samples);
            let back = std::cell::RefCell::new(Vec::<(u32, Vec<(u32, i64, u64)>)>::new());
            decode_samples(
                encoder.bytes(),
                |client| back.borrow_mut().push((client.0, Vec::new())),
                |number, sample| {
                    let row = (number.0, sample.timestamp.ticks(), sample.value.to_bits());
                    back.borrow_mut().last_mut().unwrap().1.push(row);
                },
            ).unwrap();
            prop_assert_eq!(back.into_inner(), pushed);
        }

        /// Any bytes are refused or read; no decoder panics.
        #[test]
        fn decoders_bear_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_samples(&bytes, |_| (), |_, _| ());
            let _ = decode_definitions(&bytes, |_, _, _| (), |_, _| ());
            let _ = FrameHead::decode(&bytes, 0, 0, 0);
        }

        /// Bytes that are nearly a payload find the deeper branches.
        #[test]
        fn decoders_bear_nearly_right_bytes(mut bytes in proptest::collection::vec(0..9u8, 0..60)) {
            let _ = decode_samples(&bytes, |_| (), |_, _| ());
            let _ = decode_definitions(&bytes, |_, _, _| (), |_, _| ());
            bytes.splice(0..0, [TAG_FLOATS, 0, 255]);
            let _ = decode_samples(&bytes, |_| (), |_, _| ());
        }
    }

    /// The common cases are small: same series at the next second with a small whole number, and the next
    /// series of a scrape at the same time.
    #[test]
    fn regular_samples_are_small() {
        let mut encoder = SampleEncoder::default();
        encoder.begin_batch(ClientNumber(0));
        let mut at = Vec::new();
        for (number, second, value) in [(5, 0, 1.0), (5, 1, 2.0), (6, 1, 2.0), (7, 1, 0.0)] {
            let timestamp = Timestamp::from_millis(1_700_000_000_000 + second * 1_000).unwrap();
            encoder.push(SeriesNumber(number), Sample { timestamp, value });
            at.push(encoder.bytes().len());
        }
        let sizes: Vec<usize> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(sizes, [1 + 2 + 1, 1, 1 + 1]);
    }

    /// A head is good at its own place alone.
    #[test]
    fn a_head_verifies_only_where_it_was_made() {
        let head = FrameHead {
            payload_bytes: 10,
            definition_bytes: 3,
            records: 2,
            first_offset: 1 << 40,
            stamp: Stamp { run: 3, nanos: 4, loop_index: 1 },
            synced_through: 4096,
            payload_crc: 77,
        };
        let bytes = head.encode(5, 4096);
        assert_eq!(FrameHead::decode(&bytes, 1, 5, 4096), Some(head));
        for (loop_index, sequence, position) in [(0, 5, 4096), (1, 6, 4096), (1, 5, 4104)] {
            assert_eq!(FrameHead::decode(&bytes, loop_index, sequence, position), None);
        }
        for bit in 0..bytes.len() * 8 {
            let mut turned = bytes;
            turned[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHead::decode(&turned, 1, 5, 4096), None, "bit {bit}");
        }
    }
}
