//! `watchtower register`.

use clap::Args;
use watchtower_client::{ClientError, Protocol};

use super::remote::Remote;
use crate::failure::Failure;
use crate::{output, runtime};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchtower register
  watchtower register --server 192.0.2.1:3033 --secret \"$SECRET\"
  watchtower pub 5 hello --sender \"$(watchtower register)\"")]
pub(crate) struct Register {
    #[command(flatten)]
    remote: Remote,
}

impl Register {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.remote.protocol(Protocol::Tcp) == Protocol::WebRocket {
            return Err(ClientError::CannotRegister { protocol: Protocol::WebRocket }.into());
        }
        let sender = runtime::for_client()?.block_on(async {
            let mut client = self.remote.connect(Protocol::Tcp).await?;
            Ok::<_, Failure>(client.register().await?)
        })?;
        output::print_line(sender.to_string().as_bytes())?;
        Ok(())
    }
}
