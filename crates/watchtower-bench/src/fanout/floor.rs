//! The load side of the bare loop: learns what a subscriber's bytes look like, and has the loop
//! write them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, WireError};
use crate::floor::{READY, Transport, write_burst, write_opening};
use crate::load::http::{ChunkReader, StreamCounter};
use crate::load::packets::Arrival;
use crate::load::payload::Number;
use crate::load::websocket::{self, FrameCounter, Reading};
use crate::load::{Copies, Counter, Link, Load, Publisher, READ_BYTES, Socket, Source};
use crate::options::{Options, Protocol};
use crate::process::{Addresses, Process};
use crate::progress::{Phase, Progress};
use crate::side::Side;
use crate::topology::{Audience, Topology};

/// How many bytes of messages the bare loop puts into one datagram: what still fits the packets of
/// an ordinary network [packets: rules].
const DATAGRAM_PACKED_BYTES_MAX: usize = 1400;

/// The bare loop with its sockets.
pub(crate) struct Floor {
    process: Process,
    load: Load,
}

impl Floor {
    /// Has the server deliver one message, to see its bytes, then starts the bare loop and
    /// connects to it as often as to the server.
    pub(crate) fn start(
        options: &Options,
        core: Option<usize>,
        publishers: &mut [Publisher],
        subscribers: &mut [Link],
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        let template = Template::learn(options, publishers, subscribers)?;
        let process = Process::start(&options.floor_command, core)?;
        let load = connect(options, process.addresses(), template, progress)?;
        Ok(Self { process, load })
    }

    pub(crate) fn into_side(self) -> Result<Side, Error> {
        Side::owning(self.load, self.process)
    }
}

/// Connects the control connection and as many sockets as there are subscribers.
fn connect(
    options: &Options,
    addresses: Addresses,
    template: Template,
    progress: &mut dyn Progress,
) -> Result<Load, Error> {
    let subscribers = options.topology().subscribers();
    progress.begin(Phase::ConnectingFloor, subscribers.into());
    let transport = match options.protocol {
        Protocol::Udp => Transport::Udp,
        _ => Transport::Tcp,
    };
    let connecting = || Error::io("connect to the bare loop");
    let control = Socket::stream(addresses.tcp).map_err(connecting())?;
    let mut opening = Vec::new();
    write_opening(transport, subscribers, &mut opening);
    control.send(&opening).map_err(connecting())?;

    let mut sockets = Vec::with_capacity(subscribers as usize);
    for _ in 0..subscribers {
        sockets.push(match transport {
            Transport::Tcp => Socket::stream(addresses.tcp).map_err(connecting())?,
            Transport::Udp => {
                let socket = Socket::datagrams(addresses.udp).map_err(connecting())?;
                socket.send(&[READY]).map_err(connecting())?;
                socket.receive(&mut [0; 1], "the bare loop")?;
                socket
            }
        });
        progress.done(sockets.len() as u64);
    }
    control.receive(&mut [0; 1], "the bare loop")?;

    let counter = |protocol: Protocol| match (protocol.stream_form(), protocol) {
        (Some(form), _) => Counter::Stream(StreamCounter::in_body(form)),
        (None, Protocol::WebRocket | Protocol::WebTalk) => template.frame_counter(protocol),
        (None, _) => protocol.packet_counter(),
    };
    let links =
        sockets.into_iter().map(|socket| Link { socket, counter: counter(options.protocol) }).collect();
    // Its copy comes in a stream of bytes, whatever the subscribers have.
    let control = Link {
        socket: control,
        counter: match options.protocol {
            Protocol::Udp => counter(Protocol::Tcp),
            other => counter(other),
        },
    };
    let publisher = Publisher { link: control, source: Box::new(template) };
    let copies = Copies { answers: vec![1], apart: None, ..options.copies() };
    Load::new(links, vec![publisher], copies, options.pace, options.protocol.patience())
}

