//! Why a connection ends: the code of a close frame.
//!
//! Knows the numbers, not the frames.

use std::fmt;

/// The code of a close frame (RFC 6455 7.4).
///
/// Invariant: one that may be sent: 1000 to 1003, 1007 to 1014, or 3000 to
/// 4999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// All is done.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server shuts down.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// What came is no WebSocket.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// A kind of message that is not understood here.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// Text that is not UTF-8, or compressed content that is broken.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// The client does not behave as is expected here: it reads too slowly, or
    /// gives no sign of life.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message above the limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// The server's own fault.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// The server has too much to do: come back later.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// The code of that number; `None` for one that must not be sent. A
    /// protocol's own codes are 4000 to 4999, those of frameworks 3000 to 3999.
    pub const fn new(number: u16) -> Option<CloseCode> {
        match number {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(number)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
