//! The address that the server listens on. Knows `localhost`, and no other name: a listener is
//! never left to what a resolver answers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;
use toml::de::DeValue;

use super::key::Value;
use super::value::quoted;

/// Where to listen: an IP address with a port, or `localhost` with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// One address.
    Address(SocketAddr),
    /// 127.0.0.1 and ::1, with this port.
    Localhost(u16),
}

/// What was given is no address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an IP address or localhost, a colon and a port, such as \"127.0.0.1:3033\" or \"[::]:3033\"")]
pub struct InvalidListen;

impl Listen {
    /// The addresses, one or two, with the same port.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        match *self {
            Self::Address(address) => vec![address],
            Self::Localhost(port) => {
                vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
            }
        }
    }

    /// Whether only this machine can connect.
    pub fn is_loopback(&self) -> bool {
        let loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        self.addrs().iter().all(|address| loopback(address.ip()))
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self::Address((Ipv4Addr::LOCALHOST, 3033).into())
    }
}

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once(':') {
            Some((host, port)) if host.eq_ignore_ascii_case("localhost") => {
                let port = port.parse().map_err(|_| InvalidListen)?;
                Ok(Self::Localhost(port))
            }
            _ => Err(InvalidListen),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Localhost(port) => write!(f, "localhost:{port}"),
        }
    }
}

impl Value for Listen {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        input.as_str().ok_or(InvalidListen).and_then(str::parse).map_err(|expected| expected.to_string())
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// An address, or none where the text is empty.
impl Value for Option<Listen> {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        if input.as_str() == Some("") {
            return Ok(None);
        }
        Listen::from_toml(input).map(Some).map_err(|expected| format!("{expected}, or \"\""))
    }

    fn to_toml(&self) -> String {
        self.map_or_else(|| quoted(""), |listen| listen.to_toml())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(text: &str) -> Vec<String> {
        let listen: Listen = text.parse().unwrap();
        assert_eq!(listen.to_string(), text);
        listen.addrs().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn localhost_means_both_loopback_addresses() {
        assert_eq!(addrs("localhost:3033"), ["127.0.0.1:3033", "[::1]:3033"]);
        assert_eq!(addrs("localhost:0"), ["127.0.0.1:0", "[::1]:0"]);
        assert_eq!(addrs("0.0.0.0:80"), ["0.0.0.0:80"]);
        assert_eq!(addrs("[::]:3033"), ["[::]:3033"]);
    }

    #[test]
    fn what_has_no_port_or_is_a_name_is_refused() {
        for text in [
            "",
            "3033",
            ":3033",
            "127.0.0.1",
            "127.0.0.1:65536",
            "::1:3033",
            "localhost",
            "localhost:",
            "localhost:http",
            "example.com:3033",
        ] {
            assert_eq!(text.parse::<Listen>(), Err(InvalidListen), "{text}");
        }
    }

    #[test]
    fn an_address_is_loopback_however_it_is_written() {
        for (text, loopback) in [
            ("127.0.0.1:1", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("localhost:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.is_loopback(), loopback, "{text}");
        }
    }
}
