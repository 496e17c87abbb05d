//! What senders send: each decoder of `ingest`, whole and in steps, with nothing remembered and with all of it.

use ingest::{
    ImportDecoder, ImportForm, LineDecoder, LineUnit, MetricsDecoder, RemoteWriteDecoder, Repeat, TimeBounds,
};
use model::{Batch, MetricKind, Sample};
use query::{ExportFormat, ExportRenderer};
use std::cell::RefCell;
use std::collections::HashMap;
use storage::fuzz::{Body, Seeds};

pub(crate) const TARGETS: &[(&str, Body, Seeds)] = &[
    ("json", json, json_seeds),
    ("json-measurement", measurement, measurement_seeds),
    ("line-protocol", line_protocol, line_seeds),
    ("remote-write", remote_write, remote_write_seeds),
    ("import-json", |data| import(ImportForm::Json, data), || exported(ExportFormat::Json)),
    ("import-csv", |data| import(ImportForm::Csv, data), || exported(ExportFormat::Csv)),
    (
        "import-openmetrics",
        |data| import(ImportForm::OpenMetrics, data),
        || exported(ExportFormat::OpenMetrics),
    ),
    ("import-exposition", |data| import(ImportForm::Exposition, data), exposition_seeds),
];

const NOW: i64 = 1_696_789_234_567;
const BOUNDS: TimeBounds = TimeBounds { oldest: None, newest: NOW + 1_000_000 };
const SEED: u64 = 7;

/// A row to compare: labels, kind, ticks, bits of the value.
type Row = (String, MetricKind, Option<i64>, u64);

fn rows(batch: &Batch) -> Vec<Row> {
    let row = |row: model::BatchRow<'_>| {
        let labels = row.labels.expect("nobody said that labels are known");
        assert!(model::LabelSetRef::from_bytes(labels.bytes()).is_ok(), "what is taken is a label set");
        let ticks = row.timestamp.map(|timestamp| timestamp.ticks());
        (format!("{labels:?}"), row.kind, ticks, row.value.to_bits())
    };
    batch.rows().map(row).collect()
}

/// Lines in a body, one more where the last has no end: no error names a later one.
fn lines(data: &[u8]) -> usize {
    data.split(|byte| *byte == b'\n').count()
}

/// `POST /metrics`: the second time its rows are known, and in steps it is the same.
fn json(data: &[u8]) -> bool {
    let (mut decoder, mut batch, mut repeat) = (MetricsDecoder::new(SEED), Batch::default(), Repeat::NONE);
    let mut decode = |repeat: &mut Repeat| {
        let decoded = decoder.decode(data, &mut batch, repeat).map(|decoded| format!("{decoded:?}"));
        assert!(decoded.is_ok() || batch.is_empty(), "a refused body leaves nothing");
        decoded.map(|decoded| (decoded, rows(&batch)))
    };
    let first = decode(&mut repeat);
    for _ in 0..2 {
        assert_eq!(first, decode(&mut repeat), "with what it remembers");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let mut steps = decoder.begin(text, &mut batch);
        while steps.step(1) {}
        let decoded = steps.finish().map(|decoded| format!("{decoded:?}"));
        assert_eq!(first, decoded.map(|decoded| (decoded, rows(&batch))), "in steps");
    }
    first.is_ok()
}

fn json_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"name":"cpu_usage","value":85}"#,
        r#"{"metrics":[{"name":"cpu_usage","value":85,"tags":{"host":"a"}},{"name":"m\u00e9m","value":7.5e1,"timestamp":1696789234567}],"client_id":"c\n1"}"#,
        r#"[{"name":"a","value":true,"type":"counter"},{"value":"DOWN","name":"b","labels":{"x":"\"","y":"\\"}}]"#,
        "{\"name\":\"a\",\"value\":1}\n{\"name\":\"a\",\"value\":2,\"timestamp\":\"2025-09-17T13:45:23.123Z\"}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// `POST /write` with a JSON body.
fn measurement(data: &[u8]) -> bool {
    let (mut decoder, mut batch) = (MetricsDecoder::new(SEED), Batch::default());
    let mut decode = || {
        let decoded = decoder.decode_measurement(data, &mut batch);
        assert!(decoded.is_ok() || batch.is_empty(), "a refused body leaves nothing");
        decoded.map(|()| rows(&batch))
    };
    let first = decode();
    assert_eq!(first, decode());
    first.is_ok()
}

