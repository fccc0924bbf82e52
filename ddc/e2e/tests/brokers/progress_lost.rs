//! The topic `ddc-progress` is deleted, or made again by somebody, while an egress writes: it goes on from what it knows, writes that
//! into the new topic, and says so. Nothing is delivered twice, also not by its next life.

use ddc_e2e::broker::{Broker, Pair};
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::Producer;
use ddc_e2e::proxy::Link;
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::{timed, until, until_true};

use crate::LIMIT;

#[test]
fn a_progress_topic_that_is_lost_is_written_again_from_memory() {
    let topic = "from-memory";
    // Others follow the topic of the pair's destination.
    let own = Broker::start("progress-lost", "4");
    let source = Cluster::new(&Pair::kafka_4().source.plaintext());
    source.create(topic, 2, &[]);
    let mut link = Link::new(topic, source.brokers(), &own.plaintext(), &[topic]);
    // What was sent stays uncommitted, so that the next ingress sends it again.
    link.ingress.set("source.kafka.commit_delay", "10min");
    own.wait_ready();
    let destination = Cluster::new(&own.plaintext());
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    producer.fill(topic, 2, 0..300);
    let mut crossing = Crossing::new(&source, &destination, topic);
    crossing.settle(LIMIT).assert_intact();
    let restored = || egress.metric("ddc_egress_progress_restored_total", &[]);
    assert_eq!(restored(), 0);

    destination.delete("ddc-progress");
    producer.fill(topic, 2, 300..400);
    timed("it is written again", || {
        until_true("it is written again", LIMIT, || restored() >= 4);
    });
    egress.wait_logged(&["the progress topic has lost what this egress wrote there"]);
    crossing.settle(LIMIT).assert_intact();

    // By somebody who makes it again at once, in the middle of a stream of records.
    let before = restored();
    producer.fill(topic, 2, 400..500);
    destination.delete("ddc-progress");
    destination.create("ddc-progress", 1, &[("cleanup.policy", "compact")]);
    producer.fill(topic, 2, 500..600);
    timed("it is written once more", || {
        until("it is written once more", LIMIT, || {
            let now = restored();
            // The claims at least: the progress may have gone along with the records that were on their way.
            if now >= before + 2 { Ok(()) } else { Err(format!("{now}, and {before} before")) }
        });
    });
    crossing.settle(LIMIT).assert_intact();

    // All of it goes again, to this life and to the next.
    ingress.kill();
    let ingress = link.start_ingress();
    let duplicates =
        |egress: &ddc_e2e::proxy::Proxy| egress.metric("ddc_egress_records_duplicate_total", &[]);
    until_true("all of it was skipped", LIMIT, || duplicates(&egress) >= 600);
    egress.kill();
    ingress.kill();
    let (_ingress, egress) = link.start();
    until_true("all of it was skipped by the next life", LIMIT, || duplicates(&egress) >= 600);
    crossing.settle(LIMIT).assert_intact();
    assert_eq!(egress.named_missing(), []);
}
