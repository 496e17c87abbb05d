//! What carries it: messages in any pieces, bodies in any coding.

use http::{
    CodingError, ContentCoding, Decoded, DecodedResponse, Decoder, Limits, Method, NotAtOnce, ResponseDecoder,
};
use std::io::Write;
use storage::fuzz::{Body, Seeds};

pub(crate) const TARGETS: &[(&str, Body, Seeds)] = &[
    ("http-request", request, request_seeds),
    ("http-response", response, response_seeds),
    ("http-gzip", |data| decompress(ContentCoding::Gzip, data), gzip_seeds),
    ("http-zstd", |data| decompress(ContentCoding::Zstd, data), zstd_seeds),
    ("http-snappy", |data| decompress(ContentCoding::Snappy, data), snappy_seeds),
    ("http-target", target, target_seeds),
];

const LIMITS: Limits = Limits { head_bytes_max: 1_024, body_bytes_max: 4_096 };

/// A byte says how long the pieces are, the others are what a client sends: the pieces make no difference to a request.
fn request(data: &[u8]) -> bool {
    let Some((&piece, bytes)) = data.split_first() else { return false };
    let whole = requests(bytes, bytes.len().max(1));
    let pieces = requests(bytes, usize::from(piece % 31) + 1);
    assert_eq!(whole, pieces);
    whole.0.iter().any(|request| request.is_some())
}

/// The requests that bytes hold, `None` for a refusal, which is the end; and how many bytes are behind the last.
fn requests(bytes: &[u8], piece: usize) -> (Vec<Option<String>>, usize) {
    let (mut found, mut begin, mut end) = (Vec::new(), 0, 0);
    let (mut bytes, mut decoder) = (bytes.to_vec(), Decoder::default());
    while begin < end || end < bytes.len() {
        if begin == end {
            end = bytes.len().min(end + piece);
        }
        match decoder.decode(&mut bytes[begin..end], &LIMITS) {
            Ok(Decoded::Request { request, consumed }) => {
                assert!((1..=end - begin).contains(&consumed) && request.body.len() <= LIMITS.body_bytes_max);
                found.push(Some(format!("{request:?}")));
                begin += consumed;
            }
            Ok(Decoded::Partial { bytes_wanted, .. }) => {
                assert!(bytes_wanted > 0);
                if end == bytes.len() {
                    break;
                }
                end = bytes.len().min(end + piece);
            }
            Err(_) => {
                found.push(None);
                return (found, 0);
            }
        }
    }
    (found, bytes.len() - begin)
}

fn request_seeds() -> Vec<Vec<u8>> {
    [
        "\u{5}POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /query?name=a HTTP/1.0\r\n\r\n",
        "\u{9}POST /write HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5;x=y\r\nhello\r\n3\r\n+3a\r\n0\r\nEnd: 1\r\n\r\n",
        "\u{1}\r\nOPTIONS * HTTP/1.1\r\nhost: a\r\nConnection: keep-alive, close\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A byte says how long the pieces are, the others are what a server answers.
fn response(data: &[u8]) -> bool {
    let Some((&piece, bytes)) = data.split_first() else { return false };
    let whole = one_response(bytes, bytes.len().max(1));
    assert_eq!(whole, one_response(bytes, usize::from(piece % 31) + 1));
    whole.is_some()
}

fn one_response(bytes: &[u8], piece: usize) -> Option<(String, usize)> {
    let (mut bytes, mut decoder, mut end) = (bytes.to_vec(), ResponseDecoder::default(), 0);
    while end < bytes.len() {
        end = bytes.len().min(end + piece);
        match decoder.decode(&mut bytes[..end], Method::Get, &LIMITS) {
            Ok(DecodedResponse::Response { response, consumed }) => {
                assert!((1..=end).contains(&consumed));
                return Some((format!("{response:?}"), consumed));
            }
            Ok(DecodedResponse::Partial { bytes_wanted }) => assert!(bytes_wanted > 0),
            Err(_) => return None,
        }
    }
    None
}

fn response_seeds() -> Vec<Vec<u8>> {
    [
        "\u{7}HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "\u{3}HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\nWarning: 1\r\n\r\n",
        "\u{3}HTTP/1.1 204 No Content\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A compressed body: bounded, and in steps the same as at once.
fn decompress(coding: ContentCoding, data: &[u8]) -> bool {
    const PLAIN_BYTES_MAX: usize = 64 * 1024;
    let (mut at_once, mut stepped) = (b"of another body".to_vec(), Vec::new());
    let first = coding.decompress(data, PLAIN_BYTES_MAX, &mut at_once);
    assert!(at_once.len() <= PLAIN_BYTES_MAX);
    let in_steps = coding.begin(data, PLAIN_BYTES_MAX, &mut stepped).and_then(|mut steps| {
        // A step takes a byte at least, or gives one.
        for _ in 0..data.len() + PLAIN_BYTES_MAX + 2 {
            if !steps.step(64)? {
                return Ok(());
            }
        }
        panic!("a body that never ends");
    });
    assert!(stepped.len() <= PLAIN_BYTES_MAX);
    match first {
        Ok(()) => assert!(in_steps.is_ok() && at_once == stepped),
        // What is cut and wrong may be told as either, and zstd holds an empty last block against the frame's size only
        // where it has the whole frame at once. A bomb is a bomb.
        Err(NotAtOnce::Wrong(error)) => {
            let is_bomb = |error: &CodingError| matches!(error, CodingError::TooLarge { .. });
            assert_eq!(
                in_steps.as_ref().is_err_and(is_bomb),
                is_bomb(&error),
                "{error}, in steps {in_steps:?}"
            );
        }
        Err(NotAtOnce::GivesLittle) => {}
    }
    in_steps.is_ok()
}

const PLAIN: &[u8] = b"{\"name\":\"cpu_usage\",\"value\":85}{\"name\":\"cpu_usage\",\"value\":86}";

fn gzip_seeds() -> Vec<Vec<u8>> {
    let mut stream = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    stream.write_all(PLAIN).expect("a list in memory takes all bytes");
    let one = stream.finish().expect("a list in memory takes all bytes");
    vec![one.clone(), [&one[..], &one].concat()]
}

fn zstd_seeds() -> Vec<Vec<u8>> {
    let bulk = zstd::bulk::compress(PLAIN, 1).expect("bytes can be compressed");
    vec![zstd::stream::encode_all(PLAIN, 3).expect("bytes can be compressed"), bulk]
}

fn snappy_seeds() -> Vec<Vec<u8>> {
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    framed.write_all(PLAIN).expect("a list in memory takes all bytes");
    let block = snap::raw::Encoder::new().compress_vec(PLAIN).expect("a few bytes are a block");
    vec![block, framed.into_inner().expect("a list in memory takes all bytes")]
}

/// What stands in a request's target.
fn target(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let decoded = http::decode_path(path);
    if let Ok(decoded) = &decoded {
        assert!(decoded.len() <= path.len());
    }
    let mut taken = 0;
    for pair in http::parameters(query) {
        let Ok((key, value)) = pair else { return false };
        assert!(key.len() + value.len() <= query.len());
        taken += 1;
    }
    decoded.is_ok() && taken > 0
}

fn target_seeds() -> Vec<Vec<u8>> {
    vec![b"/api/v1/label/a%2Fb+c/values?match[]=%7Ba%3D%22b%22%7D&start=1+2&&x".to_vec()]
}
