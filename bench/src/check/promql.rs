//! What a server that speaks PromQL has stored: the count of all samples of the name, in its own words.
//!
//! Forms with timestamps give each sample of a connection the next millisecond, so a fast run's may lie in the future:
//! the question reaches an hour either way.

use super::{CheckError, count_in};
use crate::fetch;
use std::net::SocketAddr;

/// From the query's moment back; twice what it lies ahead of the run.
const RANGE: &str = "2h";
const AHEAD_S: i64 = 3_600;

/// Samples of all series whose name begins with the metric: VictoriaMetrics appends a field's name to a line's.
pub(super) fn stored(
    addr: SocketAddr,
    metric: &str,
    now_ms: i64,
    flush: Option<&str>,
) -> Result<u64, CheckError> {
    if let Some(path) = flush {
        fetch::get(addr, path).map_err(CheckError::Fetch)?;
    }
    let time = now_ms / 1_000 + AHEAD_S;
    let query = format!("sum(count_over_time({{__name__=~\"{metric}.*\"}}[{RANGE}]))");
    let path = format!("/api/v1/query?nocache=1&time={time}&query={}", escaped(&query));
    let (status, body) = fetch::get(addr, &path).map_err(CheckError::Fetch)?;
    count_in(status, &body, count)
}

/// The one value of an instant vector; nothing in it is a count of 0.
fn count(body: &[u8]) -> Option<u64> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    match answer.pointer("/data/result")?.as_array()?.as_slice() {
        [] => Some(0),
        [one] => one.pointer("/value/1")?.as_str()?.parse::<f64>().ok().map(|count| count as u64),
        _ => None,
    }
}

/// All but letters, digits and a few others as `%XX`.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::{Reply, Responder};

    #[test]
    fn the_count_is_asked_for_after_a_flush_and_an_empty_answer_is_none() {
        let server = Responder::new(|asked| match asked.path {
            "/flush" => Reply::Answer(200, "", String::new()),
            "/api/v1/query" => {
                assert!(
                    asked.query.contains("bench_x.%2A") && asked.query.contains("time=4600"),
                    "{}",
                    asked.query
                );
                let result = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"120"]}]}}"#;
                Reply::Answer(200, "", result.to_owned())
            }
            other => panic!("{other}"),
        });
        assert_eq!(stored(server.addr(), "bench_x", 1_000_000, Some("/flush")).unwrap(), 120);
        assert_eq!(count(br#"{"data":{"result":[]}}"#), Some(0));
        assert_eq!(count(br#"{"status":"error"}"#), None);
    }
}
