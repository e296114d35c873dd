//! The one table of the codes that a command is refused with: the hub answers
//! from it and the documentation is held against it. It does not know when a
//! rule is broken.

/// Why a command was refused: the code of `{"err": …}` ([webrocket: commands]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// What came is no command, or its fields are wrong.
    InvalidData,
    /// The secret is not the one for that access.
    InvalidCredentials,
    /// This session may not do that.
    AccessDenied,
    /// A channel to subscribe to that can have no such name.
    InvalidChannelName,
    /// A channel to publish on that there is not.
    InvalidChannel,
    /// A message on a durable channel that is not on disk.
    NotKept,
}

impl ErrorCode {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::InvalidData,
        Self::InvalidCredentials,
        Self::AccessDenied,
        Self::InvalidChannelName,
        Self::InvalidChannel,
        Self::NotKept,
    ];

    /// The code as clients see it.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// When the code is sent, as a sentence's end for a page of documentation.
    pub fn meaning(self) -> &'static str {
        self.row().1
    }

    /// The one table that the codes' names, meanings and documentation come from.
    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidData => (
                "invalid_data",
                "what came is no command, a field is missing or has the wrong form, or the content is above the limit or not what the channel accepts",
            ),
            Self::InvalidCredentials => ("invalid_credentials", "the secret is not the one for that access"),
            Self::AccessDenied => (
                "access_denied",
                "the session is not authenticated for that, the channel does not tell who is there, or a limit of the server is reached",
            ),
            Self::InvalidChannelName => (
                "invalid_channel_name",
                "the name to subscribe to is empty, no channel name, or in another hub's namespace",
            ),
            Self::InvalidChannel => {
                ("invalid_channel", "there is no channel of that name to publish on, or to ask who is there")
            }
            Self::NotKept => {
                ("not_kept", "the channel is durable, and the message could not be kept on disk")
            }
        }
    }
}
