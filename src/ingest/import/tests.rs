use super::*;
use model::LabelSet;
use proptest::prelude::*;

const BOUNDS: TimeBounds = TimeBounds { oldest: None, newest: 1 << 42 };

type Row = (String, Option<(i64, i64)>, u64, MetricKind);

fn decode(body: &str, form: ImportForm) -> Result<Vec<Row>, String> {
    let mut batch = Batch::default();
    let decoded = ImportDecoder::new().decode(body.as_bytes(), (form, &BOUNDS), &mut batch);
    assert!(decoded.is_ok() || batch.is_empty(), "what is refused leaves nothing");
    decoded.map_err(|error| error.to_string())?;
    let mut labels = String::new();
    let rows = batch.rows().map(|row| {
        if let Some(set) = row.labels {
            labels = format!("{set:?}");
        }
        let time = row.timestamp.map(|timestamp| (timestamp.millis(), timestamp.fine()));
        (labels.clone(), time, row.value.to_bits(), row.kind)
    });
    Ok(rows.collect())
}

fn series(name: &str, labels: &[(&str, &str)]) -> String {
    format!("{:?}", LabelSet::new(name, labels).unwrap())
}

fn row(series: &str, time: Option<(i64, i64)>, value: f64) -> Row {
    (series.to_owned(), time, value.to_bits(), MetricKind::Gauge)
}

#[test]
fn each_form_is_read() {
    let cpu = series("cpu", &[("host", "a\"b")]);
    let expected = vec![
        row(&cpu, Some((1_500, 0)), 85.0),
        row(&cpu, Some((1_500, 2)), f64::NAN),
        row(&series("up", &[]), None, -0.0),
    ];
    let json = r#"{"name":"cpu","value":85,"timestamp":1500,"labels":{"host":"a\"b"}}

{"timestamp":"1970-01-01T00:00:01.500Z","labels":{"host":"a\u0022b"},"name":"cpu","value":"NaN","nth":2,"other":[1]}
{"name":"up","value":-0}"#;
    assert_eq!(decode(json, ImportForm::Json).unwrap(), expected);
    let csv = "name,timestamp,value,nth,labels\r\ncpu,1500,85,,\"{\"\"host\"\":\"\"a\\\"\"b\"\"}\"\r\n\
               cpu,1970-01-01T00:00:01.5Z,NaN,2,\"{\"\"host\"\":\"\"a\\\"\"b\"\"}\"\nup,,-0,,\n";
    assert_eq!(decode(csv, ImportForm::Csv).unwrap(), expected);
    let text = "# HELP cpu what\ncpu{host=\"a\\\"b\"} 85 1.5\ncpu{ host = \"a\\\"b\" , } nan 1.500000002 # {x=\"y\"} 1\nup -0\n# EOF\n";
    assert_eq!(decode(text, ImportForm::OpenMetrics).unwrap(), expected);
    let text = "cpu{host=\"a\\\"b\"} 85 1500\n";
    assert_eq!(decode(text, ImportForm::Exposition).unwrap(), expected[..1]);
}

#[test]
fn foreign_columns_are_labels_and_quoted_names_are_names() {
    let csv = "value,host,name,timestamp,zone\n1,a,cpu.load,5,\n";
    let expected = vec![row(&series("cpu.load", &[("host", "a")]), Some((5, 0)), 1.0)];
    assert_eq!(decode(csv, ImportForm::Csv).unwrap(), expected);
    let text = "{\"cpu.load\",\"host\"=\"a\"} 1 5\n";
    assert_eq!(decode(text, ImportForm::Exposition).unwrap(), expected);
}

#[test]
fn types_go_with_their_families() {
    let text = "# TYPE req counter\nreq_total 1\nreq 2\nrequests 3\n# TYPE \"a.b\" histogram\n{\"a.b_bucket\",le=\"1\"} 4\n";
    let kinds: Vec<_> = decode(text, ImportForm::OpenMetrics).unwrap().into_iter().map(|row| row.3).collect();
    assert_eq!(kinds, [MetricKind::Counter, MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram]);
    let json = r#"{"name":"a","value":1,"type":"counter"}"#;
    assert_eq!(decode(json, ImportForm::Json).unwrap()[0].3, MetricKind::Counter);
}

