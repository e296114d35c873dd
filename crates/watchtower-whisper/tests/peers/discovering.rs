//! Peers that find each other by broadcast, in networks of their own.
//!
//! Two network namespaces are two machines with a cable between them. That
//! takes root and iproute2; without them the test says so and is skipped.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::time::timeout;
use watchtower_whisper::{Event, Options, Peer};

use super::{SOON, connected, options, wait_for};

/// [whispernet: 5]
const PORT: u16 = 5555;

/// Says to the test below where it runs, and how many others there are.
const OTHERS: &str = "WATCHTOWER_TEST_WHISPERNET_OTHERS";

/// Two machines, while this exists.
struct Machines([String; 2]);

impl Machines {
    fn new() -> Result<Machines, String> {
        let name = |side: &str| format!("wtw{}{side}", std::process::id());
        let machines = Machines([name("a"), name("b")]);
        let [a, b] = &machines.0;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b])?;
        for (machine, address) in [(a, "10.77.0.1/24"), (b, "10.77.0.2/24")] {
            ip(&["-n", machine, "address", "add", address, "dev", "cable"])?;
            ip(&["-n", machine, "link", "set", "cable", "up"])?;
            ip(&["-n", machine, "link", "set", "lo", "up"])?;
        }
        Ok(machines)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in &self.0 {
            let _ = ip(&["netns", "delete", machine]);
        }
    }
}

/// A machine without a network, while this exists.
struct Island(String);

impl Island {
    fn new() -> Result<Island, String> {
        let island = Island(format!("wtw{}i", std::process::id()));
        ip(&["netns", "add", &island.0])?;
        ip(&["-n", &island.0, "link", "set", "lo", "up"])?;
        Ok(island)
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new("ip").args(arguments).output().map_err(|error| format!("no iproute2: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", arguments.join(" "))) }
}

