//! The values that keys have, between TOML and their types. Knows no key.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::fmt::friendly::{Spacing, SpanPrinter};
use jiff::{SignedDuration, Span, SpanRelativeTo, SpanRound, Unit};
use thiserror::Error;
use toml::de::DeValue;
use url::{Position, Url};

use super::key::Value;

/// Whether devices may register without the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenRegistration {
    /// They may.
    Yes,
    /// They may not.
    No,
    /// They may while the server listens on loopback alone.
    #[default]
    Auto,
}

/// The origin of a web page: scheme, host and port, as a browser sends it in `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(String);

/// What was given is no web origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a web origin such as \"https://example.com\", without a path")]
pub struct InvalidOrigin;

impl WebOrigin {
    /// The origin as a browser sends it: ASCII, without a path and without a default port.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebOrigin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let url = Url::parse(text).map_err(|_| InvalidOrigin)?;
        let is_bare = url.username().is_empty()
            && url.password().is_none()
            && matches!(&url[Position::BeforePath..], "" | "/")
            && !text.ends_with('/');
        let origin = url.origin();
        if !is_bare || !origin.is_tuple() {
            return Err(InvalidOrigin);
        }
        Ok(Self(origin.ascii_serialization()))
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text in a TOML string; the error says that `expected` would be right.
pub(super) fn text<'a>(input: &'a DeValue<'_>, expected: &str) -> Result<&'a str, String> {
    input.as_str().ok_or_else(|| expected.to_owned())
}

/// A text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

impl Value for bool {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        input.as_bool().ok_or_else(|| "true or false".to_owned())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for usize {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        input
            .as_integer()
            .and_then(|integer| Self::from_str_radix(integer.as_str(), integer.radix()).ok())
            .ok_or_else(|| "a whole number".to_owned())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for Duration {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let expected = "a duration such as \"250ms\", \"10s\", \"1h30m\" or \"30d\"";
        text(input, expected)?
            .parse::<Span>()
            .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
            .ok()
            .and_then(|duration| duration.try_into().ok())
            .ok_or_else(|| expected.to_owned())
    }

    /// In the largest units that fit, such as `"1h30m"`.
    fn to_toml(&self) -> String {
        let printer = SpanPrinter::new().spacing(Spacing::None);
        let days_and_less = SpanRound::new().largest(Unit::Day).days_are_24_hours();
        let in_days = SignedDuration::try_from(*self)
            .and_then(Span::try_from)
            .and_then(|span| span.round(days_and_less));
        quoted(&match in_days {
            Ok(span) => printer.span_to_string(&span),
            Err(_) => printer.unsigned_duration_to_string(self),
        })
    }
}

/// A file or folder, or none where the text is empty.
impl Value for Option<PathBuf> {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let path = text(input, "a path, or \"\"")?;
        Ok((!path.is_empty()).then(|| path.into()))
    }

    fn to_toml(&self) -> String {
        quoted(&self.as_ref().map_or_else(String::new, |path| path.display().to_string()))
    }
}

impl Value for OpenRegistration {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        match (input.as_bool(), input.as_str()) {
            (Some(true), _) => Ok(Self::Yes),
            (Some(false), _) => Ok(Self::No),
            (None, Some("auto")) => Ok(Self::Auto),
            _ => Err("true, false or \"auto\"".to_owned()),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Yes => "true".to_owned(),
            Self::No => "false".to_owned(),
            Self::Auto => quoted("auto"),
        }
    }
}

impl Value for Vec<IpNet> {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        list(input, "a list of networks such as [\"192.168.0.0/16\", \"::1\"]", |text| {
            let network = text.parse::<IpNet>().ok();
            network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        })
    }

    fn to_toml(&self) -> String {
        list_to_toml(self)
    }
}

impl Value for Vec<WebOrigin> {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let expected = "a list of web origins such as [\"https://example.com\"], without a path";
        list(input, expected, |text| text.parse().ok())
    }

    fn to_toml(&self) -> String {
        list_to_toml(self)
    }
}

