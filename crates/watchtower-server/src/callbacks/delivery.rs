//! The ids by which a callback's receiver tells deliveries apart
//! ([http: callbacks]).
//!
//! Pure: randomness is handed in.

use std::fmt;

use http::HeaderValue;
use sha2::{Digest, Sha256};
use watchtower_hub::{ChannelName, Position};

/// The name of the header that carries a [`DeliveryId`].
pub const DELIVERY_HEADER: &str = "x-watchtower-delivery";

/// A callback subscription, one sender's wish for one URL. Drawn at random
/// when it begins, kept with it while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionId([u8; 16]);

impl SubscriptionId {
    /// The id of these bytes, which come from the operating system's generator
    /// or from a record of the subscription.
    pub fn from_bytes(bytes: [u8; 16]) -> SubscriptionId {
        SubscriptionId(bytes)
    }

    /// The bytes, for a record of the subscription.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The id under which the message at `position` of `channel` is delivered
    /// to this subscription: the same at every retry, after a restart too, and
    /// different for every other message and subscription.
    pub fn delivery(self, channel: &ChannelName, position: Position) -> DeliveryId {
        // A channel's name can hold anything that a separator could be made
        // of, so its end is told by its length.
        let channel = channel.to_string();
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update((channel.len() as u64).to_be_bytes());
        hash.update(channel.as_bytes());
        hash.update(position.to_string().as_bytes());
        let whole: [u8; 32] = hash.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&whole[..16]);
        DeliveryId(id)
    }
}

/// One message to one subscription, however many attempts it takes. Prints as
/// 32 hexadecimal digits, and tells nothing of what it was derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryId([u8; 16]);

impl DeliveryId {
    /// The value of the header [`DELIVERY_HEADER`].
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("hexadecimal digits make a header value")
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use watchtower_hub::Epoch;

    use super::*;

    fn id(subscription: u8, channel: &str, epoch: u64, offset: u64) -> DeliveryId {
        let channel = ChannelName::parse(channel).expect("a name");
        let position = Position { epoch: Epoch::from_bits(epoch), offset };
        SubscriptionId::from_bytes([subscription; 16]).delivery(&channel, position)
    }

    // [http: callbacks] "unique per delivery, stable over its retries"
    #[test]
    fn a_delivery_id_differs_by_subscription_channel_epoch_and_offset() {
        let all = [
            id(1, "5", 1, 1),
            id(2, "5", 1, 1),
            id(1, "6", 1, 1),
            id(1, "a", 1, 1),
            id(1, "5", 2, 1),
            id(1, "5", 1, 2),
            id(1, "5", 1, 11),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(id(1, "5", 1, 1), all[0]);
    }

    #[test]
    fn a_name_that_ends_like_a_position_is_not_mistaken_for_another_channel() {
        assert_ne!(id(1, "a0000000000000001:1", 2, 3), id(1, "a", 1, 1));
        assert_ne!(id(1, "a0", 0, 1), id(1, "a", 0, 1));
    }

    // printf '\1…(16 times)\0\0\0\0\0\0\0\00150000000000000001:1' | sha256sum
    #[test]
    fn a_delivery_id_is_the_same_in_every_version() {
        assert_eq!(id(1, "5", 1, 1).to_string(), "eb7242450c951f82317807c1fec6e57f");
        assert_eq!(id(1, "5", 1, 1).header_value(), id(1, "5", 1, 1).to_string());
    }
}
