//! The request of a run: one template whose changing bytes are set as it is copied out.
//!
//! Our own form carries no timestamp, so the server must count each sample (SPEC §2.1); forms that need one get the
//! next millisecond of their connection. The count under the run's own name is the check at the end.
//! Always: the length never changes, so neither does `Content-Length`.
//! Not here: who sends it when.
//! Read next: `request/form.rs` for the bodies.

use crate::plan::{Durability, Lifetime, SERIES_MAX};
use form::{Body, Coding, LABEL_DIGITS, Naming, Places, TIMESTAMP_DIGITS};
use std::net::SocketAddr;

mod form;
#[cfg(test)]
pub(crate) mod protobuf;
mod remote_write;

pub(crate) use form::Form;

/// What every request of a run looks like.
#[derive(Clone, Debug)]
pub(crate) struct Looks<'a> {
    /// Of its body.
    pub form: Form,
    /// Whether it asks for the connection's end.
    pub lifetime: Lifetime,
    /// The first timestamp of every connection, in milliseconds since 1970.
    pub begin_ms: i64,
    /// For the `Host` header.
    pub target: SocketAddr,
    /// Where it is posted to.
    pub path: &'a str,
    /// The name of every sample.
    pub name: &'a str,
    /// Samples in a request.
    pub batch: u32,
    /// Label sets that each connection cycles through; 0 for one series without labels for all.
    pub series: u32,
    /// Further labels of each, in remote write.
    pub labels: u32,
    /// Samples of a series in a row, in remote write.
    pub run: u32,
    /// Asked for by header.
    pub durability: Option<Durability>,
}

/// The bytes, and the places that differ from request to request.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    samples: Vec<Places>,
    coding: Coding,
    series: u64,
    run: u64,
    begin_ms: u64,
}

const _: () = assert!(SERIES_MAX <= 10_u32.pow(LABEL_DIGITS as u32));

impl Template {
    /// Lays the request out.
    pub(crate) fn new(looks: &Looks<'_>) -> Template {
        let naming = Naming { name: looks.name, series: looks.series, labels: looks.labels, run: looks.run };
        let Body { bytes: body, samples, coding } = form::body(looks.form, &naming, looks.batch);
        let level =
            looks.durability.map(|level| format!("Durability: {}\r\n", level.name())).unwrap_or_default();
        let close = match looks.lifetime {
            Lifetime::Kept => "",
            Lifetime::PerRequest => "Connection: close\r\n",
        };
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\n{}{level}{close}Content-Length: {}\r\n\r\n",
            looks.path,
            looks.target,
            looks.form.headers(),
            body.len()
        );
        Template {
            samples: samples.into_iter().map(|places| places.behind(head.len())).collect(),
            bytes: [head.as_bytes(), &body].concat(),
            coding,
            series: u64::from(looks.series.max(1)),
            run: u64::from(looks.run.max(1)),
            begin_ms: u64::try_from(looks.begin_ms).unwrap_or(0),
        }
    }

    /// Bytes of every request.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the request number `sequence` of a connection, when a tenth of the series was replaced so often before.
    pub(crate) fn append(&self, connection: u32, sequence: u64, turnovers: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let request = &mut out[start..];
        let mut nth = sequence.wrapping_mul(self.samples.len() as u64);
        for places in &self.samples {
            let hundredths = 1_000 + mix(u64::from(connection) << 40 ^ nth) % 9_000;
            match self.coding {
                Coding::Text => {
                    write_digits(&mut request[places.value..places.value + 2], hundredths / 100);
                    write_digits(&mut request[places.value + 3..places.value + 5], hundredths % 100);
                }
                Coding::Binary => {
                    let value = (hundredths as f64 / 100.0).to_le_bytes();
                    request[places.value..places.value + 8].copy_from_slice(&value);
                }
            }
            if let Some(at) = places.connection {
                write_digits(&mut request[at..at + LABEL_DIGITS], u64::from(connection));
            }
            if let Some(at) = places.series {
                let slot = nth / self.run % self.series;
                let series = slot + self.series * replaced(slot * TENTHS / self.series, turnovers);
                write_digits(&mut request[at..at + LABEL_DIGITS], series);
            }
            if let Some(at) = places.timestamp {
                match self.coding {
                    Coding::Text => {
                        let timestamp = self.begin_ms.wrapping_add(nth);
                        write_digits(&mut request[at..at + TIMESTAMP_DIGITS], timestamp);
                    }
                    Coding::Binary => {
                        // The series' own next one, so that time goes no faster than samples come.
                        let before = nth / (self.series * self.run) * self.run + nth % self.run;
                        let timestamp = self.begin_ms.wrapping_add(before);
                        let place = &mut request[at..at + remote_write::TIMESTAMP_BYTES];
                        remote_write::write_timestamp(place, timestamp);
                    }
                }
            }
            nth = nth.wrapping_add(1);
        }
    }
}

