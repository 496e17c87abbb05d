//! From the partials of all shards to one answer.

use crate::rows::{ROWS_PER_STEP, RunMerge};
use crate::{Partial, PercentileSearch, Query, Question, RowsPartial, ValuesPartial};
use model::{LabelSetRef, Sample};

/// What all shards together answer.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Rows`].
    Rows(Rows),
    /// To [`Question::Percentile`].
    Percentile(PercentileSearch),
}

impl Query {
    /// Merges the partials, one per shard, in the order of the shards. The work is done while the answer is
    /// read.
    ///
    /// # Panics
    /// When a partial was built for another question.
    pub fn merge(&self, partials: Vec<Partial>) -> Answer {
        match self.question {
            Question::Rows { limit } => {
                Answer::Rows(Rows::new(partials.into_iter().map(rows_of).collect(), limit))
            }
            Question::Percentile(percentile) => {
                Answer::Percentile(PercentileSearch::new(percentile, partials.into_iter().map(values_of)))
            }
        }
    }
}

fn rows_of(partial: Partial) -> RowsPartial {
    match partial {
        Partial::Rows(rows) => rows,
        Partial::Values(_) => panic!("a partial of values cannot answer a question for rows"),
    }
}

fn values_of(partial: Partial) -> ValuesPartial {
    match partial {
        Partial::Values(values) => values,
        Partial::Rows(_) => panic!("a partial of rows cannot answer a question for a percentile"),
    }
}

/// The rows of all shards in order: by time to the tick, then by the first arrival of their series. Samples
/// that the server stamped have ticks of their own, so these come as they arrived themselves.
///
/// They are merged while they are read; nothing is copied.
#[derive(Debug)]
pub struct Rows {
    partials: Vec<RowsPartial>,
    merge: RunMerge,
    /// The next run to be lined up: of which partial, and which.
    next_run: (usize, usize),
    remaining: usize,
}

impl Rows {
    fn new(partials: Vec<RowsPartial>, limit: Option<usize>) -> Rows {
        let count = partials.iter().map(RowsPartial::len).sum();
        let remaining = limit.map_or(count, |limit| limit.min(count));
        let merge = RunMerge::new(partials.iter().map(RowsPartial::run_count).sum());
        Rows { partials, merge, next_run: (0, 0), remaining }
    }

    /// Lines up some runs; `false` when all are.
    pub(crate) fn line_up(&mut self) -> bool {
        for _ in 0..ROWS_PER_STEP {
            let (index, run) = self.next_run;
            let Some(partial) = self.partials.get(index) else { return false };
            if run < partial.run_count() {
                self.merge.add(index, partial, run);
                self.next_run = (index, run + 1);
            } else {
                self.next_run = (index + 1, 0);
            }
        }
        true
    }

    /// Rows that are still to come.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// The next row, until there is none.
    pub fn next_row(&mut self) -> Option<(LabelSetRef<'_>, Sample)> {
        while self.line_up() {}
        if self.remaining == 0 {
            return None;
        }
        self.remaining -= 1;
        let (partial, at) = self.merge.next(&self.partials)?;
        self.partials[partial].get(at)
    }

    /// Lets go of some of the rows, none of which will be read any more; `false` when nothing is left.
    pub(crate) fn let_go(&mut self) -> bool {
        while let Some(partial) = self.partials.last_mut() {
            if partial.let_go() {
                return true;
            }
            self.partials.pop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelConditions, Selector};
    use model::{Arrival, LabelSet, Timestamp};
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

    fn arrival(bits: usize) -> Arrival {
        Arrival::from_bits(bits as u128)
    }

    /// Samples of one millisecond on three shards: the finer time decides, and where that is equal the arrival
    /// of the series, whichever shard it is on.
    #[test]
    fn within_a_millisecond_the_finer_time_decides_and_then_the_arrival() {
        let query = query(Question::Rows { limit: None });
        let shard = |host: &str, arrived: usize, ticks: &[i64]| {
            let mut partial = query.partial();
            partial.push_series(LabelSet::new("cpu", &[("host", host)]).unwrap().as_ref(), arrival(arrived));
            for &ticks in ticks {
                partial.push(Sample { timestamp: Timestamp::from_ticks(ticks), value: 0.0 });
            }
            partial.finish()
        };
        let merged =
            rows(query.merge(vec![shard("a", 9, &[5, 7]), shard("b", 3, &[4, 7]), shard("c", 1, &[])]));
        let merged: Vec<_> = merged.iter().map(|(host, ticks)| (host.as_str(), *ticks)).collect();
        assert_eq!(merged, [("b", 4), ("a", 5), ("b", 7), ("a", 7)]);
        assert!(rows(query.merge(Vec::new())).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// However series lie on shards, the merged rows are those of one sort over everything, cut at the
        /// limit. Method: each series has distinct times; the naive twin sorts by (time, arrival); arrivals are
        /// spread over the shards.
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
            let arrived_at = |shard: usize, series: usize| arrival((series * 7 + shard * 3) % 31 * 8 + shard);
            let mut expected = Vec::new();
            let mut partials = Vec::new();
            for (shard, all_series) in shards.iter().enumerate() {
                let mut partial = query.partial();
                for (series, times) in all_series.iter().enumerate() {
                    let host = format!("{shard}-{series}");
                    let arrived = arrived_at(shard, series);
                    let labels = LabelSet::new("cpu", &[("host", &host)]).unwrap();
                    partial.push_series(labels.as_ref(), arrived);
                    for &ticks in times {
                        let value = (ticks * 7 % 60) as f64;
                        partial.push(Sample { timestamp: Timestamp::from_ticks(ticks), value });
                        if min_value.is_none_or(|min| value >= min) {
                            expected.push((ticks, arrived, shard, series));
                        }
                    }
                }
                partials.push(partial.finish());
            }
            expected.sort_unstable();
            expected.truncate(limit.unwrap_or(usize::MAX));
            let expected: Vec<_> = expected.into_iter()
                .map(|(ticks, _, shard, series)| (format!("{shard}-{series}"), ticks)).collect();
            prop_assert_eq!(rows(query.merge(partials)), expected);
        }
    }
}
