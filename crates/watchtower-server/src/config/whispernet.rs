//! The parts of `[whispernet]`: peers, the nick, and what fits together.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;
use toml::de::DeValue;
use watchtower_hub::ChannelName;
use watchtower_whisper::protocol::safe_text::safe_nick;

use super::key::Value;
use super::value::{list, list_to_toml, quoted, text};
use super::{Config, ConfigError};

/// The most characters of a nick: others are shown 32 columns, and three digits
/// that tell senders apart come behind it.
const NICK_CHARS_MAX: usize = 24;

/// A peer that the server dials: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerName(String);

/// What was given is no host with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a host, a colon and a port, such as \"192.168.1.53:55555\"")]
pub struct InvalidPeer;

impl PeerName {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = InvalidPeer;

    fn from_str(text: &str) -> Result<Self, InvalidPeer> {
        if watchtower_whisper::is_host_and_port(text) { Ok(Self(text.to_owned())) } else { Err(InvalidPeer) }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for Vec<PeerName> {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let expected = "a list of hosts with ports such as [\"192.168.1.53:55555\"]";
        list(input, expected, |text| text.parse().ok())
    }

    fn to_toml(&self) -> String {
        list_to_toml(self)
    }
}

/// What peers are told to connect to, or none where the text is empty.
impl Value for Option<SocketAddr> {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let expected = "an IP address, a colon and a port, such as \"192.168.1.53:55555\", or \"\"";
        match text(input, expected)? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| expected.to_owned()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.map(|addr| addr.to_string()).unwrap_or_default())
    }
}

impl Value for ChannelName {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let name = text(input, "the name of a channel")?;
        ChannelName::parse(name).map_err(|error| format!("the name of a channel: {error}"))
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// Whom the server speaks as, unless it is configured.
const NICK: &str = "watchtower";

/// Whom the server speaks as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nick(String);

impl Nick {
    /// The nick; one of the server's own where the key is empty.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { NICK } else { &self.0 }
    }
}

impl Value for Nick {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let expected = format!("a nick of 1 to {NICK_CHARS_MAX} visible characters, or \"\"");
        let nick = text(input, &expected)?;
        if nick.is_empty() {
            return Ok(Self::default());
        }
        let is_nick =
            safe_nick(nick).is_some_and(|safe| safe == nick) && nick.chars().count() <= NICK_CHARS_MAX;
        if is_nick { Ok(Self(nick.to_owned())) } else { Err(expected) }
    }

    fn to_toml(&self) -> String {
        quoted(&self.0)
    }
}

impl Config {
    /// Refuses what is of no use alone: peers without an address of the server's
    /// own, and one file of TLS without the others.
    pub(super) fn check_whispernet(&self) -> Result<(), ConfigError> {
        let whispernet = &self.whispernet;
        if whispernet.listen.is_none() && !whispernet.peers.is_empty() {
            return Err(ConfigError::NoWhispernet);
        }
        let files = [
            ("whispernet.tls_cert", &whispernet.tls_cert),
            ("whispernet.tls_key", &whispernet.tls_key),
            ("whispernet.tls_ca", &whispernet.tls_ca),
        ];
        let given = files.iter().find(|(_, file)| file.is_some());
        let missing = files.iter().find(|(_, file)| file.is_none());
        match (given, missing) {
            (Some((given, _)), Some((missing, _))) => Err(ConfigError::PartialTls { given, missing }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<V: Value>(toml: &str) -> Result<V, String> {
        V::from_toml(DeValue::parse(toml).unwrap().get_ref())
    }

    #[test]
    fn peers_are_hosts_with_ports() {
        let peers: Vec<PeerName> = read("['gopher.lan:55555', '[::1]:1', '10.0.0.1:2']").unwrap();
        assert_eq!(peers.to_toml(), r#"["gopher.lan:55555", "[::1]:1", "10.0.0.1:2"]"#);
        for wrong in ["'10.0.0.1:2'", "['10.0.0.1']", "[':1']", "['a:0']", "['::1:5']", "[1]"] {
            assert!(read::<Vec<PeerName>>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_nick_is_what_others_are_shown() {
        assert_eq!(read::<Nick>("'gopher 7'").unwrap().as_str(), "gopher 7");
        assert_eq!(read::<Nick>("''").unwrap().as_str(), "watchtower");
        for wrong in ["' '", "'a '", "\"a\\nb\"", "\"a\\u200b\"", "7", "'1234567890123456789012345'"] {
            assert!(read::<Nick>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_room_is_a_channel() {
        assert_eq!(read::<ChannelName>("'5'").unwrap(), ChannelName::from(5));
        assert_eq!(read::<ChannelName>("'room'").unwrap().to_toml(), "\"room\"");
        for wrong in ["''", "'07'", "' room'", "5"] {
            assert!(read::<ChannelName>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_of_no_use_alone_is_refused() {
        let check = |change: fn(&mut super::super::Whispernet)| {
            let mut config = Config::default();
            change(&mut config.whispernet);
            config.check_whispernet().map_err(|error| error.to_string())
        };
        assert_eq!(check(|_| {}), Ok(()));
        let peers = check(|whispernet| whispernet.peers = vec!["a:1".parse().unwrap()]);
        assert!(peers.unwrap_err().starts_with("whispernet.peers"));
        let half = check(|whispernet| whispernet.tls_key = Some("key.pem".into()));
        assert!(half.unwrap_err().contains("whispernet.tls_cert"));
    }
}
