//! The node, and what it wants done.
//!
//! The node is behind one lock, which nobody holds while it waits: whoever has
//! news (a connection's bytes, the user's words, the time) tells the node and
//! carries out its actions at once. Writing and dialling are tasks of their own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};
use watchtower_hub::Timestamp;
use watchtower_protocols::whispernet::{
    Action, BacklogLimits, CloseReason, ConnectionId, FloodLimits, GREETING, Keep, Last, Node, Notice, Part,
    PublicKey, Said, Shown, Unsaid,
};

use crate::clock;
use crate::connections::{self, HangUp};
use crate::downloads::Downloads;
use crate::event::{Event, Events, Watchers, shown_bytes};
use crate::keys::Pins;
use crate::named::Named;
use crate::outbox::{Full, Outbox};
use crate::tls::Tls;
use crate::uploads::Uploads;

/// For how long what is said waits for a peer that takes little. After that the
/// peer is disconnected.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often users are told why connections are closed, at most: strangers make
/// as many of them as they like.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// The longest sleep: the clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// How long after a new pin all are saved.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// How long after a failure to save pins there is another attempt.
const SAVE_RETRY: Duration = Duration::from_secs(30);

/// How long the end waits for what was said to be written.
const LINGER: Duration = Duration::from_secs(1);

/// A running node. Its tasks share it, until it [ends](Driver::end).
pub(crate) struct Driver {
    state: Mutex<State>,
    /// Told of what others wait for: written objects, and connections that
    /// begin or end.
    progress: Arc<Notify>,
    /// The node's deadline has changed.
    rescheduled: Notify,
    /// There is a pin to be saved.
    pinned: Notify,
    tasks: Mutex<JoinSet<()>>,
    pub(crate) flood: FloodLimits,
    pub(crate) uploads: Uploads,
    pub(crate) tls: Option<Tls>,
}

/// What is behind the lock.
pub(crate) struct State {
    pub(crate) node: Node,
    pub(crate) nick: Option<String>,
    key: PublicKey,
    /// Those that the node has, and no others.
    connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) downloads: Downloads,
    /// The peers that the user named, by what the node knows them by.
    named: BTreeMap<SocketAddr, Named>,
    pins: Pins,
    watchers: Watchers,
    /// What was last said, by others and here.
    recent: Last<Arc<Shown>>,
    deadline: Option<Timestamp>,
    warned: Option<Timestamp>,
    /// Whether a peer that hung up had taken what was said last.
    is_taken: bool,
    is_ending: bool,
}

/// A connection that is open as long as this exists.
struct Connection {
    /// The other end.
    addr: SocketAddr,
    /// Where this peer dialled.
    outbox: Option<Arc<Outbox>>,
    _open: oneshot::Sender<Infallible>,
}

/// Completes when the connection is to be closed.
pub(crate) type Closed = oneshot::Receiver<Infallible>;

impl Driver {
    pub(crate) fn new(
        node: Node,
        pins: Pins,
        key: PublicKey,
        tls: Option<Tls>,
        limits: Limits,
        downloads: Downloads,
    ) -> Driver {
        let mut state = State {
            node,
            nick: None,
            key,
            connections: BTreeMap::new(),
            downloads,
            named: BTreeMap::new(),
            pins,
            watchers: Watchers::default(),
            recent: Last::new(limits.backlog),
            deadline: None,
            warned: None,
            is_taken: false,
            is_ending: false,
        };
        for (nick, key) in state.pins.iter() {
            state.node.pin(nick, key);
        }
        Driver {
            state: Mutex::new(state),
            progress: Arc::default(),
            rescheduled: Notify::new(),
            pinned: Notify::new(),
            tasks: Mutex::default(),
            flood: limits.flood,
            uploads: Uploads::new(limits.flood),
            tls,
        }
    }

    /// Tells the node something, and does what it wants done.
    pub(crate) fn update<R>(self: &Arc<Self>, tell: impl FnOnce(&mut State, Timestamp) -> R) -> R {
        let mut state = self.state.lock();
        let now = clock::now();
        let result = tell(&mut state, now);
        while let Some(action) = state.node.next_action() {
            self.carry_out(&mut state, action, now);
        }
        let deadline = state.node.deadline().into_iter().chain(state.downloads.deadline()).min();
        if state.deadline != deadline {
            state.deadline = deadline;
            self.rescheduled.notify_one();
        }
        result
    }

