//! Keys: who signed a message, and whether a nick still has the key that it
//! had first ([whispernet: 13]).
//!
//! Neither makes keys nor keeps them: seeds and pins are handed in, and new
//! pins are told.
//!
//! A signature is over the id and the file alone. It says something of `Addr`,
//! `Body` and `Timestamp` only by a hashed id that was checked, and of `Nick`
//! nothing: a peer that passes a message on before all others can put another
//! nick to it. So a mark is proof against strangers, and no more than a hint
//! against those who pass messages on.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use super::Message;
use super::safe_text::safe_nick;

/// A node's own key. `Debug` shows the public half.
pub struct Identity(SigningKey);

impl Identity {
    /// The key of 32 random bytes, which are its secret.
    pub fn from_seed(seed: &[u8; 32]) -> Identity {
        Identity(SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// `Sig` for a message of that id and file.
    pub fn sign(&self, id: &str, file: Option<&[u8]>) -> String {
        STANDARD.encode(self.0.sign(&signed_bytes(id, file)).to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public_key())
    }
}

/// What a signature covers.
fn signed_bytes(id: &str, file: Option<&[u8]>) -> Vec<u8> {
    [id.as_bytes(), &Sha256::digest(file.unwrap_or_default())].concat()
}

/// The public half of a key. Printed in base64, as `PubKey` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<PublicKey> {
        STANDARD.decode(text).ok()?.try_into().ok().map(PublicKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// What a message's signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signed {
    /// There is none, or one of another kind than Ed25519.
    No,
    /// It was made by this key.
    By(PublicKey),
    /// It was not made by the key that the message names: the message is to be
    /// dropped.
    Forged,
}

/// Checks the signature of a message whose decoded file is `file`.
pub(super) fn check_signature(message: &Message<'_>, file: Option<&[u8]>) -> Signed {
    let key = message.pub_key.as_deref().and_then(PublicKey::parse);
    let signature = message.sig.as_deref().and_then(|sig| STANDARD.decode(sig).ok());
    let signature = signature.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let (Some(key), Some(signature)) = (key, signature) else { return Signed::No };
    let verified = VerifyingKey::from_bytes(&key.0).and_then(|verifying| {
        // Strictly: without keys for which one signature fits many messages.
        verifying.verify_strict(&signed_bytes(&message.id, file), &Signature::from_bytes(&signature))
    });
    verified.map_or(Signed::Forged, |()| Signed::By(key))
}

/// What is known of who a nick belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: no signature, or one that proves nothing of this message and
    /// nick.
    Unverified,
    /// It is signed by the key that this nick had first.
    Verified,
    /// It is signed by another key than this nick had first: a warning.
    ChangedKey,
}

/// The keys that nicks had first, by the nick as it is shown
/// ([`safe_nick`]): what looks the same is the same.
pub(super) struct Pins {
    keys: BTreeMap<String, PublicKey>,
    /// How many are kept. Nobody loses a pin to others: beyond it new nicks
    /// get none, and are not verified.
    nicks_max: usize,
}

impl Pins {
    /// No pins, and at most that many.
    pub(super) fn new(nicks_max: usize) -> Pins {
        Pins { keys: BTreeMap::new(), nicks_max }
    }

    /// Pins a nick to a key, in place of another. False when there is no room,
    /// or nothing to be seen of the nick.
    pub(super) fn pin(&mut self, nick: &str, key: PublicKey) -> bool {
        let Some(nick) = safe_nick(nick) else { return false };
        if self.keys.len() >= self.nicks_max && !self.keys.contains_key(&nick) {
            return false;
        }
        self.keys.insert(nick, key);
        true
    }

    /// The key that a nick had first.
    pub(super) fn key(&self, nick: &str) -> Option<PublicKey> {
        self.keys.get(&safe_nick(nick)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whispernet::hashed_id;

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn signed<'a>(by: &Identity, id: &'a str, file: Option<&[u8]>) -> Message<'a> {
        let object = br#"{"ID":"x","Body":"hi"}"#;
        let message = Message::parse(object).unwrap().unwrap();
        let pub_key = Some(by.public_key().to_string().into());
        Message { id: id.into(), pub_key, sig: Some(by.sign(id, file).into()), ..message }
    }

