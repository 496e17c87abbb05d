//! Which samples a query is about.

use model::{LabelSetRef, Matcher, Timestamp};

/// Conditions on series, on time and on value; a sample must meet all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The metric name.
    pub name: String,
    /// Conditions on labels.
    pub matchers: Vec<Matcher>,
    /// First millisecond since 1970, included.
    pub start_ms: i64,
    /// Last millisecond since 1970, included; `i64::MAX` is no limit.
    pub end_ms: i64,
    /// Smallest value, included; finite.
    pub min_value: Option<f64>,
    /// Largest value, included; finite.
    pub max_value: Option<f64>,
}

impl Selector {
    /// First and last timestamp, both included: the whole of the first and of the last millisecond.
    /// The first is later than the last when the range is empty.
    pub fn bounds(&self) -> (Timestamp, Timestamp) {
        (Timestamp::first_of_milli(self.start_ms), Timestamp::last_of_milli(self.end_ms))
    }

    /// Whether a series is asked for.
    pub fn selects(&self, labels: LabelSetRef<'_>) -> bool {
        labels.name() == self.name && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    /// Whether a value is asked for. NaN lies in no range, but passes where no range is given.
    pub(crate) fn keeps(&self, value: f64) -> bool {
        self.min_value.is_none_or(|min| value >= min) && self.max_value.is_none_or(|max| value <= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{LabelSet, parse_matchers};

    fn selector() -> Selector {
        Selector {
            name: "cpu".into(),
            matchers: parse_matchers(r#"{host="a",zone!="b"}"#).unwrap(),
            start_ms: 10,
            end_ms: 20,
            min_value: None,
            max_value: None,
        }
    }

    #[test]
    fn a_series_is_selected_by_name_and_every_matcher() {
        for (name, labels, expected) in [
            ("cpu", &[("host", "a")][..], true),
            ("cpu", &[("host", "a"), ("zone", "c")], true),
            ("cpu", &[("host", "a"), ("zone", "b")], false),
            ("cpu", &[], false),
            ("mem", &[("host", "a")], false),
        ] {
            let set = LabelSet::new(name, labels).unwrap();
            assert_eq!(selector().selects(set.as_ref()), expected, "{set:?}");
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
