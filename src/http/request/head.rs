//! A request's head, once it is whole: httparse splits it, this decides what it means.

use super::{Method, Refusal, Request};
use crate::connection::ConnectionOptions;
use crate::framing::{Framing, FramingHeaders};
use crate::headers::{Headers, name_bit};
use crate::limits::{HEADERS_MAX, Limits};
use std::mem::MaybeUninit;

/// What a whole head says.
pub(super) struct Head<'b> {
    /// The request, its body still empty.
    pub(super) request: Request<'b>,
    pub(super) framing: Framing,
    /// The client holds the body back until it reads `100 Continue`.
    pub(super) expects_continue: bool,
}

impl<'b> Head<'b> {
    /// Reads `head`, which begins with the request line and ends with the only blank line in it; every LF in it
    /// follows a CR.
    pub(super) fn parse(head: &'b [u8], limits: &Limits) -> Result<Head<'b>, Refusal> {
        // Not initialised: clearing 3 KiB would cost more than parsing the usual head.
        let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut lines) {
            // Ending elsewhere would mean that httparse sees another blank line than we did.
            Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
            Ok(_) => return Err(Refusal::RequestLineInvalid),
            Err(error) => return Err(refusal(error, head)),
        }
        let (Some(name), Some(target), Some(minor_version)) = (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Refusal::RequestLineInvalid);
        };
        let method = Method::from_name(name);
        let (path, query) = split_target(method, target)?;

        let mut names = 0;
        let mut host_seen = false;
        let mut expects_continue = false;
        let mut connection = ConnectionOptions::default();
        let mut framing = FramingHeaders::default();
        for line in parsed.headers.iter() {
            names |= name_bit(line.name);
            match line.name.len() {
                4 if line.name.eq_ignore_ascii_case("host") => {
                    if host_seen {
                        return Err(Refusal::HostTwice);
                    }
                    if !line.value.iter().all(|&b| HOST_BYTES[usize::from(b)]) {
                        return Err(Refusal::HostInvalid);
                    }
                    host_seen = true;
                }
                6 if line.name.eq_ignore_ascii_case("expect") => {
                    if !line.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::ExpectationUnsupported);
                    }
                    // A 1.0 client would take the interim answer for the final one (RFC 9110 §10.1.1).
                    expects_continue = minor_version > 0;
                }
                10 if line.name.eq_ignore_ascii_case("connection") => connection.note(line.value),
                14 if line.name.eq_ignore_ascii_case("content-length") => {
                    framing.note_content_length(line.value)?;
                }
                17 if line.name.eq_ignore_ascii_case("transfer-encoding") => {
                    framing.note_transfer_encoding(line.value)?;
                }
                _ => {}
            }
        }
        if !host_seen && minor_version > 0 {
            return Err(Refusal::HostMissing);
        }

        // `METHOD target HTTP/1.1 CRLF` in exactly these bytes, or httparse would have refused it.
        let request_line_bytes = name.len() + 1 + target.len() + 1 + "HTTP/1.1\r\n".len();
        let lines = &head[request_line_bytes..head.len() - "\r\n".len()];
        Ok(Head {
            request: Request {
                method,
                path,
                query,
                minor_version,
                connection: connection.connection(minor_version),
                headers: Headers::new(lines, names),
                body: &mut [],
            },
            framing: framing.framing(minor_version, limits.body_bytes_max)?,
            expects_continue,
        })
    }
}

/// Path and query of a request target (RFC 9112 §3.2): a path, an address, or the `*` of OPTIONS.
/// The authority of an address is checked and forgotten: one process serves every name.
fn split_target(method: Method, target: &str) -> Result<(&str, &str), Refusal> {
    if !target.is_ascii() || memchr::memchr(b'#', target.as_bytes()).is_some() {
        return Err(Refusal::TargetInvalid);
    }
    if target.starts_with('/') {
        return Ok(target.split_once('?').unwrap_or((target, "")));
    }
    if target == "*" && method == Method::Options {
        return Ok((target, ""));
    }
    let (scheme, address) = target.split_once("://").ok_or(Refusal::TargetInvalid)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refusal::TargetInvalid);
    }
    let (authority, path) = address.split_at(address.find(['/', '?']).unwrap_or(address.len()));
    if authority.is_empty() || !authority.bytes().all(|b| HOST_BYTES[usize::from(b)]) {
        return Err(Refusal::TargetInvalid);
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// The bytes of `uri-host [ ":" port ]` (RFC 3986 §3.2.2), less the comma, which would let two hosts pass as
/// one list, and the `@` of user names.
static HOST_BYTES: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        allowed[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
            || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=');
        byte += 1;
    }
    allowed
};

/// Names the cause more closely than httparse does. Only the way of a refused request passes here.
fn refusal(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::Token | httparse::Error::Status => Refusal::RequestLineInvalid,
        httparse::Error::Version if names_other_version(head) => Refusal::VersionUnsupported,
        httparse::Error::Version => Refusal::RequestLineInvalid,
        httparse::Error::NewLine => Refusal::BareCarriageReturn,
        httparse::Error::HeaderValue if has_bare_carriage_return(head) => Refusal::BareCarriageReturn,
        httparse::Error::HeaderValue => Refusal::HeaderValueInvalid,
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders,
        httparse::Error::HeaderName => head
            .split(|&b| b == b'\n')
            .skip(1)
            .find_map(|line| {
                let name = line.split(|&b| b == b':').next().unwrap_or(line);
                if line.starts_with(b" ") || line.starts_with(b"\t") {
                    Some(Refusal::HeaderFolded)
                } else if name.len() < line.len() && (name.ends_with(b" ") || name.ends_with(b"\t")) {
                    Some(Refusal::SpaceBeforeColon)
                } else {
                    None
                }
            })
            .unwrap_or(Refusal::HeaderNameInvalid),
    }
}

/// Whether the request line ends in a well-formed version, which must then be one that we do not speak.
fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|&b| b == b'\r').next().unwrap_or(head);
    match line.rsplit(|&b| b == b' ').next() {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]) => {
            major.is_ascii_digit() && minor.is_ascii_digit() && !matches!((major, minor), (b'1', b'0' | b'1'))
        }
        _ => false,
    }
}

fn has_bare_carriage_return(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\r', head).any(|at| head.get(at + 1) != Some(&b'\n'))
}
