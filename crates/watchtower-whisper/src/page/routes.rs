//! The requests that the page makes, and `GET /peers` for whoever likes to
//! know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::assets::{ASSETS, index};
use super::feed::Feed;
use super::guard::{Token, guard};
use super::refusal::Refusal;
use super::socket::{self, MESSAGE_BYTES_MAX};
use super::upload::Uploads;
use super::{Limits, assets};
use crate::Peer;

/// The longest body of a request, files aside.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How long a lookup of a name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the page speaks on its WebSocket.
const SUBPROTOCOL: &str = "whisper-page";

/// What the requests work on. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct App {
    peer: Peer,
    feed: Arc<Feed>,
    uploads: Uploads,
    token: Token,
    sockets: Arc<Semaphore>,
    patience: Duration,
}

impl App {
    pub(super) fn new(peer: Peer, feed: Arc<Feed>, uploads: Uploads, token: Token, limits: &Limits) -> App {
        let sockets = Arc::new(Semaphore::new(limits.sockets_max));
        App { peer, feed, uploads, token, sockets, patience: limits.patience }
    }

    /// All requests there are, behind the guard.
    pub(super) fn router(self) -> Router {
        let mut router = Router::new()
            .route("/", get(async |State(app): State<App>| index(&app.token)))
            .route("/peers", get(peers))
            .route("/events", get(events))
            .route("/files/{id}", get(file))
            .route("/say", post(say))
            .route("/nick", post(set_nick))
            .route("/connect", post(connect))
            .route("/disconnect", post(disconnect))
            .route("/clear-refused", post(clear_refused))
            .route("/upload", post(upload))
            .fallback(async || Refusal::NotFound)
            .method_not_allowed_fallback(async || Refusal::Method);
        for (path, mime_type, content) in ASSETS {
            router = router.route(path, get(async move || assets::asset(mime_type, content)));
        }
        router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).layer(middleware::from_fn(guard)).with_state(self)
    }
}

/// The body of a request that changes something: it has the token.
struct Asked<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Asked<T>, Refusal> {
        app.token.check(request.headers())?;
        let body = timeout(app.patience, Json::from_request(request, app)).await;
        let Json(body) = body.map_err(|_| Refusal::Late)??;
        Ok(Asked(body))
    }
}

/// What is answered when there is nothing to say.
fn done() -> Json<Value> {
    Json(json!({}))
}

/// [whispernet: 9] The peers that are connected to.
async fn peers(State(app): State<App>) -> Json<Value> {
    let peers = app.peer.peers().await;
    let connected = peers.into_iter().filter(|peer| peer.connected);
    let addrs: Vec<String> = connected.map(|peer| peer.addr.to_string()).collect();
    Json(json!({ "peers": addrs }))
}

async fn events(
    State(app): State<App>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    app.token.check_offered(&headers)?;
    let permit = app.sockets.try_acquire_owned().map_err(|_| Refusal::TooManyPages)?;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        // Only now: what is told meanwhile is among what is kept.
        if let Some(subscription) = app.feed.subscribe() {
            socket::run(socket, subscription, app.patience).await;
        }
        drop(permit);
    }))
}

async fn file(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    app.feed.files().serve(&id).await
}

#[derive(Deserialize)]
struct Words {
    body: String,
}

async fn say(State(app): State<App>, Asked(words): Asked<Words>) -> Result<Json<Value>, Refusal> {
    let id = app.peer.say(&words.body).await?;
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize)]
struct Nick {
    nick: String,
}

async fn set_nick(State(app): State<App>, Asked(Nick { nick }): Asked<Nick>) -> Json<Value> {
    let nick = nick.trim();
    app.peer.set_nick((!nick.is_empty()).then(|| nick.to_owned()));
    app.feed.look().await;
    done()
}

#[derive(Deserialize)]
struct Named {
    peer: String,
}

async fn connect(
    State(app): State<App>,
    Asked(Named { peer }): Asked<Named>,
) -> Result<Json<Value>, Refusal> {
    let addr = look_up(peer.trim()).await?;
    if !app.peer.connect(addr).await {
        return Err(Refusal::Itself(addr));
    }
    app.feed.look().await;
    Ok(done())
}

async fn disconnect(
    State(app): State<App>,
    Asked(Named { peer }): Asked<Named>,
) -> Result<Json<Value>, Refusal> {
    let addr = peer.trim().parse().map_err(|_| Refusal::NoAddress)?;
    if !app.peer.disconnect(addr).await {
        return Err(Refusal::NoPeer(addr));
    }
    app.feed.look().await;
    Ok(done())
}

async fn clear_refused(State(app): State<App>, Asked(_): Asked<Value>) -> Json<Value> {
    app.peer.clear_refused().await;
    app.feed.look().await;
    done()
}

#[derive(Deserialize)]
struct UploadName {
    name: String,
}

/// Takes a file and sends it. The token is checked before any of it is read.
async fn upload(
    State(app): State<App>,
    Query(UploadName { name }): Query<UploadName>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    app.token.check(request.headers())?;
    let upload = app.uploads.receive(&name, request.into_body()).await?;
    let events = app.peer.events();
    let sent = app.peer.send_file(upload.path()).await;
    let transfer = sent.map_err(|error| Refusal::unsendable(&error, upload.path()))?;
    tokio::spawn(upload.keep_until_sent(events, transfer));
    Ok(Json(json!({ "transfer": transfer })))
}

/// The first address of `HOST:PORT`.
async fn look_up(peer: &str) -> Result<SocketAddr, Refusal> {
    if let Ok(addr) = peer.parse::<SocketAddr>() {
        return if addr.port() == 0 { Err(Refusal::NoAddress) } else { Ok(addr) };
    }
    let (host, port) = peer.rsplit_once(':').ok_or(Refusal::NoAddress)?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    if host.is_empty() || host.contains(':') || !is_port {
        return Err(Refusal::NoAddress);
    }
    let unknown = || Refusal::Unknown(super::update::one_line(host));
    let found = timeout(LOOKUP_TIMEOUT, lookup_host(peer)).await;
    found.map_err(|_| unknown())?.map_err(|_| unknown())?.next().ok_or_else(unknown)
}
