//! Callback URLs: what is one, judged on its face ([http: callbacks]).
//!
//! Pure. It looks no name up: a name that leads to a forbidden address is
//! found out when it is called, at every attempt anew.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;
use url::{Host, Url};

use super::address::{AddressPolicy, Forbidden};

/// The longest callback URL, in bytes, as given and as normalised.
pub const URL_BYTES_MAX: usize = 2_048;

/// `localhost` means these, whatever a name server says of it
/// ([running: localhost]).
pub const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// An `http` or `https` URL that messages can be posted to.
///
/// Normalised: two spellings of one URL are equal, and numeric hosts in all
/// their spellings (decimal, octal, hexadecimal, mapped) are the address they
/// mean. Its fragment is gone, as it never goes over the wire.
///
/// A URL may carry what only its owner should know, so `Display` and `Debug`
/// show scheme, host and port alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CallbackUrl(Url);

/// Why a text is not a callback URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidCallbackUrl {
    /// Longer than [`URL_BYTES_MAX`].
    #[error("the callback URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// Not a URL that can be called.
    #[error("the callback URL is malformed")]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("a callback URL begins with http:// or https://")]
    Scheme,
    /// A user name or a password.
    #[error("a callback URL carries no user name and no password")]
    Credentials,
    /// Port 0, which nothing can listen on.
    #[error("a callback URL cannot have port 0")]
    PortZero,
    /// The host is an address, or a name of one, that must not be called.
    #[error("the host of the callback URL is {0}, which must not be called")]
    Forbidden(Forbidden),
}

impl CallbackUrl {
    /// Reads a URL and judges a host that is an address, or `localhost`, by
    /// `policy`.
    ///
    /// # Errors
    ///
    /// Says which rule the text breaks; the HTTP status is 400.
    pub fn parse(text: &str, policy: &AddressPolicy) -> Result<CallbackUrl, InvalidCallbackUrl> {
        if text.len() > URL_BYTES_MAX {
            return Err(InvalidCallbackUrl::TooLong);
        }
        // The parser would drop these without a word.
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(InvalidCallbackUrl::Malformed);
        }
        let mut url = Url::parse(text).map_err(|_| InvalidCallbackUrl::Malformed)?;
        url.set_fragment(None);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidCallbackUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidCallbackUrl::Credentials);
        }
        if url.port() == Some(0) {
            return Err(InvalidCallbackUrl::PortZero);
        }
        // Normalising can make it longer: %-escapes and punycode.
        if url.as_str().len() > URL_BYTES_MAX {
            return Err(InvalidCallbackUrl::TooLong);
        }
        if !read_alike_by_the_http_client(&url) {
            return Err(InvalidCallbackUrl::Malformed);
        }
        let url = CallbackUrl(url);
        url.face_permitted(policy).map_err(InvalidCallbackUrl::Forbidden)?;
        Ok(url)
    }

    /// Whether the host may be called, as far as it can be seen without
    /// looking a name up. The policy may have changed since the URL was read.
    ///
    /// # Errors
    ///
    /// Says what kind of address the host is.
    pub fn face_permitted(&self, policy: &AddressPolicy) -> Result<(), Forbidden> {
        match self.0.host() {
            Some(Host::Ipv4(v4)) => policy.permits(IpAddr::V4(v4)),
            Some(Host::Ipv6(v6)) => policy.permits(IpAddr::V6(v6)),
            Some(Host::Domain(name)) if is_localhost(name) => {
                let [v4, v6] = LOCALHOST.map(|address| policy.permits(address));
                v4.or(v6)
            }
            Some(Host::Domain(_)) => Ok(()),
            None => Err(Forbidden::Unspecified),
        }
    }

    /// The whole URL, as it is called. Not for logs.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallbackUrl({self}/…)")
    }
}

/// Whether a name means this machine by definition (RFC 6761, 6.3).
pub fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    let (rest, last) = name.split_at(name.len().saturating_sub("localhost".len()));
    last.eq_ignore_ascii_case(b"localhost") && (rest.is_empty() || rest.ends_with(b"."))
}

