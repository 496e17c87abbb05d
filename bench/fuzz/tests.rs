//! Each body against guesses of every test run: bytes of no form, and seeds with a few places changed.

use super::{Target, targets};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestError, TestRunner};
use std::collections::BTreeSet;

/// Of each target; a run of all takes seconds.
const CASES: u32 = 1_024;
const BYTES_MAX: usize = 600;

/// One change of a seed.
#[derive(Clone, Debug)]
enum Edit {
    Put(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// A part of the seed once more, elsewhere.
    Copy(Index, Index, usize),
    Cut(Index),
    /// Four bytes as a number of a size that lengths have.
    Number(Index, u32),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    let number = prop_oneof![Just(0), Just(u32::MAX), Just(u32::MAX >> 1), 1u32..1_000];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Put(at, byte)),
        (at(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (at(), proptest::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 1usize..9).prop_map(|(at, len)| Edit::Remove(at, len)),
        (at(), at(), 1usize..40).prop_map(|(from, to, len)| Edit::Copy(from, to, len)),
        at().prop_map(Edit::Cut),
        (at(), number).prop_map(|(at, number)| Edit::Number(at, number)),
    ]
}

fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match edit {
            Edit::Put(at, byte) => bytes[at.index(len)] = *byte,
            Edit::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Edit::Insert(at, more) => {
                bytes.splice(at.index(len)..at.index(len), more.iter().copied());
            }
            Edit::Remove(at, count) => {
                bytes.drain(at.index(len)..len.min(at.index(len) + count));
            }
            Edit::Copy(from, to, count) => {
                let part = bytes[from.index(len)..len.min(from.index(len) + count)].to_vec();
                bytes.splice(to.index(len)..to.index(len), part);
            }
            Edit::Cut(at) => bytes.truncate(at.index(len)),
            Edit::Number(at, number) => {
                let at = at.index(len);
                bytes.iter_mut().skip(at).zip(number.to_le_bytes()).for_each(|(byte, new)| *byte = new);
            }
        }
    }
    bytes
}

fn guesses(target: Target) -> impl Strategy<Value = Vec<u8>> {
    let seeds = proptest::sample::select((target.seeds)());
    let edits = proptest::collection::vec(edit(), 1..5);
    prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..BYTES_MAX),
        7 => (seeds, edits).prop_map(|(seed, edits)| edited(seed, &edits)),
    ]
}

/// No byte sequence makes a decoder break its promises.
/// Method: each target in a thread of its own, so that one that fails is named and the others are tried all the same.
#[test]
fn every_decoder_keeps_its_promises_for_any_bytes() {
    let mut broken = Vec::new();
    for target in targets() {
        let run = std::thread::spawn(move || {
            let mut runner =
                TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(CASES) });
            runner.run(&guesses(target), |bytes| {
                (target.body)(&bytes);
                Ok(())
            })
        });
        match run.join() {
            Ok(Ok(())) => {}
            Ok(Err(TestError::Fail(why, bytes))) => broken.push(format!("{}: {why}: {bytes:?}", target.name)),
            Ok(Err(TestError::Abort(why))) => broken.push(format!("{}: {why}", target.name)),
            Err(_) => broken.push(format!("{}: the guess itself ended the thread", target.name)),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_seed_is_taken() {
    for target in targets() {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for (at, seed) in seeds.iter().enumerate() {
            assert!((target.body)(seed), "{}: seed {at}", target.name);
        }
        assert!(!(target.body)(&[]), "{} takes nothing for something", target.name);
    }
}

#[test]
fn names_are_given_once() {
    let names: BTreeSet<&str> = targets().map(|target| target.name).collect();
    assert_eq!(names.len(), targets().count());
}
