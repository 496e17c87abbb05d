//! A body with samples: what its head asks for, whether a turn has time for it, and what it is answered.
//!
//! Not here: its decoding and its way into the journal (`intake.rs`), the bodies that a turn has no time for
//! (`large.rs`).

use super::large::{HandedOver, turn_bytes_max};
use super::{Exchange, Terms};
use crate::api::{Door, IntakeError, Refusal};
use crate::config::Durability;
use crate::front::gate::Gate;
use crate::front::intake::{Accepted, NotTaken, OverLimit};
use crate::front::reply::Payload;
use http::{CodingError, ContentCoding, NotAtOnce, Request};
use ingest::{ImportForm, LineUnit, RemoteWritten};
use sha2::{Digest, Sha256};
use shard::net::ConnId;
use std::borrow::Cow;

/// Why a body is not taken here and now: the executor is to decode it, and its rows are taken piece by piece.
pub(super) enum NotNow {
    /// It is too large for a turn, or may be once it is plain; it goes as it came.
    AsItCame,
    /// It was made plain, and the journal has no room for it at once.
    Plain(Vec<u8>),
}

impl NotNow {
    /// What the executor is to decode of the body that came, and how that is compressed.
    pub(super) fn body(self, came: &[u8], coding: Option<ContentCoding>) -> HandedOver<'_> {
        match self {
            NotNow::AsItCame => HandedOver { bytes: Cow::Borrowed(came), coding },
            NotNow::Plain(plain) => HandedOver { bytes: Cow::Owned(plain), coding: None },
        }
    }
}

impl Exchange {
    /// What the head of a request with samples asks for, if it can be had now.
    pub(super) fn terms<'b>(&self, door: Door, request: &Request<'b>) -> Result<Terms<'b>, Refusal> {
        if !self.is_ready {
            return Err(IntakeError::Starting.into());
        }
        if self.shared.is_stopping() {
            return Err(IntakeError::Stopping.into());
        }
        let level = match request.header("durability") {
            None => self.shared.config.ingest_durability,
            Some(word) => std::str::from_utf8(word)
                .ok()
                .and_then(Durability::from_name)
                .ok_or_else(Refusal::unknown_durability)?,
        };
        if door == Door::RemoteWrite && is_remote_write_2(request) {
            return Err(Refusal::remote_write_version());
        }
        let door = match door {
            Door::Lines { version, .. } => Door::Lines { version, unit: line_unit(request)? },
            Door::Import(_) => Door::Import(import_form(request)?),
            door => door,
        };
        let coding = match ContentCoding::of(&request.headers).map_err(|_| Refusal::content_encoding())? {
            // The protocol knows no other form, and not every sender says so.
            None if door == Door::RemoteWrite && request.header("content-encoding").is_none() => {
                Some(ContentCoding::Snappy)
            }
            coding => coding,
        };
        let client = match (request.header("authorization"), request.header("x-client-id")) {
            (Some(credentials), _) => Some(Cow::Owned(client_of_credentials(credentials))),
            (None, Some(id)) if id.len() > ingest::CLIENT_ID_BYTES_MAX => {
                return Err(Refusal::client_id_too_long());
            }
            (None, named) => named.map(Cow::Borrowed),
        };
        Ok(Terms { door, level, client, coding })
    }

    /// Takes a body here and now, unless it is too large for a turn or for what is left of the journal's present file.
    pub(super) fn ingest(
        &mut self,
        id: ConnId,
        body: &[u8],
        terms: &Terms<'_>,
    ) -> Result<(Payload, Durability), NotNow> {
        let at_once_max = turn_bytes_max(terms.door);
        if body.len() > at_once_max {
            return Err(NotNow::AsItCame);
        }
        let Some(coding) = terms.coding else {
            return self.ingest_plain(id, body, terms).ok_or(NotNow::AsItCame);
        };
        // How large it will be is known only when it is: a body that passes this bound was tried in vain, at the
        // cost of what a turn may decode anyway.
        let bytes_max = at_once_max.min(self.limits.body_bytes_max);
        let mut plain = std::mem::take(&mut self.plain);
        self.decoded_bytes += body.len();
        let decided = match coding.decompress(body, bytes_max, &mut plain) {
            Ok(()) => match self.ingest_plain(id, &plain, terms) {
                Some(decided) => Ok(decided),
                None => return Err(NotNow::Plain(plain)),
            },
            Err(error) => {
                self.decoded_bytes += plain.len();
                match error {
                    NotAtOnce::GivesLittle => Err(NotNow::AsItCame),
                    NotAtOnce::Wrong(CodingError::TooLarge { .. })
                        if bytes_max < self.limits.body_bytes_max =>
                    {
                        Err(NotNow::AsItCame)
                    }
                    NotAtOnce::Wrong(error) => Ok(self.refused(IntakeError::Coding(error), terms.door)),
                }
            }
        };
        self.plain = plain;
        decided
    }

    /// The same for a plain body that a turn has time for; nothing when the journal has no room for it just now.
    fn ingest_plain(&mut self, id: ConnId, body: &[u8], terms: &Terms<'_>) -> Option<(Payload, Durability)> {
        self.decoded_bytes += body.len();
        let slot = self.connections[id.index()].as_mut().expect("the request came in on it");
        let peer = (slot.peer, &mut slot.memo);
        let client = terms.client.as_deref();
        let accepted = match self.intake.accept(terms.door, body, client, peer, self.now, &self.bounds) {
            Ok(accepted) => Ok(accepted),
            Err(NotTaken::Refused(error)) => Err(error),
            Err(NotTaken::LongerThanFile { .. }) => return None,
            Err(NotTaken::AwaitsFile { bytes }) if self.gate == Gate::Open => {
                // Whoever comes next would find no room either.
                self.shut_for_file(bytes);
                return None;
            }
            // The gate has waited for the file in vain.
            Err(NotTaken::AwaitsFile { .. }) => Err(IntakeError::Overloaded),
        };
        Some(self.payload_of(accepted, terms.level, terms.door))
    }

    /// The answer to a body, and the level that it has to reach.
    pub(super) fn payload_of(
        &self,
        accepted: Result<Accepted, IntakeError>,
        level: Durability,
        door: Door,
    ) -> (Payload, Durability) {
        let counters = &self.shared.shards[self.index].front;
        match accepted {
            Ok(accepted) => {
                counters.bodies_accepted.add(1);
                let payload = match accepted {
                    Accepted::Single => Payload::Accepted { count: None, level },
                    Accepted::Batch { count } => Payload::Accepted { count: Some(count), level },
                    Accepted::Remote { samples, written, over_limit } => {
                        self.remote_payload(samples, &written, over_limit.map(|over| *over), level)
                    }
                    Accepted::Lines { texts } => {
                        counters.texts_skipped.add(texts);
                        Payload::Kept { level, shape: door.refusal_shape() }
                    }
                };
                (payload, level)
            }
            Err(error) => {
                match error {
                    IntakeError::Body(_)
                    | IntakeError::RemoteWrite(_)
                    | IntakeError::Lines(_)
                    | IntakeError::Import(_)
                    | IntakeError::Coding(_)
                    | IntakeError::Time { .. } => {
                        counters.validation_errors.add(1);
                    }
                    IntakeError::MemoryFull(_) => counters.memory_refusals.add(1),
                    IntakeError::SeriesLimit { .. } | IntakeError::NameLimit { .. } => {
                        counters.series_refusals.add(1);
                    }
                    _ => counters.overload_refusals.add(1),
                }
                let refusal = Refusal { shape: door.refusal_shape(), ..error.into() };
                (Payload::Refused(refusal), Durability::Memory)
            }
        }
    }

    pub(super) fn refused(&self, error: IntakeError, door: Door) -> (Payload, Durability) {
        self.payload_of(Err(error), Durability::Memory, door)
    }

    /// Samples that were left out make the answer a refusal, which waits for the others as their acknowledgement would:
    /// its sender will not send them again.
    fn remote_payload(
        &self,
        samples: usize,
        written: &RemoteWritten,
        over_limit: Option<OverLimit>,
        level: Durability,
    ) -> Payload {
        let counters = &self.shared.shards[self.index].front;
        let shape = Door::RemoteWrite.refusal_shape();
        counters.exemplars_skipped.add(written.exemplars);
        counters.metadata_skipped.add(written.metadata);
        if written.histograms > 0 && counters.histograms_skipped.get() == 0 {
            crate::log::warning(format_args!(
                "loop {}: remote write brings native histograms, which are not kept \
                 (ringwatch_ingest_histograms_skipped_total counts them)",
                self.index
            ));
        }
        counters.histograms_skipped.add(written.histograms);
        let not_valid = written.left_out.as_ref().map_or(0, |left_out| left_out.samples);
        let refused = not_valid + over_limit.as_ref().map_or(0, |over| over.samples);
        counters.samples_left_out.add(refused as u64);
        counters.validation_errors.add(u64::from(not_valid > 0));
        counters.series_refusals.add(u64::from(over_limit.is_some()));
        let refusal = match (&written.left_out, over_limit) {
            (None, None) => return Payload::Kept { level, shape },
            // A limit is told first: that is the operator's to mend, and may be so of many senders.
            (_, Some(OverLimit { error, .. })) => Refusal::over_limit(error, refused, samples + refused),
            (Some(left_out), None) => Refusal::left_out(left_out, samples + refused),
        };
        Payload::Partly(Refusal { shape, ..refusal })
    }
}

