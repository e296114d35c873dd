//! Damaged files: what they cost, and that it is told.

use super::*;

/// All that a channel's log is said to have lost, without reading it.
fn losses(store: &dyn Store, channel: &ChannelName) -> Vec<u64> {
    let mut from = 0;
    let ranges = std::iter::from_fn(|| {
        let lost = store.lost(channel, from)?;
        from = lost.end;
        Some(lost)
    });
    ranges.flatten().collect()
}

/// Opens a damaged store, and sees that nothing is missing but what is said to
/// be, that no offset is given again, and that it is whole afterwards. Returns
/// how many messages were lost.
fn survives(folder: &Path, channels: &[ChannelName], what: &str) -> usize {
    let told = Told::default();
    let store = DiskStore::open(told.options(folder, 4096)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut lost_in_all = 0;
    for channel in channels {
        let Some(ends) = store.ends(channel) else { panic!("{what}: channel {channel} is gone") };
        let (found, lost) = read_all(&store, channel);
        let mut all = [&found[..], &lost[..]].concat();
        all.sort_unstable();
        assert_eq!(all, (ends.first..ends.next).collect::<Vec<_>>(), "{what}: {:?}", told.all());
        assert!(ends.next >= 41, "{what}: offsets of {channel} would be given again: {:?}", told.all());
        assert_eq!(ends.first, 1, "{what}");
        // The time of the first message: of one that is lost, if that is known,
        // else of the first that is not.
        let oldest = ends.oldest.map_or(0, Timestamp::as_millis);
        assert!((1..=found[0]).contains(&oldest), "{what}: {channel} began {oldest}, and has {found:?}");
        assert_eq!(losses(&store, channel), lost, "{what}: {channel}, without reading");
        lost_in_all += lost.iter().filter(|offset| **offset <= 40).count();
        for offset in lost {
            assert!(told.lost(channel).contains(&offset), "{what}: {channel} {offset}: {:?}", told.all());
        }
        store.commit(append(channel, ends.next)).wait().unwrap();
    }
    let secret = store.record(&Key::Value("secret".into()));
    let is_as_it_was =
        secret == Some(Record::Value { name: "secret".into(), bytes: Bytes::from_static(b"s") });
    assert!(is_as_it_was || (secret.is_none() && !told.all().is_empty()), "{what}: {secret:?}");
    until("the damaged files are set aside", || {
        let view = store.shared.view.read();
        view.sealed.iter().all(|segment| !segment.is_damaged())
    });
    let ends: Vec<_> = channels.iter().map(|channel| store.ends(channel)).collect();
    let lost: Vec<_> = channels.iter().map(|channel| losses(&store, channel)).collect();
    drop(store);
    let told_again = Told::default();
    let report = check(folder, told_again.options(folder, 4096).observer, &mut |_| {}).unwrap();
    // What is not a message is not read while there is an index that says it too.
    let unnoticed = usize::from(told.all().is_empty());
    assert_eq!(report.missing, lost.iter().flatten().count() as u64, "{what}");
    assert!(report.damaged <= unnoticed, "{what}: {:?} after {:?}", told_again.all(), told.all());
    let store = DiskStore::open(told_again.options(folder, 4096)).unwrap();
    assert_eq!(channels.iter().map(|channel| store.ends(channel)).collect::<Vec<_>>(), ends, "{what}");
    let still = channels.iter().map(|channel| losses(&store, channel));
    assert_eq!(still.collect::<Vec<_>>(), lost, "{what}, after another start");
    lost_in_all
}

/// The places of a file that are tried: a few, unless `STORE_DAMAGES` says how
/// many, or `all`.
fn places(length: u64, usual: usize, at: &mut u64) -> Vec<u64> {
    let asked = std::env::var("STORE_DAMAGES").unwrap_or_default();
    if asked == "all" {
        return (0..length).collect();
    }
    let tried = (0..asked.parse().unwrap_or(usual)).filter_map(|_| {
        *at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*at >> 16).checked_rem(length)
    });
    tried.collect()
}

