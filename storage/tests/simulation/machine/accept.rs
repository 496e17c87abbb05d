//! A loop's turn: batches come in, are journaled, published and answered; and what a failed journal takes back.

use super::super::record::{Batch, Fate, Level, Row};
use super::super::script::Random;
use super::{Machine, Message, labels_of, owner};
use model::{MetricKind, Sample, SeriesNumber, Share, Timestamp};
use std::collections::BTreeSet;
use storage::disk::{Disk as _, DiskFile as _, ready};
use storage::journal::{self, JournalPosition, Reserve, batch_bytes_max};

impl Machine {
    /// A client's batch arrives at a loop: random rows of old, new and repeated samples.
    pub(crate) fn accept(&mut self, at: usize, random: &mut Random) {
        let rows = 1 + random.below(4);
        let mut batch: Vec<(u32, Option<i64>, u64)> = Vec::new();
        for _ in 0..rows {
            let series = if random.one_in(8) {
                self.next_series += 1;
                self.next_series
            } else {
                random.below(9) as u32
            };
            // Few milliseconds and many writes: some come late, some replace another value.
            let ms = (!random.one_in(3)).then(|| self.now_ms / 16 * 16 - 4 * random.below(12) as i64);
            self.next_value += 1;
            let old = random.below(self.record.batches.len().max(1) as u64) as usize;
            match self.record.batches.get(old).and_then(|old| old.rows.first()) {
                Some(row) if random.one_in(10) && Timestamp::from_ticks(row.ticks).fine() == 0 => {
                    batch.push((row.series, Some(Timestamp::from_ticks(row.ticks).millis()), row.bits));
                }
                _ => batch.push((series, ms, (self.next_value as f64).to_bits())),
            }
        }
        let level = if random.one_in(3) { Level::Written } else { Level::Synced };
        let sealed = self.loops[at].turn.len();
        self.accept_batch(at, &batch, level);
        if self.loops[at].turn.len() > sealed {
            // A full file ended the frame in the middle of a turn. Turns of two loops do not overlap here:
            // which of two overlapping writes to one place counts is open, and may differ after a replay.
            self.commit(at, random);
        }
    }

    /// A client's batch arrives at a loop; false where it is refused before it touches the journal.
    pub(crate) fn accept_batch(&mut self, at: usize, rows: &[(u32, Option<i64>, u64)], level: Level) -> bool {
        self.nanos += 10;
        let now_ms = self.now_ms;
        let label_bytes = rows.iter().map(|row| labels_of(row.0).as_ref().bytes().len()).sum();
        let needed = batch_bytes_max(rows.len(), label_bytes, 8);
        loop {
            match self.loops[at].writer.reserve(needed) {
                Reserve::Ready => break,
                Reserve::SealFirst => self.seal(at),
                Reserve::Full => return false,
                Reserve::TooLarge => panic!("the script's batches are small"),
            }
        }
        let shards = self.shards;
        let state = &mut self.loops[at];
        let client = state.writer.client(format!("client-{}", rows.len()).as_bytes());
        let mut numbered: Vec<(SeriesNumber, usize)> = Vec::new();
        for (series, _, _) in rows {
            let labels = labels_of(*series);
            let kind = MetricKind::Gauge;
            let found = state.writer.number(labels.as_ref(), kind, |hash| owner(hash, shards) as u16);
            let to = usize::from(found.owner);
            let share = state.open[to].get_or_insert_with(Share::default);
            if found.first {
                share.define(found.number, kind, labels.as_ref());
            }
            numbered.push((found.number, to));
        }
        state.writer.begin_batch(client);
        let mut kept = Vec::new();
        for ((series, ms, bits), (number, to)) in rows.iter().zip(numbered) {
            let given = ms.map(|ms| Timestamp::from_millis(ms).expect("the script's times are near"));
            let timestamp = given.unwrap_or_else(|| state.stamps.stamp(Timestamp::first_of_milli(now_ms)));
            let sample = Sample { timestamp, value: f64::from_bits(*bits) };
            state.writer.push(number, sample);
            state.open[to].as_mut().expect("opened when the series was numbered").push(number, sample);
            kept.push(Row { series: *series, ticks: timestamp.ticks(), bits: *bits });
        }
        state.in_open.push(self.record.batches.len());
        self.record.batches.push(Batch {
            loop_index: at,
            run: self.run,
            level,
            stamp: None,
            rows: kept,
            fate: Fate::OnItsWay,
            published: false,
            frozen: false,
            kept_by: BTreeSet::new(),
        });
        true
    }

    fn seal(&mut self, at: usize) {
        let state = &mut self.loops[at];
        let Some(sealed) = state.writer.seal(self.nanos) else { return };
        state.last_stamp = sealed.stamp;
        for (owner, open) in state.open.iter_mut().enumerate() {
            if let Some(mut share) = open.take() {
                share.stamp = sealed.stamp;
                share.dictionary = sealed.end.sequence;
                share.journal_end = sealed.end.offset;
                state.sealed.push((owner, share));
            }
        }
        for batch in state.in_open.drain(..) {
            self.record.batches[batch].stamp = Some(sealed.stamp);
            state.turn.push((sealed.end, batch));
        }
    }

