//! What an object is but for its numbers: senders repeat that, too.
//!
//! ```text
//!   {"name":"cpu","value":|85|,"timestamp":|1696789234567|,"tags":{"host":"a"}}
//!    before                    between                      behind
//! ```
//!
//! Always: an object that equals one that was taken, byte by byte but for the numbers of its last `value` and its last
//! `timestamp`, means the same with these numbers. Both numbers end where the text behind them begins, for no number
//! goes on with that byte; so the keys are found at the same bytes as when they were read. Keys whose meaning depends
//! on where the object stands, `client_id` and `metrics`, make no template.
//! Not here: which template is tried where (`repeats.rs`), what a number may be (`fields.rs`).

use super::Key;
use super::fields::timestamp_of;
use crate::json::{Begins, Reader};
use model::{MetricKind, Timestamp};
use std::ops::Range;

/// Where the text of an object was cut, and what it says besides its name, labels and numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    before_len: u16,
    between_len: u16,
    behind_len: u16,
    numbers: Numbers,
    kind: MetricKind,
}

/// Which numbers there are, in their order. With one, the text behind it counts as `between`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    Value,
    ValueTime,
    TimeValue,
}

/// What an object says that fits a template, besides its name and labels.
pub(super) struct Reading {
    pub(super) value: f64,
    pub(super) timestamp: Option<Timestamp>,
    pub(super) kind: MetricKind,
}

impl Template {
    /// Cuts an object that was taken as a metric of that kind, and appends its text without the numbers to `text`.
    /// `None`, and nothing appended, where it has no number for a value or a text for a time, or is too long.
    pub(super) fn cut(object: &str, kind: MetricKind, text: &mut Vec<u8>) -> Option<Template> {
        let (value, time) = numbers_of(object)?;
        let (first, second, numbers) = match time {
            None => (value, object.len()..object.len(), Numbers::Value),
            Some(time) if value.start < time.start => (value, time, Numbers::ValueTime),
            Some(time) => (time, value, Numbers::TimeValue),
        };
        let len = |text: &str| u16::try_from(text.len()).ok();
        let parts = [&object[..first.start], &object[first.end..second.start], &object[second.end..]];
        let [before, between, behind] = parts;
        let template = Template {
            before_len: len(before)?,
            between_len: len(between)?,
            behind_len: len(behind)?,
            numbers,
            kind,
        };
        parts.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
        Some(template)
    }

    /// Bytes of its text.
    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.before_len) + usize::from(self.between_len) + usize::from(self.behind_len)
    }

    /// Passes the object that begins here if it fits and its numbers can be taken; `text` begins with the template's.
    #[inline]
    pub(super) fn read(&self, text: &[u8], reader: &mut Reader<'_>) -> Option<Reading> {
        let (before, text) = text.split_at_checked(usize::from(self.before_len))?;
        let (between, text) = text.split_at_checked(usize::from(self.between_len))?;
        let mut ahead = reader.clone();
        if !ahead.take_all(before) {
            return None;
        }
        let first = ahead.number().ok()?;
        if !ahead.take_all(between) {
            return None;
        }
        let (value, timestamp) = if self.numbers == Numbers::Value {
            (first, None)
        } else {
            let behind = text.get(..usize::from(self.behind_len))?;
            let second = ahead.number().ok()?;
            if !ahead.take_all(behind) {
                return None;
            }
            let (value, time) =
                if self.numbers == Numbers::ValueTime { (first, second) } else { (second, first) };
            (value, Some(timestamp_of(time).ok()?))
        };
        let value = value.to_f64();
        if !value.is_finite() {
            return None;
        }
        *reader = ahead;
        Some(Reading { value, timestamp, kind: self.kind })
    }
}