/// A list of texts, each of which is read.
pub(super) fn list<T>(
    input: &DeValue<'_>,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    let items = input.as_array().ok_or_else(|| expected.to_owned())?;
    items
        .iter()
        .map(|item| item.get_ref().as_str().and_then(&parse))
        .collect::<Option<Vec<T>>>()
        .ok_or_else(|| expected.to_owned())
}

/// The same as TOML.
pub(super) fn list_to_toml(items: &[impl fmt::Display]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<V: Value>(toml: &str) -> Result<V, String> {
        V::from_toml(DeValue::parse(toml).unwrap().get_ref())
    }

    #[test]
    fn durations_are_read_in_every_unit_down_to_less_than_a_second() {
        for (toml, milliseconds) in [
            ("'30d'", 30 * 86_400_000),
            ("'24h'", 86_400_000),
            ("'1h30m'", 5_400_000),
            ("'1h 30m'", 5_400_000),
            ("'2m'", 120_000),
            ("'10s'", 10_000),
            ("'1.5s'", 1_500),
            ("'250ms'", 250),
            ("'0s'", 0),
        ] {
            assert_eq!(read(toml), Ok(Duration::from_millis(milliseconds)), "{toml}");
        }
        for toml in ["10", "''", "'10'", "'-1s'", "'1s ago'", "'1 month'", "'soon'", "1.5"] {
            assert!(read::<Duration>(toml).is_err(), "{toml}");
        }
    }

    #[test]
    fn durations_are_written_in_the_largest_units_that_fit() {
        for (toml, written) in [
            ("'30d'", "\"30d\""),
            ("'90m'", "\"1h30m\""),
            ("'36h'", "\"1d12h\""),
            ("'250ms'", "\"250ms\""),
            ("'0s'", "\"0s\""),
        ] {
            assert_eq!(read::<Duration>(toml).unwrap().to_toml(), written);
        }
    }

    #[test]
    fn whole_numbers_are_read_in_every_notation_of_toml() {
        assert_eq!(read("1_000"), Ok(1_000_usize));
        assert_eq!(read("0x10"), Ok(16_usize));
        for toml in ["-1", "1.0", "1e3", "'1'", "true", "99999999999999999999"] {
            assert_eq!(read::<usize>(toml), Err("a whole number".to_owned()), "{toml}");
        }
    }

    #[test]
    fn a_network_is_a_prefix_or_one_address() {
        let networks: Vec<IpNet> = read("['10.0.0.0/8', '::1']").unwrap();
        assert_eq!(networks.to_toml(), r#"["10.0.0.0/8", "::1/128"]"#);
        assert!(read::<Vec<IpNet>>("'10.0.0.0/8'").is_err());
        assert!(read::<Vec<IpNet>>("['10.0.0.0/33']").is_err());
        assert!(read::<Vec<IpNet>>("[10]").is_err());
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for (text, origin) in [
            ("https://example.com", "https://example.com"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("https://Example.com:443", "https://example.com"),
        ] {
            assert_eq!(text.parse::<WebOrigin>().unwrap().as_str(), origin);
        }
        for text in [
            "",
            "*",
            "example.com",
            "https://example.com/",
            "https://example.com/app",
            "https://user@example.com",
            "https://example.com?x",
            "file:///etc",
        ] {
            assert_eq!(text.parse::<WebOrigin>(), Err(InvalidOrigin), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_it_was_written(milliseconds in 0_u64..=3_153_600_000_000) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(read(&duration.to_toml()), Ok(duration));
        }

        #[test]
        fn a_text_reads_back_as_it_was_quoted(text in any::<String>()) {
            let toml = quoted(&text);
            let value = DeValue::parse(&toml).unwrap();
            prop_assert_eq!(value.get_ref().as_str(), Some(&*text));
        }

        #[test]
        fn no_text_makes_the_parsers_of_values_panic(text in any::<String>()) {
            let value = DeValue::String(text.into());
            let _ = Duration::from_toml(&value);
            let _ = OpenRegistration::from_toml(&value);
            let _ = Vec::<WebOrigin>::from_toml(&DeValue::Array(
                std::iter::once(toml::Spanned::new(0..0, value)).collect(),
            ));
        }
    }
}
