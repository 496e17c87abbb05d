use super::*;
use model::{Sample, StampClock, TICKS_PER_MILLI, Timestamp};
use proptest::prelude::*;

const STALE: u64 = 0x7ff0_0000_0000_0002;

const ODD_VALUES: [u64; 13] = [
    0,
    1 << 63,               // -0
    1,                     // the smallest denormal
    0x000f_ffff_ffff_ffff, // the largest
    0x7ff0_0000_0000_0000, // infinity
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000, // NaN
    0x7ff0_0000_0000_0001, // signalling NaN
    STALE,
    u64::MAX,
    0x4055_4000_0000_0000, // 85
    u64::MAX >> 1,
    0x7fef_ffff_ffff_ffff, // the largest double
];

fn bits_of(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn decoded(name: ColumnName, bytes: &[u8], count: usize) -> Result<Vec<f64>, ColumnError> {
    let mut values = vec![0.5; count];
    decode_values(name, bytes, &mut Scratch::default(), &mut values).map(|()| values)
}

/// Encodes, decodes, asks the twin, and holds the length against Gorilla's. Returns name and bytes.
fn round_trip(values: &[f64], heat: Heat) -> (ColumnName, Vec<u8>) {
    let mut bytes = vec![7];
    let name = encode_values(values, heat, &mut Scratch::default(), &mut bytes);
    assert_eq!(bytes.remove(0), 7, "what was there stays");
    assert!(bytes.len() <= COLUMN_BYTES_MAX, "{name:?}");
    assert_eq!(ColumnName::from_byte(name.to_byte()), Some(name));
    let expected = bits_of(values);
    assert_eq!(decoded(name, &bytes, values.len()).map(|v| bits_of(&v)), Ok(expected.clone()), "{name:?}");
    assert_eq!(naive::values(name, &bytes, values.len()), Some(expected), "{name:?}");
    let gorilla = gorilla::encoded_len(values);
    // Gorilla has to be shorter by more than a hundredth of what is chosen.
    assert!(bytes.len() - bytes.len() / 100 <= gorilla, "{name:?}: {} of {gorilla}", bytes.len());
    (name, bytes)
}

fn clock_round_trip(times: &[Timestamp]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut scratch = Scratch::default();
    encode_clock(times, &mut scratch, &mut bytes);
    let ticks: Vec<i64> = times.iter().map(|time| time.ticks()).collect();
    assert_eq!(decode_clock(&bytes, times.len(), &mut scratch), Ok(&ticks[..]));
    assert_eq!(naive::clock(&bytes, times.len()), Some(ticks));
    bytes
}

/// Columns of every kind: noise, decimals and their sums, counters, levels, odd values among them.
fn values() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![
        any::<u64>(),
        proptest::sample::select(&ODD_VALUES[..]),
        any::<i64>().prop_map(|n| (n as f64).to_bits())
    ];
    let any_values = proptest::collection::vec(value.clone(), 1..200);
    let count = prop_oneof![1usize..70, 1usize..=COLUMN_SAMPLES_MAX];
    let made =
        (0..8u8, count, any::<u64>(), 0..19i32, any::<u32>()).prop_map(|(kind, count, seed, e, range)| {
            let (mut random, mut total) = (Random(seed), 0.0);
            let power = 10f64.powi(e);
            let mut next = || {
                let drawn = (random.next() % (u64::from(range) + 1)) as f64;
                total += drawn;
                match kind {
                    0 => drawn,
                    1 => drawn / power,
                    2 => (total / power) + 0.1,
                    3 => total,
                    4 => total * power,
                    5 => random.level(),
                    6 => random.double(),
                    _ => -drawn,
                }
                .to_bits()
            };
            (0..count).map(|_| next()).collect::<Vec<u64>>()
        });
    let mixed = (
        prop_oneof![1 => any_values, 4 => made],
        proptest::collection::vec((any::<prop::sample::Index>(), value), 0..4),
    );
    mixed.prop_map(|(mut bits, others)| {
        for (at, other) in others {
            let at = at.index(bits.len());
            bits[at] = other;
        }
        bits.into_iter().map(f64::from_bits).collect()
    })
}

