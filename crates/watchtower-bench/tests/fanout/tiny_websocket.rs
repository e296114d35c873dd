//! What of WebRocket and WebTalk a bench can be tried on.

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, TcpStream};

use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};

use crate::tiny_server::{Hub, SECRET, Subscriber, read};

/// What gives read-only access to the hub.
pub(crate) const READ_ONLY_SECRET: &str = "looked at";

/// The answer to the one key that the bench has [RFC 6455: 1.3].
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A protocol on WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    WebRocket,
    WebTalk,
}

impl Face {
    /// By the first line of a request.
    pub(crate) fn of(line: &str) -> Option<Self> {
        match line {
            "GET /webrocket HTTP/1.1" => Some(Self::WebRocket),
            "GET /webtalk HTTP/1.1" => Some(Self::WebTalk),
            _ => None,
        }
    }
}

/// A client on a WebSocket.
pub(crate) struct WebSocket {
    stream: TcpStream,
    face: Face,
    deflate: bool,
}

impl WebSocket {
    pub(crate) fn accept(mut stream: &TcpStream, face: Face, deflate: bool) -> io::Result<Self> {
        let extension = match deflate {
            true => "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
            false => "",
        };
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n{extension}\r\n"
        );
        stream.write_all(head.as_bytes())?;
        Ok(Self { stream: stream.try_clone()?, face, deflate })
    }

    pub(crate) fn deliver(&self, channel: u32, content: &[u8]) -> io::Result<()> {
        let content = String::from_utf8_lossy(content);
        let message = match self.face {
            Face::WebTalk => content.into_owned(),
            Face::WebRocket => {
                format!(r#"{{"event":"bench","channel":"{channel}","data":"{content}"}}"#)
            }
        };
        match self.deflate {
            true => self.write(0xc1, &deflate(message.as_bytes())),
            false => self.write(0x81, message.as_bytes()),
        }
    }

    pub(crate) fn ping(&self) -> io::Result<()> {
        self.write(0x89, b"are you there?")
    }

    pub(crate) fn close(&self, code: u16, reason: &str) -> io::Result<()> {
        self.write(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())?;
        self.stream.shutdown(Shutdown::Write)
    }

    fn say(&self, answer: &Value) -> io::Result<()> {
        self.write(0x81, answer.to_string().as_bytes())
    }

    fn write(&self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..126 => frame.push(length as u8),
            length @ ..=0xffff => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        { &self.stream }.write_all(&frame)
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, ..*self })
    }
}

/// A message as permessage-deflate has it.
fn deflate(message: &[u8]) -> Vec<u8> {
    let mut deflated = Vec::with_capacity(message.len() + 64);
    let mut compress = Compress::new(Compression::fast(), false);
    compress.compress_vec(message, &mut deflated, FlushCompress::Sync).unwrap();
    deflated.truncate(deflated.len() - 4);
    deflated
}

/// Opcode and payload of a client's frame.
fn read_frame(input: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let [first, second] = read(input)?;
    assert!(first & 0x80 != 0 && second & 0x80 != 0, "final and masked");
    let length = match second & 0x7f {
        126 => u16::from_be_bytes(read(input)?).into(),
        127 => u64::from_be_bytes(read(input)?),
        length => length.into(),
    };
    let mask: [u8; 4] = read(input)?;
    let mut payload = vec![0; length as usize];
    input.read_exact(&mut payload)?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first & 0x0f, payload))
}

impl Hub {
    pub(crate) fn serve_websocket(&self, socket: &WebSocket, mut input: impl BufRead) -> io::Result<()> {
        let mut access = None;
        let mut subscribed = false;
        loop {
            let (opcode, payload) = read_frame(&mut input)?;
            match (opcode, socket.face) {
                (9, _) => socket.write(0x8a, &payload)?,
                (10, _) => {
                    assert_eq!(payload, b"are you there?");
                    self.state.lock().unwrap().pongs += 1;
                    self.pong.notify_all();
                }
                (1, Face::WebTalk) => {
                    if !payload.ends_with(b"!salt") {
                        return socket.close(4001, "wrong salt");
                    }
                    self.subscribe(socket, &mut subscribed)?;
                }
                (1, Face::WebRocket) => {
                    let command: Value = serde_json::from_slice(&payload)?;
                    let answer = match access {
                        _ if command["auth"].is_object() => {
                            let auth = &command["auth"];
                            access = match (auth["access"].as_str(), auth["secret"].as_str()) {
                                (Some("read-write"), Some(SECRET)) => Some(true),
                                (Some("read-only"), Some(READ_ONLY_SECRET)) => Some(false),
                                _ => None,
                            };
                            access.ok_or("invalid_credentials")
                        }
                        Some(may_write) if command["subscribe"].is_object() => {
                            self.subscribe(socket, &mut subscribed)?;
                            Ok(may_write)
                        }
                        Some(true) => {
                            let publish = &command["publish"];
                            let channel = publish["channel"].as_str().unwrap().parse().unwrap();
                            self.publish(0, channel, publish["data"].as_str().unwrap().into())?;
                            Ok(true)
                        }
                        _ => Err("access_denied"),
                    };
                    socket.say(&answer.map_or_else(|code| json!({"err": code}), |_| json!({"ok": true})))?;
                }
                _ => return Err(io::Error::other(format!("unknown opcode {opcode}"))),
            }
        }
    }

    fn subscribe(&self, socket: &WebSocket, subscribed: &mut bool) -> io::Result<()> {
        if !std::mem::replace(subscribed, true) {
            let subscriber = Subscriber::WebSocket(socket.try_clone()?);
            self.state.lock().unwrap().subscribers.push(subscriber);
        }
        Ok(())
    }

    /// WebTalk's private link.
    pub(crate) fn serve_private(&self, stream: &TcpStream) -> io::Result<()> {
        let mut input = io::BufReader::new(stream);
        let mut logged_in = false;
        loop {
            let length: [u8; 5] = read(&mut input)?;
            let length: usize = String::from_utf8_lossy(&length).parse().unwrap();
            let mut command = vec![0; length];
            input.read_exact(&mut command)?;
            let command = String::from_utf8(command).unwrap();
            let (name, about) = command.split_once(']').unwrap();
            let about = about.trim_start();
            let reply = match name {
                "[login" => {
                    logged_in = about == SECRET;
                    if logged_in { "[ok] ".to_owned() } else { "[error] wrong secret".to_owned() }
                }
                _ if !logged_in => "[error] not logged in".to_owned(),
                "[newuser" | "[newchannel" => {
                    let mut state = self.state.lock().unwrap();
                    state.senders += 1;
                    let salt = if name == "[newuser" { "!salt" } else { "" };
                    format!("[ok] {}{salt}", 1 + state.senders)
                }
                "[shout" => {
                    let (channel, content) = about.split_once('!').unwrap();
                    self.publish(0, channel.parse().unwrap(), content.into())?;
                    "[ok] message sent".to_owned()
                }
                "[join" => "[ok] user joined".to_owned(),
                "[killuser" | "[killchannel" => {
                    self.state.lock().unwrap().senders -= 1;
                    "[ok] killed".to_owned()
                }
                _ => "[error] unknown command".to_owned(),
            };
            { stream }.write_all(format!("{:05}{reply}", reply.len()).as_bytes())?;
        }
    }
}
