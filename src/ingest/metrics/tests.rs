//! What is taken, what is refused and in which words, and that JSON is what another reader says it is.

use super::*;
use crate::NESTING_MAX;
use model::{LABELS_MAX, LabelSet, MILLIS_MAX, MetricKind, Timestamp};
use proptest::prelude::*;

mod again;

/// A row as the tables write it: canonical labels as text, kind, milliseconds, value.
type Row = (String, MetricKind, Option<i64>, f64);

fn rows(batch: &Batch) -> Vec<Row> {
    let millis = |timestamp: Option<Timestamp>| timestamp.map(Timestamp::millis);
    batch
        .rows()
        .map(|row| (format!("{:?}", row.labels.unwrap()), row.kind, millis(row.timestamp), row.value))
        .collect()
}

fn decode(body: impl AsRef<[u8]>) -> Result<(Shape, Option<String>, Vec<Row>), MetricsError> {
    let (mut decoder, mut batch) = (MetricsDecoder::new(0), Batch::default());
    let mut repeat = Repeat::NONE;
    // What an earlier body left behind must not show.
    let _ = decoder.decode(
        br#"{"name":"x","value":1,"tags":{"\u0061":"b"},"client_id":"\u0061"}"#,
        &mut batch,
        &mut repeat,
    );
    match decoder.decode(body.as_ref(), &mut batch, &mut repeat) {
        Ok(decoded) => {
            assert!(!batch.is_empty());
            Ok((decoded.shape, decoded.client_id.map(str::to_owned), rows(&batch)))
        }
        Err(error) => {
            assert!(batch.is_empty(), "a refused body leaves nothing in the batch");
            Err(error)
        }
    }
}

/// The reply to a refused body, as the server writes it from the error's own methods.
fn reply(body: impl AsRef<[u8]>) -> String {
    let error = decode(body).unwrap_err();
    let mut reply = serde_json::json!({ "error": error.error_text() });
    if let Some(detail) = error.detail() {
        reply["detail"] = detail.into();
    }
    if let Some(index) = error.index() {
        reply["index"] = index.into();
    }
    reply.to_string()
}

