//! The book against a naive model that keeps every offset; the journal against torn, damaged and foreign files.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ddc_link::receiver::{OffsetRange, PartitionKey, Positions};
use ddc_telemetry::reasons::MissingReason;
use ddc_wire::{LinkId, TopicId};
use proptest::prelude::*;

use super::journal::{self, Journal, JournalError};
use super::*;

fn range(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        stream: String::new(),
        topic: "orders".into(),
        topic_id: TopicId::Uuid([9; 16]),
        partition,
    }
}

fn lost(first: i64, last: i64) -> Finding {
    Finding { range: range(first, last), records: Some(1), reason: MissingReason::Lost, session: None }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// What the book says of each gap, for comparisons.
fn content(book: &GapBook) -> Vec<Entry> {
    book.entries().cloned().collect()
}

fn offsets(ranges: &[OffsetRange]) -> impl Iterator<Item = i64> {
    ranges.iter().flat_map(|range| range.first..=range.last)
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Found,
    Close,
    GiveUp,
}

fn steps() -> impl Strategy<Value = Vec<(Step, i32, i64, i64)>> {
    let step = prop_oneof![3 => Just(Step::Found), 3 => Just(Step::Close), 1 => Just(Step::GiveUp)];
    prop::collection::vec((step, 0..2_i32, 0..60_i64, 0..15_i64), 0..40)
}

proptest! {
    /// Exactly what was found and neither came nor was given up is open; no offset is named by two gaps; whoever has read
    /// each change knows the whole.
    #[test]
    fn the_book_is_right_about_every_offset(steps in steps()) {
        let mut book = GapBook::new("plant-a");
        let mut copy = GapBook::new("plant-a");
        // By partition: open, given up, ever found.
        let mut naive: BTreeMap<i32, [BTreeSet<i64>; 3]> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (number, (step, partition, first, width)) in steps.into_iter().enumerate() {
            let range = range(first, first + width);
            let all: BTreeSet<i64> = (first..=first + width).collect();
            let [open, given_up, ever] = naive.entry(partition).or_default();
            let now = at(number as u64);
            let before = open.clone();
            let changed = match step {
                Step::Found => {
                    *given_up = &*given_up - &all;
                    open.extend(&all);
                    ever.extend(&all);
                    book.found(&key(partition), Finding { range, ..lost(0, 0) }, now)
                }
                Step::Close => {
                    *open = &*open - &all;
                    book.close(&key(partition), range, now)
                }
                Step::GiveUp => {
                    given_up.extend(&*open & &all);
                    *open = &*open - &all;
                    book.give_up(&key(partition), range, now)
                }
            };
            prop_assert_eq!(changed.is_empty(), before == *open);
            for entry in changed {
                prop_assert!(copy.restore(entry));
            }
            prop_assert_eq!(content(&copy), content(&book));
            for (partition, [open, given_up, ever]) in &naive {
                let gaps: Vec<_> = book.entries().map(|entry| &entry.gap).filter(|gap| gap.partition == *partition).collect();
                let set = |of: fn(&Gap) -> Vec<OffsetRange>| {
                    gaps.iter().flat_map(|gap| offsets(&of(gap)).collect::<Vec<_>>()).collect::<BTreeSet<_>>()
                };
                prop_assert_eq!(&set(|gap| gap.open.clone()), open);
                prop_assert_eq!(&set(|gap| gap.given_up.clone()), given_up);
                prop_assert_eq!(&set(|gap| vec![gap.range()]), ever);
            }
            let counts = book.counts();
            prop_assert_eq!((counts.open + counts.given_up + counts.closed) as usize, book.len());
            let open: usize = naive.values().map(|[open, ..]| open.len()).sum();
            prop_assert_eq!(counts.open_offsets as usize, open);
            // A gap never goes, and what it is called never changes.
            let now: BTreeSet<_> = book.entries().map(|entry| entry.gap.id).collect();
            prop_assert!(now.is_superset(&ids));
            ids = now;
            let gaps = book.entries().map(|entry| entry.gap.clone()).collect();
            let file = GapFile {
                site: None, link: "plant-a".parse().unwrap(), link_id: LinkId(1), exported_at: at(0), gaps,
            };
            prop_assert!(file.check().is_ok());
        }
    }

    /// Whatever the crash left of the file: what comes back is the book after one of its changes, and the next life goes on
    /// from there.
    #[test]
    fn every_torn_end_is_cut(steps in steps(), cut in any::<prop::sample::Index>()) {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, found) = Journal::open(directory.path(), "plant-a").unwrap();
        let mut book = found.book;
        let path = directory.path().join(journal::FILE);
        let head = fs::metadata(&path).unwrap().len() as usize;
        let mut states = vec![content(&book)];
        for (number, (step, partition, first, width)) in steps.into_iter().enumerate() {
            let (key, range, now) = (key(partition), range(first, first + width), at(number as u64));
            let changed = match step {
                Step::Found => book.found(&key, Finding { range, ..lost(0, 0) }, now),
                Step::Close => book.close(&key, range, now),
                Step::GiveUp => book.give_up(&key, range, now),
            };
            // Line by line: a crash can come between two of them.
            let mut before = GapBook::new("plant-a");
            states.last().unwrap().iter().for_each(|entry| assert!(before.restore(entry.clone())));
            for entry in changed {
                journal.append(std::slice::from_ref(&entry)).unwrap();
                before.restore(entry);
                states.push(content(&before));
            }
        }
        drop(journal);
        let bytes = fs::read(&path).unwrap();
        let cut = head + cut.index(bytes.len() - head + 1);
        fs::write(&path, &bytes[..cut]).unwrap();
        let seen = journal::read(directory.path(), "plant-a").unwrap().unwrap();
        let (mut journal, found) = Journal::open(directory.path(), "plant-a").unwrap();
        prop_assert!(found.damaged.is_empty());
        prop_assert_eq!(content(&seen.book), content(&found.book));
        let lines = bytes[head..cut].split(|byte| *byte == b'\n').count() - 1;
        prop_assert_eq!(content(&found.book), states[lines].clone());
        let mut book = found.book;
        let changed = book.found(&key(7), lost(5, 5), at(0));
        journal.append(&changed).unwrap();
        let (_, found) = Journal::open(directory.path(), "plant-a").unwrap();
        prop_assert_eq!((content(&found.book), found.cut), (content(&book), 0));
    }

    #[test]
    fn hostile_journals_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), with_head in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let head = "{\"kind\":\"ddc-gap-journal\",\"format\":1,\"link\":\"plant-a\"}\n";
        let text = [if with_head { head.as_bytes() } else { b"" }, &bytes].concat();
        fs::write(directory.path().join(journal::FILE), text).unwrap();
        match journal::read(directory.path(), "plant-a") {
            Ok(found) => prop_assert!(with_head && found.unwrap().book.is_empty()),
            Err(error) => prop_assert!(!with_head, "{}", error),
        }
    }
}