#[test]
fn a_flipped_byte_in_any_file_costs_one_message_at_most_and_is_told() {
    let (whole, channels) = sample();
    let mut costs = BTreeMap::new();
    let mut at = 0x5eed_u64;
    for file in files(whole.path()) {
        let name = file.strip_prefix(whole.path()).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        for position in places(length, 6, &mut at) {
            let folder = copy_of(whole.path());
            let mut bytes = fs::read(folder.path().join(name)).unwrap();
            // Each bit has its turn.
            bytes[position as usize] ^= 1 << (position % 8);
            fs::write(folder.path().join(name), bytes).unwrap();
            let lost = survives(folder.path(), &channels, &format!("{} at {position}", name.display()));
            assert!(lost <= 1, "{} at {position}: {lost} are lost", name.display());
            *costs.entry(lost).or_insert(0) += 1;
        }
    }
    assert!(costs[&0] > 0 && costs[&1] > 0, "both were tried: {costs:?}");
}

#[test]
fn a_byte_that_flips_while_a_store_is_open_costs_one_message_at_most_and_is_told() {
    use std::os::unix::fs::FileExt;
    let (whole, channels) = sample();
    let mut at = 0xbeef_u64;
    for file in files(&whole.path().join("log")) {
        let name = file.strip_prefix(whole.path()).unwrap();
        let bytes = fs::read(&file).unwrap();
        for position in places(bytes.len() as u64, 6, &mut at) {
            let what = format!("{} at {position}", name.display());
            let folder = copy_of(whole.path());
            let flipped = fs::OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
            let told = Told::default();
            let store = DiskStore::open(told.options(folder.path(), 4096)).unwrap();
            let byte = bytes[position as usize] ^ 1 << (position % 8);
            flipped.write_all_at(&[byte], position).unwrap();
            let mut lost_in_all = 0;
            for channel in &channels {
                let (found, lost) = read_all(&store, channel);
                assert_eq!(found.len() + lost.len(), 40, "{what}: {channel}");
                assert_eq!(losses(&store, channel), lost, "{what}: {channel}");
                assert_eq!(told.lost(channel), lost, "{what}: {channel}: {:?}", told.all());
                lost_in_all += lost.len();
            }
            assert!(lost_in_all <= 1, "{what}: {lost_in_all} are lost: {:?}", told.all());
        }
    }
}

#[test]
fn what_was_lost_is_told_again_at_each_start_and_by_a_check() {
    let (whole, channels) = sample();
    let segments: Vec<_> = files(&whole.path().join("log"));
    let middle = segments.iter().filter(|path| path.extension().unwrap() == "log").nth(1).unwrap();
    fs::OpenOptions::new().write(true).open(middle).unwrap().set_len(64).unwrap();
    let store = DiskStore::open(Told::default().options(whole.path(), 4096)).unwrap();
    let lost: Vec<_> = channels.iter().map(|channel| store.lost(channel, 0).unwrap()).collect();
    until("the damaged file is set aside", || {
        store.shared.view.read().sealed.iter().all(|segment| !segment.is_damaged())
    });
    drop(store);
    let missing = |told: &Told| {
        let missing = |notice| match notice {
            Notice::Missing { channel, offsets } => Some((channel, offsets)),
            _ => None,
        };
        told.all().into_iter().filter_map(missing).collect::<Vec<_>>()
    };
    let expected: Vec<_> = channels.iter().cloned().zip(lost.iter().cloned()).collect();
    let told = Told::default();
    let store = DiskStore::open(told.options(whole.path(), 4096)).unwrap();
    assert_eq!(missing(&told), expected);
    // What is dropped is not missing.
    let (ticket, done) = Ticket::new();
    store.trim(&channels[0], Epoch::from_bits(1), lost[0].end, done).unwrap();
    ticket.wait().unwrap();
    assert_eq!(store.lost(&channels[0], 0), None);
    drop(store);
    let told = Told::default();
    let report = check(whole.path(), told.options(whole.path(), 4096).observer, &mut |_| {}).unwrap();
    assert_eq!(missing(&told), expected[1..]);
    assert_eq!(report.missing, lost[1..].iter().map(|lost| lost.end - lost.start).sum::<u64>());
}

