//! Mutual TLS on the links ([whispernet: 13]).
//!
//! Both ends show a certificate, and both check that it is from an authority of
//! theirs and in force. Names in it are not compared: peers are dialled at
//! addresses that others name and that change, and whoever the authority let in
//! may be any of them. So an authority of the network's own is needed, not one
//! that half the world has certificates of.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use zeroize::Zeroizing;

use crate::{StartError, TlsFiles};

/// How long the other end may take to say that it has taken the certificate.
/// One that says nothing is taken to have.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(1);

/// What says so: white space, which is nothing between objects.
const CONFIRMATION: &[u8] = b"\n";

/// Both ends of TLS, as the files say.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// Reads the files, and waits for the disk.
    pub(crate) fn load(files: &TlsFiles) -> Result<Tls, StartError> {
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
        Ok(Tls { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
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