#[test]
fn a_damaged_line_costs_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, found) = Journal::open(directory.path(), "plant-a").unwrap();
    let mut book = found.book;
    for number in 0..5 {
        let changed = book.found(&key(0), lost(number * 10, number * 10), at(0));
        journal.append(&changed).unwrap();
    }
    let path = directory.path().join(journal::FILE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"first\":20", "\"first\":21")).unwrap();
    let (mut journal, found) = Journal::open(directory.path(), "plant-a").unwrap();
    // The head is line 1, what was published line 2.
    assert_eq!((found.damaged, found.cut, found.book.len()), (vec![5], 0, 4));
    assert!(journal.is_broken(), "it is written anew");
    journal.shorten(&found.book).unwrap();
    let (_, found) = Journal::open(directory.path(), "plant-a").unwrap();
    assert_eq!((found.damaged.len(), found.book.len()), (0, 4));
}

#[test]
fn what_is_not_this_links_journal_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    assert!(journal::read(directory.path(), "plant-a").unwrap().is_none());
    drop(Journal::open(directory.path(), "plant-a").unwrap());
    let path = directory.path().join(journal::FILE);
    let text = fs::read_to_string(&path).unwrap();
    for (from, to, said) in [
        ("\"format\":1", "\"format\":2", "has format 2, this ddc knows format 1: use the version"),
        ("ddc-gap-journal", "ddc-gaps", "is no gap journal"),
        ("plant-a", "plant-b", "is of link plant-b, not of plant-a"),
        ("{", "x", "move it away to begin a new one"),
    ] {
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = Journal::open(directory.path(), "plant-a").unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(&*path.to_string_lossy()), "{error}");
        assert_eq!(journal::read(directory.path(), "plant-a").unwrap_err().to_string(), error);
    }
    fs::write(&path, "").unwrap();
    assert!(matches!(Journal::open(directory.path(), "plant-a"), Err(JournalError::Foreign { .. })));
}

#[test]
fn a_long_journal_is_made_shorter_and_says_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, found) = Journal::open(directory.path(), "plant-a").unwrap();
    let mut book = found.book;
    let path = directory.path().join(journal::FILE);
    while !journal.is_long() {
        let mut changed = book.found(&key(0), lost(1, 9), at(0));
        changed.extend(book.close(&key(0), range(2, 9), at(1)));
        journal.append(&changed).unwrap();
    }
    journal.published(3).unwrap();
    let long = fs::metadata(&path).unwrap().len();
    journal.shorten(&book).unwrap();
    let short = fs::metadata(&path).unwrap().len();
    assert!(long >= 1 << 20 && short < 2_000, "{long} {short}");
    assert!(!journal.is_long());
    let (_, found) = Journal::open(directory.path(), "plant-a").unwrap();
    assert_eq!((content(&found.book), found.published), (content(&book), 3));
    let next = book.found(&key(1), lost(1, 1), at(0));
    let mut book = found.book;
    assert_eq!(book.found(&key(1), lost(1, 1), at(0)), next, "it goes on counting");
}

