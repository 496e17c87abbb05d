use super::*;
use crate::disk::{SimDisk, ready};
use crate::segment::write_segment;
use model::{Condition, LabelSet, Matcher, Sample, Timestamp};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

fn table() -> Memtable {
    Memtable::new(Box::new(|labels| u16::from(labels.name() == "watched")))
}

fn labels(name: &str, pairs: &[(&str, &str)]) -> LabelSet {
    LabelSet::new(name, pairs).unwrap()
}

fn intern(table: &mut Memtable, set: &LabelSet) -> SeriesId {
    table.intern(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(0)).unwrap()
}

fn at(ticks: i64, value: f64) -> Sample {
    Sample { timestamp: Timestamp::from_ticks(ticks), value }
}

/// All of a slice, late samples over chunks, as ticks and bits.
fn flat(slice: &SeriesSlice) -> Vec<(i64, u64)> {
    let mut all = BTreeMap::new();
    let chunks = slice.chunks.iter().flat_map(|chunk| chunk.samples().map(Result::unwrap));
    for sample in chunks.chain(slice.late.iter().copied()) {
        all.insert(sample.timestamp.ticks(), sample.value.to_bits());
    }
    all.into_iter().collect()
}

fn everything(table: &Memtable, id: SeriesId) -> Vec<(i64, u64)> {
    flat(&table.find(id).unwrap().slice(Timestamp::MIN, Timestamp::MAX))
}

fn select(table: &Memtable, name: &str, matchers: &[Matcher]) -> Vec<SeriesId> {
    let named = Matcher { label: "__name__".into(), condition: Condition::Equal(name.into()) };
    let matchers: Vec<Matcher> = [named].into_iter().chain(matchers.iter().cloned()).collect();
    let (view, mut search) = (table.view(), table.search(&matchers));
    while table.search_some(&mut search, &view) {}
    let (found, left_over) = search.end();
    let found = found.into_iter().map(SeriesId);
    found.filter(|id| table.find(*id).is_some_and(|series| series.meets(&left_over))).collect()
}

/// The running account of sample bytes, counted anew.
fn counted_bytes(table: &Memtable) -> usize {
    table.series.iter().flatten().map(|row| row.samples.bytes()).sum::<usize>() + table.late.pool.bytes()
}

