//! The public side: who is let in, what a user hears, and what is kept for it.

use watchtower_hub::{ChannelName, Content, Limits, Publish, Refused, SenderId, WhenLagging};

use super::*;

/// A server with user 5, and an application on it.
fn with_user() -> (Tower, App, String) {
    with_user_at(Tower::new())
}

fn with_user_at(tower: Tower) -> (Tower, App, String) {
    let mut app = tower.app();
    let credentials = format!("5!{SALT_5}");
    assert_eq!(app.says("[newuser]"), format!("[ok] {credentials}"));
    (tower, app, credentials)
}

fn killed() -> [Heard; 1] {
    [Heard::Close(4002, "the user was killed".to_owned())]
}

#[test]
fn who_says_id_and_salt_hears_nothing_and_then_what_is_said_to_it() {
    // [webtalk: public side]
    let (tower, mut app, credentials) = with_user();
    let mut browser = tower.browser();
    assert_eq!(browser.says(&credentials), []);
    app.says("[whisper] 5!for you!");
    app.says("[shout] 1!for all");
    let mut heard = browser.hears();
    heard.sort_by_key(|heard| *heard == text("for you!"));
    assert_eq!(heard, [text("for all"), text("for you!")]);
    app.writes(&framed(b"[shout] 1!\xff\0"));
    app.writes(&framed(b"[whisper] 5!\xfe"));
    let mut heard = browser.hears();
    heard.sort_by_key(|heard| *heard == Heard::Binary(vec![0xfe]));
    assert_eq!(heard, [Heard::Binary(vec![0xff, 0]), Heard::Binary(vec![0xfe])]);
    app.says("[shout] 1!");
    assert_eq!(browser.hears(), [text("")]);
}

#[test]
fn credentials_may_come_byte_by_byte_and_as_bytes() {
    let (tower, mut app, credentials) = with_user();
    let mut browser = tower.browser();
    for byte in client_frame(0x2, credentials.as_bytes()) {
        assert_eq!(browser.writes(&[byte]), []);
    }
    app.says("[shout] 1!hi");
    assert_eq!(browser.hears(), [text("hi")]);
}

/// Zeros, compressed: 1,000 bytes for each that stands here.
fn bomb(kilobytes: usize) -> Vec<u8> {
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    let mut payload = Vec::with_capacity(1 << 16);
    let content = vec![0; 1_000 * kilobytes];
    compress.compress_vec(&content, &mut payload, flate2::FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - 4);
    let mut frame = client_frame(0x2, &payload);
    frame[0] |= 0x40;
    frame
}

#[test]
fn what_is_short_on_the_wire_may_become_long_after_the_login_alone() {
    let (tower, _, credentials) = with_user();
    let mut browser = tower.browser_with(Compression::Deflate);
    let refused = Heard::Close(1009, "a compressed message must be shorter here".to_owned());
    assert_eq!(browser.writes(&bomb(1)), [refused]);
    let mut browser = tower.browser_with(Compression::Deflate);
    let login = client_frame(0x1, credentials.as_bytes());
    assert_eq!(browser.writes(&[login, bomb(50)].concat()), []);
    assert!(!browser.is_closed);
}

#[test]
fn who_is_wrong_in_whatever_way_is_told_the_same() {
    // [webtalk: public side]
    let (tower, _, credentials) = with_user();
    let nobody = format!("6!{SALT_5}");
    let (shorter, longer) = (&credentials[..credentials.len() - 1], format!("{credentials}0"));
    let wrong = format!("5!{SALT_6}");
    let nulls = format!("6!{}", "\0".repeat(32));
    for said in [
        "",
        "5",
        "5!",
        "!",
        &nobody,
        shorter,
        &longer,
        &wrong,
        &nulls,
        "five!x",
        SALT_5,
        &credentials.replace('!', "?"),
        &format!(" {credentials}"),
        &format!("4294967301!{SALT_5}"),
    ] {
        let mut browser = tower.browser();
        assert_eq!(browser.says(said), refused(), "{said}");
        assert!(
            browser.socket.receive(&client_frame(0x1, credentials.as_bytes()), NOW, &mut Vec::new()).is_err()
        );
    }
    // None of that keeps the user out.
    tower.logged_in(&credentials);
}

#[test]
fn a_user_has_one_browser_and_the_second_is_told_what_a_stranger_is() {
    // [webtalk: public side]
    let (tower, mut app, credentials) = with_user();
    let mut first = tower.logged_in(&credentials);
    assert_eq!(tower.browser().says(&credentials), refused());
    app.says("[shout] 1!hi");
    assert_eq!(first.hears(), [text("hi")]);
    drop(first);
    tower.logged_in(&credentials);
}

#[test]
fn what_a_user_says_is_ignored() {
    // [webtalk: public side]
    let (tower, mut app, credentials) = with_user();
    let mut browser = tower.logged_in(&credentials);
    assert_eq!(browser.says(&credentials), []);
    assert_eq!(browser.says("hello?"), []);
    assert_eq!(browser.writes(&client_frame(0x2, b"\xff")), []);
    app.says("[whisper] 5!still there");
    assert_eq!(browser.hears(), [text("still there")]);
}

