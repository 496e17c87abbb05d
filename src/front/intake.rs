//! One body on its way in: decode → check → claim → number → journal frame and shares.
//!
//! Always: nothing is journaled before a place is claimed in every ring and room in the journal; rows are journaled all
//! or none ([`Intake::take_rows`]). Those of a body are one piece here, and several of a large one (`exchange/large.rs`);
//! of a remote write what a limit refuses is left out first and told, and the rest goes in. A share is published only
//! after the kernel has its frame, where an answer waits for that (`memory` and the first parts of a large body may be
//! seen before they are written).
//! The hot path allocates nothing: batch, frame and shares are kept, shares come back emptied.

use super::address::{ADDRESS_TEXT_BYTES_MAX, AddressText};
use super::admission::Admissions;
use super::exchange::Now;
use super::numbers::NumbersByNames;
use super::wal::Wal;
use crate::api::{Door, InfluxVersion, IntakeError};
use crate::message::ToStore;
use crate::shared::{FrontCounters, Shared};
use ingest::{
    ImportDecoder, ImportForm, LineDecoder, MetricsDecoder, RemoteWriteDecoder, RemoteWritten, Repeat, Shape,
    TimeBounds,
};
use model::{Batch, MetricKind, Sample, Share, Stamp, StampClock, Timestamp};
use shard::mesh::Outbox;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use storage::journal::{ClientNumber, JournalPosition, Reserve, Sealed, batch_bytes_max};

/// Spent shares kept for reuse; the rest is given back to the allocator.
const SPARE_SHARES_MAX: usize = 64;
/// A share that has grown past this many samples is not kept.
const SPARE_SHARE_SAMPLES_MAX: usize = 64 * 1024;

/// Places of a ring that samples leave to questions and to the journal's own messages.
pub const RING_PLACES_KEPT: usize = 64;

/// What a body became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// One metric of `POST /metrics`.
    Single,
    /// So many of them.
    Batch {
        /// How many.
        count: usize,
    },
    /// A remote write of which so many samples were taken.
    Remote {
        /// How many.
        samples: usize,
        /// What else there was.
        written: Box<RemoteWritten>,
        /// Samples that were left out because a limit refuses their series.
        over_limit: Option<Box<OverLimit>>,
    },
    /// Lines, besides whose samples there were so many texts.
    Lines {
        /// How many.
        texts: u64,
    },
}

/// Samples of new series beyond a limit, of a body whose others are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// How many.
    pub samples: usize,
    /// Which limit.
    pub error: IntakeError,
}

impl Accepted {
    /// Notes samples that were left out of a remote write.
    fn leave_out(&mut self, left_out: OverLimit) {
        let Accepted::Remote { samples, over_limit, .. } = self else { return };
        *samples -= left_out.samples;
        match over_limit {
            Some(before) => before.samples += left_out.samples,
            None => *over_limit = (left_out.samples > 0).then(|| Box::new(left_out)),
        }
    }

    /// What a body of `POST /metrics` became.
    pub fn metrics(shape: Shape, count: usize) -> Accepted {
        match shape {
            Shape::Single => Accepted::Single,
            Shape::Batch => Accepted::Batch { count },
        }
    }
}

/// Whether a body of a door for lines is a measurement as JSON: no line of an agent begins so.
pub fn is_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'{')
}

/// Series remembered of senders that say their labels in other forms than JSON: a share of what the loop's dictionary
/// may take, at some 60 bytes each, with their numbers.
fn remembered_max(dictionary_bytes_max: usize) -> usize {
    let series = (dictionary_bytes_max / 8 / 64).clamp(1024, 1 << 21);
    // A power of two, as their numbers are kept.
    1 << series.ilog2()
}

/// Whose label sets the rows of a batch name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Those that the decoder of `POST /metrics` remembers; of a batch that names none this, too.
    Metrics,
    /// Those that the decoder of remote write remembers. Rows without labels have numbers of this dictionary.
    RemoteWrite { dictionary: u64 },
    /// The same of line protocol.
    Lines { dictionary: u64 },
}

/// Why rows were not taken, none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// They are refused.
    Refused(IntakeError),
    /// The present journal file has no room for so many bytes, and the next one is not there yet.
    AwaitsFile { bytes: usize },
    /// No journal file has room for so many bytes at once; fewer rows may fit.
    LongerThanFile { bytes: usize },
}

impl From<IntakeError> for NotTaken {
    fn from(error: IntakeError) -> NotTaken {
        NotTaken::Refused(error)
    }
}

