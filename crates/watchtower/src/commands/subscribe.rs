//! `watchtower sub`.

use std::io::{self, Write};

use clap::Args;
use watchtower_client::{ChannelName, ClientError, Position, Protocol, Resumed, Subscription};

use super::line::{LineForm, line};
use super::remote::{AsSender, Remote, channel_name, position, protocol_for};
use crate::failure::Failure;
use crate::signals::Signals;
use crate::{output, runtime};

#[derive(Debug, Args)]
#[command(after_help = "\
Each message is one line: the channel, the sender (- for none), the content. Line breaks in the
content are escaped, so that a message stays one line, and on a terminal all control characters.
--json prints messages whole, in the form of the HTTP streams.

--since goes on after a position, an EPOCH:OFFSET as --json shows them: what the channel keeps after
it comes first. Whether something is missing is said on standard error. Over http and webrocket.

Says on standard error when it is subscribed. Ends on Ctrl-C, or when the reader of its output is
gone.

Examples:
  watchtower sub 5
  watchtower sub 5 6 clock --json
  watchtower sub 5 --since 9f2c61c05e7a4d3b:12
  watchtower sub 5 | head -n 1
  watchtower sub news --server ws://127.0.0.1:9772/echo")]
pub(crate) struct Subscribe {
    /// The channels' numbers or names.
    #[arg(value_name = "CHANNEL", required = true, value_parser = channel_name)]
    channels: Vec<ChannelName>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
    /// Go on after this EPOCH:OFFSET; for several channels a list with commas, in their order.
    #[arg(long, value_name = "POSITION", value_delimiter = ',', value_parser = position)]
    since: Vec<Position>,
    #[command(flatten)]
    who: AsSender,
    #[command(flatten)]
    remote: Remote,
}

impl Subscribe {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if !self.since.is_empty() && self.since.len() != self.channels.len() {
            let problem = "--since has as many positions as there are channels, in their order";
            return Err(Failure::Usage(problem.to_owned()));
        }
        let form = LineForm::for_output(self.json);
        runtime::for_client()?.block_on(async {
            let mut signals = Signals::to_stop()?;
            let subscription = tokio::select! {
                subscription = self.subscribe() => subscription?,
                _ = signals.next() => return Ok(()),
            };
            follow(subscription, form, &mut signals).await
        })
    }

    async fn subscribe(self) -> Result<Subscription, Failure> {
        let is_new = self.since.is_empty();
        let protocol = if is_new { protocol_for(&self.channels) } else { Protocol::Http };
        self.refuse_what_cannot_resume(protocol)?;
        let client = self.remote.connect_as(&self.who, protocol).await?;
        let subscription = if is_new {
            client.subscribe(&self.channels).await?
        } else {
            client.subscribe_since(&self.channels, &self.since).await?
        };
        let names: Vec<String> = self.channels.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        let sender = subscription.sender().map(|sender| format!(" as sender {sender}")).unwrap_or_default();
        // Beside the point of the command: it goes on where standard error is closed.
        let _ = writeln!(io::stderr(), "subscribed to {names}{sender}");
        for resumed in subscription.resumed().iter().filter(|resumed| !resumed.recovered) {
            let Resumed { channel, position, .. } = resumed;
            let _ = writeln!(
                io::stderr(),
                "{channel}: going on after {position}, since what came after the position that was asked \
                 for is not kept: messages may be missing, and others come again"
            );
        }
        Ok(subscription)
    }

    /// Before anybody is registered.
    fn refuse_what_cannot_resume(&self, otherwise: Protocol) -> Result<(), Failure> {
        let protocol = self.remote.protocol(otherwise);
        if !self.since.is_empty() && matches!(protocol, Protocol::Tcp | Protocol::Udp) {
            return Err(ClientError::CannotResume { protocol }.into());
        }
        Ok(())
    }
}

/// Prints messages until a signal comes or the reader of the output is gone.
async fn follow(
    mut subscription: Subscription,
    form: LineForm,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut closed = std::pin::pin!(output::closed());
    loop {
        let message = tokio::select! {
            message = subscription.next() => message?,
            _ = signals.next() => break,
            () = &mut closed => break,
        };
        let Some(message) = message else {
            return Err(anyhow::anyhow!("the server ended the connection").into());
        };
        if !output::print_line(&line(&message, form))? {
            break;
        }
    }
    subscription.leave().await;
    Ok(())
}
