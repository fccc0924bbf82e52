//! Topics: several at once, named and renamed, growing, deleted and made again; records of all sizes.

use std::collections::BTreeSet;
use std::time::Duration;

use ddc_e2e::broker::Pair;
use ddc_e2e::produce::{Load, Producer, Sample, now_millis};
use ddc_e2e::proxy::{Link, TomlValue};
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::{timed, until_true};
use rdkafka::Timestamp;
use toml::Table;

use crate::{LIMIT, clusters};

fn several_topics(pair: &Pair) {
    let (source, destination) = clusters(pair);
    let producer = Producer::new(source.brokers());
    for (topic, partitions) in
        [("many.a", 1), ("many.b", 4), ("many-other", 2), ("named", 3), ("renamed", 2), ("sensor-7", 2)]
    {
        source.create(topic, partitions, &[]);
        producer.fill(topic, partitions, 0..600);
    }
    let mut link = Link::new(
        "several",
        source.brokers(),
        destination.brokers(),
        &["named", "^many\\..*", "renamed", "^sensor-"],
    );
    let regex: Table = "pattern = \"sensor-(.*)\"\nreplacement = \"plant.$1.sensor\"".parse().unwrap();
    link.egress
        .set("sink.kafka.topic_prefix", "p.")
        .set("sink.kafka.rename.renamed", "other-name")
        .set("sink.kafka.rename_regex", vec![TomlValue::Table(regex)]);
    let (_ingress, egress) = link.start();
    for (topic, to, partitions) in [
        ("many.a", "p.many.a", 1),
        ("many.b", "p.many.b", 4),
        ("named", "p.named", 3),
        ("renamed", "other-name", 2),
        ("sensor-7", "plant.7.sensor", 2),
    ] {
        Crossing::renamed(&source, &destination, topic, to).settle(LIMIT).assert_intact();
        assert_eq!(destination.partitions(to), Some(partitions), "{to}");
    }
    for absent in ["many-other", "p.many-other", "p.renamed", "p.sensor-7", "named"] {
        assert_eq!(destination.partitions(absent), None, "{absent} was not asked for");
    }
    // A topic that matches and is new is found without a restart.
    source.create("many.late", 2, &[]);
    producer.fill("many.late", 2, 0..200);
    timed("a new topic of the pattern", || {
        Crossing::renamed(&source, &destination, "many.late", "p.many.late").settle(LIMIT).assert_intact();
    });
    assert_eq!(egress.named_missing(), []);
}

#[test]
fn several_topics_patterns_and_names_on_kafka_4() {
    several_topics(Pair::kafka_4());
}

#[test]
fn several_topics_patterns_and_names_on_kafka_3() {
    several_topics(Pair::kafka_3());
}

/// From 1 byte to 8 MiB, compressible and not, around the borders of symbols and blocks.
fn all_sizes(pair: &Pair) {
    const MIB: usize = 1 << 20;
    let (source, destination) = clusters(pair);
    source.create("sizes", 2, &[]);
    let producer = Producer::new(source.brokers());
    let (symbol, block) = (1412, 1412 * 64);
    let sizes =
        [1, 2, 100, symbol - 1, symbol, symbol + 1, 2 * symbol, block - 1, block, block + 1, 10 * block];
    for (number, size) in sizes.into_iter().chain([MIB, 3 * MIB + 1, 8 * MIB]).enumerate() {
        for random in [false, true] {
            let mut state = 0x0139_408D_CBBF_7A44_u64 ^ number as u64;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            };
            let value = (0..size).map(|at| if random { next() } else { (at / 50) as u8 }).collect();
            let sample = Sample { value: Some(value), timestamp: now_millis(), ..Sample::default() };
            producer.send("sizes", i32::from(random), &sample);
            // Small ones between the large ones keep their places.
            producer.send(
                "sizes",
                i32::from(random),
                &Sample { timestamp: now_millis(), ..Sample::default() },
            );
        }
    }
    producer.flush();
    let link = Link::new("sizes", source.brokers(), destination.brokers(), &["sizes"]);
    let (_ingress, egress) = link.start();
    let outcome = timed("crossed", || Crossing::new(&source, &destination, "sizes").settle(LIMIT));
    outcome.assert_intact();
    assert_eq!(outcome.sent, 14 * 4);
    assert_eq!(egress.named_missing(), []);
}

#[test]
fn one_byte_to_eight_mebibytes_on_kafka_4() {
    all_sizes(Pair::kafka_4());
}

#[test]
fn one_byte_to_eight_mebibytes_on_kafka_3() {
    all_sizes(Pair::kafka_3());
}

