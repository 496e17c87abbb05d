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

    /// Adds a sample of the series that was begun last.
    ///
    /// # Panics
    /// When no series was begun.
    pub fn push(&mut self, sample: Sample) {
        if !self.selector.keeps(sample.value) {
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

    /// The share, ready to be sent.
    pub fn finish(self) -> Partial {
        match self.gathered {
            Gathered::Rows(rows) => Partial::Rows(rows.finish()),
            Gathered::Values(values) => Partial::Values(values.finish()),
        }
    }
}