/// Where the numbers of an object stand that count as its value and as its time, if it has one.
fn numbers_of(object: &str) -> Option<(Range<usize>, Option<Range<usize>>)> {
    let mut reader = Reader::new(object);
    let mut unescaped = String::new();
    let (mut value, mut time) = (None, None);
    let mut is_first = true;
    reader.enter();
    while let Some(key) = reader.next_key(&mut is_first, &mut unescaped).ok()? {
        let key = Key::of(key.get(object, &unescaped));
        let (begins, start) = (reader.begins().ok()?, reader.offset());
        reader.skip_value(&mut unescaped).ok()?;
        let number = (begins == Begins::Number).then_some(start..reader.offset());
        match key {
            Key::Value => value = number,
            Key::Timestamp if begins == Begins::Null => time = None,
            Key::Timestamp => time = Some(number?),
            Key::ClientId | Key::Metrics => return None,
            Key::Name | Key::Type | Key::Tags | Key::Labels | Key::Unknown => {}
        }
    }
    Some((value?, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `text` says where it fits the template of `object`: value, milliseconds, and what was left of it.
    fn fit<'t>(object: &str, text: &'t str) -> Option<(f64, Option<i64>, &'t str)> {
        let mut kept = b"before".to_vec();
        let template = Template::cut(object, MetricKind::Counter, &mut kept).expect("it makes a template");
        assert_eq!(kept.len(), "before".len() + template.len());
        let mut reader = Reader::new(text);
        let reading = template.read(&kept["before".len()..], &mut reader);
        let left = &text[reader.offset()..];
        assert!(reading.is_some() || left == text, "what does not fit is not passed");
        reading.map(|Reading { value, timestamp, .. }| (value, timestamp.map(Timestamp::millis), left))
    }

    #[test]
    fn an_object_fits_that_differs_in_its_numbers_alone() {
        let value = r#"{"name":"a","value":1}"#;
        let both = r#"{"name":"a","value":1,"timestamp":5,"tags":{"value":"2"}}"#;
        let time_first = r#"{ "timestamp" : 5 , "value" : 1 , "name":"a" }"#;
        for (object, text, expected) in [
            (value, r#"{"name":"a","value":-2.5e1},"#, Some((-25.0, None, ","))),
            (value, r#"{"name":"a","value":0}"#, Some((0.0, None, ""))),
            (value, r#"{"name":"a","value":1 }"#, None),
            (value, r#"{"name":"a","value":1,"timestamp":5}"#, None),
            (value, r#"{"name":"b","value":1}"#, None),
            (value, r#"{"name":"a","value":1"#, None),
            (value, r#"{"name":"a","value":}"#, None),
            (value, r#"{"name":"a","value":"#, None),
            (value, r#"{"name":"a","val"#, None),
            (value, "", None),
            // Numbers that are none, or cannot be taken: read as ever, and refused there.
            (value, r#"{"name":"a","value":01}"#, None),
            (value, r#"{"name":"a","value":1.}"#, None),
            (value, r#"{"name":"a","value":1e999}"#, None),
            (value, r#"{"name":"a","value":true}"#, None),
            (value, r#"{"name":"a","value":"UP"}"#, None),
            (
                both,
                r#"{"name":"a","value":3,"timestamp":7e3,"tags":{"value":"2"}}]"#,
                Some((3.0, Some(7_000), "]")),
            ),
            (both, r#"{"name":"a","value":3,"timestamp":7,"tags":{"value":"3"}}"#, None),
            (both, r#"{"name":"a","value":3,"timestamp":-7,"tags":{"value":"2"}}"#, None),
            (both, r#"{"name":"a","value":3,"timestamp":7.5,"tags":{"value":"2"}}"#, None),
            (both, r#"{"name":"a","value":3,"timestamp":1e99,"tags":{"value":"2"}}"#, None),
            (both, r#"{"name":"a","value":3,"timestamp":null,"tags":{"value":"2"}}"#, None),
            (time_first, r#"{ "timestamp" : 8 , "value" : 9 , "name":"a" }"#, Some((9.0, Some(8), ""))),
            // Of a repeated key the last one counts, and the others are text.
            (
                r#"{"value":1,"value":2,"name":"a"}"#,
                r#"{"value":1,"value":5,"name":"a"}"#,
                Some((5.0, None, "")),
            ),
            (r#"{"value":1,"value":2,"name":"a"}"#, r#"{"value":7,"value":2,"name":"a"}"#, None),
            (
                r#"{"value":1,"timestamp":5,"timestamp":null}"#,
                r#"{"value":4,"timestamp":5,"timestamp":null}"#,
                Some((4.0, None, "")),
            ),
            (r#"{"v\u0061lue":1}"#, r#"{"v\u0061lue":6}"#, Some((6.0, None, ""))),
            (
                r#"{"x":{"value":1,"y":[7]},"value":2}"#,
                r#"{"x":{"value":1,"y":[7]},"value":3}"#,
                Some((3.0, None, "")),
            ),
        ] {
            assert_eq!(fit(object, text), expected, "{text} by {object}");
        }
    }

    #[test]
    fn an_object_whose_meaning_is_more_than_its_numbers_makes_no_template() {
        for object in [
            r#"{"name":"a"}"#,
            r#"{"name":"a","value":true}"#,
            r#"{"name":"a","value":1,"value":"UP"}"#,
            r#"{"name":"a","value":1,"timestamp":"2025-09-17T15:45:23Z"}"#,
            r#"{"name":"a","value":1,"client_id":"c"}"#,
            r#"{"name":"a","value":1,"\u006detrics":5}"#,
            &format!(r#"{{"name":"{}","value":1}}"#, "a".repeat(70_000)),
        ] {
            let mut text = Vec::new();
            assert!(Template::cut(object, MetricKind::Gauge, &mut text).is_none(), "{object}");
            assert!(text.is_empty());
        }
    }
}
