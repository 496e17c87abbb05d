use super::*;
use proptest::prelude::*;

fn sample(millis: i64, fine: i64, bits: u64) -> Sample {
    let ticks = millis * model::TICKS_PER_MILLI + fine;
    Sample { timestamp: Timestamp::from_ticks(ticks), value: f64::from_bits(bits) }
}

fn bits_of(samples: &[Sample]) -> Vec<(i64, u64)> {
    samples.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())).collect()
}

/// The format page again, with text for bits and no care for speed.
mod naive {
    use super::*;

    fn binary(value: i64, bits: usize) -> String {
        (0..bits).rev().map(|bit| if value >> bit & 1 == 1 { '1' } else { '0' }).collect()
    }

    pub(super) fn encode(samples: &[Sample]) -> Vec<u8> {
        encode_in(form_of(samples), samples)
    }

    pub(super) fn encode_in(form: Form, samples: &[Sample]) -> Vec<u8> {
        let fine = form.is_fine;
        let head = i64::from(fine) + 2 * i64::from(form.has_gaps);
        let mut text = binary(head, 8) + &binary(samples[0].timestamp.millis(), 48);
        if fine {
            text += &binary(samples[0].timestamp.fine(), 24);
        }
        text += &binary(samples[0].value.to_bits() as i64, 64);
        let (mut kept, mut is_behind_gap, mut window) = (0, false, None);
        let (mut base, mut step) = (samples[0].timestamp.fine(), 1);
        for pair in samples.windows(2) {
            let [before, now] = [pair[0].timestamp, pair[1].timestamp];
            let distance = now.millis() - before.millis();
            let change = distance - kept;
            let times = (distance as f64 / kept as f64).round() as i64;
            let is_near = (-64..64).contains(&(distance - times.saturating_mul(kept)));
            let is_gap =
                form.has_gaps && !is_behind_gap && change > 63 && (2..10).contains(&times) && is_near;
            is_behind_gap = is_gap;
            text += &match change {
                _ if is_gap => {
                    "11110".to_owned() + &binary(times - 2, 3) + &binary(distance - times * kept, 7)
                }
                0 => "0".to_owned(),
                -64..=63 => "10".to_owned() + &binary(change, 7),
                -2048..=2047 => "110".to_owned() + &binary(change, 12),
                -524_288..=524_287 => "1110".to_owned() + &binary(change, 20),
                _ if form.has_gaps => "11111".to_owned() + &binary(change, 64),
                _ => "1111".to_owned() + &binary(change, 64),
            };
            if !is_gap {
                kept = distance;
            }
            if fine {
                let predicted = if distance == 0 { before.fine() + step } else { base } % (1 << 20);
                let miss = now.fine() - predicted;
                text += &match miss {
                    0 => "0".to_owned(),
                    -32..=-1 => "10".to_owned() + &binary(-2 * miss - 1, 6),
                    1..=31 => "10".to_owned() + &binary(2 * miss, 6),
                    _ => "11".to_owned() + &binary(now.fine(), 20),
                };
                if distance == 0 {
                    step = now.fine() - before.fine();
                } else {
                    base = now.fine();
                }
            }
            let xor = pair[0].value.to_bits() ^ pair[1].value.to_bits();
            if xor == 0 {
                text += "0";
                continue;
            }
            let (leading, trailing) = (xor.leading_zeros().min(31) as usize, xor.trailing_zeros() as usize);
            let (leading, trailing) = match window {
                Some((l, t)) if leading >= l && trailing >= t => {
                    text += "10";
                    (l, t)
                }
                _ => {
                    let len = (64 - leading - trailing) as i64;
                    text += &("11".to_owned() + &binary(leading as i64, 5) + &binary(len, 6));
                    window = Some((leading, trailing));
                    (leading, trailing)
                }
            };
            text += &binary(xor as i64, 64)[leading..64 - trailing];
        }
        text += &"0".repeat(text.len().next_multiple_of(8) - text.len());
        let byte = |eight: &[u8]| eight.iter().fold(0, |byte, &bit| byte << 1 | (bit - b'0'));
        text.as_bytes().chunks(8).map(byte).collect()
    }
}

/// What a new chunk of these samples has.
fn form_of(samples: &[Sample]) -> Form {
    Form { is_fine: samples[0].timestamp.fine() != 0, has_gaps: true }
}

fn decoded(bytes: &[u8], count: u32) -> Result<Vec<Sample>, ChunkError> {
    let mut samples = Vec::new();
    Samples::new(bytes, count).decode_into(&mut samples)?;
    Ok(samples)
}

/// Encodes, compares with the twin, decodes, compares to the last bit.
fn round_trip(samples: &[Sample]) {
    let mut chunks = Vec::new();
    Chunk::encode_into(samples, &mut chunks);
    let mut back: Vec<Sample> = Vec::new();
    for chunk in &chunks {
        let from = back.len();
        chunk.samples().decode_into(&mut back).unwrap();
        let own = &back[from..];
        assert_eq!(chunk.bytes(), naive::encode(own), "{own:?}");
        assert!(chunk.bytes().len() <= CHUNK_BYTES_MAX && chunk.count() <= CHUNK_SAMPLES_MAX);
        assert_eq!(own.len(), chunk.count() as usize);
        assert_eq!((own[0].timestamp, own[own.len() - 1].timestamp), (chunk.first(), chunk.last()));
        let one_by_one: Vec<Sample> = chunk.samples().map(Result::unwrap).collect();
        assert_eq!(bits_of(&one_by_one), bits_of(own));
    }
    assert_eq!(bits_of(&back), bits_of(samples));
}

