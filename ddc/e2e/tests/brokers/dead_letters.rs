//! Records that the ingress cannot send are kept at the source: in a topic or in files, before their offsets are committed.

use std::collections::BTreeSet;
use std::path::Path;

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::{Producer, Sample, any_kind, now_millis};
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::verify::{Crossing, Reader, Row};
use ddc_e2e::wait::{until, until_true};
use ddc_proxy::dead_letters::reading;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::{LIMIT, clusters};

/// The values and headers hold this; no log may.
const SECRET: &str = "not-for-the-log";

fn sample(length: usize) -> Sample {
    let mut value = SECRET.as_bytes().to_vec();
    value.resize(length, b'x');
    Sample {
        key: Some(b"the-key".to_vec()),
        value: Some(value),
        headers: vec![("trace".into(), Some(SECRET.into())), ("none".into(), None)],
        timestamp: now_millis() - 5000,
    }
}

/// Fifty records, one that is too large for the link, and so on.
fn fill(source: &Cluster, topic: &str, large: &[Sample]) {
    let producer = Producer::new(source.brokers());
    for (number, large) in large.iter().enumerate() {
        let from = number as u64 * 50;
        producer.fill(topic, 1, from..from + 50);
        producer.send(topic, 0, large);
    }
    producer.send(topic, 0, &any_kind(7));
    producer.flush();
}

/// What the group has committed.
fn committed(source: &Cluster, group: &str, topic: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", source.brokers())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    match consumer.committed_offsets(list, LIMIT).unwrap().elements()[0].offset() {
        Offset::Offset(offset) => offset,
        _ => 0,
    }
}

fn text(row: &Row, name: &str) -> Option<String> {
    let header = row.headers.iter().rev().find(|(header, _)| header == name)?;
    header.1.as_ref().map(|value| String::from_utf8(value.clone()).unwrap())
}

fn read(source: &Cluster, topic: &str, count: usize) -> Vec<Row> {
    let mut reader = Reader::new(source, topic);
    until("the letters are there", LIMIT, || {
        reader.read()?;
        if reader.rows.len() >= count { Ok(()) } else { Err(format!("{}", reader.rows.len())) }
    });
    reader.rows
}

fn assert_silent(ingress: &Proxy) {
    let log = ingress.log();
    assert!(!log.contains(SECRET) && !log.contains("the-key"), "nothing of a record is in the log");
}

fn to_a_topic(pair: &Pair) {
    let (source, destination) = clusters(pair);
    source.create("letters-t", 1, &[]);
    source.create("letters-t-dead", 1, &[("max.message.bytes", "200000")]);
    // The last but one is too large for that topic as well. Random, so that no compression makes it fit.
    let mut huge = sample(400_000);
    let mut state = 88_172_645_463_325_252_u64;
    huge.value.as_mut().unwrap().iter_mut().skip(50).for_each(|byte| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    });
    let large = [sample(80_000), huge.clone(), sample(90_000)];
    fill(&source, "letters-t", &large);
    let mut link = Link::new("letters-t", source.brokers(), destination.brokers(), &["letters-t"]);
    link.ingress.set("link.pack.max_record_bytes", "64KiB").set("dead_letters.topic", "letters-t-dead");
    let (ingress, egress) = link.start();
    let outcome = Crossing::new(&source, &destination, "letters-t").settle(LIMIT);
    outcome.assert_sound();
    assert_eq!(outcome.lost.iter().copied().collect::<Vec<_>>(), [(0, 50), (0, 101), (0, 152)]);
    let rows = read(&source, "letters-t-dead", 3);
    assert_eq!(rows.len(), 3);
    for ((row, offset), sample) in rows.iter().zip([50, 101, 152]).zip(&large) {
        assert_eq!(row.key, sample.key);
        assert_eq!(row.headers[..2], sample.headers[..], "its own headers come first");
        assert_eq!(text(row, "sourceOffset"), Some(offset.to_string()));
        assert_eq!(text(row, "sourceTimestamp"), Some(sample.timestamp.to_string()));
        for (name, value) in [
            ("ddcError", "too_large"),
            ("ddcRefusedBy", "letters-t/ingress"),
            ("sourceTopic", "letters-t"),
            ("sourcePartition", "0"),
            ("sourceTimestampType", "CreateTime"),
        ] {
            assert_eq!(text(row, name).as_deref(), Some(value), "{name}");
        }
        assert!(text(row, "ddcErrorText").unwrap().contains("max_record_bytes = 65536"));
        assert_eq!(text(row, "sourceTopicId").unwrap().len(), 32);
        let refused_at: ddc_proxy::gaps::Timestamp = text(row, "ddcRefusedAt").unwrap().parse().unwrap();
        assert_eq!(row.timestamp.to_millis(), Some(refused_at.millis() as i64));
    }
    assert_eq!((&rows[0].value, &rows[2].value), (&large[0].value, &large[2].value));
    assert_eq!((&rows[1].value, text(&rows[1], "ddcValueBytes").as_deref()), (&None, Some("400000")));
    assert_eq!(text(&rows[0], "ddcValueBytes"), None);
    until_true("they are counted", LIMIT, || {
        ingress.metric("ddc_ingress_dead_letters_total", &["reason=\"too_large\""]) == 3
    });
    assert_eq!(ingress.metric("ddc_ingress_records_skipped_total", &[]), 0, "none is merely stepped over");
    ingress.wait_logged(&["kept as a dead letter", "\"offset\":50", "too_large"]);
    until_true("all is committed", LIMIT, || committed(&source, "ddc-letters-t", "letters-t") == 154);
    assert_eq!(egress.named_missing(), []);
    assert_silent(&ingress);
}

