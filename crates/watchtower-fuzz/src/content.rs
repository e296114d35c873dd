//! Content, names and positions: what every protocol hands to the hub.

use watchtower_hub::{ChannelName, Content, ContentKind, Epoch, Position};

/// JSON is kept as it came, and a name or a position is written as it was read.
pub(crate) fn content(data: &[u8]) {
    let sniffed = Content::sniff(data.to_vec());
    assert_eq!(sniffed.bytes(), data);
    assert_eq!(sniffed.kind() == ContentKind::Text, std::str::from_utf8(data).is_ok());
    if let Some(json) = Content::json(data.to_vec()) {
        assert_eq!(json.bytes(), data);
        assert!(json.as_text().is_some());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = ChannelName::parse(text) {
        assert_eq!(name.to_string(), text);
        assert!((1..=128).contains(&text.len()) && text.trim() == text);
        assert!(!text.chars().any(char::is_control));
        assert_eq!(name.number().map(ChannelName::from), name.number().map(|_| name));
    }
    if let Some(position) = Position::parse(text) {
        assert_eq!(Position::parse(&position.to_string()), Some(position));
    }
    if let Some(epoch) = Epoch::parse(text) {
        assert_eq!(Epoch::parse(&epoch.to_string()), Some(epoch));
    }
}
