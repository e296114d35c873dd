//! What a store answers when it cannot do what it was asked: one enum for each
//! of opening, changing and reading.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watchtower_hub::{ChannelName, Position};

/// Why a store was not opened. Nothing was changed then, save that a folder
/// that was missing may have been made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, or this one a second time.
    #[error("the store in {} is in use by another process", .folder.display())]
    InUse {
        /// Where it is.
        folder: PathBuf,
    },
    /// There is none, and none was to be made.
    #[error("there is no store in {}", .folder.display())]
    Missing {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A later program has written it.
    #[error(
        "the store in {} has format version {found}, and this program knows none after {known}: \
         use the program that wrote it, or its export",
        .folder.display()
    )]
    Newer {
        /// Where it is.
        folder: PathBuf,
        /// Its version.
        found: u32,
        /// The latest version that this program reads.
        known: u32,
    },
    /// There are files, and none of them says what store they belong to.
    #[error("{} holds files of a store, but nothing there says which one: see damaged files in docs/store.md", .folder.display())]
    NotAStore {
        /// Where they are.
        folder: PathBuf,
    },
    /// The operating system refused something.
    #[error("{} {}: {error}", .doing, .path.display())]
    Io {
        /// What was tried, such as `cannot read`.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// For `map_err`: what was being done, and to which file.
pub(crate) fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |error| OpenError::Io { doing, path: path.to_owned(), error }
}

/// Why changes were refused. None of those submitted together has any effect
/// then, now or after a restart; see [`Refused::Storage`] for the one limit of
/// that.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// A message is not the next one of its channel's log.
    #[error("the message is not the next one of channel {channel}: {}", next_is(.next.as_ref()))]
    NotNext {
        /// The channel.
        channel: ChannelName,
        /// Where the next message goes; none when the channel has no log.
        next: Option<Position>,
    },
    /// One change is longer than a store keeps, or what was submitted together
    /// is more than may wait.
    #[error("{bytes} bytes are too many to be kept at once, the limit is {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More waits to be written than may wait. It may be tried again.
    #[error("the disk is behind: {limit} bytes wait to be written already")]
    Behind {
        /// How much may wait.
        limit: usize,
    },
    /// It could not be written and synced. The store has cut its file back to
    /// what was synced before; where even that is refused, and the process ends
    /// before it could be done, such changes may be there after a restart.
    #[error("it could not be kept on disk: {0}")]
    Storage(Arc<io::Error>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

fn next_is(next: Option<&Position>) -> String {
    next.map_or_else(|| "it has no log".to_owned(), |next| format!("that would be {next}"))
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The channel has no log here.
    #[error("nothing is kept of channel {channel}")]
    NoLog {
        /// The channel.
        channel: ChannelName,
    },
    /// The operating system refused to read a file. A file that can be read and
    /// holds something else than was written is no error, but counted in
    /// [`Page::lost`](crate::Page::lost).
    #[error("cannot read {}: {error}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}