#[test]
fn what_the_link_cannot_carry_goes_to_a_topic_on_kafka_4() {
    to_a_topic(Pair::kafka_4());
}

#[test]
fn what_the_link_cannot_carry_goes_to_a_topic_on_kafka_3() {
    to_a_topic(Pair::kafka_3());
}

/// A topic that does not exist: with `gap` the records are named as without it; with `wait` nothing is committed before the
/// topic is there.
#[test]
fn a_missing_topic_for_dead_letters_is_a_gap_or_is_waited_for() {
    let (source, destination) = clusters(Pair::kafka_4());
    for on_failure in ["gap", "wait"] {
        let (name, dead) = (format!("letters-{on_failure}"), format!("letters-{on_failure}-dead"));
        source.create(&name, 1, &[]);
        fill(&source, &name, &[sample(80_000)]);
        let mut link = Link::new(&name, source.brokers(), destination.brokers(), &[&name]);
        link.ingress
            .set("link.pack.max_record_bytes", "64KiB")
            .set("dead_letters.topic", dead.as_str())
            .set("dead_letters.on_failure", on_failure);
        let (ingress, _egress) = link.start();
        let outcome = Crossing::new(&source, &destination, &name).settle(LIMIT);
        assert_eq!(outcome.lost.iter().copied().collect::<Vec<_>>(), [(0, 50)], "the others go on");
        let errors = || ingress.metric("ddc_ingress_dead_letter_errors_total", &["reason=\"unknown_topic\""]);
        until_true("it is counted", LIMIT, || errors() >= 2);
        if on_failure == "gap" {
            until_true("it is named", LIMIT, || {
                ingress.metric("ddc_ingress_records_skipped_total", &["reason=\"too_large\""]) == 1
            });
            ingress.wait_logged(&["a record was not sent and will not be", "\"offset\":50"]);
            assert_eq!(errors(), 3, "and no more");
        } else {
            println!("          {}", ingress.wait_unready(&["dead letters cannot be kept"]).trim());
            assert!(
                committed(&source, &format!("ddc-{name}"), &name) <= 50,
                "nothing behind it is committed"
            );
            source.create(&dead, 1, &[]);
            assert_eq!(read(&source, &dead, 1).len(), 1);
            ingress.wait_ready();
            assert_eq!(ingress.metric("ddc_ingress_records_skipped_total", &[]), 0);
        }
        until_true("all is committed", LIMIT, || committed(&source, &format!("ddc-{name}"), &name) == 52);
    }
}

