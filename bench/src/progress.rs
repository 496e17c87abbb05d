//! The line that shows how a load goes: rewritten each second where a person watches, else one line after another.

use std::io::{IsTerminal, Write};

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nowhere.
    Silent,
    /// To the error output, a line each time.
    Lines,
    /// To the terminal, over the line before.
    Rewritten,
}

impl Progress {
    /// Rewritten on a terminal; elsewhere lines if they are wanted.
    pub(crate) fn here(wanted: bool) -> Progress {
        match (std::io::stderr().is_terminal(), wanted) {
            (true, _) => Progress::Rewritten,
            (false, true) => Progress::Lines,
            (false, false) => Progress::Silent,
        }
    }

    /// Shows the line.
    pub(crate) fn say(self, line: &str) {
        match self {
            Progress::Silent => {}
            Progress::Lines => eprintln!("{line}"),
            Progress::Rewritten => rewrite(line),
        }
    }

    /// Leaves an empty line for what comes next.
    pub(crate) fn clear(self) {
        if self == Progress::Rewritten {
            rewrite("");
        }
    }
}

/// Back to the line's begin, delete it, write. A terminal that is gone is no reason to end a run.
fn rewrite(line: &str) {
    let mut terminal = std::io::stderr().lock();
    let _ = write!(terminal, "\r\x1b[K{line}");
    let _ = terminal.flush();
}
