//! What is gone at the source is named, and its hole is closed: deleted, aborted, compacted, of an older topic.

use std::thread;
use std::time::Duration;

use ddc_e2e::broker::Pair;
use ddc_e2e::produce::{Producer, Sample, any_kind};
use ddc_e2e::proxy::Link;
use ddc_e2e::verify::{Crossing, Named, Reader};
use ddc_e2e::wait::{timed, until, until_true};
use ddc_link::receiver::{OffsetRange, PartitionKey};
use ddc_proxy::gaps::{Gap, GapFile, Timestamp};
use ddc_telemetry::reasons::MissingReason;
use ddc_wire::{LinkId, TopicId};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::replay::{Cut, holes, late, lossy, range, replay, run, wait_closed, with};
use crate::{LIMIT, clusters};

/// Deleted by hand after they were lost: the first half is gone, the rest comes.
#[test]
fn deleted_records_are_gone_and_close_their_part() {
    let topic = "replay-deleted";
    let lossy = lossy(topic, &[], |_, producer| producer.fill(topic, 1, 100..200));
    let Named { first, last, records, .. } = lossy.named;
    assert_eq!((first, last, records), (100, 199, Some(100)));
    lossy.source.delete_records(topic, 0, 150);
    let dry = replay(&lossy.link, &with(range(topic, 0, first, last), &["--dry-run"]));
    assert!(dry.contains("100 to 149 gone, deleted at the source; up to 50 records from 150"), "{dry}");
    let out = replay(&lossy.link, &range(topic, 0, first, last));
    assert!(out.contains("50 records") && out.contains("gone: 100-149"), "{out}");
    wait_closed(&lossy.link);
    assert_eq!(late(&lossy.egress), 50);
    let mut crossing = Crossing::new(&lossy.source, &lossy.destination, topic);
    until("50 late records are at the destination", LIMIT, || {
        crossing.look()?;
        let arrived = crossing.arrived().len();
        if arrived == 250 { Ok(()) } else { Err(format!("{arrived}")) }
    });
    // All of it below the start of the log: nothing is read.
    lossy.source.delete_records(topic, 0, 200);
    let out = replay(&lossy.link, &range(topic, 0, 0, 199));
    assert!(out.contains("0 records") && out.contains("gone: 0-199"), "{out}");
    assert_eq!(lossy.egress.named_missing().len(), 1);
}

/// Aborted transactions among the lost ones: their records and all markers are gone, the others come.
#[test]
fn aborted_records_are_not_replayed() {
    let topic = "replay-aborted";
    let lossy = lossy(topic, &[], |source, producer| {
        let transactional: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", source.brokers())
            .set("transactional.id", "replay-aborted")
            .create()
            .unwrap();
        transactional.init_transactions(LIMIT).unwrap();
        for (number, commit) in (1..).zip([true, false, true, false]) {
            transactional.begin_transaction().unwrap();
            for number in 0..30 {
                let sample = any_kind(number);
                let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0);
                record.key = sample.key.as_deref();
                record.payload = sample.value.as_deref();
                transactional.send(record).map_err(|(error, _)| error).unwrap();
            }
            transactional.flush(LIMIT).unwrap();
            if commit {
                transactional.commit_transaction(LIMIT).unwrap();
            } else {
                transactional.abort_transaction(LIMIT).unwrap();
            }
            // The brokers write the marker after they have answered: what follows must not come before it.
            until("the marker is written", LIMIT, || {
                let (_, high) = transactional.client().fetch_watermarks(topic, 0, LIMIT).unwrap();
                if high == 100 + 31 * number { Ok(()) } else { Err(format!("the log ends at {high}")) }
            });
        }
        producer.fill(topic, 1, 100..150);
    });
    let Named { first, last, records, .. } = lossy.named;
    assert_eq!((first, records), (100, Some(110)), "{:?}", lossy.named);
    let out = replay(&lossy.link, &range(topic, 0, first, last));
    // 30 records and a marker each; offsets 131 to 161 and 193 to 223 with the marker before them.
    assert!(out.contains("110 records") && out.contains("gone: 130-161, 192-223"), "{out}");
    wait_closed(&lossy.link);
    Crossing::new(&lossy.source, &lossy.destination, topic).settle(LIMIT).assert_intact();
    assert_eq!(late(&lossy.egress), 110);
}