    /// Looks at what there is.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock())
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, action: Action, now: Timestamp) {
        match action {
            Action::Dial(addr) => self.spawn(state, connections::dial(self.clone(), addr)),
            Action::Send { connection, object } => {
                let outbox = state.connections.get(&connection).and_then(|open| open.outbox.as_ref());
                match outbox.map_or(Ok(()), |outbox| outbox.push(object)) {
                    Ok(()) => {}
                    Err(Full::Slow) => state.node.too_slow(connection, now),
                    Err(Full::Paced) => state.node.unsent(),
                }
            }
            Action::Close { connection, reason } => {
                let closed = state.connections.remove(&connection);
                self.progress.notify_waiters();
                if let Some(closed) = closed
                    && is_news(reason)
                {
                    state.warn_of_closing(closed.addr, &reason.to_string(), now);
                }
            }
            Action::Show(shown) => {
                if let Some(part) = &shown.part {
                    return self.take_part(state, &shown, part, now);
                }
                self.take_file(state, &shown);
                let shown = Arc::new(*shown);
                state.keep(&shown);
                state.watchers.tell(&Event::Shown(shown));
            }
            // A greeting is neither empty nor long.
            Action::Greet => drop(state.greet(now)),
            Action::Tell(notice) => {
                state.heed(&notice);
                if let Notice::Pinned { .. } = notice {
                    self.pinned.notify_one();
                }
                self.progress.notify_waiters();
                state.watchers.tell(&Event::Notice(notice));
            }
        }
    }

    /// Starts a task that ends with the peer.
    pub(crate) fn spawn(&self, state: &State, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        if !state.is_ending {
            tasks.spawn(task);
        }
    }

    /// An outbox for a peer.
    pub(crate) fn outbox(&self) -> Arc<Outbox> {
        Arc::new(Outbox::new(self.progress.clone()))
    }

    /// A connection ended by itself.
    pub(crate) fn closed(self: &Arc<Self>, connection: ConnectionId) {
        self.update(|state, now| {
            state.connections.remove(&connection);
            state.node.closed(connection, now);
        });
        self.progress.notify_waiters();
    }

    /// The other side ended a connection that was dialled.
    pub(crate) fn hung_up(self: &Arc<Self>, connection: ConnectionId, addr: SocketAddr, hang_up: &HangUp) {
        self.update(|state, _| state.hung_up(connection, addr, hang_up));
        self.closed(connection);
    }

    /// A connection from another peer comes to nothing.
    pub(crate) fn refused(&self, connection: ConnectionId, reason: &str) {
        self.look(|state| {
            if let Some(addr) = state.connections.get(&connection).map(|open| open.addr) {
                state.warn_of_closing(addr, reason, clock::now());
            }
        });
    }

    /// Keeps the node's time.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let deadline = self.look(|state| state.deadline);
            let wait = deadline.map_or(SLEEP_MAX, |deadline| deadline.since(clock::now()));
            tokio::select! {
                () = sleep(wait.min(SLEEP_MAX)) => self.update(State::tick),
                () = self.rescheduled.notified() => {}
            }
        }
    }

    /// Saves pins, several at a time.
    pub(crate) async fn keep_pins(self: Arc<Self>) {
        let mut is_told = false;
        loop {
            self.pinned.notified().await;
            sleep(SAVE_PAUSE).await;
            while let Err(reason) = self.save_pins().await {
                if !mem::replace(&mut is_told, true) {
                    self.look(|state| state.warn(format!("which nick has which key is not kept: {reason}")));
                }
                sleep(SAVE_RETRY).await;
            }
            is_told = false;
        }
    }

    async fn save_pins(&self) -> Result<(), String> {
        let Some(unsaved) = self.look(|state| state.pins.unsaved()) else { return Ok(()) };
        let saved = spawn_blocking(move || unsaved.save()).await;
        let result = saved.unwrap_or_else(|error| Err(error.to_string()));
        if result.is_err() {
            self.look(|state| state.pins.not_saved());
        }
        result
    }

    /// Says something, once no peer is far behind.
    pub(crate) async fn say(self: &Arc<Self>, said: Said<'_>) -> Result<String, Unsaid> {
        self.make_room().await;
        self.update(|state, now| state.say(said, now))
    }

    /// Waits until no peer is far behind. A peer that stays so is disconnected.
    async fn make_room(self: &Arc<Self>) {
        let in_time = Instant::now() + PATIENCE;
        let nobody_is_behind = |state: &mut State| state.behind().next().is_none();
        if !self.wait_until(in_time, nobody_is_behind).await {
            self.disconnect_slow(|state| state.behind().collect());
        }
    }

    /// Disconnects those of the peers that take too little.
    fn disconnect_slow(self: &Arc<Self>, peers: impl FnOnce(&State) -> Vec<(ConnectionId, Full)>) {
        self.update(|state, now| {
            for (connection, _) in peers(state).into_iter().filter(|(_, why)| *why == Full::Slow) {
                state.node.too_slow(connection, now);
            }
        });
    }

    /// Waits until all is written and somebody is there to have got it, or was.
    pub(crate) async fn flush(&self, within: Duration) -> bool {
        let is_written = |state: &mut State| {
            self.uploads.are_over()
                && (state.is_taken || state.outboxes().next().is_some())
                && state.outboxes().all(|outbox| outbox.is_empty())
        };
        self.wait_until(Instant::now() + within, is_written).await
    }

    /// Waits until there are peers and all have taken nearly all. False when
    /// there are none; a peer that takes too little is disconnected.
    pub(crate) async fn wait_for_room(self: &Arc<Self>, patience: Duration) -> bool {
        let has_room = |state: &mut State| state.outboxes().next().is_some() && state.busy().next().is_none();
        let has_room = self.wait_until(Instant::now() + patience, has_room).await;
        if !has_room {
            self.disconnect_slow(|state| state.busy().collect());
        }
        self.look(|state| state.outboxes().next().is_some())
    }

    /// Something happened that others may wait for.
    pub(crate) fn progressed(&self) {
        self.progress.notify_waiters();
    }

    /// Whether `holds` did before `deadline`.
    async fn wait_until(&self, deadline: Instant, mut holds: impl FnMut(&mut State) -> bool) -> bool {
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            progress.as_mut().enable();
            if self.look(&mut holds) {
                return true;
            }
            if timeout_at(deadline, progress).await.is_err() {
                return false;
            }
        }
    }

    /// Ends every connection, after what was said is taken or a while has
    /// passed. Whether a peer has it, as far as is known.
    pub(crate) async fn shut_down(&self) -> bool {
        self.look(|state| {
            state.is_ending = true;
            state.connections.retain(|_, open| open.outbox.is_some());
            state.outboxes().for_each(|outbox| outbox.finish());
        });
        self.wait_until(Instant::now() + LINGER, |state| state.connections.is_empty()).await;
        // Who has not hung up by now has nothing against what was written.
        let is_taken =
            self.look(|state| state.is_taken || state.outboxes().any(|outbox| outbox.is_delivered()));
        if let Err(reason) = self.save_pins().await {
            self.look(|state| state.warn(format!("which nick has which key is not kept: {reason}")));
        }
        self.end();
        // What they hold is free when this is done: the port, say.
        let mut tasks = mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        is_taken
    }

    /// Ends at once.
    pub(crate) fn end(&self) {
        self.look(|state| {
            state.is_ending = true;
            state.connections.clear();
            state.downloads.end();
            state.watchers.end();
        });
        self.tasks.lock().abort_all();
    }
}

