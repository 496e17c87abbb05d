//! Why a request of `POST /api/v1/write` was refused, or a part of it left out, as its sender reads it.

use crate::TimeRefusal;
use model::LabelError;
use std::fmt;

/// A request of which nothing is taken; the sender's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteWriteError {
    /// The bytes are no `prometheus.WriteRequest`.
    Malformed {
        /// Bytes from the start of the plain body.
        offset: usize,
        /// What would have been right there.
        expected: &'static str,
    },
    /// It is an `io.prometheus.write.v2.Request`.
    Version2,
}

/// Samples that were not taken out of a request of which the others were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// How many there are; never 0.
    pub samples: usize,
    /// The series of the first, by its place in the request, from 0.
    pub index: usize,
    /// What is wrong with the first.
    pub error: SeriesError,
}

/// What is wrong with a series, or with one sample of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeriesError {
    /// There is no label `__name__`.
    NameMissing,
    /// A name or a value is no text.
    NotUtf8,
    /// Names and values make no label set.
    Label(LabelError),
    /// The sample's time is not taken.
    Time(TimeRefusal),
}

impl fmt::Display for RemoteWriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteWriteError::Malformed { expected, .. } => {
                write!(f, "the body is no prometheus.WriteRequest: expected {expected}")
            }
            RemoteWriteError::Version2 => f.write_str(
                "remote write 2.0 is not taken here; send 1.0 (Content-Type: application/x-protobuf)",
            ),
        }
    }
}

impl std::error::Error for RemoteWriteError {}

impl fmt::Display for SeriesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SeriesError::NameMissing => f.write_str("label __name__ is missing"),
            SeriesError::NotUtf8 => f.write_str("a label is not UTF-8"),
            SeriesError::Label(error) => error.fmt(f),
            SeriesError::Time(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for SeriesError {}
