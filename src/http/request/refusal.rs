//! Why bytes were not taken as a request. Every refusal ends the connection: behind bytes that are not
//! understood nobody knows where the next request starts.

use crate::{FramingError, HEADERS_MAX};
use std::fmt;

/// Why bytes are no acceptable request. The text says what to change; the class named is the status that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first byte is that of a TLS handshake. 400.
    TlsOnPlainPort,
    /// The request line is not `METHOD target HTTP/1.1`. 400.
    RequestLineInvalid,
    /// A version other than HTTP/1.0 and HTTP/1.1. 505.
    VersionUnsupported,
    /// The target is no path, no `http://` address, and not the `*` of OPTIONS. 400.
    TargetInvalid,
    /// A CR stands outside a line end. 400.
    BareCarriageReturn,
    /// A header's name is empty or holds a character that names do not have, or its colon is missing. 400.
    HeaderNameInvalid,
    /// White space between a header's name and its colon. 400.
    SpaceBeforeColon,
    /// A header line begins with white space (the obsolete folding). 400.
    HeaderFolded,
    /// A header's value holds a control character. 400.
    HeaderValueInvalid,
    /// More header lines than [`HEADERS_MAX`]. 431.
    TooManyHeaders,
    /// The head is larger than allowed. 431.
    HeadTooLarge {
        /// The bytes allowed.
        bytes_max: usize,
    },
    /// HTTP/1.1 without `Host`. 400.
    HostMissing,
    /// Two `Host` lines. 400.
    HostTwice,
    /// A `Host` that is no host name or address. 400.
    HostInvalid,
    /// An `Expect` other than `100-continue`. 417.
    ExpectationUnsupported,
    /// Where a line or the body ends is in doubt, or too far. The class is the cause's.
    Framing(FramingError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TlsOnPlainPort => "this port speaks plain HTTP; use http:// instead of https://",
            Refusal::RequestLineInvalid => "the request line must read: METHOD /path HTTP/1.1",
            Refusal::VersionUnsupported => "only HTTP/1.1 and HTTP/1.0 are spoken here",
            Refusal::TargetInvalid => {
                "the target must be a path or an http:// address, percent-encoded, without fragment"
            }
            Refusal::BareCarriageReturn => "a CR stands outside a line end; end lines in CRLF",
            Refusal::HeaderNameInvalid => "a header line is not of the form Name: value",
            Refusal::SpaceBeforeColon => "remove the white space between a header's name and its colon",
            Refusal::HeaderFolded => "a header line begins with white space; write every header on one line",
            Refusal::HeaderValueInvalid => "a header's value holds a control character",
            Refusal::TooManyHeaders => return write!(f, "more than {HEADERS_MAX} header lines; send fewer"),
            Refusal::HeadTooLarge { bytes_max } => {
                return write!(f, "the head is larger than {bytes_max} bytes; send fewer or shorter headers");
            }
            Refusal::HostMissing => "HTTP/1.1 needs a Host header",
            Refusal::HostTwice => "Host is given twice; give it once",
            Refusal::HostInvalid => "Host must be one host name or address, with a port if need be",
            Refusal::ExpectationUnsupported => "the only expectation met here is: 100-continue",
            Refusal::Framing(cause) => return cause.fmt(f),
        })
    }
}

impl std::error::Error for Refusal {}

impl From<FramingError> for Refusal {
    fn from(cause: FramingError) -> Refusal {
        Refusal::Framing(cause)
    }
}
