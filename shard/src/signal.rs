//! Signals that end or reconfigure the process, as values for the main thread.
//!
//! Not here: what to do about them. SIGPIPE is ignored by Rust's runtime already.

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator,
};
use std::{collections::VecDeque, io};

/// What the process was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop, finishing what was accepted.
    Terminate,
    /// SIGINT: the same, from a terminal.
    Interrupt,
    /// SIGHUP: the terminal is gone, or an operator wants files reopened.
    Hangup,
}

/// Catches the signals from its creation on; none is lost between two waits, several of a kind may count as one.
#[derive(Debug)]
pub struct Signals {
    caught: iterator::Signals,
    /// Came together with one already returned; a kind is here at most once per wait, so a handful at most.
    pending: VecDeque<Signal>,
}

impl Signals {
    /// Takes the three signals away from their default action, which is to end the process.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { caught: iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?, pending: VecDeque::new() })
    }

    /// Blocks the calling thread until one of them comes.
    pub fn wait(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.pending.pop_front() {
                return signal;
            }
            self.pending.extend(self.caught.wait().filter_map(|signal| match signal {
                SIGTERM => Some(Signal::Terminate),
                SIGINT => Some(Signal::Interrupt),
                SIGHUP => Some(Signal::Hangup),
                _ => None,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;

    /// Method: all three at once, before anybody waits; each is told once.
    #[test]
    fn signals_raised_before_the_wait_are_not_lost() {
        let mut signals = Signals::catch().unwrap();
        for number in [SIGHUP, SIGINT, SIGTERM] {
            raise(number).unwrap();
        }
        let told: Vec<Signal> = (0..3).map(|_| signals.wait()).collect();
        for expected in [Signal::Terminate, Signal::Interrupt, Signal::Hangup] {
            assert_eq!(told.iter().filter(|signal| **signal == expected).count(), 1);
        }
        raise(SIGHUP).unwrap();
        assert_eq!(signals.wait(), Signal::Hangup);
    }
}
