//! Files that go in parts, from node to node and put together again.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest, Sha256};
use watchtower_hub::Timestamp;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);
const PEER: &str = "10.0.0.2:55555";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn options() -> Options {
    Options::new(addr("0.0.0.0:55555"), addr("10.0.0.1:55555"))
}

fn node(options: Options) -> Node {
    Node::new(options, [7; 16], NOW)
}

/// A node with a key of its own, and one peer.
fn sender(key: u8) -> Node {
    let identity = Some(Identity::from_seed(&[key; 32]));
    let mut node = node(Options { identity, ..options() });
    node.connect(addr(PEER), Keep::Always, NOW);
    node.dialled(addr(PEER), addr("10.0.0.1:40000"), NOW).unwrap();
    actions(&mut node);
    node
}

fn actions(node: &mut Node) -> Vec<Action> {
    std::iter::from_fn(|| node.next_action()).collect()
}

fn sent(actions: Vec<Action>) -> Vec<Bytes> {
    let send = |action| if let Action::Send { object, .. } = action { Some(object) } else { None };
    actions.into_iter().filter_map(send).collect()
}

fn shown(actions: Vec<Action>) -> Vec<Shown> {
    let show = |action| if let Action::Show(shown) = action { Some(*shown) } else { None };
    actions.into_iter().filter_map(show).collect()
}

/// The object that a part goes in.
fn object(node: &mut Node, part: &Part) -> String {
    node.say_part(Some("goldy"), part, NOW).unwrap();
    let object = sent(actions(node)).pop().unwrap();
    String::from_utf8(object.to_vec()).unwrap()
}

fn receive(node: &mut Node, object: &str) -> Vec<Shown> {
    let connection = node.accepted(addr("10.0.0.9:40000"), addr("10.0.0.1:55555"), NOW).unwrap();
    node.received(connection, object.as_bytes(), NOW);
    node.closed(connection, NOW);
    shown(actions(node))
}

fn whole_of(contents: &[u8], part_bytes: u64) -> Whole {
    let sha256 = Sha256::digest(contents).into();
    let whole = Whole::new("photo.jpg", "image/jpeg", contents.len() as u64, sha256, [5; 16]).unwrap();
    whole.with_part_bytes(part_bytes)
}

fn part_of(whole: &Whole, contents: &[u8], number: u64) -> Part {
    let range = whole.range(number);
    let contents = Bytes::copy_from_slice(&contents[range.start as usize..range.end as usize]);
    whole.part(number, contents)
}

// One part.

/// [whispernet: 10] [whispernet: 4] [whispernet: 13] What a person reads on a
/// plain peer, a hashed id over it, and a signature as of any message that has
/// no `FileContents`.
#[test]
fn a_part_is_an_ordinary_message_with_one_more_key() {
    let mut node = sender(1);
    let whole = whole_of(b"abcdefgh", 3);
    let object = object(&mut node, &part_of(&whole, b"abcdefgh", 2));
    let body = "photo.jpg (part 2 of 3, NQ-pbo0DslEa1zIK)";
    let id = hashed_id("10.0.0.1:55555", body, 1_795_255_200_000);
    let identity = Identity::from_seed(&[1; 32]);
    let expected = format!(
        concat!(
            r#"{{"ID":"{id}","Addr":"10.0.0.1:55555","Body":"{body}","Nick":"goldy","#,
            r#""Timestamp":1795255200000,"FilePart":{{"Transfer":"05050505050505050505050505050505","#,
            r#""Number":2,"Bytes":8,"PartBytes":3,"SHA256":"#,
            r#""9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab","#,
            r#""Type":"image/jpeg","Contents":"ZGVm"}},"PubKey":"{key}","Sig":"{sig}"}}"#
        ),
        id = id,
        body = body,
        key = identity.public_key(),
        sig = identity.sign(&id, None),
    );
    assert_eq!(object, expected);
}

