//! Goal: what a request says comes into the batch, and nothing else; bytes of any kind are told apart without harm.
//! Method: prost reads the same bytes into structs, and a plain reading of these is the twin.

use super::*;
use model::{LABEL_VALUE_BYTES_MAX, LabelSet};
use proptest::prelude::*;
use prost::Message;
use std::cell::RefCell;
use std::collections::HashSet;

/// The messages as prost reads them; text as bytes, for what is no text leaves a series out, not the request.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(bytes, repeated, tag = "3")]
    metadata: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(bytes, repeated, tag = "3")]
    exemplars: Vec<Vec<u8>>,
    #[prost(bytes, repeated, tag = "4")]
    histograms: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(bytes, tag = "1")]
    name: Vec<u8>,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

const NOW: i64 = 1_696_789_234_567;
const BOUNDS: TimeBounds = TimeBounds { oldest: Some(NOW - 1_000_000), newest: NOW + 1_000 };
/// What marks a series stale in Prometheus.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Labels, milliseconds, bits of the value.
type Row = (LabelSet, i64, u64);

fn rows(batch: &Batch) -> Vec<Row> {
    let row = |row: model::BatchRow<'_>| {
        assert_eq!(row.kind, MetricKind::Gauge);
        (row.labels.unwrap().to_owned(), row.timestamp.unwrap().millis(), row.value.to_bits())
    };
    batch.rows().map(row).collect()
}

fn decode(body: &[u8]) -> Result<(Vec<Row>, RemoteWritten), RemoteWriteError> {
    let mut batch = Batch::default();
    batch.push_named(RepeatId(std::num::NonZeroU64::MIN), MetricKind::Gauge, None, 0.0);
    let mut decoder = RemoteWriteDecoder::new();
    let written = decoder.decode(body, &BOUNDS, &mut batch, &mut Repeat::default(), |_| false);
    assert!(written.is_ok() || batch.is_empty(), "a refused body leaves nothing in the batch");
    written.map(|written| (rows(&batch), written))
}

/// The twin.
fn expected(request: &WriteRequest) -> (Vec<Row>, RemoteWritten) {
    let (mut rows, mut written) = (Vec::new(), RemoteWritten::default());
    written.metadata = request.metadata.len() as u64;
    for (index, series) in request.timeseries.iter().enumerate() {
        written.exemplars += series.exemplars.len() as u64;
        written.histograms += series.histograms.len() as u64;
        let set = label_set(&series.labels);
        for sample in &series.samples {
            let error = match (BOUNDS.check(sample.timestamp), &set) {
                (Err(refusal), _) => SeriesError::Time(refusal),
                (Ok(()), Err(error)) => error.clone(),
                (Ok(()), Ok(set)) => {
                    rows.push((set.clone(), sample.timestamp, sample.value.to_bits()));
                    continue;
                }
            };
            written.left_out.get_or_insert(LeftOut { samples: 0, index, error }).samples += 1;
        }
    }
    (rows, written)
}

fn label_set(labels: &[Label]) -> Result<LabelSet, SeriesError> {
    if labels.len() > LABELS_MAX + 1 {
        return Err(SeriesError::Label(LabelError::TooManyLabels));
    }
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| SeriesError::NotUtf8);
    let (names, labels): (Vec<_>, Vec<_>) = labels.iter().partition(|label| label.name == b"__name__");
    let name = text(&names.first().ok_or(SeriesError::NameMissing)?.value)?;
    if let Some(second) = names.get(1) {
        text(&second.value)?;
        return Err(SeriesError::Label(LabelError::LabelTwice("__name__".into())));
    }
    let mut builder = LabelSetBuilder::default();
    builder.begin(name).map_err(SeriesError::Label)?;
    for label in labels {
        builder.push(text(&label.name)?, text(&label.value)?).map_err(SeriesError::Label)?;
    }
    builder.finish().map_err(SeriesError::Label)
}

fn series(labels: &[(&str, &str)], samples: &[(f64, i64)]) -> TimeSeries {
    let label = |(name, value): &(&str, &str)| Label { name: (*name).into(), value: (*value).into() };
    TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples.iter().map(|&(value, timestamp)| Sample { value, timestamp }).collect(),
        ..TimeSeries::default()
    }
}

