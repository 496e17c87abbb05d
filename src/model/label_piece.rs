//! The parts that a label set's canonical bytes consist of: the metric name, then each label with its value.
//!
//! Label sets that come one behind the other mostly share all but one or two of them, so whoever reads many checks and
//! enters only what has changed.
//! Always: bytes that are pieces, the first of a name, the others of labels whose names rise, make a canonical label set.

use crate::labels::{LABEL_VALUE_BYTES_MAX, check_text, split_label, text};

/// One part of a label set, borrowed from its canonical bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelPiece<'a>(&'a [u8]);

impl<'a> LabelPiece<'a> {
    /// Takes bytes that claim to be a metric name's, and checks every rule of the form.
    pub fn of_name(bytes: &'a [u8]) -> Option<LabelPiece<'a>> {
        let (&name_len, name) = bytes.split_first()?;
        check_text(name).filter(|_| usize::from(name_len) == name.len())?;
        Some(LabelPiece(bytes))
    }

    /// The same of a label and its value.
    pub fn of_label(bytes: &'a [u8]) -> Option<LabelPiece<'a>> {
        let (name, value, after) = split_label(bytes)?;
        (after.is_empty() && is_label(name, value)).then_some(LabelPiece(bytes))
    }

    /// Bytes that [`Self::of_name`] or [`Self::of_label`] has accepted before, or that lie in a label set between two
    /// such places.
    pub fn from_canonical(bytes: &'a [u8]) -> LabelPiece<'a> {
        debug_assert!(LabelPiece::of_name(bytes).is_some() || LabelPiece::of_label(bytes).is_some());
        LabelPiece(bytes)
    }

    /// Its canonical bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The label's name, as names are compared; of a metric name's piece that name.
    pub fn name_bytes(self) -> &'a [u8] {
        &self.0[1..1 + usize::from(self.0[0])]
    }

    /// The label's value, where it is not the first piece.
    pub fn value_bytes(self) -> &'a [u8] {
        // Behind the name stand two bytes of the value's length.
        &self.0[1 + self.name_bytes().len() + 2..]
    }

    /// The metric name, where it is the first piece.
    pub fn as_name(self) -> &'a str {
        text(self.name_bytes())
    }

    /// The label and its value, where it is not the first piece.
    pub fn as_label(self) -> (&'a str, &'a str) {
        (text(self.name_bytes()), text(self.value_bytes()))
    }
}

/// Whether a label set may have this label, whatever the others are.
pub(crate) fn is_label(name: &[u8], value: &[u8]) -> bool {
    name != b"__name__"
        && value.len() <= LABEL_VALUE_BYTES_MAX
        && check_text(name).is_some()
        && check_text(value).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelSet, LabelSetRef};
    use proptest::prelude::*;

    #[test]
    fn a_piece_says_what_stands_in_it() {
        let set = LabelSet::new("cpu", &[("host", "a"), ("zone", "täglich")]).unwrap();
        let pieces: Vec<_> = set.as_ref().pieces().collect();
        assert_eq!(pieces[0].as_name(), "cpu");
        assert_eq!((pieces[1].as_label(), pieces[1].name_bytes()), (("host", "a"), &b"host"[..]));
        assert_eq!(pieces[2].as_label(), ("zone", "täglich"));
    }

    proptest! {
        /// A piece is taken exactly if a label set with it is.
        #[test]
        fn pieces_are_checked_as_label_sets_are(
            name in prop_oneof!["[a-c\u{7}é]{0,3}", Just("__name__".to_owned())],
            value in prop_oneof!["[a-c\u{7}é]{0,3}", Just("x".repeat(LABEL_VALUE_BYTES_MAX + 1))],
            wrong_by in -1i8..=1,
            broken in proptest::option::of((0usize..12, any::<u8>())),
        ) {
            let mut bytes = vec![(name.len() as u8).saturating_add_signed(wrong_by)];
            bytes.extend(name.as_bytes());
            prop_assert_eq!(LabelPiece::of_name(&bytes).is_some(), LabelSetRef::from_bytes(&bytes).is_ok());
            bytes[0] = name.len() as u8;
            bytes.extend((value.len() as u16).saturating_add_signed(i16::from(wrong_by)).to_le_bytes());
            bytes.extend(value.as_bytes());
            if let Some((at, byte)) = broken
                && let Some(place) = bytes.get_mut(at)
            {
                *place = byte;
            }
            let mut set = b"\x01m".to_vec();
            set.extend(&bytes);
            // Two short labels may hide in the bytes of one.
            let labels = LabelSetRef::from_bytes(&set).ok().filter(|set| set.labels().count() == 1);
            prop_assert_eq!(LabelPiece::of_label(&bytes).is_some(), labels.is_some());
        }
    }
}