#[test]
fn a_part_is_shown_as_one_with_the_key_that_signed_it() {
    let whole = whole_of(b"abcdefgh", 3);
    let object = object(&mut sender(1), &part_of(&whole, b"abcdefgh", 3));
    let shown = receive(&mut node(options()), &object).pop().unwrap();
    let part = shown.part.unwrap();
    assert_eq!(part, whole.part(3, "gh".into()));
    assert_eq!((part.offset(), part.whole.name(), part.whole.bytes()), (6, "photo.jpg", 8));
    assert_eq!(shown.key, Some(Identity::from_seed(&[1; 32]).public_key()));
    assert_eq!(shown.file, None);
}

/// [whispernet: 11]
#[test]
fn parts_are_not_in_the_backlog() {
    let whole = whole_of(b"abcdefgh", 3);
    let part = part_of(&whole, b"abcdefgh", 1);
    let mut receiver = node(options());
    receive(&mut receiver, r#"{"ID":"1","Body":"hi"}"#);
    receive(&mut receiver, &object(&mut sender(1), &part));
    receiver.say_part(None, &part, NOW).unwrap();
    receiver.connect(addr(PEER), Keep::Always, NOW);
    receiver.dialled(addr(PEER), addr("10.0.0.1:40000"), NOW).unwrap();
    assert_eq!(sent(actions(&mut receiver)), [r#"{"ID":"1","Body":"hi"}"#]);
}

/// A part of any size within the limits is far below that of a message.
#[test]
fn a_part_fits_into_a_message_with_room_for_others() {
    let contents = vec![0; PART_BYTES as usize + 1];
    let whole = whole_of(&contents, PART_BYTES);
    assert_eq!(whole.parts(), 2);
    let object = object(&mut sender(1), &part_of(&whole, &contents, 1));
    assert!(object.len() < (1 << 20) + 1_000, "{}", object.len());
}

/// It does not keep the right one away.
#[test]
fn a_part_that_was_changed_on_the_way_is_dropped() {
    let whole = whole_of(b"abcdefgh", 3);
    let right = object(&mut sender(1), &part_of(&whole, b"abcdefgh", 2));
    let mut receiver = node(options());
    let changes = [
        (r#""Contents":"ZGVm""#, r#""Contents":"ZGVn""#),
        (r#""Contents":"ZGVm""#, r#""Contents":"ZGVmZw==""#),
        (r#""Contents":"ZGVm""#, r#""Contents":"not base64""#),
        (r#""Number":2"#, r#""Number":1"#),
        (r#""Number":2"#, r#""Number":0"#),
        (r#""Number":2"#, r#""Number":18446744073709551615"#),
        (r#""Bytes":8"#, r#""Bytes":9"#),
        (r#""Bytes":8"#, r#""Bytes":18446744073709551615"#),
        (r#""PartBytes":3"#, r#""PartBytes":0"#),
        (r#""PartBytes":3"#, r#""PartBytes":18446744073709551615"#),
        (r#""Transfer":"05"#, r#""Transfer":"06"#),
        (r#""Transfer":"05"#, r#""Transfer":""#),
        (r#""SHA256":"9"#, r#""SHA256":"8"#),
        (r#""SHA256":"9c"#, r#""SHA256":"9C"#),
        (r#""Type":"image/jpeg""#, r#""Type":"text/html""#),
    ];
    for (from, to) in changes {
        let changed = right.replace(from, to);
        assert_ne!(changed, right);
        assert_eq!(receive(&mut receiver, &changed), [], "{to}");
    }
    assert_eq!(receiver.counts().mismatched, changes.len() as u64);
    assert!(receive(&mut receiver, &right)[0].part.is_some());
}

/// Whoever means something else by it is not disconnected for it, nor is its
/// message kept from anybody.
#[test]
fn a_key_of_that_name_and_another_form_is_not_known() {
    for value in ["1", "null", "[]", "{}", r#""a""#, r#"{"Transfer":"a","Number":-1}"#, r#""\ud800""#] {
        let object = format!(r#"{{"ID":"1","Body":"hi","FilePart":{value}}}"#);
        let shown = receive(&mut node(options()), &object);
        assert_eq!(shown.iter().map(|shown| &shown.part).collect::<Vec<_>>(), [&None], "{value}");
    }
    // 2^64
    let object = object(&mut sender(1), &part_of(&whole_of(b"a", 1), b"a", 1));
    let object = object.replace(r#""Bytes":1"#, r#""Bytes":18446744073709551616"#);
    assert_eq!(receive(&mut node(options()), &object)[0].part, None);
}

#[test]
fn a_name_never_leads_elsewhere() {
    let whole = Whole::new("../../etc/\u{202e}passwd", "", 1, [0; 32], [0; 16]).unwrap();
    assert_eq!(whole.name(), "passwd");
    // Nor the name that another sender made.
    let object = object(&mut sender(1), &whole.part(1, "x".into()));
    let message = Message::parse(object.as_bytes()).unwrap().unwrap();
    let body = format!("/a/..\\../{}", message.body);
    let message = Message { body: body.into(), id: "plain".into(), sig: None, ..message };
    let part = Part::of(&message).unwrap().unwrap();
    assert_eq!(part.whole.name(), "passwd");
}

// Many parts.

fn from(number: u8) -> Sender {
    let mut shown = receive(&mut node(options()), &format!(r#"{{"ID":"1","Addr":"{number}","Body":"a"}}"#));
    Sender::of(&shown.pop().unwrap())
}

fn after(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

fn claiming(bytes: u64, transfer: u32) -> Whole {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&transfer.to_be_bytes());
    Whole::new("a", "", bytes, [0; 32], id)
        .unwrap_or_else(|_| Whole::new("a", "", 1, [0; 32], id).unwrap().with_part_bytes(1))
}

fn error(taken: Taken) -> Option<TransferError> {
    if let Taken::Refused { error, .. } = taken { Some(error) } else { None }
}

#[test]
fn a_file_without_contents_has_one_part() {
    let whole = whole_of(b"", 3);
    assert_eq!((whole.parts(), whole.range(1)), (1, 0..0));
    let mut assembler = Assembler::new(FileLimits::default());
    let taken = assembler.take(&part_of(&whole, b"", 1), from(1), NOW);
    assert!(matches!(taken, Taken::New { bytes_done: 0, is_last: true, .. }));
}

#[test]
fn the_same_transfer_of_two_senders_is_two_files() {
    let whole = whole_of(b"abcdefgh", 3);
    let mut assembler = Assembler::new(FileLimits::default());
    let mut transfers = Vec::new();
    for (number, is_last_one) in [(1, false), (2, false), (3, true)] {
        for sender in [from(1), from(2)] {
            let taken = assembler.take(&part_of(&whole, b"abcdefgh", number), sender, NOW);
            let Taken::New { transfer, is_last, .. } = taken else { panic!("{taken:?}") };
            assert_eq!(is_last, is_last_one);
            transfers.push(transfer);
        }
    }
    assert_eq!(transfers[..2], transfers[2..4]);
    assert_eq!(transfers[..2], transfers[4..]);
    assert_ne!(transfers[0], transfers[1]);
}

#[test]
fn parts_after_the_end_begin_nothing() {
    let whole = whole_of(b"abcdefgh", 3);
    let mut assembler = Assembler::new(FileLimits::default());
    for number in 1..=3 {
        assembler.take(&part_of(&whole, b"abcdefgh", number), from(1), NOW);
    }
    for number in 1..=3 {
        let taken = assembler.take(&part_of(&whole, b"abcdefgh", number), from(1), NOW);
        assert_eq!(taken, Taken::Repeated);
    }
    assert_eq!(assembler.deadline(), None);
}

/// Saving it failed, say.
#[test]
fn parts_of_a_file_that_was_given_up_begin_nothing() {
    let whole = whole_of(b"abcdefgh", 3);
    let mut assembler = Assembler::new(FileLimits::default());
    let taken = assembler.take(&part_of(&whole, b"abcdefgh", 1), from(1), NOW);
    let Taken::New { transfer, .. } = taken else { panic!("{taken:?}") };
    assembler.give_up(transfer);
    assert_eq!(assembler.take(&part_of(&whole, b"abcdefgh", 2), from(1), NOW), Taken::Repeated);
    assert_eq!(assembler.expire(after(1_000_000)), []);
}

#[test]
fn a_file_whose_parts_do_not_come_is_given_up() {
    let limits = FileLimits::default();
    let whole = whole_of(b"abcdefgh", 3);
    let mut assembler = Assembler::new(limits);
    assembler.take(&part_of(&whole, b"abcdefgh", 2), from(1), NOW);
    assembler.take(&part_of(&whole, b"abcdefgh", 3), from(1), after(60));
    assembler.take(&part_of(&whole, b"abcdefgh", 3), from(1), after(100));
    assert_eq!(assembler.deadline(), Some(after(180)), "the repeated one prolongs nothing");
    assert_eq!(assembler.expire(after(179)), []);
    let expired = assembler.expire(after(180));
    let missing = TransferError::Missing { parts_missing: 1, parts: 3 };
    assert!(matches!(&expired[..], [(TransferId(1), late, error)] if *late == whole && *error == missing));
    assert_eq!(missing.to_string(), "1 of 3 parts did not come");
    assert_eq!(assembler.deadline(), None);
    assert_eq!(assembler.take(&part_of(&whole, b"abcdefgh", 1), from(1), after(181)), Taken::Repeated);
}

#[test]
fn a_file_that_trickles_in_is_given_up() {
    let mut assembler = Assembler::new(FileLimits { age: Duration::from_secs(200), ..FileLimits::default() });
    let whole = whole_of(b"abcdefgh", 1);
    for (number, seconds) in [(1, 0), (2, 90), (3, 180)] {
        assembler.take(&part_of(&whole, b"abcdefgh", number), from(1), after(seconds));
    }
    assert_eq!(assembler.deadline(), Some(after(200)));
}

#[test]
fn a_file_that_is_too_large_is_refused_once() {
    let mut assembler = Assembler::new(FileLimits::default());
    let max = 4 << 30;
    let whole = claiming(max + 1, 1);
    let too_large = TransferError::TooLarge { bytes: max + 1, bytes_max: max };
    let part = whole.part(1, Bytes::new());
    assert_eq!(error(assembler.take(&part, from(1), NOW)), Some(too_large));
    assert_eq!(assembler.take(&part, from(1), NOW), Taken::Repeated);
    assert_eq!(error(assembler.take(&claiming(max, 2).part(1, Bytes::new()), from(1), NOW)), None);
}

#[test]
fn no_more_parts_are_counted_than_allowed() {
    let limits = FileLimits { file_bytes: u64::MAX, bytes: u64::MAX, ..FileLimits::default() };
    let mut assembler = Assembler::new(limits);
    let parts_max = claiming(PARTS_MAX, 1).with_part_bytes(1);
    assert_eq!(error(assembler.take(&parts_max.part(1, "x".into()), from(1), NOW)), None);
    let more = claiming(PARTS_MAX + 1, 2).with_part_bytes(1);
    let too_many = Some(TransferError::TooManyParts(PARTS_MAX + 1));
    assert_eq!(error(assembler.take(&more.part(1, "x".into()), from(1), NOW)), too_many);
    assert!(Whole::new("a", "", u64::MAX, [0; 32], [0; 16]).is_err());
    assert!(Whole::new("a", "", PARTS_MAX * PART_BYTES, [0; 32], [0; 16]).is_ok());
}

#[test]
fn all_files_under_way_share_a_bound() {
    let mut assembler = Assembler::new(FileLimits { bytes: 10, ..FileLimits::default() });
    assert_eq!(
        error(assembler.take(&claiming(6, 1).with_part_bytes(1).part(1, "x".into()), from(1), NOW)),
        None
    );
    let refused = error(assembler.take(&claiming(5, 2).with_part_bytes(1).part(1, "x".into()), from(2), NOW));
    assert_eq!(refused, Some(TransferError::TooManyBytes(6)));
}

#[test]
fn files_that_never_end_take_bounded_memory_and_leave_others_alone() {
    let mut assembler = Assembler::new(FileLimits::default());
    let honest = whole_of(b"abcdefgh", 3);
    assembler.take(&part_of(&honest, b"abcdefgh", 1), from(1), NOW);
    let attacker = from(2);
    for transfer in 0..10_000 {
        let taken = assembler.take(&claiming(2 << 20, transfer).part(1, Bytes::new()), attacker, NOW);
        assert_eq!(error(taken), (transfer >= 4).then_some(TransferError::TooManyFiles(4)));
    }
    for number in 2..=3 {
        let taken = assembler.take(&part_of(&honest, b"abcdefgh", number), from(1), NOW);
        assert!(matches!(taken, Taken::New { is_last, .. } if is_last == (number == 3)), "{taken:?}");
    }
    for sender in 3..=5 {
        for transfer in 0..4 {
            assembler.take(&claiming(2 << 20, transfer).part(1, Bytes::new()), from(sender), NOW);
        }
    }
    let refused = error(assembler.take(&claiming(1, 1).part(1, "x".into()), from(6), NOW));
    assert_eq!(refused, Some(TransferError::TooManyFiles(16)));
    assert_eq!(assembler.expire(after(120)).len(), 16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// From node to node, each part at least once, in any order.
    #[test]
    fn any_file_arrives_intact_in_any_order(
        contents in vec(any::<u8>(), 0..300),
        part_bytes in 10..400_u64,
        repeated in vec(any::<Index>(), 0..10),
        order in any::<u64>(),
    ) {
        let whole = whole_of(&contents, part_bytes);
        let mut numbers: Vec<u64> = (1..=whole.parts()).collect();
        numbers.extend(repeated.iter().map(|at| at.index(whole.parts() as usize) as u64 + 1));
        numbers.sort_by_cached_key(|number| Sha256::digest((number ^ order).to_be_bytes()));

        let (mut node, mut receiver) = (sender(1), node(options()));
        let mut assembler = Assembler::new(FileLimits::default());
        let mut file = vec![0xaa; contents.len()];
        let mut ends = 0;
        for number in numbers {
            let object = object(&mut node, &part_of(&whole, &contents, number));
            let shown = receive(&mut receiver, &object).pop().unwrap();
            let part = shown.part.as_ref().unwrap();
            let taken = assembler.take(part, Sender::of(&shown), NOW);
            prop_assert_eq!(error(taken), None);
            if let Taken::New { is_last, .. } = taken {
                let start = part.offset() as usize;
                file[start..start + part.contents.len()].copy_from_slice(&part.contents);
                ends += u32::from(is_last);
                prop_assert_eq!(part.whole.has_hash(Sha256::digest(&file).into()), is_last || contents == file);
            }
        }
        prop_assert_eq!((ends, file), (1, contents));
    }

    #[test]
    fn a_file_with_a_part_missing_never_ends(
        bytes in 2..300_u64,
        missing in any::<Index>(),
        tries in vec(any::<Index>(), 0..100),
    ) {
        let contents = vec![0; bytes as usize];
        let whole = whole_of(&contents, 1);
        let missing = missing.index(bytes as usize) as u64 + 1;
        let mut assembler = Assembler::new(FileLimits::default());
        for number in tries.iter().map(|at| at.index(bytes as usize) as u64 + 1).chain(1..=bytes) {
            let taken = match number == missing {
                // The same number of another file, or from somebody else.
                true => assembler.take(&claiming(bytes, 9).with_part_bytes(1).part(number, "x".into()), from(1), NOW),
                false => assembler.take(&part_of(&whole, &contents, number), from(1), NOW),
            };
            let is_last = matches!(taken, Taken::New { is_last: true, .. });
            prop_assert!(!is_last);
        }
    }

    #[test]
    fn ranges_are_the_file_without_gap(bytes in any::<u64>(), part_bytes in 1..u64::MAX, number in any::<u64>()) {
        let whole = whole_of(b"", 1);
        let whole = Whole::new(whole.name(), "", bytes.min(1 << 30), [0; 32], [0; 16]).unwrap();
        let whole = whole.with_part_bytes(part_bytes);
        let number = number % whole.parts() + 1;
        prop_assert_eq!(whole.range(1).start, 0);
        prop_assert_eq!(whole.range(whole.parts()).end, whole.bytes());
        prop_assert_eq!(whole.range(number).end, whole.range(number + 1).start);
        prop_assert!(!whole.range(number).is_empty() || whole.bytes() == 0);
    }
}
