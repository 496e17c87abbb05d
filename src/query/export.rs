//! Samples as lines of text that people can search and an import takes back to the last bit.
//!
//! ```text
//! json         {"name":"cpu","value":85,"timestamp":1696789234567,"labels":{"host":"a"},"type":"counter","nth":1}
//! iso          {"timestamp":"2025-09-17T13:45:23.123Z","name":"cpu","value":85,…}
//! csv          name,timestamp,value,nth,type,labels
//!              cpu,1696789234567,85,1,counter,"{""host"":""a""}"
//! openmetrics  cpu{host="a"} 85 1696789234.567000001
//!              # EOF
//! ```
//!
//! `labels`, `type` (of what is no gauge) and `nth` stand where there is something to say. `nth` counts the second and
//! later samples of one series in one millisecond; OpenMetrics says it as so many nanoseconds.
//! Values are the shortest that read back to the same bits; `NaN`, `+Inf`, `-Inf` are text in JSON. A NaN of other bits
//! than the usual one is `NaN:` and its bits in hex. OpenMetrics knows one NaN and no type here, and what says that a
//! series has ended is left out of it.
//! Not here: which samples, and in what order; how they are read (`ingest::ImportDecoder`).

use crate::json::{write_number, write_text};
use model::{LabelSetRef, MetricKind, Sample};
use std::io::Write as _;

/// The bits of the NaN that is written without them.
const USUAL_NAN: u64 = 0x7ff8_0000_0000_0000;
/// Nanoseconds that tell samples of a millisecond apart in OpenMetrics.
const NTH_MAX_OPENMETRICS: u32 = 999_999;

/// How samples are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportFormat {
    /// A JSON object a line, times in milliseconds.
    #[default]
    Json,
    /// A JSON object a line, times as RFC 3339.
    JsonIso,
    /// Comma-separated values with a header (RFC 4180, lines end in LF).
    Csv,
    /// OpenMetrics text.
    OpenMetrics,
}

impl ExportFormat {
    /// The format of that name, as the parameter `format` gives it.
    pub fn from_name(name: &str) -> Option<ExportFormat> {
        Some(match name {
            "json" => ExportFormat::Json,
            "iso" => ExportFormat::JsonIso,
            "csv" => ExportFormat::Csv,
            "openmetrics" => ExportFormat::OpenMetrics,
            _ => return None,
        })
    }

    /// What an answer in it says to be.
    pub fn content_type(self) -> &'static str {
        match self {
            ExportFormat::Json | ExportFormat::JsonIso => "application/x-ndjson",
            ExportFormat::Csv => "text/csv; charset=utf-8",
            ExportFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What stands before the first sample.
    pub fn head(self) -> &'static str {
        if self == ExportFormat::Csv { "name,timestamp,value,nth,type,labels\n" } else { "" }
    }

    /// What stands behind the last sample.
    pub fn foot(self) -> &'static str {
        if self == ExportFormat::OpenMetrics { "# EOF\n" } else { "" }
    }
}

/// Which of the samples of one millisecond came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOfMilli {
    /// The millisecond.
    pub millis: i64,
    /// Samples of the series in it, before that one.
    pub nth: u32,
}

/// Writes series one after the other.
#[derive(Debug)]
pub struct ExportRenderer {
    format: ExportFormat,
    /// What stands before the value of each sample of the series at hand; with ISO times before the name.
    before: Vec<u8>,
    /// Labels and type, as they stand behind it.
    behind: Vec<u8>,
    last: Option<LastOfMilli>,
    cell: Vec<u8>,
}

impl ExportRenderer {
    /// Nothing written yet.
    pub fn new(format: ExportFormat) -> ExportRenderer {
        ExportRenderer { format, before: Vec::new(), behind: Vec::new(), last: None, cell: Vec::new() }
    }

