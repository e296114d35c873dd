//! Whether the head of a request is there.
//!
//! Judges nothing: what is no head is hyper's to refuse.

use httparse::{EMPTY_HEADER, Request};

use super::connection::HEADERS_MAX;

/// Whether `bytes` begin a request whose head goes on behind them. The first
/// `seen` of them were asked about before, or it is 0.
///
/// What could not become a head is no half of one, but that is looked for the
/// first time only: what comes late is searched for its end alone, or a client
/// that sends byte by byte would have each of them read a thousand times.
pub(crate) fn is_half_a_head(bytes: &[u8], seen: usize) -> bool {
    if seen == 0 {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        return matches!(Request::new(&mut headers).parse(bytes), Ok(httparse::Status::Partial));
    }
    let new = bytes.get(seen.saturating_sub(2)..).unwrap_or_default();
    !(new.windows(2).any(|end| end == b"\n\n") || new.windows(3).any(|end| end == b"\n\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_there_when_its_empty_line_is_however_it_comes() {
        for head in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"GET / HTTP/1.1\r\nHost: x\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
        ] {
            for first in 1..head.len() {
                assert!(is_half_a_head(&head[..first], 0), "{first} of {}", head.escape_ascii());
                for seen in 1..first {
                    assert!(is_half_a_head(&head[..first], seen), "{first} of {}", head.escape_ascii());
                }
                assert!(!is_half_a_head(head, first), "after {first} of {}", head.escape_ascii());
            }
            assert!(!is_half_a_head(head, 0));
            assert!(!is_half_a_head(&[head, b"body"].concat(), 0));
        }
    }

    #[test]
    fn what_is_no_head_is_no_half_of_one() {
        for bytes in [&b"GET nonsense\r\n"[..], b"GET / HTTP/9\r\n", b"PRI * HTTP/2.0\r\n", b"H\0"] {
            assert!(!is_half_a_head(bytes, 0), "{}", bytes.escape_ascii());
        }
    }
}
