//! The tree, one branch or a few at a time.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);

/// Before and behind the tree's own address.
const LOW: u8 = 1;
const ME: u8 = 100;
const HIGH: u8 = 200;

fn addr(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 55_555).into()
}

fn id(number: usize) -> ShortId {
    ShortId::of(&number.to_string())
}

fn ids(numbers: std::ops::Range<usize>) -> Vec<ShortId> {
    numbers.map(id).collect()
}

fn after(millis: u64) -> Timestamp {
    NOW.after(Duration::from_millis(millis))
}

fn control(to: u8, control: Control) -> (SocketAddr, Sent) {
    (addr(to), Sent::Control(control))
}

fn message(to: u8, object: &'static str) -> (SocketAddr, Sent) {
    (addr(to), Sent::Message(object.into()))
}

fn all() -> Audience {
    Audience::all_but(None)
}

fn tree(neighbours: &[u8]) -> Tree {
    let mut tree = Tree::new(RoutingLimits::default(), addr(ME), [7; 16], NOW);
    for neighbour in neighbours {
        tree.up(addr(*neighbour), NOW);
    }
    tree
}

impl Tree {
    /// A message from a neighbour, and to whom it is pushed.
    #[track_caller]
    fn pushed(&mut self, number: usize, from: Option<u8>, now: Timestamp) -> Vec<SocketAddr> {
        let (pushed, sends) = self.spread(id(number), &"object".into(), all(), from.map(addr), now);
        assert_eq!(sends, []);
        pushed
    }

    fn check(&self) {
        assert!(self.missing.len() <= MISSING_MAX);
        for (neighbour, branch) in &self.branches {
            assert!(branch.waiting.len() < IDS_MAX && branch.promised <= IDS_MAX);
            let promised = self.missing.values().filter(|missing| missing.owners.contains(neighbour));
            assert_eq!(promised.count(), branch.promised);
        }
        assert!(self.missing.keys().all(|id| !self.recent.contains(*id)));
    }
}

#[test]
fn a_message_is_pushed_to_all_at_first_and_never_back() {
    let mut tree = tree(&[1, 2, 3]);
    assert_eq!(tree.pushed(1, None, NOW), [addr(1), addr(2), addr(3)]);
    assert_eq!(tree.pushed(2, Some(2), NOW), [addr(1), addr(3)]);
    let (pushed, _) =
        tree.spread(id(3), &"object".into(), Audience::all_but(Some(addr(3))), Some(addr(2)), NOW);
    assert_eq!(pushed, [addr(1)], "nor to whom it is from");
}

/// What stays eager is a tree.
#[test]
fn over_a_branch_that_repeats_go_only_ids() {
    let mut tree = tree(&[LOW, HIGH]);
    tree.pushed(1, Some(LOW), NOW);
    assert_eq!(tree.repeated(addr(HIGH), id(1), NOW), Some(Control::Prune {}));
    assert_eq!(tree.pushed(2, Some(LOW), NOW), []);
    assert_eq!(tree.deadline(), Some(after(250)));
    assert_eq!(tree.tick(after(249)), (vec![], vec![]));
    assert_eq!(tree.tick(after(250)).0, [control(HIGH, Control::IHave(vec![id(2)]))]);
    assert_eq!(tree.deadline(), None);

    tree.prune(addr(LOW));
    assert_eq!(tree.pushed(3, None, NOW), [], "pruned from either end");
    assert_eq!(tree.pushed(4, Some(HIGH), NOW), [], "what brings something new is eager again");
    assert_eq!(tree.pushed(5, None, NOW), [addr(HIGH)]);
}

#[test]
fn who_goes_on_sending_what_came_before_is_told_once_a_second() {
    let mut tree = tree(&[1]);
    tree.pushed(1, None, NOW);
    assert_eq!(tree.repeated(addr(1), id(1), NOW), Some(Control::Prune {}));
    assert_eq!(tree.repeated(addr(1), id(1), after(999)), None);
    assert_eq!(tree.repeated(addr(1), id(1), after(1_000)), Some(Control::Prune {}));
    assert_eq!(tree.repeated(addr(2), id(1), NOW), None, "no neighbour");
}

#[test]
fn of_two_neighbours_one_announces_only_what_it_was_not_told_of() {
    let mut tree = tree(&[LOW, HIGH]);
    tree.prune(addr(LOW));
    tree.prune(addr(HIGH));
    for number in 1..4 {
        tree.pushed(number, None, NOW);
    }
    tree.i_have(addr(LOW), &[id(1)], NOW);
    assert_eq!(tree.tick(after(250)).0, [control(HIGH, Control::IHave(ids(1..4)))]);
    tree.i_have(addr(LOW), &[id(2)], after(500));
    assert_eq!(tree.tick(after(750)).0, [control(LOW, Control::IHave(vec![id(3)]))]);
}

