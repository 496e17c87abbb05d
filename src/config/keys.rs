//! The settings one by one, and how people write their values.

use super::{Config, Durability};
use crate::shared::CONNECTIONS_PER_ADDRESS_MAX;
use model::StampClock;
use shard::topology::parse_core_list;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;
use storage::journal::OnDamage;

/// One setting: what `ringwatch config` shows, and how its text is taken.
pub struct Key {
    /// As in the TOML file, tables joined by dots.
    pub name: &'static str,
    /// As it would be written.
    pub default: &'static str,
    /// What the number counts, or the words that are taken.
    pub unit: &'static str,
    /// What it is for.
    pub reason: &'static str,
    /// Takes the value's text, or says what would have been expected.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
}

/// Every setting there is.
pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        default: "127.0.0.1:8080",
        unit: "address:port",
        reason: "where HTTP is served; other than loopback asks for insecure = true",
        set: |c, t| {
            c.listen = address(t)?;
            Ok(())
        },
    },
    Key {
        name: "insecure",
        default: "false",
        unit: "true, false",
        reason: "serve beyond loopback without credentials or TLS",
        set: |c, t| flag(t).map(|v| c.insecure = v),
    },
    Key {
        name: "enable_admin",
        default: "false",
        unit: "true, false",
        reason: "take requests that delete series: /api/v1/admin/tsdb/delete_series",
        set: |c, t| flag(t).map(|v| c.enable_admin = v),
    },
    Key {
        name: "data_dir",
        default: "./data",
        unit: "path",
        reason: "journals, segments and the manifest; one server at a time",
        set: |c, t| {
            c.data_dir = PathBuf::from(t);
            if t.is_empty() { Err("a path".into()) } else { Ok(()) }
        },
    },
    Key {
        name: "shards",
        default: "cores",
        unit: "count, or cores",
        reason: "one per allowed core; may change later, data stays",
        set: |c, t| {
            c.shards = if t == "cores" { None } else { Some(count(t, 1, SHARDS_MAX)?) };
            Ok(())
        },
    },
    Key {
        name: "cores",
        default: "allowed",
        unit: "list as 0-3,8, or allowed",
        reason: "which cores the shards are pinned to",
        set: |c, t| {
            c.cores = if t == "allowed" {
                None
            } else {
                Some(parse_core_list(t).map_err(|_| "a list of cores as 0-3,8".to_owned())?)
            };
            Ok(())
        },
    },
    // At 10 a write beside a busy query takes hardly longer than alone (`bench beside`); at 19 the executor does not
    // keep up with a loop that is saturated with batches. Where others use the core, too, either starves it, and writes
    // are refused for that: hence not by default.
    Key {
        name: "executor_nicer_by",
        default: "0",
        unit: "steps of nice, 0 to 19",
        reason: "10 keeps writes as fast beside busy queries; only for cores that nobody else uses",
        set: |c, t| count(t, 0, 19).map(|v| c.executor_nicer_by = v as u8),
    },
    Key {
        name: "memory_bytes_max",
        default: "auto",
        unit: "bytes (KiB, MiB, GiB), or auto",
        reason: "divided at start among memtables, queries and buffers; auto is 75 % of the machine",
        set: |c, t| {
            c.memory_bytes_max = if t == "auto" { None } else { Some(bytes(t, 64 << 20, u64::MAX)?) };
            Ok(())
        },
    },
    Key {
        name: "http.idle_timeout",
        default: "60s",
        unit: "duration",
        reason: "a connection without a request is closed after this",
        set: |c, t| duration(t, 1_000).map(|v| c.http_idle_timeout = v),
    },
    Key {
        name: "http.head_timeout",
        default: "10s",
        unit: "duration",
        reason: "a request's head must be complete by then: 408 otherwise",
        set: |c, t| duration(t, 1_000).map(|v| c.http_head_timeout = v),
    },
    Key {
        name: "http.body_timeout",
        default: "60s",
        unit: "duration",
        reason: "a request's body must be complete by then: 408 otherwise",
        set: |c, t| duration(t, 1_000).map(|v| c.http_body_timeout = v),
    },
    Key {
        name: "http.head_bytes_max",
        default: "16KiB",
        unit: "bytes",
        reason: "a larger head is 431",
        set: |c, t| bytes(t, 256, 1 << 20).map(|v| c.http_head_bytes_max = v as usize),
    },
    Key {
        name: "http.body_bytes_max",
        default: "16MiB",
        unit: "bytes",
        reason: "a larger body is 413; at most a quarter of a journal file",
        set: |c, t| bytes(t, 1 << 10, 256 << 20).map(|v| c.http_body_bytes_max = v as usize),
    },
    Key {
        name: "http.backlog",
        default: "4096",
        unit: "connections",
        reason: "waiting to be accepted; a full backlog costs a client a whole second",
        set: |c, t| count(t, 1, 65_535).map(|v| c.http_backlog = v as u16),
    },
    Key {
        name: "http.connections_max",
        default: "65536",
        unit: "connections per shard",
        reason: "held down to what the descriptor limit admits; further ones are told 503",
        set: |c, t| count(t, 1, 1 << 20).map(|v| c.http_connections_max = v),
    },
    Key {
        name: "http.connections_per_address_max",
        default: "0",
        unit: "connections, 0 is no limit",
        reason: "over all shards, IPv6 by /64; further ones are told 503. Many clients may share a proxy's address",
        set: |c, t| {
            c.http_connections_per_address_max = NonZeroUsize::new(count(t, 0, CONNECTIONS_PER_ADDRESS_MAX)?);
            Ok(())
        },
    },
    Key {
        name: "http.coalesce_us",
        default: "100",
        unit: "microseconds, 0 is off",
        reason: "how long requests that come fast, from many connections, wait for each other: fewer wakes",
        set: |c, t| count(t, 0, 10_000).map(|v| c.http_coalesce = Duration::from_micros(v as u64)),
    },
    Key {
        name: "http.busy_poll_us",
        default: "0",
        unit: "microseconds, 0 is off",
        reason: "how long a loop polls the network card before it sleeps: quicker at light load, for a busy core",
        set: |c, t| count(t, 0, 10_000).map(|v| c.http_busy_poll = Duration::from_micros(v as u64)),
    },
    Key {
        name: "ingest.durability",
        default: "synced",
        unit: "memory, written, synced",
        reason: "how far a sample is before its answer; a request may ask for another level by header",
        set: |c, t| {
            c.ingest_durability =
                Durability::from_name(t).ok_or_else(|| "memory, written or synced".to_owned())?;
            Ok(())
        },
    },
    Key {
        name: "ingest.future_max",
        default: "10m",
        unit: "duration",
        reason: "how far ahead of the server's clock a sample may be",
        set: |c, t| duration(t, 0).map(|v| c.ingest_future_max = v),
    },
    Key {
        name: "ingest.rate_limit_per_client",
        default: "0",
        unit: "requests per second, 0 is off",
        reason: "more of one client (credentials, X-Client-Id, or address) in any second are 429",
        set: |c, t| {
            c.ingest_rate_limit_per_client = NonZeroU32::new(count(t, 0, RATE_LIMIT_MAX)? as u32);
            Ok(())
        },
    },
    Key {
        name: "storage.retention",
        default: "15d",
        unit: "duration, 0 keeps everything",
        reason: "older samples are refused, hidden from queries and removed",
        set: |c, t| duration(t, 0).map(|v| c.storage_retention = v),
    },
    Key {
        name: "storage.retention_bytes",
        default: "0",
        unit: "bytes, 0 is no limit",
        reason: "of all segments together: beyond it those that end first are removed",
        set: |c, t| {
            c.storage_retention_bytes = if t == "0" { None } else { Some(bytes(t, 1 << 20, u64::MAX)?) };
            Ok(())
        },
    },
    Key {
        name: "storage.flush_interval",
        default: "2h",
        unit: "duration",
        reason: "memtables go to a segment at least this often, so that journals can be cut",
        set: |c, t| duration(t, 1_000).map(|v| c.storage_flush_interval = v),
    },
    Key {
        name: "storage.series_stop_after",
        default: "2m",
        unit: "duration",
        reason: "series silent for so long, and three times their own interval, leave memory once they are many",
        set: |c, t| duration(t, 1_000).map(|v| c.storage_series_stop_after = v),
    },
    Key {
        name: "storage.checkpoint_interval",
        default: "5m",
        unit: "duration",
        reason: "memory is written as it is this often, and when much was journaled since, so that a start replays little",
        set: |c, t| duration(t, 1_000).map(|v| c.storage_checkpoint_interval = v),
    },
    Key {
        name: "storage.journal_file_bytes",
        default: "64MiB",
        unit: "bytes",
        reason: "journal files are prepared at this size, each shard's next one while it fills the last",
        set: |c, t| bytes(t, 1 << 20, 1 << 30).map(|v| c.storage_journal_file_bytes = v),
    },
    Key {
        name: "storage.on_damage",
        default: "stop",
        unit: "stop, skip",
        reason: "a damaged journal stops the start; skip goes on with what is intact and reports the rest",
        set: |c, t| {
            c.storage_on_damage = match t {
                "stop" => OnDamage::Stop,
                "skip" => OnDamage::Skip,
                _ => return Err("stop or skip".into()),
            };
            Ok(())
        },
    },
    Key {
        name: "storage.series_max",
        default: "0",
        unit: "series, 0 is no limit",
        reason: "new series beyond it are refused with 429; those in memory go on",
        set: |c, t| count(t, 0, 1 << 40).map(|v| c.storage_series_max = v as u64),
    },
    Key {
        name: "storage.series_per_name_max",
        default: "0",
        unit: "series of one metric name, 0 is no limit",
        reason: "new series of a name that has so many are refused with 429; each shard holds its even share against it",
        set: |c, t| count(t, 0, 1 << 40).map(|v| c.storage_series_per_name_max = v as u64),
    },
    Key {
        name: "query.memory_bytes_max",
        default: "512MiB",
        unit: "bytes",
        reason: "a query that needs more is refused with 422",
        set: |c, t| bytes(t, 1 << 20, 1 << 40).map(|v| c.query_memory_bytes_max = v as usize),
    },
    Key {
        name: "query.timeout",
        default: "2m",
        unit: "duration",
        reason: "a query that takes longer is given up",
        set: |c, t| duration(t, 1).map(|v| c.query_timeout = v),
    },
    Key {
        name: "query.concurrency",
        default: "20",
        unit: "queries per shard",
        reason: "more at once are told to come back: 503",
        set: |c, t| count(t, 1, 1_000).map(|v| c.query_concurrency = v),
    },
    Key {
        name: "alert.stale_after",
        default: "5m",
        unit: "duration",
        reason: "a firing alert without any sample resolves after this",
        set: |c, t| duration(t, 1_000).map(|v| c.alert_stale_after = v),
    },
    Key {
        name: "access_log",
        default: "false",
        unit: "true, false",
        reason: "one line per request on standard output",
        set: |c, t| flag(t).map(|v| c.access_log = v),
    },
    Key {
        name: "stats_interval",
        default: "off",
        unit: "duration, or off",
        reason: "how often the queue's depth, peak and total are printed",
        set: |c, t| {
            c.stats_interval = if t == "off" { None } else { Some(duration(t, 100)?) };
            Ok(())
        },
    },
];