    /// The samples that follow are of that series; `last` is the one before them, where some were written earlier.
    pub fn begin_series(&mut self, labels: LabelSetRef<'_>, kind: MetricKind, last: Option<LastOfMilli>) {
        self.last = last;
        self.before.clear();
        self.behind.clear();
        let has_labels = labels.labels().next().is_some();
        match self.format {
            ExportFormat::Json | ExportFormat::JsonIso => {
                self.before.extend_from_slice(b"\"name\":");
                write_text(labels.name(), &mut self.before);
                self.before.extend_from_slice(b",\"value\":");
                if has_labels {
                    self.behind.extend_from_slice(b",\"labels\":");
                    write_labels(labels, &mut self.behind);
                }
                if kind != MetricKind::Gauge {
                    self.behind.extend_from_slice(b",\"type\":");
                    write_text(kind.name(), &mut self.behind);
                }
            }
            ExportFormat::Csv => {
                write_cell(labels.name().as_bytes(), &mut self.before);
                self.before.push(b',');
                if kind != MetricKind::Gauge {
                    self.behind.extend_from_slice(kind.name().as_bytes());
                }
                self.behind.push(b',');
                if has_labels {
                    self.cell.clear();
                    write_labels(labels, &mut self.cell);
                    write_cell(&self.cell, &mut self.behind);
                }
            }
            ExportFormat::OpenMetrics => write_exposition_name(labels, &mut self.before),
        }
    }

    /// Appends a sample of the series at hand, times rising.
    pub fn push(&mut self, sample: Sample, out: &mut Vec<u8>) {
        if self.format == ExportFormat::OpenMetrics && sample.is_stale_marker() {
            // It is not counted either: who reads this back does not know of it.
            return;
        }
        let millis = sample.timestamp.millis();
        let nth = match self.last {
            Some(last) if last.millis == millis => last.nth.saturating_add(1),
            _ => 0,
        };
        self.last = Some(LastOfMilli { millis, nth });
        match self.format {
            ExportFormat::Json | ExportFormat::JsonIso => self.push_json(sample.value, millis, nth, out),
            ExportFormat::Csv => {
                out.extend_from_slice(&self.before);
                out.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
                out.push(b',');
                write_value(sample.value, out);
                out.push(b',');
                if nth > 0 {
                    out.extend_from_slice(itoa::Buffer::new().format(nth).as_bytes());
                }
                out.push(b',');
                out.extend_from_slice(&self.behind);
                out.push(b'\n');
            }
            ExportFormat::OpenMetrics if nth > NTH_MAX_OPENMETRICS => {}
            ExportFormat::OpenMetrics => {
                out.extend_from_slice(&self.before);
                out.push(b' ');
                if sample.value.is_nan() {
                    out.extend_from_slice(b"NaN");
                } else {
                    write_value(sample.value, out);
                }
                out.push(b' ');
                write_seconds(millis, nth, out);
                out.push(b'\n');
            }
        }
    }

    fn push_json(&self, value: f64, millis: i64, nth: u32, out: &mut Vec<u8>) {
        out.push(b'{');
        if self.format == ExportFormat::JsonIso {
            out.extend_from_slice(b"\"timestamp\":\"");
            write_rfc3339(millis, out);
            out.extend_from_slice(b"\",");
        }
        out.extend_from_slice(&self.before);
        let is_number = value.is_finite();
        if !is_number {
            out.push(b'"');
        }
        write_value(value, out);
        if !is_number {
            out.push(b'"');
        }
        if self.format == ExportFormat::Json {
            out.extend_from_slice(b",\"timestamp\":");
            out.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
        }
        out.extend_from_slice(&self.behind);
        if nth > 0 {
            out.extend_from_slice(b",\"nth\":");
            out.extend_from_slice(itoa::Buffer::new().format(nth).as_bytes());
        }
        out.extend_from_slice(b"}\n");
    }

    /// The sample written last; none before the first of a series.
    pub fn last(&self) -> Option<LastOfMilli> {
        self.last
    }
}

/// A value, every bit of it, without quotes.
fn write_value(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        write_number(value, out);
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.to_bits() == USUAL_NAN {
        out.extend_from_slice(b"NaN");
    } else {
        write!(out, "NaN:{:016x}", value.to_bits()).expect("a vector takes every write");
    }
}

