//! Exports on their way out, page by page.
//!
//! ```text
//! request → page asked for → it comes → sent, as a chunk → the client has taken it (`Drained`) → next page asked for
//! ```
//!
//! Always: of an export there is one page at a time, with the executor or on its way to the client; it counts as one
//! query from its request to its end. What fits into one page is an answer like others, with its length.
//! Once an answer has begun, what goes wrong ends the connection without the last chunk: the client learns that its
//! copy is not whole.

use super::Exchange;
use crate::api::Refusal;
use crate::config::Durability;
use crate::export::{ExportPage, ExportRequest, ExportedPage};
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
    let is_chunked = stream.is_chunked;
    let piece = |stream: &mut ExportStream, ends: bool, bytes: Vec<u8>, warnings| {
        let has_begun = std::mem::replace(&mut stream.has_begun, true);
        let begins = (!has_begun).then_some(PieceHead { content_type, warnings });
        Payload::Piece(Piece { begins, ends, is_chunked, bytes })
    };
    match next {
        None if stream.has_begun => Taken::End(piece(stream, true, text, warnings)),
        None if warnings.is_empty() => Taken::End(Payload::Body { status: 200, content_type, bytes: text }),
        None => Taken::End(Payload::Incomplete { content_type, bytes: text, warnings }),
        // How long the body would be is not known, and need not be.
        Some(_) if head_only => Taken::End(piece(stream, true, Vec::new(), warnings)),
        Some(next) if text.is_empty() => Taken::Nothing(next),
        Some(next) => {
            stream.next = Some(next);
            Taken::Piece(piece(stream, false, text, warnings))
        }
    }
}