/// `auth:` and half of SHA-256: the same credentials are the same client, and cannot be read back.
fn client_of_credentials(credentials: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut id = b"auth:".to_vec();
    for byte in Sha256::digest(credentials).iter().take(16) {
        id.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    id
}

/// The unit that the parameter `precision` names; the last one counts.
fn line_unit(request: &Request<'_>) -> Result<LineUnit, Refusal> {
    let mut unit = LineUnit::default();
    for pair in http::parameters(request.query) {
        let (key, value) = pair.map_err(Refusal::from)?;
        if key == "precision" && !value.is_empty() {
            unit = LineUnit::from_name(&value).ok_or_else(Refusal::unknown_precision)?;
        }
    }
    Ok(unit)
}

/// The form that the parameter `format` names, or else the body's type; the last one counts.
fn import_form(request: &Request<'_>) -> Result<ImportForm, Refusal> {
    let content_type = request.header("content-type").and_then(ImportForm::from_content_type);
    let mut form = content_type.unwrap_or(ImportForm::Json);
    for pair in http::parameters(request.query) {
        let (key, value) = pair.map_err(Refusal::from)?;
        if key == "format" {
            form = ImportForm::from_name(&value).ok_or_else(Refusal::unknown_format)?;
        }
    }
    Ok(form)
}

/// `Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request`.
fn is_remote_write_2(request: &Request<'_>) -> bool {
    const PROTO: &[u8] = b"io.prometheus.write.v2.";
    let content_type = request.header("content-type").unwrap_or_default();
    content_type.windows(PROTO.len()).any(|window| window.eq_ignore_ascii_case(PROTO))
}
