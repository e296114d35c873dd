//! `watchtower channels`.

use clap::Args;
use watchtower_client::{ClientError, Protocol};

use super::remote::{AsSender, Remote};
use crate::failure::Failure;
use crate::{output, runtime};

#[derive(Debug, Args)]
#[command(after_help = "\
One channel a line, numbers first. Nothing is printed where there are none.

Examples:
  watchtower channels
  watchtower channels --server 192.0.2.1:3033 --sender 72")]
pub(crate) struct Channels {
    #[command(flatten)]
    who: AsSender,
    #[command(flatten)]
    remote: Remote,
}

impl Channels {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.remote.protocol(Protocol::Http) == Protocol::WebRocket {
            return Err(ClientError::CannotList { protocol: Protocol::WebRocket }.into());
        }
        let channels = runtime::for_client()?.block_on(async {
            let mut client = self.remote.connect_as(&self.who, Protocol::Http).await?;
            Ok::<_, Failure>(client.channels().await?)
        })?;
        let lines: String = channels.iter().map(|channel| format!("{channel}\n")).collect();
        Ok(output::print(lines.as_bytes())?)
    }
}