fn rising(max: usize) -> impl Strategy<Value = Vec<Timestamp>> {
    let step = prop_oneof![
        4 => Just(1_000 * TICKS_PER_MILLI),
        2 => (900i64..1100).prop_map(|ms| ms * TICKS_PER_MILLI),
        1 => 1i64..1 << 20,
        1 => 1i64..1 << 50,
        1 => Just(1)
    ];
    (-(1i64 << 55)..1 << 55, any::<bool>(), proptest::collection::vec(step, 0..max)).prop_map(
        |(start, is_whole, steps)| {
            let place = |ticks: i64| if is_whole { ticks & !(TICKS_PER_MILLI - 1) } else { ticks };
            let mut times = vec![place(start)];
            for step in steps {
                let next = place(times[times.len() - 1].saturating_add(step));
                if times[times.len() - 1] < next && times.len() < COLUMN_SAMPLES_MAX {
                    times.push(next);
                }
            }
            times.into_iter().map(Timestamp::from_ticks).collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the values, they come back bit for bit, the twin reads the same, and Gorilla does little better.
    #[test]
    fn values_come_back_bit_for_bit(values in values(), is_cold in any::<bool>()) {
        round_trip(&values, if is_cold { Heat::Cold } else { Heat::Fresh });
    }

    #[test]
    fn times_come_back_to_the_tick(times in rising(1_300)) {
        clock_round_trip(&times);
    }

    /// Every codec by itself, not only the one that is chosen.
    #[test]
    fn every_codec_that_takes_the_values_gives_them_back(values in values()) {
        let mut scratch = Scratch::default();
        let mut columns: Vec<(Codec, Vec<u8>)> = Vec::new();
        if let Some(plan) = decimal::plan(&values, &mut scratch) {
            let mut bytes = Vec::new();
            decimal::encode(&values, &plan, &mut scratch, &mut bytes);
            prop_assert_eq!(bytes.len(), plan.len());
            columns.push((Codec::Decimal, bytes));
        }
        if let Some(plan) = dictionary::plan(&values, usize::MAX, &mut scratch) {
            let mut bytes = Vec::new();
            dictionary::encode(values.len(), &plan, &mut scratch, &mut bytes);
            prop_assert_eq!(bytes.len(), plan.len());
            columns.push((Codec::Dictionary, bytes));
        }
        let mut bytes = Vec::new();
        gorilla::encode(&values, &mut bytes);
        prop_assert_eq!(bytes.len(), gorilla::encoded_len(&values));
        columns.push((Codec::Gorilla, bytes));
        let bits: Vec<i64> = values.iter().map(|value| value.to_bits() as i64).collect();
        let plan = integers::plan(&bits, &mut scratch.plan);
        let mut bytes = Vec::new();
        integers::encode(&bits, &plan, &mut scratch.plan, &mut bytes);
        prop_assert_eq!(bytes.len(), plan.len());
        columns.push((Codec::Bits, bytes));
        for (codec, bytes) in columns {
            let name = ColumnName { codec };
            prop_assert_eq!(decoded(name, &bytes, values.len()).map(|v| bits_of(&v)), Ok(bits_of(&values)), "{:?}", codec);
            prop_assert_eq!(naive::values(name, &bytes, values.len()), Some(bits_of(&values)), "{:?}", codec);
        }
    }

    /// A column that ends early, or late, is told, whatever its codec.
    #[test]
    fn a_column_cut_short_or_followed_by_bytes_is_refused(
        values in values(), is_cold in any::<bool>(), cut in any::<prop::sample::Index>(), more in any::<u8>(),
    ) {
        let (name, bytes) = round_trip(&values, if is_cold { Heat::Cold } else { Heat::Fresh });
        prop_assert!(decoded(name, &bytes[..cut.index(bytes.len())], values.len()).is_err());
        prop_assert!(decoded(name, &[&bytes[..], &[more]].concat(), values.len()).is_err());
    }

    /// A damaged column gives other values or an error, never a panic.
    #[test]
    fn damaged_columns_never_panic(
        values in values(), is_cold in any::<bool>(), at in any::<prop::sample::Index>(), flip in 1u8.., count in 0usize..1_100,
    ) {
        let (name, mut bytes) = round_trip(&values, if is_cold { Heat::Cold } else { Heat::Fresh });
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decoded(name, &bytes, values.len());
        let _ = decoded(name, &bytes, count);
    }

    /// So does a damaged clock; the times it gives rise all the same.
    #[test]
    fn damaged_clocks_never_panic(times in rising(100), at in any::<prop::sample::Index>(), flip in 1u8.., cut in 0usize..9) {
        let mut bytes = clock_round_trip(&times);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        if let Ok(ticks) = decode_clock(&bytes, times.len(), &mut Scratch::default()) {
            prop_assert!(ticks.is_sorted_by(|a, b| a < b));
        }
    }

    /// Clocks by delta and by line, around where the header alone says that they rise, are those that the twin reads; a
    /// clock is refused exactly where its times do not rise.
    #[test]
    fn a_clock_is_what_the_twin_reads(
        count in 1usize..200, first in -(1i64 << 41)..1 << 41, by_line in any::<bool>(),
        divisor in prop_oneof![2 => Just(1u64), 1 => 2u64..20], base in -20i64..40, width in 0u32..9, more in -3i64..4,
        steep in prop_oneof![Just(0i64), 0i64..1 << 16], patched in proptest::option::of((any::<prop::sample::Index>(), 1u32..4)),
        noise in proptest::collection::vec(any::<u8>(), 300),
    ) {
        let residuals = if by_line { count } else { count - 1 };
        let patched = patched.filter(|_| residuals > 0);
        let has = |is: bool, bit: u8| if is { bit } else { 0 };
        let form = if by_line { 3 } else { 1 } | has(divisor > 1, 4) | has(patched.is_some(), 8);
        let mut bytes = vec![0, form, width as u8];
        put_varint(&mut bytes, fields::zigzag(first));
        if divisor > 1 {
            put_varint(&mut bytes, divisor);
        }
        put_varint(&mut bytes, fields::zigzag(base));
        if by_line {
            put_varint(&mut bytes, fields::zigzag((((1i64 << width) + more) << 16) + steep));
        }
        let packed = &noise[..pack::packed_len(residuals, width)];
        match patched {
            None => bytes.extend_from_slice(packed),
            Some((place, bits)) => {
                bytes.extend([1, 0, (width + bits) as u8]);
                bytes.extend_from_slice(packed);
                bytes.extend((place.index(residuals) as u16).to_le_bytes());
                bytes.push(noise[299]);
            }
        }
        let ticks = naive::clock(&bytes, count).filter(|ticks| ticks.is_sorted_by(|a, b| a < b));
        let mut scratch = Scratch::default();
        let read = decode_clock(&bytes, count, &mut scratch);
        prop_assert_eq!(read.map(<[i64]>::to_vec), ticks.ok_or(ColumnError::Time));
    }

    #[test]
    fn any_bytes_never_panic(name in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..400), count in 0usize..2_000) {
        if let Ok(ticks) = decode_clock(&bytes, count, &mut Scratch::default()) {
            prop_assert!(ticks.is_sorted_by(|a, b| a < b));
        }
        let Some(name) = ColumnName::from_byte(name % 8) else { return Ok(()) };
        let _ = decoded(name, &bytes, count);
        // Forms that begin as they should get further.
        let begun = [&[u8::from(name.codec == Codec::Decimal) * (name.to_byte() << 5), name.to_byte() % 16, 20][..], &bytes].concat();
        let _ = decoded(name, &begun, count);
    }

    /// Numbers of each width, any count of them, against bits as text.
    #[test]
    fn packed_numbers_are_unpacked(width in 0u32..=64, numbers in proptest::collection::vec(any::<u64>(), 0..300)) {
        let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
        let mut bytes = Vec::new();
        pack::pack(numbers.iter().copied(), width, &mut bytes);
        prop_assert_eq!(bytes.len(), pack::packed_len(numbers.len(), width));
        let text: String = bytes.iter().flat_map(|byte| (0..8).map(move |bit| if byte >> bit & 1 == 1 { '1' } else { '0' })).collect();
        let mut out = [-1; COLUMN_SAMPLES_MAX];
        pack::unpack(&bytes, numbers.len(), width, &mut out);
        for (at, number) in numbers.iter().enumerate() {
            let own = &text[at * width as usize..(at + 1) * width as usize];
            let from_text = own.chars().rev().fold(0u64, |number, bit| number << 1 | u64::from(bit == '1'));
            prop_assert_eq!((out[at] as u64, from_text), (number & mask, number & mask));
        }
    }

    #[test]
    fn varints_come_back(number in any::<u64>(), shift in 0u32..64, behind in proptest::collection::vec(any::<u8>(), 0..4)) {
        let number = number >> shift;
        let mut bytes = Vec::new();
        put_varint(&mut bytes, number);
        prop_assert_eq!(bytes.len(), fields::varint_len(number));
        let whole = [&bytes[..], &behind].concat();
        let mut rest = &whole[..];
        prop_assert_eq!(take_varint(&mut rest), Some(number));
        prop_assert_eq!(rest, &behind[..]);
        for len in 0..bytes.len() {
            prop_assert_eq!(take_varint(&mut &bytes[..len]), None);
        }
    }

    /// The aggregates against one loop over the values; the sum against a wider one.
    #[test]
    fn aggregates_are_what_one_loop_finds(values in values()) {
        let found = Aggregates::of(&values);
        let present: Vec<f64> = values.iter().copied().filter(|value| value.to_bits() != STALE).collect();
        prop_assert_eq!(usize::from(found.stale), values.len() - present.len());
        let resets = present.windows(2).filter(|pair| pair[0] > pair[1]).count();
        prop_assert_eq!(usize::from(found.resets), resets);
        let same = |a: f64, b: Option<&f64>| b.map_or(a.is_nan(), |b| a == *b || (a.is_nan() && b.is_nan()));
        prop_assert!(same(found.first, present.first()) && same(found.last, present.last()));
        let numbers = || present.iter().filter(|value| !value.is_nan());
        prop_assert!(same(found.min, numbers().min_by(|a, b| a.total_cmp(b))));
        prop_assert!(same(found.max, numbers().max_by(|a, b| a.total_cmp(b))));
        let in_integers: Option<i128> = present
            .iter()
            .map(|value| (value.abs() < 1e15 && value.fract() == 0.0).then_some(*value as i128))
            .sum();
        if let (Some(sum), false) = (in_integers, present.is_empty()) {
            prop_assert_eq!(found.sum.high, sum as f64);
        }
        prop_assert!(found.same_bits(&Aggregates::of(&values)));
    }
}

#[test]
fn values_at_the_edges_of_a_double_come_back() {
    let every_pair = ODD_VALUES.iter().flat_map(|a| ODD_VALUES.iter().flat_map(move |b| [*a, *b]));
    let values: Vec<f64> = every_pair.map(f64::from_bits).collect();
    round_trip(&values, Heat::Fresh);
    round_trip(&values, Heat::Cold);
    for odd in ODD_VALUES {
        assert_eq!(round_trip(&[f64::from_bits(odd)], Heat::Cold).0.codec, Codec::Constant);
        let in_front = [odd, 0x4055_4000_0000_0000, 0x4055_4000_0000_0000].map(f64::from_bits);
        round_trip(&in_front, Heat::Fresh);
        // Among decimals it is an exception, and costs ten bytes.
        let mut random = Random(11);
        let mut gauge: Vec<f64> = (0..1_000).map(|_| (random.next() % 1_000) as f64 / 100.0).collect();
        let plain = round_trip(&gauge, Heat::Fresh);
        gauge[500] = f64::from_bits(odd);
        let (name, bytes) = round_trip(&gauge, Heat::Fresh);
        assert_eq!((plain.0.codec, name.codec), (Codec::Decimal, Codec::Decimal));
        assert!(bytes.len() <= plain.1.len() + 16, "{odd:x}");
    }
}

#[test]
fn times_at_the_edges_of_a_timestamp_come_back() {
    let last_whole = Timestamp::from_millis(model::MILLIS_MAX).unwrap();
    clock_round_trip(&[Timestamp::MIN]);
    clock_round_trip(&[Timestamp::MIN, Timestamp::from_ticks(0), last_whole]);
    clock_round_trip(&[Timestamp::MIN, Timestamp::MAX]);
    clock_round_trip(&[Timestamp::from_ticks(i64::MIN + 1), Timestamp::from_ticks(-1), Timestamp::MAX]);
}

#[test]
fn integers_of_all_sizes_come_back() {
    let mut scratch = Scratch::default();
    let edges = [0, 1, -1, i64::MAX, i64::MIN, i64::MIN + 1, 1 << 46, -(1 << 46), 1 << 51];
    let mut all: Vec<Vec<i64>> = vec![edges.to_vec()];
    for a in edges {
        for b in edges {
            all.push(vec![a, b]);
            all.push(vec![a, b, a, 7, b]);
            all.push((0..100).map(|i| if i == 50 { b } else { a.wrapping_add(i) }).collect());
            all.push((0..100).map(|i| a.wrapping_add(b.wrapping_mul(i))).collect());
            all.push((0..100).map(|i| a.wrapping_add(b.wrapping_mul(i * i))).collect());
        }
    }
    for numbers in all {
        let plan = integers::plan(&numbers, &mut scratch.plan);
        let mut bytes = Vec::new();
        integers::encode(&numbers, &plan, &mut scratch.plan, &mut bytes);
        assert_eq!(bytes.len(), plan.len(), "{numbers:?}");
        let mut fields = fields::Fields(&bytes);
        integers::decode(&mut fields, numbers.len(), &mut scratch.numbers).unwrap();
        assert_eq!((&scratch.numbers[..numbers.len()], fields.end()), (&numbers[..], Ok(())));
    }
}

#[test]
fn wrong_counts_are_named() {
    let (name, bytes) = round_trip(&[1.0, 2.0, 5.0], Heat::Fresh);
    let all = vec![1.0; COLUMN_SAMPLES_MAX + 1];
    assert_eq!(decoded(name, &bytes, 0), Err(ColumnError::Count));
    assert_eq!(decoded(name, &bytes, all.len()), Err(ColumnError::Count));
    let mut scratch = Scratch::default();
    assert_eq!(decode_clock(&[0, 0, 0, 0, 0], 0, &mut scratch), Err(ColumnError::Count));
    assert_eq!(decode_clock(&[0, 0, 0, 0, 0], COLUMN_SAMPLES_MAX + 1, &mut scratch), Err(ColumnError::Count));
    assert_eq!(decode_clock(&[0, 0, 0, 0, 0], 2, &mut scratch), Err(ColumnError::Time), "twice the same");
    assert_eq!(decode_clock(&[2, 0, 0, 0, 0], 1, &mut scratch), Err(ColumnError::Form));
    // Two samples of millisecond 0, the first with fine part 5, the second by a step behind it.
    let fine = |step: u8| [1, 1, 0, 0, 0, 1, 0, 10, step];
    assert_eq!(decode_clock(&fine(2), 2, &mut scratch), Ok(&[5, 6][..]));
    assert_eq!(decode_clock(&fine(0), 2, &mut scratch), Err(ColumnError::Time), "none");
    assert_eq!(decode_clock(&fine(1), 2, &mut scratch), Err(ColumnError::Time), "back");
    // At one distance: beyond what a timestamp holds, and beyond 64 bits.
    let steady = |first: &[u8]| [&[0, 1, 0], first, &[2]].concat();
    assert_eq!(decode_clock(&steady(&[0]), 3, &mut scratch), Ok(&[0, 1 << 20, 2 << 20][..]));
    let last = [&[0xfe][..], &[0xff; 5], &[3]].concat();
    assert_eq!(decode_clock(&steady(&last), 2, &mut scratch), Err(ColumnError::Time));
    let far = [&[0xfe][..], &[0xff; 8], &[1]].concat();
    assert_eq!(decode_clock(&steady(&far), 2, &mut scratch), Err(ColumnError::Time));
    assert_eq!((6..=u8::MAX).find(|byte| ColumnName::from_byte(*byte).is_some()), None);
}

/// A frame that says it holds gigabytes is refused before any of them is asked for.
#[test]
fn a_bomb_of_zeros_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    let bytes = [&[Codec::Gorilla as u8][..], &bomb].concat();
    assert_eq!(decoded(ColumnName { codec: Codec::General }, &bytes, 1_000), Err(ColumnError::Form));
}

