//! Clocks: the one that all threads share, the wall's, and what a thread has burnt.
#![allow(unsafe_code)] // clock_gettime

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds of CLOCK_MONOTONIC: never falls, comparable between threads, meaningless after a reboot.
pub fn monotonic_nanos() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of processor time that the calling thread has used.
pub fn thread_cpu_nanos() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Milliseconds since 1970 by the wall clock, negative before; it may jump either way.
pub fn unix_millis() -> i64 {
    unix_micros().div_euclid(1_000)
}

/// Microseconds since 1970 by the wall clock, negative before; it may jump either way.
pub fn unix_micros() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec through a pointer to one.
    let failed = unsafe { libc::clock_gettime(clock, &mut time) };
    // Both clocks exist on every kernel that has io_uring, and neither is negative.
    assert!(failed == 0, "a clock that every Linux has did not answer");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_falls() {
        let readings: Vec<u64> = (0..1_000).map(|_| monotonic_nanos()).collect();
        assert!(readings.is_sorted());
    }

    #[test]
    fn work_costs_the_thread_processor_time() {
        let before = thread_cpu_nanos();
        // Reading clocks is work; the loop ends because the work is counted.
        while thread_cpu_nanos() < before + 100_000 {}
    }

    #[test]
    fn the_wall_clock_is_later_than_this_code() {
        assert!(unix_millis() > 1_790_000_000_000);
    }
}
