//! What comes in on the connections that others opened: objects, and what a node
//! makes of them.

use std::net::IpAddr;

use bytes::Bytes;
use watchtower_hub::Timestamp;

use super::{Incoming, Node};
use crate::whispernet::Malformed;
use crate::whispernet::address::parse_addr;
use crate::whispernet::events::{Action, CloseReason, ConnectionId, Notice, Shown};
use crate::whispernet::file::File;
use crate::whispernet::id::{IdKind, check_id};
use crate::whispernet::identity::{Mark, PublicKey, Signed, check_signature};
use crate::whispernet::message::Message;
use crate::whispernet::part::Part;

/// What a message carries, and who it is from.
struct Judged {
    file: Option<File>,
    part: Option<Part>,
    /// Whose signature covers the message.
    key: Option<PublicKey>,
    mark: Mark,
}
impl Node {
    /// Bytes came on a connection that others opened, or on one that the node
    /// opened: what comes back there is nobody's, and not looked at.
    pub fn received(&mut self, connection: ConnectionId, mut input: &[u8], now: Timestamp) {
        let Some(incoming) = self.incoming.get_mut(&connection) else { return };
        let ip = incoming.remote.ip();
        if !self.flood.allows(ip, 0, input.len(), now) {
            return self.refuse(ip, now);
        }
        while let Some(incoming) = self.incoming.get_mut(&connection) {
            let before = incoming.reader.unfinished_bytes();
            let read = incoming.reader.read(&mut input);
            self.unfinished_bytes += incoming.reader.unfinished_bytes();
            self.unfinished_bytes -= before;
            match read {
                Ok(None) => break,
                Ok(Some(_)) if !self.flood.allows(ip, 1, 0, now) => self.refuse(ip, now),
                Ok(Some(object)) => {
                    let repeated = self.counts.repeated;
                    if let Err(malformed) = self.take(&object, connection, ip, now) {
                        self.disconnect_malformed(connection, malformed.into(), now);
                    }
                    if self.counts.repeated > repeated {
                        self.flood.was_repeat(ip, object.len());
                    }
                }
                Err(malformed) => self.disconnect_malformed(connection, malformed.into(), now),
            }
        }
        self.bound_unfinished(now);
        self.tick(now);
    }

    /// [whispernet: messages]
    fn disconnect_malformed(&mut self, connection: ConnectionId, reason: CloseReason, now: Timestamp) {
        self.counts.malformed += 1;
        self.close(connection, reason, now);
    }

    /// [whispernet: 12] All that the address has to do with the node ends.
    fn refuse(&mut self, ip: IpAddr, now: Timestamp) {
        let until = self.flood.refuse(ip, now);
        self.counts.flooded += 1;
        let incoming = self.incoming.iter().filter(|(_, incoming)| incoming.remote.ip() == ip);
        let outgoing = self.outgoing.iter().filter(|outgoing| outgoing.addr.ip() == ip);
        let connections: Vec<ConnectionId> = incoming
            .map(|(connection, _)| *connection)
            .chain(outgoing.map(|outgoing| outgoing.connection))
            .collect();
        for connection in connections {
            self.close(connection, CloseReason::Flooding(self.refused_for), now);
        }
        self.peers.postpone(ip, until);
        self.actions.push_back(Action::Tell(Notice::Refused { ip, until }));
        self.tick(now);
    }

    fn bound_unfinished(&mut self, now: Timestamp) {
        while self.unfinished_bytes > self.unfinished_bytes_max {
            let length = |(_, incoming): &(&ConnectionId, &Incoming)| incoming.reader.unfinished_bytes();
            let Some((connection, _)) = self.incoming.iter().max_by_key(length) else { break };
            self.close(*connection, CloseReason::Unfinished, now);
        }
    }

    /// One object from somebody at `source`.
    fn take(
        &mut self,
        object: &Bytes,
        connection: ConnectionId,
        source: IpAddr,
        now: Timestamp,
    ) -> Result<(), Malformed> {
        let Some(message) = Message::parse(object)? else {
            // [whispernet: messages] Not shown, and passed on to nobody:
            // deployed peers fail on these.
            self.take_control(object, connection, source, now);
            return Ok(());
        };
        if self.seen.contains(&*message.id) {
            self.counts.repeated += 1;
            self.repeated(connection, &message, source, now);
            return Ok(());
        }
        let Some(Judged { file, part, key, mark }) = self.judge(&message) else { return Ok(()) };
        // Not before it is judged: a forgery of a message must not keep the
        // message itself away.
        self.seen.insert(&*message.id, now);
        let origin = message.addr.as_deref().and_then(parse_addr);
        let audience = self.audience(origin, source);
        self.fan_out(&message.id, object, audience, Some(connection), now);
        if part.is_none() {
            // Parts are many, and of no use without those before them.
            self.backlog.push(object.clone(), message.file_contents.is_some(), audience, now);
        }
        self.counts.shown += 1;
        let shows_routing = message.routes;
        let shown = Shown {
            time: message.time().unwrap_or(now),
            file,
            part,
            key,
            mark,
            id: message.id.into_owned(),
            addr: message.addr.map(Into::into),
            nick: message.nick.map(Into::into),
            body: message.body.into_owned(),
        };
        self.actions.push_back(Action::Show(Box::new(shown)));
        if let Some(addr) = origin
            && self.routed_named(addr, shows_routing, connection, source, now)
        {
            self.named(addr, source, now);
        }
        Ok(())
    }

    /// What a message carries, and who it is from. `None` drops it.
    fn judge(&mut self, message: &Message<'_>) -> Option<Judged> {
        let kind = check_id(message);
        let part = Part::of(message);
        let (IdKind::Plain | IdKind::Hashed, Ok(part)) = (kind, part) else {
            self.counts.mismatched += 1;
            return None;
        };
        let file = File::of(message);
        let contents = file.as_ref().ok().and_then(|file| file.as_ref()).map(|file| &*file.contents);
        // What is no base64 is nothing that a signature could cover.
        let signed = if file.is_ok() { check_signature(message, contents) } else { Signed::No };
        let key = match signed {
            Signed::Forged => {
                self.counts.forged += 1;
                return None;
            }
            // A signature covers the words by their hash alone. Without it
            // anybody can put other words under a signed id.
            Signed::By(key) if kind == IdKind::Hashed => Some(key),
            Signed::By(_) | Signed::No if self.require_signed => {
                self.counts.unsigned += 1;
                return None;
            }
            Signed::By(_) | Signed::No => None,
        };
        let mark = key.map_or(Mark::Unverified, |key| self.mark(message.nick.as_deref(), key));
        Some(Judged { file: file.ok().flatten(), part, key, mark })
    }

    /// [whispernet: 13] A nick is its first key's.
    fn mark(&mut self, nick: Option<&str>, key: PublicKey) -> Mark {
        let Some(nick) = nick else { return Mark::Unverified };
        match self.pins.key(nick) {
            Some(first) if first == key => Mark::Verified,
            Some(_) => Mark::ChangedKey,
            None if self.pins.pin(nick, key) => {
                self.actions.push_back(Action::Tell(Notice::Pinned { nick: nick.to_owned(), key }));
                Mark::Verified
            }
            None => Mark::Unverified,
        }
    }
}
