//! The keys of one metric: how the value of each is read, and what may be wrong with it.
//!
//! Always: a value is passed to its end, whatever is wrong with it; only what is no JSON ends the reading at once.
//! Not here: which key means what, what a metric must have (`metrics.rs`).

use super::MetricsDecoder;
use super::error::{MetricError, TimestampError, ValueError};
use crate::json::{Begins, Number, Reader, SyntaxError, Text, WholeError};
use crate::{TimeUnit, rfc3339};
use model::{LABELS_MAX, MILLIS_MAX, MetricKind, Timestamp};
use std::ops::Range;

/// The keys of one metric, each as the last one of its name left it.
#[derive(Default)]
pub(super) struct Fields {
    /// Where the object stands in the body.
    pub(super) object: Range<usize>,
    pub(super) name: Option<Result<Text, NotText>>,
    pub(super) value: Option<Result<f64, ValueError>>,
    pub(super) timestamp: Option<Result<Timestamp, TimestampError>>,
    pub(super) kind: Option<Result<MetricKind, KindUnknown>>,
    pub(super) tags: LabelsField,
    pub(super) labels: LabelsField,
}

/// What `tags` or `labels` was.
#[derive(Clone, Default)]
pub(super) enum LabelsField {
    #[default]
    Absent,
    /// In the decoder's columns, and here in the body.
    Read(Range<usize>),
    /// Here in the body, as expected; not read.
    Repeated(Range<usize>),
    Wrong(LabelsError),
}

#[derive(Clone, Copy)]
pub(super) struct NotText;

#[derive(Clone, Copy)]
pub(super) struct KindUnknown;

#[derive(Clone, Copy)]
pub(super) enum LabelsError {
    NotAnObject,
    ValueNotText { label: Text },
    TooMany,
}

impl Fields {
    /// Value, time and kind, or what is wrong with them.
    #[inline]
    pub(super) fn rest(
        &self,
        value: Result<f64, ValueError>,
    ) -> Result<(f64, Option<Timestamp>, MetricKind), MetricError> {
        let value = value.map_err(MetricError::Value)?;
        let timestamp = self.timestamp.transpose().map_err(MetricError::Timestamp)?;
        let kind = self.kind.transpose().map_err(|KindUnknown| MetricError::KindUnknown)?;
        Ok((value, timestamp, kind.unwrap_or_default()))
    }
}

/// Which of the two words for labels.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Tags,
    Labels,
}

impl MetricsDecoder {
    /// The labels that begin here: passed if they are as expected, otherwise read.
    #[inline]
    pub(super) fn labels_field(
        &mut self,
        reader: &mut Reader<'_>,
        column: Column,
    ) -> Result<LabelsField, SyntaxError> {
        let start = reader.offset();
        let into = match column {
            Column::Tags => &mut self.tags,
            Column::Labels => &mut self.labels,
        };
        if let Some(len) = self.repeats.follows(reader.rest()) {
            into.clear();
            reader.pass(len);
            return Ok(LabelsField::Repeated(start..reader.offset()));
        }
        Ok(match read_labels(reader, &mut self.unescaped, into)? {
            LabelsRead::Null => LabelsField::Absent,
            LabelsRead::Taken => LabelsField::Read(start..reader.offset()),
            LabelsRead::Wrong(error) => LabelsField::Wrong(error),
        })
    }
}

/// The text that begins here; a value of another kind is passed and gives `None`.
#[inline]
pub(super) fn text(reader: &mut Reader<'_>, unescaped: &mut String) -> Result<Option<Text>, SyntaxError> {
    if reader.peek() == Some(b'"') {
        return reader.string(unescaped).map(Some);
    }
    reader.skip_value(unescaped)?;
    Ok(None)
}

#[inline]
pub(super) fn value(
    reader: &mut Reader<'_>,
    unescaped: &mut String,
) -> Result<Result<f64, ValueError>, SyntaxError> {
    Ok(match reader.begins()? {
        Begins::Number => {
            let number = reader.number()?.to_f64();
            if number.is_finite() { Ok(number) } else { Err(ValueError::NotFinite) }
        }
        Begins::True => reader.literal("true").map(|()| Ok(1.0))?,
        Begins::False => reader.literal("false").map(|()| Ok(0.0))?,
        Begins::String => {
            let kept = unescaped.len();
            let state = reader.string(unescaped)?;
            let value = match state.get(reader.body(), unescaped) {
                "UP" => Ok(1.0),
                "DOWN" => Ok(0.0),
                _ => Err(ValueError::UnknownText),
            };
            unescaped.truncate(kept);
            value
        }
        Begins::Null | Begins::Object | Begins::Array => {
            reader.skip_value(unescaped)?;
            Err(ValueError::NotANumber)
        }
    })
}

