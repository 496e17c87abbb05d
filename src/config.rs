//! Settings: typed, parsed and checked once; nothing later can be invalid.
//!
//! Each key is one row of [`KEYS`]: name, default, unit and reason, and how its text becomes a value.
//! Later sources win: defaults, the TOML file, `RINGWATCH_…` variables, `--set`, then the named options.
//! Always: an unknown key or an impossible value stops the start and says where it stood and what was meant.
//! Read next: `config/keys.rs`, the rows.

mod keys;

pub use keys::Key;

use keys::KEYS;
use model::Timestamp;
use shard::topology::CoreId;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage::journal::OnDamage;

/// How far a sample has to be before its answer goes out (DESIGN D4). Ordered: more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In this process's memory.
    Memory,
    /// Handed to the kernel: survives the process.
    Written,
    /// On the device: survives the power.
    Synced,
}

impl Durability {
    /// All levels, least first.
    pub const ALL: [Durability; 3] = [Durability::Memory, Durability::Written, Durability::Synced];

    /// The word in configuration and in the `Durability` header.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Written => "written",
            Durability::Synced => "synced",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Durability> {
        Durability::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
    }
}

/// Everything the server can be told.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub insecure: bool,
    /// Whether series may be deleted by request.
    pub enable_admin: bool,
    pub data_dir: PathBuf,
    /// As many as there are cores when absent.
    pub shards: Option<usize>,
    pub cores: Option<Vec<CoreId>>,
    /// Three quarters of the machine or control group when absent.
    pub memory_bytes_max: Option<u64>,
    pub http_idle_timeout: Duration,
    pub http_head_timeout: Duration,
    pub http_body_timeout: Duration,
    pub http_head_bytes_max: usize,
    pub http_body_bytes_max: usize,
    pub http_backlog: u16,
    pub http_connections_max: usize,
    /// No address is limited when absent.
    pub http_connections_per_address_max: Option<NonZeroUsize>,
    pub http_coalesce: Duration,
    /// How long a loop polls the network card before it sleeps.
    pub http_busy_poll: Duration,
    pub ingest_durability: Durability,
    pub ingest_future_max: Duration,
    /// No client is limited when absent.
    pub ingest_rate_limit_per_client: Option<NonZeroU32>,
    /// Nothing is ever too old when zero.
    pub storage_retention: Duration,
    /// No limit when absent.
    pub storage_retention_bytes: Option<u64>,
    pub storage_flush_interval: Duration,
    pub storage_series_stop_after: Duration,
    pub storage_checkpoint_interval: Duration,
    pub storage_journal_file_bytes: u64,
    pub storage_on_damage: OnDamage,
    /// No limit when zero.
    pub storage_series_max: u64,
    /// No limit when zero.
    pub storage_series_per_name_max: u64,
    pub query_memory_bytes_max: usize,
    pub query_timeout: Duration,
    pub query_concurrency: usize,
    pub alert_stale_after: Duration,
    pub executor_nicer_by: u8,
    pub access_log: bool,
    /// No line is printed when absent.
    pub stats_interval: Option<Duration>,
}

/// Why the settings cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable { file: PathBuf, cause: String },
    /// The file is not TOML.
    NotToml { file: PathBuf, message: String },
    /// No such key.
    Unknown { origin: Origin, key: String, nearest: Option<&'static str> },
    /// The key cannot have that value.
    Impossible { origin: Origin, key: String, value: String, expected: String },
    /// Two settings that do not go together.
    Conflict(&'static str),
}

/// Where a setting stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file, counted from one.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// The command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::CommandLine => f.write_str("command line"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { file, cause } => {
                write!(f, "cannot read the configuration file {}: {cause}", file.display())
            }
            ConfigError::NotToml { file, message } => write!(f, "{}: {message}", file.display()),
            ConfigError::Unknown { origin, key, nearest } => {
                write!(f, "{origin}: unknown key {key:?}")?;
                nearest.iter().try_for_each(|nearest| write!(f, "; did you mean {nearest:?}?"))?;
                f.write_str(" (`ringwatch config` lists all keys)")
            }
            ConfigError::Impossible { origin, key, value, expected } => {
                write!(f, "{origin}: {key} cannot be {value:?}: expected {expected}")
            }
            ConfigError::Conflict(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Where settings come from besides the defaults.
#[derive(Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables, name and value.
    pub environment: Vec<(String, String)>,
    /// `key=value` pairs of the command line, in order.
    pub sets: Vec<(String, String)>,
}

