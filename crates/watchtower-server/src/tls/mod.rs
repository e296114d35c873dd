//! TLS on the server's side: what it is done with, and the handshake.
//!
//! | file | for |
//! | --- | --- |
//! | `certificate` | the files, and what may be wrong with them |
//!
//! Knows no protocol that is spoken inside, and no limit of time: who waits for
//! a handshake bounds it.

mod certificate;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

pub use self::certificate::{CertificateError, TlsFile};
use self::certificate::{Files, Stamp, provider};
use crate::config;
use crate::shutdown::Shutdown;

/// How often the files are looked at. A change is taken over at the second
/// look that finds the same, when both files have been written.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What is spoken inside when a client asks by ALPN (RFC 7301). One that does
/// not ask may speak whatever the port takes.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// TLS as it is configured at the time. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Tls(Arc<State>);

#[derive(Default)]
struct State {
    /// What connections that begin now are given.
    current: ArcSwapOption<ServerConfig>,
    /// How often the files could not be used.
    failures: AtomicU64,
    watched: Mutex<Watched>,
}

/// The files, and what is known of them.
#[derive(Default)]
struct Watched {
    files: Option<Files>,
    /// What they were like when they were read last, with whatever result.
    tried: Option<Stamp>,
    /// What they were like at the last look.
    seen: Option<Stamp>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS with the files that `config` names, or none.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] where the files cannot be used.
    pub(crate) fn new(config: &config::Tls) -> Result<Tls, CertificateError> {
        let tls = Tls::default();
        tls.take_over(config)?;
        Ok(tls)
    }

    /// Reads the files that `config` names, changed or not. Where they cannot
    /// be used, what there was stays in use, and they are looked at again when
    /// they change.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] where they cannot be used.
    pub(crate) fn take_over(&self, config: &config::Tls) -> Result<(), CertificateError> {
        let mut watched = self.0.watched.lock();
        let files = files(config);
        // Before they are read: what changes meanwhile is seen later.
        let stamp = files.as_ref().map(Files::stamp);
        *watched = Watched { files, tried: stamp, seen: stamp };
        let new = watched.files.as_ref().map(server_config).transpose();
        let new = new.inspect_err(|_| self.count_failure())?;
        self.0.current.store(new.map(Arc::new));
        Ok(())
    }

    /// What a connection that begins now is given; `None` without TLS.
    pub(crate) fn current(&self) -> Option<Arc<ServerConfig>> {
        self.0.current.load_full()
    }

    /// How often a certificate that was to be taken over could not be used.
    pub(crate) fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    fn count_failure(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks whether the files have changed, and takes them over once they
    /// stay the same from one look to the next. Where they cannot be used the
    /// log says why, and what there was stays in use.
    ///
    /// Reads files: not for a thread that others wait for.
    fn look(&self) {
        let mut watched = self.0.watched.lock();
        let Some(files) = &watched.files else { return };
        let now = Some(files.stamp());
        let is_settled = watched.seen == now;
        if is_settled && watched.tried != now {
            match server_config(files) {
                Ok(new) => {
                    self.0.current.store(Some(Arc::new(new)));
                    tracing::info!("the certificate has changed; new connections are given the new one");
                }
                Err(error) => {
                    self.count_failure();
                    tracing::error!(%error, "the former certificate stays in use");
                }
            }
            watched.tried = now;
        }
        watched.seen = now;
    }

    /// Looks at the files again and again, until the server shuts down.
    pub(crate) async fn watch(self, mut shutdown: Shutdown) {
        let mut interval = interval(LOOK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = shutdown.started() => return,
            }
            if self.0.watched.lock().files.is_none() {
                continue;
            }
            let tls = self.clone();
            let looked = tokio::task::spawn_blocking(move || tls.look()).await;
            debug_assert!(looked.is_ok(), "a look does not panic");
        }
    }
}

/// Whether the files that `config` names, if it does, can be used.
///
/// # Errors
///
/// [`CertificateError`] where they cannot.
pub(crate) fn check(config: &config::Tls) -> Result<(), CertificateError> {
    match files(config) {
        Some(files) => files.load(&provider()).map(drop),
        None => Ok(()),
    }
}

fn files(config: &config::Tls) -> Option<Files> {
    Some(Files { cert: config.cert.clone()?, key: config.key.clone()? })
}

/// What connections are given.
fn server_config(files: &Files) -> Result<ServerConfig, CertificateError> {
    let provider = provider();
    let certified = files.load(&provider)?;
    files.warn_of_an_open_key();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(CertificateError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // What is needed to resume a session is the client's to keep. Tickets end
    // with the certificate: a resumed session would not show the new one.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(CertificateError::Setup)?;
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    Ok(config)
}

/// Does the handshake on a connection of which `read_already` was read.
///
/// # Errors
///
/// What the client did not do right, after an alert has told it, or that it is
/// gone.
pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    mut read_already: &[u8],
    mut socket: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let mut acceptor = Acceptor::default();
    while !read_already.is_empty() {
        if acceptor.read_tls(&mut read_already)? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let handshake = match acceptor.accept() {
        Ok(Some(accepted)) => StartHandshake::from_parts(accepted, socket),
        Ok(None) => LazyConfigAcceptor::new(acceptor, socket).await?,
        Err((error, mut alert)) => {
            let mut bytes = Vec::new();
            alert.write_all(&mut bytes)?;
            socket.write_all(&bytes).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    };
    handshake.into_stream(config).await
}
