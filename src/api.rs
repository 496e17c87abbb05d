//! The public face: path → route, and the only table from an error to an HTTP status.
//!
//! Always: a refusal carries a JSON body whose `error` is as SPEC §1 words it, `Allow` with a 405, and
//! `Retry-After` with every 429, 503 and 507.
//! Not here: how a request is carried out (`front/exchange.rs`), what a body means (`ingest`, `query`).

use crate::fan_in::QueryError;
use http::{CodingError, ContentCoding, FramingError, Method};
use ingest::{
    ImportError, ImportForm, LeftOut, LineError, LineUnit, MetricsError, RemoteWriteError, TimeRefusal,
};
use query::json::write_text;
use query::{Endpoint, ParameterError};
use std::io;

/// What a path and a method ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Samples, in the form of that door.
    Ingest(Door),
    /// `GET /query`, `GET /percentile`.
    Query(Endpoint),
    /// `GET /export`.
    Export,
    /// `GET /alerts`.
    Alerts,
    /// `POST /api/v1/admin/tsdb/delete_series`.
    DeleteSeries,
    /// `POST /api/v1/admin/tsdb/snapshot`.
    Snapshot,
    /// `POST /api/v1/admin/tsdb/clean_tombstones`.
    CleanTombstones,
    /// `GET /api/v1/status/storage`.
    StorageStatus,
    /// `GET /api/v1/status/tsdb`.
    TsdbStatus,
    /// `GET /metrics`: our own.
    OwnMetrics,
    /// `GET /health`.
    Health,
    /// `GET /ping`, as senders of line protocol ask it.
    Ping,
    /// `GET /-/healthy`.
    Alive,
    /// `GET /-/ready`.
    Ready,
    /// `GET /`.
    Index,
    /// `OPTIONS` of a path, with the methods it allows.
    Options(&'static str),
}

/// In which form samples come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `POST /metrics`: JSON.
    Metrics,
    /// `POST /api/v1/write`: Prometheus remote write.
    RemoteWrite,
    /// `POST /write`, `POST /api/v2/write`: InfluxDB line protocol.
    Lines {
        /// Of which version its refusals look like.
        version: InfluxVersion,
        /// The unit of its times.
        unit: LineUnit,
    },
    /// `POST /import`: what an export gave.
    Import(ImportForm),
    /// `POST /api/v1/import/prometheus`: text exposition.
    Exposition,
}

/// The version of InfluxDB whose path a request of line protocol took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfluxVersion {
    /// `/write`, which takes a measurement as JSON, too.
    One,
    /// `/api/v2/write`.
    Two,
}

impl Door {
    /// How a request that goes through it is refused, so that its senders find what they look for.
    pub fn refusal_shape(self) -> RefusalShape {
        match self {
            Door::Metrics => RefusalShape::Plain,
            Door::Import(_) => RefusalShape::Plain,
            Door::RemoteWrite | Door::Exposition => RefusalShape::Prometheus,
            Door::Lines { version: InfluxVersion::One, .. } => RefusalShape::Plain,
            Door::Lines { version: InfluxVersion::Two, .. } => RefusalShape::Influx2,
        }
    }
}

/// The keys of a refusal's body besides `error` and what explains it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusalShape {
    /// None.
    #[default]
    Plain,
    /// `status` and `errorType`, as under all of `/api/v1`.
    Prometheus,
    /// `code` and `message`, as InfluxDB 2 writes them.
    Influx2,
}

/// How requests of that path are refused, but for those of doors, which know better.
pub fn refusal_shape(path: &str) -> RefusalShape {
    if path.starts_with("/api/v1/") {
        RefusalShape::Prometheus
    } else if path == "/api/v2/write" {
        RefusalShape::Influx2
    } else {
        RefusalShape::Plain
    }
}

