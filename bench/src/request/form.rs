//! The forms in which servers take samples, each as a body with holes for what changes.
//!
//! A hole has a fixed width, so the length of a body never changes.
//! Read next: `remote_write.rs` for the one that is not text.

use super::remote_write;
use serde::{Deserialize, Serialize};

/// How a request carries samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// `{"name":…,"value":…,"labels":{…}}`, or many as `{"metrics":[…]}`: ours
    #[default]
    Json,
    /// A line of Prometheus' text format per sample: VictoriaMetrics' `/api/v1/import/prometheus`
    PrometheusText,
    /// A line of InfluxDB's line protocol per sample: `/write`
    InfluxLine,
    /// A line of JSON with name, values and timestamps per sample: VictoriaMetrics' `/api/v1/import`
    JsonLine,
    /// Protobuf in snappy: Prometheus' `/api/v1/write`
    RemoteWrite,
}

impl Form {
    /// Where servers take it.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Form::Json => crate::plan::INGEST_PATH,
            Form::PrometheusText => "/api/v1/import/prometheus",
            Form::InfluxLine => "/write",
            Form::JsonLine => "/api/v1/import",
            Form::RemoteWrite => "/api/v1/write",
        }
    }

    /// The header lines that say what the body is.
    pub(super) fn headers(self) -> &'static str {
        match self {
            Form::Json | Form::JsonLine => "Content-Type: application/json\r\n",
            Form::PrometheusText | Form::InfluxLine => "Content-Type: text/plain\r\n",
            Form::RemoteWrite => {
                "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                X-Prometheus-Remote-Write-Version: 0.1.0\r\n"
            }
        }
    }
}

/// How a number is written into its hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Decimal digits: `42.17`, and a timestamp of 13.
    Text,
    /// Eight bytes of a double, and a timestamp as a varint of six.
    Binary,
}

/// Where one sample's changing bytes stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) value: usize,
    pub(super) connection: Option<usize>,
    pub(super) series: Option<usize>,
    pub(super) timestamp: Option<usize>,
}

impl Places {
    /// The same places behind so many bytes.
    pub(super) fn behind(self, bytes: usize) -> Places {
        let moved = |at: Option<usize>| at.map(|at| at + bytes);
        Places {
            value: self.value + bytes,
            connection: moved(self.connection),
            series: moved(self.series),
            timestamp: moved(self.timestamp),
        }
    }
}

/// A request's body and its holes.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) samples: Vec<Places>,
    pub(super) coding: Coding,
}

/// Digits of a connection's and of a series' label.
pub(super) const LABEL_DIGITS: usize = 6;
const LABEL: &str = "000000";
const VALUE: &str = "00.00";
/// Milliseconds from 2001 to 2286.
pub(super) const TIMESTAMP_DIGITS: usize = 13;
const TIMESTAMP: &str = "0000000000000";

/// What a sample is called; which of the two labels it has follows from the number of series.
pub(super) struct Naming<'a> {
    pub(super) name: &'a str,
    pub(super) series: u32,
    /// Further labels, the same for all; of remote write alone.
    pub(super) labels: u32,
    /// Samples of a series in a row; of remote write alone.
    pub(super) run: u32,
}

impl Naming<'_> {
    pub(super) fn has_connection(&self) -> bool {
        self.series > 0
    }

    pub(super) fn has_series(&self) -> bool {
        self.series > 1
    }
}

/// The body of a batch of samples.
pub(super) fn body(form: Form, naming: &Naming<'_>, batch: u32) -> Body {
    if form == Form::RemoteWrite {
        return remote_write::body(naming, batch);
    }
    let mut text = Text(Vec::new());
    let mut samples = Vec::new();
    let is_list = form == Form::Json && batch > 1;
    if is_list {
        text.put("{\"metrics\":[");
    }
    for sample in 0..batch {
        if is_list && sample > 0 {
            text.put(",");
        }
        samples.push(text.sample(form, naming));
    }
    if is_list {
        text.put("]}");
    }
    Body { bytes: text.0, samples, coding: Coding::Text }
}

struct Text(Vec<u8>);

impl Text {
    fn put(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Text, and behind it the hole, whose place it returns.
    fn hole(&mut self, before: &str, hole: &str) -> usize {
        self.put(before);
        self.put(hole);
        self.0.len() - hole.len()
    }

    fn sample(&mut self, form: Form, naming: &Naming<'_>) -> Places {
        let name = naming.name;
        let (mut connection, mut series, mut timestamp) = (None, None, None);
        let mut labels = |text: &mut Text, [before, between, after]: [&str; 3]| {
            connection = naming.has_connection().then(|| text.hole(before, LABEL));
            series = naming.has_series().then(|| text.hole(between, LABEL));
            text.put(if naming.has_connection() { after } else { "" });
        };
        let value = match form {
            Form::Json | Form::RemoteWrite => {
                let value = self.hole(&format!("{{\"name\":\"{name}\",\"value\":"), VALUE);
                labels(self, [",\"labels\":{\"connection\":\"", "\",\"series\":\"", "\"}"]);
                self.put("}");
                value
            }
            Form::PrometheusText => {
                self.put(name);
                labels(self, ["{connection=\"", "\",series=\"", "\"}"]);
                let value = self.hole(" ", VALUE);
                self.put("\n");
                value
            }
            Form::InfluxLine => {
                self.put(name);
                labels(self, [",connection=", ",series=", ""]);
                let value = self.hole(" value=", VALUE);
                self.put("\n");
                value
            }
            Form::JsonLine => {
                self.put(&format!("{{\"metric\":{{\"__name__\":\"{name}\""));
                labels(self, [",\"connection\":\"", "\",\"series\":\"", "\""]);
                let value = self.hole("},\"values\":[", VALUE);
                timestamp = Some(self.hole("],\"timestamps\":[", TIMESTAMP));
                self.put("]}\n");
                value
            }
        };
        Places { value, connection, series, timestamp }
    }
}
