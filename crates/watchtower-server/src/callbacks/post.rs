//! One attempt at one callback: the HTTP client, and what its answer means
//! ([http: callbacks]).
//!
//! The address that is connected to is the address that was checked: a host
//! that is an address is judged before every attempt, a host that is a name is
//! looked up by a resolver of our own that hands the connector nothing but
//! permitted addresses, and neither a redirect nor a proxy leads anywhere else.
//! A connection that is kept open for the next attempt leads to the address
//! that was checked when it was dialled; it belongs to the policy that it was
//! checked by, and a new policy begins without any.
//!
//! Deliberately knows nothing of retries, of channels and of what it sends.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls_platform_verifier::BuilderVerifierExt;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::address::{AddressPolicy, Forbidden};
use super::delivery::{DELIVERY_HEADER, DeliveryId};
use super::sign::{SIGNATURE_HEADER, Signature};
use super::target::{CallbackUrl, LOCALHOST, is_localhost};

/// How much of a response's body is read, so that its connection can be used
/// again; a longer one costs its sender the connection.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// How long such a body is waited for. The answer is known by then.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(1);

/// The part of an attempt's time that connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next message to the same host, and
/// how many for one host.
const IDLE_TIME_MAX: Duration = Duration::from_secs(15);
const IDLE_CONNECTIONS_MAX: usize = 1;

/// The addresses of one name that are tried, of those that are permitted.
const ADDRESSES_MAX: usize = 8;

/// The lookups that run at once. Each holds a thread of the pool that the
/// disk is written from as well; a name server that hangs must not take all.
const LOOKUPS_MAX: usize = 32;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx: the receiver has the message.
    Accepted,
    /// 410: the receiver wants no more.
    Gone,
    /// Anything else; worth another attempt.
    Failed(Failure),
}

/// Why an attempt failed. Says nothing of the message, nor of the URL beyond
/// what a name server or a socket said about its host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The host is, or leads only to, addresses that must not be called.
    /// Nothing was sent.
    #[error("the host is {0}, which must not be called")]
    Forbidden(Forbidden),
    /// The host's name could not be looked up.
    #[error("the host's name was not found: {0}")]
    Lookup(String),
    /// No connection, or no TLS session that can be trusted.
    #[error("no connection: {0}")]
    Connect(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The answer points elsewhere, where callbacks do not follow.
    #[error("a redirect ({}), which is not followed", .0.as_u16())]
    Redirect(StatusCode),
    /// An answer other than 2xx, 3xx and 410.
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
    /// No answer, or none that is HTTP within its limits.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl Failure {
    /// All that [`cause`](Self::cause) may say.
    pub const CAUSES: [&str; 7] =
        ["forbidden", "lookup", "connect", "timeout", "redirect", "status", "broken"];

    /// One word for it, for a metric's label.
    pub fn cause(&self) -> &'static str {
        match self {
            Failure::Forbidden(_) => "forbidden",
            Failure::Lookup(_) => "lookup",
            Failure::Connect(_) => "connect",
            Failure::TimedOut => "timeout",
            Failure::Redirect(_) => "redirect",
            Failure::Status(_) => "status",
            Failure::Broken(_) => "broken",
        }
    }
}

/// Finds the addresses of a name. The answer is not trusted: every address in
/// it is judged before it is used.
pub trait Lookup: Send + Sync {
    /// The addresses of `name`, which is neither an address nor `localhost`.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// What the client takes from the machine that it runs on.
#[derive(Clone)]
pub struct Network {
    /// Where names are looked up.
    pub lookup: Arc<dyn Lookup>,
    /// Whose certificates are trusted, for `https`.
    pub tls: rustls::ClientConfig,
}

impl Network {
    /// The operating system's resolver and its trusted certificates.
    ///
    /// Without any trusted certificate, which is how a bare container comes,
    /// callbacks to `https` fail, and those to `http` do not.
    ///
    /// # Errors
    ///
    /// When the TLS library supports none of its own protocol versions.
    pub fn of_this_machine() -> Result<Network, rustls::Error> {
        let versions = || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
        };
        let trusting = match versions()?.with_platform_verifier() {
            Ok(trusting) => trusting,
            Err(error) => {
                tracing::warn!(%error, "callbacks to https will fail: no trusted certificates");
                versions()?.with_root_certificates(rustls::RootCertStore::empty())
            }
        };
        let lookup = Arc::new(SystemLookup { slots: Arc::new(Semaphore::new(LOOKUPS_MAX)) });
        Ok(Network { lookup, tls: trusting.with_no_client_auth() })
    }
}

/// Posts messages to callback URLs.
pub struct CallbackClient {
    network: Network,
    calling: ArcSwap<Calling>,
}

/// A policy, and the client whose every connection was checked by it.
struct Calling {
    policy: Arc<AddressPolicy>,
    http: reqwest::Client,
}

