//! A peer of the whispernet: the node of `watchtower-protocols` with sockets,
//! a clock, keys on disk, files, and a web page.
//!
//! [`Peer::start`] listens and dials; the [`Peer`] that it returns is a handle,
//! by which a terminal, a page or a server's channel says things and sees what
//! others said. Knows no terminal and no channel.
//!
//! | file | for |
//! | --- | --- |
//! | `peer` | the handle |
//! | `driver` | the node, its actions and its clock |
//! | `connections` | what runs on each connection |
//! | `names`, `discovery` | peers that are given by a name, and that are heard nearby |
//! | `keys`, `local` | what is kept on disk, and this machine's addresses |
//! | `tls` | who may have a connection at all |
//! | `link`, `named` | how a link ended, and what is told of a peer that was named |
//! | `outbox`, `pace` | what waits to be written to a peer, and how fast it is |
//! | `downloads`, `uploads`, `disk` | files that arrive and that go out, and reading them |
//! | `event` | what those who watch are told |
//! | `page` | the page for browsers, by the handle alone |

mod clock;
mod connections;
mod discovery;
mod disk;
mod downloads;
mod driver;
mod event;
mod keys;
mod link;
mod local;
mod named;
mod names;
mod options;
mod outbox;
mod pace;
pub mod page;
mod peer;
mod tls;
mod uploads;

pub use event::{Event, Events, Skipped};
pub use names::is_host_and_port;
pub use options::{Options, TlsFiles};
pub use peer::{Peer, PeerStatus, StartError, Unsendable};

/// The node, its messages, and what makes them safe to show.
pub use watchtower_protocols::whispernet as protocol;
