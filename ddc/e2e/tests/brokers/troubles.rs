//! What goes wrong is named, counted, tried again; what is not ours is refused; the rest goes on.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ddc_e2e::broker::{Pair, free_block};
use ddc_e2e::produce::{Load, Producer, Sample, now_millis};
use ddc_e2e::proxy::{Link, Proxy, TomlValue};
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::{until, until_true};

use crate::{LIMIT, clusters};

#[test]
fn brokers_that_cannot_be_reached_are_named_and_waited_for() {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("unreachable", 1, &[]);
    Producer::new(source.brokers()).fill("unreachable", 1, 0..100);
    let nobody = format!("127.0.0.1:{}", free_block(1));
    let mut link = Link::new("unreachable", &nobody, &nobody, &["unreachable"]);
    let (mut ingress, mut egress) = (link.start_ingress(), link.start_egress());
    for side in [&ingress, &egress] {
        println!("          {}", side.wait_unready(&[&nobody, "no broker answers"]).trim());
        side.wait_logged(&[&nobody, "unreachable"]);
    }
    assert_eq!(ingress.get("/healthz").unwrap().0, 200, "liveness does not depend on Kafka");
    assert_eq!(egress.get("/healthz").unwrap().0, 200, "liveness does not depend on Kafka");
    assert!(ingress.lives() && egress.lives());
    // An outage is over when somebody answers there: shown by the tests that kill brokers. Here: with the right address.
    ingress.stop();
    egress.stop();
    let brokers = |address: &str| vec![TomlValue::from(address)];
    link.ingress.set("source.kafka.brokers", brokers(source.brokers()));
    link.egress.set("sink.kafka.brokers", brokers(destination.brokers()));
    let _sides = link.start();
    Crossing::new(&source, &destination, "unreachable").settle(LIMIT).assert_intact();
}

#[test]
fn topics_that_do_not_exist_are_named_and_waited_for() {
    let (source, destination) = clusters(Pair::kafka_4());
    let mut link = Link::new("absent", source.brokers(), destination.brokers(), &["absent"]);
    link.egress.set("sink.kafka.create_topics", false);
    let (ingress, egress) = (link.start_ingress(), link.start_egress());
    println!("          {}", ingress.wait_unready(&["absent"]).trim());
    ingress.wait_logged(&["absent", "unknown_topic"]);
    source.create("absent", 1, &[]);
    Producer::new(source.brokers()).fill("absent", 1, 0..100);
    ingress.wait_ready();
    println!("          {}", egress.wait_unready(&["topic absent does not exist"]).trim());
    egress.wait_logged(&["absent", "wait for their destination topic"]);
    assert_eq!(destination.partitions("absent"), None, "not created: that is forbidden");
    destination.create("absent", 1, &[]);
    Crossing::new(&source, &destination, "absent").settle(LIMIT).assert_intact();
    egress.wait_ready();
    assert_eq!(egress.named_missing(), []);
}

fn too_large(pair: &Pair) {
    let (source, destination) = clusters(pair);
    source.create("too-large", 2, &[]);
    destination.create("too-large", 2, &[("max.message.bytes", "100000")]);
    let producer = Producer::new(source.brokers());
    producer.fill("too-large", 2, 0..200);
    // Random, so that no compression makes it fit. Two beside each other, and one alone at the other partition.
    let large = |seed: u64| {
        let mut state = seed | 1;
        let value = (0..300_000).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        Sample { value: Some(value.collect()), timestamp: now_millis(), ..Sample::default() }
    };
    producer.send("too-large", 0, &large(11));
    producer.send("too-large", 0, &large(12));
    producer.send("too-large", 1, &large(13));
    producer.flush();
    producer.fill("too-large", 2, 200..400);
    let link = Link::new("too-large", source.brokers(), destination.brokers(), &["too-large"]);
    let (_ingress, mut egress) = link.start();
    // Until then records beside the large ones are on their way again, while later ones have arrived.
    until_true("the refusals are counted", LIMIT, || {
        egress.metric("ddc_egress_records_missing_total", &["reason=\"refused\""]) == 3
    });
    let outcome = Crossing::new(&source, &destination, "too-large").settle(LIMIT);
    outcome.assert_sound();
    let expected = [(0, 100), (0, 101), (1, 100)];
    assert_eq!(outcome.lost.iter().copied().collect::<Vec<_>>(), expected);
    // Two beside each other are one range or two: it depends on how the producer had put them into requests.
    let mut named: Vec<(i32, i64)> = Vec::new();
    for missing in egress.named_missing() {
        assert_eq!((missing.topic.as_str(), missing.reason.as_str()), ("too-large", "refused"));
        assert_eq!(missing.records, Some((missing.last - missing.first + 1) as u64));
        named.extend((missing.first..=missing.last).map(|offset| (missing.partition, offset)));
    }
    named.sort_unstable();
    assert_eq!(named, expected);
    egress.wait_logged(&["records are missing", "max.message.bytes"]);
    assert!(egress.lives());
    egress.wait_ready();
    assert_eq!(egress.metric("ddc_egress_records_missing_total", &[]), 3, "and nothing else");
}

#[test]
fn a_record_too_large_for_the_destination_on_kafka_4() {
    too_large(Pair::kafka_4());
}

#[test]
fn a_record_too_large_for_the_destination_on_kafka_3() {
    too_large(Pair::kafka_3());
}