#[test]
fn whispers_and_shouts_are_kept_in_order_until_the_user_logs_in() {
    // [webtalk: private link, public side]
    let (tower, mut app, credentials) = with_user();
    for number in 1..=3 {
        app.says(format!("[whisper] 5!w{number}"));
        app.says(format!("[shout] 1!s{number}"));
    }
    let (shouts, whispers) = (["s1", "s2", "s3"].map(text), ["w1", "w2", "w3"].map(text));
    let apart = |heard: Vec<Heard>| -> (Vec<_>, Vec<_>) {
        heard.into_iter().partition(|heard| matches!(heard, Heard::Text(text) if text.starts_with('s')))
    };
    let mut browser = tower.browser();
    assert_eq!(apart(browser.says(&credentials)), (shouts.into(), whispers.into()));
    // And again between two browsers; what was delivered does not come twice.
    drop(browser);
    app.says("[shout] 1!s4");
    app.says("[whisper] 5!w4");
    let heard = tower.browser().says(&credentials);
    assert_eq!(apart(heard), (vec![text("s4")], vec![text("w4")]));
}

#[test]
fn joins_outlive_the_browser_however_long_it_is_away() {
    let (tower, mut app, credentials) = with_user();
    app.says("[newchannel]");
    app.says("[join] 2!5");
    drop(tower.logged_in(&credentials));
    tower.hub.tick(NOW);
    tower.hub.tick(NOW.after(Duration::from_secs(100 * 24 * 3600)));
    app.now = NOW.after(Duration::from_secs(100 * 24 * 3600));
    app.says("[shout] 2!late");
    assert_eq!(tower.browser().says(&credentials), [text("late")]);
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let limits = Limits { lag_messages: 16, ..Limits::default() };
    let (tower, mut app, credentials) = with_user_at(Tower::limited(limits));
    // Before the first browser, and after it; a little too much, and far too much.
    for count in [40, 1_000] {
        for command in ["[whisper] 5", "[shout] 1"] {
            for number in 0..count {
                assert_eq!(app.says(format!("{command}!{number}")), "[ok] message sent");
            }
            let heard = tower.browser().says(&credentials);
            assert!((16..=18).contains(&heard.len()), "{}", heard.len());
            let last: Vec<_> = (count - heard.len()..count).map(|number| text(&number.to_string())).collect();
            assert_eq!(heard, last);
        }
    }
}

#[test]
fn a_browser_that_is_gone_is_not_woken() {
    let (tower, mut app, credentials) = with_user();
    let mut browser = tower.logged_in(&credentials);
    app.says("[shout] 1!hi");
    assert!(browser.rings() > 0);
    assert_eq!(browser.hears(), [text("hi")]);
    let bell = browser.bell.clone();
    drop(browser);
    app.says("[shout] 1!hi");
    app.says("[whisper] 5!hi");
    assert_eq!(bell.0.load(Ordering::Relaxed), 0);
}

#[test]
fn a_browser_that_reads_too_slowly_is_closed_and_may_come_back_for_what_is_kept() {
    let limits = Limits { lag_messages: 16, ..Limits::default() };
    let (tower, mut app, credentials) = with_user_at(Tower::limited(limits));
    let mut browser = tower.logged_in(&credentials);
    for number in 0..1_000 {
        app.says(format!("[shout] 1!{number}"));
    }
    assert!(matches!(browser.hears()[..], [Heard::Close(1008, _)]));
    drop(browser);
    let mut browser = tower.browser();
    assert_eq!(browser.says(&credentials).last(), Some(&text("999")));
    app.says("[shout] 1!and on");
    assert_eq!(browser.hears(), [text("and on")]);
}

#[test]
fn a_user_hears_the_channels_it_was_put_into_until_it_is_taken_out() {
    let (tower, mut app, credentials) = with_user();
    let mut browser = tower.logged_in(&credentials);
    app.says("[newchannel]");
    app.says("[shout] 2!before");
    app.says("[join] 2!5");
    app.says("[shout] 2!in");
    assert_eq!(browser.hears(), [text("in")]);
    app.says("[leave] 2!5");
    app.says("[shout] 2!after");
    app.says("[leave] 1!5");
    app.says("[shout] 1!after");
    assert_eq!(browser.hears(), []);
}

#[test]
fn other_protocols_are_heard_in_the_same_channel() {
    // [model: projection]
    let (tower, mut app, credentials) = with_user();
    let mut browser = tower.logged_in(&credentials);
    app.says("[newchannel]");
    app.says("[join] 2!5");
    let device = tower.hub.open("tcp", WhenLagging::Close);
    let id = device.register(NOW).unwrap();
    let channel = ChannelName::parse("2").unwrap();
    device.join(id, &channel, NOW).unwrap();
    for content in [Content::text("t"), Content::json("{}").unwrap(), Content::binary("b")] {
        device.publish(&channel, Publish::new(content).by(id), NOW).unwrap();
    }
    // A direct message to a user's id, which is a sender's id ([model: identity]).
    device.publish(&channel, Publish::new(Content::text("to 5")).by(id).to(&[5]), NOW).unwrap();
    assert_eq!(browser.hears(), [text("t"), text("{}"), Heard::Binary(b"b".into()), text("to 5")]);
    let names: Vec<_> = tower.hub.presence(&channel).unwrap().iter().map(|p| p.protocol).collect();
    assert_eq!(names, ["webtalk", "tcp"]);
}

