//! What proves to a callback's receiver that it was this server that called
//! ([http: callbacks]).
//!
//! Pure: the secret, the time and the body are handed in.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The name of the header that carries a [`Signature`].
pub const SIGNATURE_HEADER: &str = "x-watchtower-signature";

/// The server's secret key, as the key of signatures. Wiped when dropped; its
/// `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Zeroizing<Vec<u8>>);

impl SigningKey {
    /// A key of any length; receivers need the same bytes to verify.
    pub fn new(secret_key: impl Into<Vec<u8>>) -> SigningKey {
        SigningKey(Zeroizing::new(secret_key.into()))
    }

    /// Signs `body` as sent `at` seconds after the Unix epoch.
    ///
    /// The time is part of what is signed, so that a receiver can refuse a
    /// recorded request that is played back later.
    pub fn sign(&self, at: u64, body: &[u8]) -> Signature {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        mac.update(at.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        Signature { at, mac: mac.finalize().into_bytes().into() }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// A signature over one attempt; prints as the header's value,
/// `t=…,v1=…` with the code in 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    at: u64,
    mac: [u8; 32],
}

impl Signature {
    /// The value of the header [`SIGNATURE_HEADER`].
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("letters, digits, '=' and ',' make a header value")
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t={},v1=", self.at)?;
        self.mac.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // [http: callbacks] "t=…,v1=hex(HMAC-SHA256(secret_key, t + "." + body))"
    // printf '%s' '1700000000.{"channel":5}' | openssl dgst -sha256 -hmac secret
    #[test]
    fn a_signature_is_the_known_answer_of_another_implementation() {
        let signature = SigningKey::new("secret").sign(1_700_000_000, br#"{"channel":5}"#);
        assert_eq!(
            signature.to_string(),
            "t=1700000000,v1=78a077541f5682ffcd8abb03d5332bc7eb836f89918ef3c09b26e33a93e9f8b1"
        );
        assert_eq!(signature.header_value().as_bytes(), signature.to_string().as_bytes());
    }

    // python3 -c "import hmac; print(hmac.new(b'', b'0.', 'sha256').hexdigest())"
    #[test]
    fn an_empty_body_and_an_empty_key_are_signed_like_any_other() {
        let signature = SigningKey::new("").sign(0, b"");
        assert_eq!(
            signature.to_string(),
            "t=0,v1=b849d5a581847b281957065739df36df2463d1977ea8d6e1e4e6cf33fadc68c3"
        );
    }

    #[test]
    fn a_long_key_is_taken_whole() {
        let long = vec![b'k'; 200];
        let signed = SigningKey::new(long.clone()).sign(1, b"x");
        assert_ne!(signed, SigningKey::new(&long[..199]).sign(1, b"x"));
        assert_eq!(signed, SigningKey::new(long).sign(1, b"x"));
    }

    #[test]
    fn time_and_body_cannot_be_shifted_into_each_other() {
        let key = SigningKey::new("secret");
        assert_ne!(key.sign(1, b"2.x").mac, key.sign(12, b".x").mac);
        assert_ne!(key.sign(1, b"x").mac, key.sign(2, b"x").mac);
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", SigningKey::new("hunter2")), "SigningKey(…)");
    }
}
