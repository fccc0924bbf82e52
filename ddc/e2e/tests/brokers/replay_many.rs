//! A replay of what an outage leaves: many small ranges, quickly; and over a kill of its ingress, to the end.

use std::fs;
use std::time::{Duration, Instant};

use ddc_e2e::broker::Pair;
use ddc_e2e::produce::{Producer, Sample, now_millis};
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::{timed, until, until_true};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use crate::replay::{Cut, late, range, replay, run, wait_closed, with};
use crate::{LIMIT, clusters};

/// Records that no compression makes smaller, to the partitions in turn.
fn fill(producer: &Producer, topic: &str, partitions: i64, records: i64, size: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..records {
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let value = Some((0..size).map(|_| byte()).collect());
        let sample = Sample { key: None, value, headers: Vec::new(), timestamp: now_millis() };
        producer.send(topic, (number % partitions) as i32, &sample);
    }
    producer.flush();
}

/// Writes records that are never committed, and waits for the marker behind them.
fn abort(brokers: &str, topic: &str, records: i64) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("transactional.id", topic);
    let producer: BaseProducer = config.create().unwrap();
    let end = || producer.client().fetch_watermarks(topic, 0, LIMIT).unwrap().1;
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    let before = end();
    for _ in 0..records {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).payload(b"never");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
    producer.abort_transaction(LIMIT).unwrap();
    until("the marker is written", LIMIT, || match end() {
        high if high == before + records + 1 => Ok(()),
        high => Err(format!("the log ends at {high}")),
    });
}