#[test]
fn the_book_is_bounded_and_forgets_closed_gaps_first() {
    let mut book = GapBook::new("plant-a");
    let most = MAX_COST as i64 / 4;
    // Closed ones cost 4, open ones 5: all fit.
    for number in 0..most / 2 {
        book.found(&key(0), lost(number * 2, number * 2), at(1));
        if number % 2 == 0 {
            book.close(&key(0), range(number * 2, number * 2), at(2 + number as u64));
        }
    }
    assert!(book.make_room().is_empty());
    for number in most / 2..most {
        book.found(&key(0), lost(number * 2, number * 2), at(1));
    }
    let forgotten = book.make_room();
    assert!(!forgotten.is_empty());
    assert!(forgotten.iter().all(|entry| entry.gap.state == GapState::Closed));
    assert_eq!(forgotten[0].gap.first, 0, "the one closed longest");
    assert!(book.make_room().is_empty(), "there is room for some more");
    let mut number = most;
    let named = loop {
        book.found(&key(0), lost(number * 2, number * 2), at(number as u64));
        number += 1;
        let forgotten = book.make_room().into_iter().map(|entry| entry.gap);
        let open: Vec<_> = forgotten.filter(|gap| gap.state == GapState::Open).collect();
        if !open.is_empty() {
            break open;
        }
    };
    assert_eq!(book.counts().closed, 0, "open ones go only when no closed one is left");
    assert_eq!(named[0].found_at, at(1), "the one found longest ago");
    assert!(book.len() <= MAX_GAPS);
}

fn positions(next: i64, holes: &str) -> Positions {
    let topic_id = "09".repeat(16);
    serde_json::from_str(&format!(
        "{{\"format\":1,\"positions\":[{{\"stream\":\"\",\"topic\":\"orders\",\"topic_id\":\"{topic_id}\",\"partition\":0,\
         \"next\":{next},\"epoch\":1,\"origin\":0,\"count\":0,\"holes\":{holes}}}]}}"
    ))
    .unwrap()
}

/// The egress of another link has the partition, and fills its holes.
#[test]
fn what_another_link_has_filled_is_closed_and_nothing_else() {
    let mut book = GapBook::new("plant-a");
    book.found(&key(0), lost(10, 19), at(1));
    book.found(&key(0), lost(90, 99), at(1));
    book.found(&key(1), lost(5, 5), at(1));
    assert_eq!(book.open_partitions().count(), 2);
    // It does not know better than it has written: 15 is a hole, 95 to 99 it has not come to, 50 is its own to name.
    let changed = book.close_settled(&positions(95, "[[15,15],[50,50]]"), at(3));
    assert!(!changed.is_empty());
    let mut open: Vec<_> = book.entries().flat_map(|entry| entry.gap.open.clone()).collect();
    open.sort_unstable_by_key(|range| range.first);
    let open: Vec<_> = open.iter().map(|range| (range.first, range.last)).collect();
    assert_eq!(open, [(5, 5), (15, 15), (95, 99)]);
    assert!(book.close_settled(&positions(95, "[[15,15]]"), at(4)).is_empty(), "once is enough");
    book.close_settled(&positions(100, "[]"), at(5));
    assert_eq!(book.open_partitions().collect::<Vec<_>>(), [&key(1)]);
}

/// An egress crashed: its positions are what it goes by.
#[test]
fn the_book_agrees_with_the_positions_of_the_next_life() {
    let mut book = GapBook::new("plant-a");
    book.found(&key(0), lost(10, 19), at(1));
    book.found(&key(0), lost(30, 39), at(1));
    book.found(&key(0), lost(90, 99), at(1));
    book.found(&key(1), lost(5, 5), at(1));
    book.close(&key(0), range(30, 39), at(2));
    let positions = positions(95, "[[15,16],[35,35],[50,59]]");
    book.reconcile(&positions, at(3));
    let open: Vec<_> = book.entries().flat_map(|entry| entry.gap.open.clone()).collect();
    let mut sorted: Vec<_> = open.iter().map(|range| (range.first, range.last)).collect();
    sorted.sort_unstable();
    // 10–19 arrived but for 15 and 16; 35 was closed and is missing after all; 50–59 nobody had written down; 90–94 arrived;
    // 95–99 lie ahead and are kept; partition 1 is not known any more and is kept.
    assert_eq!(sorted, [(5, 5), (15, 16), (35, 35), (50, 59), (95, 99)]);
    let ahead = book.ahead(&positions);
    assert_eq!(ahead.into_iter().collect::<BTreeMap<_, _>>(), BTreeMap::from([(key(0), 100), (key(1), 6)]));
    assert!(book.reconcile(&positions, at(4)).is_empty(), "once is enough");
}

#[test]
fn what_nobody_could_have_sent_is_not_kept() {
    let mut book = GapBook::new("plant-a");
    let named = |topic: &str| PartitionKey { topic: topic.into(), ..key(0) };
    for key in [named(""), named("a b"), named("é"), named(&"x".repeat(250)), key(-1)] {
        assert!(book.found(&key, lost(1, 2), at(0)).is_empty());
    }
    for finding in [lost(-1, 2), lost(3, 2), lost(0, i64::MAX)] {
        assert!(book.found(&key(0), finding, at(0)).is_empty());
    }
    assert!(book.is_empty());
}
