//! What is asked of samples, and how the partial answers of shards merge.
//!
//! Owner: nobody. A [`Query`] goes out to every shard; each shard fills a [`PartialBuilder`] from its store,
//! and the shard that was asked merges the [`Partial`]s into one [`Answer`]. All of it is plain data.
//! Always: the merged answer is what sorting all samples in one place would give; no call does more than a
//! few tenths of a millisecond's work, however many samples there are, and none sorts them all; a partial says
//! how many bytes it holds; a number that is printed reads back to the same bits.
//! Not here: stores and how they are read, clocks, HTTP statuses, bounds on time and memory; the server has these.
//! PromQL is recognised but not answered yet.
//! Read next: `parameters.rs` for what can be asked, `rows.rs` for a shard's share, `merge.rs` for the whole; `export.rs` for samples as
//! files hold them.

mod blocks;

mod selector;
pub use selector::{LabelConditions, Selector};

mod parameters;
pub use parameters::{Endpoint, ParameterError, Query, Question};

mod partial;
pub use partial::{Partial, PartialBuilder};

mod rows;
pub use rows::RowsPartial;

mod percentile;
pub use percentile::{Percentile, PercentileAnswer, PercentileSearch, ValuesPartial};

mod merge;
pub use merge::{Answer, Rows};

pub mod json;

mod render;
pub use render::RowsRenderer;

mod export;
pub use export::{ExportFormat, ExportRenderer, LastOfMilli};
