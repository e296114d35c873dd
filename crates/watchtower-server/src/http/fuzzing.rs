//! HTTP in memory, for a fuzzer. For tests of this workspace: no part of the interface.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use watchtower_hub::{Entropy, Hub, Settings, Timestamp};
use watchtower_protocols::http::MessageJson;

use super::{Http, HttpState};
use crate::callbacks::post::Network;
use crate::callbacks::sign::SigningKey;
use crate::callbacks::{CallbackSettings, Callbacks};
use crate::config::{Config, SecretKey};
use crate::metrics::Metrics;
use crate::request_limiter::RequestLimiter;

/// How much of either direction is under way.
const PIPE_BYTES: usize = 64 * 1024;

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What is the same for every server: it takes longer to make than all else here.
struct Parts {
    config: Arc<Config>,
    network: Network,
}

static PARTS: LazyLock<Parts> = LazyLock::new(|| Parts {
    config: Arc::new(Config { secret_key: SecretKey::new("tower"), ..Config::default() }),
    network: Network::of_this_machine().expect("TLS"),
});

thread_local! {
    /// Nothing stays in it: each connection is served to its end, and nobody is called back.
    static RUNTIME: Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// A server that answers HTTP on one connection at a time, without a socket.
pub struct Answers {
    http: Http,
}

impl Answers {
    /// A server whose ids count up from 72. It calls nobody back.
    #[expect(clippy::new_without_default, reason = "it is not a value but a server")]
    pub fn new() -> Answers {
        let Parts { config, network } = &*PARTS;
        let hub = Hub::new(Settings::default(), Box::new(Counting(AtomicU64::new(72))));
        let calls_nobody =
            CallbackSettings { subscriptions_max: 0, ..CallbackSettings::new(SigningKey::new("tower")) };
        let callbacks =
            Callbacks::new(hub.clone(), Arc::new(MessageJson), network.clone(), calls_nobody, None);
        let http = Http::new(HttpState::new(
            hub,
            config.clone(),
            Arc::new(Metrics::default()),
            callbacks.expect("a client"),
            Arc::new(RequestLimiter::new()),
            Arc::new(RequestLimiter::new()),
            || Timestamp::from_millis(1_795_255_200_000),
        ));
        Answers { http }
    }

    /// What a client reads that sends these pieces and then ends its side: all answers, or those
    /// up to the head of a stream, without their dates.
    pub fn to<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let answer = async {
            let (client, server) = tokio::io::duplex(PIPE_BYTES);
            let serve = async {
                // A stream, or a WebSocket, begins here and is over at once.
                let end =
                    self.http.serve(server, Bytes::new(), Ipv4Addr::LOCALHOST.into(), std::future::pending());
                drop(end.await);
            };
            let ((), answers) = tokio::join!(serve, talk(client, pieces));
            without_dates(&answers)
        };
        RUNTIME.with(|runtime| runtime.block_on(answer))
    }
}

async fn talk<'a>(client: DuplexStream, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut reads, mut writes) = tokio::io::split(client);
    let write = async {
        for piece in pieces {
            // Who was refused already need not be told more.
            if writes.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = writes.shutdown().await;
    };
    let read = async {
        let mut answers = Vec::new();
        let _ = reads.read_to_end(&mut answers).await;
        answers
    };
    tokio::join!(write, read).1
}

/// Two runs may be in different seconds.
fn without_dates(answers: &[u8]) -> Vec<u8> {
    let lines = answers.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"date: ")).flatten().copied().collect()
}
