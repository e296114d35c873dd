//! Mutual TLS on the links ([whispernet: 13]).
//!
//! Both ends show a certificate, and both check that it is from an authority of
//! theirs and in force. Names in it are not compared: peers are dialled at
//! addresses that others name and that change, and whoever the authority let in
//! may be any of them. So an authority of the network's own is needed, not one
//! that half the world has certificates of.
//!
//! The files may be renewed while the peer runs: connections that begin later
//! are given what is in them then.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use zeroize::Zeroizing;

use crate::driver::Driver;
use crate::{StartError, TlsFiles};

/// How long the other end may take to say that it has taken the certificate.
/// One that says nothing is taken to have.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(1);

/// What says so: white space, which is nothing between objects.
const CONFIRMATION: &[u8] = b"\n";

/// How often the files are looked at. A change is taken over at the second look
/// that finds the same, when all of them have been written.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// TLS as the files say at the time.
pub(crate) struct Tls {
    files: TlsFiles,
    /// What connections that begin now are given.
    current: Mutex<Arc<Ends>>,
    watched: Mutex<Watched>,
}

/// What is known of the files.
struct Watched {
    /// What they were like when they were read last, with whatever result.
    tried: Stamp,
    /// What they were like at the last look.
    seen: Stamp,
}

/// What the files are like: as long as this is the same, so is what is in them.
type Stamp = [Option<FileStamp>; 3];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Tls {
    /// Reads the files, and waits for the disk.
    pub(crate) fn load(files: &TlsFiles) -> Result<Tls, StartError> {
        // Before they are read: what changes meanwhile is seen later.
        let stamp = stamp(files);
        let current = Mutex::new(Arc::new(Ends::load(files)?));
        let watched = Mutex::new(Watched { tried: stamp, seen: stamp });
        Ok(Tls { files: files.clone(), current, watched })
    }

    /// What a connection that begins now is given.
    pub(crate) fn current(&self) -> Arc<Ends> {
        self.current.lock().clone()
    }

    /// Looks whether the files have changed, and takes them over once they stay
    /// the same from one look to the next. Where they cannot be used, what there
    /// was stays in use until they change again. Waits for the disk.
    fn look(&self) -> Result<(), StartError> {
        let mut watched = self.watched.lock();
        let now = stamp(&self.files);
        let is_settled = watched.seen == now;
        watched.seen = now;
        if is_settled && watched.tried != now {
            watched.tried = now;
            *self.current.lock() = Arc::new(Ends::load(&self.files)?);
        }
        Ok(())
    }
}

/// Looks at the files again and again, where there are some.
pub(crate) async fn watch(driver: Arc<Driver>) {
    while driver.tls.is_some() {
        sleep(LOOK_INTERVAL).await;
        let looking = driver.clone();
        let look = move || looking.tls.as_ref().map_or(Ok(()), Tls::look);
        if let Ok(Err(error)) = spawn_blocking(look).await {
            driver.look(|state| state.warn(format!("the former certificate stays in use: {error}")));
        }
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.cert, &files.key, &files.ca].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some(FileStamp {
            inode: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    })
}

/// Both ends of TLS, as the files said.
pub(crate) struct Ends {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Ends {
    fn load(files: &TlsFiles) -> Result<Ends, StartError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let chain = certificates(&files.cert)?;
        let key = private_key(&files.key)?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.ca)? {
            roots.add(root).map_err(|error| wrong(&files.ca, error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let unusable = |error: Error| {
            let key = files.key.display();
            wrong(&files.cert, format!("it cannot be used with the private key in {key}: {error}"))
        };
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let clients = clients.map_err(|error| wrong(&files.ca, error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        // Connections last: nothing is gained by resuming them.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let verifier = AnyOfTheAuthority { roots, provider: provider.clone() };
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        Ok(Ends { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// The handshake on a connection that another peer opened.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        let mut stream = self.acceptor.accept(stream).await?;
        // To the other end the handshake is done before this one has judged its
        // certificate.
        stream.write_all(CONFIRMATION).await?;
        stream.flush().await?;
        Ok(stream)
    }

    /// The handshake on a connection that this peer opened.
    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::from(stream.peer_addr()?.ip());
        let mut stream = self.connector.connect(name, stream).await?;
        match timeout(CONFIRMATION_TIMEOUT, stream.read(&mut [0; CONFIRMATION.len()])).await {
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Ok(stream),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let expected = "expected certificates as PEM: -----BEGIN CERTIFICATE-----";
    let bytes = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(path, format!("{}; {expected}", not_pem(&error))))?;
    if certificates.is_empty() {
        Err(wrong(path, format!("there is none in it; {expected}")))
    } else {
        Ok(certificates)
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, StartError> {
    let expected = "expected a private key as PEM, not encrypted: -----BEGIN PRIVATE KEY-----";
    let key = PrivateKeyDer::from_pem_slice(&read(path)?);
    key.map_err(|error| wrong(path, format!("{}; {expected}", not_pem(&error))))
}

/// All that is in a file, wiped from memory when it is dropped.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, StartError> {
    fs::read(path).map(Zeroizing::new).map_err(|error| wrong(path, format!("cannot read it: {error}")))
}

/// What is wrong with a file, without what stands in it.
fn not_pem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "there is none in it",
        pem::Error::MissingSectionEnd { .. } => "a section has no -----END line",
        pem::Error::Base64Decode(_) => "a section is not in base64",
        _ => "it is no valid PEM",
    }
}

fn wrong(path: &Path, reason: String) -> StartError {
    StartError::File { path: path.to_owned(), reason }
}

/// Takes every certificate of the authorities that is in force, whatever name
/// it is for.
#[derive(Debug)]
struct AnyOfTheAuthority {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyOfTheAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tempfile::TempDir;
    use tokio::net::TcpListener;

    use super::*;

    /// Writes a certificate and its key into the folder, and the authority that
    /// they are from.
    fn renew(folder: &TempDir) -> TlsFiles {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([]).unwrap().signed_by(&key, &authority).unwrap();
        let path = |name| folder.path().join(name);
        fs::write(path("cert.pem"), certificate.pem()).unwrap();
        fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(path("ca.pem"), authority.pem()).unwrap();
        TlsFiles { cert: path("cert.pem"), key: path("key.pem"), ca: path("ca.pem") }
    }

    async fn meet(dialling: &Tls, listening: &Tls) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (dialling, listening) = (dialling.current(), listening.current());
        let (dialled, accepted) = tokio::join!(dialling.connect(dialled), listening.accept(accepted));
        dialled.is_ok() && accepted.is_ok()
    }

    #[tokio::test]
    async fn files_that_were_renewed_are_taken_over_once_all_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let former = Tls::load(&renew(&folder)).unwrap();
        let files = renew(&folder);
        let renewed = Tls::load(&files).unwrap();
        assert!(!meet(&former, &renewed).await, "they are from two authorities");

        former.look().unwrap();
        assert!(!meet(&former, &renewed).await, "it may not be all");
        former.look().unwrap();
        assert!(meet(&former, &renewed).await && meet(&renewed, &former).await);
    }

    #[tokio::test]
    async fn files_that_cannot_be_used_change_nothing_and_are_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = renew(&folder);
        let tls = Tls::load(&files).unwrap();
        fs::write(&files.key, "nonsense").unwrap();
        tls.look().unwrap();
        let told = tls.look().unwrap_err().to_string();
        assert!(told.starts_with(&files.key.display().to_string()), "{told}");
        tls.look().unwrap();
        assert!(meet(&tls, &tls).await);
    }
}
