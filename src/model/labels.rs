//! Label sets, in the one byte form that everything compares, hashes, journals and stores.
//!
//! Canonical bytes of a label set:
//!
//! ```text
//!   ┌────────┬──────┬─────────────────────────────────────────────────────┐
//!   │ len u8 │ name │ per label, names rising: │len u8│name│len u16 LE│value│
//!   └────────┴──────┴─────────────────────────────────────────────────────┘
//!     metric name      labels with an empty value are left out (Prometheus: the same as absent)
//! ```
//!
//! Two label sets are the same series if and only if these bytes are equal.
//! The form is part of the journal and segment formats: it does not change without a new version of both.

use crate::label_piece::{LabelPiece, is_label};
use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of a metric name at most.
pub const METRIC_NAME_BYTES_MAX: usize = 255;
/// Bytes of a label name at most.
pub const LABEL_NAME_BYTES_MAX: usize = 255;
/// Bytes of a label value at most.
pub const LABEL_VALUE_BYTES_MAX: usize = 4 * 1024;
/// Labels in one set at most, the metric name not counted.
pub const LABELS_MAX: usize = 64;
/// Slots over which series are spread; fixed for ever, so that the number of shards may change.
pub const SLOTS: u16 = 1024;

const _: () = assert!(METRIC_NAME_BYTES_MAX <= u8::MAX as usize && LABEL_NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LABEL_VALUE_BYTES_MAX <= u16::MAX as usize);

/// Why a label set was refused; the client's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelError {
    /// The metric name has no byte.
    NameEmpty,
    /// The metric name is longer than [`METRIC_NAME_BYTES_MAX`].
    NameTooLong,
    /// The metric name holds a control character.
    NameHasControl,
    /// A label's name has no byte.
    LabelNameEmpty,
    /// A label's name is longer than [`LABEL_NAME_BYTES_MAX`].
    LabelNameTooLong,
    /// A label's name holds a control character.
    LabelNameHasControl,
    /// The name `__name__`, which is the metric's own.
    LabelNameReserved,
    /// The value of the named label is longer than [`LABEL_VALUE_BYTES_MAX`].
    LabelValueTooLong(String),
    /// The value of the named label holds a control character.
    LabelValueHasControl(String),
    /// The named label stands twice in one set.
    LabelTwice(String),
    /// More labels than [`LABELS_MAX`].
    TooManyLabels,
    /// Bytes that are not the canonical form; from a damaged file, never from a client.
    NotCanonical,
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabelError::NameEmpty => f.write_str("Metric name cannot be empty"),
            LabelError::NameTooLong => f.write_str("Metric name too long (max 255 characters)"),
            LabelError::NameHasControl => f.write_str("Metric name contains a control character"),
            LabelError::LabelNameEmpty => f.write_str("Label name cannot be empty"),
            LabelError::LabelNameTooLong => f.write_str("Label name too long (max 255 characters)"),
            LabelError::LabelNameHasControl => f.write_str("Label name contains a control character"),
            LabelError::LabelNameReserved => {
                f.write_str("Label name __name__ is the metric name; give it as name")
            }
            LabelError::LabelValueTooLong(name) => {
                write!(f, "Value of label {name:?} too long (max 4096 bytes)")
            }
            LabelError::LabelValueHasControl(name) => {
                write!(f, "Value of label {name:?} contains a control character")
            }
            LabelError::LabelTwice(name) => write!(f, "Label {name:?} is given twice"),
            LabelError::TooManyLabels => write!(f, "Too many labels (max {LABELS_MAX})"),
            LabelError::NotCanonical => f.write_str("label bytes are not in canonical form"),
        }
    }
}

impl std::error::Error for LabelError {}

/// 128 bits of XXH3 over the canonical bytes: wide enough to stand for the label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesHash(pub u128);

/// One of [`SLOTS`] fixed groups of series; shard `i` of `n` owns the slots `s` with `s mod n = i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl SeriesHash {
    /// The slot of the series. Part of the directory format.
    pub fn slot(self) -> Slot {
        Slot((self.0 % u128::from(SLOTS)) as u16)
    }
}

impl Slot {
    /// The slot of that number, if there is one.
    pub fn new(number: u16) -> Option<Slot> {
        (number < SLOTS).then_some(Slot(number))
    }

    /// 0 to [`SLOTS`] - 1.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Which of `shards` shards owns the slot.
    pub fn owner(self, shards: usize) -> usize {
        usize::from(self.0) % shards
    }
}

