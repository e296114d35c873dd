//! As little of a server as a bench can be tried on: it registers, joins and delivers, with a
//! thread for each connection, and can misbehave in the ways that a bench must notice.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::tiny_websocket::{Face, WebSocket};

pub(crate) const SECRET: &str = "tried";

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every seventh message goes to no UDP subscriber.
    LosesDatagrams,
    /// From the tenth message on, the first subscriber is told that it lags, and closed.
    ClosesSubscribers,
    /// Every message is delivered twice, the second copy with the next message.
    Repeats,
    /// The fifth message has a ping behind it, and the sixth waits for all pongs. No fault, but
    /// whoever does not answer it hears nothing more.
    Pings,
}

/// Serves on free ports, which it prints, until it is killed.
pub(crate) fn serve(fault: Fault) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let datagrams = UdpSocket::bind("127.0.0.1:0")?;
    let private = TcpListener::bind("127.0.0.1:0")?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening tcp {} packets,http", listener.local_addr()?)?;
    writeln!(out, "listening udp {} packets", datagrams.local_addr()?)?;
    writeln!(out, "listening tcp {} webtalk-private", private.local_addr()?)?;
    writeln!(out, "ready")?;
    out.flush()?;
    drop(out);
    run(&listener, datagrams, private, fault)
}

/// Serves from threads of this process, for as long as it lives; WebTalk's private link is the
/// second.
pub(crate) fn start_here() -> (SocketAddr, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let private = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = (address, private.local_addr().unwrap());
    thread::spawn(move || run(&listener, datagrams, private, Fault::None));
    addresses
}

fn run(listener: &TcpListener, datagrams: UdpSocket, private: TcpListener, fault: Fault) -> io::Result<()> {
    let hub = Arc::new(Hub { fault, state: Mutex::default(), pong: Condvar::new() });
    let applications = Arc::clone(&hub);
    thread::spawn(move || {
        for stream in private.incoming().map_while(Result::ok) {
            let hub = Arc::clone(&applications);
            thread::spawn(move || hub.serve_private(&stream));
        }
    });
    let datagrams = Arc::new(datagrams);
    let peers = Arc::clone(&hub);
    thread::spawn(move || peers.serve_datagrams(&datagrams));
    for stream in listener.incoming() {
        let (hub, stream) = (Arc::clone(&hub), stream?);
        stream.set_nodelay(true)?;
        thread::spawn(move || hub.serve_stream(&stream));
    }
    Ok(())
}

pub(crate) struct Hub {
    fault: Fault,
    pub(crate) state: Mutex<State>,
    /// Told of every pong.
    pub(crate) pong: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) senders: u32,
    pub(crate) pongs: usize,
    published: u32,
    last: Option<(u32, u32, Vec<u8>)>,
    /// In the order of their first join, each once.
    pub(crate) subscribers: Vec<Subscriber>,
    peers: HashMap<SocketAddr, usize>,
}

pub(crate) enum Subscriber {
    Packets(TcpStream),
    Peer(Arc<UdpSocket>, SocketAddr),
    Http { stream: TcpStream, events: bool },
    WebSocket(WebSocket),
    Gone,
}

impl Subscriber {
    fn deliver(&self, sender: u32, channel: u32, content: &[u8]) -> io::Result<()> {
        let mut packet = b"M".to_vec();
        packet.extend(sender.to_le_bytes());
        packet.extend(channel.to_le_bytes());
        packet.extend([0, 0]);
        packet.extend((content.len() as u32).to_le_bytes());
        packet.extend(content);
        match self {
            Self::Gone => Ok(()),
            Self::WebSocket(socket) => socket.deliver(channel, content),
            Self::Packets(stream) => { stream }.write_all(&packet),
            Self::Peer(socket, peer) => socket.send_to(&packet, peer).map(drop),
            Self::Http { stream, events } => {
                let content = String::from_utf8_lossy(content);
                let json = format!("{{\"channel\":{channel},\"sender\":{sender},\"message\":\"{content}\"}}");
                let body = match events {
                    true => format!("id: e:1\nevent: message\ndata: {json}\n\n"),
                    false => format!("{json}\n"),
                };
                { stream }.write_all(format!("{:x}\r\n{body}\r\n", body.len()).as_bytes())
            }
        }
    }
}

impl Hub {
    fn serve_stream(&self, stream: &TcpStream) -> io::Result<()> {
        let mut input = BufReader::new(stream);
        if input.fill_buf()?.first() == Some(&b'G') {
            return self.serve_http(stream, input);
        }
        let mut subscribed = false;
        loop {
            let mut answer = Vec::new();
            match self.read_packet(&mut input, &mut answer)? {
                Request::Register => (),
                Request::Join if subscribed => (),
                Request::Join => {
                    subscribed = true;
                    let subscriber = Subscriber::Packets(stream.try_clone()?);
                    self.state.lock().unwrap().subscribers.push(subscriber);
                }
                Request::Publish(sender, channel, content) => {
                    self.publish(sender, channel, content)?;
                }
            }
            { stream }.write_all(&answer)?;
        }
    }

