//! How often each case asks for memory: never for a delivery, and a few times for a message.
//!
//! Counted by an allocator that only this test is linked with, so that the instructions of others
//! are not counted with its own.

use allocation_counter::measure;
use watchtower_cost::cases;

/// How often each unit of a case asks for memory.
const OF_EACH: &[(&str, u64)] = &[
    // The content, and the log's next place.
    ("publish/to-nobody", 2),
    ("publish/to-1000-at-rest", 2),
    ("publish/burst-to-1000", 2),
    // The lists of the command's fields besides, and of those of what it publishes.
    ("publish/webrocket", 5),
    ("publish/webtalk", 2),
    // The frame, the list of a message's frames, and, where the frame's length was not known
    // before, what shares it.
    ("encode/packets", 2),
    ("encode/ndjson", 3),
    ("encode/sse", 3),
    ("encode/webrocket", 3),
    ("decode/packets", 0),
    ("decode/websocket", 0),
    ("decode/webrocket", 3),
    ("decode/webtalk", 0),
    ("decode/whispernet", 1),
];

/// How often a run does as a whole. A thousand deliveries: the first makes the frame that all share,
/// unless the publisher has made it.
const OF_A_RUN: &[(&str, u64)] = &[
    ("deliver/packets", 0),
    ("deliver/ndjson", 3),
    ("deliver/sse", 3),
    ("deliver/webrocket", 3),
    ("deliver/burst-of-64", 0),
    // Six for each of 64 messages, however many peers there are, and room for what is kept of all.
    ("relay/whispernet-to-50", 6 * 64 + 9),
];

#[test]
fn a_delivery_asks_for_no_memory_and_a_message_a_few_times() {
    let mut differ = Vec::new();
    for case in cases() {
        let of_each = find(OF_EACH, case.name).map(|of_each| of_each * case.units);
        let expected = of_each.or(find(OF_A_RUN, case.name));
        let mut work = case.staged();
        let counted = measure(|| work.run()).count_total;
        if Some(counted) != expected {
            differ.push(format!("{}: {counted} allocations, {expected:?} expected", case.name));
        }
    }
    assert_eq!(differ, [""; 0]);
}

fn find(of: &[(&str, u64)], name: &str) -> Option<u64> {
    of.iter().find(|(case, _)| *case == name).map(|(_, allocations)| *allocations)
}

#[test]
fn an_allocation_is_counted() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}
