//! What may be asked for, and every way of asking wrongly.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config;

/// An ingress of link plant-a (id 1), site north, that carries `orders` and `^metrics-.*`.
fn ingress(source: &str) -> IngressConfig {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ingress.toml");
    let text = format!(
        "[link]\nname = \"plant-a\"\nid = 1\ntarget = \"127.0.0.1:7400\"\nstate_dir = \"state\"\nseal = \"none\"\n\
         [telemetry]\nsite = \"north\"\n{source}"
    );
    std::fs::write(&file, text).unwrap();
    let loaded = config::load_ingress(Path::new(&file));
    loaded.unwrap_or_else(|error| panic!("{}", error.lines().join("; "))).config
}

pub(in crate::replay) fn kafka() -> IngressConfig {
    ingress("[source.kafka]\nbrokers = [\"127.0.0.1:9092\"]\ntopics = [\"orders\", \"^metrics-[a-z]+$\"]\n")
}

pub(in crate::replay) fn asked(topic: &str, partition: i32, from: i64, to: i64) -> Asked {
    Asked { stream: String::new(), topic: topic.into(), topic_id: None, partition, from, to }
}

fn check(ranges: Vec<Asked>) -> Result<Checked, RequestError> {
    Request { id: "case-1".into(), by: None, ranges }.check(&kafka())
}

fn refused(ranges: Vec<Asked>) -> String {
    check(ranges).unwrap_err().to_string()
}

#[test]
fn ranges_that_overlap_or_touch_are_joined_and_counted() {
    let all = vec![
        asked("orders", 1, 50, 60),
        asked("orders", 1, 61, 70),
        asked("orders", 1, 0, 10),
        asked("orders", 1, 5, 8),
        asked("orders", 2, 5, 8),
        asked("metrics-cpu", 0, 1, 1),
    ];
    let checked = check(all).unwrap();
    let found: Vec<_> =
        checked.ranges.iter().map(|w| (w.topic.as_str(), w.partition, w.first, w.last)).collect();
    assert_eq!(
        found,
        [("metrics-cpu", 0, 1, 1), ("orders", 1, 0, 10), ("orders", 1, 50, 70), ("orders", 2, 5, 8)]
    );
    assert_eq!(checked.merged, 2);
    let of = |id: &str| Asked { topic_id: Some(id.into()), ..asked("orders", 1, 0, 10) };
    let lives = check(vec![of("epoch-1"), of("epoch-2"), asked("orders", 1, 0, 10)]).unwrap();
    assert_eq!(
        (lives.ranges.len(), lives.merged),
        (3, 0),
        "lives of a topic have nothing to do with each other"
    );
}

#[test]
fn what_is_wrong_is_named() {
    assert!(refused(vec![]).contains("no range is named"));
    for (range, why) in [
        (asked("orders", 1, 10, 9), "reversed"),
        (asked("orders", -1, 0, 9), "count from 0"),
        (asked("orders", 1, -5, 9), "count from 0"),
        (asked("orders", 1, 0, i64::MAX), "no offset"),
        (asked("orders", 1, 0, i64::MAX - 1), "more than the 10000000000 of one replay"),
        (asked("", 1, 0, 9), "no name of a topic"),
        (asked("a/b", 1, 0, 9), "no name of a topic"),
        (asked(&"x".repeat(250), 1, 0, 9), "no name of a topic"),
        (
            asked("payments", 1, 0, 9),
            "not carried by link plant-a: its `topics` are orders, ^metrics-[a-z]+$",
        ),
        (asked("metrics-7", 1, 0, 9), "not carried"),
        (asked("metrics-cpu-x", 1, 0, 9), "not carried"),
        (asked("orders2", 1, 0, 9), "not carried"),
        (Asked { stream: "s".into(), ..asked("orders", 1, 0, 9) }, "no streams with names"),
        (Asked { topic_id: Some("today".into()), ..asked("orders", 1, 0, 9) }, "32 hexadecimal digits"),
    ] {
        let said = refused(vec![asked("orders", 0, 0, 9), range.clone()]);
        assert!(said.contains(why), "{range:?}: {said}");
    }
    let many = (0..=MAX_RANGES as i64).map(|n| asked("orders", 1, 2 * n, 2 * n)).collect();
    assert!(refused(many).contains("20001 ranges are more"));
    for id in ["", "a b", "a/b", "ä", &"x".repeat(64)] {
        let request = Request { id: id.into(), by: None, ranges: vec![asked("orders", 0, 0, 1)] };
        assert!(request.check(&kafka()).unwrap_err().to_string().contains("`id`"), "{id}");
    }
    let by = Request { id: "x".into(), by: Some("a\nb".into()), ranges: vec![asked("orders", 0, 0, 1)] };
    assert!(by.check(&kafka()).unwrap_err().to_string().contains("`by`"));
}

