//! A connection while it is set up: what is asked is waited for, one thing after the other.

use crate::error::{Error, WireError};
use crate::load::packets::Arrival;
use crate::load::{Counter, Link, Socket};

/// What one read of an answer takes.
const ANSWER_READ_BYTES: usize = 64 * 1024;

/// A connection on which something is asked and answered.
pub(crate) struct Conversation {
    pub(crate) link: Link,
    name: String,
}

impl Conversation {
    pub(crate) fn new(socket: Socket, counter: Counter, name: String) -> Self {
        Self { link: Link { socket, counter }, name }
    }

    /// Says which connection it was.
    pub(crate) fn error(&self, source: WireError) -> Error {
        Error::peer(self.name.as_str())(source)
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        self.link.socket.send(bytes).map_err(Error::io(format!("write to {}", self.name)))
    }

    /// Sends, and waits for so many acknowledgements.
    pub(crate) fn ask(&mut self, request: &[u8], answers: usize) -> Result<Vec<u32>, Error> {
        self.send(request)?;
        let mut acknowledged = Vec::with_capacity(answers);
        while acknowledged.len() < answers {
            self.receive(|counter, answer| {
                counter.feed(answer, |arrival| {
                    if let Arrival::Acknowledged(id) = arrival {
                        acknowledged.push(id);
                    }
                })
            })?;
        }
        Ok(acknowledged)
    }

    /// Reads once, and has what came looked at.
    pub(crate) fn receive(
        &mut self,
        look: impl FnOnce(&mut Counter, &[u8]) -> Result<(), WireError>,
    ) -> Result<(), Error> {
        let Link { socket, counter } = &mut self.link;
        let mut buffer = vec![0; ANSWER_READ_BYTES];
        let length = socket.receive(&mut buffer, &self.name)?;
        look(counter, buffer.get(..length).unwrap_or_default()).map_err(Error::peer(self.name.as_str()))?;
        match counter.take_owed() {
            Some(owed) => self.send(&owed),
            None => Ok(()),
        }
    }
}
