//! Who is delivered what, in which bytes and in which order [packets: rules].

use std::thread;

use rustix::process::Signal;

use super::support::packets::*;
use super::support::{Server, Tcp};

#[test]
fn text_json_and_binary_cross_between_tcp_and_udp_byte_for_byte() {
    // [model: projection]
    let server = Server::start(&[]);
    let (mut tcp, mut udp) = (server.connect(), server.peer());
    let (over_tcp, over_udp) = (tcp.enter(1), udp.enter(1));
    for content in ["caf\u{e9} \u{1f6a8}\r\n".as_bytes(), br#" {"a": [1, 2.50]}"#, b"\xff\0\x80M", b""] {
        tcp.send(say(over_tcp, 1, content));
        udp.expect(said(over_tcp, 1, content));
        tcp.expect(said(over_tcp, 1, content));
        udp.send(say(over_udp, 1, content));
        tcp.expect(said(over_udp, 1, content));
        udp.expect(said(over_udp, 1, content));
    }
    server.stop();
}

#[test]
fn a_direct_message_crosses_to_the_named_alone() {
    let server = Server::start(&[]);
    let (mut a, mut b, mut c) = (server.connect(), server.peer(), server.connect());
    let (id_a, id_b, id_c) = (a.enter(1), b.enter(1), c.enter(1));
    a.send(whisper(id_a, 1, &[id_b, id_b], "psst"));
    b.expect(whispered(id_a, 1, "psst"));
    b.send(whisper(id_b, 1, &[id_c, id_b], "too"));
    c.expect(whispered(id_b, 1, "too"));
    b.expect(whispered(id_b, 1, "too"));
    a.expect_nothing();
    b.expect_nothing();
    c.expect_nothing();
    a.ask(whisper(id_a, 1, &[id_b, 0], "x"), error(6, NO_RECEIVER));
    server.stop();
}

#[test]
fn packets_arrive_in_any_pieces() {
    let server = Server::start(&[]);
    let mut slow = server.connect();
    let id = slow.register();
    let packets = [join(id, 1), b"\r\n".to_vec(), say(id, 1, "helloworld"), b"\0K".to_vec()].concat();
    // Each byte is a segment of its own.
    packets.iter().for_each(|byte| slow.send([*byte]));
    let mut answers = slow.read(5 + 25 + 5);
    // The message may come behind the answer to the keep-alive.
    assert_eq!(answers.drain(..5).collect::<Vec<_>>(), ack(1));
    let (message, alive) = (said(id, 1, "helloworld"), ack(0));
    assert!(answers == [&message[..], &alive].concat() || answers == [&alive[..], &message].concat());

    let mut quick = server.connect();
    let id = quick.register();
    let mut many = join(id, 2);
    let mut expected = ack(2);
    for number in 0..5_000 {
        many.extend(say(id, 2, number.to_string()));
        expected.extend(said(id, 2, number.to_string()));
    }
    quick.ask(many, expected);
    server.stop();
}

#[test]
fn the_documented_echo_works_over_tcp_and_udp() {
    let server = Server::start(&[]);
    let mut tcp = server.connect();
    tcp.send(b"R\n");
    tcp.finish();
    let answer = tcp.read_to_end();
    assert!(answer.len() == 5 && answer[0] == b'A', "{answer:?}");
    let mut udp = server.peer();
    udp.send(b"R\n");
    let answer = udp.datagram();
    assert!(answer.len() == 5 && answer[0] == b'A', "{answer:?}");
    server.stop();
}

#[test]
fn who_finishes_sending_gets_what_was_published_until_then() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let id = client.register();
    let contents: Vec<String> = (0..300).map(|number| format!("{number:0200}")).collect();
    client.send(join(id, 1));
    client.send(contents.iter().flat_map(|content| say(id, 1, content)).collect::<Vec<_>>());
    client.finish();
    let echoes = contents.iter().flat_map(|content| said(id, 1, content));
    client.expect_last(ack(1).into_iter().chain(echoes).collect::<Vec<_>>());
    server.stop();
}

#[test]
fn who_finishes_sending_gets_all_of_it_however_slowly_it_reads() {
    let server = Server::start(&["--set", "limits.lag_bytes=100000000"]);
    let (mut publisher, mut slow) = (server.connect(), server.connect());
    let (id, _) = (publisher.enter(1), slow.enter(1));
    slow.read_through_a_straw();
    let text = vec![b'x'; 60_000];
    for _ in 0..200 {
        publisher.ask(say(id, 1, &text), said(id, 1, &text));
    }
    slow.finish();
    let heard = slow.read_to_end().len();
    assert_eq!(heard, 200 * said(id, 1, &text).len());
    server.stop();
}

#[test]
fn a_message_that_fits_no_datagram_goes_to_tcp_alone_and_is_counted() {
    let server = Server::start(&[]);
    let (mut tcp, mut udp) = (server.connect(), server.peer());
    let id = tcp.enter(1);
    udp.enter(1);
    // With 15 bytes before it, the first one is just as long as a datagram.
    let (fits, fits_not) = (vec![b'x'; 65_507 - 15], vec![b'y'; 65_507 - 14]);
    tcp.ask(say(id, 1, &fits), said(id, 1, &fits));
    assert_eq!(udp.datagram(), said(id, 1, &fits));
    tcp.ask(say(id, 1, &fits_not), said(id, 1, &fits_not));
    tcp.ask(say(id, 1, "next"), said(id, 1, "next"));
    assert_eq!(udp.datagram(), said(id, 1, "next"));
    assert_eq!(server.metric("udp_too_large_total"), 1);
    server.stop();
}

