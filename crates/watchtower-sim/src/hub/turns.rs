//! The server's turns, and what it said in them, held against the oracle.

use std::collections::VecDeque;

use bytes::Bytes;
use watchtower_hub::{Content, Drained, Publish, Refused};
use watchtower_protocols::packets::{PACKET_FORMAT, PacketPeer};
use watchtower_protocols::websocket::Compression;

use super::connection::{Event, Why};
use super::ears::{Item, listen};
use super::protocols::{Oracle, Party};
use super::script::{Fate, Protocol};
use super::words::{self, Request};
use super::world::{Link, Mark, PATIENCE, Peer, World};

/// How many messages a UDP peer gets before others get theirs.
const MESSAGES_PER_TURN: usize = 3;

impl World {
    /// A client's connection, or its address, has a turn at the server.
    pub(super) fn turn(&mut self, client: usize) -> Result<(), String> {
        if self.clients[client].protocol == Protocol::Udp {
            return self.deliver_to_peer(client);
        }
        let Some(link) = &mut self.clients[client].link else { return Ok(()) };
        self.drawn.take();
        let events = link.connection.turn(self.now);
        self.oracle.drawn = self.drawn.take();
        self.oracle.model.awaits_ledger = self.shelf.is_asked();
        for event in events {
            self.digest(client, &event).map_err(|error| self.blame(client, &error))?;
        }
        if let Some(link) = self.clients[client].link.take_if(|link| link.connection.is_over()) {
            self.drop_link(link);
        }
        Ok(())
    }

    /// A connection is over.
    pub(super) fn drop_link(&mut self, link: Link) {
        let Link { connection, party, .. } = link;
        drop(connection);
        let mut others = self.clients.iter().flat_map(|client| &client.link);
        let is_last = !others.any(|other| other.party.session == party.session);
        self.oracle.ended(party, is_last);
    }

    /// The server ends: what was published is heard, and everyone is told.
    pub(super) fn shut_down(&mut self) -> Result<(), String> {
        self.hub.close();
        let late = self.hub.publish(&1.into(), Publish::new(Content::text("late")), self.now);
        // A limit may refuse it before.
        if !matches!(late, Err(Refused::Closed | Refused::Limit { .. })) {
            return Err(format!("the server ends, and a message is answered {late:?}"));
        }
        for client in 0..self.clients.len() {
            if let Some(link) = &mut self.clients[client].link {
                let events = link.connection.shut_down(self.now);
                // Nobody is kept from leaving by a disk: it may go on where it was.
                self.oracle.model.awaits_ledger = self.shelf.is_asked();
                for event in events {
                    self.digest(client, &event).map_err(|error| self.blame(client, &error))?;
                }
            }
            self.say_farewell(client)?;
        }
        Ok(())
    }

    /// A UDP peer is sent the rest, and told of the end.
    fn say_farewell(&mut self, client: usize) -> Result<(), String> {
        let Some(mut peer) = self.clients[client].peer.take() else { return Ok(()) };
        let mut packets = Vec::new();
        let drained = peer.machine.session().drain_messages(None, |message| {
            packets.push(message.frame(&PACKET_FORMAT).clone());
            true
        });
        if drained != Drained::All {
            return Err(self.blame(client, &format!("at the end it hears {drained:?}")));
        }
        let mut farewell = Vec::new();
        peer.machine.shut_down(&mut farewell);
        packets.push(farewell.into());
        let mut items = self.said_to_peer(&packets)?;
        self.oracle.model.awaits_ledger = self.shelf.is_asked();
        let told = self.oracle.farewell(&mut peer.party, &mut items);
        told.map_err(|error| self.blame(client, &error))
    }

    pub(super) fn blame(&self, client: usize, error: &str) -> String {
        format!("client {client} ({:?}): {error}", self.clients[client].protocol)
    }

