//! JSON on `POST /write` (SPEC §2.4): one measurement with fields, each a sample.
//!
//! ```text
//!   {"measurement":"cpu_usage","tags":{"host":"server01"},"fields":{"value":75.5},"timestamp":1696789234567}
//! ```
//!
//! The field `value` is the series `cpu_usage`, another field `f` is `cpu_usage_f`. Values, tags and times are as in
//! `POST /metrics`, and so are the words of a refusal.

use super::error::ValueError;
use super::fields::{LabelsError, LabelsRead, read_labels, text, timestamp, value};
use super::{MetricError, MetricsDecoder, MetricsError, end};
use crate::bounds::label_bytes_max;
use crate::json::{Begins, Reader, SyntaxError, Text};
use model::{Batch, LabelError, MetricKind, Timestamp};
use std::collections::HashMap;

/// Names and values, in order.
type Fields = Vec<(Text, Result<f64, ValueError>)>;

/// What the object said so far.
#[derive(Default)]
struct Measurement {
    name: Option<Option<Text>>,
    tags: Option<LabelsError>,
    fields: Option<Result<Fields, MetricError>>,
    timestamp: Option<Result<Timestamp, MetricError>>,
}

impl MetricsDecoder {
    /// Decodes a whole body into `batch`, which it empties first and leaves empty on any refusal.
    pub fn decode_measurement(&mut self, body: &[u8], batch: &mut Batch) -> Result<(), MetricsError> {
        batch.clear();
        let decoded = self.measurement(body, batch);
        if decoded.is_err() {
            batch.clear();
        }
        decoded
    }

    fn measurement(&mut self, body: &[u8], batch: &mut Batch) -> Result<(), MetricsError> {
        let body =
            std::str::from_utf8(body).map_err(|error| MetricsError::not_utf8(body, error.valid_up_to()))?;
        let mut reader = Reader::new(body);
        reader.skip_space();
        if reader.begins()? != Begins::Object {
            let (offset, expected) = (reader.offset(), "a measurement object");
            return Err(MetricsError::Shape { offset, expected });
        }
        self.unescaped.clear();
        self.tags.clear();
        let read = self.measurement_keys(&mut reader)?;
        end(&mut reader)?;
        let wrong = |error| MetricsError::Metric { index: None, error };
        let get = |text: Text| text.get(body, &self.unescaped);
        let name = read.name.ok_or(MetricsError::Missing { key: "measurement" })?;
        let name = get(name.ok_or(wrong(MetricError::NameNotText))?);
        let fields = read.fields.ok_or(MetricsError::Missing { key: "fields" })?.map_err(wrong)?;
        let timestamp = read.timestamp.transpose().map_err(wrong)?;
        match read.tags {
            None => {}
            Some(LabelsError::NotAnObject) => {
                return Err(wrong(MetricError::LabelsNotAnObject { key: "tags" }));
            }
            Some(LabelsError::TooMany) => return Err(wrong(MetricError::Label(LabelError::TooManyLabels))),
            Some(LabelsError::ValueNotText { label }) => {
                return Err(wrong(MetricError::LabelValueNotText { label: get(label).to_owned() }));
            }
        }
        if fields.is_empty() {
            return Err(MetricsError::Missing { key: "a field" });
        }
        self.builder.begin(name).map_err(|error| wrong(MetricError::Label(error)))?;
        // Of a repeated key the last one counts.
        let last: HashMap<&str, usize> =
            fields.iter().enumerate().map(|(at, (field, _))| (get(*field), at)).collect();
        for (at, (field, value)) in fields.iter().enumerate() {
            let field = get(*field);
            if last.get(field) != Some(&at) {
                continue;
            }
            let value = value.map_err(|error| wrong(MetricError::Value(error)))?;
            let name = if field == "value" { name.to_owned() } else { format!("{name}_{field}") };
            let refused = |error| wrong(MetricError::Label(error));
            self.builder.begin(&name).map_err(refused)?;
            for &(tag, of) in &self.tags {
                self.builder.push(get(tag), get(of)).map_err(refused)?;
            }
            let builder = &mut self.builder;
            batch
                .push(|out| builder.finish_into(out), MetricKind::Gauge, timestamp, value)
                .map_err(refused)?;
            if batch.label_bytes(0..batch.len()) > label_bytes_max(body.len()) {
                let expected = "shorter tags or fewer fields: each field repeats the tags, and all together may take \
                                16 times the bytes of the body";
                return Err(MetricsError::Shape { offset: 0, expected });
            }
        }
        Ok(())
    }

