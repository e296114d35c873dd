//! Who publishes on which channel, and who hears it: pure arithmetic.
//!
//! Channels are numbered from 1, subscribers and publishers from 0. The number of a message says
//! who publishes it, and where, so that a server and the bare loop are given the same.

use std::ops::Range;

use crate::load::payload::Number;

/// How publishers, channels and subscribers belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) publishers: u32,
    pub(crate) channels: u32,
    pub(crate) audience: Audience,
}

/// Who is subscribed to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// So many, each to every channel.
    OfAll(u32),
    /// So many to each channel, and to no other.
    OfEach(u32),
}

impl Topology {
    /// How many subscribers there are.
    pub(crate) fn subscribers(self) -> u32 {
        match self.audience {
            Audience::OfAll(count) => count,
            Audience::OfEach(count) => count.saturating_mul(self.channels),
        }
    }

    /// How many subscribers a message goes to.
    pub(crate) fn deliveries(self) -> u32 {
        let (Audience::OfAll(count) | Audience::OfEach(count)) = self.audience;
        count
    }

    /// The channels of a subscriber.
    pub(crate) fn heard_by(self, subscriber: u32) -> Range<u32> {
        match self.audience {
            Audience::OfAll(_) => 1..self.channels + 1,
            Audience::OfEach(count) => {
                let channel = 1 + subscriber / count;
                channel..channel + 1
            }
        }
    }

    /// The subscribers of a channel.
    pub(crate) fn listeners(self, channel: u32) -> Range<u32> {
        match self.audience {
            Audience::OfAll(count) => 0..count,
            Audience::OfEach(count) => (channel - 1) * count..channel * count,
        }
    }

    /// The channels that a publisher publishes on: its share, or with more publishers than channels
    /// one that it shares.
    pub(crate) fn published_by(self, publisher: u32) -> Range<u32> {
        let start = self.share(publisher);
        let end = self.share(publisher + 1).max(start + 1);
        1 + start..1 + end
    }

    fn share(self, publisher: u32) -> u32 {
        let channel = u64::from(publisher) * u64::from(self.channels) / u64::from(self.publishers);
        // Below `channels`, or equal.
        channel as u32
    }

    /// Publishers take turns.
    pub(crate) fn publisher_of(self, number: u32) -> u32 {
        number % self.publishers
    }

    /// And each has turns of its channels.
    pub(crate) fn channel_of(self, number: u32) -> u32 {
        let channels = self.published_by(self.publisher_of(number));
        channels.start + number / self.publishers % channels.len() as u32
    }

    /// The first message from `first` on that is this publisher's.
    pub(crate) fn first_of(self, publisher: u32, first: Number) -> Number {
        let past = first.0 % self.publishers;
        Number(first.0 + (publisher + self.publishers - past) % self.publishers)
    }

    /// How many publishers publish on the channel of each: what a message comes back to, where
    /// publishers are in their channels.
    pub(crate) fn publishers_beside(self) -> Vec<u32> {
        let mut publishers = vec![0; self.channels as usize];
        let channel = |publisher| self.published_by(publisher).start as usize - 1;
        (0..self.publishers).for_each(|publisher| publishers[channel(publisher)] += 1);
        (0..self.publishers).map(|publisher| publishers[channel(publisher)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(publishers: u32, channels: u32, each: u32) -> Topology {
        Topology { publishers, channels, audience: Audience::OfEach(each) }
    }

    #[test]
    fn one_publisher_has_all_channels_in_turn() {
        let fanout = Topology { publishers: 1, channels: 2, audience: Audience::OfAll(5) };
        assert_eq!((0..4).map(|number| fanout.channel_of(number)).collect::<Vec<_>>(), [1, 2, 1, 2]);
        assert_eq!((fanout.subscribers(), fanout.deliveries()), (5, 5));
        assert_eq!((fanout.heard_by(4), fanout.listeners(2)), (1..3, 0..5));
    }

    #[test]
    fn publishers_divide_the_channels() {
        let topology = many(3, 7, 2);
        let shares: Vec<_> = (0..3).map(|publisher| topology.published_by(publisher)).collect();
        assert_eq!(shares, [1..3, 3..5, 5..8]);
        assert_eq!(topology.publishers_beside(), [1, 1, 1]);
        assert_eq!((topology.subscribers(), topology.deliveries()), (14, 2));
        assert_eq!((topology.heard_by(5), topology.listeners(3)), (3..4, 4..6));
    }

    #[test]
    fn more_publishers_than_channels_share_them() {
        let topology = many(5, 2, 1);
        let channels: Vec<_> = (0..5).map(|number| topology.channel_of(number)).collect();
        assert_eq!(channels, [1, 1, 1, 2, 2]);
        assert_eq!(topology.publishers_beside(), [3, 3, 3, 2, 2]);
    }

    #[test]
    fn every_channel_is_published_on_by_whom_its_number_says() {
        for (publishers, channels) in [(1, 1), (1, 9), (4, 9), (9, 4), (5, 5)] {
            let topology = many(publishers, channels, 1);
            let mut published = vec![0; channels as usize];
            for number in 0..publishers * channels * 9 {
                let channel = topology.channel_of(number);
                assert!(topology.published_by(topology.publisher_of(number)).contains(&channel));
                published[channel as usize - 1] += 1;
            }
            assert!(published.iter().all(|count| *count > 0), "{published:?}");
        }
    }

    #[test]
    fn each_publisher_has_its_own_numbers() {
        let topology = many(3, 3, 1);
        let first = |publisher, from| topology.first_of(publisher, Number(from)).0;
        assert_eq!([first(0, 0), first(1, 0), first(2, 0)], [0, 1, 2]);
        assert_eq!([first(0, 1), first(1, 1), first(2, 1)], [3, 1, 2]);
    }
}