    fn digest(&mut self, client: usize, event: &Event) -> Result<(), String> {
        let (protocol, known) = (self.clients[client].protocol, self.oracle.known.len());
        let (Event::Took { out, .. } | Event::Gathered { out, .. } | Event::Said { out, .. }) = event;
        let Some(link) = &mut self.clients[client].link else { return Ok(()) };
        let mut items = listen(protocol, link.compression, out)?;
        if let Some(fault) = self.fault {
            fault.spoil(&mut items);
        }
        for (item, end) in &items {
            let mark = match item {
                Item::Ping => Mark::Ping,
                Item::Message(heard) => match (&heard.channel, heard.position) {
                    (Some(channel), Some(position)) if heard.has_id != Some(false) => {
                        Mark::Seen(channel.clone(), position)
                    }
                    _ => continue,
                },
                Item::Recovered { channel, position, .. } => {
                    Mark::Seen(channel.clone(), (position.epoch, position.offset))
                }
                Item::Subscribed { .. } | Item::Answer(_) | Item::Beat => continue,
            };
            link.marks.push_back((link.said + *end as u64, mark));
        }
        link.said += out.len() as u64;
        let mut items: VecDeque<Item> = items.into_iter().map(|(item, _)| item).collect();
        if matches!(event, Event::Took { .. } | Event::Said { why: Why::OutOfPatience, .. }) {
            link.party.seen = self.now;
        }
        match event {
            Event::Took { until, closes, .. } => took(&mut self.oracle, link, *until, *closes, &mut items)?,
            Event::Gathered { is_all, .. } => {
                self.oracle.messages(&link.party, &mut items)?;
                if *is_all {
                    self.oracle.model.heard_all(link.party.session)?;
                }
            }
            Event::Said { why, closes, .. } => said(&mut self.oracle, link, *why, *closes, &mut items)?,
        }
        if link.party.is_closing {
            self.oracle.closes(&mut link.party);
        }
        self.clients[client].ids.extend_from_slice(&self.oracle.known[known..]);
        match items.front() {
            None => Ok(()),
            Some(item) => Err(format!("it was told {item:?}, for which there is no reason")),
        }
    }

    // UDP.

    /// Something becomes of a datagram under way.
    pub(super) fn datagram(&mut self, client: usize, which: usize, fate: Fate) -> Result<(), String> {
        let datagrams = &mut self.clients[client].datagrams;
        if datagrams.is_empty() {
            return Ok(());
        }
        let at = which % datagrams.len();
        let (request, bytes) = match fate {
            Fate::ArrivesTwice => {
                let first = datagrams[at].clone();
                // A message that comes twice is two: they are told apart by a space.
                if let Request::Publish { content, .. } = &mut datagrams[at].0 {
                    *content = words::lengthened(content);
                    datagrams[at].1 = words::packet(&datagrams[at].0).unwrap_or_default();
                }
                first
            }
            Fate::Arrives | Fate::IsLost => datagrams.remove(at),
        };
        if fate == Fate::IsLost { Ok(()) } else { self.arrive(client, &request, &bytes) }
    }

    pub(super) fn deliver_datagrams(&mut self, client: usize) -> Result<(), String> {
        for (request, bytes) in std::mem::take(&mut self.clients[client].datagrams) {
            self.arrive(client, &request, &bytes)?;
        }
        Ok(())
    }

    /// A datagram arrives at the server.
    fn arrive(&mut self, client: usize, request: &Request, bytes: &[u8]) -> Result<(), String> {
        let (peer, now) = (self.clients[client].peer.take(), self.now);
        let is_new = peer.is_none();
        let mut peer = peer.unwrap_or_else(|| Peer {
            machine: PacketPeer::new(&self.hub, self.packets.clone()),
            party: Party::new(Protocol::Udp, self.oracle.model.open("udp", false), now),
            heard: now,
        });
        let mut answers: Vec<Bytes> = Vec::new();
        peer.machine.receive(bytes, now, |packet| answers.push(packet));
        self.oracle.model.awaits_ledger = self.shelf.is_asked();
        peer.heard = now;
        let result = self.heard_from(client, &mut peer, request, &answers);
        if !is_new || peer.machine.is_registered() {
            if is_new {
                self.waker(client).wake();
            }
            self.clients[client].peer = Some(peer);
        } else {
            drop(peer.machine);
            self.oracle.ended(peer.party, true);
        }
        result.map_err(|error| self.blame(client, &error))
    }

    fn heard_from(
        &mut self,
        client: usize,
        peer: &mut Peer,
        request: &Request,
        answers: &[Bytes],
    ) -> Result<(), String> {
        let known = self.oracle.known.len();
        let mut items = self.said_to_peer(answers)?;
        self.oracle.carry_out(&mut peer.party, request, &mut items)?;
        self.clients[client].ids.extend_from_slice(&self.oracle.known[known..]);
        match items.front() {
            None => Ok(()),
            Some(item) => {
                Err(self.blame(client, &format!("it was told {item:?}, for which there is no reason")))
            }
        }
    }

