//! Goal: whatever fails and whenever, a request gets one answer, in the order of its connection, and no answer says
//! more than what the journal kept.
//! Method: random turns over the true journal writer, whose writes and syncs fail on request, beside a naive book
//! that knows of every frame only whether it is written, synced or lost. Small files make a turn have several frames.

use super::*;
use model::{LabelSet, MetricKind, Sample, Timestamp};
use proptest::prelude::*;
use std::io;
use storage::disk::{SimDisk, ready};
use storage::journal::{JournalLimits, Reserve, Resume, Sync, Writer, batch_bytes_max, prepare};

const CONNECTIONS: usize = 3;

/// What became of a frame, by the naive book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Sealed,
    Written,
    Synced,
    Lost,
}

/// Which answer a request is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A body, to be accepted at that level.
    Body(Durability),
    /// A query, a refusal, `100 Continue`: nothing of it is in the journal.
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    id: usize,
    conn: usize,
    /// None once it is refused, and for what is no body.
    accepted: Option<(Durability, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Request {
        conn: usize,
        kind: Kind,
    },
    /// Of its writes, one per file, that one fails.
    EndTurn {
        failing_write: Option<usize>,
    },
    SyncComes {
        fails: bool,
    },
    FileComes,
}

/// A loop without sockets: the writer, the line and the book.
struct Harness {
    disk: SimDisk,
    writer: Writer,
    withheld: Withheld<Answer>,
    turn: Vec<Pending<Answer>>,
    frame_ends: Vec<JournalPosition>,
    sync: Option<(Sync, Vec<usize>)>,
    own: [usize; CONNECTIONS],
    asked: usize,
    sent: Vec<Answer>,
    /// By frame: its fate, and in which file it lies.
    book: Vec<(Fate, u64)>,
}

fn failed() -> io::Result<()> {
    Err(io::ErrorKind::Other.into())
}