fn write_labels(labels: LabelSetRef<'_>, out: &mut Vec<u8>) {
    let mut separator = b'{';
    for (label, value) in labels.labels() {
        out.push(std::mem::replace(&mut separator, b','));
        write_text(label, out);
        out.push(b':');
        write_text(value, out);
    }
    out.push(b'}');
}

/// In quotes where it has to be.
fn write_cell(text: &[u8], out: &mut Vec<u8>) {
    if !text.iter().any(|byte| b",\"\r\n".contains(byte)) {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// `cpu{host="a"}`; a name that is none of the old form stands between the braces, in quotes.
fn write_exposition_name(labels: LabelSetRef<'_>, out: &mut Vec<u8>) {
    let is_plain = |name: &str, may_have_colon: bool| {
        let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || (may_have_colon && c == ':');
        name.chars().enumerate().all(|(at, c)| is_first(c) || (at > 0 && c.is_ascii_digit()))
    };
    let quoted = |text: &str, out: &mut Vec<u8>| {
        out.push(b'"');
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                byte => out.push(byte),
            }
        }
        out.push(b'"');
    };
    let mut separator = b'{';
    if is_plain(labels.name(), true) {
        out.extend_from_slice(labels.name().as_bytes());
    } else {
        out.push(std::mem::replace(&mut separator, b','));
        quoted(labels.name(), out);
    }
    for (label, value) in labels.labels() {
        out.push(std::mem::replace(&mut separator, b','));
        if is_plain(label, false) {
            out.extend_from_slice(label.as_bytes());
        } else {
            quoted(label, out);
        }
        out.push(b'=');
        quoted(value, out);
    }
    if separator == b',' {
        out.push(b'}');
    }
}

/// Seconds with three decimals, and six more where `nth` is to be said.
fn write_seconds(millis: i64, nth: u32, out: &mut Vec<u8>) {
    // Milliseconds end below 2^43, so nanoseconds fit.
    let nanos = millis * 1_000_000 + i64::from(nth);
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    let written = if nth > 0 {
        write!(out, "{sign}{seconds}.{rest:09}")
    } else {
        write!(out, "{sign}{seconds}.{:03}", rest / 1_000_000)
    };
    written.expect("a vector takes every write");
}