/// The same for a request that begins with these bytes and is refused before it is whole, or because it is none.
pub fn refusal_shape_of_begun(bytes: &[u8]) -> RefusalShape {
    /// Longer than any path that has a shape of its own.
    const LINE_BYTES_MAX: usize = 64;
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let path = line.split(|byte| b" ?\r\n".contains(byte)).nth(1).unwrap_or_default();
    std::str::from_utf8(path).map_or(RefusalShape::Plain, refusal_shape)
}

/// Finds the route of a request target, or refuses it.
pub fn route(method: Method, path: &str) -> Result<Route, Refusal> {
    let (allow, get, post) = match path {
        "/metrics" => {
            ("GET, HEAD, POST, OPTIONS", Some(Route::OwnMetrics), Some(Route::Ingest(Door::Metrics)))
        }
        "/api/v1/write" => (WRITE, None, Some(Route::Ingest(Door::RemoteWrite))),
        "/write" => (WRITE, None, lines(InfluxVersion::One)),
        "/api/v2/write" => (WRITE, None, lines(InfluxVersion::Two)),
        "/export" => (READ, Some(Route::Export), None),
        "/import" => (WRITE, None, Some(Route::Ingest(Door::Import(ImportForm::Json)))),
        "/api/v1/import/prometheus" => (WRITE, None, Some(Route::Ingest(Door::Exposition))),
        "/ping" => (READ, Some(Route::Ping), None),
        "/query" => (READ, Some(Route::Query(Endpoint::Query)), None),
        "/percentile" => (READ, Some(Route::Query(Endpoint::Percentile)), None),
        "/alerts" => (READ, Some(Route::Alerts), None),
        "/api/v1/status/tsdb" => (READ, Some(Route::TsdbStatus), None),
        "/api/v1/status/storage" => (READ, Some(Route::StorageStatus), None),
        "/api/v1/admin/tsdb/delete_series"
        | "/api/v1/admin/tsdb/snapshot"
        | "/api/v1/admin/tsdb/clean_tombstones" => {
            return match method {
                Method::Post | Method::Put if path.ends_with("snapshot") => Ok(Route::Snapshot),
                Method::Post | Method::Put if path.ends_with("clean_tombstones") => {
                    Ok(Route::CleanTombstones)
                }
                Method::Post | Method::Put => Ok(Route::DeleteSeries),
                Method::Options => Ok(Route::Options("POST, PUT, OPTIONS")),
                _ => Err(method_not_allowed("POST, PUT, OPTIONS")),
            };
        }
        "/health" => (READ, Some(Route::Health), None),
        "/-/healthy" => (READ, Some(Route::Alive), None),
        "/-/ready" => (READ, Some(Route::Ready), None),
        "/" => (READ, Some(Route::Index), None),
        "*" if method == Method::Options => return Ok(Route::Options("GET, HEAD, POST, OPTIONS")),
        _ => return Err(Refusal::new(404, "route not found")),
    };
    let found = match method {
        Method::Get | Method::Head => get,
        Method::Post => post,
        Method::Options => Some(Route::Options(allow)),
        _ => None,
    };
    found.ok_or_else(|| method_not_allowed(allow))
}

fn method_not_allowed(allow: &'static str) -> Refusal {
    Refusal { allow: Some(allow), ..Refusal::new(405, "method not allowed") }
}

fn lines(version: InfluxVersion) -> Option<Route> {
    Some(Route::Ingest(Door::Lines { version, unit: LineUnit::default() }))
}

const READ: &str = "GET, HEAD, OPTIONS";
const WRITE: &str = "POST, OPTIONS";

/// Whether pages of any origin may see the answer: those of reads, refused ones too, and what a browser asks
/// before a read. A path that also takes writes gives no leave in advance: it would cover them.
pub fn any_origin(method: Method, route: &Result<Route, Refusal>) -> bool {
    match (method, route) {
        (Method::Options, Ok(Route::Options(methods))) => *methods == READ,
        _ => matches!(method, Method::Get | Method::Head),
    }
}

