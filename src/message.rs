//! What crosses the mesh: plain owned values, moved through bounded rings.
//!
//! Three meshes: loops to executors ([`ToStore`]), executors to loops ([`ToLoop`]), executors among
//! themselves ([`ToPeer`]). Iterators, borrows and files of an executor stay at home.

use crate::api::IntakeError;
use crate::export::{ExportPage, ExportedPage};
use crate::fan_in::{Inquiry, Part, QueryAnswer, QueryError, Question};
use crate::front::{LargeBatch, LargeBody};
use crate::service::{Admission, Purpose, SegmentsChanged, Switch};
use alert::WindowPart;
use model::{Share, Stamp};
use shard::file::LoopFile;
use shard::net::ConnId;
use std::io;
use std::sync::Arc;
use storage::journal::{JournalPosition, NextFile, PreparedFile};

// Rings hold places for the square of the shards (`bench/SCALING.md` says how many): what is larger goes into a box.
const _: () = assert!(size_of::<ToStore>() <= 72 && size_of::<ToLoop>() <= 64 && size_of::<ToPeer>() <= 120);

/// From a loop to an executor.
pub enum ToStore {
    /// One turn's samples of series that the executor owns.
    Share(Box<Share>),
    /// A question of a client on that loop; the executor asks its peers and answers once.
    Query { conn: ConnId, query: Box<Inquiry>, stamp: Stamp },
    /// The next part of an export, of this executor's series; answered by a [`ToLoop::Page`].
    Export { conn: ConnId, page: Box<ExportPage>, stamp: Stamp },
    /// A large body, to come back decoded.
    Decode { conn: ConnId, body: Box<LargeBody>, stamp: Stamp },
    /// Answer to [`ToLoop::AskPosition`]: synced up to here, and everything before has been published.
    Position { position: JournalPosition, stamp: Stamp },
    /// The loop numbers its series by this dictionary now: earlier numbers mean nothing any more.
    Dictionary { dictionary: u64, stamp: Stamp },
    /// These names are taken back ([`ToLoop::TakeNamesBack`]), and every sample that came under them has been published.
    NamesTakenBack { names: Box<Share>, stamp: Stamp },
    /// The journal has abandoned a file: what was answered of it is in memory alone, and is to be flushed at once.
    Flush { stamp: Stamp },
    /// The loop will need this journal file soon.
    PrepareJournal { next: NextFile, stamp: Stamp },
    /// The loop takes no samples until the executor has come as far as this; then its bell is to be rung.
    WakeLoop { stamp: Stamp },
    /// The loop has stopped with its journal synced so far; nothing follows.
    Stopped { position: JournalPosition, stamp: Stamp },
}

impl ToStore {
    /// Orders messages of all loops.
    pub fn stamp(&self) -> Stamp {
        match self {
            ToStore::Share(share) => share.stamp,
            ToStore::Query { stamp, .. }
            | ToStore::Export { stamp, .. }
            | ToStore::Decode { stamp, .. }
            | ToStore::Position { stamp, .. }
            | ToStore::Dictionary { stamp, .. }
            | ToStore::NamesTakenBack { stamp, .. }
            | ToStore::Flush { stamp }
            | ToStore::PrepareJournal { stamp, .. }
            | ToStore::WakeLoop { stamp }
            | ToStore::Stopped { stamp, .. } => *stamp,
        }
    }
}

/// From an executor to a loop.
pub enum ToLoop {
    /// To the client on that connection.
    Answer { conn: ConnId, answer: Result<QueryAnswer, QueryError> },
    /// A part of an export.
    Page { conn: ConnId, page: Result<Box<ExportedPage>, QueryError> },
    /// A large body as a batch, or what is wrong with it.
    Decoded { conn: ConnId, counted_bytes: usize, decoded: Result<Box<LargeBatch>, IntakeError> },
    /// An applied share, to be emptied and filled again.
    Spent(Box<Share>),
    /// The executor is about to flush: sync, then say how far the journal is.
    AskPosition { executor: usize },
    /// The executor would forget series that only this dictionary names: begin a new one.
    RenewDictionary { dictionary: u64 },
    /// The executor would forget the series that these definitions name: give them other numbers should they come again,
    /// and send this back.
    TakeNamesBack { executor: usize, names: Box<Share> },
    /// What that executor takes from now on.
    Admission { executor: usize, admission: Admission },
    /// The prepared journal file, or why there is none.
    JournalFile(io::Result<(PreparedFile, LoopFile)>),
}

/// From an executor to an executor, itself included.
pub enum ToPeer {
    /// Answer with a [`ToPeer::Partial`] of the same ticket.
    Ask { ticket: u64, from: usize, question: Arc<Question> },
    /// One shard's share of an answer.
    Partial { ticket: u64, from: usize, partial: Result<Part, QueryError> },
    /// One shard's count and sum for a rule, as of a moment.
    RulePart { rule: usize, from: usize, part: WindowPart },
    /// To executor 0, which keeps the manifest: name these segments and positions.
    Switch { from: usize, switch: Box<Switch> },
    /// From executor 0: the manifest on disk names them, or why not.
    Switched { purpose: Purpose, result: io::Result<()> },
    /// From executor 0: the manifest names others than it did.
    Segments(Box<SegmentsChanged>),
    /// To executor 0 at the end: nothing more will be asked of the manifest.
    Finished,
}
