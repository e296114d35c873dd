//! `GET /channels/join`: what a stream says, in each form, and where it starts.

use super::*;

impl Server {
    /// Opens a stream, and reads its head.
    async fn stream(&self, query: &str, headers: &str) -> Client {
        let mut client = self.connect().await;
        let request = format!("GET /channels/join?{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        client.send(request.as_bytes()).await;
        let head = client.head().await;
        assert_eq!(head.status, 200, "{}", head.head);
        client
    }

    /// Waits until no session is open.
    async fn is_deserted(&self) {
        while self.hub.counts().sessions > 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn message(offset: u64, epoch: &str, channel: &str, text: &str) -> String {
    format!(
        r#"{{"channel":{channel},"offset":{offset},"epoch":"{epoch}","sender":0,"message":"{text}","time":"2026-11-21T10:00:00.000Z"}}"#
    )
}

fn chunk(content: &str) -> String {
    format!("{:x}\r\n{content}\r\n", content.len())
}

const SSE: &str = "Accept: text/event-stream\r\n";

/// [http: channels/join]
#[tokio::test]
async fn a_stream_begins_with_its_head_and_a_lone_line_end() {
    let server = server().await;
    let sender = server.sender();
    let mut client = server.connect().await;
    client
        .send(format!("GET /channels/join?channels=5&sender={sender} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await;
    let head = client.head().await;
    let date = head.header("date").expect("a date").to_owned();
    assert_eq!(
        head.head,
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ncache-control: no-store\r\n\
             connection: close\r\nx-accel-buffering: no\r\nx-server-name: Watchtower\r\nx-content-type-options: nosniff\r\n\
             transfer-encoding: chunked\r\ndate: {date}\r\n\r\n"
        )
    );
    client.expect("1\r\n\n\r\n").await;
    server.publish("5", "a");
    client.expect(&chunk(&(message(1, "0000000000000049", "5", "a") + "\n"))).await;
    assert_eq!(server.hub.presence(&name("5")).expect("a channel").len(), 1);
}

/// [http: channels/join]
#[tokio::test]
async fn an_event_stream_says_where_it_is_and_gives_events() {
    let server = server().await;
    let sender = server.sender();
    let mut client = server.stream(&format!("channels=5,hello&sender={sender}"), SSE).await;
    client.expect(&chunk(":\n\nid: 0000000000000049:0,000000000000004a:0\n\n")).await;
    server.publish("hello", "a");
    let json = message(1, "000000000000004a", r#""hello""#, "a");
    client.expect(&chunk(&format!("id: 000000000000004a:1\nevent: message\ndata: {json}\n\n"))).await;
}

/// [http: channels/join] [packets: server to client]
#[tokio::test]
async fn a_stream_of_packets_is_for_numeric_channels() {
    let server = server().await;
    let sender = server.sender();
    let octets = "Accept: application/octet-stream\r\n";
    let named =
        server.ask("GET", &format!("/channels/join?channels=5,hello&sender={sender}"), octets, b"").await;
    named.refuses(400, "invalid_field", "`channels` has hello");
    assert!(server.hub.channels().is_empty());
    let mut client = server.stream(&format!("channels=5&sender={sender}"), octets).await;
    client.expect("1\r\n\n\r\n").await;
    server.publish("5", "abc");
    client.expect("12\r\nM\0\0\0\0\x05\0\0\0\0\0\x03\0\0\0abc\r\n").await;
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_a_stream_without_chunks() {
    let server = server().await;
    let sender = server.sender();
    let mut client = server.connect().await;
    let request =
        format!("GET /channels/join?channels=5&sender={sender} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client.send(request.as_bytes()).await;
    let head = client.head().await;
    assert!(head.head.starts_with("HTTP/1.0 200 OK\r\n"), "{}", head.head);
    assert_eq!(head.header("transfer-encoding"), None);
    assert_eq!(head.header("connection"), Some("close"));
    client.expect("\n").await;
    server.publish("5", "a");
    client.expect(&(message(1, "0000000000000049", "5", "a") + "\n")).await;
    server.shutdown.start();
    assert_eq!(
        client.rest().await,
        "{\"error\":\"shutting_down\",\"message\":\"the server is shutting down\"}\n"
    );
}

/// [http: heartbeat]
#[tokio::test(start_paused = true)]
async fn after_each_15_seconds_of_silence_comes_a_heartbeat() {
    let server = server().await;
    let sender = server.sender();
    let mut lines = server.stream(&format!("channels=5&sender={sender}"), "").await;
    lines.expect("1\r\n\n\r\n").await;
    let begin = tokio::time::Instant::now();
    lines.expect("1\r\n\n\r\n").await;
    assert_eq!(begin.elapsed().as_secs(), 15);
    lines.expect("1\r\n\n\r\n").await;
    assert_eq!(begin.elapsed().as_secs(), 30);
    let mut events = server.stream(&format!("channels=5&sender={sender}"), SSE).await;
    assert_eq!(events.chunk().await, ":\n\nid: 0000000000000049:0\n\n");
    assert_eq!(events.chunk().await, ":\n\n");
    // What is sent is a sign of life as well.
    tokio::time::sleep(Duration::from_secs(10)).await;
    server.publish("5", "a");
    assert!(events.chunk().await.starts_with("id: 0000000000000049:1\n"));
    let sent = tokio::time::Instant::now();
    assert_eq!(events.chunk().await, ":\n\n");
    assert_eq!(sent.elapsed().as_secs(), 15);
}

/// [http: since]
#[tokio::test]
async fn since_gives_what_is_kept_after_a_position_and_says_whether_it_is_all() {
    let server = server().await;
    let sender = server.joined(&["7", "5"]);
    for text in ["a", "b", "c", "d"] {
        server.publish("7", text);
    }
    server.publish("5", "x");
    let (seven, five) = ("0000000000000049", "000000000000004a");
    let check = async |channels: &str, since: &str, recovered: &[String], then: &[u64]| {
        let query = format!("channels={channels}&sender={sender}&since={since}");
        let mut client = server.stream(&query, "").await;
        let lines: String = recovered.iter().map(|line| format!("{line}\n")).collect();
        client.expect(&chunk(&format!("\n{lines}"))).await;
        let text = |offset: u64| ["", "a", "b", "c", "d"][offset as usize];
        let messages = then.iter().map(|&offset| chunk(&(message(offset, seven, "7", text(offset)) + "\n")));
        client.expect(&messages.collect::<String>()).await;
    };
    let recovered = |channel: &str, recovered: bool, epoch: &str, offset: u64| {
        format!(r#"{{"channel":{channel},"recovered":{recovered},"epoch":"{epoch}","offset":{offset}}}"#)
    };
    check("7", &format!("{seven}:2"), &[recovered("7", true, seven, 2)], &[3, 4]).await;
    check("7", &format!("{seven}:4"), &[recovered("7", true, seven, 4)], &[]).await;
    // Three are kept: the first is not.
    check("7", &format!("{seven}:0"), &[recovered("7", false, seven, 1)], &[2, 3, 4]).await;
    check("7", &format!("{five}:2"), &[recovered("7", false, seven, 1)], &[2, 3, 4]).await;
    check("7", "unknown:2", &[recovered("7", false, seven, 1)], &[2, 3, 4]).await;
    check("7", &format!("{seven}:99"), &[recovered("7", false, seven, 1)], &[2, 3, 4]).await;
    let both = [recovered("5", true, five, 1), recovered("7", true, seven, 3)];
    check("5,7", &format!("{five}:1,{seven}:3"), &both, &[4]).await;
    // A channel that is named twice is followed once, from where it was named first.
    let once = [recovered("7", true, seven, 3), recovered("5", true, five, 1)];
    check("7,5,7", &format!("{seven}:3,{five}:1,{seven}:1"), &once, &[4]).await;
    for since in ["", "4", "x:", ":", "x:-1", "x:1,x:1"] {
        let target = format!("/channels/join?channels=7&sender={sender}&since={since}");
        server.get(&target).await.refuses(400, "invalid_field", "`since`");
    }
}

/// [http: since]
#[tokio::test]
async fn last_event_id_resumes_and_goes_before_since() {
    let server = server().await;
    let sender = server.joined(&["7", "5"]);
    for text in ["a", "b", "c"] {
        server.publish("7", text);
    }
    let (seven, five) = ("0000000000000049", "000000000000004a");
    let events = async |channels: &str, id: &str, since: &str| {
        let query = format!("channels={channels}&sender={sender}{since}");
        let mut client = server.stream(&query, &format!("{SSE}Last-Event-ID: {id}\r\n")).await;
        client.chunk().await
    };
    let event = |channel: &str, recovered: bool, epoch: &str, offset: u64| {
        format!(
            "event: recovered\ndata: {{\"channel\":{channel},\"recovered\":{recovered},\"epoch\":\"{epoch}\",\"offset\":{offset}}}\n\n"
        )
    };
    let one = format!(":\n\nid: {seven}:2\n\n{}", event("7", true, seven, 2));
    assert_eq!(events("7", &format!("{seven}:2"), "").await, one);
    assert_eq!(events("7", &format!("{seven}:2"), &format!("&since={seven}:1")).await, one);
    // The position of one message says nothing of the other channels.
    let both = |seven_at, five_is_known| {
        format!(
            ":\n\nid: {five}:0,{seven}:{seven_at}\n\n{}{}",
            event("5", five_is_known, five, 0),
            event("7", true, seven, seven_at)
        )
    };
    assert_eq!(events("5,7", &format!("{seven}:2"), "").await, both(2, false));
    // What a stream says first does.
    assert_eq!(events("5,7", &format!("{five}:0,{seven}:1"), "").await, both(1, true));
    let lost = format!(":\n\nid: {seven}:0\n\n{}", event("7", false, seven, 0));
    assert_eq!(events("7", "nonsense", "").await, lost);
    assert_eq!(events("7", "", "").await, format!(":\n\nid: {seven}:3\n\n"));
}

/// [http: session_ttl]
#[tokio::test]
async fn a_quick_reconnect_loses_nothing_on_a_channel_without_history() {
    let server = server().await;
    let sender = server.sender();
    let mut client = server.stream(&format!("channels=5&sender={sender}"), "").await;
    client.expect("1\r\n\n\r\n").await;
    server.publish("5", "a");
    client.until("\"a\"").await;
    drop(client);
    server.is_deserted().await;
    assert!(server.hub.has_joined(sender, &name("5")));
    server.publish("5", "b");
    let query = format!("channels=5&sender={sender}&since=0000000000000049:1");
    let mut client = server.stream(&query, "").await;
    let recovered = "{\"channel\":5,\"recovered\":true,\"epoch\":\"0000000000000049\",\"offset\":1}\n";
    client.expect(&chunk(&format!("\n{recovered}"))).await;
    client.expect(&chunk(&(message(2, "0000000000000049", "5", "b") + "\n"))).await;
}

#[tokio::test]
async fn two_streams_of_one_sender_both_deliver() {
    let server = server().await;
    let sender = server.sender();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut client = server.stream(&format!("channels=5&sender={sender}"), "").await;
        client.expect("1\r\n\n\r\n").await;
        streams.push(client);
    }
    server.publish("5", "a");
    for client in &mut streams {
        client.expect(&chunk(&(message(1, "0000000000000049", "5", "a") + "\n"))).await;
    }
}

#[tokio::test]
async fn a_burst_is_one_chunk_a_message_in_order() {
    let server = server().await;
    let sender = server.sender();
    let mut client = server.stream(&format!("channels=5&sender={sender}"), "").await;
    client.expect("1\r\n\n\r\n").await;
    for offset in 1..=500 {
        server.publish("5", &format!("message {offset}"));
    }
    for offset in 1..=500 {
        let expected = message(offset, "0000000000000049", "5", &format!("message {offset}")) + "\n";
        assert_eq!(client.chunk().await, expected);
    }
}

/// [model: log]
#[tokio::test]
async fn a_stream_that_falls_behind_is_told_and_closed() {
    let mut settings = settings();
    settings.limits.lag_messages = 10;
    let server = Server::start(settings, |_| {}, [127, 0, 0, 1].into()).await;
    let sender = server.sender();
    let mut client = server.stream(&format!("channels=5&sender={sender}"), "").await;
    client.expect("1\r\n\n\r\n").await;
    // The stream's task gets no turn meanwhile.
    for _ in 0..100 {
        server.publish("5", "x");
    }
    assert_eq!(
        client.chunk().await,
        "{\"error\":\"overloaded\",\"message\":\"the stream fell behind too far\"}\n"
    );
    assert_eq!(client.rest().await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_stream_is_told_of_the_shutdown() {
    let server = server().await;
    let sender = server.sender();
    let mut client = server.stream(&format!("channels=5&sender={sender}"), SSE).await;
    client.chunk().await;
    server.shutdown.start();
    assert_eq!(
        client.chunk().await,
        "event: error\ndata: {\"error\":\"shutting_down\",\"message\":\"the server is shutting down\"}\n\n"
    );
    assert_eq!(client.rest().await, "0\r\n\r\n");
    drop(client);
    server.shutdown.ended().await;
    assert_eq!(server.hub.counts().sessions, 0);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_presence() {
    let mut settings = settings();
    settings.session_ttl = Duration::ZERO;
    let server = Server::start(settings, |_| {}, [127, 0, 0, 1].into()).await;
    let sender = server.sender();
    let mut client = server.stream(&format!("channels=5&sender={sender}"), "").await;
    client.expect("1\r\n\n\r\n").await;
    drop(client);
    server.is_deserted().await;
    server.hub.tick(noon().after(Duration::from_secs(1)));
    assert!(!server.hub.has_joined(sender, &name("5")));
}

#[tokio::test]
async fn head_says_what_a_stream_would_be_and_joins_nothing() {
    let server = server().await;
    let sender = server.sender();
    let mut client = server.connect().await;
    let request = format!("HEAD /channels/join?channels=5&sender={sender} HTTP/1.1\r\nHost: x\r\n{SSE}\r\n");
    client.send(request.as_bytes()).await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert!(server.hub.channels().is_empty());
    // The connection goes on.
    client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.answer().await.is(200, r#"{"status":"ok"}"#);
}

#[tokio::test]
async fn channels_of_a_query_are_named_in_the_error_when_they_are_none() {
    let server = server().await;
    let sender = server.sender();
    for query in ["", "channels=&", "channels=5,&", "channels=5,,6&", "channels=07&", "channels=%01&"] {
        let answer = server.get(&format!("/channels/join?{query}sender={sender}")).await;
        answer.refuses(400, "invalid_field", "`channels`");
    }
    let mut client = server.stream(&format!("channels=5%2Chello+world&sender={sender}"), "").await;
    client.expect("1\r\n\n\r\n").await;
    assert_eq!(server.hub.channels(), [name("5"), name("hello world")]);
}