/// Parts of the series, one of which is replaced at a time.
const TENTHS: u64 = 10;

/// How often a tenth was replaced: the first with the first turnover, then one after the other.
fn replaced(tenth: u64, turnovers: u64) -> u64 {
    (turnovers + TENTHS - 1 - tenth) / TENTHS
}

/// Series that a connection of so many has sent after so many turnovers, at most.
pub(crate) fn series_met(series: u64, turnovers: u64) -> u64 {
    series * (replaced(0, turnovers) + 1)
}

/// Writes `number` right-aligned with leading zeros; what does not fit is cut on the left.
fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Spreads a counter over 64 bits (the finalizer of splitmix64).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::protobuf::{fields, number};
    use super::*;
    use http::{Decoded, Decoder, Limits};
    use serde_json::Value;

    fn looks(batch: u32, series: u32) -> Looks<'static> {
        let target = "127.0.0.1:8080".parse().unwrap();
        Looks {
            form: Form::Json,
            lifetime: Lifetime::Kept,
            begin_ms: 1_795_257_100_124,
            target,
            path: "/metrics",
            name: "bench_1",
            batch,
            series,
            labels: 0,
            run: 1,
            durability: Some(Durability::Written),
        }
    }

    fn body_of(template: &Template, connection: u32, sequence: u64) -> Value {
        serde_json::from_slice(&bytes_of(template, connection, sequence)).unwrap()
    }

    /// The body, after the request was read by a decoder that refuses what is in doubt.
    fn bytes_of(template: &Template, connection: u32, sequence: u64) -> Vec<u8> {
        let mut bytes = b"before".to_vec();
        template.append(connection, sequence, 0, &mut bytes);
        let mut bytes = bytes.split_off(6);
        assert_eq!(bytes.len(), template.len());
        match Decoder::default().decode(&mut bytes, &Limits::default()).unwrap() {
            Decoded::Request { request, consumed } => {
                assert_eq!(request.path, "/metrics");
                assert_eq!(request.header("durability"), Some(&b"written"[..]));
                assert_eq!(consumed, template.len());
                request.body.to_vec()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_single_metric_carries_its_connection_and_a_value_in_range() {
        let template = Template::new(&looks(1, 1));
        for sequence in 0..200 {
            let body = body_of(&template, 123, sequence);
            assert_eq!(body["name"], "bench_1");
            assert_eq!(body["labels"]["connection"], "000123");
            let value = body["value"].as_f64().unwrap();
            assert!((10.0..100.0).contains(&value), "{value}");
        }
        assert_ne!(body_of(&template, 1, 0)["value"], body_of(&template, 1, 1)["value"]);
    }

    #[test]
    fn a_batch_goes_round_the_series_of_its_connection() {
        let template = Template::new(&looks(4, 3));
        let series = |sequence| -> Vec<String> {
            let body = body_of(&template, 7, sequence);
            let metrics = body["metrics"].as_array().unwrap();
            metrics.iter().map(|metric| metric["labels"]["series"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(series(0), ["000000", "000001", "000002", "000000"]);
        assert_eq!(series(1), ["000001", "000002", "000000", "000001"]);
    }

    /// Method: what a connection sends in one round over its 20 series, after each of the first 21 turnovers.
    #[test]
    fn each_turnover_replaces_the_oldest_tenth() {
        let template = Template::new(&looks(20, 20));
        let series = |turnovers| -> Vec<u64> {
            let mut bytes = Vec::new();
            template.append(7, 0, turnovers, &mut bytes);
            let body = &bytes[bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4..];
            let body: Value = serde_json::from_slice(body).unwrap();
            let metrics = body["metrics"].as_array().unwrap();
            metrics
                .iter()
                .map(|metric| metric["labels"]["series"].as_str().unwrap().parse().unwrap())
                .collect()
        };
        let mut expected: Vec<u64> = (0..20).collect();
        for turnovers in 1..=21 {
            let tenth = (turnovers as usize - 1) % 10;
            expected[tenth * 2..tenth * 2 + 2].iter_mut().for_each(|series| *series += 20);
            assert_eq!(series(turnovers), expected, "{turnovers}");
            assert!(expected.iter().all(|series| *series < series_met(20, turnovers)));
        }
    }

    #[test]
    fn without_series_there_are_no_labels() {
        let body = body_of(&Template::new(&looks(1, 0)), 7, 0);
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    }

    #[test]
    fn a_request_of_its_own_connection_asks_for_its_end() {
        let text = |lifetime| {
            let mut bytes = Vec::new();
            Template::new(&Looks { lifetime, ..looks(1, 1) }).append(0, 0, 0, &mut bytes);
            String::from_utf8(bytes).unwrap()
        };
        assert!(text(Lifetime::PerRequest).contains("\r\nConnection: close\r\n"));
        assert!(!text(Lifetime::Kept).contains("Connection"));
    }

    /// Each form with two samples of two labels, in the words of its own description.
    #[test]
    fn lines_are_as_each_server_wants_them() {
        let lines = |form| {
            let template = Template::new(&Looks { form, ..looks(2, 2) });
            let text = String::from_utf8(bytes_of(&template, 7, 0)).unwrap();
            let values: Vec<String> = (0..2).map(|nth| value_text(7, nth)).collect();
            (text, values)
        };
        let (text, v) = lines(Form::PrometheusText);
        let line =
            |series, value: &str| format!("bench_1{{connection=\"000007\",series=\"{series}\"}} {value}\n");
        assert_eq!(text, line("000000", &v[0]) + &line("000001", &v[1]));
        let (text, v) = lines(Form::InfluxLine);
        let line = |series, value: &str| format!("bench_1,connection=000007,series={series} value={value}\n");
        assert_eq!(text, line("000000", &v[0]) + &line("000001", &v[1]));
        let (text, v) = lines(Form::JsonLine);
        for (nth, line) in text.lines().enumerate() {
            let read: Value = serde_json::from_str(line).unwrap();
            assert_eq!(read["metric"]["__name__"], "bench_1");
            assert_eq!(read["metric"]["connection"], "000007");
            assert_eq!(read["metric"]["series"], format!("00000{nth}"));
            assert_eq!(read["values"][0].as_f64().unwrap(), v[nth].parse::<f64>().unwrap());
            assert_eq!(read["timestamps"][0].as_u64().unwrap(), 1_795_257_100_124 + nth as u64);
        }
    }

    #[test]
    fn without_series_every_form_is_one_series() {
        for (form, expected) in [
            (Form::PrometheusText, "bench_1 V\n"),
            (Form::InfluxLine, "bench_1 value=V\n"),
            (
                Form::JsonLine,
                "{\"metric\":{\"__name__\":\"bench_1\"},\"values\":[V],\"timestamps\":[1795257100124]}\n",
            ),
        ] {
            let template = Template::new(&Looks { form, ..looks(1, 0) });
            let text = String::from_utf8(bytes_of(&template, 7, 0)).unwrap();
            assert_eq!(text, expected.replace('V', &value_text(7, 0)));
        }
    }

    fn value_text(connection: u64, nth: u64) -> String {
        let hundredths = 1_000 + mix(connection << 40 ^ nth) % 9_000;
        format!("{:02}.{:02}", hundredths / 100, hundredths % 100)
    }

    /// Method: snappy by the crate that others use, protobuf by a reader written from its description.
    #[test]
    fn remote_write_is_snappy_and_protobuf() {
        let template = Template::new(&Looks { form: Form::RemoteWrite, ..looks(3, 2) });
        for sequence in [0, 1, 400] {
            let body = bytes_of(&template, 7, sequence);
            let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            let all_series = fields(&message);
            assert_eq!(all_series.len(), 3);
            for (nth, (field, series)) in (sequence * 3..).zip(all_series) {
                assert_eq!(field, 1);
                let of_series = fields(&series);
                let label = |at: usize| -> Vec<String> {
                    let texts = fields(&of_series[at].1).into_iter();
                    texts.map(|(_, text)| String::from_utf8(text).unwrap()).collect()
                };
                assert_eq!(label(0), ["__name__", "bench_1"]);
                assert_eq!(label(1), ["connection", "000007"]);
                assert_eq!(label(2), ["series".to_owned(), format!("{:06}", nth % 2)]);
                let sample = fields(&of_series[3].1);
                let value = f64::from_le_bytes(sample[0].1.clone().try_into().unwrap());
                assert_eq!(format!("{value:05.2}"), value_text(7, nth));
                assert_eq!(number(&sample[1].1), 1_795_257_100_124 + nth / 2);
            }
        }
    }

    /// The shape of a scrape that was kept for a while: ten labels, three samples a series, and copies as a compressor
    /// finds them. No series has a time twice, however the requests fall on its cycle.
    #[test]
    fn remote_write_with_many_labels_and_samples_is_mostly_copies() {
        let looks = Looks { form: Form::RemoteWrite, labels: 7, run: 3, ..looks(600, 70) };
        let template = Template::new(&looks);
        let mut seen = std::collections::HashSet::new();
        for sequence in 0..3 {
            let body = bytes_of(&template, 7, sequence);
            let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            assert!(body.len() * 2 < message.len(), "{} of {}", body.len(), message.len());
            let all_series = fields(&message);
            assert_eq!(all_series.len(), 200);
            for (_, series) in all_series {
                let of_series = fields(&series);
                assert_eq!(of_series.len(), 10 + 3);
                let digits = fields(&of_series[9].1)[1].1.clone();
                for (_, sample) in &of_series[10..] {
                    assert!(seen.insert((digits.clone(), number(&fields(sample)[1].1))));
                }
            }
        }
    }
}
