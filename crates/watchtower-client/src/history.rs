//! What a channel keeps, and where a subscription goes on: positions as a client
//! gives and gets them. Knows no transport.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::value::RawValue;
use watchtower_hub::{ChannelName, Epoch, Position};

use crate::Message;
use crate::message::ChannelJson;

/// Which part of what a channel keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// The last messages.
    Last,
    /// The first ones after a position.
    After(Position),
    /// The last ones before a position.
    Before(Position),
}

/// A part of what a channel keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// In order.
    pub messages: Vec<Message>,
    /// Whether nothing is missing from the position that was asked for to the other
    /// end of these messages.
    pub recovered: bool,
    /// Offsets between `first` and `last` whose messages the server has lost by
    /// damage to its disk.
    pub lost: Vec<RangeInclusive<u64>>,
    /// Where these messages begin: what came earlier is [before](Span::Before)
    /// it. None when there is no such channel.
    pub first: Option<Position>,
    /// Where these messages end: what comes later is [after](Span::After) it.
    /// None when there is no such channel.
    pub last: Option<Position>,
    /// Whether there is something before `first`.
    pub more_before: bool,
    /// Whether there is something after `last`.
    pub more_after: bool,
}

/// Where a subscription that was given a position goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// On which channel.
    pub channel: ChannelName,
    /// After which message.
    pub position: Position,
    /// Whether that is where it was asked to: otherwise messages may be missing,
    /// and others come again.
    pub recovered: bool,
}

#[derive(Deserialize)]
struct HistoryJson<'a> {
    recovered: bool,
    #[serde(default)]
    lost: Vec<LostJson>,
    first: Option<String>,
    last: Option<String>,
    more: MoreJson,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct LostJson {
    from: u64,
    to: u64,
}

#[derive(Deserialize)]
struct MoreJson {
    before: bool,
    after: bool,
}

#[derive(Deserialize)]
struct ResumedJson {
    channel: ChannelJson,
    recovered: bool,
    epoch: String,
    offset: u64,
}

impl History {
    /// Says what is wrong without showing a content.
    pub(crate) fn from_json(json: &[u8]) -> Result<History, String> {
        let json: HistoryJson<'_> =
            serde_json::from_slice(json).map_err(|error| format!("not a history: {error}"))?;
        let messages = json.messages.iter().map(|message| Message::from_json(message.get().as_bytes()));
        Ok(History {
            messages: messages.collect::<Result<_, _>>()?,
            recovered: json.recovered,
            lost: json.lost.iter().map(|lost| lost.from..=lost.to).collect(),
            first: json.first.as_deref().map(position).transpose()?,
            last: json.last.as_deref().map(position).transpose()?,
            more_before: json.more.before,
            more_after: json.more.after,
        })
    }
}

impl Resumed {
    /// Reads the line with which a stream begins.
    pub(crate) fn from_json(line: &[u8]) -> Result<Resumed, String> {
        let json: ResumedJson =
            serde_json::from_slice(line).map_err(|error| format!("not where a stream goes on: {error}"))?;
        let epoch = Epoch::parse(&json.epoch).ok_or_else(|| format!("{:?} is not an epoch", json.epoch))?;
        let position = Position { epoch, offset: json.offset };
        Ok(Resumed { channel: json.channel.name()?, position, recovered: json.recovered })
    }
}

/// Reads a position from a server.
pub(crate) fn position(text: &str) -> Result<Position, String> {
    Position::parse(text).ok_or_else(|| format!("{text:?} is not a position"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_field_by_field() {
        let json = br#"{"epoch":"00000000000000ff","recovered":false,"first":"00000000000000ff:2","last":"00000000000000ff:2","more":{"before":true,"after":false},"messages":[{"channel":5,"offset":2,"epoch":"00000000000000ff","sender":0,"message":"x"}],"lost":[{"from":3,"to":3},{"from":5,"to":7}]}"#;
        let history = History::from_json(json).unwrap();
        let place = Position { epoch: Epoch::from_bits(255), offset: 2 };
        assert_eq!(
            history.messages.iter().map(|message| message.position).collect::<Vec<_>>(),
            [Some(place)]
        );
        assert_eq!((history.first, history.last), (Some(place), Some(place)));
        assert_eq!(history.lost, [3..=3, 5..=7]);
        assert_eq!((history.recovered, history.more_before, history.more_after), (false, true, false));
    }

    #[test]
    fn a_channel_that_there_is_not_has_no_positions() {
        let json = br#"{"epoch":null,"recovered":true,"first":null,"last":null,"more":{"before":false,"after":false},"messages":[]}"#;
        let history = History::from_json(json).unwrap();
        assert_eq!((history.first, history.last, history.messages.len()), (None, None, 0));
        assert_eq!(history.lost, []);
    }

    #[test]
    fn where_a_stream_goes_on_is_read() {
        let line = br#"{"channel":"hello","recovered":true,"epoch":"00000000000000ff","offset":7}"#;
        let resumed = Resumed::from_json(line).unwrap();
        assert_eq!((resumed.channel.to_string().as_str(), resumed.recovered), ("hello", true));
        assert_eq!(resumed.position.to_string(), "00000000000000ff:7");
        let wrong = br#"{"channel":5,"recovered":true,"epoch":"x","offset":7}"#;
        assert_eq!(Resumed::from_json(wrong), Err("\"x\" is not an epoch".to_owned()));
    }
}
