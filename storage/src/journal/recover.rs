//! What a journal holds after a crash: its good frames, its torn tail, its damage.
//!
//! Owner: the start of the server, before any writer.
//! Always: a frame that cannot be read is *torn* where nothing says that it had reached the device, and
//! *damage* where something does; a torn tail is cut and reported, damage stops the start unless the
//! operator has said to skip it, and then each skipped range is reported.
//! Not here: what the frames hold; `replay.rs` decodes them.
//!
//! What says that a file was on the device up to a position:
//!
//! ```text
//!   a later intact frame of the file      its synced_through
//!   the head of the next file             previous.synced
//!   any frame of a later file that was
//!   itself known synced, or a second      all of it (files are synced in order)
//!   file begun after it
//! ```

use super::frame::{FRAME_ALIGN, FrameHead};
use super::head::{FileHead, HEAD_BYTES, HeadFound, JOURNAL_FORMAT_VERSION, Previous};
use super::window::Window;
use super::{JournalPosition, file_path, folder, sequence_of};
use crate::disk::{Disk, DiskFile};
use model::Stamp;
use std::fmt;
use std::io;
use std::ops::Range;

/// What to do about damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Refuse to start.
    Stop,
    /// Report the damaged range and go on behind it.
    Skip,
}

/// Synced bytes that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: String,
    /// Which bytes.
    pub bytes: Range<u64>,
    /// Which records were there, as far as the frames around tell.
    pub records: Option<Range<u64>>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { path, bytes, records } = self;
        write!(f, "{path}: bytes {} up to {} were on the device and are damaged", bytes.start, bytes.end)?;
        match records {
            Some(Range { start, end }) => match end.saturating_sub(*start) {
                1 => write!(f, "; they held 1 sample, record {start}"),
                count => write!(f, "; they held {count} samples, records {start} up to {end}"),
            },
            None => f.write_str("; how many samples they held is not known"),
        }
    }
}

/// Where the last write before a crash broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: String,
    /// The end of what is good. After a crash nothing behind it had been reported synced; a last frame that was
    /// damaged later looks the same.
    pub position: u64,
}

/// Intact frames without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// From the first frame's start to the last one's end.
    pub bytes: Range<u64>,
    /// Their records.
    pub records: Range<u64>,
    /// The stamp of the last one.
    pub last_stamp: Stamp,
}

/// A file to replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalFile {
    /// Its number.
    pub sequence: u64,
    /// Its size.
    pub bytes: u64,
    /// The last good position before it, as its head says; `None` where the head was damaged and skipped.
    pub previous: Option<JournalPosition>,
    /// Its good frames; more than one run only where damage was skipped.
    pub runs: Vec<Run>,
}

/// How a writer goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The number of its first file; above every file there is or was.
    pub next_sequence: u64,
    /// The offset of its first record.
    pub next_offset: u64,
    /// The last good position.
    pub previous: Previous,
}

impl Resume {
    /// The same, above a position that a manifest names, should its file be gone.
    pub fn above(mut self, position: JournalPosition) -> Resume {
        self.next_sequence = self.next_sequence.max(position.sequence.saturating_add(1));
        self
    }
}

/// A recovered journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whose.
    pub loop_index: u16,
    /// The files to replay, oldest first.
    pub files: Vec<JournalFile>,
    /// Files that nobody needs: prepared and never begun, void, or below a truncation. May be removed, once
    /// replay has not missed them.
    pub unused: Vec<u64>,
    /// Where the crash broke off, if it did.
    pub torn: Option<TornTail>,
    /// What was skipped; empty unless [`OnDamage::Skip`] was given.
    pub damage: Vec<Damage>,
    /// How to go on.
    pub resume: Resume,
    /// The stamp of the last good frame.
    pub last_stamp: Option<Stamp>,
}

impl Recovered {
    /// The end of the last good frame.
    pub fn end(&self) -> JournalPosition {
        self.resume.previous.end
    }
}