/// What became of rows for which there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All were taken.
    Whole,
    /// None was: a new dictionary has begun, and rows without labels mean nothing in it.
    Renumbered,
}

/// What is remembered of a connection's client: its number in the journal's present dictionary, and where its last
/// body stands among what its decoder remembers.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientMemo {
    number: Option<(u64, ClientNumber)>,
    repeat: Repeat,
}

/// Whose samples they are, for the journal.
pub enum Client<'a> {
    /// A name that a header or the body gave.
    Named(&'a [u8]),
    /// The address, and its number where it is known.
    Peer(IpAddr, &'a mut ClientMemo),
}

/// Whether every time that came with a sample may be taken.
pub fn check_times(batch: &Batch, is_batch: bool, bounds: &TimeBounds) -> Result<(), IntakeError> {
    for (index, timestamp) in batch.times() {
        bounds
            .check(timestamp.millis())
            .map_err(|refusal| IntakeError::Time { index: is_batch.then_some(index), refusal })?;
    }
    Ok(())
}

/// What one owner knows of this loop.
#[derive(Clone, Copy, Default)]
struct Told {
    /// By which dictionary it numbers its series.
    dictionary: u64,
    /// It is still to hear that the journal has abandoned a file.
    owes_flush: bool,
}

/// The way in, of one loop.
pub struct Intake {
    /// The loop's journal.
    pub wal: Wal,
    /// The loop's rings to the executors.
    pub outbox: Outbox<ToStore>,
    /// What the owners take.
    pub admissions: Admissions,
    shared: Arc<Shared>,
    loop_index: usize,
    /// Bytes of shares put into each ring so far.
    published_bytes: Vec<u64>,
    /// As of the last publishing: more waits in some ring than may.
    rings_full: bool,
    told: Vec<Told>,
    /// Names that were taken back and whose owners, by number, do not know it yet: a few each.
    taken_back: Vec<(usize, Box<Share>)>,
    metrics: MetricsDecoder,
    remote_write: RemoteWriteDecoder,
    imports: ImportDecoder,
    lines: LineDecoder,
    /// By what the decoders call label sets.
    numbers: NumbersByNames,
    batch: Batch,
    named: Vec<u8>,
    stamps: StampClock,
    /// Where this turn's stamps begin, once it has stamped.
    stamps_from: Option<Timestamp>,
    last_stamp: Stamp,
    /// The share of the open frame, by owner.
    open: Vec<Option<Box<Share>>>,
    /// Ends of the frames sealed in this turn. More than one only where the journal went on in a new file.
    frame_ends: Vec<JournalPosition>,
    /// Shares of sealed frames that wait for their write.
    sealed: Vec<(usize, Box<Share>)>,
    #[expect(
        clippy::vec_box,
        reason = "the box is what crosses the ring and comes back; a share is not unboxed"
    )]
    spare: Vec<Box<Share>>,
}

