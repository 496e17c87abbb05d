//! Why a body of `POST /metrics` was refused, with every text the reply is made of.
//!
//! ```text
//!   {"error": error_text(), "detail": detail(), "index": index(), "offset": offset()}   absent ones left out
//! ```
//!
//! The three kinds of `error_text`: `invalid JSON format` (the body, with the detail), `invalid metric: …`
//! (one metric, with its index in a batch), and the sentences of `LabelError`, which stand by themselves
//! (with the index in a batch).

use super::CLIENT_ID_BYTES_MAX;
use crate::TimeUnit;
use model::LabelError;
use std::borrow::Cow;
use std::fmt;

/// A body that was refused as a whole; the client's to mend. Nothing of it is in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsError {
    /// The text is no JSON, and no lines of JSON objects either.
    Syntax {
        /// Bytes from the start of the body.
        offset: usize,
        /// What would have been right there.
        expected: &'static str,
    },
    /// Compressed, and nothing said so.
    Compressed {
        /// The value of `Content-Encoding` that would have said so.
        coding: &'static str,
    },
    /// JSON, but neither a metric nor a batch.
    Shape {
        /// Bytes from the start of the body.
        offset: usize,
        /// What would have been right there.
        expected: &'static str,
    },
    /// A single metric without one of the two keys that it must have.
    Missing {
        /// `name` or `value`.
        key: &'static str,
    },
    /// A batch without a metric.
    EmptyBatch,
    /// The `client_id` cannot be taken.
    ClientId(ClientIdError),
    /// A metric that is JSON and cannot be taken: the first such one.
    Metric {
        /// Its place in the batch, from 0; absent for a single metric.
        index: Option<usize>,
        /// What is wrong with it.
        error: MetricError,
    },
}

/// What is wrong with a `client_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientIdError {
    /// It is neither text nor null.
    NotText,
    /// Longer than [`CLIENT_ID_BYTES_MAX`].
    TooLong,
}

/// What is wrong with one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricError {
    /// A member of a batch is no object.
    NotAnObject,
    /// A member of a batch lacks one of the two keys that it must have.
    Missing {
        /// `name` or `value`.
        key: &'static str,
    },
    /// The name is no text.
    NameNotText,
    /// The value cannot be taken.
    Value(ValueError),
    /// The time cannot be taken.
    Timestamp(TimestampError),
    /// The `type` is none of the four.
    KindUnknown,
    /// `tags` or `labels` is no object.
    LabelsNotAnObject {
        /// `tags` or `labels`.
        key: &'static str,
    },
    /// The value of a label is no text.
    LabelValueNotText {
        /// The label's name.
        label: String,
    },
    /// Names and labels make no label set. A label given twice is refused too, be it in one object or with
    /// two different values in `tags` and `labels`: a key repeated there is two labels, not a later say.
    Label(LabelError),
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// A number beyond the largest double.
    NotFinite,
    /// Text that names no state.
    UnknownText,
    /// null, an object or an array.
    NotANumber,
}

/// What is wrong with a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampError {
    /// A number of milliseconds that is not whole.
    Fraction,
    /// Text that is no RFC 3339 time.
    NotRfc3339,
    /// Neither a number nor text.
    NotATime,
    /// Before 1970.
    Negative,
    /// Beyond the year 2248.
    TooLarge {
        /// The unit in which the number would be a time of our days.
        looks_like: Option<TimeUnit>,
    },
}

const INVALID_JSON: &str = "invalid JSON format";

