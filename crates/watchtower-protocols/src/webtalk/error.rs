//! The one table of the private link's error sentences: the link answers from
//! it, and the page in `docs` is held against it. It does not know when a rule
//! is broken.

use watchtower_hub::Refused;

/// Why the private link answered `[error]` ([webtalk: private link]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkError {
    /// A frame does not begin with five digits.
    BadLength,
    /// A frame holds no word in brackets.
    NoBrackets,
    /// The word in brackets is no command.
    UnknownCommand,
    /// A `!` is missing.
    NoSeparator,
    /// An id is not a number.
    BadId,
    /// There is no such user.
    UnknownUser,
    /// WebTalk has not given out such a channel, or it was killed.
    UnknownChannel,
    /// Nothing is stored there.
    UnknownKey,
    /// Channel 1 is there for as long as the server.
    EndlessChannel,
    /// A MESSAGE or VALUE above `max_message_bytes`.
    TooLarge,
    /// A MESSAGE that the channel does not accept.
    BadContent,
    /// A message on a durable channel that is not on disk.
    NotKept,
    /// A KEY that no reply could repeat.
    KeyTooLong,
    /// The store holds no more.
    StoreFull,
    /// The hub has no room.
    LimitReached,
    /// A secret is configured, and was not shown yet.
    LoginNeeded,
    /// Another secret.
    WrongSecret,
    /// A secret too soon after a wrong one: it was not looked at.
    LoginTooSoon,
    /// A frame did not end in time, or none came.
    OutOfPatience,
    /// The server stops.
    ShutsDown,
}

impl LinkError {
    /// Every error, in the order of the page.
    pub const ALL: [LinkError; 20] = [
        LinkError::BadLength,
        LinkError::NoBrackets,
        LinkError::UnknownCommand,
        LinkError::NoSeparator,
        LinkError::BadId,
        LinkError::UnknownUser,
        LinkError::UnknownChannel,
        LinkError::UnknownKey,
        LinkError::EndlessChannel,
        LinkError::TooLarge,
        LinkError::BadContent,
        LinkError::NotKept,
        LinkError::KeyTooLong,
        LinkError::StoreFull,
        LinkError::LimitReached,
        LinkError::LoginNeeded,
        LinkError::WrongSecret,
        LinkError::LoginTooSoon,
        LinkError::OutOfPatience,
        LinkError::ShutsDown,
    ];

    /// What the application is told.
    pub fn sentence(self) -> &'static str {
        self.row().0
    }

    /// When it is told so, for a page of documentation.
    pub fn meaning(self) -> &'static str {
        self.row().1
    }

    /// Whether the link closes after it, as a cell of the page's table.
    pub fn closes_link(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            LinkError::BadLength => {
                ("a frame begins with its length in five digits", "a frame begins with anything else", "yes")
            }
            LinkError::NoBrackets => {
                ("a command stands in brackets", "a frame without `[` at its beginning, or without `]`", "no")
            }
            LinkError::UnknownCommand => {
                ("unknown command", "a word that is none of the commands above; case counts", "no")
            }
            LinkError::NoSeparator => ("a ! is missing", "two things are needed, and there is no `!`", "no"),
            LinkError::BadId => {
                ("an id is a number", "an id that is not digits alone, or above 2⁶⁴ − 1", "no")
            }
            LinkError::UnknownUser => ("unknown user", "no user of that id, or one that was killed", "no"),
            LinkError::UnknownChannel => {
                ("unknown channel", "a channel that `newchannel` did not give out, or that was killed", "no")
            }
            LinkError::UnknownKey => ("unknown key", "nothing is stored at that key", "no"),
            LinkError::EndlessChannel => ("channel 1 cannot be killed", "`killchannel` of channel 1", "no"),
            LinkError::TooLarge => ("too large", "a MESSAGE or VALUE above `limits.max_message_bytes`", "no"),
            LinkError::BadContent => (
                "the channel does not accept this message",
                "the channel is configured with a `format` that the MESSAGE does not have",
                "no",
            ),
            LinkError::NotKept => (
                "the message could not be kept",
                "the channel is durable, and the MESSAGE could not be kept on disk",
                "no",
            ),
            LinkError::KeyTooLong => (
                "the key is too long",
                "a KEY above 99,986 bytes: the reply that repeats it would not fit",
                "no",
            ),
            LinkError::StoreFull => {
                ("the store is full", "more than 65,536 keys, or 16 MiB of keys and values", "no")
            }
            LinkError::LimitReached => (
                "a limit of the server is reached",
                "no more users (`limits.max_senders`), channels (`limits.max_channels`) or channels of one user (`limits.max_channels_per_sender`)",
                "no",
            ),
            LinkError::LoginNeeded => {
                ("log in first", "any other command before `login`, when `webtalk.secret` is set", "no")
            }
            LinkError::WrongSecret => ("wrong secret", "`login` with another secret", "at the third failure"),
            LinkError::LoginTooSoon => (
                "too soon after a wrong secret",
                "`login` less than a second after a wrong secret on this link: it was not looked at",
                "at the third failure",
            ),
            LinkError::OutOfPatience => (
                "waited too long for a frame",
                "the first frame, the login or the end of a frame did not come within `limits.header_timeout`",
                "yes",
            ),
            LinkError::ShutsDown => ("the server shuts down", "it does", "yes"),
        }
    }
}

impl From<Refused> for LinkError {
    fn from(refused: Refused) -> LinkError {
        match refused {
            Refused::TooLarge { .. } => LinkError::TooLarge,
            Refused::BadContent { .. } => LinkError::BadContent,
            Refused::NotKept { .. } => LinkError::NotKept,
            Refused::Limit { .. } => LinkError::LimitReached,
            // What is left is said of users alone: one that went away, or whose
            // id another connection holds on to.
            _ => LinkError::UnknownUser,
        }
    }
}
