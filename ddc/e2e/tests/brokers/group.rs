//! The ingress as one of several members of its group, and topics that go while others stay.

use std::time::{Duration, Instant};

use ddc_e2e::broker::Pair;
use ddc_e2e::produce::Load;
use ddc_e2e::proxy::{Link, Proxy, Signal};
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::{timed, until, until_true};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{LIMIT, clusters};

const PARTITIONS: u32 = 4;
const RATE: u64 = 800;

/// Another member of the group of `link`, which neither reads nor commits.
fn stranger(brokers: &str, link: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("ddc-{link}"))
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "3000")
        .set("heartbeat.interval.ms", "500")
        // Not polled for this long, it is no member any more.
        .set("max.poll.interval.ms", "3000")
        .create()
        .unwrap()
}

fn assigned(ingress: &Proxy) -> u64 {
    ingress.metric("ddc_ingress_assigned_partitions", &[])
}

/// Joins and leaves in order, then joins and stands still until the group drops it, all under load: what the other one held is read from where the ingress
/// had committed, and nothing crosses twice.
fn members_come_and_go(pair: &Pair) {
    let (source, destination) = clusters(pair);
    let name = "members";
    source.create(name, PARTITIONS, &[]);
    let link = Link::new(name, source.brokers(), destination.brokers(), &[name]);
    let load = Load::start(source.brokers(), name, PARTITIONS, RATE);
    let (mut ingress, mut egress) = link.start();
    let mut crossing = Crossing::new(&source, &destination, name);
    crossing.wait_for(1000, LIMIT);
    let mut still = Vec::new();
    for stands_still in [false, true] {
        let other = stranger(source.brokers(), name);
        other.subscribe(&[name]).unwrap();
        timed("another member has its share", || {
            until_true("two each", LIMIT, || {
                let _ = other.poll(Duration::from_millis(100));
                other.assignment().unwrap().count() == 2 && assigned(&ingress) == 2
            });
        });
        // What it holds now waits; the rest goes on.
        let before = ingress.metric("ddc_ingress_records_sent_total", &[]);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            let _ = other.poll(Duration::from_millis(100));
        }
        let after = ingress.metric("ddc_ingress_records_sent_total", &[]);
        assert!(after > before, "the ingress's own share stood still: {before}, {after}");
        if stands_still {
            still.push(other);
        } else {
            timed("it leaves", || drop(other));
        }
        timed("all is the ingress's again", || until_true("four", LIMIT, || assigned(&ingress) == 4));
        load.run_for(RATE);
    }
    load.stop();
    timed("all has crossed", || crossing.settle(LIMIT)).assert_intact();
    assert_eq!(egress.named_missing(), []);
    let again = egress.metric("ddc_egress_records_duplicate_total", &[]);
    println!("          {again} records sent again and skipped");
    assert!(ingress.lives() && egress.lives());
}

#[test]
fn members_come_and_go_on_kafka_4() {
    members_come_and_go(Pair::kafka_4());
}

#[test]
fn members_come_and_go_on_kafka_3() {
    members_come_and_go(Pair::kafka_3());
}

/// Static membership: a pause longer than the session, a death shorter than it. Neither loses or doubles anything.
#[test]
fn a_static_member_that_pauses_and_one_that_comes_back() {
    let pair = Pair::kafka_4();
    let (source, destination) = clusters(pair);
    let name = "static-member";
    source.create(name, PARTITIONS, &[]);
    let mut link = Link::new(name, source.brokers(), destination.brokers(), &[name]);
    link.ingress.property("source", "group.instance.id", "ingress-1");
    let load = Load::start(source.brokers(), name, PARTITIONS, RATE);
    let (ingress, egress) = link.start();
    let mut crossing = Crossing::new(&source, &destination, name);
    crossing.wait_for(1000, LIMIT);

    // Stands still until the group has taken its partitions away: another member gets them all.
    ingress.signal(Signal::STOP);
    let other = stranger(source.brokers(), name);
    other.subscribe(&[name]).unwrap();
    timed("the paused member's partitions move", || {
        until("all four", LIMIT, || {
            let _ = other.poll(Duration::from_millis(100));
            match other.assignment().unwrap().count() {
                4 => Ok(()),
                count => Err(count),
            }
        });
    });
    let rebalances = || ingress.metric("ddc_ingress_rebalances_total", &[]);
    ingress.signal(Signal::CONT);
    let before = rebalances();
    drop(other);
    timed("it is a member again", || {
        until_true("taken and given again", LIMIT, || rebalances() >= before + 2 && assigned(&ingress) == 4);
    });
    load.run_for(RATE);

    // Killed and back within the session: the same member, the same partitions.
    ingress.kill();
    let mut ingress = link.start_ingress();
    timed("it is back", || until_true("four", LIMIT, || assigned(&ingress) == 4));
    load.run_for(RATE);
    load.stop();
    timed("all has crossed", || crossing.settle(LIMIT)).assert_intact();
    assert_eq!(egress.named_missing(), []);
    assert!(ingress.lives());

    // The price: a static member that stops does not leave, so the others wait for its session to end.
    ingress.stop();
    let other = stranger(source.brokers(), name);
    other.subscribe(&[name]).unwrap();
    let start = Instant::now();
    until_true("a stopped member's partitions move", LIMIT, || {
        let _ = other.poll(Duration::from_millis(50));
        other.assignment().unwrap().count() == PARTITIONS as usize
    });
    println!("{:>7.2} s  a stopped static member's partitions move", start.elapsed().as_secs_f64());
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "it left at once: static membership would cost nothing"
    );
}

/// Of two topics of one pattern, one is deleted under load, for good: the other one does not notice.
fn a_topic_goes(pair: &Pair) {
    let (source, destination) = clusters(pair);
    for topic in ["going.away", "going.on"] {
        source.create(topic, 2, &[]);
    }
    let link = Link::new("going", source.brokers(), destination.brokers(), &["^going\\..*"]);
    let load = Load::start(source.brokers(), "going.on", 2, RATE);
    let doomed = Load::start(source.brokers(), "going.away", 2, RATE / 4);
    let (mut ingress, mut egress) = link.start();
    let mut away = Crossing::new(&source, &destination, "going.away");
    let mut on = Crossing::new(&source, &destination, "going.on");
    away.wait_for(300, LIMIT);
    on.wait_for(1000, LIMIT);
    doomed.stop();
    away.settle(LIMIT).assert_intact();
    source.delete("going.away");
    timed("its partitions are given up", || until_true("two are left", LIMIT, || assigned(&ingress) == 2));
    // And one that matches comes under load.
    source.create("going.new", 3, &[]);
    let new = Load::start(source.brokers(), "going.new", 3, RATE / 4);
    timed("a new topic's partitions are read", || until_true("five", LIMIT, || assigned(&ingress) == 5));
    load.run_for(RATE);
    new.stop();
    load.stop();
    Crossing::new(&source, &destination, "going.new").settle(LIMIT).assert_intact();
    on.settle(LIMIT).assert_intact();
    assert_eq!(egress.named_missing(), [], "what was deleted is not missing");
    assert_eq!(destination.partitions("going.away"), Some(2), "what has arrived stays");
    ingress.wait_ready();
    assert!(ingress.lives() && egress.lives());
}

#[test]
fn a_topic_goes_and_one_comes_on_kafka_4() {
    a_topic_goes(Pair::kafka_4());
}

#[test]
fn a_topic_goes_and_one_comes_on_kafka_3() {
    a_topic_goes(Pair::kafka_3());
}
