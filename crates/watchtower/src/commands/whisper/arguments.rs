//! The options of `watchtower whisper`, and a peer that is set up by them.

use std::env;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use watchtower_server::config::Listen;
use watchtower_whisper::protocol::safe_text::safe_nick;
use watchtower_whisper::protocol::{BacklogLimits, RoutingLimits};
use watchtower_whisper::{Events, Options, Peer, StartError, TlsFiles};

use super::palette::Colour;
use crate::failure::Failure;

/// Where a peer listens when nothing else is said, and what an address without a port means.
const USUAL_PORT: u16 = 55_555;

#[derive(Debug, Args)]
#[command(after_help = "\
What you type goes to everybody; a line that begins with a slash is a command, /help lists them.
Input that does not come from a terminal is sent line by line, and the end of it ends the command
once all is delivered; output that does not go to a terminal is one message a line.

An option may have one dash, as in -nick goldy. See docs/whispernet.md for keys, files and discovery.

Examples:
  watchtower whisper --nick goldy
  watchtower whisper --nick phil --peer 192.168.1.5:55555
  echo hi | watchtower whisper --peer 192.168.1.5
  watchtower whisper --nick goldy --http localhost:8888
  watchtower whisper --listen 127.0.0.1 --port 0 --discovery-port 0")]
pub(crate) struct Whisper {
    /// The port that others connect to; 0 takes a free one. Without it 55555, or a free one where
    /// that is taken.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// The address to listen on: 127.0.0.1 is for this machine alone.
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    listen: IpAddr,
    /// The address to tell others, where it is not the one listened on.
    #[arg(long, value_name = "IP:PORT")]
    announce: Option<SocketAddr>,
    /// A peer to connect to; may be given several times.
    #[arg(long = "peer", value_name = "HOST:PORT", value_parser = peer_address)]
    pub(super) peers: Vec<String>,
    /// What others call you.
    #[arg(long, value_name = "NAME", value_parser = nick)]
    nick: Option<String>,
    /// Serve a page there, to chat in a browser: localhost:8888 is for this machine alone.
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub(super) http: Option<Listen>,
    /// The UDP port to find peers by, on the same network; 0 turns it off.
    #[arg(long, value_name = "N", default_value_t = 5_555)]
    discovery_port: u16,
    /// How many of the last messages a peer is sent that newly connects.
    #[arg(long, value_name = "N", default_value_t = BacklogLimits::default().messages)]
    backlog: usize,
    /// The folder for your key, the keys of others and the lines you typed; without it
    /// $XDG_DATA_HOME/watchtower or ~/.local/share/watchtower.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The folder where files that others send are saved; without it `downloads` in the folder above.
    #[arg(long, value_name = "DIR")]
    downloads: Option<PathBuf>,
    /// Drop messages that are not signed.
    #[arg(long)]
    require_signed: bool,
    /// Dial every peer and send it everything, however many there are.
    #[arg(long)]
    no_routing: bool,
    /// The certificate to show to other peers, PEM; with it all links are encrypted.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities that other peers' certificates must be from, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// When to show colours.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Colour::Auto)]
    pub(super) color: Colour,
}

impl Whisper {
    /// Starts the peer. A usual port that is taken is exchanged for a free one, and that is what
    /// is to be said of it.
    pub(super) async fn start(&self) -> Result<(Peer, Events, Option<String>), Failure> {
        let options = self.options();
        match Peer::start_watched(options.clone()).await {
            Ok((peer, events)) => Ok((peer, events, None)),
            Err(StartError::Listen { addr, error }) if self.port.is_none() && is_taken(&error) => {
                let free = Options { listen: SocketAddr::new(addr.ip(), 0), ..options };
                let (peer, events) = Peer::start_watched(free).await.map_err(failure)?;
                let taken = format!("port {USUAL_PORT} is taken, so this peer has another one");
                Ok((peer, events, Some(taken)))
            }
            Err(error) => Err(failure(error)),
        }
    }

    fn options(&self) -> Options {
        let data_dir = self.data_dir();
        let below = |name: &str| data_dir.as_ref().map(|folder| folder.join(name));
        let tls = |(cert, (key, ca)): (&PathBuf, (&PathBuf, &PathBuf))| TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
            ca: ca.clone(),
        };
        Options {
            listen: SocketAddr::new(self.listen, self.port.unwrap_or(USUAL_PORT)),
            announced: self.announce,
            peers: self.peers.clone(),
            nick: self.nick.clone(),
            downloads: self.downloads.clone().or_else(|| below("downloads")),
            discovery_port: (self.discovery_port != 0).then_some(self.discovery_port),
            require_signed: self.require_signed,
            routing: (!self.no_routing).then(RoutingLimits::default),
            tls: self.tls_cert.as_ref().zip(self.tls_key.as_ref().zip(self.tls_ca.as_ref())).map(tls),
            backlog: BacklogLimits { messages: self.backlog, ..BacklogLimits::default() },
            data_dir,
            ..Options::default()
        }
    }

    /// Where things are kept, if there is a place for them.
    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        self.data_dir.clone().or_else(|| usual_data_dir(|name| env::var_os(name)))
    }
}

