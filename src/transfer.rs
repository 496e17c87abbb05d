//! `ringwatch export` and `ringwatch import`: samples of a running server to a file, and back; snapshots, and back.
//!
//! Always: at most a body of bytes is in memory; progress goes to standard error, so that standard output can be a
//! pipe; a copy that is not whole ends with an error.
//! Not here: the forms (`query::ExportRenderer`, `ingest::ImportDecoder`), which the server writes and reads.
//! Read next: `transfer/http.rs` for the conversation, `transfer/bodies.rs` for how a file becomes bodies.

mod bodies;
mod http;
mod progress;
mod snapshot;

pub use snapshot::{backup, restore};

use bodies::{Bodies, Frame};
use clap::Args;
use http::{Answer, Server};
use ingest::{ImportDecoder, ImportForm, TimeBounds};
use model::Batch;
use progress::Progress;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How often a body is sent that the server has no room for, before the import ends.
const TRIES_MAX: u32 = 20;
/// The longest wait between two of them, whatever the server says.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the server could not read.
const DAMAGED: &str = "what is damaged on the server's disk is missing";

#[derive(Args)]
pub struct ExportArguments {
    /// Which series, as cpu{host="a"}; any number of times, all series without it
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// The first millisecond
    #[arg(long)]
    start: Option<i64>,
    /// The last millisecond
    #[arg(long)]
    end: Option<i64>,
    /// How samples are written: json, iso, csv or openmetrics
    #[arg(long, default_value = "json")]
    format: String,
    /// The file to write; standard output without it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The server
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: String,
}

#[derive(Args)]
pub struct ImportArguments {
    /// How samples are written: json, csv, openmetrics or prometheus; by the file's name without it
    #[arg(long)]
    format: Option<String>,
    /// Bytes of one request
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20, value_parser = clap::value_parser!(u64).range(4096..=16 << 20))]
    body_bytes: u64,
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The file to read; standard input without it, or for -
    file: Option<PathBuf>,
}

/// Writes what a server exports.
pub fn export(arguments: &ExportArguments) -> Outcome<()> {
    let mut parameters = vec![("format", arguments.format.clone())];
    parameters.extend(arguments.selectors.iter().map(|selector| ("match[]", selector.clone())));
    let times = [("start", arguments.start), ("end", arguments.end)];
    parameters.extend(times.into_iter().filter_map(|(key, millis)| Some((key, millis?.to_string()))));
    let mut server = Server::connect(&arguments.url)?;
    let mut answer = server.get(&http::target("/export", &parameters))?;
    let Some(path) = &arguments.output else {
        copy(&mut answer, &mut io::stdout().lock())?;
        return if answer.warned() { Err(DAMAGED.into()) } else { Ok(()) };
    };
    // A file of that name is whole or the one that was there before.
    let unfinished = with_suffix(path, ".unfinished");
    let named = |error: io::Error| format!("{}: {error}", unfinished.display());
    let mut file = BufWriter::new(File::create(&unfinished).map_err(named)?);
    copy(&mut answer, &mut file)?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(named)?;
    if answer.warned() {
        return Err(format!("{}: {DAMAGED}", unfinished.display()).into());
    }
    std::fs::rename(&unfinished, path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn copy(answer: &mut Answer<'_>, out: &mut impl Write) -> Outcome<()> {
    let mut progress = Progress::begin("exported");
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = answer.read(&mut piece)?;
        if read == 0 {
            break;
        }
        out.write_all(&piece[..read])?;
        let lines = piece[..read].iter().filter(|byte| **byte == b'\n').count();
        progress.add(read as u64, lines as u64);
    }
    out.flush()?;
    progress.end();
    Ok(())
}

/// Sends a file to a server, body after body.
pub fn import(arguments: &ImportArguments) -> Outcome<()> {
    let path = arguments.file.as_deref().filter(|path| path.as_os_str() != "-");
    let format = match (&arguments.format, path) {
        (Some(format), _) => format.as_str(),
        (None, path) => format_of(path)?,
    };
    let reader: Box<dyn BufRead> = match path {
        None => Box::new(BufReader::new(io::stdin().lock())),
        Some(path) => {
            let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Box::new(BufReader::new(file))
        }
    };
    let form = ImportForm::from_name(format)
        .ok_or_else(|| format!("no format {format}: expected json, csv, openmetrics or prometheus"))?;
    let frame = match form {
        ImportForm::Json => Frame::Lines,
        ImportForm::Csv => Frame::Header,
        ImportForm::OpenMetrics => Frame::TypesToEof,
        ImportForm::Exposition => Frame::Types,
    };
    let mut bodies = Bodies::new(reader, frame, arguments.body_bytes as usize);
    let target = http::target("/import", &[("format", format.to_owned())]);
    let mut server = Server::connect(&arguments.url)?;
    let mut progress = Progress::begin("imported");
    while let Some(body) = bodies.next()? {
        let samples = send(&mut server, &target, (form, body.bytes))
            .map_err(|error| format!("lines {} and on were not taken: {error}", body.first_line))?;
        progress.add(body.bytes.len() as u64, samples);
    }
    progress.end();
    Ok(())
}

fn format_of(path: Option<&Path>) -> Result<&'static str, String> {
    let extension = path.and_then(Path::extension).and_then(|extension| extension.to_str());
    match extension {
        None | Some("json" | "jsonl" | "ndjson") => Ok("json"),
        Some("csv") => Ok("csv"),
        Some("om" | "openmetrics") => Ok("openmetrics"),
        Some("prom") => Ok("prometheus"),
        Some(other) => {
            Err(format!(".{other} names no format: say --format json, csv, openmetrics or prometheus"))
        }
    }
}

/// Whether the server would give some line its own clock. A body that it refuses is kept nowhere.
fn has_untimed(form: ImportForm, body: &[u8]) -> bool {
    let (mut batch, bounds) = (Batch::default(), TimeBounds { oldest: None, newest: i64::MAX });
    let decoded = ImportDecoder::new().decode(body, (form, &bounds), &mut batch);
    decoded.is_ok() && batch.rows().any(|row| row.timestamp.is_none())
}

/// Sends a body, again where the server says that it may be sent again; the samples that it took.
fn send(server: &mut Server, target: &str, (form, body): (ImportForm, &[u8])) -> Outcome<u64> {
    let begun_at = Instant::now();
    for tried in 1.. {
        let wait = match server.post(target, body) {
            Ok(reply) if reply.status == 202 => return Ok(reply.count()),
            Ok(reply) if matches!(reply.status, 429 | 503 | 507) && tried < TRIES_MAX => {
                reply.retry_after.unwrap_or(Duration::from_secs(1))
            }
            Ok(reply) => return Err(format!("{} {}", reply.status, reply.body).into()),
            // The server may be starting anew. Samples with times may be sent twice, others would be stored twice.
            Err(error) if has_untimed(form, body) => {
                let why = "perhaps they were: lines without a time are not sent again";
                return Err(format!("{error}; {why}").into());
            }
            Err(error) if tried < TRIES_MAX => {
                let _ = writeln!(io::stderr(), "{error}; trying again");
                Duration::from_secs(1)
            }
            Err(error) => return Err(error),
        };
        std::thread::sleep(wait.min(WAIT_MAX));
    }
    Err(format!("given up after {} s", begun_at.elapsed().as_secs()).into())
}
