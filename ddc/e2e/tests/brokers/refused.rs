//! Records that the destination refuses for ever, through a whole link: kept as dead letters, or written with another
//! timestamp; nothing else is lost, nothing comes twice.

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::{Producer, Sample, any_kind, now_millis};
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::verify::{Crossing, Reader, Row};
use ddc_e2e::wait::until;
use ddc_proxy::dead_letters::reading;

use crate::{LIMIT, clusters};

/// Which record is refused.
const REFUSED: i64 = 50;
/// Ten days.
const FAR_AHEAD: i64 = 10 * 24 * 3600 * 1000;

fn sample(length: usize, timestamp: i64) -> Sample {
    Sample { key: Some(b"k".to_vec()), value: Some(vec![b'x'; length]), headers: vec![], timestamp }
}

/// A hundred records, one of which the destination refuses: it is too large, or from the future.
fn carry(
    topic: &str,
    config: &[(&str, &str)],
    refused: &Sample,
    set: impl FnOnce(&mut Link),
) -> (Cluster, Cluster, Link, Proxy, Proxy) {
    let (source, destination) = clusters(Pair::kafka_4());
    // Kafka 4 refuses what is more than an hour ahead, if it is not told otherwise.
    source.create(topic, 1, &[("message.timestamp.after.max.ms", "9223372036854775807")]);
    destination.create(topic, 1, config);
    let producer = Producer::new(source.brokers());
    producer.fill(topic, 1, 0..50);
    producer.send(topic, 0, refused);
    producer.fill(topic, 1, 50..100);
    producer.send(topic, 0, &any_kind(7));
    producer.flush();
    let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    set(&mut link);
    let (ingress, egress) = link.start();
    (source, destination, link, ingress, egress)
}

fn rows(cluster: &Cluster, topic: &str, count: usize) -> Vec<Row> {
    let mut reader = Reader::new(cluster, topic);
    until(&format!("{count} records are in {topic}"), LIMIT, || {
        reader.read()?;
        if reader.rows.len() >= count { Ok(()) } else { Err(format!("{}", reader.rows.len())) }
    });
    reader.rows
}

fn text(row: &Row, name: &str) -> Option<String> {
    let header = row.headers.iter().rev().find(|(header, _)| header == name)?;
    header.1.as_ref().map(|value| String::from_utf8(value.clone()).unwrap())
}

fn assert_only_that_is_missing(source: &Cluster, destination: &Cluster, topic: &str, egress: &Proxy) {
    let outcome = Crossing::new(source, destination, topic).settle(LIMIT);
    outcome.assert_sound();
    assert_eq!(outcome.lost.iter().copied().collect::<Vec<_>>(), [(0, REFUSED)]);
    assert_eq!((outcome.duplicated.len(), egress.named_missing().len()), (0, 0));
    assert_eq!(egress.metric("ddc_egress_dead_letters_total", &["reason=\"too_large\""]), 1);
}

#[test]
fn what_the_destination_refuses_is_a_letter_of_the_same_transaction() {
    let topic = "refused-t";
    let large = sample(150_000, now_millis());
    let (source, destination, link, _ingress, egress) =
        carry(topic, &[("max.message.bytes", "100000")], &large, |link| {
            Cluster::new(link.destination()).create("refused-t-dead", 1, &[]);
            link.egress.set("dead_letters.topic", "refused-t-dead");
        });
    assert_only_that_is_missing(&source, &destination, topic, &egress);
    let letters = rows(&destination, "refused-t-dead", 1);
    assert_eq!(
        (letters.len(), &letters[0].value),
        (1, &large.value),
        "once, though attempts were taken back"
    );
    for (name, value) in [
        ("ddcError", "too_large"),
        ("ddcRefusedBy", "refused-t/egress"),
        ("ddcDestinationTopic", topic),
        ("sourceTopic", topic),
        ("sourceOffset", "50"),
    ] {
        assert_eq!(text(&letters[0], name).as_deref(), Some(value), "{name}");
    }
    assert!(crate::replay::holes(&link).iter().all(|(.., holes)| holes.is_empty()), "a letter is no hole");
}

#[test]
fn or_a_line_in_a_file() {
    let topic = "refused-f";
    let mut directory = None;
    let large = sample(150_000, now_millis());
    let (source, destination, _link, _ingress, egress) =
        carry(topic, &[("max.message.bytes", "100000")], &large, |link| {
            let path = link.directory().join("dead");
            link.egress.set("dead_letters.directory", path.to_str().unwrap());
            directory = Some(path);
        });
    assert_only_that_is_missing(&source, &destination, topic, &egress);
    let mut letters = Vec::new();
    for file in reading::files(&directory.unwrap()).unwrap() {
        reading::read(&file, |found| letters.extend(found.letter.map(|letter| letter.source.offset)))
            .unwrap();
    }
    assert_eq!(letters, [REFUSED], "once, though attempts were taken back");
}

/// `max.message.bytes` bounds what is written at once, not only a record.
#[test]
fn sound_records_that_are_too_large_only_together_arrive() {
    let topic = "refused-together";
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, 1, &[]);
    destination.create(topic, 1, &[("max.message.bytes", "20000")]);
    let producer = Producer::new(source.brokers());
    let mut number = 1_u64;
    for _ in 0..1500 {
        // Does not compress.
        let mut bytes = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (number >> 56) as u8
        };
        let value = (0..500).map(|_| bytes()).collect();
        producer.send(topic, 0, &Sample { value: Some(value), ..sample(0, now_millis()) });
    }
    producer.flush();
    let link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    let (_ingress, egress) = link.start();
    let outcome = Crossing::new(&source, &destination, topic).settle(LIMIT);
    outcome.assert_sound();
    assert_eq!((outcome.lost.len(), outcome.duplicated.len(), egress.named_missing().len()), (0, 0, 0));
}

#[test]
fn a_timestamp_can_be_clamped() {
    let topic = "refused-c";
    let timestamp = now_millis() + FAR_AHEAD;
    let (_source, destination, _link, _ingress, egress) =
        carry(topic, &[("message.timestamp.after.max.ms", "3600000")], &sample(100, timestamp), |link| {
            link.egress.set("sink.kafka.bad_timestamp", "clamp");
        });
    let rows = rows(&destination, topic, 102);
    let offsets: Vec<_> = rows.iter().map(|row| text(row, "sourceOffset").unwrap()).collect();
    assert_eq!(offsets, (0..102).map(|offset| offset.to_string()).collect::<Vec<_>>(), "each once, in order");
    let clamped = &rows[REFUSED as usize];
    assert_eq!(text(clamped, "sourceTimestamp"), Some(timestamp.to_string()));
    assert!(clamped.timestamp.to_millis().unwrap() < now_millis() + 1000);
    assert!(rows.iter().filter(|row| text(row, "sourceTimestamp").is_some()).count() == 1);
    assert_eq!(egress.named_missing(), []);
    assert_eq!(egress.metric("ddc_egress_timestamps_clamped_total", &[]), 1);
}
