//! One shard's share of an answer, and how it is gathered.

use crate::percentile::ValuesBuilder;
use crate::rows::RowsBuilder;
use crate::{Query, Question, RowsPartial, Selector, ValuesPartial};
use model::{LabelSetRef, Sample};
use std::fmt;

/// What one shard sends to the shard that was asked.
#[derive(Debug)]
pub enum Partial {
    /// To [`Question::Rows`].
    Rows(RowsPartial),
    /// To [`Question::Percentile`].
    Values(ValuesPartial),
}

/// The answer would need more memory than a query may have. A narrower range or a `limit` mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Bytes that were needed when the gathering stopped.
    pub bytes: usize,
    /// Bytes that were allowed.
    pub bytes_max: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooLarge { bytes, bytes_max } = self;
        write!(f, "the query needs at least {bytes} bytes of memory on one shard and may take {bytes_max}")
    }
}

impl std::error::Error for TooLarge {}

/// Gathers one shard's share: for each selected series its labels, then its samples within the time bounds,
/// which may come in any order, but no two of one series at one timestamp.
///
/// The value range and the limit are applied here. After an error the builder is only good to be dropped.
#[derive(Debug)]
pub struct PartialBuilder<'a> {
    selector: &'a Selector,
    gathered: Gathered,
}

#[derive(Debug)]
enum Gathered {
    Rows(RowsBuilder),
    Values(ValuesBuilder),
}

impl Query {
    /// Begins a shard's share that may take `bytes_max` bytes.
    pub fn partial(&self, bytes_max: usize) -> PartialBuilder<'_> {
        let gathered = match self.question {
            Question::Rows { limit } => Gathered::Rows(RowsBuilder::new(limit, bytes_max)),
            Question::Percentile(_) => Gathered::Values(ValuesBuilder::new(bytes_max)),
        };
        PartialBuilder { selector: &self.selector, gathered }
    }
}

impl PartialBuilder<'_> {
    /// Begins the next series. Rows of one timestamp come out in the order of this call.
    pub fn push_series(&mut self, labels: LabelSetRef<'_>) -> Result<(), TooLarge> {
        match &mut self.gathered {
            Gathered::Rows(rows) => rows.push_series(labels),
            Gathered::Values(_) => Ok(()),
        }
    }

    /// Adds a sample of the series that was begun last.
    ///
    /// # Panics
    /// When no series was begun.
    pub fn push(&mut self, sample: Sample) -> Result<(), TooLarge> {
        if !self.selector.keeps(sample.value) {
            return Ok(());
        }
        match &mut self.gathered {
            Gathered::Rows(rows) => rows.push(sample),
            Gathered::Values(values) => values.push(sample.value),
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
