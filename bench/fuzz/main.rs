//! Names the targets, or writes the seeds of one as files: `fuzz`, `fuzz NAME FOLDER`.

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [] => {
            fuzz::targets().for_each(|target| println!("{}", target.name));
            ExitCode::SUCCESS
        }
        [name, folder] => match fuzz::target(name) {
            Some(target) => match write_seeds(target, Path::new(folder)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => refuse(&format!("{folder}: {error}")),
            },
            None => refuse(&format!("no target {name}; without arguments all are named")),
        },
        _ => refuse("usage: fuzz [NAME FOLDER]"),
    }
}

fn write_seeds(target: fuzz::Target, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    (target.seeds)()
        .iter()
        .enumerate()
        .try_for_each(|(at, seed)| fs::write(folder.join(format!("seed-{at}")), seed))
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}
