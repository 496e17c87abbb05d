//! The request codec against RFC 9112, against pieces, and against attackers.

use super::*;
use crate::lines::work;
use crate::{FramingError, HEADERS_MAX, Limits};
use proptest::prelude::*;

const LIMITS: Limits = Limits { head_bytes_max: 512, body_bytes_max: 1_000 };

/// A chunked request with that body, as bytes.
macro_rules! chunked {
    ($body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", $body).as_bytes()
    };
}

/// A request freed from its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    method: Method,
    path: String,
    query: String,
    minor_version: u8,
    connection: Connection,
    client_id: Option<Vec<u8>>,
    body: Vec<u8>,
}

/// What a connection makes of bytes that arrive in pieces: its requests, then a refusal or the bytes left over.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    requests: Vec<Owned>,
    refusal: Option<Refusal>,
    bytes_left: usize,
}

/// Plays the caller: keeps the bytes of an unfinished request, drops those of a whole one.
fn receive<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, limits: &Limits) -> Outcome {
    let mut outcome = Outcome { requests: Vec::new(), refusal: None, bytes_left: 0 };
    let mut decoder = Decoder::default();
    let mut buf = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        while !buf.is_empty() {
            let bytes_here = buf.len();
            match decoder.decode(&mut buf, limits) {
                Ok(Decoded::Request { request, consumed }) => {
                    assert!(0 < consumed && consumed <= bytes_here);
                    outcome.requests.push(Owned {
                        method: request.method,
                        path: request.path.to_owned(),
                        query: request.query.to_owned(),
                        minor_version: request.minor_version,
                        connection: request.connection,
                        client_id: request.header("x-client-id").map(<[u8]>::to_vec),
                        body: request.body.to_vec(),
                    });
                    buf.drain(..consumed);
                }
                Ok(Decoded::Partial { bytes_wanted, .. }) => {
                    assert!(bytes_wanted > 0);
                    break;
                }
                Err(refusal) => {
                    outcome.refusal = Some(refusal);
                    return outcome;
                }
            }
        }
    }
    outcome.bytes_left = buf.len();
    outcome
}

fn whole(bytes: &[u8]) -> Outcome {
    receive([bytes], &LIMITS)
}

fn one(bytes: &[u8]) -> Owned {
    let mut outcome = whole(bytes);
    assert_eq!((outcome.requests.len(), outcome.refusal, outcome.bytes_left), (1, None, 0));
    outcome.requests.remove(0)
}

