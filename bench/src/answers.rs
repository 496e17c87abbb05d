//! Reading answers cheaply: an answer that looks like the last one read in full is taken for one like it.
//!
//! A generator that parses every answer is the limit before the server is. So the first accepted answer is parsed and
//! remembered: how long it is, its status line and its last bytes. What arrives whole, alone, equally long and equal
//! at both ends is accepted without a look in between (where the date changes each second).
//! Always: whatever differs, or comes in pieces, goes through the decoder.
//! Not here: what a status means to the sender.

use crate::plan::Durability;
use http::{Connection, DecodedResponse, Limits, Method, ResponseDecoder, ResponseError};
use std::fmt;
use std::time::Duration;

/// Bytes of an answer's end that must be equal.
const CLOSING_BYTES: usize = 16;

/// A load generator asks for nothing that has a large answer.
const LIMITS: Limits = Limits { head_bytes_max: 16 << 10, body_bytes_max: 1 << 20 };

/// What an answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 200..=999.
    pub status: u16,
    /// Seconds to hold back.
    pub retry_after: Option<Duration>,
    /// Whether the connection ends with it.
    pub closes: bool,
    /// The level that the server reports.
    pub durability: Option<Durability>,
}

impl Answer {
    /// A 2xx.
    pub(crate) fn accepts(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why bytes were no answer; the connection is of no further use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AnswerError {
    /// Not HTTP, or out of bounds.
    Malformed(ResponseError),
    /// More bytes than the one answer that was asked for.
    Unasked,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Malformed(cause) => cause.fmt(f),
            AnswerError::Unasked => f.write_str("bytes came that nobody asked for"),
        }
    }
}

/// One connection's answer as far as it came.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    decoder: ResponseDecoder,
}

#[derive(Debug)]
struct Learned {
    answer: Answer,
    bytes: usize,
    opening: Vec<u8>,
    closing: Vec<u8>,
}

/// The reader of a run's answers.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    learned: Option<Learned>,
}

impl Reader {
    /// Takes received bytes; the answer once it is whole.
    pub(crate) fn read(
        &mut self,
        incoming: &mut Incoming,
        received: &mut [u8],
    ) -> Result<Option<Answer>, AnswerError> {
        if incoming.bytes.is_empty() {
            if let Some(learned) = self.learned.as_ref().filter(|learned| learned.fits(received)) {
                return Ok(Some(learned.answer));
            }
            let (answer, consumed) = self.decode(&mut incoming.decoder, received)?;
            if answer.is_none() {
                incoming.bytes.extend_from_slice(&received[consumed..]);
            } else if consumed < received.len() {
                return Err(AnswerError::Unasked);
            }
            return Ok(answer);
        }
        incoming.bytes.extend_from_slice(received);
        let (answer, consumed) = self.decode(&mut incoming.decoder, &mut incoming.bytes)?;
        if answer.is_some() && consumed < incoming.bytes.len() {
            return Err(AnswerError::Unasked);
        }
        incoming.bytes.drain(..consumed);
        Ok(answer)
    }

    /// The first final answer in the bytes, and how many bytes are done with.
    fn decode(
        &mut self,
        decoder: &mut ResponseDecoder,
        bytes: &mut [u8],
    ) -> Result<(Option<Answer>, usize), AnswerError> {
        let mut start = 0;
        loop {
            let decoded = decoder.decode(&mut bytes[start..], Method::Post, &LIMITS);
            let (response, consumed) = match decoded.map_err(AnswerError::Malformed)? {
                DecodedResponse::Partial { .. } => return Ok((None, start)),
                DecodedResponse::Response { response, consumed } => (response, consumed),
            };
            let answer = Answer {
                status: response.status,
                retry_after: response.header("retry-after").and_then(seconds),
                closes: response.connection == Connection::Close,
                durability: response.header("durability").and_then(Durability::from_name),
            };
            let whole = start..start + consumed;
            start = whole.end;
            if answer.status >= 200 {
                if answer.accepts() && !answer.closes {
                    self.learned = Some(Learned::new(answer, &bytes[whole]));
                }
                return Ok((Some(answer), start));
            }
        }
    }
}

