//! The private link: every row of the page, and every error.

use std::sync::atomic::Ordering;

use proptest::collection::vec;
use proptest::prelude::*;
use watchtower_hub::{
    Accepts, ChannelName, ChannelRule, Content, Limits, Publish, Session, Start, WhenLagging,
};

use super::super::LinkError;
use super::super::frame::{Decoded, decode};
use super::*;

/// An application that writes `input` reads `expected`, at a server with user 5
/// and channel 2; in one piece, and byte by byte. Whether it is closed then.
fn check(input: &str, expected: &str) -> bool {
    let ends = [App::writes, App::writes_slowly].map(|write| {
        let tower = Tower::new();
        let mut app = tower.app();
        assert_eq!(app.writes(b"00009[newuser]"), format!("00039[ok] 5!{SALT_5}").as_bytes());
        assert_eq!(app.writes(b"00012[newchannel]"), b"00006[ok] 2");
        let out = write(&mut app, input.as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{input}");
        app.is_closed
    });
    assert_eq!(ends[0], ends[1], "{input}");
    ends[0]
}

#[test]
fn every_command_is_answered_as_the_page_shows() {
    // [webtalk: private link]
    for (input, expected) in [
        ("00009[newuser]", "00039[ok] 7!000000000000000c000000000000000d"),
        ("00012[killuser] 5", "00016[ok] user killed"),
        ("00016[whisper] 5!hi!!", "00017[ok] message sent"),
        ("00012[newchannel]", "00006[ok] 3"),
        ("00015[killchannel] 2", "00019[ok] channel killed"),
        ("00014[shout] 2!hi!!", "00017[ok] message sent"),
        ("00010[join] 2!5", "00016[ok] user joined"),
        ("00011[leave] 2!5", "00016[ok] user leaved"),
        ("00014[store] k!v!w ", "00013[ok] stored k"),
        ("00014[store] k!v!w 00012[retrieve] k", "00013[ok] stored k00009[ok] v!w "),
        ("00014[store] k!v!w 00009[clear] k", "00013[ok] stored k00014[ok] cleared k"),
        ("00009[store] !", "00012[ok] stored "),
        ("00009[store] !00011[retrieve] ", "00012[ok] stored 00005[ok] "),
        ("00016[login] whatever", "00014[ok] logged in"),
    ] {
        assert!(!check(input, expected), "{input}");
    }
    assert!(check("00000", "00012[ok] goodbye"));
}

#[test]
fn every_mistake_is_answered_with_its_sentence() {
    // [webtalk: private link]
    for (command, error) in [
        ("newuser", LinkError::NoBrackets),
        ("[newuser", LinkError::NoBrackets),
        ("[nosuch] x", LinkError::UnknownCommand),
        ("[whisper] 5", LinkError::NoSeparator),
        ("[killuser] five", LinkError::BadId),
        ("[whisper] five!x", LinkError::BadId),
        ("[join] 2!five", LinkError::BadId),
        ("[join] two!5", LinkError::BadId),
        ("[killuser] 7", LinkError::UnknownUser),
        ("[killuser] 0", LinkError::UnknownUser),
        ("[killuser] 4294967301", LinkError::UnknownUser),
        ("[whisper] 7!x", LinkError::UnknownUser),
        ("[join] 2!7", LinkError::UnknownUser),
        ("[leave] 2!7", LinkError::UnknownUser),
        ("[killchannel] 3", LinkError::UnknownChannel),
        ("[killchannel] 4294967298", LinkError::UnknownChannel),
        ("[shout] 3!x", LinkError::UnknownChannel),
        ("[shout] 0!x", LinkError::UnknownChannel),
        ("[join] 3!5", LinkError::UnknownChannel),
        ("[leave] 3!5", LinkError::UnknownChannel),
        ("[retrieve] k", LinkError::UnknownKey),
        ("[killchannel] 1", LinkError::EndlessChannel),
    ] {
        let reply = framed(format!("[error] {}", error.sentence()));
        // The link goes on.
        let input = [framed(command), framed("[newchannel]")].concat();
        let expected = [reply, framed("[ok] 3")].concat();
        let as_text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(!check(&as_text(input), &as_text(expected)), "{command}");
    }
    assert!(check("hello", "00053[error] a frame begins with its length in five digits"));
    assert!(!check("00009[newuser", ""), "nothing is answered before the frame is there");
}

#[test]
fn what_changes_nothing_is_no_mistake() {
    let mut app = Tower::new().app();
    app.says("[newuser]");
    app.says("[newchannel]");
    for _ in 0..2 {
        assert_eq!(app.says("[join] 2!5"), "[ok] user joined");
        assert_eq!(app.says("[join] 1!5"), "[ok] user joined");
    }
    for _ in 0..2 {
        assert_eq!(app.says("[leave] 2!5"), "[ok] user leaved");
        assert_eq!(app.says("[clear] k"), "[ok] cleared k");
    }
}

#[test]
fn frames_that_come_together_are_answered_in_order_up_to_the_goodbye() {
    let mut app = Tower::new().app();
    let replies =
        app.writes(b"00012[newchannel]00012[newchannel]00008[x] 123400012[newchannel]0000000009[newuser]");
    assert_eq!(replies, b"00006[ok] 200006[ok] 300023[error] unknown command00006[ok] 400012[ok] goodbye");
    assert!(app.is_closed);
}

#[test]
fn the_lowest_number_that_was_never_given_out_is_given_out() {
    let mut app = Tower::new().app();
    assert_eq!(app.says("[newchannel]"), "[ok] 2");
    assert_eq!(app.says("[newchannel]"), "[ok] 3");
    assert_eq!(app.says("[killchannel] 2"), "[ok] channel killed");
    assert_eq!(app.says("[killchannel] 2"), "[error] unknown channel");
    assert_eq!(app.says("[newchannel]"), "[ok] 4");
}

#[test]
fn all_links_talk_to_the_same_users_and_values() {
    let tower = Tower::new();
    let (mut one, mut other) = (tower.app(), tower.app());
    one.says("[newuser]");
    assert_eq!(other.says("[whisper] 5!hello"), "[ok] message sent");
    other.says("[store] k!v");
    assert_eq!(one.says("[retrieve] k"), "[ok] v");
    drop(one);
    assert_eq!(other.says("[killuser] 5"), "[ok] user killed");
}

/// What a device of another protocol gets: channel, sender, content.
fn messages(session: &Session) -> Vec<(String, Option<u32>, Vec<u8>)> {
    let mut messages = Vec::new();
    let drained = session.drain_messages(None, |message| {
        let sender = message.sender().map(|sender| sender.get());
        messages.push((message.channel().to_string(), sender, message.content().bytes().to_vec()));
        true
    });
    assert_eq!(drained, Drained::All);
    messages
}

#[test]
fn a_shout_is_heard_by_other_protocols_and_comes_from_nobody() {
    // [webtalk: sender 0]
    let tower = Tower::new();
    let device = tower.hub.open("tcp", WhenLagging::Close);
    let id = device.register(NOW).unwrap();
    let mut app = tower.app();
    assert_eq!(app.says("[newchannel]"), "[ok] 2");
    device.join(id, &ChannelName::from(2), NOW).unwrap();
    app.says("[shout] 2!hi");
    assert_eq!(messages(&device), [("2".to_owned(), None, b"hi".to_vec())]);
    // Killed for WebTalk, it goes on for others.
    app.says("[killchannel] 2");
    assert_eq!(app.says("[shout] 2!hi"), "[error] unknown channel");
    assert!(tower.hub.has_joined(id, &ChannelName::from(2)));
}

#[test]
fn a_whisper_takes_no_offset_in_any_channel() {
    let tower = Tower::new();
    let mut app = tower.app();
    app.says("[newuser]");
    app.says("[whisper] 5!one");
    app.says("[whisper] 5!two");
    let observer = tower.hub.open("tcp", WhenLagging::Close);
    let id = observer.register(NOW).unwrap();
    let joined = observer.subscribe(id, &ChannelName::from(1), Start::End, NOW).unwrap();
    assert_eq!(joined.position.offset, 0);
    assert_eq!(tower.hub.channels(), [ChannelName::from(1)]);
}

#[test]
fn messages_and_values_are_at_most_as_long_as_any_message() {
    let limits = Limits { message_bytes_max: 10, ..Limits::default() };
    let mut app = Tower::limited(limits).app();
    app.says("[newuser]");
    for command in ["whisper] 5", "shout] 1", "store] k"] {
        assert!(app.says(format!("[{command}!0123456789")).starts_with("[ok] "), "{command}");
        assert_eq!(app.says(format!("[{command}!0123456789a")), "[error] too large", "{command}");
    }
    assert_eq!(app.says("[retrieve] k"), "[ok] 0123456789");
}

#[test]
fn a_limit_of_the_hub_is_a_limit_here() {
    let limits = Limits { senders_max: 2, channels_max: 3, channels_per_sender_max: 2, ..Limits::default() };
    let mut app = Tower::limited(limits).app();
    assert!(app.says("[newuser]").starts_with("[ok] 5!"));
    assert!(app.says("[newuser]").starts_with("[ok] 7!"));
    assert_eq!(app.says("[newuser]"), "[error] a limit of the server is reached");
    assert_eq!(app.says("[killuser] 7"), "[ok] user killed");
    assert!(app.says("[newuser]").starts_with("[ok] 8!"));
    assert_eq!((app.says("[newchannel]"), app.says("[newchannel]")), ("[ok] 2".into(), "[ok] 3".into()));
    assert_eq!(app.says("[newchannel]"), "[error] a limit of the server is reached");
    assert_eq!(app.says("[join] 2!5"), "[ok] user joined");
    assert_eq!(app.says("[join] 3!5"), "[error] a limit of the server is reached");
    app.says("[killchannel] 3");
    assert_eq!(app.says("[newchannel]"), "[ok] 4");
}

#[test]
fn a_user_that_cannot_be_put_into_channel_1_is_not_made() {
    let tower = Tower::limited(Limits { channels_max: 0, ..Limits::default() });
    assert_eq!(tower.app().says("[newuser]"), "[error] a limit of the server is reached");
    assert_eq!(tower.hub.counts().senders, 0);
}

#[test]
fn a_channel_of_another_format_refuses_what_it_is_not() {
    let rule = ChannelRule { accepts: Accepts::Json, ..ChannelRule::default() };
    let mut app = Tower::with(Settings { channels: vec![rule], ..Settings::default() }).app();
    assert_eq!(app.says("[shout] 1!{}"), "[ok] message sent");
    assert_eq!(app.says("[shout] 1!{"), "[error] the channel does not accept this message");
}

#[test]
fn a_reply_that_five_digits_cannot_hold_is_an_error() {
    let limits = Limits { message_bytes_max: 1 << 20, ..Limits::default() };
    let tower = Tower::limited(limits);
    let mut app = tower.app();
    let key = "k".repeat(99_986);
    assert_eq!(app.says(format!("[store] {key}!")), format!("[ok] stored {key}"));
    assert_eq!(app.writes(&framed(format!("[clear] {key}"))).len(), 100_004);
    for command in ["[store]", "[clear]"] {
        assert_eq!(app.says(format!("{command}{key}k!")), "[error] the key is too long");
    }
    // The longest value that a link can store, it can read.
    let value = "v".repeat(99_999 - "[store]!".len());
    assert_eq!(app.says(format!("[store]!{value}")), "[ok] stored ");
    assert_eq!(app.says("[retrieve]"), format!("[ok] {value}"));
    // A longer one comes from a program that embeds the server.
    tower.talk.store(b"long", &[b'v'; 99_995]).unwrap();
    assert_eq!(app.says("[retrieve] long"), "[error] too large");
}

#[test]
fn short_commands_for_long_values_wait_for_their_replies_to_be_taken() {
    let mut app = Tower::new().app();
    let value = "v".repeat(60_000);
    app.says(format!("[store] k!{value}"));
    let reply = framed(format!("[ok] {value}"));
    let commands = framed("[retrieve] k").repeat(100);
    let mut out = Vec::new();
    let done = app.link.receive(&commands, app.now, &mut out).unwrap();
    assert_eq!((done, out.len()), (2 * framed("[retrieve] k").len(), 2 * reply.len()));
    assert_eq!(app.link.receive(&commands, app.now, &mut out), Ok(0), "none are taken");
    assert!(app.writes(&commands) == reply.repeat(100));
}

#[test]
fn with_a_secret_nothing_is_done_before_it_was_shown() {
    // [webtalk: login]
    let tower = Tower::locked();
    let mut app = tower.app();
    for command in ["[newuser]", "[nosuch]", "nonsense", "[retrieve] k"] {
        assert_eq!(app.says(command), "[error] log in first");
    }
    assert_eq!(tower.hub.counts().senders, 0);
    assert_eq!(app.says("[login] tower"), "[ok] logged in");
    assert_eq!(app.says("[newchannel]"), "[ok] 2");
    // Once is enough, and more changes nothing.
    assert_eq!(app.says("[login] wrong"), "[ok] logged in");
    // Each link logs in for itself; goodbye can always be said.
    let mut other = tower.app();
    assert_eq!(other.says("[newchannel]"), "[error] log in first");
    assert_eq!(other.writes(b"00000"), b"00012[ok] goodbye");
}

#[test]
fn a_wrong_secret_slows_the_next_one_down_and_the_third_closes_the_link() {
    let tower = Tower::locked();
    let mut app = tower.app();
    assert_eq!(app.says("[login] wrong"), "[error] wrong secret");
    app.now = NOW.after(Duration::from_millis(999));
    assert_eq!(app.says("[login] tower"), "[error] too soon after a wrong secret");
    assert!(!app.is_closed);
    app.now = NOW.after(Duration::from_secs(1));
    assert_eq!(app.says("[login] tower"), "[ok] logged in");

    let mut app = tower.app();
    let guesses =
        [framed("[login] "), framed("[login] a"), framed("[login] b"), framed("[login] tower")].concat();
    let replies = String::from_utf8(app.writes(&guesses)).unwrap();
    assert_eq!(replies.matches("[error]").count(), 3, "{replies}");
    assert!(app.is_closed && !replies.contains("[ok]"), "{replies}");
}

#[test]
fn an_application_owes_the_first_frame_the_login_and_the_end_of_each_frame() {
    let tower = Tower::new();
    let mut app = tower.app();
    assert_eq!(app.link.patience(), Some(PATIENCE));
    app.writes(b"00012[newch");
    assert_eq!(app.link.patience(), Some(PATIENCE));
    app.writes(b"annel]");
    assert_eq!(app.link.patience(), None);
    app.writes(b"00012[newchannel]0");
    assert_eq!(app.link.patience(), Some(PATIENCE));
    let mut out = Vec::new();
    assert_eq!(app.link.out_of_patience(NOW, &mut out), Err(Close));
    assert_eq!(out, framed("[error] waited too long for a frame"));

    let mut app = Tower::locked().app();
    app.says("[newuser]");
    assert_eq!(app.link.patience(), Some(PATIENCE));
    app.says("[login] tower");
    assert_eq!(app.link.patience(), None);
}

#[test]
fn however_much_an_application_says_it_has_one_time_to_log_in() {
    let tower = Tower::locked();
    let mut app = tower.app();
    let more = "00009[newuser]000";
    app.writes(more.as_bytes());
    app.now = NOW.after(PATIENCE - Duration::from_millis(1));
    assert_eq!(app.writes(b"09[newuser]000"), framed("[error] log in first"));
    app.now = NOW.after(PATIENCE);
    assert_eq!(app.writes(b"09[newuser]000"), framed("[error] waited too long for a frame"));
    assert!(app.is_closed);

    // Once that is done it may be silent for as long as it likes.
    let mut app = tower.app();
    app.says("[login] tower");
    app.now = NOW.after(PATIENCE * 2);
    assert_eq!(app.says("[newchannel]"), "[ok] 2");
}

#[test]
fn a_link_hears_nothing_and_is_told_when_the_server_shuts_down() {
    let tower = Tower::new();
    let mut app = tower.app();
    app.says("[newuser]");
    tower.hub.publish(&1.into(), Publish::new(Content::text("hi")), NOW).unwrap();
    assert_eq!((app.link.session().subscriptions(), messages(app.link.session())), (0, Vec::new()));
    let mut out = Vec::new();
    app.link.shut_down(&mut out);
    assert_eq!(out, framed("[error] the server shuts down"));
}

#[test]
fn a_secret_that_is_set_later_is_asked_of_those_who_come_later() {
    let tower = Tower::new();
    let mut before = tower.app();
    tower.secret.0.store(true, Ordering::Relaxed);
    assert_eq!(before.says("[newchannel]"), "[ok] 2");
    assert_eq!(tower.app().says("[newchannel]"), "[error] log in first");
}

/// Frames that make sense, and some that do not.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let commands = [
        "newuser",
        "killuser",
        "whisper",
        "newchannel",
        "killchannel",
        "shout",
        "join",
        "leave",
        "store",
        "retrieve",
        "clear",
        "login",
        "x",
    ];
    let well_formed = (proptest::sample::select(commands.to_vec()), " ?", "[1-8]?", "!?", "[1-8]?")
        .prop_map(|(command, space, a, separator, b)| framed(format!("[{command}]{space}{a}{separator}{b}")));
    prop_oneof![9 => well_formed, 1 => vec(any::<u8>(), 0..30).prop_map(framed)]
}

