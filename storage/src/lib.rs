//! Journal, memtable, segments, manifest: what keeps an accepted sample.