/// A source whose broker sets the time: the destination keeps that value, as any other.
#[test]
fn times_set_by_the_source_broker_are_kept() {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("append-time", 1, &[("message.timestamp.type", "LogAppendTime")]);
    Producer::new(source.brokers()).fill("append-time", 1, 0..100);
    let link = Link::new("append-time", source.brokers(), destination.brokers(), &["append-time"]);
    let _sides = link.start();
    let mut crossing = Crossing::new(&source, &destination, "append-time");
    crossing.settle(LIMIT).assert_intact();
    assert!(crossing.sent().iter().all(|row| matches!(row.timestamp, Timestamp::LogAppendTime(_))));
    assert!(crossing.arrived().iter().all(|row| matches!(row.timestamp, Timestamp::CreateTime(_))));
}

fn recreated(pair: &Pair) {
    let (source, destination) = clusters(pair);
    source.create("phoenix", 2, &[]);
    let producer = Producer::new(source.brokers());
    producer.fill("phoenix", 2, 0..500);
    let link = Link::new("phoenix", source.brokers(), destination.brokers(), &["phoenix"]);
    let (_ingress, egress) = link.start();
    let mut first = Crossing::new(&source, &destination, "phoenix");
    first.settle(LIMIT).assert_intact();
    source.delete("phoenix");
    // Time enough for the group to take the partitions away: the new topic is found by its name, known by its id.
    std::thread::sleep(Duration::from_secs(3));
    source.create("phoenix", 2, &[]);
    // Fewer records than before: offsets that the first life has used, all of them.
    Producer::new(source.brokers()).fill("phoenix", 2, 1000..1300);
    let mut second = first.next_life(&source, &destination);
    let outcome = timed("the second life crosses", || second.settle(LIMIT));
    outcome.assert_intact();
    assert_eq!(outcome.sent, 300);
    assert_eq!(egress.named_missing(), []);
    // And it goes on.
    Producer::new(source.brokers()).fill("phoenix", 2, 2000..2100);
    second.settle(LIMIT).assert_intact();
    assert_eq!(egress.named_missing(), []);
}

#[test]
fn a_topic_deleted_and_created_again_on_kafka_4() {
    recreated(Pair::kafka_4());
}

#[test]
fn a_topic_deleted_and_created_again_on_kafka_3() {
    recreated(Pair::kafka_3());
}

fn grown(pair: &Pair) {
    let (source, destination) = clusters(pair);
    source.create("growing", 2, &[]);
    let link = Link::new("growing", source.brokers(), destination.brokers(), &["growing"]);
    let (ingress, egress) = link.start();
    let load = Load::start(source.brokers(), "growing", 2, 300);
    let mut crossing = Crossing::new(&source, &destination, "growing");
    crossing.wait_for(300, LIMIT);
    source.add_partitions("growing", 4);
    Producer::new(source.brokers()).fill("growing", 4, 0..400);
    timed("the new partitions are read", || {
        until_true("four are assigned", LIMIT, || {
            ingress.metric("ddc_ingress_assigned_partitions", &[]) == 4
        });
    });
    load.stop();
    crossing.settle(LIMIT).assert_intact();
    assert_eq!(destination.partitions("growing"), Some(4), "the destination grows, too");
    assert_eq!(egress.named_missing(), []);
}

#[test]
fn a_topic_that_gets_more_partitions_on_kafka_4() {
    grown(Pair::kafka_4());
}

#[test]
fn a_topic_that_gets_more_partitions_on_kafka_3() {
    grown(Pair::kafka_3());
}

/// The ingress is pointed at another cluster, whose topic of the same name is another one; it begins there at the end. What it did not
/// read there was never sent: it is not missing.
#[test]
fn another_source_cluster_and_a_start_at_the_end_leave_no_gap() {
    let (topic, to, partitions) = ("elsewhere", "copy.elsewhere", 2);
    let (first, second) = clusters(Pair::kafka_4());
    first.create(topic, partitions, &[]);
    let mut link = Link::new(topic, first.brokers(), second.brokers(), &[topic]);
    link.egress.set("sink.kafka.topic_prefix", "copy.");
    let (ingress, egress) = link.start();
    Producer::new(first.brokers()).fill(topic, partitions, 0..300);
    let mut former = Crossing::renamed(&first, &second, topic, to);
    former.settle(LIMIT).assert_intact();
    ingress.stop();

    second.create(topic, partitions, &[]);
    let producer = Producer::new(second.brokers());
    producer.fill(topic, partitions, 0..100);
    link.ingress
        .set("source.kafka.brokers", vec![second.brokers().to_owned()])
        .set("source.kafka.start_at", "latest");
    let ingress = link.start_ingress();
    for partition in 0..partitions {
        let (partition, offset) = (format!("\"partition\":{partition},"), "\"offset\":50,");
        ingress.wait_logged(&["partition starts", &partition, offset]);
    }
    producer.fill(topic, partitions, 100..300);
    let mut moved = former.next_life(&second, &second);
    let outcome = moved.settle(LIMIT);
    outcome.assert_sound();
    let unread: BTreeSet<_> = (0..partitions as i32).flat_map(|p| (0..50).map(move |at| (p, at))).collect();
    assert_eq!(outcome.lost, unread);
    assert_eq!((egress.named_missing(), former.look().unwrap().lost.len()), (vec![], 0));
}
