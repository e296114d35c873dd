//! Corpora from text to files, as libFuzzer wants them, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use watchtower_fuzz::{TARGETS, Target, corpus};

const USAGE: &str = "watchtower-fuzz targets | unpack TARGET FOLDER | add TARGET FOLDER";

/// The longest input that is added to a corpus, in bytes: what is found is mostly short, and a
/// corpus is to stay a file that can be read.
const ADDED_BYTES_MAX: usize = 96;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["targets"] => {
            list();
            Ok(())
        }
        ["unpack", name, folder] => target(name).and_then(|target| unpack(target, folder.as_ref())),
        ["add", name, folder] => target(name).and_then(|target| add(target, folder.as_ref())),
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

/// Adds the files of a folder that are short to the target's corpus.
fn add(target: Target, folder: &Path) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", folder.display());
    let mut inputs = corpus::parse(target.corpus)?;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let input = fs::read(entry.map_err(failed)?.path()).map_err(failed)?;
        if input.len() <= ADDED_BYTES_MAX {
            inputs.push(input);
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{}.txt", target.name));
    write(&file, &corpus::render(&inputs))
}

fn write(file: &PathBuf, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