/// A request that is not carried out, as its client hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The first key of the body.
    pub error: String,
    /// What exactly, and what to do about it.
    pub detail: Option<String>,
    /// Which member of a batch.
    pub index: Option<usize>,
    /// Where in the body, in bytes.
    pub offset: Option<usize>,
    /// The methods of a 405.
    pub allow: Option<&'static str>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// Requests a second that the client may make, where it made more.
    pub rate_limit: Option<u32>,
    /// Whether the connection cannot go on.
    pub close: bool,
    /// What its body looks like.
    pub shape: RefusalShape,
}

impl Refusal {
    fn new(status: u16, error: impl Into<String>) -> Refusal {
        Refusal {
            status,
            error: error.into(),
            detail: None,
            index: None,
            offset: None,
            allow: None,
            retry_after: None,
            rate_limit: None,
            close: false,
            shape: RefusalShape::Plain,
        }
    }

    /// The same in Prometheus' shape, for its paths.
    pub fn prometheus(self) -> Refusal {
        Refusal { shape: RefusalShape::Prometheus, ..self }
    }

    /// `--enable-admin` was not said.
    pub fn admin_disabled() -> Refusal {
        Refusal { retry_after: Some(ADMIN_RETRY_S), ..Refusal::new(503, "admin APIs disabled") }.prometheus()
    }

