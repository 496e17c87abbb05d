//! Goal: a series whose labels are not looked at again gets its own number, owner and kind all the same.
//! Method: a true loop and two executors that the test plays. Clients repeat their bodies, with other values, at times
//! in another order, of another kind, over another connection, or with a new dictionary or numbers taken back between
//! two bodies; what each share says, by its own definitions, is compared with what was sent.

use super::*;
use model::{LabelSet, MetricKind, SeriesNumber};
use std::collections::HashMap;

const SERIES: u64 = 12;
const BODIES: u64 = 600;
const EXECUTORS: usize = 2;

/// A sample as it was sent.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    labels: LabelSet,
    kind: MetricKind,
    value: f64,
}

impl Sent {
    fn new(series: u64, kind: MetricKind, value: u64) -> Sent {
        let host = (series / 2).to_string();
        let name = if series.is_multiple_of(2) { "a" } else { "b" };
        let labels = LabelSet::new(name, &[("host", &host), ("zone", "x")]).unwrap();
        Sent { labels, kind, value: value as f64 }
    }

    /// Half of them name the labels in an order of their own.
    fn json(&self, value: u64) -> String {
        let (name, host) = (self.labels.as_ref().name(), self.labels.as_ref().get("host"));
        let kind = if self.kind == MetricKind::Counter { r#","type":"counter""# } else { "" };
        let labels = match value % 7 {
            0 => format!(r#"{{"zone":"x","host":"{host}"}}"#),
            _ => format!(r#"{{"host":"{host}","zone":"x"}}"#),
        };
        format!(r#"{{"name":"{name}","value":{value},"tags":{labels}{kind}}}"#)
    }
}

/// What the executors were told, and what that makes of the samples that they get.
#[derive(Default)]
struct Told {
    dictionary: u64,
    dictionaries: usize,
    series: HashMap<SeriesNumber, (LabelSet, MetricKind, usize)>,
    samples: Vec<(LabelSet, f64)>,
    taken_back: usize,
}

impl Told {
    fn take(&mut self, executor: usize, share: &model::Share) {
        if self.dictionary != share.dictionary {
            self.dictionary = share.dictionary;
            self.dictionaries += 1;
            self.series.clear();
        }
        for (number, kind, labels) in share.definitions() {
            assert_eq!(ingest::owner(labels.hash(), EXECUTORS), executor);
            self.series.insert(number, (labels.to_owned(), kind, executor));
        }
        for (number, sample) in share.samples() {
            let (labels, _, owner) = &self.series[&number];
            assert_eq!(*owner, executor, "the number was told to another executor");
            self.samples.push((labels.clone(), sample.value));
        }
    }

    /// The loop has no such numbers any more: none comes again unless it is defined anew.
    fn forget(&mut self, names: &model::Share) {
        if names.dictionary == self.dictionary {
            names.definitions().for_each(|(number, ..)| assert!(self.series.remove(&number).is_some()));
            self.taken_back += 1;
        }
    }

    /// Asks for the numbers of every third series of one executor.
    fn ask_back(&self, rig: &mut Rig, executor: usize) {
        let mut names = Box::<model::Share>::default();
        names.dictionary = self.dictionary;
        for (number, (labels, kind, owner)) in &self.series {
            if *owner == executor && number.0 % 3 == 0 {
                names.define(*number, *kind, labels.as_ref());
            }
        }
        assert!(rig.loops.send(0, ToLoop::TakeNamesBack { executor, names }).is_ok());
    }

    /// Takes shares until there are so many samples.
    fn wait(&mut self, rig: &mut Rig, samples: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.samples.len() < samples {
            assert!(Instant::now() < deadline, "{} of {samples} samples came", self.samples.len());
            for executor in 0..EXECUTORS {
                match rig.inboxes[executor].pop() {
                    Some((_, ToStore::Share(share))) => self.take(executor, &share),
                    Some((_, ToStore::NamesTakenBack { names, .. })) => self.forget(&names),
                    Some((_, ToStore::PrepareJournal { next, .. })) => {
                        let prepared = file(rig.dir.path(), next, None);
                        assert!(rig.loops.send(0, ToLoop::JournalFile(Ok(prepared))).is_ok());
                    }
                    Some(_) => {}
                    None => std::thread::yield_now(),
                }
            }
        }
    }
}

#[test]
fn series_that_come_again_keep_their_numbers_owners_and_kinds() {
    let mut rig = Rig::among(EXECUTORS, &[], Console::default());
    let mut clients = [rig.client(), rig.client()];
    let mut told = Told::default();
    for body in 0..BODIES {
        let mix = body.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let from = mix % clients.len() as u64;
        match mix / 7 % 40 {
            0 => clients[from as usize] = rig.client(),
            1 => {
                let renew = ToLoop::RenewDictionary { dictionary: told.dictionary };
                assert!(rig.loops.send(0, renew).is_ok());
            }
            2..6 => told.ask_back(&mut rig, mix as usize / 11 % EXECUTORS),
            _ => {}
        }
        let kind = if mix / 64 % 9 == 0 { MetricKind::Counter } else { MetricKind::Gauge };
        let sent: Vec<(Sent, u64)> = (0..SERIES)
            .map(|at| {
                let series = if mix / 512 % 6 == 0 { SERIES - 1 - at } else { at };
                let value = 100 * body + at;
                let kind = if at % 3 == 0 { kind } else { MetricKind::Gauge };
                (Sent::new(series + 2 * from, kind, value), value)
            })
            .collect();
        let metrics: Vec<String> = sent.iter().map(|(sent, value)| sent.json(*value)).collect();
        let client = &mut clients[from as usize];
        client.send(post("written", &format!(r#"{{"metrics":[{}]}}"#, metrics.join(",")))).unwrap();
        assert_eq!(client.answer().status, 202);

        told.samples.clear();
        told.wait(&mut rig, sent.len());
        told.samples.sort_by(|a, b| a.1.total_cmp(&b.1));
        let expected: Vec<(LabelSet, f64)> =
            sent.iter().map(|(sent, _)| (sent.labels.clone(), sent.value)).collect();
        assert_eq!(told.samples, expected, "body {body}");
        for (sent, _) in &sent {
            let (_, kind, _) = told.series.values().find(|(labels, ..)| *labels == sent.labels).unwrap();
            assert_eq!(*kind, sent.kind, "body {body}: the kind said last is kept");
        }
    }
    assert!(told.taken_back > 20, "{}", told.taken_back);
    assert!(told.dictionaries >= 5, "{} dictionaries", told.dictionaries);
}
