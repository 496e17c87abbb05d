//! A run of random steps, the same for the same seed.

use super::machine::Machine;

/// Xorshift: small, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Any seed will do.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Takes `steps` steps, fewer where the power goes.
pub(crate) fn run(machine: &mut Machine, random: &mut Random, steps: usize) {
    for _ in 0..steps {
        if machine.disk.is_cut() {
            return;
        }
        let at = random.below(machine.shards as u64) as usize;
        match random.below(128) {
            0..40 => machine.accept(at, random),
            40..64 => machine.commit(at, random),
            64..76 => machine.sync_comes_back(at),
            76..84 => machine.prepare_file(at),
            // Mostly there is time for a checkpoint before the next flush.
            98..109 if machine.is_flushing(at) || random.one_in(8) => machine.flush_step(at),
            84..104 => machine.drain(at, 1 + random.below(4) as usize),
            104..116 => machine.checkpoint_step(at),
            116..120 => machine.merge_step(at),
            120 => machine.renew(at),
            121 => machine.forget_idle(at),
            // Rarely: each is a flush, which ends a checkpoint.
            122 if random.one_in(5) => machine.delete(random),
            122..124 => machine.send_stopped(at, random.below(3)),
            124..126 => machine.now_ms += 1 + random.below(400) as i64,
            _ => machine.query(),
        }
    }
}

/// Lets everything that is on its way arrive: answers, and what waits in rings.
pub(crate) fn rest(machine: &mut Machine, random: &mut Random) {
    for _ in 0..6 {
        for at in 0..machine.shards {
            machine.prepare_file(at);
            machine.commit(at, random);
            machine.sync_comes_back(at);
            machine.drain(at, usize::MAX);
        }
    }
}
