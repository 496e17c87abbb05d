//! From the body of a request to a `model::Batch`: one decoder per wire format, and who owns a series.
//!
//! Owner: a loop keeps one decoder of each kind and lends it to one body at a time.
//! Always: a body is understood whole or leaves the batch empty (of one that was understood, members may be left out
//! where the format's senders expect that, and are told); no input panics; memory is kept and reused,
//! so a loop in its stride allocates nothing; what a label may hold is `model`'s to say, never repeated here.
//! Not here: sockets and heads (`http`), status codes and the clock (the server), what a sample meets next
//! (`storage`).
//! Read next: `metrics.rs` for `POST /metrics`, `remote_write.rs` for `POST /api/v1/write`, `line.rs` for `POST /write`,
//! `import.rs` for what an export or an exposition has, `json.rs` for the reader
//! under the first, `sequence.rs` for how a series is known again, `bounds.rs` for the times that are taken,
//! `route.rs` for the owner of a series.

mod metrics;
pub use metrics::{
    CLIENT_ID_BYTES_MAX, ClientIdError, Decoded, Decoding, MetricError, MetricsDecoder, MetricsError,
    REPEATS_MAX, Repeat, Shape, TimestampError, ValueError, take_text,
};

mod line;
pub use line::{LineCause, LineDecoder, LineDecoding, LineError, LineUnit, LinesWritten};

mod import;
pub use import::{ImportCause, ImportDecoder, ImportDecoding, ImportError, ImportForm};

mod remote_write;
pub use remote_write::{
    LeftOut, RemoteWriteDecoder, RemoteWriteError, RemoteWriting, RemoteWritten, SeriesError,
};

mod sequence;

mod json;
pub use json::NESTING_MAX;

mod rfc3339;

mod bounds;
pub use bounds::{TimeBounds, TimeRefusal, TimeUnit};

mod route;
pub use route::owner;