fn measurement_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"measurement":"cpu_usage","tags":{"host":"server01"},"fields":{"value":75.5},"timestamp":1696789234567}"#,
        r#"{"fields":{"value":1,"idle":2,"up":true},"measurement":"cpu"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Line protocol: remembered series are named by the same number, and in steps it is the same.
fn line_protocol(data: &[u8]) -> bool {
    let of = (LineUnit::Milliseconds, &BOUNDS);
    let (mut plain, mut naming) = (LineDecoder::new(), LineDecoder::naming_repeats(SEED, 64));
    let (mut batch, mut repeat) = (Batch::default(), Repeat::NONE);
    let first = plain.decode(data, of, &mut batch, &mut Repeat::default(), |_| false);
    assert!(first.is_ok() || batch.is_empty(), "a refused body leaves nothing");
    if let Err(error) = &first {
        assert!((1..=lines(data)).contains(&error.line), "{error:?}");
    }
    let first = first.map(|written| (written, rows(&batch)));
    let named = RefCell::new(HashMap::new());
    for _ in 0..2 {
        let written = naming.decode(data, of, &mut batch, &mut repeat, |_| false);
        assert_eq!(first, written.map(|written| (written, rows(&batch))), "with what it remembers");
        one_number_is_one_series(&batch, &named);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let mut steps = plain.begin(text, of, &mut batch);
        while steps.step(1) {}
        let written = steps.finish();
        assert_eq!(first, written.map(|written| (written, rows(&batch))), "in steps");
    }
    first.is_ok_and(|(_, rows)| !rows.is_empty())
}

