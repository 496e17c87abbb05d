//! What a loop remembers of one open connection: little while it idles, a box while a message is unfinished.

use super::exchange::Terms;
use super::intake::ClientMemo;
use super::rate_limit::Verdict;
use super::reply::{LogEntry, Payload, Reply};
use crate::api::{Door, RefusalShape};
use crate::export::ExportPage;
use crate::shared::Place;
use http::Decoder;
use shard::net::ConnId;
use std::net::IpAddr;

/// Answers of one connection that wait for the journal, from which on its next requests have to wait, too.
pub const WITHHELD_ANSWERS_MAX: u16 = 256;

/// What one connection may take of a turn, so that a long pipeline makes nobody else wait for it: bytes of bodies that
/// are decoded and of answers, each request counting [`REQUEST_SHARE`] besides. That is some 150 µs of single samples;
/// what a turn costs by itself is a twentieth of it.
pub const SHARE_OF_TURN: u32 = 64 * 1024;
/// What a request takes of it by itself.
pub const REQUEST_SHARE: usize = 1024;

/// One connection of a loop.
pub struct Connection {
    /// Who holds the slot; events of a predecessor carry another generation.
    pub id: ConnId,
    /// The other end, the client's name when it gives none.
    pub peer: IpAddr,
    /// Its part in its address' count, if there is one.
    pub place: Option<Place>,
    /// The peer's number in the journal.
    pub memo: ClientMemo,
    /// Bytes that do not make a whole request yet, or that have to wait for an earlier answer.
    pub unfinished: Option<Box<Unfinished>>,
    /// Second of the last byte in or answer out.
    pub active_s: u32,
    /// Answers that wait for the journal; later answers wait behind them.
    pub withheld: u16,
    /// A request is out; what follows on the connection waits for its answer.
    pub asked: Option<Box<Asked>>,
    /// The turn in which it was last served, 0 before anything came, and what is left of its share of that.
    pub served_in: u32,
    pub share_left: u32,
    /// It stands among those that are looked at again in the next turn.
    pub looks_again: bool,
    /// It stands in the line of those whose requests wait: for the executors, for the journal, or with their word.
    pub held: bool,
    /// The client has sent its last byte; the connection ends when nothing is owed.
    pub ended: bool,
    /// The last answer is on its way; nothing more is read.
    pub closing: bool,
    /// Reading is paused until the client takes its answers, or ours come.
    pub paused: bool,
}

/// A request whose answer is made elsewhere, or waits for a word from there.
pub struct Asked {
    /// It was a `HEAD`.
    pub head_only: bool,
    /// What its `Connection` header wants.
    pub connection: http::Connection,
    /// When it was taken in, in monotonic nanoseconds.
    pub arrived_nanos: u64,
    /// Its part of the access log.
    pub log: Option<Box<LogEntry>>,
    /// What it waits for.
    pub awaited: Awaited,
}

