//! What is written reads back, whole or in pieces; what cannot be delimited is refused.

use super::*;
use crate::{FramingError, Limits, Method, http_date};
use proptest::prelude::*;

const LIMITS: Limits = Limits { head_bytes_max: 512, body_bytes_max: 1_000 };

type Owned = (u16, Connection, Vec<u8>);

/// Plays the client: reads all responses from pieces, each the answer to `asked`.
fn receive<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    asked: Method,
) -> (Vec<Owned>, Option<ResponseError>, usize) {
    let mut responses = Vec::new();
    let (mut decoder, mut buf) = (ResponseDecoder::default(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        while !buf.is_empty() {
            match decoder.decode(&mut buf, asked, &LIMITS) {
                Ok(DecodedResponse::Response { response, consumed }) => {
                    responses.push((response.status, response.connection, response.body.to_vec()));
                    buf.drain(..consumed);
                }
                Ok(DecodedResponse::Partial { bytes_wanted }) => {
                    assert!(bytes_wanted > 0);
                    break;
                }
                Err(error) => return (responses, Some(error), 0),
            }
        }
    }
    (responses, None, buf.len())
}

fn head<'a>(status: u16, date: &'a [u8; 29]) -> ResponseHead<'a> {
    let content_type = "application/json";
    ResponseHead { status, content_type, connection: Connection::KeepAlive, date, extra: &[] }
}

