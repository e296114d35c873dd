//! A client that listens.

use std::fmt;

use watchtower_hub::SenderId;

use crate::Resumed;
use crate::client::NextMessage;
use crate::http::HttpStream;
use crate::packets::PacketStream;
use crate::webrocket::WebRocketStream;

/// The messages of the subscribed channels, in the order of each channel.
///
/// Dropping it closes the connection. Over packets the joins stay for the
/// server's session time-out, so that a client that comes back soon misses
/// nothing; [`leave`](Subscription::leave) ends them at once.
pub struct Subscription {
    source: Source,
    sender: Option<SenderId>,
    resumed: Vec<Resumed>,
}

pub(crate) enum Source {
    Packets(PacketStream),
    Http(HttpStream),
    WebRocket(WebRocketStream),
}

impl Subscription {
    pub(crate) fn new(source: Source, sender: Option<SenderId>, resumed: Vec<Resumed>) -> Self {
        Subscription { source, sender, resumed }
    }

    /// Who listens; none over WebRocket, which has no senders.
    pub fn sender(&self) -> Option<SenderId> {
        self.sender
    }

    /// Where it goes on, for each channel: none unless it was made
    /// [with positions](crate::Client::subscribe_since).
    pub fn resumed(&self) -> &[Resumed] {
        &self.resumed
    }

    /// Waits for the next message; `None` when the server ended the connection.
    ///
    /// Cancelling it loses nothing: it can be one arm of a `select!`. A server
    /// that vanished without a word is noticed within a few minutes.
    ///
    /// # Errors
    /// [`Refused`](crate::ClientError::Refused) and
    /// [`Ended`](crate::ClientError::Ended) when the server says so, for instance
    /// before it closes a connection that lags; how the connection broke.
    pub async fn next(&mut self) -> NextMessage {
        match &mut self.source {
            Source::Packets(stream) => stream.next().await,
            Source::Http(stream) => stream.next().await,
            Source::WebRocket(stream) => stream.next().await,
        }
    }

    /// Leaves the channels and closes the connection, without waiting for an
    /// answer. Over HTTP closing the stream is leaving.
    pub async fn leave(self) {
        match self.source {
            Source::Packets(stream) => stream.leave().await,
            Source::WebRocket(stream) => stream.leave().await,
            Source::Http(_) => {}
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("sender", &self.sender).finish_non_exhaustive()
    }
}
