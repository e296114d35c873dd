//! Headless Chromium, which all tests share, and the server that its pages come from.
//!
//! The page that it opens first, `page.html`, is told by this server what to do, and tells it what
//! came; so no other way into the browser is needed.

use std::collections::HashMap;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{CertifiedKey, KeyPair, PublicKeyData, generate_simple_self_signed};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::http::{header, read_head};
use super::{By, Event, Heard, Peer, Socket};

/// The browser. It starts with the first test that needs it.
pub(super) static BROWSER: LazyLock<Browser> = LazyLock::new(Browser::start);

/// Runs the rest of its arguments until its own input ends, which it does with this process,
/// however that ends.
const UNTIL_END_OF_INPUT: &str = r#"
profile=$(mktemp -d)
"$@" --user-data-dir="$profile" &
cat
trap : TERM
kill -TERM 0
wait
rm -rf "$profile"
"#;

/// As the superuser, whom its sandbox would refuse; and quiet: it asks nobody else for anything.
const OPTIONS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
];

pub(super) struct Browser {
    /// The page from 127.0.0.1, and the one from localhost, which is another origin.
    pub(super) here: Peer,
    pub(super) elsewhere: Peer,
    address: SocketAddr,
    pages: Pages,
    /// Its input ends with this process.
    _chromium: Child,
}

/// The pages of tests, by path.
type Pages = Arc<Mutex<HashMap<String, String>>>;

impl Browser {
    fn start() -> Browser {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Pages::default();
        let (here, for_here) = Peer::new();
        let (elsewhere, for_elsewhere) = Peer::new();
        // Headless, it opens one page by itself: this one opens the other.
        here.make(&json!({ "do": "frame", "url": origin(address, "localhost") }));
        let site = Site {
            pages: pages.clone(),
            hosts: HashMap::from([
                (format!("127.0.0.1:{}", address.port()), Host::new(&here, for_here)),
                (format!("localhost:{}", address.port()), Host::new(&elsewhere, for_elsewhere)),
            ]),
        };
        let site = Arc::new(site);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let site = site.clone();
                thread::spawn(move || site.serve(stream));
            }
        });
        Browser { here, elsewhere, address, pages, _chromium: run(address) }
    }

    pub(super) fn origin(&self, host: &str) -> String {
        origin(self.address, host)
    }
}

fn origin(address: SocketAddr, host: &str) -> String {
    format!("http://{host}:{}", address.port())
}

fn run(address: SocketAddr) -> Child {
    let found = Command::new("sh").args(["-c", "command -v chromium"]).output().unwrap();
    assert!(found.status.success(), "chromium is not here: ./test installs it");
    let trusted = format!("--ignore-certificate-errors-spki-list={}", certificate().key_hash());
    Command::new("sh")
        .args(["-c", UNTIL_END_OF_INPUT, "sh", "chromium"])
        .args(OPTIONS)
        .args([trusted, origin(address, "127.0.0.1")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // So that it can be ended with all that it starts.
        .process_group(0)
        .spawn()
        .unwrap()
}

/// What the pages come from.
struct Site {
    pages: Pages,
    hosts: HashMap<String, Host>,
}

/// What one of the two origins is told and tells.
struct Host {
    commands: Mutex<Option<Receiver<String>>>,
    heard: Heard,
}

impl Host {
    fn new(peer: &Peer, commands: Receiver<String>) -> Host {
        Host { commands: Mutex::new(Some(commands)), heard: peer.heard.clone() }
    }
}

impl Site {
    /// Answers requests until the browser has no more; its commands are an answer without an end.
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Ok(head) = read_head(&mut reader)
            && let Some(path) = head.split(' ').nth(1)
        {
            let Some(host) = header(&head, "host").and_then(|host| self.hosts.get(host)) else { return };
            let mut body = vec![0; header(&head, "content-length").map_or(0, |n| n.parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            let stream = reader.get_mut();
            let answered = match path {
                "/commands" => {
                    let commands = host.commands.lock().unwrap().take();
                    command(stream, &commands.expect("one page an origin"))
                }
                "/told" => {
                    let events: Vec<Event> = serde_json::from_slice(&body).unwrap();
                    events.into_iter().for_each(|event| host.heard.hear(event));
                    answer(stream, "204 No Content", "")
                }
                "/" => answer(stream, "200 OK", include_str!("page.html")),
                path => match self.pages.lock().unwrap().get(path) {
                    Some(page) => answer(stream, "200 OK", page),
                    None => answer(stream, "404 Not Found", ""),
                },
            };
            if answered.is_err() {
                return;
            }
        }
    }
}

fn answer(stream: &mut TcpStream, status: &str, page: &str) -> std::io::Result<()> {
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{page}"
    )
}

/// Writes commands as events, for as long as the browser is there.
fn command(stream: &mut TcpStream, commands: &Receiver<String>) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
    commands.iter().try_for_each(|command| write!(stream, "data: {command}\n\n"))
}

/// A page in a frame of its own, on the origin of [`By::Browser`].
pub(crate) struct Page(Socket);

impl Page {
    /// Opens it, and waits until it is there.
    pub(crate) fn open(html: &str) -> Page {
        let path = {
            let mut pages = BROWSER.pages.lock().unwrap();
            let path = format!("/page/{}", pages.len());
            pages.insert(path.clone(), html.to_owned());
            path
        };
        let page = Page(Socket::make(By::Browser, &json!({ "do": "frame", "url": path })));
        assert_eq!(page.0.next(), super::Told::Open);
        page
    }

    /// Fills in the first field of its form, and sends it.
    pub(crate) fn submit(&self, text: &str) {
        self.0.order("submit", "text", text);
    }

    /// The next item of its list is this.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        self.0.expect(text);
    }
}

/// A certificate of 127.0.0.1 that the browser trusts, and the package is told to.
pub(super) struct Certificate(CertifiedKey<KeyPair>);

/// The one of this process.
pub(super) fn certificate() -> &'static Certificate {
    static CERTIFICATE: LazyLock<Certificate> =
        LazyLock::new(|| Certificate(generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap()));
    &CERTIFICATE
}

impl Certificate {
    pub(super) fn pem(&self) -> String {
        self.0.cert.pem()
    }

    /// By which the browser is told to trust it.
    fn key_hash(&self) -> String {
        BASE64.encode(Sha256::digest(self.0.signing_key.subject_public_key_info()))
    }
}

/// The options of a server that has this certificate, from files in that folder.
pub(crate) fn secure(folder: &Path) -> [String; 4] {
    let Certificate(issued) = certificate();
    fs::write(folder.join("cert.pem"), issued.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
    let set = |key: &str, file: &str| format!("tls.{key}={}", folder.join(file).display());
    ["--set".to_owned(), set("cert", "cert.pem"), "--set".to_owned(), set("key", "key.pem")]
}
