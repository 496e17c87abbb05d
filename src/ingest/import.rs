//! Bodies of `POST /import` and `POST /api/v1/import/prometheus`: samples a line, as an export or an exposition has them.
//!
//! ```text
//!   json         {"name":…,"value":…,"timestamp":…,"labels":{…},"type":…,"nth":…}      `import/json.rs`
//!   csv          a header, then cells in its order                                     `import/csv.rs`
//!   openmetrics  name{label="value"} value seconds                                     `import/exposition.rs`
//!   exposition   name{label="value"} value milliseconds                                the same
//! ```
//!
//! What is taken beyond `POST /metrics`: NaN, with its bits where it says them, and infinities, for they were stored;
//! `nth`, which tells samples of one series in one millisecond apart. A sample without a time gets the server's clock.
//! A line that cannot be taken refuses the body, and is told by its number: like a batch it is kept whole or not at all.
//! Lines of one series that follow each other say its labels once in the batch.
//! Not here: how they are written (`query::ExportRenderer`), the request's parameters and headers (the server).

mod csv;
mod exposition;
mod json;

#[cfg(test)]
mod tests;

use crate::json::Text;
use crate::{TimeBounds, TimeRefusal};
use csv::Column;
use exposition::Family;
use model::{Batch, LabelError, LabelSetBuilder, MetricKind, TICKS_PER_MILLI, Timestamp};
use std::fmt;

/// Bytes that one step passes at most, but for one line that is longer.
const BYTES_PER_STEP: usize = 64 * 1024;
/// Of a line: 64 labels of full size, twice.
const LINE_BYTES_MAX: usize = 640 * 1024;
const SHORTER_LINE: &str = "a line of at most 640 KiB";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportForm {
    /// A JSON object a line.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// OpenMetrics text: times in seconds.
    OpenMetrics,
    /// Prometheus' older text: times in milliseconds.
    Exposition,
}

impl ImportForm {
    /// The form of that name, as the parameter `format` gives it.
    pub fn from_name(name: &str) -> Option<ImportForm> {
        Some(match name {
            "json" | "iso" => ImportForm::Json,
            "csv" => ImportForm::Csv,
            "openmetrics" => ImportForm::OpenMetrics,
            "prometheus" => ImportForm::Exposition,
            _ => return None,
        })
    }

    /// The form that a `Content-Type` says, where it is none that any client sends for any body.
    pub fn from_content_type(content_type: &[u8]) -> Option<ImportForm> {
        let is = |media: &[u8]| {
            content_type.get(..media.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(media))
        };
        let known = [
            (&b"text/csv"[..], ImportForm::Csv),
            (b"application/openmetrics-text", ImportForm::OpenMetrics),
            (b"application/x-ndjson", ImportForm::Json),
            (b"application/json", ImportForm::Json),
            (b"text/plain; version=0.0.4", ImportForm::Exposition),
        ];
        known.into_iter().find(|(media, _)| is(media)).map(|(_, form)| form)
    }
}

/// A body of which nothing is taken; the client's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub cause: ImportCause,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportCause {
    /// It is not written as the form wants it; what would have been right.
    Expected(&'static str),
    /// Name and labels make no label set.
    Label(LabelError),
    /// Its time is not taken.
    Time(TimeRefusal),
}

/// Decodes bodies of lines. Kept by a loop and reused: it holds nothing but memory for work.
#[derive(Debug, Default)]
pub struct ImportDecoder {
    builder: LabelSetBuilder,
    /// Label bytes of the line at hand.
    canonical: Vec<u8>,
    /// Strings that had escapes, and which labels they are.
    unescaped: String,
    labels: Vec<(Text, Text)>,
    columns: Vec<Column>,
    cells: Vec<String>,
}

impl ImportDecoder {
    /// A decoder that has read nothing.
    pub fn new() -> ImportDecoder {
        ImportDecoder::default()
    }

    /// Decodes a whole body into `batch`, which it empties first and leaves empty on any refusal.
    pub fn decode(
        &mut self,
        body: &[u8],
        (form, bounds): (ImportForm, &TimeBounds),
        batch: &mut Batch,
    ) -> Result<(), ImportError> {
        batch.clear();
        let text =
            std::str::from_utf8(body).map_err(|error| ImportError::not_utf8(body, error.valid_up_to()))?;
        self.begin(text, (form, bounds), batch).finish()
    }

    /// Begins to decode a body in steps.
    pub fn begin<'a>(
        &'a mut self,
        text: &'a str,
        (form, bounds): (ImportForm, &TimeBounds),
        batch: &'a mut Batch,
    ) -> ImportDecoding<'a> {
        batch.clear();
        self.columns.clear();
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        let family = Family::default();
        ImportDecoding { decoder: self, batch, rest, line: 0, form, bounds: *bounds, family, outcome: Ok(()) }
    }
}

/// A body that is decoded in steps. Dropped early it leaves any part of the body in the batch.
pub struct ImportDecoding<'a> {
    decoder: &'a mut ImportDecoder,
    batch: &'a mut Batch,
    rest: &'a str,
    /// The line read last, from 1.
    line: usize,
    form: ImportForm,
    bounds: TimeBounds,
    family: Family<'a>,
    outcome: Result<(), ImportError>,
}

/// What a line says besides its series.
#[derive(Clone, Copy)]
struct Reading {
    value: f64,
    kind: MetricKind,
    /// Absent: the server's clock.
    millis: Option<i64>,
    nth: u32,
}

