//! What a bench reads from a connection, whatever its wire.

use crate::error::WireError;
use crate::load::http::StreamCounter;
use crate::load::packets::{Arrival, PacketCounter};
use crate::load::payload::Number;
use crate::load::websocket::FrameCounter;
use crate::load::webtalk::ReplyReader;

/// Counts what arrives on one connection.
#[derive(Debug)]
pub(crate) enum Counter {
    /// Packets in a stream of bytes.
    Packets(PacketCounter),
    /// Whole packets, one or more a datagram.
    Datagrams,
    /// A join stream over HTTP.
    Stream(StreamCounter),
    /// A WebSocket.
    Frames(FrameCounter),
    /// WebTalk's private link.
    Replies(ReplyReader),
    /// Answers that come in the order of what they answer: each stands for the next message, whose
    /// number is higher by `step`.
    InOrder { answers: Box<Counter>, next: Number, step: u32 },
}

impl Counter {
    /// Takes what one read returned (for datagrams: one datagram) and hands on what it completes.
    ///
    /// # Errors
    /// What the peer did wrong or refused; the connection is of no use any more.
    pub(crate) fn feed(&mut self, input: &[u8], mut on: impl FnMut(Arrival)) -> Result<(), WireError> {
        match self {
            Self::Packets(counter) => counter.feed(input, on),
            Self::Stream(counter) => counter.feed(input, on),
            Self::Frames(counter) => counter.feed(input, on),
            Self::Replies(replies) => replies.feed(input, |_| on(Arrival::Acknowledged(0))),
            Self::InOrder { answers, next, step } => answers.feed_dyn(input, &mut |arrival| match arrival {
                Arrival::Acknowledged(_) => {
                    on(Arrival::Message(Some(*next)));
                    next.0 = next.0.wrapping_add(*step);
                }
                message @ Arrival::Message(_) => on(message),
            }),
            Self::Datagrams => {
                let mut counter = PacketCounter::default();
                counter.feed(input, on)?;
                if counter.is_between_packets() { Ok(()) } else { Err(WireError::PartialDatagram) }
            }
        }
    }

    /// The same for a counter within another, whose type would have no end otherwise.
    fn feed_dyn(&mut self, input: &[u8], on: &mut dyn FnMut(Arrival)) -> Result<(), WireError> {
        self.feed(input, on)
    }

    /// Whether nothing of a message is outstanding.
    pub(crate) fn is_between_messages(&self) -> bool {
        match self {
            Self::Packets(counter) => counter.is_between_packets(),
            Self::Stream(counter) => counter.is_between_messages(),
            Self::Frames(counter) => counter.is_between_frames(),
            Self::Replies(replies) => replies.is_between_replies(),
            Self::InOrder { answers, .. } => answers.is_between_messages(),
            Self::Datagrams => true,
        }
    }

    /// What is to be written because of what was read: answers to pings.
    pub(crate) fn take_owed(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Frames(counter) => counter.take_pongs(),
            Self::InOrder { answers, .. } => answers.take_owed(),
            Self::Packets(_) | Self::Datagrams | Self::Stream(_) | Self::Replies(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_holds_whole_packets() {
        let mut arrivals = Vec::new();
        Counter::Datagrams.feed(b"A\x01\0\0\0A\x02\0\0\0", |arrival| arrivals.push(arrival)).unwrap();
        assert_eq!(arrivals, [Arrival::Acknowledged(1), Arrival::Acknowledged(2)]);
        assert_eq!(Counter::Datagrams.feed(b"A\x01\0\0\0A\x02", |_| ()), Err(WireError::PartialDatagram));
    }

    #[test]
    fn answers_in_order_stand_for_one_message_after_the_other() {
        let answers = Box::new(Counter::Replies(ReplyReader::default()));
        let mut counter = Counter::InOrder { answers, next: Number(5), step: 2 };
        let mut arrivals = Vec::new();
        for piece in b"00017[ok] message sent00017[ok] message sent".chunks(10) {
            counter.feed(piece, |arrival| arrivals.push(arrival)).unwrap();
        }
        assert_eq!(arrivals, [5, 7].map(|number| Arrival::Message(Some(Number(number)))));
        assert!(counter.is_between_messages());
    }
}
