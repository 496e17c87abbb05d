//! `GET /api/v1/status/storage`: what samples take on the disk, and what it costs to keep them so.
//!
//! Always: segments are counted once, by one shard, also where several read them.
//! Not here: bytes by section and codec (`ringwatch storage inspect`).

use query::json::write_text;
use storage::compact::Windows;
use storage::segment::SegmentEntry;

/// A sample as it came: a time and a value.
const RAW_BYTES: u64 = 16;

/// One shard's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageShare {
    /// Samples in its segments.
    pub samples: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Segments with samples of one moment, at most.
    pub overlapping: u64,
    /// Segments and bytes: as flushed first, then by the length of their window.
    pub levels: Vec<(u64, u64)>,
    /// Bytes of the segments that flushes have written since the start.
    pub flushed_bytes: u64,
    /// The same of merges.
    pub merged_bytes: u64,
    /// Bytes of its loop's journal.
    pub wal_bytes: u64,
    /// When its last checkpoint was complete, in seconds since 1970; 0 where there was none since the start.
    pub checkpoint_unix_s: u64,
    /// Samples in memory.
    pub memory_samples: u64,
}

impl StorageShare {
    /// Counts segments of a shard.
    pub fn of<'a>(
        segments: impl Iterator<Item = (&'a SegmentEntry, u64)>,
        windows: &Windows,
    ) -> StorageShare {
        let mut share =
            StorageShare { levels: vec![(0, 0); 1 + windows.lengths_ms().len()], ..Default::default() };
        let mut ends = Vec::new();
        for (entry, samples) in segments {
            share.samples += samples;
            share.bytes += entry.bytes;
            let span = entry.max_ms.saturating_sub(entry.min_ms);
            let fits = |length: &i64| span < *length;
            let longest = windows.lengths_ms().len() - 1;
            let level = match entry.id == entry.newest {
                true => 0,
                false => 1 + windows.lengths_ms().iter().position(fits).unwrap_or(longest),
            };
            share.levels[level].0 += 1;
            share.levels[level].1 += entry.bytes;
            // Both ends are included: of one moment, beginnings come first.
            ends.extend([(entry.min_ms, 0, 1i64), (entry.max_ms, 1, -1)]);
        }
        ends.sort_unstable();
        let mut open = 0;
        for (_, _, change) in ends {
            open += change;
            share.overlapping = share.overlapping.max(open as u64);
        }
        share
    }
}

/// The answer: all shares together.
pub fn render(shares: &[StorageShare], windows: &Windows) -> Vec<u8> {
    let sum = |of: fn(&StorageShare) -> u64| shares.iter().map(of).sum::<u64>();
    let (samples, bytes, wal) = (sum(|s| s.samples), sum(|s| s.bytes), sum(|s| s.wal_bytes));
    let (flushed, merged) = (sum(|s| s.flushed_bytes), sum(|s| s.merged_bytes));
    let ratio = |a: u64, b: u64| match b {
        0 => "null".to_owned(),
        b => format!("{:.4}", a as f64 / b as f64),
    };
    let mut levels = Vec::new();
    for at in 0..=windows.lengths_ms().len() {
        let (mut segments, mut of_level) = (0, 0);
        for (count, bytes) in shares.iter().filter_map(|share| share.levels.get(at)) {
            (segments, of_level) = (segments + count, of_level + bytes);
        }
        let mut name = Vec::new();
        write_text(&level_name(at.checked_sub(1).map(|at| windows.lengths_ms()[at])), &mut name);
        let name = String::from_utf8_lossy(&name).into_owned();
        levels.push(format!(r#"{{"level":{name},"segments":{segments},"bytes":{of_level}}}"#));
    }
    let read = shares.iter().map(|share| share.overlapping).max().unwrap_or(0);
    let memory = sum(|s| s.memory_samples);
    // Of several shards the one that is behind counts.
    let checkpoint = shares.iter().map(|share| share.checkpoint_unix_s).filter(|seconds| *seconds > 0).min();
    let text = format!(
        r#"{{"status":"success","data":{{"samples":{samples},"memorySamples":{memory},"bytes":{bytes},"bytesPerSample":{},"compressionRatio":{},"writeAmplification":{},"readAmplification":{read},"spaceAmplification":{},"segmentsPerLevel":[{}],"walBytes":{wal},"lastCheckpoint":{}}}}}"#,
        ratio(bytes, samples),
        ratio(RAW_BYTES * samples, bytes),
        ratio(flushed + merged, flushed),
        ratio(bytes + wal, bytes),
        levels.join(","),
        checkpoint.map_or_else(|| "null".to_owned(), |seconds| seconds.to_string()),
    );
    text.into_bytes()
}

fn level_name(length_ms: Option<i64>) -> String {
    const HOUR_MS: i64 = 3_600_000;
    match length_ms {
        None => "flushed".to_owned(),
        Some(ms) if ms % (24 * HOUR_MS) == 0 => format!("{}d", ms / (24 * HOUR_MS)),
        Some(ms) if ms % HOUR_MS == 0 => format!("{}h", ms / HOUR_MS),
        Some(ms) => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn entry(id: u64, newest: u64, (min_ms, max_ms): (i64, i64), bytes: u64) -> SegmentEntry {
        SegmentEntry { id, shards: 1, shard: 0, min_ms, max_ms, bytes, newest, deletes_through: 0 }
    }

    #[test]
    fn segments_are_told_by_level_and_by_how_many_a_moment_has() {
        let windows = Windows::new(Some(15 * 24 * HOUR), HOUR);
        let all = [
            entry(9, 9, (10 * HOUR, 12 * HOUR), 100),
            entry(8, 8, (12 * HOUR, 14 * HOUR), 100),
            entry(7, 3, (0, 8 * HOUR - 1), 400),
            entry(6, 2, (-24 * HOUR, -1), 1_000),
        ];
        let share = StorageShare::of(all.iter().map(|entry| (entry, entry.bytes * 2)), &windows);
        assert_eq!((share.samples, share.bytes, share.overlapping), (3_200, 1_600, 2));
        assert_eq!(share.levels, [(2, 200), (1, 400), (1, 1_000)]);
        let both = [
            StorageShare { flushed_bytes: 800, merged_bytes: 1_200, wal_bytes: 400, ..share.clone() },
            share,
        ];
        let text = String::from_utf8(render(&both, &windows)).unwrap();
        assert!(text.contains(r#""bytesPerSample":0.5000,"compressionRatio":32.0000,"writeAmplification":2.5000,"readAmplification":2,"spaceAmplification":1.1250"#), "{text}");
        assert!(text.contains(r#"[{"level":"flushed","segments":4,"bytes":400},{"level":"8h","segments":2,"bytes":800},{"level":"1d","segments":2,"bytes":2000}]"#), "{text}");
        let empty =
            String::from_utf8(render(&[StorageShare::of(std::iter::empty(), &windows)], &windows)).unwrap();
        assert!(empty.contains(r#""bytesPerSample":null"#), "{empty}");
        serde_json::from_str::<serde_json::Value>(&empty).unwrap();
    }
}
