use super::super::ready;
use super::*;
use std::collections::BTreeSet;

fn written(disk: &SimDisk, path: &str, bytes: &[u8]) -> SimFile {
    let file = ready(disk.create(path)).unwrap();
    ready(file.write_at(0, bytes)).unwrap();
    file
}

/// What was synced survives every cut; what was not may be there sector by sector, old or new.
#[test]
fn a_power_cut_keeps_what_was_synced_and_tears_the_rest_by_sector() {
    let disk = SimDisk::new(7);
    let file = written(&disk, "a", &[1; 4 * SECTOR_BYTES]);
    ready(file.sync()).unwrap();
    ready(disk.sync_dir("")).unwrap();
    ready(file.write_at(SECTOR_BYTES as u64, &[2; 2 * SECTOR_BYTES])).unwrap();
    ready(file.write_at(2 * SECTOR_BYTES as u64, &[3; 16])).unwrap();
    let mut outcomes = BTreeSet::new();
    for seed in 0..64 {
        let bytes = disk.after_power_cut(seed).contents("a").unwrap();
        let sector = |i: usize| &bytes[i * SECTOR_BYTES..(i + 1) * SECTOR_BYTES];
        assert!(sector(0) == [1; SECTOR_BYTES] && sector(3) == [1; SECTOR_BYTES]);
        assert!([[1; SECTOR_BYTES], [2; SECTOR_BYTES]].iter().any(|state| sector(1) == state));
        let mut third = [2; SECTOR_BYTES];
        third[..16].fill(3);
        let states = [[1; SECTOR_BYTES], [2; SECTOR_BYTES], third];
        let chosen = states.iter().position(|state| sector(2) == state).unwrap();
        outcomes.insert((sector(1)[0], chosen));
    }
    assert_eq!(outcomes.len(), 6, "every combination of old and new occurs");
    assert_eq!(disk.after_kill().contents("a"), disk.contents("a"));
    let later = disk.after_kill().after_power_cut(3).contents("a").unwrap();
    assert_eq!(later[..SECTOR_BYTES], [1; SECTOR_BYTES]);
}

/// A new name, a rename and a removal are certain only once their folder was synced.
#[test]
fn names_are_certain_only_after_a_sync_of_their_folder() {
    let disk = SimDisk::new(7);
    ready(disk.create_dir("d")).unwrap();
    for name in ["d/kept", "d/gone"] {
        ready(written(&disk, name, b"x").sync()).unwrap();
    }
    let lost: usize = (0..32).filter(|&seed| disk.after_power_cut(seed).files().is_empty()).count();
    assert!(lost >= 8, "the folder itself was never synced");
    ready(disk.sync_dir("d")).unwrap();
    ready(disk.sync_dir("")).unwrap();
    ready(disk.remove("d/gone")).unwrap();
    ready(disk.rename("d/kept", "d/moved")).unwrap();
    let seen: BTreeSet<Vec<String>> = (0..64).map(|seed| disk.after_power_cut(seed).files()).collect();
    assert_eq!(seen.len(), 4, "{seen:?}");
    ready(disk.sync_dir("d")).unwrap();
    assert!((0..16).all(|seed| disk.after_power_cut(seed).files() == ["d/moved"]));
}

#[test]
fn nothing_works_after_the_cut_and_counts_say_where_it_was() {
    let disk = SimDisk::cutting_at(1, 2);
    let file = written(&disk, "a", b"one");
    assert!(ready(file.sync()).is_err() && disk.is_cut());
    assert!(ready(file.read_at(0, 1)).is_err() && ready(disk.open("a")).is_err());
    assert_eq!((disk.operations(), disk.syncs()), (3, 1));
    let disk = SimDisk::new(1);
    disk.cut_at_sync(1);
    let file = written(&disk, "a", b"one");
    assert!(ready(file.sync()).is_ok());
    assert!(ready(file.sync()).is_err());
}

#[test]
fn a_full_disk_and_a_failing_call_say_so() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(10));
    let file = written(&disk, "a", b"12345678");
    let full = ready(file.write_at(8, b"9abc")).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.contents("a").unwrap(), b"123456789a");
    assert!(ready(file.write_at(0, b"over")).is_ok(), "what is there can be written over");
    disk.fail(Call::Sync, 0, Times::Once, io::ErrorKind::Interrupted);
    assert_eq!(ready(file.sync()).unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert!(ready(file.sync()).is_ok());
    disk.fail(Call::Read, 0, Times::FromThenOn, io::ErrorKind::Other);
    assert!(ready(file.read_at(0, 1)).is_err() && ready(file.read_at(0, 1)).is_err());
    disk.mend();
    assert!(ready(file.read_at(0, 1)).is_ok());
}
