//! `POST /api/v1/admin/tsdb/delete_series`: which series, and what of them.
//!
//! Always: what is taken here can be read back from a manifest.
//! Not here: how it is carried out (`service/flush.rs`), what it hides (`storage::deletes`).

use model::{MILLIS_MAX, parse_matchers};
use query::ParameterError;
use std::borrow::Cow;

/// Selectors in one request; each is a delete of its own.
const SELECTORS_MAX: usize = 16;

/// Samples to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteSeries {
    /// As `{__name__="cpu",host=~"a.*"}`; one of them has to mean a series.
    pub selectors: Vec<String>,
    /// The first millisecond.
    pub start_ms: i64,
    /// The last millisecond, included.
    pub end_ms: i64,
}

impl DeleteSeries {
    /// Reads percent-decoded parameters as Prometheus does: `match[]` once or more, `start` and `end` in seconds or as
    /// RFC 3339. Unknown ones are ignored.
    pub fn from_parameters<'a>(
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<DeleteSeries, ParameterError> {
        let (mut selectors, mut start_ms, mut end_ms) = (Vec::new(), -MILLIS_MAX, MILLIS_MAX);
        for (key, value) in pairs {
            match key.as_ref() {
                "match[]" => selectors.push(selector(&value)?),
                "start" => start_ms = time("start", &value)?,
                "end" => end_ms = time("end", &value)?,
                _ => {}
            }
        }
        if selectors.is_empty() {
            return Err(ParameterError::Missing("match[]"));
        }
        if selectors.len() > SELECTORS_MAX {
            return Err(ParameterError::Invalid { parameter: "match[]", expected: "16 of them at most" });
        }
        if start_ms > end_ms {
            return Err(ParameterError::Invalid { parameter: "end", expected: "a time not before start" });
        }
        Ok(DeleteSeries { selectors, start_ms, end_ms })
    }
}

/// `cpu{host="a"}` as `{__name__="cpu",host="a"}`, in which a condition has to name something.
fn selector(text: &str) -> Result<String, ParameterError> {
    let selector = conditions(text)?;
    let matchers = parse_matchers(&selector).map_err(ParameterError::Matchers)?;
    // As in Prometheus: one condition at least that a series without the label does not meet.
    let names_something = matchers.iter().any(|matcher| !matcher.meets(""));
    if !names_something {
        return Err(ParameterError::Invalid {
            parameter: "match[]",
            expected: "at least one condition that an absent label does not meet",
        });
    }
    Ok(selector)
}

/// `cpu{host="a"}` as `{__name__="cpu",host="a"}`; what stands in the braces is not looked at.
pub fn conditions(text: &str) -> Result<String, ParameterError> {
    let text = text.trim();
    let brace = text.find('{').unwrap_or(text.len());
    let (name, conditions) = (text[..brace].trim(), text[brace..].trim());
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.');
    if !name.chars().all(is_word) {
        return Err(ParameterError::Invalid {
            parameter: "match[]",
            expected: "a selector, as cpu{host=\"a\"}",
        });
    }
    Ok(match (name, conditions) {
        ("", conditions) => conditions.to_owned(),
        (name, "") => format!("{{__name__=\"{name}\"}}"),
        (name, conditions) => format!("{{__name__=\"{name}\",{}", &conditions[1..]),
    })
}

fn time(parameter: &'static str, text: &str) -> Result<i64, ParameterError> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    let millis = match seconds {
        Some(seconds) => Some((seconds * 1e3).round() as i64),
        None => text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond()),
    };
    let expected = "seconds since 1970, or a time as 2025-09-17T13:45:23Z";
    let millis = millis.ok_or(ParameterError::Invalid { parameter, expected })?;
    Ok(millis.clamp(-MILLIS_MAX, MILLIS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<DeleteSeries, String> {
        let pairs = pairs.iter().map(|(key, value)| (Cow::from(*key), Cow::from(*value)));
        DeleteSeries::from_parameters(pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn selectors_and_times_are_read_as_prometheus_reads_them() {
        let all = read(&[
            ("match[]", "cpu"),
            ("match[]", r#" {__name__=~"mem.*",host!="b"} "#),
            ("match[]", r#"app.cpu{host="a"}"#),
            ("match[]", "up{}"),
        ]);
        let all = all.unwrap();
        assert_eq!(
            all.selectors,
            [
                r#"{__name__="cpu"}"#,
                r#"{__name__=~"mem.*",host!="b"}"#,
                r#"{__name__="app.cpu",host="a"}"#,
                r#"{__name__="up",}"#,
            ]
        );
        assert_eq!((all.start_ms, all.end_ms), (-MILLIS_MAX, MILLIS_MAX));
        let some = read(&[("match[]", "cpu"), ("start", "1.5"), ("end", "1970-01-01T00:00:02Z")]).unwrap();
        assert_eq!((some.start_ms, some.end_ms), (1_500, 2_000));
    }

    #[test]
    fn what_means_everything_or_nothing_is_refused() {
        for (pairs, told) in [
            (&[][..], "missing parameter: match[]"),
            (&[("match[]", "{}")], "invalid parameter: match[]"),
            (&[("match[]", "")], "invalid parameter: match"),
            (&[("match[]", r#"{host=~".*"}"#)], "invalid parameter: match[]"),
            (&[("match[]", r#"cpu"} or {x="y"}"#)], "invalid parameter: match[]"),
            (&[("match[]", "cpu{host=}")], "invalid parameter: match"),
            (&[("match[]", "cpu"), ("start", "soon")], "invalid parameter: start"),
            (&[("match[]", "cpu"), ("start", "2"), ("end", "1")], "invalid parameter: end"),
        ] {
            assert_eq!(read(pairs), Err(told.to_owned()), "{pairs:?}");
        }
        let many: Vec<_> = (0..17).map(|_| ("match[]", "cpu")).collect();
        assert!(read(&many).is_err());
    }
}
