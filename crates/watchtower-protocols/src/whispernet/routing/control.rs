//! What nodes with routing tell one another: objects without a `Body`, which
//! other peers do not understand ([whispernet: 14]).
//!
//! Reads and writes them. Who may say what is not known here.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest object that is looked at. What is longer is none of ours.
pub(super) const CONTROL_BYTES_MAX: usize = 8 << 10;

/// How many ids an object names at most.
pub(super) const IDS_MAX: usize = 256;

/// How many peers an object names at most.
pub(super) const NAMED_MAX: usize = 16;

/// An object with one key, which says what it is. Keys within it that are not
/// known are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "PascalCase")]
pub(in crate::whispernet) enum Control {
    /// "Be my neighbour", and the answer to it, and the answer to that.
    Neighbor {
        /// Where whoever sends this listens.
        addr: SocketAddr,
        /// To be sent back: it proves that what comes is from `Addr` of the
        /// peer that this is sent to.
        token: Token,
        /// The token of the peer that this is sent to, as far as it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        echo: Option<Token>,
        /// Whether the sender has no neighbour at all: it is not refused.
        #[serde(default, skip_serializing_if = "is_false")]
        urgent: bool,
    },
    /// "You are my neighbour no more", or "there are too many of us for all to
    /// know all".
    Disconnect { addr: SocketAddr },
    /// There is a new node.
    ForwardJoin { peer: SocketAddr, hops: u8 },
    /// Some that the origin knows, itself aside, for some that the last one on
    /// the way knows.
    Shuffle { origin: SocketAddr, token: Token, hops: u8, peers: Vec<SocketAddr> },
    /// The latter.
    ShuffleReply { token: Token, peers: Vec<SocketAddr> },
    /// "I have these messages."
    IHave(Vec<ShortId>),
    /// "Send me these messages, and what comes from now on."
    Graft(Vec<ShortId>),
    /// "Send me no messages, only their ids."
    Prune {},
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Control {
    /// Reads an object without a `Body`. `None` for any other than these.
    pub(in crate::whispernet) fn parse(object: &[u8]) -> Option<Control> {
        if object.len() > CONTROL_BYTES_MAX {
            return None;
        }
        let control = serde_json::from_slice(object).ok()?;
        let is_within_limits = match &control {
            Control::Shuffle { peers, .. } | Control::ShuffleReply { peers, .. } => peers.len() <= NAMED_MAX,
            Control::IHave(ids) | Control::Graft(ids) => ids.len() <= IDS_MAX,
            _ => true,
        };
        is_within_limits.then_some(control)
    }

    /// The addresses in it go through `check`, which says what to take them
    /// for. `None` when there is none left that it needs.
    pub(in crate::whispernet) fn with_addresses(
        mut self,
        check: impl Fn(SocketAddr) -> Option<SocketAddr>,
    ) -> Option<Control> {
        if let Control::Shuffle { peers, .. } | Control::ShuffleReply { peers, .. } = &mut self {
            *peers = peers.iter().filter_map(|peer| check(*peer)).collect();
        }
        match &mut self {
            Control::Neighbor { addr, .. }
            | Control::Disconnect { addr }
            | Control::ForwardJoin { peer: addr, .. }
            | Control::Shuffle { origin: addr, .. } => *addr = check(*addr)?,
            _ => {}
        }
        Some(self)
    }

    /// The object's bytes.
    pub(in crate::whispernet) fn encode(&self) -> Bytes {
        let object = serde_json::to_vec(self);
        object.expect("texts and numbers are always JSON").into()
    }
}

/// A message's id in few bytes: the beginning of its SHA-256. Whoever makes two
/// ids that begin alike harms the repair of his own messages alone.
pub(in crate::whispernet) type ShortId = Base64<9>;

/// What only its maker can tell from others.
pub(in crate::whispernet) type Token = Base64<8>;

impl ShortId {
    pub(in crate::whispernet) fn of(id: &str) -> ShortId {
        let hash: [u8; 32] = Sha256::digest(id).into();
        Base64(std::array::from_fn(|at| hash[at]))
    }
}

/// Bytes that are written in base64, in the alphabet for names, not padded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub(in crate::whispernet) struct Base64<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> AsRef<[u8]> for Base64<N> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> From<Base64<N>> for String {
    fn from(bytes: Base64<N>) -> String {
        URL_SAFE_NO_PAD.encode(bytes.0)
    }
}

impl<const N: usize> TryFrom<Cow<'_, str>> for Base64<N> {
    type Error = &'static str;

    fn try_from(text: Cow<'_, str>) -> Result<Base64<N>, &'static str> {
        let mut bytes = [0; N];
        match URL_SAFE_NO_PAD.decode_slice(&*text, &mut bytes) {
            Ok(length) if length == N => Ok(Base64(bytes)),
            _ => Err("expected base64 of another length"),
        }
    }
}

