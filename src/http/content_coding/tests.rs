use super::*;
use proptest::prelude::*;
use std::io::Write as _;

const CODINGS: [ContentCoding; 3] = [ContentCoding::Gzip, ContentCoding::Zstd, ContentCoding::Snappy];

/// Every form in which a body may come.
fn compressed(plain: &[u8]) -> Vec<(ContentCoding, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(plain).unwrap();
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    framed.write_all(plain).unwrap();
    let mut forms = vec![
        (ContentCoding::Gzip, gzip.finish().unwrap()),
        // The stream does not know its plain length; the bulk form does.
        (ContentCoding::Zstd, zstd::stream::encode_all(plain, 3).unwrap()),
        (ContentCoding::Zstd, zstd::bulk::compress(plain, 1).unwrap()),
        (ContentCoding::Snappy, snap::raw::Encoder::new().compress_vec(plain).unwrap()),
    ];
    if !plain.is_empty() {
        // An empty framed stream would be no byte at all.
        forms.push((ContentCoding::Snappy, framed.into_inner().unwrap()));
    }
    forms
}

fn decompress(coding: ContentCoding, body: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodingError> {
    let mut out = b"left over from another body".to_vec();
    match coding.decompress(body, bytes_max, &mut out) {
        Ok(()) => Ok(out),
        Err(NotAtOnce::Wrong(error)) => Err(error),
        Err(NotAtOnce::GivesLittle) => in_steps(coding, body, bytes_max, 1 << 14),
    }
}

fn coding_of(lines: &[u8]) -> Result<Option<ContentCoding>, UnsupportedCoding> {
    ContentCoding::of(&Headers::new(lines, u64::MAX))
}

#[test]
fn one_known_coding_in_any_case_is_found_and_identity_is_none() {
    for (lines, expected) in [
        (&b""[..], Ok(None)),
        (b"Content-Encoding:\r\n", Ok(None)),
        (b"Content-Encoding: identity\r\n", Ok(None)),
        (b"content-encoding: GZip\r\n", Ok(Some(ContentCoding::Gzip))),
        (b"Content-Encoding: x-gzip\r\n", Ok(Some(ContentCoding::Gzip))),
        (b"Content-Encoding: identity, zstd\r\n", Ok(Some(ContentCoding::Zstd))),
        (
            b"Content-Encoding: identity\r\nA: b\r\nContent-Encoding: snappy\r\n",
            Ok(Some(ContentCoding::Snappy)),
        ),
        (b"Content-Encoding: br\r\n", Err(UnsupportedCoding)),
        (b"Content-Encoding: gzip, gzip\r\n", Err(UnsupportedCoding)),
        (b"Content-Encoding: gzip\r\nContent-Encoding: zstd\r\n", Err(UnsupportedCoding)),
        (b"Content-Encoding: gzip;q=1\r\n", Err(UnsupportedCoding)),
    ] {
        assert_eq!(coding_of(lines), expected, "{}", lines.escape_ascii());
    }
}

#[test]
fn a_body_of_exactly_the_bound_is_taken_and_one_byte_more_is_not() {
    for len in [1, 100, PIECE_BYTES, PIECE_BYTES + 1, 200_000] {
        let plain: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        for (coding, body) in compressed(&plain) {
            assert_eq!(decompress(coding, &body, len), Ok(plain.clone()), "{coding:?} {len}");
            let bytes_max = len - 1;
            assert_eq!(
                decompress(coding, &body, bytes_max),
                Err(CodingError::TooLarge { bytes_max }),
                "{coding:?} {len}"
            );
        }
    }
}

/// Goal: a bomb costs the bound. Method: 64 MiB of zeros, which every format packs into little; the buffer
/// shows how much was ever written.
#[test]
fn a_bomb_costs_no_more_than_the_bound() {
    let zeros = vec![0; 64 << 20];
    for (coding, body) in compressed(&zeros) {
        let mut out = Vec::new();
        let error = coding.decompress(&body, 1 << 20, &mut out).unwrap_err();
        let too_large = CodingError::TooLarge { bytes_max: 1 << 20 };
        assert_eq!(error, NotAtOnce::Wrong(too_large), "{coding:?}");
        assert!(out.capacity() <= 1 << 20, "{coding:?}: {}", out.capacity());
    }
}

/// Empty members are work and give nothing: they are not for a turn. True members are, however many.
#[test]
fn a_body_that_gives_little_is_not_made_plain_at_once() {
    let mut out = Vec::new();
    for (coding, empty) in compressed(b"").into_iter().filter(|(coding, _)| *coding != ContentCoding::Snappy)
    {
        let body = empty.repeat((256 << 10) / empty.len());
        let result = coding.decompress(&body, 1 << 20, &mut out);
        assert_eq!(result, Err(NotAtOnce::GivesLittle), "{coding:?}");
        assert_eq!(in_steps(coding, &body, 1 << 20, 4096), Ok(Vec::new()), "{coding:?}");
    }
    let plain: Vec<u8> = (0..60_u8).collect();
    for (coding, member) in
        compressed(&plain).into_iter().filter(|(coding, _)| *coding != ContentCoding::Snappy)
    {
        let result = coding.decompress(&member.repeat(2_000), 1 << 20, &mut out);
        assert_eq!((result, out.len()), (Ok(()), 120_000), "{coding:?}");
    }
}

#[test]
fn several_members_or_frames_are_one_body() {
    let body = |coding: ContentCoding| -> Vec<u8> {
        let parts =
            [&b"one "[..], b"two"].map(|plain| compressed(plain).into_iter().find(|(c, _)| *c == coding));
        parts.into_iter().flat_map(|part| part.unwrap().1).collect()
    };
    for coding in [ContentCoding::Gzip, ContentCoding::Zstd] {
        assert_eq!(decompress(coding, &body(coding), 100).unwrap(), b"one two", "{coding:?}");
    }
}

#[test]
fn a_window_beyond_the_bound_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(25).unwrap();
    encoder.write_all(b"small").unwrap();
    encoder.flush().unwrap();
    encoder.write_all(b"small").unwrap();
    let body = encoder.finish().unwrap();
    assert_eq!(
        decompress(ContentCoding::Zstd, &body, 1 << 20),
        Err(CodingError::Corrupt(ContentCoding::Zstd))
    );
}

