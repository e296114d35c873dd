//! Whole configurations: layers, messages, the default file, reloads.

use std::fs;

use proptest::prelude::*;

use super::*;

/// Reads a file of this text, named `watchtower.toml` in the messages that come back.
fn load_file(text: &str) -> Result<Config, String> {
    load(text, &[], &[])
}

fn load(text: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watchtower.toml");
    fs::write(&file, text).unwrap();
    let sources = Sources {
        file: Some(file),
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        flags: Vec::new(),
        set: set.iter().map(ToString::to_string).collect(),
    };
    let prefix = format!("{}/", folder.path().display());
    Config::load(&sources).map_err(|errors| errors.to_string().replace(&prefix, ""))
}

/// The one message that this file is refused with.
fn complaint(text: &str) -> String {
    load_file(text).unwrap_err()
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let seconds = Duration::from_secs;
    let expected = Config {
        listen: "127.0.0.1:3033".parse().unwrap(),
        secret_key: SecretKey::new(""),
        open_registration: OpenRegistration::Auto,
        data_dir: None,
        bind_ids: false,
        sender_ttl: seconds(2_592_000),
        session_ttl: seconds(120),
        udp_idle: seconds(300),
        shutdown_grace: seconds(10),
        limits: Limits {
            max_message_bytes: 65_535,
            max_connections: 100_000,
            max_connections_per_address: 1_000,
            max_channels: 1_000_000,
            max_channels_per_sender: 10_000,
            max_senders: 1_000_000,
            max_retained_bytes: 67_108_864,
            max_requests_per_second_per_address: 1_000,
            max_registrations_per_second_per_address: 100,
            lag_bytes: 1_048_576,
            lag_messages: 10_000,
            max_header_bytes: 16_384,
            max_body_bytes: 1_048_576,
            header_timeout: seconds(10),
        },
        http: Http { heartbeat: seconds(15), cors_origins: vec![] },
        callbacks: Callbacks {
            allow: vec![],
            timeout: seconds(10),
            give_up: seconds(86_400),
            max_subscriptions: 4_096,
            max_subscriptions_per_sender: 64,
        },
        tls: Tls { cert: None, key: None },
        channels: vec![ChannelRule {
            pattern: "orders/*".parse().unwrap(),
            durable: false,
            history_messages: 0,
            history_bytes: 0,
            history_ttl: seconds(3_600),
            format: ContentFormat::Any,
            presence_events: false,
            retain: false,
        }],
        websocket: WebSocket { heartbeat: seconds(30), max_message_bytes: 1_048_576 },
        webrocket: WebRocket {
            listen: None,
            hubs: Hubs::new(vec![WebRocketHub {
                path: "/webrocket".parse().unwrap(),
                read_only: SecretKey::new(""),
                read_write: SecretKey::new(""),
                anonymous: Access::None,
                namespace: HubNamespace::default(),
                origins: vec![],
            }]),
        },
        webtalk: WebTalk { public: None, private: None, secret: SecretKey::new("") },
        whispernet: Whispernet {
            listen: None,
            announced: None,
            peers: vec![],
            channel: ChannelName::parse("whisper").unwrap(),
            nick: Nick::default(),
            discovery: false,
            backlog: 50,
            require_signed: false,
            routing: true,
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
        },
    };
    assert_eq!(Config::default(), expected);
    assert_eq!(Config::load(&Sources::default()).unwrap(), expected);
    assert_eq!(load_file(""), Ok(expected));
}

#[test]
fn the_file_of_the_specification_is_taken_as_it_is_and_changes_nothing() {
    // [running: serve]
    assert_eq!(load_file(include_str!("specified.toml")), Ok(Config::default()));
}

#[test]
fn the_default_file_reads_back_as_the_defaults() {
    assert_eq!(load_file(&render_default()), Ok(Config::default()));
}

