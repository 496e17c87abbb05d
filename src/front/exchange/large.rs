//! Bodies that are too large for a turn, or for what is left of a journal file: decoded by the executor, taken some
//! rows a turn.
//!
//! ```text
//! body → executor decompresses, decodes → batch comes back → some thousand rows a turn → one answer, at the end of the
//!                                                                                         last frame
//! ```
//!
//! Always: the connection waits meanwhile; whatever a body becomes, its pieces fit into a journal file; the bytes that
//! are out are bounded, and so are those of batches that wait here (`memory_parts.rs`; a body that is alone may be
//! larger); a batch of which rows are lost with their frame is refused as a whole.

use super::{Exchange, Terms};
use crate::api::{Door, IntakeError};
use crate::config::Durability;
use crate::front::connection::{Asked, Awaited};
use crate::front::gate::Gate;
use crate::front::intake::{Accepted, Client, Names, NotTaken, check_times};
use http::ContentCoding;
use ingest::TimeBounds;
use model::{Batch, LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, METRIC_NAME_BYTES_MAX};
use shard::net::ConnId;
use std::borrow::Cow;
use std::ops::Range;

/// A body above this is decoded by the executor, so that a turn stays short.
pub const LARGE_BODY_BYTES: usize = 256 * 1024;
/// The same for remote write, of which less is read: the labels of a series that comes again are looked at once, as
/// bytes. It is what Prometheus sends at once (2,000 samples by default), with ten labels and some room.
const LARGE_REMOTE_WRITE_BYTES: usize = 1024 * 1024;
/// Rows of a large batch that a turn takes, and bytes of their labels.
const LARGE_ROWS_PER_TURN: usize = 8 * 1024;
const LARGE_LABEL_BYTES_PER_TURN: usize = 256 * 1024;
/// One label set, whatever its rows' turn holds: lengths of names and values stand beside them.
const LABEL_SET_BYTES_MAX: usize =
    METRIC_NAME_BYTES_MAX + LABELS_MAX * (LABEL_NAME_BYTES_MAX + LABEL_VALUE_BYTES_MAX + 4);
const _: () = assert!(
    storage::journal::batch_bytes_max(
        LARGE_ROWS_PER_TURN,
        LARGE_LABEL_BYTES_PER_TURN + LABEL_SET_BYTES_MAX,
        ingest::CLIENT_ID_BYTES_MAX
    ) < 1_000_000,
    "each piece of a body fits into the smallest journal file, of 1 MiB, whatever the body"
);
/// How long after its arrival a batch of which rows are taken waits for a place.
const MIDWAY_PATIENCE_NANOS: u64 = 5_000_000_000;
/// How long it waits before it is tried again, at most: a place in a ring, and room in the journal, come without a word.
const LARGE_RETRY_NANOS: u64 = 1_000_000;
/// What a large body takes of memory, in its plain bytes: with the executor it is there as it came, plain, as checked
/// text and as a batch; here, as a batch.
const HELD_WITH_EXECUTOR: usize = 4;
const HELD_AS_BATCH: usize = 2;

/// Bytes of a plain body that a turn has time for.
pub(super) fn turn_bytes_max(door: Door) -> usize {
    match door {
        Door::Metrics | Door::Lines { .. } | Door::Import(_) | Door::Exposition => LARGE_BODY_BYTES,
        Door::RemoteWrite => LARGE_REMOTE_WRITE_BYTES,
    }
}

/// A body that is too large for a turn, as it came.
pub struct LargeBody {
    /// In which form its samples are.
    pub door: Door,
    /// Which times are taken, as of its arrival.
    pub bounds: TimeBounds,
    /// The body.
    pub bytes: Vec<u8>,
    /// How it is compressed.
    pub coding: Option<ContentCoding>,
    /// What it counts among the bytes that are out: of a compressed one, what it may become.
    pub counted_bytes: usize,
}

/// A body that the executor is to decode, where it lies.
pub(super) struct HandedOver<'a> {
    /// As it came, or plain.
    pub bytes: Cow<'a, [u8]>,
    /// How these bytes are compressed.
    pub coding: Option<ContentCoding>,
}

