//! What came instead of requests, counted by cause: so that a scan, a client with the wrong scheme and one that is cut
//! off in the middle can be told apart in `GET /metrics`.
//!
//! Not here: what such a client is told (`api.rs`), whose bytes they were.

use super::Counter;
use http::{FramingError, Refusal};

/// Each ends its connection.
#[derive(Debug, Default)]
pub struct BadMessages {
    tls: Counter,
    head_too_large: Counter,
    body_too_large: Counter,
    malformed: Counter,
    head_too_slow: Counter,
    body_too_slow: Counter,
}

impl BadMessages {
    /// Bytes were not taken as a request.
    pub fn note(&self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::TlsOnPlainPort => &self.tls,
            Refusal::HeadTooLarge { .. } | Refusal::TooManyHeaders => &self.head_too_large,
            Refusal::Framing(FramingError::BodyTooLarge { .. }) => &self.body_too_large,
            _ => &self.malformed,
        };
        counter.add(1);
    }

    /// A head did not come to its end in time.
    pub fn note_slow_head(&self) {
        self.head_too_slow.add(1);
    }

    /// A body did not come to its end in time.
    pub fn note_slow_body(&self) {
        self.body_too_slow.add(1);
    }

    /// Those that were refused for what they hold.
    pub fn refused(&self) -> [(&'static str, &Counter); 4] {
        [
            ("tls", &self.tls),
            ("head_too_large", &self.head_too_large),
            ("body_too_large", &self.body_too_large),
            ("malformed", &self.malformed),
        ]
    }

    /// Those that came too slowly, by the part that did.
    pub fn timed_out(&self) -> [(&'static str, &Counter); 2] {
        [("head", &self.head_too_slow), ("body", &self.body_too_slow)]
    }
}
