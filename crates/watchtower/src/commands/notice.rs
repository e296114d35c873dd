//! What `serve` tells the person who started it, beside its log.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::json;
use watchtower_client::DEFAULT_SERVER;
use watchtower_server::ListenerInfo;
use watchtower_server::config::{Config, SecretOrigin};

use crate::logs::LogFormat;

/// Shows a secret that was just made, this once and whatever `RUST_LOG` says: nobody could learn
/// it otherwise. Says nothing of any other secret.
pub(super) fn of_secret(config: &Config, origin: &SecretOrigin, format: LogFormat) {
    let SecretOrigin::Made { kept_in } = origin else {
        return;
    };
    let secret = config.secret_key.expose();
    let kept = match kept_in {
        Some(path) => format!("kept in {}", path.display()),
        None => "not kept: set secret_key or data_dir to have the same one next time".to_owned(),
    };
    say(&match format {
        LogFormat::Text => format!("made a secret_key: {secret} ({kept})"),
        LogFormat::Json => {
            let fields = json!({"message": "made a secret_key", "secret_key": secret, "kept": kept});
            json!({"level": "INFO", "fields": fields}).to_string()
        }
    });
}

/// Shows commands to try, with the address that they need.
pub(super) fn of_what_to_try(listeners: &[ListenerInfo], registers_without_secret: bool) {
    if let Some(shared) = listeners.first() {
        say(&what_to_try(shared.address, registers_without_secret));
    }
}

fn what_to_try(address: SocketAddr, registers_without_secret: bool) -> String {
    let address = reachable(address);
    let (ip, port) = (address.ip(), address.port());
    let server = match address.to_string() {
        usual if usual == DEFAULT_SERVER => String::new(),
        other => format!(" --server {other}"),
    };
    let (registering, secret) = if registers_without_secret {
        let answer = "od -An -tu4 -j1";
        let over_packets = format!(
            "  printf R | nc -w 1 {ip} {port} | {answer}       # register over TCP: prints an ID\n\
             \x20 printf R | nc -u -w 1 {ip} {port} | {answer}    # or over UDP\n"
        );
        (over_packets, "")
    } else {
        (String::new(), " --secret SECRET")
    };
    let curl_json = "curl -H 'Content-Type: application/json'";
    format!(
        "\nTo try it, in other terminals:\n\n{registering}\
         \x20 {curl_json} -d '{{\"secret_key\": \"SECRET\"}}' http://{address}/register\n\
         \x20 curl -N 'http://{address}/channels/join?channels=5&sender=ID'\n\
         \x20 {curl_json} -d '{{\"channels\": [5], \"sender\": ID, \"message\": \"hello\"}}' http://{address}/broadcast\n\
         \x20 watchtower sub 5{server}{secret}\n\
         \x20 watchtower pub 5 hello{server}{secret}\n"
    )
}

/// The address that a client on this machine uses: nobody connects to 0.0.0.0.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn say(text: &str) {
    // A server goes on without anyone to read its standard error.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn shown(address: &str, open: bool) -> String {
        what_to_try(address.parse().unwrap(), open)
    }

    #[test]
    fn what_to_try_names_an_address_that_can_be_reached() {
        for (listening, reached) in [
            ("127.0.0.1:4000", "127.0.0.1:4000"),
            ("0.0.0.0:4000", "127.0.0.1:4000"),
            ("[::]:4000", "[::1]:4000"),
        ] {
            let text = shown(listening, true);
            assert!(text.contains(&format!("http://{reached}/register")), "{text}");
            assert!(text.contains(&format!("sub 5 --server {reached}\n")), "{text}");
            assert!(!text.contains("0.0.0.0"), "{text}");
        }
        assert!(shown("[::]:4000", true).contains("nc -w 1 ::1 4000 |"));
        assert!(shown("127.0.0.1:3033", true).contains("sub 5\n"));
    }

    #[test]
    fn registering_without_the_secret_is_shown_only_where_it_works() {
        assert!(shown("127.0.0.1:3033", true).contains("printf R"));
        let closed = shown("192.0.2.1:3033", false);
        assert!(!closed.contains("printf R"), "{closed}");
        assert!(closed.contains("watchtower sub 5 --server 192.0.2.1:3033 --secret SECRET\n"));
    }

    #[test]
    fn the_commands_to_try_are_understood() {
        for text in [shown("127.0.0.1:3033", true), shown("0.0.0.0:1", false)] {
            let calls = text.lines().map(str::trim).filter(|line| line.starts_with("watchtower"));
            assert_eq!(calls.clone().count(), 2);
            for call in calls {
                Cli::try_parse_from(call.split(' ')).unwrap();
            }
        }
    }
}
