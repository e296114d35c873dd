//! Who may do what, from which command to which.

use super::*;

const BAD_READ: &str = r#"{"auth": {"access": "read-only", "secret": "x"}}"#;
const BAD_WRITE: &str = r#"{"auth": {"access": "read-write", "secret": "x"}}"#;
const MALFORMED: &str = r#"{"auth": {"access": "all", "secret": "w"}}"#;
const LOGOUT: &str = r#"{"logout": true}"#;

/// What a page may do now, in a core where there is the channel `hello`.
fn access(page: &mut Page) -> Access {
    let publish = page.send(SAY).remove(0);
    let subscribe = page.send(r#"{"subscribe": {"channel": "other"}}"#).remove(0);
    match (&*subscribe, &*publish) {
        (ACCESS_DENIED, ACCESS_DENIED) => Access::None,
        (OK, ACCESS_DENIED) => Access::ReadOnly,
        (OK, OK) => Access::ReadWrite,
        other => panic!("{other:?}"),
    }
}

/// What may be done after these commands, in a hub with that anonymous access.
#[track_caller]
fn check_access(anonymous: Access, commands: &[&str], expected: Access) {
    let core = core();
    let _reader = Page::open(&core, open_to_all()).after(&[HELLO]);
    let mut page = Page::open(&core, HubOptions { anonymous, ..options() });
    for command in commands {
        page.send(command);
    }
    assert_eq!(access(&mut page), expected, "{anonymous} {commands:?}");
}

#[test]
fn access_is_what_the_last_auth_gave() {
    // [webrocket: access]
    use Access::*;
    check_access(None, &[], None);
    check_access(None, &[READ], ReadOnly);
    check_access(None, &[WRITE], ReadWrite);
    check_access(None, &[READ, WRITE], ReadWrite);
    check_access(None, &[WRITE, READ], ReadOnly);
    check_access(None, &[WRITE, BAD_WRITE], None);
    check_access(None, &[WRITE, BAD_READ], None);
    check_access(None, &[READ, BAD_WRITE], None);
    check_access(None, &[BAD_WRITE, WRITE], ReadWrite);
    check_access(None, &[WRITE, LOGOUT], None);
    check_access(None, &[LOGOUT], None);
    check_access(None, &[WRITE, LOGOUT, READ], ReadOnly);
}

#[test]
fn what_is_no_auth_at_all_changes_nothing() {
    check_access(Access::None, &[WRITE, MALFORMED], Access::ReadWrite);
    check_access(Access::None, &[WRITE, r#"{"logout": false}"#], Access::ReadWrite);
}

#[test]
fn anonymous_access_stays_whatever_auth_says() {
    // [webrocket: anonymous]
    use Access::*;
    for commands in [&[][..], &[READ], &[LOGOUT], &[BAD_WRITE], &[WRITE, LOGOUT], &[WRITE, READ]] {
        check_access(ReadOnly, commands, ReadOnly);
        check_access(ReadWrite, commands, ReadWrite);
    }
    check_access(ReadOnly, &[WRITE], ReadWrite);
}

#[test]
fn an_empty_secret_accepts_any_but_auth_must_be_sent() {
    // [webrocket: empty secrets]
    let core = core();
    let options = || HubOptions { read_only: Secret::new(""), ..options() };
    let mut page = Page::open(&core, options());
    assert_eq!(page.send(HELLO), [ACCESS_DENIED]);
    for secret in ["", "anything"] {
        let auth = format!(r#"{{"auth": {{"access": "read-only", "secret": "{secret}"}}}}"#);
        let mut page = Page::open(&core, options()).after(&[&auth, HELLO]);
        assert_eq!(page.send(SAY), [ACCESS_DENIED]);
        assert_eq!(page.send(BAD_WRITE), [INVALID_CREDENTIALS]);
    }
    assert_eq!(page.send(r#"{"auth": {"access": "read-only"}}"#), [INVALID_DATA]);
}

#[test]
fn who_loses_the_access_loses_the_subscriptions_that_needed_it() {
    // [webrocket: logout]
    for (command, answer) in [(LOGOUT, OK), (BAD_READ, INVALID_CREDENTIALS), (BAD_WRITE, INVALID_CREDENTIALS)]
    {
        let core = core();
        let more = r#"{"subscribe": {"channel": "more"}}"#;
        let mut page = Page::open(&core, options()).after(&[WRITE, HELLO, more]);
        assert_eq!(page.send(command), [answer]);
        assert_eq!(page.socket.session().subscriptions(), 0);
        publish(&core, "hello", Content::text("x"));
        publish(&core, "more", Content::text("x"));
        assert_eq!(page.read(), [""; 0], "{command}");
        // Nor do they come back with it.
        let mut page = page.after(&[READ]);
        publish(&core, "hello", Content::text("x"));
        assert_eq!(page.read(), [""; 0], "{command}");
        assert_eq!(page.send(HELLO), [OK]);
        publish(&core, "hello", Content::text("y"));
        assert_eq!(page.read(), [r#"{"event": "message", "channel": "hello", "data": "y"}"#]);
    }
}

#[test]
fn what_was_published_before_the_access_was_lost_comes_first() {
    let core = core();
    let mut page = Page::open(&core, options()).after(&[READ, HELLO]);
    publish(&core, "hello", Content::text("x"));
    assert_eq!(page.send(LOGOUT), [r#"{"event": "message", "channel": "hello", "data": "x"}"#, OK]);
}

#[test]
fn subscriptions_that_need_no_more_than_what_is_left_stay() {
    let core = core();
    let mut lowered = Page::open(&core, options()).after(&[WRITE, HELLO, READ]);
    let anonymous = HubOptions { anonymous: Access::ReadOnly, ..options() };
    let mut logged_out = Page::open(&core, anonymous).after(&[WRITE, HELLO, LOGOUT]);
    publish(&core, "hello", Content::text("x"));
    for page in [&mut lowered, &mut logged_out] {
        assert_eq!(page.read(), [r#"{"event": "message", "channel": "hello", "data": "x"}"#]);
    }
}

#[test]
fn who_may_not_do_it_learns_nothing_else() {
    let mut page = Page::open(&core(), options());
    for command in [
        HELLO,
        SAY,
        r#"{"subscribe": {"channel": ""}}"#,
        r#"{"subscribe": {}}"#,
        r#"{"publish": {"event": "e", "channel": "never", "data": 1}}"#,
        r#"{"publish": 1}"#,
    ] {
        assert_eq!(page.send(command), [ACCESS_DENIED], "{command}");
    }
    assert_eq!(page.send(READ), [OK]);
    assert_eq!(page.send(r#"{"publish": 1}"#), [ACCESS_DENIED]);
    assert_eq!(page.send(r#"{"subscribe": {}}"#), [INVALID_DATA]);
}

#[test]
fn who_gave_wrong_secrets_is_not_read_for_a_while() {
    // [webrocket: slowed logins]
    let mut page = Page::open(&core(), options());
    let frames: Vec<u8> =
        [BAD_WRITE, WRITE, BAD_READ, WRITE].iter().flat_map(|text| frame(TEXT, text.as_bytes())).collect();
    let mut out = Vec::new();
    // The first is free; what comes behind the second has to wait, however
    // much of it is there already.
    page.socket.receive(&frames, NOW, &mut out).unwrap();
    assert_eq!(messages(&out), [INVALID_CREDENTIALS, OK, INVALID_CREDENTIALS]);
}

#[test]
fn where_many_logins_have_failed_the_next_waits_for_its_answer_be_it_right_or_wrong() {
    let core = core();
    let hub = WebRocket::new(options());
    for _ in 0..20 {
        assert_eq!(Page::visit(&core, &hub).send(BAD_WRITE), [INVALID_CREDENTIALS]);
    }
    let frames = |first: &str| [frame(TEXT, first.as_bytes()), frame(TEXT, HELLO.as_bytes())].concat();
    for (login, wait, after) in
        [(BAD_WRITE, 100, [INVALID_CREDENTIALS, ACCESS_DENIED]), (WRITE, 200, [OK, OK])]
    {
        let mut page = Page::visit(&core, &hub);
        let mut out = Vec::new();
        let input = frames(login);
        let done = page.socket.receive(&input, NOW, &mut out).unwrap();
        assert_eq!((done, messages(&out)), (frame(TEXT, login.as_bytes()).len(), vec![]), "{login}");
        assert_eq!(page.socket.pause(), Some(Duration::from_millis(wait)));
        // What follows comes after the answer, as always.
        assert_eq!(page.send_frames(&input[done..]), after);
    }
    // Who did nothing wrong here does not wait, nor do other commands.
    assert_eq!(Page::open(&core, options()).send(WRITE), [OK]);
    assert_eq!(Page::visit(&core, &hub).send(LOGOUT), [OK]);
}

#[test]
fn one_connection_knows_nothing_of_anothers_access() {
    let core = core();
    let hub = WebRocket::new(options());
    let _writer = Page::visit(&core, &hub).after(&[WRITE, HELLO]);
    assert_eq!(Page::visit(&core, &hub).send(SAY), [ACCESS_DENIED]);
}