/// Why a journal cannot be recovered.
#[derive(Debug)]
pub enum RecoverError {
    /// The disk failed.
    Disk {
        /// While at this file or folder.
        path: String,
        /// How.
        error: io::Error,
    },
    /// Synced frames are damaged. The first range; with [`OnDamage::Skip`] the rest can be had.
    Damaged(Damage),
    /// Written by a newer ringwatch.
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::Disk { path, error } => write!(f, "{path}: {error}"),
            RecoverError::Damaged(damage) => damage.fmt(f),
            RecoverError::Version { path, found } => write!(
                f,
                "{path}: journal format version {found}, this program reads version {JOURNAL_FORMAT_VERSION}"
            ),
        }
    }
}

impl std::error::Error for RecoverError {}

/// Reads a loop's journal through, decides what is good, makes that durable, and removes what lies behind a
/// torn place, unless damage was skipped.
pub async fn recover<D: Disk>(
    disk: &D,
    loop_index: u16,
    on_damage: OnDamage,
) -> Result<Recovered, RecoverError> {
    let (links, mut unused) = read_chain(disk, loop_index).await?;
    let last_sequence = links.iter().map(|link| link.sequence).chain(unused.iter().copied()).max();
    let mut recovered = Recovered {
        loop_index,
        files: Vec::new(),
        unused: Vec::new(),
        torn: None,
        damage: Vec::new(),
        resume: Resume { next_sequence: last_sequence.unwrap_or(0) + 1, ..Resume::default() },
        last_stamp: None,
    };
    let mut chain = Vec::new();
    for link in links {
        chain.push(scan_file(disk, loop_index, link).await?);
    }
    attest(&mut chain);
    let mut kept = chain.len();
    for (at, scan) in chain.iter_mut().enumerate() {
        let path = file_path(loop_index, scan.link.sequence);
        if scan.never_begun() {
            recovered.torn = Some(TornTail { path, position: 0 });
            kept = at;
            break;
        }
        let complete = scan.settle(&path, recovered.resume.next_offset, &mut recovered);
        if on_damage == OnDamage::Stop
            && let Some(damage) = recovered.damage.first()
        {
            return Err(RecoverError::Damaged(damage.clone()));
        }
        let end = JournalPosition { sequence: scan.link.sequence, offset: scan.end };
        recovered.resume.next_offset = scan.next_offset;
        recovered.resume.previous = Previous { end, synced: scan.end, abandoned: false };
        recovered.last_stamp = scan.last_stamp.or(recovered.last_stamp);
        recovered.files.push(JournalFile {
            sequence: scan.link.sequence,
            bytes: scan.bytes,
            previous: scan.link.head.map(|head| head.previous.end),
            runs: std::mem::take(&mut scan.runs),
        });
        if !complete {
            kept = at + 1;
            break;
        }
    }
    // Where damage was skipped all of that stays: it may be what tells the damage from a torn tail, and a start that came
    // before the next file's head is written would cut what this one replays. That head makes it void.
    let is_cut = recovered.damage.is_empty();
    // Nothing behind a torn place was ever answered at a level that survives what tore it. Newest first and
    // each durably: a file that outlived the one before it would look like the rest of a truncation.
    for scan in chain.drain(kept..).rev().filter(|_| is_cut) {
        let path = file_path(loop_index, scan.link.sequence);
        let remove = async {
            disk.remove(&path).await?;
            disk.sync_dir(&folder(loop_index)).await
        };
        remove.await.map_err(|error| RecoverError::Disk { path: path.clone(), error })?;
    }
    // The next file's head will say that this one ends here. Should a power cut take that head and leave one behind it,
    // what is torn would look like damage, for two files were begun since. So nothing is left of it.
    if let Some(TornTail { path, position }) =
        recovered.torn.as_ref().filter(|torn| is_cut && torn.position > 0)
    {
        let cut = async {
            let file = disk.open(path).await?;
            file.truncate(*position).await?;
            file.sync().await
        };
        cut.await.map_err(|error| RecoverError::Disk { path: path.clone(), error })?;
    }
    // After `kill -9` good frames may be in the kernel alone. The next head will call them good, so a power
    // cut must not take them any more.
    for scan in chain.iter().rev().take(2) {
        let path = file_path(loop_index, scan.link.sequence);
        let sync = async { disk.open(&path).await?.sync().await };
        sync.await.map_err(|error| RecoverError::Disk { path: path.clone(), error })?;
    }
    unused.sort_unstable();
    recovered.unused = unused;
    Ok(recovered)
}

