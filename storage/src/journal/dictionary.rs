//! Which number a file's series and clients have. Of a series' labels 128 bits of a keyed hash are kept and no text: a
//! look-up then misses the cache for its place in the table alone, and a million series of ten labels take 60 MB instead of
//! 600.
//!
//! Owner: the writer; one dictionary per journal file, forgotten when the next begins.
//! Always: numbers count from 0 in order of arrival and none is given twice, also when it was taken back; what has a
//! number stands in the file.

use super::frame::{self, ClientNumber};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use model::{LabelSetRef, MetricKind, SeriesHash, SeriesNumber, TextHash, TextKey};
use std::hash::BuildHasher;

/// What the writer knows of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its number in the current file.
    pub number: SeriesNumber,
    /// Who owns it, as `owner_of` said when it was met.
    pub owner: u16,
    /// Whether this very call defined it, so that its owner must be told.
    pub first: bool,
}

#[derive(Debug)]
pub(super) struct Dictionary {
    key: TextKey,
    series: HashTable<Series>,
    /// Bytes of their labels.
    label_bytes: u64,
    /// By number: as which kind each series was defined last; none where the number was taken back.
    kinds: Vec<Option<MetricKind>>,
    hasher: FixedState,
    clients: HashTable<Client>,
    /// Their bytes.
    arena: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    hash: TextHash,
    number: u32,
    owner: u16,
    kind: MetricKind,
}

const _: () = assert!(size_of::<Series>() == 24 && size_of::<Option<MetricKind>>() == 1);

#[derive(Clone, Copy, Debug)]
struct Client {
    number: u32,
    start: u32,
    len: u32,
}

impl Dictionary {
    /// An empty dictionary; the seed, which no client may know, keeps clients from choosing labels that collide.
    pub(super) fn new(seed: u64) -> Dictionary {
        Dictionary {
            key: TextKey::new(seed),
            series: HashTable::new(),
            label_bytes: 0,
            kinds: Vec::new(),
            hasher: FixedState::with_seed(seed),
            clients: HashTable::new(),
            arena: Vec::new(),
        }
    }

    /// Forgets everything, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.series.clear();
        self.label_bytes = 0;
        self.kinds.clear();
        self.clients.clear();
    }

    /// Numbers given to series, or to clients if those are more.
    pub(super) fn entries(&self) -> usize {
        self.kinds.len().max(self.clients.len())
    }

    /// Label and client bytes that stand in the file.
    pub(super) fn bytes(&self) -> u64 {
        self.label_bytes + self.arena.len() as u64
    }

    /// Bytes of memory at most: each table doubles when it is full.
    pub(super) fn memory_bytes(&self) -> usize {
        let entries = self.series.len() * (size_of::<Series>() + 1)
            + self.kinds.len() * size_of::<Option<MetricKind>>()
            + self.clients.len() * (size_of::<Client>() + 1);
        2 * (self.arena.len() + entries)
    }

    /// Who owns a series that has a number.
    pub(super) fn owner(&self, labels: LabelSetRef<'_>) -> Option<u16> {
        let hash = self.key.hash(labels.bytes());
        self.series.find(hash.0[0], |series| series.hash == hash).map(|series| series.owner)
    }

    /// Whether the series of that number was defined last as of this kind.
    #[inline]
    pub(super) fn is_of_kind(&self, number: SeriesNumber, kind: MetricKind) -> bool {
        self.kinds.get(number.0 as usize) == Some(&Some(kind))
    }

    /// Takes back a number, if it is that of the series still: should the series come again it gets another.
    pub(super) fn take_back(&mut self, number: SeriesNumber, labels: LabelSetRef<'_>) {
        let hash = self.key.hash(labels.bytes());
        let is_it = |series: &Series| series.hash == hash && series.number == number.0;
        if let Ok(entry) = self.series.find_entry(hash.0[0], is_it) {
            entry.remove();
            self.kinds[number.0 as usize] = None;
        }
    }

    /// The number of a series; a new one, or one that changed its kind, is defined in `definitions`.
    #[inline]
    pub(super) fn number(
        &mut self,
        labels: LabelSetRef<'_>,
        kind: MetricKind,
        owner_of: impl FnOnce(SeriesHash) -> u16,
        definitions: &mut Vec<u8>,
    ) -> Numbered {
        let bytes = labels.bytes();
        let hash = self.key.hash(bytes);
        if let Some(series) = self.series.find_mut(hash.0[0], |series| series.hash == hash) {
            let number = SeriesNumber(series.number);
            let first = series.kind != kind;
            if first {
                series.kind = kind;
                self.kinds[number.0 as usize] = Some(kind);
                frame::define_series(definitions, number, kind, bytes);
            }
            return Numbered { number, owner: series.owner, first };
        }
        // A file is below 4 GiB, and each of them stands in it.
        let number = SeriesNumber(self.kinds.len() as u32);
        let owner = owner_of(labels.hash());
        frame::define_series(definitions, number, kind, bytes);
        self.label_bytes += bytes.len() as u64;
        self.kinds.push(Some(kind));
        let series = Series { hash, number: number.0, owner, kind };
        self.series.insert_unique(hash.0[0], series, |series| series.hash.0[0]);
        Numbered { number, owner, first: true }
    }

    /// The number of a client, defined in `definitions` when it is new.
    #[inline]
    pub(super) fn client(&mut self, bytes: &[u8], definitions: &mut Vec<u8>) -> ClientNumber {
        let hash = self.hasher.hash_one(bytes);
        let arena = &self.arena;
        let same = |client: &Client| spans(arena, client.start, client.len) == bytes;
        if let Some(client) = self.clients.find(hash, same) {
            return ClientNumber(client.number);
        }
        let number = ClientNumber(self.clients.len() as u32);
        frame::define_client(definitions, number, bytes);
        let (start, len) = keep(&mut self.arena, bytes);
        let (hasher, arena) = (&self.hasher, &self.arena);
        self.clients.insert_unique(hash, Client { number: number.0, start, len }, |client| {
            hasher.hash_one(spans(arena, client.start, client.len))
        });
        number
    }
}

