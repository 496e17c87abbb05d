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

impl Sample {
    /// Equal to the last bit: unlike `==` on the value, NaN equals itself and -0 differs from 0.
    pub fn same_bits(&self, other: &Sample) -> bool {
        self.timestamp == other.timestamp && self.value.to_bits() == other.value.to_bits()
    }
}