#[test]
fn every_form_of_a_body_becomes_its_rows() {
    use MetricKind::{Counter, Gauge, Histogram, Summary};
    let single = |labels: &str, kind, millis, value| {
        (Shape::Single, None, vec![(labels.to_owned(), kind, millis, value)])
    };
    let cpu = |value| single("cpu{}", Gauge, None, value);
    let many = |rows: &[(&str, f64)]| {
        let rows = rows.iter().map(|&(labels, value)| (labels.to_owned(), Gauge, None, value)).collect();
        (Shape::Batch, None, rows)
    };
    for (body, expected) in [
        (r#"{"name":"cpu_usage","value":85}"#, single("cpu_usage{}", Gauge, None, 85.0)),
        (r#"{"value":85,"name":"cpu"}"#, cpu(85.0)),
        (" \t\r\n{ \"name\" : \"cpu\" ,\n \"value\" : 85 } \r\n\n", cpu(85.0)),
        (r#"{"name":"cpu","value":1e3}"#, cpu(1_000.0)),
        (r#"{"name":"cpu","value":-0.5E-1}"#, cpu(-0.05)),
        (r#"{"name":"cpu","value":true}"#, cpu(1.0)),
        (r#"{"name":"cpu","value":false}"#, cpu(0.0)),
        (r#"{"name":"cpu","value":"UP"}"#, cpu(1.0)),
        (r#"{"name":"cpu","value":"DOW\u004e"}"#, cpu(0.0)),
        (r#"{"n\u0061me":"c\u0070u","value":2}"#, cpu(2.0)),
        (r#"{"name":"a\"\\\/ü\u00e9\ud83d\ude00.b","value":2}"#, single("a\"\\/üé😀.b{}", Gauge, None, 2.0)),
        // Whatever is not ours is passed, however deep.
        (r#"{"x":[{},[],{"a":[1,"\n",null,true,{"b":{}}]}],"name":"cpu","value":1,"y":1e999}"#, cpu(1.0)),
        // A repeated key: the last one counts, and only the last one is judged.
        (r#"{"name":5,"name":"cpu","value":"?","value":3,"timestamp":-1,"timestamp":null}"#, cpu(3.0)),
        (
            r#"{"name":"a","value":1,"tags":{"x":"1","y":"2"},"tags":{"z":"3"}}"#,
            single(r#"a{z="3"}"#, Gauge, None, 1.0),
        ),
        (r#"{"name":"a","value":1,"tags":{"x":1},"tags":null}"#, single("a{}", Gauge, None, 1.0)),
        (
            r#"{"name":"a","value":1,"tags":{"z":"1","a":"2","e":""},"labels":{"m":"3","z":"1"}}"#,
            single(r#"a{a="2",m="3",z="1"}"#, Gauge, None, 1.0),
        ),
        (
            r#"{"name":"a","value":1,"tags":{"\u0062":"\u00e9","c":"d\/"}}"#,
            single(r#"a{b="é",c="d/"}"#, Gauge, None, 1.0),
        ),
        (r#"{"name":"a","value":1,"type":"counter"}"#, single("a{}", Counter, None, 1.0)),
        (r#"{"name":"a","value":1,"type":"histogram"}"#, single("a{}", Histogram, None, 1.0)),
        (r#"{"name":"a","value":1,"type":"summ\u0061ry"}"#, single("a{}", Summary, None, 1.0)),
        (r#"{"name":"a","value":1,"type":null,"labels":null}"#, single("a{}", Gauge, None, 1.0)),
        (
            r#"{"name":"a","value":1,"timestamp":1696789234567}"#,
            single("a{}", Gauge, Some(1_696_789_234_567), 1.0),
        ),
        (r#"{"name":"a","value":1,"timestamp":5e3}"#, single("a{}", Gauge, Some(5_000), 1.0)),
        (r#"{"name":"a","value":1,"timestamp":5.0}"#, single("a{}", Gauge, Some(5), 1.0)),
        (
            r#"{"name":"a","value":1,"timestamp":"2025-09-17T15:45:23.123456+02:00"}"#,
            single("a{}", Gauge, Some(1_758_116_723_123), 1.0),
        ),
        (
            r#"{"metrics":[{"name":"cpu_usage","value":85},{"name":"memory_usage","value":75}]}"#,
            many(&[("cpu_usage{}", 85.0), ("memory_usage{}", 75.0)]),
        ),
        (r#"{"name":5,"metrics":[{"name":"a","value":1}],"value":{}}"#, many(&[("a{}", 1.0)])),
        (r#"{"metrics":5,"metrics":[{}],"metrics":[{"name":"a","value":1}]}"#, many(&[("a{}", 1.0)])),
        (r#"[{"name":"a","value":1}, {"name":"b","value":2}]"#, many(&[("a{}", 1.0), ("b{}", 2.0)])),
        ("{\"name\":\"a\",\"value\":1}\n{\"name\":\"b\",\"value\":2}\n", many(&[("a{}", 1.0), ("b{}", 2.0)])),
        (
            "{\"name\":\"a\",\"value\":1}\r\n\r\n{\"name\":\"b\",\"value\":2}",
            many(&[("a{}", 1.0), ("b{}", 2.0)]),
        ),
    ] {
        assert_eq!(decode(body).as_ref(), Ok(&expected), "{body}");
    }
}

#[test]
fn a_refused_body_says_what_is_wrong_and_where() {
    let syntax = |what: &str| format!(r#"{{"detail":"expected {what}","error":"invalid JSON format"}}"#);
    let invalid = |what: &str| format!(r#"{{"error":"invalid metric: {what}"}}"#);
    let value = |detail: &str| {
        format!(r#"{{"detail":"{detail}","error":"invalid metric: value must be a finite number"}}"#)
    };
    let unknown_text = value(r#"text may only be \"UP\" or \"DOWN\""#);
    let not_a_number = value(r#"a number, true, false, \"UP\" or \"DOWN\" is a value"#);
    let metric = |rest: &str| format!(r#"{{"name":"a","value":1,{rest}}}"#);
    for (body, expected) in [
        ("", syntax("a metric object or an array of metrics at offset 0")),
        ("  \n", syntax("a metric object or an array of metrics at offset 3")),
        ("5", syntax("a metric object or an array of metrics at offset 0")),
        (" \"{}\"", syntax("a metric object or an array of metrics at offset 1")),
        ("name=cpu&value=5", syntax("a metric object or an array of metrics at offset 0")),
        ("\u{feff}{}", syntax("JSON without a byte order mark at offset 0")),
        (r#"{"name":"cpu","va"#, syntax(r#"'\"' at offset 17"#)),
        (r#"{"name":"cpu" "value":1}"#, syntax("',' or '}' at offset 14")),
        (r#"{"name":"a","value":1"#, syntax("',' or '}' at offset 21")),
        (r#"{"name":"a","value":}"#, syntax("a value at offset 20")),
        (r#"{"name":"a","value"}"#, syntax("':' at offset 19")),
        (r#"{"name":"a","value":1,}"#, syntax("a key in double quotes at offset 22")),
        (r#"{name:"a"}"#, syntax("a key or '}' at offset 1")),
        (r#"{'name':"a"}"#, syntax("a key or '}' at offset 1")),
        (r#"{"name":'a'}"#, syntax("a value (strings stand in double quotes) at offset 8")),
        (r#"{"name":"a","value":1}}"#, syntax("another metric object or the end of the body at offset 22")),
        (r#"{"metrics":[]}{"#, syntax("the end of the body at offset 14")),
        (r#"[{"name":"a","value":1}] x"#, syntax("the end of the body at offset 25")),
        (r#"[{"name":"a","value":1} {"#, syntax("',' or ']' at offset 24")),
        (r#"[{"name":"a","value":1},]"#, syntax("a value at offset 24")),
        (r#"{"name":"a","value":NaN}"#, syntax("a finite number (JSON has no NaN and no infinities) at offset 20")),
        (r#"{"name":"a","value":nan}"#, syntax("a finite number (JSON has no NaN and no infinities) at offset 20")),
        (r#"{"name":"a","value":Infinity}"#, syntax("a finite number (JSON has no NaN and no infinities) at offset 20")),
        (r#"{"name":"a","value":-inf}"#, syntax("a finite number (JSON has no NaN and no infinities) at offset 20")),
        (r#"{"name":"a","value":+1}"#, syntax("a number without '+' at offset 20")),
        (r#"{"name":"a","value":.5}"#, syntax("a digit before '.' at offset 20")),
        (r#"{"name":"a","value":01}"#, syntax("a number without leading zeros at offset 20")),
        (r#"{"name":"a","value":0x10}"#, syntax("',' or '}' at offset 21")),
        (r#"{"name":"a","value":tru}"#, syntax("true at offset 20")),
        ("{\"name\":\"a\nb\",\"value\":1}", syntax("an escape for the control character at offset 10")),
        (r#"{"name":"a\x","value":1}"#, syntax(r#"one of \"\\/bfnrtu after a backslash at offset 11"#)),
        (r#"{"name":"\u12g4","value":1}"#, syntax("four hexadecimal digits at offset 13")),
        (r#"{"name":"\ud800","value":1}"#, syntax("the second half of a surrogate pair at offset 15")),
        (r#"{"name":"\ud800\u0041","value":1}"#, syntax("the second half of a surrogate pair at offset 17")),
        (
            r#"{"name":"\ud800\ue000","value":1}"#,
            syntax("the second half of a surrogate pair at offset 17"),
        ),
        (r#"{"name":"\udc00","value":1}"#, syntax("the first half of a surrogate pair at offset 11")),
        // No JSON anywhere goes before a metric that is wrong.
        (r#"[{"name":"","value":1},{"name":"a","value":1]"#, syntax("',' or '}' at offset 44")),
        (r#"{"x":[1,{"y":tru}],"name":"a"}"#, syntax("true at offset 13")),
        // JSON of another shape.
        (r#"{"metrics":{}}"#, syntax("an array of metrics at offset 11")),
        (r#"{"metrics": null}"#, syntax("an array of metrics at offset 12")),
        (r#"{"name":"a"}"#, r#"{"detail":"value is missing","error":"invalid JSON format"}"#.into()),
        (r#"{"value":1}"#, r#"{"detail":"name is missing","error":"invalid JSON format"}"#.into()),
        ("{}", r#"{"detail":"name is missing","error":"invalid JSON format"}"#.into()),
        (r#"{"metrics":[]}"#, r#"{"error":"Batch cannot be empty"}"#.into()),
        ("[]", r#"{"error":"Batch cannot be empty"}"#.into()),
        // One wrong metric.
        (r#"{"name":5,"value":1}"#, invalid("name must be text")),
        (r#"{"name":null,"value":1}"#, invalid("name must be text")),
        (r#"{"name":"","value":1}"#, r#"{"error":"Metric name cannot be empty"}"#.into()),
        (r#"{"name":"a\u0000","value":1}"#, r#"{"error":"Metric name contains a control character"}"#.into()),
        (r#"{"name":"a","value":"high"}"#, unknown_text.clone()),
        (r#"{"name":"a","value":"85"}"#, unknown_text.clone()),
        (r#"{"name":"a","value":"up"}"#, unknown_text),
        (r#"{"name":"a","value":null}"#, not_a_number.clone()),
        (r#"{"name":"a","value":{}}"#, not_a_number.clone()),
        (r#"{"name":"a","value":[1]}"#, not_a_number),
        (r#"{"name":"a","value":1e999}"#, value("the number is beyond the largest double")),
        (&metric(r#""timestamp":1.5"#), invalid("timestamp must be whole milliseconds")),
        (&metric(r#""timestamp":-1"#), invalid("timestamp must not be before 1970")),
        (&metric(r#""timestamp":-1e99"#), invalid("timestamp must not be before 1970")),
        (&metric(r#""timestamp":"1969-12-31T23:59:59Z""#), invalid("timestamp must not be before 1970")),
        (&metric(r#""timestamp":"9999-01-01T00:00:00Z""#), invalid("timestamp must not be beyond the year 2248")),
        (&metric(r#""timestamp":1e99"#), invalid("timestamp must not be beyond the year 2248")),
        (&metric(r#""timestamp":1696789234567890"#), invalid("timestamp looks like microseconds, milliseconds are expected")),
        (&metric(r#""timestamp":1696789234567890123"#), invalid("timestamp looks like nanoseconds, milliseconds are expected")),
        (&metric(r#""timestamp":"yesterday""#), invalid("timestamp text must be RFC 3339, as in 2025-09-17T13:45:23.123Z")),
        (&metric(r#""timestamp":{}"#), invalid("timestamp must be whole milliseconds since 1970 or RFC 3339 text")),
        (&metric(r#""type":"Gauge""#), invalid("type must be gauge, counter, histogram or summary")),
        (&metric(r#""type":7"#), invalid("type must be gauge, counter, histogram or summary")),
        (&metric(r#""tags":[]"#), invalid("tags must be an object of text to text")),
        (&metric(r#""labels":"x""#), invalid("labels must be an object of text to text")),
        (&metric(r#""tags":{"code":200,"x":5}"#), r#"{"error":"invalid metric: value of label \"code\" must be text"}"#.into()),
        (&metric(r#""tags":{"a":"1","a":"1"}"#), r#"{"error":"Label \"a\" is given twice"}"#.into()),
        (&metric(r#""tags":{"a":"1"},"labels":{"\u0061":"2"}"#), r#"{"error":"Label \"a\" is given twice"}"#.into()),
        (&metric(r#""tags":{"":"1"}"#), r#"{"error":"Label name cannot be empty"}"#.into()),
        (&metric(r#""tags":{"a\n":"1"}"#), r#"{"error":"Label name contains a control character"}"#.into()),
        (&metric(r#""tags":{"a":"\u0007"}"#), r#"{"error":"Value of label \"a\" contains a control character"}"#.into()),
        (&metric(r#""client_id":7"#), r#"{"detail":"client_id must be text","error":"invalid JSON format"}"#.into()),
        // The first wrong one of a batch, with its place; a name's sentence stands by itself there too.
        (
            r#"{"metrics":[{"name":"a","value":1},{"name":"b","value":2},{"name":"c","value":1e400},{"name":"","value":4}]}"#,
            r#"{"detail":"the number is beyond the largest double","error":"invalid metric: value must be a finite number","index":2}"#.into(),
        ),
        (r#"[{"name":"","value":4}]"#, r#"{"error":"Metric name cannot be empty","index":0}"#.into()),
        (r#"[{"name":"a","value":4},{"name":"a"}]"#, r#"{"error":"invalid metric: value is missing","index":1}"#.into()),
        (r#"[{"name":"a","value":4},[]]"#, r#"{"error":"invalid metric: a metric must be an object","index":1}"#.into()),
        ("{\"value\":4}\n{\"name\":\"a\",\"value\":4}", r#"{"error":"invalid metric: name is missing","index":0}"#.into()),
        ("{\"name\":\"a\",\"value\":4}\n{\"metrics\":[]}", r#"{"error":"invalid metric: name is missing","index":1}"#.into()),
        ("{\"name\":\"a\",\"value\":4}\n5", syntax("another metric object or the end of the body at offset 23")),
    ] {
        assert_eq!(reply(body), expected, "{body}");
    }
}

#[test]
fn bytes_that_are_no_utf_8_are_named() {
    let error = decode(b"{\"name\":\"a\xff\",\"value\":1}").unwrap_err();
    assert_eq!(error, MetricsError::Syntax { offset: 10, expected: "UTF-8" });
    assert_eq!((error.offset(), error.index()), (Some(10), None));
    assert_eq!(error.to_string(), "invalid JSON format: expected UTF-8 at offset 10");
}

/// Method: the first bytes of both codings, alone, in one go and in steps; and the same bytes behind others.
#[test]
fn a_compressed_body_that_nothing_announces_is_recognised() {
    for (body, coding) in [(&b"\x1f\x8b\x08\0"[..], "gzip"), (b"\x28\xb5\x2f\xfd\x04", "zstd")] {
        let error = decode(body).unwrap_err();
        assert_eq!(error, MetricsError::Compressed { coding });
        assert_eq!(take_text(body, &mut String::new()), Err(error.clone()));
        let expected = format!(
            "invalid JSON format: the body looks like {coding}: send it with Content-Encoding: {coding}"
        );
        assert_eq!((error.to_string(), error.offset()), (expected, None));
        let behind = [b" ", body].concat();
        assert!(matches!(decode(behind), Err(MetricsError::Syntax { expected: "UTF-8", .. })));
    }
}

#[test]
fn bounds_on_names_and_labels_hold_at_their_last_byte_plain_and_escaped() {
    for escape in ["", "\\u0061"] {
        let of = |len: usize| format!("{escape}{}", "a".repeat(len - usize::from(!escape.is_empty())));
        let name = |len| format!(r#"{{"name":"{}","value":1}}"#, of(len));
        let tag =
            |name, value| format!(r#"{{"name":"n","value":1,"tags":{{"{}":"{}"}}}}"#, of(name), of(value));
        let client = |len| format!(r#"{{"name":"n","value":1,"client_id":"{}"}}"#, of(len));
        assert!(decode(name(255)).is_ok() && decode(tag(255, 4_096)).is_ok() && decode(client(255)).is_ok());
        assert_eq!(reply(name(256)), r#"{"error":"Metric name too long (max 255 characters)"}"#);
        assert_eq!(reply(name(1_000_000)), r#"{"error":"Metric name too long (max 255 characters)"}"#);
        assert_eq!(reply(tag(256, 1)), r#"{"error":"Label name too long (max 255 characters)"}"#);
        assert_eq!(
            decode(tag(1, 4_097)),
            Err(MetricsError::Metric {
                index: None,
                error: MetricError::Label(LabelError::LabelValueTooLong("a".into()))
            })
        );
        assert_eq!(
            reply(client(256)),
            r#"{"detail":"client_id too long (max 255 bytes)","error":"invalid JSON format"}"#
        );
    }
}

#[test]
fn sixty_four_labels_are_taken_and_one_more_is_not() {
    let tags = |count: usize| {
        let tags: Vec<_> = (0..count).map(|i| format!(r#""l{i}":"v""#)).collect();
        tags.join(",")
    };
    let body = |tags: &str, labels: &str| {
        format!(r#"{{"name":"n","value":1,"tags":{{{tags}}},"labels":{{{labels}}}}}"#)
    };
    assert!(decode(body(&tags(64), r#""l0":"v""#)).is_ok());
    let many = r#"{"error":"Too many labels (max 64)"}"#;
    assert_eq!(reply(body(&tags(65), "")), many);
    assert_eq!(reply(body(&tags(64), r#""more":"v""#)), many);
    assert_eq!(reply(body("", &tags(100_000))), many);
}

#[test]
fn ignored_values_nest_to_the_bound_and_no_deeper() {
    let body = |depth: usize| {
        let (open, close) = (r#"[{"a":"#.repeat(depth / 2), "}]".repeat(depth / 2));
        format!(r#"{{"name":"n","x":{open}0{close},"value":1}}"#)
    };
    let bound = NESTING_MAX as usize;
    assert!(decode(body(bound)).is_ok());
    assert_eq!(
        decode(body(bound + 2)),
        Err(MetricsError::Syntax {
            offset: 16 + bound / 2 * 6,
            expected: "no more than 64 levels of nesting"
        })
    );
    assert!(decode("[".repeat(1_000_000)).is_err(), "no recursion, no stack to run out of");
}

#[test]
fn the_client_id_is_that_of_the_outermost_object() {
    for (body, expected) in [
        (r#"{"name":"a","value":1,"client_id":"c"}"#, Some("c")),
        (r#"{"client_id":"\u0063☃","name":"\u0061","value":1}"#, Some("c☃")),
        (r#"{"client_id":"x","client_id":"c","name":"a","value":1}"#, Some("c")),
        (r#"{"client_id":7,"client_id":null,"name":"a","value":1}"#, None),
        (r#"{"client_id":"","name":"a","value":1}"#, None),
        (r#"{"client_id":"\u0063","metrics":[{"name":"\u0061","value":1,"client_id":"d"}]}"#, Some("c")),
        (r#"{"metrics":[{"name":"a","value":1,"client_id":"d"}]}"#, None),
        (r#"{"metrics":[{"name":"a","value":1,"client_id":7}],"client_id":"c"}"#, Some("c")),
        (r#"[{"name":"a","value":1,"client_id":"c"},{"name":"a","value":1,"client_id":"d"}]"#, Some("c")),
        (r#"[{"name":"a","value":1},{"name":"a","value":1,"client_id":"d"}]"#, None),
        (
            "{\"name\":\"a\",\"value\":1,\"client_id\":\"c\"}\n{\"name\":\"a\",\"value\":1,\"client_id\":\"d\"}",
            Some("c"),
        ),
    ] {
        assert_eq!(decode(body).unwrap().1.as_deref(), expected, "{body}");
    }
}

/// A metric as a client means it, and the bytes from which its writer takes its whims.
#[derive(Clone, Debug)]
struct Meant {
    name: String,
    value: f64,
    timestamp: Option<i64>,
    kind: Option<MetricKind>,
    labels: std::collections::BTreeMap<String, String>,
}

fn meant() -> impl Strategy<Value = Meant> {
    let value = any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite());
    let kinds = [MetricKind::Gauge, MetricKind::Counter, MetricKind::Histogram, MetricKind::Summary];
    let text = "[a-z\"\\\\/ é☃😀]{1,12}";
    (
        text,
        prop_oneof![value, (-1_000_000i64..1_000_000).prop_map(|n| n as f64 / 100.0)],
        proptest::option::of(0..=MILLIS_MAX),
        proptest::option::of(proptest::sample::select(kinds.to_vec())),
        proptest::collection::btree_map(text, text, 0..5),
    )
        .prop_map(|(name, value, timestamp, kind, labels)| Meant {
            name,
            value,
            timestamp,
            kind,
            labels,
        })
}

/// A member of an object: its key, and what writes its value.
type Keyed<'m, 'w> = (&'m str, Box<dyn Fn(&mut Writer<'w>) + 'm>);

/// Writes JSON in every way the grammar leaves open, as the whims say.
struct Writer<'w> {
    out: String,
    whims: std::iter::Cycle<std::slice::Iter<'w, u8>>,
}

impl<'w> Writer<'w> {
    fn whim(&mut self, choices: u8) -> u8 {
        self.whims.next().map_or(0, |whim| whim % choices)
    }

    fn space(&mut self) {
        let space = ["", "", "", " ", "\t", "\r\n", " \n  "][usize::from(self.whim(7))];
        self.out.push_str(space);
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            let must = matches!(character, '"' | '\\');
            match self.whim(6) {
                0 => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                1 if character == '/' => self.out.push_str("\\/"),
                _ if must => self.out.extend(['\\', character]),
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
    }

    fn object(&mut self, mut members: Vec<Keyed<'_, 'w>>) {
        let turn = usize::from(self.whim(7)) % members.len().max(1);
        members.rotate_left(turn);
        self.out.push('{');
        self.space();
        for (i, (key, write)) in members.into_iter().enumerate() {
            if i > 0 {
                self.out.push(',');
                self.space();
            }
            self.text(key);
            self.space();
            self.out.push(':');
            self.space();
            write(self);
            self.space();
        }
        self.out.push('}');
    }

    fn metric(&mut self, metric: &Meant) {
        let mut members: Vec<Keyed<'_, 'w>> = vec![
            ("name", Box::new(|w| w.text(&metric.name))),
            (
                "value",
                Box::new(|w| {
                    let value = metric.value;
                    let text = if w.whim(2) == 0 { format!("{value}") } else { format!("{value:E}") };
                    w.out.push_str(&text);
                }),
            ),
            ("host ignored", Box::new(|w| w.out.push_str(r#"[null,{"value":[]},"\u00e9"]"#))),
        ];
        if let Some(millis) = metric.timestamp {
            members.push((
                "timestamp",
                Box::new(move |w| match w.whim(3) {
                    0 => w.out.push_str(&format!("{millis}.0")),
                    1 => {
                        let moment = jiff::Timestamp::from_millisecond(millis).unwrap();
                        w.text(&moment.to_string());
                    }
                    _ => w.out.push_str(&millis.to_string()),
                }),
            ));
        }
        if let Some(kind) = metric.kind {
            let name = format!("{kind:?}").to_lowercase();
            members.push(("type", Box::new(move |w| w.text(&name))));
        }
        if !metric.labels.is_empty() {
            let key = if self.whim(2) == 0 { "tags" } else { "labels" };
            members.push((
                key,
                Box::new(|w| {
                    let labels = metric.labels.iter();
                    w.object(
                        labels
                            .map(|(n, v)| (n.as_str(), Box::new(|w: &mut Self| w.text(v)) as Box<_>))
                            .collect(),
                    );
                }),
            ));
        }
        self.object(members);
    }

    /// One of the three forms of a batch.
    fn batch(&mut self, metrics: &[Meant]) {
        self.space();
        let form = self.whim(3);
        self.out.push_str(["{\"metrics\":[", "[", ""][usize::from(form)]);
        for (i, metric) in metrics.iter().enumerate() {
            if i > 0 {
                self.out.push(if form == 2 { '\n' } else { ',' });
            }
            self.space();
            self.metric(metric);
        }
        self.space();
        self.out.push_str(["]}", "]", "\n"][usize::from(form)]);
        self.space();
    }
}

fn written(metrics: &[Meant], whims: &[u8]) -> String {
    let mut writer = Writer { out: String::new(), whims: whims.iter().cycle() };
    match metrics {
        [metric] => writer.metric(metric),
        _ => writer.batch(metrics),
    }
    writer.out
}

fn rows_meant(metrics: &[Meant]) -> Vec<Row> {
    let row = |metric: &Meant| {
        let labels: Vec<_> = metric.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let set = LabelSet::new(&metric.name, &labels).unwrap();
        (format!("{set:?}"), metric.kind.unwrap_or_default(), metric.timestamp, metric.value)
    };
    metrics.iter().map(row).collect()
}

/// Whether serde_json reads the body as one value, or as several objects; `None` where the two must differ:
/// it counts numbers beyond the doubles as no JSON and bounds the nesting elsewhere.
fn is_json(body: &[u8]) -> Option<bool> {
    let mut values = 0;
    let mut all_objects = true;
    let mut is_wrapper = false;
    for value in serde_json::Deserializer::from_slice(body).into_iter::<serde_json::Value>() {
        match value {
            Ok(value) => {
                values += 1;
                all_objects &= value.is_object();
                is_wrapper |= values == 1 && value.get("metrics").is_some();
            }
            Err(error) if error.to_string().contains("number out of range") => return None,
            Err(_) => return Some(false),
        }
    }
    Some(values == 1 || values > 1 && all_objects && !is_wrapper)
}

/// Decoded so many metrics at a step, from a text that was taken in steps, a body comes to the same.
fn agrees_in_steps(body: &[u8], metrics_per_step: usize) -> Result<(), TestCaseError> {
    let (mut decoder, mut batch, mut taken) = (MetricsDecoder::new(0), Batch::default(), String::new());
    let mut in_steps = || {
        while take_text(body, &mut taken)? {}
        let mut decoding = decoder.begin(&taken, &mut batch);
        while decoding.step(metrics_per_step) {}
        let decoded = decoding.finish()?;
        let (shape, client_id) = (decoded.shape, decoded.client_id.map(str::to_owned));
        Ok((shape, client_id, rows(&batch)))
    };
    prop_assert_eq!(in_steps(), decode(body), "{:?}", String::from_utf8_lossy(body));
    Ok(())
}

fn agrees_on_json(body: &[u8]) -> Result<(), TestCaseError> {
    agrees_in_steps(body, 1 + body.len() % 3)?;
    let ours = decode(body);
    let is_syntax = matches!(ours, Err(MetricsError::Syntax { .. } | MetricsError::Compressed { .. }));
    if let Some(is_json) = is_json(body) {
        prop_assert_eq!(!is_syntax, is_json, "{:?} gave {:?}", String::from_utf8_lossy(body), ours);
    }
    if let Err(MetricsError::Syntax { offset, .. }) = ours {
        prop_assert!(offset <= body.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_a_client_means_arrives_however_it_is_written(
        metrics in proptest::collection::vec(meant(), 1..6),
        whims in proptest::collection::vec(any::<u8>(), 1..64),
    ) {
        let body = written(&metrics, &whims);
        let (shape, _, rows) = decode(&body).map_err(|error| TestCaseError::fail(format!("{error} in {body}")))?;
        prop_assert_eq!(shape == Shape::Single, metrics.len() == 1);
        prop_assert_eq!(rows, rows_meant(&metrics), "{}", body);
        agrees_in_steps(body.as_bytes(), 1)?;
    }

    /// Bytes changed, doubled and cut in a good body: JSON or not, serde_json says the same.
    #[test]
    fn a_damaged_body_is_json_where_another_reader_says_so(
        metrics in proptest::collection::vec(meant(), 1..4),
        whims in proptest::collection::vec(any::<u8>(), 1..64),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4, prop_oneof![
            proptest::sample::select(b"{}[]:,\"\\0159.eE+-utnfd \n".to_vec()), any::<u8>(),
        ]), 1..4),
    ) {
        let mut body = written(&metrics, &whims).into_bytes();
        for (at, act, byte) in damage {
            let at = at.index(body.len() + 1);
            match act {
                0 if at < body.len() => body[at] = byte,
                1 if at < body.len() => drop(body.remove(at)),
                2 => body.truncate(at),
                _ => body.insert(at, byte),
            }
        }
        agrees_on_json(&body)?;
    }

    #[test]
    fn any_bytes_are_json_where_another_reader_says_so(
        body in proptest::collection::vec(any::<u8>(), 0..32),
        tokens in proptest::collection::vec(proptest::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "\"", "\"name\"", "\"value\"", "\"tags\"", "\"metrics\"", "\"timestamp\"",
            "1", "-0", "0.5e3", "01", "1e", "true", "null", "\"UP\"", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", " ", "\n",
            "{\"name\":\"a\",\"value\":1}", "{\"name\":\"a\"", "☃",
        ]), 0..12),
    ) {
        agrees_on_json(&body)?;
        agrees_on_json(tokens.concat().as_bytes())?;
    }
}

/// A step ends by bytes, too. Method: metrics with all the labels that may be, each of 4 KiB.
#[test]
fn metrics_of_many_bytes_take_a_step_each() {
    let labels: Vec<String> = (0..LABELS_MAX).map(|n| format!(r#""l{n}":"{}""#, "v".repeat(4_000))).collect();
    let metric = format!(r#"{{"name":"a","labels":{{{}}},"value":1}}"#, labels.join(","));
    for body in [format!("[{}]", [metric.as_str(); 8].join(",")), [metric.as_str(); 8].join("\n")] {
        let (mut decoder, mut batch, mut steps) = (MetricsDecoder::new(0), Batch::default(), 1);
        let mut decoding = decoder.begin(&body, &mut batch);
        while decoding.step(256) {
            steps += 1;
        }
        assert!(steps >= 8, "{steps}");
        assert_eq!(decoding.finish().map(|decoded| decoded.shape), Ok(Shape::Batch));
        assert_eq!(batch.len(), 8);
    }
}

/// A character that lies across two steps is one character, and the first byte that is none is told.
#[test]
fn a_text_is_taken_in_steps() {
    let text = "aé☃𝄞".repeat(60_000);
    for shift in 0..4 {
        let body = [&b"abc"[..shift], text.as_bytes()].concat();
        let (mut taken, mut steps) = (String::new(), 1);
        while take_text(&body, &mut taken).unwrap() {
            steps += 1;
        }
        assert_eq!(taken.as_bytes(), body);
        assert!(steps >= 5);
    }
    for (tail, at) in [(&b"\xff"[..], 0), (b"\xe2\x98", 0), (b"ab\xc0\x80", 2)] {
        let body = [text.as_bytes(), tail].concat();
        let mut taken = String::new();
        let refused = loop {
            match take_text(&body, &mut taken) {
                Ok(more) => assert!(more, "{tail:?} is no UTF-8"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, MetricsError::Syntax { offset: text.len() + at, expected: "UTF-8" });
    }
    assert_eq!(take_text(b"", &mut String::new()), Ok(false));
}
