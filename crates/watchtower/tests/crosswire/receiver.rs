//! A receiver of callbacks that answers as a test wants it to.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::http::{header, read_head};
use super::server::{PATIENCE, SECRET};

/// A request's bytes, and when it was read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) at: Instant,
}

impl Request {
    /// The same at every attempt to deliver one message [http: callbacks].
    pub(crate) fn delivery(&self) -> &str {
        header(&self.head, "x-watchtower-delivery").unwrap()
    }

    /// What was published, where that was a string.
    pub(crate) fn text(&self) -> String {
        let message: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        message["message"].as_str().unwrap().to_owned()
    }

    /// That the server's secret signs this body at about this time [http: callbacks].
    #[track_caller]
    pub(crate) fn is_signed(&self) {
        let signature = header(&self.head, "x-watchtower-signature").unwrap();
        let (time, code) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(time.parse().unwrap()) < 300, "{signature}");
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("{time}.{}", self.body).as_bytes());
        let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(code, expected);
    }
}

/// How a receiver answers a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// This status line and these headers, without a body.
    Answer(String),
    /// Nothing, on a connection that stays open.
    Silence,
}

impl Reply {
    pub(crate) fn status(status: &str) -> Reply {
        Reply::Answer(status.to_owned())
    }
}

/// What it answers from now on: these first, each once, then always the last.
struct Script {
    first: Vec<Reply>,
    then: Reply,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    requests: mpsc::Receiver<Request>,
}

impl Receiver {
    /// One that accepts whatever comes.
    pub(crate) fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script { first: Vec::new(), then: Reply::status("200 OK") }));
        let (notice, requests) = mpsc::channel();
        let answers = script.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, notice) = (answers.clone(), notice.clone());
                thread::spawn(move || serve(stream, &answers, &notice));
            }
        });
        Receiver { address, script, requests }
    }

    /// Answers these, each once, and then always `then`.
    pub(crate) fn answers(&self, first: impl IntoIterator<Item = Reply>, then: Reply) {
        *self.script.lock().unwrap() = Script { first: first.into_iter().collect(), then };
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next request, whose signature is right.
    #[track_caller]
    pub(crate) fn next(&self) -> Request {
        self.next_within(PATIENCE)
    }

    #[track_caller]
    fn next_within(&self, patience: Duration) -> Request {
        let request = self.requests.recv_timeout(patience).expect("a callback");
        request.is_signed();
        request
    }

    /// That nobody called but who calls now.
    pub(crate) fn was_never_called(&self) {
        let mut own = TcpStream::connect(self.address).unwrap();
        own.write_all(b"GET /own HTTP/1.1\r\n\r\n").unwrap();
        let first = self.requests.recv_timeout(PATIENCE).unwrap();
        assert!(first.head.starts_with("GET /own "), "somebody called before: {first:?}");
    }
}

fn serve(stream: TcpStream, script: &Mutex<Script>, notice: &Sender<Request>) {
    let mut reader = BufReader::new(stream);
    // An error or an empty head: the server has hung up.
    while let Ok(head) = read_head(&mut reader)
        && !head.is_empty()
    {
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let at = Instant::now();
        let request = Request { head, body: String::from_utf8(body).unwrap(), at };
        let reply = {
            let mut script = script.lock().unwrap();
            if script.first.is_empty() { script.then.clone() } else { script.first.remove(0) }
        };
        if notice.send(request).is_err() {
            return;
        }
        if let Reply::Answer(status) = reply {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}
