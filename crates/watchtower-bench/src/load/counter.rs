//! What a bench reads from a subscriber, whatever its wire.

use crate::error::WireError;
use crate::load::http::StreamCounter;
use crate::load::packets::{Arrival, PacketCounter};

/// Counts what arrives on one connection.
#[derive(Debug)]
pub(crate) enum Counter {
    /// Packets in a stream of bytes.
    Packets(PacketCounter),
    /// Whole packets, one or more a datagram.
    Datagrams,
    /// A join stream over HTTP.
    Stream(StreamCounter),
}

impl Counter {
    /// Takes what one read returned (for datagrams: one datagram) and hands on what it completes.
    ///
    /// # Errors
    /// What the peer did wrong or refused; the connection is of no use any more.
    pub(crate) fn feed(&mut self, input: &[u8], on: impl FnMut(Arrival)) -> Result<(), WireError> {
        match self {
            Self::Packets(counter) => counter.feed(input, on),
            Self::Stream(counter) => counter.feed(input, on),
            Self::Datagrams => {
                let mut counter = PacketCounter::default();
                counter.feed(input, on)?;
                if counter.is_between_packets() { Ok(()) } else { Err(WireError::PartialDatagram) }
            }
        }
    }

    /// Whether nothing of a message is outstanding.
    pub(crate) fn is_between_messages(&self) -> bool {
        match self {
            Self::Packets(counter) => counter.is_between_packets(),
            Self::Stream(counter) => counter.is_between_messages(),
            Self::Datagrams => true,
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
}
