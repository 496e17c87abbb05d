//! The whole storage path under one seed: every sync and every operation of a run is where the power goes.
//!
//! Goal: a reopened directory holds what was answered, at most with what was on its way, batches whole,
//! nothing doubled, nothing changed.
//! Method: `machine.rs` drives journals, stores, flushes and manifest as the server does; `script.rs` takes
//! the same random steps each time; `record.rs` knows what was answered. A run is counted uncut, then run
//! again for each place where it is cut, and each outcome is reopened by `start.rs`, goes on, is cut again
//! and moves to another number of shards, cut once more.

#[path = "simulation/machine.rs"]
mod machine;
#[path = "simulation/record.rs"]
mod record;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/start.rs"]
mod start;

use machine::{Machine, Positions};
use record::{Crash, Fate, Level};
use script::{Random, rest, run};
use std::io;
use storage::disk::{Call, SimDisk, Times};

/// One run to be cut.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    shards: usize,
    steps: usize,
    positions: Positions,
}

impl Plan {
    fn disk(&self) -> SimDisk {
        SimDisk::new(self.seed)
    }

    /// The run, as far as the power lasts; `None` where it goes before the first start has ended.
    fn run(&self, disk: &SimDisk) -> Option<Machine> {
        let mut machine = Machine::start(disk, self.shards, self.positions, None, false).ok()?;
        let mut random = Random::new(self.seed);
        run(&mut machine, &mut random, self.steps);
        Some(machine)
    }
}

/// What a crash leaves.
fn left_by(disk: &SimDisk, crash: Crash) -> SimDisk {
    match crash {
        Crash::Kill => disk.after_kill(),
        Crash::PowerCut(seed) => disk.after_power_cut(seed),
    }
}

/// Starts on what a crash left and holds it against the record.
fn reopen(left: &SimDisk, shards: usize, before: Option<&Machine>, crash: Crash, place: &str) -> Machine {
    let positions = before.map_or(Positions::Frozen, |before| before.positions);
    let Ok(mut machine) = Machine::start(left, shards, positions, before, false) else {
        panic!("{place}: a start without a fault ends");
    };
    if let Err(error) = machine.check(crash) {
        panic!("{place}: {error}");
    }
    machine
}

/// A crashed directory is reopened, goes on, crashes at a random operation, is reopened by another number of
/// shards, which crashes at a random operation too, and is opened once more.
fn live_on(disk: &SimDisk, before: Option<&Machine>, crash: Crash, plan: &Plan, place: &str) {
    let left = left_by(disk, crash);
    let mut random = Random::new(
        disk.operations()
            ^ plan.seed << 20
            ^ match crash {
                Crash::Kill => 77,
                Crash::PowerCut(seed) => seed,
            },
    );
    let mut second = reopen(&left, plan.shards, before, crash, place);
    left.cut_at(left.operations() + random.below(60));
    run(&mut second, &mut random, 60);
    let place = format!("{place}, then at operation {}", left.operations());
    let crash = if random.one_in(3) { Crash::Kill } else { Crash::PowerCut(random.below(1 << 40)) };
    let left = left_by(&left, crash);

    // The record of a start that does not end is that of the crash before it.
    let shards = 1 + random.below(3) as usize;
    left.cut_at(random.below(50));
    let mut started = false;
    if let Ok(mut third) = Machine::start(&left, shards, plan.positions, Some(&second), false) {
        if let Err(error) = third.check(crash) {
            panic!("{place}, {shards} shards: {error}");
        }
        run(&mut third, &mut random, 20);
        second = third;
        started = true;
    }
    let again = if random.one_in(3) { Crash::Kill } else { Crash::PowerCut(random.below(1 << 40)) };
    let place = format!("{place}, then with {shards} shards at {}", left.operations());
    // Where the start between two crashes did not end, what either of them takes is gone.
    let weaker = if !started && matches!(crash, Crash::PowerCut(_)) { crash } else { again };
    let left = left_by(&left, again);
    reopen(&left, 1 + random.below(3) as usize, Some(&second), weaker, &place);
}

/// Cuts a run at every `every`-th operation, in `torn` ways each and by a kill.
fn cut_at_every_operation(plan: Plan, every: usize, torn: u64) -> u64 {
    let whole = plan.disk();
    plan.run(&whole).expect("nothing cuts the first run");
    let mut cuts = 0;
    for n in (plan.seed % every as u64..=whole.operations()).step_by(every) {
        let disk = plan.disk();
        disk.cut_at(n);
        let before = plan.run(&disk);
        let place = format!("seed {} on {} shards, cut at operation {n}", plan.seed, plan.shards);
        for crash in (0..torn).map(Crash::PowerCut).chain([Crash::Kill]) {
            live_on(&disk, before.as_ref(), crash, &plan, &format!("{place}, {crash:?}"));
            cuts += 1;
        }
    }
    cuts
}

