//! A message as a line of output, for `sub` and `history`.

use std::io::{self, IsTerminal};

use watchtower_client::{Message, SenderId};

/// How a message becomes a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineForm {
    json: bool,
    /// Whether control characters would reach a terminal.
    terminal: bool,
}

impl LineForm {
    /// For standard output as it is.
    pub(super) fn for_output(json: bool) -> LineForm {
        LineForm { json, terminal: io::stdout().is_terminal() }
    }
}

/// The line, without its end.
pub(super) fn line(message: &Message, form: LineForm) -> Vec<u8> {
    let LineForm { json, terminal } = form;
    if json {
        let json = message.to_json();
        return if terminal { json_for_terminal(&json).into() } else { json.into() };
    }
    let sender = message.sender.map(SenderId::get);
    let sender = sender.map_or_else(|| "-".to_owned(), |sender| sender.to_string());
    let mut line = format!("{} {sender} ", message.channel).into_bytes();
    let content = message.content.bytes();
    if terminal {
        line.extend(for_terminal(&String::from_utf8_lossy(content)).bytes());
        return line;
    }
    for byte in content {
        match byte {
            b'\n' => line.extend(b"\\n"),
            b'\r' => line.extend(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line
}

/// Text that moves no cursor and changes no colour.
fn for_terminal(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// JSON escapes the control characters of ASCII by itself; what is left stands within strings.
fn json_for_terminal(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use watchtower_client::{ChannelName, Content};

    use super::*;

    fn check(content: Content, json: bool, terminal: bool, expected: &[u8]) {
        let message = Message {
            channel: ChannelName::from(5),
            sender: SenderId::new(72),
            direct: false,
            content,
            event: None,
            position: None,
            time: None,
        };
        let line = line(&message, LineForm { json, terminal });
        assert_eq!(line, expected, "{:?}", String::from_utf8_lossy(&line));
    }

    #[test]
    fn a_message_is_one_line_of_channel_sender_and_content() {
        check(Content::text("hello"), false, false, b"5 72 hello");
        check(Content::text("hello"), false, true, b"5 72 hello");
        check(Content::text("a\r\nb\tc\\"), false, false, b"5 72 a\\r\\nb\tc\\");
        check(Content::binary(vec![0xff, b'\n', 0]), false, false, b"5 72 \xff\\n\x00");
    }

    #[test]
    fn nothing_in_a_message_reaches_a_terminal_as_a_control_character() {
        let hostile = Content::text("\u{1b}[2J\u{7}\u{7f}\u{9b}31m\n");
        check(hostile.clone(), false, true, b"5 72 \\u{1b}[2J\\u{7}\\u{7f}\\u{9b}31m\\n");
        check(Content::binary(vec![0xff, 0x1b]), false, true, "5 72 \u{fffd}\\u{1b}".as_bytes());
        check(
            hostile,
            true,
            true,
            br#"{"channel":5,"sender":72,"message":"\u001b[2J\u0007\u007f\u009b31m\n"}"#,
        );
    }

    #[test]
    fn json_goes_to_a_program_as_it_is() {
        let expected = "{\"channel\":5,\"sender\":72,\"message\":\"\u{9b}\"}";
        check(Content::text("\u{9b}"), true, false, expected.as_bytes());
    }
}