fn spans(arena: &[u8], start: u32, len: u32) -> &[u8] {
    &arena[start as usize..(start + len) as usize]
}

fn keep(arena: &mut Vec<u8>, bytes: &[u8]) -> (u32, u32) {
    let start = u32::try_from(arena.len()).expect("all of it stands in one file, which is below 4 GiB");
    arena.extend_from_slice(bytes);
    (start, bytes.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LabelSet;

    #[test]
    fn a_series_keeps_its_number_and_is_defined_once_per_kind() {
        let mut dictionary = Dictionary::new(1);
        let mut definitions = Vec::new();
        let set = |i: usize| LabelSet::new("cpu", &[("host", &i.to_string())]).unwrap();
        for round in 0..2 {
            for i in 0..2_000 {
                let owner = |hash: SeriesHash| hash.slot().number() % 3;
                let found = dictionary.number(set(i).as_ref(), MetricKind::Gauge, owner, &mut definitions);
                assert_eq!((found.number, found.first), (SeriesNumber(i as u32), round == 0));
                assert_eq!(found.owner, set(i).as_ref().hash().slot().number() % 3);
            }
        }
        let asked = |_: SeriesHash| unreachable!("the owner of a known series is known");
        let changed = dictionary.number(set(7).as_ref(), MetricKind::Counter, asked, &mut definitions);
        assert_eq!((changed.number, changed.first), (SeriesNumber(7), true));
        assert!(dictionary.is_of_kind(SeriesNumber(7), MetricKind::Counter));
        assert!(!dictionary.is_of_kind(SeriesNumber(7), MetricKind::Gauge));
        assert!(!dictionary.is_of_kind(SeriesNumber(2_000), MetricKind::Gauge));
        let (one, two) =
            (dictionary.client(b"1", &mut definitions), dictionary.client(b"2", &mut definitions));
        assert_eq!(
            (one, two, dictionary.client(b"1", &mut definitions)),
            (ClientNumber(0), ClientNumber(1), one)
        );
        let mut read = Vec::new();
        let mut clients = Vec::new();
        let on_client = |number: ClientNumber, bytes: &[u8]| clients.push((number, bytes.to_vec()));
        frame::decode_definitions(
            &definitions,
            |n, kind, labels| read.push((n, kind, labels.to_owned())),
            on_client,
        )
        .unwrap();
        assert_eq!(read.len(), 2_001);
        assert_eq!(read[2_000], (SeriesNumber(7), MetricKind::Counter, set(7)));
        assert_eq!(clients, [(one, b"1".to_vec()), (two, b"2".to_vec())]);
        // Taken back, but only by the number that it has.
        dictionary.take_back(SeriesNumber(8), set(9).as_ref());
        dictionary.take_back(SeriesNumber(5), set(5).as_ref());
        let is_numbered = |n: u32| dictionary.is_of_kind(SeriesNumber(n), MetricKind::Gauge);
        assert!(is_numbered(9) && is_numbered(8) && !is_numbered(5));
        assert_eq!((dictionary.owner(set(5).as_ref()), dictionary.entries()), (None, 2_000));
        for first in [true, false] {
            let again = dictionary.number(set(5).as_ref(), MetricKind::Gauge, |_| 0, &mut definitions);
            assert_eq!((again.number, again.first), (SeriesNumber(2_000), first));
        }
        dictionary.clear();
        let anew = dictionary.number(set(9).as_ref(), MetricKind::Gauge, |_| 0, &mut definitions);
        assert_eq!((anew.number, anew.first), (SeriesNumber(0), true));
    }
}
