//! Processes die and come back under load: proxies and brokers, killed and stopped. What is not named is not missing.

use std::collections::BTreeSet;
use std::time::Duration;

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::Load;
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::verify::{Crossing, Named, Outcome, offsets_of, spans};
use ddc_e2e::wait::{timed, until, until_true};

use crate::{LIMIT, clusters};

const PARTITIONS: u32 = 3;
/// Records per second of the load.
const RATE: u64 = 1500;

/// A link under load, and what it carries.
struct Stage {
    source: Cluster,
    destination: Cluster,
    link: Link,
    load: Load,
    topic: String,
}

impl Stage {
    fn set(pair: &Pair, topic: &str) -> Stage {
        let (source, destination) = clusters(pair);
        source.create(topic, PARTITIONS, &[]);
        let link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
        let load = Load::start(source.brokers(), topic, PARTITIONS, RATE);
        Stage { source, destination, link, load, topic: topic.to_owned() }
    }

    fn crossing(&self) -> Crossing {
        Crossing::new(&self.source, &self.destination, &self.topic)
    }

    /// Ends the load and compares both ends.
    fn end(self) -> Outcome {
        let mut crossing = self.crossing();
        let sent = self.load.stop();
        let outcome = timed("all has crossed", || crossing.settle(LIMIT));
        assert_eq!(outcome.sent as u64, sent, "the source has what was produced");
        outcome
    }
}

fn ingress_killed(pair: &Pair) {
    let stage = Stage::set(pair, "ingress-killed");
    let (ingress, egress) = stage.link.start();
    stage.crossing().wait_for(2000, LIMIT);
    ingress.kill();
    stage.load.run_for(RATE);
    let ingress = timed("the ingress is back", || {
        let ingress = stage.link.start_ingress();
        until_true("it sends", LIMIT, || ingress.status()["sent"]["records"].as_u64() > Some(0));
        ingress
    });
    stage.load.run_for(RATE);
    let outcome = stage.end();
    // Positions at the egress remove what was sent again.
    outcome.assert_intact();
    assert_eq!(egress.named_missing(), []);
    let again = egress.metric("ddc_egress_records_duplicate_total", &[]);
    assert!(again > 0, "what was sent and not committed was sent again");
    println!("          {again} records sent again and skipped");
    drop(ingress);
}

#[test]
fn ingress_killed_on_kafka_4() {
    ingress_killed(Pair::kafka_4());
}

#[test]
fn ingress_killed_on_kafka_3() {
    ingress_killed(Pair::kafka_3());
}

#[test]
fn ingress_stopped_drains_and_says_goodbye() {
    let stage = Stage::set(Pair::kafka_4(), "ingress-stopped");
    let (ingress, egress) = stage.link.start();
    stage.crossing().wait_for(2000, LIMIT);
    let took = ingress.stop();
    println!("          drained in {took:?}");
    // What was sent before the stop has arrived without another ingress; nothing was cut off in the middle.
    until_true("the goodbye arrives", LIMIT, || {
        egress.metric("ddc_egress_sessions_retired_total", &[]) == 1
            || egress.metric("ddc_egress_sessions_open", &[]) == 0
    });
    assert_eq!(egress.named_missing(), []);
    stage.load.run_for(RATE);
    let ingress = stage.link.start_ingress();
    ingress.wait_ready();
    stage.load.run_for(RATE);
    stage.end().assert_intact();
    assert_eq!(egress.named_missing(), []);
    assert_eq!(egress.metric("ddc_egress_packet_loss_total", &[]), 0);
}

/// Everything lost is named; everything named is one range per partition, with this reason where the first batch after it tells.
fn assert_named(outcome: &Outcome, named: &[Named], reason: &str) -> BTreeSet<(i32, i64)> {
    let offsets = offsets_of(named);
    let unnamed: BTreeSet<_> = outcome.lost.difference(&offsets).copied().collect();
    assert!(unnamed.is_empty(), "missing and not named: {:?}; named: {named:?}", spans(&unnamed));
    assert!(!outcome.lost.is_empty(), "an egress that was away misses something: the test proves nothing");
    assert!(named.iter().any(|range| range.reason == reason), "{named:?}");
    assert!(named.iter().all(|range| [reason, "lost"].contains(&range.reason.as_str())), "{named:?}");
    let partitions: BTreeSet<i32> = named.iter().map(|range| range.partition).collect();
    assert_eq!(partitions.len(), named.len(), "one range for each partition: {named:?}");
    offsets.difference(&outcome.lost).copied().collect()
}

/// Waits until the egress has named something for every partition.
fn wait_named(egress: &Proxy) {
    until("the egress names what is missing", LIMIT, || {
        let named = egress.named_missing();
        if named.len() >= PARTITIONS as usize { Ok(()) } else { Err(format!("{named:?}")) }
    });
}