impl Harness {
    fn new() -> Harness {
        let limits = JournalLimits { file_bytes_min: 6 * 1024, ..JournalLimits::default() };
        let mut harness = Harness {
            disk: SimDisk::new(1),
            writer: Writer::new(0, 1, Resume::default(), limits),
            withheld: Withheld::new(),
            turn: Vec::new(),
            frame_ends: Vec::new(),
            sync: None,
            own: [0; CONNECTIONS],
            asked: 0,
            sent: Vec::new(),
            book: vec![(Fate::Open, 0)],
        };
        harness.file_comes();
        harness
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Request { conn, kind } => self.request(conn, kind),
            Step::EndTurn { failing_write } => self.end_turn(failing_write),
            Step::SyncComes { fails } => self.sync_comes(fails),
            Step::FileComes => self.file_comes(),
        }
    }

    fn file_comes(&mut self) {
        if let Some(next) = self.writer.needs_file() {
            let prepared = ready(prepare(&self.disk, 0, next)).expect("this disk has room");
            self.writer.install(prepared);
        }
    }

    fn request(&mut self, conn: usize, kind: Kind) {
        let id = self.asked;
        self.asked += 1;
        let (level, accepted) = match kind {
            Kind::Body(level) if self.journal(id) => (level, Some((level, self.book.len() - 1))),
            _ => (Durability::Memory, None),
        };
        let reply = Answer { id, conn, accepted };
        self.turn.push(Pending { reply, level, frame: self.frame_ends.len() });
    }

    /// False where the journal has no room.
    fn journal(&mut self, id: usize) -> bool {
        let labels = LabelSet::new("m", &[("id", &format!("{id}-{}", "x".repeat(300)))]).unwrap();
        let needed = batch_bytes_max(1, labels.as_ref().bytes().len(), 1);
        loop {
            match self.writer.reserve(needed) {
                Reserve::Ready => break,
                Reserve::SealFirst => self.seal(),
                Reserve::Full | Reserve::TooLarge => return false,
            }
        }
        let client = self.writer.client(b"c");
        let numbered = self.writer.number(labels.as_ref(), MetricKind::Gauge, |_| 0);
        self.writer.begin_batch(client);
        let timestamp = Timestamp::from_millis(1_000).unwrap();
        self.writer.push(numbered.number, Sample { timestamp, value: 1.0 });
        true
    }

    fn seal(&mut self) {
        if let Some(sealed) = self.writer.seal(1) {
            self.frame_ends.push(sealed.end);
            *self.book.last_mut().unwrap() = (Fate::Sealed, sealed.end.sequence);
            self.book.push((Fate::Open, 0));
        }
    }

    fn end_turn(&mut self, failing_write: Option<usize>) {
        self.seal();
        let mut writes = 0..;
        let somebody_waits = self.turn.iter().any(|pending| pending.level > Durability::Memory);
        if somebody_waits || !self.withheld.is_empty() {
            while let Some(write) = self.writer.next_write() {
                let sequence = write.sequence;
                match self.writer.wrote(write, if writes.next() == failing_write { failed() } else { Ok(()) })
                {
                    Ok(()) => self.enter(Fate::Sealed, Fate::Written, |file| file == sequence),
                    Err(abandoned) => {
                        self.enter(Fate::Sealed, Fate::Lost, |_| true);
                        self.journal_failed(abandoned.last_good);
                    }
                }
            }
        }
        let synced_through = self.writer.synced_through();
        for Pending { reply, level, frame } in std::mem::take(&mut self.turn) {
            let end = self.frame_ends.get(frame).copied().unwrap_or_else(|| self.writer.end());
            let synced_end = (level == Durability::Synced && synced_through < end).then_some(end);
            match self.withheld.admit(reply, synced_end, self.own[reply.conn] > 0) {
                Some(reply) => self.send(reply),
                None => self.own[reply.conn] += 1,
            }
        }
        self.frame_ends.clear();
        self.begin_sync();
    }

    fn begin_sync(&mut self) {
        let wanted = !self.withheld.is_empty() || self.writer.rotation_waits_for_sync();
        if wanted
            && self.sync.is_none()
            && let Some(sync) = self.writer.next_sync()
        {
            let file = sync.sequence;
            let of_it = |(_, frame): &(usize, &(Fate, u64))| **frame == (Fate::Written, file);
            let carried = self.book.iter().enumerate().filter(of_it).map(|(at, _)| at).collect();
            self.sync = Some((sync, carried));
        }
    }

    fn sync_comes(&mut self, fails: bool) {
        let Some((sync, carried)) = self.sync.take() else { return };
        match self.writer.synced(sync, if fails { failed() } else { Ok(()) }) {
            Ok(()) => {
                for frame in carried {
                    self.book[frame].0 = Fate::Synced;
                }
                let synced_through = self.writer.synced_through();
                let expected = self.withheld.released_by(synced_through);
                let before = self.sent.len();
                while let Some(reply) = self.withheld.release(synced_through) {
                    self.let_go(reply);
                }
                assert_eq!(self.sent.len() - before, expected);
            }
            Err(abandoned) => {
                self.enter(Fate::Sealed, Fate::Lost, |_| true);
                self.enter(Fate::Written, Fate::Lost, |_| true);
                self.journal_failed(abandoned.last_good);
            }
        }
    }

    /// In the book: frames go from one fate to the next.
    fn enter(&mut self, from: Fate, to: Fate, in_file: impl Fn(u64) -> bool) {
        for (fate, file) in &mut self.book {
            if *fate == from && in_file(*file) {
                *fate = to;
            }
        }
    }

    fn journal_failed(&mut self, last_good: JournalPosition) {
        *self.book.last_mut().unwrap() = (Fate::Lost, 0);
        self.book.push((Fate::Open, 0));
        let refuse = |answer: &mut Answer| answer.accepted = None;
        for reply in self.withheld.lose(last_good, refuse) {
            self.let_go(reply);
        }
        let ends = &self.frame_ends;
        refuse_lost(&mut self.turn, |frame| ends.get(frame).copied(), last_good, refuse);
    }

    fn let_go(&mut self, reply: Answer) {
        self.own[reply.conn] -= 1;
        self.send(reply);
    }

    fn send(&mut self, answer: Answer) {
        if let Some((level, frame)) = answer.accepted {
            let fate = self.book[frame].0;
            let kept = match level {
                Durability::Memory => fate != Fate::Lost,
                Durability::Written => matches!(fate, Fate::Written | Fate::Synced),
                Durability::Synced => fate == Fate::Synced,
            };
            assert!(kept, "{answer:?} is acknowledged, its frame is {fate:?}");
        }
        let of_its_connection = |sent: &&Answer| sent.conn == answer.conn;
        if let Some(last) = self.sent.iter().rev().find(of_its_connection) {
            assert!(last.id < answer.id, "{answer:?} after {last:?}");
        }
        self.sent.push(answer);
    }

    /// Nothing fails any more: everybody has an answer after a few syncs.
    fn settle(&mut self) {
        self.end_turn(None);
        for _ in 0..4 {
            self.sync_comes(false);
            self.begin_sync();
        }
        assert!(self.withheld.is_empty(), "somebody waits for what no sync reaches");
        assert_eq!(self.own, [0; CONNECTIONS]);
        let mut ids: Vec<usize> = self.sent.iter().map(|answer| answer.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..self.asked).collect::<Vec<_>>(), "one answer each");
    }

    /// The answers so far: `Some(accepted)` by request.
    fn told(&self) -> Vec<(usize, bool)> {
        self.sent.iter().map(|answer| (answer.id, answer.accepted.is_some())).collect()
    }
}

const BODY: Kind = Kind::Body(Durability::Synced);
const WRITTEN: Kind = Kind::Body(Durability::Written);

