//! What leaves: by age, and by size.

use crate::manifest::SegmentEntry;

/// Ids of the segments whose last sample is before that millisecond, and of the oldest that are beyond `bytes_max` all
/// together: those that end first go first, of whatever shard.
pub fn expired(segments: &[SegmentEntry], before_ms: i64, bytes_max: Option<u64>) -> Vec<u64> {
    let mut by_end: Vec<&SegmentEntry> = segments.iter().collect();
    by_end.sort_unstable_by_key(|entry| (entry.max_ms, entry.id));
    let mut bytes = segments.iter().fold(0u64, |sum, entry| sum.saturating_add(entry.bytes));
    let leaves = |entry: &&&SegmentEntry| {
        let leaves = entry.max_ms < before_ms || bytes_max.is_some_and(|max| bytes > max);
        bytes = bytes.saturating_sub(if leaves { entry.bytes } else { 0 });
        leaves
    };
    by_end.iter().take_while(leaves).map(|entry| entry.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_until_the_rest_fits_and_what_is_too_old_leaves_anyway() {
        let entry = |id, max_ms| SegmentEntry {
            id,
            shards: 2,
            shard: (id % 2) as u16,
            min_ms: 0,
            max_ms,
            bytes: 100,
            newest: id,
            deletes_through: 0,
        };
        let segments = [entry(1, 40), entry(2, 10), entry(3, 30), entry(4, 20)];
        assert_eq!(expired(&segments, i64::MIN, None), Vec::<u64>::new());
        assert_eq!(expired(&segments, 20, None), [2]);
        assert_eq!(expired(&segments, i64::MIN, Some(400)), Vec::<u64>::new());
        assert_eq!(expired(&segments, i64::MIN, Some(250)), [2, 4]);
        assert_eq!(expired(&segments, 31, Some(350)), [2, 4, 3]);
        assert_eq!(expired(&segments, i64::MIN, Some(0)), [2, 4, 3, 1]);
    }
}
