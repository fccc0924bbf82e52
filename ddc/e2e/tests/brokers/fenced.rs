//! A cluster that names no broker for a moment is not forgotten for good.

use std::time::{Duration, Instant};

use ddc_e2e::broker::{Broker, Pair};
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::Producer;
use ddc_e2e::proxy::{Link, Signal};
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::until_true;

use crate::LIMIT;

/// The controller fences a broker whose heartbeat is 2 s late, and until the next one the cluster has none.
const HEARTBEAT: &str = "broker.heartbeat.interval.ms=1500";
/// Not every pause lets the client ask in that time.
const PAUSES: u32 = 25;

#[test]
fn a_source_that_names_no_broker_for_a_moment_is_found_again() {
    let directory = tempfile::Builder::new().prefix("ddc-e2e-").tempdir().unwrap();
    let flaky = Broker::start_in(directory.path().to_owned(), "flaky", "4", "plaintext", &[HEARTBEAT]);
    flaky.wait_ready();
    let source = Cluster::new(&flaky.plaintext());
    let destination = Cluster::new(&Pair::kafka_4().destination.plaintext());
    source.create("fenced", 2, &[]);
    let link = Link::new("fenced", source.brokers(), destination.brokers(), &["fenced"]);
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    producer.fill("fenced", 2, 0..200);
    let left_alone = || ingress.log().contains("had no broker left");
    for pause in 1..=PAUSES {
        flaky.signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(3));
        flaky.signal(Signal::CONT);
        let begin = Instant::now();
        until_true("it is seen, or the moment is over", LIMIT, || {
            left_alone() || begin.elapsed() > Duration::from_secs(4)
        });
        if left_alone() {
            println!("          after {pause} pauses");
            break;
        }
    }
    assert!(left_alone(), "the client never lost its brokers: the test proves nothing");
    flaky.wait_ready();
    producer.fill("fenced", 2, 200..400);
    Crossing::new(&source, &destination, "fenced").settle(LIMIT).assert_intact();
    ingress.wait_ready();
    assert_eq!(egress.named_missing(), []);
}