const ODD_VALUES: [u64; 12] = [
    0,
    1 << 63,               // -0
    1,                     // the smallest denormal
    0x000f_ffff_ffff_ffff, // the largest
    0x7ff0_0000_0000_0000, // infinity
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000, // NaN
    0x7ff0_0000_0000_0001, // signalling NaN
    0x7ff0_0000_0000_0002, // Prometheus' staleness marker
    0xffff_ffff_ffff_ffff,
    0x4055_4000_0000_0000, // 85
    u64::MAX >> 1,
];

/// Ticks and bits of the samples that a chunk of these bytes has.
type Decoded = Result<Vec<(i64, u64)>, ChunkError>;

fn at_once(bytes: &[u8], count: u32) -> Decoded {
    decoded(bytes, count).map(|samples| bits_of(&samples))
}

/// The naive twin of the above.
fn one_by_one(bytes: &[u8], count: u32) -> Decoded {
    Samples::new(bytes, count).collect::<Result<Vec<Sample>, _>>().map(|samples| bits_of(&samples))
}

fn value_bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        proptest::sample::select(&ODD_VALUES[..]),
        (-1000i32..1000).prop_map(|n| (f64::from(n) / 4.0).to_bits()),
    ]
}

fn distance_millis() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => Just(0i64),
        4 => Just(1000),
        2 => 900i64..1100,
        2 => (2i64..11, -66i64..66).prop_map(|(times, miss)| times * 1000 + miss),
        1 => 0i64..5_000,
        1 => 0i64..2_000_000,
        1 => 0i64..1 << 41,
    ]
}

/// Rising times, whole or fine, with values of every kind.
fn series() -> impl Strategy<Value = Vec<Sample>> {
    let fine = prop_oneof![Just(0i64), Just(1), 1i64..40, 0i64..1 << 20];
    let step = (distance_millis(), fine, value_bits());
    (any::<bool>(), -(1i64 << 40)..1 << 40, proptest::collection::vec(step, 1..400)).prop_map(
        |(with_fine, start, steps)| {
            let (mut millis, mut samples): (i64, Vec<Sample>) = (start, Vec::new());
            for (distance, fine, bits) in steps {
                millis = (millis + distance).min(model::MILLIS_MAX);
                let sample = sample(millis, if with_fine { fine } else { 0 }, bits);
                if samples.last().is_none_or(|last| last.timestamp < sample.timestamp) {
                    samples.push(sample);
                }
            }
            samples
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is appended comes back bit for bit, and is coded as the naive twin does.
    #[test]
    fn samples_come_back_bit_for_bit(samples in series()) {
        round_trip(&samples);
    }

    /// A chunk that an earlier version began is read, and goes on, without a code for gaps.
    #[test]
    fn chunks_of_earlier_versions_are_read_and_go_on(samples in series()) {
        let form = Form { has_gaps: false, ..form_of(&samples) };
        let mut open = OpenChunk::with_form(samples[0], form);
        let taken = 1 + samples[1..].iter().take_while(|sample| open.append(**sample).is_ok()).count();
        let samples = &samples[..taken];
        let sealed = open.seal();
        prop_assert_eq!(sealed.bytes(), naive::encode_in(form, samples));
        prop_assert_eq!(bits_of(&decoded(sealed.bytes(), sealed.count()).unwrap()), bits_of(samples));
        prop_assert_eq!(one_by_one(sealed.bytes(), sealed.count()).unwrap(), bits_of(samples));
        prop_assert!(sealed.bytes().len() <= CHUNK_BYTES_MAX);
    }

    /// What is in the chunk is never said not to be.
    #[test]
    fn a_chunk_may_hold_what_it_holds(samples in series()) {
        let mut open = OpenChunk::new(samples[0]);
        for (at, sample) in samples.iter().enumerate() {
            if at > 0 && open.append(*sample).is_err() {
                break;
            }
            prop_assert!(samples[..=at].iter().all(|sample| open.may_hold(sample.timestamp)));
        }
    }

    /// Damaged chunks give an error or other samples with rising times, never a panic; at once the same as one by one.
    #[test]
    fn damaged_chunks_never_panic(
        samples in series(), at in any::<proptest::sample::Index>(), flip in 1u8.., cut in 0usize..40,
    ) {
        let mut bytes = naive::encode(&samples);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(20)));
        let count = samples.len() as u32;
        prop_assert_eq!(at_once(&bytes, count), one_by_one(&bytes, count));
        if let Ok(samples) = decoded(&bytes, count) {
            prop_assert!(samples.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));
        }
    }

    #[test]
    fn any_bytes_never_panic(form in 0u8..5, bytes in proptest::collection::vec(any::<u8>(), 0..200), count in any::<u32>()) {
        prop_assert_eq!(at_once(&bytes, count), one_by_one(&bytes, count));
        let formed = [&[form], &bytes[..]].concat();
        prop_assert_eq!(at_once(&formed, count % 64), one_by_one(&formed, count % 64));
    }
}