/// The bytes of one message as a subscriber gets it, with the place of its content.
///
/// The bare loop writes them with each message's own number in its place; what else may differ
/// from message to message (an offset, a time) stays as it was, and as long.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    framing: Framing,
    bytes: Vec<u8>,
    /// Where the number stands in `bytes`; `None` if it is deflated. Then every message has that of
    /// the first, and counts as the next one.
    number_at: Option<usize>,
    /// Which sockets a message is written to.
    topology: Topology,
}

/// How the messages of a burst are put together for one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// One after the other.
    Stream,
    /// As many as fit in a datagram.
    Datagrams,
    /// All in one chunk.
    Chunk,
}

impl Template {
    /// Publishes message 0 and takes what the first subscriber reads.
    fn learn(
        options: &Options,
        publishers: &mut [Publisher],
        subscribers: &mut [Link],
    ) -> Result<Self, Error> {
        let name = "subscriber 0";
        let (Some(publisher), Some(Link { socket, counter })) =
            (publishers.first_mut(), subscribers.first_mut())
        else {
            return Err(Error::Options("there must be a publisher and a subscriber".into()));
        };
        let mut request = Vec::new();
        publisher.source.encode(0..1, &mut request);
        publisher.link.socket.send(&request).map_err(Error::io("publish"))?;

        let mut read = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut arrived = false;
        while !(arrived && counter.is_between_messages()) {
            let length = socket.receive(&mut buffer, name)?;
            let bytes = buffer.get(..length).unwrap_or_default();
            read.extend_from_slice(bytes);
            let on = |arrival| arrived |= arrival == Arrival::Message(Some(Number(0)));
            counter.feed(bytes, on).map_err(Error::peer(name))?;
        }
        Self::from_bytes(options, &read).map_err(Error::peer(name))
    }

    /// Takes the framing off what was read of message 0.
    fn from_bytes(options: &Options, read: &[u8]) -> Result<Self, WireError> {
        let Options { protocol, size, .. } = *options;
        let (framing, bytes) = match protocol {
            Protocol::Tcp => (Framing::Stream, read.to_vec()),
            Protocol::Udp => (Framing::Datagrams, read.to_vec()),
            Protocol::WebRocket | Protocol::WebTalk => {
                let frame = websocket::last_message(read);
                (Framing::Stream, frame.unwrap_or_default().to_vec())
            }
            Protocol::Http | Protocol::Sse => {
                let mut body = Vec::new();
                ChunkReader::default().feed(read, |part| {
                    body.extend_from_slice(part);
                    Ok(())
                })?;
                // Heartbeats that came before it.
                (Framing::Chunk, body.trim_ascii_start().to_vec())
            }
        };
        let mut content = Vec::new();
        Number(0).write_content(size, &mut content);
        let number_at = memchr::memmem::find(&bytes, &content);
        let is_deflated = protocol.is_websocket() && websocket::is_deflated(&bytes);
        if number_at.is_none() && !is_deflated {
            return Err(WireError::Framing("a message lacks its content"));
        }
        Ok(Self { framing, bytes, number_at, topology: options.topology() })
    }

    /// What counts these messages if they are frames.
    fn frame_counter(&self, protocol: Protocol) -> Counter {
        let reading = match (self.number_at, protocol) {
            (None, _) => Reading::Nothing,
            (Some(_), Protocol::WebTalk) => Reading::WebTalk,
            (Some(_), _) => Reading::WebRocket,
        };
        let frames = Counter::Frames(FrameCounter::new(reading, None));
        match reading {
            Reading::Nothing => Counter::InOrder { answers: Box::new(frames), next: Number(1), step: 1 },
            _ => frames,
        }
    }

    /// Appends the bytes of one message.
    fn write(&self, number: Number, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let Some(at) = self.number_at.map(|at| start + at) else { return };
        let digits = number.digits();
        if let Some(place) = out.get_mut(at..at + digits.len()) {
            place.copy_from_slice(&digits);
        }
    }