/// Three bodies on one connection with a query between them, and another connection that waits for nothing.
#[test]
fn a_sync_that_fails_refuses_bodies_in_order_and_leaves_other_answers_as_they_are() {
    let mut harness = Harness::new();
    for (conn, kind) in [(0, BODY), (0, Kind::Other), (0, WRITTEN), (0, BODY), (1, WRITTEN), (1, Kind::Other)]
    {
        harness.request(conn, kind);
    }
    harness.end_turn(None);
    assert_eq!(
        harness.told(),
        [(4, true), (5, false)],
        "connection 0 waits for its sync, connection 1 does not"
    );
    harness.sync_comes(true);
    assert_eq!(harness.told()[2..], [(0, false), (1, false), (2, false), (3, false)]);
    harness.settle();
}

/// A write fails while the sync of an earlier turn is in flight: what that sync carries is kept and acknowledged,
/// what the write should have carried is refused, behind it on the same connection and at once on another.
#[test]
fn a_write_that_fails_during_a_sync_takes_back_its_own_turn_only() {
    let mut harness = Harness::new();
    harness.request(0, BODY);
    harness.end_turn(None);
    harness.request(0, BODY);
    harness.request(0, Kind::Other);
    harness.request(1, BODY);
    harness.end_turn(Some(0));
    assert_eq!(harness.told(), [(3, false)]);
    harness.sync_comes(false);
    assert_eq!(harness.told(), [(3, false), (0, true), (1, false), (2, false)]);
    harness.settle();
}

/// The sync of the first of two turns fails: the second turn, though written, lies behind it.
#[test]
fn a_sync_that_fails_takes_back_what_was_written_meanwhile() {
    let mut harness = Harness::new();
    harness.request(0, BODY);
    harness.end_turn(None);
    harness.request(1, BODY);
    harness.end_turn(None);
    harness.request(2, WRITTEN);
    harness.sync_comes(true);
    assert_eq!(harness.told(), [(0, false), (1, false)]);
    harness.file_comes();
    harness.request(2, BODY);
    harness.end_turn(None);
    assert_eq!(harness.told()[2..], [(2, false)], "it was in the open frame when the journal failed");
    harness.settle();
    assert_eq!(harness.told()[3..], [(3, true)], "the next file takes bodies");
}

/// A turn goes on in a second file. Its first write is kept, its second fails.
#[test]
fn of_a_turn_in_two_files_the_part_behind_the_failure_is_refused() {
    let mut harness = Harness::new();
    while harness.frame_ends.is_empty() {
        harness.request(0, WRITTEN);
        harness.file_comes();
        assert!(harness.asked < 100, "the first file has to be full by now");
    }
    harness.request(0, WRITTEN);
    let (asked, in_first) = (harness.asked, harness.turn.iter().filter(|pending| pending.frame == 0).count());
    harness.end_turn(Some(1));
    assert!((1..asked).contains(&in_first));
    assert_eq!(harness.told(), (0..asked).map(|id| (id, id < in_first)).collect::<Vec<_>>());
    harness.settle();
}

/// The writer of today loses all that wait or none of them; the line does not count on it.
#[test]
fn what_is_lost_behind_something_kept_waits_for_that_and_no_longer() {
    let at = |offset| JournalPosition { sequence: 1, offset };
    let mut line = Withheld::new();
    assert_eq!(line.admit("kept", Some(at(10)), false), None);
    assert_eq!(line.admit("behind it", None, true), None);
    assert_eq!(line.admit("lost", Some(at(30)), false), None);
    assert_eq!(line.admit("free", None, false), Some("free"));
    let mut refused = Vec::new();
    assert!(line.lose(at(20), |reply| refused.push(*reply)).is_empty());
    assert_eq!(refused, ["lost"]);
    assert_eq!(line.release(at(9)), None);
    let released: Vec<_> = std::iter::from_fn(|| line.release(at(20))).collect();
    assert_eq!(released, ["kept", "behind it", "lost"]);
}

fn step() -> impl Strategy<Value = Step> {
    let level = prop::sample::select(&Durability::ALL[..]);
    let kind = prop_oneof![4 => level.prop_map(Kind::Body), 1 => Just(Kind::Other)];
    prop_oneof![
        8 => (0..CONNECTIONS, kind).prop_map(|(conn, kind)| Step::Request { conn, kind }),
        3 => prop::option::weighted(0.2, 0..2usize).prop_map(|failing_write| Step::EndTurn { failing_write }),
        2 => prop::bool::weighted(0.2).prop_map(|fails| Step::SyncComes { fails }),
        1 => Just(Step::FileComes),
    ]
}

proptest! {
    #[test]
    fn every_request_is_answered_once_in_order_and_no_further_than_the_journal_kept(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut harness = Harness::new();
        for step in steps {
            harness.step(step);
        }
        harness.settle();
    }
}