proptest! {
    #[test]
    fn every_frame_has_one_reply_whatever_it_is(frames in vec(any_frame(), 0..40), locked: bool) {
        let goodbye = frames.iter().position(|frame| frame == b"00000");
        let reply = |write: fn(&mut App, &[u8]) -> Vec<u8>| {
            let tower = Tower::new();
            tower.secret.0.store(locked, Ordering::Relaxed);
            let mut app = tower.app();
            (write(&mut app, &frames.concat()), app.is_closed)
        };
        let (whole, is_closed) = reply(App::writes);
        prop_assert_eq!(&reply(App::writes_slowly).0, &whole);
        let mut replies = 0;
        let mut rest = &whole[..];
        while let Decoded::Frame { bytes, consumed } = decode(rest) {
            prop_assert!(bytes.starts_with(b"[ok] ") || bytes.starts_with(b"[error] "), "{:?}", bytes);
            rest = &rest[consumed..];
            replies += 1;
        }
        prop_assert!(rest.is_empty());
        if is_closed {
            prop_assert!(goodbye.is_some_and(|at| replies == at + 1) || locked);
        } else {
            prop_assert_eq!(replies, frames.len());
        }
    }

    #[test]
    fn whatever_comes_ends_in_replies_or_a_closed_link(input in vec(any::<u8>(), 0..200)) {
        let (mut whole, mut slow) = (Tower::new().app(), Tower::new().app());
        prop_assert_eq!(whole.writes(&input), slow.writes_slowly(&input));
        prop_assert_eq!(whole.is_closed, slow.is_closed);
    }
}

#[test]
fn shouts_in_a_durable_channel_are_answered_once_they_are_kept_and_in_order() {
    let shelf = Shelf::default();
    let mut app = Tower::keeping(&shelf).app();
    let shout = |message: &str| framed(format!("[shout] 1!{message}"));
    let commands = [shout("a"), shout("b"), framed("[newchannel]"), shout("c")].concat();
    assert_eq!(app.writes(&commands), b"");
    assert_eq!((shelf.waiting(), app.link.is_waiting()), (2, true));
    shelf.keep();
    shelf.refuse(watchtower_hub::NotKept::Behind);
    let expected = ["[ok] message sent", "[error] the message could not be kept", "[ok] 2"];
    assert_eq!(app.answers(), expected.map(framed).concat());
    shelf.keep();
    assert_eq!(app.answers(), framed("[ok] message sent"));
}