/// The client reads the URL a second time, with another parser. A text that
/// the two disagree on could be judged by one host and sent to another.
fn read_alike_by_the_http_client(url: &Url) -> bool {
    let Ok(uri) = url.as_str().parse::<http::Uri>() else {
        return false;
    };
    uri.host() == url.host_str() && uri.port_u16() == url.port() && uri.scheme_str() == Some(url.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<CallbackUrl, InvalidCallbackUrl> {
        CallbackUrl::parse(text, &AddressPolicy::default())
    }

    #[test]
    fn an_http_or_https_url_with_a_public_host_is_read_and_normalised() {
        for (text, normal) in [
            ("http://client-url.com/callbacks", "http://client-url.com/callbacks"),
            ("https://example.com", "https://example.com/"),
            ("HTTPS://EXAMPLE.com:443/A?b=C", "https://example.com/A?b=C"),
            ("http://example.com:8080/a/../b", "http://example.com:8080/b"),
            ("http://example.com/#part", "http://example.com/"),
            ("http://bücher.example/", "http://xn--bcher-kva.example/"),
            ("http://134744072/", "http://8.8.8.8/"),
            ("http://[::ffff:8.8.8.8]/", "http://[::ffff:808:808]/"),
            ("https://example.com./", "https://example.com./"),
            ("http://notlocalhost/", "http://notlocalhost/"),
            ("http://localhost.example.com/", "http://localhost.example.com/"),
        ] {
            assert_eq!(parse(text).as_ref().map(CallbackUrl::as_str), Ok(normal), "{text}");
        }
    }

    // [http: callbacks] "http and https only, no credentials in the URL"
    #[test]
    fn what_is_not_a_callable_url_is_refused_with_the_rule_it_breaks() {
        use InvalidCallbackUrl::*;
        for (text, rule) in [
            ("", Malformed),
            ("example.com/callbacks", Malformed),
            ("//example.com/", Malformed),
            ("http://", Malformed),
            ("http://exa mple.com/", Malformed),
            ("http://exa\nmple.com/", Malformed),
            (" http://example.com/", Malformed),
            ("http://example.com/\u{0}", Malformed),
            ("http://example.com:99999/", Malformed),
            ("http://1.2.3.4.5/", Malformed),
            ("http://[::1/", Malformed),
            // Hosts to the URL library, and not to the HTTP library.
            ("http://exa\"mple.com/", Malformed),
            ("http://exa{mple}.com/", Malformed),
            ("ftp://example.com/", Scheme),
            ("file:///etc/passwd", Scheme),
            ("gopher://example.com/", Scheme),
            ("unix:/run/a.sock", Scheme),
            ("ws://example.com/", Scheme),
            ("javascript:alert(1)", Scheme),
            ("http://user@example.com/", Credentials),
            ("http://user:pass@example.com/", Credentials),
            ("http://:pass@example.com/", Credentials),
            ("https://example.com@127.0.0.1/", Credentials),
            ("http://example.com:0/", PortZero),
        ] {
            assert_eq!(parse(text), Err(rule), "{text:?}");
        }
    }

    #[test]
    fn a_url_may_be_2048_bytes_long_and_no_longer() {
        let of_length = |bytes: usize| {
            let head = "http://example.com/";
            format!("{head}{}", "a".repeat(bytes - head.len()))
        };
        assert!(parse(&of_length(2_048)).is_ok());
        assert_eq!(parse(&of_length(2_049)), Err(InvalidCallbackUrl::TooLong));
        let grows = format!("http://example.com/{}", "é".repeat(500));
        assert_eq!(parse(&grows), Err(InvalidCallbackUrl::TooLong));
    }

    // [http: callbacks] "An address that is forbidden on its face is 400 when joining"
    #[test]
    fn a_forbidden_address_is_seen_through_every_spelling() {
        use Forbidden::*;
        for (host, kind) in [
            ("127.0.0.1", Loopback),
            ("127.1", Loopback),
            ("2130706433", Loopback),
            ("0x7f000001", Loopback),
            ("0x7f.1", Loopback),
            ("0177.0.0.1", Loopback),
            ("0177.0x0.1", Loopback),
            ("127.0.0.1.", Loopback),
            ("①②⑦.⓪.⓪.①", Loopback),
            ("127。0。0。1", Loopback),
            ("%31%32%37.0.0.1", Loopback),
            ("[::1]", Loopback),
            ("[0:0:0:0:0:0:0:1]", Loopback),
            ("[::ffff:127.0.0.1]", Loopback),
            ("[::ffff:7f00:1]", Loopback),
            ("localhost", Loopback),
            ("LocalHost", Loopback),
            ("localhost.", Loopback),
            ("a.b.localhost", Loopback),
            ("%6cocalhost", Loopback),
            ("0", Unspecified),
            ("0.0.0.0", Unspecified),
            ("[::]", Unspecified),
            ("169.254.169.254", LinkLocal),
            ("2852039166", LinkLocal),
            ("0xa9fea9fe", LinkLocal),
            ("[::ffff:a9fe:a9fe]", LinkLocal),
            ("[fe80::1]", LinkLocal),
            ("10.0.0.1", Private),
            ("192.168.257", Private),
            ("[fd00::1]", Private),
            ("224.0.0.1", Multicast),
            ("[64:ff9b::7f00:1]", Translated),
        ] {
            for text in [format!("http://{host}/"), format!("https://{host}:8443/x?y")] {
                assert_eq!(parse(&text), Err(InvalidCallbackUrl::Forbidden(kind)), "{text}");
            }
        }
    }

    #[test]
    fn backslashes_do_not_hide_a_host() {
        for text in ["http:\\\\127.0.0.1\\", "http:/127.0.0.1/", "http:127.0.0.1"] {
            let forbidden = InvalidCallbackUrl::Forbidden(Forbidden::Loopback);
            assert_eq!(parse(text), Err(forbidden), "{text}");
        }
    }

    #[test]
    fn loopback_by_name_and_by_number_is_permitted_where_loopback_is() {
        let listed = AddressPolicy::new(["::1/128".parse().expect("a network")], false);
        for (policy, text) in [
            (AddressPolicy::new([], true), "http://127.0.0.1:3000/"),
            (AddressPolicy::new([], true), "http://localhost:3000/"),
            (AddressPolicy::new([], true), "http://[::1]:3000/"),
            (listed, "http://localhost:3000/"),
        ] {
            assert!(CallbackUrl::parse(text, &policy).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_url_that_was_read_is_judged_again_by_a_later_policy() {
        let url = CallbackUrl::parse("http://127.0.0.1/", &AddressPolicy::new([], true));
        let url = url.expect("loopback is allowed");
        assert_eq!(url.face_permitted(&AddressPolicy::default()), Err(Forbidden::Loopback));
    }

    #[test]
    fn only_scheme_host_and_port_are_shown() {
        let url = parse("https://example.com:8443/hook/token?key=hunter2").expect("a URL");
        assert_eq!(url.to_string(), "https://example.com:8443");
        assert_eq!(format!("{url:?}"), "CallbackUrl(https://example.com:8443/…)");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,80}") {
            let _ = parse(&text);
            let _ = parse(&format!("http://{text}"));
        }

        #[test]
        fn what_was_read_reads_the_same_again(host in "[a-z0-9.:\\[\\]]{1,20}", path in ".{0,20}") {
            if let Ok(url) = parse(&format!("http://{host}/{path}")) {
                prop_assert_eq!(parse(url.as_str()), Ok(url));
            }
        }

        #[test]
        fn a_forbidden_number_is_forbidden_in_decimal_octal_and_hexadecimal(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let expected = AddressPolicy::default().permits(IpAddr::V4(address));
            for host in [
                format!("{address}"),
                format!("{bits}"),
                format!("{bits:#x}"),
                format!("0{bits:o}"),
                format!("[::ffff:{address}]"),
            ] {
                let read = parse(&format!("http://{host}/")).map(|_| ());
                prop_assert_eq!(read, expected.map_err(InvalidCallbackUrl::Forbidden));
            }
        }
    }
}