fn request(timeseries: Vec<TimeSeries>) -> WriteRequest {
    WriteRequest { timeseries, metadata: Vec::new() }
}

#[test]
fn a_request_becomes_its_samples_bit_for_bit() {
    // prost leaves a zero out whatever its sign, so the negative one is put in place of another value.
    const MARK: f64 = 123.456_789;
    let values = [1.5, 0.0, MARK, f64::INFINITY, f64::NEG_INFINITY, f64::from_bits(STALE), f64::NAN, 5e-324];
    let samples: Vec<(f64, i64)> = values.into_iter().zip(NOW..).collect();
    let sorted = [("__name__", "up"), ("instance", "a:9090"), ("job", "node")];
    let turned = [("job", "node"), ("instance", "a:9090"), ("empty", ""), ("__name__", "up")];
    let mut body = request(vec![series(&sorted, &samples), series(&turned, &[(7.0, NOW)])]).encode_to_vec();
    let at = body.windows(8).position(|bits| bits == MARK.to_le_bytes()).unwrap();
    body[at..at + 8].copy_from_slice(&(-0f64).to_le_bytes());
    let (rows, written) = decode(&body).unwrap();
    assert_eq!(written, RemoteWritten::default());
    let set = LabelSet::new("up", &[("instance", "a:9090"), ("job", "node")]).unwrap();
    let of = |value| if value == MARK { -0.0 } else { value };
    let mut wanted: Vec<Row> =
        samples.iter().map(|&(value, millis)| (set.clone(), millis, of(value).to_bits())).collect();
    wanted.push((set, NOW, 7f64.to_bits()));
    assert_eq!(rows, wanted);
    assert_eq!(decode(b"").unwrap(), (vec![], RemoteWritten::default()), "an empty request is one");
}

proptest! {
    /// What is taken at once is what the same bytes say field by field; what senders write is taken so, unless the body
    /// or its part ends right behind it.
    #[test]
    fn a_sample_taken_at_once_is_the_one_that_stands_there(
        millis in prop_oneof![0..300i64, 0..1i64 << 56],
        bits in any::<u64>(),
        change in proptest::option::of((0..24usize, any::<u8>())),
        behind in 0..12usize,
        cut in prop_oneof![Just(0), 0..24usize],
    ) {
        let number = millis_bytes(millis as u64);
        let mut body = vec![0x12, 10 + number.len() as u8, 0x09];
        body.extend_from_slice(&bits.to_le_bytes());
        body.push(0x10);
        body.extend_from_slice(&number);
        let end = body.len();
        body.resize(end + behind, 0x12);
        if let Some((at, byte)) = change {
            let at = at % body.len();
            body[at] = byte;
        }
        let part_end = body.len().saturating_sub(cut);
        let mut part = Wire::again(&body, 0, part_end);
        prop_assert_eq!(part.usual_sample(|_| false), None);
        prop_assert_eq!(part.at(), 0, "what is not taken is not passed");
        if let Some((millis, value)) = part.usual_sample(|_| true) {
            let mut fields = Wire::again(&body, 0, part_end);
            prop_assert_eq!(fields.tag(), Ok((2, Kind::Bytes)));
            let read = sample(fields.take().unwrap()).map(|(value, millis)| (value.to_bits(), millis));
            prop_assert_eq!(read, Ok((value.to_bits(), millis)));
            prop_assert_eq!(part.at(), fields.at());
        } else {
            prop_assert!(change.is_some() || body.len() < 20 || part_end < end);
        }
    }
}

fn millis_bytes(mut millis: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while millis >= 0x80 {
        bytes.push(millis as u8 | 0x80);
        millis >>= 7;
    }
    bytes.push(millis as u8);
    bytes
}