#[test]
fn a_link_without_kafka_keeps_nothing() {
    let udp = ingress("[source.udp.streams]\ns = \"127.0.0.1:5000\"\n");
    let request = Request { id: "x".into(), by: None, ranges: vec![asked("orders", 0, 0, 1)] };
    assert_eq!(request.check(&udp), Err(RequestError::NoKafka("plant-a".into())));
}

#[test]
fn unknown_keys_and_other_types_are_refused() {
    let good = r#"{"id":"a","ranges":[{"topic":"orders","partition":0,"from":0,"to":1}]}"#;
    assert!(serde_json::from_str::<Request>(good).is_ok());
    for (from, to) in [
        (r#""id":"a","#, ""),
        (r#""id":"a""#, r#""id":7"#),
        (r#""partition":0"#, r#""partition":0.5"#),
        (r#""partition":0"#, r#""partition":4294967296"#),
        (r#""to":1"#, r#""to":1,"until":2"#),
        (r#""to":1"#, r#""to":99999999999999999999"#),
        (r#""id""#, r#""everything":true,"id""#),
    ] {
        assert!(good.contains(from));
        assert!(serde_json::from_str::<Request>(&good.replacen(from, to, 1)).is_err(), "{to}");
    }
}

/// A gap file is this link's by name, number and site; only what is still missing is asked for.
#[test]
fn a_gap_file_of_another_link_or_site_is_refused_by_name() {
    use crate::gaps::{Gap, Timestamp};
    use ddc_link::receiver::{OffsetRange, PartitionKey};
    use ddc_telemetry::reasons::MissingReason;
    let key = PartitionKey {
        topic: "orders".into(),
        topic_id: TopicId::Configured(4),
        partition: 3,
        ..PartitionKey::default()
    };
    let at: Timestamp = "2026-03-01T08:15:30.250Z".parse().unwrap();
    let range = OffsetRange { first: 100, last: 199 };
    let mut gap = Gap::found("plant-a", &key, range, Some(90), MissingReason::Lost, None, at);
    gap.open = vec![OffsetRange { first: 100, last: 109 }, OffsetRange { first: 150, last: 199 }];
    let file = GapFile {
        site: Some("north".parse().unwrap()),
        link: "plant-a".parse().unwrap(),
        link_id: ddc_wire::LinkId(1),
        exported_at: at,
        gaps: vec![gap],
    };
    let config = kafka();
    let ranges = of_gap_file(&file, &config).unwrap();
    let id = Some("epoch-4".to_owned());
    let expected = [(100, 109), (150, 199)]
        .map(|(from, to)| Asked { topic_id: id.clone(), ..asked("orders", 3, from, to) });
    assert_eq!(ranges, expected);
    let no_site = GapFile { site: None, ..file.clone() };
    assert!(of_gap_file(&no_site, &config).is_ok(), "without a site there is nothing to compare");
    for (other, named) in [
        (GapFile { link: "plant-b".parse().unwrap(), ..file.clone() }, "link plant-b (id 1) of site north"),
        (GapFile { link_id: ddc_wire::LinkId(2), ..file.clone() }, "link plant-a (id 2)"),
        (
            GapFile { site: Some("south".parse().unwrap()), ..file.clone() },
            "of site south, this is link plant-a (id 1) of site north",
        ),
    ] {
        let said = of_gap_file(&other, &config).unwrap_err().to_string();
        assert!(said.contains(named), "{said}");
    }
    assert_eq!(of_gap_file(&GapFile { gaps: vec![], ..file }, &config), Err(RequestError::AllClosed));
}

proptest! {
    /// Joined ranges cover exactly what was asked for, ascending, with at least one offset between two.
    #[test]
    fn joining_changes_no_offset(ranges in prop::collection::vec((0i64..60, 0i64..12), 1..12)) {
        let all: Vec<(i64, i64)> = ranges.iter().map(|(first, more)| (*first, first + more)).collect();
        let offsets = |ranges: &[(i64, i64)]| -> BTreeSet<i64> { ranges.iter().flat_map(|(a, b)| *a..=*b).collect() };
        let joined = join(all.clone());
        prop_assert_eq!(offsets(&all), offsets(&joined));
        prop_assert!(joined.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
    }
}