    fn measurement_keys(&mut self, reader: &mut Reader<'_>) -> Result<Measurement, SyntaxError> {
        let mut read = Measurement::default();
        let mut is_first = true;
        reader.enter();
        loop {
            let kept = self.unescaped.len();
            let Some(key) = reader.next_key(&mut is_first, &mut self.unescaped)? else { return Ok(read) };
            let key = key.get(reader.body(), &self.unescaped).to_owned();
            self.unescaped.truncate(kept);
            match &*key {
                "measurement" => read.name = Some(text(reader, &mut self.unescaped)?),
                "tags" => {
                    read.tags = match read_labels(reader, &mut self.unescaped, &mut self.tags)? {
                        LabelsRead::Null | LabelsRead::Taken => None,
                        LabelsRead::Wrong(error) => Some(error),
                    };
                }
                "fields" => read.fields = Some(self.measurement_fields(reader)?),
                "timestamp" => {
                    let time = timestamp(reader, &mut self.unescaped)?;
                    read.timestamp = time.map(|time| time.map_err(MetricError::Timestamp));
                }
                _ => reader.skip_value(&mut self.unescaped)?,
            }
        }
    }

    fn measurement_fields(
        &mut self,
        reader: &mut Reader<'_>,
    ) -> Result<Result<Fields, MetricError>, SyntaxError> {
        if reader.begins()? != Begins::Object {
            reader.skip_value(&mut self.unescaped)?;
            return Ok(Err(MetricError::LabelsNotAnObject { key: "fields" }));
        }
        let (mut fields, mut is_first) = (Vec::new(), true);
        reader.enter();
        while let Some(name) = reader.next_key(&mut is_first, &mut self.unescaped)? {
            fields.push((name, value(reader, &mut self.unescaped)?));
        }
        Ok(Ok(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(body: &str) -> Result<Vec<(String, Option<i64>, f64)>, MetricsError> {
        let (mut decoder, mut batch) = (MetricsDecoder::new(0), Batch::default());
        let decoded = decoder.decode_measurement(body.as_bytes(), &mut batch);
        assert!(decoded.is_ok() || batch.is_empty());
        let row = |row: model::BatchRow<'_>| {
            (format!("{:?}", row.labels.unwrap()), row.timestamp.map(Timestamp::millis), row.value)
        };
        decoded.map(|()| batch.rows().map(row).collect())
    }

    #[test]
    fn each_field_is_a_sample() {
        let body = r#"{"measurement":"cpu_usage","tags":{"host":"server01"},"fields":{"value":75.5},"timestamp":1696789234567}"#;
        assert_eq!(
            decode(body),
            Ok(vec![(r#"cpu_usage{host="server01"}"#.into(), Some(1_696_789_234_567), 75.5)])
        );
        let body = r#" {"fields":{"a\u0062":1,"value":true},"x":[],"measurement":"c\u0070u"} "#;
        assert_eq!(decode(body), Ok(vec![("cpu_ab{}".into(), None, 1.0), ("cpu{}".into(), None, 1.0)]));
    }

    #[test]
    fn of_a_repeated_field_the_last_one_counts() {
        let body = r#"{"measurement":"m","fields":{"value":"x","a":1,"value":2}}"#;
        assert_eq!(decode(body), Ok(vec![("m_a{}".into(), None, 1.0), ("m{}".into(), None, 2.0)]));
        assert!(decode(r#"{"measurement":"m","fields":{"value":2,"value":"x"}}"#).is_err());
        assert!(decode(r#"{"measurement":"","fields":{"f":1}}"#).is_err(), "a name of its own");
    }

    #[test]
    fn tags_repeated_by_fields_are_bounded() {
        let tags: Vec<String> = (0..16).map(|n| format!("\"t{n}\":\"{}\"", "x".repeat(4_000))).collect();
        let fields: Vec<String> = (0..5_000).map(|n| format!("\"f{n}\":1")).collect();
        let body = |fields: &[String]| {
            format!(
                r#"{{"measurement":"m","tags":{{{}}},"fields":{{{}}}}}"#,
                tags.join(","),
                fields.join(",")
            )
        };
        assert_eq!(decode(&body(&fields[..3])).unwrap().len(), 3);
        let told = decode(&body(&fields)).unwrap_err().to_string();
        assert!(told.contains("shorter tags or fewer fields"), "{told}");
    }

    #[test]
    fn what_cannot_be_taken_is_told_as_elsewhere() {
        let told = |body: &str| decode(body).unwrap_err().to_string();
        for (body, expected) in [
            (r#"{"fields":{"value":1}}"#, "invalid JSON format: measurement is missing"),
            (r#"{"measurement":"a"}"#, "invalid JSON format: fields is missing"),
            (r#"{"measurement":"a","fields":{}}"#, "invalid JSON format: a field is missing"),
            (r#"{"measurement":1,"fields":{"value":1}}"#, "invalid metric: name must be text"),
            (
                r#"{"measurement":"a","fields":[1]}"#,
                "invalid metric: fields must be an object of text to text",
            ),
            (r#"{"measurement":"","fields":{"value":1}}"#, "Metric name cannot be empty"),
            (
                r#"{"measurement":"a","fields":{"value":1},"tags":{"a":1}}"#,
                "invalid metric: value of label \"a\" must be text",
            ),
        ] {
            assert_eq!(told(body), expected);
        }
        assert!(
            told(r#"{"measurement":"a","fields":{"value":"x"}}"#)
                .starts_with("invalid metric: value must be")
        );
        assert!(told(r#"{"measurement":"a","fields":{"value":1}} x"#).starts_with("invalid JSON format"));
    }
}
