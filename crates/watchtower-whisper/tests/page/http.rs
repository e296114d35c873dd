//! Requests: whose are answered, with what in their heads, and within which limits.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use watchtower_whisper::page::{self, Limits, ServeError};
use watchtower_whisper::{Options, Peer};

use super::request::{ask, exchange, get, post};
use super::{Node, PATIENCE, local, next_shown, two};

/// Everything that changes something, with a body that is right.
const POSTS: [(&str, &str); 6] = [
    ("/say", r#"{"body": "hello"}"#),
    ("/nick", r#"{"nick": "fred"}"#),
    ("/connect", r#"{"peer": "127.0.0.1:9"}"#),
    ("/disconnect", r#"{"peer": "127.0.0.1:9"}"#),
    ("/clear-refused", "{}"),
    ("/upload?name=a.txt", "hello"),
];

const GETS: [&str; 4] = ["/", "/page.js", "/peers", "/files/00"];

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let node = Node::start("goldy", &[]).await;
    for (path, status, mime_type) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/style.css", 200, "text/css; charset=utf-8"),
        ("/page.js", 200, "text/javascript; charset=utf-8"),
        ("/icon.svg", 200, "image/svg+xml"),
        ("/peers", 200, "application/json"),
        ("/files/00", 404, "application/json"),
        ("/nothing", 404, "application/json"),
        ("/say", 405, "application/json"),
    ] {
        let answer = get(&node, path).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, mime_type), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
}

#[tokio::test]
async fn requests_for_other_hosts_are_refused() {
    let node = Node::start("goldy", &[]).await;
    let token = node.token().await;
    for host in
        ["evil.example", &format!("evil.example:{}", node.addr().port()), "192.0.2.1", "localhost.evil"]
    {
        for path in GETS {
            let answer = ask(&node, &format!("GET {path}"), &[("Host", host)], "").await;
            assert_eq!(answer.status, 403, "{path} of {host}");
            assert!(!answer.body.contains(&token));
        }
        for (path, body) in POSTS {
            let headers = [("Host", host), JSON, ("X-Page-Token", &*token)];
            assert_eq!(
                ask(&node, &format!("POST {path}"), &headers, body).await.status,
                403,
                "{path} of {host}"
            );
        }
    }
    for host in ["localhost", "localhost:1234", "127.0.0.1", "[::1]:80"] {
        assert_eq!(ask(&node, "GET /", &[("Host", host)], "").await.status, 200, "{host}");
    }
    // HTTP/1.0 need not say, and two are as good as none.
    let twice = format!("GET / HTTP/1.1\r\nHost: {0}\r\nHost: {0}\r\nConnection: close\r\n\r\n", node.addr());
    for request in ["GET / HTTP/1.0\r\n\r\n", &twice] {
        assert!([400, 403].contains(&exchange(node.addr(), request.as_bytes()).await.status), "{request}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_can_neither_ask_nor_change_anything() {
    let node = Node::start("goldy", &[]).await;
    let token = node.token().await;
    let neighbour = format!("http://localhost:{}", node.addr().port());
    for origin in ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1", &neighbour, ""] {
        for path in GETS {
            let answer = ask(&node, &format!("GET {path}"), &[("Origin", origin)], "").await;
            assert_eq!(answer.status, 403, "{path} by {origin}");
        }
        for (path, body) in POSTS {
            let headers = [("Origin", origin), JSON, ("X-Page-Token", &*token)];
            let answer = ask(&node, &format!("POST {path}"), &headers, body).await;
            assert_eq!(answer.status, 403, "{path} by {origin}");
        }
        // What a browser asks before it lets another page set a header.
        let headers = [("Origin", origin), ("Access-Control-Request-Headers", "x-page-token")];
        let answer = ask(&node, "OPTIONS /say", &headers, "").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, ""), "{origin}");
    }
    assert!(node.peer.recent().await.is_empty());
}

#[tokio::test]
async fn nothing_changes_without_the_token_of_this_run() {
    let (node, other) = two().await;
    let token = node.token().await;
    let wrong = other.token().await;
    for (path, body) in POSTS {
        let line = format!("POST {path}");
        for given in [None, Some(""), Some(&*wrong), Some(&token[1..])] {
            let given = given.map(|token| ("X-Page-Token", token));
            let headers: Vec<_> = given.into_iter().chain([JSON]).collect();
            let answer = ask(&node, &line, &headers, body).await;
            assert_eq!(answer.status, 403, "{path} with {given:?}");
            assert_eq!(answer.body, r#"{"error":"the token is missing or wrong: load the page anew"}"#);
        }
    }
    assert!(node.peer.recent().await.is_empty());
    assert_eq!(node.peer.nick().as_deref(), Some("goldy"));
    assert!(!wrong.is_empty() && wrong != token);
}

#[tokio::test]
async fn what_the_page_says_is_heard_by_others() {
    let (goldy, bambam) = two().await;
    let mut events = bambam.peer.events();
    assert_eq!(post(&goldy, "/nick", r#"{"nick": " pebbles "}"#).await.status, 200);
    let answer = post(&goldy, "/say", r#"{"body": "yabba dabba doo"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown = next_shown(&mut events).await;
    assert_eq!((shown.nick.as_deref(), &*shown.body), (Some("pebbles"), "yabba dabba doo"));
    assert_eq!(answer.body, format!(r#"{{"id":"{}"}}"#, shown.id));
    assert_eq!(post(&goldy, "/say", r#"{"body": ""}"#).await.status, 400);
    post(&goldy, "/nick", r#"{"nick": ""}"#).await;
    assert_eq!(goldy.peer.nick(), None);
}

#[tokio::test]
async fn peers_are_listed_connected_to_and_disconnected() {
    let goldy = Node::start("goldy", &[]).await;
    let bambam = Node::start("bambam", &[]).await;
    assert_eq!(get(&goldy, "/peers").await.body, r#"{"peers":[]}"#);
    let peer = format!(r#"{{"peer": "{}"}}"#, bambam.peer.address());
    assert_eq!(post(&goldy, "/connect", &peer).await.status, 200);
    goldy.connected(1).await;
    let listed = get(&goldy, "/peers").await;
    assert_eq!(listed.body, format!(r#"{{"peers":["{}"]}}"#, bambam.peer.address()));
    assert_eq!(post(&goldy, "/disconnect", &peer).await.status, 200);
    assert_eq!(get(&goldy, "/peers").await.body, r#"{"peers":[]}"#);
    assert_eq!(post(&goldy, "/disconnect", &peer).await.status, 404);
    let itself = format!(r#"{{"peer": "{}"}}"#, goldy.peer.address());
    assert_eq!(post(&goldy, "/connect", &itself).await.status, 400);
    for wrong in ["", "nowhere", ":55555", "127.0.0.1:0", "127.0.0.1:65536", "::1:55555"] {
        let answer = post(&goldy, "/connect", &format!(r#"{{"peer": "{wrong}"}}"#)).await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.body.contains("expected HOST:PORT"), "{}", answer.body);
    }
    // By name: the machine's own, which no resolver has to be asked for.
    let by_name = format!(r#"{{"peer": "localhost:{}"}}"#, bambam.peer.address().port());
    assert_eq!(post(&goldy, "/connect", &by_name).await.status, 200);
}

#[tokio::test]
async fn bodies_have_a_form_and_a_length() {
    let node = Node::start("goldy", &[]).await;
    let token = node.token().await;
    let token = ("X-Page-Token", &*token);
    for (headers, body, status) in [
        (vec![token, JSON], "{", 400),
        (vec![token, JSON], "{}", 422),
        (vec![token, JSON], r#"{"body": 7}"#, 422),
        (vec![token], r#"{"body": "x"}"#, 415),
        (vec![token, ("Content-Type", "text/plain")], r#"{"body": "x"}"#, 415),
        (vec![token, JSON], &format!(r#"{{"body": "{}"}}"#, "x".repeat(64 * 1024)), 413),
    ] {
        let answer = ask(&node, "POST /say", &headers, body).await;
        assert_eq!(answer.status, status, "{headers:?} {}", &body[..body.len().min(40)]);
        assert!(answer.body.starts_with(r#"{"error":""#), "{}", answer.body);
    }
    assert!(node.peer.recent().await.is_empty());
}

#[tokio::test]
async fn each_request_has_its_method() {
    let node = Node::start("goldy", &[]).await;
    for (line, allowed) in [
        ("POST /", "GET,HEAD"),
        ("DELETE /peers", "GET,HEAD"),
        ("PUT /files/00", "GET,HEAD"),
        ("GET /say", "POST"),
        ("PUT /upload", "POST"),
    ] {
        let answer = ask(&node, line, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, allowed), "{line}");
    }
    assert_eq!(get(&node, "/../Cargo.toml").await.status, 404);
    assert_eq!(get(&node, "/files/..%2f..%2fetc%2fpasswd").await.status, 404);
}

fn impatient() -> Limits {
    Limits { patience: Duration::from_millis(100), ..Limits::default() }
}

#[tokio::test]
async fn who_does_not_finish_a_request_is_waited_for_no_longer_than_that() {
    let node = Node::with("goldy", &[], impatient()).await;
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    let token = node.token().await;
    for path in ["/say", "/upload?name=a"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nX-Page-Token: {token}\r\nContent-Type: application/json\r\n\
             Content-Length: 10\r\nConnection: close\r\n\r\n{{",
            node.addr()
        );
        assert_eq!(exchange(node.addr(), head.as_bytes()).await.status, 408, "{path}");
    }
}

#[tokio::test]
async fn no_more_connections_are_kept_than_may_be() {
    let node = Node::with("goldy", &[], Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(node.addr()).await.unwrap();
    first.write_all(b"GET /peers HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    first.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    let mut second = TcpStream::connect(node.addr()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, second.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let node = Node::start("goldy", &[]).await;
    for header in [("X-Long", "x".repeat(64 * 1024)), ("X-Many", format!("1{}", "\r\nX-Many: 1".repeat(100)))]
    {
        let answer = ask(&node, "GET /", &[(header.0, &header.1)], "").await;
        assert_eq!(answer.status, 431, "{}", header.0);
    }
}

async fn upload(node: &Node, name: &str, content: &str) -> super::request::Answer {
    let token = node.token().await;
    ask(node, &format!("POST /upload?name={name}"), &[("X-Page-Token", &token)], content).await
}

#[tokio::test]
async fn a_file_that_is_handed_over_is_sent_under_its_own_name() {
    let (goldy, bambam) = two().await;
    let mut events = bambam.peer.events();
    let answer = upload(&goldy, "..%2F..%2Fcat%20of%20mine.txt", "miaow").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown = next_shown(&mut events).await;
    let file = shown.file.as_ref().expect("a file comes with it");
    assert_eq!((&*file.name, &*file.contents), ("cat of mine.txt", &b"miaow"[..]));
}

#[tokio::test]
async fn a_file_that_is_too_long_is_refused() {
    let node = Node::with("goldy", &[], Limits { upload_bytes_max: 4, ..Limits::default() }).await;
    let answer = upload(&node, "a", "12345").await;
    assert_eq!((answer.status, &*answer.body), (413, r#"{"error":"a file may have 4 bytes"}"#));
    assert!(node.peer.recent().await.is_empty());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let first = Node::start("goldy", &[]).await;
    let peer = Peer::start(Options { listen: local(), ..Options::default() }).await.unwrap();
    let refused = page::serve(peer, &[first.addr()], Limits::default()).await.unwrap_err();
    assert!(matches!(refused, ServeError::Taken(addr) if addr == first.addr()));
    let expected = format!("the page's address {} is taken: choose another port", first.addr());
    assert_eq!(refused.to_string(), expected);
}

#[tokio::test]
async fn localhost_is_one_port_at_both_addresses_and_needs_no_warning() {
    let peer = Peer::start(Options { listen: local(), ..Options::default() }).await.unwrap();
    let localhost = [local(), "[::1]:0".parse().unwrap()];
    let page = page::serve(peer.clone(), &localhost, Limits::default()).await.unwrap();
    let port = page.addrs()[0].port();
    assert!(page.addrs().iter().all(|addr| addr.port() == port));
    assert_eq!(page.warning(), None);
    for addr in page.addrs() {
        let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        assert_eq!(exchange(*addr, request.as_bytes()).await.status, 200, "{addr}");
    }
}

#[tokio::test]
async fn beyond_this_machine_there_is_a_warning() {
    let peer = Peer::start(Options { listen: local(), ..Options::default() }).await.unwrap();
    let page = page::serve(peer, &["0.0.0.0:0".parse().unwrap()], Limits::default()).await.unwrap();
    let warning = page.warning().expect("a warning");
    assert!(warning.contains(&page.addrs()[0].to_string()), "{warning}");
    assert_eq!(page.url(), format!("http://localhost:{}/", page.addrs()[0].port()));
}
