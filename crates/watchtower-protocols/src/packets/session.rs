//! Packets to calls on the hub, and its answers to packets, on both
//! transports.
//!
//! [`PacketStream`] is a client on a TCP connection, [`PacketPeer`] one on UDP.
//! Neither knows its socket; what they share is [`Desk`], which carries out one
//! packet.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::{
    Batch, ChannelName, Content, Drained, Format, Hub, NotKept, Position, Publish, Published, Refused,
    SenderId, Session, Soon, Start, Timestamp, WhenLagging,
};

use super::format::PACKET_FORMAT;
use super::frame::{
    ClientPacket, Decoded, Limits, PacketError, begins_an_answer, encode_ack, encode_error,
    encode_incomplete, skip_padding,
};
use super::{ErrorCode, ErrorCounts, Transport};
use crate::stream::{ANSWERS_BYTES_MAX, Close, StreamSession};
use crate::unanswered::Unanswered;

/// How many bytes an acknowledgement has.
const ACK_BYTES: usize = 5;

/// How many bytes an error has before its text.
const ERROR_HEADER_BYTES: usize = 3;

/// How much a client is given at once ahead of an answer. What is delivered in
/// its turn is written from memory that all subscribers share; this is not.
const DELIVER_BYTES_MAX: usize = 4 << 20;

/// What a client is told last, on either transport.
const SHUTS_DOWN: &str = "the server shuts down";

/// Who may register.
pub trait Registrar: Send + Sync {
    /// Whether a client at `address` that shows `secret`, or none, may have a
    /// sender id ([running: secret_key, open_registration]). Takes the same
    /// time for every wrong secret. Each call counts for how often the address
    /// may ask, whatever comes of it.
    fn admit(&self, address: IpAddr, secret: Option<&[u8]>) -> Admission;
}

/// What becomes of a wish to be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is fulfilled.
    Granted,
    /// The secret is wrong, or missing.
    Refused,
    /// Too many came from the address: this one was not looked at.
    TooMany,
}

/// What the packet protocol is told by its surroundings.
#[derive(Clone)]
pub struct Options {
    /// Where the client is.
    pub address: IpAddr,
    /// Who may register.
    pub registrar: Arc<dyn Registrar>,
    /// How long a client may take to complete a packet that it has begun, and
    /// to begin at all ([running: header_timeout]).
    pub patience: Duration,
    /// Where it is counted what clients are refused.
    pub errors: Arc<ErrorCounts>,
}

/// Carries out packets for one session.
struct Desk {
    session: Session,
    /// What was published and may still be refused.
    unanswered: Unanswered<()>,
    transport: Transport,
    options: Options,
}