/// What kinds of data cost is a promise: DESIGN §4, clock and values together.
#[test]
fn the_kinds_of_data_cost_what_they_should() {
    let count = 20 * COLUMN_SAMPLES_MAX;
    let whole = |i: usize| Timestamp::from_millis(1_700_000_000_000 + i as i64 * 1_000).unwrap();
    let mut random = Random(7);
    let (mut total, mut level, mut burst) = (0, 50.0f64, 0);
    let mut of = |kind: &str| -> Vec<f64> {
        (0..count)
            .map(|i| match kind {
                "constant" => 85.0,
                "integer gauge" => (random.next() % 32) as f64,
                "counter" => {
                    total += random.next() % 1_000;
                    total as f64
                }
                "two-decimal gauge" => {
                    level = (level + (random.next() % 200) as f64 / 100.0 - 1.0).clamp(0.0, 100.0);
                    (level * 100.0).round() / 100.0
                }
                "bursty counter" => {
                    burst += if i / 64 % 4 == 0 { random.next() % 5_000 } else { 0 };
                    burst as f64
                }
                "sums of decimals" => (random.next() % 1_000) as f64 / 1_000.0 + 50.1,
                _ => random.double(),
            })
            .collect()
    };
    for (kind, most) in [
        ("constant", 0.3),
        ("integer gauge", 0.7),
        ("counter", 1.6),
        ("two-decimal gauge", 1.45),
        ("bursty counter", 0.8),
        ("sums of decimals", 2.0),
        ("random doubles", 7.5),
    ] {
        let values = of(kind);
        let mut len = 0;
        for (at, values) in values.chunks(COLUMN_SAMPLES_MAX).enumerate() {
            let times: Vec<Timestamp> =
                (0..values.len()).map(|i| whole(at * COLUMN_SAMPLES_MAX + i)).collect();
            len += clock_round_trip(&times).len() + round_trip(values, Heat::Fresh).1.len();
        }
        let each = len as f64 / count as f64;
        assert!(each <= most, "{kind}: {each}");
        let samples: Vec<Sample> =
            values.iter().enumerate().map(|(i, &value)| Sample { timestamp: whole(i), value }).collect();
        assert!(len * 100 <= naive::gorilla_chunks_len(&samples) * 102, "{kind}");
    }
}