/// The HTTP library refused its settings.
#[derive(Debug, Error)]
#[error("callbacks have no HTTP client")]
pub struct NoClient(#[from] reqwest::Error);

impl CallbackClient {
    /// A client that calls what `policy` permits, and waits for `timeout` from
    /// the beginning of an attempt to its answer.
    ///
    /// # Errors
    ///
    /// When the HTTP library refuses the settings of `network`.
    pub fn new(
        network: Network,
        policy: AddressPolicy,
        timeout: Duration,
    ) -> Result<CallbackClient, NoClient> {
        let calling = ArcSwap::from_pointee(Calling::new(&network, policy, timeout)?);
        Ok(CallbackClient { network, calling })
    }

    /// Changes the policy and the time-out for all attempts that begin from
    /// now on; those in flight end under the old ones.
    ///
    /// # Errors
    ///
    /// As for [`CallbackClient::new`]; then nothing has changed.
    pub fn reload(&self, policy: AddressPolicy, timeout: Duration) -> Result<(), NoClient> {
        self.calling.store(Arc::new(Calling::new(&self.network, policy, timeout)?));
        Ok(())
    }

    /// The policy that attempts are made under now.
    pub fn policy(&self) -> Arc<AddressPolicy> {
        self.calling.load().policy.clone()
    }

    /// Posts `body`, a JSON text, to `url`, once.
    ///
    /// Returns within the time-out. Dropping the future cuts the attempt off;
    /// whether the receiver has the message is then unknown.
    pub async fn post(
        &self,
        url: &CallbackUrl,
        body: Bytes,
        delivery: DeliveryId,
        signature: Signature,
    ) -> Outcome {
        let calling = self.calling.load_full();
        // The connector takes a host that is an address as it is, without
        // asking the resolver, so this is the check for those.
        if let Err(kind) = url.face_permitted(&calling.policy) {
            return Outcome::Failed(Failure::Forbidden(kind));
        }
        let request = calling
            .http
            .post(url.as_url().clone())
            .header(DELIVERY_HEADER, delivery.header_value())
            .header(SIGNATURE_HEADER, signature.header_value())
            .body(body);
        match request.send().await {
            Ok(response) => {
                let outcome = meaning(response.status());
                let _ = tokio::time::timeout(RESPONSE_TIME_MAX, discard(response)).await;
                outcome
            }
            Err(error) => Outcome::Failed(reason(&error)),
        }
    }
}

impl Calling {
    fn new(network: &Network, policy: AddressPolicy, timeout: Duration) -> Result<Calling, reqwest::Error> {
        let policy = Arc::new(policy);
        let resolver = CheckedResolver { lookup: network.lookup.clone(), policy: policy.clone() };
        let http = reqwest::Client::builder()
            .dns_resolver(Arc::new(resolver))
            .tls_backend_preconfigured(network.tls.clone())
            // [http: callbacks] "redirects not followed"
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .retry(reqwest::retry::never())
            .http1_only()
            .connect_timeout(timeout.min(CONNECT_TIME_MAX))
            .timeout(timeout)
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .default_headers(common_headers())
            .build()?;
        Ok(Calling { policy, http })
    }
}

fn common_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::USER_AGENT, HeaderValue::from_static("Watchtower")),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("x-server-name"), HeaderValue::from_static("Watchtower")),
    ])
}

// [http: callbacks] "the cursor moves on after a 2xx. Otherwise (a redirect included) retried […] 410 ends it at once"
fn meaning(status: StatusCode) -> Outcome {
    match status {
        StatusCode::GONE => Outcome::Gone,
        status if status.is_success() => Outcome::Accepted,
        status if status.is_redirection() => Outcome::Failed(Failure::Redirect(status)),
        status => Outcome::Failed(Failure::Status(status)),
    }
}

/// Reads a body to its end, or gives up on it where it is too long.
async fn discard(mut response: reqwest::Response) {
    let mut left = RESPONSE_BYTES_MAX;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(less) => left = less,
            None => return,
        }
    }
}

fn reason(error: &reqwest::Error) -> Failure {
    if let Some(NonePermitted(kind)) = causes(error).find_map(|cause| cause.downcast_ref()) {
        return Failure::Forbidden(*kind);
    }
    // The library's own text would repeat the URL; the innermost cause is what
    // the operating system or the peer did.
    let innermost = causes(error).last().map_or_else(String::new, |cause| cause.to_string());
    if error.is_timeout() {
        Failure::TimedOut
    } else if error.is_dns() {
        Failure::Lookup(innermost)
    } else if error.is_connect() {
        Failure::Connect(innermost)
    } else {
        Failure::Broken(innermost)
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause: &&(dyn StdError + 'static)| (*cause).source())
}

/// The check between a name and the connector.
struct CheckedResolver {
    lookup: Arc<dyn Lookup>,
    policy: Arc<AddressPolicy>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let found = if is_localhost(&name) {
            std::future::ready(Ok(LOCALHOST.to_vec())).boxed()
        } else {
            self.lookup.lookup(name)
        };
        let policy = self.policy.clone();
        Box::pin(async move {
            let permitted = permitted(&policy, found.await?)?;
            // Port 0 stands for the port of the URL.
            let addresses = permitted.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// Every address of a name must not be called.
#[derive(Debug, Error)]
#[error("every address of the host is forbidden, the first as {0}")]
struct NonePermitted(Forbidden);

fn permitted(policy: &AddressPolicy, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, NonePermitted> {
    let first = found.first().map(|address| policy.permits(*address));
    let mut kept = found;
    kept.retain(|address| policy.permits(*address).is_ok());
    kept.truncate(ADDRESSES_MAX);
    match first {
        Some(Err(kind)) if kept.is_empty() => Err(NonePermitted(kind)),
        _ => Ok(kept),
    }
}

/// The operating system's resolver, which blocks a thread for each lookup.
struct SystemLookup {
    slots: Arc<Semaphore>,
}

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let slots = self.slots.clone();
        async move {
            let slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            let found = tokio::task::spawn_blocking(move || {
                // Held by the thread, which goes on after its attempt has timed out.
                let _slot = slot;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            });
            found.await.map_err(io::Error::other)?
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