/// What the driver bounds itself.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) backlog: BacklogLimits,
    pub(crate) flood: FloodLimits,
}

impl State {
    /// A connection that is open from now on; what completes when it is to be
    /// closed. `None` when all ends.
    pub(crate) fn open(
        &mut self,
        connection: ConnectionId,
        addr: SocketAddr,
        outbox: Option<Arc<Outbox>>,
    ) -> Option<Closed> {
        if self.is_ending {
            return None;
        }
        let (open, closed) = oneshot::channel();
        self.connections.insert(connection, Connection { addr, outbox, _open: open });
        Some(closed)
    }

    fn tick(&mut self, now: Timestamp) {
        self.node.tick(now);
        for failed in self.downloads.expire(now) {
            self.tell(&failed);
        }
    }

    /// Tells all who watch.
    pub(crate) fn tell(&mut self, event: &Event) {
        self.watchers.tell(event);
    }

    /// The node knows the peer of that name by this address.
    pub(crate) fn introduced(&mut self, addr: SocketAddr, name: String) {
        self.named.insert(addr, Named::new(name));
    }

    /// The name of a peer, if the user gave it one.
    pub(crate) fn name(&self, addr: SocketAddr) -> Option<String> {
        self.named.get(&addr).map(|named| named.name.clone())
    }

    /// A peer of a name was found at another address.
    pub(crate) fn moved(&mut self, from: SocketAddr, to: SocketAddr) {
        if let Some(named) = self.named.remove(&from) {
            self.node.moved(from, to);
            self.named.insert(to, named);
        }
    }

    /// The user wants a peer.
    pub(crate) fn connect(&mut self, addr: SocketAddr, now: Timestamp) -> bool {
        let is_another = self.node.connect(addr, Keep::WhileReachable, now);
        if is_another && !self.named.contains_key(&addr) {
            self.introduced(addr, addr.to_string());
        }
        is_another
    }

    /// The user wants a peer no more.
    pub(crate) fn disconnect(&mut self, addr: SocketAddr, now: Timestamp) -> bool {
        self.named.remove(&addr);
        self.node.disconnect(addr, now)
    }