/// A peer in a process of its own, on one of the machines.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(machine: &str, test: &str, others: usize) -> Process {
        let test = format!("discovering::{test}");
        let mut child = Command::new("ip")
            .args(["netns", "exec", machine])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--ignored", "--nocapture"])
            .env(OTHERS, others.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child, output }
    }

    fn wait_for(&mut self, word: &str) {
        let mut lines = (&mut self.output).lines();
        assert!(lines.any(|line| line.unwrap().ends_with(word)), "it ended and was never {word}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// [whispernet: 5] Two machines, and two peers on one of them.
#[test]
fn peers_of_one_network_find_each_other_within_two_seconds() {
    let machines = match Machines::new() {
        Ok(machines) => machines,
        Err(reason) => return eprintln!("skipped, since there are no network namespaces: {reason}"),
    };
    let [a, b] = &machines.0;
    let mut peers = Vec::new();
    let mut started = Instant::now();
    for machine in [a, b, b] {
        started = Instant::now();
        let mut peer = Process::start(machine, "a_peer_in_a_namespace_finds_the_others", 2);
        peer.wait_for("ready");
        peers.push(peer);
    }
    peers.iter_mut().for_each(|peer| peer.wait_for("found"));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// Runs on one of the machines, by the test above.
#[tokio::test]
#[ignore = "runs in a namespace, by another test"]
async fn a_peer_in_a_namespace_finds_the_others() {
    let Ok(others) = std::env::var(OTHERS) else { return };
    let listen: SocketAddr = ([0, 0, 0, 0], 0).into();
    let options = Options { listen, discovery_port: Some(PORT), ..Options::default() };
    let peer = Peer::start(options).await.unwrap();
    assert!(peer.address().to_string().starts_with("10.77.0."), "{}", peer.address());
    say("ready");
    connected(&peer, others.parse().unwrap()).await;
    say("found");
    std::future::pending().await
}

#[test]
fn a_peer_on_a_machine_without_a_network_tells_that_no_broadcast_goes_out() {
    let island = match Island::new() {
        Ok(island) => island,
        Err(reason) => return eprintln!("skipped, since there are no network namespaces: {reason}"),
    };
    Process::start(&island.0, "a_peer_without_a_network_warns_unless_it_wants_none", 0).wait_for("warned");
}

/// Runs on the machine without a network, by the test above.
#[tokio::test]
#[ignore = "runs in a namespace, by another test"]
async fn a_peer_without_a_network_warns_unless_it_wants_none() {
    if std::env::var(OTHERS).is_err() {
        return;
    }
    // What is announced by one is heard by the other: then it had its chance to warn.
    let local = Options { discovery_port: Some(PORT), ..options() };
    let (local, mut of_local) = Peer::start_watched(local).await.unwrap();
    let listen: SocketAddr = ([0, 0, 0, 0], 0).into();
    let everywhere = Options { listen, discovery_port: Some(PORT), greets_after: None, ..Options::default() };
    let (everywhere, mut events) = Peer::start_watched(everywhere).await.unwrap();
    let warned = |event| if let Event::Warning(warning) = event { Some(warning) } else { None };
    let warning = wait_for(&mut events, warned).await;
    assert_eq!(warning, "peers nearby are not told of this one by broadcast: no network has it");
    connected(&everywhere, 1).await;
    local.shut_down().await;
    while let Some(event) = of_local.next().await.unwrap() {
        assert!(!matches!(event, Event::Warning(_)), "{event:?}");
    }
    say("warned");
}

fn say(word: &str) {
    std::io::stdout().write_all(format!("{word}\n").as_bytes()).unwrap();
}

/// [whispernet: 5] "A busy port … is a warning, not a failure"
#[tokio::test]
async fn a_port_that_somebody_keeps_to_himself_is_a_warning() {
    let keeper = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = keeper.local_addr().unwrap().port();
    let options = Options { discovery_port: Some(port), ..options() };
    let (_peer, mut events) = Peer::start_watched(options).await.unwrap();
    let warned = |event| if let Event::Warning(warning) = event { Some(warning) } else { None };
    let warning = wait_for(&mut events, warned).await;
    let expected =
        format!("peers nearby are not discovered at UDP port {port}: Address already in use (os error 98)");
    assert_eq!(warning, expected);
}

/// What others send to the port is heard, whoever they announce and whatever it
/// is.
#[tokio::test]
async fn what_is_announced_for_others_is_dialled_and_nonsense_is_not() {
    let phil = Peer::start(options()).await.unwrap();
    // A port that is free, for both: discovery shares it.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let goldy = Peer::start(Options { discovery_port: Some(port), ..options() }).await.unwrap();
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = phil.address().to_string();
    let long = "1".repeat(1_000);
    for heard in
        ["", "nonsense", "255.255.255.255:1", "\u{ff}", &long, &goldy.address().to_string(), &address]
    {
        other.send_to(heard.as_bytes(), ("127.0.0.1", port)).unwrap();
    }
    connected(&goldy, 1).await;
    assert_eq!(goldy.peers().await.iter().map(|peer| peer.addr).collect::<Vec<_>>(), [phil.address()]);
}

/// A peer where no broadcast goes is told by whom it is connected to.
#[tokio::test]
async fn a_peer_that_is_connected_to_is_told_who_that_is() {
    let elsewhere = [127, 0, 0, 2];
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((elsewhere, 0)).into()).unwrap();
    let udp = std::net::UdpSocket::from(socket);
    udp.set_nonblocking(true).unwrap();
    let udp = tokio::net::UdpSocket::from_std(udp).unwrap();
    let port = udp.local_addr().unwrap().port();
    let tcp = tokio::net::TcpListener::bind(SocketAddr::from((elsewhere, 0))).await.unwrap();

    let peers = vec![tcp.local_addr().unwrap().to_string()];
    let peer = Peer::start(Options { discovery_port: Some(port), peers, ..options() }).await.unwrap();
    let mut heard = [0; 100];
    let length = timeout(SOON, udp.recv(&mut heard)).await.expect("it is told").unwrap();
    assert_eq!(str::from_utf8(&heard[..length]).unwrap(), peer.address().to_string());
}
