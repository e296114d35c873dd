//! The view: two of them that meet, and one among many.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);

fn addr(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 55_555).into()
}

fn connection(number: u8) -> ConnectionId {
    ConnectionId(number.into())
}

fn after(millis: u64) -> Timestamp {
    NOW.after(Duration::from_millis(millis))
}

fn view(number: u8) -> View {
    View::new(RoutingLimits::default(), addr(number), [number; 16], NOW)
}

const THEIRS: Token = Base64([9; 8]);

impl View {
    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.next_event()).collect()
    }

    /// Makes a peer a neighbour that asks to be one.
    fn befriend(&mut self, number: u8) {
        assert!(!self.neighbor(connection(number), addr(number), (THEIRS, None), false, NOW));
        self.connected(addr(number), NOW);
        let echo = Some(self.token_for(addr(number)));
        assert!(self.neighbor(connection(number), addr(number), (THEIRS, echo), false, NOW));
        assert!(self.up().any(|up| up == addr(number)));
        self.events();
    }

    fn with(neighbours: std::ops::Range<u8>) -> View {
        let mut view = view(100);
        neighbours.for_each(|number| view.befriend(number));
        view
    }

    fn check(&self) {
        let up = self.up().count();
        assert!(up <= self.limits.neighbours && self.neighbours.len() - up <= self.limits.neighbours);
        assert!(self.passive.len() <= self.limits.passive);
        for passive in &self.passive {
            assert!(*passive != self.me && !self.contains(*passive));
        }
        assert!(!self.contains(self.me));
    }
}