/// Cuts a run at every sync.
fn cut_at_every_sync(plan: Plan, torn: u64) -> u64 {
    let whole = plan.disk();
    plan.run(&whole).expect("nothing cuts the first run");
    let mut cuts = 0;
    for n in 0..whole.syncs() {
        let disk = plan.disk();
        disk.cut_at_sync(n);
        let before = plan.run(&disk);
        let place = format!("seed {} on {} shards, cut at sync {n}", plan.seed, plan.shards);
        for crash in (0..torn).map(Crash::PowerCut).chain([Crash::Kill]) {
            live_on(&disk, before.as_ref(), crash, &plan, &format!("{place}, {crash:?}"));
            cuts += 1;
        }
    }
    cuts
}

fn plan(seed: u64, shards: usize, steps: usize) -> Plan {
    Plan { seed, shards, steps, positions: Positions::Frozen }
}

/// The script does what it is there for, and what is no longer needed is gone afterwards.
#[test]
fn a_run_answers_flushes_rotates_and_leaves_nothing_behind() {
    for (seed, shards) in [(1, 1), (2, 2), (3, 3)] {
        let plan = plan(seed, shards, 3_000);
        let disk = plan.disk();
        let mut machine = plan.run(&disk).expect("nothing cuts this run");
        let mut random = Random::new(seed);
        for _ in 0..12 {
            rest(&mut machine, &mut random);
            (0..shards).for_each(|at| machine.flush_step(at));
        }
        while (0..shards).any(|at| machine.is_merging(at)) {
            (0..shards).for_each(|at| machine.merge_step(at));
        }
        while let Some(at) = (0..shards).find(|at| machine.is_checkpointing(*at)) {
            machine.checkpoint_step(at);
            rest(&mut machine, &mut random);
        }
        machine.query();
        let answered =
            |level| machine.record.batches.iter().filter(|batch| batch.fate == Fate::Answered(level)).count();
        assert!(answered(Level::Written) > 50 && answered(Level::Synced) > 100);
        assert!(machine.flushes > 4 && machine.expired > 0, "{} {}", machine.flushes, machine.expired);
        assert!(machine.part_flushes > 1, "{}", machine.part_flushes);
        assert!(machine.merges > 1, "{}", machine.merges);
        assert!(
            machine.checkpoints > 1 && machine.deletes > 1,
            "{} {}",
            machine.checkpoints,
            machine.deletes
        );
        let (journals, orphans) = machine.files_left();
        assert_eq!(orphans, 0);
        assert!(journals <= 4 * shards, "{journals} journal files stay");
        println!(
            "{shards} shards: {} operations, {} syncs, {} batches, {} flushes, {} merges, {} checkpoints",
            disk.operations(),
            disk.syncs(),
            machine.record.batches.len(),
            machine.flushes,
            machine.merges,
            machine.checkpoints
        );
    }
}

#[test]
fn one_shard_cut_at_every_operation_holds_what_was_answered() {
    println!("{} cuts", cut_at_every_operation(plan(11, 1, 250), 1, 8));
}

#[test]
fn two_shards_cut_at_every_operation_hold_what_was_answered() {
    println!("{} cuts", cut_at_every_operation(plan(12, 2, 400), 1, 8));
}

#[test]
fn three_shards_cut_at_every_operation_hold_what_was_answered() {
    println!("{} cuts", cut_at_every_operation(plan(13, 3, 400), 1, 8));
}

#[test]
fn a_run_cut_at_every_sync_holds_what_was_answered() {
    for (seed, shards) in [(21, 1), (22, 2), (23, 3)] {
        println!("{} cuts", cut_at_every_sync(plan(seed, shards, 400), 6));
    }
}

/// Every seventh operation of long runs, whose journals rotate, whose series come and go, whose segments expire.
#[test]
fn long_runs_cut_at_every_seventh_operation_hold_what_was_answered() {
    for seed in 30..54 {
        println!("{} cuts", cut_at_every_operation(plan(seed, 2, 1_000), 7, 1));
    }
}

