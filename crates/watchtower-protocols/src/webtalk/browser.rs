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

/// A browser's connection.
#[derive(Debug)]
pub enum Visitor {
    /// It has yet to say who it is.
    Unknown,
    /// It was not let in.
    Refused,
    /// It is a user.
    User(Login),
}

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
    type State = Visitor;

    fn protocol(&self) -> &'static str {
        "webtalk"
    }

    fn open(&self, _client: &mut Client<'_>, _request: &Parts) -> Visitor {
        Visitor::Unknown
    }

    fn message(&self, visitor: &mut Visitor, client: &mut Client<'_>, message: Incoming<'_>) {
        // What is said after the login is ignored.
        let Visitor::Unknown = visitor else { return };
        let credentials = match message {
            Incoming::Text(text) => text.as_bytes(),
            Incoming::Binary(bytes) => bytes,
        };
        *visitor = match self.welcome(client, credentials) {
            Some(login) => Visitor::User(login),
            None => {
                // One reason for all: which users there are is nobody's business.
                client.close(REFUSED, "wrong ID!SALT, or logged in already");
                Visitor::Refused
            }
        };
    }

    fn patience(&self, visitor: &Visitor) -> Option<Duration> {
        matches!(visitor, Visitor::Unknown).then(|| self.header_timeout())
    }

    fn out_of_patience(&self, visitor: &mut Visitor, client: &mut Client<'_>) {
        if let Visitor::Unknown = visitor {
            *visitor = Visitor::Refused;
            client.close(REFUSED, "no ID!SALT came in time");
        }
    }
}