/// `ddc dead-letters` with these arguments; standard output.
fn ddc(link: &Link, arguments: &[&str]) -> String {
    let file = link.directory().join("ingress.toml");
    let command = [&["dead-letters"], arguments, &["-c", file.to_str().unwrap()]].concat();
    let (code, out, err) = link.command(command);
    assert_eq!(code, 0, "{err}");
    out
}

#[test]
fn what_the_link_cannot_carry_goes_to_files_that_outlive_a_kill() {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("letters-f", 1, &[]);
    let large = [sample(80_000), sample(90_000)];
    fill(&source, "letters-f", &large);
    let mut link = Link::new("letters-f", source.brokers(), destination.brokers(), &["letters-f"]);
    let directory = link.directory().join("letters");
    link.ingress
        .set("link.pack.max_record_bytes", "64KiB")
        .set("dead_letters.directory", "letters")
        .set("dead_letters.max_size", "1MiB")
        .set("dead_letters.on_failure", "wait");
    let (ingress, _egress) = link.start();
    until_true("all is committed", LIMIT, || committed(&source, "ddc-letters-f", "letters-f") == 103);
    assert_silent(&ingress);
    ingress.kill();
    // What was committed is on disk.
    let list = ddc(&link, &["list"]);
    println!("{list}");
    assert!(list.contains("2 dead letters, 0 lines") && list.contains("too_large") && !list.contains(SECRET));
    let shown = ddc(&link, &["show", "1:2"]);
    assert!(
        shown.contains("80000 bytes") && shown.contains("letters-f/ingress") && !shown.contains(SECRET),
        "{shown}"
    );
    let value = ddc(&link, &["show", "1:3", "--raw", "value"]);
    assert_eq!(Some(value.into_bytes()), large[1].value);
    // The end of the newest file is torn, as a power cut leaves it: cut off, and it goes on.
    let file = directory.join("dead-letters-00000001.jsonl");
    append(&file, "{\"refused_at\":\"2026");
    // It fills up: with `wait` nothing behind the record goes on until there is room.
    fill(&source, "letters-f", &vec![sample(100_000); 12]);
    let ingress = link.start_ingress();
    ingress.wait_logged(&["torn end", "\"bytes\":19"]);
    println!("          {}", ingress.wait_unready(&["dead letters cannot be kept", "max_size"]).trim());
    let before = committed(&source, "ddc-letters-f", "letters-f");
    assert!(ingress.metric("ddc_ingress_dead_letter_errors_total", &["reason=\"full\""]) > 0);
    // All of them are carried away, the one that is being written too; and again when it is full again.
    let away = link.directory().join("carried-away");
    std::fs::create_dir(&away).unwrap();
    let carry = || {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let name = entry.unwrap().file_name();
            if name != "lock" {
                std::fs::rename(directory.join(&name), away.join(&name)).unwrap();
            }
        }
    };
    let end = 103 + 12 * 51 + 1;
    until_true("all is committed", LIMIT, || {
        carry();
        committed(&source, "ddc-letters-f", "letters-f") == end
    });
    assert!(before < end);
    ingress.wait_ready();
    // What was not settled when its file was carried away is there twice.
    let mut kept = BTreeSet::new();
    for place in [&away, &directory] {
        for file in reading::files(place).unwrap() {
            let mut take =
                |found: reading::Found| kept.extend(found.letter.map(|letter| letter.source.offset));
            reading::read(&file, &mut take).unwrap();
        }
    }
    let expected = [50, 101].into_iter().chain((0..12).map(|number| 153 + 51 * number));
    assert_eq!(kept, expected.collect());
    assert_eq!(ingress.metric("ddc_ingress_records_skipped_total", &[]), 0);
    let outcome = Crossing::new(&source, &destination, "letters-f").settle(LIMIT);
    outcome.assert_sound();
    assert_eq!(outcome.lost.len(), 14);
}

fn append(file: &Path, text: &str) {
    use std::io::Write as _;
    std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}