/// The source has a larger record than the ingress may carry: stepped over, by name.
#[test]
fn a_record_too_large_for_the_link_is_named_at_the_ingress() {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("over-limit", 1, &[]);
    let producer = Producer::new(source.brokers());
    producer.fill("over-limit", 1, 0..50);
    let large = Sample { value: Some(vec![b'x'; 80_000]), timestamp: now_millis(), ..Sample::default() };
    producer.send("over-limit", 0, &large);
    producer.fill("over-limit", 1, 50..100);
    let mut link = Link::new("over-limit", source.brokers(), destination.brokers(), &["over-limit"]);
    link.ingress.set("link.pack.max_record_bytes", "64KiB");
    let (ingress, egress) = link.start();
    let outcome = Crossing::new(&source, &destination, "over-limit").settle(LIMIT);
    outcome.assert_sound();
    assert_eq!(outcome.lost.iter().copied().collect::<Vec<_>>(), [(0, 50)]);
    let line = ingress.wait_logged(&["\"offset\":50", "over-limit", "max_record_bytes"]);
    println!("          {line}");
    assert_eq!(ingress.metric("ddc_ingress_records_skipped_total", &["reason=\"too_large\""]), 1);
    assert_eq!(egress.named_missing(), [], "it was not sent, so it is not missing on the link");
}

/// Datagrams that are not ours, thrown at the egress while it works, by somebody who sees the real ones.
#[test]
fn hostile_datagrams_are_counted_by_reason_and_change_nothing() {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("hostile", 3, &[]);
    let mut link = Link::new("hostile", source.brokers(), destination.brokers(), &["hostile"]);
    // The ingress sends to a tap, which hands on every datagram unchanged and bad copies beside it.
    let tap = UdpSocket::bind("127.0.0.1:0").unwrap();
    tap.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    link.ingress.set("link.target", tap.local_addr().unwrap().to_string());
    let (egress_address, stop) = (format!("127.0.0.1:{}", link.port()), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let thrower = thread::spawn(move || throw(&tap, &egress_address, &stopped));
    let (ingress, mut egress) = link.start();
    let load = Load::start(source.brokers(), "hostile", 3, 1500);
    load.run_for(6000);
    load.stop();
    Crossing::new(&source, &destination, "hostile").settle(LIMIT).assert_intact();
    stop.store(true, Ordering::Relaxed);
    let thrown = thrower.join().unwrap();
    let refused = |egress: &Proxy, reason: &str| {
        let label = format!("reason=\"{reason}\"");
        egress.metric("ddc_dropped_packets_total", &[label.as_str()])
    };
    // Datagrams are counted in steps; and the last ones may still lie in the socket.
    until("all are counted", LIMIT, || {
        let seen = [
            refused(&egress, "short"),
            refused(&egress, "magic"),
            refused(&egress, "seal"),
            refused(&egress, "link"),
        ];
        if seen[0] > 0 && seen[1] == thrown.random && seen[3] == thrown.link {
            Ok(())
        } else {
            Err(format!("{seen:?} of {thrown:?}"))
        }
    });
    let mut total = 0;
    for reason in [
        "short",
        "long",
        "magic",
        "version",
        "kind",
        "link",
        "key",
        "seal",
        "replay",
        "header",
        "session_rate",
    ] {
        let count = refused(&egress, reason);
        println!("          refused, {reason}: {count}");
        total += count;
    }
    println!("          {thrown:?}");
    assert_eq!(total, egress.metric("ddc_dropped_packets_total", &[]), "no other reason");
    assert_eq!(total, thrown.sum(), "each bad datagram once, no good one");
    assert_eq!(refused(&egress, "replay"), thrown.replayed);
    assert!(refused(&egress, "seal") >= thrown.flipped, "every bit is sealed");
    assert_eq!(egress.named_missing(), []);
    assert_eq!(egress.metric("ddc_egress_sessions_opened_total", &[]), 1);
    assert!(egress.lives());
    egress.wait_ready();
    drop(ingress);
}

/// What was thrown besides the real datagrams.
#[derive(Debug, Default)]
struct Thrown {
    random: u64,
    empty: u64,
    truncated: u64,
    flipped: u64,
    replayed: u64,
    link: u64,
}

impl Thrown {
    fn sum(&self) -> u64 {
        self.random + self.empty + self.truncated + self.flipped + self.replayed + self.link
    }
}

fn throw(tap: &UdpSocket, egress: &str, stop: &AtomicBool) -> Thrown {
    let out = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |datagram: &[u8]| {
        // A port that is not open yet refuses; the real ones then are lost as on any path.
        let _ = out.send_to(datagram, egress);
    };
    let (mut thrown, mut buffer, mut number) = (Thrown::default(), [0; 2048], 0usize);
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, _)) = tap.recv_from(&mut buffer) else { continue };
        let real = &buffer[..length];
        number += 1;
        let mut bad = real.to_vec();
        // Before the real one, which must be taken all the same.
        match number % 12 {
            0 => {
                // As long as a real one, and nothing of it: the first byte alone makes it foreign.
                bad.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7 + number) as u8 | 1);
                bad[0] = b'X';
                send(&bad);
                thrown.random += 1;
            }
            2 => {
                send(&[]);
                thrown.empty += 1;
            }
            4 => {
                send(&bad[..number * 31 % length]);
                thrown.truncated += 1;
            }
            6 => {
                let at = 44 + number * 13 % (length - 44);
                bad[at] ^= 1 << (number % 8);
                send(&bad);
                thrown.flipped += 1;
            }
            10 => {
                // The link id stands behind magic, version and kind.
                bad[5] ^= 0xFF;
                send(&bad);
                thrown.link += 1;
            }
            _ => {}
        }
        send(real);
        if number % 12 == 8 {
            send(real);
            thrown.replayed += 1;
        }
    }
    thrown
}
