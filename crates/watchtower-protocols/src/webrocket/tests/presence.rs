//! Who is there, and who comes and goes ([webrocket: presence]).

use super::*;

const WHO: &str = r#"{"presence": {"channel": "hello"}}"#;

fn core_that_tells() -> Hub {
    core_ruled(ChannelRule { presence_events: true, ..ChannelRule::default() })
}

#[test]
fn who_comes_and_goes_is_an_event() {
    let core = core_that_tells();
    let mut page = Page::open(&core, options());
    assert_eq!(page.send(READ), [OK]);
    let received = page.send(HELLO);
    let [ok, joined] = &received[..] else { panic!("{received:?}") };
    assert_eq!(ok, OK);
    let own = core.presence(&name("hello")).unwrap()[0].sender;
    let event = |what: &str, sender, protocol: &str, present| {
        let data = format!(r#"{{"{what}":{sender},"protocol":"{protocol}","present":{present}}}"#);
        format!(r#"{{"event": "presence", "channel": "hello", "data": {data}}}"#)
    };
    assert_eq!(*joined, event("joined", own, "webrocket", 1));
    let sender = core.register(NOW).unwrap();
    core.join(sender, &[name("hello")], NOW).unwrap();
    core.leave(sender, &name("hello"), NOW).unwrap();
    assert_eq!(page.read(), [event("joined", sender, "http", 2), event("left", sender, "http", 1)]);
}

#[test]
fn who_is_there_is_listed_by_id_with_since_when() {
    let core = core_that_tells();
    let mut page = Page::open(&core, options()).after(&[READ]);
    page.send(HELLO);
    let own = core.presence(&name("hello")).unwrap()[0].sender;
    let sender = core.register(NOW).unwrap();
    core.join(sender, &[name("hello")], NOW).unwrap();
    page.read();
    assert!(own < sender);
    let present = |sender, protocol| {
        format!(r#"{{"id": {sender}, "protocol": "{protocol}", "since": "2023-11-14T22:13:20.000Z"}}"#)
    };
    let expected = format!(
        r#"{{"ok": true, "count": 2, "presence": [{}, {}]}}"#,
        present(own, "webrocket"),
        present(sender, "http")
    );
    assert_eq!(page.send(WHO), [expected]);
}

#[test]
fn the_list_has_the_first_thousand_and_the_count_of_all() {
    let core = core_that_tells();
    for _ in 0..1_001 {
        let sender = core.register(NOW).unwrap();
        core.join(sender, &[name("hello")], NOW).unwrap();
    }
    let received = Page::open(&core, options()).after(&[READ]).send(WHO);
    let answer: serde_json::Value = serde_json::from_str(&received[0]).unwrap();
    assert_eq!(
        (answer["count"].as_u64(), answer["presence"].as_array().unwrap().len()),
        (Some(1_001), 1_000)
    );
}

#[test]
fn who_is_there_is_said_to_readers_of_channels_that_tell_it_alone() {
    let core = core_that_tells();
    let mut page = Page::open(&core, options());
    assert_eq!(page.send(WHO), [ACCESS_DENIED]);
    let mut page = Page::open(&core, options()).after(&[READ]);
    assert_eq!(page.send(WHO), [INVALID_CHANNEL]);
    assert_eq!(page.send(r#"{"presence": {"channel": " "}}"#), [INVALID_CHANNEL]);
    assert_eq!(page.send(r#"{"presence": {}}"#), [INVALID_DATA]);
    assert_eq!(page.send(r#"{"presence": true}"#), [INVALID_DATA]);
    let mut page = Page::open(&super::core(), options()).after(&[READ, HELLO]);
    assert_eq!(page.send(WHO), [ACCESS_DENIED], "a channel that does not tell it");
}

#[test]
fn nobody_passes_for_the_server() {
    let core = core_that_tells();
    let mut page = Page::open(&core, options()).after(&[WRITE]);
    page.send(HELLO);
    let publish = r#"{"publish": {"event": "presence", "channel": "hello", "data": {"joined": 1}}}"#;
    assert_eq!(page.send(publish), [INVALID_DATA]);
    let mut page = Page::open(&super::core(), options()).after(&[WRITE, HELLO]);
    assert_eq!(page.send(publish).first().map(String::as_str), Some(OK), "anybody's on other channels");
}
