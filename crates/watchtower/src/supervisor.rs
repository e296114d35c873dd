//! Telling whoever started the server that it is ready, and that it ends: what systemd asks of
//! services of `Type=notify`.
//!
//! Knows nothing of units: a socket is named by `NOTIFY_SOCKET`, or nobody wants to be told.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes connections.
    Ready,
    /// It was told to end, and does.
    Stopping,
}

impl State {
    fn message(self) -> &'static str {
        match self {
            State::Ready => "READY=1",
            State::Stopping => "STOPPING=1",
        }
    }
}

/// Tells the supervisor, if there is one. A server goes on without: what goes wrong is logged.
pub(crate) fn tell(state: State) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "cannot tell the supervisor: {}", state.message());
    }
}

fn send(socket: &OsStr, state: State) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // One that is in no folder.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.message().as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_with_a_path_and_without_one_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("watchtower-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let bound = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&abstract_address).unwrap()];
        send(path.as_os_str(), State::Ready).unwrap();
        send(OsStr::new(&format!("@{name}")), State::Stopping).unwrap();
        for (socket, expected) in bound.iter().zip(["READY=1", "STOPPING=1"]) {
            let mut message = [0; 64];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..length], expected.as_bytes());
        }
        assert!(send(OsStr::new("/nowhere/notify"), State::Ready).is_err());
    }
}