/// [packets: rules] "warn above 1,400"
#[test]
fn that_messages_are_long_for_datagrams_is_logged_once() {
    let server = Server::start(&[]);
    let (mut tcp, mut udp) = (server.connect(), server.peer());
    let id = tcp.enter(1);
    udp.enter(1);
    // With 15 bytes before it, the first one is not too long.
    for length in [1_400 - 15, 1_400 - 14, 1_400 - 14] {
        let content = vec![b'x'; length];
        tcp.ask(say(id, 1, &content), said(id, 1, &content));
        assert_eq!(udp.datagram(), said(id, 1, &content));
    }
    server.signal(Signal::TERM);
    let log = server.ended().log;
    assert_eq!(
        log.iter().filter(|line| line.contains("above 1400 bytes go out by UDP")).count(),
        1,
        "{log:?}"
    );
}

#[test]
fn a_datagram_of_several_packets_is_carried_out_up_to_a_partial_one() {
    let server = Server::start(&[]);
    let (mut tcp, mut udp) = (server.connect(), server.peer());
    tcp.enter(1);
    let id = udp.enter(1);
    udp.send([join(id, 2), say(id, 1, "1"), say(id, 1, "2"), b"J\x01".to_vec()].concat());
    udp.expect([ack(2), error(1, "the datagram ends within a packet")].concat());
    tcp.expect([said(id, 1, "1"), said(id, 1, "2")].concat());
    udp.expect([said(id, 1, "1"), said(id, 1, "2")].concat());
    udp.send(b"");
    udp.send(b"\0\r\n");
    udp.expect_nothing();
    server.stop();
}

#[test]
fn answers_that_fit_no_datagram_come_in_several() {
    let server = Server::start(&[]);
    let mut udp = server.peer();
    udp.enter(1);
    udp.ask(vec![b'K'; 14_000], ack(0).repeat(14_000));
    udp.expect_nothing();
    server.stop();
}

#[test]
fn every_subscriber_sees_one_order_while_several_publish_at_once() {
    // [model: delivery promises]
    const PUBLISHERS: usize = 3;
    const MESSAGES: usize = 1_500;
    let server = Server::start(&[]);
    let subscribers: Vec<Tcp> = (0..4).map(|_| server.connect()).collect();
    let mut subscribers: Vec<_> = subscribers.into_iter().map(|mut s| (s.enter(1), s)).collect();
    let publishers: Vec<_> = (0..PUBLISHERS).map(|_| server.connect()).map(|mut p| (p.enter(1), p)).collect();
    let publishers: Vec<_> = publishers
        .into_iter()
        .enumerate()
        .map(|(publisher, (id, mut client))| {
            thread::spawn(move || {
                // Its own echoes would be in the way of who does not read.
                let mut echoes = client.split();
                let length = said(id, 1, format!("{publisher} {:04}", 0)).len();
                let reader = thread::spawn(move || echoes.read(length * PUBLISHERS * MESSAGES));
                for number in 0..MESSAGES {
                    client.send(say(id, 1, format!("{publisher} {number:04}")));
                }
                reader.join().unwrap()
            })
        })
        .collect();
    let length = said(1, 1, "0 0000").len();
    let heard: Vec<Vec<u8>> =
        subscribers.iter_mut().map(|(_, s)| s.read(length * PUBLISHERS * MESSAGES)).collect();
    for publisher in publishers {
        assert!(publisher.join().unwrap() == heard[0], "a publisher hears the same");
    }
    assert!(heard.iter().all(|other| *other == heard[0]), "all hear the same");
    for publisher in 0..PUBLISHERS {
        let own = heard[0].chunks(length).map(|packet| String::from_utf8_lossy(&packet[15..]).into_owned());
        let own: Vec<String> = own.filter(|text| text.starts_with(&publisher.to_string())).collect();
        let promised: Vec<String> = (0..MESSAGES).map(|number| format!("{publisher} {number:04}")).collect();
        assert!(own == promised, "each of {publisher}'s messages once and in order");
    }
    server.stop();
}

#[test]
fn a_leave_ends_delivery_and_joining_again_starts_at_the_end() {
    let server = Server::start(&[]);
    let (mut a, mut b, mut c) = (server.connect(), server.connect(), server.peer());
    let (id_a, id_b, id_c) = (a.enter(1), b.enter(1), c.enter(1));
    a.ask(say(id_a, 1, "1"), said(id_a, 1, "1"));
    b.ask(leave(id_b, 1), [said(id_a, 1, "1"), ack(1)].concat());
    c.expect(said(id_a, 1, "1"));
    c.ask(leave(id_c, 1), ack(1));
    a.ask(say(id_a, 1, "2"), said(id_a, 1, "2"));
    b.ask(join(id_b, 1), ack(1));
    c.ask(join(id_c, 1), ack(1));
    b.ask(leave(id_b, 9), error(3, NOT_JOINED));
    b.expect_nothing();
    c.expect_nothing();
    server.stop();
}
