//! The client against small servers that speak exact bytes.

mod http;
mod tcp;
mod udp;
mod webrocket;

use watchtower_client::{ChannelName, Options, SenderId};

/// Bytes from hexadecimal text, blanks ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| !character.is_whitespace())
        .map(|character| character.to_digit(16).unwrap() as u8)
        .collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

fn sender(id: u32) -> SenderId {
    SenderId::new(id).unwrap()
}

/// From here on nobody waits for answers that never come: the clock jumps when all wait. What is
/// to be answered comes before, by the clock of the machine, however busy that is.
fn nothing_is_answered_any_more() {
    tokio::time::pause();
}

fn with_secret(secret: &str) -> Options {
    Options { secret: Some(secret.to_owned()), ..Options::default() }
}

#[test]
fn options_do_not_show_the_secret() {
    let shown = format!("{:?}", with_secret("tower"));
    assert!(shown.contains("(not shown)") && !shown.contains("tower"), "{shown}");
}
