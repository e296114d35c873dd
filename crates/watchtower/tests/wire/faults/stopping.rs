//! The end of a server under load: what was acknowledged is delivered, and all are told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::process::Signal;

use super::super::support::packets::*;
use super::super::support::{PATIENCE, Server, Tcp, eventually};

const PUBLISHERS: u32 = 3;
const SUBSCRIBERS: usize = 20;

/// How many messages of each publisher are acknowledged before the server is told to end.
const BEFORE: u32 = 100;

/// The last of these is published by HTTP, the others by packets, one for each publisher.
fn channels() -> impl Iterator<Item = u32> {
    10..=10 + PUBLISHERS
}

#[test]
fn what_was_acknowledged_under_load_is_delivered_and_everyone_is_told_of_the_end() {
    let server = Server::start(&[]);
    let subscribers: Vec<Tcp> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut subscriber = server.connect();
            let id = subscriber.register();
            channels().for_each(|channel| subscriber.ask(join(id, channel), ack(channel)));
            subscriber
        })
        .collect();
    let readers: Vec<_> =
        subscribers.into_iter().map(|mut one| thread::spawn(move || one.read_to_end())).collect();
    let acknowledged: Vec<Arc<AtomicU32>> = channels().map(|_| Arc::default()).collect();
    let publishers: Vec<_> = channels()
        .zip(acknowledged.clone())
        .map(|(channel, acknowledged)| {
            let (client, address) = (server.connect(), server.tcp);
            thread::spawn(move || match channel - 10 {
                PUBLISHERS => by_http(address, client, channel, &acknowledged),
                _ => by_packets(client, channel, &acknowledged),
            })
        })
        .collect();
    eventually("all publish", || acknowledged.iter().all(|count| count.load(Ordering::Relaxed) >= BEFORE));
    server.signal(Signal::TERM);
    let ended = server.ended();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{:?}", ended.log);
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    for reader in readers {
        let heard = heard(&reader.join().unwrap());
        for (channel, acknowledged) in channels().zip(&acknowledged) {
            let count = heard.iter().filter(|heard| **heard == channel).count();
            let acknowledged = acknowledged.load(Ordering::Relaxed) as usize;
            assert!(count >= acknowledged, "{count} of {acknowledged} messages of channel {channel}");
        }
    }
}

/// Publishes one message after the other, each once it has the last one back, until it is told of
/// the end.
fn by_packets(mut client: Tcp, channel: u32, acknowledged: &AtomicU32) {
    let id = client.enter(channel);
    let last = error(8, SHUTDOWN);
    for number in 0.. {
        let text = format!("{number:06}");
        let echo = said(id, channel, &text);
        // What cannot be sent any more is answered by the last word.
        let _ = client.try_send(&say(id, channel, &text), PATIENCE);
        let first = client.try_read(1).expect("nobody is cut off without a word");
        if first == b"E" {
            // What came too late to be published is refused in the same words.
            let came = [first, client.read_to_end()].concat();
            assert!(came == last || came == last.repeat(2), "{}", came.escape_ascii());
            return;
        }
        client.expect(&echo[1..]);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// The same by requests, until one is not answered.
fn by_http(server: SocketAddr, mut client: Tcp, channel: u32, acknowledged: &AtomicU32) {
    let id = client.enter(channel);
    for number in 0.. {
        let Ok(mut stream) = TcpStream::connect(server) else { return };
        let body = format!(r#"{{"channels":[{channel}],"sender":{id},"message":"{number:06}"}}"#);
        let head = "POST /broadcast HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length:";
        let mut answer = String::new();
        let asked = write!(stream, "{head} {}\r\n\r\n{body}", body.len());
        let answered = asked.and_then(|()| stream.read_to_string(&mut answer));
        if answered.is_err() || !answer.starts_with("HTTP/1.1 200 ") {
            assert!(answer.is_empty() || answer.contains(r#""error":"draining""#), "{answer}");
            break;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    assert!(client.read_to_end().ends_with(&error(8, SHUTDOWN)));
}

/// The channels of the messages in what a subscriber read, which ends with the word of the end.
/// Each channel's messages are numbered, and none is missing or comes twice.
fn heard(bytes: &[u8]) -> Vec<u32> {
    let mut rest = bytes.strip_suffix(&error(8, SHUTDOWN)[..]).expect("everybody is told of the end");
    let (mut heard, mut next) = (Vec::new(), vec![0; channels().count()]);
    while let [b'M', header @ ..] = rest {
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (channel, length) = (number(4), number(10) as usize);
        let content = std::str::from_utf8(&header[14..14 + length]).unwrap();
        let expected = &mut next[(channel - 10) as usize];
        assert_eq!(content.parse(), Ok(*expected), "channel {channel}");
        *expected += 1;
        heard.push(channel);
        rest = &rest[15 + length..];
    }
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
    heard
}
