//! The client over HTTP: requests and answers in JSON, messages as NDJSON.
//!
//! One connection, opened again when the server has closed it between two
//! requests. Knows nothing of what the messages are for.

use std::collections::HashSet;
use std::fmt::Write;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming as Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::timeout;
use watchtower_hub::{ChannelName, Content, Position, SenderId};

use crate::client::NextMessage;
use crate::message::{ChannelJson, content_to_json};
use crate::{ClientError, History, Message, Options, Resumed, Span, link};

/// The longest answer that is read, a stream's apart. A list of a million
/// channels fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A client over HTTP.
pub(crate) struct HttpClient {
    server: String,
    host: HeaderValue,
    options: Options,
    connection: Connection,
}

/// An HTTP connection; dropping it closes it.
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Moves the connection's bytes.
    _driver: JoinSet<()>,
}

impl Connection {
    async fn open(server: &str, options: &Options) -> Result<Self, ClientError> {
        let stream = link::open_tcp(server, options.timeout).await?;
        let (requests, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| ClientError::lost(server, error))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How a connection breaks is told to the request that waits on it.
            let _ = connection.await;
        });
        Ok(Connection { requests, _driver: driver })
    }
}

#[derive(Serialize)]
struct RegisterJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key: Option<&'a str>,
}

#[derive(Deserialize)]
struct RegisteredJson {
    id: u32,
}

/// Who joins, or leaves, and what.
#[derive(Serialize)]
struct SenderJson {
    sender: u32,
    channels: Vec<ChannelJson>,
}

impl SenderJson {
    fn new(sender: SenderId, channels: &[ChannelName]) -> Self {
        SenderJson { sender: sender.get(), channels: channels.iter().map(ChannelJson::from).collect() }
    }
}

#[derive(Serialize)]
struct PublishJson<'a> {
    channels: [ChannelJson; 1],
    sender: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    receivers: Option<Vec<u32>>,
    message: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'a str>,
}

#[derive(Deserialize)]
struct ChannelsJson {
    channels: Vec<ChannelJson>,
}

#[derive(Deserialize)]
struct ErrorJson {
    error: String,
    message: String,
}

impl HttpClient {
    pub(crate) async fn connect(server: &str, options: &Options) -> Result<Self, ClientError> {
        let host =
            HeaderValue::from_str(server).map_err(|_| ClientError::Address { server: server.to_owned() })?;
        let connection = Connection::open(server, options).await?;
        Ok(HttpClient { server: server.to_owned(), host, options: options.clone(), connection })
    }

    pub(crate) async fn register(&mut self, secret: Option<&str>) -> Result<SenderId, ClientError> {
        let answer = self.post("/register", &RegisterJson { secret_key: secret }).await?;
        let registered: RegisteredJson = self.read(&answer)?;
        SenderId::new(registered.id)
            .ok_or_else(|| ClientError::not_understood(&self.server, "a sender id of 0"))
    }

    pub(crate) async fn join(
        &mut self,
        sender: SenderId,
        channels: &[ChannelName],
    ) -> Result<(), ClientError> {
        self.post("/channels/join", &SenderJson::new(sender, channels)).await?;
        Ok(())
    }

    pub(crate) async fn leave(
        &mut self,
        sender: SenderId,
        channels: &[ChannelName],
    ) -> Result<(), ClientError> {
        self.post("/channels/leave", &SenderJson::new(sender, channels)).await?;
        Ok(())
    }

    /// To everyone in the channel, or to these receivers alone.
    pub(crate) async fn publish(
        &mut self,
        sender: SenderId,
        channel: &ChannelName,
        receivers: Option<&[SenderId]>,
        content: &Content,
    ) -> Result<(), ClientError> {
        let (message, encoding) = content_to_json(content);
        let publication = PublishJson {
            channels: [ChannelJson::from(channel)],
            sender: sender.get(),
            receivers: receivers.map(|ids| ids.iter().map(|id| id.get()).collect()),
            message,
            encoding,
        };
        let path = if receivers.is_some() { "/send" } else { "/broadcast" };
        self.post(path, &publication).await?;
        Ok(())
    }

    pub(crate) async fn channels(&mut self, sender: SenderId) -> Result<Vec<ChannelName>, ClientError> {
        let request = self.request(Method::GET, uri(format!("/channels?sender={sender}"))?, None);
        let answer = self.exchange(request).await?;
        if answer.is_empty() {
            // 204: no channels created yet.
            return Ok(Vec::new());
        }
        let list: ChannelsJson = self.read(&answer)?;
        let names = list.channels.iter().map(ChannelJson::name);
        names.collect::<Result<_, _>>().map_err(|error| ClientError::not_understood(&self.server, error))
    }

