//! The question, read from the parameters of `GET /query` and `GET /percentile`.

use crate::{LabelConditions, Percentile, Selector};
use model::MatcherError;
use std::borrow::Cow;
use std::fmt;

/// The path that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/query`: rows, or a percentile when the parameter of that name is there.
    Query,
    /// `/percentile`: a percentile, the 50th when none is named.
    Percentile,
}

/// What is wanted of the samples that a [`Selector`] names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Question {
    /// The samples themselves, by time.
    Rows {
        /// The first so many only.
        limit: Option<usize>,
    },
    /// One value out of them.
    Percentile(Percentile),
}

/// One question about some samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Which samples.
    pub selector: Selector,
    /// What of them.
    pub question: Question,
}

/// Why parameters are no query; the client's to mend. `Display` is the text of `error` in the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterError {
    /// A parameter that must be there is absent or empty.
    Missing(&'static str),
    /// A parameter cannot be understood.
    Invalid {
        /// Its name.
        parameter: &'static str,
        /// What should have stood there.
        expected: &'static str,
    },
    /// The list of label conditions in `match` cannot be understood.
    Matchers(MatcherError),
    /// `query` in place of `name`: PromQL, which is not answered yet.
    PromQl,
}

impl ParameterError {
    /// What should have stood there, for the key `detail` of the reply.
    pub fn detail(&self) -> Option<String> {
        match self {
            ParameterError::Missing(_) => None,
            ParameterError::Invalid { expected, .. } => Some(format!("expected {expected}")),
            ParameterError::Matchers(error) => Some(error.to_string()),
            ParameterError::PromQl => Some("PromQL is not answered yet: give a metric as name=".to_owned()),
        }
    }
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParameterError::Missing(parameter) => write!(f, "missing parameter: {parameter}"),
            ParameterError::Invalid { parameter, .. } => write!(f, "invalid parameter: {parameter}"),
            ParameterError::Matchers(_) => f.write_str("invalid parameter: match"),
            ParameterError::PromQl => f.write_str("invalid parameter: query"),
        }
    }
}

impl std::error::Error for ParameterError {}

impl Query {
    /// Reads percent-decoded parameters. Unknown ones are ignored; of a repeated one the last counts.
    pub fn from_parameters<'a>(
        endpoint: Endpoint,
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<Query, ParameterError> {
        let mut name = None;
        let mut start = None;
        let mut end = None;
        let mut min_value = None;
        let mut max_value = None;
        let mut conditions = None;
        let mut limit = None;
        let mut percentile = None;
        let mut prom_ql = false;
        for (key, value) in pairs {
            // Only kept here and read below: an earlier, repeated parameter may be wrong.
            let place = match key.as_ref() {
                "name" => &mut name,
                "start" => &mut start,
                "end" => &mut end,
                "min_value" => &mut min_value,
                "max_value" => &mut max_value,
                "match" => &mut conditions,
                "limit" => &mut limit,
                "percentile" => &mut percentile,
                "query" => {
                    prom_ql = endpoint == Endpoint::Query;
                    continue;
                }
                _ => continue,
            };
            *place = Some(value);
        }

        let name = match name {
            Some(name) if !name.is_empty() => name.into_owned(),
            _ if prom_ql => return Err(ParameterError::PromQl),
            _ => return Err(ParameterError::Missing("name")),
        };
        let selector = Selector {
            name,
            conditions: match conditions {
                Some(text) => LabelConditions::read(text.into_owned()).map_err(ParameterError::Matchers)?,
                None => LabelConditions::default(),
            },
            start_ms: milliseconds("start", start)?.unwrap_or(0),
            end_ms: milliseconds("end", end)?.unwrap_or(i64::MAX),
            min_value: finite("min_value", min_value)?,
            max_value: finite("max_value", max_value)?,
        };
        let limit = read("limit", limit, "a whole number", |text| text.parse().ok())?;
        let percentile = read("percentile", percentile, "a number from 0 to 100", |text| {
            Percentile::new(text.parse().ok()?)
        })?;
        let question = match (percentile, endpoint) {
            (Some(percentile), _) => Question::Percentile(percentile),
            (None, Endpoint::Percentile) => Question::Percentile(Percentile::MEDIAN),
            (None, Endpoint::Query) => Question::Rows { limit },
        };
        Ok(Query { selector, question })
    }
}

fn read<T>(
    parameter: &'static str,
    text: Option<Cow<'_, str>>,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, ParameterError> {
    match text {
        None => Ok(None),
        Some(text) => parse(&text).map(Some).ok_or(ParameterError::Invalid { parameter, expected }),
    }
}

fn milliseconds(parameter: &'static str, text: Option<Cow<'_, str>>) -> Result<Option<i64>, ParameterError> {
    read(parameter, text, "whole milliseconds since 1970", |text| text.parse().ok())
}