#[test]
fn an_answer_is_written_to_the_letter() {
    let date = http_date(784_111_777);
    let mut out = b"before".to_vec();
    let extra = [("Durability", "written"), ("Retry-After", "1")];
    ResponseHead { extra: &extra, connection: Connection::KeepAliveEchoed, ..head(202, &date) }
        .encode(b"{\"status\":\"accepted\"}", &mut out);
    let expected = "before\
        HTTP/1.1 202 Accepted\r\n\
        Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        Content-Type: application/json\r\n\
        Content-Length: 21\r\n\
        Connection: keep-alive\r\n\
        Durability: written\r\n\
        Retry-After: 1\r\n\
        \r\n\
        {\"status\":\"accepted\"}";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn the_answer_to_head_has_the_length_but_no_body() {
    let date = http_date(0);
    let (mut with_body, mut without) = (Vec::new(), Vec::new());
    head(200, &date).encode(b"hello", &mut with_body);
    head(200, &date).encode_for_head(5, &mut without);
    assert_eq!(with_body, [&without[..], b"hello"].concat());
    assert_eq!(receive([&without[..]], Method::Head).0, [(200, Connection::KeepAlive, vec![])]);
}

#[test]
fn a_body_in_pieces_reads_back() {
    let date = http_date(0);
    for trailer in [&[][..], &[("Warning", "199 a \"b\"")], &[("A", "b"), ("A", "c\r\nd: e")]] {
        let mut out = Vec::new();
        head(200, &date).encode_chunked(&mut out);
        for piece in ["one", "and a longer second one"] {
            chunk_head(piece.len(), &mut out);
            out.extend_from_slice(piece.as_bytes());
            out.extend_from_slice(CHUNK_END);
        }
        last_chunk(trailer, &mut out);
        let (responses, error, left) = receive([out.as_slice()], Method::Get);
        assert_eq!((responses.len(), error, left), (1, None, 0));
        assert_eq!(responses[0].2, b"oneand a longer second one");
    }
}

#[test]
fn a_204_names_no_length() {
    let date = http_date(0);
    let mut out = Vec::new();
    head(204, &date).encode(b"", &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text, "HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n");
}

#[test]
fn a_status_without_a_reason_is_still_a_status_line() {
    let date = http_date(0);
    let mut out = Vec::new();
    head(299, &date).encode(b"", &mut out);
    assert!(out.starts_with(b"HTTP/1.1 299 \r\n"));
    assert_eq!(receive([&out[..]], Method::Get).0, [(299, Connection::KeepAlive, vec![])]);
}

/// A value that repeats what a client sent cannot start a header of its own or a second answer.
#[test]
fn a_value_cannot_end_its_line() {
    let date = http_date(0);
    let mut out = Vec::new();
    let extra = [("Location", "/a\r\nSet-Cookie: x\r\n\r\nHTTP/1.1 200 OK\0\t\x7f")];
    ResponseHead { extra: &extra, content_type: "text/plain\n", ..head(302, &date) }.encode(b"", &mut out);
    let bytes = out.len();
    let DecodedResponse::Response { response, consumed } =
        ResponseDecoder::default().decode(&mut out, Method::Get, &LIMITS).unwrap()
    else {
        panic!("not whole");
    };
    assert_eq!(consumed, bytes);
    assert_eq!(response.header("set-cookie"), None);
    assert_eq!(response.header("location"), Some(&b"/a  Set-Cookie: x    HTTP/1.1 200 OK"[..]));
    assert_eq!(response.header("content-type"), Some(&b"text/plain"[..]));
}

#[test]
fn interim_and_final_responses_follow_each_other() {
    let bytes = [
        CONTINUE,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.0 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno",
    ]
    .concat();
    let expected = vec![
        (100, Connection::KeepAlive, vec![]),
        (200, Connection::Close, b"abcde".to_vec()),
        (304, Connection::Close, vec![]),
        (404, Connection::KeepAlive, b"no".to_vec()),
    ];
    assert_eq!(receive([&bytes[..]], Method::Get), (expected.clone(), None, 0));
    assert_eq!(receive(bytes.chunks(1), Method::Get), (expected, None, 0));
}

#[test]
fn responses_that_cannot_be_trusted_are_refused() {
    use ResponseError::*;
    for (reason, bytes, error) in [
        ("ends with the connection", "HTTP/1.1 200 OK\r\n\r\nhello", LengthMissing),
        (
            "length and chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing(FramingError::LengthAndChunked),
        ),
        (
            "body too large",
            "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
            Framing(FramingError::BodyTooLarge { bytes_max: 1_000 }),
        ),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", Framing(FramingError::BareLineFeed)),
        ("empty line first", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", HeadInvalid),
        ("status of two digits", "HTTP/1.1 99 No\r\nContent-Length: 0\r\n\r\n", HeadInvalid),
        ("status below 100", "HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n", HeadInvalid),
        ("version 2", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", HeadInvalid),
        ("a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadInvalid),
        ("folded header", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n", HeadInvalid),
        ("head too large", &"H".repeat(513), HeadTooLarge { bytes_max: 512 }),
    ] {
        assert_eq!(receive([bytes.as_bytes()], Method::Get), (vec![], Some(error), 0), "{reason}");
        assert_eq!(receive(bytes.as_bytes().chunks(1), Method::Get), (vec![], Some(error), 0), "{reason}");
        assert!(error.to_string().starts_with("the response"), "{reason}");
    }
}

proptest! {
    /// Whatever is written reads back, in a pipeline and in pieces.
    #[test]
    fn answers_read_back(
        answers in proptest::collection::vec((200_u16..600, proptest::collection::vec(any::<u8>(), 0..60), 0..3), 1..4),
        piece_bytes in 1_usize..50,
    ) {
        let date = http_date(1_000_000_000);
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for (status, mut body, connection) in answers {
            if matches!(status, 204 | 304) {
                body.clear();
            }
            let connection =
                [Connection::Close, Connection::KeepAlive, Connection::KeepAliveEchoed][connection as usize];
            ResponseHead { connection, ..head(status, &date) }.encode(&body, &mut wire);
            expected.push((status, connection, body));
        }
        prop_assert_eq!(receive([&wire[..]], Method::Get), (expected.clone(), None, 0));
        prop_assert_eq!(receive(wire.chunks(piece_bytes), Method::Get), (expected, None, 0));
    }

    /// No bytes panic, and cutting them changes nothing.
    #[test]
    fn no_bytes_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), start in 0..3, piece_bytes in 1_usize..50) {
        let start = ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"][start as usize];
        let bytes = [start.as_bytes(), &tail].concat();
        prop_assert_eq!(receive(bytes.chunks(piece_bytes), Method::Get), receive([&bytes[..]], Method::Get));
    }
}
