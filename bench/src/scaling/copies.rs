//! How many bytes a second memory gives and takes: what all cores share.

use super::Effort;
use serde::Serialize;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// As many threads, a core each.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct OfThreads {
    pub threads: usize,
    /// Read and written together: a copy moves each byte twice.
    pub gigabytes_per_s: f64,
}

pub(super) fn measure(threads: usize, effort: &Effort) -> OfThreads {
    let gigabytes_per_s = (0..effort.timed_rounds).map(|_| round(threads, effort)).fold(0.0, f64::max);
    OfThreads { threads, gigabytes_per_s }
}

fn round(threads: usize, effort: &Effort) -> f64 {
    let bytes = effort.copy_bytes;
    let together = Barrier::new(threads);
    let of_thread = |number: usize| {
        // Unpinned the figures scatter more; they are still right.
        let _ = crate::pin(effort.cores[number % effort.cores.len()]);
        let (source, mut target) = (vec![1_u8; bytes], vec![0_u8; bytes]);
        together.wait();
        let begun_at = Instant::now();
        let mut copies = 0_u32;
        while copies == 0 || begun_at.elapsed() < effort.time {
            black_box(&mut target).copy_from_slice(black_box(&source));
            copies += 1;
        }
        let seconds = begun_at.elapsed().as_secs_f64();
        assert_eq!((target[0], target[bytes - 1]), (1, 1), "it was copied whole");
        2.0 * f64::from(copies) * bytes as f64 / 1e9 / seconds
    };
    let of_thread = &of_thread;
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|number| scope.spawn(move || of_thread(number))).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread that copies does not panic")).sum()
    })
}
