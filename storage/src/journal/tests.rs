//! The journal as a whole: a scripted loop on a simulated disk, cut, torn, filled, failing and rotting.
//!
//! Sample number `i` has value `i` and belongs to series `i mod 7` (and every 40th to one of its own), so what
//! comes back can be checked against its number alone.

use super::*;
use crate::disk::{Call, Disk, DiskFile, SimDisk, Times, ready};
use model::{LabelSet, MetricKind, Sample, Share, Stamp, Timestamp};
use std::collections::BTreeMap;
use std::io;

const LIMITS: JournalLimits = JournalLimits {
    file_bytes_min: 12 * 1024,
    file_bytes_max: 24 * 1024,
    dictionary_entries_max: 1_000,
    dictionary_bytes_max: 1 << 20,
    buffer_bytes_max: 1 << 20,
    dictionary_seed: 7,
};

fn labels_of(i: u64) -> LabelSet {
    let host = if i.is_multiple_of(40) { i.to_string() } else { format!("h{}", i % 7) };
    LabelSet::new("cpu_usage", &[("host", &host), ("zone", "somewhere")]).unwrap()
}

fn sample_of(i: u64) -> Sample {
    Sample { timestamp: Timestamp::from_millis(1_700_000_000_000 + i as i64).unwrap(), value: i as f64 }
}

/// A loop with its journal, and what it answered.
struct Loop {
    disk: SimDisk,
    writer: Writer,
    next: u64,
    nanos: u64,
    /// Sealed batches that are neither refused nor answered at `synced`: where they end, their samples.
    waiting: Vec<(JournalPosition, std::ops::Range<u64>)>,
    /// In order: everything sealed and not refused.
    accepted: Vec<std::ops::Range<u64>>,
    refused: Vec<u64>,
    answered_written: Vec<u64>,
    answered_synced: Vec<u64>,
}

impl Loop {
    fn new(disk: &SimDisk, run: u64, resume: Resume, first: u64) -> Loop {
        Loop::of(disk, run, resume, first, LIMITS)
    }

    fn of(disk: &SimDisk, run: u64, resume: Resume, first: u64, limits: JournalLimits) -> Loop {
        Loop {
            disk: disk.clone(),
            writer: Writer::new(0, run, resume, limits),
            next: first,
            nanos: 0,
            waiting: Vec::new(),
            accepted: Vec::new(),
            refused: Vec::new(),
            answered_written: Vec::new(),
            answered_synced: Vec::new(),
        }
    }