/// One key, and what was said of it.
pub struct Setting {
    /// Its row.
    pub key: &'static Key,
    /// The last word on it, as it was written, and where; the default holds when absent.
    pub set: Option<(Origin, String)>,
}

impl Config {
    /// What holds when nothing is said.
    pub fn defaults() -> Config {
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            insecure: false,
            enable_admin: false,
            data_dir: PathBuf::new(),
            shards: None,
            cores: None,
            memory_bytes_max: None,
            http_idle_timeout: Duration::ZERO,
            http_head_timeout: Duration::ZERO,
            http_body_timeout: Duration::ZERO,
            http_head_bytes_max: 0,
            http_body_bytes_max: 0,
            http_backlog: 0,
            http_connections_max: 0,
            http_connections_per_address_max: None,
            http_coalesce: Duration::ZERO,
            http_busy_poll: Duration::ZERO,
            ingest_durability: Durability::Synced,
            ingest_future_max: Duration::ZERO,
            ingest_rate_limit_per_client: None,
            storage_retention: Duration::ZERO,
            storage_retention_bytes: None,
            storage_flush_interval: Duration::ZERO,
            storage_series_stop_after: Duration::ZERO,
            storage_checkpoint_interval: Duration::ZERO,
            storage_journal_file_bytes: 0,
            storage_on_damage: OnDamage::Stop,
            storage_series_max: 0,
            storage_series_per_name_max: 0,
            query_memory_bytes_max: 0,
            query_timeout: Duration::ZERO,
            query_concurrency: 0,
            alert_stale_after: Duration::ZERO,
            executor_nicer_by: 0,
            access_log: false,
            stats_interval: None,
        };
        for key in KEYS {
            (key.set)(&mut config, key.default).expect("every key takes its own default");
        }
        config
    }

    /// Defaults, then every source in its order; all checked.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut config = Config::defaults();
        for (origin, key, value) in said(sources)? {
            config.set(origin, &key, &value)?;
        }
        config.check()?;
        Ok(config)
    }

    /// Every key with the last word on it, for whoever wants to see them; refused as by [`load`](Self::load).
    pub fn settings(sources: &Sources) -> Result<Vec<Setting>, ConfigError> {
        Config::load(sources)?;
        let mut settings: Vec<Setting> = KEYS.iter().map(|key| Setting { key, set: None }).collect();
        for (origin, name, value) in said(sources)? {
            if let Some(setting) = settings.iter_mut().find(|setting| setting.key.name == name) {
                setting.set = Some((origin, value));
            }
        }
        Ok(settings)
    }

    fn set(&mut self, origin: Origin, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(ConfigError::Unknown { origin, key: name.into(), nearest: nearest_key(name) });
        };
        (key.set)(self, value.trim()).map_err(|expected| ConfigError::Impossible {
            origin,
            key: name.into(),
            value: value.into(),
            expected,
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && !self.insecure {
            return Err(ConfigError::Conflict(
                "listen names an address beyond loopback, and no credentials can be asked for yet: \
                 add --insecure to serve everybody who can reach it",
            ));
        }
        if self.http_body_bytes_max as u64 > self.storage_journal_file_bytes / 4 {
            return Err(ConfigError::Conflict(
                "http.body_bytes_max must be at most a quarter of storage.journal_file_bytes, \
                 so that any one request fits into a journal file",
            ));
        }
        Ok(())
    }

    /// The oldest millisecond that is kept, if anything ever leaves.
    pub fn oldest_ms(&self, now_ms: i64) -> Option<i64> {
        (!self.storage_retention.is_zero()).then(|| now_ms - self.storage_retention.as_millis() as i64)
    }

    /// The first time that a query may see.
    pub fn oldest(&self, now_ms: i64) -> Timestamp {
        self.oldest_ms(now_ms).map_or(Timestamp::MIN, Timestamp::first_of_milli)
    }
}

