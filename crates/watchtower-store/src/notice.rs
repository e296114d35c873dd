//! What a store has to tell a person: damage, and trouble with the disk.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use watchtower_hub::ChannelName;

/// Is told each [`Notice`], on whatever thread found it. It must not panic, and
/// not call the store.
pub type Observer = Arc<dyn Fn(&Notice) + Send + Sync>;

/// Something that happened to a store's files. Its `Display` is one line, with
/// no content of messages in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A file is not as it was written, or is not there.
    Damaged {
        /// Which.
        file: PathBuf,
        /// What is wrong with it, and what that means.
        what: String,
    },
    /// Messages are lost by damage. The offsets are not given again.
    Lost {
        /// The file that they were in.
        file: PathBuf,
        /// Their channel.
        channel: ChannelName,
        /// Their offsets.
        offsets: Range<u64>,
    },
    /// A log has no messages of these offsets: they were lost by damage that was
    /// told of when it was found, or given up. Told when a store is opened or
    /// checked.
    Missing {
        /// The channel.
        channel: ChannelName,
        /// The offsets.
        offsets: Range<u64>,
    },
    /// There are more such offsets than were told.
    MoreMissing {
        /// How many ranges of them.
        ranges: usize,
    },
    /// A damaged file was kept beside the others, and what could be read of it
    /// is in a new one.
    SetAside {
        /// The file.
        file: PathBuf,
        /// Where it is now.
        to: PathBuf,
    },
    /// The process ended while it wrote, so that the file ends with something
    /// that is no whole record. Nobody was told that this was kept.
    Unfinished {
        /// Which file.
        file: PathBuf,
        /// How much of it is not used.
        bytes: u64,
    },
    /// Nothing can be kept, and changes are refused, until
    /// [`Recovered`](Notice::Recovered).
    Failing {
        /// Why.
        reason: String,
    },
    /// Changes are kept again.
    Recovered,
    /// Others on this machine may read what is kept. It is served all the same.
    Exposed {
        /// The store's folder.
        folder: PathBuf,
        /// The bits of its mode.
        mode: u32,
    },
    /// Files could not be put in order. That is tried again; nothing is lost by
    /// it, but what was dropped may take its room on the disk for longer.
    Untidy {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Damaged { file, what } => write!(f, "{} is damaged: {what}", file.display()),
            Notice::Lost { file, channel, offsets } => {
                write!(f, "{} lost by damage to {}", Missed(channel, offsets), file.display())
            }
            Notice::Missing { channel, offsets } => {
                write!(
                    f,
                    "{} missing: lost by damage, or left out of what was imported",
                    Missed(channel, offsets)
                )
            }
            Notice::MoreMissing { ranges } => {
                write!(f, "messages are missing at {ranges} more places")
            }
            Notice::SetAside { file, to } => {
                write!(f, "{} was damaged and is now {}", file.display(), to.display())
            }
            Notice::Unfinished { file, bytes } => {
                write!(
                    f,
                    "the last {bytes} bytes of {} were never acknowledged and are not used",
                    file.display()
                )
            }
            Notice::Failing { reason } => write!(f, "nothing can be kept on disk: {reason}"),
            Notice::Recovered => write!(f, "changes are kept on disk again"),
            Notice::Exposed { folder, mode } => {
                let folder = folder.display();
                write!(
                    f,
                    "others on this machine may read or change what is in {folder} (mode {mode:04o}); \
                     if they are not to, run: chmod -R go= {folder}"
                )
            }
            Notice::Untidy { reason } => write!(f, "the store's files could not be put in order: {reason}"),
        }
    }
}

/// Which messages, and the verb for so many.
struct Missed<'a>(&'a ChannelName, &'a Range<u64>);

impl fmt::Display for Missed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missed(channel, Range { start, end }) = self;
        match end - start {
            1 => write!(f, "message {start} of channel {channel} is"),
            _ => write!(f, "messages {start} to {} of channel {channel} are", end - 1),
        }
    }
}
