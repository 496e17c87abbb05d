//! Regular expressions over label values: the whole value must match, as Prometheus has it.
//!
//! Always: matching takes time linear in the value; a pattern compiles within [`COMPILED_BYTES_MAX`] or not at all.
//! Compiling may take milliseconds, which an I/O loop does not have. `\d`, `\w` and `\s` know all of Unicode (Go's
//! know ASCII); a dot is any character, the end of a line too.

use super::shape::{Rest, Shape};
use regex_automata::meta::{BuildError, Regex};
use regex_automata::util::syntax;
use regex_syntax::hir::{Hir, Look};
use std::fmt;

/// Bytes of the patterns of one list of matchers, together.
pub(super) const PATTERNS_BYTES_MAX: usize = 4096;
/// Bytes that a compiled pattern may take, its caches for matching apart.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// Bytes that one thread caches while it matches.
const CACHE_BYTES_MAX: usize = 256 << 10;
/// Groups within groups.
const NEST_MAX: u32 = 50;

/// A compiled regular expression.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    shape: Shape,
    regex: Regex,
}

/// Why a text is no pattern; ends a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PatternError(pub(super) String);

impl Pattern {
    pub(super) fn new(source: &str) -> Result<Pattern, PatternError> {
        let config = syntax::Config::new().dot_matches_new_line(true).nest_limit(NEST_MAX);
        let parsed = syntax::parse_with(source, &config).map_err(|error| {
            PatternError(match error {
                regex_syntax::Error::Parse(error) => error.kind().to_string(),
                regex_syntax::Error::Translate(error) => error.kind().to_string(),
                other => other.to_string(),
            })
        })?;
        let shape = Shape::of(&parsed);
        // Anchored as a tree: around the text, a pattern such as `a)|(b` would undo it.
        let whole = Hir::concat(vec![Hir::look(Look::Start), parsed, Hir::look(Look::End)]);
        let config =
            Regex::config().nfa_size_limit(Some(COMPILED_BYTES_MAX)).hybrid_cache_capacity(CACHE_BYTES_MAX);
        let regex = Regex::builder().configure(config).build_from_hir(&whole).map_err(|error| {
            PatternError(match BuildError::size_limit(&error) {
                Some(_) => format!("it needs more than {COMPILED_BYTES_MAX} bytes once compiled"),
                None => error.to_string(),
            })
        })?;
        Ok(Pattern { source: source.to_owned(), shape, regex })
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        match &self.shape {
            Shape::OneOf(texts) => texts.binary_search_by(|text| text.as_str().cmp(value)).is_ok(),
            Shape::Begins(prefix, rest) => {
                // Not compared where it is empty: its pointer leads nowhere, and where the processor reads under a mask,
                // a read of no bytes there takes 60 ns instead of one.
                (prefix.is_empty() || value.starts_with(&**prefix))
                    && match rest {
                        Rest::Anything => true,
                        Rest::Something => value.len() > prefix.len(),
                        Rest::Matched => self.regex.is_match(value),
                    }
            }
        }
    }