#[test]
fn a_truncated_file_is_told_and_the_rest_is_served() {
    let (whole, channels) = sample();
    let segments: Vec<_> = files(whole.path());
    let mut at = 0xfeed_u64;
    for file in &segments {
        let name = file.strip_prefix(whole.path()).unwrap();
        let length = fs::metadata(file).unwrap().len();
        let has_index = file.with_extension("index").exists();
        for position in places(length, 3, &mut at) {
            let folder = copy_of(whole.path());
            let truncated = fs::OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
            truncated.set_len(position).unwrap();
            // What the process was writing when it ended, and lost by damage,
            // cannot be told from what it had not written yet.
            if has_index || name.extension().is_none_or(|extension| extension != "log") {
                survives(folder.path(), &channels, &format!("{} cut to {position}", name.display()));
            } else {
                let told = Told::default();
                let store = DiskStore::open(told.options(folder.path(), 4096)).unwrap();
                assert!(channels.iter().all(|channel| store.ends(channel).unwrap().next > 30));
            }
        }
    }
}

#[test]
fn a_missing_segment_is_told_and_the_rest_is_served() {
    let (whole, channels) = sample();
    let segments: Vec<_> = files(&whole.path().join("log"));
    let middle = segments.iter().filter(|path| path.extension().unwrap() == "log").nth(1).unwrap();
    fs::remove_file(middle).unwrap();
    fs::remove_file(middle.with_extension("index")).unwrap();
    let told = Told::default();
    let store = DiskStore::open(told.options(whole.path(), 4096)).unwrap();
    assert!(matches!(told.all()[0], Notice::Damaged { .. }), "{:?}", told.all());
    for channel in &channels {
        let (found, lost) = read_all(&store, channel);
        assert_eq!(found.len() + lost.len(), 40);
        assert!(!lost.is_empty());
        assert_eq!(told.lost(channel), lost);
    }
}

#[test]
fn a_segment_that_is_missing_beside_its_index_costs_its_messages_alone() {
    let (whole, channels) = sample();
    let log = files(&whole.path().join("log"));
    let indexed = log.iter().filter(|path| path.extension().unwrap() == "index");
    for index in indexed {
        let file = index.with_extension("log");
        let name = file.strip_prefix(whole.path()).unwrap();
        let folder = copy_of(whole.path());
        fs::remove_file(folder.path().join(name)).unwrap();
        let told = Told::default();
        let observer = told.options(folder.path(), 4096).observer;
        let report = check(folder.path(), observer, &mut |_| {}).unwrap();
        assert_eq!(report.damaged, 1, "{}: {:?}", name.display(), told.all());
        assert!(report.missing > 0, "{}", name.display());
        assert!(!folder.path().join(name).exists(), "checking changes nothing");
        let lost = survives(folder.path(), &channels, &format!("without {}", name.display()));
        assert_eq!(lost as u64, report.missing, "{}", name.display());
    }
}

#[test]
fn a_last_segment_that_is_missing_beside_its_index_is_told_and_no_offset_is_given_again() {
    let (whole, channels) = sample();
    let store = DiskStore::open(Told::default().options(whole.path(), 4096)).unwrap();
    for channel in &channels {
        store.commit(append(channel, 41)).wait().unwrap();
    }
    // An orderly end leaves an index of the last segment, too.
    drop(store);
    let log = files(&whole.path().join("log"));
    let last = log.iter().rev().find(|path| path.extension().unwrap() == "log").unwrap();
    assert!(last.with_extension("index").exists());
    fs::remove_file(last).unwrap();
    let told = Told::default();
    let store = DiskStore::open(told.options(whole.path(), 4096)).unwrap();
    for channel in &channels {
        assert_eq!(store.ends(channel).unwrap().next, 42, "{:?}", told.all());
        assert!(told.lost(channel).contains(&41), "{:?}", told.all());
    }
}

