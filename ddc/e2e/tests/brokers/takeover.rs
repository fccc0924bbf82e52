//! Two links of one set, each with its own pair, in one consumer group: when one pair dies, the other goes on with its
//! partitions, and the destination has every record once.

use ddc_e2e::broker::Pair;
use ddc_e2e::produce::Load;
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::{timed, until_true};

use crate::{LIMIT, clusters};

const PARTITIONS: u32 = 4;
/// Records per second.
const RATE: u64 = 1000;

fn link(name: &str, topic: &str, source: &str, destination: &str) -> (Link, Proxy, Proxy) {
    let mut link = Link::new(name, source, destination, &[topic]);
    link.ingress.set("source.kafka.group", "takeover");
    link.egress.set("sink.kafka.set", "plant").set("sink.kafka.takeover_timeout", "2s");
    let (ingress, egress) = link.start();
    (link, ingress, egress)
}

fn assigned(ingress: &Proxy) -> u64 {
    ingress.metric("ddc_ingress_assigned_partitions", &[])
}

/// Both processes of a pair are gone at once, in the middle of a transaction as likely as not.
#[test]
fn the_other_pair_goes_on_where_the_dead_one_ended() {
    let topic = "takeover";
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, PARTITIONS, &[]);
    let (_a, ingress_a, egress_a) = link("takeover-a", topic, source.brokers(), destination.brokers());
    let (_b, ingress_b, egress_b) = link("takeover-b", topic, source.brokers(), destination.brokers());
    let both = || (assigned(&ingress_a), assigned(&ingress_b));
    until_true("each has its share", LIMIT, || both() == (2, 2));
    let load = Load::start(source.brokers(), topic, PARTITIONS, RATE);
    Crossing::new(&source, &destination, topic).wait_for(2 * RATE as usize, LIMIT);
    egress_a.kill();
    ingress_a.kill();
    timed("the other has all partitions", || {
        until_true("all are assigned", LIMIT, || assigned(&ingress_b) == u64::from(PARTITIONS));
    });
    load.run_for(3 * RATE);
    let sent = load.stop();
    let outcome = timed("all has crossed", || Crossing::new(&source, &destination, topic).settle(LIMIT));
    outcome.assert_intact();
    assert_eq!(outcome.sent as u64, sent);
    assert_eq!(egress_b.named_missing(), []);
    egress_b.wait_logged(&["a partition of another link is written from here on"]);
    egress_b.wait_logged(&["the egress of another link was fenced"]);
}
