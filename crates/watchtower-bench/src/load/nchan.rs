//! nchan, a module of nginx, as a bench speaks it: a publication is a POST, and each is answered.
//! Subscribers are WebSockets, which get the content and nothing else.

use crate::error::WireError;
use crate::load::packets::Arrival;
use crate::load::records::{Record, Wire, decimal};

/// Of the publisher.
pub(crate) const NCHAN: Wire = Wire {
    hello: |_| 0,
    subscribe: |_, _| (),
    publish: |channel, number, size, out| {
        let head =
            format!("POST /pub?id={channel} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n");
        out.extend_from_slice(head.as_bytes());
        number.write_content(size, out);
    },
    read,
};

/// Where a channel is subscribed to.
pub(crate) fn subscriber_path(channel: u32) -> String {
    format!("/sub?id={channel}")
}

/// The answer to a publication.
fn read(bytes: &[u8]) -> Result<Record, WireError> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(Record::Incomplete) };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 20") {
        return Err(WireError::Rejected(status.to_owned()));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, length)| decimal(length.trim().as_bytes()))?;
    Ok(Record::new(Some(Arrival::Acknowledged(0)), (end + 4).saturating_add(length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::records::tests::{check, published};

    #[test]
    fn answers_are_counted_however_they_are_split() {
        let bytes = b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 201 Created\r\n\r\n";
        check(NCHAN, bytes, &[Arrival::Acknowledged(0); 2]);
    }

    #[test]
    fn a_publication_is_a_request() {
        let expected = b"POST /pub?id=7 HTTP/1.1\r\nHost: bench\r\nContent-Length: 9\r\n\r\n0000002ax";
        assert_eq!(published(NCHAN, 9), expected);
    }

    #[test]
    fn a_refusal_is_told() {
        let error = read(b"HTTP/1.1 403 Forbidden\r\n\r\n");
        assert_eq!(error, Err(WireError::Rejected("HTTP/1.1 403 Forbidden".into())));
    }
}
