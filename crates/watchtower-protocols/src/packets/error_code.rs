//! The one table of the codes of `E` packets: the sessions answer from it and
//! the documentation is made from it. It does not know when a rule is broken.

/// What a server could not do: the code of an `E` packet ([packets: error codes]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// A first byte that begins no packet.
    UnknownPacket = 1,
    /// A sender id that is not registered, or is not this client's to use.
    UnknownSender = 2,
    /// A message to, or leave of, a channel that the sender has not joined.
    NotJoined = 3,
    /// Content above the limit.
    TooLarge = 4,
    /// Something that this server does not allow this client.
    Refused = 5,
    /// A direct message that names a receiver outside the channel, or none.
    ReceiverNotJoined = 6,
    /// Content that the channel does not accept.
    BadContent = 7,
    /// The server sheds load.
    Overloaded = 8,
    /// A client goes on where not all is kept any more: the spec's table has no word for that.
    Incomplete = 9,
}

impl ErrorCode {
    /// Every code, in order.
    pub const ALL: [Self; 9] = [
        Self::UnknownPacket,
        Self::UnknownSender,
        Self::NotJoined,
        Self::TooLarge,
        Self::Refused,
        Self::ReceiverNotJoined,
        Self::BadContent,
        Self::Overloaded,
        Self::Incomplete,
    ];

    /// The code of a byte, if it is one of the table's.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.byte() == byte)
    }

    /// The code on the wire.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// A short name, fit for the text of an `E` packet.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// When the code is sent, as a sentence's end for a page of documentation.
    pub fn meaning(self) -> &'static str {
        self.row().1
    }

    /// Whether the code by itself ends a TCP connection: after these the stream
    /// cannot be read on. (A lagging connection is closed after `Overloaded`,
    /// for a reason that is not the code's.)
    pub fn closes_connection(self) -> bool {
        self.row().2
    }

    /// The one table that the codes' names, meanings and documentation come from.
    fn row(self) -> (&'static str, &'static str, bool) {
        match self {
            Self::UnknownPacket => (
                "unknown packet",
                "a first byte that begins no packet, or a partial packet in a datagram",
                true,
            ),
            Self::UnknownSender => (
                "unknown sender",
                "an id that is not registered, or one that is bound to another address or connection",
                false,
            ),
            Self::NotJoined => {
                ("not joined", "a message to, or leave of, a channel that the sender has not joined", false)
            }
            Self::TooLarge => ("too large", "content above the limit", true),
            Self::Refused => (
                "refused",
                "registration is closed, the secret is wrong, a limit is reached, the channel is not allowed or the disk took nothing",
                false,
            ),
            Self::ReceiverNotJoined => (
                "receiver not joined",
                "a direct message to a receiver that has not joined the channel, or to none",
                false,
            ),
            Self::BadContent => ("bad content", "content that the channel does not accept", false),
            Self::Overloaded => ("overloaded", "the server sheds load", false),
            Self::Incomplete => (
                "incomplete",
                "a follow from an offset behind which not all is kept; the text names the channel and the offset after which it goes on",
                false,
            ),
        }
    }
}
