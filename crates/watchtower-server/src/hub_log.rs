//! The log of one WebRocket hub: a line for each thing that happens in it.
//!
//! Shows channels and sizes, never a secret and never what was published.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};

use parking_lot::Mutex;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use watchtower_hub::ChannelName;
use watchtower_protocols::webrocket::{Activity, Observer};

use crate::clock;

/// How many lines may wait to be written. What comes when they do is not
/// logged, and counted at the end.
const LINES_MAX: usize = 16 * 1024;

/// Writes down what happens in a hub, a line each, with the time and the number
/// of the connection; the writing is a thread's of its own. What is there when
/// it is dropped is written then.
pub struct HubLog {
    lines: Mutex<NonBlocking>,
    _writer: WorkerGuard,
}

impl HubLog {
    /// A log at the end of this file.
    pub fn to(file: File) -> HubLog {
        let (lines, writer) =
            NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).thread_name("hub-log").finish(file);
        HubLog { lines: Mutex::new(lines), _writer: writer }
    }
}

impl Observer for HubLog {
    fn observe(&self, connection: u64, activity: &Activity<'_>) {
        let now = i64::try_from(clock::now().as_millis()).unwrap_or(i64::MAX);
        let now = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
        let line = format!("{now:.3} {connection} {}\n", Said(activity));
        // It takes all lines that there is room for.
        let _: io::Result<()> = self.lines.lock().write_all(line.as_bytes());
    }
}

impl fmt::Debug for HubLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubLog").finish_non_exhaustive()
    }
}

/// An activity in words.
struct Said<'a>(&'a Activity<'a>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Activity::Connected { request } => {
                write!(f, "connected to {}", request.uri.path().escape_debug())?;
                match request.headers.get(http::header::ORIGIN) {
                    Some(origin) => write!(f, " from {}", origin.as_bytes().escape_ascii()),
                    None => Ok(()),
                }
            }
            Activity::Authenticated { access } => write!(f, "authenticated for {access}"),
            Activity::Refused { command: Some(command), code } => {
                write!(f, "refused {}: {}", command.name(), code.name())
            }
            Activity::Refused { command: None, code } => write!(f, "refused: {}", code.name()),
            Activity::Subscribed { channel } => write!(f, "subscribed to {}", Plain(channel)),
            Activity::Unsubscribed { channel } => write!(f, "unsubscribed from {}", Plain(channel)),
            Activity::Published { channel, bytes } => {
                write!(f, "published {bytes} bytes on {}", Plain(channel))
            }
            Activity::LoggedOut => f.write_str("logged out"),
            Activity::Disconnected => f.write_str("disconnected"),
        }
    }
}

/// A channel's name without what could deceive the reader of a terminal.
struct Plain<'a>(&'a ChannelName);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string().escape_debug().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use watchtower_protocols::webrocket::{Access, CommandName, ErrorCode};

    use super::*;

    #[test]
    fn each_thing_that_happens_is_a_line_with_its_time_and_connection() {
        let path = tempfile::tempdir().expect("a folder");
        let file = path.path().join("echo.log");
        let log = HubLog::to(File::create(&file).expect("a file"));
        let channel = ChannelName::parse("a\u{202e}b").expect("a name");
        let request =
            http::Request::get("/echo").header("Origin", "https://example.com").body(()).expect("a request");
        let activities = [
            Activity::Connected { request: &request.into_parts().0 },
            Activity::Refused { command: Some(CommandName::Publish), code: ErrorCode::AccessDenied },
            Activity::Refused { command: None, code: ErrorCode::InvalidData },
            Activity::Authenticated { access: Access::ReadWrite },
            Activity::Subscribed { channel: &channel },
            Activity::Published { channel: &channel, bytes: 12 },
            Activity::Unsubscribed { channel: &channel },
            Activity::LoggedOut,
            Activity::Disconnected,
        ];
        activities.iter().for_each(|activity| log.observe(7, activity));
        drop(log);
        let lines = std::fs::read_to_string(&file).expect("it is there");
        let said: Vec<&str> = lines.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
        assert_eq!(
            said,
            [
                "7 connected to /echo from https://example.com",
                "7 refused publish: access_denied",
                "7 refused: invalid_data",
                "7 authenticated for read-write",
                "7 subscribed to a\\u{202e}b",
                "7 published 12 bytes on a\\u{202e}b",
                "7 unsubscribed from a\\u{202e}b",
                "7 logged out",
                "7 disconnected",
            ]
        );
    }
}
