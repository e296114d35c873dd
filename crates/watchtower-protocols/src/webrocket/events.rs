//! What subscribers of a hub are shown, with and without where it stands.
//!
//! Knows no connection and no command.

use std::sync::Arc;

use bytes::BytesMut;
use watchtower_hub::Message;

use super::namespace::Names;
use super::{Codec, Event};
use crate::websocket::{self, Frames, MessageKind};

/// The frames of a hub's events. Connections that asked for positions share
/// frames of their own, so that the others' stay as they are.
pub(super) struct Shapes {
    pub(super) plain: Arc<Frames>,
    pub(super) positioned: Arc<Frames>,
}

impl Shapes {
    /// Those of the hub's formats number `first` and the five that follow it.
    pub(super) fn new<C: Codec>(first: u8, codec: &Arc<C>, names: &Names) -> Shapes {
        let events = |shows_position| Events {
            codec: codec.clone(),
            names: names.clone(),
            extras_tag: first,
            shows_position,
        };
        Shapes {
            plain: Frames::new(first, events(false)),
            positioned: Frames::new(first.saturating_add(3), events(true)),
        }
    }
}

/// The message as the codec writes it, with the channel as the hub calls it.
///
/// A channel is reached by hubs of one namespace alone, so it does not matter
/// which of them asks for a shared frame first.
struct Events<C> {
    codec: Arc<C>,
    names: Names,
    /// The byte that further fields begin with that this codec wrote: the
    /// number of its first format, which no other codec has. Other codecs, and
    /// other protocols, put something else beside a message.
    extras_tag: u8,
    shows_position: bool,
}

impl<C: Codec> websocket::Codec for Events<C> {
    fn encode(&self, message: &Message, out: &mut BytesMut) -> Option<MessageKind> {
        let mut digits = itoa::Buffer::new();
        let channel = match message.channel().number() {
            Some(number) => digits.format(number),
            None => self.names.shown(message.channel().text().unwrap_or_default()),
        };
        let event = Event {
            event: message.event().unwrap_or("message"),
            channel,
            content: message.content(),
            position: self.shows_position.then(|| message.position()),
            extras: message.extras().and_then(|extras| extras.strip_prefix(&[self.extras_tag])),
        };
        Some(self.codec.encode(&event, out))
    }
}