/// Everything that the sources say, in their order.
fn said(sources: &Sources) -> Result<Vec<(Origin, String, String)>, ConfigError> {
    let mut said = match &sources.file {
        Some(path) => read_file(path)?,
        None => Vec::new(),
    };
    said.extend(sources.environment.iter().filter_map(|(name, value)| {
        Some((Origin::Environment(name.clone()), key_of_variable(name)?, value.clone()))
    }));
    let sets = sources.sets.iter().cloned();
    said.extend(sets.map(|(key, value)| (Origin::CommandLine, key, value)));
    Ok(said)
}

/// `RINGWATCH_HTTP_IDLE_TIMEOUT` is `http.idle_timeout`. An unknown name is handed on as it is, so that it
/// is refused like an unknown key.
fn key_of_variable(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("RINGWATCH_")?.to_ascii_lowercase();
    let known = KEYS.iter().find(|key| key.name.replace('.', "_") == name);
    Some(known.map_or(name, |key| key.name.to_owned()))
}

fn read_file(path: &Path) -> Result<Vec<(Origin, String, String)>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { file: path.into(), cause: error.to_string() })?;
    let table = toml::de::DeTable::parse(&text)
        .map_err(|error| ConfigError::NotToml { file: path.into(), message: error.to_string() })?;
    let mut settings = Vec::new();
    flatten("", table.get_ref(), &mut |key, value, at| {
        let line = text[..at].matches('\n').count() + 1;
        settings.push((Origin::File(path.into(), line), key, value));
    });
    Ok(settings)
}

fn flatten(prefix: &str, table: &toml::de::DeTable<'_>, found: &mut impl FnMut(String, String, usize)) {
    use toml::de::DeValue;
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        let scalar = |value: &DeValue<'_>| match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            other => format!("{other:?}"),
        };
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&key, inner, found),
            DeValue::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| scalar(item.get_ref())).collect();
                found(key, items.join(","), name.span().start);
            }
            other => found(key, scalar(other), name.span().start),
        }
    }
}

/// The key that was meant, by its whole name or by the part behind its table, whatever table was given;
/// nothing when it is as near to any other word.
fn nearest_key(name: &str) -> Option<&'static str> {
    let behind_table = |name: &'_ str| name.rfind('.').map_or(0, |dot| dot + 1);
    let last = &name[behind_table(name)..];
    let edits = |key: &Key| {
        let whole = edits_between(key.name, name);
        let part = edits_between(&key.name[behind_table(key.name)..], last);
        let near = [(whole, name.len()), (part, last.len())].into_iter();
        // Of two keys that end alike the one whose table is nearer.
        near.filter(|(edits, bytes)| *edits <= bytes / 3).map(|(edits, _)| (edits, whole)).min()
    };
    let near = KEYS.iter().filter_map(|key| Some((edits(key)?, key.name)));
    near.min().map(|(_, name)| name)
}