fn line_seeds() -> Vec<Vec<u8>> {
    [
        "cpu,host=a,zone=eu value=75.5,idle=2i 1696789234567\ncpu value=1\n",
        "m\\ x,t\\,a=b\\=c f=1,text=\"a \\\" b\",ok=t 1696789234567\n# a comment\n\nm f=3u",
        "cpu,host=a value=1 1\ncpu,host=a value=2 2\r\ncpu,host=a value=3 3\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// As long as a decoder lives, equal numbers are equal label sets.
fn one_number_is_one_series(batch: &Batch, named: &RefCell<HashMap<u64, Vec<u8>>>) {
    for row in batch.rows() {
        let (Some(repeat), Some(labels)) = (row.repeat, row.labels) else { continue };
        let mut named = named.borrow_mut();
        let known = named.entry(repeat.0.get()).or_insert_with(|| labels.bytes().to_vec());
        assert_eq!(known, labels.bytes());
    }
}

/// Remote write, uncompressed.
fn remote_write(data: &[u8]) -> bool {
    let (mut plain, mut naming) = (RemoteWriteDecoder::new(), RemoteWriteDecoder::naming_repeats(SEED, 64));
    let (mut batch, mut repeat) = (Batch::default(), Repeat::NONE);
    let first = plain.decode(data, &BOUNDS, &mut batch, &mut Repeat::default(), |_| false);
    assert!(first.is_ok() || batch.is_empty(), "a refused body leaves nothing");
    let first = first.map(|written| (written, rows(&batch)));
    let named = RefCell::new(HashMap::new());
    for _ in 0..2 {
        let written = naming.decode(data, &BOUNDS, &mut batch, &mut repeat, |_| false);
        assert_eq!(first, written.map(|written| (written, rows(&batch))), "with what it remembers");
        one_number_is_one_series(&batch, &named);
    }
    let mut steps = plain.begin(data, &BOUNDS, &mut batch);
    while steps.step(1) {}
    let written = steps.finish();
    assert_eq!(first, written.map(|written| (written, rows(&batch))), "in steps");
    first.is_ok_and(|(_, rows)| !rows.is_empty())
}

/// A field of the wire format that has bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).expect("a seed is short").to_le_bytes();
    assert!(len[0] < 128, "a length of one byte");
    [&[number << 3 | 2], &len[..], bytes].concat()
}

fn remote_write_seeds() -> Vec<Vec<u8>> {
    let label =
        |name: &str, value: &str| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
    let sample = |value: f64| {
        // 1,696,789,234,567 as a varint.
        let time = [0x87, 0xa7, 0xd0, 0x81, 0xb1, 0x31];
        field(2, &[&[9], &value.to_le_bytes()[..], &[16], &time].concat())
    };
    let series = |n: &str| {
        field(1, &[label("__name__", "cpu"), label("n", n), sample(1.5), sample(f64::NAN)].concat())
    };
    vec![series("a"), [series("a"), series("b"), field(3, b"metadata"), series("a")].concat()]
}

/// What an export or an exposition has. What it takes is exported, and taken again, as it was.
fn import(form: ImportForm, data: &[u8]) -> bool {
    let (mut decoder, mut batch) = (ImportDecoder::new(), Batch::default());
    let first = decoder.decode(data, (form, &BOUNDS), &mut batch);
    assert!(first.is_ok() || batch.is_empty(), "a refused body leaves nothing");
    if let Err(error) = &first {
        assert!((1..=lines(data)).contains(&error.line), "{error:?}");
    }
    let first = first.map(|()| rows(&batch));
    if let Ok(text) = std::str::from_utf8(data) {
        let mut steps = decoder.begin(text, (form, &BOUNDS), &mut batch);
        while steps.step(1) {}
        let finished = steps.finish();
        assert_eq!(first, finished.map(|()| rows(&batch)), "in steps");
    }
    if first.is_ok() {
        for (format, form) in [(ExportFormat::Json, ImportForm::Json), (ExportFormat::Csv, ImportForm::Csv)] {
            let (text, expected) = export(&batch, format);
            let mut again = Batch::default();
            let taken = decoder.decode(&text, (form, &BOUNDS), &mut again);
            assert!(taken.is_ok(), "{taken:?} for {}", String::from_utf8_lossy(&text));
            assert_eq!(expected, rows(&again), "{}", String::from_utf8_lossy(&text));
        }
    }
    first.is_ok_and(|rows| !rows.is_empty())
}

/// The rows that are the first of their millisecond, as text, and as they should come back.
fn export(batch: &Batch, format: ExportFormat) -> (Vec<u8>, Vec<Row>) {
    let mut out = format.head().as_bytes().to_vec();
    let mut renderer = ExportRenderer::new(format);
    let is_first = |row: &Row| row.2.is_some_and(|ticks| ticks % model::TICKS_PER_MILLI == 0);
    for row in batch.rows() {
        let (Some(labels), Some(timestamp)) = (row.labels, row.timestamp) else { continue };
        if timestamp.fine() == 0 {
            renderer.begin_series(labels, row.kind, None);
            renderer.push(Sample { timestamp, value: row.value }, &mut out);
        }
    }
    out.extend_from_slice(format.foot().as_bytes());
    (out, rows(batch).into_iter().filter(is_first).collect())
}

/// Some series of every kind of value, exported.
fn exported(format: ExportFormat) -> Vec<Vec<u8>> {
    let mut out = format.head().as_bytes().to_vec();
    let mut renderer = ExportRenderer::new(format);
    for (name, labels) in [("cpu_usage", &[][..]), ("app.cpu", &[("host", "a\"b"), ("zone", "x,y")][..])] {
        let set = model::LabelSet::new(name, labels).expect("labels as they should be");
        renderer.begin_series(set.as_ref(), MetricKind::Counter, None);
        for (at, value) in [85.0, 0.1, f64::NAN, f64::NEG_INFINITY, -0.0].into_iter().enumerate() {
            let timestamp =
                model::Timestamp::from_ticks((NOW + at as i64 / 2) * model::TICKS_PER_MILLI + at as i64);
            renderer.push(Sample { timestamp, value }, &mut out);
        }
    }
    out.extend_from_slice(format.foot().as_bytes());
    vec![out]
}

fn exposition_seeds() -> Vec<Vec<u8>> {
    [
        "# HELP cpu what it is\n# TYPE cpu counter\ncpu_total{host=\"a\\\\b\",zone=\"x\"} 1.5 1696789234567\n",
        "cpu 2\nup{} +Inf\n",
        "{\"app.cpu\",n=\"1\"} NaN 5\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
