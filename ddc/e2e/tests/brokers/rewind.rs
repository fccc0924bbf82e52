//! Back to where it was: `ddc rewind` after the death of an egress and under load; `ddc pause --since`, also over a restart
//! and to another link of the group.

use std::collections::BTreeSet;

use ddc_e2e::broker::Pair;
use ddc_e2e::produce::{Load, Producer};
use ddc_e2e::proxy::Link;
use ddc_e2e::verify::{Crossing, offsets_of};
use ddc_e2e::wait::{timed, until, until_true};

use crate::replay::{late, wait_closed};
use crate::{LIMIT, clusters};

/// Records per second of the load.
const RATE: u64 = 1500;

/// Runs a subcommand on the ingress's file; exit code and what it prints.
fn ddc(link: &Link, command: &str, arguments: &[&str]) -> (i32, String) {
    let (code, out, errors) = link.command([&[command, "-c", "ingress.toml"], arguments].concat());
    for line in out.lines().chain(errors.lines()) {
        println!("          {line}");
    }
    (code, out + &errors)
}

fn an_egress_dies(pair: &Pair, topic: &str) {
    let (source, destination) = clusters(pair);
    source.create(topic, 3, &[]);
    let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    // A busy machine must not cost it the group meanwhile: the history would begin anew.
    link.ingress.property("source", "session.timeout.ms", 45_000);
    let (ingress, egress) = link.start();
    Producer::new(source.brokers()).fill(topic, 3, 0..600);
    let mut crossing = Crossing::new(&source, &destination, topic);
    crossing.settle(LIMIT).assert_intact();
    egress.kill();
    let load = Load::start(source.brokers(), topic, 3, RATE);
    load.run_for(5 * RATE);
    let egress = link.start_egress();
    load.run_for(RATE);
    until_true("the egress names what is missing", LIMIT, || egress.named_missing().len() >= 3);
    let named = egress.named_missing();
    let lost: u64 = named.iter().filter_map(|gap| gap.records).sum();
    assert!(lost > 3 * RATE, "the test proves something: {named:?}");

    let (code, out) = ddc(&link, "rewind", &["--since", "1min", "--dry-run"]);
    assert!(code == 0 && out.contains("nothing was done") && out.contains("would go again"), "{code} {out}");
    assert_eq!((ingress.metric("ddc_ingress_rewinds_total", &[]), late(&egress)), (0, 0));
    let (code, out) = timed("rewound", || ddc(&link, "rewind", &["--since", "1min", "--by", "e2e"]));
    assert!(code == 0 && out.contains("records go again"), "{code} {out}");
    timed("all gaps are filled", || wait_closed(&link));
    assert_eq!(late(&egress), lost, "exactly what was missing is late");
    ingress.wait_logged(&["a rewind was asked for", "e2e ("]);
    ingress.wait_logged(&["a rewind is done"]);
    assert_eq!(ingress.status()["rewind"]["state"], "done");

    // Under load, with an egress that has everything: nothing twice, nothing late, nothing out of order.
    load.run_for(RATE);
    let before = egress.metric("ddc_egress_records_duplicate_total", &[]);
    let (code, _) = ddc(&link, "rewind", &["--since", "3s"]);
    assert_eq!(code, 0);
    let (code, _) = ddc(&link, "rewind", &["--since", "4s"]);
    assert_eq!(code, 0, "and at once again");
    load.run_for(RATE);
    load.stop();
    crossing.settle(LIMIT).assert_intact();
    assert_eq!(late(&egress), lost);
    assert_eq!(offsets_of(&egress.named_missing()), offsets_of(&named), "a rewind makes no gap");
    let again = egress.metric("ddc_egress_records_duplicate_total", &[]) - before;
    assert!(again > RATE, "{again}");
    assert_eq!(ingress.metric("ddc_ingress_rewinds_total", &[]), 3);
    println!("          {lost} lost and filled, then {again} sent again and skipped");
}

#[test]
fn what_a_dead_egress_was_sent_comes_back_on_kafka_4() {
    an_egress_dies(Pair::kafka_4(), "rewound");
}

#[test]
fn what_a_dead_egress_was_sent_comes_back_on_kafka_3() {
    an_egress_dies(Pair::kafka_3(), "rewound");
}

/// With `rewind_wait` the egress waits for the rewind: no gap is named, nothing is late, everything is in order.
#[test]
fn an_egress_that_waits_for_the_rewind_names_nothing() {
    let topic = "awaited";
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, 2, &[]);
    let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    link.egress.set("sink.kafka.rewind_wait", "1min");
    link.ingress.property("source", "session.timeout.ms", 45_000);
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    producer.fill(topic, 2, 0..200);
    let mut crossing = Crossing::new(&source, &destination, topic);
    crossing.settle(LIMIT).assert_intact();
    egress.kill();
    producer.fill(topic, 2, 200..400);
    let sent = || ingress.metric("ddc_ingress_records_sent_total", &[]);
    until_true("it is sent to nobody", LIMIT, || sent() >= 400);
    let egress = link.start_egress();
    producer.fill(topic, 2, 400..500);
    egress.wait_logged(&["the partition waits for the ingress to go back"]);
    let (code, out) = ddc(&link, "rewind", &["--since", "1min"]);
    assert!(code == 0 && out.contains("records go again"), "{code} {out}");
    egress.wait_logged(&["the ingress went back"]);
    crossing.settle(LIMIT).assert_intact();
    assert_eq!((egress.named_missing(), late(&egress)), (vec![], 0));
    until_true("nothing waits", LIMIT, || egress.status()["sink"]["held_chunks"] == 0);
}

