//! What lines say, in which words they are refused, and that bytes of any kind do no harm.

use super::*;
use model::LabelSet;
use proptest::prelude::*;

const NOW: i64 = 1_696_789_234_567;
const BOUNDS: TimeBounds = TimeBounds { oldest: Some(NOW - 1_000_000), newest: NOW + 1_000 };

type Row = (String, Option<i64>, f64);

fn rows(batch: &Batch) -> Vec<Row> {
    let row = |row: model::BatchRow<'_>| {
        (format!("{:?}", row.labels.unwrap()), row.timestamp.map(Timestamp::millis), row.value)
    };
    batch.rows().map(row).collect()
}

fn decode_as(body: impl AsRef<[u8]>, unit: LineUnit) -> Result<(Vec<Row>, u64), LineError> {
    let (mut decoder, mut batch) = (LineDecoder::new(), Batch::default());
    let decoded =
        decoder.decode(body.as_ref(), (unit, &BOUNDS), &mut batch, &mut Repeat::default(), |_| false);
    assert!(decoded.is_ok() || batch.is_empty(), "a refused body leaves nothing in the batch");
    decoded.map(|written| (rows(&batch), written.texts))
}

fn decode(body: impl AsRef<[u8]>) -> Result<(Vec<Row>, u64), LineError> {
    decode_as(body, LineUnit::Nanoseconds)
}

fn row(labels: &str, millis: Option<i64>, value: f64) -> Row {
    (labels.to_owned(), millis, value)
}

