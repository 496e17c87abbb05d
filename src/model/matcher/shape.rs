//! What a regular expression says without being run: the few texts it stands for, or how each of them begins.
//!
//! Most patterns that people write are a list (`GET|POST`), a beginning (`api-.*`) or anything (`.+`). An index looks up
//! the first, and compares instead of matching for the others.
//!
//! Always: what is said here is what the automaton would say; where that is not plain, the automaton is asked.

use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Dot, Hir, HirKind};

/// Texts that a pattern is unrolled into at most: beyond that looking each of them up costs more than matching.
const TEXTS_MAX: usize = 256;
/// Bytes of one of them at most; a value has no more than 4 KiB, and a pattern neither.
const TEXT_BYTES_MAX: usize = 4096;
/// A class or a repetition is unrolled up to this size.
const CLASS_MAX: usize = 16;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Exactly these, sorted, each once.
    OneOf(Box<[String]>),
    /// All of them begin so, and go on like that.
    Begins(Box<str>, Rest),
}

/// What follows the beginning that all matches share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Anything, or nothing.
    Anything,
    /// At least one character.
    Something,
    /// The automaton knows.
    Matched,
}

impl Shape {
    /// The shape of what was parsed, for whole values.
    pub(super) fn of(hir: &Hir) -> Shape {
        let mut extractor = Extractor::new();
        extractor.limit_class(CLASS_MAX).limit_repeat(CLASS_MAX);
        extractor.limit_literal_len(TEXT_BYTES_MAX).limit_total(TEXTS_MAX);
        let found = extractor.extract(hir);
        // A look (`^`, `\b`) counts for nothing there, so a text may be found that does not match.
        let is_plain = hir.properties().look_set().is_empty();
        if is_plain
            && found.is_exact()
            && let Some(texts) = found.literals()
            && let Some(mut texts) =
                texts.iter().map(|text| utf8(text.as_bytes())).collect::<Option<Vec<_>>>()
        {
            texts.sort_unstable();
            texts.dedup();
            return Shape::OneOf(texts.into());
        }
        let common = found.longest_common_prefix().unwrap_or_default();
        let prefix = longest_text(common);
        let rest = if is_plain { rest_behind(hir, prefix) } else { Rest::Matched };
        Shape::Begins(prefix.into(), rest)
    }
}

fn utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// Several characters may begin with the same bytes.
fn longest_text(bytes: &[u8]) -> &str {
    let len = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    std::str::from_utf8(&bytes[..len]).unwrap_or_default()
}

/// What the pattern says behind `prefix`, where it is that text and a dot that repeats.
fn rest_behind(hir: &Hir, prefix: &str) -> Rest {
    let parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    let (text, dots) = match parts {
        [dots] => (&b""[..], dots),
        [text, dots] => match text.kind() {
            HirKind::Literal(text) => (&*text.0, dots),
            _ => return Rest::Matched,
        },
        _ => return Rest::Matched,
    };
    let HirKind::Repetition(dots) = dots.kind() else { return Rest::Matched };
    let is_dot = *dots.sub == Hir::dot(Dot::AnyChar) && dots.max.is_none();
    match dots.min {
        0 if is_dot && text == prefix.as_bytes() => Rest::Anything,
        1 if is_dot && text == prefix.as_bytes() => Rest::Something,
        _ => Rest::Matched,
    }
}