/// What is wrong with one series or sample is said once, counted, and takes nothing else with it.
#[test]
fn what_cannot_be_taken_is_left_out_and_the_rest_is_not() {
    let many: Vec<(String, String)> = (0..LABELS_MAX + 1).map(|n| (format!("l{n}"), "v".into())).collect();
    let mut too_many: Vec<(&str, &str)> = vec![("__name__", "x")];
    too_many.extend(many.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let long = "v".repeat(LABEL_VALUE_BYTES_MAX + 1);
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("job", "a")], "label __name__ is missing"),
        (&[("__name__", "")], "Metric name cannot be empty"),
        (&[("__name__", "x"), ("__name__", "y")], "Label \"__name__\" is given twice"),
        (&[("__name__", "x"), ("a", "1"), ("a", "2")], "Label \"a\" is given twice"),
        (&[("__name__", "x"), ("", "1")], "Label name cannot be empty"),
        (&[("__name__", "x"), ("a", "b\nc")], "Value of label \"a\" contains a control character"),
        (&[("__name__", "x"), ("a", &long)], "Value of label \"a\" too long (max 4096 bytes)"),
        (&too_many, "Too many labels (max 64)"),
    ];
    let good = series(&[("__name__", "good")], &[(1.0, NOW)]);
    for (labels, told) in cases {
        let bad = series(labels, &[(2.0, NOW), (3.0, NOW + 1)]);
        let body = request(vec![good.clone(), bad, good.clone()]).encode_to_vec();
        let (rows, written) = decode(&body).unwrap();
        let left_out = written.left_out.unwrap();
        assert_eq!(
            (rows.len(), left_out.samples, left_out.index, &*left_out.error.to_string()),
            (2, 2, 1, *told)
        );
    }
    let exactly = series(&too_many[..=LABELS_MAX], &[(1.0, NOW)]);
    assert_eq!(decode(&request(vec![exactly]).encode_to_vec()).unwrap().0.len(), 1);

    let times = series(&[("__name__", "x")], &[(1.0, NOW), (2.0, NOW + 9_999), (3.0, -1), (4.0, NOW - 1)]);
    let (rows, written) = decode(&request(vec![good, times]).encode_to_vec()).unwrap();
    let left_out = written.left_out.unwrap();
    assert_eq!((rows.len(), left_out.samples, left_out.index), (3, 2, 1));
    assert_eq!(
        left_out.error.to_string(),
        "timestamp 1696789244566 is too far in the future (newest accepted: 1696789235567)"
    );
    let keeps_all = TimeBounds { oldest: None, ..BOUNDS };
    let before = request(vec![series(&[("__name__", "x")], &[(1.0, -1), (1.0, 0)])]).encode_to_vec();
    let (mut batch, mut repeat) = (Batch::default(), Repeat::default());
    let mut decoder = RemoteWriteDecoder::new();
    let written = decoder.decode(&before, &keeps_all, &mut batch, &mut repeat, |_| false).unwrap();
    assert_eq!((batch.len(), written.left_out.unwrap().samples), (1, 1), "1970 is the first time");
}

#[test]
fn what_is_no_request_is_told_with_its_place() {
    let offset = |body: &[u8]| match decode(body) {
        Err(RemoteWriteError::Malformed { offset, .. }) => offset,
        other => panic!("{other:?}"),
    };
    assert_eq!(offset(b"\x0a\x05abc"), 1, "more bytes than there are");
    assert_eq!(offset(b"\x0a\x02\x12\x05"), 3, "more than its series has");
    assert_eq!(offset(b"{\"name\":\"a\"}"), 0);
    assert_eq!(offset(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), 1);
    // Symbols of 2.0 under their number.
    assert_eq!(decode(b"\x22\x00\x22\x01a"), Err(RemoteWriteError::Version2));
}

/// Ten thousand labels cost a look at each, and a body of one series with a million samples is taken in steps.
#[test]
fn oversized_series_are_refused_or_taken_in_steps() {
    let labels: Vec<(String, String)> = (0..10_000).map(|n| (format!("l{n}"), "v".into())).collect();
    let labels: Vec<(&str, &str)> =
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut decoder = RemoteWriteDecoder::new();
    let body = request(vec![series(&labels, &[(1.0, NOW)])]).encode_to_vec();
    let mut batch = Batch::default();
    let written = decoder.decode(&body, &BOUNDS, &mut batch, &mut Repeat::default(), |_| false).unwrap();
    assert_eq!(written.left_out.unwrap().error, SeriesError::Label(LabelError::TooManyLabels));
    assert!(decoder.labels.capacity() <= 2 * LABELS_MAX + 4);

    let samples: Vec<(f64, i64)> = (0..100_000).map(|n| (f64::from(n), NOW)).collect();
    let body = request(vec![series(&[("__name__", "x")], &samples)]).encode_to_vec();
    let mut decoding = decoder.begin(&body, &BOUNDS, &mut batch);
    let mut steps = 1;
    while decoding.step(1_000) {
        steps += 1;
    }
    assert_eq!(decoding.finish(), Ok(RemoteWritten::default()));
    assert_eq!((batch.len(), steps), (100_000, 101));
}

