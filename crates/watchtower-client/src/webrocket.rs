//! The client over WebRocket: commands and messages in JSON on a WebSocket.
//!
//! Answers carry no reference to what they answer, so one thing is asked at a time and the order
//! tells. A hub has no senders: its secrets say what a connection may do.

use std::collections::VecDeque;
use std::convert::Infallible;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;
use watchtower_hub::{ChannelName, Content, Position};

use crate::client::NextMessage;
use crate::early::Early;
use crate::history::position;
use crate::http::{message_bytes_max, printable};
use crate::message::{content_from_json, content_to_json};
use crate::websocket::WebSocket;
use crate::{ClientError, Message, Options, Resumed};

/// Where a server has its hub unless it was told otherwise.
const DEFAULT_PATH: &str = "/webrocket";

/// The event of a message that names none [model: names].
const DEFAULT_EVENT: &str = "message";

/// Why a WebRocket hub did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// `invalid_credentials`.
    #[error("the secret is not one of the hub's (invalid_credentials)")]
    InvalidCredentials,
    /// `access_denied`.
    #[error("this is not allowed here without the right secret, or a limit is reached (access_denied)")]
    AccessDenied,
    /// `invalid_channel_name`.
    #[error("the hub has no channel of that name and will not make one (invalid_channel_name)")]
    InvalidChannelName,
    /// `invalid_channel`.
    #[error("the hub has no such channel (invalid_channel)")]
    InvalidChannel,
    /// `invalid_data`.
    #[error("the hub does not take this, perhaps because it is too long (invalid_data)")]
    InvalidData,
    /// Something that this client does not know, with what does not print replaced.
    #[error("{0}")]
    Other(String),
}

impl HubError {
    fn from_code(code: &str) -> Self {
        match code {
            "invalid_credentials" => Self::InvalidCredentials,
            "access_denied" => Self::AccessDenied,
            "invalid_channel_name" => Self::InvalidChannelName,
            "invalid_channel" => Self::InvalidChannel,
            "invalid_data" => Self::InvalidData,
            other => Self::Other(printable(other)),
        }
    }
}

/// What a connection may do at a hub. Later ones include earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Access {
    ReadOnly,
    ReadWrite,
}

/// A command, as an object with this one key.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Command<'a> {
    Auth {
        access: Access,
        secret: &'a str,
    },
    Subscribe {
        channel: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<String>,
    },
    Unsubscribe {
        channel: &'a str,
    },
    Publish(Publish<'a>),
}

#[derive(Serialize)]
struct Publish<'a> {
    event: &'a str,
    channel: &'a str,
    data: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'a str>,
}

/// A message from the server.
#[derive(Deserialize)]
struct MessageJson<'a> {
    event: String,
    channel: String,
    #[serde(borrow)]
    data: &'a RawValue,
    encoding: Option<String>,
    position: Option<String>,
}

/// An answer from the server.
#[derive(Deserialize)]
struct AnswerJson {
    ok: Option<bool>,
    err: Option<String>,
    recovered: Option<bool>,
    position: Option<String>,
}

/// What a command that was carried out is answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Where it goes on, and whether that is where it was asked to: for who
    /// subscribed with a position.
    resumed: Option<(Position, bool)>,
}

#[derive(Debug)]
pub(crate) enum Incoming {
    Message(Message),
    Answer(Result<Answer, HubError>),
}

impl Incoming {
    /// Says what is wrong without showing the content.
    pub(crate) fn read(bytes: &[u8]) -> Result<Incoming, String> {
        let message: MessageJson<'_> = match serde_json::from_slice(bytes) {
            Ok(message) => message,
            Err(no_message) => {
                let no_message = || format!("not a message: {no_message}");
                return read_answer(bytes)?.map(Incoming::Answer).ok_or_else(no_message);
            }
        };
        Ok(Incoming::Message(Message {
            channel: ChannelName::parse(&message.channel).map_err(|error| error.to_string())?,
            sender: None,
            direct: false,
            content: content_from_json("data", message.data, message.encoding.as_deref())?,
            event: Some(message.event).filter(|event| event != DEFAULT_EVENT),
            position: message.position.as_deref().map(position).transpose()?,
            time: None,
        }))
    }
}

/// `None` for what is no answer.
fn read_answer(bytes: &[u8]) -> Result<Option<Result<Answer, HubError>>, String> {
    let Ok(json) = serde_json::from_slice::<AnswerJson>(bytes) else { return Ok(None) };
    Ok(match (json.ok, json.err) {
        (Some(true), None) => {
            let position = json.position.as_deref().map(position).transpose()?;
            Some(Ok(Answer { resumed: position.zip(json.recovered) }))
        }
        (None, Some(code)) => Some(Err(HubError::from_code(&code))),
        _ => None,
    })
}