#[test]
fn a_line_that_is_wrong_is_told_and_nothing_taken() {
    use ImportForm::{Csv, Exposition, Json, OpenMetrics};
    for (form, body, told) in [
        (Json, "{\"name\":\"a\",\"value\":1}\n{\"name\":\"a\"}", "line 2: expected the key value"),
        (Json, "\n\n[]", "line 3: expected a JSON object a line"),
        (Json, r#"{"name":"a","value":"UP"}"#, "line 1: expected a number, NaN, +Inf or -Inf"),
        (Json, r#"{"name":"a","value":1e999}"#, "line 1: expected a finite number"),
        (Json, r#"{"name":"a","value":1,"nth":3}"#, "line 1: expected a time beside nth"),
        (Json, r#"{"name":"a","value":1,"timestamp":1,"nth":1048576}"#, "line 1: expected nth below 1048576"),
        (Json, r#"{"name":"a","value":"NaN:7ff0000000000000"}"#, "line 1: expected the bits of a NaN"),
        (Json, r#"{"name":"a","value":1} x"#, "line 1: expected the end of the line behind the object"),
        (Json, r#"{"name":"","value":1}"#, "line 1: Metric name cannot be empty"),
        (Csv, "name,time\n", "line 1: expected a header with the columns name and value"),
        (Csv, "name,value,name\n", "line 1: expected each column once"),
        (Csv, "name,value\na\n", "line 2: expected as many cells as the header has"),
        (Csv, "name,value\n\"a,1\n", "line 2: expected the quote that ends a cell, on its line"),
        (Csv, "name,value\na,1e999\n", "line 2: expected a number, NaN, +Inf or -Inf"),
        (Csv, "name,value\na,\n", "line 2: expected a number, NaN, +Inf or -Inf"),
        (Csv, "name,value,h\na,1,\"x\"y\n", "line 2: expected a comma behind the quote that ends a cell"),
        (Exposition, "a 1\na{b=\"c} 1\n", "line 2: expected the quote that ends a value"),
        (Exposition, "a 1 1.5\n", "line 1: expected a time in milliseconds"),
        (Exposition, "a 1 1 1\n", "line 1: expected the end of the line behind the time"),
        (Exposition, "a -1e999\n", "line 1: expected a number, NaN, +Inf or -Inf"),
        (Exposition, "a{b} 1\n", "line 1: expected = behind the name of a label"),
        (Exposition, "{b=\"c\"} 1\n", "line 1: expected a metric name before its labels"),
        (OpenMetrics, "a 1 x\n", "line 1: expected a time in seconds"),
        (OpenMetrics, "a\n", "line 1: expected a number, NaN, +Inf or -Inf"),
    ] {
        assert_eq!(decode(body, form), Err(told.to_owned()), "{body}");
    }
    let old = decode("a 1 -5\n", ImportForm::Exposition).unwrap_err();
    assert!(old.starts_with("line 1: timestamp -5 is older"), "{old}");
    let mut batch = Batch::default();
    let error = ImportDecoder::new().decode(b"a 1\n\xff", (ImportForm::Exposition, &BOUNDS), &mut batch);
    assert_eq!(error.unwrap_err().to_string(), "line 2: expected UTF-8");
}

#[test]
fn times_before_the_epoch_and_with_an_exponent_keep_their_millisecond() {
    assert_eq!(exposition_seconds("1.7e9"), Some((1_700_000_000_000, 0)));
    assert_eq!(exposition_seconds("0.0015"), Some((1, 500_000)));
    assert_eq!(exposition_seconds("9999999999999"), None);
}

/// The time that a line has, by the way that all lines take.
fn exposition_seconds(text: &str) -> Option<(i64, i64)> {
    decode(&format!("a 1 {text}\n"), ImportForm::OpenMetrics).ok()?[0].1
}

proptest! {
    /// Whatever comes, in one go or in steps: samples or a refusal that names a line, never a panic, and the same.
    #[test]
    fn any_text_is_taken_or_refused(
        body in proptest::collection::vec(
            prop_oneof![
                Just("{\"name\":\"a\",\"value\":"), Just("1"), Just("}"), Just("\n"), Just("\""), Just(","),
                Just("name,value,labels"), Just("a"), Just("{"), Just("=\"x\""), Just(" "), Just("\\"),
                Just("# TYPE a counter"), Just("\u{e9}"), Just("NaN:7ff8000000000001"), Just("9e9"), Just("\r\n"),
            ],
            0..40,
        ),
        lines in 1usize..4,
    ) {
        let body = body.concat();
        for form in [ImportForm::Json, ImportForm::Csv, ImportForm::OpenMetrics, ImportForm::Exposition] {
            let at_once = decode(&body, form);
            let (mut decoder, mut batch) = (ImportDecoder::new(), Batch::default());
            let mut decoding = decoder.begin(&body, (form, &BOUNDS), &mut batch);
            while decoding.step(lines) {}
            let in_steps = decoding.finish();
            let rows = at_once.as_ref().map_or(0, Vec::len);
            prop_assert_eq!(batch.len(), rows);
            prop_assert_eq!(in_steps.map_err(|error| error.to_string()), at_once.map(|_| ()));
        }
    }
}
