//! What the client commands share: which server, over which protocol, and as whom.

use clap::{Args, ValueEnum};
use watchtower_client::{
    ChannelName, Client, ClientError, DEFAULT_SERVER, Options, Position, Protocol, SenderId,
};

use crate::failure::Failure;

/// Which server, and how to reach it.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// The server's address and port; for webrocket also ws://ADDR/PATH, or wss:// for TLS.
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_SERVER)]
    server: String,
    /// The server's secret, where registering needs it; for webrocket that of the hub.
    #[arg(long, value_name = "KEY")]
    secret: Option<String>,
    /// What to speak: by default tcp where it will do, http for channels with names and to list
    /// channels, which packets cannot, and webrocket with ws:// and wss://.
    #[arg(long, value_enum)]
    protocol: Option<ProtocolName>,
}

/// As whom: a sender that is registered already, or else a new one.
#[derive(Debug, Args)]
pub(crate) struct AsSender {
    /// The id of a registered sender; without it a new one is registered. Over tcp and udp the
    /// server moves the sender here from wherever it is connected.
    #[arg(long, value_name = "ID", value_parser = sender_id)]
    sender: Option<SenderId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    /// Watchtower packets over TCP.
    Tcp,
    /// Watchtower packets over UDP.
    Udp,
    /// Watchtower HTTP.
    Http,
    /// WebRocket: JSON over WebSocket.
    #[value(name = "webrocket")]
    WebRocket,
}

impl AsSender {
    /// Whether it is a sender that nobody else knows of.
    pub(crate) fn is_new(&self) -> bool {
        self.sender.is_none()
    }
}

impl Remote {
    /// What to speak, `otherwise` unless the command line says.
    pub(crate) fn protocol(&self, otherwise: Protocol) -> Protocol {
        let is_websocket = ["ws://", "wss://"].iter().any(|scheme| self.server.starts_with(scheme));
        match self.protocol {
            Some(ProtocolName::Tcp) => Protocol::Tcp,
            Some(ProtocolName::Udp) => Protocol::Udp,
            Some(ProtocolName::Http) => Protocol::Http,
            Some(ProtocolName::WebRocket) => Protocol::WebRocket,
            None if is_websocket => Protocol::WebRocket,
            None => otherwise,
        }
    }

    /// Reaches the server.
    pub(crate) async fn connect(self, otherwise: Protocol) -> Result<Client, Failure> {
        let protocol = self.protocol(otherwise);
        let options = Options { secret: self.secret, ..Options::default() };
        Ok(Client::connect(protocol, &self.server, options).await?)
    }

    /// The same, as a sender where there are senders.
    pub(crate) async fn connect_as(self, who: &AsSender, otherwise: Protocol) -> Result<Client, Failure> {
        let has_senders = self.protocol(otherwise) != Protocol::WebRocket;
        if !has_senders && who.sender.is_some() {
            return Err(Failure::Usage("over WebRocket there are no senders: leave --sender out".into()));
        }
        let mut client = self.connect(otherwise).await?;
        match who.sender {
            _ if !has_senders => Ok(client),
            Some(sender) => Ok(client.with_sender(sender)),
            None => {
                client.register().await?;
                Ok(client)
            }
        }
    }
}

/// TCP, unless a channel has a name: packets have numbers alone.
pub(crate) fn protocol_for(channels: &[ChannelName]) -> Protocol {
    if channels.iter().all(|channel| channel.number().is_some()) { Protocol::Tcp } else { Protocol::Http }
}

/// For clap: a channel's name or number.
pub(crate) fn channel_name(text: &str) -> Result<ChannelName, String> {
    ChannelName::parse(text).map_err(|error| error.to_string())
}

/// For clap: a position in a channel.
pub(crate) fn position(text: &str) -> Result<Position, String> {
    Position::parse(text).ok_or_else(|| "a position is EPOCH:OFFSET, such as 9f2c61c05e7a4d3b:12".to_owned())
}

fn sender_id(text: &str) -> Result<SenderId, String> {
    let number = text.parse().ok().and_then(SenderId::new);
    number.ok_or_else(|| "a sender's id is a number from 1 to 4294967295".to_owned())
}

/// What cannot work whatever the server says is bad usage.
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Address { .. }
            | ClientError::Url { .. }
            | ClientError::NamedChannel { .. }
            | ClientError::CannotList { .. }
            | ClientError::CannotReadHistory { .. }
            | ClientError::CannotResume { .. }
            | ClientError::CannotRegister { .. } => Self::Usage(error.to_string()),
            // Its sources are in its message already.
            _ => Self::Other(anyhow::Error::msg(error.to_string())),
        }
    }
}
