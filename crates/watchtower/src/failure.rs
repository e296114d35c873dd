//! How a command fails: what is said on standard error, and the exit code that goes with it
//! [running: exit codes].

use std::io::{self, Write};
use std::process::ExitCode;

use thiserror::Error;
use watchtower_server::config::{ConfigError, ConfigErrors};

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The configuration is at fault: exit code 2, each fault on a line of its own.
    #[error(transparent)]
    Configuration(#[from] ConfigErrors),
    /// The command line or its environment is at fault: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Anything else: exit code 1.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// Says what happened on standard error, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (text, code) = match self {
            // Starts with the file and the line, as editors like it.
            Self::Configuration(errors) => (errors.to_string(), 2),
            Self::Usage(reason) => (format!("watchtower: {}", one_line(reason)), 2),
            Self::Other(error) => (format!("watchtower: {}", one_line(&format!("{error:#}"))), 1),
        };
        // Where even standard error is closed, the exit code alone must do.
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        ConfigErrors::from(error).into()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
