//! Requests to the demo's own server, over loopback, one at a time.

use super::Outcome;
use http::{DecodedResponse, Limits, Method, ResponseDecoder};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes of an answer at most; an hour of readings is far below.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bars of a graph.
const GRAPH_COLUMNS: usize = 60;

/// One kept connection.
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Connects to the server on loopback.
    pub fn connect(port: u16) -> std::io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client { stream })
    }

    /// The body of the answer to a `GET`.
    pub fn get(&mut self, target: &str) -> Outcome<String> {
        self.exchange(Method::Get, target, "")
    }

    /// The body of the answer to a `POST`.
    pub fn post(&mut self, target: &str, body: &str) -> Outcome<String> {
        self.exchange(Method::Post, target, body)
    }

    fn exchange(&mut self, method: Method, target: &str, body: &str) -> Outcome<String> {
        let (name, length) = (method.name(), body.len());
        write!(
            self.stream,
            "{name} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut decoder = ResponseDecoder::default();
        let limits = Limits { body_bytes_max: ANSWER_BYTES_MAX, ..Limits::default() };
        let mut bytes = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        loop {
            if let DecodedResponse::Response { response, .. } = decoder.decode(&mut bytes, method, &limits)? {
                let text = String::from_utf8_lossy(response.body).into_owned();
                return if response.status < 300 { Ok(text) } else { Err(text.into()) };
            }
            match self.stream.read(&mut piece)? {
                0 => return Err("the server closed the connection".into()),
                read => bytes.extend_from_slice(&piece[..read]),
            }
        }
    }

    /// How many rules fire, as the server's own metrics tell.
    pub fn rules_firing(&mut self) -> Outcome<u64> {
        let page = self.get("/metrics")?;
        let of_shard = |line: &str| {
            line.strip_prefix("ringwatch_alert_rules_firing{")?.rsplit(' ').next()?.parse::<u64>().ok()
        };
        Ok(page.lines().filter_map(of_shard).sum::<u64>())
    }

    /// A line of bars: the average of each minute.
    pub fn graph(&mut self, name: &str, start_ms: i64, end_ms: i64) -> Outcome<String> {
        let rows = self.get(&format!("/query?name={name}&start={start_ms}&end={end_ms}"))?;
        let mut columns = [(0.0, 0u32); GRAPH_COLUMNS];
        for (timestamp, value) in rows.split('{').filter_map(row) {
            let at = (timestamp - start_ms) * GRAPH_COLUMNS as i64 / (end_ms - start_ms).max(1);
            let (sum, count) = &mut columns[at.clamp(0, GRAPH_COLUMNS as i64 - 1) as usize];
            *sum += value;
            *count += 1;
        }
        Ok(columns.iter().map(|(sum, count)| bar(*sum, *count)).collect())
    }
}

/// A percentage as a bar of eighths; nothing where there is nothing.
fn bar(sum: f64, count: u32) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if count == 0 { ' ' } else { BARS[((sum / f64::from(count) / 12.5) as usize).min(7)] }
}

/// Time and value of one row of an answer.
fn row(text: &str) -> Option<(i64, f64)> {
    let after = |key: &str| {
        let (_, rest) = text.split_once(key)?;
        rest.split([',', '}']).next()
    };
    Some((after("\"timestamp\":")?.parse().ok()?, after("\"value\":")?.parse().ok()?))
}

/// A target with what may not stand in one escaped.
pub fn escaped(target: &str) -> String {
    target.replace('{', "%7B").replace('}', "%7D").replace('"', "%22")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_become_bars() {
        let answer = r#"[{"name":"c","value":85.5,"timestamp":17,"labels":{"source":"proc"}},{"name":"c","value":0,"timestamp":18}]"#;
        assert_eq!(answer.split('{').filter_map(row).collect::<Vec<_>>(), [(17, 85.5), (18, 0.0)]);
        assert_eq!((bar(0.0, 0), bar(0.0, 3), bar(300.0, 3), bar(100.0, 2)), (' ', '▁', '█', '▅'));
        assert_eq!(escaped("/q?match={a=\"b\"}"), "/q?match=%7Ba=%22b%22%7D");
    }
}
