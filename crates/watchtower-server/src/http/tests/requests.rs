//! Every request, and every way in which one is refused.

use super::*;

/// [http: register]
#[tokio::test]
async fn whoever_knows_the_secret_is_registered() {
    let server = server().await;
    server.post("/register", format!(r#"{{"secret_key": "{SECRET}"}}"#)).await.is(200, r#"{"id":72}"#);
    for wrong in [
        r#"{"secret_key":"wrong"}"#,
        r#"{"secret_key":""}"#,
        r#"{"secret_key":null}"#,
        r#"{"secret_key":5}"#,
        r#"{"secret_key":["an open secret"]}"#,
        "{}",
        "",
    ] {
        let answer = server.post("/register", wrong).await;
        answer.is(401, r#"{"error":"invalid_secret_key","message":"`secret_key` is missing or wrong"}"#);
    }
    server.post("/register", "[]").await.refuses(400, "invalid_json", "JSON object");
    assert_eq!(server.hub.counts().senders, 1);
    // curl says that JSON is a form, unless it is told otherwise.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let body = format!(r#"{{"secret_key":"{SECRET}"}}"#);
    server.ask("POST", "/register", form, body.as_bytes()).await.is(200, r#"{"id":73}"#);
}

/// [http: channels]
#[tokio::test]
async fn channels_are_listed_numbers_first() {
    let server = server().await;
    let sender = server.sender();
    server.get(&format!("/channels?sender={sender}")).await.is(204, "");
    server.joined(&["hello", "10", "9"]);
    server.get(&format!("/channels?sender={sender}")).await.is(200, r#"{"channels":[9,10,"hello"]}"#);
}

/// [http: errors]
#[tokio::test]
async fn a_sender_that_is_missing_malformed_or_unknown_is_401() {
    let server = server().await;
    const ANSWER: &str = r#"{"error":"unknown_sender","message":"`sender` is missing or not registered"}"#;
    for query in
        ["", "&sender=", "&sender=0", "&sender=7x", "&sender=-1", "&sender=4294967296", "&sender=999"]
    {
        for path in ["/channels", "/channels/join", "/channels/5/history", "/channels/5/presence"] {
            server.get(&format!("{path}?channels=5{query}")).await.is(401, ANSWER);
        }
        let text = "Content-Type: text/plain\r\n";
        server.ask("POST", &format!("/broadcast?channels=5{query}"), text, b"x").await.is(401, ANSWER);
    }
    for sender in ["", r#","sender":0"#, r#","sender":-1"#, r#","sender":99999999999"#, r#","sender":999"#] {
        let rest = r#""receivers":[1],"message":1,"callback_url":"http://example.com/""#;
        for path in ["/channels/join", "/channels/join/async", "/channels/leave", "/broadcast", "/send"] {
            server.post(path, format!(r#"{{"channels":[5],{rest}{sender}}}"#)).await.is(401, ANSWER);
        }
    }
}

/// [http: errors]
#[tokio::test]
async fn a_field_of_the_wrong_form_is_400_and_named() {
    let server = server().await;
    let good = [
        ("sender", "72"),
        ("channels", "[5]"),
        ("receivers", "[72]"),
        ("message", "\"YQ==\""),
        ("event", "\"e\""),
        ("encoding", "\"base64\""),
        ("callback_url", "\"http://example.com/\""),
    ];
    let wrong = [
        ("sender", vec!["null", "\"72\"", "1.5", "1e3", "[72]", "{}", "true"]),
        (
            "channels",
            vec![
                "null",
                "5",
                "\"5\"",
                "[]",
                "{}",
                "[[5]]",
                "[null]",
                "[true]",
                "[-1]",
                "[1.5]",
                "[1e3]",
                "[4294967296]",
                "[\"07\"]",
                "[\"\"]",
                "[\" a\"]",
                "[\"a\\u0000\"]",
                "[5,{}]",
            ],
        ),
        ("receivers", vec!["null", "72", "[]", "[\"72\"]", "[-1]", "[1.5]", "[4294967296]", "{}"]),
        ("event", vec!["null", "5", "\"\"", "\"a\\nb\"", "[]"]),
        ("encoding", vec!["null", "5", "\"hex\"", "\"\""]),
        ("message", vec!["5", "\"%\"", "\"YQ\"", "null"]),
    ];
    let takes = |path: &str, field: &str| match path {
        "/channels/join" | "/channels/leave" => ["sender", "channels"].contains(&field),
        "/channels/join/async" => ["sender", "channels", "callback_url"].contains(&field),
        "/broadcast" => !["receivers", "callback_url"].contains(&field),
        _ => field != "callback_url",
    };
    server.joined(&["5"]);
    for path in ["/channels/join", "/channels/join/async", "/channels/leave", "/broadcast", "/send"] {
        for (field, values) in &wrong {
            for value in values.iter().filter(|_| takes(path, field)) {
                let fields: Vec<_> = good
                    .iter()
                    .map(|(name, good)| format!("\"{name}\":{}", if name == field { value } else { good }))
                    .collect();
                let answer = server.post(path, format!("{{{}}}", fields.join(","))).await;
                answer.refuses(400, "invalid_field", &format!("`{field}`"));
            }
        }
    }
    for (path, missing) in [("/broadcast", "channels"), ("/broadcast", "message"), ("/send", "receivers")] {
        let fields: Vec<_> =
            good.iter().filter(|(name, _)| *name != missing && *name != "encoding").collect();
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let answer = server.post(path, format!("{{{}}}", fields.join(","))).await;
        answer.refuses(400, "invalid_field", &format!("`{missing}`"));
    }
    assert_eq!(server.hub.counts().published, 0);
}

/// [http: errors]
#[tokio::test]
async fn what_is_no_json_object_is_400() {
    let server = server().await;
    for body in
        [&b""[..], b"{", b"[]", b"5", b"\"x\"", b"{\"sender\":}", b"{} {}", b"\xff", b"{\"a\":\"\xff\"}"]
    {
        for path in ["/channels/join", "/channels/join/async", "/channels/leave", "/broadcast", "/send"] {
            server.post(path, body).await.refuses(400, "invalid_json", "JSON object");
        }
    }
    let twice = r#"{"sender":1,"sender":2,"channels":[5]}"#;
    server.post("/channels/join", twice).await.refuses(400, "invalid_json", "sender");
}

#[tokio::test]
async fn json_nested_a_hundred_thousand_deep_is_400() {
    let server = server().await;
    let sender = server.joined(&["5"]);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let broadcast = |message: &str| format!(r#"{{"channels":[5],"sender":{sender},"message":{message}}}"#);
    server.post("/broadcast", broadcast(&deep)).await.refuses(400, "invalid_field", "`message`");
    let fits = format!("{}{}", "[".repeat(128), "]".repeat(128));
    assert_eq!(server.post("/broadcast", broadcast(&fits)).await.status, 200);
    server.post("/channels/join", format!(r#"{{"channels":{deep},"sender":{sender}}}"#)).await.refuses(
        400,
        "invalid_field",
        "`channels`",
    );
    server.post("/channels/join", format!(r#"{{"channels":[5],"sender":{deep}}}"#)).await.refuses(
        400,
        "invalid_field",
        "`sender`",
    );
    assert_eq!(
        server
            .post("/channels/join", format!(r#"{{"x":{deep},"channels":[5],"sender":{sender}}}"#))
            .await
            .status,
        200
    );
    server.post("/channels/join", "[".repeat(100_000)).await.refuses(400, "invalid_json", "");
}

/// [http: channels/join]
#[tokio::test]
async fn a_join_by_post_is_to_send_and_lasts_until_left() {
    let server = server().await;
    let sender = server.sender();
    let body = format!(r#"{{"sender": {sender}, "channels": [5, "hello", "5"]}}"#);
    server.post("/channels/join", &body).await.is(200, r#"{"channels":[5,"hello"]}"#);
    assert!(server.hub.has_joined(sender, &name("5")) && server.hub.has_joined(sender, &name("hello")));
    assert_eq!(server.hub.counts().subscriptions, 0);
    server.post("/channels/leave", &body).await.is(200, r#"{"channels":[5,"hello"]}"#);
    assert!(!server.hub.has_joined(sender, &name("5")));
    // Leaving what is not joined is 200.
    server.post("/channels/leave", &body).await.is(200, r#"{"channels":[5,"hello"]}"#);
}

/// [http: channels/join/async]
#[tokio::test]
async fn a_callback_joins_unless_its_url_is_forbidden() {
    let server = server().await;
    let sender = server.sender();
    let join = |url: &str| format!(r#"{{"sender":{sender},"channels":[5],"callback_url":{url}}}"#);
    for wrong in
        ["\"\"", "\"ftp://example.com/\"", "\"http://10.0.0.1/\"", "\"http://a:b@example.com/\"", "\"x\""]
    {
        server.post("/channels/join/async", join(wrong)).await.refuses(
            400,
            "invalid_callback_url",
            "`callback_url`",
        );
    }
    server.post("/channels/join/async", join("5")).await.refuses(400, "invalid_field", "`callback_url`");
    let missing = format!(r#"{{"sender":{sender},"channels":[5]}}"#);
    server.post("/channels/join/async", missing).await.refuses(400, "invalid_callback_url", "missing");
    assert!(!server.hub.has_joined(sender, &name("5")));
    let good = join("\"http://client-url.com/callbacks\"");
    server.post("/channels/join/async", &good).await.is(200, r#"{"channels":[5]}"#);
    server.post("/channels/join/async", &good).await.is(200, r#"{"channels":[5]}"#);
    assert!(server.hub.has_joined(sender, &name("5")));
    let left = format!(r#"{{"sender":{sender},"channels":[5]}}"#);
    server.post("/channels/leave", left).await.is(200, r#"{"channels":[5]}"#);
    assert!(!server.hub.has_joined(sender, &name("5")));
}

/// [http: broadcast]
#[tokio::test]
async fn a_broadcast_goes_to_all_of_its_channels_or_to_none() {
    let server = server().await;
    let sender = server.joined(&["5", "hello"]);
    let broadcast = |channels: &str| {
        format!(
            r#"{{"channels": {channels}, "sender": {sender}, "message": "all your base are belong to us"}}"#
        )
    };
    server
        .post("/broadcast", broadcast("[5]"))
        .await
        .is(200, r#"{"messages":[{"channel":5,"offset":1,"epoch":"0000000000000049"}]}"#);
    server.post("/broadcast", broadcast(r#"["hello",5,"5"]"#)).await.is(
        200,
        concat!(
            r#"{"messages":[{"channel":"hello","offset":1,"epoch":"000000000000004a"},"#,
            r#"{"channel":5,"offset":2,"epoch":"0000000000000049"}]}"#
        ),
    );
    server
        .post("/broadcast", broadcast("[5,6]"))
        .await
        .is(400, r#"{"error":"not_joined","message":"the sender has not joined channel 6"}"#);
    assert_eq!(server.hub.counts().published, 3);
}

/// [http: send]
#[tokio::test]
async fn a_direct_message_goes_to_those_who_have_joined_or_to_none() {
    let server = server().await;
    let sender = server.joined(&["5"]);
    let other = server.joined(&["5"]);
    let absent = server.sender();
    let send = |receivers: &str| {
        format!(r#"{{"channels":[5],"sender":{sender},"receivers":{receivers},"message":"x"}}"#)
    };
    server
        .post("/send", send(&format!("[{other},{other}]")))
        .await
        .is(200, r#"{"messages":[{"channel":5,"offset":1,"epoch":"0000000000000049"}]}"#);
    server.post("/send", send(&format!("[{other},{absent},0,999]"))).await.is(
        400,
        &format!(
            r#"{{"error":"receiver_not_joined","message":"receivers that have not joined channel 5: 0, {absent}, 999","receivers":[0,{absent},999]}}"#
        ),
    );
    let unjoined = format!(r#"{{"channels":[6],"sender":{sender},"receivers":[{other}],"message":"x"}}"#);
    server.post("/send", unjoined).await.refuses(400, "not_joined", "channel 6");
    assert_eq!(server.hub.counts().published, 1);
}

/// [http: message] [model: projection]
#[tokio::test]
async fn content_is_kept_as_it_came_whatever_it_is() {
    let server = server().await;
    let sender = server.joined(&["7"]);
    let json = |fields: &str| format!(r#"{{"channels":[7],"sender":{sender},{fields}}}"#);
    let check = async |fields: &str, expected: &str| {
        assert_eq!(server.post("/broadcast", json(fields)).await.status, 200, "{fields}");
        let history = server.get(&format!("/channels/7/history?sender={sender}&limit=1")).await;
        let (_, message) = history.body.split_once(r#""sender":72,"#).expect("a message");
        assert_eq!(message, format!(r#"{expected},"time":"2026-11-21T10:00:00.000Z"}}]}}"#));
    };
    check(r#""message":"é\u00e9\n""#, r#""message":"éé\n""#).await;
    check(r#""message":{"b": 1.50,  "a":null}"#, r#""message":{"b": 1.50,  "a":null}"#).await;
    check(r#""message":null"#, r#""message":null"#).await;
    check("\"message\":[1,\r\n2]", r#""message":[1,  2]"#).await;
    check(r#""message":1e400"#, r#""message":1e400"#).await;
    check(r#""message":"/wA=","encoding":"base64""#, r#""message":"/wA=","encoding":"base64""#).await;
    check(r#""message":"x","event":"e""#, r#""event":"e","message":"x""#).await;
    check(r#""message":"x","event":"message""#, r#""message":"x""#).await;
    let broadcast = format!("/broadcast?channels=7&sender={sender}");
    let octets = "Content-Type: application/octet-stream\r\n";
    assert_eq!(server.ask("POST", &broadcast, octets, b"abc").await.status, 200);
    let text = "Content-Type: text/plain; charset=utf-8\r\n";
    assert_eq!(server.ask("POST", &format!("{broadcast}&event=e"), text, "é".as_bytes()).await.status, 200);
    let history = server.get(&format!("/channels/7/history?sender={sender}&limit=2")).await.body;
    assert!(history.contains(r#""message":"YWJj","encoding":"base64""#), "{history}");
    assert!(history.contains(r#""event":"e","message":"é""#), "{history}");
    server.ask("POST", &broadcast, text, b"\xff").await.refuses(400, "invalid_field", "UTF-8");
    server.ask("POST", &format!("/broadcast?sender={sender}"), text, b"x").await.refuses(
        400,
        "invalid_field",
        "`channels`",
    );
    server.ask("POST", &format!("{broadcast}&event="), text, b"x").await.refuses(
        400,
        "invalid_field",
        "`event`",
    );
}

#[tokio::test]
async fn a_channel_may_refuse_content() {
    let server = server().await;
    let sender = server.joined(&["json/a"]);
    let broadcast = |rest| format!(r#"{{"channels":["json/a"],"sender":{sender},{rest}}}"#);
    let refused = server.post("/broadcast", broadcast(r#""message":"not json""#)).await;
    refused.refuses(400, "bad_content", "channel json/a accepts JSON only");
    assert_eq!(server.post("/broadcast", broadcast(r#""message":"[1]""#)).await.status, 200);
}

/// [http: errors]
#[tokio::test]
async fn content_or_a_body_above_the_limit_is_413() {
    let server = server().await;
    let sender = server.joined(&["5"]);
    let broadcast =
        |length| format!(r#"{{"channels":[5],"sender":{sender},"message":"{}"}}"#, "x".repeat(length));
    assert_eq!(server.post("/broadcast", broadcast(65_535)).await.status, 200);
    server
        .post("/broadcast", broadcast(65_536))
        .await
        .is(413, r#"{"error":"too_large","message":"the content has more than 65535 bytes"}"#);
    const BODY: &str = r#"{"error":"too_large","message":"the body has more than 1048576 bytes"}"#;
    server.post("/broadcast", broadcast(1_048_576)).await.is(413, BODY);
    // Judged by what was announced, before any of it came.
    let mut client = server.connect().await;
    client.send(b"POST /send HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n").await;
    client.answer().await.is(413, BODY);
    // And without an announcement, once there was too much.
    let mut client = server.connect().await;
    client.send(b"POST /send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..17 {
        client.send(format!("10000\r\n{}\r\n", "x".repeat(65_536)).as_bytes()).await;
    }
    client.answer().await.is(413, BODY);
}

/// [http: history]
#[tokio::test]
async fn history_is_the_first_after_since_or_the_last_or_those_before() {
    let server = server().await;
    let sender = server.joined(&["7", "5", "kept/a b"]);
    for text in ["a", "b", "c", "d"] {
        server.publish("7", text);
    }
    let history =
        async |query: &str| server.get(&format!("/channels/7/history?sender={sender}{query}")).await;
    let expected = |offsets: &[u64], covers: (u64, u64), recovered: bool, more: (bool, bool)| {
        let message = |&offset: &u64| {
            let text = ["", "a", "b", "c", "d"][offset as usize];
            format!(
                r#"{{"channel":7,"offset":{offset},"epoch":"0000000000000049","sender":0,"message":"{text}","time":"2026-11-21T10:00:00.000Z"}}"#
            )
        };
        let messages: Vec<_> = offsets.iter().map(message).collect();
        let (first, last) = covers;
        let (before, after) = more;
        format!(
            r#"{{"epoch":"0000000000000049","recovered":{recovered},"first":"0000000000000049:{first}","last":"0000000000000049:{last}","more":{{"before":{before},"after":{after}}},"messages":[{}]}}"#,
            messages.join(",")
        )
    };
    let all = expected(&[2, 3, 4], (2, 4), true, (false, false));
    history("").await.is(200, &all);
    history("&limit=2").await.is(200, &expected(&[3, 4], (3, 4), true, (true, false)));
    history("&limit=0").await.is(200, &expected(&[], (5, 4), true, (true, false)));
    history("&limit=99999999999999999999").await.is(200, &all);
    let since = async |rest: &str| history(&format!("&since=0000000000000049:{rest}")).await;
    since("2").await.is(200, &expected(&[3, 4], (3, 4), true, (true, false)));
    since("2&limit=1").await.is(200, &expected(&[3], (3, 3), true, (true, true)));
    since("4").await.is(200, &expected(&[], (5, 4), true, (true, false)));
    since("0").await.is(200, &expected(&[2, 3, 4], (2, 4), false, (false, false)));
    let before = async |rest: &str| history(&format!("&before=0000000000000049:{rest}")).await;
    before("4").await.is(200, &expected(&[2, 3], (2, 3), true, (false, true)));
    before("4&limit=1").await.is(200, &expected(&[3], (3, 3), true, (true, true)));
    before("2").await.is(200, &expected(&[], (2, 1), false, (false, true)));
    let unknown = expected(&[2, 3, 4], (2, 4), false, (false, false));
    history("&since=another:4").await.is(200, &unknown);
    history("&before=another:4").await.is(200, &unknown);
    for (query, field) in [
        ("&since=4", "`since`"),
        ("&since=", "`since`"),
        ("&before=4", "`before`"),
        ("&since=another:4&before=another:5", "`before`"),
        ("&limit=x", "`limit`"),
        ("&limit=-1", "`limit`"),
        ("&limit=", "`limit`"),
    ] {
        history(query).await.refuses(400, "invalid_field", field);
    }
    let of = async |channel: &str| server.get(&format!("/channels/{channel}/history?sender={sender}")).await;
    // A channel without history, one that nobody has joined, and a name with
    // a space and a slash in it.
    let nothing = |epoch: &str, recovered: bool, first: &str, last: &str| {
        format!(
            r#"{{"epoch":{epoch},"recovered":{recovered},"first":{first},"last":{last},"more":{{"before":false,"after":false}},"messages":[]}}"#
        )
    };
    let epoch = r#""000000000000004a""#;
    of("5").await.is(200, &nothing(epoch, true, r#""000000000000004a:1""#, r#""000000000000004a:0""#));
    of("6").await.is(200, &nothing("null", true, "null", "null"));
    let gone = server.get(&format!("/channels/6/history?sender={sender}&since=another:4")).await;
    gone.is(200, &nothing("null", false, "null", "null"));
    server.publish("kept/a b", "x");
    assert!(of("kept%2Fa%20b").await.body.contains(r#""channel":"kept/a b","offset":1,"#));
    of("07").await.refuses(400, "invalid_field", "`channel`");
    of("%ff").await.refuses(400, "invalid_field", "`channel`");
}

#[tokio::test]
async fn history_holds_no_more_than_a_stream_may_fall_behind() {
    let server = Server::start(settings(), |config| config.limits.lag_bytes = 5, [127, 0, 0, 1].into()).await;
    let sender = server.joined(&["7"]);
    for text in ["aaa", "bbb", "cccccccccc"] {
        server.publish("7", text);
    }
    let contents = async |query: &str| {
        let answer = server.get(&format!("/channels/7/history?sender={sender}{query}")).await;
        let history: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let messages = history["messages"].as_array().expect("messages");
        messages
            .iter()
            .map(|message| message["message"].as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(contents("").await, ["cccccccccc"]);
    assert_eq!(contents("&since=x:0").await, ["aaa"]);
    assert_eq!(contents("&since=0000000000000049:1").await, ["bbb"]);
}

/// [http: presence]
#[tokio::test]
async fn presence_is_who_is_there_and_how() {
    let server = server().await;
    let (one, two) = (server.joined(&["5"]), server.joined(&["5"]));
    let presence = server.get(&format!("/channels/5/presence?sender={one}")).await;
    let entry = |id| format!(r#"{{"id":{id},"protocol":"http","since":"2026-11-21T10:00:00.000Z"}}"#);
    presence.is(200, &format!(r#"{{"senders":[{},{}]}}"#, entry(one), entry(two)));
    server.get(&format!("/channels/nobody/presence?sender={one}")).await.is(200, r#"{"senders":[]}"#);
}

/// [http: probes]
#[tokio::test]
async fn probes_and_a_hint_are_for_everyone() {
    let server = server().await;
    server.get("/health").await.is(200, r#"{"status":"ok"}"#);
    server.get("/ready").await.is(200, r#"{"status":"ready"}"#);
    let hint = server.get("/").await;
    assert!(hint.body.starts_with("Watchtower"));
    hint.is_signed();
    server.http.drain();
    server.get("/health").await.is(200, r#"{"status":"ok"}"#);
    server.get("/ready").await.is(503, r#"{"error":"draining","message":"the server is shutting down"}"#);
}

#[tokio::test]
async fn metrics_are_what_was_counted() {
    let server = server().await;
    server.joined(&["5"]);
    server.publish("5", "abc");
    server.get("/nowhere").await;
    server.metrics.udp_too_large.inc();
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "watchtower_messages_published_total 1\n",
        "watchtower_published_bytes_total 3\n",
        "watchtower_channels 1\n",
        "watchtower_senders 1\n",
        "watchtower_http_requests_total{status=\"404\"} 1\n",
        "watchtower_udp_too_large_total 1\n",
        "# TYPE watchtower_messages_published_total counter\n",
    ] {
        assert!(metrics.body.contains(line), "{line}{}", metrics.body);
    }
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let metrics = server.ask("GET", "/metrics", accept, b"").await;
    assert_eq!(
        metrics.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_answered_in_json() {
    let server = server().await;
    let nothing = server.get("/nowhere").await;
    nothing.is(404, r#"{"error":"not_found","message":"there is nothing at this path"}"#);
    for (method, path, allowed) in [
        ("GET", "/broadcast", "POST"),
        ("DELETE", "/channels", "GET,HEAD"),
        ("PUT", "/channels/join", "GET,HEAD,POST"),
        ("OPTIONS", "/register", "POST"),
        ("POST", "/openapi.json", "GET,HEAD"),
    ] {
        let answer = server.ask(method, path, "", b"").await;
        answer.refuses(405, "method_not_allowed", "other methods");
        let mut allow: Vec<_> = answer.header("allow").expect("what is allowed").split(',').collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{method} {path}");
    }
}

/// [running: limits]
#[tokio::test]
async fn a_limit_of_the_server_that_is_reached_is_503() {
    let mut settings = settings();
    settings.limits.senders_max = 1;
    settings.limits.channels_max = 1;
    let server = Server::start(settings, |_| {}, [127, 0, 0, 1].into()).await;
    let register = format!(r#"{{"secret_key":"{SECRET}"}}"#);
    assert_eq!(server.post("/register", &register).await.status, 200);
    server.post("/register", &register).await.refuses(503, "limit_reached", "1 senders");
    server.post("/channels/join", r#"{"sender":72,"channels":[5,6]}"#).await.refuses(
        503,
        "limit_reached",
        "1 channels",
    );
    assert!(!server.hub.has_joined(SenderId::new(72).expect("not zero"), &name("5")));
    let stream = server.get("/channels/join?channels=5,6&sender=72").await;
    stream.refuses(503, "limit_reached", "1 channels");
    assert!(!server.hub.has_joined(SenderId::new(72).expect("not zero"), &name("5")));
}

/// [http: errors]
#[tokio::test(start_paused = true)]
async fn too_many_requests_of_an_address_are_429_and_say_when_to_try_again() {
    let limit = |config: &mut Config| config.limits.max_requests_per_second_per_address = 2;
    let server = Server::start(settings(), limit, [192, 0, 2, 1].into()).await;
    let mut client = server.connect().await;
    for expected in [200, 200, 429] {
        client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, expected);
        if expected == 429 {
            answer.refuses(429, "too_many_requests", "too many requests");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
    }
    assert_eq!(server.metrics.requests_limited.get(), 1);
    let local = Server::start(settings(), limit, [127, 0, 0, 1].into()).await;
    for _ in 0..5 {
        assert_eq!(local.get("/health").await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_registrations_of_an_address_are_429_right_or_wrong() {
    let limit = |config: &mut Config| config.limits.max_registrations_per_second_per_address = 2;
    let server = Server::start(settings(), limit, [192, 0, 2, 1].into()).await;
    let right = format!(r#"{{"secret_key":"{SECRET}"}}"#);
    let mut client = server.connect().await;
    for (secret, expected) in [(r#"{"secret_key":"x"}"#, 401), (&right, 200), (&right, 429)] {
        let request =
            format!("POST /register HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{secret}", secret.len());
        client.send(request.as_bytes()).await;
        assert_eq!(client.answer().await.status, expected);
    }
    assert_eq!(server.metrics.registrations_limited.get(), 1);
    assert_eq!(server.hub.counts().senders, 1);
    client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200, "other requests are made as before");
}

/// [http: CORS]
#[tokio::test]
async fn pages_of_the_configured_origins_may_read_answers_and_no_others() {
    let origin = "Origin: https://example.com\r\n";
    let preflight = "Origin: https://example.com\r\nAccess-Control-Request-Method: POST\r\n";
    let silent = server().await;
    assert_eq!(silent.ask("GET", "/health", origin, b"").await.header("access-control-allow-origin"), None);
    assert_eq!(silent.ask("OPTIONS", "/broadcast", preflight, b"").await.status, 405);
    let configure = |config: &mut Config| {
        config.http.cors_origins = vec!["https://example.com".parse().expect("an origin")]
    };
    let server = Server::start(settings(), configure, [127, 0, 0, 1].into()).await;
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").map(str::to_owned);
    let answer = server.ask("GET", "/nowhere", origin, b"").await;
    assert_eq!((answer.status, allowed(&answer).as_deref()), (404, Some("https://example.com")));
    let answer = server.ask("OPTIONS", "/broadcast", preflight, b"").await;
    assert_eq!((answer.status, allowed(&answer).as_deref()), (200, Some("https://example.com")));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET,POST"));
    let answer = server.ask("GET", "/health", "Origin: https://example.org\r\n", b"").await;
    assert_eq!((answer.status, allowed(&answer)), (200, None));
}

#[tokio::test]
async fn a_new_secret_and_new_limits_are_taken_over() {
    let server = server().await;
    let mut config = Config { secret_key: SecretKey::new("another"), ..Config::default() };
    config.limits.max_body_bytes = 30;
    server.http.configure(Arc::new(config));
    server.post("/register", format!(r#"{{"secret_key":"{SECRET}"}}"#)).await.refuses(
        413,
        "too_large",
        "30 bytes",
    );
    assert_eq!(server.post("/register", r#"{"secret_key":"an open"}"#).await.status, 401);
    assert_eq!(server.post("/register", r#"{"secret_key":"another"}"#).await.status, 200);
}
