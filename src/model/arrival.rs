//! When a series first arrived, as a number that orders all series of a machine.

use crate::{SeriesNumber, Stamp};

/// Orders series by their first arrival: over all loops, all shards and all runs of the server.
///
/// ```text
/// run 24 bits │ nanoseconds of the stamp 64 │ loop 16 │ number in the loop's dictionary 24
/// ```
///
/// The stamp is that of the turn in which a loop defined the series, and the number tells the series of one
/// turn apart. Both stand in the journal, so replay comes to the same arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arrival(u128);

const RUN_MAX: u64 = (1 << 24) - 1;
const NUMBER_MAX: u32 = (1 << 24) - 1;

impl Arrival {
    /// The arrival of the series that a loop gave `number` in the turn of that stamp.
    ///
    /// Runs above 16,777,215 count as that one: series of those runs are ordered by their nanoseconds. Numbers
    /// stay below 2²⁴ by the bound of a dictionary.
    pub fn new(stamp: Stamp, number: SeriesNumber) -> Arrival {
        let run = u128::from(stamp.run.min(RUN_MAX));
        let number = u128::from(number.0.min(NUMBER_MAX));
        Arrival(run << 104 | u128::from(stamp.nanos) << 40 | u128::from(stamp.loop_index) << 24 | number)
    }

    /// As a segment holds it.
    pub const fn from_bits(bits: u128) -> Arrival {
        Arrival(bits)
    }

    /// As a segment holds it.
    pub const fn to_bits(self) -> u128 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_order_by_run_then_moment_then_loop_then_number() {
        let arrival = |run, nanos, loop_index, number| {
            Arrival::new(Stamp { run, nanos, loop_index }, SeriesNumber(number))
        };
        let rising = [
            arrival(0, 0, 0, 0),
            arrival(0, 0, 0, 1),
            arrival(0, 0, 1, 0),
            arrival(0, 1, 0, 0),
            arrival(0, u64::MAX, u16::MAX, NUMBER_MAX),
            arrival(1, 0, 0, 0),
            arrival(RUN_MAX, 0, 0, 0),
            arrival(RUN_MAX + 5, 1, 0, 0),
        ];
        assert!(rising.is_sorted_by(|a, b| a < b), "{rising:?}");
        assert_eq!(Arrival::from_bits(rising[4].to_bits()), rising[4]);
        // No field spills into the next.
        assert_eq!(arrival(0, 7, 0, u32::MAX), arrival(0, 7, 0, NUMBER_MAX));
        assert_eq!(arrival(u64::MAX, 7, 0, 0), arrival(RUN_MAX, 7, 0, 0));
    }
}
