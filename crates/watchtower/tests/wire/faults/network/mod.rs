//! Networks as they are: packets are lost, late, doubled and out of order, and at times none
//! comes at all.
//!
//! The server is on one machine and its clients on another, which are network namespaces. That
//! takes root, iproute2 and iptables; without them these tests say so and are skipped.

mod clients;
mod disorder;
mod machines;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::support::packets::*;
use super::super::support::{Server, Tcp, eventually};
use super::super::websocket::HUB;
use clients::{CHANNEL, Datagrams, Events, Hears, Page, text};
use disorder::{Disorder, Trouble};
use machines::Machine;

const SECRET: &str = "k7-22f";

/// How long a round trip beside the cable may take, whatever is wrong with that.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// What a stream's packets go through both ways, and datagrams on their way to the server.
const DISORDERLY: Trouble =
    Trouble { delay: Duration::from_millis(5), jitter: Duration::from_millis(15), doubled_percent: 5 };

/// What datagrams from the server go through: whatever disorder there is among them is its own.
const ORDERLY: Trouble =
    Trouble { delay: Duration::from_millis(10), jitter: Duration::ZERO, doubled_percent: 0 };

/// The server's machine, that of its clients far away, and the cable.
struct Network {
    /// Ends before the machines do.
    _disorder: Vec<Disorder>,
    near: Machine,
    far: Machine,
}

impl Network {
    fn new() -> Result<Network, String> {
        let [near, far] = Machine::pair()?;
        Ok(Network { _disorder: Vec::new(), near, far })
    }

    fn with_trouble(self) -> Result<Network, String> {
        let Network { near, far, .. } = self;
        near.lose(&["-p", "tcp"], "0.05")?;
        far.lose(&["-p", "tcp"], "0.05")?;
        near.lose(&["-p", "udp"], "0.25")?;
        // Messages, and no answers.
        far.lose(&["-p", "udp", "-m", "length", "--length", "400:65535"], "0.25")?;
        let from_near = Disorder::on(&near, DISORDERLY, ORDERLY, 1)?;
        let from_far = Disorder::on(&far, DISORDERLY, DISORDERLY, 2)?;
        Ok(Network { _disorder: vec![from_near, from_far], near, far })
    }

    /// Tries something on the server's machine, unless there is no such network.
    fn with(network: Result<Network, String>, attempt: impl FnOnce(&Network) + Send) {
        match network {
            Ok(network) => network.near.run(|| attempt(&network)),
            Err(reason) => eprintln!("skipped, since there is no such network: {reason}"),
        }
    }

    /// A server, and a client beside it that has joined, with ids for others.
    fn serve<const N: usize>(&self, options: &[&str]) -> (Server, Tcp, u32, [u32; N]) {
        // What becomes of the server is asked as often as it answers.
        let unlimited = "limits.max_requests_per_second_per_address=1000000";
        let always = ["--secret", SECRET, "--set", "http.heartbeat=1h", "--set", HUB, "--set", unlimited];
        let server = Server::start_at(&format!("{}:0", self.near.address), &[&always, options].concat());
        let mut beside = server.connect();
        let ids = [(); N].map(|()| beside.register_by(secret(SECRET)));
        let own = beside.register_by(secret(SECRET));
        beside.ask(join(own, CHANNEL), ack(CHANNEL));
        (server, beside, own, ids)
    }
}

/// How many messages somebody far away publishes, each once the last one came back.
const FROM_FAR: usize = 40;

/// How many somebody near publishes for each of them.
const FROM_NEAR_EACH: usize = 5;

const ALL: usize = FROM_FAR * (1 + FROM_NEAR_EACH);

#[test]
fn over_a_bad_network_streams_hear_all_in_order_and_datagrams_all_that_was_not_lost() {
    Network::with(Network::new().and_then(Network::with_trouble), |network| {
        let (server, mut near, own, [by_tcp, by_events, by_udp]) = network.serve(&[]);
        let (at, at_udp) = (server.tcp, server.udp);
        let (mut tcp, mut events, mut page, datagrams) = network.far.run(|| {
            let mut tcp = Tcp::connect(at);
            tcp.ask(join(by_tcp, CHANNEL), ack(CHANNEL));
            let (events, page) = (Events::open(at, by_events, ""), Page::open(at, None));
            (tcp, events, page, Datagrams::join(at_udp, by_udp))
        });
        let is_over = AtomicBool::new(false);
        let (order, heard) = thread::scope(|scope| {
            let datagrams = scope.spawn(|| datagrams.hear_while(|| !is_over.load(Ordering::Relaxed)));
            let streams = [
                scope.spawn(move || converse(&mut tcp, by_tcp)),
                scope.spawn(move || events.hear_all(ALL)),
                scope.spawn(move || page.hear_all(ALL)),
            ];
            let order = answer(&mut near, own);
            let heard = streams.map(|stream| stream.join());
            is_over.store(true, Ordering::Relaxed);
            heard.into_iter().for_each(|heard| assert_eq!(heard.unwrap(), order));
            (order, datagrams.join().unwrap())
        });
        let place = |number| order.iter().position(|other| other == number).unwrap();
        let places: Vec<usize> = heard.iter().map(place).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "doubled or in disorder: {places:?}");
        let lost = network.far.lost("length");
        assert!(lost > 0, "the network is too good");
        assert_eq!(ALL - heard.len(), lost, "what is missing was lost on the way");
        near.expect_nothing();
        server.stop();
    });
}

