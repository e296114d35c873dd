//! A message as the subscribers of the packet protocol are sent it.

use bytes::BytesMut;
use watchtower_hub::{Format, FormatId, Message};

use super::frame::{self, MESSAGE_HEADER_BYTES, MessageKind};

/// Messages as `M` packets ([packets: server to client]).
///
/// A message of a channel that has no number has no packet: its frame is
/// empty.
#[derive(Debug, Clone, Copy)]
pub struct PacketFormat;

/// The one value of [`PacketFormat`].
pub static PACKET_FORMAT: PacketFormat = PacketFormat;

impl Format for PacketFormat {
    fn id(&self) -> FormatId {
        FormatId::new(0)
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        let Some(channel) = message.channel().number() else { return };
        let sender = message.sender().map_or(0, |sender| sender.get());
        let kind = if message.is_direct() { MessageKind::Direct } else { MessageKind::Broadcast };
        let content = message.content().bytes();
        out.reserve(MESSAGE_HEADER_BYTES + content.len());
        frame::encode_message(out, sender, channel, kind, content);
    }
}
