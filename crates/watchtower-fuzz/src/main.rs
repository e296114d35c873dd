//! Corpora from text to files, as libFuzzer wants them, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use watchtower_fuzz::{TARGETS, Target, corpus};

const USAGE: &str = "watchtower-fuzz targets | unpack TARGET FOLDER | pack TARGET FOLDER";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["targets"] => {
            list();
            Ok(())
        }
        ["unpack", name, folder] => target(name).and_then(|target| unpack(target, folder.as_ref())),
        ["pack", name, folder] => target(name).and_then(|target| pack(target, folder.as_ref())),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watchtower-fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is what was asked for")]
fn list() {
    TARGETS.iter().for_each(|target| println!("{}", target.name));
}

fn target(name: &str) -> Result<Target, String> {
    Target::named(name).ok_or_else(|| format!("there is no target {name}"))
}

/// Writes each input of a corpus to a file of its own.
fn unpack(target: Target, folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (number, input) in corpus::parse(target.corpus)?.into_iter().enumerate() {
        let file = folder.join(format!("{number:05}"));
        fs::write(&file, input).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// Makes the files of a folder the target's corpus.
fn pack(target: Target, folder: &Path) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", folder.display());
    let entries: Result<Vec<_>, _> = fs::read_dir(folder).map_err(failed)?.collect();
    let inputs: Result<Vec<_>, _> =
        entries.map_err(failed)?.iter().map(|entry| fs::read(entry.path())).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{}.txt", target.name));
    write(&file, &corpus::render(&inputs.map_err(failed)?))
}

fn write(file: &PathBuf, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