/// What compressed bodies begin with, and the names of their codings. No such body is UTF-8.
const MAGICS: [(&[u8], &str); 2] = [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd")];

impl MetricsError {
    /// Of a body that is no UTF-8 from `offset` on.
    pub(super) fn not_utf8(body: &[u8], offset: usize) -> MetricsError {
        match MAGICS.into_iter().find(|(magic, _)| body.starts_with(magic)) {
            Some((_, coding)) => MetricsError::Compressed { coding },
            None => MetricsError::Syntax { offset, expected: "UTF-8" },
        }
    }

    /// The value of `error` in the reply.
    pub fn error_text(&self) -> Cow<'static, str> {
        match self {
            MetricsError::EmptyBatch => Cow::Borrowed("Batch cannot be empty"),
            MetricsError::Metric { error: MetricError::Label(error), .. } => error.to_string().into(),
            MetricsError::Metric { error, .. } => format!("invalid metric: {error}").into(),
            MetricsError::Syntax { .. }
            | MetricsError::Compressed { .. }
            | MetricsError::Shape { .. }
            | MetricsError::Missing { .. }
            | MetricsError::ClientId(_) => Cow::Borrowed(INVALID_JSON),
        }
    }

    /// The value of `detail` in the reply.
    pub fn detail(&self) -> Option<Cow<'static, str>> {
        match self {
            MetricsError::Syntax { offset, expected } | MetricsError::Shape { offset, expected } => {
                Some(format!("expected {expected} at offset {offset}").into())
            }
            MetricsError::Compressed { coding } => {
                Some(format!("the body looks like {coding}: send it with Content-Encoding: {coding}").into())
            }
            MetricsError::Missing { key } => Some(format!("{key} is missing").into()),
            MetricsError::ClientId(error) => Some(error.to_string().into()),
            MetricsError::Metric { error, .. } => error.detail().map(Cow::Borrowed),
            MetricsError::EmptyBatch => None,
        }
    }

    /// The value of `index` in the reply: which member of a batch, from 0.
    pub fn index(&self) -> Option<usize> {
        match self {
            MetricsError::Metric { index, .. } => *index,
            _ => None,
        }
    }

    /// The value of `offset` in the reply: where in the body, in bytes from its start.
    pub fn offset(&self) -> Option<usize> {
        match self {
            MetricsError::Syntax { offset, .. } | MetricsError::Shape { offset, .. } => Some(*offset),
            _ => None,
        }
    }
}

impl MetricError {
    fn detail(&self) -> Option<&'static str> {
        match self {
            MetricError::Value(ValueError::NotFinite) => Some("the number is beyond the largest double"),
            MetricError::Value(ValueError::UnknownText) => Some(r#"text may only be "UP" or "DOWN""#),
            MetricError::Value(ValueError::NotANumber) => {
                Some(r#"a number, true, false, "UP" or "DOWN" is a value"#)
            }
            _ => None,
        }
    }
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error_text())?;
        if let Some(index) = self.index() {
            write!(f, " (index {index})")?;
        }
        match self.detail() {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ClientIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientIdError::NotText => f.write_str("client_id must be text"),
            ClientIdError::TooLong => write!(f, "client_id too long (max {CLIENT_ID_BYTES_MAX} bytes)"),
        }
    }
}

impl fmt::Display for MetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricError::NotAnObject => f.write_str("a metric must be an object"),
            MetricError::Missing { key } => write!(f, "{key} is missing"),
            MetricError::NameNotText => f.write_str("name must be text"),
            MetricError::Value(error) => error.fmt(f),
            MetricError::Timestamp(error) => error.fmt(f),
            MetricError::KindUnknown => f.write_str("type must be gauge, counter, histogram or summary"),
            MetricError::LabelsNotAnObject { key } => write!(f, "{key} must be an object of text to text"),
            MetricError::LabelValueNotText { label } => write!(f, "value of label {label:?} must be text"),
            MetricError::Label(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("value must be a finite number")
    }
}

impl fmt::Display for TimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimestampError::Fraction => f.write_str("timestamp must be whole milliseconds"),
            TimestampError::NotRfc3339 => {
                f.write_str("timestamp text must be RFC 3339, as in 2025-09-17T13:45:23.123Z")
            }
            TimestampError::NotATime => {
                f.write_str("timestamp must be whole milliseconds since 1970 or RFC 3339 text")
            }
            TimestampError::Negative => f.write_str("timestamp must not be before 1970"),
            TimestampError::TooLarge { looks_like: None } => {
                f.write_str("timestamp must not be beyond the year 2248")
            }
            TimestampError::TooLarge { looks_like: Some(unit) } => {
                write!(f, "timestamp looks like {unit}, milliseconds are expected")
            }
        }
    }
}

impl std::error::Error for MetricsError {}
impl std::error::Error for MetricError {}
impl std::error::Error for ClientIdError {}
impl std::error::Error for ValueError {}
impl std::error::Error for TimestampError {}