impl Learned {
    fn new(answer: Answer, bytes: &[u8]) -> Learned {
        let opening = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
        let closing = bytes.len() - bytes.len().min(CLOSING_BYTES);
        let (opening, closing) = (bytes[..opening].to_vec(), bytes[closing..].to_vec());
        Learned { answer, bytes: bytes.len(), opening, closing }
    }

    #[inline]
    fn fits(&self, received: &[u8]) -> bool {
        received.len() == self.bytes
            && received.starts_with(&self.opening)
            && received.ends_with(&self.closing)
    }
}

/// `Retry-After` in its form of seconds; a date is left to the default.
fn seconds(value: &[u8]) -> Option<Duration> {
    std::str::from_utf8(value).ok()?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[u8] =
        b"HTTP/1.1 202 Accepted\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nDurability: written\r\n\
        Content-Length: 21\r\n\r\n{\"status\":\"accepted\"}";
    const REFUSED: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}";

    fn read(reader: &mut Reader, pieces: &[&[u8]]) -> Result<Option<Answer>, AnswerError> {
        let mut incoming = Incoming::default();
        let mut last = None;
        for piece in pieces {
            assert_eq!(last, None, "an answer before its last piece");
            last = reader.read(&mut incoming, &mut piece.to_vec())?;
        }
        assert!(last.is_none() || incoming.bytes.is_empty());
        Ok(last)
    }

    fn learned() -> Reader {
        let mut reader = Reader::default();
        let answer = read(&mut reader, &[ACCEPTED]).unwrap().unwrap();
        assert_eq!((answer.status, answer.durability), (202, Some(Durability::Written)));
        assert!(reader.learned.is_some());
        reader
    }

    #[test]
    fn the_date_may_change_and_the_answer_is_still_known() {
        let later = String::from_utf8(ACCEPTED.to_vec()).unwrap().replace("08:49:37", "08:49:38");
        let mut reader = learned();
        assert!(reader.learned.as_ref().unwrap().fits(later.as_bytes()));
        assert_eq!(read(&mut reader, &[later.as_bytes()]).unwrap().unwrap().status, 202);
    }

    /// Method: every way to cut an answer in two, with and without a learned one of the same length.
    #[test]
    fn an_answer_in_two_pieces_is_the_same_answer() {
        for answer in [ACCEPTED, REFUSED] {
            let whole = read(&mut Reader::default(), &[answer]).unwrap();
            assert!(whole.is_some());
            for cut in 1..answer.len() {
                let pieces = [&answer[..cut], &answer[cut..]];
                assert_eq!(read(&mut Reader::default(), &pieces).unwrap(), whole, "cut at {cut}");
                assert_eq!(read(&mut learned(), &pieces).unwrap(), whole, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_refusal_as_long_as_an_acceptance_is_not_taken_for_one() {
        let mut refused = REFUSED.to_vec();
        let pad = "a".repeat(ACCEPTED.len() - REFUSED.len() - "X: \r\n".len());
        let at = refused.iter().position(|b| *b == b'\n').unwrap() + 1;
        refused.splice(at..at, format!("X: {pad}\r\n").into_bytes());
        assert_eq!(refused.len(), ACCEPTED.len());
        let answer = read(&mut learned(), &[&refused]).unwrap().unwrap();
        assert_eq!((answer.status, answer.retry_after), (503, Some(Duration::from_secs(7))));
    }

    #[test]
    fn interim_answers_are_passed_over_and_unasked_bytes_are_an_error() {
        let interim = [b"HTTP/1.1 100 Continue\r\n\r\n", ACCEPTED].concat();
        assert_eq!(read(&mut Reader::default(), &[&interim]).unwrap().unwrap().status, 202);
        let doubled = [ACCEPTED, ACCEPTED].concat();
        assert_eq!(read(&mut Reader::default(), &[&doubled]), Err(AnswerError::Unasked));
        assert!(matches!(
            read(&mut Reader::default(), &[b"SSH-2.0-x\r\n\r\n"]),
            Err(AnswerError::Malformed(_))
        ));
    }
}