    /// The body as JSON.
    pub fn body(&self) -> Vec<u8> {
        let mut body = b"{".to_vec();
        match self.shape {
            RefusalShape::Plain => {}
            RefusalShape::Prometheus => {
                let kind = match self.status {
                    404 => "not_found",
                    408 => "timeout",
                    422 => "execution",
                    400..=499 => "bad_data",
                    503 => "unavailable",
                    _ => "internal",
                };
                body.extend_from_slice(format!(r#""status":"error","errorType":"{kind}","#).as_bytes());
            }
            RefusalShape::Influx2 => {
                let code = match self.status {
                    405 => "method not allowed",
                    413 => "request too large",
                    429 => "too many requests",
                    400..=499 => "invalid",
                    503 => "unavailable",
                    _ => "internal error",
                };
                body.extend_from_slice(format!(r#""code":"{code}","message":"#).as_bytes());
                write_text(&self.error, &mut body);
                body.push(b',');
            }
        }
        body.extend_from_slice(b"\"error\":");
        write_text(&self.error, &mut body);
        if let Some(detail) = &self.detail {
            body.extend_from_slice(b",\"detail\":");
            write_text(detail, &mut body);
        }
        for (key, number) in [("index", self.index), ("offset", self.offset)] {
            if let Some(number) = number {
                body.extend_from_slice(format!(",\"{key}\":{number}").as_bytes());
            }
        }
        body.push(b'}');
        body
    }

    /// The head of a request did not come in time.
    pub fn head_timeout() -> Refusal {
        Refusal { close: true, ..Refusal::new(408, "request timeout") }
    }

    /// The body of a request did not come in time.
    pub fn body_timeout() -> Refusal {
        Refusal {
            detail: Some("the body was not complete within http.body_timeout".into()),
            ..Refusal::head_timeout()
        }
    }

    /// A `Durability` header with a word that is none of ours.
    pub fn unknown_durability() -> Refusal {
        Refusal {
            detail: Some("expected memory, written or synced".into()),
            ..Refusal::new(400, "invalid header: Durability")
        }
    }

    /// A body in an encoding that is not taken, or in several.
    pub fn content_encoding() -> Refusal {
        Refusal {
            detail: Some(format!("expected one of {}, or none", ContentCoding::NAMES)),
            ..Refusal::new(415, "unsupported content encoding")
        }
    }

    /// A `precision` that is no unit.
    pub fn unknown_precision() -> Refusal {
        Refusal {
            detail: Some("expected n, ns, u, us, ms, s, m or h".into()),
            ..Refusal::new(400, "invalid parameter: precision")
        }
    }

    /// A `format` that is none of ours.
    pub fn unknown_format() -> Refusal {
        Refusal {
            detail: Some("expected json, iso, csv, openmetrics or prometheus".into()),
            ..Refusal::new(400, "invalid parameter: format")
        }
    }

    /// A body in a version of its protocol that is not taken: its sender falls back to the other.
    pub fn remote_write_version() -> Refusal {
        Refusal::new(415, RemoteWriteError::Version2.to_string())
    }

    /// Some samples of a request could not be taken; the others were.
    pub fn left_out(left_out: &LeftOut, samples: usize) -> Refusal {
        let LeftOut { samples: count, index, error } = left_out;
        Refusal {
            index: Some(*index),
            detail: Some(format!("left out {count} of {samples} samples, the others are kept")),
            ..Refusal::new(400, format!("invalid series: {error}"))
        }
    }

    /// So many samples of a remote write were not taken, because a limit refuses their series or because they are no good;
    /// the others were. Not 429: a sender that sends such a body again would send it for ever, and the rest is kept.
    pub fn over_limit(error: IntakeError, count: usize, samples: usize) -> Refusal {
        let Refusal { error, detail, .. } = error.into();
        let limit = detail.map(|detail| format!("; {detail}")).unwrap_or_default();
        Refusal {
            detail: Some(format!("left out {count} of {samples} samples, the others are kept{limit}")),
            ..Refusal::new(400, error)
        }
    }

    /// The client has made `limit` requests within a second; the next one may come after so long.
    pub fn rate_limited(limit: u32, frees_after_nanos: u64) -> Refusal {
        let seconds = u32::try_from(frees_after_nanos.div_ceil(1_000_000_000)).unwrap_or(1).max(1);
        Refusal {
            rate_limit: Some(limit),
            retry_after: Some(seconds),
            ..Refusal::new(429, "Rate limit exceeded")
        }
    }

    /// There are as many connections as one loop takes, or `asked` for is more than the descriptor limit admits.
    pub fn connections_full(admitted: u32, asked: usize) -> Refusal {
        let why =
            if (admitted as usize) < asked { "what the descriptor limit leaves of" } else { "as set by" };
        Refusal {
            detail: Some(format!(
                "{admitted} connections are open on this shard, {why} http.connections_max; close idle ones, or raise it"
            )),
            retry_after: Some(CONNECTION_RETRY_S),
            close: true,
            ..Refusal::new(503, "too many connections")
        }
    }

    /// The client's address has as many connections as one may.
    pub fn address_full(max: usize) -> Refusal {
        Refusal {
            detail: Some(format!(
                "http.connections_per_address_max = {max} (of IPv6, a /64 counts as one address)"
            )),
            retry_after: Some(CONNECTION_RETRY_S),
            close: true,
            ..Refusal::new(503, "too many connections from this address")
        }
    }

    /// The answer comes in pieces, and its client could not tell where it ends.
    pub fn needs_chunks() -> Refusal {
        Refusal {
            detail: Some(
                "ask with HTTP/1.1, or for less: to HTTP/1.0 a broken-off answer would look whole".into(),
            ),
            ..Refusal::new(505, "the answer comes in pieces")
        }
    }

    /// An `X-Client-Id` that is no name.
    pub fn client_id_too_long() -> Refusal {
        Refusal {
            detail: Some("expected 255 bytes at most".into()),
            ..Refusal::new(400, "invalid header: X-Client-Id")
        }
    }
}

/// A setting is not changed while somebody waits.
const ADMIN_RETRY_S: u32 = 3_600;
/// When a client that found no room for its connection may try again: others have to close theirs meanwhile.
const CONNECTION_RETRY_S: u32 = 5;

/// Why a body that could be understood was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeError {
    /// The body itself.
    Body(MetricsError),
    /// The same, of a remote write.
    RemoteWrite(RemoteWriteError),
    /// The same, of line protocol.
    Lines(LineError),
    /// The same, of an import.
    Import(ImportError),
    /// Its compressed form.
    Coding(CodingError),
    /// A member's time.
    Time { index: Option<usize>, refusal: TimeRefusal },
    /// The journals are still being replayed.
    Starting,
    /// The process is on its way out.
    Stopping,
    /// A ring, or the journal until its next file is ready, is full.
    Overloaded,
    /// Memory holds no more of these samples, or of their series; why.
    MemoryFull(String),
    /// A series would be one more than `storage.series_max`.
    SeriesLimit { max: u64 },
    /// A series would be one more of its name than `storage.series_per_name_max`.
    NameLimit { name: String, max: u64 },
    /// It is larger than may ever be taken; what to change.
    TooLarge(String),
    /// The disk, or our quota of it, has no room for another journal file.
    DiskFull,
    /// The disk refused a write or a sync.
    DiskFailed(String),
}

impl IntakeError {
    /// The disk refused the journal: for want of room, or for another reason.
    pub fn of_disk(error: &io::Error) -> IntakeError {
        if storage::disk::is_full(error) {
            IntakeError::DiskFull
        } else {
            IntakeError::DiskFailed(error.to_string())
        }
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Refusal {
        let come_back = |status: u16, error: &str, seconds: u32| Refusal {
            retry_after: Some(seconds),
            ..Refusal::new(status, error)
        };
        match error {
            IntakeError::Body(error) => Refusal {
                detail: error.detail().map(Into::into),
                index: error.index(),
                offset: error.offset(),
                ..Refusal::new(400, error.error_text())
            },
            IntakeError::RemoteWrite(error @ RemoteWriteError::Malformed { offset, .. }) => {
                Refusal { offset: Some(offset), ..Refusal::new(400, error.to_string()) }
            }
            IntakeError::Lines(error) => Refusal::new(400, error.to_string()),
            IntakeError::Import(error) => Refusal::new(400, error.to_string()),
            IntakeError::RemoteWrite(RemoteWriteError::Version2) => Refusal::remote_write_version(),
            IntakeError::Coding(error) => {
                let (status, text) = match error {
                    CodingError::TooLarge { .. } => (413, "body too large"),
                    CodingError::Truncated(_) | CodingError::Corrupt(_) => (400, "invalid compressed body"),
                };
                Refusal { detail: Some(error.to_string()), ..Refusal::new(status, text) }
            }
            IntakeError::Time { index, refusal } => {
                Refusal { index, ..Refusal::new(400, format!("invalid metric: {refusal}")) }
            }
            IntakeError::Starting => come_back(503, "starting: the journal is being replayed", 1),
            IntakeError::Stopping => Refusal { close: true, ..come_back(503, "shutting down", 5) },
            IntakeError::Overloaded => come_back(503, "Server overloaded, try again later", 1),
            IntakeError::MemoryFull(cause) => {
                Refusal { detail: Some(cause), ..come_back(503, "memory is full", 5) }
            }
            IntakeError::SeriesLimit { max } => Refusal {
                detail: Some(format!("storage.series_max = {max}; series that are known go on")),
                ..come_back(429, "series limit reached", 60)
            },
            IntakeError::NameLimit { name, max } => Refusal {
                detail: Some(format!(
                    "storage.series_per_name_max = {max}, and {name} has as many; series that are known go on"
                )),
                ..come_back(429, "series limit reached", 60)
            },
            IntakeError::TooLarge(detail) => {
                Refusal { detail: Some(detail), ..Refusal::new(413, "body too large") }
            }
            IntakeError::DiskFull => Refusal {
                detail: Some(
                    "free space on the disk of the data directory; writing goes on by itself".into(),
                ),
                ..come_back(507, "disk full", 5)
            },
            IntakeError::DiskFailed(cause) => {
                Refusal { detail: Some(cause), ..come_back(503, "the disk refused a write", 5) }
            }
        }
    }
}

impl From<&http::Refusal> for Refusal {
    fn from(refusal: &http::Refusal) -> Refusal {
        use http::Refusal as Http;
        let (status, error) = match refusal {
            Http::HeadTooLarge { .. } | Http::TooManyHeaders => (431, "header too large"),
            Http::Framing(FramingError::BodyTooLarge { .. }) => (413, "body too large"),
            Http::Framing(FramingError::TransferEncodingUnsupported) => {
                (501, "transfer encoding not implemented")
            }
            Http::ExpectationUnsupported => (417, "expectation failed"),
            Http::VersionUnsupported => (505, "HTTP version not supported"),
            _ => (400, "bad request"),
        };
        Refusal { detail: Some(refusal.to_string()), close: true, ..Refusal::new(status, error) }
    }
}

impl From<ParameterError> for Refusal {
    fn from(error: ParameterError) -> Refusal {
        Refusal { detail: error.detail(), ..Refusal::new(400, error.to_string()) }
    }
}

impl From<http::ParameterError> for Refusal {
    fn from(error: http::ParameterError) -> Refusal {
        Refusal {
            detail: Some(error.cause.to_string()),
            ..Refusal::new(400, format!("invalid parameter: {}", error.key))
        }
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Refusal {
        match error {
            QueryError::TooLarge { bytes, bytes_max, setting } => Refusal {
                detail: Some(format!(
                    "the answer needs {bytes} bytes or more, {setting} is {bytes_max}: \
                     narrow the time range, add match= or limit="
                )),
                ..Refusal::new(422, "query needs too much memory")
            },
            QueryError::MemoryInUse { bytes_max } => Refusal {
                detail: Some(format!(
                    "all queries together may hold {bytes_max} bytes, a quarter of memory_bytes_max"
                )),
                retry_after: Some(1),
                ..Refusal::new(503, "query memory in use")
            },
            QueryError::BrokenOff => Refusal {
                detail: Some(
                    "it kept samples in memory that are on disk by now, and new ones needed the room: \
                     ask again, or narrow the time range"
                        .to_owned(),
                ),
                retry_after: Some(1),
                ..Refusal::new(503, "query broken off")
            },
            QueryError::TimedOut { seconds } => Refusal {
                detail: Some(format!("no answer within query.timeout ({seconds} s)")),
                retry_after: Some(1),
                ..Refusal::new(503, "query timed out")
            },
            QueryError::TooMany { concurrency } => Refusal {
                detail: Some(format!("{concurrency} queries (query.concurrency) are running on this shard")),
                retry_after: Some(1),
                ..Refusal::new(503, "too many queries")
            },
            QueryError::Matchers(error) => ParameterError::Matchers(error).into(),
            QueryError::Storage(cause) => Refusal {
                detail: Some(cause),
                retry_after: Some(5),
                ..Refusal::new(503, "the disk could not be read")
            },
            QueryError::NotDone(cause) => {
                Refusal { detail: Some(cause), retry_after: Some(5), ..Refusal::new(503, "it was not done") }
            }
            QueryError::NotDeleted(cause) => Refusal {
                detail: Some(cause),
                retry_after: Some(5),
                ..Refusal::new(503, "it may not be deleted")
            },
            QueryError::Starting => Refusal {
                retry_after: Some(1),
                ..Refusal::new(503, "starting: the journal is being replayed")
            },
        }
    }
}

/// What `GET /` says, for people with curl.
pub const INDEX: &str = "ringwatch\n\n\
    POST /metrics                {\"name\":\"cpu_usage\",\"value\":85}\n\
    POST /api/v1/write           Prometheus remote write\n\
    POST /write, /api/v2/write   InfluxDB line protocol: cpu,host=a usage=0.5\n\
    POST /import                 ?format=json|csv|openmetrics|prometheus, what an export gave\n\
    POST /api/v1/import/prometheus   text exposition\n\
    GET  /export                 ?match[]=cpu{host=\"a\"}&start=0&end=…&format=json|iso|csv|openmetrics\n\
    GET  /query                  ?name=cpu_usage&start=0&end=…&min_value=…&max_value=…&match={host=\"a\"}&limit=…\n\
    GET  /percentile             ?name=cpu_usage&percentile=99\n\
    GET  /alerts                 ?state=firing\n\
    GET  /health                 is it well, how much is queued\n\
    GET  /metrics                its own metrics, for Prometheus\n\
    GET  /-/ready, /-/healthy    for load balancers\n";

#[cfg(test)]
mod tests {
    use super::*;
    use storage::disk::{Call, SimDisk, Times, ready};
    use storage::journal::{self, NextFile};

    #[test]
    fn a_wrong_path_is_404_and_a_wrong_method_405_with_the_right_ones() {
        assert_eq!(route(Method::Get, "/nowhere").unwrap_err().status, 404);
        let refusal = route(Method::Delete, "/metrics").unwrap_err();
        assert_eq!((refusal.status, refusal.allow), (405, Some("GET, HEAD, POST, OPTIONS")));
        assert_eq!(route(Method::Post, "/query").unwrap_err().status, 405);
        assert_eq!(route(Method::Head, "/health"), Ok(Route::Health));
        assert_eq!(route(Method::Options, "/health"), Ok(Route::Options(READ)));
    }

    /// Method: a simulated disk refuses a journal file for each reason.
    #[test]
    fn a_disk_without_room_is_507_by_size_or_quota_and_a_failing_one_503() {
        let next = || NextFile { sequence: 1, bytes: 1 << 20 };
        let status = |disk: &SimDisk| {
            let error = ready(journal::prepare(disk, 0, next())).unwrap_err();
            Refusal::from(IntakeError::of_disk(&error)).status
        };
        let small = SimDisk::new(1);
        small.set_capacity(Some(1_000));
        assert_eq!(status(&small), 507);
        for (kind, expected) in [
            (io::ErrorKind::StorageFull, 507),
            (io::ErrorKind::QuotaExceeded, 507),
            (io::ErrorKind::PermissionDenied, 503),
            (io::ErrorKind::Other, 503),
        ] {
            let disk = SimDisk::new(1);
            disk.fail(Call::Write, 0, Times::Once, kind);
            assert_eq!(status(&disk), expected, "{kind}");
        }
        let quota = io::Error::from_raw_os_error(122);
        assert!(storage::disk::is_full(&quota), "EDQUOT is {:?}", quota.kind());
    }

    #[test]
    fn reads_are_for_any_origin_and_writes_are_not() {
        for (method, path, expected) in [
            (Method::Get, "/query", true),
            (Method::Head, "/metrics", true),
            (Method::Get, "/nowhere", true),
            (Method::Options, "/query", true),
            (Method::Options, "/metrics", false),
            (Method::Options, "*", false),
            (Method::Post, "/metrics", false),
            (Method::Post, "/query", false),
            (Method::Delete, "/query", false),
        ] {
            assert_eq!(any_origin(method, &route(method, path)), expected, "{method:?} {path}");
        }
    }

    #[test]
    fn a_request_that_is_not_whole_is_refused_as_its_path_is() {
        for (bytes, expected) in [
            ("POST /api/v1/write HTTP/1.1\r\nContent-", RefusalShape::Prometheus),
            ("GET /api/v1/status/tsdb?limit=3 HT", RefusalShape::Prometheus),
            ("POST /api/v2/write?bucket=a HTTP/1.1\r\n", RefusalShape::Influx2),
            ("POST /metrics HTTP/1.1\r\n\r\n/api/v1/ /api/v1/", RefusalShape::Plain),
            ("GET\r\n", RefusalShape::Plain),
            ("\u{1f600}", RefusalShape::Plain),
            ("", RefusalShape::Plain),
        ] {
            assert_eq!(refusal_shape_of_begun(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn further_keys_follow_error() {
        let refusal = Refusal { detail: Some("a \"b\"".into()), index: Some(2), ..Refusal::new(400, "x") };
        assert_eq!(refusal.body(), br#"{"error":"x","detail":"a \"b\"","index":2}"#);
        let refusal = Refusal { shape: RefusalShape::Prometheus, ..Refusal::new(503, "x") };
        assert_eq!(refusal.body(), br#"{"status":"error","errorType":"unavailable","error":"x"}"#);
        let refusal = Refusal { shape: RefusalShape::Influx2, ..Refusal::new(400, "x") };
        assert_eq!(refusal.body(), br#"{"code":"invalid","message":"x","error":"x"}"#);
    }
}