/// A client over WebRocket.
pub(crate) struct WebRocketClient {
    socket: WebSocket,
    options: Options,
    /// What has been asked for.
    access: Option<Access>,
    early: Early,
    /// Whether the answer to all that was asked has come.
    settled: bool,
}

impl WebRocketClient {
    pub(crate) async fn connect(server: &str, options: &Options) -> Result<Self, ClientError> {
        let message_bytes_max = message_bytes_max(options.content_bytes_max);
        let socket = WebSocket::connect(server, DEFAULT_PATH, message_bytes_max, options).await?;
        let options = options.clone();
        Ok(WebRocketClient { socket, options, access: None, early: Early::default(), settled: true })
    }

    /// Subscribes, which makes a channel that is not there, with access to publish.
    pub(crate) async fn join(&mut self, channels: &[ChannelName]) -> Result<(), ClientError> {
        self.authenticate(Access::ReadWrite).await?;
        self.subscribe_to(channels, None).await.map(drop)
    }

    pub(crate) async fn leave(&mut self, channels: &[ChannelName]) -> Result<(), ClientError> {
        for channel in channels {
            self.ask(&Command::Unsubscribe { channel: &channel.to_string() }).await?;
        }
        Ok(())
    }

    pub(crate) async fn publish(
        &mut self,
        channel: &ChannelName,
        content: &Content,
    ) -> Result<(), ClientError> {
        self.authenticate(Access::ReadWrite).await?;
        let (data, encoding) = content_to_json(content);
        let publish = Publish { event: DEFAULT_EVENT, channel: &channel.to_string(), data, encoding };
        self.ask(&Command::Publish(publish)).await.map(drop)
    }

    pub(crate) async fn idle(&mut self) -> Result<Infallible, ClientError> {
        loop {
            if let Incoming::Answer(Err(error)) = self.receive().await? {
                return Err(ClientError::Hub(error));
            }
        }
    }

    pub(crate) async fn subscribe(
        mut self,
        channels: &[ChannelName],
        since: Option<&[Position]>,
    ) -> Result<(WebRocketStream, Vec<Resumed>), ClientError> {
        self.early.keep();
        self.authenticate(Access::ReadOnly).await?;
        let resumed = self.subscribe_to(channels, since).await?;
        Ok((WebRocketStream { socket: self.socket, early: self.early.take() }, resumed))
    }

    async fn subscribe_to(
        &mut self,
        channels: &[ChannelName],
        since: Option<&[Position]>,
    ) -> Result<Vec<Resumed>, ClientError> {
        let mut resumed = Vec::new();
        for (index, channel) in channels.iter().enumerate() {
            let since = since.and_then(|since| since.get(index)).map(Position::to_string);
            let asked = since.is_some();
            let answer = self.ask(&Command::Subscribe { channel: &channel.to_string(), since }).await?;
            match answer.resumed {
                Some((position, recovered)) => {
                    resumed.push(Resumed { channel: channel.clone(), position, recovered });
                }
                None if asked => {
                    let what = "an answer that does not say where the subscription goes on";
                    return Err(ClientError::not_understood(self.socket.server(), what));
                }
                None => {}
            }
        }
        Ok(resumed)
    }

    /// Asks for access, unless there is as much.
    ///
    /// Without a secret the empty one is tried, which is that of a hub that needs none. Where it is
    /// refused the hub may still give access without any: what is asked next will tell.
    async fn authenticate(&mut self, access: Access) -> Result<(), ClientError> {
        if self.access >= Some(access) {
            return Ok(());
        }
        let mut answer = self.auth(access).await;
        let refused = |answer: &Result<(), ClientError>| {
            matches!(answer, Err(ClientError::Hub(HubError::InvalidCredentials)))
        };
        if refused(&answer) && access < Access::ReadWrite && self.options.secret.is_some() {
            // It may be the secret for more.
            answer = self.auth(Access::ReadWrite).await;
        }
        if refused(&answer) && self.options.secret.is_none() {
            answer = Ok(());
        }
        answer?;
        self.access = self.access.max(Some(access));
        Ok(())
    }

    async fn auth(&mut self, access: Access) -> Result<(), ClientError> {
        let secret = self.options.secret.clone().unwrap_or_default();
        self.ask(&Command::Auth { access, secret: &secret }).await.map(drop)
    }

