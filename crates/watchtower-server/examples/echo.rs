//! A WebSocket server that says back what it hears: `ws://127.0.0.1:3033/echo`.
//!
//!     cargo run --example echo -- 127.0.0.1:3033

#![expect(clippy::print_stdout, reason = "an example speaks to who runs it")]

use watchtower_server::config::Config;
use watchtower_server::websocket::{Client, Handler, Incoming, Outgoing, Parts};
use watchtower_server::{Server, StartError};

struct Echo;

impl Handler for Echo {
    type State = ();

    fn protocol(&self) -> &'static str {
        "echo"
    }

    fn open(&self, _client: &mut Client<'_>, _request: &Parts) {}

    fn message(&self, (): &mut (), client: &mut Client<'_>, message: Incoming<'_>) {
        client.send(match message {
            Incoming::Text(text) => Outgoing::Text(text),
            Incoming::Binary(bytes) => Outgoing::Binary(bytes),
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), StartError> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3033".to_owned());
    let listen = address.parse().expect("an address to listen on, such as 127.0.0.1:3033");
    let mut config = Config { listen, ..Config::default() };
    config.websocket.max_message_bytes = 16 << 20;
    let server = Server::builder(config).handle("/echo", Echo).bind().await?;
    for listener in server.listeners() {
        println!("listening {listener}");
    }
    server.run().await;
    Ok(())
}
