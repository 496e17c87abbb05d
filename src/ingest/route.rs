//! Which shard owns a series: label set → hash → slot → owner, and no second way.

use model::SeriesHash;

/// The shard that owns the series of that hash, when there are `shards` of them.
///
/// Rests on the hash alone, so that every loop, every start and every file agrees about it.
///
/// # Panics
/// If `shards` is 0: a server without shards was never configured.
pub fn owner(hash: SeriesHash, shards: usize) -> usize {
    hash.slot().owner(shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{LabelSet, SLOTS};

    /// Going from `n` to `2n` shards moves a series to its old owner or to that plus `n`, nowhere else.
    #[test]
    fn every_series_has_one_owner_and_doubling_the_shards_splits_each_in_two() {
        let mut owned = [0; 6];
        for i in 0..6_000 {
            let labels = LabelSet::new("cpu", &[("host", &i.to_string())]).unwrap();
            let hash = labels.as_ref().hash();
            owned[owner(hash, 6)] += 1;
            assert_eq!(owner(hash, 1), 0);
            assert_eq!(owner(hash, 6) % 3, owner(hash, 3));
            assert_eq!(owner(hash, usize::from(SLOTS)), usize::from(hash.slot().number()));
        }
        assert!(owned.iter().all(|&n| (800..1_200).contains(&n)), "uneven: {owned:?}");
    }
}