impl Intake {
    /// The way in of loop `loop_index` of `loops`.
    pub fn new(shared: &Arc<Shared>, loop_index: usize, wal: Wal, outbox: Outbox<ToStore>) -> Intake {
        let loops = shared.shard_count();
        let remembered = remembered_max(shared.dictionary_bytes_max());
        Intake {
            wal,
            outbox,
            admissions: Admissions::new(
                loops,
                shared.series_limit.clone(),
                shared.config.storage_series_per_name_max,
            ),
            shared: shared.clone(),
            loop_index,
            published_bytes: vec![0; loops],
            rings_full: false,
            told: vec![Told::default(); loops],
            taken_back: Vec::new(),
            metrics: MetricsDecoder::naming_repeats(shared.client_seed),
            remote_write: RemoteWriteDecoder::naming_repeats(shared.client_seed, remembered),
            imports: ImportDecoder::new(),
            lines: LineDecoder::naming_repeats(shared.client_seed, remembered),
            numbers: NumbersByNames::new(remembered),
            batch: Batch::default(),
            named: Vec::new(),
            stamps: StampClock::new(loop_index, loops),
            stamps_from: None,
            last_stamp: Stamp { run: shared.run, nanos: 0, loop_index: loop_index as u16 },
            open: (0..loops).map(|_| None).collect(),
            frame_ends: Vec::new(),
            sealed: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// The next stamps begin at the moment of a new turn.
    pub fn begin_turn(&mut self) {
        self.stamps_from = None;
    }

    /// Takes one body. `client` is the id a header gave; `peer` is used when neither header nor body names one.
    pub fn accept(
        &mut self,
        door: Door,
        body: &[u8],
        client: Option<&[u8]>,
        peer: (IpAddr, &mut ClientMemo),
        now: Now,
        bounds: &TimeBounds,
    ) -> Result<Accepted, NotTaken> {
        match door {
            Door::Metrics => self.accept_metrics(body, client, peer, now, bounds),
            Door::Lines { version: InfluxVersion::One, .. } if is_json(body) => {
                let client = client.map_or(Client::Peer(peer.0, peer.1), Client::Named);
                let taken = self.accept_decoded(client, now, |intake, batch| {
                    intake.metrics.decode_measurement(body, batch).map_err(IntakeError::Body)?;
                    check_times(batch, false, bounds)
                });
                taken.map(|_| Accepted::Single)
            }
            Door::Import(_) | Door::Exposition => {
                let form = match door {
                    Door::Import(form) => form,
                    _ => ImportForm::Exposition,
                };
                let client = client.map_or(Client::Peer(peer.0, peer.1), Client::Named);
                let taken = self.accept_decoded(client, now, |intake, batch| {
                    intake.imports.decode(body, (form, bounds), batch).map_err(IntakeError::Import)
                });
                taken.map(|count| match door {
                    Door::Import(_) => Accepted::Batch { count },
                    _ => Accepted::Lines { texts: 0 },
                })
            }
            Door::RemoteWrite | Door::Lines { .. } => {
                let mut batch = std::mem::take(&mut self.batch);
                let accepted = self.accept_sequence((door, body), &mut batch, client, peer, now, bounds);
                self.batch = batch;
                accepted
            }
        }
    }

    fn accept_metrics(
        &mut self,
        body: &[u8],
        client: Option<&[u8]>,
        peer: (IpAddr, &mut ClientMemo),
        now: Now,
        bounds: &TimeBounds,
    ) -> Result<Accepted, NotTaken> {
        let mut batch = std::mem::take(&mut self.batch);
        let mut named = std::mem::take(&mut self.named);
        batch.clear();
        named.clear();
        let decoded = self
            .metrics
            .decode(body, &mut batch, &mut peer.1.repeat)
            .map_err(IntakeError::Body)
            .map(|decoded| {
                named.extend_from_slice(client.or(decoded.client_id.map(str::as_bytes)).unwrap_or_default());
                decoded.shape
            });
        let accepted = decoded.map_err(NotTaken::Refused).and_then(|shape| {
            check_times(&batch, shape == Shape::Batch, bounds)?;
            let client = if named.is_empty() { Client::Peer(peer.0, peer.1) } else { Client::Named(&named) };
            self.take_rows(&batch, 0..batch.len(), Names::Metrics, client, now)?;
            Ok(Accepted::metrics(shape, batch.len()))
        });
        self.batch = batch;
        self.named = named;
        accepted
    }

    /// Takes a body that `decode` puts into the batch, all of it; how many samples those are.
    fn accept_decoded(
        &mut self,
        client: Client<'_>,
        now: Now,
        decode: impl FnOnce(&mut Intake, &mut Batch) -> Result<(), IntakeError>,
    ) -> Result<usize, NotTaken> {
        let mut batch = std::mem::take(&mut self.batch);
        let accepted = match decode(self, &mut batch) {
            Ok(()) if batch.is_empty() => Ok(0),
            Ok(()) => {
                let taken = self.take_rows(&batch, 0..batch.len(), Names::Metrics, client, now);
                taken.map(|_| batch.len())
            }
            Err(error) => Err(NotTaken::Refused(error)),
        };
        self.batch = batch;
        accepted
    }

    /// Takes a body of a door whose decoder knows series again by their order, and leaves the labels of those out that
    /// have a number.
    fn accept_sequence(
        &mut self,
        (door, body): (Door, &[u8]),
        batch: &mut Batch,
        client: Option<&[u8]>,
        (peer, memo): (IpAddr, &mut ClientMemo),
        now: Now,
        bounds: &TimeBounds,
    ) -> Result<Accepted, NotTaken> {
        // When the rows do not fit the present journal file, the next one begins, and with it a dictionary that numbers
        // nothing: the body is decoded again, with all its labels. That one fits.
        for _ in 0..2 {
            let writer = &self.wal.writer;
            let dictionary = writer.dictionary();
            let names = match door {
                Door::Lines { .. } => Names::Lines { dictionary },
                _ => Names::RemoteWrite { dictionary },
            };
            let numbers = self.numbers.of(names);
            numbers.begin(dictionary);
            let numbers = &*numbers;
            let is_numbered = |id| {
                let known = numbers.get(Some(id));
                known.is_some_and(|(number, _)| writer.is_of_kind(number, MetricKind::Gauge))
            };
            let repeat = &mut memo.repeat;
            let mut accepted = match door {
                Door::Lines { unit, .. } => {
                    let written = self
                        .lines
                        .decode(body, (unit, bounds), batch, repeat, is_numbered)
                        .map_err(IntakeError::Lines)?;
                    Accepted::Lines { texts: written.texts }
                }
                _ => {
                    let written = self
                        .remote_write
                        .decode(body, bounds, batch, repeat, is_numbered)
                        .map_err(IntakeError::RemoteWrite)?;
                    let (samples, written) = (batch.len(), Box::new(written));
                    Accepted::Remote { samples, written, over_limit: None }
                }
            };
            let mut taken = Ok(Taken::Whole);
            // Again where a limit refuses some of its series, without those.
            for _ in 0..2 {
                if batch.is_empty() {
                    taken = Ok(Taken::Whole);
                    break;
                }
                let client = match client {
                    Some(named) => Client::Named(named),
                    None => Client::Peer(peer, &mut *memo),
                };
                taken = self.take_rows(batch, 0..batch.len(), names, client, now);
                let Err(NotTaken::Refused(error)) = &taken else { break };
                if !self.leave_out(batch, 0..batch.len(), names, &mut accepted, error) {
                    break;
                }
            }
            if taken? == Taken::Whole {
                return Ok(accepted);
            }
        }
        Err(IntakeError::Overloaded.into())
    }

    /// Takes those rows out of a remote write that are of series beyond the limit for which it was refused: then the rest
    /// goes in, also where room has come free meanwhile and nothing is taken out. False of another door, and where it was
    /// refused for another reason.
    pub fn leave_out(
        &mut self,
        batch: &mut Batch,
        rows: Range<usize>,
        names: Names,
        accepted: &mut Accepted,
        error: &IntakeError,
    ) -> bool {
        let is_limit = matches!(error, IntakeError::SeriesLimit { .. } | IntakeError::NameLimit { .. });
        if !is_limit || !matches!(accepted, Accepted::Remote { .. }) {
            return false;
        }
        let numbers = self.numbers.of(names);
        let refused = self.admissions.beyond_limits(&self.wal.writer, numbers, batch, rows);
        let before = batch.len();
        batch.retain(|row| refused.binary_search(&row).is_err());
        accepted.leave_out(OverLimit { samples: before - batch.len(), error: error.clone() });
        true
    }

    /// Journals some rows of a batch and puts them into their owners' shares, all of them or none. Where the
    /// batch names repeats they are those of this loop's decoder of that name.
    pub fn take_rows(
        &mut self,
        batch: &Batch,
        rows: Range<usize>,
        names: Names,
        client: Client<'_>,
        now: Now,
    ) -> Result<Taken, NotTaken> {
        // Claim: a place in every ring, then room in the journal. Only this loop uses either up.
        let claimed = self.sealed.len() + 1 + RING_PLACES_KEPT;
        for owner in 0..self.open.len() {
            if !self.outbox.to(owner).has_free(claimed) {
                return Err(IntakeError::Overloaded.into());
            }
        }
        if self.rings_full && self.waits_too_much() {
            return Err(IntakeError::Overloaded.into());
        }
        let id_bytes = match &client {
            Client::Named(id) => id.len(),
            Client::Peer(..) => ADDRESS_TEXT_BYTES_MAX,
        };
        let needed = batch_bytes_max(rows.len(), batch.label_bytes(rows.clone()), id_bytes);
        loop {
            match self.wal.writer.reserve(needed) {
                Reserve::Ready => break,
                Reserve::SealFirst => {
                    let sealed = seal(&mut self.wal, &mut self.open, &mut self.sealed, now.nanos);
                    note(sealed, &mut self.frame_ends, &mut self.last_stamp);
                }
                Reserve::Full if self.wal.awaits_file(needed) => {
                    return Err(NotTaken::AwaitsFile { bytes: needed });
                }
                Reserve::Full => return Err(self.journal_is_full().into()),
                Reserve::TooLarge => return Err(NotTaken::LongerThanFile { bytes: needed }),
            }
        }
        let numbers = self.numbers.of(names);
        if let Names::RemoteWrite { dictionary } | Names::Lines { dictionary } = names
            && dictionary != self.wal.writer.dictionary()
        {
            return Ok(Taken::Renumbered);
        }
        // Last, for it spends from the limit of series: from here on nothing refuses the rows.
        self.admissions.check(&self.wal.writer, numbers, batch, rows.clone())?;

        let shards = self.open.len();
        let writer = &mut self.wal.writer;
        let client = match client {
            Client::Named(id) => writer.client(id),
            Client::Peer(peer, memo) => match memo.number {
                Some((dictionary, number)) if dictionary == writer.dictionary() => number,
                _ => {
                    let number = writer.client(AddressText::of(peer).as_bytes());
                    memo.number = Some((writer.dictionary(), number));
                    number
                }
            },
        };
        numbers.begin(writer.dictionary());
        writer.begin_batch(client);
        for run in batch.runs_in(rows) {
            let row = run.first;
            let known = numbers.get(row.repeat).filter(|(number, _)| writer.is_of_kind(*number, row.kind));
            let (number, owner) = known.unwrap_or_else(|| {
                let labels = row.labels.expect("it has a number of this dictionary, or labels");
                let numbered = writer.number(labels, row.kind, |hash| ingest::owner(hash, shards) as u16);
                if let Some(repeat) = row.repeat {
                    numbers.note(repeat, numbered.number, numbered.owner);
                }
                if numbered.first {
                    let owner = usize::from(numbered.owner);
                    let share = self.open[owner].get_or_insert_with(|| self.spare.pop().unwrap_or_default());
                    share.define(numbered.number, row.kind, labels);
                    share.new_series += self.admissions.take_new(owner);
                }
                (numbered.number, numbered.owner)
            });
            let samples = run.samples().map(|(timestamp, value)| {
                let timestamp = timestamp.unwrap_or_else(|| {
                    let begin = || self.shared.stamping.begin(self.loop_index, now.unix_ms, now.micros);
                    let from = *self.stamps_from.get_or_insert_with(begin);
                    self.stamps.stamp(from)
                });
                Sample { timestamp, value }
            });
            let share =
                self.open[usize::from(owner)].get_or_insert_with(|| self.spare.pop().unwrap_or_default());
            writer.push_all(number, share.push_all(number, samples));
        }
        Ok(Taken::Whole)
    }

    fn journal_is_full(&self) -> IntakeError {
        match &self.wal.file_refused {
            Some(error) => IntakeError::of_disk(error),
            None => IntakeError::Overloaded,
        }
    }

    /// Closes the open frame, if there is one, and its shares.
    pub fn seal_frame(&mut self, now_nanos: u64) {
        let sealed = seal(&mut self.wal, &mut self.open, &mut self.sealed, now_nanos);
        note(sealed, &mut self.frame_ends, &mut self.last_stamp);
    }

    /// Which of the turn's frames is open: what was accepted last lies in it.
    pub fn open_frame(&self) -> usize {
        self.frame_ends.len()
    }

    /// Where a frame of this turn ends, once it is sealed.
    pub fn sealed_end(&self, frame: usize) -> Option<JournalPosition> {
        self.frame_ends.get(frame).copied()
    }

    /// The same; for what lies in no frame, the journal's end.
    pub fn frame_end(&self, frame: usize) -> JournalPosition {
        self.sealed_end(frame).unwrap_or_else(|| self.journal_end())
    }

    /// The turn's replies know their ends.
    pub fn forget_frames(&mut self) {
        self.frame_ends.clear();
    }

    /// The stamp of what was sealed last; what is sent next comes after it.
    pub fn stamp(&self) -> Stamp {
        self.last_stamp
    }

    /// Where the journal ends with what was sealed.
    pub fn journal_end(&self) -> JournalPosition {
        self.wal.writer.end()
    }

    /// Puts the shares of written frames into the rings; the owners see them after one store each.
    pub fn publish(&mut self, counters: &FrontCounters, mut published_to: impl FnMut(usize)) {
        let mut samples = 0;
        for (owner, share) in self.sealed.drain(..) {
            samples += share.len() as u64;
            counters.samples_by_owner.of(owner).add(share.len() as u64);
            self.published_bytes[owner] += share.bytes() as u64;
            let pushed = self.outbox.to(owner).push(ToStore::Share(share));
            debug_assert!(pushed.is_ok(), "the place was claimed before the frame was written");
            published_to(owner);
        }
        counters.samples_accepted.add(samples);
        self.tell_owners();
        self.outbox.publish_all();
        self.rings_full = self.waits_too_much();
    }

    /// Whether more bytes of shares than may wait for some owner.
    fn waits_too_much(&self) -> bool {
        let max = self.shared.ring_bytes_max();
        let applied = self.shared.applied_bytes.iter().map(|of| of[self.loop_index].get());
        self.published_bytes
            .iter()
            .zip(applied)
            .any(|(published, applied)| published.saturating_sub(applied) > max)
    }

    /// Whether that owner is still to hear that a file was abandoned.
    pub fn owes_flush(&self, owner: usize) -> bool {
        self.told[owner].owes_flush
    }

    /// An owner would forget series: they have these numbers no more. It hears of that behind the samples that came under
    /// them.
    pub fn take_names_back(&mut self, owner: usize, names: Box<Share>) {
        self.wal.writer.take_back(&names);
        self.taken_back.push((owner, names));
    }

    /// Begins the new dictionary that owners have asked for, once its file is there, and tells every owner what it
    /// is to know, behind the shares that this is about. Where there is no place the next turn tries again.
    ///
    /// Of any new dictionary: an owner that gets no sample from here would otherwise keep what the old one names.
    fn tell_owners(&mut self) {
        self.wal.writer.renew();
        let (dictionary, stamp) = (self.wal.writer.dictionary(), self.last_stamp);
        for (owner, names) in std::mem::take(&mut self.taken_back) {
            let message = ToStore::NamesTakenBack { names, stamp };
            if let Err(ToStore::NamesTakenBack { names, .. }) = self.outbox.send(owner, message) {
                self.taken_back.push((owner, names));
            }
        }
        for (owner, told) in self.told.iter_mut().enumerate() {
            let flush = told.owes_flush.then_some(ToStore::Flush { stamp });
            let is_new = dictionary != 0 && told.dictionary != dictionary;
            let dictionary_begun = is_new.then_some(ToStore::Dictionary { dictionary, stamp });
            for message in flush.into_iter().chain(dictionary_begun) {
                let is_flush = matches!(message, ToStore::Flush { .. });
                if self.outbox.send(owner, message).is_err() {
                    break;
                }
                if is_flush {
                    told.owes_flush = false;
                } else {
                    told.dictionary = dictionary;
                }
            }
        }
    }

    /// Nothing behind `last_good` will ever be replayed: the owners shall not see it either. The open frame is
    /// gone with its file, and the numbers of its dictionary with it.
    ///
    /// What they have seen and clients were told to be written is in their memory alone: they are to flush it.
    pub fn discard_beyond(&mut self, last_good: JournalPosition) {
        self.told.iter_mut().for_each(|told| told.owes_flush = true);
        let is_lost = |share: &Share| {
            JournalPosition { sequence: share.dictionary, offset: share.journal_end } > last_good
        };
        for (owner, share) in std::mem::take(&mut self.sealed) {
            if is_lost(&share) {
                self.admissions.give_back(share.new_series);
                self.recycle(share);
            } else {
                self.sealed.push((owner, share));
            }
        }
        for owner in 0..self.open.len() {
            if let Some(share) = self.open[owner].take() {
                self.admissions.give_back(share.new_series);
                self.recycle(share);
            }
        }
    }

    /// Takes back a share that an executor has applied.
    pub fn recycle(&mut self, mut share: Box<Share>) {
        if self.spare.len() < SPARE_SHARES_MAX && share.len() <= SPARE_SHARE_SAMPLES_MAX {
            share.clear();
            self.spare.push(share);
        }
    }
}

/// Closes the open frame, if there is one, and stamps its shares. Not a method: a body that is being taken
/// still borrows the decoder when its predecessors' frame has to be closed.
fn seal(
    wal: &mut Wal,
    open: &mut [Option<Box<Share>>],
    sealed: &mut Vec<(usize, Box<Share>)>,
    now_nanos: u64,
) -> Option<Sealed> {
    let Sealed { end, stamp } = wal.writer.seal(now_nanos)?;
    for (owner, open) in open.iter_mut().enumerate() {
        if let Some(mut share) = open.take() {
            share.stamp = stamp;
            share.dictionary = end.sequence;
            share.journal_end = end.offset;
            sealed.push((owner, share));
        }
    }
    Some(Sealed { end, stamp })
}

fn note(sealed: Option<Sealed>, frame_ends: &mut Vec<JournalPosition>, last_stamp: &mut Stamp) {
    if let Some(Sealed { end, stamp }) = sealed {
        frame_ends.push(end);
        *last_stamp = stamp;
    }
}