    pub(crate) async fn history(
        &mut self,
        sender: SenderId,
        channel: &ChannelName,
        span: Span,
        limit: Option<u64>,
    ) -> Result<History, ClientError> {
        let request = self.request(Method::GET, uri(history_path(sender, channel, span, limit))?, None);
        let answer = self.exchange(request).await?;
        History::from_json(&answer).map_err(|error| ClientError::not_understood(&self.server, error))
    }

    /// With positions, also where the stream goes on.
    pub(crate) async fn subscribe(
        mut self,
        sender: SenderId,
        channels: &[ChannelName],
        since: Option<&[Position]>,
    ) -> Result<(HttpStream, Vec<Resumed>), ClientError> {
        let target = uri(join_path(sender, channels, since))?;
        let mut request = self.request(Method::GET, target, None);
        let ndjson = HeaderValue::from_static("application/x-ndjson");
        request.headers_mut().insert(ACCEPT, ndjson);
        let answer = timeout(self.options.timeout, self.send(request)).await;
        let response = answer.map_err(|_| self.silent())??;
        if response.status() != StatusCode::OK {
            let (status, body) = self.read_body(response).await?;
            return Err(http_error(status, &body));
        }
        let patience = self.options.timeout;
        let mut stream = HttpStream {
            line_bytes_max: message_bytes_max(self.options.content_bytes_max),
            server: self.server,
            body: response.into_body(),
            input: BytesMut::new(),
            searched: 0,
            _connection: self.connection,
        };
        // A channel that is named twice is followed once.
        let followed: HashSet<_> = channels.iter().collect();
        let opening = timeout(patience, stream.opening(since.map_or(0, |_| followed.len())));
        match opening.await {
            Ok(resumed) => Ok((stream, resumed?)),
            Err(_) => Err(ClientError::Silent { server: stream.server, timeout: patience }),
        }
    }

    async fn post(&mut self, path: &'static str, json: &impl Serialize) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(json).expect("strings and numbers make valid JSON");
        let request = self.request(Method::POST, Uri::from_static(path), Some(body));
        self.exchange(request).await
    }

    fn request(&self, method: Method, target: Uri, json: Option<Vec<u8>>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = target;
        request.headers_mut().insert(HOST, self.host.clone());
        if let Some(json) = json {
            let content_type = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, content_type);
            *request.body_mut() = Full::new(Bytes::from(json));
        }
        request
    }

    /// Sends a request and reads the answer, which is an error unless it is a 2xx.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, ClientError> {
        let answer = timeout(self.options.timeout, async {
            let response = self.send(request).await?;
            self.read_body(response).await
        });
        let (status, body) = answer.await.map_err(|_| self.silent())??;
        if status.is_success() { Ok(body) } else { Err(http_error(status, &body)) }
    }

    /// Sends a request, over a new connection if the server has closed the one
    /// there was before it took any of it.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Body>, ClientError> {
        if self.connection.requests.ready().await.is_err() {
            self.connection = Connection::open(&self.server, &self.options).await?;
        }
        let mut failure = match self.connection.requests.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let Some(unsent) = failure.take_message() else {
            return Err(ClientError::lost(&self.server, failure.into_error()));
        };
        self.connection = Connection::open(&self.server, &self.options).await?;
        let sent = self.connection.requests.send_request(unsent).await;
        sent.map_err(|error| ClientError::lost(&self.server, error))
    }

    async fn read_body(&self, response: Response<Body>) -> Result<(StatusCode, Bytes), ClientError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                let what = format!("an answer of more than {ANSWER_BYTES_MAX} bytes");
                ClientError::not_understood(&self.server, what)
            }
            None => ClientError::lost(&self.server, error),
        })?;
        Ok((status, body.to_bytes()))
    }

    fn read<'a, T: Deserialize<'a>>(&self, answer: &'a [u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|error| ClientError::not_understood(&self.server, error))
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent { server: self.server.clone(), timeout: self.options.timeout }
    }
}

/// The messages of a stream of lines.
pub(crate) struct HttpStream {
    server: String,
    body: Body,
    /// What was read and is not a whole line yet. Invariant: no longer than
    /// `line_bytes_max` and what one read brings.
    input: BytesMut,
    /// How much of `input` holds no line's end, so that it is not searched twice.
    searched: usize,
    line_bytes_max: usize,
    _connection: Connection,
}

impl HttpStream {
    pub(crate) async fn next(&mut self) -> NextMessage {
        let Some(line) = self.line().await? else { return Ok(None) };
        Message::from_json(&line).map(Some).map_err(|error| self.no_message(&line, error))
    }

