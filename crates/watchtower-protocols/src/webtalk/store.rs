//! The small key-value store that the applications share.
//!
//! Knows neither frames nor links; whether a value is too large for a message
//! is judged before it comes here.

use std::collections::HashMap;

use bytes::Bytes;

use super::LinkError;
use super::frame::BODY_BYTES_MAX;

/// How many keys there may be. Another one is refused.
pub const STORE_KEYS_MAX: usize = 65_536;

/// How many bytes the keys and values may have together. What would make them
/// more is refused.
pub const STORE_BYTES_MAX: usize = 16 << 20;

/// The longest key, in bytes: `[ok] cleared KEY` must fit into a frame.
pub const KEY_BYTES_MAX: usize = BODY_BYTES_MAX - "[ok] cleared ".len();

/// Values by their keys, all in memory.
#[derive(Debug, Default)]
pub(super) struct Store {
    values: HashMap<Bytes, Bytes>,
    /// Invariant: the length of all keys and values together.
    bytes: usize,
}

impl Store {
    /// Puts a value there, in place of the one before.
    ///
    /// # Errors
    ///
    /// [`LinkError::KeyTooLong`] and [`LinkError::StoreFull`]; then nothing
    /// has changed.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), LinkError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(LinkError::KeyTooLong);
        }
        let before = self.values.get(key).map(|value| key.len() + value.len());
        let bytes = self.bytes - before.unwrap_or(0) + key.len() + value.len();
        let keys = self.values.len() + usize::from(before.is_none());
        if bytes > STORE_BYTES_MAX || keys > STORE_KEYS_MAX {
            return Err(LinkError::StoreFull);
        }
        self.bytes = bytes;
        self.values.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        Ok(())
    }

    /// What is there.
    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.values.get(key).cloned()
    }

    /// Takes away what is there, if there is something.
    ///
    /// # Errors
    ///
    /// [`LinkError::KeyTooLong`].
    pub(super) fn clear(&mut self, key: &[u8]) -> Result<(), LinkError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(LinkError::KeyTooLong);
        }
        if let Some(value) = self.values.remove(key) {
            self.bytes -= key.len() + value.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_value_and_a_cleared_one_none() {
        let mut store = Store::default();
        store.put(b"k", b"one").unwrap();
        store.put(b"k", b"three").unwrap();
        store.put(b"", b"").unwrap();
        assert_eq!(
            (store.get(b"k").as_deref(), store.get(b"").as_deref()),
            (Some(&b"three"[..]), Some(&b""[..]))
        );
        assert_eq!(store.bytes, 6);
        store.clear(b"k").unwrap();
        store.clear(b"k").unwrap();
        assert_eq!((store.get(b"k"), store.bytes), (None, 0));
    }

    #[test]
    fn what_would_be_too_much_is_refused_and_changes_nothing() {
        let mut store = Store::default();
        let value = vec![0; 99_999];
        let fitting = STORE_BYTES_MAX / (value.len() + 4);
        for key in 0..fitting as u32 {
            store.put(&key.to_be_bytes(), &value).unwrap();
        }
        assert_eq!(store.put(b"next", &value), Err(LinkError::StoreFull));
        assert_eq!(store.get(b"next"), None);
        // What is there already may take another value, or make room.
        store.put(&0u32.to_be_bytes(), &value).unwrap();
        store.clear(&0u32.to_be_bytes()).unwrap();
        store.put(b"next", &value).unwrap();
    }

    #[test]
    fn there_are_only_so_many_keys() {
        let mut store = Store::default();
        for key in 0..STORE_KEYS_MAX {
            store.put(&key.to_be_bytes(), b"").unwrap();
        }
        assert_eq!(store.put(b"one more", b""), Err(LinkError::StoreFull));
        store.put(&0usize.to_be_bytes(), b"another value").unwrap();
    }

    #[test]
    fn a_key_that_no_reply_could_repeat_is_refused() {
        let mut store = Store::default();
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        assert_eq!(store.put(&key, b""), Err(LinkError::KeyTooLong));
        assert_eq!(store.clear(&key), Err(LinkError::KeyTooLong));
        store.put(&key[1..], b"").unwrap();
        store.clear(&key[1..]).unwrap();
    }
}
