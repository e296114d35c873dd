//! Clients as small as they can be, which say whether they were answered before the server was gone.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::SECRET;
use crate::support::{PATIENCE, Server};

/// Where a message stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
}

/// Requests, one after the other.
pub(crate) struct Http(BufReader<TcpStream>);

impl Http {
    pub(crate) fn connect(server: SocketAddr) -> io::Result<Http> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Http(BufReader::new(stream)))
    }

    fn write(&mut self, method: &str, target: &str, headers: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes())
    }

    /// The head of the next answer.
    fn head(&mut self) -> io::Result<(u16, usize)> {
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                return Ok((status.expect("a status line"), length));
            }
            match status {
                None => status = line.split(' ').nth(1).and_then(|status| status.parse().ok()),
                Some(_) => {
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.parse().unwrap();
                    }
                }
            }
        }
    }

    pub(crate) fn try_ask(&mut self, method: &str, target: &str, body: &str) -> io::Result<(u16, Value)> {
        self.write(method, target, "", body)?;
        let (status, length) = self.head()?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, serde_json::from_slice(&body).unwrap()))
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, target: &str, body: &Value) -> Value {
        let (status, answer) = self.try_ask(method, target, &body.to_string()).unwrap();
        assert_eq!(status, 200, "{target}: {answer}");
        answer
    }

    pub(crate) fn try_register(&mut self) -> io::Result<u64> {
        let body = json!({ "secret_key": SECRET }).to_string();
        Ok(self.try_ask("POST", "/register", &body)?.1["id"].as_u64().expect("an id"))
    }

    /// Publishes on channels that the sender has joined; where that stands, once it is known.
    pub(crate) fn try_broadcast(
        &mut self,
        sender: u64,
        channels: &Value,
        text: &str,
    ) -> io::Result<(u16, Value)> {
        let body = json!({ "sender": sender, "channels": channels, "message": text });
        self.try_ask("POST", "/broadcast", &body.to_string())
    }

    /// All that a channel keeps from its first message on, with its epoch.
    pub(crate) fn log(&mut self, sender: u64, channel: &str) -> (String, Vec<(u64, String)>) {
        let channel = channel.replace('/', "%2F");
        let mut since = "0000000000000000:0".to_owned();
        let mut all = Vec::new();
        loop {
            let page = self.ask(
                "GET",
                &format!("/channels/{channel}/history?sender={sender}&since={since}"),
                &json!({}),
            );
            let epoch = page["epoch"].as_str().unwrap_or_default().to_owned();
            let messages = page["messages"].as_array().unwrap();
            let Some(last) = messages.last() else { return (epoch, all) };
            since = format!("{epoch}:{}", last["offset"]);
            all.extend(messages.iter().map(|message| {
                (message["offset"].as_u64().unwrap(), message["message"].as_str().unwrap().to_owned())
            }));
        }
    }

    /// Follows a channel in JSON lines.
    pub(crate) fn follow(mut self, sender: u64, channel: &str, since: &str) -> Lines {
        let target = format!("/channels/join?channels={channel}&sender={sender}&since={since}");
        self.write("GET", &target, "", "").unwrap();
        assert_eq!(self.head().unwrap().0, 200);
        Lines(self.0)
    }
}

/// A stream of JSON lines.
pub(crate) struct Lines(BufReader<TcpStream>);

impl Lines {
    /// The next line, that of a chunk's length aside.
    pub(crate) fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream has ended");
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}

/// A client of WebRocket that may publish.
pub(crate) struct Rocket(BufReader<TcpStream>);

impl Rocket {
    pub(crate) fn connect(server: SocketAddr) -> io::Result<Rocket> {
        let Http(mut stream) = Http::connect(server)?;
        let upgrade = "GET /webrocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.get_mut().write_all(upgrade.as_bytes())?;
        let mut http = Http(stream);
        assert_eq!(http.head()?.0, 101);
        let mut rocket = Rocket(http.0);
        rocket.send(r#"{"auth": {"access": "read-write", "secret": ""}}"#)?;
        assert_eq!(rocket.next()?, r#"{"ok": true}"#);
        Ok(rocket)
    }

    /// Sends a text, masked with zeros.
    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let frame = [&[0x81, 0x80 | 126][..], &length, &[0; 4], text.as_bytes()].concat();
        self.0.get_mut().write_all(&frame)
    }

    /// The next text.
    pub(crate) fn next(&mut self) -> io::Result<String> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        assert_eq!(head[0], 0x81, "a text");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length)?;
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut text = vec![0; length];
        self.0.read_exact(&mut text)?;
        Ok(String::from_utf8(text).unwrap())
    }
}

/// A connection to a server that is there.
pub(crate) fn http(server: &Server) -> Http {
    Http::connect(server.tcp).unwrap()
}

/// Where a broadcast to one channel stands.
pub(crate) fn place(answer: &Value) -> Place {
    let message = &answer["messages"][0];
    let epoch = message["epoch"].as_str().expect("an epoch").to_owned();
    Place { epoch, offset: message["offset"].as_u64().expect("an offset") }
}
