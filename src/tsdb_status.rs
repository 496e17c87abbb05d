//! `GET /api/v1/status/tsdb`: which metric names, labels and label pairs have the most series, in Prometheus' shape.
//!
//! It counts the series in memory, as Prometheus does: those that have samples not yet on disk or had some lately.
//! Not here: how a shard counts, and how counts of shards become one (`storage::store::Cardinality`).

use query::ParameterError;
use query::json::write_text;
use std::borrow::Cow;
use storage::store::Cardinality;

/// How many of each are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TsdbStatus {
    limit: usize,
}

/// Without a `limit`.
const LIMIT_DEFAULT: usize = 10;
/// With one, at most: what is told of several shards is exact for the first ones.
const LIMIT_MAX: usize = 100;

impl TsdbStatus {
    /// Reads percent-decoded parameters: `limit`. Unknown ones are ignored; of a repeated one the last counts.
    pub fn from_parameters<'a>(
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<TsdbStatus, ParameterError> {
        let Some((_, text)) = pairs.filter(|(key, _)| key == "limit").last() else {
            return Ok(TsdbStatus { limit: LIMIT_DEFAULT });
        };
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let invalid =
            ParameterError::Invalid { parameter: "limit", expected: "a whole number from 1 to 100" };
        limit.map(|limit| TsdbStatus { limit }).ok_or(invalid)
    }

    /// The answer: what all executors counted, as one.
    pub fn render(&self, counted: Vec<Cardinality>) -> Vec<u8> {
        let all = Cardinality::merged(counted);
        let (first_ms, last_ms) = all.range_ms.unwrap_or((0, 0));
        let head = format!(
            r#"{{"status":"success","data":{{"headStats":{{"numSeries":{},"numLabelPairs":{},"chunkCount":{},"minTime":{first_ms},"maxTime":{last_ms}}}"#,
            all.series, all.pairs, all.chunks
        );
        let mut body = head.into_bytes();
        for (key, counts) in [
            ("seriesCountByMetricName", all.series_by_name(self.limit)),
            ("labelValueCountByLabelName", all.values_by_label(self.limit)),
            ("memoryInBytesByLabelName", all.bytes_by_label(self.limit)),
            ("seriesCountByLabelValuePair", all.series_by_pair(self.limit)),
        ] {
            body.extend_from_slice(format!(",\"{key}\":[").as_bytes());
            for (at, (name, count)) in counts.into_iter().enumerate() {
                body.extend_from_slice(if at > 0 { b",{\"name\":" } else { b"{\"name\":" });
                write_text(name, &mut body);
                body.extend_from_slice(format!(",\"value\":{count}}}").as_bytes());
            }
            body.push(b']');
        }
        body.extend_from_slice(b"}}");
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<usize, String> {
        let pairs = pairs.iter().map(|(key, value)| (Cow::from(*key), Cow::from(*value)));
        let read = TsdbStatus::from_parameters(pairs);
        read.map(|status| status.limit).map_err(|error| error.to_string())
    }

    #[test]
    fn a_limit_is_a_number_or_ten() {
        assert_eq!(read(&[("other", "x")]), Ok(10));
        assert_eq!(read(&[("limit", "7"), ("limit", "100")]), Ok(100));
        for wrong in ["0", "101", "-1", "many", ""] {
            assert_eq!(read(&[("limit", wrong)]), Err("invalid parameter: limit".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_told_of_nothing() {
        let body = TsdbStatus { limit: 10 }.render(vec![Cardinality::default(), Cardinality::default()]);
        let expected = r#"{"status":"success","data":{"headStats":{"numSeries":0,"numLabelPairs":0,"chunkCount":0,"minTime":0,"maxTime":0},"seriesCountByMetricName":[],"labelValueCountByLabelName":[],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[]}}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
}