/// Series that have a number come without labels, and the others with theirs, however requests are cut.
/// Method: a caller that numbers every second series; what comes is held against a decoder that remembers nothing.
#[test]
fn series_that_have_a_number_need_no_labels() {
    let series_of = |n: usize, millis: i64| {
        let host = format!("host-{}", n % 50);
        series(&[("__name__", "cpu"), ("host", &host)], &[(n as f64, millis), (0.5, millis + 1)])
    };
    let (mut decoder, mut batch) = (RemoteWriteDecoder::naming_repeats(7, 1_000), Batch::default());
    let mut repeat = Repeat::default();
    let sets = RefCell::new(std::collections::HashMap::new());
    let mut without_labels = 0;
    for round in 0..20 {
        let rows = (round * 33..(round + 1) * 33).map(|n| series_of(n, NOW + round as i64 * 10));
        let body = request(rows.collect()).encode_to_vec();
        let plain = decode(&body).unwrap();
        let is_numbered = |id: RepeatId| sets.borrow().contains_key(&id) && u64::from(id.0) % 2 == 0;
        let written = decoder.decode(&body, &BOUNDS, &mut batch, &mut repeat, is_numbered).unwrap();
        assert_eq!(written, plain.1);
        assert_eq!(batch.len(), plain.0.len());
        for (row, (set, millis, bits)) in batch.rows().zip(plain.0) {
            assert_eq!((row.timestamp.unwrap().millis(), row.value.to_bits()), (millis, bits));
            let id = row.repeat.expect("there is room to remember all");
            match row.labels {
                Some(labels) => assert_eq!(labels, set.as_ref()),
                None => without_labels += 1,
            }
            assert_eq!(*sets.borrow_mut().entry(id).or_insert(set.clone()), set);
        }
    }
    assert_eq!(sets.borrow().len(), 50);
    assert!(without_labels > 500, "{without_labels}");
}

fn label() -> impl Strategy<Value = Label> {
    let name = prop_oneof![
        4 => prop::sample::select(vec!["__name__", "a", "b", "job", "z"]).prop_map(Vec::from),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    let value = prop_oneof![4 => "[a-c]{0,3}".prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..300)];
    (name, value).prop_map(|(name, value)| Label { name, value })
}

fn any_request() -> impl Strategy<Value = WriteRequest> {
    let millis = prop_oneof![4 => NOW - 2_000..NOW + 1_500, 1 => any::<i64>()];
    let sample = (any::<u64>(), millis)
        .prop_map(|(bits, timestamp)| Sample { value: f64::from_bits(bits), timestamp });
    let bytes = || prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..2);
    let labels = (any::<bool>(), prop::collection::vec(label(), 0..5)).prop_map(|(named, mut labels)| {
        if named {
            labels.retain(|label| label.name != b"__name__");
            labels.insert(0, Label { name: "__name__".into(), value: "up".into() });
        }
        labels
    });
    let series = (labels, prop::collection::vec(sample, 0..4), bytes(), bytes()).prop_map(
        |(labels, samples, exemplars, histograms)| TimeSeries { labels, samples, exemplars, histograms },
    );
    (prop::collection::vec(series, 0..6), bytes())
        .prop_map(|(timeseries, metadata)| WriteRequest { timeseries, metadata })
}

/// The fields of a message of prost's, in another order: a format that allows it is used so by somebody.
fn shuffled(message: &[u8], turns: usize) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut rest = Wire::new(message);
    while !rest.is_empty() {
        let begin = rest.at();
        let (_, kind) = rest.tag().unwrap();
        rest.skip(kind).unwrap();
        fields.push(&message[begin..rest.at()]);
    }
    let len = fields.len().max(1);
    fields.rotate_left(turns % len);
    fields.concat()
}

