//! `watchtower store`: checking, exporting and importing the store of a server that is stopped.

use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use watchtower_store::transfer::{self, TransferError, Transferred};
use watchtower_store::{DiskOptions, DiskStore, FileReport, Notice, OpenError, Store as _, check};

use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
The server must be stopped. Its store is the folder store in its data_dir.

Examples:
  watchtower store check data/store
  watchtower store export data/store > backup.ndjson
  watchtower store import copy/store < backup.ndjson")]
pub(crate) struct Store {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read everything, and say of each file whether it is damaged.
    ///
    /// Changes nothing. The exit code is 1 when something is damaged, and not for messages alone that
    /// were lost earlier, which are named.
    #[command(after_help = "\
Examples:
  watchtower store check data/store
  watchtower store check --data-dir data")]
    Check(Place),
    /// Print everything as text, a JSON value a line.
    ///
    /// What is damaged is told on standard error, and the exit code is 1 then; everything else is
    /// printed all the same. The text has secrets in it, if the store has.
    #[command(after_help = "\
Examples:
  watchtower store export data/store > backup.ndjson
  watchtower store export --data-dir data | gzip > backup.ndjson.gz")]
    Export(Place),
    /// Read from standard input what export printed, into an empty store.
    ///
    /// Where there is no store, one is made. Nothing is left of an import that fails.
    #[command(after_help = "\
Examples:
  watchtower store import copy/store < backup.ndjson
  gunzip < backup.ndjson.gz | watchtower store import --data-dir copy")]
    Import(Place),
}

/// Which store.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The store's folder.
    folder: Option<PathBuf>,
    /// The server's data_dir, in which the folder is.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn folder(self) -> PathBuf {
        let in_data_dir = self.data_dir.map(|data_dir| data_dir.join("store"));
        self.folder.or(in_data_dir).expect("clap asks for one of them")
    }
}

impl Store {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Check(place) => check_all(&place.folder()),
            Action::Export(place) => export(&place.folder()),
            Action::Import(place) => import(&place.folder()),
        }
    }
}

fn check_all(folder: &Path) -> Result<(), Failure> {
    let bar = bar("{msg} {wide_bar} {pos}/{len} files");
    // Of a file, what is wrong with it is told before the file itself.
    let observer = {
        let bar = bar.clone();
        move |notice: &Notice| bar.suspend(|| say(&notice.to_string()))
    };
    let mut each = |file: &FileReport| {
        bar.set_length(bar.position() + file.to_do as u64);
        bar.suspend(|| say(&line_of(folder, file)));
        bar.inc(1);
    };
    bar.set_message("reading");
    let report = check(folder, Arc::new(observer), &mut each).map_err(|error| not_opened(&error, folder))?;
    bar.finish_and_clear();
    let all = format!(
        "{} in {}, {}",
        counted(report.messages, "message"),
        counted(report.segments as u64, "file"),
        counted(report.records, "record")
    );
    if report.damaged > 0 {
        let damaged = counted(report.damaged as u64, "damaged file");
        return Err(anyhow!("{}: {damaged}; what is whole is {all}", folder.display()).into());
    }
    let missing = match report.missing {
        0 => String::new(),
        messages => format!("; {} missing", counted(messages, "message")),
    };
    output::print_line(format!("nothing is damaged: {all}{missing}").as_bytes())?;
    Ok(())
}

fn line_of(folder: &Path, file: &FileReport) -> String {
    let name = file.file.strip_prefix(folder).unwrap_or(&file.file).display();
    let state = if file.is_damaged { "damaged, " } else { "" };
    let unfinished = match file.unfinished_bytes {
        0 => String::new(),
        bytes => format!(", and {bytes} bytes at its end that were never acknowledged"),
    };
    let (messages, records) = (counted(file.messages, "message"), counted(file.records, "record"));
    format!("{name}: {state}{messages}, {records}{unfinished}")
}

fn export(folder: &Path) -> Result<(), Failure> {
    let is_damaged = Arc::new(AtomicBool::new(false));
    let store = open(folder, false, &is_damaged)?;
    let bar = match io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => bar("exporting {wide_bar} {human_pos}/{human_len} messages"),
    };
    bar.set_length(store.channels(None, usize::MAX).iter().map(|(_, ends)| ends.messages()).sum());
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let done = transfer::export(&store, &mut out, &mut |so_far| bar.set_position(so_far.messages));
    bar.finish_and_clear();
    let done = done.map_err(anyhow::Error::from).context("the export is not complete")?;
    tell(&format!("exported {}", all_of(done)));
    if is_damaged.load(Ordering::Relaxed) {
        return Err(anyhow!("{} is damaged: the export has what could be read", folder.display()).into());
    }
    Ok(())
}

fn import(folder: &Path) -> Result<(), Failure> {
    let store = open(folder, true, &Arc::default())?;
    let stdin = io::stdin();
    let length = rustix::fs::fstat(&stdin).map_or(0, |file| file.st_size);
    let bar = match length {
        1.. => bar("importing {wide_bar} {bytes}/{total_bytes}"),
        // A pipe, of which nobody knows how much comes.
        _ => bar("importing {spinner} {bytes}"),
    };
    bar.set_length(length.unsigned_abs());
    let done = transfer::import(&store, &mut bar.wrap_read(BufReader::new(stdin)));
    bar.finish_and_clear();
    store.close();
    let done = done.map_err(|error| match error {
        TransferError::NotEmpty => anyhow!("{} is not empty: import into a new folder", folder.display()),
        other => anyhow::Error::from(other).context("nothing was imported"),
    })?;
    tell(&format!("imported {}", all_of(done)));
    Ok(())
}

/// Opens a store, and tells on standard error what is wrong with it.
fn open(folder: &Path, create: bool, is_damaged: &Arc<AtomicBool>) -> Result<DiskStore, Failure> {
    let is_damaged = is_damaged.clone();
    let options = DiskOptions { create, ..DiskOptions::new(folder) }.observed(move |notice| {
        is_damaged
            .fetch_or(matches!(notice, Notice::Damaged { .. } | Notice::Lost { .. }), Ordering::Relaxed);
        tell(&notice.to_string());
    });
    DiskStore::open(options).map_err(|error| not_opened(&error, folder))
}

/// What a person can do about a store that cannot be opened.
fn not_opened(error: &OpenError, folder: &Path) -> Failure {
    let hint = match error {
        OpenError::InUse { .. } => "; stop the server first",
        OpenError::Missing { .. } if folder.join("store").is_dir() => {
            "; this is a server's data_dir: give it with --data-dir"
        }
        _ => "",
    };
    anyhow!("{error}{hint}").into()
}

fn all_of(done: Transferred) -> String {
    let logs = counted(done.logs, "channel");
    format!("{} in {logs}, {}", counted(done.messages, "message"), counted(done.records, "record"))
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", HumanCount(count))
}

/// A bar on standard error, if that is a terminal.
fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn say(line: &str) {
    // Whether standard output is still there shows when the last line is printed.
    let _ = output::print_line(line.as_bytes());
}

fn tell(line: &str) {
    // Where even standard error is closed, the exit code must do.
    let _ = writeln!(io::stderr(), "{line}");
}
