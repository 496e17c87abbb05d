//! Diagnostics: one line per event on standard error, with the time of day.
//!
//! What a running server shows its user (alerts, access log, statistics, the banner) goes to `console.rs` instead.

use std::fmt::Display;
use std::io::Write as _;

/// What a command prints, on standard output, waiting for its reader. A standard output that is gone is no reason to stop serving.
pub fn say(text: std::fmt::Arguments<'_>) {
    let _ = std::io::stdout().lock().write_fmt(text);
}

/// Something an operator has to see to.
pub fn error(text: impl Display) {
    line("ERROR", &text);
}

/// Something an operator should know.
pub fn warning(text: impl Display) {
    line("WARN", &text);
}

/// Something that happened as it should.
pub fn info(text: impl Display) {
    line("INFO", &text);
}

fn line(level: &str, text: &dyn Display) {
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
    // A closed standard error is no reason to stop serving.
    let _ = writeln!(std::io::stderr().lock(), "{now} {level} {text}");
}
