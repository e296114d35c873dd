//! The parts of a `[[channels]]` rule. Checks that a pattern can match a name at all; the hub
//! does the matching.

use std::fmt;
use std::str::FromStr;

use toml::de::DeValue;
use watchtower_hub::{ChannelName, InvalidName};

use super::key::Value;
use super::value::{quoted, text};

/// A pattern of channel names, in which each `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPattern(String);

/// What content a channel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentFormat {
    /// Text, JSON and binary.
    #[default]
    Any,
    /// JSON values; text must be valid JSON and becomes it.
    Json,
    /// Text.
    Text,
}

impl ChannelPattern {
    /// The pattern, as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pattern of the rule in the default file.
    pub(super) fn example() -> Self {
        Self("orders/*".to_owned())
    }
}

/// A pattern is written as a name is: what breaks the rules of names could match none.
impl FromStr for ChannelPattern {
    type Err = InvalidName;

    fn from_str(pattern: &str) -> Result<Self, InvalidName> {
        ChannelName::parse(pattern).map(|_| Self(pattern.to_owned()))
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for ChannelPattern {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let expected = "a pattern that names can match, such as \"orders/*\"";
        text(input, expected)?.parse().map_err(|reason: InvalidName| format!("{expected} ({reason})"))
    }

    fn to_toml(&self) -> String {
        quoted(&self.0)
    }
}

impl Value for ContentFormat {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        match input.as_str() {
            Some("any") => Ok(Self::Any),
            Some("json") => Ok(Self::Json),
            Some("text") => Ok(Self::Text),
            _ => Err("\"any\", \"json\" or \"text\"".to_owned()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(match self {
            Self::Any => "any",
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_must_be_able_to_match_a_name() {
        for good in ["*", "a", "orders/*", "*/x/*", "0", "4294967295", "07*"] {
            assert_eq!(good.parse::<ChannelPattern>().unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", InvalidName::Empty),
            (&"x".repeat(129), InvalidName::TooLong { bytes: 129 }),
            (" a", InvalidName::OuterSpace),
            ("a\tb", InvalidName::ControlCharacter),
            ("07", InvalidName::NotCanonical),
        ] {
            assert_eq!(bad.parse::<ChannelPattern>(), Err(why), "{bad:?}");
        }
    }
}
