//! The client commands against a hub that speaks the bytes of WebRocket, with and without TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha1::{Digest, Sha1};

use super::process::{Ended, watchtower};

const OK: &str = r#"{"ok":true}"#;

fn start(arguments: &[&str], environment: &[(&str, &Path)]) -> Child {
    watchtower(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The hub's end of a WebSocket.
struct Hub<S>(S);

impl<S: Read + Write> Hub<S> {
    fn accept(mut stream: S, path: &str) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            BASE64.encode(accept)
        );
        stream.write_all(answer.as_bytes()).unwrap();
        Self(stream)
    }

    /// Reads a short text message.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let mut head = [0; 6];
        self.0.read_exact(&mut head).unwrap();
        let [first, length, mask @ ..] = head;
        assert_eq!((first, usize::from(length)), (0x81, 0x80 | text.len()), "{text}");
        let mut payload = vec![0; text.len()];
        self.0.read_exact(&mut payload).unwrap();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        assert_eq!(String::from_utf8(payload).unwrap(), text);
    }

    /// Sends a short text message.
    fn say(&mut self, text: &str) {
        let frame = [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        self.0.write_all(&frame).unwrap();
        self.0.flush().unwrap();
    }

    #[track_caller]
    fn answer(&mut self, expected: &str, answer: &str) {
        self.expect(expected);
        self.say(answer);
    }
}

#[test]
fn sub_prints_the_messages_of_a_hub_and_names_no_sender() {
    for (option, line) in [
        (&[][..], "news - in the evening\n"),
        (&["--json"], "{\"channel\":\"news\",\"message\":\"in the evening\",\"event\":\"greeting\"}\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let arguments = ["sub", "news", "--protocol", "webrocket", "--server", &server, "--secret", "hush"];
        let mut child = start(&[&arguments[..], option].concat(), &[]);
        let mut hub = Hub::accept(listener.accept().unwrap().0, "/webrocket");
        hub.answer(r#"{"auth":{"access":"read-only","secret":"hush"}}"#, OK);
        hub.answer(r#"{"subscribe":{"channel":"news"}}"#, OK);
        hub.say(r#"{"event":"greeting","channel":"news","data":"in the evening"}"#);
        let mut printed = String::new();
        // Kept to the end: sub ends when its reader is gone.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut printed).unwrap();
        assert_eq!(printed, line);
        drop(hub);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "subscribed to news\nwatchtower: the server ended the connection\n");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn pub_goes_to_the_path_that_a_url_names() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("ws://{}/echo", listener.local_addr().unwrap());
    let child = start(&["pub", "5", "hi", "--server", &server], &[]);
    let mut hub = Hub::accept(listener.accept().unwrap().0, "/echo");
    hub.answer(r#"{"auth":{"access":"read-write","secret":""}}"#, OK);
    hub.answer(r#"{"subscribe":{"channel":"5"}}"#, OK);
    hub.answer(r#"{"publish":{"event":"message","channel":"5","data":"hi"}}"#, OK);
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended, Ended { code: Some(0), stdout: String::new(), stderr: String::new() });
}

#[test]
fn a_refusal_of_a_hub_is_code_1_and_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let arguments = ["pub", "5", "hi", "--protocol", "webrocket", "--server", &server, "--secret", "guess"];
    let child = start(&arguments, &[]);
    let mut hub = Hub::accept(listener.accept().unwrap().0, "/webrocket");
    let refusal = r#"{"err":"invalid_credentials"}"#;
    hub.answer(r#"{"auth":{"access":"read-write","secret":"guess"}}"#, refusal);
    let ended = Ended::from(child.wait_with_output().unwrap());
    let told = "watchtower: the server answered: the secret is not one of the hub's (invalid_credentials)\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), told));
}

#[test]
fn a_hub_behind_tls_is_reached_if_its_certificate_is_trusted() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("wss://localhost:{}/echo", listener.local_addr().unwrap().port());
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("trusted.pem");
    let trusting = |certificate: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let certificate = BASE64.encode(certificate.cert.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n");
        std::fs::write(&trusted, pem).unwrap();
        let child = start(&["pub", "5", "hi", "--server", &server], &[("SSL_CERT_FILE", &trusted)]);
        let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        (child, StreamOwned::new(tls, listener.accept().unwrap().0))
    };

    let (child, stream) = trusting(&issued);
    let mut hub = Hub::accept(stream, "/echo");
    hub.answer(r#"{"auth":{"access":"read-write","secret":""}}"#, OK);
    hub.answer(r#"{"subscribe":{"channel":"5"}}"#, OK);
    hub.answer(r#"{"publish":{"event":"message","channel":"5","data":"hi"}}"#, OK);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));

    let (child, mut stream) = trusting(&other);
    stream.read_exact(&mut [0]).unwrap_err();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with(&format!("watchtower: no TLS with {server}: ")), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}
