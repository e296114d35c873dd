//! `watchtower history`.

use std::io::{self, Write};

use clap::Args;
use watchtower_client::{ChannelName, ClientError, History, Position, Protocol, Span};

use super::line::{LineForm, line};
use super::remote::{AsSender, Remote, channel_name, position};
use crate::failure::Failure;
use crate::{output, runtime};

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the last messages that the channel keeps, as `sub` prints them; with --since the first ones
after a position, with --before the last ones before it. A position is an EPOCH:OFFSET, as --json
shows them. What a channel keeps is set on the server, and is nothing unless it is; direct messages
are not shown.

Says on standard error how to go on where there is more, and when something may be missing next to
the position. Over http alone.

Examples:
  watchtower history 5
  watchtower history news --limit 10 --json
  watchtower history 5 --since 9f2c61c05e7a4d3b:12
  watchtower history 5 --before 9f2c61c05e7a4d3b:12 --limit 10")]
pub(crate) struct ReadHistory {
    /// The channel's number or name.
    #[arg(value_parser = channel_name)]
    channel: ChannelName,
    /// The first messages after this EPOCH:OFFSET.
    #[arg(long, value_name = "POSITION", value_parser = position, conflicts_with = "before")]
    since: Option<Position>,
    /// The last messages before this EPOCH:OFFSET.
    #[arg(long, value_name = "POSITION", value_parser = position)]
    before: Option<Position>,
    /// At most so many messages; as many as the server gives at once, otherwise.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    who: AsSender,
    #[command(flatten)]
    remote: Remote,
}

impl ReadHistory {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let protocol = self.remote.protocol(Protocol::Http);
        if protocol != Protocol::Http {
            return Err(ClientError::CannotReadHistory { protocol }.into());
        }
        let span = match (self.since, self.before) {
            (Some(position), _) => Span::After(position),
            (None, Some(position)) => Span::Before(position),
            (None, None) => Span::Last,
        };
        let form = LineForm::for_output(self.json);
        let history = runtime::for_client()?.block_on(async {
            let mut client = self.remote.connect_as(&self.who, Protocol::Http).await?;
            Ok::<_, Failure>(client.history(&self.channel, span, self.limit).await?)
        })?;
        let mut lines = Vec::new();
        for message in &history.messages {
            lines.extend(line(message, form));
            lines.push(b'\n');
        }
        output::print(&lines)?;
        for note in notes(&history) {
            // Beside the point of the command: it goes on where standard error is closed.
            let _ = writeln!(io::stderr(), "{note}");
        }
        Ok(())
    }
}

/// What a person is told beside the messages.
fn notes(history: &History) -> Vec<String> {
    let mut notes = Vec::new();
    for lost in &history.lost {
        notes.push(match lost.end() - lost.start() {
            0 => format!("the server has lost message {} by damage to its disk", lost.start()),
            _ => format!(
                "the server has lost messages {} to {} by damage to its disk",
                lost.start(),
                lost.end()
            ),
        });
    }
    if !history.recovered && history.lost.is_empty() {
        notes.push("what comes next to that position is not kept: messages may be missing".to_owned());
    }
    if let (true, Some(first)) = (history.more_before, history.first) {
        notes.push(format!("earlier ones: --before {first}"));
    }
    if let (true, Some(last)) = (history.more_after, history.last) {
        notes.push(format!("later ones: --since {last}"));
    }
    notes
}
