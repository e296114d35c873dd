//! The opening handshake, header by header.

use super::*;

type Header = (&'static str, &'static str);

const HOST: Header = ("host", "localhost");
const UPGRADE: Header = ("upgrade", "websocket");
const CONNECTION: Header = ("connection", "Upgrade");
const KEY: Header = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
const VERSION: Header = ("sec-websocket-version", "13");

fn request_with(method: &str, version: http::Version, headers: &[Header]) -> Parts {
    let mut request = http::Request::builder().method(method).version(version).uri("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn get(headers: &[Header]) -> Result<Accepted, HandshakeError> {
    handshake(&request_with("GET", http::Version::HTTP_11, &[&[HOST], headers].concat()))
}

fn refused(headers: &[Header]) -> Option<HandshakeError> {
    get(headers).err()
}

/// How these offers are answered.
fn negotiated(offers: &[&'static str]) -> (Compression, Option<String>) {
    let offers = offers.iter().map(|offer| ("sec-websocket-extensions", *offer));
    let headers: Vec<Header> = [UPGRADE, CONNECTION, KEY, VERSION].into_iter().chain(offers).collect();
    let accepted = get(&headers).expect("offers that cannot be taken do no harm");
    let answer = accepted.headers.get("sec-websocket-extensions");
    (accepted.compression, answer.map(|answer| answer.to_str().expect("text").to_owned()))
}

#[test]
fn the_example_of_rfc_6455_is_answered() {
    // 1.3
    let accepted = get(&[UPGRADE, CONNECTION, KEY, VERSION]).expect("it is right");
    let header = |name: &str| accepted.headers.get(name).expect(name).to_str().expect("text");
    assert_eq!(header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(header("upgrade"), "websocket");
    assert_eq!(header("connection"), "Upgrade");
    assert_eq!(accepted.headers.len(), 3, "no extension and no subprotocol that was not asked for");
    assert_eq!(accepted.compression, Compression::None);
}

#[test]
fn tokens_may_be_in_lists_and_in_any_case() {
    for connection in ["keep-alive, Upgrade", "UPGRADE", "a,upgrade ,b"] {
        assert_eq!(refused(&[("upgrade", "WebSocket"), ("connection", connection), KEY, VERSION]), None);
    }
    let twice = [UPGRADE, ("connection", "keep-alive"), CONNECTION, KEY, VERSION];
    assert_eq!(refused(&twice), None);
    assert_eq!(refused(&[("upgrade", "h2c, websocket"), CONNECTION, KEY, VERSION]), None);
}

#[test]
fn what_is_missing_or_wrong_is_refused() {
    // RFC 6455 4.2.1
    assert_eq!(refused(&[CONNECTION, KEY, VERSION]), Some(HandshakeError::NotAsked));
    assert_eq!(refused(&[("upgrade", "h2c"), CONNECTION, KEY, VERSION]), Some(HandshakeError::NotAsked));
    assert_eq!(refused(&[UPGRADE, KEY, VERSION]), Some(HandshakeError::Connection));
    let kept = ("connection", "keep-alive, upgraded");
    assert_eq!(refused(&[UPGRADE, kept, KEY, VERSION]), Some(HandshakeError::Connection));
    assert_eq!(refused(&[UPGRADE, CONNECTION, KEY]), Some(HandshakeError::Version));
    for version in ["8", "013", "13, 8", ""] {
        let version = ("sec-websocket-version", version);
        assert_eq!(refused(&[UPGRADE, CONNECTION, KEY, version]), Some(HandshakeError::Version));
    }
    assert_eq!(refused(&[UPGRADE, CONNECTION, KEY, VERSION, VERSION]), Some(HandshakeError::Version));
    assert_eq!(refused(&[UPGRADE, CONNECTION, VERSION]), Some(HandshakeError::Key));
    // Not base64, 15 bytes, 17 bytes, without padding, nothing.
    let keys = ["*", "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZWU=", "dGhlIHNhbXBsZSBub25jZQ", ""];
    for key in keys {
        let key = ("sec-websocket-key", key);
        assert_eq!(refused(&[UPGRADE, CONNECTION, key, VERSION]), Some(HandshakeError::Key));
    }
    assert_eq!(refused(&[UPGRADE, CONNECTION, KEY, KEY, VERSION]), Some(HandshakeError::Key));
    assert_eq!(refused(&[HOST, UPGRADE, CONNECTION, KEY, VERSION]), Some(HandshakeError::Host), "twice");
    let asked = [UPGRADE, CONNECTION, KEY, VERSION];
    let refused = |method, version| handshake(&request_with(method, version, &asked)).err();
    assert_eq!(refused("POST", http::Version::HTTP_11), Some(HandshakeError::Method));
    assert_eq!(refused("GET", http::Version::HTTP_11), Some(HandshakeError::Host), "not at all");
    assert_eq!(refused("GET", http::Version::HTTP_10), Some(HandshakeError::HttpVersion));
    assert_eq!(refused("GET", http::Version::HTTP_2), Some(HandshakeError::HttpVersion));
}

#[test]
fn a_refusal_says_what_would_do() {
    let check = |error: HandshakeError, status: u16, headers: &[Header]| {
        assert_eq!(error.status().as_u16(), status);
        let found = error.headers();
        assert_eq!(found.len(), headers.len());
        for (name, value) in headers {
            assert_eq!(found.get(*name).expect(name), value);
        }
    };
    // RFC 6455 4.2.2, RFC 9110 15.5.22 and 15.5.6
    check(HandshakeError::NotAsked, 426, &[UPGRADE, CONNECTION, VERSION]);
    check(HandshakeError::Version, 426, &[UPGRADE, CONNECTION, VERSION]);
    check(HandshakeError::Method, 405, &[("allow", "GET")]);
    check(HandshakeError::HttpVersion, 400, &[]);
    check(HandshakeError::Host, 400, &[]);
    check(HandshakeError::Connection, 400, &[]);
    check(HandshakeError::Key, 400, &[]);
}

const TAKEN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const TAKEN_SMALL: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9";
const TAKEN_15: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

#[test]
fn of_the_subprotocols_that_are_spoken_the_client_s_first_is_taken() {
    // RFC 6455 4.2.2
    let check = |asked: &[&'static str], expected: Option<&str>| {
        let asked: Vec<Header> = asked.iter().map(|asked| ("sec-websocket-protocol", *asked)).collect();
        let request = request_with("GET", http::Version::HTTP_11, &asked);
        assert_eq!(subprotocol(&request.headers, &["a", "b"]), expected, "{asked:?}");
        assert_eq!(subprotocol(&request.headers, &[]), None);
    };
    check(&[], None);
    check(&["b,a"], Some("b"));
    check(&["c ,\ta , b"], Some("a"));
    check(&["c", "b", "a"], Some("b"));
    // Tokens are compared as they are (RFC 6455 11.3.4).
    check(&["A, ab, \"a\", "], None);
    let mut accepted = get(&[UPGRADE, CONNECTION, KEY, VERSION]).expect("it is right");
    assert!(!accepted.headers.contains_key("sec-websocket-protocol"), "none is answered unasked");
    accepted.speak("b");
    assert_eq!(accepted.headers.get("sec-websocket-protocol").expect("it is there"), "b");
}

#[test]
fn compression_is_taken_without_a_memory_of_earlier_messages() {
    // RFC 7692 7.1.1: the server may add both.
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits", // as browsers offer it
        "permessage-deflate;client_max_window_bits=8",
        "permessage-deflate; client_max_window_bits=15",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate ; client_max_window_bits = \"10\"",
    ] {
        assert_eq!(negotiated(&[offer]), (Compression::Deflate, Some(TAKEN.to_owned())), "{offer}");
    }
}

#[test]
fn a_window_that_the_client_asks_for_is_kept_to() {
    // RFC 7692 7.1.2.1: the same or a smaller one is answered.
    for bits in 9..=14 {
        let offer: &'static str = format!("permessage-deflate; server_max_window_bits={bits}").leak();
        assert_eq!(
            negotiated(&[offer]),
            (Compression::DeflateSmall, Some(TAKEN_SMALL.to_owned())),
            "{offer}"
        );
    }
    let offer = "permessage-deflate; server_max_window_bits=15";
    assert_eq!(negotiated(&[offer]), (Compression::Deflate, Some(TAKEN_15.to_owned())));
    // What zlib calls 8 is 9, which such a client could not read.
    assert_eq!(negotiated(&["permessage-deflate; server_max_window_bits=8"]), (Compression::None, None));
}

#[test]
fn an_offer_with_parameters_that_are_not_valid_is_passed_over() {
    // RFC 7692 7.1
    for offer in [
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=\"\"",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; server_max_window_bits=+9",
        "permessage-deflate; server_max_window_bits=\"9",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=a",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
        "permessage-deflate; unheard_of",
        "permessage-deflate;",
        "permessage-deflat",
        "x; a=\"b, permessage-deflate, c\"",
        "x; a=\"\\\", permessage-deflate, c\"",
        "",
    ] {
        assert_eq!(negotiated(&[offer]), (Compression::None, None), "{offer}");
    }
}

#[test]
fn the_first_offer_that_can_be_taken_is_taken() {
    let small = (Compression::DeflateSmall, Some(TAKEN_SMALL.to_owned()));
    let full = (Compression::Deflate, Some(TAKEN.to_owned()));
    let offers = "permessage-deflate; server_max_window_bits=8, \
                  permessage-deflate; server_max_window_bits=10, permessage-deflate";
    assert_eq!(negotiated(&[offers]), small);
    assert_eq!(negotiated(&["permessage-deflate; x", "foo, permessage-deflate"]), full);
    assert_eq!(negotiated(&["permessage-deflate", "permessage-deflate; server_max_window_bits=10"]), full);
    assert_eq!(negotiated(&["foo; a=\"1, 2\", permessage-deflate"]), full);
}
