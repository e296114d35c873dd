//! What the hub may be told: limits, lifetimes, and rules for channels.

use std::time::Duration;

use crate::presence::PRESENCE_EVENT;
use crate::{ChannelName, Message};

/// How many times the bytes by which one subscription may be behind all those of
/// a session may be, together.
pub(crate) const SESSION_LAG_FACTOR: u64 = 16;

/// The hub's settings. [`Hub::configure`](crate::Hub::configure) replaces them
/// while it runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bounds that the hub enforces.
    pub limits: Limits,
    /// How long a sender lives without activity ([packets: rules]).
    pub sender_ttl: Duration,
    /// How long joins outlive their session, and an unused channel its last
    /// member ([packets: rules]).
    pub session_ttl: Duration,
    /// Whether a sender's id may not move to another session while its owner
    /// is connected ([packets: rules]).
    pub bind_ids: bool,
    /// Rules for channels; the first that matches counts. A rule applies to
    /// channels that are made after it was set.
    pub channels: Vec<ChannelRule>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            limits: Limits::default(),
            sender_ttl: Duration::from_secs(30 * 24 * 3600),
            session_ttl: Duration::from_secs(120),
            bind_ids: false,
            channels: Vec::new(),
        }
    }
}

/// The bounds that the hub enforces ([running: limits]).
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest content of a message, with what is beside it, in bytes.
    pub message_bytes_max: usize,
    /// How many channels there may be.
    pub channels_max: usize,
    /// How many channels one sender may have joined.
    pub channels_per_sender_max: usize,
    /// How many senders may be registered.
    pub senders_max: usize,
    /// How much all channels together may retain ([`ChannelRule::retain`]), in
    /// bytes; each message counts 256 more than its content.
    pub retained_bytes_max: u64,
    /// How far a subscription may fall behind, in bytes. A channel's log is
    /// looked through each eighth of this, so that memory is bounded by nine
    /// eighths; by four times this while a session has had no turn at all
    /// since it was woken, which is not its client's fault.
    ///
    /// All subscriptions of a session together may fall behind by 16 times
    /// this; a sixteenth more, and for each subscription a message and a 128th
    /// of this, until it is noticed. When the session is over, what is kept
    /// for its return stays within that too: the more subscriptions there
    /// are, the less for each, down to a 128th of the limits.
    pub lag_bytes: u64,
    /// How far a subscription may fall behind, in messages; likewise. There is no
    /// bound on all of a session's together.
    pub lag_messages: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes_max: 65_535,
            channels_max: 1_000_000,
            channels_per_sender_max: 10_000,
            senders_max: 1_000_000,
            retained_bytes_max: 64 << 20,
            lag_bytes: 1 << 20,
            lag_messages: 10_000,
        }
    }
}

/// What is kept and accepted on the channels of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRule {
    /// Matched against the whole name; `*` stands for any run of characters.
    pub pattern: String,
    /// Whether messages are given to the [`Ledger`](crate::Ledger), and are
    /// published once they are kept.
    pub durable: bool,
    /// How many messages stay in memory for those who come later. On a durable
    /// channel the ledger keeps them, and 0 sets no limit.
    pub history_messages: usize,
    /// How many bytes of messages the ledger of a durable channel keeps; 0 sets no
    /// limit. The hub does not look at it.
    pub history_bytes: u64,
    /// How long they stay.
    pub history_ttl: Duration,
    /// Which content is accepted ([model: projection]).
    pub accepts: Accepts,
    /// Whether subscribers are told who joins and who leaves, by messages of the
    /// event name [`PRESENCE_EVENT`](crate::PRESENCE_EVENT).
    pub presence_events: bool,
    /// Whether a new subscriber gets the channel's last message for everyone at
    /// once. It does not expire; one without content ends it. A channel that
    /// retains something is there without anybody in it. On a durable channel it
    /// outlives the process.
    pub retain: bool,
}

impl ChannelRule {
    /// Whether a message is the channel's last one from when it is published until
    /// the next that is, or, without content, that there is none. What is for some
    /// alone is nobody else's, and presence no value.
    pub fn retains(&self, message: &Message) -> bool {
        let is_presence = self.presence_events && message.event() == Some(PRESENCE_EVENT);
        self.retain && !message.is_direct() && !is_presence
    }
}

/// Which content a channel accepts ([model: projection]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accepts {
    /// Everything, as it comes.
    #[default]
    Any,
    /// JSON; text that is JSON becomes JSON.
    Json,
    /// Text only.
    Text,
}

impl Default for ChannelRule {
    /// The rule of channels that no rule matches: memory only, no history.
    fn default() -> Self {
        ChannelRule {
            pattern: "*".to_owned(),
            durable: false,
            history_messages: 0,
            history_bytes: 0,
            history_ttl: Duration::from_secs(3600),
            accepts: Accepts::Any,
            presence_events: false,
            retain: false,
        }
    }
}

impl Settings {
    /// The rule for a channel.
    pub fn rule(&self, name: &ChannelName) -> ChannelRule {
        let name = name.to_string();
        self.channels.iter().find(|rule| matches(&rule.pattern, &name)).cloned().unwrap_or_default()
    }
}

/// Whether `pattern`, in which `*` stands for any run of bytes, matches the
/// whole of `text`. Takes at most `pattern.len() * text.len()` steps.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            (p, t) = (after_star, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_within_the_whole_name() {
        fn check(pattern: &str, text: &str, expected: bool) {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        check("orders/*", "orders/7", true);
        check("orders/*", "orders/", true);
        check("orders/*", "order/7", false);
        check("*", "anything", true);
        check("", "a", false);
        check("*a*b", "xaxxbxb", true);
        check("*a*b", "xaxxbxc", false);
        check("a*a", "a", false);
        check("5", "5", true);
        check("5", "55", false);
        check(&"*a".repeat(60), &"a".repeat(128), true);
        check(&format!("{}b", "*a".repeat(60)), &"a".repeat(128), false);
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rule = |pattern: &str, history_messages| ChannelRule {
            pattern: pattern.into(),
            history_messages,
            ..ChannelRule::default()
        };
        let settings = Settings { channels: vec![rule("a*", 1), rule("*", 2)], ..Settings::default() };
        let kept = |name| settings.rule(&ChannelName::parse(name).unwrap()).history_messages;
        assert_eq!([kept("ab"), kept("b"), kept("7")], [1, 2, 2]);
        assert_eq!(Settings::default().rule(&5.into()), ChannelRule::default());
    }
}
