//! One shard's share of an answer, and how it is gathered.

use crate::percentile::ValuesBuilder;
use crate::rows::RowsBuilder;
use crate::{Query, Question, RowsPartial, Selector, ValuesPartial};
use model::{Arrival, LabelSetRef, Sample};

/// What one shard sends to the shard that was asked.
#[derive(Debug)]
pub enum Partial {
    /// To [`Question::Rows`].
    Rows(RowsPartial),
    /// To [`Question::Percentile`].
    Values(ValuesPartial),
}

impl Partial {
    /// Lets go of some of what is held, when it is not to be merged; `false` when nothing is left. Dropped whole, a
    /// large share takes tens of milliseconds.
    pub fn let_go(&mut self) -> bool {
        match self {
            Partial::Rows(rows) => rows.let_go(),
            Partial::Values(values) => values.let_go(),
        }
    }
}

/// Gathers one shard's share: for each selected series its labels, then its samples within the time bounds,
/// no two of one series at one timestamp. They may come in any order; where they rise they cost least.
///
/// The value range and the limit are applied here. How many bytes a share may take is the caller's to say.
#[derive(Debug)]
pub struct PartialBuilder<'a> {
    selector: &'a Selector,
    gathered: Gathered,
}

#[derive(Debug)]
enum Gathered {
    Rows(Box<RowsBuilder>),
    Values(ValuesBuilder),
}

impl Query {
    /// Begins a shard's share.
    pub fn partial(&self) -> PartialBuilder<'_> {
        let gathered = match self.question {
            Question::Rows { limit } => Gathered::Rows(Box::new(RowsBuilder::new(limit))),
            Question::Percentile(_) => Gathered::Values(ValuesBuilder::default()),
        };
        PartialBuilder { selector: &self.selector, gathered }
    }
}