    fn prepare(&mut self) -> io::Result<()> {
        let Some(file) = self.writer.needs_file() else { return Ok(()) };
        match ready(prepare(&self.disk, 0, file)) {
            Ok(prepared) => self.writer.install(prepared),
            Err(error) => {
                self.writer.not_prepared();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Accepts a batch of `samples`; false where the journal has no room for it.
    fn append(&mut self, samples: u64) -> bool {
        let ids = self.next..self.next + samples;
        let label_bytes = ids.clone().map(|i| labels_of(i).as_ref().bytes().len()).sum();
        let bound = batch_bytes_max(samples as usize, label_bytes, 8);
        match self.writer.reserve(bound) {
            Reserve::Ready => {}
            Reserve::SealFirst => {
                self.seal();
                if self.writer.reserve(bound) != Reserve::Ready {
                    return false;
                }
            }
            Reserve::Full => return false,
            Reserve::TooLarge => unreachable!("the script's batches are small"),
        }
        let client = self.writer.client(format!("client{}", samples).as_bytes());
        self.writer.begin_batch(client);
        for i in ids.clone() {
            let numbered = self.writer.number(labels_of(i).as_ref(), MetricKind::Gauge, |_| 0);
            self.writer.push(numbered.number, sample_of(i));
        }
        self.next = ids.end;
        // Where the batch ends is known when its frame is sealed.
        self.waiting.push((JournalPosition { sequence: u64::MAX, offset: 0 }, ids));
        true
    }

    fn seal(&mut self) {
        self.nanos += 10;
        let Some(sealed) = self.writer.seal(self.nanos) else { return };
        for (end, ids) in self.waiting.iter_mut().filter(|(end, _)| end.sequence == u64::MAX) {
            *end = sealed.end;
            self.accepted.push(ids.clone());
        }
    }

    fn refuse_beyond(&mut self, abandoned: Abandoned) {
        let (kept, lost): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|(end, _)| *end <= abandoned.last_good);
        self.waiting = kept;
        for (_, ids) in lost {
            self.accepted.retain(|accepted| *accepted != ids);
            // What was answered at `written` before a sync failed was promised that level and no more.
            self.refused.extend(ids);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while let Some(write) = self.writer.next_write() {
            let path = file_path(0, write.sequence);
            let result = async { self.disk.open(&path).await?.write_at(write.position, &write.bytes).await };
            let result = ready(result);
            let gone = self.disk.is_cut();
            if let Err(abandoned) = self.writer.wrote(write, result)
                && !gone
            {
                self.refuse_beyond(abandoned);
            }
            if gone {
                return Err(io::ErrorKind::Other.into());
            }
            let written = self.writer.written();
            for (_, ids) in self.waiting.iter().filter(|(end, _)| *end <= written) {
                self.answered_written.extend(ids.clone());
            }
            self.answered_written.dedup();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        while let Some(sync) = self.writer.next_sync() {
            let path = file_path(0, sync.sequence);
            let result = ready(async { self.disk.open(&path).await?.sync().await });
            let gone = self.disk.is_cut();
            let told = self.writer.synced(sync, result);
            if gone {
                return Err(io::ErrorKind::Other.into());
            }
            if let Err(abandoned) = told {
                self.refuse_beyond(abandoned);
            }
            let synced = self.writer.synced_through();
            let (done, waiting): (Vec<_>, Vec<_>) =
                self.waiting.drain(..).partition(|(end, _)| *end <= synced);
            self.waiting = waiting;
            self.answered_synced.extend(done.into_iter().flat_map(|(_, ids)| ids));
        }
        Ok(())
    }

    /// Turns of one to three batches; synced every third turn, so that levels differ.
    fn turns(&mut self, turns: u64) -> io::Result<()> {
        for turn in 0..turns {
            if turn % 4 == 0
                && let Err(error) = self.prepare()
                && self.disk.is_cut()
            {
                return Err(error);
            }
            for batch in 0..=turn % 3 {
                self.append(1 + (turn * 5 + batch * 3) % 11);
            }
            self.seal();
            self.write()?;
            if turn % 3 == 2 {
                self.sync()?;
            }
        }
        Ok(())
    }
}

/// What replay gives: the samples' numbers in order, each checked against its number, and what was reported.
fn replayed(disk: &SimDisk) -> (Vec<u64>, Recovered) {
    let recovered = ready(recover(disk, 0, OnDamage::Stop)).unwrap();
    (replay_all(disk, &recovered), recovered)
}

fn replay_all(disk: &SimDisk, recovered: &Recovered) -> Vec<u64> {
    let mut replay = Replay::open(disk, std::slice::from_ref(recovered), &[], &[]).unwrap();
    let mut share = Share::default();
    let mut known = BTreeMap::new();
    let mut ids = Vec::new();
    let mut last = Stamp::default();
    let mut next_offset = None;
    while let Some(frame) = ready(replay.next(&mut share, |_| true)).unwrap() {
        assert!(frame.stamp > last, "stamps rise");
        assert_eq!(share.stamp, frame.stamp);
        assert_eq!(frame.first_offset, next_offset.unwrap_or(frame.first_offset), "offsets have no hole");
        last = frame.stamp;
        next_offset = Some(frame.first_offset + u64::from(frame.records));
        for (number, kind, labels) in share.definitions() {
            assert_eq!(kind, MetricKind::Gauge);
            known.insert((share.dictionary, number), labels.to_owned());
        }
        for (number, sample) in share.samples() {
            let id = sample.value as u64;
            assert!(sample.same_bits(&sample_of(id)));
            assert_eq!(known[&(share.dictionary, number)], labels_of(id));
            ids.push(id);
        }
    }
    ids
}

/// `stored` is the start of what was accepted, in whole batches, and holds all that was answered.
fn check(stored: &[u64], journal: &Loop, answered: &[u64], what: &str) {
    let mut rest = stored;
    for batch in &journal.accepted {
        if rest.is_empty() {
            break;
        }
        let batch: Vec<u64> = batch.clone().collect();
        assert!(rest.starts_with(&batch), "{what}: {:?} instead of {batch:?}", &rest[..3.min(rest.len())]);
        rest = &rest[batch.len()..];
    }
    assert_eq!(rest, [] as [u64; 0], "{what}: never accepted");
    for id in answered {
        assert!(stored.contains(id), "{what}: sample {id} was answered and is gone");
    }
}

const TURNS: u64 = 60;

#[test]
fn an_undisturbed_journal_comes_back_over_many_files() {
    let disk = SimDisk::new(1);
    let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
    journal.turns(TURNS * 5).unwrap();
    let (stored, recovered) = replayed(&disk);
    assert_eq!(stored, (0..journal.next).collect::<Vec<_>>());
    assert!(recovered.files.len() >= 3, "{} files", recovered.files.len());
    assert_eq!(recovered.torn, None);
    assert_eq!(recovered.end(), journal.writer.end());
    assert_eq!(recovered.resume.next_offset, journal.writer.next_offset());
    assert!(journal.refused.is_empty());
}

/// A power cut at any operation keeps what was answered at `synced`, a kill what was answered at `written`,
/// and both at most what was on its way besides, in order and in whole batches; and again in a second run on
/// what the first left.
/// Method: count the operations of a scripted run, then run it once per operation, cutting there, and look
/// at several torn outcomes of each.
#[test]
fn a_cut_at_every_operation_keeps_what_was_answered() {
    let whole = SimDisk::new(1);
    Loop::new(&whole, 1, Resume::default(), 0).turns(TURNS).unwrap();
    let mut torn = 0;
    for cut in 0..whole.operations() {
        let disk = SimDisk::cutting_at(cut, cut);
        let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
        assert!(journal.turns(TURNS).is_err());
        let (stored, _) = replayed(&disk.after_kill());
        check(&stored, &journal, &journal.answered_written, &format!("kill at {cut}"));
        for seed in 0..6 {
            let left = disk.after_power_cut(seed);
            let (stored, recovered) = replayed(&left);
            check(&stored, &journal, &journal.answered_synced, &format!("cut {cut} seed {seed}"));
            torn += u32::from(recovered.torn.is_some());
            if seed == 0 {
                let mut second = Loop::new(&left, 2, recovered.resume, 1_000_000);
                left.cut_at(cut % 50);
                let _ = second.turns(20);
                let (both, _) = replayed(&left.after_power_cut(cut));
                assert!(both.starts_with(&stored), "cut {cut}: what was once replayed stays");
                check(
                    &both[stored.len()..],
                    &second,
                    &second.answered_synced,
                    &format!("second after {cut}"),
                );
            }
        }
    }
    assert!(torn > 20, "the cuts tore {torn} tails");
}

/// What a start that skips damage replays, the next one replays too, though nothing came between: what lies behind a torn
/// place may be all that tells the damage from a torn tail. Found by guessing (`bench/fuzz`).
/// Method: tear a run at every operation, rot a byte shortly before the torn place, start twice.
#[test]
fn what_is_replayed_beside_damage_is_replayed_again() {
    let whole = SimDisk::new(1);
    Loop::new(&whole, 1, Resume::default(), 0).turns(TURNS).unwrap();
    let mut both = 0;
    for cut in 0..whole.operations() {
        let disk = SimDisk::cutting_at(cut, cut);
        assert!(Loop::new(&disk, 1, Resume::default(), 0).turns(TURNS).is_err());
        for (seed, before) in (0..4).flat_map(|seed| [100, 300, 700].map(|before| (seed, before))) {
            let end = ready(recover(&disk.after_power_cut(seed), 0, OnDamage::Stop)).unwrap().end();
            let left = disk.after_power_cut(seed);
            let rotten = end.offset.saturating_sub(before).max(HEAD_BYTES as u64) * 8;
            left.flip_bit(&file_path(0, end.sequence), rotten);
            let first = ready(recover(&left, 0, OnDamage::Skip)).unwrap();
            both += u32::from(first.torn.is_some() && !first.damage.is_empty());
            let stored = frames_replayed(&left, &first);
            let second = ready(recover(&left, 0, OnDamage::Skip)).unwrap();
            assert_eq!(frames_replayed(&left, &second), stored, "cut {cut}, outcome {seed}, {before} before");
            assert_eq!(second.damage, first.damage);
        }
    }
    assert!(both > 10, "{both} were both torn and damaged");
}

/// Offsets and records of the frames that replay gives, as far as it comes beside damage.
fn frames_replayed(disk: &SimDisk, recovered: &Recovered) -> Vec<(u64, u32)> {
    let mut replay = Replay::open(disk, std::slice::from_ref(recovered), &[], &[]).unwrap();
    let (mut share, mut frames) = (Share::default(), Vec::new());
    while let Some(frame) = ready(replay.next(&mut share, |_| true)).unwrap() {
        frames.push((frame.first_offset, frame.records));
    }
    frames
}

#[test]
fn a_cut_at_every_sync_keeps_what_was_answered() {
    let whole = SimDisk::new(1);
    Loop::new(&whole, 1, Resume::default(), 0).turns(TURNS).unwrap();
    for cut in 0..whole.syncs() {
        let disk = SimDisk::new(cut);
        disk.cut_at_sync(cut);
        let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
        assert!(journal.turns(TURNS).is_err());
        let (stored, _) = replayed(&disk.after_kill());
        check(&stored, &journal, &journal.answered_written, &format!("kill at sync {cut}"));
        for seed in 0..20 {
            let (stored, _) = replayed(&disk.after_power_cut(seed));
            check(&stored, &journal, &journal.answered_synced, &format!("sync {cut} seed {seed}"));
        }
    }
}

/// After a failed write or sync the batches behind the last good position are refused, the loop goes on in a
/// new file, and what was refused never comes back, though its bytes may lie on the disk.
/// Method: fail each write, and each sync, of a scripted run in turn; at the end look after a kill and after
/// power cuts.
#[test]
fn a_batch_refused_after_a_failed_call_never_comes_back() {
    let whole = SimDisk::new(1);
    Loop::new(&whole, 1, Resume::default(), 0).turns(TURNS).unwrap();
    for call in [Call::Write, Call::Sync] {
        let mut refused = 0;
        for nth in 0..whole.calls(call) {
            let disk = SimDisk::new(nth);
            disk.fail(call, nth, Times::Once, io::ErrorKind::Other);
            let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
            journal.turns(TURNS + 8).unwrap();
            journal.write().unwrap();
            journal.sync().unwrap();
            refused += journal.refused.len();
            let what = format!("{call:?} {nth}");
            let everything: Vec<u64> = journal.accepted.iter().cloned().flatten().collect();
            assert!(everything.len() > 300, "{what}: the loop went on, {}", everything.len());
            assert_eq!(replayed(&disk.after_kill()).0, everything, "{what}");
            assert_eq!(replayed(&disk.after_power_cut(nth)).0, everything, "{what}");
            assert!(everything.iter().all(|id| !journal.refused.contains(id)));
        }
        assert!(refused > 0);
    }
}

/// A write that did reach the disk although it failed is refused all the same.
#[test]
fn an_intact_frame_behind_the_last_good_position_is_not_replayed() {
    let disk = SimDisk::new(1);
    let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
    journal.prepare().unwrap();
    for round in 0..2 {
        assert!(journal.append(5));
        journal.seal();
        let write = journal.writer.next_write().unwrap();
        let file = ready(disk.open(&file_path(0, write.sequence))).unwrap();
        ready(file.write_at(write.position, &write.bytes)).unwrap();
        let result = if round == 0 { Ok(()) } else { Err(io::Error::other("says the driver")) };
        if let Err(abandoned) = journal.writer.wrote(write, result) {
            assert_eq!(abandoned.last_good, journal.writer.written());
            journal.refuse_beyond(abandoned);
        }
    }
    assert_eq!(journal.writer.next_offset(), 5, "the refused records' offsets are given again");
    assert_eq!(journal.writer.reserve(100), Reserve::Full);
    journal.prepare().unwrap();
    assert!(journal.append(5));
    journal.seal();
    journal.write().unwrap();
    assert_eq!(replayed(&disk).0, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
}

/// Every single flipped bit is reported, or changes nothing; where only an unsynced end is lost it is a torn
/// tail. Never does another value come back.
/// Method: a small journal of two files, all synced, whose frames attest to one another; flip each bit.
#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let disk = SimDisk::new(1);
    let limits = JournalLimits { file_bytes_min: 6 * 1024, ..LIMITS };
    let mut journal = Loop::of(&disk, 1, Resume::default(), 0, limits);
    journal.turns(30).unwrap();
    journal.sync().unwrap();
    let (all, recovered) = replayed(&disk);
    assert!(recovered.files.len() >= 2);
    let last_frame_start = {
        let run = recovered.files.last().unwrap().runs.last().unwrap();
        run.bytes.end - 600
    };
    let (mut noticed, mut harmless) = (0, 0);
    for file in &recovered.files {
        let path = file_path(0, file.sequence);
        let used = file.runs.last().unwrap().bytes.end;
        // All bits of the frames; of the head's zeros, which nobody reads, only some.
        let head_bits = HEAD_BYTES as u64 * 8;
        for bit in (0..used * 8).filter(|bit| *bit >= head_bits || bit % 67 == 0 || *bit < 80 * 8) {
            let copy = disk.after_kill();
            assert!(copy.flip_bit(&path, bit));
            match ready(recover(&copy, 0, OnDamage::Stop)) {
                Err(RecoverError::Damaged(damage)) => {
                    assert_eq!(damage.path, path);
                    assert!(damage.bytes.start <= bit / 8, "{damage} for bit {bit}");
                    noticed += 1;
                }
                Err(other) => panic!("{other}"),
                Ok(found) => {
                    let stored = replay_all(&copy, &found);
                    assert!(all.starts_with(&stored), "bit {bit} of {path}");
                    if stored == all {
                        harmless += 1;
                    } else {
                        // The last frames have nobody after them who knew that they were synced.
                        assert!(found.torn.is_some() && bit / 8 > last_frame_start, "bit {bit} of {path}");
                    }
                }
            }
        }
    }
    assert!(noticed > 10_000 && harmless > 1_000, "{noticed} noticed, {harmless} harmless");
}

/// Damage stops the start; when it is skipped the range and its records are reported, the frames behind it
/// come, and samples whose definition was lost are counted.
#[test]
fn damage_is_reported_and_skipped_only_when_asked() {
    let disk = SimDisk::new(1);
    let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
    journal.prepare().unwrap();
    assert!(journal.append(8));
    journal.seal();
    journal.write().unwrap();
    journal.sync().unwrap();
    journal.turns(30).unwrap();
    let (all, recovered) = replayed(&disk);
    let path = file_path(0, 1);
    disk.flip_bit(&path, (HEAD_BYTES as u64 + 60) * 8);
    let Err(RecoverError::Damaged(damage)) = ready(recover(&disk, 0, OnDamage::Stop)) else {
        panic!("damage not noticed")
    };
    assert_eq!((damage.path.as_str(), damage.bytes.start), (path.as_str(), HEAD_BYTES as u64));
    assert_eq!(damage.records.clone().map(|records| records.start), Some(0));
    let skipped = ready(recover(&disk, 0, OnDamage::Skip)).unwrap();
    assert_eq!(skipped.damage, [damage]);
    assert_eq!(skipped.end(), recovered.end());
    let mut replay = Replay::open(&disk, std::slice::from_ref(&skipped), &[], &[]).unwrap();
    let mut share = Share::default();
    let (mut known, mut unknown) = (0, 0);
    while let Some(frame) = ready(replay.next(&mut share, |_| true)).unwrap() {
        known += share.len();
        unknown += frame.unknown as usize;
    }
    let lost = skipped.damage[0].records.clone().map_or(0, |records| records.end - records.start) as usize;
    assert!(known > 0 && unknown > 0 && lost > 0);
    assert_eq!(known + unknown + lost, all.len());
}

/// Frames of several loops come in the order of their stamps, an executor gets what it owns, definitions also
/// from below its position and samples only from there on.
#[test]
fn replay_merges_by_stamp_and_keeps_to_owner_and_position() {
    let disk = SimDisk::new(1);
    let mut writers: Vec<Writer> = (0..2).map(|i| Writer::new(i, 1, Resume::default(), LIMITS)).collect();
    let mut from = [JournalPosition::default(); 2];
    for turn in 0..20u64 {
        let at = (turn % 2) as usize;
        let writer = &mut writers[at];
        if let Some(file) = writer.needs_file() {
            writer.install(ready(prepare(&disk, at as u16, file)).unwrap());
        }
        assert_eq!(writer.reserve(500), Reserve::Ready);
        let client = writer.client(b"someone");
        writer.begin_batch(client);
        for i in 0..7 {
            let numbered = writer.number(labels_of(i + 1).as_ref(), MetricKind::Gauge, |_| 0);
            writer.push(numbered.number, sample_of(turn));
        }
        let sealed = writer.seal(1_000 + turn).unwrap();
        let write = writer.next_write().unwrap();
        let file = ready(disk.open(&file_path(at as u16, write.sequence))).unwrap();
        ready(file.write_at(write.position, &write.bytes)).unwrap();
        writer.wrote(write, Ok(())).unwrap();
        if turn == 9 {
            from[at] = sealed.end;
        }
    }
    let journals: Vec<Recovered> =
        (0..2).map(|i| ready(recover(&disk, i, OnDamage::Stop)).unwrap()).collect();
    let mine = labels_of(3).as_ref().hash();
    let mut replay = Replay::open(&disk, &journals, &from, &[]).unwrap();
    let mut share = Share::default();
    let (mut turns, mut asked, mut defined) = (Vec::new(), 0, 0);
    let owns = |hash| {
        asked += 1;
        hash == mine
    };
    let mut owns = owns;
    while let Some(frame) = ready(replay.next(&mut share, &mut owns)).unwrap() {
        assert_eq!(frame.end.offset, share.journal_end);
        defined += share.definitions().count();
        turns.extend(share.samples().map(|(_, sample)| sample.value as u64));
    }
    let expected: Vec<u64> = (0..20).filter(|turn| turn % 2 == 0 || *turn > 9).collect();
    assert_eq!(turns, expected);
    assert_eq!((asked, defined), (14, 2), "once per definition and loop");
}

#[test]
fn truncation_keeps_the_file_of_the_position_and_replay_misses_a_file_that_is_needed() {
    let disk = SimDisk::new(1);
    let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
    journal.turns(TURNS * 5).unwrap();
    let (all, recovered) = replayed(&disk);
    let sequences: Vec<u64> = recovered.files.iter().map(|file| file.sequence).collect();
    let below = JournalPosition { sequence: sequences[2], offset: HEAD_BYTES as u64 };
    assert_eq!(ready(truncate(&disk, 0, &sequences, below)).unwrap(), sequences[..2]);
    let after = ready(recover(&disk, 0, OnDamage::Stop)).unwrap();
    assert_eq!(after.files, recovered.files[2..]);
    assert_eq!(after.resume, recovered.resume);
    let mut replay = Replay::open(&disk, std::slice::from_ref(&after), &[below], &[]).unwrap();
    let mut share = Share::default();
    let mut stored = 0;
    while ready(replay.next(&mut share, |_| true)).unwrap().is_some() {
        stored += share.len();
    }
    assert_eq!(stored as u64, all.len() as u64 - recovered.files[2].runs[0].records.start);
    let needed = JournalPosition { sequence: sequences[1], offset: HEAD_BYTES as u64 };
    let missing = Replay::open(&disk, &[after], &[needed], &[]).err();
    assert!(matches!(missing, Some(ReplayError::Missing { .. })), "{missing:?}");
}

#[test]
fn a_full_disk_shows_when_a_file_is_prepared_and_gives_its_space_back() {
    let disk = SimDisk::new(1);
    let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
    journal.turns(5).unwrap();
    let used = disk.bytes_used();
    disk.set_capacity(Some(used + 1_000));
    assert_eq!(journal.turns(TURNS * 4).map_err(|error| error.kind()), Ok(()));
    assert_eq!(journal.writer.reserve(4_000), Reserve::Full);
    assert_eq!(disk.bytes_used(), used);
    disk.set_capacity(None);
    let asked = journal.writer.needs_file().unwrap();
    journal.writer.install(ready(prepare(&disk, 0, asked)).unwrap());
    assert_eq!(journal.writer.reserve(4_000), Reserve::Ready);
}

#[test]
fn a_batch_that_no_file_can_hold_is_refused_for_good() {
    let disk = SimDisk::new(1);
    let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
    journal.prepare().unwrap();
    assert_eq!(journal.writer.reserve(LIMITS.file_bytes_min as usize), Reserve::TooLarge);
    assert_eq!(journal.writer.reserve(1_000), Reserve::Ready);
}

/// A full dictionary begins the next file, in which numbers count from 0 again.
#[test]
fn a_full_dictionary_begins_anew_in_the_next_file() {
    let disk = SimDisk::new(1);
    let limits = JournalLimits { dictionary_entries_max: 10, ..LIMITS };
    let mut writer = Writer::new(0, 1, Resume::default(), limits);
    let mut dictionaries = Vec::new();
    for i in 0..25u64 {
        if let Some(file) = writer.needs_file() {
            writer.install(ready(prepare(&disk, 0, file)).unwrap());
        }
        assert_eq!(writer.reserve(200), Reserve::Ready);
        let client = writer.client(b"c");
        writer.begin_batch(client);
        let numbered = writer.number(labels_of(i * 40).as_ref(), MetricKind::Gauge, |_| 0);
        assert_eq!((u64::from(numbered.number.0), numbered.first), (i % 10, true));
        writer.push(numbered.number, sample_of(i * 40));
        dictionaries.push(writer.dictionary());
        writer.seal(i).unwrap();
        while let Some(write) = writer.next_write() {
            let file = ready(disk.open(&file_path(0, write.sequence))).unwrap();
            ready(file.write_at(write.position, &write.bytes)).unwrap();
            writer.wrote(write, Ok(())).unwrap();
        }
        while let Some(sync) = writer.next_sync() {
            writer.synced(sync, Ok(())).unwrap();
        }
    }
    dictionaries.dedup();
    assert_eq!(dictionaries, [1, 2, 3]);
    assert_eq!(replayed(&disk).0, (0..25).map(|i| i * 40).collect::<Vec<_>>());
}

/// A file's successor is asked for as soon as it is begun, once, and again when it could not be made; until it is
/// there the last rows of the file wait for it.
#[test]
fn the_next_file_is_asked_for_when_the_present_one_begins() {
    let disk = SimDisk::new(1);
    let mut writer = Writer::new(0, 1, Resume::default(), LIMITS);
    assert!(writer.awaits_file(0), "there is no file at all");
    let first = writer.needs_file().unwrap();
    assert_eq!(writer.needs_file(), None, "said once");
    writer.install(ready(prepare(&disk, 0, first)).unwrap());
    assert_eq!(writer.needs_file(), None, "the first is not begun yet");
    assert_eq!(writer.reserve(500), Reserve::Ready);
    let second = writer.needs_file().unwrap();
    assert_eq!((second.sequence, writer.needs_file()), (first.sequence + 1, None));
    let room = (LIMITS.file_bytes_min as usize) - HEAD_BYTES - FRAME_HEAD_BYTES;
    assert!(!writer.awaits_file(room));
    assert!(writer.awaits_file(room + 1));
    writer.not_prepared();
    assert!(writer.awaits_file(room + 1));
    let second = writer.needs_file().expect("it is asked for again");
    writer.install(ready(prepare(&disk, 0, second)).unwrap());
    assert!(!writer.awaits_file(room + 1));
}

/// Two files that are not on the device yet keep a third from being begun, though it is prepared.
#[test]
fn a_file_that_waits_for_the_sync_of_an_older_one_is_awaited_too() {
    let disk = SimDisk::new(1);
    let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
    journal.prepare().unwrap();
    while journal.append(10) {
        journal.prepare().unwrap();
        journal.seal();
        journal.write().unwrap();
    }
    assert_eq!((journal.writer.dictionary(), journal.writer.needs_file()), (2, None), "a third is prepared");
    assert!(journal.writer.awaits_file(batch_bytes_max(10, 1_000, 8)));
    journal.sync().unwrap();
    assert!(!journal.writer.awaits_file(batch_bytes_max(10, 1_000, 8)));
    assert!(journal.append(10));
}

/// A loop that is asked for a new dictionary begins it at once, also when it accepts nothing more, and when not
/// even the head of its file was written.
#[test]
fn a_new_dictionary_is_begun_when_asked_for() {
    let disk = SimDisk::new(1);
    let mut journal = Loop::new(&disk, 1, Resume::default(), 0);
    journal.prepare().unwrap();
    for round in 1..6 {
        assert!(journal.append(3));
        journal.seal();
        assert_eq!(journal.writer.dictionary(), round);
        journal.writer.ask_new_dictionary(round - 1);
        journal.writer.renew();
        assert_eq!(journal.writer.dictionary(), round, "it has begun another one since");
        journal.writer.ask_new_dictionary(round);
        journal.writer.renew();
        assert_eq!(journal.writer.dictionary(), round, "the file is not there yet");
        journal.prepare().unwrap();
        journal.writer.renew();
        assert_eq!(journal.writer.dictionary(), round + 1);
        journal.writer.renew();
        assert_eq!(journal.writer.dictionary(), round + 1);
        journal.write().unwrap();
        journal.sync().unwrap();
    }
    assert_eq!(replayed(&disk).0, (0..15).collect::<Vec<_>>());
}

/// The dictionary is bounded in bytes too: long labels begin the next file before there are many.
#[test]
fn a_dictionary_of_long_labels_begins_anew() {
    let disk = SimDisk::new(1);
    let limits = JournalLimits { dictionary_bytes_max: 20_000, ..LIMITS };
    let mut journal = Loop::of(&disk, 1, Resume::default(), 0, limits);
    for _ in 0..60 {
        journal.prepare().unwrap();
        assert!(journal.append(10));
        journal.turns(1).unwrap();
        assert!(journal.writer.dictionary_memory_bytes() < 24_000);
    }
    assert!(journal.writer.dictionary() > 1);
}

#[test]
fn file_names_are_read_back_and_strange_ones_left_alone() {
    for sequence in [1, 42, SEQUENCE_MAX] {
        let path = file_path(3, sequence);
        assert_eq!(sequence_of(path.rsplit_once('/').unwrap().1), Some(sequence));
    }
    for strange in
        ["1.journal", "000000000000000x.journal", "0000000000000001.tmp", "+000000000000001.journal"]
    {
        assert_eq!(sequence_of(strange), None);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever a disk has made of a journal's files, recovery and replay refuse or read them, and what they
    /// read are samples that were accepted.
    #[test]
    fn overwritten_files_are_refused_or_read(
        places in proptest::collection::vec((0..3usize, 0..9_000u64, 1..600usize, proptest::prelude::any::<u8>()), 1..5),
        cut_to in proptest::option::of(0..9_000u64),
    ) {
        let disk = SimDisk::new(1);
        let limits = JournalLimits { file_bytes_min: 6 * 1024, ..LIMITS };
        let mut journal = Loop::of(&disk, 1, Resume::default(), 0, limits);
        journal.turns(30).unwrap();
        let files = disk.files();
        for (file, position, len, byte) in places {
            let file = ready(disk.open(&files[file % files.len()])).unwrap();
            ready(file.write_at(position, &vec![byte; len])).unwrap();
        }
        if let Some(len) = cut_to {
            ready(ready(disk.open(&files[0])).unwrap().truncate(len)).unwrap();
        }
        for on_damage in [OnDamage::Stop, OnDamage::Skip] {
            let Ok(recovered) = ready(recover(&disk, 0, on_damage)) else { continue };
            let mut replay = Replay::open(&disk, std::slice::from_ref(&recovered), &[], &[]).unwrap();
            let mut share = Share::default();
            while ready(replay.next(&mut share, |_| true)).unwrap().is_some() {
                for (_, sample) in share.samples() {
                    proptest::prop_assert!(sample.same_bits(&sample_of(sample.value as u64)));
                }
            }
        }
    }
}
