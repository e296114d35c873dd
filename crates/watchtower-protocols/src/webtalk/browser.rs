//! The public side: a user's browser on a WebSocket ([webtalk: public side]).
//!
//! It says who it is and then listens. What it hears is what the default codec
//! of [`websocket`](crate::websocket) makes of a message: its content, with
//! nothing around it.

use std::time::Duration;

use http::request::Parts;

use super::WebTalk;
use super::command;
use super::frame::split_once;
use super::user::Login;
use crate::websocket::{Client, CloseCode, Handler, Incoming};

/// The code that a browser is closed with that is not let in.
const REFUSED: CloseCode = CloseCode::new(4001).expect("a code of our own");

/// The longest compressed message of a browser that has yet to log in, in bytes:
/// more than any `ID!SALT` has.
const LOGIN_BYTES_MAX: usize = 256;

impl WebTalk {
    /// Reads `ID!SALT`.
    fn welcome(&self, client: &mut Client<'_>, credentials: &[u8]) -> Option<Login> {
        let (id, salt) = split_once(credentials, b'!')?;
        let login = self.log_in(command::id(id).ok()?, salt, client.closer(), client.now())?;
        client.adopt(login.session());
        Some(login)
    }
}

impl Handler for WebTalk {
    /// `None` until the browser has said who it is.
    type State = Option<Login>;

    fn protocol(&self) -> &'static str {
        "webtalk"
    }

    fn open(&self, _client: &mut Client<'_>, _request: &Parts) -> Option<Login> {
        None
    }

    fn inflated_bytes_max(&self, login: &Option<Login>) -> usize {
        if login.is_some() { usize::MAX } else { LOGIN_BYTES_MAX }
    }

    fn message(&self, login: &mut Option<Login>, client: &mut Client<'_>, message: Incoming<'_>) {
        // What is said after the login is ignored.
        if login.is_some() {
            return;
        }
        let credentials = match message {
            Incoming::Text(text) => text.as_bytes(),
            Incoming::Binary(bytes) => bytes,
        };
        *login = self.welcome(client, credentials);
        if login.is_none() {
            // One reason for all: which users there are is nobody's business.
            client.close(REFUSED, "wrong ID!SALT, or logged in already");
        }
    }

    fn patience(&self, login: &Option<Login>) -> Option<Duration> {
        login.is_none().then(|| self.header_timeout())
    }

    fn out_of_patience(&self, login: &mut Option<Login>, client: &mut Client<'_>) {
        if login.is_none() {
            client.close(REFUSED, "no ID!SALT came in time");
        }
    }
}
