//! What queries and the start have found damaged: told in the log once, counted by file, and named in the answer's `Warning`.
//!
//! Always: bounded, however much is damaged; the answer goes on without what cannot be read.
//! Not here: what counts as damage (`storage::segment`), the header (`front/reply.rs`).

use crate::log;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use storage::checkpoint::CheckpointError;
use storage::segment::SegmentError;

/// Files counted each for itself; the others count together.
const FILES_MAX: usize = 256;
/// Places that are told in the log.
const TOLD_MAX: usize = 1_024;
/// The name under which files beyond the bound count.
const OTHER_FILES: &str = "other";

/// Of the whole process. Behind a lock, for it is written only where something is damaged.
#[derive(Debug, Default)]
pub struct Damage(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    by_file: BTreeMap<String, u64>,
    told: BTreeSet<String>,
}

impl Damage {
    /// A query has met it: counts it, tells of it the first time, and gives what its answer is to say.
    pub fn note(&self, error: &SegmentError) -> String {
        let text = error.to_string();
        self.count(error.path(), &text, "queries go on without it");
        text
    }

    /// The start has met it in a checkpoint.
    pub fn note_in_checkpoint(&self, error: &CheckpointError) {
        self.count(
            error.path(),
            &error.to_string(),
            "the rest of it is loaded, and what came after it is replayed",
        );
    }

    fn count(&self, file: Option<&str>, text: &str, what_follows: &str) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = file.unwrap_or(OTHER_FILES);
        let has_room = found.by_file.len() < FILES_MAX || found.by_file.contains_key(file);
        let file = if has_room { file } else { OTHER_FILES };
        *found.by_file.entry(file.to_owned()).or_default() += 1;
        if found.told.len() < TOLD_MAX && found.told.insert(text.to_owned()) {
            log::error(format_args!("{text}; {what_follows}"));
        }
    }

    /// How often each file was found damaged.
    pub fn by_file(&self) -> Vec<(String, u64)> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.by_file.iter().map(|(file, count)| (file.clone(), *count)).collect()
    }
}