/// What two views say to one another until they are done.
fn meet(one: &mut View, other: &mut View) -> Vec<Event> {
    let mut ups = Vec::new();
    loop {
        let (said, answered) = (one.events(), other.events());
        if said.is_empty() && answered.is_empty() {
            return ups;
        }
        let both = said.into_iter().map(|event| (true, event));
        for (from_one, event) in both.chain(answered.into_iter().map(|event| (false, event))) {
            let (from, to) = if from_one { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
            match event {
                Event::Say(addressed, Control::Neighbor { addr, token, echo, urgent }) => {
                    assert_eq!((addressed, addr), (to.me, from.me));
                    from.connected(to.me, NOW);
                    to.neighbor(connection(1), addr, (token, echo), urgent, NOW);
                }
                Event::Up(_) => ups.push(event),
                other => panic!("{other:?}"),
            }
        }
    }
}

// Meeting.

/// [whispernet: 14]
#[test]
fn two_become_neighbours_by_three_messages() {
    let (mut one, mut other) = (view(1), view(2));
    one.offer(addr(2), NOW);
    let (token, theirs) = (one.token_for(addr(2)), other.token_for(addr(1)));
    let asked = Control::Neighbor { addr: addr(1), token, echo: None, urgent: false };
    assert_eq!(one.events(), [Event::Say(addr(2), asked)]);
    one.connected(addr(2), NOW);

    assert!(!other.neighbor(connection(7), addr(1), (token, None), false, NOW));
    let answer = Control::Neighbor { addr: addr(2), token: theirs, echo: Some(token), urgent: false };
    assert_eq!(other.events(), [Event::Say(addr(1), answer)]);
    assert_eq!(other.behind(connection(7)), None, "anybody could say so");

    assert!(one.neighbor(connection(8), addr(2), (theirs, Some(token)), false, NOW));
    let answer = Control::Neighbor { addr: addr(1), token, echo: Some(theirs), urgent: false };
    assert_eq!(one.events(), [Event::Say(addr(2), answer), Event::Up(addr(2))]);
    assert_eq!(one.behind(connection(8)), Some(addr(2)));

    assert!(other.neighbor(connection(7), addr(1), (token, Some(theirs)), false, NOW));
    assert_eq!(other.events(), [], "there is no connection to it yet");
    other.connected(addr(1), NOW);
    assert_eq!(other.events(), [Event::Up(addr(1))]);
    assert_eq!(other.behind(connection(7)), Some(addr(1)));
}

#[test]
fn two_that_ask_at_once_become_neighbours_once() {
    let (mut one, mut other) = (view(1), view(2));
    one.offer(addr(2), NOW);
    other.offer(addr(1), NOW);
    assert_eq!(meet(&mut one, &mut other).len(), 2);
    assert_eq!((one.up().count(), other.up().count()), (1, 1));
}

#[test]
fn who_borrows_an_address_is_no_neighbour_and_disturbs_none() {
    let mut view = View::with(1..2);
    for token in 0..100 {
        let token = Base64([token; 8]);
        assert!(!view.neighbor(connection(66), addr(1), (token, None), true, NOW));
        assert!(!view.neighbor(connection(66), addr(1), (token, Some(THEIRS)), true, NOW));
    }
    assert_eq!(view.events(), []);
    assert_eq!(view.behind(connection(1)), Some(addr(1)));
    assert_eq!(view.behind(connection(66)), None);

    for token in 0..100 {
        view.neighbor(connection(66), addr(2), (Base64([token; 8]), None), true, NOW);
    }
    assert_eq!(view.events().len(), 1, "whose address it is hears of it once");
    assert_eq!(view.up().count(), 1);
}

#[test]
fn who_does_not_answer_is_given_up_and_another_is_asked() {
    let mut view = view(100);
    view.offer(addr(1), NOW);
    view.events();
    assert_eq!(view.deadline(), Some(NOW), "the first shuffle");
    view.tick(NOW);
    assert_eq!(view.deadline(), Some(after(5_000)));
    view.passive.push(addr(2));
    view.tick(after(5_000));
    let asked: Vec<SocketAddr> = view
        .events()
        .iter()
        .map(|event| if let Event::Say(to, _) = event { *to } else { panic!() })
        .collect();
    assert_eq!(asked, [addr(2), addr(1)], "not the same first");
    view.check();
}

#[test]
fn who_answers_too_late_is_told_so() {
    let mut view = View::with(1..9);
    let echo = Some(view.token_for(addr(50)));
    assert!(view.neighbor(connection(50), addr(50), (THEIRS, echo), false, NOW));
    assert_eq!(view.events(), [Event::Say(addr(50), Control::Disconnect { addr: addr(100) })]);
    assert!(!view.contains(addr(50)));
}

#[test]
fn who_has_no_neighbour_takes_the_place_of_another_once_it_has_proved_where_it_is() {
    let mut view = View::with(1..9);
    assert!(!view.neighbor(connection(20), addr(20), (THEIRS, None), false, NOW));
    assert!(!view.contains(addr(20)), "there are eight");
    assert_eq!(view.events(), []);

    view.neighbor(connection(21), addr(21), (THEIRS, None), true, NOW);
    view.events();
    view.connected(addr(21), NOW);
    assert_eq!(view.up().count(), 8, "nobody yields to a claim");
    let echo = Some(view.token_for(addr(21)));
    view.neighbor(connection(21), addr(21), (THEIRS, echo), false, NOW);
    assert_eq!(view.up().count(), 8);
    assert!(view.up().any(|up| up == addr(21)));
    let events = view.events();
    let Some(Event::Down(gone)) = events.iter().find(|event| matches!(event, Event::Down(_))) else {
        panic!()
    };
    assert!(events.contains(&Event::Say(*gone, Control::Disconnect { addr: addr(100) })));
    assert!(view.passive().contains(gone));
    view.check();
}

#[test]
fn many_of_one_machine_displace_one_another() {
    let mut view = View::with(1..9);
    for port in 1..200 {
        let addr = SocketAddr::new(addr(66).ip(), port);
        view.neighbor(connection(66), addr, (THEIRS, None), true, NOW);
        view.connected(addr, NOW);
        let echo = Some(view.token_for(addr));
        view.neighbor(connection(66), addr, (THEIRS, echo), true, NOW);
        view.events();
        view.check();
    }
    assert_eq!(view.up().filter(|up| up.ip() != addr(66).ip()).count(), 7);
}

// New nodes.

#[test]
fn a_new_node_is_asked_and_then_the_others_are_told() {
    let mut view = View::with(1..4);
    view.invite(addr(50), NOW);
    assert!(matches!(view.events()[..], [Event::Say(to, Control::Neighbor { .. })] if to == addr(50)));
    let echo = Some(view.token_for(addr(50)));
    view.connected(addr(50), NOW);
    view.neighbor(connection(50), addr(50), (THEIRS, echo), false, NOW);
    let events = view.events();
    for other in 1..4 {
        assert!(events.contains(&Event::Say(addr(other), Control::ForwardJoin { peer: addr(50), hops: 6 })));
    }
    view.invite(addr(50), NOW);
    view.invite(addr(100), NOW);
    assert_eq!(view.events(), [], "known, or itself");
}

#[test]
fn a_new_node_that_cannot_be_reached_is_left_to_others() {
    let mut view = View::with(1..4);
    view.invite(addr(50), NOW);
    view.events();
    view.lost(addr(50), NOW);
    let events = view.events();
    assert!(
        matches!(events[..], [Event::Say(_, Control::ForwardJoin { peer, hops: 6 })] if peer == addr(50)),
        "{events:?}"
    );
}

#[test]
fn the_news_of_a_node_goes_on_and_ends_with_a_neighbour_for_it() {
    let mut view = View::with(1..9);
    view.forward_join(addr(1), addr(50), 255, NOW);
    let passed_on = view.events();
    assert!(
        matches!(passed_on[..], [Event::Say(to, Control::ForwardJoin { hops: 5, .. })] if to != addr(1)),
        "{passed_on:?}"
    );
    view.forward_join(addr(1), addr(51), NOTED_AT, NOW);
    assert_eq!(view.passive(), [addr(51)]);
    view.events();
    view.forward_join(addr(1), addr(52), 0, NOW);
    assert!(
        matches!(view.events()[..], [Event::Say(to, Control::Neighbor { .. })] if to == addr(52)),
        "though there are eight"
    );
    view.check();
}

#[test]
fn news_that_would_go_round_for_ever_end() {
    let mut view = View::with(1..4);
    for number in 0..1_000_u16 {
        let peer = SocketAddr::from(([10, 1, (number >> 8) as u8, number as u8], 1));
        view.forward_join(addr(1), peer, 6, NOW);
        view.check();
    }
    let is_walk = |event: &&Event| matches!(event, Event::Say(_, Control::ForwardJoin { .. }));
    assert_eq!(view.events().iter().filter(is_walk).count(), WALKS_MAX as usize);
}

// Shuffles.

#[test]
fn a_shuffle_goes_on_and_the_last_one_answers() {
    let mut view = View::with(1..4);
    view.passive = vec![addr(60), addr(61), addr(62)];
    let peers = vec![addr(70), addr(71)];
    view.shuffle(addr(1), (addr(50), THEIRS), 6, peers.clone(), NOW);
    let passed_on = view.events();
    assert!(
        matches!(&passed_on[..], [Event::Say(to, Control::Shuffle { hops: 5, origin, .. })]
            if *to != addr(1) && *origin == addr(50)),
        "{passed_on:?}"
    );
    view.limits.neighbours_wanted = 0;
    view.shuffle(addr(1), (addr(50), THEIRS), 0, peers, NOW);
    let answered = view.events();
    assert!(
        matches!(&answered[..], [Event::Say(to, Control::ShuffleReply { token: THEIRS, peers })]
            if *to == addr(50) && peers.len() == 2 && peers.iter().all(|peer| (60..63).contains(&peer_number(*peer)))),
        "as many as came: {answered:?}"
    );
    let mut known: Vec<u8> = view.passive().iter().map(|peer| peer_number(*peer)).collect();
    known.sort_unstable();
    assert_eq!(known, [50, 60, 61, 62, 70, 71]);
}

fn peer_number(peer: SocketAddr) -> u8 {
    let std::net::IpAddr::V4(ip) = peer.ip() else { panic!() };
    ip.octets()[3]
}

#[test]
fn an_answer_counts_once_and_only_with_its_token() {
    let mut view = View::with(1..6);
    view.tick(after(5_000));
    let events = view.events();
    let [Event::Say(_, Control::Shuffle { origin, token, hops: 6, peers })] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((*origin, peers.len()), (addr(100), 3));
    view.shuffle_reply(THEIRS, vec![addr(66)], NOW);
    assert_eq!(view.passive(), []);
    view.shuffle_reply(*token, vec![addr(50), addr(100), addr(1)], NOW);
    assert_eq!(view.passive(), [addr(50)], "neither itself nor a neighbour");
    view.shuffle_reply(*token, vec![addr(66)], NOW);
    assert_eq!(view.passive(), [addr(50)]);
}

/// Else two parts, each with neighbours enough, would never meet.
#[test]
fn with_each_shuffle_one_stranger_takes_the_place_of_another() {
    let mut view = View::with(1..9);
    view.offer(addr(50), NOW);
    view.tick(after(5_000));
    let events = view.events();
    assert!(
        matches!(events[..], [_, Event::Say(to, Control::Neighbor { urgent: false, .. })] if to == addr(50)),
        "{events:?}"
    );
    view.connected(addr(50), NOW);
    let echo = Some(view.token_for(addr(50)));
    view.neighbor(connection(50), addr(50), (THEIRS, echo), false, NOW);
    assert_eq!(view.events().last(), Some(&Event::Spare(addr(50))));
    assert_eq!(view.up().count(), 8);
    view.exchange(addr(50));
    assert_eq!((view.up().count(), view.passive().contains(&addr(50))), (7, true));
}

// Failures.

#[test]
fn a_neighbour_that_fails_is_replaced() {
    let mut view = View::with(1..6);
    view.offer(addr(50), NOW);
    view.incoming_lost(connection(1), NOW);
    view.lost(addr(1), NOW);
    let events = view.events();
    assert!(
        matches!(events[..], [Event::Down(down), Event::Say(asked, Control::Neighbor { urgent: false, .. })]
            if down == addr(1) && asked == addr(50)),
        "{events:?}"
    );
    assert_eq!(view.passive(), [], "not by itself");
    assert_eq!(view.up().count(), 4);
}

#[test]
fn who_says_that_it_is_a_neighbour_no_more_may_be_one_again() {
    let mut view = View::with(1..7);
    view.disconnect(addr(1), NOW);
    assert_eq!(view.events(), [Event::Down(addr(1))]);
    assert_eq!(view.passive(), [addr(1)]);
}

#[test]
fn who_is_left_alone_asks_so_that_nobody_refuses() {
    let mut view = View::with(1..2);
    view.passive = vec![addr(50)];
    view.lost(addr(1), NOW);
    let events = view.events();
    assert!(
        matches!(events[..], [Event::Down(_), Event::Say(_, Control::Neighbor { urgent: true, .. })]),
        "{events:?}"
    );
}

#[derive(Debug, Clone)]
enum Happening {
    Neighbor(u8, bool, bool),
    Connected(u8),
    Disconnect(u8),
    Offer(u8),
    Invite(u8),
    ForwardJoin(u8, u8, u8),
    Shuffle(u8, u8, u8, Vec<u8>),
    Lost(u8),
    IncomingLost(u8),
    Passes(u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let number = || 95..115_u8;
    prop_oneof![
        6 => (number(), any::<bool>(), any::<bool>()).prop_map(|(n, proven, urgent)| Happening::Neighbor(n, proven, urgent)),
        4 => number().prop_map(Happening::Connected),
        1 => number().prop_map(Happening::Disconnect),
        2 => number().prop_map(Happening::Offer),
        2 => number().prop_map(Happening::Invite),
        2 => (number(), number(), any::<u8>()).prop_map(|(from, peer, hops)| Happening::ForwardJoin(from, peer, hops)),
        2 => (number(), number(), any::<u8>(), prop::collection::vec(number(), 0..16))
            .prop_map(|(from, origin, hops, peers)| Happening::Shuffle(from, origin, hops, peers)),
        1 => number().prop_map(Happening::Lost),
        1 => number().prop_map(Happening::IncomingLost),
        2 => (1..200_000_u64).prop_map(Happening::Passes),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_view_stays_within_its_limits(
        happenings in prop::collection::vec(any_happening(), 0..150),
    ) {
        let limits = RoutingLimits { passive: 6, neighbours: 4, neighbours_wanted: 3, ..RoutingLimits::default() };
        let mut view = View::new(limits, addr(100), [1; 16], NOW);
        let mut now = NOW;
        let mut up = std::collections::BTreeSet::new();
        for happening in happenings {
            match happening {
                // The node hands on nothing that is from itself.
                Happening::Neighbor(100, ..) => {}
                Happening::Neighbor(number, is_proven, urgent) => {
                    let echo = is_proven.then(|| view.token_for(addr(number)));
                    view.neighbor(connection(number), addr(number), (THEIRS, echo), urgent, now);
                }
                Happening::Connected(number) => view.connected(addr(number), now),
                Happening::Disconnect(number) => view.disconnect(addr(number), now),
                Happening::Offer(number) => view.offer(addr(number), now),
                Happening::Invite(number) => view.invite(addr(number), now),
                Happening::ForwardJoin(from, peer, hops) => view.forward_join(addr(from), addr(peer), hops, now),
                Happening::Shuffle(from, origin, hops, peers) => {
                    let peers = peers.into_iter().map(addr).collect();
                    view.shuffle(addr(from), (addr(origin), THEIRS), hops, peers, now);
                }
                Happening::Lost(number) => view.lost(addr(number), now),
                Happening::IncomingLost(number) => view.incoming_lost(connection(number), now),
                Happening::Passes(millis) => {
                    now = now.after(Duration::from_millis(millis));
                    view.tick(now);
                    prop_assert!(view.deadline().is_none_or(|deadline| deadline > now));
                }
            }
            view.check();
            let events = view.events();
            prop_assert!(events.len() <= 16, "{events:?}");
            for event in events {
                match event {
                    Event::Up(addr) => prop_assert!(up.insert(addr)),
                    Event::Down(addr) => prop_assert!(up.remove(&addr)),
                    Event::Say(to, _) => prop_assert!(to != view.me),
                    Event::Spare(addr) => prop_assert!(up.contains(&addr)),
                }
            }
            prop_assert_eq!(view.up().collect::<std::collections::BTreeSet<_>>(), up.clone());
        }
    }
}
