//! What is fuzzed: one function for each decoder and each session machine.
//!
//! A [`Target`] takes any bytes and panics when something is not as it must be: whatever comes,
//! nothing panics, an answer is no longer than its bound, and it is the same whether the input
//! came whole or byte by byte. Some targets read their input as a sequence of what several
//! clients do.
//!
//! The folder `fuzz` hands these functions to libFuzzer; a test of this crate hands them their
//! corpora and mutations of these. Neither knows what a target does.

mod client;
mod config;
mod content;
pub mod corpus;
mod folder;
mod http;
mod packets;
mod scene;
mod script;
mod store;
mod webrocket;
mod websocket;
mod webtalk;
mod whispernet;

/// Something to be fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As the fuzzer's command and the corpus call it.
    pub name: &'static str,
    /// Tries one input.
    ///
    /// # Panics
    ///
    /// When something is not as it must be.
    pub run: fn(&[u8]),
    /// Inputs that are worth to be tried first, as [`corpus::parse`] reads them.
    pub corpus: &'static str,
}

macro_rules! targets {
    ($($name:ident: $run:path,)*) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $run,
            corpus: include_str!(concat!("../corpus/", stringify!($name), ".txt")),
        }),*];
    };
}

targets! {
    packets_codec: packets::codec,
    packets_stream: packets::stream,
    packets_peer: packets::peer,
    packets_crowd: packets::crowd,
    websocket: websocket::websocket,
    handshake: websocket::handshake,
    webrocket: webrocket::webrocket,
    webtalk_link: webtalk::link,
    webtalk: webtalk::webtalk,
    whispernet_objects: whispernet::objects,
    whispernet_node: whispernet::node,
    http: http::http,
    content: content::content,
    store_files: store::files,
    store_text: store::text,
    store_frame: store::frame,
    config: config::config,
    client: client::client,
}

impl Target {
    /// The target of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Target> {
        TARGETS.iter().find(|target| target.name == name).copied()
    }
}