#[test]
fn a_pause_since_holds_over_a_restart() {
    let topic = "paused";
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, 3, &[]);
    let link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    let (ingress, egress) = link.start();
    let load = Load::start(source.brokers(), topic, 3, RATE);
    let mut crossing = Crossing::new(&source, &destination, topic);
    crossing.wait_for(5 * RATE as usize, LIMIT);

    let (code, out) = ddc(&link, "pause", &["--since", "4s", "--by", "checker", "--fence", "7"]);
    assert!(code == 0 && out.contains("paused by checker") && out.contains("go again when"), "{code} {out}");
    let (code, out) = ddc(&link, "pause", &[]);
    assert!(code == 0 && out.contains("paused by checker, operator"), "{code} {out}");
    let status = ingress.status();
    assert_eq!(status["source"]["state"], "paused", "{status}");
    assert_eq!(status["pause"]["assigned_partitions"], 0);
    let (code, out) = ddc(&link, "rewind", &["--since", "4s"]);
    assert!(code == 69 && out.contains("paused"), "{code} {out}");
    // Heartbeats go on, records do not.
    let sent = ingress.metric("ddc_ingress_records_sent_total", &[]);
    let beats = ingress.metric("ddc_ingress_heartbeats_sent_total", &[]);
    until_true("heartbeats go on", LIMIT, || {
        ingress.metric("ddc_ingress_heartbeats_sent_total", &[]) >= beats + 2
    });
    assert_eq!(ingress.metric("ddc_ingress_records_sent_total", &[]), sent);
    ingress.stop();
    let ingress = link.start_ingress();
    ingress.wait_unready(&["paused by checker, operator"]);
    load.run_for(RATE);
    let (code, out) = ddc(&link, "resume", &["--by", "checker", "--fence", "6"]);
    assert!(code == 69 && out.contains("comes too late"), "{code} {out}");
    let (code, out) = ddc(&link, "resume", &["--by", "checker", "--fence", "8"]);
    assert!(code == 0 && out.contains("stays paused by operator"), "{code} {out}");
    assert_eq!(ingress.metric("ddc_ingress_records_sent_total", &[]), 0);
    let before = egress.metric("ddc_egress_records_duplicate_total", &[]);
    let (code, _) = ddc(&link, "resume", &[]);
    assert_eq!(code, 0);
    ingress.wait_ready();
    load.run_for(RATE);
    load.stop();
    crossing.settle(LIMIT).assert_intact();
    assert_eq!(egress.named_missing(), []);
    let again = egress.metric("ddc_egress_records_duplicate_total", &[]) - before;
    assert!(again >= 2 * RATE, "4 s before the pause and no less goes again: {again}");
}

/// Both links are of one group. What the dead egress was sent goes through the other link, though the ingress had committed it.
#[test]
fn what_a_paused_ingress_has_sent_goes_through_the_other_link() {
    let topic = "moved";
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, 2, &[]);
    let mut links: Vec<Link> = ["moved-a", "moved-b"]
        .map(|name| Link::new(name, source.brokers(), destination.brokers(), &[topic]))
        .into();
    for link in &mut links {
        link.ingress.set("source.kafka.group", "moved").set("source.kafka.commit_delay", "100ms");
    }
    let (ingress, egress) = links[0].start();
    let producer = Producer::new(source.brokers());
    producer.fill(topic, 2, 0..200);
    let mut crossing = Crossing::new(&source, &destination, topic);
    crossing.settle(LIMIT).assert_intact();
    egress.kill();
    producer.fill(topic, 2, 200..400);
    until_true("it is sent to nobody", LIMIT, || {
        ingress.metric("ddc_ingress_records_sent_total", &[]) >= 400
    });
    // The commits are made each 100 ms: after some more, what was sent is in one.
    let commits = ingress.metric("ddc_ingress_commits_total", &[]);
    producer.fill(topic, 2, 400..410);
    until_true("it is committed", LIMIT, || ingress.metric("ddc_ingress_commits_total", &[]) > commits);
    let (other_egress, other) = (links[1].start_egress(), links[1].start_ingress());
    let (code, out) = ddc(&links[0], "pause", &["--since", "1min"]);
    assert!(code == 0 && out.contains("paused by operator"), "{code} {out}");
    until(
        "the other link has all partitions",
        LIMIT,
        || match other.status()["source"]["assigned_partitions"].as_i64() {
            Some(2) => Ok(()),
            found => Err(format!("{found:?}")),
        },
    );
    until("nothing is lost", LIMIT, || {
        let lost = crossing.look()?.lost;
        if lost.is_empty() { Ok(()) } else { Err(format!("{} lost", lost.len())) }
    });
    let arrived: BTreeSet<i32> = crossing.arrived().iter().map(|row| row.partition).collect();
    assert_eq!(arrived.len(), 2);
    drop((ingress, other_egress));
}
