//! What clients that ask for a subprotocol find (RFC 6455 1.9): at the protocols of this server,
//! which have none, and at one of a program's own.

use std::sync::mpsc;
use std::thread;

use tokio::runtime;
use watchtower_server::Server;
use watchtower_server::config::Config;
use watchtower_server::websocket::{Client, Handler, Incoming, Outgoing, Parts, Subprotocol};

use super::server;
use super::websockets::{By, EVERY_CLIENT, Socket};

/// Says first which subprotocol was agreed on.
struct Chat;

impl Handler for Chat {
    type State = ();

    fn protocol(&self) -> &'static str {
        "chat"
    }

    fn subprotocols(&self) -> &'static [&'static str] {
        &["chat.v2", "chat.v1"]
    }

    fn open(&self, client: &mut Client<'_>, request: &Parts) {
        let agreed = request.extensions.get().map_or("none", |Subprotocol(agreed)| agreed);
        client.send(Outgoing::Text(agreed));
    }

    fn message(&self, (): &mut (), _client: &mut Client<'_>, _message: Incoming<'_>) {}
}

/// The URL of a server that runs until this process ends.
fn serve() -> String {
    let (bound, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
            let server = Server::builder(config).handle("/chat", Chat).bind().await.unwrap();
            bound.send(server.listeners()[0].address).unwrap();
            server.run().await;
        });
    });
    format!("ws://{}/chat", address.recv().unwrap())
}

#[test]
fn the_first_subprotocol_that_the_client_asks_for_and_the_handler_speaks_is_agreed_on() {
    let url = serve();
    for by in EVERY_CLIENT {
        Socket::open_with(by, &url, &["chat.v3", "chat.v1", "chat.v2"]).expect("chat.v1");
        Socket::open(by, &url).expect("none");
    }
}

#[test]
fn a_browser_that_asks_for_a_subprotocol_that_is_not_spoken_closes_and_others_go_on() {
    let server = server::Server::start(&[]);
    for url in [format!("ws://{}/webrocket", server.tcp), serve()] {
        Socket::is_refused_with(By::Browser, &url, &["graphql"]);
        Socket::open_with(By::Package, &url, &["graphql"]);
    }
}
