//! Writing JSON into the buffer of a frame. Knows no protocol.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};
use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use watchtower_hub::Timestamp;

/// Times with milliseconds, as in `2026-11-21T10:00:00.000Z`.
static TIME_PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// Appends a JSON string.
pub(crate) fn write_string(text: &str, out: &mut BytesMut) {
    let written = serde_json::to_writer(out.writer(), text);
    debug_assert!(written.is_ok(), "a buffer takes all that is written to it");
}

/// Appends base64, without quotes.
pub(crate) fn write_base64(bytes: &[u8], out: &mut BytesMut) {
    let start = out.len();
    let length = bytes.len().div_ceil(3) * 4;
    out.resize(start + length, 0);
    let written = BASE64.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(written, Ok(length));
}

/// Appends a text as it is.
pub(crate) fn write_text(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    let written = std::fmt::Write::write_fmt(out, text);
    debug_assert!(written.is_ok(), "a buffer takes all that is written to it");
}

/// Appends a time as a JSON string. Times after the year 9999 are shown as its
/// end.
pub fn write_time(time: Timestamp, out: &mut BytesMut) {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    out.put_u8(b'"');
    let written = TIME_PRINTER.print_timestamp(&time, StdFmtWrite(&mut *out));
    debug_assert!(written.is_ok(), "a buffer takes all that is written to it");
    out.put_u8(b'"');
}
