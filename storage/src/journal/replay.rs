//! Replay: the frames of all journals in the order of their stamps, as the shares that once crossed a ring.
//!
//! Owner: an executor at start. Memory: one block of about 1 MiB, or one frame, per journal, and one byte per
//! series number of the file being read.
//! Always: what is given was checked again; definitions come from the start of a file on, also below the
//! position from which samples are wanted, unless a checkpoint has kept what they said.

use super::frame::{FrameHead, Malformed, decode_definitions, decode_samples};
use super::recover::{JournalFile, Recovered};
use super::window::Window;
use super::{JournalPosition, file_path};
use crate::disk::Disk;
use model::{SeriesHash, SeriesNumber, Share, Stamp};
use std::collections::VecDeque;
use std::fmt;
use std::io;

/// The journals of a directory, being replayed.
pub struct Replay<D: Disk> {
    disk: D,
    journals: Vec<Cursor<D>>,
}

/// A frame that was replayed into a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Its stamp, the loop's index included.
    pub stamp: Stamp,
    /// Where it ends.
    pub end: JournalPosition,
    /// Offset of its first record.
    pub first_offset: u64,
    /// Its records, whoever owns them.
    pub records: u32,
    /// Samples whose definition was in a damaged range that was skipped; they are lost too.
    pub unknown: u32,
}

/// Why replay ended early.
#[derive(Debug)]
pub enum ReplayError {
    /// The disk failed.
    Disk {
        /// While at this file.
        path: String,
        /// How.
        error: io::Error,
    },
    /// A frame that recovery had found intact is so no more.
    Changed {
        /// The file.
        path: String,
        /// Where the frame begins.
        position: u64,
    },
    /// A frame passes its checksum and holds no payload.
    Malformed {
        /// The file.
        path: String,
        /// Where the frame begins.
        position: u64,
        /// What is wrong with it.
        error: Malformed,
    },
    /// The manifest needs a file that is not there.
    Missing {
        /// The file.
        path: String,
        /// From where it is needed.
        from: JournalPosition,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Disk { path, error } => write!(f, "{path}: {error}"),
            ReplayError::Changed { path, position } => {
                write!(f, "{path}: the frame at byte {position} was intact a moment ago and is not now")
            }
            ReplayError::Malformed { path, position, error } => {
                write!(f, "{path}: the frame at byte {position} holds nonsense: {error}")
            }
            ReplayError::Missing { path, from } => write!(
                f,
                "{path} is missing: what was accepted behind byte {} of file {} is only there",
                from.offset, from.sequence
            ),
        }
    }
}

impl std::error::Error for ReplayError {}

/// What a checkpoint says of one loop's numbers: where its position lies in the file of that dictionary, replay need not
/// read what was defined before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNumbers {
    /// Which loop.
    pub loop_index: u16,
    /// The dictionary, which is the sequence of a journal file.
    pub dictionary: u64,
    /// By number: whether the executor owns the series. Those beyond belong to others.
    pub owned: Vec<bool>,
}

struct Cursor<D: Disk> {
    loop_index: u16,
    from: JournalPosition,
    /// Of the file in which `from` lies.
    known: Option<Vec<Known>>,
    files: VecDeque<JournalFile>,
    open: Option<OpenFile<D>>,
    ahead: Option<Ahead>,
}

struct OpenFile<D: Disk> {
    file: JournalFile,
    window: Window<D::File>,
    /// Which run, and where in it the next frame begins.
    run: usize,
    position: u64,
    owned: Vec<Known>,
    /// What numbers are that `owned` does not say.
    others: Known,
}

/// The next frame of a journal.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    head: FrameHead,
    position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    No,
    Foreign,
    Owned,
}

impl Known {
    fn of(numbers: &KnownNumbers) -> Vec<Known> {
        let of = |owned: &bool| if *owned { Known::Owned } else { Known::Foreign };
        numbers.owned.iter().map(of).collect()
    }
}

impl<D: Disk> Replay<D> {
    /// The journals from the given positions on; a journal without one, or at the default, from its start. `known` is
    /// what a checkpoint of these positions says of the numbers; of a journal with damage it is not believed.
    ///
    /// # Errors
    /// [`ReplayError::Missing`] where a journal no longer reaches back to its position.
    pub fn open(
        disk: &D,
        journals: &[Recovered],
        from: &[JournalPosition],
        known: &[KnownNumbers],
    ) -> Result<Replay<D>, ReplayError> {
        let mut cursors = Vec::new();
        for journal in journals {
            let from = from.get(usize::from(journal.loop_index)).copied().unwrap_or_default();
            let reaches_back = journal.files.first().is_none_or(|first| {
                first.sequence <= from.sequence || first.previous.is_none_or(|end| end <= from)
            });
            if !reaches_back {
                let sequence = journal.files[0].previous.map_or(from.sequence, |end| end.sequence);
                return Err(ReplayError::Missing { path: file_path(journal.loop_index, sequence), from });
            }
            let files = journal.files.iter().filter(|file| file.sequence >= from.sequence).cloned();
            let is_known = |known: &&KnownNumbers| {
                let is_of_file = (known.loop_index, known.dictionary) == (journal.loop_index, from.sequence);
                is_of_file && journal.damage.is_empty()
            };
            cursors.push(Cursor {
                loop_index: journal.loop_index,
                from,
                known: known.iter().find(is_known).map(Known::of),
                files: files.collect(),
                open: None,
                ahead: None,
            });
        }
        Ok(Replay { disk: disk.clone(), journals: cursors })
    }