/// `2025-09-17T13:45:23.123Z`.
fn write_rfc3339(millis: i64, out: &mut Vec<u8>) {
    let (days, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", of_day % 1_000)
        .expect("a vector takes every write");
}

/// Year, month and day of a day since 1970: years are counted from March, so that the day which some lack is the last.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    let since_march_0000 = days + 719_468;
    let era = since_march_0000.div_euclid(DAYS_OF_400_YEARS);
    let of_era = since_march_0000.rem_euclid(DAYS_OF_400_YEARS);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{LabelSet, Timestamp};

    fn lines(format: ExportFormat, name: &str, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> String {
        let labels = LabelSet::new(name, labels).unwrap();
        let (mut renderer, mut out) = (ExportRenderer::new(format), Vec::new());
        renderer.begin_series(labels.as_ref(), MetricKind::Gauge, None);
        for (ticks, value) in samples {
            renderer.push(Sample { timestamp: Timestamp::from_ticks(*ticks), value: *value }, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    const MS: i64 = 1_696_789_234_567 << 20;

    #[test]
    fn each_format_is_written_as_it_is_read() {
        let samples = [(MS, 85.0), (MS + 7, -0.0), (MS + 9, f64::NAN), (MS + (1 << 20), f64::INFINITY)];
        let of = |format| lines(format, "cpu_usage", &[("host", "a,\"b\"")], &samples);
        assert_eq!(
            of(ExportFormat::Json),
            "{\"name\":\"cpu_usage\",\"value\":85,\"timestamp\":1696789234567,\"labels\":{\"host\":\"a,\\\"b\\\"\"}}\n\
             {\"name\":\"cpu_usage\",\"value\":-0,\"timestamp\":1696789234567,\"labels\":{\"host\":\"a,\\\"b\\\"\"},\"nth\":1}\n\
             {\"name\":\"cpu_usage\",\"value\":\"NaN\",\"timestamp\":1696789234567,\"labels\":{\"host\":\"a,\\\"b\\\"\"},\"nth\":2}\n\
             {\"name\":\"cpu_usage\",\"value\":\"+Inf\",\"timestamp\":1696789234568,\"labels\":{\"host\":\"a,\\\"b\\\"\"}}\n"
        );
        assert_eq!(
            of(ExportFormat::Csv),
            "cpu_usage,1696789234567,85,,,\"{\"\"host\"\":\"\"a,\\\"\"b\\\"\"\"\"}\"\n\
             cpu_usage,1696789234567,-0,1,,\"{\"\"host\"\":\"\"a,\\\"\"b\\\"\"\"\"}\"\n\
             cpu_usage,1696789234567,NaN,2,,\"{\"\"host\"\":\"\"a,\\\"\"b\\\"\"\"\"}\"\n\
             cpu_usage,1696789234568,+Inf,,,\"{\"\"host\"\":\"\"a,\\\"\"b\\\"\"\"\"}\"\n"
        );
        assert_eq!(
            of(ExportFormat::OpenMetrics),
            "cpu_usage{host=\"a,\\\"b\\\"\"} 85 1696789234.567\n\
             cpu_usage{host=\"a,\\\"b\\\"\"} -0 1696789234.567000001\n\
             cpu_usage{host=\"a,\\\"b\\\"\"} NaN 1696789234.567000002\n\
             cpu_usage{host=\"a,\\\"b\\\"\"} +Inf 1696789234.568\n"
        );
    }

    /// SPEC §4, byte for byte.
    #[test]
    fn without_labels_the_objects_have_three_keys() {
        assert_eq!(
            lines(ExportFormat::Json, "cpu_usage", &[], &[(MS, 85.0)]),
            "{\"name\":\"cpu_usage\",\"value\":85,\"timestamp\":1696789234567}\n"
        );
        let at = 1_758_116_723_123 << 20;
        assert_eq!(
            lines(ExportFormat::JsonIso, "cpu_usage", &[], &[(at, 75.5)]),
            "{\"timestamp\":\"2025-09-17T13:45:23.123Z\",\"name\":\"cpu_usage\",\"value\":75.5}\n"
        );
    }

    #[test]
    fn a_nan_keeps_its_bits_and_other_names_are_quoted() {
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        let of = |format| lines(format, "app.cpu", &[("a b", "\\")], &[(MS, stale), (MS + 1, 1.0)]);
        assert!(
            of(ExportFormat::Json).starts_with("{\"name\":\"app.cpu\",\"value\":\"NaN:7ff0000000000002\",")
        );
        assert_eq!(of(ExportFormat::OpenMetrics), "{\"app.cpu\",\"a b\"=\"\\\\\"} 1 1696789234.567\n");
    }

    #[test]
    fn what_goes_on_counts_on() {
        let labels = LabelSet::new("m", &[]).unwrap();
        let (mut renderer, mut out) = (ExportRenderer::new(ExportFormat::Csv), Vec::new());
        let last = LastOfMilli { millis: 1_696_789_234_567, nth: 4 };
        renderer.begin_series(labels.as_ref(), MetricKind::Counter, Some(last));
        renderer.push(Sample { timestamp: Timestamp::from_ticks(MS + 99), value: 1.0 }, &mut out);
        assert_eq!(out, b"m,1696789234567,1,5,counter,\n");
        assert_eq!(renderer.last(), Some(LastOfMilli { nth: 5, ..last }));
    }

    #[test]
    fn dates_before_and_after_leap_days_are_right() {
        let of = |millis| {
            let mut out = Vec::new();
            write_rfc3339(millis, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(of(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(of(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(of(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(of(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
