//! How matchers become ids: the cheapest and most selective first, the dear ones some thousand values at a time.
//!
//! ```text
//!   what a matcher picks: values to keep, or, where an absent label meets it, values to drop
//!     =, a list     keep these texts            !=, not in a list     drop these texts           looked up at once
//!     =~            keep what passes the test   !~, ="", =~".*"       drop what fails it         tested value by value
//!
//!   begin   found = the shortest of the lists that are kept, and the others; less what is dropped
//!   step    for each test, that of the label with the fewest values first:
//!             few are found → they are better looked at themselves: the matcher is left over
//!             else          → some thousand values are tested, and their ids put aside
//!                             once all are: found = found within these, or without them
//! ```
//!
//! Between two steps ids may be added, which were not there when the search began and are not found; when ids were
//! taken out meanwhile, what is not tested yet is left over, for the index does not know any more what it picked.

use super::{Index, Values};
use model::{Condition, Matcher};
use roaring::RoaringBitmap;

/// Values tested in one step, some 30 ns each where an automaton runs; ids are added beside.
const TESTS_PER_STEP: usize = 4096;
/// Looking at a label set costs as much as testing so many values: it lies somewhere in memory and is gone through.
const TESTS_PER_LOOK: usize = 8;

/// What a matcher says of a label's values.
pub(crate) struct Pick<'a> {
    /// Whether these are what is meant; else what is not.
    pub(crate) keeps: bool,
    /// How the texts begin that are picked.
    pub(crate) prefix: &'a str,
    /// The texts, rising, where they are named.
    pub(crate) texts: Option<Vec<&'a str>>,
}

impl Pick<'_> {
    /// What is picked by a matcher. Without texts it is each value that meets it, or, where those are dropped, that
    /// does not.
    pub(crate) fn of(matcher: &Matcher) -> Pick<'_> {
        // An absent label has the value "".
        let keeps = !matcher.meets("");
        let (texts, named): (Vec<&str>, bool) = match &matcher.condition {
            Condition::Equal(text) | Condition::NotEqual(text) => (vec![text], true),
            Condition::Matches(pattern) | Condition::NotMatches(pattern) => match pattern.texts() {
                Some(texts) => (texts.iter().map(String::as_str).collect(), true),
                None => (Vec::new(), false),
            },
        };
        let is_negative = matches!(matcher.condition, Condition::NotEqual(_) | Condition::NotMatches(_));
        // What is named is what meets a positive matcher, and what does not meet a negative one.
        let is_named = keeps != is_negative;
        let prefix = match &matcher.condition {
            Condition::Matches(pattern) | Condition::NotMatches(pattern) if is_named => pattern.prefix(),
            _ => "",
        };
        Pick { keeps, prefix, texts: (named && is_named).then_some(texts) }
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Search {
    found: RoaringBitmap,
    /// The next one last.
    tests: Vec<Test>,
    left_over: Vec<Matcher>,
}

/// A matcher that is asked of each value of its label.
#[derive(Debug)]
struct Test {
    matcher: Matcher,
    keeps: bool,
    next: usize,
    picked: RoaringBitmap,
}

impl Search {
    pub(super) fn begin(index: &Index, matchers: &[Matcher]) -> Search {
        let (mut kept, mut dropped, mut tests) = (Vec::new(), Vec::new(), Vec::new());
        for matcher in matchers {
            let Pick { keeps, texts, .. } = Pick::of(matcher);
            let values = index.values(&matcher.label);
            match (texts, values) {
                (Some(texts), values) => {
                    let of = |text| values.and_then(|values| values.ids(&index.hasher, text));
                    let lists: Vec<_> = texts.into_iter().filter_map(of).collect();
                    let len: usize = lists.iter().map(|ids| ids.len()).sum();
                    if keeps { &mut kept } else { &mut dropped }.push((len, lists));
                }
                (None, None) if keeps => kept.push((0, Vec::new())),
                (None, None) => {}
                (None, Some(values)) => tests.push((values.len(), matcher)),
            }
        }
        kept.sort_by_key(|(len, _)| *len);
        let mut found = None;
        for (_, lists) in kept {
            found = Some(match (found, lists.as_slice()) {
                (None, lists) => union(lists),
                (Some(found), [list]) => list.within(&found),
                (Some(found), lists) => found & union(lists),
            });
        }
        let mut found = found.unwrap_or_else(|| index.all.clone());
        dropped.iter().flat_map(|(_, lists)| lists).for_each(|list| list.remove_from(&mut found));
        tests.sort_by_key(|(values, _)| std::cmp::Reverse(*values));
        let test = |(_, matcher): (usize, &Matcher)| Test {
            matcher: matcher.clone(),
            keeps: Pick::of(matcher).keeps,
            next: 0,
            picked: RoaringBitmap::new(),
        };
        Search { found, tests: tests.into_iter().map(test).collect(), left_over: Vec::new() }
    }

    /// Tests some values, of the index in which the search began; `false` when nothing is left to be tested.
    pub(crate) fn step(&mut self, index: &Index) -> bool {
        let Some(test) = self.tests.last_mut() else { return false };
        let values = index.values(&test.matcher.label);
        if test.next == 0 && is_better_looked_at(self.found.len(), values) {
            self.left_over.extend(self.tests.pop().map(|test| test.matcher));
            return !self.tests.is_empty();
        }
        let mut more = false;
        if let Some(values) = values {
            let (some, goes_on) = values.some(test.next, TESTS_PER_STEP);
            let picked = some.filter(|(text, _)| test.matcher.meets(text) == test.keeps);
            picked.for_each(|(_, ids)| ids.add_to(&mut test.picked));
            test.next += TESTS_PER_STEP;
            more = goes_on;
        }
        if !more && let Some(Test { keeps, picked, .. }) = self.tests.pop() {
            if keeps { self.found &= picked } else { self.found -= picked }
        }
        !self.tests.is_empty()
    }

    /// Ids were taken out of the index: what is not tested yet is left over.
    pub(crate) fn stop(&mut self) {
        self.left_over.extend(self.tests.drain(..).map(|test| test.matcher));
    }

    /// What was found, and the matchers that it is still to be held against.
    pub(crate) fn end(self) -> (RoaringBitmap, Vec<Matcher>) {
        debug_assert!(self.tests.is_empty());
        (self.found, self.left_over)
    }

    /// Bytes of memory held. It costs an addition for each 65,536 ids.
    pub(crate) fn bytes(&self) -> usize {
        let picked: usize = self.tests.iter().map(|test| test.picked.serialized_size()).sum();
        self.found.serialized_size() + picked
    }
}

fn is_better_looked_at(found: u64, values: Option<&Values>) -> bool {
    values.is_some_and(|values| found.saturating_mul(TESTS_PER_LOOK as u64) < values.len() as u64)
}

fn union(lists: &[&super::ids::Ids]) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    lists.iter().for_each(|list| list.add_to(&mut all));
    all
}
