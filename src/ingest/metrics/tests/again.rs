//! Senders who repeat themselves: what a decoder remembers changes nothing of what a body is.
//!
//! The naive twin is a decoder that never saw a body before.

use super::*;

/// Rows as senders write them, with holes: good ones, strange ones, and some that are refused.
const ROWS: &[&str] = &[
    r#"{"name":"a","value":VALUE,"labels":{"h":"1"}}"#,
    r#"{"name":"a","value":VALUE,"labels":{"h":"2"}}"#,
    r#"{"name":"a","value":VALUE,"labels":{"h":"1"},"type":"counter"}"#,
    r#"{"name":"b","value":VALUE,"labels":{"h":"1"}}"#,
    r#"{"tags":{"h":"1"},"name":"a","timestamp":TIME,"value":VALUE}"#,
    r#"{"name":"a","value":VALUE,"timestamp":TIME,"tags":{"h":"1"}}"#,
    r#"{ "value" : VALUE , "timestamp" : TIME , "name" : "a" , "tags" : {"h":"1"} }"#,
    r#"{"name":"a","value":VALUE,"value":VALUE,"tags":{"h":"1","g":"2"}}"#,
    r#"{"name":"a","value":5,"timestamp":TIME,"timestamp":null,"tags":{"h":"1"}}"#,
    r#"{"n\u0061me":"\u0061","value":VALUE,"tags":{"\u0068":"1"}}"#,
    r#"{"name":"a","x":{"value":VALUE},"value":VALUE,"tags":{"h":"1"}}"#,
    r#"{"name":"a","value":VALUE,"tags":{"h":"1"},"tags":{"h":"2"}}"#,
    r#"{"name":"a","value":VALUE,"tags":{"h":"1"},"labels":{"g":"2"}}"#,
    r#"{"client_id":"c","name":"a","value":VALUE,"tags":{"h":"1"}}"#,
    r#"{"metrics":[{"name":"m","value":VALUE}],"name":"a","value":VALUE,"tags":{"h":"1"}}"#,
    r#"{"name":"a","value":VALUE}"#,
    r#"{"name":"b","value":VALUE}"#,
    r#"{"name":"a","value":VALUE,"tags":{}}"#,
    r#"{"name":"a","timestamp":TIME,"tags":{"h":"1"}}"#,
    r#"{"name":"a\u0000","value":VALUE,"tags":{"h":"1"}}"#,
];

/// A value as text: mostly one that any row may have.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9])?",
        1 => "-?[1-9][0-9]{15,21}(\\.[0-9]{1,9})?",
        1 => proptest::sample::select(vec![
            "-0", "1e999", "-1e999", "01", "1.", ".5", "1e", "+1", "-", "1 ", "true", "null", "\"UP\"", "{}", "", "NaN",
        ]).prop_map(str::to_owned),
    ]
}

/// A time as text.
fn time() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..=MILLIS_MAX).prop_map(|millis| millis.to_string()),
        1 => proptest::sample::select(vec![
            "-1", "1.5", "5e3", "1e99", "8796093022206", "8796093022207", "8796093022208", "null", "\"1970-01-01T00:00:01Z\"",
            "9223372036854775808", "0", "-0", "00", "true",
        ]).prop_map(str::to_owned),
    ]
}

