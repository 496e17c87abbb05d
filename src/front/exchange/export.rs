//! Exports on their way out, page by page.
//!
//! ```text
//! request → page asked for → it comes → sent, as a chunk → the client has taken it (`Drained`) → next page asked for
//! ```
//!
//! Always: of an export there is one page at a time, with the executor or on its way to the client; it counts as one
//! query from its request to its end. What comes to less than a page, of all executors, is an answer like others, with
//! its length and with what is missing for it is damaged; of a longer one that stands in the head as far as it is known
//! then, and behind the last chunk.
//! Once an answer has begun, what goes wrong ends the connection without the last chunk: the client learns that its
//! copy is not whole. A client of HTTP/1.0 could not learn it, and gets only what is an answer like others.

use super::Exchange;
use crate::api::Refusal;
use crate::config::Durability;
use crate::export::{ExportPage, ExportRequest, ExportedPage, PAGE_BYTES};
use crate::fan_in::QueryError;
use crate::front::connection::{Asked, Awaited, ExportStream};
use crate::front::reply::{Payload, Piece, PieceHead, Reply};
use crate::log;
use http::Request;
use shard::net::ConnId;

impl Exchange {
    /// The first page of what a request asks for.
    pub(super) fn export(&self, request: &Request<'_>) -> Result<ExportPage, Refusal> {
        let pairs = self.question_parameters(request)?;
        Ok(ExportPage::first(ExportRequest::from_parameters(pairs)?))
    }

    /// The client has taken what was sent: the next page of its export is asked for, if there is one.
    pub fn ask_for_page(&mut self, id: ConnId) {
        let asked = self.connection(id).and_then(|connection| connection.asked.as_deref_mut());
        if let Some(Asked { awaited: Awaited::Export(stream), .. }) = asked
            && let Some(page) = stream.next.take()
        {
            self.pages.push((id, page));
        }
    }

    /// A page has come.
    pub fn take_page(&mut self, id: ConnId, page: Result<Box<ExportedPage>, QueryError>) {
        let Some(mut asked) = self.connection(id).and_then(|connection| connection.asked.take()) else {
            self.asked -= 1;
            return;
        };
        let Awaited::Export(stream) = &mut asked.awaited else {
            // Unheard of: a page comes only where one was asked for, and nothing else is meanwhile.
            debug_assert!(false, "a page that nobody asked for");
            return;
        };
        let payload = match page {
            Err(error) if stream.has_begun => {
                let cause = Refusal::from(error);
                let detail = cause.detail.as_deref().unwrap_or_default();
                log::warning(format_args!("an export is broken off: {}; {detail}", cause.error));
                Payload::BrokenOff
            }
            Err(error) => Payload::Refused(error.into()),
            Ok(page) => match take_text(stream, asked.head_only, *page) {
                Taken::Nothing(next) => {
                    self.pages.push((id, next));
                    return self.wait_on(id, asked);
                }
                Taken::Piece(payload) => {
                    let Asked { connection, arrived_nanos, .. } = *asked;
                    let (head_only, any_origin, log) = (false, true, None);
                    self.wait_on(id, asked);
                    let reply =
                        Reply { conn: id, head_only, connection, payload, any_origin, arrived_nanos, log };
                    self.queue(reply, Durability::Memory);
                    return;
                }
                Taken::End(payload) => payload,
            },
        };
        self.asked -= 1;
        let any_origin = true;
        self.queue(asked.reply(id, payload, any_origin), Durability::Memory);
    }

    fn wait_on(&mut self, id: ConnId, asked: Box<Asked>) {
        if let Some(connection) = self.connection(id) {
            connection.asked = Some(asked);
        }
    }
}

/// What becomes of a page.
enum Taken {
    /// There is nothing to send; what to ask for at once.
    Nothing(Box<ExportPage>),
    /// To be sent, and more follows.
    Piece(Payload),
    /// To be sent, and nothing follows.
    End(Payload),
}

fn take_text(stream: &mut ExportStream, head_only: bool, page: ExportedPage) -> Taken {
    let ExportedPage { format, text, next, warnings } = page;
    let content_type = format.content_type();
    stream.note(&warnings);
    if !stream.has_begun {
        stream.held.extend_from_slice(&text);
        match next {
            None => {
                let (bytes, warnings) =
                    (std::mem::take(&mut stream.held), std::mem::take(&mut stream.warnings));
                return Taken::End(if warnings.is_empty() {
                    Payload::Body { status: 200, content_type, bytes }
                } else {
                    Payload::Incomplete { content_type, bytes, warnings: warnings.into() }
                });
            }
            Some(next) if stream.held.len() < PAGE_BYTES => return Taken::Nothing(next),
            Some(_) if !stream.is_chunked => return Taken::End(Payload::Refused(Refusal::needs_chunks())),
            Some(next) => {
                let warnings = std::mem::take(&mut stream.warnings).into();
                stream.has_begun = true;
                // How long the body would be is not known, and need not be.
                let (begins, ends) = (Some(PieceHead { content_type, warnings }), head_only);
                let bytes = std::mem::take(&mut stream.held);
                let payload = Payload::Piece(Piece { begins, ends, bytes, warnings: Box::default() });
                if head_only {
                    return Taken::End(payload);
                }
                stream.next = Some(next);
                return Taken::Piece(payload);
            }
        }
    }
    let piece = |bytes, ends, warnings| Payload::Piece(Piece { begins: None, ends, bytes, warnings });
    match next {
        None => Taken::End(piece(text, true, std::mem::take(&mut stream.warnings).into())),
        Some(next) if text.is_empty() => Taken::Nothing(next),
        Some(next) => {
            stream.next = Some(next);
            Taken::Piece(piece(text, false, Box::default()))
        }
    }
}