/// A file of the chain, before its frames are read.
#[derive(Clone, Copy, Debug)]
struct Link {
    sequence: u64,
    head: Option<FileHead>,
    /// Where the head of the next file says that this one ends.
    limit: Option<u64>,
    /// How far the head of the next file says that this one was on the device.
    attested: u64,
}

/// A file, its frames read.
#[derive(Debug)]
struct Scan {
    link: Link,
    bytes: u64,
    runs: Vec<Run>,
    last_stamp: Option<Stamp>,
    /// Whether anything but zeros stands behind the last run.
    dirty_tail: bool,
    /// How far something says that the file was on the device; all of it: `u64::MAX`.
    attested: u64,
    /// Where the good part ends, and the record that would come there.
    end: u64,
    next_offset: u64,
}

/// The files of the journal that follow on one another, and those that nobody needs.
async fn read_chain<D: Disk>(disk: &D, loop_index: u16) -> Result<(Vec<Link>, Vec<u64>), RecoverError> {
    let folder = folder(loop_index);
    let names = match disk.list(&folder).await {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(RecoverError::Disk { path: folder, error }),
    };
    let (mut links, mut unused): (Vec<Link>, Vec<u64>) = (Vec::new(), Vec::new());
    for sequence in names.iter().filter_map(|name| sequence_of(name)) {
        let link = Link { sequence, head: None, limit: None, attested: 0 };
        match read_head(disk, loop_index, link).await? {
            Some(link) => links.push(link),
            None => unused.push(sequence),
        }
    }
    // Backwards, for the newest head says which files came before it. What it passes over is void, whichever
    // of the void files a crash has left.
    let mut chain: Vec<Link> = Vec::new();
    let mut next = links.pop();
    while let Some(link) = next {
        chain.push(link);
        let Some(previous) = link.head.map(|head| head.previous) else {
            next = links.pop();
            continue;
        };
        while let Some(void) = links.pop_if(|older| older.sequence > previous.end.sequence) {
            unused.push(void.sequence);
        }
        next = links.pop_if(|older| older.sequence == previous.end.sequence);
        if next.is_none()
            && let Some(at) = unused.iter().position(|of| *of == previous.end.sequence)
        {
            // It was begun, for this head was written behind its frames, and its own head is not there:
            // `attest` decides whether it ever was on the device.
            unused.swap_remove(at);
            next = Some(Link { sequence: previous.end.sequence, head: None, limit: None, attested: 0 });
        }
        if let Some(older) = &mut next {
            older.limit = Some(previous.end.offset);
            older.attested = previous.synced;
        }
    }
    // The predecessor is gone, as after a truncation that a power cut left half done. Whether the older files
    // were still needed only a manifest can tell; replay asks it.
    unused.extend(links.into_iter().map(|link| link.sequence));
    chain.reverse();
    Ok((chain, unused))
}

/// Reads a file's head. `None` for a file that was never begun.
async fn read_head<D: Disk>(disk: &D, loop_index: u16, mut link: Link) -> Result<Option<Link>, RecoverError> {
    let path = file_path(loop_index, link.sequence);
    let block = async { disk.open(&path).await?.read_at(0, HEAD_BYTES).await };
    let block = block.await.map_err(|error| RecoverError::Disk { path: path.clone(), error })?;
    match FileHead::find(&block, loop_index, link.sequence) {
        HeadFound::Good(head) => {
            link.head = Some(head);
            Ok(Some(link))
        }
        HeadFound::Version(found) => Err(RecoverError::Version { path, found }),
        // Either the very first write broke off, or the head was damaged. A frame that knew something of
        // the file to be on the device tells the two apart.
        HeadFound::Zeros | HeadFound::Bad => {
            let scan = scan_file(disk, loop_index, link).await?;
            Ok((scan.attested > 0).then_some(link))
        }
    }
}

