//! One reading.

use crate::Timestamp;

/// A timestamp and a value. The value may be any double, NaN payloads included.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was taken.
    pub timestamp: Timestamp,
    /// What was read.
    pub value: f64,
}

/// The bits of the value with which Prometheus says that a series has ended: a NaN that no computation yields.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

impl Sample {
    /// Whether it says that its series has ended, instead of a reading. It is stored like any other sample; who
    /// counts, averages or lists readings passes over it.
    pub fn is_stale_marker(&self) -> bool {
        self.value.to_bits() == STALE_BITS
    }

    /// Equal to the last bit: unlike `==` on the value, NaN equals itself and -0 differs from 0.
    pub fn same_bits(&self, other: &Sample) -> bool {
        self.timestamp == other.timestamp && self.value.to_bits() == other.value.to_bits()
    }
}
