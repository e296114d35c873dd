//! The parts of a `[[channels]]` rule. Checks that a pattern can match a name at all; the hub
//! does the matching.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use toml::de::DeValue;

use super::key::Value;
use super::value::{quoted, text};

/// The most bytes that the name of a channel has [model: terms].
const NAME_BYTES_MAX: usize = 128;

/// A pattern of channel names, in which each `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPattern(String);

/// Why a pattern was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidPattern {
    /// It is empty, or longer than a name may be.
    #[error("a pattern of 1 to 128 bytes")]
    Length,
    /// It holds a control character, or starts or ends with a space.
    #[error("a pattern that a name can match: no control character, no space at either end")]
    NeverMatches,
    /// It is a number, but not one that names a channel.
    #[error("a channel's number as it is written: 0 to 4294967295, without leading zeros")]
    NotAChannelNumber,
}

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

/// The check of `durable`.
pub(super) fn none_is_durable(durable: &bool) -> Result<(), String> {
    if *durable {
        return Err("false: this version keeps no channel on disk".to_owned());
    }
    Ok(())
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

impl FromStr for ChannelPattern {
    type Err = InvalidPattern;

    fn from_str(pattern: &str) -> Result<Self, InvalidPattern> {
        if pattern.is_empty() || pattern.len() > NAME_BYTES_MAX {
            return Err(InvalidPattern::Length);
        }
        if pattern.trim() != pattern || pattern.contains(char::is_control) {
            return Err(InvalidPattern::NeverMatches);
        }
        if pattern.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = pattern.parse::<u32>().ok();
            if number.is_none_or(|number| number.to_string() != pattern) {
                return Err(InvalidPattern::NotAChannelNumber);
            }
        }
        Ok(Self(pattern.to_owned()))
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for ChannelPattern {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        text(input, "a pattern such as \"orders/*\"")?
            .parse()
            .map_err(|expected: InvalidPattern| expected.to_string())
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
        for good in [
            "*",
            "a",
            "orders/*",
            "*/x/*",
            "0",
            "4294967295",
            "07*",
            "é ",
        ] {
            let parsed = good.trim_end().parse::<ChannelPattern>();
            assert_eq!(parsed.unwrap().as_str(), good.trim_end());
        }
        for (bad, why) in [
            ("", InvalidPattern::Length),
            (&"x".repeat(129), InvalidPattern::Length),
            (" a", InvalidPattern::NeverMatches),
            ("a ", InvalidPattern::NeverMatches),
            ("a\tb", InvalidPattern::NeverMatches),
            ("07", InvalidPattern::NotAChannelNumber),
            ("4294967296", InvalidPattern::NotAChannelNumber),
        ] {
            assert_eq!(bad.parse::<ChannelPattern>(), Err(why), "{bad:?}");
        }
    }
}
