//! How long the server remembers a UDP address.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use watchtower_server::Server;
use watchtower_server::config::Config;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_address_is_forgotten_soon_after_its_id_has_moved_on() {
    let config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    let server = Server::bind(config).await.expect("free ports");
    let address = server.listeners()[0].address;
    tokio::spawn(server.run());
    let first = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let id = ask(&first, address, b"R").await[1..].to_vec();
    // One id, shown from many addresses: each is the newest once.
    for _ in 0..20 {
        let next = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let join = [b"J", &id[..], &[1, 0, 0, 0]].concat();
        assert_eq!(ask(&next, address, &join).await, b"A\x01\0\0\0");
    }
    let forgotten = async { while sessions(address).await > 1 {} };
    timeout(PATIENCE, forgotten).await.expect("long before udp_idle is over");
}

async fn ask(socket: &UdpSocket, address: std::net::SocketAddr, packet: &[u8]) -> Vec<u8> {
    socket.send_to(packet, address).await.expect("sent");
    let mut answer = vec![0; 100];
    let length = timeout(PATIENCE, socket.recv(&mut answer)).await.expect("in time").expect("an answer");
    answer.truncate(length);
    answer
}

async fn sessions(address: std::net::SocketAddr) -> u64 {
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("open");
    let mut text = String::new();
    client.read_to_string(&mut text).await.expect("text");
    let count = text.lines().find_map(|line| line.strip_prefix("watchtower_sessions "));
    count.expect("is counted").parse().expect("a number")
}
