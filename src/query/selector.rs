//! Which samples a query is about.

use model::{Matcher, MatcherError, Timestamp, parse_matchers};
use std::borrow::Cow;

/// Conditions on series, on time and on value; a sample must meet all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The metric name.
    pub name: String,
    /// Conditions on labels.
    pub conditions: LabelConditions,
    /// First millisecond since 1970, included.
    pub start_ms: i64,
    /// Last millisecond since 1970, included; `i64::MAX` is no limit.
    pub end_ms: i64,
    /// Smallest value, included; finite.
    pub min_value: Option<f64>,
    /// Largest value, included; finite.
    pub max_value: Option<f64>,
}

/// Conditions on labels, read as far as the reader has time for it.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelConditions {
    /// Ready.
    Read(Vec<Matcher>),
    /// With regular expressions, perhaps: compiling them is left to whoever selects.
    Text(String),
}

impl Default for LabelConditions {
    fn default() -> LabelConditions {
        LabelConditions::Read(Vec::new())
    }
}

impl LabelConditions {
    /// Reads what can be read in no time.
    pub(crate) fn read(text: String) -> Result<LabelConditions, MatcherError> {
        if text.contains('~') {
            Ok(LabelConditions::Text(text))
        } else {
            parse_matchers(&text).map(Self::Read)
        }
    }
}

impl Selector {
    /// First and last timestamp, both included: the whole of the first and of the last millisecond.
    /// The first is later than the last when the range is empty.
    pub fn bounds(&self) -> (Timestamp, Timestamp) {
        (Timestamp::first_of_milli(self.start_ms), Timestamp::last_of_milli(self.end_ms))
    }

    /// The conditions on labels, compiled. Takes milliseconds where they hold regular expressions.
    pub fn matchers(&self) -> Result<Cow<'_, [Matcher]>, MatcherError> {
        match &self.conditions {
            LabelConditions::Read(matchers) => Ok(Cow::Borrowed(matchers)),
            LabelConditions::Text(text) => parse_matchers(text).map(Cow::Owned),
        }
    }

    /// Whether a value is asked for. NaN lies in no range, but passes where no range is given.
    pub(crate) fn keeps(&self, value: f64) -> bool {
        self.min_value.is_none_or(|min| value >= min) && self.max_value.is_none_or(|max| value <= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector() -> Selector {
        Selector {
            name: "cpu".into(),
            conditions: LabelConditions::default(),
            start_ms: 10,
            end_ms: 20,
            min_value: None,
            max_value: None,
        }
    }

    #[test]
    fn conditions_are_read_at_once_unless_they_may_take_long() {
        let read = LabelConditions::read(r#"{host="a",zone!="b"}"#.into());
        assert!(matches!(&read, Ok(LabelConditions::Read(matchers)) if matchers.len() == 2));
        assert!(LabelConditions::read("{host}".into()).is_err());
        for (text, expected) in
            [(r#"{host=~"a|b"}"#, true), (r#"{host="~"}"#, true), (r#"{host=~"("}"#, false)]
        {
            let conditions = LabelConditions::read(text.into()).unwrap();
            let selector = Selector { conditions, ..selector() };
            assert_eq!(selector.matchers().is_ok_and(|matchers| matchers.len() == 1), expected, "{text}");
        }
    }

    #[test]
    fn bounds_hold_the_whole_of_both_milliseconds() {
        let (first, last) = selector().bounds();
        assert_eq!((first.millis(), first.fine()), (10, 0));
        assert_eq!(last.millis(), 20);
        assert_eq!(Timestamp::from_ticks(last.ticks() + 1).millis(), 21);
        let unlimited = Selector { end_ms: i64::MAX, start_ms: i64::MIN, ..selector() };
        let (first, last) = unlimited.bounds();
        assert!(first < Timestamp::first_of_milli(0) && last > Timestamp::first_of_milli(1 << 42));
    }

    #[test]
    fn value_bounds_are_included_either_alone_or_both() {
        let kept = |min_value, max_value| -> Vec<f64> {
            let selector = Selector { min_value, max_value, ..selector() };
            [50.0, 65.0, 75.0, 85.0, 95.0].into_iter().filter(|&v| selector.keeps(v)).collect()
        };
        assert_eq!(kept(Some(80.0), None), [85.0, 95.0]);
        assert_eq!(kept(Some(85.0), Some(85.0)), [85.0]);
        assert_eq!(kept(None, Some(65.0)), [50.0, 65.0]);
        assert_eq!(kept(None, None).len(), 5);
        assert!(selector().keeps(f64::NAN));
        assert!(!Selector { min_value: Some(f64::MIN), ..selector() }.keeps(f64::NAN));
    }
}