/// A label set that owns its canonical bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSet(Box<[u8]>);

/// A label set borrowed from wherever its canonical bytes lie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSetRef<'a>(&'a [u8]);

impl LabelSet {
    /// Bytes of which the same is known as [`LabelSetRef::from_canonical`] asks for.
    pub fn from_canonical(bytes: Vec<u8>) -> LabelSet {
        debug_assert!(LabelSetRef::from_bytes(&bytes).is_ok());
        LabelSet(bytes.into())
    }

    /// The set, borrowed.
    pub fn as_ref(&self) -> LabelSetRef<'_> {
        LabelSetRef(&self.0)
    }
}

impl<'a> LabelSetRef<'a> {
    /// Takes bytes that claim to be canonical and checks every rule of the form.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<LabelSetRef<'a>, LabelError> {
        let wrong = LabelError::NotCanonical;
        let (&name_len, rest) = bytes.split_first().ok_or(wrong.clone())?;
        let name = rest.get(..usize::from(name_len)).ok_or(wrong.clone())?;
        let mut rest = &rest[name.len()..];
        check_text(name).ok_or(wrong.clone())?;
        let mut previous: &[u8] = b"";
        let mut labels = 0;
        while !rest.is_empty() {
            let (name, value, after) = split_label(rest).ok_or(wrong.clone())?;
            labels += 1;
            if name <= previous || labels > LABELS_MAX || !is_label(name, value) {
                return Err(wrong);
            }
            (previous, rest) = (name, after);
        }
        Ok(LabelSetRef(bytes))
    }

    /// Bytes that a [`LabelSetBuilder`] made or [`Self::from_bytes`] has accepted before, and that a
    /// checksum has guarded since.
    pub fn from_canonical(bytes: &'a [u8]) -> LabelSetRef<'a> {
        debug_assert!(LabelSetRef::from_bytes(bytes).is_ok());
        LabelSetRef(bytes)
    }

    /// The canonical bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// An owned copy.
    pub fn to_owned(self) -> LabelSet {
        LabelSet(self.0.into())
    }

    /// The hash that names the series across files and shards.
    pub fn hash(self) -> SeriesHash {
        SeriesHash(xxh3_128(self.0))
    }

    /// The metric name.
    pub fn name(self) -> &'a str {
        text(&self.0[1..1 + usize::from(self.0[0])])
    }

    /// The labels, names rising, the metric name not among them.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = &self.0[1 + usize::from(self.0[0])..];
        std::iter::from_fn(move || {
            let (name, value, after) = split_label(rest)?;
            rest = after;
            Some((text(name), text(value)))
        })
    }

    /// The canonical bytes in pieces: the metric name's, then those of each label. One behind the other they are all.
    pub fn pieces(self) -> impl Iterator<Item = LabelPiece<'a>> {
        let (name, mut rest) = self.0.split_at(1 + usize::from(self.0[0]));
        let labels = std::iter::from_fn(move || {
            let (_, _, after) = split_label(rest)?;
            let (piece, left) = rest.split_at(rest.len() - after.len());
            rest = left;
            Some(piece)
        });
        std::iter::once(name).chain(labels).map(LabelPiece::from_canonical)
    }

    /// The value of a label; `__name__` is the metric name, an absent label is `""`.
    pub fn get(self, name: &str) -> &'a str {
        if name == "__name__" {
            return self.name();
        }
        self.labels().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// As in the exposition format: `cpu{host="a"}`.
impl fmt::Debug for LabelSetRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{", self.name())?;
        for (i, (name, value)) in self.labels().enumerate() {
            write!(f, "{}{name}={value:?}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("}")
    }
}

/// Makes canonical bytes from names and values in any order. Kept and reused; allocates only to grow.
#[derive(Debug, Default)]
pub struct LabelSetBuilder {
    /// Names and values as they came, back to back.
    text: Vec<u8>,
    /// Where in `text` each label lies.
    labels: Vec<LabelSpan>,
    name_len: usize,
    /// Whether a name did not rise above the one before: senders that sort them are the most.
    is_unsorted: bool,
}

#[derive(Clone, Copy, Debug)]
struct LabelSpan {
    name_start: u32,
    value_start: u32,
    value_end: u32,
}