#[test]
fn a_first_segment_that_is_missing_is_told_until_another_takes_its_place() {
    let (whole, _) = sample();
    let first = files(&whole.path().join("log")).into_iter().find(|path| path.extension().unwrap() == "log");
    let first = first.unwrap();
    fs::remove_file(&first).unwrap();
    fs::remove_file(first.with_extension("index")).unwrap();
    let damaged = |told: &Told| {
        let report = check(whole.path(), told.options(whole.path(), 4096).observer, &mut |_| {});
        report.unwrap().damaged
    };
    assert_eq!(damaged(&Told::default()), 1);
    let told = Told::default();
    let (shared, _) = open_files(&Medium::default(), told.options(whole.path(), 4096)).unwrap();
    let is_told = |notice: &Notice| matches!(notice, Notice::Damaged { file, .. } if *file == first);
    assert!(told.all().iter().any(is_told), "{:?}", told.all());
    let sealed = shared.view.read().sealed.clone();
    let merged = merge::merge(&shared, &sealed[..2], true).unwrap();
    assert_eq!(merged.numbers().first, 1);
    drop(shared);
    assert_eq!(damaged(&Told::default()), 0);
}

#[test]
fn a_segment_that_is_cut_off_within_its_header_is_not_said_to_have_lost_nothing() {
    let (whole, _) = sample();
    // The last one has no index.
    let log = files(&whole.path().join("log"));
    let last = log.iter().rev().find(|path| path.extension().unwrap() == "log").unwrap();
    for length in [0, 63] {
        let folder = copy_of(whole.path());
        let file = folder.path().join(last.strip_prefix(whole.path()).unwrap());
        fs::File::options().write(true).open(&file).unwrap().set_len(length).unwrap();
        let [checked, opened] = [Told::default(), Told::default()];
        check(folder.path(), checked.options(folder.path(), 4096).observer, &mut |_| {}).unwrap();
        drop(DiskStore::open(opened.options(folder.path(), 4096)).unwrap());
        let expected = "it is cut off within its header, and what it held is lost";
        let is_told = |notice: &Notice| matches!(notice, Notice::Damaged { file: of, what } if *of == file && what == expected);
        for told in [checked, opened] {
            assert_eq!(
                told.all().iter().filter(|notice| is_told(notice)).count(),
                1,
                "{length}: {:?}",
                told.all()
            );
        }
    }
}

#[test]
fn an_index_that_says_the_wrong_places_is_found_out_and_nothing_is_lost() {
    let (whole, channels) = sample();
    let index =
        files(&whole.path().join("log")).into_iter().find(|path| path.extension().unwrap() == "index");
    let index = index.unwrap();
    let mut bytes = fs::read(&index).unwrap();
    // The places are behind the header of 32 bytes.
    bytes[33] ^= 1;
    fs::write(&index, bytes).unwrap();
    assert_eq!(survives(whole.path(), &channels, "places"), 0);
}

#[test]
fn what_a_reader_finds_damaged_while_it_is_merged_is_not_left_out() {
    let (whole, channels) = sample();
    let log = files(&whole.path().join("log"));
    let index = log.iter().find(|path| path.extension().unwrap() == "index").unwrap();
    let mut bytes = fs::read(index).unwrap();
    bytes[33] ^= 1;
    fs::write(index, bytes).unwrap();
    let told = Told::default();
    let (shared, _) = open_files(&Medium::default(), told.options(whole.path(), 4096)).unwrap();
    let sealed = shared.view.read().sealed.clone();
    let sources: Vec<_> = sealed[..1].iter().map(merge::Source::of).collect();
    let offsets = |channel| {
        let page = shared.read(channel, 0, ReadLimit::messages(100)).unwrap();
        page.messages.iter().map(|message| message.position().offset).collect::<Vec<_>>()
    };
    let all: Vec<u64> = (1..=40).collect();
    assert_eq!(offsets(&channels[0]), all, "who reads finds out where everything is");
    let by_wrong_places = merge::merge_known(&shared, &sources, true);
    assert!(by_wrong_places.is_err_and(|error| error.kind() == std::io::ErrorKind::Interrupted));
    let merged = merge::merge(&shared, &sealed[..1], true).unwrap();
    let key = contents::log_key(&channels[0], Epoch::from_bits(1));
    assert_eq!(merged.locate(&key, 1, 1).unwrap()[0].first, 1);
}
