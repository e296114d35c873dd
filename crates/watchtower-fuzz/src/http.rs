//! HTTP: any bytes on a connection, from the first head to the end.

use watchtower_server::http::fuzzing::Answers;

/// Ends a head. Of one that has no end it depends on the pieces when it is refused: what comes in
/// several is looked at once it is whole.
const END: &[u8] = b"\r\n\r\n";

/// Each answer is a whole head, and the answers are the same however the requests are cut, up to
/// where the connection ends: a request that is refused before its body has come ends it, unless
/// the body came with it.
pub(crate) fn http(data: &[u8]) {
    let data = [data, END].concat();
    let whole = Answers::new().to([data.as_slice()]);
    let slow = Answers::new().to(data.chunks(1));
    let is_same = whole.starts_with(&slow) || slow.starts_with(&whole);
    assert!(is_same, "whole: {}\nbyte by byte: {}", whole.escape_ascii(), slow.escape_ascii());
    assert!(whole.is_empty() || whole.starts_with(b"HTTP/1."), "{}", whole.escape_ascii());
}