#[test]
fn the_default_file_has_every_key_uncommented_and_explained() {
    let file = render_default();
    let document: toml::Table = file.parse().unwrap();
    for row in rows(&Config::default()) {
        let (Row::Key { name, explanation, .. } | Row::Table { name, explanation, .. }) = &row;
        assert!(explanation.len() > 20 && explanation.starts_with("# "), "{name}");
        let mut parts = name.split('.');
        let top = &document[parts.next().unwrap()];
        if let Some(key) = parts.next() {
            let table = top.get(0).unwrap_or(top);
            assert!(table.get(key).is_some(), "{name} is not in the default file");
        }
    }
    let written = |line: &&str| !line.is_empty() && !line.starts_with("# ") && *line != "#";
    assert_eq!(
        file.lines().filter(written).count(),
        rows(&Config::default()).len(),
        "a line of the default file is neither a row nor an explanation"
    );
}

#[test]
fn the_default_file_has_every_field_of_the_configuration() {
    // Debug names every field, from the struct itself and not from the list of keys.
    let debug = format!("{:#?}", Config::default());
    let fields: Vec<&str> = debug
        .lines()
        .filter_map(|line| line.trim_start().split_once(": ").map(|(field, _)| field))
        .filter(|field| field.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    assert!(fields.len() > 25, "{fields:?}");
    let names: Vec<String> = rows(&Config::default())
        .into_iter()
        .map(|(Row::Key { name, .. } | Row::Table { name, .. })| name)
        .collect();
    for field in fields {
        let is_listed = names.iter().any(|name| name.rsplit('.').next() == Some(field));
        assert!(is_listed, "{field} has no key");
    }
}

#[test]
fn later_layers_override_earlier_ones() {
    let file = "udp_idle = \"1m\"\n[limits]\nmax_senders = 1\nmax_channels = 1\nlag_messages = 1\n";
    let sources = |flags: &[(&'static str, &'static str, &str)]| {
        flags
            .iter()
            .map(|(name, key, value)| Flag { name, key, value: (*value).to_owned() })
            .collect::<Vec<_>>()
    };
    let config = load(
        file,
        &[
            ("WATCHTOWER_LIMITS__MAX_CHANNELS", "2"),
            ("WATCHTOWER_LIMITS__LAG_MESSAGES", "2"),
            ("PATH", "/bin"),
        ],
        &["limits.lag_messages=3"],
    )
    .unwrap();
    assert_eq!(config.udp_idle, Duration::from_secs(60));
    let limits = &config.limits;
    assert_eq!((limits.max_senders, limits.max_channels, limits.lag_messages), (1, 2, 3));

    let config = Config::load(&Sources {
        environment: vec![("WATCHTOWER_LISTEN".into(), "127.0.0.1:1".into())],
        flags: sources(&[("--listen", "listen", "127.0.0.1:2"), ("--secret", "secret_key", "from a flag")]),
        set: vec!["secret_key=from set".to_owned()],
        ..Sources::default()
    })
    .unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:2");
    assert_eq!(config.secret_key.expose(), "from set");
}

#[test]
fn values_outside_the_file_are_toml_and_else_text() {
    for (set, secret) in [
        ("secret_key=123", "123"),
        ("secret_key=0x1f", "0x1f"),
        ("secret_key=true", "true"),
        ("secret_key=1e5", "1e5"),
        ("secret_key=2026-11-21", "2026-11-21"),
        ("secret_key=[1]", "[1]"),
        ("secret_key='quoted'", "quoted"),
        ("secret_key=\"a\\tb\"", "a\tb"),
        ("secret_key=a=b", "a=b"),
        (" secret_key = x", " x"),
        ("secret_key=", ""),
    ] {
        let config = load("", &[], &[set]).unwrap();
        assert_eq!(config.secret_key.expose(), secret, "{set}");
    }
    let config = load(
        "",
        &[
            ("WATCHTOWER_SECRET_KEY", "123"),
            ("WATCHTOWER_CALLBACKS__ALLOW", "[\"127.0.0.0/8\"]"),
            ("WATCHTOWER_OPEN_REGISTRATION", "true"),
            ("WATCHTOWER_SENDER_TTL", "1h30m"),
            ("WATCHTOWER_HTTP", "{ heartbeat = \"1s\" }"),
            ("WATCHTOWER_CHANNELS", "[{ pattern = \"a\", format = \"json\" }]"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(config.secret_key.expose(), "123");
    assert_eq!(config.callbacks.allow, ["127.0.0.0/8".parse().unwrap()]);
    assert_eq!(config.open_registration, OpenRegistration::Yes);
    assert_eq!(config.sender_ttl, Duration::from_secs(5_400));
    assert_eq!(config.http.heartbeat, Duration::from_secs(1));
    assert_eq!(config.channels[0].format, ContentFormat::Json);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    assert_eq!(
        complaint("# connections\n\n[limits]\nmax_conections = 5\n"),
        "watchtower.toml:4: unknown key \"limits.max_conections\"; \
         did you mean \"limits.max_connections\"?"
    );
    assert_eq!(
        complaint("max_connections = 5"),
        "watchtower.toml:1: unknown key \"max_connections\"; \
         did you mean \"limits.max_connections\"?"
    );
    assert_eq!(
        complaint("[limit]\nmax_connections = 5"),
        "watchtower.toml:1: unknown key \"limit\"; did you mean \"limits\"?"
    );
    assert_eq!(
        complaint("[[channels]]\npattern = \"a\"\nformt = \"json\""),
        "watchtower.toml:3: unknown key \"channels.formt\"; did you mean \"channels.format\"?"
    );
    for (unknown, hint) in [
        // A part of it, or more than there is.
        ("limits.max_conn = 5", "did you mean \"limits.max_connections\"?"),
        ("http.cors = 5", "did you mean \"http.cors_origins\"?"),
        ("tls.certificate = 5", "did you mean \"tls.cert\"?"),
        ("shutdown = 5", "did you mean \"shutdown_grace\"?"),
        ("limits.heartbeat = 5", "did you mean \"http.heartbeat\"?"),
        ("htp = 5", "did you mean \"http\"?"),
    ] {
        let key = unknown.strip_suffix(" = 5").unwrap();
        assert_eq!(complaint(unknown), format!("watchtower.toml:1: unknown key \"{key}\"; {hint}"));
    }
    // Where nothing is near it is a key all the same, of those that may stand there.
    let default = render_default();
    for (unknown, table) in [("limits.foo = 5", "limits."), ("webtalk.port = 5", "webtalk."), ("foo = 5", "")]
    {
        let message = complaint(unknown);
        let (_, hint) = message.split_once("; the nearest known key is \"").unwrap();
        let name = hint.strip_prefix(table).and_then(|name| name.strip_suffix('"')).unwrap();
        assert!(default.lines().any(|line| line.starts_with(&format!("{name} = "))), "{message}");
    }
    let message = complaint("\n[gossip]\n");
    let expected = "watchtower.toml:2: unknown key \"gossip\"; the nearest known key is \"";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_bad_value_is_named_with_its_line_what_came_and_what_would_be_right() {
    for (text, message) in [
        ("[limits]\nmax_senders = \"many\"", "2: limits.max_senders: got \"many\", expected a whole number"),
        ("limits.max_senders = 0", "1: limits.max_senders: got 0, expected a value from 1 to 1000000000"),
        ("udp_idle = \"0s\"", "1: udp_idle: got \"0s\", expected a value from \"1ms\" to \"36500d\""),
        (
            "udp_idle = 5",
            "1: udp_idle: got 5, expected a duration such as \"250ms\", \"10s\", \"1h30m\" or \"30d\"",
        ),
        (
            "listen = \"example.com:1\"",
            "1: listen: got \"example.com:1\", expected an IP address or localhost, a colon and \
             a port, such as \"127.0.0.1:3033\" or \"[::]:3033\"",
        ),
        (
            "open_registration = \"yes\"",
            "1: open_registration: got \"yes\", expected true, false or \"auto\"",
        ),
        ("limits = 5", "1: limits: got 5, expected a table of keys"),
        (
            "[channels]\npattern = \"a\"",
            "1: channels: got [channels], expected a list of tables, each under [[channels]]",
        ),
        ("\n[[channels]]\nformat = \"json\"", "2: channels.pattern is missing; every [[channels]] needs one"),
        (
            "[[channels]]\npattern = \"07\"",
            "2: channels.pattern: got \"07\", expected a pattern that names can match, such as \
             \"orders/*\" (a channel name of digits is a number from 0 to 4294967295 without \
             leading zeros)",
        ),
        (
            "[http]\ncors_origins = [\n  \"https://a.example\",\n  \"*\",\n]",
            "2: http.cors_origins: got [\\n  \"https://a.example\",\\n  \"*\",\\n], expected a list \
             of web origins such as [\"https://example.com\"], without a path",
        ),
    ] {
        assert_eq!(complaint(text), format!("watchtower.toml:{message}"));
    }
}

#[test]
fn a_secret_is_never_repeated_in_a_message() {
    let long = "s3cr3t".repeat(50);
    for message in [
        complaint("secret_key = 5318008"),
        complaint(&format!("secret_key = \"{long}\"")),
        load("", &[], &[&format!("secret_key={long}")]).unwrap_err(),
        load("", &[("WATCHTOWER_SECRET_KEY", &long)], &[]).unwrap_err(),
    ] {
        assert!(!message.contains("s3cr3t") && !message.contains("5318008"), "{message}");
        assert!(message.contains("secret_key: got a value that is not shown here"), "{message}");
    }
    // Neither what was to be a table with a secret in it, nor what is no key at all.
    for message in [
        complaint("webtalk = \"s3cr3t\""),
        complaint("webtalk = [\"s3cr3t\"]"),
        complaint("webrocket.hubs = [\"s3cr3t\"]"),
        complaint("webrocket.hubs = {path = \"/x\", read_write = \"s3cr3t\"}"),
        complaint("secret_key = \"s3cr3t"),
        complaint("secret_key = \"s3cr3t\" s3cr3t"),
        load("", &[("WATCHTOWER_WEBROCKET__HUBS", "[{path=\"/x\", read_write=\"s3cr3t\"")], &[]).unwrap_err(),
        load("", &[], &["webrocket.hubs=[{path=\"/x\", read_write=\"s3cr3t\""]).unwrap_err(),
        load("", &[], &["s3cr3t"]).unwrap_err(),
        load("", &[], &["secret_key:s3cr3t"]).unwrap_err(),
    ] {
        assert!(!message.contains("s3cr3t"), "{message}");
    }
}

#[test]
fn everything_that_is_wrong_with_a_file_is_reported_in_the_order_of_its_lines() {
    let text = "\
udp_idel = \"1s\"
listen = \"nowhere\"
bind_ids = 1
[limits]
max_senders = -1
max_message_bytes = 2000000
[[channels]]
patern = \"a\"
";
    let message = complaint(text);
    let lines: Vec<&str> = message.lines().collect();
    let starts = [
        "watchtower.toml:1: unknown key \"udp_idel\"",
        "watchtower.toml:2: listen: got \"nowhere\"",
        "watchtower.toml:3: bind_ids: got 1",
        "watchtower.toml:5: limits.max_senders: got -1",
        "watchtower.toml:7: channels.pattern is missing",
        "watchtower.toml:8: unknown key \"channels.patern\"; did you mean \"channels.pattern\"?",
        "limits.lag_bytes = 1048576 is below limits.max_message_bytes = 2000000",
        "limits.max_body_bytes = 1048576 is below limits.max_message_bytes = 2000000",
    ];
    assert_eq!(lines.len(), starts.len(), "{message}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn one_file_of_the_two_that_tls_needs_is_refused() {
    for (given, missing) in [("cert", "key"), ("key", "cert")] {
        assert_eq!(
            complaint(&format!("[tls]\n{given} = \"server.pem\"\n")),
            format!(
                "tls.{given} is set, but tls.{missing} is empty: \
                 TLS needs both files; set tls.{missing}, or empty both"
            )
        );
    }
    let config = load_file("tls.cert = \"a.pem\"\ntls.key = \"b.pem\"\n").unwrap();
    assert_eq!(config.tls, Tls { cert: Some("a.pem".into()), key: Some("b.pem".into()) });
    assert_eq!(
        complaint("tls.cert = 5\ntls.key = \"b.pem\"\n"),
        "watchtower.toml:1: tls.cert: got 5, expected a path, or \"\""
    );
}

#[test]
fn what_is_no_toml_is_named_with_its_line() {
    let message = complaint("listen = \"127.0.0.1:1\"\nbind_ids = tru\nudp_idle\n");
    let lines: Vec<&str> = message.lines().collect();
    assert!(lines.len() >= 2, "{message}");
    assert!(lines[0].starts_with("watchtower.toml:2: "), "{message}");
    assert!(lines.iter().any(|line| line.starts_with("watchtower.toml:3: ")), "{message}");
    assert!(complaint("a = 1\na = 2").starts_with("watchtower.toml:2: duplicate key"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Sources { file: Some("/nonexistent/watchtower.toml".into()), ..Sources::default() };
    let message = Config::load(&missing).unwrap_err().to_string();
    let start = "/nonexistent/watchtower.toml: cannot read the configuration: ";
    assert!(message.starts_with(start), "{message}");
}

#[test]
fn a_variable_that_names_no_key_is_an_error() {
    assert_eq!(
        load("", &[("WATCHTOWER_LIMITS__MAX_SENDRES", "5")], &[]),
        Err("WATCHTOWER_LIMITS__MAX_SENDRES: unknown key \"limits.max_sendres\"; \
             did you mean \"limits.max_senders\"?"
            .to_owned())
    );
    for name in ["WATCHTOWER_", "WATCHTOWER___", "WATCHTOWER_LIMITS__", "WATCHTOWER_LISTEN__X"] {
        assert!(load("", &[(name, "5")], &[]).is_err(), "{name}");
    }
    for name in ["WATCHTOWER", "watchtower_listen", "MY_WATCHTOWER_LISTEN"] {
        assert!(load("", &[(name, "5")], &[]).is_ok(), "{name}");
    }
}

#[test]
fn the_variables_that_kubernetes_sets_for_a_service_of_this_name_are_passed_over() {
    let set_by_kubernetes = [
        ("WATCHTOWER_SERVICE_HOST", "10.0.0.11"),
        ("WATCHTOWER_SERVICE_PORT", "3033"),
        ("WATCHTOWER_SERVICE_PORT_PACKETS", "3033"),
        ("WATCHTOWER_PORT", "tcp://10.0.0.11:3033"),
        ("WATCHTOWER_PORT_3033_TCP", "tcp://10.0.0.11:3033"),
        ("WATCHTOWER_PORT_3033_TCP_PROTO", "tcp"),
        ("WATCHTOWER_PORT_3033_UDP_PORT", "3033"),
        ("WATCHTOWER_PORT_3033_TCP_ADDR", "10.0.0.11"),
    ];
    assert_eq!(load("", &set_by_kubernetes, &[]), Ok(Config::default()));
    for (name, value) in [
        ("WATCHTOWER_PORT", "3033"),
        ("WATCHTOWER_PORT_3033", "1"),
        ("WATCHTOWER_PORT_X_TCP", "1"),
        ("WATCHTOWER_SERVICE", "1"),
    ] {
        assert!(load("", &[(name, value)], &[]).is_err(), "{name}");
    }
    for row in rows(&Config::default()) {
        let (Row::Key { name, .. } | Row::Table { name, .. }) = row;
        let is_hidden = name.starts_with("service_") || name.starts_with("port");
        assert!(!is_hidden, "{name} could not be set by the environment");
    }
}

#[test]
fn what_is_wrong_on_the_command_line_is_named_by_its_flag() {
    assert_eq!(
        load("", &[], &["limits.max_senders"]),
        Err("--set limits.max_senders: expected KEY=VALUE, such as limits.max_connections=500".to_owned())
    );
    assert_eq!(
        load("", &[], &["limits.max_senders=few"]),
        Err("--set: limits.max_senders: got few, expected a whole number".to_owned())
    );
    assert_eq!(
        load("", &[], &["limit.max_senders=5"]),
        Err("--set: unknown key \"limit\"; did you mean \"limits\"?".to_owned())
    );
    let flag = Flag { name: "--listen", key: "listen", value: "3033".to_owned() };
    let refused = Config::load(&Sources { flags: vec![flag], ..Sources::default() });
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with("--listen: listen: got 3033, expected an IP"), "{message}");
}

#[test]
fn beyond_loopback_the_layers_together_must_give_a_good_secret() {
    let open = "listen = \"0.0.0.0:3033\"";
    assert!(complaint(open).contains("secret_key is empty"));
    let with_secret = |secret| load(open, &[("WATCHTOWER_SECRET_KEY", secret)], &[]);
    assert!(with_secret("secret").unwrap_err().contains("secret_key is well known"));
    assert!(with_secret("9f31-c0de").is_ok());
    // One complaint, about the value that was refused, and not a second about its default.
    let refused = complaint("listen = \"0.0.0.0:3033\"\nsecret_key = 5");
    assert_eq!(refused.lines().count(), 1, "{refused}");
}

#[test]
fn registration_without_the_secret_is_open_on_loopback_alone_unless_said_otherwise() {
    for (open, listen, expected) in [
        ("auto", "127.0.0.1:1", true),
        ("auto", "localhost:1", true),
        ("auto", "0.0.0.0:1", false),
        ("true", "0.0.0.0:1", true),
        ("false", "127.0.0.1:1", false),
    ] {
        let set = [
            format!("open_registration={open}"),
            format!("listen={listen}"),
            "secret_key=9f31-c0de".to_owned(),
        ];
        let config = load("", &[], &set.each_ref().map(String::as_str)).unwrap();
        assert_eq!(config.registers_without_secret(), expected, "{open} {listen}");
    }
}

#[test]
fn a_reload_takes_over_secrets_and_limits_and_names_what_needs_a_restart() {
    let running = Config { secret_key: SecretKey::new("one"), ..Config::default() };
    let new = load_file(
        "secret_key = \"two\"\nlisten = \"127.0.0.1:1\"\nlimits.max_senders = 7\n\
         http.heartbeat = \"1s\"\ntls.cert = \"a.pem\"\ntls.key = \"b.pem\"\n[[channels]]\npattern = \"a\"\n[[channels]]\npattern = \"b\"\n",
    )
    .unwrap();
    let reloaded = running.reloaded(&new);
    assert_eq!(
        reloaded.config,
        Config {
            secret_key: SecretKey::new("two"),
            limits: new.limits.clone(),
            tls: new.tls.clone(),
            ..Config::default()
        }
    );
    for key in ["listen", "http.heartbeat", "channels.pattern"] {
        assert!(reloaded.needs_restart.iter().any(|name| name == key), "{key}");
    }
    let is_taken_over =
        |key: &String| key == "secret_key" || key.starts_with("limits.") || key.starts_with("tls.");
    assert!(!reloaded.needs_restart.iter().any(is_taken_over));

    let unchanged = running.reloaded(&Config::default());
    assert_eq!(unchanged.config, running, "an empty secret keeps the one in use");
    assert_eq!(unchanged.needs_restart, Vec::<String>::new());

    let without_rules = load_file("channels = []").unwrap();
    let reloaded = running.reloaded(&without_rules);
    assert!(reloaded.needs_restart.contains(&"channels.pattern".to_owned()));
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(
        cut in 0_usize..4_000,
        inserted in "[\\[\\]{}=\"'.,#\\n a-z0-9é]{0,12}",
    ) {
        let mut text = render_default();
        let cut = text.floor_char_boundary(cut.min(text.len()));
        text.insert_str(cut, &inserted);
        let _ = load_file(&text);
    }
}

#[test]
fn a_durable_channel_needs_a_data_directory() {
    let text = "[[channels]]\npattern = \"a/*\"\ndurable = true\n";
    assert_eq!(
        complaint(text),
        "channels.durable = true for \"a/*\", but data_dir is empty: set data_dir to the folder that the \
         messages are to be kept in"
    );
    let config = load_file(&format!("data_dir = \"/somewhere\"\n{text}")).unwrap();
    assert!(config.channels[0].durable);
}
