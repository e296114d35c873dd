//! Who said a message where it comes from, beside its content.
//!
//! A bridge to somewhere else, where people have names and the hub knows no
//! sender, puts it there; formats that have a place for it show it. It is a
//! claim, and proves nothing. Which bridge it was is not known here.

use bytes::Bytes;
use watchtower_hub::Message;

/// What extras begin with that are a byline. Those of a protocol begin with the
/// number of one of its formats, which is below 64.
const TAG: u8 = 0xff;

/// What to publish beside the content, as
/// [`Publish::extras`](watchtower_hub::Publish::extras).
pub fn byline(nick: &str) -> Bytes {
    [&[TAG], nick.as_bytes()].concat().into()
}

/// Who said it, if that is known.
pub(crate) fn nick(message: &Message) -> Option<&str> {
    std::str::from_utf8(message.extras()?.strip_prefix(&[TAG])?).ok()
}
