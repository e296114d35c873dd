//! `watchtower pub`.

use std::io::{self, Read};

use anyhow::Context;
use clap::Args;
use watchtower_client::{ChannelName, Content};

use super::remote::{AsSender, Remote, channel_name, protocol_for};
use crate::failure::Failure;
use crate::runtime;

/// The most bytes that are read from standard input: more than any server takes by default, and
/// a bound for what a pipe without an end would fill.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "\
Without MESSAGE, or with -, standard input is read to its end and published as one message, its
last line break included. What is valid UTF-8 is published as text, anything else as binary.

Without --sender each run registers a new sender, which leaves the channel again and stays
registered for the server's sender_ttl. What publishes often had better register once.

Examples:
  watchtower pub 5 'all your base are belong to us'
  date | watchtower pub clock -
  watchtower pub 5 hello --protocol udp
  watchtower pub 5 hello --protocol webrocket --secret \"$SECRET\"
  watchtower pub news hello --server ws://127.0.0.1:9772/echo")]
pub(crate) struct Publish {
    /// The channel's number or name.
    #[arg(value_parser = channel_name)]
    channel: ChannelName,
    /// What to publish; - stands for standard input.
    message: Option<String>,
    #[command(flatten)]
    who: AsSender,
    #[command(flatten)]
    remote: Remote,
}

impl Publish {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let content = match self.message {
            Some(message) if message != "-" => Content::text(message),
            _ => Content::sniff(read_input()?),
        };
        let channels = [self.channel];
        runtime::for_client()?.block_on(async {
            let protocol = protocol_for(&channels);
            let mut client = self.remote.connect_as(&self.who, protocol).await?;
            client.join(&channels).await?;
            let [channel] = &channels;
            client.publish(channel, &content).await?;
            if self.who.is_new() && client.sender().is_some() {
                // Nobody will use this sender again, and it would be shown as present for a long
                // time. Whatever comes of this, the message is published.
                let _ = client.leave(&channels).await;
            }
            Ok(())
        })
    }
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    io::stdin().take(INPUT_BYTES_MAX + 1).read_to_end(&mut input).context("cannot read standard input")?;
    if input.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::Usage(format!("a message is at most {INPUT_BYTES_MAX} bytes")));
    }
    Ok(input)
}
