//! Standard output, for threads that must not wait: one bounded queue, one thread that writes.
//!
//! ```text
//! loops, executors, statistics ──tell──► queue (bytes bound) ──► writer ──► standard output
//! ```
//!
//! Always: whoever tells something never waits for the reader of standard output. When the reader stalls and the
//! queue is full, lines are dropped and counted, the access log's first; alerts and statistics go before those. Once
//! output flows again the log says how many lines are missing.
//! Not here: what is told once at start and in commands that only print (`log::say`), diagnostics (`log.rs`).

use crate::log;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Bytes that may wait: some ten thousand lines.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Bytes of the access log among them.
const REQUESTS_BYTES_MAX: usize = WAITING_BYTES_MAX / 4 * 3;

/// How long a process that has ended its work waits for somebody to read its last lines.
pub const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// What is told, by who loses first when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Of the access log.
    Requests,
    /// Alerts, statistics, the banner.
    Notices,
}

/// The queue. Clones are doors to the same one.
#[derive(Clone, Default)]
pub struct Console {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    lines_dropped: AtomicU64,
}

#[derive(Default)]
struct Queue {
    notices: VecDeque<String>,
    requests: VecDeque<String>,
    notices_bytes: usize,
    requests_bytes: usize,
    /// Taken by the writer and not known to be written.
    writing: bool,
    /// Nothing will be told any more.
    ended: bool,
}

impl Console {
    /// A console that writes to standard output from a thread of its own.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start() -> io::Result<Console> {
        Console::start_on(io::stdout())
    }

    /// The same, to anything that takes bytes.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start_on(out: impl Write + Send + 'static) -> io::Result<Console> {
        let console = Console::default();
        let writer = console.clone();
        std::thread::Builder::new().name("console".into()).spawn(move || writer.write_all_to(out))?;
        Ok(console)
    }

    /// Lines dropped since the start.
    pub fn lines_dropped(&self) -> u64 {
        self.shared.lines_dropped.load(Ordering::Relaxed)
    }

    /// Queues whole lines, each with its end, or drops them. It waits for nobody but threads that queue, too.
    pub fn tell(&self, lines: Lines, text: &str) {
        let mut queue = self.lock();
        let dropped = match lines {
            Lines::Requests => queue.push_requests(text),
            Lines::Notices => queue.push_notice(text),
        };
        drop(queue);
        self.shared.lines_dropped.fetch_add(dropped, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }

    /// Waits until everything told is written, and no longer than that.
    pub fn finish(&self, patience: Duration) {
        let mut queue = self.lock();
        queue.ended = true;
        self.shared.changed.notify_all();
        let unwritten = |queue: &mut Queue| queue.writing || !queue.is_empty();
        // Whether it flowed in time changes nothing any more.
        let _ = self.shared.changed.wait_timeout_while(queue, patience, unwritten);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().expect("nobody panics while holding it: it only moves strings")
    }

    fn write_all_to(self, mut out: impl Write) {
        let mut lines_told = 0;
        loop {
            let mut queue = self.lock();
            queue.writing = false;
            self.shared.changed.notify_all();
            let text = loop {
                match queue.take() {
                    Some(text) => break text,
                    None if queue.ended => return,
                    None => {
                        queue = self.shared.changed.wait(queue).expect("nobody panics while holding it");
                    }
                }
            };
            queue.writing = true;
            drop(queue);
            // A standard output that is gone is no reason to stop serving.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            let lines_dropped = self.lines_dropped();
            if lines_dropped > lines_told {
                let lines = lines_dropped - lines_told;
                log::warning(format_args!("standard output was not read: {lines} lines are left out"));
                lines_told = lines_dropped;
            }
        }
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.requests.is_empty()
    }

    fn take(&mut self) -> Option<String> {
        if let Some(text) = self.notices.pop_front() {
            self.notices_bytes -= text.len();
            return Some(text);
        }
        let text = self.requests.pop_front()?;
        self.requests_bytes -= text.len();
        Some(text)
    }

    /// Returns the lines dropped.
    fn push_requests(&mut self, text: &str) -> u64 {
        let waiting = self.notices_bytes + self.requests_bytes + text.len();
        if self.requests_bytes + text.len() > REQUESTS_BYTES_MAX || waiting > WAITING_BYTES_MAX {
            return lines_of(text);
        }
        self.requests_bytes += text.len();
        self.requests.push_back(text.to_owned());
        0
    }

    /// Returns the lines dropped: of the access log, the latest first, as long as there are any.
    fn push_notice(&mut self, text: &str) -> u64 {
        let mut dropped = 0;
        while self.notices_bytes + self.requests_bytes + text.len() > WAITING_BYTES_MAX {
            match self.requests.pop_back() {
                Some(requests) => {
                    self.requests_bytes -= requests.len();
                    dropped += lines_of(&requests);
                }
                None => return dropped + lines_of(text),
            }
        }
        self.notices_bytes += text.len();
        self.notices.push_back(text.to_owned());
        dropped
    }
}

fn lines_of(text: &str) -> u64 {
    text.lines().count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A reader that takes a write only when it is told to.
    struct Stalled {
        go: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A test that ends lets everything flow.
            let _ = self.go.recv();
            let _ = self.written.send(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalled() -> (Console, Sender<()>, Receiver<String>) {
        let (let_go, go) = channel();
        let (written, read) = channel();
        (Console::start_on(Stalled { go, written }).unwrap(), let_go, read)
    }

    fn line(number: usize) -> String {
        format!("{number:099}\n")
    }

    /// The bound, in lines; the writer may hold one more.
    const FITTING: usize = REQUESTS_BYTES_MAX / 100;

    #[test]
    fn a_stalled_reader_stops_nobody_and_costs_the_latest_lines() {
        let (console, let_go, read) = stalled();
        for number in 0..3 * FITTING {
            console.tell(Lines::Requests, &line(number));
        }
        let dropped = console.lines_dropped() as usize;
        assert!([2 * FITTING, 2 * FITTING - 1].contains(&dropped), "{dropped}");
        drop(let_go);
        console.finish(PATIENCE);
        let written: Vec<String> = read.try_iter().collect();
        assert_eq!(written, (0..3 * FITTING - dropped).map(line).collect::<Vec<_>>());
    }

    #[test]
    fn an_alert_goes_before_requests_and_takes_their_place() {
        let (console, let_go, read) = stalled();
        for number in 0..FITTING + 1 {
            console.tell(Lines::Requests, &line(number));
        }
        let notices = WAITING_BYTES_MAX / 100;
        for number in 0..notices {
            console.tell(Lines::Notices, &line(number));
        }
        drop(let_go);
        console.finish(PATIENCE);
        let written: Vec<String> = read.try_iter().collect();
        // One line of either kind may have been with the writer by then.
        let first = usize::from(written[1] != line(1));
        assert_eq!(written[first..first + notices - 1], (0..notices - 1).map(line).collect::<Vec<_>>()[..]);
        assert!(written.len() <= notices + 1);
        assert!(console.lines_dropped() as usize >= FITTING - 1);
    }

    #[test]
    fn the_end_waits_for_a_reader_that_never_comes_no_longer_than_it_may() {
        let (console, let_go, read) = stalled();
        console.tell(Lines::Notices, "a\n");
        console.finish(Duration::from_millis(1));
        assert_eq!(read.try_iter().count(), 0);
        drop(let_go);
        assert_eq!(read.recv_timeout(PATIENCE).unwrap(), "a\n");
    }
}
