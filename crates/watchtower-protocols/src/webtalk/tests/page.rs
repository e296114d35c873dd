//! The page in `docs` says what the link says.

use super::super::frame::{BODY_BYTES_MAX, Body};
use super::super::{KEY_BYTES_MAX, LinkError, STORE_BYTES_MAX, STORE_KEYS_MAX};

const PAGE: &str = include_str!("../../../../../docs/webtalk.md");

#[test]
fn the_page_lists_every_error_with_its_sentence() {
    let row = |error: LinkError| {
        format!("| `{}` | {} | {} |", error.sentence(), error.meaning(), error.closes_link())
    };
    let expected: Vec<String> = LinkError::ALL.map(row).to_vec();
    let rows = PAGE.lines().skip_while(|line| !line.starts_with("| sentence |")).skip(2);
    let shown: Vec<&str> = rows.take_while(|line| line.starts_with("| ")).collect();
    assert_eq!(shown, expected);
}

#[test]
fn every_error_fits_into_a_frame_and_is_told_apart_by_its_sentence() {
    let mut sentences: Vec<_> = LinkError::ALL.map(LinkError::sentence).to_vec();
    for sentence in &sentences {
        Body { word: b"error", data: sentence.as_bytes() }.encode(&mut Vec::new()).unwrap();
    }
    sentences.sort_unstable();
    sentences.dedup();
    assert_eq!(sentences.len(), LinkError::ALL.len());
}

#[test]
fn the_limits_are_those_of_the_page() {
    assert_eq!(BODY_BYTES_MAX, 99_999);
    assert_eq!((STORE_KEYS_MAX, STORE_BYTES_MAX, KEY_BYTES_MAX), (65_536, 16 << 20, 99_986));
    for figure in ["99,999", "65,536", "16 MiB", "99,986"] {
        assert!(PAGE.contains(figure), "{figure}");
    }
}
