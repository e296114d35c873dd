//! HTTP: any bytes on a connection, from the first head to the end.

use fastrand::Rng;
use watchtower_server::http::fuzzing::Answers;

/// Ends a head. Of one that has no end it depends on the pieces when it is refused: what comes in
/// several is looked at once it is whole.
const END: &[u8] = b"\r\n\r\n";

/// How many pieces an input comes in at most, which is byte by byte for those that are no longer.
/// With each piece all of a head is read again: for long ones that would be all that is done.
const PIECES_MAX: usize = 256;

/// Each answer is a whole head, and the answers are the same however the requests are cut, up to
/// where the connection ends: a request that is refused before its body has come ends it, unless
/// the body came with it.
pub(crate) fn http(data: &[u8]) {
    let data = [data, END].concat();
    let whole = Answers::new().to([data.as_slice()]);
    let slow = Answers::new().to(pieces(&data));
    let is_same = whole.starts_with(&slow) || slow.starts_with(&whole);
    assert!(is_same, "whole: {}\nin pieces: {}", whole.escape_ascii(), slow.escape_ascii());
    assert!(whole.is_empty() || whole.starts_with(b"HTTP/1."), "{}", whole.escape_ascii());
}

/// The same input is cut at the same places each time, and one that differs at others.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let seed = data.iter().fold(0_u64, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte));
    let mut cuts: Vec<usize> = if data.len() <= PIECES_MAX {
        (1..data.len()).collect()
    } else {
        Rng::with_seed(seed).choose_multiple(1..data.len(), PIECES_MAX - 1)
    };
    cuts.sort_unstable();
    let ends = cuts.clone().into_iter().chain([data.len()]);
    std::iter::once(0).chain(cuts).zip(ends).map(|(start, end)| &data[start..end])
}