/// Compacted after they were lost: only the last record of each key comes, the hole closes all the same.
#[test]
fn a_compacted_topic_closes_its_hole() {
    let topic = "replay-compacted";
    let config = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "100"),
    ];
    let keyed = |producer: &Producer, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let key = Some(format!("k{}", number % 5).into_bytes());
            let sample = Sample { key, value: Some(vec![1; 20]), ..any_kind(0) };
            producer.send(topic, 0, &sample);
        }
        producer.flush();
    };
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, 1, &config);
    let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    let cut = Cut::on(&mut link);
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    keyed(&producer, 0..100);
    Crossing::new(&source, &destination, topic).wait_for(100, LIMIT);
    cut.set(true);
    keyed(&producer, 100..200);
    until_true("the lost ones were sent", LIMIT, || {
        ingress.metric("ddc_ingress_records_sent_total", &[]) >= 200
    });
    cut.catch_up(&ingress);
    cut.set(false);
    keyed(&producer, 200..300);
    until_true("the egress names what is missing", LIMIT, || !egress.named_missing().is_empty());
    let Named { first, last, .. } = egress.named_missing()[0];
    timed("compacted", || {
        until("the brokers have compacted", LIMIT, || {
            // A segment is closed by the next record only.
            keyed(&producer, 0..5);
            let mut reader = Reader::new(&source, topic);
            reader.read()?;
            let left = reader.rows.iter().filter(|row| (first..=last).contains(&row.offset)).count();
            thread::sleep(Duration::from_millis(300));
            if left < 100 { Ok(()) } else { Err(format!("{left} of the lost ones are there")) }
        });
    });
    let out = replay(&link, &range(topic, 0, first, last));
    assert!(out.contains("gone: 1"), "{out}");
    wait_closed(&link);
    assert!(late(&egress) < 100);
}

/// A gap file: what it names of an older topic is answered as gone; of today's topic it is sent.
#[test]
fn a_gap_file_of_an_older_topic_closes_its_hole() {
    let topic = "replay-older";
    let lossy = lossy(topic, &[], |_, producer| producer.fill(topic, 1, 100..200));
    let id = until("the hole is stored", LIMIT, || {
        let found = holes(&lossy.link).into_iter().find(|(.., holes)| !holes.is_empty());
        found.map(|(_, id, _)| id).ok_or("no hole")
    });
    let write = |id: &str, first: i64, last: i64| {
        let key = PartitionKey {
            topic: topic.into(),
            topic_id: id.parse::<TopicId>().unwrap(),
            ..PartitionKey::default()
        };
        let now: Timestamp = "2026-03-01T08:15:30.250Z".parse().unwrap();
        let range = OffsetRange { first, last };
        let gap = Gap::found(topic, &key, range, None, MissingReason::Lost, None, now);
        let file = GapFile {
            site: None,
            link: topic.parse().unwrap(),
            link_id: LinkId(7),
            exported_at: now,
            gaps: vec![gap],
        };
        std::fs::write(lossy.link.directory().join("gaps.json"), file.to_json().unwrap()).unwrap();
    };
    write(&id, 100, 149);
    let out = replay(&lossy.link, &["--gaps".into(), "gaps.json".into()]);
    assert!(out.contains("50 records"), "{out}");
    until_true("half of it has arrived", LIMIT, || late(&lossy.egress) == 50);
    lossy.source.delete(topic);
    lossy.source.create(topic, 1, &[]);
    Producer::new(lossy.source.brokers()).fill(topic, 1, 0..300);
    write(&id, 150, 199);
    let out = replay(&lossy.link, &["--gaps".into(), "gaps.json".into()]);
    assert!(out.contains("0 records") && out.contains("gone (an older topic): 150-199"), "{out}");
    wait_closed(&lossy.link);
    assert_eq!(late(&lossy.egress), 50, "nothing of the new topic filled a hole of the old");
    // Of another link, by name.
    let text = std::fs::read_to_string(lossy.link.directory().join("gaps.json")).unwrap();
    std::fs::write(
        lossy.link.directory().join("other.json"),
        text.replace("\"link_id\": 7", "\"link_id\": 8"),
    )
    .unwrap();
    let (code, _, errors) = run(&lossy.link, &["--gaps".into(), "other.json".into()]);
    assert!(code == 64 && errors.contains("(id 8)"), "{code} {errors}");
}