/// The tree heals.
#[test]
fn a_message_that_does_not_come_is_asked_for_of_one_after_the_other() {
    let mut tree = tree(&[1, 2, 3]);
    tree.prune(addr(2));
    tree.i_have(addr(2), &ids(1..3), NOW);
    tree.i_have(addr(3), &[id(1)], after(100));
    tree.i_have(addr(2), &[id(1)], after(200));
    assert_eq!(tree.deadline(), Some(after(1_000)));
    assert_eq!(tree.tick(after(999)).0, []);
    assert_eq!(tree.pushed(2, Some(1), after(999)), [addr(3)], "this one came");
    assert_eq!(tree.tick(after(1_000)).0, [control(2, Control::Graft(vec![id(1)]))]);
    assert_eq!(tree.pushed(3, None, after(1_000)), [addr(1), addr(2), addr(3)], "eager again");
    assert_eq!(tree.tick(after(1_500)).0, [control(3, Control::Graft(vec![id(1)]))]);
    assert_eq!(tree.tick(after(2_000)), (vec![], vec![]), "there is nobody left to ask");
    assert_eq!(tree.deadline(), None);
    tree.check();
}

#[test]
fn what_is_asked_for_is_given_once() {
    let mut tree = tree(&[1, 2]);
    tree.prune(addr(1));
    tree.spread(id(1), &"one".into(), all(), None, NOW);
    tree.spread(id(2), &"two".into(), all(), Some(addr(1)), NOW);
    let wanted = ids(1..4);
    assert_eq!(tree.graft(addr(1), &wanted), [message(1, "one")], "it has the other one itself");
    for _ in 0..1_000 {
        assert_eq!(tree.graft(addr(1), &wanted), []);
        assert_eq!(tree.graft(addr(2), &wanted), [], "they were pushed to it");
        assert_eq!(tree.graft(addr(3), &wanted), [], "no neighbour");
    }
}

/// [whispernet: messages] Never the same ID twice.
#[test]
fn what_came_while_the_node_flooded_is_not_asked_for_though_it_is_kept_no_more() {
    let limits = RoutingLimits { told_of: 2, ..RoutingLimits::default() };
    let mut tree = Tree::new(limits, addr(ME), [7; 16], NOW);
    for number in 0..4 {
        tree.keep(id(number), &"object".into(), all(), NOW);
    }
    let long = vec![b'x'; KEPT_WHILE_FLOODING_MAX + 1];
    tree.keep(id(4), &long.into(), all(), NOW);
    tree.up(addr(HIGH), NOW);
    tree.i_have(addr(HIGH), &ids(0..6), NOW);
    assert_eq!(tree.tick(after(1_000)).0, [control(HIGH, Control::Graft(vec![id(5)]))]);
    tree.check();
}

/// [whispernet: 11]
#[test]
fn a_new_neighbour_is_told_of_the_last_messages_and_sent_what_it_asks_for() {
    let mut tree = tree(&[]);
    for number in 0..60 {
        tree.pushed(number, None, NOW);
    }
    tree.up(addr(HIGH), NOW);
    assert_eq!(tree.tick(after(250)).0, [control(HIGH, Control::IHave(ids(10..60)))]);
    assert_eq!(tree.graft(addr(HIGH), &[id(10)]), [message(HIGH, "object")]);
    tree.down(addr(HIGH));
    tree.up(addr(HIGH), NOW);
    assert_eq!(tree.graft(addr(HIGH), &[id(10)]), [message(HIGH, "object")], "it may have lost it");
}

#[test]
fn what_is_too_large_to_be_asked_for_is_pushed_to_all() {
    let limits = RoutingLimits { recent_bytes: 3, ..RoutingLimits::default() };
    let mut tree = Tree::new(limits, addr(ME), [7; 16], NOW);
    (1..4).for_each(|number| tree.up(addr(number), NOW));
    tree.prune(addr(2));
    let (pushed, sends) = tree.spread(id(1), &"object".into(), all(), Some(addr(1)), NOW);
    assert_eq!((pushed, sends), (vec![addr(2), addr(3)], vec![]));
}

// Neighbours that mean harm.

#[test]
fn who_prunes_everybody_harms_himself_alone() {
    let mut tree = tree(&[1, 2]);
    for _ in 0..1_000 {
        tree.prune(addr(1));
    }
    assert_eq!(tree.pushed(1, None, NOW), [addr(2)]);
}