/// Ranges of 1 to 10 records, so far from each other that they must be looked for or so near that they need not.
/// `REPLAY_MANY="records ranges size"` measures another size by hand.
#[test]
fn many_small_ranges_take_seconds() {
    let sizes = std::env::var("REPLAY_MANY").unwrap_or_else(|_| "40000 400 100".into());
    let sizes: Vec<i64> = sizes.split(' ').map(|number| number.parse().unwrap()).collect();
    let [records, ranges, size] = sizes[..] else { panic!("records, ranges, size") };
    let (topic, tail, partitions) = ("replay-many", "replay-many-tail", 4);
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, partitions as u32, &[]);
    source.create(tail, 1, &[]);
    fill(&Producer::new(source.brokers()), topic, partitions, records, size as usize);
    let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic, tail]);
    link.ingress.set("source.kafka.start_at", "latest");
    let ingress = link.start_ingress();
    ingress.wait_ready();
    let (mut arguments, mut wanted) = (Vec::new(), 0);
    let of_partition = ranges / partitions;
    for number in 0..ranges {
        // Not in order: the ingress sorts them.
        let number = number * 7 % ranges;
        let (partition, place) = (number % partitions, number / partitions);
        let (from, len) = (place * (records / partitions / of_partition), 1 + number % 10);
        arguments.extend(range(topic, partition as i32, from, from + len - 1));
        wanted += len as u64;
    }
    let start = Instant::now();
    let out = replay(&link, &with(arguments, &["--id", "many"]));
    let took = start.elapsed();
    println!("          {ranges} ranges of {wanted} in {records} records of {size} B: {took:.2?}");
    assert!(
        out.contains(&format!("done: {wanted} of {wanted} offsets, {wanted} records, 0 offsets gone")),
        "{out}"
    );
    assert_eq!(ingress.metric("ddc_ingress_replay_records_sent_total", &[]), wanted);
    for told in known(&ingress, "many")["ranges"].as_array().unwrap() {
        let number = |key: &str| told[key].as_i64().unwrap();
        assert_eq!(number("records"), number("to") - number("from") + 1, "{told}");
        assert_eq!(number("next"), number("to") + 1, "{told}");
    }
    // A look for each of them took 0.12 s and more.
    assert!(took < Duration::from_secs(20), "{took:?}");

    // The end of the log is told once, and several ranges end there: behind 10 records nothing that was committed.
    fill(&Producer::new(source.brokers()), tail, 1, 10, 100);
    abort(source.brokers(), tail, 30);
    let ranges = [(5, 6), (12, 13), (20, 21), (38, 39)];
    let arguments = ranges.iter().flat_map(|(from, to)| range(tail, 0, *from, *to)).collect();
    let start = Instant::now();
    let out = replay(&link, &with(arguments, &["--id", "tail"]));
    assert!(out.contains("done: 8 of 8 offsets, 2 records, 6 offsets gone"), "{out}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// What the ingress tells of a replay.
fn known(ingress: &Proxy, id: &str) -> Value {
    let (code, body) = ingress.get(&format!("/v1/replay/{id}")).unwrap();
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Killed in the middle it goes on when the ingress runs again, from where it was; a file that cannot be read costs the
/// replay, and nothing else.
#[test]
fn it_goes_on_after_a_kill() {
    let (topic, records) = ("replay-killed", 1000);
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, 2, &[]);
    let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    let cut = Cut::on(&mut link);
    link.ingress.set("link.rate", "8Mbit/s");
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    fill(&producer, topic, 2, 10, 100);
    let mut crossing = Crossing::new(&source, &destination, topic);
    crossing.wait_for(10, LIMIT);
    cut.set(true);
    fill(&producer, topic, 2, records, 2000);
    until_true("the lost ones were sent", LIMIT, || {
        ingress.metric("ddc_ingress_records_sent_total", &[]) >= 10 + records as u64
    });
    cut.catch_up(&ingress);
    cut.set(false);
    fill(&producer, topic, 2, 10, 100);
    until_true("the egress names what is missing", LIMIT, || {
        egress.named_missing().iter().filter_map(|gap| gap.records).sum::<u64>() == records as u64
    });
    let wanted: Vec<String> = (0..2).flat_map(|partition| range(topic, partition, 5, 504)).collect();
    let order = with(wanted, &["--id", "case-1", "--by", "e2e", "--detach"]);
    replay(&link, &order);
    until("some of it is sent", LIMIT, || {
        let sent = known(&ingress, "case-1")["offsets_sent"].as_u64().unwrap();
        if sent > 450 { Ok(()) } else { Err(sent) }
    });
    ingress.kill();
    let (code, _, errors) = run(&link, &["--status".into()]);
    assert!(code == 69 && errors.contains("is the ingress running"), "{code} {errors}");

    let ingress = link.start_ingress();
    ingress.wait_logged(&["a replay of a former run goes on", "case-1"]);
    let (code, _, errors) = run(&link, &range(topic, 0, 0, 4));
    assert!(code == 69 && errors.contains("replay case-1 is under way"), "{code} {errors}");
    timed("its rest", || {
        until("it is done", LIMIT, || {
            let told = known(&ingress, "case-1");
            if told["state"] == "done" { Ok(()) } else { Err(told["offsets_sent"].clone()) }
        });
    });
    let told = known(&ingress, "case-1");
    assert_eq!(
        (told["offsets_sent"].as_i64(), told["records"].as_i64()),
        (Some(records), Some(records)),
        "{told}"
    );
    assert!(told["by"].as_str().unwrap().starts_with("e2e ("), "{told}");
    let rest = ingress.metric("ddc_ingress_replay_records_sent_total", &[]);
    println!("          {rest} of {records} after the restart");
    assert!(rest > 0 && rest < records as u64 - 50, "it did not begin anew: {rest}");
    wait_closed(&link);
    crossing.settle(LIMIT).assert_intact();
    assert_eq!(late(&egress), records as u64);

    // The last one is known after the next restart, and cancelled it stays.
    ingress.stop();
    let ingress = link.start_ingress();
    ingress.wait_ready();
    let (_, out, _) = run(&link, &["--status".into()]);
    assert!(out.starts_with("case-1: done: 1000 of 1000 offsets in 2 ranges, 1000 records"), "{out}");
    let again =
        with([range(topic, 0, 0, 504), range(topic, 1, 0, 504)].concat(), &["--id", "case-2", "--detach"]);
    replay(&link, &again);
    let (code, ..) = run(&link, &["--cancel".into(), "case-2".into()]);
    assert_eq!(code, 0);
    ingress.kill();
    let file = link.directory().join("ingress-state/replay.json");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains("case-2") && kept.contains("\"state\":\"cancelled\""), "{kept}");

    // Half a file: refused by name, moved away, and records flow.
    fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    let ingress = link.start_ingress();
    ingress.wait_ready();
    ingress.wait_logged(&["replay.json cannot be read", "replay.json.refused", "is not known any more"]);
    fill(&producer, topic, 2, 10, 100);
    crossing.settle(LIMIT).assert_intact();
    let (_, out, _) = run(&link, &["--status".into()]);
    assert_eq!(out, "no replay is known\n");
    replay(&link, &range(topic, 0, 0, 9));
}