/// Times that mostly rise, sometimes repeat, fall back or leap.
fn ticks() -> impl Strategy<Value = Vec<(i64, u8)>> {
    let whole = |millis: i64| millis << 20;
    let time = prop_oneof![
        6 => (0i64..2_000).prop_map(whole),
        2 => (0i64..40).prop_map(whole),
        2 => (0i64..20, 0i64..4).prop_map(move |(millis, fine)| whole(millis) + fine),
        1 => Just(whole(1 << 40)),
    ];
    (any::<bool>(), proptest::collection::vec((time, 0u8..3), 1..600)).prop_map(|(sorted, mut times)| {
        if sorted {
            // Nearly in order: every seventh stays where it fell.
            let mut rising: Vec<i64> = times.iter().map(|(time, _)| *time).collect();
            rising.sort_unstable();
            for (i, (time, _)) in times.iter_mut().enumerate().filter(|(i, _)| i % 7 != 0) {
                *time = rising[i];
            }
        }
        times
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// In whatever order samples come, each of a watched series says what it did, and the series is what a map would be.
    #[test]
    fn a_series_is_a_map_from_time_to_its_last_value(samples in ticks(), range in (0i64..2_000, 0i64..2_000)) {
        let mut table = table();
        let id = intern(&mut table, &labels("watched", &[]));
        let mut model: BTreeMap<i64, f64> = BTreeMap::new();
        for (ticks, value) in samples {
            let value = f64::from(value);
            let expected = match model.insert(ticks, value) {
                None => Appended::New,
                Some(old) if old == value => Appended::Same,
                Some(old) => Appended::Replaced { old },
            };
            prop_assert_eq!(table.append(id, at(ticks, value)), Ok((expected, 1)));
        }
        let bits = |(ticks, value): (&i64, &f64)| (*ticks, value.to_bits());
        prop_assert_eq!(everything(&table, id), model.iter().map(bits).collect::<Vec<_>>());
        prop_assert_eq!(table.sample_count(), model.len() as u64);
        prop_assert_eq!(table.sample_bytes(), counted_bytes(&table));

        let (start, end) = (range.0 << 20, range.1 << 20);
        let slice = table.find(id).unwrap().slice(Timestamp::from_ticks(start), Timestamp::from_ticks(end));
        let within: Vec<_> = flat(&slice).into_iter().filter(|(t, _)| (start..=end).contains(t)).collect();
        let expected: Vec<_> = if start > end { Vec::new() } else { model.range(start..=end).map(bits).collect() };
        prop_assert_eq!(within, expected);
    }

    /// A series that nobody watches is that map too, whatever is read and frozen in between, and each sample that came again
    /// is told of once: when it came, later, or by the writing of what was frozen.
    #[test]
    fn what_came_late_is_a_map_too_and_told_once(
        samples in proptest::collection::vec(ticks(), 1..4),
        other in 0i64..2_000,
        read_each in 1usize..200,
    ) {
        let mut table = table();
        let ids = ["cpu", "memory"].map(|name| intern(&mut table, &labels(name, &[])));
        let disk = SimDisk::new(1);
        let (mut sent, mut kept, mut told) = (0u64, 0, CameAgain::default());
        for (cycle, samples) in samples.into_iter().enumerate() {
            let mut models: [BTreeMap<i64, u64>; 2] = Default::default();
            for (n, (ticks, value)) in samples.into_iter().enumerate() {
                // A second series, so that blocks of both lie beside each other.
                let sample = [(0, ticks), (1, other << 20)][usize::from(n % 5 == 4)];
                let (series, ticks) = (sample.0, sample.1 - if sample.0 == 1 { n as i64 } else { 0 });
                let appended = table.append(ids[series], at(ticks, f64::from(value))).unwrap().0;
                sent += 1;
                told.repeated += u64::from(appended == Appended::Same);
                told.replaced += u64::from(matches!(appended, Appended::Replaced { .. }));
                told.add(table.take_came_again());
                models[series].insert(ticks, f64::from(value).to_bits());
                if n % read_each == 0 {
                    let id = ids[series];
                    let model: Vec<_> = models[series].iter().map(|(ticks, bits)| (*ticks, *bits)).collect();
                    prop_assert_eq!(&everything(&table, id), &model);
                    prop_assert_eq!(table.sample_bytes(), counted_bytes(&table));
                    let (start, end) = (Timestamp::from_ticks(other << 19), Timestamp::from_ticks(other << 20));
                    let found = table.find(id).unwrap();
                    let (slice, extent) = (found.slice(start, end), found.extent(start, end));
                    prop_assert!(slice.bytes() <= extent.own && (extent.own == 0) == slice.is_empty());
                    let within = |of: Vec<(i64, u64)>| -> Vec<(i64, u64)> {
                        of.into_iter().filter(|of| start.ticks() <= of.0 && of.0 <= end.ticks()).collect()
                    };
                    prop_assert_eq!(within(flat(&slice)), within(model));
                }
            }
            let frozen = table.freeze(|_| true);
            prop_assert_eq!(table.sample_bytes(), 0);
            for (id, model) in ids.iter().zip(&models).filter(|(_, model)| !model.is_empty()) {
                let slice = frozen.find(*id).unwrap().slice(Timestamp::MIN, Timestamp::MAX);
                prop_assert!(flat(&slice).into_iter().eq(model.iter().map(|(ticks, bits)| (*ticks, *bits))));
            }
            told.add(ready(write_segment(&disk, cycle as u64, (0, 1), 1 << 20, &frozen)).unwrap().1);
            kept += models.iter().map(|model| model.len() as u64).sum::<u64>();
        }
        prop_assert_eq!(told.count(), sent - kept, "{:?}", told);
    }

    /// Postings find what looking at every series would.
    #[test]
    fn selecting_finds_what_looking_at_all_would(
        sets in proptest::collection::vec((0u8..3, 0u8..4, 0u8..4), 1..40),
        conditions in proptest::collection::vec((0u8..3, 0u8..5, any::<bool>()), 0..4),
    ) {
        let mut table = table();
        let value = |n: u8| if n == 0 { String::new() } else { format!("v{n}") };
        let mut arrived: HashSet<LabelSet> = HashSet::new();
        for (name, host, zone) in sets {
            let set = labels(&format!("m{name}"), &[("host", &value(host)), ("zone", &value(zone))]);
            intern(&mut table, &set);
            arrived.insert(set);
        }
        let label = |n: u8| ["host", "zone", "absent"][usize::from(n)].to_owned();
        let matchers: Vec<Matcher> = conditions.into_iter()
            .map(|(l, v, equal)| {
                let condition = if equal { Condition::Equal(value(v)) } else { Condition::NotEqual(value(v)) };
                Matcher { label: label(l), condition }
            }).collect();
        let ids = select(&table, "m1", &matchers);
        let selected: HashSet<LabelSet> =
            ids.iter().map(|id| table.labels(*id).unwrap().to_label_set()).collect();
        prop_assert_eq!(selected.len(), ids.len(), "each once");
        let expected: HashSet<LabelSet> = arrived.into_iter()
            .filter(|set| set.as_ref().name() == "m1" && matchers.iter().all(|m| m.matches(set.as_ref())))
            .collect();
        prop_assert_eq!(selected, expected);
    }
}

#[test]
fn a_value_replaced_again_and_again_is_one_sample() {
    let mut table = table();
    let id = intern(&mut table, &labels("watched", &[]));
    assert_eq!(table.append(id, at(5, 1.0)), Ok((Appended::New, 1)), "watched series carry their tag");
    assert_eq!(table.append(id, at(5, 1.0)), Ok((Appended::Same, 1)));
    for n in 1..50 {
        let (old, new) = (f64::from(n), f64::from(n + 1));
        assert_eq!(table.append(id, at(5, new)), Ok((Appended::Replaced { old }, 1)));
    }
    assert_eq!(table.append(id, at(5, 0.0)), Ok((Appended::Replaced { old: 50.0 }, 1)));
    assert_eq!(table.append(id, at(5, -0.0)), Ok((Appended::Replaced { old: 0.0 }, 1)), "-0 is not 0");
    assert_eq!(everything(&table, id), [(5, (-0.0f64).to_bits())]);
    assert_eq!(table.sample_bytes(), counted_bytes(&table));
}

/// A series that arrives backwards is stored, each sample where it belongs, in memory that grows with it.
#[test]
fn a_series_may_arrive_backwards() {
    let mut table = table();
    let id = intern(&mut table, &labels("cpu", &[]));
    let count = 50_000i64;
    for i in (0..count).rev() {
        let expected = if i == count - 1 { Appended::New } else { Appended::Late };
        assert_eq!(table.append(id, at(i << 20, 1.0)), Ok((expected, 0)));
    }
    let times: Vec<i64> = everything(&table, id).into_iter().map(|(ticks, _)| ticks >> 20).collect();
    assert_eq!(times, (0..count).collect::<Vec<_>>());
    assert!(table.sample_bytes() < 40 * count as usize);
}

/// The same late samples that come again and again take no more memory, and all but the first are told as repeated.
#[test]
fn late_samples_that_are_sent_again_and_again_are_kept_once() {
    let mut table = table();
    let id = intern(&mut table, &labels("cpu", &[]));
    table.append(id, at(1 << 40, 0.0)).unwrap();
    let mut repeated = 0;
    let mut bytes = Vec::new();
    for _ in 0..200 {
        (0..500).for_each(|i| assert_eq!(table.append(id, at(i << 20, 1.0)), Ok((Appended::Late, 0))));
        let again = table.take_came_again();
        assert_eq!(again.replaced, 0);
        repeated += again.repeated;
        bytes.push(table.sample_bytes());
    }
    assert!(bytes[199] == bytes[10] && bytes[199] < 5 * 500 * size_of::<Sample>(), "{bytes:?}");
    assert_eq!(table.sample_count() + repeated, 1 + 200 * 500);
    assert!(table.sample_count() < 1 + 3 * 500, "{}", table.sample_count());
}

#[test]
fn a_freeze_takes_all_samples_and_leaves_the_ids() {
    let mut table = table();
    let sets = [labels("cpu", &[("host", "a")]), labels("cpu", &[("host", "b")])];
    let ids = sets.each_ref().map(|set| intern(&mut table, set));
    table.append(ids[0], at(10, 1.0)).unwrap();
    table.append(ids[0], at(5, 2.0)).unwrap();
    let before = table.sample_bytes();
    let frozen = table.freeze(|_| false);
    let bytes = before + seal::FROZEN_SERIES_BYTES;
    assert_eq!((frozen.bytes(), frozen.sample_count(), table.sample_bytes()), (bytes, 2, 0));
    let slice = frozen.find(ids[0]).unwrap().slice(Timestamp::MIN, Timestamp::MAX);
    assert_eq!(flat(&slice), [(5, 2.0f64.to_bits()), (10, 1.0f64.to_bits())]);
    assert!(frozen.find(ids[1]).is_none());
    assert_eq!(sets.each_ref().map(|set| intern(&mut table, set)), ids);
    table.append(ids[0], at(7, 3.0)).unwrap();
    assert_eq!(everything(&table, ids[0]), [(7, 3.0f64.to_bits())]);
}

/// Series come and go; what nobody keeps is forgotten after two idle cycles.
#[test]
fn churn_does_not_fill_the_memory() {
    let mut table = table();
    let kept = intern(&mut table, &labels("kept", &[("host", "a")]));
    let alone = table.bytes();
    let (mut used, mut bytes_at_twenty) = (HashSet::new(), 0);
    for cycle in 10..50u64 {
        for n in 0..100 {
            let set = labels("pod", &[("uid", &format!("{cycle}-{n:02}")), ("zone", "z")]);
            let id = intern(&mut table, &set);
            used.insert(id);
            table.append(id, at(1, 1.0)).unwrap();
        }
        let frozen = table.freeze(|id| id == kept);
        assert_eq!(
            (frozen.forgotten().len(), table.idle_count()),
            (if cycle > 11 { 100 } else { 0 }, table.series_count())
        );
        if cycle == 30 {
            bytes_at_twenty = table.bytes();
        }
        assert!(table.series_count() <= 301);
    }
    assert_eq!(table.bytes(), bytes_at_twenty);
    assert!(used.len() <= 300, "{} ids for 300 living series", used.len());
    for _ in 0..3 {
        table.freeze(|id| id == kept);
    }
    assert_eq!((table.series_count(), table.bytes()), (1, alone));
    assert!(select(&table, "pod", &[]).is_empty() && select(&table, "kept", &[]) == [kept]);
    let stale = used.into_iter().find(|id| table.labels(*id).is_none()).unwrap();
    assert_eq!(table.append(stale, at(1, 1.0)), Err(UnknownSeries(stale)));
}

/// Ids are given again, so lists must not rely on rising ids.
#[test]
fn series_are_found_also_when_ids_are_given_again() {
    let mut table = table();
    let set = |n: usize| labels("pod", &[("uid", &n.to_string())]);
    for n in 0..10 {
        intern(&mut table, &set(n));
    }
    let lasting = intern(&mut table, &set(10));
    (0..4).for_each(|_| drop(table.freeze(|id| id == lasting)));
    let again: Vec<SeriesId> = (11..21).map(|n| intern(&mut table, &set(n))).collect();
    assert!(again.iter().all(|id| *id < lasting), "{again:?}");
    let found: HashSet<SeriesId> = select(&table, "pod", &[]).into_iter().collect();
    assert_eq!(found, again.iter().copied().chain([lasting]).collect());
    assert_eq!(found.len(), 11);
}

/// Loops define a series anew with each dictionary; the earliest definition is the arrival.
#[test]
fn a_series_keeps_its_earliest_arrival() {
    let mut table = table();
    let set = labels("cpu", &[]);
    for (arrival, kept) in [(5, 5), (9, 5), (3, 3), (4, 3)] {
        let id = table.intern(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(arrival)).unwrap();
        assert_eq!(table.find(id).unwrap().arrival, Arrival::from_bits(kept));
    }
    let id = select(&table, "cpu", &[])[0];
    table.append(id, at(1, 1.0)).unwrap();
    assert_eq!(table.freeze(|_| true).series()[0].arrival(), Arrival::from_bits(3));
}

/// A name that has as many series as it may is told once, and again when it has fewer.
#[test]
fn names_with_too_many_series_are_told() {
    let mut table = table();
    let set = |name: &str, n: usize| labels(name, &[("n", &n.to_string())]);
    for n in 0..5 {
        intern(&mut table, &set("before", n));
    }
    assert_eq!(table.full_names(), None);
    table.limit_names(5);
    let names = |table: &mut Memtable| table.full_names().map(|names| names.into_iter().collect::<Vec<_>>());
    assert_eq!(names(&mut table), Some(vec!["before".into()]));
    assert_eq!(names(&mut table), None, "nothing has changed");
    let kept: Vec<SeriesId> = (0..4).map(|n| intern(&mut table, &set("later", n))).collect();
    assert_eq!(names(&mut table), None);
    let one_more = intern(&mut table, &set("later", 4));
    assert_eq!(names(&mut table), Some(vec!["before".into(), "later".into()]));
    intern(&mut table, &set("later", 4));
    intern(&mut table, &set("other", 4));
    assert_eq!(names(&mut table), None);
    table.forget_idle(|id| kept.contains(&id) || id == one_more);
    assert_eq!(names(&mut table), Some(vec!["later".into()]));
    table.forget_idle(|id| kept.contains(&id));
    assert_eq!(names(&mut table), Some(vec![]));
}