/// <https://specifications.freedesktop.org/basedir-spec>
fn usual_data_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name| variable(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let data = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")));
    data.map(|data| data.join("watchtower"))
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn failure(error: StartError) -> Failure {
    match error {
        StartError::Listen { addr, error } if is_taken(&error) => Failure::Other(anyhow::anyhow!(
            "cannot listen on {addr}: another program does; --port 0 takes a free port"
        )),
        StartError::Listen { .. } => Failure::Other(error.into()),
        error => Failure::Usage(error.to_string()),
    }
}

/// The address of a peer: with the usual port where it has none.
pub(super) fn peer_address(text: &str) -> Result<String, String> {
    let expected = || "expected HOST:PORT, such as 192.168.1.5:55555".to_owned();
    if text.is_empty() || text.contains(char::is_whitespace) || text.contains('/') {
        return Err(expected());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, USUAL_PORT).to_string());
    }
    match text.rsplit_once(':') {
        None => Ok(format!("{text}:{USUAL_PORT}")),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(text.to_owned())
        }
        Some(_) => Err(expected()),
    }
}

fn listen(text: &str) -> Result<Listen, String> {
    text.parse().map_err(|expected| format!("expected {expected}"))
}

/// A nick as others see it.
pub(super) fn nick(text: &str) -> Result<String, String> {
    safe_nick(text).ok_or_else(|| "nothing of that name can be seen".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::commands::original::with_two_dashes;

    fn parsed(arguments: &str) -> Whisper {
        let arguments = format!("watchtower whisper {arguments}");
        let arguments = with_two_dashes(arguments.split_whitespace().map(Into::into));
        let Command::Whisper(whisper) = Cli::try_parse_from(arguments).unwrap().command else { panic!() };
        *whisper
    }

    #[test]
    fn without_options_the_usual_ones_hold() {
        let options = parsed("").options();
        assert_eq!(options.listen, ([0, 0, 0, 0], 55_555).into());
        assert_eq!((options.discovery_port, options.backlog.messages), (Some(5_555), 50));
        assert_eq!((options.nick, options.tls.is_some(), options.require_signed), (None, false, false));
        assert_eq!(options.routing, Some(RoutingLimits::default()));
    }

    #[test]
    fn every_option_says_what_it_says() {
        let options = parsed(
            "--port 7 --listen 127.0.0.1 --announce 203.0.113.1:9 --peer a:1 --peer 10.0.0.2 --nick goldy \
             --discovery-port 0 --backlog 3 --data-dir /d --require-signed --no-routing --tls-cert c --tls-key k --tls-ca a",
        )
        .options();
        assert_eq!(options.listen, ([127, 0, 0, 1], 7).into());
        assert_eq!(options.announced, Some(([203, 0, 113, 1], 9).into()));
        assert_eq!(options.peers, ["a:1", "10.0.0.2:55555"]);
        assert_eq!(options.nick.as_deref(), Some("goldy"));
        assert_eq!((options.discovery_port, options.backlog.messages), (None, 3));
        assert_eq!(options.data_dir, Some("/d".into()));
        assert_eq!(options.downloads, Some("/d/downloads".into()));
        assert!(options.require_signed && options.tls.is_some() && options.routing.is_none());
    }

    #[test]
    fn the_originals_spelling_with_one_dash_is_understood() {
        let options = parsed("-nick goldy -peer 10.0.0.1:5 -port=0 -discovery-port 0").options();
        assert_eq!(
            (options.nick.as_deref(), options.peers, options.listen.port()),
            (Some("goldy"), vec!["10.0.0.1:5".to_owned()], 0)
        );
    }

    #[test]
    fn tls_needs_all_three_files() {
        for part in ["--tls-cert c", "--tls-key k", "--tls-ca a", "--tls-cert c --tls-key k"] {
            let arguments = format!("watchtower whisper {part}");
            assert!(Cli::try_parse_from(arguments.split(' ')).is_err(), "{part}");
        }
    }

    #[test]
    fn an_address_without_a_port_has_the_usual_one() {
        for (given, expected) in [
            ("10.0.0.1:5", "10.0.0.1:5"),
            ("10.0.0.1", "10.0.0.1:55555"),
            ("host.local", "host.local:55555"),
            ("host:5", "host:5"),
            ("::1", "[::1]:55555"),
            ("[::1]", "[::1]:55555"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(peer_address(given).as_deref(), Ok(expected));
        }
        for wrong in ["", "host:", ":5", "host:x", "host:0", "host:70000", "http://host:5", "a b"] {
            assert!(peer_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn things_are_kept_where_the_desktop_says_or_below_the_home_folder() {
        let folder = |variables: &[(&str, &str)]| {
            usual_data_dir(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        let home = ("HOME", "/home/phil");
        assert_eq!(folder(&[home, ("XDG_DATA_HOME", "/data")]), Some("/data/watchtower".into()));
        for xdg in ["", "relative"] {
            let kept = folder(&[home, ("XDG_DATA_HOME", xdg)]);
            assert_eq!(kept, Some("/home/phil/.local/share/watchtower".into()));
        }
        assert_eq!(folder(&[]), None);
    }

    #[test]
    fn a_nick_is_taken_as_others_see_it() {
        assert_eq!(nick(" gol\u{200b}dy ").as_deref(), Ok("goldy"));
        assert!(nick("\u{200b}").is_err());
    }
}
