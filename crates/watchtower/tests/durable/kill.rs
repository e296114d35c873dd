//! `kill -9` under load: nothing that was acknowledged is lost, there is no gap, and epochs and
//! offsets go on.
//!
//! `DURABLE_KILLS` says how often, `DURABLE_SEED` when: it is printed, and gives the same moments
//! again, counted in acknowledgements.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex};
use std::{env, io, thread};

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Http, Place, Rocket, http, place};
use crate::start;
use crate::support::packets::{ids, say};
use crate::support::{PATIENCE, Server, Tcp};

const PUBLISHERS: u64 = 64;
const CHANNELS: [u32; 4] = [1, 10, 11, 12];

/// What was acknowledged, by channel and content. Who was told no place has none.
type Acknowledged = BTreeMap<(u32, String), Option<Place>>;

/// What all publishers of a server share.
struct Load {
    server: std::net::SocketAddr,
    round: u64,
    count: Mutex<u64>,
    counted: Condvar,
    acknowledged: Mutex<Acknowledged>,
}

impl Load {
    fn note(&self, channel: u32, text: &str, place: Option<Place>) {
        let before = self.acknowledged.lock().unwrap().insert((channel, text.to_owned()), place);
        assert!(before.is_none(), "{text} was acknowledged twice");
        *self.count.lock().unwrap() += 1;
        self.counted.notify_one();
    }

    fn text(&self, publisher: u64, number: u64) -> String {
        format!("{}-{publisher}-{number}-{}", self.round, "x".repeat((number * 37 % 900) as usize))
    }

    /// Publishes until the server is gone.
    fn publish(&self, publisher: u64) {
        let channel = CHANNELS[(publisher % 4) as usize];
        let gone = match publisher % 8 {
            0..4 => self.publish_over_http(publisher, channel),
            4..6 => self.publish_over_packets(publisher),
            _ => self.publish_over_webrocket(publisher, channel),
        };
        let error = gone.expect_err("it goes on until the server is gone");
        let is_expected = |kind| {
            use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
            [BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof].contains(&kind)
        };
        assert!(is_expected(error.kind()), "{error}");
    }

    fn publish_over_http(&self, publisher: u64, channel: u32) -> io::Result<()> {
        let mut http = Http::connect(self.server)?;
        let sender = http.try_register()?;
        let join = json!({ "sender": sender, "channels": [channel] }).to_string();
        http.try_ask("POST", "/channels/join", &join)?;
        for number in 0.. {
            let text = self.text(publisher, number);
            let (status, answer) = http.try_broadcast(sender, &json!([channel]), &text)?;
            assert_eq!(status, 200, "{answer}");
            self.note(channel, &text, Some(place(&answer)));
        }
        Ok(())
    }

    /// With several under way at a time: a message that comes back is acknowledged.
    fn publish_over_packets(&self, publisher: u64) -> io::Result<()> {
        let mut tcp = Tcp::over(TcpStream::connect(self.server)?);
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        tcp.try_send(b"R", crate::support::PATIENCE).then_some(()).ok_or_else(gone)?;
        let id = tcp.try_read(5).ok_or_else(gone)?;
        let id = u32::from_le_bytes(id[1..].try_into().unwrap());
        // A channel of its own, where it hears nobody but itself.
        let own = 1_000 + publisher as u32;
        tcp.try_send(&ids(b'J', id, own), crate::support::PATIENCE).then_some(()).ok_or_else(gone)?;
        tcp.try_read(5).ok_or_else(gone)?;
        for round in 0.. {
            let texts: Vec<_> = (0..8).map(|at| self.text(publisher, round * 8 + at)).collect();
            let packets: Vec<_> = texts.iter().flat_map(|text| say(id, own, text)).collect();
            tcp.try_send(&packets, crate::support::PATIENCE).then_some(()).ok_or_else(gone)?;
            for text in &texts {
                let head = tcp.try_read(15).ok_or_else(gone)?;
                assert_eq!(head[0], b'M');
                let content = tcp.try_read(text.len()).ok_or_else(gone)?;
                assert_eq!(content, text.as_bytes());
                self.note(own, text, None);
            }
        }
        Ok(())
    }

