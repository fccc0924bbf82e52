//! The table against what a topic can hold: other sets, damage, later versions, tombstones, more than it has room for.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use ddc_link::receiver::{OffsetRange, Position};
use ddc_wire::{Session, TopicId};
use proptest::prelude::*;

use super::*;
use crate::record::encode_claim;

fn set() -> SetName {
    "plant".parse().unwrap()
}

fn link(name: &str) -> LinkName {
    name.parse().unwrap()
}

fn key(partition: i32) -> PartitionKey {
    let (stream, topic) = (String::new(), "orders".to_owned());
    PartitionKey { stream, topic, topic_id: TopicId::Configured(0), partition }
}

fn record(partition: i32, kind: Kind) -> Vec<u8> {
    RecordKey { set: set(), partition: key(partition), kind }.encode()
}

fn progress(owner: &str, epoch: u64, next: i64) -> Progress {
    let holes = if next > 5 { vec![OffsetRange { first: 3, last: 4 }] } else { Vec::new() };
    let position = Position::stored(next, Epoch(epoch), 0, 0, holes).unwrap();
    Progress { owner: link(owner), session: Session::new(1, 1), position }
}

/// A topic that is written and read at once.
#[derive(Debug)]
struct Topic {
    table: ProgressTable,
    end: i64,
}