    /// [whispernet: 13] The signature is over the id's bytes and the SHA-256 of
    /// nothing. The key is that of RFC 8032's first test.
    #[test]
    fn a_signature_covers_the_id_and_the_hash_of_the_file() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let byte = |at: usize| u8::from_str_radix(&seed[at * 2..at * 2 + 2], 16).unwrap();
        let identity = Identity::from_seed(&std::array::from_fn(byte));
        let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        assert_eq!(identity.public_key().to_string(), key);
        assert_eq!(format!("{identity:?}"), format!("Identity({key})"));

        let empty_hash: [u8; 32] = [
            0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
            0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
        ];
        let covered = [b"abc123".as_slice(), &empty_hash].concat();
        let expected = STANDARD.encode(identity.0.sign(&covered).to_bytes());
        assert_eq!(identity.sign("abc123", None), expected);
        assert_eq!(identity.sign("abc123", Some(b"")), expected);
        assert_ne!(identity.sign("abc123", Some(b"x")), expected);
    }

    #[test]
    fn a_signature_is_checked_with_its_id_and_file() {
        let me = identity(1);
        let id = hashed_id("10.0.0.1:1", "hi", 1);
        let file = Some(b"gif".as_slice());
        assert_eq!(check_signature(&signed(&me, &id, None), None), Signed::By(me.public_key()));
        assert_eq!(check_signature(&signed(&me, &id, file), file), Signed::By(me.public_key()));

        assert_eq!(check_signature(&signed(&me, &id, file), None), Signed::Forged);
        assert_eq!(check_signature(&signed(&me, &id, None), file), Signed::Forged);
        let other_id = Message { id: "other".into(), ..signed(&me, &id, None) };
        assert_eq!(check_signature(&other_id, None), Signed::Forged);
        let other_key = Some(identity(2).public_key().to_string().into());
        let other_key = Message { pub_key: other_key, ..signed(&me, &id, None) };
        assert_eq!(check_signature(&other_key, None), Signed::Forged);
    }

    #[test]
    fn a_signature_of_another_kind_is_none() {
        let whole = signed(&identity(1), "x", None);
        let sig = whole.sig.clone().unwrap();
        for (pub_key, sig) in [
            (None, None),
            (None, whole.sig.as_deref()),
            (whole.pub_key.as_deref(), None),
            (Some(""), Some("")),
            (Some("not base64!"), whole.sig.as_deref()),
            (Some("AAAA"), whole.sig.as_deref()),
            (whole.pub_key.as_deref(), Some(&sig[4..])),
        ] {
            let message =
                Message { pub_key: pub_key.map(Into::into), sig: sig.map(Into::into), ..whole.clone() };
            assert_eq!(check_signature(&message, None), Signed::No, "{pub_key:?} {sig:?}");
        }
    }

    /// The key of small order fits every message when checked loosely.
    #[test]
    fn a_weak_key_signs_nothing() {
        let weak = PublicKey([&[1][..], &[0; 31]].concat().try_into().unwrap());
        let sig = [&[1][..], &[0; 63]].concat();
        let message = Message {
            pub_key: Some(weak.to_string().into()),
            sig: Some(STANDARD.encode(sig).into()),
            ..signed(&identity(1), "x", None)
        };
        assert_eq!(check_signature(&message, None), Signed::Forged);
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = identity(1).public_key();
        assert_eq!(PublicKey::parse(&key.to_string()), Some(key));
        assert_eq!(PublicKey::parse("AAAA"), None);
    }

    #[test]
    fn pins_are_bounded_and_nobody_loses_one() {
        let mut pins = Pins::new(2);
        let (one, two) = (identity(1).public_key(), identity(2).public_key());
        assert!(pins.pin("goldy", one));
        assert!(pins.pin("phil", two));
        assert!(!pins.pin("third", two));
        assert!(!pins.pin("\u{200b}", two));
        assert!(pins.pin(" goldy\u{200b}", two), "the same nick");
        assert_eq!(pins.key("goldy"), Some(two));
        assert_eq!(pins.key("third"), None);
    }
}