impl<const N: usize> fmt::Debug for Base64<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 55_555).into()
    }

    #[track_caller]
    fn check(control: &Control, object: &str) {
        assert_eq!(control.encode(), object);
        assert_eq!(Control::parse(object.as_bytes()).as_ref(), Some(control));
        assert_eq!(crate::whispernet::Message::parse(object.as_bytes()), Ok(None), "it has no Body");
    }

    /// [whispernet: 14]
    #[test]
    fn an_object_has_one_key_that_says_what_it_is() {
        let (token, echo) = (Base64([1; 8]), Some(Base64([255; 8])));
        check(
            &Control::Neighbor { addr: addr(1), token, echo: None, urgent: true },
            r#"{"Neighbor":{"Addr":"10.0.0.1:55555","Token":"AQEBAQEBAQE","Urgent":true}}"#,
        );
        check(
            &Control::Neighbor { addr: addr(1), token, echo, urgent: false },
            r#"{"Neighbor":{"Addr":"10.0.0.1:55555","Token":"AQEBAQEBAQE","Echo":"__________8"}}"#,
        );
        check(&Control::Disconnect { addr: addr(1) }, r#"{"Disconnect":{"Addr":"10.0.0.1:55555"}}"#);
        check(
            &Control::ForwardJoin { peer: addr(2), hops: 6 },
            r#"{"ForwardJoin":{"Peer":"10.0.0.2:55555","Hops":6}}"#,
        );
        check(
            &Control::Shuffle { origin: addr(1), token, hops: 6, peers: vec![addr(2)] },
            r#"{"Shuffle":{"Origin":"10.0.0.1:55555","Token":"AQEBAQEBAQE","Hops":6,"Peers":["10.0.0.2:55555"]}}"#,
        );
        check(
            &Control::ShuffleReply { token, peers: vec![] },
            r#"{"ShuffleReply":{"Token":"AQEBAQEBAQE","Peers":[]}}"#,
        );
        let ids = vec![ShortId::of("abc")];
        check(&Control::IHave(ids.clone()), r#"{"IHave":["ungWv48Bz-pB"]}"#);
        check(&Control::Graft(ids), r#"{"Graft":["ungWv48Bz-pB"]}"#);
        check(&Control::Prune {}, r#"{"Prune":{}}"#);
    }

    #[test]
    fn keys_within_that_are_not_known_are_ignored() {
        let object = br#"{"Prune":{"Later":[1,{"x":2}]}}"#;
        assert_eq!(Control::parse(object), Some(Control::Prune {}));
    }

    #[test]
    fn what_is_no_control_is_none_of_ours() {
        for object in [
            "{}",
            r#"{"Hello":1}"#,
            r#"{"Prune":{},"Graft":[]}"#,
            r#"{"Prune":null}"#,
            r#"{"IHave":["short"]}"#,
            r#"{"IHave":["ungWv48Bz+pB"]}"#,
            r#"{"IHave":["ungWv48Bz-pBAAAA"]}"#,
            r#"{"IHave":[1]}"#,
            r#"{"IHave":{}}"#,
            r#"{"Disconnect":{"Addr":"localhost:1"}}"#,
            r#"{"ForwardJoin":{"Peer":"10.0.0.2:1","Hops":256}}"#,
            r#"{"ForwardJoin":{"Peer":"10.0.0.2:1","Hops":-1}}"#,
            r#"{"Neighbor":{"Addr":"10.0.0.1:1"}}"#,
        ] {
            assert_eq!(Control::parse(object.as_bytes()), None, "{object}");
        }
    }

    #[test]
    fn more_than_is_ever_said_is_not_read() {
        let ids = |count| Control::IHave(vec![ShortId::of("abc"); count]);
        assert!(ids(IDS_MAX).encode().len() <= CONTROL_BYTES_MAX);
        assert_eq!(Control::parse(&ids(IDS_MAX).encode()), Some(ids(IDS_MAX)));
        assert_eq!(Control::parse(&ids(IDS_MAX + 1).encode()), None);
        let peers = |count| Control::ShuffleReply { token: Base64([0; 8]), peers: vec![addr(1); count] };
        assert_eq!(Control::parse(&peers(NAMED_MAX).encode()), Some(peers(NAMED_MAX)));
        assert_eq!(Control::parse(&peers(NAMED_MAX + 1).encode()), None);
        let long = format!("{}{}", r#"{"Prune":{}}"#, " ".repeat(CONTROL_BYTES_MAX));
        assert_eq!(Control::parse(long.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_node_panic(object in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Control::parse(&object);
        }
    }
}