/// What somebody far away hears who publishes one message after the other.
fn converse(tcp: &mut Tcp, own: u32) -> Vec<usize> {
    let mut heard = Vec::new();
    for number in 0..FROM_FAR {
        tcp.send(say(own, CHANNEL, text(number)));
        while heard.last() != Some(&number) {
            heard.push(tcp.hear());
        }
    }
    heard.extend(tcp.hear_all(ALL - heard.len()));
    heard
}

/// What somebody near hears who has an answer of several messages to each of them. Whatever is
/// wrong with the cable, it gets these back soon.
fn answer(near: &mut Tcp, own: u32) -> Vec<usize> {
    let mut heard = Vec::new();
    for (round, number) in (FROM_FAR..ALL).step_by(FROM_NEAR_EACH).enumerate() {
        // The next of those from far away, which is a while on its way.
        while heard.len() <= round * (1 + FROM_NEAR_EACH) {
            heard.push(near.hear());
        }
        for number in number..number + FROM_NEAR_EACH {
            let asked = Instant::now();
            near.send(say(own, CHANNEL, text(number)));
            while heard.last() != Some(&number) {
                heard.push(near.hear());
            }
            assert!(asked.elapsed() < ANSWERED_WITHIN, "{:?}", asked.elapsed());
        }
    }
    heard
}

/// How many messages are missed before it is noticed that somebody is cut off, and as many after.
const MISSED: usize = 10;

/// A WebSocket that says nothing from one ping to the next is closed, and a UDP client that is
/// silent for `udp_idle` gets nothing more. Both are three seconds here, so that a busy machine
/// does not come too late for what is to be heard before, and UDP clients are looked through once
/// in another.
const NOTICED_WITHIN: Duration = Duration::from_secs(8);

/// Clients far away: some wait when they are cut off, and some begin anew.
struct Crowd {
    tcp_waits: Tcp,
    events_wait: Events,
    tcp: Tcp,
    events: Events,
    page: Page,
    datagrams: Datagrams,
}

/// Where they connect to, and as whom.
struct Place {
    tcp: SocketAddr,
    udp: SocketAddr,
    ids: [u32; 5],
}

impl Place {
    fn enter(&self, id: u32) -> Tcp {
        let mut tcp = Tcp::connect(self.tcp);
        tcp.ask(join(id, CHANNEL), ack(CHANNEL));
        tcp
    }

    fn enter_all(&self) -> Crowd {
        Crowd {
            tcp_waits: self.enter(self.ids[0]),
            events_wait: Events::open(self.tcp, self.ids[1], ""),
            tcp: self.enter(self.ids[2]),
            events: Events::open(self.tcp, self.ids[3], ""),
            page: Page::open(self.tcp, None),
            datagrams: Datagrams::join(self.udp, self.ids[4]),
        }
    }

    /// As they do who do not wait.
    fn come_back(&self, crowd: &mut Crowd) {
        crowd.tcp = self.enter(self.ids[2]);
        crowd.events = Events::open(self.tcp, self.ids[3], &crowd.events.position);
        assert!(crowd.events.is_recovered());
        crowd.page = Page::open(self.tcp, Some(&crowd.page.position));
        crowd.datagrams.join_again();
    }
}

#[test]
fn who_is_cut_off_is_noticed_and_goes_on_where_it_was_once_the_network_heals() {
    Network::with(Network::new(), |network| {
        let rules = r#"channels=[{pattern="1",history_messages=100}]"#;
        let options = ["--set", "websocket.heartbeat=3s", "--set", "udp_idle=3s", "--set", rules];
        let (server, mut near, own, ids) = network.serve(&options);
        let place = Place { tcp: server.tcp, udp: server.udp, ids };
        let mut crowd = network.far.run(|| place.enter_all());
        let sessions = server.metric("sessions");
        let mut publish = |numbers: RangeInclusive<usize>| {
            for text in numbers.map(text) {
                let asked = Instant::now();
                near.ask(say(own, CHANNEL, &text), said(own, CHANNEL, text));
                assert!(asked.elapsed() < ANSWERED_WITHIN, "{:?}", asked.elapsed());
            }
        };
        publish(0..=0);
        assert_eq!([crowd.tcp_waits.hear(), crowd.events_wait.hear()], [0; 2]);
        assert_eq!([crowd.tcp.hear(), crowd.events.hear(), crowd.page.hear()], [0; 3]);
        assert_eq!(crowd.datagrams.hear_all(0), [0]);

        network.near.cut_off();
        network.far.cut_off();
        let cut_off = Instant::now();
        publish(1..=MISSED);
        // The page and the datagrams. For streams the system waits longer, and does not tell.
        eventually("it is noticed", || server.metric("sessions") == sessions - 2);
        assert!(cut_off.elapsed() < NOTICED_WITHIN, "{:?}", cut_off.elapsed());
        let last = 2 * MISSED + 1;
        publish(MISSED + 1..=last - 1);

        network.far.heal();
        network.near.heal();
        network.far.run(|| place.come_back(&mut crowd));
        publish(last..=last);
        let missed: Vec<usize> = (1..=last).collect();
        assert_eq!(crowd.page.hear_all(last), missed);
        assert_eq!(crowd.events.hear_all(last), missed);
        // What was sent before it was noticed is gone, with datagrams
        assert_eq!(crowd.datagrams.hear_all(last), missed[MISSED..]);
        // and with packets, where all of it was written to a connection [packets: reconnecting].
        assert_eq!(crowd.tcp.hear(), last);
        assert_eq!(crowd.tcp_waits.hear_all(last), missed);
        assert_eq!(crowd.events_wait.hear_all(last), missed);
        server.stop();
    });
}