/// The fine part is free where it is absent, and where it is the same, as that of a lone stamped sample is.
#[test]
fn fine_parts_cost_what_they_must() {
    let len = |times: Vec<Timestamp>| clock_round_trip(&times).len();
    let regular = |fine: i64| -> Vec<Timestamp> {
        (0..1_000).map(|i| Timestamp::from_ticks(i * 1_000 * TICKS_PER_MILLI + fine)).collect()
    };
    assert!(len(regular(0)) <= 12);
    assert!(len(regular(3)) <= len(regular(0)) + 6);
    let mut clock = StampClock::new(0, 2);
    let burst = (0..1_000).map(|i| clock.stamp(Timestamp::first_of_milli(i / 200))).collect();
    assert!(len(burst) <= 150, "200 in a millisecond");
}

#[test]
fn cold_columns_are_compressed_where_it_saves_a_tenth() {
    let daily: Vec<f64> = (0..1_024).map(|i| f64::from((i % 50) * (i % 50) * 131 % 997)).collect();
    let (fresh, cold) = (round_trip(&daily, Heat::Fresh), round_trip(&daily, Heat::Cold));
    assert_eq!(cold.0.codec, Codec::General);
    assert!(cold.1.len() * 10 <= fresh.1.len() * 9);
    let mut random = Random(3);
    let noise: Vec<f64> = (0..1_024).map(|_| random.double()).collect();
    assert_eq!(round_trip(&noise, Heat::Fresh), round_trip(&noise, Heat::Cold));
}

/// A fixed sequence (splitmix64), so that what is promised does not hang on luck.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn double(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of a few levels of full precision, mostly the one before.
    fn level(&mut self) -> f64 {
        let drawn = self.next();
        1.0 / ((drawn % 1_000 / 960) as f64 + 3.0)
    }
}
