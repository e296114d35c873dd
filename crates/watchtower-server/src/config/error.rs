//! What can be wrong with a configuration, said so that the reader can put it right: where it
//! stands, which key, what came and what would be right. A secret is never quoted.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::ChannelPattern;
use crate::tls::CertificateError;

/// Where a value came from; shown first in a message, as compilers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file, counted from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line, such as `--listen`.
    Flag(&'static str),
}

/// The known key that an unknown one is nearest to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// The key, dotted from the top; a table only if that is probably what was meant.
    pub key: String,
    /// Whether it is so near that it is probably what was meant.
    pub is_likely: bool,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Unreadable {
        /// The file, as it was named.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{at}: {message}")]
    Syntax {
        /// Where.
        at: Origin,
        /// What the TOML parser says, on one line.
        message: String,
    },
    /// A key that does not exist.
    #[error("{at}: unknown key \"{key}\"; {nearest}")]
    UnknownKey {
        /// Where.
        at: Origin,
        /// The key, dotted from the top.
        key: String,
        /// The known key that it is nearest to.
        nearest: Nearest,
    },
    /// A value of a wrong type or out of range.
    #[error("{at}: {key}: got {came}, expected {expected}")]
    BadValue {
        /// Where.
        at: Origin,
        /// The key, dotted from the top.
        key: String,
        /// The value as written, shortened; not that of a secret.
        came: String,
        /// What would be right.
        expected: String,
    },
    /// A table of a list lacks a key that has no default there.
    #[error("{at}: {key} is missing; every [[{table}]] needs one")]
    MissingKey {
        /// Where the table begins.
        at: Origin,
        /// The key, dotted from the top.
        key: String,
        /// The list of tables.
        table: String,
    },
    /// A `--set` without a `=`.
    #[error("--set{}: expected KEY=VALUE, such as limits.max_connections=500", named(.key))]
    NoValue {
        /// The key, if that is what was given. Anything else might be a secret.
        key: Option<String>,
    },
    /// A variable whose value is no text.
    #[error("{variable}: its value is not valid UTF-8")]
    NotText {
        /// The variable.
        variable: String,
    },
    /// The server would be reachable from other machines with a secret that anyone can guess.
    #[error(
        "listen = \"{listen}\" can be reached from other machines, but secret_key is {what}; \
         set secret_key to a text that cannot be guessed (in the configuration file, as \
         WATCHTOWER_SECRET_KEY or with --secret), or listen on 127.0.0.1"
    )]
    Exposed {
        /// The address that is not loopback.
        listen: String,
        /// `empty` or `well known`.
        what: &'static str,
    },
    /// A WebRocket hub that other machines could publish on without a secret.
    #[error(
        "webrocket.hubs: the hub {path} can be reached from other machines at {listen}, but its \
         read_write secret is {what}; set read_write to a text that cannot be guessed, or \
         anonymous = \"read-write\" if everybody may publish there, or listen on 127.0.0.1"
    )]
    ExposedHub {
        /// The hub's path.
        path: String,
        /// The address that is not loopback.
        listen: String,
        /// `empty` or `well known`.
        what: &'static str,
    },
    /// Two WebRocket hubs at one path.
    #[error("webrocket.hubs: the path {path} is there twice; give each hub one of its own")]
    SamePath {
        /// The path.
        path: String,
    },
    /// A WebRocket hub where something else is.
    #[error("webrocket.hubs: the path {path} is that of WebTalk; give the hub another")]
    TakenPath {
        /// The path.
        path: String,
    },
    /// WebTalk's private link, open to other machines without what keeps them out.
    #[error(
        "webtalk.private = \"{listen}\" can be reached from other machines, but {lacks}; \
         beyond loopback the link needs webtalk.secret, and tls.cert with tls.key"
    )]
    ExposedLink {
        /// The address that is not loopback.
        listen: String,
        /// What is missing.
        lacks: &'static str,
    },
    /// One of the two files that TLS needs.
    #[error("{given} is set, but {missing} is empty: TLS needs both files; set {missing}, or empty both")]
    HalfTls {
        /// The key that is set.
        given: &'static str,
        /// The key that is empty.
        missing: &'static str,
    },
    /// Peers, and nothing for them to connect to.
    #[error(
        "whispernet.peers are set, but whispernet.listen is empty: set an address that peers connect \
         to, such as \"0.0.0.0:55555\""
    )]
    NoWhispernet,
    /// One of the three files that TLS in the whispernet needs.
    #[error("{given} is set, but {missing} is empty: TLS needs all three files; set {missing}, or empty all")]
    PartialTls {
        /// The key that is set.
        given: &'static str,
        /// The key that is empty.
        missing: &'static str,
    },
    /// A file that TLS needs cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A limit that another makes useless.
    #[error(
        "{smaller} = {value} is below limits.max_message_bytes = {least}: raise the one or lower the other"
    )]
    BelowMessageSize {
        /// The key of the limit that is too low.
        smaller: &'static str,
        /// Its value.
        value: usize,
        /// The size of message that is allowed.
        least: usize,
    },
    /// A channel is durable, and there is no folder for it.
    #[error(
        "channels.durable = true for \"{pattern}\", but data_dir is empty: set data_dir to the folder \
         that the messages are to be kept in"
    )]
    NowhereToKeep {
        /// The pattern of the first such rule.
        pattern: ChannelPattern,
    },
    /// The kept secret cannot be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    SecretFile {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kept secret can be read by others than the owner of the file.
    #[error(
        "{path}: others can read this secret (mode {mode:04o}); take it as known: remove the \
         file, so that a new one is made, or run: chmod 600 {path}", path = path.display()
    )]
    SecretFileOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file of the kept secret holds no secret.
    #[error("{}: expected one line of 1 to 255 bytes of text; remove the file, so that a new secret is made", path.display())]
    SecretFileContent {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("cannot make a secret: {0}")]
    NoRandomness(getrandom::Error),
}

/// Everything that is wrong with a configuration; never empty. Displayed one a line.
#[derive(Debug, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `Ok` where there are none.
    pub(super) fn none(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(Self(errors))
    }

    /// Each of them, in the order of the layers, and within a file by line.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_likely {
            write!(f, "did you mean \"{}\"?", self.key)
        } else {
            write!(f, "the nearest known key is \"{}\"", self.key)
        }
    }
}

/// A key behind the flag that it belongs to.
fn named(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!(" {key}")).unwrap_or_default()
}