    /// Fills `share` with the next frame's part that `owns` accepts (asked once per definition): all its
    /// definitions, and its samples if it lies at or above the journal's position. `None` at the end.
    pub async fn next(
        &mut self,
        share: &mut Share,
        mut owns: impl FnMut(SeriesHash) -> bool,
    ) -> Result<Option<Replayed>, ReplayError> {
        share.clear();
        let mut first: Option<(Stamp, usize)> = None;
        for (at, journal) in self.journals.iter_mut().enumerate() {
            journal.look_ahead(&self.disk).await?;
            if let Some(ahead) = journal.ahead {
                let candidate = (ahead.head.stamp, at);
                first = Some(first.map_or(candidate, |first| first.min(candidate)));
            }
        }
        let Some((_, at)) = first else { return Ok(None) };
        self.journals[at].take(share, &mut owns).await
    }
}

impl<D: Disk> Cursor<D> {
    /// Finds the next frame that has something to give.
    async fn look_ahead(&mut self, disk: &D) -> Result<(), ReplayError> {
        while self.ahead.is_none() {
            let Some(open) = &mut self.open else {
                let Some(file) = self.files.pop_front() else { return Ok(()) };
                let is_first = file.sequence == self.from.sequence;
                let known = self.known.take_if(|_| is_first).map(|known| (known, self.from.offset));
                self.open = Some(OpenFile::open(disk, self.loop_index, file, known).await?);
                continue;
            };
            let Some(run) = open.file.runs.get(open.run) else {
                self.open = None;
                continue;
            };
            if open.position >= run.bytes.end {
                open.run += 1;
                open.position = open.file.runs.get(open.run).map_or(0, |run| run.bytes.start);
                continue;
            }
            let position = open.position;
            let (head, _) = open.frame(self.loop_index, position).await?;
            open.position += head.frame_bytes();
            let wanted = JournalPosition { sequence: open.file.sequence, offset: position } >= self.from;
            if wanted || head.definition_bytes > 0 {
                self.ahead = Some(Ahead { head, position });
            }
        }
        Ok(())
    }

    async fn take(
        &mut self,
        share: &mut Share,
        owns: &mut impl FnMut(SeriesHash) -> bool,
    ) -> Result<Option<Replayed>, ReplayError> {
        let (Some(Ahead { head, position }), Some(open)) = (self.ahead.take(), &mut self.open) else {
            return Ok(None);
        };
        let sequence = open.file.sequence;
        let (mut owned, others) = (std::mem::take(&mut open.owned), open.others);
        // No file defines more numbers than it has bytes.
        let number_max = open.file.bytes as usize;
        let (_, payload) = open.frame(self.loop_index, position).await?;
        let end = JournalPosition { sequence, offset: position + head.frame_bytes() };
        share.stamp = head.stamp;
        share.dictionary = sequence;
        share.journal_end = end.offset;

        let mut out_of_range = false;
        let (definitions, samples) = payload.split_at(head.definition_bytes as usize);
        let read_definitions = decode_definitions(
            definitions,
            |number, kind, labels| {
                let at = number.0 as usize;
                if at >= number_max {
                    out_of_range = true;
                    return;
                }
                if at >= owned.len() {
                    owned.resize(at + 1, others);
                }
                owned[at] = if owns(labels.hash()) { Known::Owned } else { Known::Foreign };
                if owned[at] == Known::Owned {
                    share.define(number, kind, labels);
                }
            },
            |_, _| (),
        );
        let mut unknown = 0;
        let wanted = JournalPosition { sequence, offset: position } >= self.from;
        let read_samples = if wanted {
            let on_sample = |number: SeriesNumber, sample| match owned
                .get(number.0 as usize)
                .copied()
                .unwrap_or(others)
            {
                Known::Owned => share.push(number, sample),
                Known::Foreign => {}
                Known::No => unknown += 1,
            };
            decode_samples(samples, |_| (), on_sample)
        } else {
            Ok(())
        };
        open.owned = owned;
        let in_range = if out_of_range {
            Err(Malformed { at: 0, expected: "series numbers that the file has room to define" })
        } else {
            Ok(())
        };
        read_definitions.and(in_range).and(read_samples).map_err(|error| ReplayError::Malformed {
            path: file_path(self.loop_index, sequence),
            position,
            error,
        })?;
        let (stamp, first_offset, records) = (head.stamp, head.first_offset, head.records);
        Ok(Some(Replayed { stamp, end, first_offset, records, unknown }))
    }
}

impl<D: Disk> OpenFile<D> {
    /// With what is `known` of its numbers, the file is read from that offset on, where a frame begins.
    async fn open(
        disk: &D,
        loop_index: u16,
        file: JournalFile,
        known: Option<(Vec<Known>, u64)>,
    ) -> Result<OpenFile<D>, ReplayError> {
        let path = file_path(loop_index, file.sequence);
        let opened = disk.open(&path).await.map_err(|error| ReplayError::Disk { path, error })?;
        let window = Window::new(opened, file.bytes);
        let position = file.runs.first().map_or(0, |run| run.bytes.start);
        let Some((owned, offset)) = known else {
            return Ok(OpenFile { file, window, run: 0, position, owned: Vec::new(), others: Known::No });
        };
        // Behind the last run there is nothing to read.
        let position = position.max(offset);
        Ok(OpenFile { file, window, run: 0, position, owned, others: Known::Foreign })
    }

    async fn frame(&mut self, loop_index: u16, position: u64) -> Result<(FrameHead, &[u8]), ReplayError> {
        let sequence = self.file.sequence;
        match self.window.frame_at(loop_index, sequence, position).await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(ReplayError::Changed { path: file_path(loop_index, sequence), position }),
            Err(error) => Err(ReplayError::Disk { path: file_path(loop_index, sequence), error }),
        }
    }
}
