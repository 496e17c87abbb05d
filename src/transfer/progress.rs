//! What is told on standard error while samples are on their way.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two lines; on a terminal one line is written over.
const EVERY: Duration = Duration::from_secs(1);

/// Bytes and samples so far.
pub struct Progress {
    verb: &'static str,
    begun_at: Instant,
    told_at: Instant,
    bytes: u64,
    samples: u64,
}

impl Progress {
    /// Nothing so far.
    pub fn begin(verb: &'static str) -> Progress {
        let now = Instant::now();
        Progress { verb, begun_at: now, told_at: now, bytes: 0, samples: 0 }
    }

    /// Notes what was done, and tells now and then.
    pub fn add(&mut self, bytes: u64, samples: u64) {
        self.bytes += bytes;
        self.samples += samples;
        if self.told_at.elapsed() >= EVERY {
            self.told_at = Instant::now();
            let is_terminal = io::stderr().is_terminal();
            self.tell(if is_terminal { "\r" } else { "\n" });
        }
    }

    /// Tells the sum.
    pub fn end(self) {
        self.tell("\n");
    }

    fn tell(&self, end: &str) {
        let seconds = self.begun_at.elapsed().as_secs_f64().max(1e-3);
        let (verb, samples, megabytes) = (self.verb, self.samples, self.bytes as f64 / 1e6);
        let rate = samples as f64 / seconds;
        // Nobody need read it.
        let _ = write!(
            io::stderr(),
            "{verb} {samples} samples, {megabytes:.1} MB in {seconds:.1} s, {rate:.0} samples/s{end}"
        );
    }
}