impl<'a> ImportDecoding<'a> {
    /// Decodes so many lines at most, and ends behind the first that passes 64 KiB; `false` when all is decoded.
    pub fn step(&mut self, lines_max: usize) -> bool {
        let mut bytes = 0;
        for _ in 0..lines_max {
            if self.rest.is_empty() || self.outcome.is_err() || bytes >= BYTES_PER_STEP {
                break;
            }
            let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            bytes += line.len() + 1;
            self.rest = rest;
            self.line += 1;
            if let Err(cause) = self.line(line.strip_suffix('\r').unwrap_or(line)) {
                self.outcome = Err(ImportError { line: self.line, cause });
            }
        }
        !self.rest.is_empty() && self.outcome.is_ok()
    }

    /// Whether the body was taken; whatever of it is left is decoded at once.
    pub fn finish(mut self) -> Result<(), ImportError> {
        while self.step(usize::MAX) {}
        if self.outcome.is_err() {
            self.batch.clear();
        }
        self.outcome
    }

    fn line(&mut self, line: &'a str) -> Result<(), ImportCause> {
        if line.len() > LINE_BYTES_MAX {
            return Err(ImportCause::Expected(SHORTER_LINE));
        }
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let reading = match self.form {
            ImportForm::Json => Some(self.decoder.json_line(line)?),
            ImportForm::Csv => self.decoder.csv_line(line)?,
            ImportForm::OpenMetrics | ImportForm::Exposition => {
                self.decoder.exposition_line(line, self.form, &mut self.family)?
            }
        };
        reading.map_or(Ok(()), |reading| self.push(reading))
    }

    /// Adds the sample of a line whose series the builder has.
    fn push(&mut self, reading: Reading) -> Result<(), ImportCause> {
        let Reading { value, kind, millis, nth } = reading;
        let timestamp = match millis {
            None if nth > 0 => return Err(ImportCause::Expected("a time beside nth")),
            None => None,
            Some(millis) => {
                self.check(millis)?;
                let first = Timestamp::first_of_milli(millis);
                Some(Timestamp::from_ticks(first.ticks() + i64::from(nth)))
            }
        };
        let ImportDecoder { builder, canonical, .. } = &mut *self.decoder;
        canonical.clear();
        builder.finish_into(canonical).map_err(ImportCause::Label)?;
        let goes_on =
            self.batch.last_kind() == Some(kind) && self.batch.last_labels() == canonical.as_slice();
        match timestamp.filter(|_| goes_on) {
            Some(timestamp) => self.batch.push_again(timestamp, value),
            None => {
                let write = |out: &mut Vec<u8>| {
                    out.extend_from_slice(canonical);
                    Ok(())
                };
                self.batch.push(write, kind, timestamp, value).map_err(ImportCause::Label)?;
            }
        }
        Ok(())
    }

    fn check(&self, millis: i64) -> Result<(), ImportCause> {
        self.bounds.check(millis).map_err(ImportCause::Time)?;
        if millis >= 0 {
            return Ok(());
        }
        Err(ImportCause::Time(TimeRefusal::TooOld { timestamp: millis, oldest: 0, looks_like: None }))
    }
}

const VALUE: &str = "a number, NaN, +Inf or -Inf";
const NTH: &str = "nth below 1048576";

/// A value as an export writes it: every double has a spelling.
fn value_of(text: &str) -> Result<f64, ImportCause> {
    let expected = ImportCause::Expected(VALUE);
    match text.as_bytes() {
        [b'N', b'a', b'N'] => Ok(f64::NAN),
        [b'N', b'a', b'N', b':', ..] => {
            let bits = u64::from_str_radix(&text[4..], 16).map_err(|_| expected)?;
            let value = f64::from_bits(bits);
            if value.is_nan() { Ok(value) } else { Err(ImportCause::Expected("the bits of a NaN")) }
        }
        b"+Inf" | b"Inf" => Ok(f64::INFINITY),
        b"-Inf" => Ok(f64::NEG_INFINITY),
        // The words for what is no finite number are made of other letters.
        bytes if !bytes.is_empty() && bytes.iter().all(|byte| b"0123456789+-.eE".contains(byte)) => {
            // One that is too large for a double would come out infinite.
            text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(expected)
        }
        _ => Err(expected),
    }
}

fn nth_of(number: i64) -> Result<u32, ImportCause> {
    let fits = (0..TICKS_PER_MILLI).contains(&number);
    u32::try_from(number).ok().filter(|_| fits).ok_or(ImportCause::Expected(NTH))
}

/// Milliseconds, or a time as RFC 3339.
fn millis_of(text: &str) -> Result<i64, ImportCause> {
    let millis = text.parse().ok().or_else(|| crate::rfc3339::parse(text));
    millis.ok_or(ImportCause::Expected("a time in milliseconds, or as 2025-09-17T13:45:23.123Z"))
}

fn kind_of(text: &str) -> Result<MetricKind, ImportCause> {
    let expected = ImportCause::Expected("type gauge, counter, histogram or summary");
    MetricKind::from_name(text).ok_or(expected)
}

impl ImportError {
    /// Of a body that is no UTF-8 from `offset` on.
    pub fn not_utf8(body: &[u8], offset: usize) -> ImportError {
        let line = 1 + body[..offset.min(body.len())].iter().filter(|byte| **byte == b'\n').count();
        ImportError { line, cause: ImportCause::Expected("UTF-8") }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.cause {
            ImportCause::Expected(expected) => write!(f, "expected {expected}"),
            ImportCause::Label(error) => error.fmt(f),
            ImportCause::Time(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for ImportError {}
