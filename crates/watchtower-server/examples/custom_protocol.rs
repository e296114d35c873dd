//! A protocol of one's own, over WebSocket at `/rooms`: `5` joins room 5, `5 hello` says hello
//! there. Room 5 is channel 5 of every other protocol.
use watchtower_server::hub::{ChannelName, Content, Publish};
use watchtower_server::websocket::{Client, Handler, Incoming, Outgoing, Parts};
use watchtower_server::{Server, StartError, config::Config};

struct Rooms;

impl Handler for Rooms {
    type State = (); // nothing to remember of a client

    fn protocol(&self) -> &'static str {
        "rooms"
    }

    fn open(&self, _client: &mut Client<'_>, _request: &Parts) {}

    fn message(&self, (): &mut (), client: &mut Client<'_>, message: Incoming<'_>) {
        let Incoming::Text(line) = message else { return };
        let (room, words) = line.split_once(' ').unwrap_or((line, ""));
        let Ok(room) = ChannelName::parse(room) else {
            return client.send(Outgoing::Text("say a room, or a room and words"));
        };
        let done = match words {
            "" => client.subscribe(&room).map(drop),
            words => client.publish(&room, Publish::new(Content::text(words))).map(drop),
        };
        if let Err(refused) = done {
            client.send(Outgoing::Text(&refused.to_string()));
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), StartError> {
    let server = Server::builder(Config::default()).handle("/rooms", Rooms).bind().await?;
    server.run().await;
    Ok(())
}