#[test]
fn killing_a_channel_takes_the_users_out_of_it() {
    let (tower, mut app, credentials) = with_user();
    let mut browser = tower.logged_in(&credentials);
    app.says("[newchannel]");
    app.says("[join] 2!5");
    app.says("[killchannel] 2");
    assert_eq!(app.says("[join] 2!5"), "[error] unknown channel");
    tower.hub.publish(&2.into(), Publish::new(Content::text("from elsewhere")), NOW).unwrap();
    assert_eq!(browser.hears(), []);
    app.says("[shout] 1!still in 1");
    assert_eq!(browser.hears(), [text("still in 1")]);
}

#[test]
fn killing_a_user_wakes_its_browser_and_closes_it() {
    // [webtalk: public side]
    let (tower, mut app, credentials) = with_user();
    let mut browser = tower.logged_in(&credentials);
    assert_eq!(browser.rings(), 0);
    app.says("[whisper] 5!the last word");
    assert_eq!(app.says("[killuser] 5"), "[ok] user killed");
    assert!(browser.rings() > 0);
    assert_eq!(browser.hears(), [text("the last word"), killed().into_iter().next().unwrap()]);
    assert!(browser.is_closed);
    assert_eq!(tower.browser().says(&credentials), refused());
    assert_eq!(app.says("[whisper] 5!x"), "[error] unknown user");
    assert_eq!(app.says("[killuser] 5"), "[error] unknown user");
    drop(browser);
    assert_eq!(tower.hub.counts().senders, 0);
}

#[test]
fn a_user_that_is_killed_while_away_is_nobody() {
    let (tower, mut app, credentials) = with_user();
    drop(tower.logged_in(&credentials));
    app.says("[killuser] 5");
    assert_eq!(tower.browser().says(&credentials), refused());
    assert_eq!(tower.hub.counts().senders, 0);
}

#[test]
fn nobody_takes_a_user_s_messages_away_by_its_id() {
    let (tower, mut app, credentials) = with_user();
    let thief = tower.hub.open("tcp", WhenLagging::Close);
    let id = SenderId::new(5).unwrap();
    assert_eq!(thief.attach(id, NOW), Err(Refused::BoundElsewhere(id)));
    app.says("[shout] 1!one");
    let mut browser = tower.browser();
    assert_eq!(browser.says(&credentials), [text("one")]);
    assert_eq!(thief.join(id, &2.into(), NOW), Err(Refused::BoundElsewhere(id)));
    app.says("[shout] 1!two");
    assert_eq!(browser.hears(), [text("two")]);
}

#[test]
fn who_says_nothing_in_time_is_closed_and_who_is_a_user_may_be_silent() {
    // [webtalk: public side]
    let (tower, mut app, credentials) = with_user();
    let mut silent = tower.browser();
    assert_eq!(silent.socket.patience(), Some(PATIENCE));
    let mut out = Vec::new();
    assert_eq!(silent.socket.out_of_patience(NOW, &mut out), Err(Close));
    assert_eq!(parse(&out), [Heard::Close(4001, "no ID!SALT came in time".to_owned())]);

    let mut user = tower.logged_in(&credentials);
    assert_eq!(user.socket.out_of_patience(NOW, &mut Vec::new()), Ok(()));
    app.says("[shout] 1!hi");
    assert_eq!(user.hears(), [text("hi")]);
}

#[test]
fn salts_and_ids_are_not_shown_by_debug() {
    let tower = Tower::new();
    let credentials = tower.talk.new_user(NOW).unwrap();
    assert_eq!(credentials.to_string(), format!("5!{SALT_5}"));
    let shown = format!("{credentials:?} {:?} {:?}", tower.talk, tower.app().link);
    assert!(!shown.contains(SALT_5), "{shown}");
}

#[test]
fn browsers_and_kills_in_any_order_leave_nobody_locked_out() {
    let (tower, _, credentials) = with_user();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let mut browser = tower.browser();
                    let heard = browser.says(&credentials);
                    assert!(heard.is_empty() || heard == refused());
                }
            });
        }
    });
    let (mut browser, heard) = std::thread::scope(|scope| {
        let login = scope.spawn(|| {
            let mut browser = tower.browser();
            let heard = browser.says(&credentials);
            (browser, heard)
        });
        tower.talk.kill_user(5, NOW).unwrap();
        login.join().unwrap()
    });
    match &heard[..] {
        [] => assert_eq!(browser.hears(), killed()),
        heard => assert!(heard == refused() || heard == killed(), "{heard:?}"),
    }
    drop(browser);
    assert_eq!(tower.browser().says(&credentials), refused());
    assert_eq!(tower.hub.counts().senders, 0);
}
