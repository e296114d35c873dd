//! Every wire reaches every wire: the real binary, and clients that write and read the bytes of
//! its protocols' pages themselves, so that no fault of the codecs can hide behind itself. Over
//! WebSocket they are a browser and a package that others wrote.

#[path = "../../../watchtower-whisper/tests/peers/authority.rs"]
mod authority;
mod callbacks;
mod commands;
mod foreign;
mod http;
mod messages;
mod metrics;
mod newcomers;
mod operation;
mod packets;
mod pages;
mod receiver;
mod restart;
mod resume;
mod secrecy;
mod server;
mod subprotocols;
mod webrocket;
mod websockets;
mod webtalk;
mod whispernet;
mod wires;