/// A large body, decoded.
pub struct LargeBatch {
    /// Its samples.
    pub batch: Batch,
    /// Bytes that it was decoded from, decompressed.
    pub plain_bytes: usize,
    /// What it is answered once its samples are taken.
    pub accepted: Accepted,
    /// The id the body gave its client.
    pub client_id: Option<Vec<u8>>,
}

impl LargeBatch {
    /// What some of its rows take of the journal at most.
    fn journal_bytes_max(&self, rows: Range<usize>) -> usize {
        let label_bytes = self.batch.label_bytes(rows.clone());
        storage::journal::batch_bytes_max(rows.len(), label_bytes, ingest::CLIENT_ID_BYTES_MAX)
    }
}

impl Exchange {
    /// Whether a large body may be with the executor beside those that are.
    pub(super) fn may_hand_over(&self, body: &HandedOver<'_>) -> bool {
        let held = HELD_WITH_EXECUTOR * self.handed_over_bytes + HELD_AS_BATCH * self.waiting_bytes();
        held == 0 || held + HELD_WITH_EXECUTOR * self.counted_bytes(body) <= self.large_bytes_max
    }

    /// Hands a large body to the executor, which decodes it while this loop turns on; only where
    /// [`Exchange::may_hand_over`] says so.
    pub(super) fn hand_over(
        &mut self,
        id: ConnId,
        body: HandedOver<'_>,
        terms: Terms<'static>,
        asked: impl FnOnce(Awaited) -> Asked,
    ) {
        let counted_bytes = self.counted_bytes(&body);
        self.handed_over_bytes += counted_bytes;
        let HandedOver { bytes, coding } = body;
        let (door, bounds, bytes) = (terms.door, self.bounds, bytes.into_owned());
        let body = LargeBody { door, bounds, bytes, coding, counted_bytes };
        self.large_bodies.push((id, Box::new(body)));
        if let Some(held) = self.connection(id) {
            held.asked = Some(Box::new(asked(Awaited::Batch { terms })));
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.large.iter().map(|(_, large, _)| large.plain_bytes).sum()
    }

    fn counted_bytes(&self, body: &HandedOver<'_>) -> usize {
        if body.coding.is_some() { self.limits.body_bytes_max } else { body.bytes.len() }
    }

    /// A large body has come back as a batch, or as what is wrong with it.
    pub fn decoded(
        &mut self,
        id: ConnId,
        counted_bytes: usize,
        decoded: Result<Box<LargeBatch>, IntakeError>,
    ) {
        self.handed_over_bytes -= counted_bytes;
        if self.connection(id).is_none_or(|held| held.asked.is_none()) {
            return;
        }
        let checked = decoded.and_then(|large| {
            let is_batch = matches!(large.accepted, Accepted::Batch { .. });
            if is_batch || large.accepted == Accepted::Single {
                check_times(&large.batch, is_batch, &self.bounds)?;
            }
            Ok(large)
        });
        match checked {
            Ok(large) if large.batch.is_empty() => self.finish_large(id, Ok(large.accepted)),
            Ok(large) => self.large.push_back((id, large, 0)),
            Err(error) => self.finish_large(id, Err(error)),
        }
    }

    /// The executor has no place for a large body.
    pub fn refuse_large(&mut self, id: ConnId, counted_bytes: usize) {
        self.handed_over_bytes -= counted_bytes;
        self.finish_large(id, Err(IntakeError::Overloaded));
    }

    /// Takes the next rows of the large batches; gives the connection that has its answer by that.
    ///
    /// A batch that is refused midway (the disk is full, or a ring stays full for seconds) keeps what was taken, as
    /// SPEC §2.1 says of a 503.
    pub fn take_large(&mut self) -> Option<ConnId> {
        if self.gate.is_shut() {
            return None;
        }
        let (id, mut large, taken) = self.large.pop_front()?;
        self.large_retry_at = None;
        let end = large.batch.piece_end(taken, LARGE_ROWS_PER_TURN, LARGE_LABEL_BYTES_PER_TURN);
        if self.shut_for_file(large.journal_bytes_max(taken..end)) {
            self.large.push_front((id, large, taken));
            return None;
        }
        let slot = self.connections.get_mut(id.index()).and_then(Option::as_mut)?;
        if slot.id != id {
            return None;
        }
        let arrived_nanos = slot.asked.as_ref().map_or(0, |asked| asked.arrived_nanos);
        let waited_nanos = self.now.nanos.saturating_sub(arrived_nanos);
        let terms = slot.asked.as_ref().and_then(|asked| asked.batch_terms());
        let named = terms.and_then(|terms| terms.client.as_deref()).or(large.client_id.as_deref());
        let named = named.map(<[u8]>::to_vec);
        let client = match &named {
            Some(named) => Client::Named(named),
            None => Client::Peer(slot.peer, &mut slot.memo),
        };
        let result = match self.gate {
            Gate::Open | Gate::Trying => {
                self.intake.take_rows(&large.batch, taken..end, Names::Metrics, client, self.now)
            }
            Gate::Shut { .. } | Gate::Refusing => Err(IntakeError::Overloaded.into()),
        };
        match result {
            Ok(_) if end < large.batch.len() => {
                self.large.push_front((id, large, end));
                return None;
            }
            Ok(_) => self.finish_large(id, Ok(large.accepted)),
            // A full ring empties in a moment; refusing now would leave the rows that were taken.
            Err(NotTaken::Refused(IntakeError::Overloaded) | NotTaken::AwaitsFile { .. })
                if taken > 0 && waited_nanos < MIDWAY_PATIENCE_NANOS =>
            {
                self.large.push_front((id, large, taken));
                self.large_retry_at = Some(self.now.nanos + LARGE_RETRY_NANOS);
                return None;
            }
            Err(NotTaken::Refused(error)) => {
                let LargeBatch { batch, accepted, .. } = &mut *large;
                let is_other = self.intake.leave_out(batch, taken..end, Names::Metrics, accepted, &error);
                if is_other && taken < large.batch.len() {
                    self.large.push_front((id, large, taken));
                    return None;
                }
                self.finish_large(id, if is_other { Ok(large.accepted) } else { Err(error) });
            }
            Err(NotTaken::AwaitsFile { .. }) => self.finish_large(id, Err(IntakeError::Overloaded)),
            Err(NotTaken::LongerThanFile { bytes }) => {
                let file_bytes = self.shared.config.storage_journal_file_bytes;
                let why = format!(
                    "{bytes} bytes of it have to go into one journal file, and those have \
                     storage.journal_file_bytes = {file_bytes}: raise it, or send less at once"
                );
                self.finish_large(id, Err(IntakeError::TooLarge(why)));
            }
        }
        Some(id)
    }

    fn finish_large(&mut self, id: ConnId, accepted: Result<Accepted, IntakeError>) {
        let Some(asked) = self.connection(id).and_then(|held| held.asked.take()) else { return };
        let level = asked.batch_terms().map_or(Durability::Memory, |terms| terms.level);
        let (payload, level) = self.payload_of(accepted, level, asked.door());
        let any_origin = false;
        self.queue(asked.reply(id, payload, any_origin), level);
    }

    /// Rows that were taken may be lost: the rest of such a batch must not be acknowledged for the whole.
    pub fn break_off_large(&mut self, cause: impl Fn() -> IntakeError) {
        for (id, large, taken) in std::mem::take(&mut self.large) {
            if taken == 0 {
                self.large.push_back((id, large, taken));
            } else {
                self.finish_large(id, Err(cause()));
                self.stand_again(id);
            }
        }
    }

    /// Whether the next rows of a large batch are to be taken at once, or the batch be refused.
    pub fn has_large(&self) -> bool {
        let has_waited = self.large_retry_at.is_none_or(|at| at <= self.now.nanos);
        has_waited && !self.large.is_empty() && !self.gate.is_shut()
    }

    /// When a batch that is half taken, and found no place for more, is to be tried again, in monotonic nanoseconds.
    /// (While the gate is shut, its opening is waited for.)
    pub fn large_retry_at(&self) -> Option<u64> {
        self.large_retry_at.filter(|_| !self.large.is_empty() && !self.gate.is_shut())
    }
}