fn steps(body: &[u8], fields: usize) -> Result<(Vec<Row>, RemoteWritten), RemoteWriteError> {
    let (mut decoder, mut batch) = (RemoteWriteDecoder::new(), Batch::default());
    let mut decoding = decoder.begin(body, &BOUNDS, &mut batch);
    while decoding.step(fields) {}
    decoding.finish().map(|written| (rows(&batch), written))
}

/// A name given twice is said before or after what else is wrong with labels, as they stand: such sets differ in
/// nothing but the error.
fn is_same(ours: &(Vec<Row>, RemoteWritten), twin: &(Vec<Row>, RemoteWritten)) -> bool {
    let parts = |(rows, written): &(Vec<Row>, RemoteWritten)| {
        let left_out = written.left_out.as_ref().map(|left_out| (left_out.samples, left_out.index));
        (rows.clone(), left_out, written.histograms, written.exemplars, written.metadata)
    };
    parts(ours) == parts(twin)
}

proptest! {
    /// Whole or in steps, and with the fields of its series in any order.
    #[test]
    fn a_request_is_what_prost_reads(request in any_request(), turns in 0..8usize, fields in 1..4usize) {
        let body = request.encode_to_vec();
        let twin = expected(&request);
        prop_assert_eq!(&decode(&body).unwrap(), &twin);
        prop_assert_eq!(&steps(&body, fields).unwrap(), &twin);

        let mut turned = Vec::new();
        for series in &request.timeseries {
            let fields = shuffled(&series.encode_to_vec(), turns);
            turned.push(FIRST_OF_BYTES);
            prost::encoding::encode_varint(fields.len() as u64, &mut turned);
            turned.extend_from_slice(&fields);
        }
        let twin = expected(&WriteRequest::decode(&turned[..]).unwrap());
        for decoded in [decode(&turned).unwrap(), steps(&turned, fields).unwrap()] {
            prop_assert!(is_same(&decoded, &twin), "{:?} {:?}", decoded, twin);
        }
    }

    /// Every cut and every flipped bit of a request is either another request, which prost reads as we do, or refused.
    #[test]
    fn damaged_requests_are_read_as_prost_does_or_refused(request in any_request(), at in any::<prop::sample::Index>()) {
        let body = request.encode_to_vec();
        for cut in 0..body.len() {
            let _ = decode(&body[..cut]);
        }
        if !body.is_empty() {
            let bit = at.index(8 * body.len());
            let mut flipped = body.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(decoded) = decode(&flipped) {
                let twin = WriteRequest::decode(&flipped[..]);
                prop_assert!(twin.is_ok(), "taken, and no request: {:?}", twin);
                prop_assert!(is_same(&decoded, &expected(&twin.unwrap())));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_taken_as_prost_does(body in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(decoded) = decode(&body) {
            prop_assert!(is_same(&decoded, &expected(&WriteRequest::decode(&body[..]).unwrap())));
            prop_assert_eq!(&steps(&body, 1).unwrap(), &decoded);
        }
    }

    /// With what was remembered of other requests the same comes out; what is remembered under one number is one set.
    #[test]
    fn what_is_remembered_changes_nothing(requests in prop::collection::vec(any_request(), 1..6)) {
        let (mut decoder, mut batch) = (RemoteWriteDecoder::naming_repeats(1, 8), Batch::default());
        let (mut repeat, mut seen) = (Repeat::default(), HashSet::new());
        for request in requests.iter().chain(&requests) {
            let body = request.encode_to_vec();
            let written = decoder.decode(&body, &BOUNDS, &mut batch, &mut repeat, |_| false).unwrap();
            let twin = expected(request);
            prop_assert_eq!(&(rows(&batch), written), &twin);
            seen.extend(batch.rows().filter_map(|row| Some((row.repeat?, row.labels?.to_owned()))));
        }
        let ids: HashSet<RepeatId> = seen.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(ids.len(), seen.len());
    }
}