/// Requests that two readers could understand differently, or that are malformed, are refused for the reason
/// named, and no request is made of any part of them; also when they arrive byte by byte.
#[test]
fn ambiguous_and_malformed_requests_are_refused() {
    use FramingError::*;
    use Refusal::*;
    let cases: &[(&str, &[u8], Refusal)] = &[
        // Two lengths.
        ("length and chunked", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Framing(LengthAndChunked)),
        ("chunked and length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Framing(LengthAndChunked)),
        ("chunked and length 0", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", Framing(LengthAndChunked)),
        ("two different lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", Framing(ContentLengthTwice)),
        ("two equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Framing(ContentLengthTwice)),
        ("two lengths in different case", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 0\r\n\r\nhello", Framing(ContentLengthTwice)),
        ("a list of equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", Framing(ContentLengthInvalid)),
        // Lengths that parsers read differently.
        ("plus sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", Framing(ContentLengthInvalid)),
        ("minus sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", Framing(ContentLengthInvalid)),
        ("hexadecimal length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", Framing(ContentLengthInvalid)),
        ("space within", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\nhellohello", Framing(ContentLengthInvalid)),
        ("fraction", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello", Framing(ContentLengthInvalid)),
        ("exponent", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5e0\r\n\r\nhello", Framing(ContentLengthInvalid)),
        ("underscore", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nhellohello", Framing(ContentLengthInvalid)),
        ("quoted", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\nhello", Framing(ContentLengthInvalid)),
        ("empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello", Framing(ContentLengthInvalid)),
        ("digits of another script", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ٥\r\n\r\nhello".as_bytes(), Framing(ContentLengthInvalid)),
        ("overflow to a small number", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello", Framing(ContentLengthInvalid)),
        ("known at once to be too large", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", Framing(BodyTooLarge { bytes_max: 1_000 })),
        // Transfer codings that one side may not know.
        ("chunked twice in a list", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Framing(TransferEncodingUnsupported)),
        ("chunked twice in lines", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Framing(TransferEncodingUnsupported)),
        ("identity behind chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", Framing(TransferEncodingUnsupported)),
        ("gzip before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Framing(TransferEncodingUnsupported)),
        ("xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Framing(TransferEncodingUnsupported)),
        ("chunked with a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Framing(TransferEncodingUnsupported)),
        ("vertical tab before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", HeaderValueInvalid),
        ("empty coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", Framing(TransferEncodingUnsupported)),
        ("identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Framing(TransferEncodingUnsupported)),
        ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Framing(ChunkedInHttp10)),
        // Names and lines that one side may overlook.
        ("space before the colon", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", SpaceBeforeColon),
        ("tab before the colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", SpaceBeforeColon),
        ("folded value", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 5\r\n\r\nhello", HeaderFolded),
        ("folded coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n", HeaderFolded),
        ("white space before the first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", HeaderFolded),
        ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length 5\r\n\r\n", HeaderNameInvalid),
        ("no name", b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", HeaderNameInvalid),
        ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: x\r\n\r\n", HeaderNameInvalid),
        ("name that is not ASCII", b"GET / HTTP/1.1\r\nHost: a\r\nX\xe4: x\r\n\r\n", HeaderNameInvalid),
        ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", HeaderValueInvalid),
        ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", HeaderValueInvalid),
        ("CR within a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 5\r\n\r\n", BareCarriageReturn),
        ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\nX: y\r\n\r\n", BareCarriageReturn),
        ("CR before the blank line", b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", BareCarriageReturn),
        ("LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", Framing(BareLineFeed)),
        ("LF behind a header", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", Framing(BareLineFeed)),
        ("LF as blank line", b"GET / HTTP/1.1\r\nHost: a\r\n\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n", Framing(BareLineFeed)),
        ("LF before the request", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing(BareLineFeed)),
        ("two empty lines before the request", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("CR before the request", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("empty line, then LF", b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing(BareLineFeed)),
        // The request line.
        ("HTTP/0.9", b"GET /\r\n\r\n", RequestLineInvalid),
        ("two spaces before the target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("space behind the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BareCarriageReturn),
        ("space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("tab for a space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("space before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("version 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", VersionUnsupported),
        ("version 1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", VersionUnsupported),
        ("version 0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", VersionUnsupported),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VersionUnsupported),
        ("version in small letters", b"GET / http/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("version with more digits", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", BareCarriageReturn),
        ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00", TlsOnPlainPort),
        // Targets and hosts.
        ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", TargetInvalid),
        ("asterisk with GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", TargetInvalid),
        ("relative path", b"GET metrics HTTP/1.1\r\nHost: a\r\n\r\n", TargetInvalid),
        ("fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", TargetInvalid),
        ("target that is not ASCII", "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(), TargetInvalid),
        ("target that is not UTF-8", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", RequestLineInvalid),
        ("address without a host", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", TargetInvalid),
        ("address with a user", b"GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n", TargetInvalid),
        ("address of another scheme", b"GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n", TargetInvalid),
        ("no host", b"GET / HTTP/1.1\r\nX: y\r\n\r\n", HostMissing),
        ("no header at all", b"GET / HTTP/1.1\r\n\r\n", HostMissing),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", HostTwice),
        ("two equal hosts", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", HostTwice),
        ("two hosts in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", HostTwice),
        ("a list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", HostInvalid),
        ("host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HostInvalid),
        ("host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", HostInvalid),
        ("another expectation", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\nx", ExpectationUnsupported),
        // Chunks.
        ("chunk size with a prefix", chunked!("0x5\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("chunk size with a sign", chunked!("+5\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("negative chunk size", chunked!("-5\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("no chunk size", chunked!("\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("chunk size that is an extension only", chunked!(";a=b\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("space before a chunk size", chunked!(" 5\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("space behind a chunk size", chunked!("5 \r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("underscore in a chunk size", chunked!("1_0\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("letter behind a chunk size", chunked!("5g\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("chunk size overflow", chunked!("10000000000000005\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("NUL in an extension", chunked!("5;a\0\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("CR in an extension", chunked!("5;a\rb\r\nhello\r\n0\r\n\r\n"), Framing(ChunkSizeInvalid)),
        ("LF behind a chunk size", chunked!("5\nhello\r\n0\r\n\r\n"), Framing(BareLineFeed)),
        ("LF in an extension", chunked!("5;a\nb\r\nhello\r\n0\r\n\r\n"), Framing(BareLineFeed)),
        ("LF behind a chunk", chunked!("5\r\nhello\n0\r\n\r\n"), Framing(ChunkEndMissing)),
        ("nothing behind a chunk", chunked!("5\r\nhello0\r\n\r\n"), Framing(ChunkEndMissing)),
        ("CR only behind a chunk", chunked!("5\r\nhello\r0\r\n\r\n"), Framing(ChunkEndMissing)),
        ("LF behind the last chunk", chunked!("0\n\r\n"), Framing(BareLineFeed)),
        ("LF as the end of the trailer", chunked!("0\r\n\n"), Framing(BareLineFeed)),
        ("trailer without a colon", chunked!("0\r\nGET / HTTP/1.1\r\n\r\n"), Framing(TrailerInvalid)),
        ("trailer with a space before the colon", chunked!("0\r\nX : y\r\n\r\n"), Framing(TrailerInvalid)),
        ("folded trailer", chunked!("0\r\nX: y\r\n z: a\r\n\r\n"), Framing(TrailerInvalid)),
        ("CR in a trailer", chunked!("0\r\nX: y\rz\r\n\r\n"), Framing(TrailerInvalid)),
        ("one chunk too large", chunked!("3e9\r\n"), Framing(BodyTooLarge { bytes_max: 1_000 })),
        ("chunk size of all the memory", chunked!("5\r\nhello\r\nffffffffffffffff\r\n"), Framing(BodyTooLarge { bytes_max: 1_000 })),
    ];
    for (reason, bytes, refusal) in cases {
        for outcome in [whole(bytes), receive(bytes.chunks(1), &LIMITS)] {
            assert_eq!(outcome.refusal, Some(*refusal), "{reason}");
            assert_eq!(outcome.requests, [], "{reason}");
        }
        assert!(refusal.to_string().len() > 10, "{reason}");
    }
    assert!(cases.len() >= 100);
}

#[test]
fn targets_are_split_into_path_and_query() {
    for (method, target, path, query) in [
        ("GET", "/", "/", ""),
        ("GET", "/query?name=cpu&x=%20?", "/query", "name=cpu&x=%20?"),
        ("GET", "/query?", "/query", ""),
        ("GET", "/query?match={host=\"web1\"}", "/query", "match={host=\"web1\"}"),
        ("GET", "//a//b", "//a//b", ""),
        ("GET", "/go?to=http://b/", "/go", "to=http://b/"),
        ("GET", "http://a:8080/query?x=1", "/query", "x=1"),
        ("GET", "HTTPS://[::1]:80", "/", ""),
        ("GET", "http://a?x=/1", "/", "x=/1"),
        ("OPTIONS", "*", "*", ""),
    ] {
        let request = one(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!((request.path.as_str(), request.query.as_str()), (path, query), "{target}");
    }
}

#[test]
fn methods_are_told_apart_by_case() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("PATCH", Method::Other),
        ("get", Method::Other),
        ("!x", Method::Other),
    ] {
        assert_eq!(one(format!("{name} / HTTP/1.1\r\nHost:\r\n\r\n").as_bytes()).method, method, "{name}");
    }
}

#[test]
fn the_connection_is_kept_as_version_and_options_say() {
    use Connection::*;
    for (version, lines, connection) in [
        ("1.1", "", KeepAlive),
        ("1.1", "Connection: keep-alive\r\n", KeepAliveEchoed),
        ("1.1", "Connection: Close\r\n", Close),
        ("1.1", "Connection: keep-alive, close\r\n", Close),
        ("1.1", "connection: upgrade ,\tCLOSE\r\n", Close),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", Close),
        ("1.1", "Connection: closed\r\n", KeepAlive),
        ("1.1", "X-Connectio: close\r\n", KeepAlive),
        ("1.0", "", Close),
        ("1.0", "Connection: Keep-Alive\r\n", KeepAliveEchoed),
        ("1.0", "Connection: foo,keep-alive\r\n", KeepAliveEchoed),
        ("1.0", "Connection: keep-alive, close\r\n", Close),
    ] {
        let request = one(format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n").as_bytes());
        assert_eq!(request.connection, connection, "{version} {lines}");
        assert_eq!(request.connection.is_kept(), connection != Close);
        assert_eq!(request.minor_version.to_string(), version[2..]);
    }
}

#[test]
fn one_empty_line_before_a_request_is_ignored() {
    let bytes = b"\r\nPOST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\r\nGET /b HTTP/1.0\r\n\r\n";
    let outcome = whole(bytes);
    let paths: Vec<&str> = outcome.requests.iter().map(|r| r.path.as_str()).collect();
    assert_eq!((paths, outcome.refusal, outcome.bytes_left), (vec!["/a", "/b"], None, 0));
    assert_eq!(receive(bytes.chunks(1), &LIMITS), outcome);
}

#[test]
fn chunks_are_joined_and_their_extensions_and_trailers_dropped() {
    for (bytes, body) in [
        (chunked!("0\r\n\r\n"), ""),
        (chunked!("000\r\n\r\n"), ""),
        (chunked!("5\r\nhello\r\n0\r\n\r\n"), "hello"),
        (chunked!("5;a=\"b\";c\r\nhello\r\n00000006\r\n world\r\n1;\r\n!\r\n0;x\r\n\r\n"), "hello world!"),
        (
            chunked!("A\r\n0123456789\r\na\r\nabcdefghij\r\n0\r\nX: y\r\nEmpty:\r\n\r\n"),
            "0123456789abcdefghij",
        ),
        (chunked!("2\r\n\r\n\r\n1\r\n0\r\n0\r\n\r\n"), "\r\n0"),
    ] {
        assert_eq!(one(bytes).body, body.as_bytes());
        let outcome = receive(bytes.chunks(1), &LIMITS);
        assert_eq!((outcome.requests, outcome.bytes_left), (vec![one(bytes)], 0));
    }
}

/// A body of one chunk is lent from where it arrived, and none of it is touched.
#[test]
fn a_single_chunk_is_not_moved() {
    let mut bytes = [chunked!("3e8\r\n"), &[b'x'; 1_000], b"\r\n0\r\n\r\n"].concat();
    let before = bytes.clone();
    work::take();
    assert!(matches!(Decoder::default().decode(&mut bytes, &LIMITS), Ok(Decoded::Request { .. })));
    assert!(work::take() < 500, "the windows of two lines");
    assert_eq!(bytes, before);
}

/// Half an empty line does not hide the byte that follows it from the search for lone line feeds.
#[test]
fn an_empty_line_may_be_cut_in_two() {
    let rest = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let refused = receive(["\r", &format!("\n\n{rest}")].map(str::as_bytes), &LIMITS);
    assert_eq!(refused.refusal, Some(Refusal::Framing(FramingError::BareLineFeed)));
    let taken = receive(["\r", &format!("\n{rest}")].map(str::as_bytes), &LIMITS);
    assert_eq!((taken.requests.len(), taken.refusal), (1, None));
}

/// `100 Continue` is asked for once, and only while the client really waits.
#[test]
fn a_waiting_client_is_told_apart_from_a_sending_one() {
    let partial = |pieces: &[&str]| -> Vec<bool> {
        let (mut decoder, mut buf) = (Decoder::default(), Vec::new());
        pieces
            .iter()
            .filter_map(|piece| {
                buf.extend_from_slice(piece.as_bytes());
                match decoder.decode(&mut buf, &LIMITS).unwrap() {
                    Decoded::Partial { wants_continue, head_complete, .. } => {
                        assert!(head_complete);
                        Some(wants_continue)
                    }
                    Decoded::Request { .. } => None,
                }
            })
            .collect()
    };
    let length = "POST / HTTP/1.1\r\nHost: a\r\nexpect: 100-Continue\r\nContent-Length: 5\r\n\r\n";
    let chunks = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(partial(&[length, "", "he", "llo"]), [true, false, false]);
    assert_eq!(partial(&[chunks, "", "5\r\nhel", "lo\r\n0\r\n\r\n"]), [true, false, false]);
    assert_eq!(partial(&[&format!("{length}h"), "ello"]), [false], "the body is on its way");
    assert_eq!(partial(&[&length.replace("h: 5", "h: 0")]), [], "there is no body to wait for");
    assert_eq!(partial(&[&length.replace("1.1", "1.0"), "hello"]), [false], "1.0 knows no interim answer");
}

#[test]
fn a_partial_request_says_how_much_is_missing() {
    let wanted = |bytes: &[u8]| match Decoder::default().decode(&mut bytes.to_vec(), &LIMITS).unwrap() {
        Decoded::Partial { head_complete, bytes_wanted, .. } => (head_complete, bytes_wanted),
        Decoded::Request { .. } => panic!("whole"),
    };
    assert_eq!(wanted(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), (false, 1));
    assert_eq!(wanted(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"), (true, 7));
    assert_eq!(wanted(chunked!("")), (true, 5));
    assert_eq!(wanted(chunked!("5")), (true, 1));
    assert_eq!(wanted(chunked!("5\r\nhe")), (true, 10));
    assert_eq!(wanted(chunked!("5\r\nhello")), (true, 7));
    assert_eq!(wanted(chunked!("5\r\nhello\r")), (true, 6));
    assert_eq!(wanted(chunked!("5\r\nhello\r\n0\r\nX")), (true, 1));
}

/// Each bound admits its last value and refuses the next, whole or byte by byte.
#[test]
fn bounds_are_exact() {
    let check = |bytes: &[u8], refusal: Option<Refusal>| {
        for outcome in [whole(bytes), receive(bytes.chunks(1), &LIMITS)] {
            assert_eq!(outcome.refusal, refusal);
            assert_eq!(outcome.requests.len(), usize::from(refusal.is_none()));
        }
    };
    let head = |bytes: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        rest.replace("X: ", &format!("X: {}", "y".repeat(bytes - rest.len()))).into_bytes()
    };
    check(&head(512), None);
    check(&head(513), Some(Refusal::HeadTooLarge { bytes_max: 512 }));
    check(&[b'G'; 513], Some(Refusal::HeadTooLarge { bytes_max: 512 }));

    let lines = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "X:\r\n".repeat(count)).into_bytes();
    check(&lines(HEADERS_MAX), None);
    check(&lines(HEADERS_MAX + 1), Some(Refusal::TooManyHeaders));

    let too_large = Some(Refusal::Framing(FramingError::BodyTooLarge { bytes_max: 1_000 }));
    let length = |bytes: usize| {
        format!("POST / HTTP/1.0\r\nContent-Length: {bytes:07}\r\n\r\n{}", "x".repeat(bytes)).into_bytes()
    };
    check(&length(1_000), None);
    check(&length(1_001), too_large);

    let chunks = |bytes: usize, count: usize, rest: &str| {
        let chunk = format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
        [chunked!(""), chunk.repeat(count).as_bytes(), rest.as_bytes()].concat()
    };
    check(&chunks(500, 2, "0\r\n\r\n"), None);
    check(&chunks(500, 2, "1\r\nx\r\n0\r\n\r\n"), too_large);
    // Five bytes of framing each: 1,512 allow the size line of the 302nd chunk, not of the next.
    check(&chunks(1, 302, "0\r\n\r\n"), None);
    check(&chunks(1, 303, "0\r\n\r\n"), Some(Refusal::Framing(FramingError::ChunkFramingTooLarge)));

    let extension = |bytes: usize| chunks(0, 0, &format!("0;{}\r\n\r\n", "x".repeat(bytes - 4)));
    check(&extension(256), None);
    check(&extension(257), Some(Refusal::Framing(FramingError::ChunkLineTooLong)));
    let trailer = |bytes: usize| chunks(0, 0, &format!("0\r\nX:{}\r\n\r\n", "y".repeat(bytes - 6)));
    check(&trailer(512), None);
    check(&trailer(513), Some(Refusal::Framing(FramingError::TrailerTooLarge)));
}

/// The work for a message is proportional to its bytes, however small the pieces.
/// Method: count the bytes searched or moved for 16 MiB in pieces of 1 KiB, and for a head and a trailer byte by byte.
#[test]
fn slow_messages_are_not_searched_again() {
    let limits = Limits::default();
    let work_of = |bytes: &[u8], piece_bytes: usize| {
        let (mut decoder, mut buf) = (Decoder::default(), Vec::with_capacity(bytes.len()));
        work::take();
        for piece in bytes.chunks(piece_bytes) {
            buf.extend_from_slice(piece);
            match decoder.decode(&mut buf, &limits).unwrap() {
                Decoded::Partial { .. } => assert!(buf.len() < bytes.len()),
                Decoded::Request { consumed, .. } => assert_eq!(consumed, bytes.len()),
            }
        }
        work::take()
    };

    let body_bytes = limits.body_bytes_max;
    let mut length = format!("POST / HTTP/1.0\r\nContent-Length: {body_bytes}\r\n\r\n").into_bytes();
    let head_bytes = length.len();
    length.resize(head_bytes + body_bytes, b'x');
    assert!(work_of(&length, 1 << 10) < 1 << 10, "a body of known length is not looked at");

    for chunk_bytes in [100, 65_536] {
        let chunk = [format!("{chunk_bytes:x}\r\n").into_bytes(), vec![b'\n'; chunk_bytes], b"\r\n".to_vec()]
            .concat();
        let bytes = [chunked!(""), &chunk.repeat(body_bytes / chunk_bytes), b"0\r\n\r\n"].concat();
        // Moved once; each size line's search sees at most its window of 256 bytes.
        let bound = bytes.len() + (body_bytes / chunk_bytes + bytes.len() / 1024 + 3) * 256 + 1024;
        let work = work_of(&bytes, 1 << 10);
        assert!((body_bytes / 2..bound).contains(&work), "{work} of {bound}");
    }

    let head = format!("GET / HTTP/1.0\r\nX: {}\r\n\r\n", "y".repeat(16_000)).into_bytes();
    assert!(work_of(&head, 1) <= 2 * head.len());
    let trailer = [chunked!("0\r\nX: "), &[b'y'; 16_000], b"\r\n\r\n"].concat();
    assert!(work_of(&trailer, 1) <= 2 * trailer.len());
}

/// One valid request as it goes over the wire, and what it means.
fn valid_request() -> impl Strategy<Value = (Vec<u8>, Owned)> {
    let body =
        proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0')], 0..80);
    let chunk_sizes = proptest::option::of(proptest::collection::vec(1_usize..20, 1..8));
    let names = (any::<u64>(), any::<bool>(), proptest::option::of("[ -~]{0,10}"), any::<bool>());
    (body, chunk_sizes, names, "/[a-z0-9/%]{0,12}", "[a-z=&+]{0,8}", 0_usize..3).prop_map(
        |(body, chunk_sizes, (case, has_empty_line, client_id, has_trailer), path, query, extra)| {
            let mut letters = 0;
            let mut cased = |name: &str| -> String {
                name.chars()
                    .map(|c| {
                        letters += 1;
                        if case >> (letters % 64) & 1 == 1 {
                            c.to_ascii_uppercase()
                        } else {
                            c.to_ascii_lowercase()
                        }
                    })
                    .collect()
            };
            let mut wire = String::new();
            wire += if has_empty_line { "\r\n" } else { "" };
            wire += &format!("POST {path}?{query} HTTP/1.1\r\n{}: h:1\r\n", cased("Host"));
            if let Some(id) = &client_id {
                wire += &format!("{}:\t{id} \r\n", cased("X-Client-ID"));
            }
            wire += &"Accept: */*\r\n".repeat(extra);
            let framing = match chunk_sizes {
                None => format!("{}: {}\r\n\r\n", cased("Content-Length"), body.len()),
                Some(_) => format!("{}: {}\r\n\r\n", cased("Transfer-Encoding"), cased("chunked")),
            };
            let mut wire = (wire + &framing).into_bytes();
            match chunk_sizes {
                None => wire.extend_from_slice(&body),
                Some(sizes) => {
                    let mut rest = &body[..];
                    for size in sizes.iter().cycle() {
                        if rest.is_empty() {
                            break;
                        }
                        let (chunk, after) = rest.split_at(*size.min(&rest.len()));
                        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                        wire.extend_from_slice(chunk);
                        wire.extend_from_slice(b"\r\n");
                        rest = after;
                    }
                    wire.extend_from_slice(if has_trailer { b"0;e\r\nT: 1\r\n\r\n" } else { b"0\r\n\r\n" });
                }
            }
            let meaning = Owned {
                method: Method::Post,
                path,
                query,
                minor_version: 1,
                connection: Connection::KeepAlive,
                client_id: client_id.map(|id| id.trim().as_bytes().to_vec()),
                body,
            };
            (wire, meaning)
        },
    )
}

/// Cuts `bytes` behind each of `lengths` in turn, over and over.
fn pieces<'b>(mut bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    for length in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(*length.min(&bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// Requests in a pipeline mean the same however they are framed, cased and cut.
    #[test]
    fn pieces_mean_what_the_whole_means(
        requests in proptest::collection::vec(valid_request(), 1..4),
        lengths in proptest::collection::vec(1_usize..60, 1..12),
    ) {
        let wire: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let meanings: Vec<Owned> = requests.into_iter().map(|(_, meaning)| meaning).collect();
        let expected = Outcome { requests: meanings, refusal: None, bytes_left: 0 };
        prop_assert_eq!(&whole(&wire), &expected);
        prop_assert_eq!(&receive(wire.chunks(1), &LIMITS), &expected);
        prop_assert_eq!(&receive(pieces(&wire, &lengths), &LIMITS), &expected);
    }

    /// A valid pipeline with a few bytes changed never panics, and cutting it changes nothing.
    #[test]
    fn damage_is_judged_the_same_in_pieces(
        requests in proptest::collection::vec(valid_request(), 1..3),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'9')]), 1..4),
        lengths in proptest::collection::vec(1_usize..60, 1..12),
    ) {
        let mut wire: Vec<u8> = requests.into_iter().flat_map(|(bytes, _)| bytes).collect();
        for (at, byte) in damage {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        let outcome = whole(&wire);
        prop_assert_eq!(&receive(wire.chunks(1), &LIMITS), &outcome);
        prop_assert_eq!(&receive(pieces(&wire, &lengths), &LIMITS), &outcome);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), lengths in proptest::collection::vec(1_usize..60, 1..12)) {
        let outcome = whole(&bytes);
        prop_assert_eq!(receive(pieces(&bytes, &lengths), &LIMITS), outcome);
        let body = [chunked!(""), &bytes].concat();
        let outcome = whole(&body);
        prop_assert_eq!(receive(pieces(&body, &lengths), &LIMITS), outcome);
    }
}