impl PartialBuilder<'_> {
    /// Begins the next series. Rows of one timestamp come out in the order of the series' arrivals, over all
    /// shards.
    pub fn push_series(&mut self, labels: LabelSetRef<'_>, arrival: Arrival) {
        if let Gathered::Rows(rows) = &mut self.gathered {
            rows.push_series(labels, arrival);
        }
    }

    /// Adds a sample of the series that was begun last; what marks its end is none. Of a percentile any NaN is left
    /// out: it has no place among numbers, and beside them would be the largest.
    ///
    /// # Panics
    /// When no series was begun.
    pub fn push(&mut self, sample: Sample) {
        let is_reading = match self.gathered {
            Gathered::Rows(_) => !sample.is_stale_marker(),
            Gathered::Values(_) => !sample.value.is_nan(),
        };
        if !is_reading || !self.selector.keeps(sample.value) {
            return;
        }
        match &mut self.gathered {
            Gathered::Rows(rows) => rows.push(sample),
            Gathered::Values(values) => values.push(sample.value),
        }
    }

    /// Does a step, some 0.2 ms, of the work that has come up; `false` when there is none. Asked for every
    /// few thousand samples it keeps steps short; left out, memory grows and the work is done at once.
    pub fn tidy(&mut self) -> bool {
        match &mut self.gathered {
            Gathered::Rows(rows) => rows.tidy(),
            Gathered::Values(_) => false,
        }
    }

    /// Bytes of memory held, and what merging will take beside them.
    pub fn bytes(&self) -> usize {
        match &self.gathered {
            Gathered::Rows(rows) => rows.bytes(),
            Gathered::Values(values) => values.bytes(),
        }
    }

    /// Lets go of some of what is held, when nothing will come of it; `false` when nothing is left. Nothing is pushed
    /// any more.
    pub fn let_go(&mut self) -> bool {
        match &mut self.gathered {
            Gathered::Rows(rows) => rows.let_go(),
            Gathered::Values(values) => values.let_go(),
        }
    }

    /// The share, ready to be sent.
    pub fn finish(self) -> Partial {
        match self.gathered {
            Gathered::Rows(rows) => Partial::Rows(rows.finish()),
            Gathered::Values(values) => Partial::Values(values.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Endpoint, RowsRenderer};
    use model::{LabelSet, Timestamp};
    use std::borrow::Cow;

    /// Rows of a share in these tests: several steps of blocks.
    const ROWS: usize = 200_000;
    /// What lists take that are empty.
    const EMPTY_BYTES: usize = 1024;

    fn query(endpoint: Endpoint, limit: &'static str) -> Query {
        let parameters = [("name", "cpu"), ("limit", limit)];
        let wanted = parameters.into_iter().filter(|(_, value)| !value.is_empty());
        let wanted = wanted.map(|(name, value)| (Cow::from(name), Cow::from(value)));
        Query::from_parameters(endpoint, wanted).expect("a valid question")
    }

    fn filled(query: &Query, tidy_steps: usize) -> PartialBuilder<'_> {
        let mut builder = query.partial();
        for series in 0..ROWS / 4 {
            let labels = LabelSet::new("cpu", &[("n", &series.to_string())]).expect("valid labels");
            builder.push_series(labels.as_ref(), Arrival::from_bits(series as u128));
            (0..4).for_each(|i| builder.push(Sample { timestamp: Timestamp::from_ticks(i), value: 1.0 }));
        }
        (0..tidy_steps).for_each(|_| assert!(builder.tidy()));
        builder
    }

    /// What Prometheus writes for the end of a series is no reading, and a percentile is of numbers.
    #[test]
    fn stale_markers_are_passed_over_and_nan_has_no_rank() {
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        let labels = LabelSet::new("cpu", &[]).expect("valid labels");
        let answer = |endpoint| {
            let query = query(endpoint, "");
            let mut builder = query.partial();
            builder.push_series(labels.as_ref(), Arrival::from_bits(0));
            for (at, value) in [1.0, stale, f64::NAN, f64::INFINITY, 2.0].into_iter().enumerate() {
                builder.push(Sample { timestamp: Timestamp::from_ticks(at as i64), value });
            }
            let partial = builder.finish();
            let mut out = Vec::new();
            match query.merge(vec![partial]) {
                Answer::Rows(rows) => {
                    let mut renderer = RowsRenderer::new(rows);
                    while renderer.next_piece(&mut out, usize::MAX) {}
                }
                Answer::Percentile(mut search) => {
                    while search.step() {}
                    search.answer().render(&mut out);
                }
            }
            String::from_utf8(out).expect("JSON is text")
        };
        let rows = answer(Endpoint::Query);
        let values: Vec<&str> =
            rows.split("\"value\":").skip(1).filter_map(|row| Some(row.split_once(',')?.0)).collect();
        assert_eq!(values, ["1", "\"NaN\"", "\"+Inf\"", "2"]);
        assert_eq!(answer(Endpoint::Percentile), r#"{"p50":2,"count":3}"#);
    }

    fn steps(mut let_go: impl FnMut() -> bool) -> usize {
        std::iter::from_fn(|| let_go().then_some(())).count()
    }

    /// A share that comes to nothing is let go of in steps, whatever it was about to do, and nothing of it is left.
    #[test]
    fn a_share_is_let_go_of_step_by_step() {
        for (endpoint, limit, tidy_steps) in [
            (Endpoint::Query, "", 0),
            (Endpoint::Query, "100000", 0),
            // In the middle of a cut.
            (Endpoint::Query, "100000", 60),
            (Endpoint::Percentile, "", 0),
        ] {
            let query = query(endpoint, limit);
            let mut builder = filled(&query, tidy_steps);
            assert!(steps(|| builder.let_go()) >= 5, "{endpoint:?} {limit}");
            assert!(builder.bytes() < EMPTY_BYTES, "{} bytes", builder.bytes());
            if tidy_steps == 0 {
                let mut partial = filled(&query, 0).finish();
                assert!(steps(|| partial.let_go()) >= 5);
            }
        }
    }

    /// The same of an answer that breaks off.
    #[test]
    fn an_answer_is_let_go_of_step_by_step() {
        for endpoint in [Endpoint::Query, Endpoint::Percentile] {
            let query = query(endpoint, "");
            let partials = (0..2).map(|_| filled(&query, 0).finish()).collect();
            let let_go = match query.merge(partials) {
                Answer::Rows(rows) => {
                    let mut renderer = RowsRenderer::new(rows);
                    assert!(renderer.next_piece(&mut Vec::new(), 100));
                    steps(|| renderer.let_go())
                }
                Answer::Percentile(mut search) => {
                    assert!(search.step() && search.step());
                    steps(|| search.let_go())
                }
            };
            assert!(let_go >= 10, "{let_go} steps");
        }
    }
}