/// The egress is away while the ingress sends on.
fn egress_away(pair: &Pair, topic: &str, end: impl FnOnce(Proxy)) -> (Outcome, Vec<Named>) {
    let stage = Stage::set(pair, topic);
    let (_ingress, egress) = stage.link.start();
    stage.crossing().wait_for(4000, LIMIT);
    end(egress);
    stage.load.run_for(RATE);
    let egress = timed("the egress is back", || {
        let egress = stage.link.start_egress();
        egress.wait_ready();
        egress
    });
    wait_named(&egress);
    stage.load.run_for(RATE);
    let outcome = stage.end();
    let named = egress.named_missing();
    for range in &named {
        println!("          named: {range:?}");
    }
    assert_eq!(
        egress.status()["missing"].as_array().map(Vec::len),
        Some(named.len()),
        "/status and log agree"
    );
    (outcome, named)
}

fn egress_killed(pair: &Pair) {
    let (outcome, named) = egress_away(pair, "egress-killed", Proxy::kill);
    // Progress is committed with the records: what the spool gives again is skipped.
    assert_eq!(outcome.duplicated, [], "exactly once");
    outcome.assert_sound();
    let delivered = assert_named(&outcome, &named, "restart");
    println!("          {} lost", outcome.lost.len());
    assert!(delivered.is_empty(), "the spool knows what was received: {:?}", spans(&delivered));
}

#[test]
fn egress_killed_on_kafka_4() {
    egress_killed(Pair::kafka_4());
}

#[test]
fn egress_killed_on_kafka_3() {
    egress_killed(Pair::kafka_3());
}

#[test]
fn egress_stopped_names_exactly_what_it_missed() {
    let (outcome, named) = egress_away(Pair::kafka_4(), "egress-stopped", |egress| {
        println!("          drained in {:?}", egress.stop());
    });
    outcome.assert_sound();
    let delivered = assert_named(&outcome, &named, "restart");
    assert!(delivered.is_empty(), "a planned stop stores what was delivered: {:?}", spans(&delivered));
    let records: Option<u64> = named.iter().map(|range| range.records).sum();
    assert_eq!(records, Some(outcome.lost.len() as u64), "{named:?}");
}

fn source_broker_killed(pair: &Pair) {
    let stage = Stage::set(pair, "source-broker");
    let (mut ingress, mut egress) = stage.link.start();
    stage.crossing().wait_for(2000, LIMIT);
    pair.source.kill();
    ingress.wait_unready(&["source"]);
    timed("the source's broker is back", || pair.source.restart());
    stage.load.run_for(RATE);
    stage.end().assert_intact();
    ingress.wait_ready();
    assert!(ingress.lives() && egress.lives());
    assert_eq!(egress.named_missing(), []);
}

#[test]
fn source_broker_killed_on_kafka_4() {
    source_broker_killed(Pair::kafka_4());
}

#[test]
fn source_broker_killed_on_kafka_3() {
    source_broker_killed(Pair::kafka_3());
}

fn destination_broker_killed(pair: &Pair) {
    let stage = Stage::set(pair, "destination-broker");
    let (mut ingress, mut egress) = stage.link.start();
    stage.crossing().wait_for(2000, LIMIT);
    pair.destination.kill();
    let why = egress.wait_unready(&["destination"]);
    println!("          {}", why.trim());
    stage.load.run_for(RATE);
    timed("the destination's broker is back", || pair.destination.restart());
    stage.load.run_for(RATE);
    stage.end().assert_intact();
    egress.wait_ready();
    assert!(ingress.lives() && egress.lives());
    assert_eq!(egress.named_missing(), []);
}

#[test]
fn destination_broker_killed_on_kafka_4() {
    destination_broker_killed(Pair::kafka_4());
}

#[test]
fn destination_broker_killed_on_kafka_3() {
    destination_broker_killed(Pair::kafka_3());
}

#[test]
fn what_overflows_the_socket_of_a_frozen_egress_is_named() {
    let mut stage = Stage::set(Pair::kafka_4(), "egress-frozen");
    // Less than what comes while the process stands still.
    stage.link.egress.set("link.socket_buffer", "256KiB");
    let (_ingress, egress) = stage.link.start();
    stage.crossing().wait_for(2000, LIMIT);
    egress.signal(ddc_e2e::proxy::Signal::STOP);
    stage.load.run_for(2 * RATE);
    egress.signal(ddc_e2e::proxy::Signal::CONT);
    stage.load.run_for(2 * RATE);
    let outcome = stage.end();
    outcome.assert_sound();
    assert!(!outcome.lost.is_empty(), "the socket overflowed: else the test proves nothing");
    // The ledger of the next second names what the socket dropped.
    std::thread::sleep(Duration::from_secs(2));
    let named = offsets_of(&egress.named_missing());
    assert_eq!(
        outcome.lost.difference(&named).count(),
        0,
        "lost {:?}, named {:?}",
        spans(&outcome.lost),
        spans(&named)
    );
    assert_eq!(named.difference(&outcome.lost).count(), 0, "nothing that came is named: {:?}", spans(&named));
}