    /// The end of a loop's turn: journal, publish, answer, tell positions.
    pub(crate) fn commit(&mut self, at: usize, random: &mut Random) {
        self.nanos += 10;
        self.seal(at);
        while let Some(write) = self.loops[at].writer.next_write() {
            let result = ready(self.loops[at].files[&write.sequence].write_at(write.position, &write.bytes));
            if self.disk.is_cut() {
                return;
            }
            if let Err(abandoned) = self.loops[at].writer.wrote(write, result) {
                self.journal_failed(at, abandoned.last_good);
                break;
            }
        }
        self.publish(at);
        let state = &mut self.loops[at];
        let synced = state.writer.synced_through();
        for (end, batch) in std::mem::take(&mut state.turn) {
            if self.record.batches[batch].level == Level::Synced && synced < end {
                state.withheld.push_back((end, batch));
            } else {
                let level = self.record.batches[batch].level;
                self.record.answered(batch, level);
            }
        }
        if state.wanted_file.is_none() {
            state.wanted_file = state.writer.needs_file();
        }
        self.tell_positions(at);
        let state = &mut self.loops[at];
        if (state.withheld.is_empty() && state.asks.is_empty()) || state.syncing.is_some() {
            return;
        }
        let Some(sync) = state.writer.next_sync() else { return };
        let now = random.one_in(2).then(|| ready(state.files[&sync.sequence].sync()));
        state.syncing = Some((sync, now));
    }

    fn publish(&mut self, at: usize) {
        let state = &mut self.loops[at];
        for (owner, share) in state.sealed.drain(..) {
            self.executors[owner].rings[at].push_back(Message::Share(share));
        }
        state.turn.iter().for_each(|(_, batch)| self.record.batches[*batch].published = true);
        state.writer.renew();
        let (dictionary, stamp) = (state.writer.dictionary(), state.last_stamp);
        for (owner, names) in state.taken_back.drain(..) {
            self.executors[owner].rings[at].push_back(Message::NamesTaken { names, stamp });
        }
        if dictionary != 0 && dictionary != state.told_dictionary {
            state.told_dictionary = dictionary;
            for executor in &mut self.executors {
                executor.rings[at].push_back(Message::Dictionary { dictionary, stamp });
            }
        }
    }

    /// The executors would forget idle series: a loop begins a new dictionary as soon as it can.
    pub(crate) fn renew(&mut self, at: usize) {
        let writer = &mut self.loops[at].writer;
        writer.ask_new_dictionary(writer.dictionary());
    }

    fn tell_positions(&mut self, at: usize) {
        let state = &mut self.loops[at];
        let (end, synced, stamp) = (state.writer.end(), state.writer.synced_through(), state.last_stamp);
        let executors = &mut self.executors;
        state.asks.retain_mut(|(executor, wanted)| {
            let position = *wanted.get_or_insert(end);
            if synced < position {
                return true;
            }
            executors[*executor].rings[at].push_back(Message::Position { position, stamp });
            false
        });
    }

    /// The outcome of a sync reaches its loop.
    pub(crate) fn sync_comes_back(&mut self, at: usize) {
        let state = &mut self.loops[at];
        let Some((sync, outcome)) = state.syncing.take() else { return };
        let result = outcome.unwrap_or_else(|| ready(state.files[&sync.sequence].sync()));
        if self.disk.is_cut() {
            return;
        }
        let abandoned = state.writer.synced(sync, result).err();
        let synced = state.writer.synced_through();
        state.files.retain(|sequence, _| *sequence >= synced.sequence);
        if let Some(abandoned) = abandoned {
            for batch in &mut self.record.batches {
                let here = batch.loop_index == at && batch.run == self.run;
                if here
                    && batch.fate == Fate::Answered(Level::Written)
                    && !batch.is_kept(self.shards, labels_of)
                {
                    // Where it ended nobody noted; what lies below the last good position is there anyway.
                    batch.fate = Fate::Abandoned;
                }
            }
            self.journal_failed(at, abandoned.last_good);
            return;
        }
        while let Some((_, batch)) = self.loops[at].withheld.pop_front_if(|(end, _)| *end <= synced) {
            self.record.answered(batch, Level::Synced);
        }
    }

    /// What is beyond the last good position is refused, and nobody who has not seen it shall.
    fn journal_failed(&mut self, at: usize, last_good: JournalPosition) {
        let state = &mut self.loops[at];
        let end_of =
            |share: &Share| JournalPosition { sequence: share.dictionary, offset: share.journal_end };
        state.sealed.retain(|(_, share)| end_of(share) <= last_good);
        state.open.iter_mut().for_each(|open| *open = None);
        let mut refused = std::mem::take(&mut state.in_open);
        refused.extend(state.turn.extract_if(.., |(end, _)| *end > last_good).map(|(_, batch)| batch));
        let withheld = std::mem::take(&mut state.withheld);
        for (end, batch) in withheld {
            if end > last_good {
                refused.push(batch);
            } else {
                state.withheld.push_back((end, batch));
            }
        }
        // Ends that were asked for and taken back are asked for anew.
        state.asks.iter_mut().for_each(|(_, wanted)| *wanted = None);
        refused.into_iter().for_each(|batch| self.record.refused(batch));
        let stamp = self.loops[at].last_stamp;
        for executor in &mut self.executors {
            executor.rings[at].push_back(Message::Flush { stamp });
        }
    }

    /// An executor makes the file that its loop asked for.
    pub(crate) fn prepare_file(&mut self, at: usize) {
        let Some(wanted) = self.loops[at].wanted_file.take() else { return };
        let prepared = ready(journal::prepare(&self.disk, at as u16, wanted));
        let opened = ready(self.disk.open(&journal::file_path(at as u16, wanted.sequence)));
        let state = &mut self.loops[at];
        match (prepared, opened) {
            (Ok(prepared), Ok(file)) => {
                state.files.insert(wanted.sequence, file);
                state.writer.install(prepared);
            }
            _ => state.writer.not_prepared(),
        }
    }
}