#[test]
fn promises_are_bounded_and_keep_nobody_else_from_making_some() {
    let mut tree = tree(&[1, 2, 3]);
    for round in 0..100 {
        tree.i_have(addr(1), &ids(round * IDS_MAX..(round + 1) * IDS_MAX), NOW);
        tree.check();
    }
    assert_eq!(tree.missing.len(), IDS_MAX);
    tree.i_have(addr(2), &[id(1_000_000)], NOW);
    let (sends, _) = tree.tick(after(1_000));
    assert!(sends.contains(&control(2, Control::Graft(vec![id(1_000_000)]))));
    tree.i_have(addr(4), &[id(2_000_000)], NOW);
    assert!(!tree.missing.contains_key(&id(2_000_000)), "no neighbour");
}

#[test]
fn who_promises_and_does_not_deliver_is_found_out() {
    let mut tree = tree(&[1, 2]);
    let mut now = NOW;
    for number in 0..=BROKEN_MAX as usize {
        assert_eq!(tree.tick(now).1, []);
        tree.i_have(addr(1), &[id(number)], now);
        tree.i_have(addr(2), &[id(number)], now);
        now = now.after(Duration::from_secs(1));
        assert_eq!(tree.tick(now).0, [control(1, Control::Graft(vec![id(number)]))]);
        now = now.after(Duration::from_millis(500));
        assert_eq!(tree.tick(now).0, [control(2, Control::Graft(vec![id(number)]))]);
        assert_eq!(tree.pushed(number, Some(2), now), [addr(1)], "it is sent them all the same");
    }
    assert_eq!(tree.tick(now).1, [addr(1)]);
    tree.down(addr(1));
    tree.check();
}

#[derive(Debug, Clone)]
enum Happening {
    Up(u8),
    Down(u8),
    Spread(usize, Option<u8>),
    Repeated(usize, u8),
    IHave(usize, usize, u8),
    Graft(usize, u8),
    Prune(u8),
    Passes(u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let neighbour = || 0..4_u8;
    let number = || 0..700_usize;
    prop_oneof![
        1 => neighbour().prop_map(Happening::Up),
        1 => neighbour().prop_map(Happening::Down),
        4 => (number(), proptest::option::of(neighbour())).prop_map(|(number, from)| Happening::Spread(number, from)),
        2 => (number(), neighbour()).prop_map(|(number, from)| Happening::Repeated(number, from)),
        4 => (number(), 1..300_usize, neighbour()).prop_map(|(first, count, from)| Happening::IHave(first, count, from)),
        2 => (number(), neighbour()).prop_map(|(number, from)| Happening::Graft(number, from)),
        1 => neighbour().prop_map(Happening::Prune),
        3 => (1..2_000_u64).prop_map(Happening::Passes),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_tree_stays_within_its_limits(
        happenings in prop::collection::vec(any_happening(), 0..120),
    ) {
        let limits = RoutingLimits { recent_messages: 20, ..RoutingLimits::default() };
        let mut tree = Tree::new(limits, addr(ME), [7; 16], NOW);
        let (mut now, mut given) = (NOW, std::collections::BTreeSet::new());
        for happening in happenings {
            match happening {
                Happening::Up(number) if !tree.branches.contains_key(&addr(number)) => tree.up(addr(number), now),
                Happening::Up(_) => {}
                Happening::Down(number) => {
                    tree.down(addr(number));
                    given.retain(|(_, to)| *to != number);
                }
                Happening::Spread(number, from) => {
                    // The node asks for none that it has seen.
                    if !tree.recent.contains(id(number)) {
                        given.retain(|(other, _)| *other != number);
                        let (pushed, _) = tree.spread(id(number), &"object".into(), all(), from.map(addr), now);
                        prop_assert!(pushed.iter().all(|to| from.map(addr) != Some(*to)));
                    }
                }
                Happening::Repeated(number, from) => drop(tree.repeated(addr(from), id(number), now)),
                Happening::IHave(first, count, from) => tree.i_have(addr(from), &ids(first..first + count), now),
                Happening::Graft(number, from) => {
                    if !tree.graft(addr(from), &[id(number)]).is_empty() {
                        prop_assert!(given.insert((number, from)), "given twice");
                    }
                }
                Happening::Prune(number) => tree.prune(addr(number)),
                Happening::Passes(millis) => {
                    now = now.after(Duration::from_millis(millis));
                    let (sends, _) = tree.tick(now);
                    prop_assert!(sends.iter().all(|(to, _)| tree.branches.contains_key(to)));
                    prop_assert!(tree.deadline().is_none_or(|deadline| deadline > now));
                }
            }
            tree.check();
        }
    }
}
