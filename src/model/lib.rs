//! The nouns every other room speaks of, and nothing that acts on them.
//!
//! Owner: nobody; these are plain values that move from room to room.
//! Always: a value of these types is valid; whatever comes from outside is checked where the type is made.
//! Not here: parsing of wire formats (`ingest`), storage layouts (`storage`), clocks (the server passes `now`).
//! Read next: `timestamp.rs` for the finer-than-millisecond time, `labels.rs` for the canonical bytes of a
//! label set, `batch.rs` for what a decoder makes, `share.rs` for what crosses a ring.

mod timestamp;
pub use timestamp::{MILLIS_MAX, StampClock, TICKS_PER_MILLI, Timestamp, TimestampOutOfRange};

mod labels;
pub use labels::{
    LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LabelError, LabelSet, LabelSetBuilder,
    LabelSetRef, METRIC_NAME_BYTES_MAX, SLOTS, SeriesHash, Slot,
};

mod label_piece;
pub use label_piece::LabelPiece;

mod text_key;
pub use text_key::{TextHash, TextKey};

mod kind;
pub use kind::MetricKind;

mod sample;
pub use sample::Sample;

mod batch;
pub use batch::{Batch, BatchRow, BatchRun, RepeatId};

mod share;
pub use share::{SeriesNumber, Share, Stamp};

mod arrival;
pub use arrival::Arrival;

mod matcher;
pub use matcher::{Condition, Matcher, MatcherError, Pattern, parse_matchers};