    fn said_to_peer(&self, packets: &[Bytes]) -> Result<VecDeque<Item>, String> {
        let mut items = listen(Protocol::Udp, Compression::None, &packets.concat())?;
        if let Some(fault) = self.fault {
            fault.spoil(&mut items);
        }
        Ok(items.into_iter().map(|(item, _)| item).collect())
    }

    /// A peer is sent what was published.
    fn deliver_to_peer(&mut self, client: usize) -> Result<(), String> {
        let waker = self.waker(client);
        let Some(peer) = &self.clients[client].peer else { return Ok(()) };
        let mut packets = Vec::new();
        let drained = peer.machine.session().drain_messages(Some(&waker), |message| {
            packets.push(message.frame(&PACKET_FORMAT).clone());
            packets.len() < MESSAGES_PER_TURN
        });
        if drained == Drained::More {
            waker.wake();
        }
        let mut items = self.said_to_peer(&packets)?;
        self.oracle.model.awaits_ledger = self.shelf.is_asked();
        let Some(peer) = &self.clients[client].peer else { return Ok(()) };
        let heard = self.oracle.messages(&peer.party, &mut items);
        let heard = heard.and_then(|_| match drained {
            Drained::All => self.oracle.model.heard_all(peer.party.session),
            Drained::More => Ok(()),
            Drained::Lagging => Err("it lags, and is to skip".into()),
        });
        heard.map_err(|error| self.blame(client, &error))
    }
}

/// A session took input.
fn took(
    oracle: &mut Oracle,
    link: &mut Link,
    until: u64,
    closes: bool,
    items: &mut VecDeque<Item>,
) -> Result<(), String> {
    while let Some((end, _)) = link.requests.front()
        && !link.party.is_closing
        && (*end <= until || closes)
    {
        let Some((_, request)) = link.requests.pop_front() else { break };
        oracle
            .carry_out(&mut link.party, &request, items)
            .map_err(|error| format!("{request:?}: {error}"))?;
    }
    match (closes, link.party.is_closing) {
        (true, false) => Err(format!("it is closed without a reason, and told {items:?}")),
        (false, true) => Err("it is not closed".into()),
        _ => Ok(()),
    }
}

/// A session said something by itself.
fn said(
    oracle: &mut Oracle,
    link: &mut Link,
    why: Why,
    closes: bool,
    items: &mut VecDeque<Item>,
) -> Result<(), String> {
    let silent = oracle.model.now.since(link.party.heard_at);
    let protocol = link.party.protocol;
    link.party.is_closing |= closes;
    match why {
        Why::Begins | Why::Beats => {
            items.retain(|item| !matches!(item, Item::Beat | Item::Recovered { .. }));
            return Ok(());
        }
        Why::Closed => {
            let is_killed = link.party.user.is_some_and(|id| !oracle.talk.users.contains_key(&id));
            if !is_killed {
                return Err("it is closed, and nobody asked for that".into());
            }
            oracle.all_messages(&link.party, items)?;
        }
        Why::Lags => {
            if !oracle.model.may_lag(link.party.session) {
                return Err("it is closed for being too far behind, which it is not".into());
            }
            oracle.model.counted.lagging += 1;
        }
        Why::OutOfPatience if closes && silent < PATIENCE => {
            return Err(format!("it is asked for more after {} ms", silent.as_millis()));
        }
        Why::OutOfPatience => {}
        Why::ShutsDown => return oracle.farewell(&mut link.party, items),
    }
    let is_right = |item: &Item| match (item, why, protocol) {
        (Item::Ping, Why::OutOfPatience, Protocol::WebRocket | Protocol::Browser) => true,
        (Item::Answer(words), ..) => {
            matches!(
                (why, protocol, words.as_str()),
                (Why::Closed, Protocol::Browser, "close 4002")
                    | (Why::Lags, Protocol::Packets, "E 8")
                    | (Why::Lags, Protocol::Lines | Protocol::Events, "error overloaded")
                    | (Why::Lags, Protocol::WebRocket | Protocol::Browser, "close 1008")
                    | (Why::OutOfPatience, Protocol::Packets, "E 5")
                    | (Why::OutOfPatience, Protocol::WebRocket | Protocol::Browser, "close 1008")
                    | (Why::OutOfPatience, Protocol::Application, "[error] waited too long for a frame")
            ) || why == Why::OutOfPatience
                && words == "close 4001"
                && protocol == Protocol::Browser
                && link.party.user.is_none()
        }
        _ => false,
    };
    items.retain(|item| !is_right(item));
    Ok(())
}