    /// What a stream says first that was given so many positions ([http: since]).
    async fn opening(&mut self, positions: usize) -> Result<Vec<Resumed>, ClientError> {
        let mut resumed = Vec::with_capacity(positions);
        while resumed.len() < positions {
            let line = self.line().await?;
            let line = line.ok_or_else(|| ClientError::Closed { server: self.server.clone() })?;
            resumed.push(Resumed::from_json(&line).map_err(|error| self.no_message(&line, error))?);
        }
        Ok(resumed)
    }

    /// Waits for the next line that is not empty; `None` at the end.
    async fn line(&mut self) -> Result<Option<BytesMut>, ClientError> {
        loop {
            while let Some(line) = self.take_line() {
                // An empty line is a heartbeat ([http: channels/join]).
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            }
            if self.input.len() > self.line_bytes_max {
                let what = format!("a line of more than {} bytes", self.line_bytes_max);
                return Err(ClientError::not_understood(&self.server, what));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.input.extend_from_slice(bytes);
                    }
                }
                Some(Err(error)) => return Err(ClientError::lost(&self.server, error)),
                None if self.input.is_empty() => return Ok(None),
                None => return Err(ClientError::lost(&self.server, "it ended within a line")),
            }
        }
    }

    /// What a line says that is not a message: why the server ends the stream,
    /// or nothing that is understood.
    fn no_message(&self, line: &[u8], error: String) -> ClientError {
        match serde_json::from_slice(line) {
            Ok(ErrorJson { error, message }) => {
                ClientError::Ended { code: error, message: printable(&message) }
            }
            Err(_) => ClientError::not_understood(&self.server, error),
        }
    }

    /// Takes a line off the input, if it holds a whole one, without its end.
    fn take_line(&mut self) -> Option<BytesMut> {
        let Some(end) = self.input[self.searched..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.input.len();
            return None;
        };
        let line = self.input.split_to(self.searched + end);
        self.input.advance(1);
        self.searched = 0;
        Some(line)
    }
}

/// How long a message may be in JSON, which takes at most six bytes for one
/// (`\u0000`), and some for the other fields.
pub(crate) fn message_bytes_max(content_bytes_max: u32) -> usize {
    const OTHER_FIELDS_BYTES: usize = 4096;
    usize::try_from(content_bytes_max)
        .unwrap_or(usize::MAX)
        .saturating_mul(6)
        .saturating_add(OTHER_FIELDS_BYTES)
}

fn join_path(sender: SenderId, channels: &[ChannelName], since: Option<&[Position]>) -> String {
    let mut path = "/channels/join?channels=".to_owned();
    for (index, channel) in channels.iter().enumerate() {
        if index > 0 {
            path.push(',');
        }
        path.extend(url::form_urlencoded::byte_serialize(channel.to_string().as_bytes()));
    }
    // Writing to a string cannot fail.
    let _ = write!(path, "&sender={sender}");
    for (index, position) in since.into_iter().flatten().enumerate() {
        let before = if index == 0 { "&since=" } else { "," };
        let _ = write!(path, "{before}{position}");
    }
    path
}

fn history_path(sender: SenderId, channel: &ChannelName, span: Span, limit: Option<u64>) -> String {
    // In a path `+` is no space.
    let mut path = "/channels/".to_owned();
    for part in url::form_urlencoded::byte_serialize(channel.to_string().as_bytes()) {
        path.push_str(if part == "+" { "%20" } else { part });
    }
    // Writing to a string cannot fail.
    let _ = write!(path, "/history?sender={sender}");
    let _ = match span {
        Span::Last => Ok(()),
        Span::After(position) => write!(path, "&since={position}"),
        Span::Before(position) => write!(path, "&before={position}"),
    };
    if let Some(limit) = limit {
        let _ = write!(path, "&limit={limit}");
    }
    path
}

/// The target of a request. Its parts are escaped: it can be no more than too long.
fn uri(path: String) -> Result<Uri, ClientError> {
    Uri::try_from(path).map_err(|_| ClientError::TooManyChannels)
}

/// An error in the form of the specification, or of something between that is
/// not Watchtower.
fn http_error(status: StatusCode, body: &[u8]) -> ClientError {
    let json = serde_json::from_slice(body).unwrap_or_else(|_| ErrorJson {
        error: String::new(),
        message: status.canonical_reason().unwrap_or("no reason given").to_owned(),
    });
    ClientError::Http { status: status.as_u16(), code: json.error, message: printable(&json.message) }
}

/// A server's words as they may reach a terminal.
pub(crate) fn printable(words: &str) -> String {
    words.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}