pub(super) fn timestamp(
    reader: &mut Reader<'_>,
    unescaped: &mut String,
) -> Result<Option<Result<Timestamp, TimestampError>>, SyntaxError> {
    let millis = match reader.begins()? {
        Begins::Number => return Ok(Some(timestamp_of(reader.number()?))),
        Begins::String => {
            let kept = unescaped.len();
            let time = reader.string(unescaped)?;
            let millis = rfc3339::parse(time.get(reader.body(), unescaped));
            unescaped.truncate(kept);
            millis.ok_or(TimestampError::NotRfc3339)
        }
        Begins::Null => return reader.literal("null").map(|()| None),
        Begins::True | Begins::False | Begins::Object | Begins::Array => {
            reader.skip_value(unescaped)?;
            Err(TimestampError::NotATime)
        }
    };
    Ok(Some(millis.and_then(timestamp_of_millis)))
}

/// The time that a number says.
#[inline]
pub(super) fn timestamp_of(number: Number<'_>) -> Result<Timestamp, TimestampError> {
    let millis = number.to_whole().map_err(|error| match error {
        WholeError::Fraction => TimestampError::Fraction,
        WholeError::TooLarge if number.is_negative() => TimestampError::Negative,
        WholeError::TooLarge => TimestampError::TooLarge { looks_like: None },
    });
    millis.and_then(timestamp_of_millis)
}

fn timestamp_of_millis(millis: i64) -> Result<Timestamp, TimestampError> {
    if millis < 0 {
        return Err(TimestampError::Negative);
    }
    Timestamp::from_millis(millis)
        .map_err(|_| TimestampError::TooLarge { looks_like: out_of_range_unit(millis) })
}

/// What a number beyond every millisecond may have been meant as.
pub(super) fn out_of_range_unit(number: i64) -> Option<TimeUnit> {
    /// The first of January 2000: before it no sample was taken that comes to us.
    const OLDEST_LIKELY_MS: i64 = 946_684_800_000;
    TimeUnit::guess(number, OLDEST_LIKELY_MS, MILLIS_MAX)
}

pub(super) fn kind(
    reader: &mut Reader<'_>,
    unescaped: &mut String,
) -> Result<Option<Result<MetricKind, KindUnknown>>, SyntaxError> {
    if reader.begins()? == Begins::Null {
        return reader.literal("null").map(|()| None);
    }
    let kept = unescaped.len();
    let name = text(reader, unescaped)?;
    let kind = name.and_then(|name| MetricKind::from_name(name.get(reader.body(), unescaped)));
    unescaped.truncate(kept);
    Ok(Some(kind.ok_or(KindUnknown)))
}

/// How the value of `tags` or `labels` was read.
pub(super) enum LabelsRead {
    Null,
    Taken,
    Wrong(LabelsError),
}

/// The labels of one object into `into`, in place of those of an earlier object of that key.
pub(super) fn read_labels(
    reader: &mut Reader<'_>,
    unescaped: &mut String,
    into: &mut Vec<(Text, Text)>,
) -> Result<LabelsRead, SyntaxError> {
    into.clear();
    match reader.begins()? {
        Begins::Object => {}
        Begins::Null => return reader.literal("null").map(|()| LabelsRead::Null),
        _ => {
            reader.skip_value(unescaped)?;
            return Ok(LabelsRead::Wrong(LabelsError::NotAnObject));
        }
    }
    let mut error = None;
    let mut is_first = true;
    reader.enter();
    loop {
        let kept = unescaped.len();
        let Some(name) = reader.next_key(&mut is_first, unescaped)? else {
            return Ok(error.map_or(LabelsRead::Taken, LabelsRead::Wrong));
        };
        let value = text(reader, unescaped)?;
        match value {
            Some(value) if error.is_none() && into.len() < LABELS_MAX => into.push((name, value)),
            None if error.is_none() => error = Some(LabelsError::ValueNotText { label: name }),
            _ => {
                error = error.or(Some(LabelsError::TooMany));
                unescaped.truncate(kept);
            }
        }
    }
}
