//! How the names of a hub's channels stand in the core: as they are, or within
//! a namespace of the hub's own.
//!
//! Knows no hub but the one whose names it is for.

use std::fmt;

use watchtower_hub::{ChannelName, NAME_BYTES_MAX};

/// Channels of a hub's own: in the core, the name of each begins with the
/// namespace and a slash ([webrocket: namespaces]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// Reads a namespace.
    ///
    /// # Errors
    ///
    /// [`InvalidNamespace`] when no channel could be in it, or when it could
    /// not be told where it ends.
    pub fn parse(text: &str) -> Result<Namespace, InvalidNamespace> {
        // The shortest name in it is to be a name.
        let is_roomy = ChannelName::parse(&format!("{text}/x")).is_ok();
        if text.is_empty() || text.contains('/') || !is_roomy {
            return Err(InvalidNamespace);
        }
        Ok(Namespace(text.to_owned()))
    }

    /// What stands behind the namespace and its slash; `None` for a name that
    /// is not in it.
    fn within<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(&self.0)?.strip_prefix('/')
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that is no namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a namespace has 1 to {} bytes, does not begin with a space, and holds neither a slash nor control characters",
    NAME_BYTES_MAX - 2
)]
pub struct InvalidNamespace;

/// The names of one hub's channels.
#[derive(Debug, Clone)]
pub(super) struct Names {
    own: Option<Namespace>,
    foreign: Box<[Namespace]>,
}

impl Names {
    pub(super) fn new(own: Option<Namespace>, mut foreign: Vec<Namespace>) -> Names {
        foreign.retain(|namespace| Some(namespace) != own.as_ref());
        Names { own, foreign: foreign.into() }
    }

    /// The channel in the core that a client of the hub calls so; `None` for
    /// what is no name of a channel, or of one in another hub's namespace.
    pub(super) fn channel(&self, name: &str) -> Option<ChannelName> {
        let channel = ChannelName::parse(name).ok()?;
        if self.foreign.iter().any(|foreign| foreign.within(name).is_some()) {
            return None;
        }
        match &self.own {
            None => Some(channel),
            Some(own) => ChannelName::parse(&format!("{own}/{name}")).ok(),
        }
    }

    /// What clients of the hub call a channel of the core that has this name.
    pub(super) fn shown<'a>(&self, name: &'a str) -> &'a str {
        self.own.as_ref().and_then(|own| own.within(name)).unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn namespace(text: &str) -> Namespace {
        Namespace::parse(text).unwrap()
    }

    #[test]
    fn a_namespace_is_one_segment_with_room_for_a_name() {
        for right in ["x", "echo", "07", "ä", &"n".repeat(126)] {
            assert_eq!(namespace(right).to_string(), right);
        }
        for wrong in ["", "/", "a/b", "a/", "/a", " a", "a\n", &"n".repeat(127)] {
            assert_eq!(Namespace::parse(wrong), Err(InvalidNamespace), "{wrong:?}");
        }
        let message = "a namespace has 1 to 126 bytes, does not begin with a space, and holds neither a slash nor control characters";
        assert_eq!(InvalidNamespace.to_string(), message);
    }

    /// The name in the core of what is called `name` in the hub with the
    /// namespace `own`, where there are the namespaces x and y.
    #[track_caller]
    fn check(own: &str, name: &str, expected: Option<&str>) {
        let names = Names::new(Namespace::parse(own).ok(), vec![namespace("x"), namespace("y")]);
        let channel = names.channel(name).map(|channel| channel.to_string());
        assert_eq!(channel.as_deref(), expected, "{name:?} in {own:?}");
        if let Some(channel) = channel {
            assert_eq!(names.shown(&channel), name);
        }
    }

    #[test]
    fn each_hub_has_the_channels_of_its_namespace_and_no_others() {
        // [webrocket: namespaces]
        check("", "news", Some("news"));
        check("", "5", Some("5"));
        check("x", "news", Some("x/news"));
        check("x", "5", Some("x/5"));
        check("x", "a/b", Some("x/a/b"));
        check("x", "x/a", Some("x/x/a"));
        check("", "z/a", Some("z/a"));
        // Beside a namespace is not in it.
        check("", "x", Some("x"));
        check("", "xy/a", Some("xy/a"));
        for (own, other) in [("", "x/a"), ("", "y/a"), ("x", "y/a"), ("y", "x/a"), ("", "x/a/b")] {
            check(own, other, None);
        }
    }

    #[test]
    fn what_is_no_name_by_itself_is_none_in_a_namespace_either() {
        for own in ["", "x"] {
            for wrong in ["", " a", "a ", "07", "a\nb", &"n".repeat(129)] {
                check(own, wrong, None);
            }
        }
        check("", &"n".repeat(128), Some(&"n".repeat(128)));
        check("x", &"n".repeat(127), None);
        check("x", &"n".repeat(126), Some(&format!("x/{}", "n".repeat(126))));
    }

    proptest! {
        /// [webrocket: namespaces]
        #[test]
        fn two_hubs_never_mean_the_same_channel_unless_they_share_a_namespace(
            (own, other) in ("[xy]?", "[xy]?"),
            (name, other_name) in ("[xy5/]{1,4}", "[xy5/]{1,4}"),
        ) {
            let channel = |own: &str, name: &str| {
                Names::new(Namespace::parse(own).ok(), vec![namespace("x"), namespace("y")]).channel(name)
            };
            let (channel, other_channel) = (channel(&own, &name), channel(&other, &other_name));
            if channel.is_some() && channel == other_channel {
                prop_assert_eq!((own, name), (other, other_name));
            }
        }
    }
}
