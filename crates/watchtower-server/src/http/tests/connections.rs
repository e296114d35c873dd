//! Connections: their limits, their end, and how a stream takes one over.

use super::*;

/// The response before a stream's is written out whole before the stream
/// begins, however slowly the client reads, and wherever the socket is full:
/// within that response, within the stream's head, or behind it.
#[tokio::test]
async fn a_stream_behind_another_answer_loses_none_of_its_bytes() {
    let server = server().await;
    let sender = server.joined(&["7"]);
    for length in (0..60_000).step_by(1_500) {
        let long = "x".repeat(length);
        server.publish("7", &long);
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(2048).expect("a small buffer");
        let socket = socket.connect(server.address).await.expect("it listens");
        let mut client = Client { socket, read: Vec::new() };
        let channel = format!("behind/{length}");
        let request = format!(
            "GET /channels/7/history?limit=1&sender={sender} HTTP/1.1\r\nHost: x\r\n\r\n\
             GET /channels/join?channels={channel}&sender={sender} HTTP/1.1\r\nHost: x\r\n\r\n\
             GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        client.send(request.as_bytes()).await;
        // The server gets as far as it can without a reader.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let is_there = server.hub.has_joined(sender, &name(&channel));
        if is_there {
            server.publish(&channel, "early");
        }
        let history = client.answer().await;
        assert_eq!((history.status, history.body.matches('x').count()), (200, length));
        let head = client.head().await;
        assert_eq!(head.header("content-type"), Some("application/x-ndjson"));
        assert_eq!(client.chunk().await, "\n");
        if is_there {
            assert!(client.chunk().await.contains(r#""message":"early""#));
        }
        server.publish(&channel, "late");
        assert!(client.chunk().await.contains(r#""message":"late""#));
        // What was asked behind the stream is never answered.
        assert_eq!(client.read, b"");
    }
}

#[tokio::test]
async fn requests_are_read_byte_by_byte_and_many_at_once() {
    let server = server().await;
    let sender = server.sender();
    let mut client = server.connect().await;
    for byte in b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" {
        client.send(&[*byte]).await;
    }
    client.answer().await.is(200, r#"{"status":"ok"}"#);
    client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50).as_bytes()).await;
    for _ in 0..50 {
        client.answer().await.is(200, r#"{"status":"ok"}"#);
    }
    for byte in
        format!("GET /channels/join?channels=5&sender={sender} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()
    {
        client.send(&[*byte]).await;
    }
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.chunk().await, "\n");
}

#[tokio::test]
async fn a_client_that_says_no_more_is_still_answered() {
    let server = server().await;
    let mut client = server.connect().await;
    client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.socket.shutdown().await.expect("open");
    client.answer().await.is(200, r#"{"status":"ok"}"#);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn what_was_read_to_tell_the_protocol_is_not_lost() {
    let server = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut client = Client {
        socket: TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens"),
        read: Vec::new(),
    };
    let (socket, _) = listener.accept().await.expect("a client");
    let first = b"POST /register HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{".to_vec();
    tokio::spawn(server.http.serve(socket, first, [127, 0, 0, 1].into(), std::future::pending()));
    client.send(b"}").await;
    assert_eq!(client.answer().await.status, 401);
}

#[tokio::test]
async fn what_is_no_http_and_too_long_a_head_are_refused_in_json() {
    let server = server().await;
    let check = async |request: &[u8], status: u16, code: &str| {
        let mut client = server.connect().await;
        client.send(request).await;
        let answer = client.answer().await;
        answer.refuses(status, code, "");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(client.rest().await, "");
    };
    check(b"GET nonsense\r\n\r\n", 400, "bad_request").await;
    check(b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400, "bad_request").await;
    check(b"POST /send HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400, "bad_request").await;
    check(b"POST /send HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request").await;
    let long = "x".repeat(1 << 20);
    check(format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n").as_bytes(), 431, "header_too_large")
        .await;
    check(format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(), 431, "header_too_large").await;
    let many = "X: y\r\n".repeat(101);
    check(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes(), 431, "header_too_large").await;
    // A second request that is none: the first one is answered.
    let mut client = server.connect().await;
    client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.answer().await.is(200, r#"{"status":"ok"}"#);
    client.send(b"nonsense\r\n\r\n").await;
    client.answer().await.refuses(400, "bad_request", "");
}

/// RFC 9112 3.2
#[tokio::test]
async fn a_request_without_one_host_is_refused_unless_it_is_of_http_1_0() {
    let server = server().await;
    let ask = async |head: &str| {
        let mut client = server.connect().await;
        client.send(head.as_bytes()).await;
        client.answer().await
    };
    for hosts in ["", "Host: x\r\nHost: x\r\n", "Host: a b\r\n", "Host: me@x\r\n", "Host: x/y\r\n"] {
        let answer = ask(&format!("GET /health HTTP/1.1\r\n{hosts}\r\n")).await;
        answer.refuses(400, "bad_request", "`Host`");
    }
    ask("GET /health HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n").await.refuses(400, "bad_request", "`Host`");
    for head in ["1.1\r\nHost: x:80", "1.1\r\nHost: [::1]:80", "1.1\r\nHost:", "1.0"] {
        ask(&format!("GET /health HTTP/{head}\r\n\r\n")).await.is(200, r#"{"status":"ok"}"#);
    }
}

/// [running: header_timeout]
#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_in_time_is_cut_off() {
    let server = server().await;
    let begin = tokio::time::Instant::now();
    let mut client = server.connect().await;
    client.send(b"GET /health HTTP/1.1\r\nHo").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(begin.elapsed().as_secs(), 10);
    let begin = tokio::time::Instant::now();
    let mut client = server.connect().await;
    client.send(b"POST /send HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{").await;
    client.answer().await.refuses(408, "timeout", "in time");
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_answers_is_cut_off() {
    const REQUESTS: usize = 400;
    let server = server().await;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(2048).expect("a small buffer");
    let socket = socket.connect(server.address).await.expect("it listens");
    let mut client = Client { socket, read: Vec::new() };
    client.send("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(REQUESTS).as_bytes()).await;
    // Time passes only while nobody has anything to do: when the server waits
    // for the client.
    tokio::time::timeout(Duration::from_secs(60), std::future::pending::<()>()).await.unwrap_err();
    let answers = client.rest().await.matches("HTTP/1.1 200").count();
    assert!((1..REQUESTS).contains(&answers), "{answers}");
}

/// [running: shutdown]
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_open_learns_of_the_shutdown_and_is_closed() {
    let server = server().await;
    let mut asks = server.connect().await;
    let mut idles = server.connect().await;
    for client in [&mut asks, &mut idles] {
        client.send(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").await;
        client.answer().await.is(200, r#"{"status":"ready"}"#);
    }
    let begin = tokio::time::Instant::now();
    server.http.drain();
    server.shutdown.start();
    asks.send(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = asks.answer().await;
    answer.refuses(503, "draining", "shutting down");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(asks.rest().await, "");
    assert_eq!(idles.rest().await, "");
    assert_eq!(begin.elapsed().as_secs(), 2);
    drop((asks, idles));
    server.shutdown.ended().await;
}

/// A stream that was prepared goes with its connection.
#[tokio::test]
async fn a_client_that_is_gone_before_its_stream_begins_leaves_nothing_open() {
    let server = server().await;
    let sender = server.sender();
    for _ in 0..50 {
        let mut client = server.connect().await;
        let request = format!("GET /channels/join?channels=5&sender={sender} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.send(request.as_bytes()).await;
        drop(client);
    }
    // The server has seen all of them when it has begun as many streams.
    let streams = || {
        server.metrics.to_text().contains("watchtower_http_streams_total{form=\"application/x-ndjson\"} 50")
    };
    while !streams() || server.hub.counts().sessions > 0 {
        tokio::task::yield_now().await;
    }
}