/// Method: bodies cut at every byte. Only a framed snappy stream may be cut, between its chunks, unnoticed: this
/// one has a single chunk behind its magic.
#[test]
fn a_body_cut_anywhere_is_refused() {
    let plain: Vec<u8> = (0_u32..2_000).flat_map(|at| (at * at).to_le_bytes()).collect();
    for (coding, body) in compressed(&plain) {
        for cut in 0..body.len() {
            let result = decompress(coding, &body[..cut], 1 << 20);
            let is_bare_magic = body[..cut] == *SNAPPY_FRAMED_MAGIC;
            match result {
                Ok(plain) => assert!(is_bare_magic && plain.is_empty(), "{coding:?} cut at {cut}"),
                Err(error) => {
                    // A cut within the head of a stream may hide which stream it is.
                    let named = error == CodingError::Truncated(coding) || cut < SNAPPY_FRAMED_MAGIC.len();
                    assert!(named, "{coding:?} cut at {cut}: {error:?}");
                }
            }
        }
    }
}

#[test]
fn a_body_of_another_coding_is_refused() {
    for (is, body) in compressed(b"some plain text, some plain text") {
        for coding in CODINGS.into_iter().filter(|coding| *coding != is) {
            assert!(decompress(coding, &body, 1 << 20).is_err(), "{is:?} as {coding:?}");
        }
    }
    for coding in CODINGS {
        assert!(decompress(coding, br#"{"name":"a","value":1}"#, 1 << 20).is_err(), "{coding:?}");
        assert_eq!(decompress(coding, b"", 1 << 20), Err(CodingError::Truncated(coding)));
    }
}

fn in_steps(
    coding: ContentCoding,
    body: &[u8],
    bytes_max: usize,
    step: usize,
) -> Result<Vec<u8>, CodingError> {
    let mut out = b"left over from another body".to_vec();
    let mut decompression = coding.begin(body, bytes_max, &mut out)?;
    while decompression.step(step)? {}
    Ok(out)
}

/// Goal: no step is long. Method: what a step adds is counted, and the steps of bodies that give nothing: empty
/// members and frames.
#[test]
fn a_step_is_bounded_by_what_it_gives_and_by_what_it_takes() {
    const STEP: usize = 10_000;
    let plain: Vec<u8> = (0_u32..300_000).flat_map(|at| at.wrapping_mul(at).to_le_bytes()).collect();
    for (coding, body) in compressed(&plain) {
        let mut out = Vec::new();
        let mut decompression = coding.begin(&body, plain.len(), &mut out).unwrap();
        let mut before = 0;
        while decompression.step(STEP).unwrap() {
            let len = decompression.out.len();
            assert!(len - before <= STEP + 64, "{coding:?}");
            before = len;
        }
        assert_eq!(out, plain, "{coding:?}");
    }
    let padding = [SNAPPY_FRAMED_MAGIC, &b"\xfe\0\0\0".repeat(5)].concat();
    let empty = compressed(b"").into_iter().filter(|(coding, _)| *coding != ContentCoding::Snappy);
    for (coding, body) in empty.chain([(ContentCoding::Snappy, padding)]) {
        let body = body.repeat(5_000);
        let mut out = Vec::new();
        let mut decompression = coding.begin(&body, 100, &mut out).unwrap();
        let mut steps = 1;
        while decompression.step(STEP).unwrap() {
            steps += 1;
        }
        let taken_max = if coding == ContentCoding::Snappy { STEP } else { STEP / GIVES_PER_TAKE };
        assert!(steps >= body.len() / taken_max, "{coding:?}: {steps}");
        assert_eq!(out, b"");
    }
}

proptest! {
    /// In steps of any size comes out what comes out at once, and what is wrong is the same. Method: true bodies,
    /// some cut or damaged, some larger than allowed.
    #[test]
    fn stepwise_is_what_is_at_once(
        plain in proptest::collection::vec(0..8_u8, 0..5_000),
        step in 1..3_000_usize,
        cut in 0..10_000_usize,
        damage in proptest::option::of((any::<proptest::sample::Index>(), 1..=255_u8)),
        bytes_max in 0..10_000_usize,
    ) {
        for (coding, mut body) in compressed(&plain) {
            body.truncate(cut);
            if let Some((at, flip)) = damage && !body.is_empty() {
                let at = at.index(body.len());
                body[at] ^= flip;
            }
            let body = body.repeat(if step % 2 == 0 { 1 } else { 2 });
            prop_assert_eq!(in_steps(coding, &body, bytes_max, step), decompress(coding, &body, bytes_max));
        }
    }

    /// Our decoder of snappy's blocks agrees with the one of the `snap` crate, on true blocks and on noise.
    #[test]
    fn a_snappy_block_is_what_another_decoder_makes_of_it(
        plain in proptest::collection::vec(0..4_u8, 0..5_000),
        noise in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        step in 1..3_000_usize,
    ) {
        let mut body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        for (at, byte) in noise {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let bytes_max = 100_000;
        let other = match snap::raw::decompress_len(&body) {
            Ok(len) if len <= bytes_max => snap::raw::Decoder::new().decompress_vec(&body).ok(),
            _ => None,
        };
        prop_assert_eq!(in_steps(ContentCoding::Snappy, &body, bytes_max, step).ok(), other);
    }

    /// Whatever went in comes out.
    #[test]
    fn what_is_compressed_comes_back(plain in proptest::collection::vec(0..8_u8, 0..20_000)) {
        for (coding, body) in compressed(&plain) {
            prop_assert_eq!(decompress(coding, &body, plain.len()), Ok(plain.clone()));
        }
    }

    /// Any bytes, bare or behind a true beginning, are a body within the bound or an error.
    #[test]
    fn any_bytes_stay_within_the_bound(
        plain in proptest::collection::vec(0..4_u8, 0..3_000),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0..4_000_usize,
        bytes_max in 0..4_000_usize,
    ) {
        for (coding, mut body) in compressed(&plain) {
            body.truncate(cut);
            body.extend_from_slice(&noise);
            for body in [&body, &noise] {
                let mut out = Vec::new();
                let result = coding.decompress(body, bytes_max, &mut out);
                prop_assert!(out.len() <= bytes_max && out.capacity() <= bytes_max.max(8), "{result:?}");
            }
        }
    }

    /// A single damaged byte never panics, never passes the bound; gzip, with its checksum, never lies.
    #[test]
    fn a_damaged_byte_does_no_harm(
        plain in proptest::collection::vec(0..4_u8, 1..3_000),
        at in any::<proptest::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        for (coding, mut body) in compressed(&plain) {
            let at = at.index(body.len());
            body[at] ^= flip;
            let result = decompress(coding, &body, 10_000);
            // Bytes 3 to 9 of a gzip head say what no reader needs.
            if coding == ContentCoding::Gzip && at >= 10 && let Ok(read) = result {
                prop_assert_eq!(read, plain.clone());
            }
        }
    }
}