impl LabelSetBuilder {
    /// Begins a new set of this metric name, forgetting the last.
    pub fn begin(&mut self, metric_name: &str) -> Result<(), LabelError> {
        if metric_name.is_empty() {
            return Err(LabelError::NameEmpty);
        }
        if metric_name.len() > METRIC_NAME_BYTES_MAX {
            return Err(LabelError::NameTooLong);
        }
        if has_control(metric_name.as_bytes()) {
            return Err(LabelError::NameHasControl);
        }
        self.text.clear();
        self.labels.clear();
        self.text.extend_from_slice(metric_name.as_bytes());
        self.name_len = metric_name.len();
        self.is_unsorted = false;
        Ok(())
    }

    /// Adds a label; an empty value is the same as no label.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), LabelError> {
        if name.is_empty() {
            return Err(LabelError::LabelNameEmpty);
        }
        if name.len() > LABEL_NAME_BYTES_MAX {
            return Err(LabelError::LabelNameTooLong);
        }
        if has_control(name.as_bytes()) {
            return Err(LabelError::LabelNameHasControl);
        }
        if name == "__name__" {
            return Err(LabelError::LabelNameReserved);
        }
        if value.len() > LABEL_VALUE_BYTES_MAX {
            return Err(LabelError::LabelValueTooLong(name.into()));
        }
        if has_control(value.as_bytes()) {
            return Err(LabelError::LabelValueHasControl(name.into()));
        }
        if self.labels.len() == LABELS_MAX {
            return Err(LabelError::TooManyLabels);
        }
        if let Some(LabelSpan { name_start, value_start, .. }) = self.labels.last() {
            self.is_unsorted |= name.as_bytes() <= &self.text[*name_start as usize..*value_start as usize];
        }
        let name_start = self.text.len() as u32;
        self.text.extend_from_slice(name.as_bytes());
        let value_start = self.text.len() as u32;
        self.text.extend_from_slice(value.as_bytes());
        self.labels.push(LabelSpan { name_start, value_start, value_end: self.text.len() as u32 });
        Ok(())
    }

    /// Appends the canonical bytes to `out`; a label given twice is refused.
    pub fn finish_into(&mut self, out: &mut Vec<u8>) -> Result<(), LabelError> {
        let text = &self.text;
        let name = |label: &LabelSpan| &text[label.name_start as usize..label.value_start as usize];
        if self.is_unsorted {
            self.labels.sort_unstable_by(|a, b| name(a).cmp(name(b)));
            for pair in self.labels.windows(2) {
                if name(&pair[0]) == name(&pair[1]) {
                    return Err(LabelError::LabelTwice(String::from_utf8_lossy(name(&pair[0])).into()));
                }
            }
        }
        out.push(self.name_len as u8);
        out.extend_from_slice(&self.text[..self.name_len]);
        for label in &self.labels {
            let name = name(label);
            let value = &self.text[label.value_start as usize..label.value_end as usize];
            if value.is_empty() {
                continue;
            }
            out.push(name.len() as u8);
            out.extend_from_slice(name);
            out.extend_from_slice(&(value.len() as u16).to_le_bytes());
            out.extend_from_slice(value);
        }
        Ok(())
    }

    /// The set by itself, for tests and set-up code; the hot path appends with [`Self::finish_into`].
    pub fn finish(&mut self) -> Result<LabelSet, LabelError> {
        let mut bytes = Vec::new();
        self.finish_into(&mut bytes)?;
        Ok(LabelSet(bytes.into()))
    }
}

impl LabelSet {
    /// A label set from a metric name and pairs.
    pub fn new(metric_name: &str, labels: &[(&str, &str)]) -> Result<LabelSet, LabelError> {
        let mut builder = LabelSetBuilder::default();
        builder.begin(metric_name)?;
        for (name, value) in labels {
            builder.push(name, value)?;
        }
        builder.finish()
    }
}

pub(crate) fn split_label(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&name_len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
    let (value_len, rest) = rest.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*value_len)))?;
    Some((name, value, rest))
}

/// C0, DEL and C1: the characters of Unicode's category Cc.
fn has_control(text: &[u8]) -> bool {
    let c0 = text.iter().fold(false, |found, &byte| found | (byte < 0x20) | (byte == 0x7f));
    // Pairs are looked at one by one, so only where there is a byte that begins one.
    let may_be_c1 = text.iter().fold(false, |found, &byte| found | (byte == 0xc2));
    c0 || may_be_c1 && text.windows(2).any(|pair| pair[0] == 0xc2 && (0x80..0xa0).contains(&pair[1]))
}