    /// A peer could not be reached. Whoever named it is told so once.
    pub(crate) fn dial_failed(&mut self, addr: SocketAddr, error: &io::Error, now: Timestamp) {
        if let Some(named) = self.named.get_mut(&addr)
            && let Some(warning) = named.unreached(error)
        {
            self.warn(warning);
        }
        self.node.dial_failed(addr, now);
    }

    /// The other side ended a connection. What it has not taken waits yet, or
    /// was lost with it.
    fn hung_up(&mut self, connection: ConnectionId, addr: SocketAddr, hang_up: &HangUp) {
        let outbox = self.connections.get(&connection).and_then(|open| open.outbox.as_ref());
        self.is_taken |= hang_up.took_all && outbox.is_some_and(|outbox| outbox.is_delivered());
        if !self.is_ending
            && let Some(named) = self.named.get_mut(&addr)
            && let Some(warning) = named.hung_up(hang_up.lasted)
        {
            self.warn(warning);
        }
    }

    fn heed(&mut self, notice: &Notice) {
        match notice {
            Notice::Connected(addr) | Notice::Lost(addr) => {
                if let Some(named) = self.named.get_mut(addr) {
                    named.changed();
                }
            }
            Notice::Forgotten(addr) => drop(self.named.remove(addr)),
            Notice::Pinned { nick, key } => self.pins.add(nick, *key),
            Notice::Refused { .. } | Notice::Unreached(_) => {}
        }
    }

    fn outboxes(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        self.connections.values().filter_map(|open| open.outbox.as_ref())
    }

    /// The connections to peers that are far behind.
    fn behind(&self) -> impl Iterator<Item = (ConnectionId, Full)> {
        self.connections
            .iter()
            .filter_map(|(connection, open)| Some((*connection, open.outbox.as_ref()?.is_behind()?)))
    }

    /// The connections to peers that had better take what waits before there is
    /// more of a file.
    fn busy(&self) -> impl Iterator<Item = (ConnectionId, Full)> {
        self.connections
            .iter()
            .filter_map(|(connection, open)| Some((*connection, open.outbox.as_ref()?.is_busy()?)))
    }

    pub(crate) fn watch(&mut self) -> Events {
        self.watchers.watch()
    }

    pub(crate) fn warn(&mut self, warning: String) {
        self.watchers.tell(&Event::Warning(warning));
    }

    pub(crate) fn recent(&self) -> Vec<Arc<Shown>> {
        self.recent.iter().cloned().collect()
    }

    /// The user's nick is the user's key's, unless it was another's before.
    pub(crate) fn set_nick(&mut self, nick: Option<String>) {
        self.nick = nick.filter(|nick| !nick.is_empty());
        let Some(nick) = &self.nick else { return };
        match self.node.pinned(nick) {
            None => drop(self.node.pin(nick, self.key)),
            Some(key) if key == self.key => {}
            Some(_) => self.warn("the nick is another's, whose key it had first".to_owned()),
        }
    }

    fn keep(&mut self, shown: &Arc<Shown>) {
        self.recent.push(shown.clone(), shown_bytes(shown), shown.file.is_some());
    }

    fn greet(&mut self, now: Timestamp) -> Result<String, Unsaid> {
        let nick = self.nick.clone();
        self.say(Said { nick: nick.as_deref(), body: GREETING, file: None }, now)
    }

    fn say(&mut self, said: Said<'_>, now: Timestamp) -> Result<String, Unsaid> {
        let id = self.node.say(said, now)?;
        self.is_taken = false;
        let shown = Arc::new(self.node.shown(&id, said, now));
        self.keep(&shown);
        self.watchers.tell(&Event::Said(shown));
        Ok(id)
    }

    /// A part of a file, by that nick.
    pub(crate) fn say_part(
        &mut self,
        nick: Option<&str>,
        part: &Part,
        now: Timestamp,
    ) -> Result<String, Unsaid> {
        self.is_taken = false;
        self.node.say_part(nick, part, now)
    }

    /// Tells why a connection is closed, where a person would ask and not more
    /// often than one can read.
    fn warn_of_closing(&mut self, addr: SocketAddr, reason: &str, now: Timestamp) {
        let is_early =
            self.warned.is_some_and(|warned| now >= warned && now.since(warned) < WARNING_INTERVAL);
        if !is_early {
            self.warned = Some(now);
            self.warn(format!("{addr} was disconnected: {reason}"));
        }
    }
}

/// Whether a person would ask why a connection was closed.
fn is_news(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::Malformed(_) | CloseReason::Unfinished | CloseReason::TooSlow)
}