#[test]
fn lines_become_their_samples() {
    // As Telegraf's inputs cpu, disk, system and swap write them.
    let body = concat!(
        "cpu,cpu=cpu-total,host=web1 usage_idle=98.2,usage_user=1.5 1696789234000000000\n",
        "disk,device=sda1,path=/ free=123456789i,inodes_free=18446744073709551615u 1696789234567891234\n",
        "\n",
        "# a comment, with = and \"\n",
        "system,host=web1 uptime_format=\"1 day,  2:03\",load1=0.25 1696789234000000000\r\n",
        "up value=true\n",
        "  m,a=,b=1 value=-1.5e3,f=F   1696789234000000000  ",
    );
    let s = Some(1_696_789_234_000);
    assert_eq!(
        decode(body),
        Ok((
            vec![
                row(r#"cpu_usage_idle{cpu="cpu-total",host="web1"}"#, s, 98.2),
                row(r#"cpu_usage_user{cpu="cpu-total",host="web1"}"#, s, 1.5),
                row(r#"disk_free{device="sda1",path="/"}"#, Some(NOW), 123_456_789.0),
                row(r#"disk_inodes_free{device="sda1",path="/"}"#, Some(NOW), 18_446_744_073_709_551_615.0),
                row(r#"system_load1{host="web1"}"#, s, 0.25),
                row("up{}", None, 1.0),
                row(r#"m{b="1"}"#, s, -1_500.0),
                row(r#"m_f{b="1"}"#, s, 0.0),
            ],
            1
        ))
    );
    assert_eq!(decode(""), Ok((vec![], 0)));
    assert_eq!(decode("a b=\"only text\""), Ok((vec![], 1)));
}

#[test]
fn escapes_stand_for_themselves_where_they_are_one() {
    let body = concat!(
        r#"my\ cpu\,x\=y,ho\ st=a\,b\=c\ d,p=C:\dir\x usage\ idle\=\,=1,t="a\"b, \\" "#,
        "\n",
        "wörld,tag=ä value=1",
    );
    assert_eq!(
        decode(body),
        Ok((
            vec![
                row(r#"my cpu,x\=y_usage idle=,{ho st="a,b=c d",p="C:\\dir\\x"}"#, None, 1.0),
                row(r#"wörld{tag="ä"}"#, None, 1.0),
            ],
            1
        ))
    );
    assert_eq!(decode("a t=\"two\nlines\" \nb x").unwrap_err().line, 3, "a text may hold a line's end");
}

/// As InfluxDB reads them: the backslash right before a byte escapes it, whatever stands before that.
#[test]
fn a_backslash_is_escaped_by_nothing() {
    for (body, expected) in [
        (r"a\\,b=c v=1", r#"a\,b=c_v{}"#),
        (r"a,p=C:\\dir\\ x,q=2 v=1", r#"a_v{p="C:\\\\dir\\ x",q="2"}"#),
        (r"a,p=\\\=1 v=1", r#"a_v{p="\\\\=1"}"#),
        (r"a,p=x\\y f\\=1=1", r#"a_f\=1{p="x\\\\y"}"#),
    ] {
        assert_eq!(decode(body), Ok((vec![row(expected, None, 1.0)], 0)), "{body}");
    }
}

/// Method: some names, and many; with a time the last replaces the others once they are stored.
#[test]
fn of_a_field_that_a_line_without_a_time_names_twice_the_last_counts() {
    assert_eq!(
        decode("cpu a=1,b=2,a=3"),
        Ok((vec![row("cpu_b{}", None, 2.0), row("cpu_a{}", None, 3.0)], 0))
    );
    let many: Vec<String> = (0..100).map(|n| format!("f{}={n}", n % 40)).collect();
    let (rows, _) = decode(format!("cpu {}", many.join(","))).unwrap();
    assert_eq!(rows.len(), 40);
    assert_eq!(rows[0], row("cpu_f20{}", None, 60.0));
    assert_eq!(decode(format!("cpu a=1,a=2 {NOW}000000")).unwrap().0.len(), 2);
}

#[test]
fn units_are_those_of_both_versions() {
    for (name, time, millis) in [
        ("n", "1696789234567999999", NOW),
        ("ns", "1696789234567999999", NOW),
        ("u", "1696789234567999", NOW),
        ("us", "1696789234567999", NOW),
        ("µ", "1696789234567999", NOW),
        ("ms", "1696789234567", NOW),
        ("s", "1696789234", 1_696_789_234_000),
        ("m", "28279820", 1_696_789_200_000),
        ("h", "471330", 1_696_788_000_000),
    ] {
        let unit = LineUnit::from_name(name).unwrap();
        let bounds = TimeBounds { oldest: Some(NOW - 10_000_000), newest: NOW + 1_000 };
        let (mut decoder, mut batch) = (LineDecoder::new(), Batch::default());
        let body = format!("a value=1 {time}");
        let repeat = &mut Repeat::default();
        decoder.decode(body.as_bytes(), (unit, &bounds), &mut batch, repeat, |_| false).unwrap();
        assert_eq!(rows(&batch), [row("a{}", Some(millis), 1.0)], "{name}");
    }
    assert_eq!((LineUnit::from_name("d"), LineUnit::from_name("")), (None, None));
}

#[test]
fn a_line_that_cannot_be_taken_is_told_by_its_number() {
    let told = |body: &str| decode(format!("good value=1\n{body}")).unwrap_err().to_string();
    for (body, expected) in [
        ("cpu", "expected fields behind measurement and tags"),
        ("cpu,a=b", "expected fields behind measurement and tags"),
        (",a=b c=1", "expected a measurement"),
        ("cpu,a c=1", "expected a tag and = before its value"),
        ("cpu,=b c=1", "expected a tag and = before its value"),
        ("cpu a", "expected a field and = before its value"),
        ("cpu =1", "expected a field and = before its value"),
        ("cpu a=1,", "expected a field and = before its value"),
        ("cpu a=\"x", "expected the quote that ends a text"),
        ("cpu a=1 x", "expected the end of the line behind the time"),
        ("cpu a=1 1696789234567000000 1", "expected the end of the line behind the time"),
        ("cpu a=1 99999999999999999999", "expected a time of 64 bits"),
        ("cpu,a=1,a=2 b=1", "Label \"a\" is given twice"),
        ("cpu,__name__=x b=1", "Label name __name__ is the metric name; give it as name"),
    ] {
        assert_eq!(told(body), format!("unable to parse line 2: {expected}"), "{body}");
    }
    for value in ["", "x", "NaN", "inf", "-Infinity", "1e999", "1.5i", "-1u", "9223372036854775808i", "--1"] {
        let told = told(&format!("cpu a={value}"));
        assert!(told.starts_with("unable to parse line 2: expected a finite number"), "{value}: {told}");
    }
    assert_eq!(
        told("cpu a=1 1696789234567"),
        "unable to parse line 2: timestamp 1696789 is older than the retention (oldest accepted: 1696788234567); \
         is precision= as the sender counts?"
    );
    assert!(told("cpu a=1 -5").contains("is older than"));
    assert_eq!(decode(b"a b=1\n\xff b=1").unwrap_err().to_string(), "unable to parse line 2: expected UTF-8");
}

/// Series that have a number come without labels, the same whatever was remembered, and whichever steps were taken.
#[test]
fn series_that_have_a_number_need_no_labels() {
    let (mut decoder, mut batch) = (LineDecoder::naming_repeats(7, 100), Batch::default());
    let mut repeat = Repeat::default();
    let body: String = (0..30).map(|n| format!("cpu,host=h{n} a={n},b=2,a={n}\n")).collect();
    let plain = decode(&body).unwrap().0;
    let mut ids = std::collections::HashMap::new();
    for round in 0..4 {
        let by_unit = (LineUnit::Nanoseconds, &BOUNDS);
        decoder.decode(body.as_bytes(), by_unit, &mut batch, &mut repeat, |_| round == 3).unwrap();
        for (row, (labels, _, value)) in batch.rows().zip(&plain) {
            assert_eq!(row.value, *value);
            assert_eq!(row.labels.is_none(), round == 3);
            assert!(row.labels.is_none_or(|of| format!("{of:?}") == *labels));
            assert_eq!(ids.entry(labels).or_insert(row.repeat.unwrap()), &row.repeat.unwrap());
        }
    }
    assert_eq!(ids.len(), 60);
}

fn steps(body: &str, lines: usize) -> Result<(Vec<Row>, u64), LineError> {
    let (mut decoder, mut batch) = (LineDecoder::new(), Batch::default());
    let mut decoding = decoder.begin(body, (LineUnit::Nanoseconds, &BOUNDS), &mut batch);
    while decoding.step(lines) {}
    decoding.finish().map(|written| (rows(&batch), written.texts))
}

/// Text with whatever the format wants escaped.
fn escaped(text: &str, special: &str) -> String {
    text.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

proptest! {
    /// Whatever names and values are, a line that says them is read as them. Names end in a letter, for a backslash
    /// before what stands behind them would escape that.
    #[test]
    fn what_is_written_is_read(
        measurement in "[a-zä=, .]{1,6}z", field in "[a-z=, .]{0,5}y", value in -1e12..1e12f64,
        tags in prop::collection::btree_map("[a-z=, .]{0,5}x", "[a-z=, ä]{0,6}w", 0..4),
    ) {
        let special = ",= ";
        let mut line = format!("q{}", escaped(&measurement, ", "));
        for (tag, of) in &tags {
            line += &format!(",{}={}", escaped(tag, special), escaped(of, special));
        }
        line += &format!(" {}={value} {NOW}000000", escaped(&field, special));
        let tags: Vec<(&str, &str)> = tags.iter().map(|(tag, of)| (tag.as_str(), of.as_str())).collect();
        let set = LabelSet::new(&format!("q{measurement}_{field}"), &tags).unwrap();
        prop_assert_eq!(decode(&line), Ok((vec![row(&format!("{set:?}"), Some(NOW), value)], 0)), "{}", line);
    }

    #[test]
    fn any_text_is_taken_or_refused_the_same_in_steps(body in "([a-c,= \\\\\"#1i.\n\r\t-]|ä){0,40}", lines in 1..4usize) {
        prop_assert_eq!(steps(&body, lines), decode(&body));
    }

    #[test]
    fn any_bytes_do_no_harm(body in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode(&body);
    }
}

/// A field repeats its line's tags, so few bytes can ask for very many: what a body may become is bounded, and a line.
#[test]
fn tags_repeated_by_fields_are_bounded_and_so_is_a_line() {
    let told = |body: &str| {
        let (mut decoder, mut batch) = (LineDecoder::new(), Batch::default());
        let bounds = TimeBounds { oldest: None, newest: i64::MAX };
        let terms = (LineUnit::default(), &bounds);
        let mut repeat = Repeat::NONE;
        let decoded = decoder.decode(body.as_bytes(), terms, &mut batch, &mut repeat, |_| false);
        assert_eq!(decoded.is_err(), batch.is_empty());
        decoded.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let long = "x".repeat(4_000);
    let tags: String = (0..7).map(|n| format!(",t{n}={long}")).collect();
    let fields = |count| (0..count).map(|n| format!("f{n}=1")).collect::<Vec<_>>().join(",");
    assert_eq!(told(&format!("m{tags} {}", fields(9))), "");
    let told_of_many = told(&format!("m{tags} {}", fields(4_000)));
    assert!(told_of_many.contains("shorter tags or fewer fields"), "{told_of_many}");
    let told_of_long = told(&format!("m {}", fields(10_000)));
    assert!(told_of_long.contains("a line of at most 64 KiB"), "{told_of_long}");
}
