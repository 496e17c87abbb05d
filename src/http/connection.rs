//! Whether a connection outlives a message, and whether that is said aloud.

use crate::headers::list_members;

/// What the `Connection` header asks for, and what the answer's is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The connection ends after the answer, which says `Connection: close`.
    Close,
    /// The connection stays, as HTTP/1.1 means it when nothing is said.
    KeepAlive,
    /// The connection stays, and the client named `keep-alive`; the answer echoes it.
    KeepAliveEchoed,
}

impl Connection {
    /// Whether another message may follow.
    pub fn is_kept(self) -> bool {
        self != Connection::Close
    }
}

/// What all `Connection` lines of one message name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
}

impl ConnectionOptions {
    /// Takes in one line's value.
    pub(crate) fn note(&mut self, value: &[u8]) {
        for option in list_members(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// The rule of RFC 9112 §9.3: `close` wins, then `keep-alive`, then the version's default.
    pub(crate) fn connection(self, minor_version: u8) -> Connection {
        match self {
            ConnectionOptions { close: true, .. } => Connection::Close,
            ConnectionOptions { keep_alive: true, .. } => Connection::KeepAliveEchoed,
            _ if minor_version == 0 => Connection::Close,
            _ => Connection::KeepAlive,
        }
    }
}