/// Shards at most: every loop needs its share of a millisecond's ticks, and rings grow with the square.
const SHARDS_MAX: usize = 256;
const _: () = assert!(SHARDS_MAX <= StampClock::LOOPS_MAX);

fn address(text: &str) -> Result<SocketAddr, String> {
    let expected = |port: u16, why: String| format!("an address with a port, as 127.0.0.1:{port}{why}");
    text.parse().map_err(|_| {
        if let Ok(port) = text.parse() {
            return expected(port, format!(" (or `ringwatch {port}`)"));
        }
        match text.split_once(':').map(|(name, port)| (name, port.parse())) {
            Some((name, Ok(port))) if name.contains(char::is_alphabetic) => {
                expected(port, " (names are not resolved)".to_owned())
            }
            _ => expected(8080, String::new()),
        }
    })
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false".to_owned())
}

/// Beyond what any machine serves.
const RATE_LIMIT_MAX: usize = 1_000_000_000;

fn count(text: &str, min: usize, max: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (min..=max).contains(n))
        .ok_or_else(|| format!("a whole number from {min} to {max}"))
}

pub(super) fn bytes(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "" | "B" => 1u64,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .filter(|n| scale > 0 && (min..=max).contains(n))
        .ok_or_else(|| match max {
            u64::MAX => format!("bytes, with KiB, MiB or GiB as in 64MiB, at least {min}"),
            _ => format!("bytes, with KiB, MiB or GiB as in 64MiB, from {min} to {max}"),
        })
}

/// `1d12h`, `90s`, `250ms`, or `0`; at least `min_ms`.
pub fn duration(text: &str, min_ms: u64) -> Result<Duration, String> {
    let expected = || {
        let least = if min_ms > 0 { format!(", at least {min_ms} ms") } else { String::new() };
        format!("a duration as 250ms, 30s, 5m, 2h or 15d{least}")
    };
    let mut rest = text;
    let mut millis = 0u64;
    while !rest.is_empty() && rest != "0" {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let scale = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "y" => 31_536_000_000,
            _ => return Err(expected()),
        };
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(expected)?;
        millis = millis.checked_add(part).filter(|ms| *ms < 1 << 53).ok_or_else(expected)?;
        rest = after;
    }
    if text.is_empty() || millis < min_ms { Err(expected()) } else { Ok(Duration::from_millis(millis)) }
}
