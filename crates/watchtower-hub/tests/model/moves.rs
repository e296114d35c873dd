//! Ids that move between sessions of which each may have several.

use proptest::collection::vec;
use watchtower_hub::{Content, Drained, Hub, Publish, Refused, SenderId};

use crate::support::{Client, NOW, five, hub, joined, say, text};

fn whisper(hub: &Hub, from: SenderId, to: SenderId, words: &str) {
    hub.publish(&five(), text(from, words).to(&[to.get()]), NOW).unwrap();
}

#[test]
fn what_is_for_an_id_alone_moves_with_it_to_a_session_that_has_read_past_it() {
    // [packets: rules]
    let hub = hub();
    let ((a, id), (b, other)) = (joined(&hub), joined(&hub));
    say(&hub, other, "1");
    whisper(&hub, other, id, "2");
    say(&hub, other, "3");
    assert_eq!(b.read(), "5/1=1;5/3=3;");
    b.wakes();
    b.session.attach(id, NOW).unwrap();
    assert_eq!(b.wakes(), 1);
    say(&hub, other, "4");
    assert_eq!((a.read(), b.read()), (String::new(), "5/2=2;5/4=4;".into()));
    // It is read again once, whichever of the ids leaves then.
    hub.leave(id, &five(), NOW).unwrap();
    say(&hub, other, "5");
    assert_eq!(b.read(), "5/5=5;");
}

#[test]
fn an_id_that_is_its_session_s_alone_moves_to_no_other() {
    let hub = hub();
    let (a, (b, other)) = (Client::new(&hub), joined(&hub));
    let id = a.session.register_passing(NOW).unwrap();
    a.session.join(id, &five(), NOW).unwrap();
    assert_eq!(b.session.attach(id, NOW), Err(Refused::BoundElsewhere(id)));
    assert_eq!(b.session.join(id, &6.into(), NOW), Err(Refused::BoundElsewhere(id)));
    // Whoever asks by its id alone learns no more than of one that is not there.
    assert!(!hub.is_registered(id, NOW) && hub.is_registered(other, NOW));
    whisper(&hub, other, id, "1");
    say(&hub, other, "2");
    assert_eq!((a.read(), b.read()), ("5/1=1;5/2=2;".into(), "5/2=2;".into()));
    a.session.attach(id, NOW).unwrap();
}

#[test]
fn an_id_that_moves_on_before_it_was_read_again_takes_what_is_its_own() {
    let hub = hub();
    let ((_a, id), (b, other)) = (joined(&hub), joined(&hub));
    whisper(&hub, other, id, "1");
    say(&hub, other, "2");
    assert_eq!(b.read(), "5/2=2;");
    b.session.attach(id, NOW).unwrap();
    let c = Client::new(&hub);
    c.session.attach(id, NOW).unwrap();
    assert_eq!((b.read(), c.read()), (String::new(), "5/1=1;5/2=2;".into()));
}

#[test]
fn an_id_is_not_handed_again_what_it_has_read_when_it_moves_to_a_session_that_is_behind() {
    let hub = hub();
    let ((a, id), (b, other)) = (joined(&hub), joined(&hub));
    say(&hub, other, "1");
    whisper(&hub, other, id, "2");
    assert_eq!(a.read(), "5/1=1;5/2=2;");
    b.session.attach(id, NOW).unwrap();
    whisper(&hub, other, id, "3");
    assert_eq!(b.read(), "5/1=1;5/3=3;");
}

#[test]
fn what_is_read_again_is_handed_out_as_the_client_takes_it() {
    let hub = hub();
    let ((_a, id), (b, other)) = (joined(&hub), joined(&hub));
    for words in ["1", "2", "3"] {
        whisper(&hub, other, id, words);
    }
    say(&hub, other, "4");
    assert_eq!(b.read(), "5/4=4;");
    b.session.attach(id, NOW).unwrap();
    let reads: Vec<_> = (0..3).map(|_| b.drain(1)).collect();
    let one = |text: &str, drained| (text.to_owned(), drained);
    assert_eq!(reads[..2], [one("5/1=1;", Drained::More), one("5/2=2;", Drained::More)]);
    assert_eq!(reads[2].0, "5/3=3;");
    assert_eq!(b.read(), "");
}

proptest::proptest! {
    #[test]
    fn whatever_moves_each_session_hears_all_once_and_each_id_its_own_once(
        script in vec((0u8..6, 0usize..6, 0usize..3), 1..150),
    ) {
        run(&script);
    }
}

/// Six ids on three sessions. What is for everyone comes once to each, in order,
/// and what is for one id alone comes once; for two, at most once for each.
fn run(script: &[(u8, usize, usize)]) {
    let hub = hub();
    let sessions: Vec<_> = (0..3).map(|_| Client::new(&hub)).collect();
    let ids: Vec<_> = (0..6).map(|_| hub.register(NOW).unwrap()).collect();
    for (index, &id) in ids.iter().enumerate() {
        sessions[index % 3].session.join(id, &five(), NOW).unwrap();
    }
    // How many each message is for; 0 is everyone.
    let mut sent: Vec<usize> = Vec::new();
    let mut times_read = Vec::new();
    let mut last_for_all = [0; 3];
    let mut read = |who: usize, bytes, sent: &[usize]| {
        let (text, drained) = sessions[who].drain(bytes);
        times_read.resize(sent.len(), 0);
        for message in text.split_terminator(';') {
            let offset: usize = message[2..].trim_end_matches("=x").parse().unwrap();
            times_read[offset - 1] += 1;
            if sent[offset - 1] == 0 {
                assert!(offset > last_for_all[who], "in order");
                last_for_all[who] = offset;
            }
        }
        (drained, times_read.clone())
    };
    for &(step, id, who) in script {
        match step {
            0 => {
                hub.publish(&five(), Publish::new(Content::text("x")), NOW).unwrap();
                sent.push(0);
            }
            1 => {
                whisper(&hub, ids[0], ids[id], "x");
                sent.push(1);
            }
            2 => {
                let two = [ids[id].get(), ids[(id + who + 1) % 6].get()];
                hub.publish(&five(), text(ids[0], "x").to(&two), NOW).unwrap();
                sent.push(2);
            }
            // The first three stay: a session that has no id left is not subscribed.
            3 => sessions[who].session.attach(ids[3 + id % 3], NOW).unwrap(),
            4 => drop(read(who, 1, &sent)),
            _ => assert_eq!(read(who, usize::MAX, &sent).0, Drained::All),
        }
    }
    let mut times_read = Vec::new();
    for who in 0..3 {
        times_read = read(who, usize::MAX, &sent).1;
    }
    assert_eq!(times_read.len(), sent.len());
    for (&receivers, &times) in sent.iter().zip(&times_read) {
        match receivers {
            0 => assert_eq!(times, 3),
            1 => assert_eq!(times, 1),
            _ => assert!((1..=2).contains(&times)),
        }
    }
}