    fn serve_datagrams(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        let mut datagram = vec![0; 65_536];
        loop {
            let (length, peer) = socket.recv_from(&mut datagram)?;
            let mut input = &datagram[..length];
            let mut answer = Vec::new();
            while !input.is_empty() {
                if let Request::Join = self.read_packet(&mut input, &mut answer)? {
                    let mut state = self.state.lock().unwrap();
                    let count = state.subscribers.len();
                    if state.peers.insert(peer, count).is_none() {
                        state.subscribers.push(Subscriber::Peer(Arc::clone(socket), peer));
                    }
                }
            }
            socket.send_to(&answer, peer)?;
        }
    }

    fn serve_http(&self, mut stream: &TcpStream, mut input: impl BufRead) -> io::Result<()> {
        let (mut events, mut deflate, mut face) = (false, false, None);
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let line = line.trim_end();
            events |= line == "Accept: text/event-stream";
            deflate |= line.starts_with("Sec-WebSocket-Extensions: permessage-deflate");
            face = face.or(Face::of(line));
            if line.is_empty() {
                break;
            }
        }
        if let Some(face) = face {
            return self.serve_websocket(&WebSocket::accept(stream, face, deflate)?, input);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n")?;
        let subscriber = Subscriber::Http { stream: stream.try_clone()?, events };
        self.state.lock().unwrap().subscribers.push(subscriber);
        input.read(&mut [0]).map(drop)
    }

    /// Carries out all but joins and publishing.
    fn read_packet(&self, input: &mut impl Read, answer: &mut Vec<u8>) -> io::Result<Request> {
        let [kind] = read(input)?;
        match kind {
            b'S' => {
                let [length] = read(input)?;
                let mut secret = vec![0; length.into()];
                input.read_exact(&mut secret)?;
                if secret != SECRET.as_bytes() {
                    answer.extend(b"E\x05\x0cwrong secret");
                    return Ok(Request::Register);
                }
                let mut state = self.state.lock().unwrap();
                state.senders += 1;
                answer.push(b'A');
                answer.extend(state.senders.to_le_bytes());
                Ok(Request::Register)
            }
            b'J' => {
                let _sender: [u8; 4] = read(input)?;
                let channel: [u8; 4] = read(input)?;
                answer.push(b'A');
                answer.extend(channel);
                Ok(Request::Join)
            }
            b'M' => {
                let [sender, channel, length] =
                    [read(input)?, read(input)?, read(input)?].map(u32::from_le_bytes);
                let mut content = vec![0; length as usize];
                input.read_exact(&mut content)?;
                Ok(Request::Publish(sender, channel, content))
            }
            other => Err(io::Error::other(format!("unknown packet {other}"))),
        }
    }

    pub(crate) fn publish(&self, sender: u32, channel: u32, content: Vec<u8>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.published += 1;
        if self.fault == Fault::Pings && state.published == 6 {
            let pinged = state.subscribers.len();
            state = self.pong.wait_while(state, |state| state.pongs < pinged).unwrap();
        }
        let state = &mut *state;
        let loses = self.fault == Fault::LosesDatagrams && state.published.is_multiple_of(7);
        // A publisher that joins does so first: the first subscriber has the index 1 then.
        if self.fault == Fault::ClosesSubscribers && state.published == 10 {
            let index = usize::from(matches!(state.subscribers[0], Subscriber::Packets(_)));
            match &mut state.subscribers[index] {
                Subscriber::Packets(stream) => {
                    stream.write_all(b"E\x08\x07lagging")?;
                    stream.shutdown(std::net::Shutdown::Both)?;
                }
                Subscriber::WebSocket(socket) => socket.close(1008, "lagging")?,
                _ => (),
            }
            state.subscribers[index] = Subscriber::Gone;
        }
        for subscriber in &state.subscribers {
            if loses && matches!(subscriber, Subscriber::Peer(..)) {
                continue;
            }
            if let (Fault::Repeats, Some((sender, channel, content))) = (self.fault, &state.last) {
                subscriber.deliver(*sender, *channel, content)?;
            }
            subscriber.deliver(sender, channel, &content)?;
            if let (Fault::Pings, 5, Subscriber::WebSocket(socket)) =
                (self.fault, state.published, subscriber)
            {
                socket.ping()?;
            }
        }
        state.last = Some((sender, channel, content));
        Ok(())
    }
}

enum Request {
    Register,
    Join,
    Publish(u32, u32, Vec<u8>),
}

pub(crate) fn read<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
