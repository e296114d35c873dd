//! One WebSocket: what the feed tells, to one page.
//!
//! The page says nothing here; what it wants it posts.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, interval_at, timeout};

use super::feed::Subscription;

/// The longest message that a page may send: none is expected.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024;

/// How often a page is asked whether it is there. One that did not answer
/// before the next time is not.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long a page is waited for to say goodbye too.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a socket ends.
enum End {
    /// The page is gone, or takes nothing.
    Gone,
    /// It is told why.
    Because(u16, String),
}

/// Tells a page everything until it is gone, takes nothing for longer than
/// `patience`, or there is nothing more.
pub(super) async fn run(mut socket: WebSocket, subscription: Subscription, patience: Duration) {
    if let End::Because(code, reason) = talk(&mut socket, subscription, patience).await {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // Until the page has it: closing at once might take it back.
        let goodbye = async {
            if socket.send(close).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        };
        let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
    }
}

async fn talk(socket: &mut WebSocket, subscription: Subscription, patience: Duration) -> End {
    let Subscription { hello, mut updates } = subscription;
    if let Err(end) = send(socket, Message::Text(hello), patience).await {
        return end;
    }
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    let mut is_there = true;
    loop {
        let sent = tokio::select! {
            update = updates.recv() => match update {
                Ok(update) => send(socket, Message::Text(update), patience).await,
                Err(RecvError::Lagged(missed)) => Err(too_slow(missed)),
                Err(RecvError::Closed) => Err(End::Because(close_code::AWAY, "the node has ended".to_owned())),
            },
            heard = socket.recv() => {
                is_there = true;
                judge(heard.as_ref())
            }
            _ = ping.tick() => match std::mem::take(&mut is_there) {
                true => send(socket, Message::Ping(Utf8Bytes::from_static("").into()), patience).await,
                false => Err(End::Gone),
            },
        };
        if let Err(end) = sent {
            return end;
        }
    }
}

async fn send(socket: &mut WebSocket, message: Message, patience: Duration) -> Result<(), End> {
    match timeout(patience, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}

fn too_slow(missed: u64) -> End {
    End::Because(close_code::AGAIN, format!("too slow: {missed} updates were missed"))
}

fn judge(heard: Option<&Result<Message, axum::Error>>) -> Result<(), End> {
    match heard {
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
        Some(Ok(Message::Text(_) | Message::Binary(_))) => {
            Err(End::Because(close_code::POLICY, "nothing is said here: post it".to_owned()))
        }
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
    }
}
