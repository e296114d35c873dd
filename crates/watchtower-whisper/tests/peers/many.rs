//! More peers than all know all of: they route ([whispernet: 14]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use watchtower_whisper::protocol::{GREETING, RoutingLimits};
use watchtower_whisper::{Event, Events, Options, Peer};

use super::gopher::Gopher;
use super::{SOON, connected, options};

/// As a peer routes, with shorter times.
const LIMITS: RoutingLimits = RoutingLimits {
    shuffle_every: Duration::from_secs(10),
    answer_within: Duration::from_secs(2),
    announce_after: Duration::from_millis(50),
    graft_after: Duration::from_millis(250),
    graft_again: Duration::from_millis(250),
    linger: Duration::from_millis(500),
    ..RoutingLimits::DEFAULT
};

/// Neighbours, and a few that are being told something. All others would be 23.
const CONNECTIONS_MAX: usize = LIMITS.neighbours + 4;

/// Somebody in the room, and what was shown there.
struct Member {
    peer: Peer,
    events: Events,
    shown: BTreeMap<String, usize>,
}

impl Member {
    async fn start(
        listen: SocketAddr,
        contact: Option<SocketAddr>,
        greets_after: Option<Duration>,
    ) -> Member {
        let peers = contact.iter().map(ToString::to_string).collect();
        let options = Options { listen, peers, routing: Some(LIMITS), greets_after, ..options() };
        let (peer, events) = Peer::start_watched(options).await.unwrap();
        Member { peer, events, shown: BTreeMap::new() }
    }

    /// Says that it is there, once somebody hears it.
    async fn speaks(&self, contact: Option<SocketAddr>) {
        if contact.is_some() {
            connected(&self.peer, 1).await;
        }
        self.peer.say(&format!("here is {}", self.peer.address())).await.unwrap();
    }

    /// Waits until it was shown this.
    async fn hears(&mut self, body: &str) {
        let address = self.peer.address();
        let wait = async {
            while !self.shown.contains_key(body) {
                if let Some(Event::Shown(shown)) = self.events.next().await.expect("it keeps up") {
                    *self.shown.entry(shown.body.clone()).or_default() += 1;
                }
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{address} does not hear {body:?}"));
        assert_eq!(self.shown[body], 1, "{address} is shown {body:?} again");
    }

    async fn connections(&self) -> usize {
        self.peer.peers().await.iter().filter(|peer| peer.connected).count()
    }
}

/// All who are there, ours and others'.
struct Room {
    members: Vec<Member>,
    gophers: Vec<Gopher>,
    said: usize,
}

impl Room {
    async fn new(members: usize, gophers: usize) -> Room {
        let mut room = Room { members: Vec::new(), gophers: Vec::new(), said: 0 };
        for number in 0..members {
            room.join(options().listen).await;
            // Among those who know all, and among those who route.
            if number % (members / gophers.max(1)) == 1 && room.gophers.len() < gophers {
                let gopher = Gopher::start().await;
                gopher.join(room.contact().unwrap(), &format!("here is {}", gopher.address));
                room.gophers.push(gopher);
            }
        }
        room
    }

    fn contact(&self) -> Option<SocketAddr> {
        self.members.first().map(|first| first.peer.address())
    }

    async fn join(&mut self, listen: SocketAddr) {
        let member = Member::start(listen, self.contact(), None).await;
        member.speaks(self.contact()).await;
        self.members.push(member);
    }

    /// One more comes and says nothing itself, until it is known.
    async fn is_joined_in_silence(&mut self) {
        let mut silent =
            Member::start(options().listen, self.contact(), Some(Duration::from_millis(50))).await;
        let contact = &mut self.members[0];
        contact.hears(GREETING).await;
        contact.peer.say("welcome").await.unwrap();
        silent.hears("welcome").await;
        self.members.push(silent);
    }

    /// One of all says something, and all others are shown it, once.
    async fn one_says(&mut self) {
        self.said += 1;
        let body = format!("message {}", self.said);
        let speaker = self.said % (self.members.len() + self.gophers.len());
        match self.members.get(speaker) {
            Some(member) => drop(member.peer.say(&body).await.unwrap()),
            None => self.gophers[speaker - self.members.len()].say(&body),
        }
        for (number, member) in self.members.iter_mut().enumerate() {
            if number != speaker {
                member.hears(&body).await;
            }
        }
        for (number, gopher) in self.gophers.iter_mut().enumerate() {
            if self.members.len() + number != speaker {
                while gopher.next_shown().await != body {}
            }
        }
    }

    async fn all_say_something(&mut self) {
        for _ in 0..self.members.len() + self.gophers.len() {
            self.one_says().await;
        }
    }

    /// They talk until nobody dials more than so many, which takes a while.
    async fn talks_until_connections_are_few(&mut self) {
        let begin = Instant::now();
        loop {
            self.one_says().await;
            let mut connections = Vec::new();
            for member in &self.members {
                connections.push(member.connections().await);
            }
            if connections.iter().all(|connections| *connections <= CONNECTIONS_MAX) {
                eprintln!("{:?} {connections:?}", begin.elapsed());
                return;
            }
            assert!(begin.elapsed() < SOON, "{connections:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_four_peers_hear_one_another_over_a_few_connections_each() {
    let mut room = Room::new(24, 0).await;
    room.all_say_something().await;
    room.talks_until_connections_are_few().await;
    room.all_say_something().await;
    room.is_joined_in_silence().await;

    // Four are gone at once, and the others have yet to see that.
    let gone: Vec<SocketAddr> = room.members.drain(8..12).map(|member| member.peer.address()).collect();
    room.all_say_something().await;
    for address in gone {
        room.join(address).await;
    }
    room.all_say_something().await;
    room.talks_until_connections_are_few().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_peers_among_twenty_that_route_hear_all_and_are_heard() {
    let mut room = Room::new(20, 3).await;
    room.all_say_something().await;
    room.all_say_something().await;
    assert!(room.gophers.iter().all(Gopher::is_alive));
}