/// What a packet is answered with, besides what it makes the hub deliver.
type Answer = Result<Done, (ErrorCode, &'static str)>;

/// How a packet that was carried out is acknowledged.
enum Done {
    /// With nothing: a message that was published or is being kept.
    Silently,
    /// With this number.
    Number(u32),
    /// With the channel's number, and then with where it goes on, which is not
    /// where the client was.
    Elsewhere { channel: u32, after: u64 },
}

impl Desk {
    fn new(hub: &Hub, transport: Transport, when_lagging: WhenLagging, options: Options) -> Desk {
        let session = hub.open(transport.name(), when_lagging);
        Desk { session, unanswered: Unanswered::default(), transport, options }
    }

    fn limits(&self) -> Limits {
        let limit = self.session.hub().settings().limits.message_bytes_max;
        Limits { content_bytes_max: u32::try_from(limit).unwrap_or(u32::MAX) }
    }

    /// What acknowledges the packet, or the error.
    fn carry_out(&mut self, packet: &ClientPacket<'_>, now: Timestamp) -> Answer {
        match *packet {
            ClientPacket::KeepAlive => Ok(Done::Number(0)),
            ClientPacket::Register => self.register(None, now),
            ClientPacket::RegisterWithSecret(secret) => self.register(Some(secret), now),
            ClientPacket::Join { sender, channel } => {
                self.session.join(known(sender)?, &channel.into(), now).map_err(|r| code(&r))?;
                Ok(Done::Number(channel))
            }
            ClientPacket::Leave { sender, channel } => self.leave(known(sender)?, channel, now),
            ClientPacket::Message { sender, channel, content } => {
                self.publish(known(sender)?, channel, None, content, now)
            }
            ClientPacket::Direct { sender, channel, receivers, content } => {
                let receivers: Vec<u32> = receivers.collect();
                self.publish(known(sender)?, channel, Some(&receivers), content, now)
            }
            ClientPacket::Follow { sender, channel, offset } => {
                self.follow(known(sender)?, channel, offset, now)
            }
        }
    }

    /// Appends an error, which is counted.
    fn refuse(&self, code: ErrorCode, text: &str, out: &mut Vec<u8>) {
        self.options.errors.count(self.transport, code);
        encode_error(out, code, text);
    }

    fn write_answer(&self, answer: &Answer, out: &mut Vec<u8>) {
        match *answer {
            Ok(Done::Silently) => {}
            Ok(Done::Number(number)) => encode_ack(out, number),
            Ok(Done::Elsewhere { channel, after }) => {
                encode_ack(out, channel);
                self.options.errors.count(self.transport, ErrorCode::Incomplete);
                encode_incomplete(out, &channel.into(), after);
            }
            Err((code, text)) => self.refuse(code, text, out),
        }
    }

    fn follow(&self, sender: SenderId, channel: u32, offset: u64, now: Timestamp) -> Answer {
        let name = ChannelName::from(channel);
        // A packet has no room for an epoch: the log that there is, is meant.
        let epoch = self.session.hub().epoch(&name);
        let start = epoch.map_or(Start::End, |epoch| Start::After(Position { epoch, offset }));
        let joined = self.session.follow(sender, &name, start, now).map_err(|refused| code(&refused))?;
        // Where there is no log there is none in which the client was.
        let is_complete = joined.recovered && (epoch.is_some() || offset == 0);
        let after = joined.position.offset;
        Ok(if is_complete { Done::Number(channel) } else { Done::Elsewhere { channel, after } })
    }

    /// How long the answer is, without the error behind an acknowledgement: that goes to
    /// nobody but who has shown an id.
    fn answer_bytes(answer: &Answer) -> usize {
        match answer {
            Ok(Done::Silently) => 0,
            Ok(Done::Number(_) | Done::Elsewhere { .. }) => ACK_BYTES,
            Err((_, text)) => ERROR_HEADER_BYTES + text.len(),
        }
    }

    fn register(&self, secret: Option<&[u8]>, now: Timestamp) -> Answer {
        match self.options.registrar.admit(self.options.address, secret) {
            Admission::Granted => {}
            Admission::TooMany => {
                return Err((ErrorCode::Overloaded, "too many registrations: try again in a second"));
            }
            Admission::Refused if secret.is_some() => return Err((ErrorCode::Refused, "wrong secret")),
            Admission::Refused => {
                return Err((ErrorCode::Refused, "registration needs the secret: send S"));
            }
        }
        let sender = self.session.register(now).map_err(|refused| code(&refused))?;
        Ok(Done::Number(sender.get()))
    }

    fn leave(&self, sender: SenderId, channel: u32, now: Timestamp) -> Answer {
        let name = ChannelName::from(channel);
        let hub = self.session.hub();
        self.session.attach(sender, now).map_err(|refused| code(&refused))?;
        if !hub.has_joined(sender, &name) {
            return Err(code(&Refused::NotJoined { channel: name }));
        }
        hub.leave(sender, &name, now).map_err(|refused| code(&refused))?;
        Ok(Done::Number(channel))
    }

    fn publish(
        &mut self,
        sender: SenderId,
        channel: u32,
        receivers: Option<&[u32]>,
        content: &[u8],
        now: Timestamp,
    ) -> Answer {
        let content = Content::sniff(Bytes::copy_from_slice(content));
        let mut message = Publish::new(content).by(sender);
        if let Some(receivers) = receivers {
            message = message.to(receivers);
        }
        let attached = self.session.attach(sender, now);
        match attached.and_then(|()| self.session.publish(&channel.into(), message, now)) {
            // Nearly always. Nothing is said of it, so it waits for nothing.
            Ok(published) if published.is_known() => Ok(Done::Silently),
            published => self.answer_in_turn(published),
        }
    }

    #[cold]
    fn answer_in_turn(&mut self, published: Result<Published, Refused>) -> Answer {
        match self.unanswered.add(published, ()) {
            Some((Err(refused), ())) => Err(code(&refused)),
            Some((Ok(_), ())) | None => Ok(Done::Silently),
        }
    }

    /// Has `say` tell what was refused of what was published before, as far as
    /// that is known.
    fn answer(&mut self, waker: &Waker, mut say: impl FnMut(&Desk, (ErrorCode, &'static str))) {
        while let Some((result, ())) = self.unanswered.next(waker) {
            if let Err(refused) = result {
                say(self, code(&refused));
            }
        }
    }
}

/// Ids of 0 are nobody's ([model: terms]).
fn known(sender: u32) -> Result<SenderId, (ErrorCode, &'static str)> {
    SenderId::new(sender).ok_or((ErrorCode::UnknownSender, "unknown sender"))
}

/// [packets: error codes]
fn code(refused: &Refused) -> (ErrorCode, &'static str) {
    match refused {
        Refused::UnknownSender(_) => (ErrorCode::UnknownSender, "unknown sender"),
        Refused::BoundElsewhere(_) => (ErrorCode::UnknownSender, "this sender belongs to another connection"),
        Refused::NotJoined { .. } => (ErrorCode::NotJoined, "join the channel first"),
        Refused::NoSuchChannel { .. } => (ErrorCode::NotJoined, "no such channel"),
        Refused::TooLarge { .. } => (ErrorCode::TooLarge, "content above the limit"),
        Refused::BadContent { .. } => (ErrorCode::BadContent, "the channel does not accept this content"),
        Refused::ReceiverNotJoined { .. } => {
            (ErrorCode::ReceiverNotJoined, "no receiver, or one that has not joined")
        }
        Refused::ReservedEvent { .. } => (ErrorCode::Refused, "this event name is the server's"),
        Refused::Limit { .. } => (ErrorCode::Refused, "a limit of the server is reached"),
        Refused::NotKept { reason: NotKept::Failed(_), .. } => {
            (ErrorCode::Refused, "the channel is durable, and the disk refused the message")
        }
        Refused::NotKept { .. } => (ErrorCode::Overloaded, "the message was not kept: try again"),
        Refused::Closed => (ErrorCode::Overloaded, SHUTS_DOWN),
    }
}

fn is_registration(packet: &ClientPacket<'_>) -> bool {
    matches!(packet, ClientPacket::Register | ClientPacket::RegisterWithSecret(_))
}

/// Whether whoever sent the packet knows an id that he may use.
fn shows_id(packet: &ClientPacket<'_>, answer: &Answer) -> bool {
    use ClientPacket::{Direct, Follow, Join, Leave, Message};
    let names_id =
        matches!(packet, Join { .. } | Leave { .. } | Message { .. } | Direct { .. } | Follow { .. });
    names_id && !matches!(answer, Err((ErrorCode::UnknownSender, _)))
}

/// A client of the packet protocol on a TCP connection.
pub struct PacketStream {
    desk: Desk,
    /// Whether a packet waits until all that was published before it is
    /// answered, or a registration is.
    is_waiting: bool,
    /// A registration that is not answered before it is kept: a device has its
    /// id for years. Nothing is carried out meanwhile.
    registered: Option<(SenderId, Soon<(), NotKept>)>,
    /// Whether it has begun a packet, or has yet to send its first.
    owes: bool,
}

impl PacketStream {
    /// A client that has just connected.
    pub fn new(hub: &Hub, options: Options) -> PacketStream {
        let desk = Desk::new(hub, Transport::Tcp, WhenLagging::Close, options);
        PacketStream { desk, is_waiting: false, registered: None, owes: true }
    }

    /// Answers a registration that was waiting, if it is known what came of it;
    /// whether none waits.
    fn answer_registration(&mut self, waker: &Waker, now: Timestamp, out: &mut Vec<u8>) -> bool {
        let Some((sender, kept)) = &mut self.registered else { return true };
        let Poll::Ready(kept) = kept.poll_with(waker) else { return false };
        let answer = match kept {
            Ok(()) => Ok(Done::Number(sender.get())),
            Err(_) => {
                // Nobody will know the id.
                let _ = self.desk.session.hub().unregister(*sender, now);
                Err((ErrorCode::Overloaded, "the registration was not kept: try again"))
            }
        };
        self.registered = None;
        self.desk.write_answer(&answer, out);
        true
    }

    /// Appends what was published before now, ahead of an answer that must
    /// follow it ([packets: rules]), as far as it is not more than a client
    /// may have unread that is not lagging.
    fn deliver(&self, out: &mut Vec<u8>) -> Drained {
        let mut batch = Batch::default();
        let room = DELIVER_BYTES_MAX.saturating_sub(out.len());
        let drained = self.session().drain(self.format(), None, room, &mut batch);
        batch.frames.iter().for_each(|frame| out.extend_from_slice(frame));
        drained
    }

    /// Whether this has to wait for answers to what came before it. Messages
    /// need not: a client that sends many has them kept together.
    fn must_wait(&self, decoded: &Decoded<ClientPacket<'_>>) -> bool {
        let is_message = |packet: &ClientPacket<'_>| {
            matches!(packet, ClientPacket::Message { .. } | ClientPacket::Direct { .. })
        };
        let may_go_ahead = match decoded {
            Decoded::Packet { packet, .. } => is_message(packet) && !self.desk.unanswered.is_full(),
            Decoded::Idle { .. } | Decoded::Incomplete { .. } => true,
            Decoded::Bad(_) => false,
        };
        self.registered.is_some() || !may_go_ahead
    }

    /// Whether something is not answered yet.
    fn is_awaiting(&self) -> bool {
        self.registered.is_some() || !self.desk.unanswered.is_empty()
    }

    fn refuse(&self, error: PacketError, out: &mut Vec<u8>) -> Close {
        // What was published before is delivered before the error; who lags
        // too far for that gets the error alone.
        let _ = self.deliver(out);
        self.desk.refuse(error.code(), &error.to_string(), out);
        Close
    }
}

impl StreamSession for PacketStream {
    fn session(&self) -> &Session {
        &self.desk.session
    }

    fn format(&self) -> &dyn Format {
        &PACKET_FORMAT
    }

    fn receive(&mut self, input: &[u8], now: Timestamp, out: &mut Vec<u8>) -> Result<usize, Close> {
        let limits = self.desk.limits();
        let mut done = 0;
        while out.len() < ANSWERS_BYTES_MAX {
            let rest = input.get(done..).unwrap_or_default();
            let decoded = ClientPacket::decode(rest, limits);
            if self.is_awaiting() && self.must_wait(&decoded) {
                self.owes = false;
                self.is_waiting = true;
                return Ok(done);
            }
            match decoded {
                Decoded::Packet { packet, consumed } => {
                    done += consumed;
                    self.owes = false;
                    if let ClientPacket::Leave { sender, .. } = packet {
                        // What it missed comes here once the sender does; a
                        // refusal is answered below.
                        let _ = known(sender).map(|sender| self.session().attach(sender, now));
                        if self.deliver(out) != Drained::All {
                            self.lagging(out);
                            return Err(Close);
                        }
                    }
                    let answer = self.desk.carry_out(&packet, now);
                    if let (true, Ok(Done::Number(id))) = (is_registration(&packet), &answer) {
                        self.registered = SenderId::new(*id).map(|id| (id, self.session().hub().kept()));
                        if !self.answer_registration(Waker::noop(), now, out) {
                            self.is_waiting = true;
                            return Ok(done);
                        }
                    } else {
                        self.desk.write_answer(&answer, out);
                    }
                }
                Decoded::Idle { consumed } => return Ok(done + consumed),
                Decoded::Incomplete { .. } => {
                    self.owes = true;
                    // Padding before half a packet would be skipped again with
                    // each byte that follows.
                    return Ok(done + skip_padding(rest));
                }
                Decoded::Bad(error) => return Err(self.refuse(error, out)),
            }
        }
        Ok(done)
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    fn poll_answered(&mut self, cx: &mut Context<'_>, now: Timestamp, out: &mut Vec<u8>) -> Poll<()> {
        self.desk.answer(cx.waker(), |desk, (code, text)| desk.refuse(code, text, out));
        if !self.answer_registration(cx.waker(), now, out) || !self.desk.unanswered.is_empty() {
            return Poll::Pending;
        }
        self.is_waiting = false;
        Poll::Ready(())
    }

    fn patience(&self) -> Option<Duration> {
        self.owes.then_some(self.desk.options.patience)
    }

    fn out_of_patience(&mut self, _now: Timestamp, out: &mut Vec<u8>) -> Result<(), Close> {
        self.desk.refuse(ErrorCode::Refused, "nothing came, or half a packet, for too long", out);
        Err(Close)
    }

    fn lagging(&mut self, out: &mut Vec<u8>) {
        self.desk.refuse(ErrorCode::Overloaded, "too far behind: read faster, or join again", out);
    }

    fn shut_down(&mut self, out: &mut Vec<u8>) {
        let _ = self.deliver(out);
        self.desk.refuse(ErrorCode::Overloaded, SHUTS_DOWN, out);
    }
}

/// A client of the packet protocol at a UDP address.
pub struct PacketPeer {
    desk: Desk,
    /// Whether a packet from there named a registered id. A registration alone
    /// shows none: its answer may have gone to an address that was made up.
    pub(super) has_shown_id: bool,
}

impl PacketPeer {
    /// A peer that has just been heard of.
    pub fn new(hub: &Hub, options: Options) -> PacketPeer {
        PacketPeer { desk: Desk::new(hub, Transport::Udp, WhenLagging::Skip, options), has_shown_id: false }
    }

    /// The hub's side of this peer.
    pub fn session(&self) -> &Session {
        &self.desk.session
    }

    /// Whether the peer has shown a registered id. Who has not is owed nothing
    /// and need not be remembered.
    pub fn is_registered(&self) -> bool {
        self.has_shown_id && self.desk.session.owns_senders()
    }

    /// Whether something that the peer published may still be refused.
    pub fn has_unanswered(&self) -> bool {
        !self.desk.unanswered.is_empty()
    }

    /// Gives a packet to `send` for each message that the peer published before
    /// and that was refused since, as far as that is known; `waker` is woken when
    /// more is. In no order with other answers.
    pub fn answer(&mut self, waker: &Waker, mut send: impl FnMut(Bytes)) {
        self.desk.answer(waker, |desk, refused| {
            let mut packet = Vec::new();
            desk.write_answer(&Err(refused), &mut packet);
            send(packet.into());
        });
    }

    /// What a registered peer is told last: the server shuts down.
    pub fn shut_down(&self, out: &mut Vec<u8>) {
        self.desk.refuse(ErrorCode::Overloaded, SHUTS_DOWN, out);
    }

    /// Carries out a datagram and gives each packet that is to be sent for it,
    /// in order, to `send`: all of them together may be more than a datagram
    /// holds. They are the answers, and ahead of one to a leave the messages that
    /// must come before it, each of which may be more than a datagram holds too.
    ///
    /// To an address that has not shown a registered id the answers are never
    /// longer than the datagram, save one acknowledgement or error, and the error
    /// behind the acknowledgement of a follow, which shows one: nobody can use
    /// this server to multiply traffic towards an address that he made up
    /// ([packets: rules]). What only a server says is not answered to any address:
    /// whoever makes up the address of another server, or of this one, would have
    /// the two answer each other without end.
    pub fn receive(&mut self, datagram: &[u8], now: Timestamp, mut send: impl FnMut(Bytes)) {
        let limits = self.desk.limits();
        let bounded = !self.is_registered();
        let mut answered = 0;
        let mut packet_out = Vec::new();
        let has_room =
            |answered: usize, more: usize| !bounded || answered == 0 || answered + more <= datagram.len();
        let mut rest = datagram;
        while !rest.is_empty() {
            let result = match ClientPacket::decode(rest, limits) {
                Decoded::Packet { packet, consumed } => {
                    rest = rest.get(consumed..).unwrap_or_default();
                    // A registration that cannot be answered helps nobody.
                    if !has_room(answered, ACK_BYTES) {
                        return self.desk.options.errors.count_unanswered();
                    }
                    if let ClientPacket::Leave { sender, .. } = packet {
                        self.deliver_before_leaving(sender, now, &mut send);
                    }
                    let result = if self.desk.unanswered.is_full() {
                        Err((ErrorCode::Overloaded, "too many messages wait to be kept"))
                    } else {
                        self.desk.carry_out(&packet, now)
                    };
                    self.has_shown_id |= shows_id(&packet, &result);
                    result
                }
                Decoded::Idle { .. } => return,
                Decoded::Incomplete { .. } => {
                    rest = &[];
                    Err((ErrorCode::UnknownPacket, "the datagram ends within a packet"))
                }
                Decoded::Bad(PacketError::Unknown { byte, .. }) if begins_an_answer(byte) => {
                    return self.desk.options.errors.count_unanswered();
                }
                Decoded::Bad(error) => {
                    rest = &[];
                    let text = match error {
                        PacketError::Unknown { .. } | PacketError::UnknownKind { .. } => "unknown packet",
                        PacketError::TooLarge { .. } => "content above the limit",
                    };
                    Err((error.code(), text))
                }
            };
            let answer_bytes = Desk::answer_bytes(&result);
            if !has_room(answered, answer_bytes) {
                return self.desk.options.errors.count_unanswered();
            }
            packet_out.clear();
            self.desk.write_answer(&result, &mut packet_out);
            answered += packet_out.len();
            // A text that is too long was cut off.
            let (answer, behind) = packet_out.split_at(answer_bytes.min(packet_out.len()));
            for packet in [answer, behind].into_iter().filter(|packet| !packet.is_empty()) {
                send(Bytes::copy_from_slice(packet));
            }
        }
    }

    /// Sends all that was published before now: what is acknowledged next
    /// follows the last message ([packets: rules]). There is no more of it than
    /// a session may be behind.
    fn deliver_before_leaving(&self, sender: u32, now: Timestamp, send: &mut impl FnMut(Bytes)) {
        // What the sender missed comes here once it does. A refusal is answered
        // when the packet is carried out.
        let is_known = known(sender).is_ok_and(|sender| self.session().attach(sender, now).is_ok());
        if is_known {
            let _: Drained = self.session().drain_messages(None, |message| {
                let frame = message.frame(&PACKET_FORMAT);
                if !frame.is_empty() {
                    send(frame.clone());
                }
                true
            });
        }
    }
}