#[test]
fn values_at_the_edges_of_a_double_come_back() {
    let every_pair = ODD_VALUES.iter().flat_map(|a| ODD_VALUES.iter().flat_map(move |b| [*a, *b]));
    let samples: Vec<Sample> = every_pair.enumerate().map(|(i, bits)| sample(i as i64, 0, bits)).collect();
    round_trip(&samples);
}

#[test]
fn times_at_the_edges_of_a_timestamp_come_back() {
    let at = |timestamp| Sample { timestamp, value: 1.5 };
    let last_whole = Timestamp::from_millis(model::MILLIS_MAX).unwrap();
    round_trip(&[at(Timestamp::MIN), at(Timestamp::from_ticks(0)), at(last_whole)]);
    round_trip(&[at(Timestamp::MIN), at(Timestamp::MAX)]);
    round_trip(&[at(Timestamp::from_ticks(i64::MIN + 1)), at(Timestamp::from_ticks(-1)), at(Timestamp::MAX)]);
}

#[test]
fn a_chunk_refuses_what_does_not_belong_into_it_and_is_unchanged() {
    let mut chunk = OpenChunk::new(sample(1_000, 0, 7));
    assert_eq!(chunk.append(sample(1_000, 0, 8)), Err(NotAppended::NotLater));
    assert_eq!(chunk.append(sample(999, 5, 8)), Err(NotAppended::NotLater));
    assert_eq!(chunk.append(sample(1_000, 1, 8)), Err(NotAppended::FinePart));
    let sealed = chunk.seal();
    assert_eq!(bits_of(&decoded(sealed.bytes(), 1).unwrap()), bits_of(&[sample(1_000, 0, 7)]));
    for i in 1..i64::from(CHUNK_SAMPLES_MAX) {
        chunk.append(sample(1_000 + i, 0, 7)).unwrap();
    }
    assert_eq!(chunk.append(sample(9_000, 0, 7)), Err(NotAppended::Full));
    assert_eq!((chunk.count(), chunk.bytes()), (240, chunk.seal().bytes().len()));
}

#[test]
fn wrong_counts_and_forms_are_named() {
    let mut chunks = Vec::new();
    let samples: Vec<Sample> = (0..9).map(|i| sample(i * 1000, 0, ODD_VALUES[i as usize])).collect();
    Chunk::encode_into(&samples, &mut chunks);
    let bytes = chunks[0].bytes();
    assert_eq!(decoded(bytes, 8).unwrap_err(), ChunkError::TooLong);
    assert_eq!(decoded(&bytes[..bytes.len() - 1], 9).unwrap_err(), ChunkError::TooShort);
    assert_eq!(decoded(&[4; 20], 1).unwrap_err(), ChunkError::UnknownForm(4));
    assert_eq!(decoded(b"", 1).unwrap_err(), ChunkError::TooShort);
    assert!(decoded(bytes, 0).unwrap().is_empty());
}

/// What a regular series costs is a promise of the format: the fine part must be free where it is absent.
#[test]
fn regular_samples_cost_two_bits() {
    let of = |fine: i64| {
        let mut chunk = OpenChunk::new(sample(1_700_000_000_000, fine, ODD_VALUES[10]));
        for i in 1..240 {
            chunk.append(sample(1_700_000_000_000 + i * 1000, fine, ODD_VALUES[10])).unwrap();
        }
        chunk.bytes()
    };
    assert_eq!(of(0), (120_usize + 16 + 238 * 2).div_ceil(8), "head, first distance, two bits a sample");
    assert_eq!(of(3) - of(0), 33, "24 bits at the head and one a sample");
}

/// What a gap costs is a promise too: a late sample leaves one behind.
#[test]
fn a_gap_costs_fifteen_bits_and_a_longer_interval_is_told_once() {
    let of = |seconds: &mut dyn Iterator<Item = i64>| {
        let sample = |second: i64| sample(1_700_000_000_000 + second * 10_000, 0, ODD_VALUES[10]);
        let mut chunk = OpenChunk::new(sample(seconds.next().unwrap()));
        seconds.for_each(|second| chunk.append(sample(second)).unwrap());
        (chunk.bits.len_bits(), chunk.count() as usize)
    };
    let steady = |count: usize| 120 + (24 + 1) + (count - 2) * 2;
    let (bits, count) = of(&mut (0..200).filter(|second| second % 10 != 7));
    assert_eq!(bits, steady(count) + 20 * 14);
    let (bits, count) = of(&mut (0..200).filter(|second| second % 20 < 11 || second % 20 == 19));
    assert_eq!(bits, steady(count) + 10 * 14, "up to nine distances");
    let (bits, count) = of(&mut (0..100).chain((100..200).step_by(2)));
    assert_eq!(bits, steady(count) + 14 + 23, "taken for a gap, then told");
}
