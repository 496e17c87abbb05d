use super::*;
use model::{LabelPiece, LabelSet, Matcher, parse_matchers};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Some of each label's values; 0 leaves the label out.
type Set = (u8, u8, u8, u16);

fn label_set((name, job, zone, pod): Set) -> LabelSet {
    let text = |prefix: &str, n: u16| if n == 0 { String::new() } else { format!("{prefix}{n}") };
    let pairs =
        [("job", text("api-", job.into())), ("zone", text("z", zone.into())), ("pod", text("p", pod))];
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(label, value)| (*label, value.as_str())).collect();
    LabelSet::new(&format!("m{name}"), &pairs).unwrap()
}

/// Few distinct values of most labels, as many as there are series of one.
fn sets() -> impl Strategy<Value = Set> {
    (0u8..3, 0u8..4, 0u8..6, 0u16..400)
}

fn conditions() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(
        proptest::sample::select(vec![
            r#"__name__="m1""#,
            r#"__name__=~"m[12]""#,
            r#"__name__!="m0""#,
            r#"job="api-1""#,
            r#"job!="api-1""#,
            r#"job="""#,
            r#"job!="""#,
            r#"job="none""#,
            r#"job=~"api-1|api-3|none""#,
            r#"job!~"api-1|api-3""#,
            r#"job=~"api-1|""#,
            r#"job!~"api-1|""#,
            r#"job=~"api-.*""#,
            r#"job=~".*""#,
            r#"job!~".+""#,
            r#"zone=~"z[^1]""#,
            r#"zone!~"z[^1]""#,
            r#"pod=~"p.*7""#,
            r#"pod!~"p.*7""#,
            r#"pod=~"p1.*""#,
            r#"pod=~".+""#,
            r#"pod="p7""#,
            r#"pod=~"(?i)P2[0-9]?""#,
            r#"absent="""#,
            r#"absent!="""#,
            r#"absent=~"x|""#,
            r#"absent!~".+""#,
        ]),
        0..4,
    )
}

fn naive(model: &BTreeMap<u32, LabelSet>, matchers: &[Matcher]) -> Vec<u32> {
    let meets = |set: &LabelSet| matchers.iter().all(|matcher| matcher.matches(set.as_ref()));
    model.iter().filter(|(_, set)| meets(set)).map(|(id, _)| *id).collect()
}

/// Those that were found and meet what is left over.
fn ended(search: Search, model: &BTreeMap<u32, LabelSet>) -> Vec<u32> {
    let (found, left_over) = search.end();
    let meets = |id: &u32| {
        model.get(id).is_some_and(|set| left_over.iter().all(|matcher| matcher.matches(set.as_ref())))
    };
    found.into_iter().filter(meets).collect()
}

/// All values of a label and their ids, by text.
fn every(values: &Values) -> impl Iterator<Item = (&str, &Ids)> {
    let mut sorted = values.sorted();
    while sorted.sort_some() {}
    sorted
}