/// Levenshtein's distance, row by row.
fn edits_between(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::keys::{bytes, duration};
    use super::*;

    fn set(key: &str, value: &str) -> Result<Config, ConfigError> {
        Config::load(&Sources { sets: vec![(key.into(), value.into())], ..Sources::default() })
    }

    #[test]
    fn later_sources_win_over_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringwatch.toml");
        std::fs::write(
            &file,
            "listen = \"127.0.0.1:1\"\ncores = [0, 2]\n[ingest]\ndurability = \"memory\"\n[http]\nbacklog = 9\n",
        )
        .unwrap();
        let config = Config::load(&Sources {
            file: Some(file),
            environment: vec![
                ("RINGWATCH_INGEST_DURABILITY".into(), "written".into()),
                ("PATH".into(), "x".into()),
            ],
            sets: vec![("http.backlog".into(), "7".into())],
        })
        .unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.cores, Some(vec![CoreId(0), CoreId(2)]));
        assert_eq!(config.ingest_durability, Durability::Written);
        assert_eq!(config.http_backlog, 7);
        assert_eq!(config.storage_retention, Duration::from_secs(15 * 86_400));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "# first line\n[storage]\nretentoin = \"3d\"\n").unwrap();
        let error = Config::load(&Sources { file: Some(file.clone()), ..Sources::default() }).unwrap_err();
        assert_eq!(
            error,
            ConfigError::Unknown {
                origin: Origin::File(file.clone(), 3),
                key: "storage.retentoin".into(),
                nearest: Some("storage.retention")
            }
        );
        std::fs::write(&file, "listen = \n").unwrap();
        let error = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap_err();
        assert!(matches!(error, ConfigError::NotToml { .. }), "{error}");
    }

    #[test]
    fn the_nearest_key_is_named_only_when_it_is_near() {
        assert_eq!(nearest_key("durability"), Some("ingest.durability"));
        assert_eq!(nearest_key("duability"), Some("ingest.durability"));
        assert_eq!(nearest_key("foo"), None);
        assert_eq!(nearest_key("storage.data_dir"), Some("data_dir"));
        assert_eq!(nearest_key("storage.durability"), Some("ingest.durability"));
        assert_eq!(nearest_key("query.memory_byte_max"), Some("query.memory_bytes_max"));
        assert_eq!(nearest_key("storage.foo"), None);
        assert_eq!(nearest_key(""), None);
        assert_eq!(nearest_key("storage."), None);
    }

    #[test]
    fn impossible_values_say_what_would_be_possible() {
        for (key, value, expected) in [
            ("shards", "0", "a whole number from 1 to 256"),
            ("http.idle_timeout", "10 s", "a duration as 250ms, 30s, 5m, 2h or 15d, at least 1000 ms"),
            ("ingest.durability", "fast", "memory, written or synced"),
            ("listen", "18181", "an address with a port, as 127.0.0.1:18181 (or `ringwatch 18181`)"),
            ("listen", "localhost:80", "an address with a port, as 127.0.0.1:80 (names are not resolved)"),
            ("listen", "::1", "an address with a port, as 127.0.0.1:8080"),
            ("access_log", "yes", "true or false"),
            ("cores", "a-b", "a list of cores as 0-3,8"),
            ("memory_bytes_max", "64MB", "bytes, with KiB, MiB or GiB as in 64MiB, at least 67108864"),
        ] {
            let ConfigError::Impossible { expected: told, .. } = set(key, value).unwrap_err() else {
                panic!("{key}")
            };
            assert_eq!(told, expected, "{key}");
        }
        assert!(matches!(set("listen", "0.0.0.0:80"), Err(ConfigError::Conflict(_))));
        assert!(matches!(set("http.body_bytes_max", "64MiB"), Err(ConfigError::Conflict(_))));
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(duration("1d12h", 0), Ok(Duration::from_secs(36 * 3_600)));
        assert_eq!(duration("0", 0), Ok(Duration::ZERO));
        assert!(duration("", 0).is_err() && duration("5", 0).is_err() && duration("-5s", 0).is_err());
        assert_eq!(bytes("3GiB", 0, u64::MAX), Ok(3 << 30));
        assert!(bytes("99999999999TiB", 0, u64::MAX).is_err() && bytes("5XB", 0, 9).is_err());
    }
}