    /// A burst, as each piece is written to every subscriber of a channel.
    fn pieces(&self, numbers: &[u32]) -> Vec<Vec<u8>> {
        let write_all = |numbers: &[u32]| {
            let mut bytes = Vec::with_capacity(numbers.len() * self.bytes.len());
            numbers.iter().for_each(|number| self.write(Number(*number), &mut bytes));
            bytes
        };
        match self.framing {
            Framing::Stream => vec![write_all(numbers)],
            Framing::Chunk => {
                let mut chunk = format!("{:x}\r\n", numbers.len() * self.bytes.len()).into_bytes();
                chunk.extend(write_all(numbers));
                chunk.extend_from_slice(b"\r\n");
                vec![chunk]
            }
            Framing::Datagrams => {
                let packed = (DATAGRAM_PACKED_BYTES_MAX / self.bytes.len()).max(1);
                numbers.chunks(packed).map(write_all).collect()
            }
        }
    }
}

impl Source for Template {
    fn encode(&mut self, numbers: Range<u32>, out: &mut Vec<u8>) {
        if let Audience::OfAll(count) = self.topology.audience {
            let numbers: Vec<u32> = numbers.collect();
            return write_burst(0..count, &self.pieces(&numbers), out);
        }
        let mut by_channel = BTreeMap::<u32, Vec<u32>>::new();
        for number in numbers {
            by_channel.entry(self.topology.channel_of(number)).or_default().push(number);
        }
        for (channel, numbers) in by_channel {
            write_burst(self.topology.listeners(channel), &self.pieces(&numbers), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(protocol: Protocol, read: &[u8]) -> Result<Template, WireError> {
        Template::from_bytes(&Options { protocol, size: 10, ..Options::default() }, read)
    }

    const PACKET: &[u8] = b"M\x05\0\0\0\x01\0\0\0\0\0\x0a\0\0\x0000000000xx";

    #[test]
    fn a_window_for_streams_is_one_piece() {
        let template = learn(Protocol::Tcp, PACKET).unwrap();
        assert_eq!(
            template.pieces(&[0x1a, 0x1b]),
            [[
                b"M\x05\0\0\0\x01\0\0\0\0\0\x0a\0\0\x000000001axx".as_slice(),
                b"M\x05\0\0\0\x01\0\0\0\0\0\x0a\0\0\x000000001bxx",
            ]
            .concat()]
        );
    }

    #[test]
    fn a_window_for_datagrams_is_packed_into_few() {
        let template = learn(Protocol::Udp, PACKET).unwrap();
        let lengths: Vec<_> = template.pieces(&(1..101).collect::<Vec<_>>()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [56 * PACKET.len(), 44 * PACKET.len()]);
        let large = Template { bytes: vec![b'x'; 1401], ..template };
        assert_eq!(large.pieces(&[1, 2]).len(), 2);
    }

    #[test]
    fn a_window_for_http_streams_is_one_chunk_of_what_the_server_sent() {
        let read = b"1\r\n\n\r\n25\r\n{\"channel\":1,\"message\":\"00000000xx\"}\n\r\n";
        let template = learn(Protocol::Http, read).unwrap();
        assert_eq!(
            template.pieces(&[1, 2]),
            [b"4a\r\n{\"channel\":1,\"message\":\"00000001xx\"}\n\
               {\"channel\":1,\"message\":\"00000002xx\"}\n\r\n"]
        );
    }

    #[test]
    fn each_channel_is_a_burst_to_its_own_sockets() {
        let many = Topology { publishers: 1, channels: 2, audience: Audience::OfEach(3) };
        let mut template = Template { topology: many, ..learn(Protocol::Tcp, PACKET).unwrap() };
        let mut written = Vec::new();
        template.encode(1..4, &mut written);
        let mut expected = Vec::new();
        write_burst(0..3, &template.pieces(&[2]), &mut expected);
        write_burst(3..6, &template.pieces(&[1, 3]), &mut expected);
        assert_eq!(written, expected);
    }

    #[test]
    fn bytes_without_the_content_are_no_message() {
        let error = learn(Protocol::Tcp, b"A\x01\0\0\0").unwrap_err();
        assert!(error.to_string().contains("lacks its content"), "{error}");
    }
}