/// What a request waits for.
pub enum Awaited {
    /// The answer to a query, or what became of an operator's order: only of the first pages of any origin may know.
    Answer { any_origin: bool, shape: RefusalShape },
    /// The pages of an export.
    Export(ExportStream),
    /// Its large body as a batch, and then that all rows of it are taken.
    Batch { terms: Terms<'static> },
    /// Another loop's word about its client's rate limit, and then its turn in the line of those that are held.
    Portion { terms: Terms<'static>, body: Vec<u8>, word: Option<Verdict> },
}

/// Places of damage told of one export.
const EXPORT_WARNINGS_MAX: usize = 16;

/// How far an export has gone out.
pub struct ExportStream {
    /// Whether its head is out.
    pub has_begun: bool,
    /// Whether the client knows bodies in pieces. To one that does not a broken-off answer would look whole.
    pub is_chunked: bool,
    /// What is to go out first, until it is a page or all there is.
    pub held: Vec<u8>,
    /// What is missing so far, and was not told yet.
    pub warnings: Vec<String>,
    /// The page to ask for once the client has taken what was sent; none while one is asked for.
    pub next: Option<Box<ExportPage>>,
}

impl ExportStream {
    /// Nothing is out yet.
    pub fn new(is_chunked: bool) -> ExportStream {
        ExportStream { has_begun: false, is_chunked, held: Vec::new(), warnings: Vec::new(), next: None }
    }

    /// Notes what is missing of a page. Nobody reads more than the first of many.
    pub fn note(&mut self, warnings: &[String]) {
        let room = EXPORT_WARNINGS_MAX - self.warnings.len();
        self.warnings.extend(warnings.iter().take(room).cloned());
    }
}

impl Asked {
    /// Its answer.
    pub fn reply(self, conn: ConnId, payload: Payload, any_origin: bool) -> Reply {
        let Asked { head_only, connection, arrived_nanos, log, .. } = self;
        Reply { conn, head_only, connection, payload, any_origin, arrived_nanos, log }
    }

    /// Bytes of its body that are kept here.
    pub fn body_bytes(&self) -> usize {
        match &self.awaited {
            Awaited::Answer { .. } | Awaited::Export(_) | Awaited::Batch { .. } => 0,
            Awaited::Portion { body, .. } => body.len(),
        }
    }

    /// Whether it is an export whose client is still to take what was sent.
    pub fn is_between_pages(&self) -> bool {
        matches!(&self.awaited, Awaited::Export(ExportStream { next: Some(_), .. }))
    }

    /// The door that it came to; of a question `POST /metrics`, whose refusals look like everybody's.
    pub fn door(&self) -> Door {
        match &self.awaited {
            Awaited::Batch { terms } | Awaited::Portion { terms, .. } => terms.door(),
            Awaited::Answer { .. } | Awaited::Export(_) => Door::Metrics,
        }
    }

    /// What the head of its large body asked for.
    pub fn batch_terms(&self) -> Option<&Terms<'static>> {
        match &self.awaited {
            Awaited::Batch { terms } => Some(terms),
            Awaited::Answer { .. } | Awaited::Export(_) | Awaited::Portion { .. } => None,
        }
    }
}

/// The beginning of a message.
#[derive(Default)]
pub struct Unfinished {
    /// From its first byte on.
    pub bytes: Vec<u8>,
    /// How far it is understood.
    pub decoder: Decoder,
    /// Whether its head has been seen whole.
    pub head_complete: bool,
    /// Whether the client has been told to go on with the body.
    pub continued: bool,
    /// Second in which it began, or in which its head was complete.
    pub since_s: u32,
}

const _: () = assert!(size_of::<Connection>() <= 96, "10,000 idle connections are to cost little");

impl Connection {
    /// A connection that has said nothing yet.
    pub fn new(id: ConnId, peer: IpAddr, place: Option<Place>, now_s: u32) -> Connection {
        Connection {
            id,
            peer,
            place,
            memo: ClientMemo::default(),
            unfinished: None,
            active_s: now_s,
            withheld: 0,
            asked: None,
            served_in: 0,
            share_left: 0,
            looks_again: false,
            held: false,
            ended: false,
            closing: false,
            paused: false,
        }
    }

    /// What it may take of that turn yet.
    pub fn share_left(&self, turn: u32) -> u32 {
        if self.served_in == turn { self.share_left } else { SHARE_OF_TURN }
    }

    /// Whether anything came on it yet.
    pub fn was_heard(&self) -> bool {
        self.served_in > 0
    }

    /// Bytes that it has sent and that are not taken yet.
    pub fn held_back_bytes(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |unfinished| unfinished.bytes.len())
    }

    /// Whether its next request has to wait, for the answer to an earlier one or for its turn in the line.
    pub fn waits(&self) -> bool {
        self.asked.is_some() || self.held || self.closing || self.withheld >= WITHHELD_ANSWERS_MAX
    }
}