impl Topic {
    fn new() -> Self {
        Self { table: ProgressTable::new(set()), end: 0 }
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Applied {
        self.end += 1;
        self.table.apply(self.end, Some(key), value)
    }

    fn claim(&mut self, partition: i32, name: &str, epoch: u64) -> Applied {
        self.put(&record(partition, Kind::Claim(link(name))), Some(&encode_claim(Epoch(epoch))))
    }

    fn progress(&mut self, partition: i32, owner: &str, epoch: u64, next: i64) -> Applied {
        self.put(&record(partition, Kind::Progress), Some(&progress(owner, epoch, next).encode()))
    }
}

#[test]
fn the_last_record_of_a_key_counts_and_a_tombstone_forgets() {
    let mut topic = Topic::new();
    assert_eq!(topic.progress(1, "a", 5, 10), Applied::Taken);
    assert_eq!(topic.progress(1, "a", 5, 20), Applied::Taken);
    assert_eq!(topic.progress(2, "b", 6, 30), Applied::Taken);
    assert_eq!(topic.table.progress(&key(1)), Some(&progress("a", 5, 20)));
    let settled = |topic: &Topic| (0..22).filter(|at| topic.table.is_settled(&key(1), *at)).count();
    assert_eq!(settled(&topic), 18, "20 less the hole of 2");
    assert_eq!(topic.put(&record(1, Kind::Progress), None), Applied::Forgotten);
    assert_eq!((topic.table.progress(&key(1)), settled(&topic), topic.table.len()), (None, 0, 1));
    // What was read before does not come back when the reader goes back.
    let stale = progress("a", 5, 7).encode();
    assert_eq!(
        topic.table.apply(topic.end, Some(&record(2, Kind::Progress)), Some(&stale)),
        Applied::Repeated
    );
    assert_eq!(topic.table.progress(&key(2)), Some(&progress("b", 6, 30)));
    let partitions: Vec<_> = topic.table.iter().map(|(key, _)| key.partition).collect();
    assert_eq!(partitions, [2]);
    assert_eq!(topic.table.counts(), Counts { taken: 3, forgotten: 1, ..Counts::default() });
}

#[test]
fn rivals_are_other_links_by_claim_or_by_progress() {
    let mut topic = Topic::new();
    let rival =
        |topic: &Topic| topic.table.rival(&key(1), &link("a")).map(|rival| (rival.link, rival.epoch.0));
    assert_eq!(rival(&topic), None);
    topic.claim(1, "a", 9);
    assert_eq!(rival(&topic), None, "nobody is its own rival");
    topic.claim(1, "b", 3);
    topic.claim(1, "c", 5);
    topic.claim(2, "d", 50);
    assert_eq!(rival(&topic), Some((link("c"), 5)));
    topic.progress(1, "b", 4, 10);
    assert_eq!(rival(&topic), Some((link("c"), 5)));
    topic.put(&record(1, Kind::Claim(link("c"))), None);
    assert_eq!(rival(&topic), Some((link("b"), 4)), "written under a greater epoch than the claim says");
    topic.put(&record(1, Kind::Claim(link("b"))), None);
    assert_eq!(rival(&topic), Some((link("b"), 4)), "a claim that is gone; it has written all the same");
    assert_eq!(topic.table.claim(&key(1), &link("a")), Some(Epoch(9)));
    assert_eq!(topic.table.claim(&key(1), &link("b")), None);
}

#[test]
fn what_is_not_ours_is_counted_and_nothing_else() {
    let mut topic = Topic::new();
    let other = RecordKey { set: "other".parse().unwrap(), partition: key(1), kind: Kind::Progress };
    assert_eq!(topic.put(&other.encode(), Some(b"damaged")), Applied::Foreign);
    assert_eq!(topic.put(b"\xff", Some(b"")), Applied::BadKey);
    assert_eq!(topic.table.apply(100, None, None), Applied::BadKey);
    assert_eq!(topic.table.counts(), Counts { foreign: 1, bad_key: 2, ..Counts::default() });
    assert!(topic.table.is_empty());
    assert_eq!(topic.table.usable(&key(1)), Ok(()));
}

#[test]
fn what_is_ours_and_cannot_be_read_refuses_its_partition_until_it_is_replaced() {
    for (bad, why) in [
        (&br#"{"format":7,"new":true}"#[..], Unreadable::Format { found: 7 }),
        (b"{}", Unreadable::Damaged("missing field `format` at line 1 column 2".to_owned())),
    ] {
        for kind in [Kind::Progress, Kind::Claim(link("b"))] {
            for mend in [true, false] {
                let mut topic = Topic::new();
                topic.progress(1, "a", 5, 10);
                topic.progress(2, "a", 5, 10);
                topic.claim(1, "b", 5);
                let alerts = topic.table.alerts();
                let key_bytes = record(1, kind.clone());
                let (offset, why) = (topic.end + 1, why.clone());
                let refusal = match kind.clone() {
                    Kind::Progress => Refusal::Progress { offset, why },
                    Kind::Claim(link) => Refusal::Claim { link, offset, why },
                };
                assert_eq!(topic.put(&key_bytes, Some(bad)), Applied::BadValue(refusal.clone()));
                assert_eq!(topic.table.usable(&key(1)), Err(refusal.clone()));
                assert_eq!(topic.table.usable(&key(2)), Ok(()), "others go on");
                assert_ne!(topic.table.alerts(), alerts, "who owns it is told");
                let text = refusal.to_string();
                assert!(text.contains(&format!("offset {offset} ")) && text.contains("tombstone"), "{text}");
                let counts = topic.table.counts();
                assert_eq!((counts.future + counts.damaged, counts.taken), (1, 3));
                match (kind.clone(), mend) {
                    (_, false) => drop(topic.put(&key_bytes, None)),
                    (Kind::Progress, true) => drop(topic.progress(1, "a", 6, 11)),
                    (Kind::Claim(_), true) => drop(topic.claim(1, "b", 6)),
                }
                assert_eq!(topic.table.usable(&key(1)), Ok(()));
            }
        }
    }
}

#[test]
fn more_links_than_there_is_room_for() {
    let mut topic = Topic::new();
    for number in 0..MAX_LINKS {
        assert_eq!(topic.claim(1, &format!("link-{number}"), 1), Applied::Taken);
    }
    assert_eq!(topic.claim(1, "link-0", 2), Applied::Taken, "a known one");
    assert_eq!(topic.table.usable(&key(1)), Ok(()));
    assert_eq!(topic.claim(1, "one-more", 1), Applied::NoRoom);
    assert_eq!(topic.table.usable(&key(1)), Err(Refusal::TooManyLinks));
    assert_eq!(topic.table.counts().no_room, 1);
}

#[test]
fn more_partitions_than_there_is_room_for() {
    let mut topic = Topic::new();
    for partition in 0..MAX_PARTITIONS as i32 {
        assert_eq!(topic.claim(partition, "a", 1), Applied::Taken);
    }
    assert_eq!(topic.claim(i32::MAX, "a", 1), Applied::NoRoom);
    assert_eq!(topic.table.len(), MAX_PARTITIONS);
    assert_eq!(topic.table.usable(&key(0)), Ok(()), "known ones go on");
    assert_eq!(topic.table.usable(&key(i32::MAX)), Err(Refusal::TableFull), "it may be settled already");
    topic.put(&record(0, Kind::Claim(link("a"))), None);
    assert_eq!(
        topic.table.usable(&key(i32::MAX)),
        Err(Refusal::TableFull),
        "its record was left out for good"
    );
}

proptest! {
    /// Any records in any order: the table says what the last record of each key says.
    #[test]
    fn against_a_map(steps in proptest::collection::vec((0..3i32, 0..3u8, 0..3u8, 0..50u64), 0..80)) {
        let mut topic = Topic::new();
        let mut model = std::collections::BTreeMap::new();
        for (partition, who, what, number) in steps {
            let kind = if who == 0 { Kind::Progress } else { Kind::Claim(link(&format!("l{who}"))) };
            let value = match (what, &kind) {
                (0, _) => None,
                (1, _) => Some(b"bad".to_vec()),
                (_, Kind::Progress) => Some(progress("a", number, number as i64).encode()),
                (_, Kind::Claim(_)) => Some(encode_claim(Epoch(number))),
            };
            topic.put(&record(partition, kind), value.as_deref());
            match value {
                Some(_) => drop(model.insert((partition, who), (what == 1, number))),
                None => drop(model.remove(&(partition, who))),
            }
            for partition in 0..3 {
                let of = |who: u8| model.get(&(partition, who)).copied();
                let good = |who| of(who).filter(|(bad, _)| !bad).map(|(_, number)| number);
                prop_assert_eq!(topic.table.progress(&key(partition)).map(|known| known.position.epoch().0), good(0));
                for who in 1..3 {
                    let claim = topic.table.claim(&key(partition), &link(&format!("l{who}")));
                    prop_assert_eq!(claim.map(|epoch| epoch.0), good(who));
                }
                let bad = (0..3).any(|who| of(who).is_some_and(|(bad, _)| bad));
                prop_assert_eq!(topic.table.usable(&key(partition)).is_err(), bad);
            }
            let partitions: std::collections::BTreeSet<_> = model.keys().map(|(partition, _)| partition).collect();
            prop_assert_eq!(topic.table.len(), partitions.len());
        }
    }
}
