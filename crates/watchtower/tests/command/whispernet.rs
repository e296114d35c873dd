//! A peer of the whispernet as others write them: it listens, it dials, and it reads JSON objects
//! one after another [whispernet: messages].

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// It takes any number of connections, and keeps what comes on them.
pub(crate) struct PlainPeer {
    pub(crate) address: SocketAddr,
    came: Receiver<Value>,
}

impl PlainPeer {
    pub(crate) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (objects, came) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, objects) = (stream.unwrap(), objects.clone());
                thread::spawn(move || {
                    let stream = serde_json::Deserializer::from_reader(BufReader::new(stream)).into_iter();
                    for object in stream.map_while(Result::ok) {
                        // The test may have ended.
                        let _ = objects.send(object);
                    }
                });
            }
        });
        Self { address, came }
    }

    /// The next object that has a `Body`.
    #[track_caller]
    pub(crate) fn message(&self) -> Value {
        loop {
            let object = self.came.recv_timeout(PATIENCE).expect("a message");
            if object.get("Body").is_some() {
                return object;
            }
        }
    }

    /// The next message says that.
    #[track_caller]
    pub(crate) fn expect(&self, body: &str) {
        assert_eq!(self.message()["Body"], body);
    }

    /// Says something to another peer.
    pub(crate) fn say(&self, to: SocketAddr, id: &str, nick: &str, body: &str) {
        let object = json!({"ID": id, "Addr": self.address.to_string(), "Nick": nick, "Body": body});
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(object.to_string().as_bytes()).unwrap();
    }
}