/// Reads a file's frames, up to its limit.
async fn scan_file<D: Disk>(disk: &D, loop_index: u16, link: Link) -> Result<Scan, RecoverError> {
    let path = file_path(loop_index, link.sequence);
    let at_disk = |error| RecoverError::Disk { path: path.clone(), error };
    let file = disk.open(&path).await.map_err(at_disk)?;
    let bytes = file.len().await.map_err(at_disk)?;
    let mut window = Window::new(file, bytes.min(link.limit.unwrap_or(u64::MAX)));
    let mut scan = Scan {
        link,
        bytes,
        runs: Vec::new(),
        last_stamp: None,
        dirty_tail: false,
        attested: link.attested,
        end: HEAD_BYTES as u64,
        next_offset: 0,
    };
    let mut position = HEAD_BYTES as u64;
    while position < window.end() {
        let frame = window.frame_at(loop_index, link.sequence, position).await.map_err(at_disk)?;
        if let Some((frame, _)) = frame {
            scan.add(position, &frame);
            position += frame.frame_bytes();
        } else {
            let word = window.next_word(position).await.map_err(at_disk)?;
            scan.dirty_tail |= word < window.end();
            // A frame that could begin at this very word was just found not to.
            position = if word == position { position + FRAME_ALIGN as u64 } else { word };
        }
    }
    Ok(scan)
}

impl Scan {
    fn add(&mut self, position: u64, frame: &FrameHead) {
        let bytes = position..position + frame.frame_bytes();
        let records = frame.first_offset..frame.first_offset.saturating_add(u64::from(frame.records));
        self.attested = self.attested.max(u64::from(frame.synced_through));
        self.last_stamp = Some(frame.stamp);
        self.dirty_tail = false;
        match self.runs.last_mut() {
            Some(last) if last.bytes.end == bytes.start && last.records.end == records.start => {
                (last.bytes.end, last.records.end) = (bytes.end, records.end);
                last.last_stamp = frame.stamp;
            }
            _ => self.runs.push(Run { bytes, records, last_stamp: frame.stamp }),
        }
    }

    /// Whether nothing says that even the head was on the device.
    fn never_begun(&self) -> bool {
        self.link.head.is_none() && self.attested <= HEAD_BYTES as u64
    }

    /// Decides where the good part ends, and reports what is wrong. Whether the next file may be replayed.
    fn settle(&mut self, path: &str, before: u64, recovered: &mut Recovered) -> bool {
        let mut damaged = |bytes: Range<u64>, records: Option<Range<u64>>| {
            recovered.damage.push(Damage { path: path.into(), bytes, records });
        };
        self.next_offset = self.link.head.map_or(before, |head| head.first_offset);
        if self.link.head.is_none() {
            damaged(0..HEAD_BYTES as u64, None);
        }
        self.last_stamp = None;
        let mut torn = false;
        let mut good = 0;
        for run in &self.runs {
            if run.bytes.start > self.end {
                if self.attested <= self.end {
                    torn = true;
                    break;
                }
                let lost = self.next_offset..run.records.start;
                damaged(self.end..run.bytes.start, self.link.head.is_some().then_some(lost));
            }
            (self.end, self.next_offset) = (run.bytes.end, run.records.end);
            self.last_stamp = Some(run.last_stamp);
            good += 1;
        }
        self.runs.truncate(good);
        // What should still come: as much as the next head says, or as was known to be on the device.
        let all_attested = self.attested == u64::MAX;
        let goal = match self.link.limit {
            Some(limit) => limit,
            None if all_attested => {
                if self.dirty_tail {
                    self.bytes
                } else {
                    self.end
                }
            }
            None => self.attested,
        };
        if !torn && self.end < goal {
            if self.attested > self.end {
                damaged(self.end..goal, None);
                self.end = goal;
            } else {
                torn = true;
            }
        }
        if torn || (self.link.limit.is_none() && !all_attested && self.dirty_tail) {
            recovered.torn = Some(TornTail { path: path.into(), position: self.end });
        }
        !torn
    }
}

/// Files are synced in order: what is known of a later file tells of all before it.
fn attest(chain: &mut [Scan]) {
    let mut synced_later = false;
    for at in (0..chain.len()).rev() {
        if synced_later || at + 2 < chain.len() {
            chain[at].attested = u64::MAX;
        }
        synced_later |= chain[at].attested > HEAD_BYTES as u64;
    }
}
