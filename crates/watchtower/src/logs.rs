//! Logs, which go to standard error [running: serve].
//!
//! | file | for |
//! | --- | --- |
//! | `limit` | how many lines of a kind are written |
//! | `writer` | the thread that writes them |
//! | `fault` | what is written when the program panics |

mod fault;
mod limit;
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::Path;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};

use self::limit::LineLimit;
pub(crate) use self::writer::Writing;
use crate::failure::Failure;

/// What strangers can cause is not to fill a disk.
static LIMIT: LineLimit = LineLimit::new();

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For a person to read.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the log to standard error, at `info` and above unless `RUST_LOG` says otherwise. It is
/// written to its end when what this returns is dropped.
pub(crate) fn start(format: LogFormat) -> Result<Writing, Failure> {
    start_to(format, None)
}

/// The same, to the end of this file if one is named.
pub(crate) fn start_to(format: LogFormat, file: Option<&Path>) -> Result<Writing, Failure> {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&directives)
        .map_err(|error| Failure::Usage(format!("RUST_LOG={directives}: {error}")))?;
    let ((lines, writing), ansi) = match file {
        Some(path) => (writer::start(append_to(path)?, &LIMIT)?, false),
        None => (writer::start(io::stderr(), &LIMIT)?, io::stderr().is_terminal() && wants_colour()),
    };
    let writer = BoxMakeWriter::new(move || lines.clone());
    let writer = writer.with_filter(|line| LIMIT.lets_through(line));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(ansi);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().with_span_list(false).init(),
    }
    fault::log_panics();
    Ok(writing)
}

/// Says in the log how many lines were left out since it was last said, if there were any.
pub(crate) fn tell_what_was_left_out() {
    let lines = LIMIT.take_left_out();
    if lines > 0 {
        tracing::warn!(lines, "lines were left out: too many of their kind, or nobody read them");
    }
}

/// Opens a log to write at its end.
pub(crate) fn append_to(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| Failure::Usage(format!("{}: cannot write a log there: {error}", path.display())))
}

/// <https://no-color.org>
fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
