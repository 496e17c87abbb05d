//! One request: what its head says, and its body.
//!
//! Always: a [`Request`] is framed beyond doubt, its path is ASCII and begins with `/` (or is the `*` of
//! OPTIONS), its header lines hold no control characters.
//! Read next: `request/decode.rs` for pieces and pipelines, `request/head.rs` for what is refused.

use crate::{Connection, Headers};

mod refusal;
pub use refusal::Refusal;

mod head;

mod decode;
pub use decode::{Decoded, Decoder};

#[cfg(test)]
mod tests;

/// The methods that anything here answers to; their names are written in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// Any other token.
    Other,
}

impl Method {
    /// The name as it is written; a token that nothing here answers to is `OTHER`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other => "OTHER",
        }
    }

    fn from_name(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }
}

/// One whole request, lying in the buffer from which it was decoded.
#[derive(Debug)]
pub struct Request<'b> {
    /// What is to be done.
    pub method: Method,
    /// The target's path, still percent-encoded ([`crate::decode_path`]); `*` only with OPTIONS.
    pub path: &'b str,
    /// What stands behind the target's `?`, still encoded ([`crate::parameters`]); empty when there is none.
    pub query: &'b str,
    /// 0 or 1: the version is HTTP/1.0 or HTTP/1.1.
    pub minor_version: u8,
    /// Whether the client lets the connection live, and whether the answer must say so.
    pub connection: Connection,
    /// The header lines.
    pub headers: Headers<'b>,
    /// The body, chunks joined, content encoding untouched. Writable, for parsers that work in place.
    pub body: &'b mut [u8],
}

impl<'b> Request<'b> {
    /// The value of the first header of that name, in any case; see [`Headers::get`].
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.get(name)
    }
}