/// What came twice is read by its template the third time, whoever sends it.
#[test]
fn a_body_that_comes_the_third_time_is_read_by_templates() {
    let row = |host: u32, value: u32| {
        format!(r#"{{"name":"a","value":{value},"timestamp":{value},"tags":{{"h":"{host}"}}}}"#)
    };
    let body =
        |sender: u32, value: u32| format!("[{},{}]", row(2 * sender, value), row(2 * sender + 1, value));
    let (mut decoder, mut batch, mut repeats) = (MetricsDecoder::new(0), Batch::default(), [Repeat::NONE; 2]);
    for round in 0..5 {
        for (sender, repeat) in repeats.iter_mut().enumerate() {
            decoder.repeats.begin(*repeat);
            let first = row(2 * sender as u32, 7);
            let is_read = decoder.repeats.read(&mut Reader::new(&first)).is_some();
            assert_eq!(is_read, round >= 2, "round {round}");
            let mut again = *repeat;
            decoder.decode(body(sender as u32, round).as_bytes(), &mut batch, &mut again).unwrap();
            *repeat = again;
            assert_eq!(batch.len(), 2);
        }
    }
}

/// Rows without labels are known by their names, alone and among others.
#[test]
fn a_name_without_labels_that_comes_again_is_read_by_its_template() {
    for before in ["", r#"{"name":"b","value":2,"tags":{"h":"1"}},"#] {
        let (mut decoder, mut batch, mut repeat) = (MetricsDecoder::new(0), Batch::default(), Repeat::NONE);
        let body = |value: u32| format!(r#"[{before}{{"name":"a","value":{value}}}]"#);
        for round in 0..4 {
            decoder.decode(body(round).as_bytes(), &mut batch, &mut repeat).unwrap();
            assert_eq!(batch.rows().last().map(|row| row.value), Some(f64::from(round)));
        }
        decoder.repeats.begin(repeat);
        let text = body(7);
        let mut reader = Reader::new(&text);
        reader.enter();
        if !before.is_empty() {
            assert!(decoder.repeats.read(&mut reader).is_some());
            reader.enter();
        }
        let (reading, known) = decoder.repeats.read(&mut reader).expect("it came more than twice");
        assert_eq!((reading.value, known.labels.name(), known.labels.labels().count()), (7.0, "a", 0));
        assert_eq!(reader.rest(), b"]");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// One decoder over the bodies of two senders, who repeat themselves more or less, against a new decoder for
    /// each body: nothing that was seen before changes what a body is.
    #[test]
    fn what_came_before_changes_nothing(bodies in proptest::collection::vec(
        (0usize..2, proptest::collection::vec((
            proptest::sample::select(vec!["", r#""tags":"#, r#""labels":"#, r#""tags":{"h":"3"},"labels":"#, r#""tags":null,"labels":"#]),
            proptest::sample::select(vec![
                r#"{"h":"1"}"#, r#"{"h":"1","g":"x"}"#, r#"{"h": "1"}"#, r#"{"\u0068":"2"}"#, "{}", r#"{"h":""}"#,
                r#"{"h":"3"}"#, r#"{"h":"3","h":"4"}"#, r#"{"h":1}"#, r#"{"h":"1""#, "7", "null",
            ]),
            proptest::sample::select(vec![r#""a""#, r#""b""#, r#""\u0061""#, r#""""#, "1"]),
            any::<bool>(),
        ), 1..5), any::<bool>()), 1..12,
    )) {
        let (mut decoder, mut batch) = (MetricsDecoder::new(0), Batch::default());
        let mut repeats = [Repeat::NONE; 2];
        for (sender, metrics, is_lines) in bodies {
            let metrics = metrics.iter().map(|(key, labels, name, is_first)| {
                let labels = if key.is_empty() { String::new() } else { format!("{key}{labels},") };
                match is_first {
                    true => format!(r#"{{{labels}"name":{name},"value":1}}"#),
                    false => format!(r#"{{"name":{name},{labels}"value":2}}"#),
                }
            });
            let body = match is_lines {
                true => metrics.collect::<Vec<_>>().join("\n"),
                false => format!("[{}]", metrics.collect::<Vec<_>>().join(",")),
            };
            let decoded = decoder
                .decode(body.as_bytes(), &mut batch, &mut repeats[sender])
                .map(|decoded| (decoded.shape, decoded.client_id.map(str::to_owned)))
                .map(|(shape, client_id)| (shape, client_id, rows(&batch)));
            prop_assert_eq!(decoded, decode(&body), "{}", body);
        }
    }

    /// The same against senders who repeat whole bodies but for the numbers, written in any way and at times damaged:
    /// what a template reads is what a decoder reads that never saw one.
    ///
    /// Method: each sender has its rows, which come in the same order with other numbers, round for round; in some
    /// rounds one row is another, or a byte of the body is changed, or it is decoded in steps.
    #[test]
    fn rows_that_come_again_with_other_numbers_say_what_they_say(
        senders in proptest::collection::vec(proptest::collection::vec(0usize..ROWS.len(), 1..5), 1..3),
        rounds in proptest::collection::vec((
            any::<prop::sample::Index>(),
            proptest::collection::vec((number(), time()), 4),
            proptest::option::weighted(0.2, (any::<prop::sample::Index>(), 0usize..ROWS.len())),
            proptest::option::weighted(0.2, (any::<prop::sample::Index>(), proptest::sample::select(
                b"{}[]:,\"\\019.eE+-tn \n\xff".to_vec(),
            ))),
            0u8..4,
        ), 8..24),
    ) {
        let (mut decoder, mut batch) = (MetricsDecoder::new(0), Batch::default());
        let mut repeats = vec![Repeat::NONE; senders.len()];
        for (sender, numbers, other, damage, form) in rounds {
            let sender = sender.index(senders.len());
            let mut rows_sent = senders[sender].clone();
            if let Some((at, row)) = other {
                let at = at.index(rows_sent.len());
                rows_sent[at] = row;
            }
            let metrics: Vec<String> = rows_sent
                .iter()
                .zip(&numbers)
                .map(|(&row, (value, time))| ROWS[row].replace("VALUE", value).replace("TIME", time))
                .collect();
            let mut body = match form {
                0 => metrics.join("\n"),
                1 => format!("[{}]", metrics.join(", ")),
                _ => format!("{{\"metrics\":[{}]}}", metrics.join(",")),
            }
            .into_bytes();
            if let Some((at, byte)) = damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let expected = decode(&body);
            let text = str::from_utf8(&body).ok().filter(|_| form == 3);
            let told = |decoded: Decoded<'_>| (decoded.shape, decoded.client_id.map(str::to_owned));
            let decoded = if let Some(text) = text {
                let mut decoding = decoder.begin(text, &mut batch);
                while decoding.step(2) {}
                decoding.finish().map(told)
            } else {
                decoder.decode(&body, &mut batch, &mut repeats[sender]).map(told)
            };
            let decoded = decoded.map(|(shape, client_id)| (shape, client_id, rows(&batch)));
            prop_assert_eq!(decoded, expected, "{:?}", String::from_utf8_lossy(&body));
        }
    }
}
