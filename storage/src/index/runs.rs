//! How a start fills the index: series come in the order of their ids, and each shares most of its labels with the one
//! before, so a value is looked up where it changes and not for each series.
//!
//! ```text
//!   id        17   18   19   20   21        a piece of the labels that goes on as it was is a run:
//!   name      a    a    a    a    b         [17, 21) are entered under name a when series 21 comes
//!   instance  x    x    y    y    y         [17, 19) under instance x when series 19 comes
//! ```
//!
//! Always: what is there once the last run has ended is what [`Index::insert`] would have made of each series; nobody
//! searches before.

use super::{Index, NAME_LABEL};
use model::LabelPiece;

/// The runs that go on, by the place of their piece in the label set.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// As many as the series at hand has pieces, and behind them some whose memory is kept.
    places: Vec<Run>,
    pieces: usize,
    /// The ids of all of them.
    first: u32,
    end: u32,
}

/// A piece, and the id since which series have it.
#[derive(Debug, Default)]
struct Run {
    label: String,
    value: String,
    first: u32,
}

impl Runs {
    /// The series have ids from this one on.
    pub(crate) fn beginning_at(id: u32) -> Runs {
        Runs { first: id, end: id, ..Runs::default() }
    }
}

impl Index {
    /// The series with the next id has so many pieces, and in these places others than the one before. Says how many
    /// bytes it took to enter what has ended, by estimate.
    pub(crate) fn go_on<'a>(
        &mut self,
        runs: &mut Runs,
        pieces: usize,
        others: impl Iterator<Item = (usize, LabelPiece<'a>)>,
    ) -> usize {
        let mut bytes = 0;
        for place in pieces..runs.pieces {
            bytes += self.enter_run(&runs.places[place], runs.end);
        }
        if runs.places.len() < pieces {
            runs.places.resize_with(pieces, Run::default);
        }
        for (place, piece) in others {
            let run = &mut runs.places[place];
            if place < runs.pieces {
                bytes += self.enter_run(run, runs.end);
            }
            let (label, value) = if place == 0 { (NAME_LABEL, piece.as_name()) } else { piece.as_label() };
            run.label.clear();
            run.label.push_str(label);
            run.value.clear();
            run.value.push_str(value);
            run.first = runs.end;
        }
        runs.pieces = pieces;
        runs.end += 1;
        bytes
    }

    /// No series follows.
    pub(crate) fn end_runs(&mut self, mut runs: Runs) -> usize {
        // Ids are given out from the lowest free one on, and these were free.
        self.all.extend(runs.first..runs.end);
        self.go_on(&mut runs, 0, std::iter::empty())
    }

    fn enter_run(&mut self, run: &Run, end: u32) -> usize {
        self.enter(&run.label, |values, hasher| values.append(hasher, &run.value, run.first..end))
    }
}
