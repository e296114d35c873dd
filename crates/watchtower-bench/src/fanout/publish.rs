//! What the publisher writes to a server.

use std::ops::Range;

use crate::load::payload::Number;
use crate::load::{Source, packets};

/// Publishes packets to channels 1 to `channels` in turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PacketSource {
    pub(crate) sender: u32,
    pub(crate) channels: u32,
    pub(crate) size: usize,
}

impl Source for PacketSource {
    fn encode(&mut self, numbers: Range<u32>, out: &mut Vec<u8>) {
        out.reserve(numbers.len() * (packets::PUBLISH_HEADER_BYTES + self.size));
        for number in numbers {
            let channel = 1 + number % self.channels;
            packets::write_publish(self.sender, channel, Number(number), self.size, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_the_channels_in_turn() {
        let mut source = PacketSource { sender: 5, channels: 2, size: 8 };
        let mut out = Vec::new();
        source.encode(1..4, &mut out);
        assert_eq!(
            out,
            b"M\x05\0\0\0\x02\0\0\0\x08\0\0\x0000000001\
              M\x05\0\0\0\x01\0\0\0\x08\0\0\x0000000002\
              M\x05\0\0\0\x02\0\0\0\x08\0\0\x0000000003"
        );
    }
}
