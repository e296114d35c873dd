//! A client of the HTTP page: requests on a connection, and streams whose chunks are joined.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::server::{PATIENCE, SECRET, Server};

/// An answer of a known length. Every one carries the server's name [http].
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value, in the head of an answer or of a request.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.text()), (status, body));
    }
}

/// A header's value, in the head of an answer or of a request.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

/// Reads up to and with the empty line; empty where the peer has closed.
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            assert_eq!(head, "", "it ended within a head");
            break;
        }
    }
    Ok(head)
}

/// A connection that stays open from request to request.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(server: SocketAddr) -> Connection {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(BufReader::new(stream))
    }

    /// `headers` are whole lines.
    fn send(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) {
        let length = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n");
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
    }

    fn head(&mut self) -> (u16, String) {
        let head = read_head(&mut self.0).unwrap();
        let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {head:?}"));
        assert_eq!(header(&head, "x-server-name"), Some("Watchtower"), "{head}");
        (status.parse().unwrap(), head)
    }

    pub(crate) fn ask(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        self.send(method, target, headers, body);
        let (status, head) = self.head();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, head, body }
    }

    /// Whether the server has closed it.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.fill_buf().unwrap().is_empty()
    }
}

impl Server {
    /// One request on a connection of its own.
    pub(crate) fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        Connection::open(self.tcp).ask(method, target, headers, body)
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", b"")
    }

    pub(crate) fn post(&self, target: &str, body: &str) -> Answer {
        self.ask("POST", target, "Content-Type: application/json\r\n", body.as_bytes())
    }

    /// A new sender.
    pub(crate) fn register(&self) -> u32 {
        let answer = self.post("/register", &json!({ "secret_key": SECRET }).to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        u32::try_from(answer.json()["id"].as_u64().unwrap()).unwrap()
    }

    /// A new sender that has joined these channels to send.
    pub(crate) fn joined(&self, channels: &Value) -> u32 {
        let sender = self.register();
        let answer =
            self.post("/channels/join", &json!({ "sender": sender, "channels": channels }).to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        sender
    }

    /// Publishes, and answers the offset.
    pub(crate) fn broadcast(&self, sender: u32, channel: &Value, message: &str) -> u64 {
        let request = json!({ "sender": sender, "channels": [channel], "message": message });
        let answer = self.post("/broadcast", &request.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["messages"][0]["offset"].as_u64().unwrap()
    }

    pub(crate) fn epoch(&self, sender: u32, channel: &str) -> String {
        let answer = self.get(&format!("/channels/{channel}/history?sender={sender}"));
        answer.json()["epoch"].as_str().unwrap().to_owned()
    }

    /// A count in the text of `GET /metrics`; `name` with its labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.get("/metrics");
        let text = answer.text();
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next().map(|value| value.parse().unwrap())
    }
}

/// An open `GET /channels/join`.
pub(crate) struct Stream(BufReader<Chunks>);

impl Stream {
    /// Follows `channels`, and has read the sign of life that comes at once.
    pub(crate) fn open(server: &Server, channels: &str, sender: u32, accept: &str) -> Stream {
        let (mut stream, _) = Stream::open_with(server, channels, sender, &format!("Accept: {accept}\r\n"));
        match accept {
            "text/event-stream" => stream.expect(b":\n\n"),
            _ => stream.expect(b"\n"),
        }
        stream
    }

    /// The same, with whatever headers, and nothing but the head was read.
    pub(crate) fn open_with(server: &Server, channels: &str, sender: u32, headers: &str) -> (Stream, String) {
        let mut connection = Connection::open(server.tcp);
        let target = format!("/channels/join?channels={channels}&sender={sender}");
        connection.send("GET", &target, headers, b"");
        let (status, head) = connection.head();
        assert_eq!(status, 200, "{head}");
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        (Stream(BufReader::new(Chunks { connection: connection.0, left: 0, is_over: false })), head)
    }

    /// A line, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.strip_suffix('\n').unwrap_or_else(|| panic!("it ended within {line:?}")).to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[u8]) {
        let mut came = vec![0; expected.len()];
        self.0.read_exact(&mut came).unwrap();
        assert_eq!(came, expected, "{:?}", String::from_utf8_lossy(&came));
    }

    /// All that comes up to its orderly end.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).unwrap();
        rest
    }
}

/// The bytes within the chunks of a response.
struct Chunks {
    connection: BufReader<TcpStream>,
    /// What of the present chunk is unread.
    left: usize,
    is_over: bool,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over {
            let mut head = String::new();
            self.connection.read_line(&mut head)?;
            let length = head.strip_suffix("\r\n").map(|length| usize::from_str_radix(length, 16).unwrap());
            self.left = length.unwrap_or_else(|| panic!("it was cut off at {head:?}"));
            self.is_over = self.left == 0;
            if self.is_over {
                self.chunk_end()?;
            }
        }
        let most = out.len().min(self.left);
        let read = self.connection.read(&mut out[..most])?;
        assert!(read > 0 || most == 0, "it was cut off within a chunk");
        self.left -= read;
        if read > 0 && self.left == 0 {
            self.chunk_end()?;
        }
        Ok(read)
    }
}

impl Chunks {
    fn chunk_end(&mut self) -> io::Result<()> {
        let mut end = [0; 2];
        self.connection.read_exact(&mut end)?;
        assert_eq!(end, *b"\r\n");
        Ok(())
    }
}