fn finite(parameter: &'static str, text: Option<Cow<'_, str>>) -> Result<Option<f64>, ParameterError> {
    read(parameter, text, "a finite number", |text| text.parse().ok().filter(|value: &f64| value.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(endpoint: Endpoint, text: &str) -> Result<Query, ParameterError> {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Query::from_parameters(endpoint, pairs.map(|(key, value)| (key.into(), value.into())))
    }

    fn error(endpoint: Endpoint, text: &str) -> String {
        parse(endpoint, text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let query = parse(Endpoint::Query, "name=cpu").unwrap();
        assert_eq!((query.selector.start_ms, query.selector.end_ms), (0, i64::MAX));
        assert_eq!((query.selector.min_value, query.selector.max_value), (None, None));
        assert_eq!(query.selector.conditions, LabelConditions::default());
        assert_eq!(query.question, Question::Rows { limit: None });
        let query = parse(Endpoint::Percentile, "name=cpu").unwrap();
        assert_eq!(query.question, Question::Percentile(Percentile::new(50.0).unwrap()));
    }

    #[test]
    fn everything_can_be_said_and_unknown_parameters_do_no_harm() {
        let text = r#"x=1&name=a b&start=-5&end=7&min_value=1e3&max_value=2.5e3&match={h="w"}&limit=10"#;
        let query = parse(Endpoint::Query, text).unwrap();
        let expected = Selector {
            name: "a b".into(),
            conditions: LabelConditions::Read(model::parse_matchers(r#"{h="w"}"#).unwrap()),
            start_ms: -5,
            end_ms: 7,
            min_value: Some(1000.0),
            max_value: Some(2500.0),
        };
        assert_eq!(query, Query { selector: expected, question: Question::Rows { limit: Some(10) } });
        let query = parse(Endpoint::Query, "name=a&percentile=99.9").unwrap();
        assert_eq!(query.question, Question::Percentile(Percentile::new(99.9).unwrap()));
    }

    #[test]
    fn of_a_repeated_parameter_the_last_counts_even_when_the_first_was_wrong() {
        let query = parse(Endpoint::Query, "name=a&start=x&name=b&start=3").unwrap();
        assert_eq!((query.selector.name.as_str(), query.selector.start_ms), ("b", 3));
        assert_eq!(error(Endpoint::Query, "name=a&start=3&start=x"), "invalid parameter: start");
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        for (text, parameter) in [
            ("start=2025-09-17T13:45:23Z", "start"),
            ("start=1.5", "start"),
            ("start=", "start"),
            ("end=99999999999999999999", "end"),
            ("min_value=abc", "min_value"),
            ("min_value=NaN", "min_value"),
            ("max_value=inf", "max_value"),
            ("max_value=1e999", "max_value"),
            ("limit=-1", "limit"),
            ("limit=ten", "limit"),
            ("percentile=100.1", "percentile"),
            ("percentile=-1", "percentile"),
            ("percentile=nan", "percentile"),
            ("match={host}", "match"),
        ] {
            for endpoint in [Endpoint::Query, Endpoint::Percentile] {
                let wrong = parse(endpoint, &format!("name=a&{text}")).unwrap_err();
                assert_eq!(wrong.to_string(), format!("invalid parameter: {parameter}"), "{text}");
                assert!(wrong.detail().is_some(), "{text}");
            }
        }
    }

    #[test]
    fn without_a_name_the_name_is_missed_and_promql_is_recognised() {
        assert_eq!(error(Endpoint::Query, ""), "missing parameter: name");
        assert_eq!(error(Endpoint::Query, "name="), "missing parameter: name");
        assert_eq!(parse(Endpoint::Query, "query=up"), Err(ParameterError::PromQl));
        assert_eq!(error(Endpoint::Percentile, "query=up"), "missing parameter: name");
        assert!(parse(Endpoint::Query, "query=up&name=cpu").is_ok());
    }

    proptest! {
        /// Any text in any parameter is a query or a named error, never a panic.
        #[test]
        fn any_text_is_read_or_refused(
            pairs in proptest::collection::vec(
                (
                    proptest::sample::select(vec![
                        "name", "start", "end", "min_value", "max_value", "match", "limit",
                        "percentile", "query", "z",
                    ]),
                    "[-+.0-9eE{}=\"a-z☃ ]{0,12}",
                ),
                0..6,
            ),
        ) {
            for endpoint in [Endpoint::Query, Endpoint::Percentile] {
                let pairs = pairs.iter().map(|(key, value)| (Cow::from(*key), Cow::from(value)));
                if let Err(error) = Query::from_parameters(endpoint, pairs) {
                    prop_assert!(error.to_string().contains("parameter: "));
                }
            }
        }
    }
}
