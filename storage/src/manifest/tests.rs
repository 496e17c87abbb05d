use super::bytes::{HEAD_BYTES, MAGIC};
use super::*;
use crate::disk::{Call, SimDisk, Times, ready};
use proptest::prelude::*;

/// Who wrote segments for a manifest may remove them only if no start can find that manifest.
/// Method: each call of a store fails once; where a start finds the new one, the error said that it may.
#[test]
fn a_failed_store_says_whether_a_start_may_find_it() {
    let mut found = Vec::new();
    for (call, nth) in
        [(Call::Create, 0), (Call::Write, 0), (Call::Sync, 0), (Call::Rename, 0), (Call::Sync, 1)]
    {
        let disk = SimDisk::new(1);
        ready(manifest(1).store(&disk)).unwrap();
        disk.fail(call, disk.calls(call) + nth, Times::Once, io::ErrorKind::Other);
        let error = ready(manifest(2).store(&disk)).unwrap_err();
        disk.mend();
        let is_new = ready(Manifest::load(&disk)).unwrap().unwrap().run == 2;
        assert!(may_be_stored(&error) || !is_new, "{call:?} {nth}");
        found.push(may_be_stored(&error));
    }
    assert_eq!(found, [false, false, false, false, true]);
}

fn manifest(run: u64) -> Manifest {
    let position = |sequence| JournalPosition { sequence, offset: 4_096 + sequence };
    Manifest {
        run,
        shards: 2,
        routing_generation: 5,
        positions: vec![vec![position(1), position(9)], vec![position(3), position(7)]],
        segments: vec![
            SegmentEntry {
                id: 1,
                shards: 2,
                shard: 0,
                min_ms: -5,
                max_ms: 70,
                bytes: 1 << 33,
                newest: 1,
                deletes_through: 0,
            },
            SegmentEntry {
                id: 8,
                shards: 4,
                shard: 3,
                min_ms: 0,
                max_ms: 0,
                bytes: 0,
                newest: 6,
                deletes_through: 9,
            },
        ],
        next_segment: 9,
        deletes: vec![Tombstone {
            id: 7,
            shards: 2,
            shard: 1,
            start_ms: -1,
            end_ms: i64::MAX,
            selector: "{host=\"ä\"}".to_owned(),
        }],
        believed_ms: Some(1_796_000_000_000),
        checkpoints: vec![CheckpointEntry { id: 5, shards: 2, shard: 1, bytes: 77 }],
    }
}

/// A checkpoint comes in with its positions and goes with the next flush; one that comes too late is refused.
#[test]
fn a_flush_takes_the_place_of_a_checkpoint() {
    let position = |sequence| JournalPosition { sequence, offset: 9 };
    let mut of = manifest(1);
    let entry = CheckpointEntry { id: 20, shards: 2, shard: 1, bytes: 5 };
    let replaced = of.switch_checkpoint(entry, &[position(4), position(8)]);
    assert_eq!(replaced.map(|replaced| replaced.map(|entry| entry.id)), Ok(Some(5)));
    assert_eq!((of.checkpoint(1), of.checkpoint(0), of.next_segment), (Some(&entry), None, 21));
    assert_eq!(of.position(1, 1), position(8));
    assert_eq!(of.switch_flush(1, &[position(6), position(8)]), Some(entry));
    assert_eq!((of.checkpoint(1), of.position(1, 0)), (None, position(6)));
    assert!(of.switch_checkpoint(entry, &[position(5), position(9)]).is_err(), "behind the flush");
    assert_eq!((of.checkpoint(1), of.position(1, 1)), (None, position(8)));
}

/// Directories of versions before checkpoints.
/// Method: the bytes of this one without their last fields.
#[test]
fn versions_before_checkpoints_are_read() {
    let of = Manifest { checkpoints: Vec::new(), ..manifest(1) };
    let bytes = of.encode();
    for (version, without) in [(3u32, 4), (2, 4 + 8)] {
        let body = &bytes[HEAD_BYTES..bytes.len() - without];
        let mut older = MAGIC.to_vec();
        older.extend_from_slice(&version.to_le_bytes());
        older.extend_from_slice(&(body.len() as u32).to_le_bytes());
        older.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
        older.extend_from_slice(&crc32c::crc32c(&older).to_le_bytes());
        older.extend_from_slice(body);
        let believed_ms = of.believed_ms.filter(|_| version == 3);
        assert_eq!(Manifest::decode(&older).unwrap(), Manifest { believed_ms, ..of.clone() });
    }
}