    /// The texts that match and no others do, sorted, where they are few.
    pub fn texts(&self) -> Option<&[String]> {
        match &self.shape {
            Shape::OneOf(texts) => Some(texts),
            Shape::Begins(..) => None,
        }
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How every text begins that matches; often with nothing in particular.
    pub fn prefix(&self) -> &str {
        match &self.shape {
            Shape::OneOf(_) => "",
            Shape::Begins(prefix, _) => prefix,
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A pattern as a tree, to be matched naively.
    #[derive(Clone, Debug)]
    enum Tree {
        One(char),
        Any,
        NoneOf(char),
        Then(Vec<Tree>),
        Either(Vec<Tree>),
        Repeated(Box<Tree>, usize, Option<usize>),
    }

    impl Tree {
        fn text(&self) -> String {
            let group = |tree: &Tree| format!("(?:{})", tree.text());
            match self {
                Tree::One(c) => c.to_string(),
                Tree::Any => ".".into(),
                Tree::NoneOf(c) => format!("[^{c}]"),
                Tree::Then(parts) => parts.iter().map(group).collect(),
                // Bare, so that the outermost may begin and end in an alternative.
                Tree::Either(parts) => parts.iter().map(Tree::text).collect::<Vec<_>>().join("|"),
                Tree::Repeated(part, min, None) => format!("{}{{{min},}}", group(part)),
                Tree::Repeated(part, min, Some(max)) => format!("{}{{{min},{max}}}", group(part)),
            }
        }

        /// Every place where a match that begins at one of `starts` may end.
        fn ends(&self, text: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
            let step = |takes: &dyn Fn(char) -> bool| -> BTreeSet<usize> {
                starts.iter().filter(|&&at| at < text.len() && takes(text[at])).map(|at| at + 1).collect()
            };
            match self {
                Tree::One(c) => step(&|found| found == *c),
                Tree::Any => step(&|_| true),
                Tree::NoneOf(c) => step(&|found| found != *c),
                Tree::Then(parts) => parts.iter().fold(starts.clone(), |at, part| part.ends(text, &at)),
                Tree::Either(parts) => parts.iter().flat_map(|part| part.ends(text, starts)).collect(),
                Tree::Repeated(part, min, max) => {
                    let mut at = starts.clone();
                    let mut ends = if *min == 0 { at.clone() } else { BTreeSet::new() };
                    // More rounds than there are places find no new end.
                    for round in 1..=max.unwrap_or(min + text.len() + 1) {
                        at = part.ends(text, &at);
                        if round >= *min {
                            ends.extend(&at);
                        }
                    }
                    ends
                }
            }
        }

        fn matches(&self, text: &str) -> bool {
            let text: Vec<char> = text.chars().collect();
            self.ends(&text, &BTreeSet::from([0])).contains(&text.len())
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let letters = || proptest::sample::select(vec!['a', 'b', '☃', '\n']);
        let leaf =
            prop_oneof![letters().prop_map(Tree::One), Just(Tree::Any), letters().prop_map(Tree::NoneOf)];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let some = || proptest::collection::vec(inner.clone(), 0..4);
            let max = proptest::option::of(0..3_usize);
            prop_oneof![
                some().prop_map(Tree::Then),
                proptest::collection::vec(inner.clone(), 1..4).prop_map(Tree::Either),
                (inner.clone(), 0..3_usize, max).prop_map(|(tree, min, more)| Tree::Repeated(
                    Box::new(tree),
                    min,
                    more.map(|m| min + m)
                )),
            ]
        })
    }

    proptest! {
        /// The pattern matches exactly what a naive match of the whole text does.
        #[test]
        fn a_pattern_matches_what_a_naive_match_of_the_whole_does(
            tree in trees(),
            values in proptest::collection::vec("[ab☃\n]{0,6}", 1..8),
        ) {
            let pattern = Pattern::new(&tree.text()).unwrap();
            for value in values {
                prop_assert_eq!(pattern.matches(&value), tree.matches(&value), "{:?} on {:?}", tree.text(), value);
                prop_assert!(!tree.matches(&value) || value.starts_with(pattern.prefix()), "{:?}", pattern.prefix());
            }
        }

        /// Texts with looks in them, lists and beginnings: what is compared is what the automaton would match.
        #[test]
        fn what_is_compared_instead_of_matched_is_what_the_automaton_matches(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["a", "ab", "☃", ".*", ".+", ".", "|", "(a|b)", "[ab]", "^", "$", "\\b",
                    "(?i)", "b?", "(?:ab){2}", "[^a]", "x{0}"]),
                0..6,
            ),
            values in proptest::collection::vec("[abAB☃\n]{0,5}", 1..8),
        ) {
            let source: String = parts.concat();
            if let Ok(pattern) = Pattern::new(&source) {
                for value in values {
                    prop_assert_eq!(pattern.matches(&value), pattern.regex.is_match(&value), "{:?} on {:?}", source, value);
                }
            }
        }

        /// Any text is a pattern or refused with a reason on one line.
        #[test]
        fn any_text_is_compiled_or_refused(text in "[a-c(){}|*+?.^$0-9,\\[\\]\\\\wpL☃:iPx#\n-]{0,40}") {
            match Pattern::new(&text) {
                Ok(pattern) => { pattern.matches("abc"); }
                Err(PatternError(reason)) => prop_assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}"),
            }
        }
    }

    #[test]
    fn the_whole_value_counts_whatever_the_pattern_says() {
        for (pattern, value, expected) in [
            ("a|ab", "ab", true),
            ("a|b", "ab", false),
            ("a", "a\n", false),
            ("(?x) a # a comment", "a", true),
            ("", "", true),
            ("", "a", false),
            (".*", "line\nline", true),
            ("(?i)WEB-[0-9]+", "web-17", true),
            ("^web$", "web", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(value), expected, "{pattern} on {value:?}");
        }
    }

    #[test]
    fn lists_and_beginnings_are_known_without_matching() {
        let begins = |prefix: &str, rest| Shape::Begins(prefix.into(), rest);
        let one_of = |texts: &[&str]| Shape::OneOf(texts.iter().map(|text| (*text).to_owned()).collect());
        for (source, shape) in [
            ("", one_of(&[""])),
            ("web", one_of(&["web"])),
            ("GET|POST|GET", one_of(&["GET", "POST"])),
            ("web-[1-3]b?", one_of(&["web-1", "web-1b", "web-2", "web-2b", "web-3", "web-3b"])),
            ("(eu|us)-(east|west)", one_of(&["eu-east", "eu-west", "us-east", "us-west"])),
            ("a|", one_of(&["", "a"])),
            (".*", begins("", Rest::Anything)),
            (".+", begins("", Rest::Something)),
            ("api-.*", begins("api-", Rest::Anything)),
            ("api-.+", begins("api-", Rest::Something)),
            ("api-[0-9]+", begins("api-", Rest::Matched)),
            ("api-.*x", begins("api-", Rest::Matched)),
            ("(api-a.*|api-b)", begins("api-", Rest::Matched)),
            ("^web$", begins("web", Rest::Matched)),
            ("web\\b", begins("web", Rest::Matched)),
            ("[^b].*", begins("", Rest::Matched)),
        ] {
            assert_eq!(Pattern::new(source).unwrap().shape, shape, "{source}");
        }
        let texts = Pattern::new("b|a").unwrap();
        assert_eq!(texts.texts(), Some(&["a".to_owned(), "b".to_owned()][..]));
        let begins = Pattern::new("api-[0-9]+").unwrap();
        assert_eq!((begins.prefix(), begins.source()), ("api-", "api-[0-9]+"));
    }

    #[test]
    fn what_is_no_pattern_or_too_large_a_one_is_refused_with_its_reason() {
        for (pattern, reason) in [
            ("a)|(b", "unopened group"),
            ("(", "unclosed group"),
            ("*", "repetition operator missing expression"),
            ("[b-a]", "invalid character class range"),
            (r"(a)\1", "backreferences are not supported"),
            (r"\pX", "Unicode property not found"),
            ("(a{1000}){1000}", "it needs more than 262144 bytes once compiled"),
            (r"\w{999}", "it needs more than 262144 bytes once compiled"),
        ] {
            let found = Pattern::new(pattern).unwrap_err().0;
            assert!(found.contains(reason), "{pattern}: {found}");
        }
        let deep = format!("{}a{}", "(".repeat(1_000), ")".repeat(1_000));
        assert!(Pattern::new(&deep).is_err());
    }
}
