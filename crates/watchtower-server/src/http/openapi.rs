//! The description of every request, at `/openapi.json`.
//!
//! The routes describe themselves where they are; here is what they share.

use std::sync::Arc;

use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use utoipa::openapi::{
    InfoBuilder, ObjectBuilder, OneOfBuilder, OpenApi, OpenApiBuilder, PathItem, RefOr, ResponseBuilder,
    Schema, Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::{HttpState, json_answer};

/// A channel: a number, or a string for a named one.
pub(super) struct Channel;

impl PartialSchema for Channel {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX));
        let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(128));
        let either = OneOfBuilder::new().item(number).item(name);
        either.description(Some("A channel: a number, or a string for a named one")).into()
    }
}

impl ToSchema for Channel {}

/// A message, as streams, callbacks and history show it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what watchtower_protocols::http writes")]
pub(super) struct Message {
    /// The channel that it was published on.
    channel: Channel,
    /// Its number in the channel.
    #[schema(example = 12)]
    offset: u64,
    /// The incarnation of the channel's log.
    #[schema(example = "9f2c61c05e7a4d3b")]
    epoch: String,
    /// Who published it; 0 when nobody who is registered did.
    #[schema(example = 72)]
    sender: u32,
    /// Who said it where it comes from, by his own word: in the whispernet.
    #[schema(required = false)]
    nick: Option<String>,
    /// The event's name, when it is not `message`.
    #[schema(required = false)]
    event: Option<String>,
    /// The content: text as a string, JSON as itself, binary as base64.
    message: serde_json::Value,
    /// `base64` when the content is binary.
    #[schema(required = false)]
    encoding: Option<String>,
    /// Whether it is for named receivers only.
    #[schema(required = false)]
    direct: Option<bool>,
    /// When the server took it.
    #[schema(example = "2026-11-21T10:00:00.000Z")]
    time: String,
}

/// What a channel keeps.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the route writes")]
pub(super) struct HistoryAnswer {
    /// The incarnation of the channel's log; `null` when there is no such
    /// channel.
    epoch: Option<String>,
    /// Whether nothing is missing from `since` or `before` to the other end of
    /// these messages: `false` when that position is unknown, what comes next to
    /// it is not kept any more, or some of it is `lost`.
    recovered: bool,
    /// Where these messages begin: as `before`, it asks for what came earlier.
    #[schema(example = "9f2c61c05e7a4d3b:12")]
    first: Option<String>,
    /// Where these messages end: as `since`, it asks for what comes later.
    #[schema(example = "9f2c61c05e7a4d3b:15")]
    last: Option<String>,
    /// Whether there is more to ask for.
    #[schema(inline)]
    more: More,
    /// In order.
    messages: Vec<Message>,
    /// What was lost between `first` and `last`, by damage to the disk. Left out
    /// where nothing was, as nearly always.
    #[schema(required = false)]
    lost: Option<Vec<Lost>>,
}

/// Messages that were kept, and cannot be read any more.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the route writes")]
pub(super) struct Lost {
    /// The offset of the first.
    #[schema(example = 7)]
    from: u64,
    /// The offset of the last.
    #[schema(example = 7)]
    to: u64,
}

/// Whether a channel keeps more than an answer holds.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the route writes")]
struct More {
    /// Whether there are messages before `first`.
    before: bool,
    /// Whether there are messages after `last`.
    after: bool,
}

/// The beginning of the description.
pub(super) fn about() -> OpenApi {
    let info = InfoBuilder::new().title("Watchtower HTTP").version(env!("CARGO_PKG_VERSION")).description(
        Some("One messaging hub for many protocols, over HTTP. Errors carry a code and a sentence."),
    );
    OpenApiBuilder::new().info(info).build()
}

/// Serves the description, which describes itself too.
pub(super) fn route(api: &OpenApi) -> MethodRouter<Arc<HttpState>> {
    let json = Bytes::from(describe(api).to_json().unwrap_or_default());
    get(move || {
        let json = json.clone();
        async move { json_answer(http::StatusCode::OK, json) }
    })
}

fn describe(api: &OpenApi) -> OpenApi {
    let mut api = api.clone();
    let response = ResponseBuilder::new().description("This description");
    let operation = utoipa::openapi::path::OperationBuilder::new()
        .tag("operation")
        .summary(Some("Describe every request."))
        .operation_id(Some("openapi"))
        .response("200", response)
        .build();
    let item = PathItem::new(utoipa::openapi::HttpMethod::Get, operation);
    api.paths.paths.insert("/openapi.json".to_owned(), item);
    api
}