/// A directory of a version before merges: each segment is one flush, and nothing is deleted.
/// Method: the body of version 1, written out by hand.
#[test]
fn version_1_is_read() {
    let mut body = Vec::new();
    [4u64, 1, 12].iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
    body.extend_from_slice(&1u16.to_le_bytes());
    [1u32, 0, 1].iter().for_each(|count| body.extend_from_slice(&count.to_le_bytes()));
    body.extend_from_slice(&11u64.to_le_bytes());
    [1u16, 0].iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
    [5u64, 6, 700].iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend_from_slice(&body);
    let read = Manifest::decode(&bytes).unwrap();
    assert_eq!((read.run, read.next_segment, read.deletes.len()), (4, 12, 0));
    assert_eq!(read.believed_ms, None);
    let [segment] = read.segments[..] else { panic!("{read:?}") };
    assert_eq!((segment.id, segment.newest, segment.deletes_through, segment.bytes), (11, 11, 0, 700));
}

#[test]
fn a_manifest_comes_back_and_names_the_positions_to_cut_and_to_go_on_from() {
    let disk = SimDisk::new(1);
    assert_eq!(ready(Manifest::load(&disk)).unwrap(), None);
    ready(manifest(3).store(&disk)).unwrap();
    let loaded = ready(Manifest::load(&disk)).unwrap().unwrap();
    assert_eq!(loaded, manifest(3));
    assert_eq!((loaded.lowest_position(1).sequence, loaded.highest_position(1).sequence), (7, 9));
    assert_eq!(loaded.lowest_position(2), JournalPosition::default());
    assert_eq!(Manifest::default().lowest_position(0), JournalPosition::default());
}

/// A power cut while the manifest is replaced leaves the old one or the new one.
/// Method: cut at every operation of a second store, and look at several torn outcomes of each.
#[test]
fn a_cut_leaves_the_old_manifest_or_the_new_one() {
    let store_twice = |disk: &SimDisk| -> io::Result<()> {
        ready(manifest(1).store(disk))?;
        ready(manifest(2).store(disk))
    };
    let whole = SimDisk::new(1);
    store_twice(&whole).unwrap();
    let half = whole.operations() / 2;
    for cut in half..=whole.operations() {
        let disk = SimDisk::cutting_at(cut, cut);
        let done = store_twice(&disk).is_ok();
        for seed in 0..20 {
            let left = ready(Manifest::load(&disk.after_power_cut(seed))).unwrap().unwrap();
            assert!(left == manifest(2) || (!done && left == manifest(1)), "cut {cut} seed {seed}");
        }
    }
}

#[test]
fn a_newer_version_a_foreign_file_and_damage_are_told_apart() {
    let mut newer = manifest(1).encode();
    newer[8] = MANIFEST_VERSION as u8 + 1;
    let crc = crc32c::crc32c(&newer[..HEAD_BYTES - 4]);
    newer[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    assert!(
        matches!(Manifest::decode(&newer), Err(ManifestError::Version { found }) if found == MANIFEST_VERSION + 1)
    );
    assert!(matches!(Manifest::decode(b"[package]"), Err(ManifestError::Foreign)));
    let good = manifest(1).encode();
    for len in MAGIC.len()..good.len() {
        assert!(matches!(Manifest::decode(&good[..len]), Err(ManifestError::Damaged { .. })), "{len}");
    }
    for bit in 0..good.len() * 8 {
        let mut turned = good.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::decode(&turned).is_err(), "bit {bit}");
    }
}

proptest! {
    /// Any body behind a right head is refused or read; nothing panics, nothing is made of a count alone.
    #[test]
    fn any_bytes_are_refused_or_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::decode(&body);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&MANIFEST_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend_from_slice(&body);
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }
}