fn remove(index: &mut Index, model: &mut BTreeMap<u32, LabelSet>, gone: &[u32]) -> usize {
    let gone: Vec<(u32, LabelSet)> = gone.iter().filter_map(|id| Some((*id, model.remove(id)?))).collect();
    index.remove(gone.iter().map(|(id, set)| (*id, pairs(set.as_ref()))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever comes and goes, a search finds what looking at every label set would; what came after it began is not
    /// found, and what is left over when some of it went is enough to tell.
    #[test]
    fn a_search_finds_what_looking_at_all_would(
        before in proptest::collection::vec(sets(), 0..700),
        goes in proptest::collection::vec(0u32..700, 0..300),
        again in proptest::collection::vec(sets(), 0..60),
        goes_meanwhile in proptest::collection::vec(0u32..700, 0..20),
        conditions in conditions(),
    ) {
        let (mut index, mut model, mut bytes) = (Index::default(), BTreeMap::new(), 0);
        let enter = |index: &mut Index, model: &mut BTreeMap<u32, LabelSet>, set: Set| {
            // The lowest free id, as a memtable gives them.
            let id = (0..).find(|id| !model.contains_key(id)).unwrap();
            model.insert(id, label_set(set));
            index.insert(model[&id].as_ref(), id)
        };
        for set in before {
            bytes += enter(&mut index, &mut model, set);
        }
        bytes -= remove(&mut index, &mut model, &goes);
        for set in again.iter().skip(20) {
            bytes += enter(&mut index, &mut model, *set);
        }
        let matchers = parse_matchers(&format!("{{{}}}", conditions.join(","))).unwrap();
        let expected = naive(&model, &matchers);
        let mut search = index.search(&matchers);
        while search.step(&index) {}
        prop_assert_eq!(&ended(search, &model), &expected);

        let (mut with_new, mut with_gone) = (index.search(&matchers), index.search(&matchers));
        with_gone.step(&index);
        let of_then = model.clone();
        for set in again.iter().take(20) {
            bytes += enter(&mut index, &mut model, *set);
        }
        while with_new.step(&index) {}
        prop_assert_eq!(&ended(with_new, &of_then), &expected);
        bytes -= remove(&mut index, &mut model, &goes_meanwhile);
        with_gone.stop();
        prop_assert_eq!(&ended(with_gone, &of_then), &expected);

        let all: Vec<u32> = model.keys().copied().collect();
        bytes -= remove(&mut index, &mut model, &all);
        prop_assert_eq!((bytes, index.labels.len(), index.all.len()), (0, 0, 0));
    }

    /// An index that is filled by runs is the one that takes series one by one.
    #[test]
    fn runs_make_what_inserting_one_by_one_makes(
        groups in proptest::collection::vec((sets(), 1usize..300), 1..20),
        distinct in any::<bool>(),
    ) {
        let of_group = |(set, count): &(Set, usize)| vec![*set; *count];
        let all: Vec<Set> = groups.iter().flat_map(of_group).collect();
        let with_own = |(n, (name, job, zone, pod)): (usize, Set)| {
            label_set((name, job, zone, if distinct && pod != 0 { n as u16 } else { pod }))
        };
        let all: Vec<LabelSet> = all.into_iter().enumerate().map(with_own).collect();
        let (mut one_by_one, mut by_runs, mut bytes) = (Index::default(), Index::default(), (0, 0));
        let mut runs = Runs::beginning_at(0);
        let mut before: Vec<LabelPiece<'_>> = Vec::new();
        for (id, set) in (0u32..).zip(&all) {
            bytes.0 += one_by_one.insert(set.as_ref(), id);
            let pieces: Vec<_> = set.as_ref().pieces().collect();
            let others = pieces.iter().copied().enumerate().filter(|(at, piece)| before.get(*at) != Some(piece));
            bytes.1 += by_runs.go_on(&mut runs, pieces.len(), others);
            before = pieces;
        }
        bytes.1 += by_runs.end_runs(runs);
        let all_of = |index: &Index| {
            let labels = index.labels().into_iter();
            let pairs = labels.flat_map(|(label, values)| every(values).map(move |value| (label, value)));
            let pair = |(label, (value, ids)): (&str, (&str, &Ids))| {
                let mut set = RoaringBitmap::new();
                ids.add_to(&mut set);
                (format!("{label}={value}"), set)
            };
            (index.all.clone(), pairs.map(pair).collect::<Vec<_>>())
        };
        prop_assert_eq!(all_of(&by_runs), all_of(&one_by_one));
        prop_assert_eq!(bytes.0, bytes.1);
    }

    /// The three forms of a list are one set. Method: ids in any order, some of which go again.
    #[test]
    fn ids_are_a_set_in_whatever_form(
        come in proptest::collection::btree_set(0u32..200_000, 1..400),
        order in any::<u32>(),
        gone in proptest::collection::vec(any::<bool>(), 400),
    ) {
        let mut come: Vec<u32> = come.into_iter().collect();
        come.sort_by_key(|id| (id ^ order).wrapping_mul(0x9e37_79b9));
        let (mut ids, mut bytes) = (ids::Ids::NONE, 0);
        for id in &come {
            prop_assert!(!ids.contains(*id));
            bytes += ids.insert(*id);
        }
        prop_assert_eq!((ids.len(), ids.bytes()), (come.len(), bytes));
        let as_set = |ids: &ids::Ids| { let mut set = RoaringBitmap::new(); ids.add_to(&mut set); set };
        let mut model: RoaringBitmap = come.iter().copied().collect();
        prop_assert_eq!(&as_set(&ids), &model);
        let gone: RoaringBitmap =
            come.iter().zip(&gone).filter(|(_, gone)| **gone).map(|(id, _)| *id).collect();
        prop_assert_eq!(ids.within(&gone), &gone & &model);
        let mut rest = gone.clone() | RoaringBitmap::from([7, 1 << 30]);
        ids.remove_from(&mut rest);
        prop_assert_eq!(rest, RoaringBitmap::from([7, 1 << 30]) - &model);
        bytes -= ids.subtract(&gone);
        model -= &gone;
        prop_assert_eq!((&as_set(&ids), ids.len(), ids.bytes()), (&model, model.len() as usize, bytes));
        prop_assert_eq!(ids.is_empty(), model.is_empty());
    }
}

/// What is named, or meant by few, is looked up; what few series are left for is left over, not tested by the thousand.
#[test]
fn the_dear_ones_are_left_over_where_few_are_found() {
    let mut index = Index::default();
    for n in 0..20_000u32 {
        let pod = format!("p{n}");
        let set =
            LabelSet::new("up", &[("pod", &pod), ("job", if n < 50 { "rare" } else { "usual" })]).unwrap();
        index.insert(set.as_ref(), n);
    }
    let steps = |text: &str| {
        let mut search = index.search(&parse_matchers(text).unwrap());
        let mut steps = 1;
        while search.step(&index) {
            steps += 1;
        }
        let (found, left_over) = search.end();
        (steps, found.len(), left_over.len())
    };
    assert_eq!(steps(r#"{job="usual"}"#), (1, 19_950, 0));
    assert_eq!(steps(r#"{pod=~"p1|p2|p3"}"#), (1, 3, 0));
    assert_eq!(steps(r#"{job="rare",pod=~"p.*7"}"#), (1, 50, 1));
    assert_eq!(steps(r#"{job="usual",pod=~"p.*7"}"#), (5, 1_995, 0));
    // The label of few values is tested first, and then the other one is not worth it.
    assert_eq!(steps(r#"{pod=~"p.*7",job=~"r.+"}"#), (2, 50, 1));
}
