//! Every field of every kind of record arrives as it was written.

use ddc_e2e::broker::Pair;
use ddc_e2e::produce::Producer;
use ddc_e2e::proxy::Link;
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::timed;

use crate::{LIMIT, clusters};

fn every_field(pair: &Pair) {
    let (source, destination) = clusters(pair);
    source.create("fields", 3, &[]);
    Producer::new(source.brokers()).fill("fields", 3, 0..3000);
    let link = Link::new("fields", source.brokers(), destination.brokers(), &["fields"]);
    let (_ingress, egress) = timed("both sides ready", || link.start());
    let outcome = timed("crossed", || Crossing::new(&source, &destination, "fields").settle(LIMIT));
    outcome.assert_intact();
    assert_eq!(outcome.sent, 3000);
    assert_eq!(destination.partitions("fields"), Some(3));
    assert_eq!(egress.named_missing(), []);
    assert_eq!(egress.metric("ddc_egress_records_delivered_total", &[]), 3000);
}

#[test]
fn every_field_is_intact_on_kafka_4() {
    every_field(Pair::kafka_4());
}

#[test]
fn every_field_is_intact_on_kafka_3() {
    every_field(Pair::kafka_3());
}
