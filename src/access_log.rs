//! `--access-log`: one line per request, `[2025-09-17 13:45:23] POST /metrics - 202 Accepted - 3ms`.
//!
//! Lines of a turn go to the console together. Off costs nothing: then there is no [`AccessLog`].

use crate::console::{Console, Lines};
use crate::front::Reply;

/// The lines of one loop that are not told yet.
pub struct AccessLog {
    console: Console,
    lines: String,
    second: String,
    second_of_ms: i64,
}

impl AccessLog {
    /// A log that tells its lines there.
    pub fn new(console: Console) -> AccessLog {
        AccessLog { console, lines: String::new(), second: String::new(), second_of_ms: 0 }
    }

    /// Adds the line of an answered request.
    pub fn line(&mut self, reply: &Reply, status: u16, now_ms: i64, now_nanos: u64) {
        let Some(log) = &reply.log else { return };
        if self.second.is_empty() || now_ms.div_euclid(1_000) != self.second_of_ms {
            self.second_of_ms = now_ms.div_euclid(1_000);
            self.second = jiff::Timestamp::from_second(self.second_of_ms)
                .map(|at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
                .unwrap_or_default();
        }
        let millis = now_nanos.saturating_sub(reply.arrived_nanos) / 1_000_000;
        let reason = http::reason(status);
        self.lines += &format!("[{}] {} - {status} {reason} - {millis}ms\n", self.second, log.request);
    }

    /// Tells what has come together.
    pub fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.console.tell(Lines::Requests, &self.lines);
            self.lines.clear();
        }
    }
}
