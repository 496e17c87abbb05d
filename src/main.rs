//! ringwatch: a monitoring platform that one machine can trust with everything. Arguments → config → launch.
//!
//! The one place where the rooms meet. Owner: the process.
//! Not here: anything a room can do by itself; see the code map in the README.
//! Read next: `launch.rs` for what is laid where, `front.rs` for a loop's turn, `service.rs` for an executor's.

// A program has no outside: `pub` says that other modules of it use the item.
#![allow(unreachable_pub)]

mod config;
mod launch;
mod reshard;
mod shared;

mod message;

mod alerts;
mod api;
mod damage;
mod delete_series;
mod export;
mod front;
mod own_metrics;
mod tsdb_status;

mod adapt;
mod fan_in;
mod query_memory;
mod service;

mod demo;
mod inspect;
mod storage_status;
mod transfer;
mod verify;

mod access_log;
mod console;
mod log;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use config::{Config, Setting, Sources};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit codes: 0 done, 1 could not, 2 wrong usage.
const COULD_NOT: u8 = 1;

#[derive(Parser)]
#[command(name = "ringwatch", version, about = "Monitoring that one machine can trust with everything")]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (what happens without a command, too)
    Serve(ServeArguments),
    /// Show it at work: real readings of this machine, a query, a percentile, an alert that fires and resolves
    Demo(demo::DemoArguments),
    /// Write samples of a running server to a file, as lines of JSON, CSV or OpenMetrics
    Export(transfer::ExportArguments),
    /// Send such a file to a running server
    Import(transfer::ImportArguments),
    /// Look after data directories
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Show every setting: value, default, unit and reason, as file, environment and options make them
    Config(ServeArguments),
}

#[derive(Subcommand)]
enum StorageCommand {
    /// Read all checksums of a directory that no server uses, and name what is damaged: file, offset, series and time;
    /// changes nothing
    Verify {
        /// The data directory
        dir: PathBuf,
    },
    /// Have a running server take a snapshot, and print where in its data directory it lies
    Backup {
        /// The server; it takes snapshots when it was started with --enable-admin
        #[arg(default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Copy a snapshot to a new directory, and check every byte of the copy
    Restore {
        /// The snapshot, DIR/snapshots/NAME
        snapshot: PathBuf,
        /// The data directory to be; it must be empty
        dir: PathBuf,
    },
    /// Show what a segment is made of: bytes by section and codec, series by name; a server may use it meanwhile
    Inspect {
        /// A segment, DIR/segments/….segment, or a data directory for all of its segments together
        segment: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct ServeArguments {
    /// Port on loopback, 8080 when nothing is said; short for --listen 127.0.0.1:PORT
    #[arg(value_parser = port, conflicts_with = "listen")]
    port: Option<u16>,
    /// TOML file with settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to serve on
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// A setting, as shown by `ringwatch config`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    sets: Vec<(String, String)>,
    /// Print one line per request
    #[arg(long)]
    access_log: bool,
    /// Print queue depth, peak and total this often
    #[arg(long, value_name = "DURATION")]
    stats_interval: Option<String>,
    /// Serve beyond loopback without credentials or TLS
    #[arg(long)]
    insecure: bool,
    /// Take requests that delete series
    #[arg(long)]
    enable_admin: bool,
}

/// A port, where options came first: a command can only be the first word.
fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| match Command::has_subcommand(text) {
        true => format!("a command comes before its options: ringwatch {text} [OPTIONS]"),
        false => "neither a port (1 to 65535) nor a command; --help lists the commands".to_owned(),
    })
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as ingest.durability=written")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl ServeArguments {
    fn sources(self) -> Sources {
        let mut sets = self.sets;
        let mut set = |key: &str, value: Option<String>| {
            sets.extend(value.map(|value| (key.to_owned(), value)));
        };
        let on = |flag: bool| flag.then(|| "true".to_owned());
        set("listen", self.port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()));
        set("listen", self.listen);
        set("access_log", on(self.access_log));
        set("stats_interval", self.stats_interval);
        set("insecure", on(self.insecure));
        set("enable_admin", on(self.enable_admin));
        Sources { file: self.config, environment: std::env::vars().collect(), sets }
    }
}

/// The command line; what is not understood ends the process with what to type instead.
fn arguments() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|mut error| {
        let unknown = ContextValue::String("--port".to_owned());
        if error.get(ContextKind::InvalidArg) == Some(&unknown) {
            let tip = "the port stands by itself: ringwatch 8081; with an address: --listen ADDR:PORT";
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        error.exit()
    })
}

fn main() -> ExitCode {
    let arguments = arguments();
    let result = match arguments.command.unwrap_or(Command::Serve(arguments.serve)) {
        Command::Serve(serve) => serve_until_stopped(serve),
        Command::Demo(demo) => demo::run(demo),
        Command::Export(export) => transfer::export(&export),
        Command::Import(import) => transfer::import(&import),
        Command::Config(of) => show_settings(of),
        Command::Storage(StorageCommand::Verify { dir }) => verify::run(&dir),
        Command::Storage(StorageCommand::Backup { url }) => transfer::backup(&url),
        Command::Storage(StorageCommand::Restore { snapshot, dir }) => transfer::restore(&snapshot, &dir),
        Command::Storage(StorageCommand::Inspect { segment, json }) => inspect::run(&segment, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringwatch: {error}");
            ExitCode::from(COULD_NOT)
        }
    }
}

fn serve_until_stopped(arguments: ServeArguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&arguments.sources())?;
    launch::serve(config)?;
    Ok(())
}

fn show_settings(arguments: ServeArguments) -> Result<(), Box<dyn std::error::Error>> {
    for Setting { key, set } in Config::settings(&arguments.sources())? {
        let value = set.as_ref().map_or(key.default, |(_, value)| value);
        log::say(format_args!("{:<28} {value:<16} {:<30} {}", key.name, key.unit, key.reason));
        if let Some((origin, _)) = set {
            log::say(format_args!(" [default {}; from {origin}]", key.default));
        }
        log::say(format_args!("\n"));
    }
    Ok(())
}