/// The run after a crash, cut at each of its operations, the start itself included.
#[test]
fn a_recovered_store_cut_at_every_operation_holds_what_was_answered() {
    let plan = plan(41, 2, 300);
    let disk = plan.disk();
    let before = plan.run(&disk).expect("nothing cuts this run");
    let mut cuts = 0;
    for first in [Crash::Kill, Crash::PowerCut(1), Crash::PowerCut(2)] {
        for n in 0..120 {
            let left = left_by(&disk, first);
            left.cut_at(n);
            let second =
                Machine::start(&left, 2, plan.positions, Some(&before), false).ok().map(|mut second| {
                    second.check(first).unwrap_or_else(|error| panic!("{first:?}: {error}"));
                    run(&mut second, &mut Random::new(n), 150);
                    second
                });
            for again in [Crash::Kill, Crash::PowerCut(n), Crash::PowerCut(n + 1_000)] {
                let place = format!("after {first:?}, cut at {n}, {again:?}");
                // Where the second start did not end, what either crash takes is gone.
                let weaker = if second.is_none() && first != Crash::Kill { first } else { again };
                reopen(&left_by(&left, again), 2, second.as_ref().or(Some(&before)), weaker, &place);
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts");
}

/// A move to another number of shards, cut at each of its operations, leaves the old count or the new one.
#[test]
fn a_move_to_other_shards_cut_at_every_operation_loses_nothing() {
    let mut cuts = 0;
    for (from, to) in [(1, 2), (2, 1), (2, 3), (3, 1), (3, 2)] {
        let plan = plan(50 + from as u64, from, 350);
        let disk = plan.disk();
        let before = plan.run(&disk).expect("nothing cuts this run");
        for first in [Crash::Kill, Crash::PowerCut(3)] {
            for n in 0.. {
                let left = left_by(&disk, first);
                left.cut_at(n);
                let moved = Machine::start(&left, to, plan.positions, Some(&before), false).ok();
                let ended = moved.is_some();
                for again in [Crash::Kill, Crash::PowerCut(n), Crash::PowerCut(n + 1_000)] {
                    let weaker = if first != Crash::Kill { first } else { again };
                    for shards in [from, to] {
                        let place = format!("{from} to {to} shards after {first:?}, cut at {n}, {again:?}");
                        reopen(&left_by(&left, again), shards, Some(&before), weaker, &place);
                        cuts += 1;
                    }
                }
                if ended {
                    break;
                }
            }
        }
    }
    println!("{cuts} cuts");
}

/// A directory of two shards opens with one and then with three; each time samples lie in segments, in checkpoints and
/// in journals.
#[test]
fn a_directory_moves_from_two_shards_to_one_to_three_with_data_everywhere() {
    for seed in 70..80 {
        let mut disk = SimDisk::new(seed);
        let mut before: Option<Machine> = None;
        for shards in [2, 1, 3] {
            let place = format!("seed {seed}, {shards} shards");
            let mut machine = reopen(&disk, shards, before.as_ref(), Crash::Kill, &place);
            let mut random = Random::new(seed);
            // Until the last thing that was switched in is a checkpoint, and some samples have come since.
            for _ in 0..200 {
                run(&mut machine, &mut random, 50);
                if machine.has_data_everywhere() {
                    break;
                }
            }
            assert!(machine.has_data_everywhere(), "{place}");
            disk = left_by(&disk, Crash::Kill);
            before = Some(machine);
        }
        reopen(&disk, 3, before.as_ref(), Crash::Kill, &format!("seed {seed}, at the end"));
    }
}

/// Ends a run that met faults, and reopens what is left of it by either crash.
fn end_and_reopen(mut machine: Machine, disk: &SimDisk, plan: Plan, place: &str) {
    disk.mend();
    disk.set_capacity(None);
    machine.flush_at_once(&mut Random::new(plan.seed));
    assert_eq!(machine.abandoned(), 0, "{place}: what a journal has lost is flushed at once");
    for crash in [Crash::Kill, Crash::PowerCut(1), Crash::PowerCut(2)] {
        reopen(&left_by(disk, crash), plan.shards, Some(&machine), crash, &format!("{place}, {crash:?}"));
    }
}

/// Each call of each kind fails once: what was answered stays, what was refused before something else was
/// answered does not come back (but for what was seen before its sync failed and a flush took).
#[test]
fn a_call_that_fails_once_costs_nothing_that_was_answered() {
    let plan = plan(61, 2, 400);
    let whole = plan.disk();
    plan.run(&whole).expect("nothing cuts this run");
    let mut faults = 0;
    for call in [Call::Create, Call::Read, Call::Write, Call::Sync, Call::Rename] {
        for nth in 0..whole.calls(call) {
            let disk = plan.disk();
            disk.fail(call, nth, Times::Once, io::ErrorKind::Other);
            let start = || Machine::start(&disk, plan.shards, plan.positions, None, true);
            let Ok(mut machine) = start().or_else(|_| start()) else { panic!("{call:?} {nth}: mended") };
            run(&mut machine, &mut Random::new(plan.seed), plan.steps);
            end_and_reopen(machine, &disk, plan, &format!("{call:?} {nth} failed"));
            faults += 1;
        }
    }
    println!("{faults} faults");
}

/// The disk fills up somewhere, in a journal file's preparation, a segment or the manifest, and is emptied.
#[test]
fn a_disk_that_fills_up_costs_nothing_that_was_answered() {
    let plan = plan(62, 2, 300);
    for room in (0..60_000).step_by(997) {
        let disk = plan.disk();
        let start = || Machine::start(&disk, plan.shards, plan.positions, None, true);
        let Ok(mut machine) = start() else { panic!("there was room") };
        disk.set_capacity(Some(disk.bytes_used() + room));
        let mut random = Random::new(plan.seed);
        run(&mut machine, &mut random, plan.steps);
        disk.set_capacity(None);
        run(&mut machine, &mut random, 100);
        end_and_reopen(machine, &disk, plan, &format!("room for {room} bytes"));
    }
}

/// Found by the simulation: files one and two were written and not synced, the power cut took the head of
/// the first and left the second. The second was taken for what a truncation had left, and the start refused.
#[test]
fn a_second_file_that_outlives_the_head_of_the_first_is_void() {
    let disk = SimDisk::new(1);
    let Ok(mut before) = Machine::start(&disk, 1, Positions::Frozen, None, false) else { panic!("no fault") };
    let mut random = Random::new(1);
    // Until a third file would be needed, which is not begun before the first is synced. Few writes, so that
    // it is likely that a cut takes the first of them.
    let mut series = 0..;
    while let Some(i) = series.next()
        && before.accept_batch(0, &[(i, None, u64::from(i))], Level::Written)
    {
        if i % 8 == 7 {
            before.commit(0, &mut random);
            before.prepare_file(0);
        }
    }
    for seed in 0..32 {
        let crash = Crash::PowerCut(seed);
        for n in 0.. {
            let left = left_by(&disk, crash);
            left.cut_at(n);
            let ended = Machine::start(&left, 1, Positions::Frozen, Some(&before), false).is_ok();
            for again in [Crash::Kill, Crash::PowerCut(n)] {
                reopen(&left_by(&left, again), 1, Some(&before), crash, &format!("{crash:?} cut at {n}"));
            }
            if ended {
                break;
            }
        }
    }
}

/// Found by the simulation: a flush that names the positions told before the freeze holds more than they say.
/// A value replaced over another loop in between is replayed over the value that replaced it.
/// So the positions to name are those up to which the frozen memtable goes.
#[test]
fn a_flush_names_exactly_what_it_froze() {
    let ends_with = |positions| {
        let disk = SimDisk::new(1);
        let Ok(mut machine) = Machine::start(&disk, 2, positions, None, false) else { panic!("no fault") };
        let mut random = Random::new(1);
        let at = Some(machine.now_ms);
        machine.accept_batch(0, &[(0, at, 0)], Level::Written);
        machine.commit(0, &mut random);
        (0..2).for_each(|executor| machine.drain(executor, usize::MAX));
        (0..2).for_each(|executor| machine.flush_step(executor));
        // Loop 0 tells its position; then a value comes to it, and over loop 1 the one that replaces it.
        machine.commit(0, &mut random);
        machine.sync_comes_back(0);
        machine.commit(0, &mut random);
        for (of, bits) in [(0, 1), (1, 2)] {
            machine.accept_batch(of, &[(0, at, bits)], Level::Written);
            machine.commit(of, &mut random);
        }
        for _ in 0..8 {
            rest(&mut machine, &mut random);
            (0..2).for_each(|executor| machine.flush_step(executor));
        }
        let left = left_by(&disk, Crash::Kill);
        let Ok(mut again) = Machine::start(&left, 2, positions, Some(&machine), false) else {
            panic!("no fault")
        };
        again.check(Crash::Kill)
    };
    assert!(ends_with(Positions::Told).is_err(), "what the older protocol did");
    assert_eq!(ends_with(Positions::Frozen), Ok(()));
}
