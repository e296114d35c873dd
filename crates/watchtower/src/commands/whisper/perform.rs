//! What the commands behind a slash do, and what they answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use watchtower_whisper::protocol::safe_text::safe_body;
use watchtower_whisper::{Peer, PeerStatus};

use super::arguments;
use super::slash::{self, Command};
use super::telling::clock;

/// Carries a command out, other than `/quit`; the answer or the complaint is for the person who
/// typed it. May take as long as a name server or a disk.
pub(super) async fn perform(peer: &Peer, command: Command<'_>, zone: &TimeZone) -> Result<String, String> {
    match command {
        Command::Connect(addr) => connect(peer, addr).await,
        Command::Disconnect(addr) => disconnect(peer, addr).await,
        Command::Peers => Ok(list_of_peers(&peer.peers().await)),
        Command::ShowNick => Ok(match peer.nick() {
            Some(nick) => format!("you are {nick}"),
            None => "you have no name yet: /nick NAME".to_owned(),
        }),
        Command::Nick(name) => {
            let nick = arguments::nick(name)?;
            peer.set_nick(Some(nick.clone()));
            Ok(format!("you are {nick} now"))
        }
        Command::Send(path) => send(peer, path).await,
        Command::Blocked => Ok(list_of_refused(peer, zone).await),
        Command::ClearBlocked => {
            peer.clear_refused().await;
            Ok("nobody is refused any more".to_owned())
        }
        Command::Help => Ok(slash::help()),
        Command::Quit => Ok(String::new()),
    }
}

async fn connect(peer: &Peer, addr: &str) -> Result<String, String> {
    let found = look_up(addr).await?;
    let Some(addr) = found.first() else { return Err(format!("{addr}: there is no such host")) };
    if peer.connect(*addr).await {
        Ok(format!("dialling {addr}"))
    } else {
        Err(format!("{addr} is this peer itself"))
    }
}

async fn disconnect(peer: &Peer, addr: &str) -> Result<String, String> {
    for found in look_up(addr).await? {
        if peer.disconnect(found).await {
            return Ok(format!("disconnected from {found}"));
        }
    }
    Err(format!("{addr} is no peer: /peers lists them"))
}

async fn look_up(addr: &str) -> Result<Vec<SocketAddr>, String> {
    let addr = arguments::peer_address(addr)?;
    let found = tokio::net::lookup_host(&addr).await;
    found.map(Iterator::collect).map_err(|error| format!("{addr}: {error}"))
}

async fn send(peer: &Peer, path: PathBuf) -> Result<String, String> {
    peer.send_file(&path).await.map_err(|error| error.to_string())?;
    Ok(format!("sending {}", named(&path)))
}

fn named(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    safe_body(&name.to_string_lossy(), 200)
}

fn list_of_peers(peers: &[PeerStatus]) -> String {
    if peers.is_empty() {
        return "no peers yet: /connect HOST:PORT, or give others your address".to_owned();
    }
    let state = |peer: &PeerStatus| if peer.connected { "connected" } else { "being dialled" };
    let lines = peers.iter().map(|peer| format!("{} {}", peer.addr, state(peer)));
    lines.collect::<Vec<_>>().join("\n")
}

async fn list_of_refused(peer: &Peer, zone: &TimeZone) -> String {
    let refused = peer.refused().await;
    if refused.is_empty() {
        return "nobody is refused".to_owned();
    }
    let lines = refused.iter().map(|(ip, until)| format!("{ip} until {}", clock(*until, zone)));
    let lines: Vec<_> = lines.collect();
    format!("{}\n/block clear refuses nobody any more", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_are_listed_with_their_state() {
        let status = |port, connected| PeerStatus { addr: ([10, 0, 0, 1], port).into(), connected };
        assert_eq!(
            list_of_peers(&[status(1, true), status(2, false)]),
            "10.0.0.1:1 connected\n10.0.0.1:2 being dialled"
        );
        assert!(list_of_peers(&[]).starts_with("no peers yet"));
    }
}
