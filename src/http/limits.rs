//! The bounds that keep one connection's memory finite.

/// Header lines of one message at most; more are refused.
pub const HEADERS_MAX: usize = 100;

/// How large a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes from the start line to the blank line, both included. Bounds the trailer of a chunked body too.
    pub head_bytes_max: usize,
    /// Bytes of a body once its chunks are joined.
    /// The framing between chunks may add as much again plus `head_bytes_max`, so an unfinished message never
    /// occupies more than twice this plus a few heads.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    /// 16 KiB of head, 16 MiB of body.
    fn default() -> Limits {
        Limits { head_bytes_max: 16 << 10, body_bytes_max: 16 << 20 }
    }
}
