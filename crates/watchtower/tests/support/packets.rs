//! The packets of the packet page, byte for byte.

pub(crate) fn join(sender: u32, channel: u32) -> Vec<u8> {
    ids(b'J', sender, channel)
}

pub(crate) fn leave(sender: u32, channel: u32) -> Vec<u8> {
    ids(b'L', sender, channel)
}

pub(crate) fn say(sender: u32, channel: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    [ids(b'M', sender, channel), sized(content.as_ref())].concat()
}

pub(crate) fn whisper(sender: u32, channel: u32, receivers: &[u32], content: impl AsRef<[u8]>) -> Vec<u8> {
    let count = u16::try_from(receivers.len()).unwrap().to_le_bytes().to_vec();
    let receivers = receivers.iter().flat_map(|id| id.to_le_bytes()).collect();
    [ids(b'W', sender, channel), count, receivers, sized(content.as_ref())].concat()
}

pub(crate) fn secret(secret: &str) -> Vec<u8> {
    [&[b'S', u8::try_from(secret.len()).unwrap()], secret.as_bytes()].concat()
}

pub(crate) fn ack(number: u32) -> Vec<u8> {
    [&b"A"[..], &number.to_le_bytes()].concat()
}

/// A message to the whole channel, as it is delivered.
pub(crate) fn said(sender: u32, channel: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    [ids(b'M', sender, channel), vec![0, 0], sized(content.as_ref())].concat()
}

/// A direct message, as it is delivered.
pub(crate) fn whispered(sender: u32, channel: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    [ids(b'M', sender, channel), vec![1, 0], sized(content.as_ref())].concat()
}

/// An error with these words.
pub(crate) fn error(code: u8, text: &str) -> Vec<u8> {
    [&[b'E', code, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

pub(crate) const NOT_JOINED: &str = "join the channel first";
pub(crate) const ELSEWHERE: &str = "this sender belongs to another connection";
pub(crate) const NO_RECEIVER: &str = "no receiver, or one that has not joined";
pub(crate) const BAD_CONTENT: &str = "the channel does not accept this content";
pub(crate) const LIMIT: &str = "a limit of the server is reached";
pub(crate) const LAGGING: &str = "too far behind: read faster, or join again";
pub(crate) const SHUTDOWN: &str = "the server shuts down";
pub(crate) const SILENT: &str = "nothing came, or half a packet, for too long";

pub(crate) fn ids(tag: u8, sender: u32, channel: u32) -> Vec<u8> {
    [&[tag][..], &sender.to_le_bytes(), &channel.to_le_bytes()].concat()
}

fn sized(content: &[u8]) -> Vec<u8> {
    [&u32::try_from(content.len()).unwrap().to_le_bytes()[..], content].concat()
}