    /// Sends a command and waits for its answer.
    async fn ask(&mut self, command: &Command<'_>) -> Result<Answer, ClientError> {
        if !self.settled {
            return Err(self.closed());
        }
        self.settled = false;
        let json = serde_json::to_string(command).expect("strings and valid JSON make valid JSON");
        let asking = timeout(self.options.timeout, async {
            let sent = self.socket.send(json).await;
            match (self.answer().await, sent) {
                // What could not be sent may still have an answer: a server that closes while it is
                // written to has said why.
                (Err(ClientError::Lost { .. } | ClientError::Closed { .. }), Err(error)) => Err(error),
                (answer, _) => answer,
            }
        })
        .await;
        let answer = asking.unwrap_or_else(|_| {
            let server = self.socket.server().to_owned();
            Err(ClientError::Silent { server, timeout: self.options.timeout })
        });
        self.settled = matches!(answer, Ok(_) | Err(ClientError::Hub(_)));
        answer
    }

    async fn answer(&mut self) -> Result<Answer, ClientError> {
        loop {
            match self.receive().await? {
                Incoming::Answer(answer) => return answer.map_err(ClientError::Hub),
                Incoming::Message(message) => self.early.push(message)?,
            }
        }
    }

    async fn receive(&mut self) -> Result<Incoming, ClientError> {
        receive(&mut self.socket).await?.ok_or_else(|| self.closed())
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed { server: self.socket.server().to_owned() }
    }
}

async fn receive(socket: &mut WebSocket) -> Result<Option<Incoming>, ClientError> {
    let Some(bytes) = socket.receive().await? else { return Ok(None) };
    let incoming = Incoming::read(&bytes);
    incoming.map(Some).map_err(|what| ClientError::not_understood(socket.server(), what))
}

/// The messages of channels of a hub.
pub(crate) struct WebRocketStream {
    socket: WebSocket,
    /// What came while the channels were subscribed to.
    early: VecDeque<Message>,
}

impl WebRocketStream {
    pub(crate) async fn next(&mut self) -> NextMessage {
        if let Some(message) = self.early.pop_front() {
            return Ok(Some(message));
        }
        loop {
            match receive(&mut self.socket).await? {
                None => return Ok(None),
                Some(Incoming::Message(message)) => return Ok(Some(message)),
                Some(Incoming::Answer(Err(error))) => return Err(ClientError::Hub(error)),
                Some(Incoming::Answer(Ok(_))) => {}
            }
        }
    }

    pub(crate) async fn leave(self) {
        self.socket.close().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(command: &Command<'_>, expected: &str) {
        assert_eq!(serde_json::to_string(command).unwrap(), expected);
    }

    #[test]
    fn a_command_is_an_object_with_one_key() {
        // [webrocket: commands]
        let auth = Command::Auth { access: Access::ReadWrite, secret: "a\"b" };
        check(&auth, r#"{"auth":{"access":"read-write","secret":"a\"b"}}"#);
        check(&Command::Subscribe { channel: "5", since: None }, r#"{"subscribe":{"channel":"5"}}"#);
        let since = Some("00000000000000ff:7".to_owned());
        let expected = r#"{"subscribe":{"channel":"5","since":"00000000000000ff:7"}}"#;
        check(&Command::Subscribe { channel: "5", since }, expected);
    }

    #[test]
    fn an_answer_may_say_where_a_subscription_goes_on() {
        // [webrocket: since]
        let answer = |json: &str| match Incoming::read(json.as_bytes()) {
            Ok(Incoming::Answer(Ok(answer))) => answer,
            other => panic!("{other:?}"),
        };
        assert_eq!(answer(r#"{"ok": true}"#), Answer::default());
        let said = answer(r#"{"ok": true, "recovered": false, "position": "00000000000000ff:7"}"#);
        assert_eq!(said.resumed, Some((position("00000000000000ff:7").unwrap(), false)));
        assert!(Incoming::read(br#"{"ok": true, "recovered": true, "position": "x"}"#).is_err());
        assert!(Incoming::read(br#"{"ok": false}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Incoming::read(&bytes);
        }

        #[test]
        fn what_is_published_is_read_as_it_was(text in ".*", bytes: Vec<u8>) {
            let json = Content::json(serde_json::to_vec(&[&text]).unwrap()).unwrap();
            for content in [Content::text(text), json, Content::binary(bytes)] {
                let (data, encoding) = content_to_json(&content);
                let publish = Publish { event: "foo", channel: "hello", data, encoding };
                let read = Incoming::read(&serde_json::to_vec(&publish).unwrap());
                let Ok(Incoming::Message(message)) = read else { panic!("{:?}", read.err()) };
                prop_assert_eq!(message.content, content);
                prop_assert_eq!(message.event.as_deref(), Some("foo"));
            }
        }
    }
}