/// Text that a name or a value may be, but for its length.
pub(crate) fn check_text(bytes: &[u8]) -> Option<()> {
    (!bytes.is_empty() && std::str::from_utf8(bytes).is_ok() && !has_control(bytes)).then_some(())
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("canonical label bytes are UTF-8, checked when they were made")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_in_which_labels_come_makes_no_difference() {
        let one = LabelSet::new("cpu", &[("zone", "b"), ("host", "a"), ("empty", "")]).unwrap();
        let other = LabelSet::new("cpu", &[("host", "a"), ("zone", "b")]).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.as_ref().hash(), other.as_ref().hash());
        assert_eq!(format!("{one:?}"), r#"cpu{host="a",zone="b"}"#);
        assert_eq!(one.as_ref().get("zone"), "b");
        assert_eq!(one.as_ref().get("__name__"), "cpu");
        assert_eq!(one.as_ref().get("absent"), "");
    }

    #[test]
    fn each_rule_for_names_and_values_has_its_own_refusal() {
        let long = "x".repeat(4097);
        let of = |name: &str, labels: &[(&str, &str)]| LabelSet::new(name, labels).unwrap_err();
        assert_eq!(of("", &[]), LabelError::NameEmpty);
        assert_eq!(of(&long[..256], &[]), LabelError::NameTooLong);
        assert_eq!(of("a\u{7}b", &[]), LabelError::NameHasControl);
        assert_eq!(of("a\u{85}b", &[]), LabelError::NameHasControl);
        assert_eq!(of("a", &[("", "v")]), LabelError::LabelNameEmpty);
        assert_eq!(of("a", &[(&long[..256], "v")]), LabelError::LabelNameTooLong);
        assert_eq!(of("a", &[("b\n", "v")]), LabelError::LabelNameHasControl);
        assert_eq!(of("a", &[("__name__", "v")]), LabelError::LabelNameReserved);
        assert_eq!(of("a", &[("b", &long)]), LabelError::LabelValueTooLong("b".into()));
        assert_eq!(of("a", &[("b", "\u{0}")]), LabelError::LabelValueHasControl("b".into()));
        assert_eq!(of("a", &[("b", "1"), ("b", "2")]), LabelError::LabelTwice("b".into()));
        let many: Vec<String> = (0..65).map(|i| format!("l{i}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "v")).collect();
        assert_eq!(of("a", &many), LabelError::TooManyLabels);
        assert!(LabelSet::new("app.cpu läuft 温度", &[("город", "Москва ☃")]).is_ok());
    }

    proptest! {
        /// Whatever the builder makes is accepted back, with the same parts.
        #[test]
        fn canonical_bytes_are_read_back(
            name in "[a-zä. ]{1,20}",
            labels in proptest::collection::btree_map("[a-z☃]{1,8}", "[ -~é]{0,12}", 0..8),
        ) {
            let pairs: Vec<(&str, &str)> =
                labels.iter().rev().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let set = LabelSet::new(&name, &pairs).unwrap();
            let back = LabelSetRef::from_bytes(set.as_ref().bytes()).unwrap();
            prop_assert_eq!(back.name(), name.as_str());
            let expected: Vec<(&str, &str)> = labels.iter()
                .filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(back.labels().collect::<Vec<_>>(), expected);
            let pieces: Vec<_> = set.as_ref().pieces().map(LabelPiece::bytes).collect();
            prop_assert_eq!(pieces.concat(), set.as_ref().bytes());
            prop_assert_eq!(set.as_ref().pieces().count(), 1 + back.labels().count());
        }

        /// Bytes from a damaged file are refused or are a label set; reading them never panics.
        #[test]
        fn any_bytes_are_refused_or_readable(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(set) = LabelSetRef::from_bytes(&bytes) {
                let _ = (set.name(), set.labels().count(), set.hash().slot());
            }
        }
    }

    /// The hash and the slot are part of the directory format: a change here orphans every series.
    #[test]
    fn slots_are_fixed_for_ever() {
        let set = LabelSet::new("cpu_usage", &[("host", "a")]).unwrap();
        assert_eq!(set.as_ref().hash(), SeriesHash(xxh3_128(b"\x09cpu_usage\x04host\x01\x00a")));
        assert_eq!(set.as_ref().hash().slot().number(), 276);
    }
}
