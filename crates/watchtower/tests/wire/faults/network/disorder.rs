//! What makes a cable a bad one: each packet that leaves a machine is taken out of its way, and
//! sent again a while later, perhaps twice, perhaps behind those that came after it.
//!
//! Which packets are lost is not decided here: iptables does that where they arrive.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use nfq::{Queue, Verdict};
use socket2::{Domain, Protocol, Socket, Type};

use super::machines::Machine;

/// What goes out by the cable comes to this queue,
const QUEUE: u16 = 0;

/// unless it was there before.
const MARK: u32 = 1;

/// What befalls the packets of a protocol.
#[derive(Clone, Copy)]
pub(super) struct Trouble {
    /// How long one is under way at least, and so that it keeps its place among the others.
    pub(super) delay: Duration,
    /// How much longer it may be; each is delayed for a time of its own.
    pub(super) jitter: Duration,
    /// Of a hundred, so many arrive twice.
    pub(super) doubled_percent: u8,
}

/// The disorder on what leaves one machine, while this exists.
pub(super) struct Disorder {
    is_over: Arc<AtomicBool>,
    /// To the other machine.
    last_word: UdpSocket,
    threads: Vec<JoinHandle<()>>,
}

impl Disorder {
    /// Begins it, or says why it cannot be.
    pub(super) fn on(machine: &Machine, tcp: Trouble, udp: Trouble, seed: u64) -> Result<Disorder, String> {
        let opened = machine.run(|| {
            let last_word = UdpSocket::bind("0.0.0.0:0")?;
            last_word.connect((machine.other, 9))?;
            Ok::<_, io::Error>((open()?, last_word))
        });
        let ((queue, socket), last_word) = opened.map_err(|error| format!("no NFQUEUE: {error}"))?;
        machine.queue(&QUEUE.to_string(), &MARK.to_string())?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (packets, taken) = mpsc::channel();
        let taker = Taker { queue, packets, tcp, udp, rng: Rng::with_seed(seed), is_over: is_over.clone() };
        let threads = vec![thread::spawn(|| taker.take()), thread::spawn(move || send(&socket, &taken))];
        Ok(Disorder { is_over, last_word, threads })
    }
}

impl Drop for Disorder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // The taker waits for a packet.
        let _ = self.last_word.send(b"");
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn open() -> io::Result<(Queue, Socket)> {
    let mut queue = Queue::open()?;
    queue.bind(QUEUE)?;
    // IPPROTO_RAW: what is sent has its IP header.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    socket.set_mark(MARK)?;
    Ok((queue, socket))
}

/// A packet and when it is sent, and of several at that time the one that came first.
type Packet = Reverse<(Instant, usize, Vec<u8>)>;

struct Taker {
    queue: Queue,
    packets: Sender<Packet>,
    tcp: Trouble,
    udp: Trouble,
    rng: Rng,
    is_over: Arc<AtomicBool>,
}

impl Taker {
    fn take(mut self) {
        for number in 0.. {
            let mut packet = self.queue.recv().unwrap();
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let bytes = packet.get_payload().to_vec();
            let trouble = if bytes[9] == 17 { self.udp } else { self.tcp };
            let copies = 1 + u32::from(self.rng.u8(..100) < trouble.doubled_percent);
            for _ in 0..copies {
                let due = Instant::now() + trouble.delay + trouble.jitter.mul_f32(self.rng.f32());
                let _ = self.packets.send(Reverse((due, number, bytes.clone())));
            }
            packet.set_verdict(Verdict::Drop);
            self.queue.verdict(packet).unwrap();
        }
    }
}

/// Sends each when it is due, until nothing more is taken.
fn send(socket: &Socket, taken: &Receiver<Packet>) {
    let mut waiting = BinaryHeap::<Packet>::new();
    loop {
        let wait = waiting.peek().map_or(Duration::from_secs(1), |Reverse((due, ..))| {
            due.saturating_duration_since(Instant::now())
        });
        match taken.recv_timeout(wait) {
            Ok(packet) => waiting.push(packet),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(Reverse((due, ..))) = waiting.peek()
            && *due <= Instant::now()
            && let Some(Reverse((_, _, bytes))) = waiting.pop()
        {
            let to: [u8; 4] = bytes[16..20].try_into().unwrap();
            // A queue on the way may be full: then it is lost, as it would be elsewhere.
            let _ = socket.send_to(&bytes, &SocketAddrV4::new(to.into(), 0).into());
        }
    }
}
