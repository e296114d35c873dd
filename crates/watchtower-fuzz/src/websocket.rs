//! WebSocket: frames, compression, and the handshake before them.

use std::time::Duration;

use http::request::Parts;
use watchtower_hub::ChannelName;
use watchtower_protocols::websocket::{
    self, Client, CloseCode, Compression, Endpoint, Handler, Incoming, Outgoing, Settings,
};

use crate::scene::{Connection, NOW, hub};

/// The longest message, in bytes: few enough to be reached.
const MESSAGE_BYTES_MAX: usize = 4_000;

/// In how many pieces an input is sent at most.
const PIECES_MAX: usize = 600;

/// How much longer than its content a frame is at most, compressed or not.
const FRAME_BYTES_BESIDE: usize = 64;

/// Sends everything back, and does a few other things when it is told to.
struct Parrot;

impl Handler for Parrot {
    /// How many messages came.
    type State = usize;

    fn protocol(&self) -> &'static str {
        "parrot"
    }

    fn open(&self, client: &mut Client<'_>, _request: &Parts) -> usize {
        client.send(Outgoing::Text("hello"));
        0
    }

    fn inflated_bytes_max(&self, heard: &usize) -> usize {
        if *heard < 2 { 300 } else { usize::MAX }
    }

    fn message(&self, heard: &mut usize, client: &mut Client<'_>, message: Incoming<'_>) {
        *heard += 1;
        match message {
            Incoming::Text("close") => client.close(CloseCode::NORMAL, "as you wish"),
            Incoming::Text("pause") => client.pause(Duration::from_millis(5)),
            Incoming::Text("join") => drop(client.subscribe(&ChannelName::from(1))),
            Incoming::Text(text) => client.send(Outgoing::Text(text)),
            Incoming::Binary(bytes) => client.send(Outgoing::Binary(bytes)),
        }
    }
}

/// A client hears the same however what it sends is cut, with compression and without.
pub(crate) fn websocket(data: &[u8]) {
    for compression in [Compression::None, Compression::Deflate] {
        let whole = heard(compression, std::iter::once(data));
        // Byte by byte, unless that would take long.
        let slow = heard(compression, data.chunks(1 + data.len() / PIECES_MAX));
        assert!(whole == slow, "whole {whole:?}, in pieces {slow:?}");
    }
}

/// What a client hears that sends these pieces, and whether it is closed then.
fn heard<'a>(compression: Compression, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let hub = hub();
    let (request, ()) = http::Request::new(()).into_parts();
    let settings = Settings { message_bytes_max: MESSAGE_BYTES_MAX, ..Settings::default() };
    let socket = Endpoint::new(Parrot).accept(&hub, &request, compression, settings, NOW);
    let (mut connection, mut heard) = Connection::new(socket);
    let mut now = NOW;
    for piece in pieces {
        // All is taken, whatever it is: the decoder keeps what it needs.
        heard.extend(connection.send(piece, &mut now, MESSAGE_BYTES_MAX + FRAME_BYTES_BESIDE, 0));
    }
    (heard, connection.is_closed)
}

/// Any head is answered, and what is accepted says so in the headers that it must.
pub(crate) fn handshake(data: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    if !matches!(head.parse(data), Ok(httparse::Status::Complete(_))) {
        return;
    }
    let mut request = http::Request::builder()
        .method(head.method.unwrap_or_default())
        .uri(head.path.unwrap_or_default())
        .version(if head.version == Some(1) { http::Version::HTTP_11 } else { http::Version::HTTP_10 });
    for header in head.headers.iter() {
        request = request.header(header.name, header.value);
    }
    let Ok(request) = request.body(()) else { return };
    let (request, ()) = request.into_parts();
    match websocket::handshake(&request) {
        Ok(accepted) => {
            assert!(accepted.headers.contains_key(http::header::SEC_WEBSOCKET_ACCEPT));
            let compresses = accepted.compression != Compression::None;
            assert_eq!(accepted.headers.contains_key(http::header::SEC_WEBSOCKET_EXTENSIONS), compresses);
        }
        Err(refused) => assert!(refused.status().is_client_error()),
    }
    let spoken = websocket::subprotocol(&request.headers, &["mqtt", "chat"]);
    assert!(spoken.is_none_or(|spoken| ["mqtt", "chat"].contains(&spoken)));
}

/// A message as a client frames it, whose mask changes nothing.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ ..126) => frame.push(0x80 | length as u8),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The messages in what a server sent, which are whole frames without a mask.
pub(crate) fn messages(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut messages = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest)),
            127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest)),
            length => Some((u64::from(*length), rest)),
        }
        .expect("a whole head");
        let (payload, rest) = rest.split_at(usize::try_from(length).expect("a length"));
        messages.push((*first, payload));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame: {}", bytes.escape_ascii());
    messages
}
