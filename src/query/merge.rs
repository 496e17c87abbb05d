//! From the partials of all shards to one answer.

use crate::{Partial, Percentile, PercentileAnswer, Query, Question, RowsPartial, ValuesPartial};
use model::{LabelSetRef, Sample, Timestamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// What all shards together answer.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Rows`].
    Rows(Rows),
    /// To [`Question::Percentile`].
    Percentile(PercentileAnswer),
}

impl Query {
    /// Merges the partials, one per shard, in the order of the shards.
    ///
    /// # Panics
    /// When a partial was built for another question.
    pub fn merge(&self, partials: Vec<Partial>) -> Answer {
        match self.question {
            Question::Rows { limit } => {
                Answer::Rows(Rows::new(partials.into_iter().map(rows_of).collect(), limit))
            }
            Question::Percentile(percentile) => Answer::Percentile(merge_values(percentile, partials)),
        }
    }
}

fn rows_of(partial: Partial) -> RowsPartial {
    match partial {
        Partial::Rows(rows) => rows,
        Partial::Values(_) => panic!("a partial of values cannot answer a question for rows"),
    }
}

fn merge_values(percentile: Percentile, partials: Vec<Partial>) -> PercentileAnswer {
    let values = partials.into_iter().map(|partial| match partial {
        Partial::Values(ValuesPartial(values)) => values,
        Partial::Rows(_) => panic!("a partial of rows cannot answer a question for a percentile"),
    });
    PercentileAnswer::of(percentile, values.collect())
}

/// The rows of all shards in order: by time to the tick, then by shard, then as within the shard.
///
/// They are merged while they are read; nothing is copied.
#[derive(Debug)]
pub struct Rows {
    partials: Vec<RowsPartial>,
    /// Per partial the place of its next row.
    next: Vec<usize>,
    /// The time of the next row of each partial that has one.
    heads: BinaryHeap<Reverse<(Timestamp, usize)>>,
    remaining: usize,
}

impl Rows {
    fn new(partials: Vec<RowsPartial>, limit: Option<usize>) -> Rows {
        let heads = partials.iter().enumerate();
        let heads = heads.filter_map(|(shard, rows)| Some(Reverse((rows.timestamp(0)?, shard)))).collect();
        let count = partials.iter().map(RowsPartial::len).sum();
        let remaining = limit.map_or(count, |limit| limit.min(count));
        Rows { next: vec![0; partials.len()], partials, heads, remaining }
    }

    /// Rows that are still to come.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// The next row, until there is none.
    pub fn next_row(&mut self) -> Option<(LabelSetRef<'_>, Sample)> {
        if self.remaining == 0 {
            return None;
        }
        self.remaining -= 1;
        let mut head = self.heads.peek_mut()?;
        let Reverse((_, shard)) = *head;
        let index = self.next[shard];
        self.next[shard] += 1;
        match self.partials[shard].timestamp(index + 1) {
            // Replacing the head in place sifts once, where a pop and a push would sift twice.
            Some(timestamp) => *head = Reverse((timestamp, shard)),
            None => {
                PeekMut::pop(head);
            }
        }
        self.partials[shard].get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelConditions, Selector};
    use model::LabelSet;
    use proptest::prelude::*;

    fn query(question: Question) -> Query {
        let selector = Selector {
            name: "cpu".into(),
            conditions: LabelConditions::default(),
            start_ms: 0,
            end_ms: i64::MAX,
            min_value: None,
            max_value: None,
        };
        Query { selector, question }
    }

    fn rows(answer: Answer) -> Vec<(String, i64)> {
        let Answer::Rows(mut rows) = answer else { panic!("rows were asked for") };
        let mut all = Vec::new();
        while let Some((labels, sample)) = rows.next_row() {
            all.push((labels.get("host").to_owned(), sample.timestamp.ticks()));
        }
        assert_eq!(rows.remaining(), 0);
        all
    }

    /// Samples of one millisecond on two shards: the finer time decides, and where that is equal the shard.
    #[test]
    fn within_a_millisecond_the_finer_time_decides_and_then_the_shard() {
        let query = query(Question::Rows { limit: None });
        let shard = |host: &str, ticks: &[i64]| {
            let mut partial = query.partial(usize::MAX);
            partial.push_series(LabelSet::new("cpu", &[("host", host)]).unwrap().as_ref()).unwrap();
            for &ticks in ticks {
                partial.push(Sample { timestamp: Timestamp::from_ticks(ticks), value: 0.0 }).unwrap();
            }
            partial.finish()
        };
        let merged = rows(query.merge(vec![shard("a", &[5, 7]), shard("b", &[4, 7]), shard("c", &[])]));
        let merged: Vec<_> = merged.iter().map(|(host, ticks)| (host.as_str(), *ticks)).collect();
        assert_eq!(merged, [("b", 4), ("a", 5), ("a", 7), ("b", 7)]);
        assert!(rows(query.merge(Vec::new())).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// However series lie on shards, the merged rows are those of one sort over everything, cut at the
        /// limit. Method: each series has distinct times; the naive twin sorts by (time, shard, series).
        #[test]
        fn merged_rows_are_those_of_one_sort(
            shards in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::hash_set(0i64..60, 0..20), 0..4),
                1..5,
            ),
            limit in proptest::option::of(0usize..80),
            min_value in proptest::option::of(0.0..60.0),
        ) {
            let mut query = query(Question::Rows { limit });
            query.selector.min_value = min_value;
            let mut expected = Vec::new();
            let mut partials = Vec::new();
            for (shard, all_series) in shards.iter().enumerate() {
                let mut partial = query.partial(usize::MAX);
                for (series, times) in all_series.iter().enumerate() {
                    let host = format!("{shard}-{series}");
                    partial.push_series(LabelSet::new("cpu", &[("host", &host)]).unwrap().as_ref()).unwrap();
                    for &ticks in times {
                        let value = (ticks * 7 % 60) as f64;
                        partial.push(Sample { timestamp: Timestamp::from_ticks(ticks), value }).unwrap();
                        if min_value.is_none_or(|min| value >= min) {
                            expected.push((ticks, shard, series));
                        }
                    }
                }
                partials.push(partial.finish());
            }
            expected.sort_unstable();
            expected.truncate(limit.unwrap_or(usize::MAX));
            let expected: Vec<_> = expected.into_iter()
                .map(|(ticks, shard, series)| (format!("{shard}-{series}"), ticks)).collect();
            prop_assert_eq!(rows(query.merge(partials)), expected);
        }
    }
}