    fn publish_over_webrocket(&self, publisher: u64, channel: u32) -> io::Result<()> {
        let mut rocket = Rocket::connect(self.server)?;
        let say = |text: &str| {
            json!({ "publish": { "event": "message", "channel": channel.to_string(), "data": text } })
                .to_string()
        };
        for round in 0.. {
            let texts: Vec<_> = (0..4).map(|at| self.text(publisher, round * 4 + at)).collect();
            for text in &texts {
                rocket.send(&say(text))?;
            }
            for text in &texts {
                match rocket.next()?.as_str() {
                    r#"{"ok": true}"# => self.note(channel, text, None),
                    // Nobody has made the channel yet.
                    r#"{"err": "invalid_channel"}"# if round < 50 => {}
                    other => panic!("{other}"),
                }
            }
        }
        Ok(())
    }
}

/// Kills a server after so many acknowledgements.
fn kill(server: Server, round: u64, after: u64, acknowledged: Acknowledged) -> Acknowledged {
    let load = Load {
        server: server.tcp,
        round,
        count: Mutex::new(0),
        counted: Condvar::new(),
        acknowledged: acknowledged.into(),
    };
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let load = &load;
            scope.spawn(move || load.publish(publisher));
        }
        let (count, waited) = load
            .counted
            .wait_timeout_while(load.count.lock().unwrap(), PATIENCE, |count| *count < after)
            .unwrap();
        drop(count);
        assert!(!waited.timed_out(), "nothing more is acknowledged");
        server.signal(Signal::KILL);
    });
    assert_eq!(server.ended().code, None, "it was killed");
    load.acknowledged.into_inner().unwrap()
}

/// Everything that was acknowledged is there, once, where it was said to be.
fn verify(server: &Server, acknowledged: &Acknowledged, epochs: &mut BTreeMap<u32, String>) {
    let mut http = http(server);
    let sender = http.try_register().unwrap();
    let mut by_channel: BTreeMap<u32, Vec<(&str, &Option<Place>)>> = BTreeMap::new();
    for ((channel, text), place) in acknowledged {
        by_channel.entry(*channel).or_default().push((text, place));
    }
    for (channel, expected) in by_channel {
        let (epoch, log) = http.log(sender, &channel.to_string());
        assert_eq!(*epochs.entry(channel).or_insert_with(|| epoch.clone()), epoch, "of channel {channel}");
        let offsets: Vec<_> = log.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (1..=log.len() as u64).collect::<Vec<_>>(), "channel {channel} has a gap");
        let mut kept: BTreeMap<&str, u64> = BTreeMap::new();
        for (offset, text) in &log {
            assert!(kept.insert(text, *offset).is_none(), "{text} is there twice");
        }
        for (text, place) in expected {
            let offset = *kept.get(text).unwrap_or_else(|| panic!("{text} of channel {channel} is lost"));
            if let Some(place) = place {
                assert_eq!(*place, Place { epoch: epoch.clone(), offset }, "{text}");
            }
        }
    }
}

fn variable(name: &str, usual: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (kills, mut random) = (variable("DURABLE_KILLS", 12), variable("DURABLE_SEED", 1));
    eprintln!("DURABLE_SEED={random} DURABLE_KILLS={kills}");
    let (mut acknowledged, mut epochs) = (Acknowledged::new(), BTreeMap::new());
    for round in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let server = start(folder.path());
        // Every other time it goes on at once, so that crashes pile up. What was verified often
        // need not be again, so that many rounds take no longer than as many first ones.
        if round % 2 == 1 {
            verify(&server, &acknowledged, &mut epochs);
        }
        acknowledged = kill(server, round, 1 + (random >> 33) % 400, acknowledged);
    }
    let server = start(folder.path());
    verify(&server, &acknowledged, &mut epochs);
    eprintln!("{} messages and more were acknowledged", acknowledged.len());
    server.stop();
}
