//! A cluster that names no broker for a moment takes librdkafka all of them; the lifeline gives them back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ddc_e2e::broker::Broker;
use ddc_e2e::wait::{timed, until};
use ddc_kafka::admin::{Admin, TopicSpec};
use ddc_kafka::context::Reporter;
use ddc_kafka::lifeline::Lifeline;
use ddc_kafka::settings::{ClientSettings, Role};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::LIMIT;

/// One answer.
const CALL: Duration = Duration::from_secs(2);

/// A broker that its controller fences between any two heartbeats of it, as on a machine that is too busy for them.
fn broker() -> Broker {
    timed("a broker that comes and goes", || {
        let late = ["broker.session.timeout.ms=1000", "broker.heartbeat.interval.ms=3000"];
        let broker = Broker::start_with("fenced", "4", &late);
        broker.wait_ready();
        broker
    })
}

/// How many brokers the cluster names now.
fn named(client: &BaseConsumer) -> Result<usize, String> {
    client.fetch_metadata(None, CALL).map(|told| told.brokers().len()).map_err(|error| error.to_string())
}

#[test]
fn a_client_that_has_lost_all_brokers_gets_them_back() {
    let broker = broker();
    // An answer with neither brokers nor topics is asked for again; one with topics is believed.
    let settings = ClientSettings::plaintext([broker.plaintext()], "e2e").build(&Role::Admin).unwrap();
    let admin = Admin::new(&settings, Reporter::new("e2e", "admin")).unwrap();
    let topic =
        TopicSpec { name: "any".into(), partitions: 1, replication_factor: 1, config: BTreeMap::new() };
    until("a topic is created while the broker is there", LIMIT, || admin.create_topic(&topic, CALL));
    let client = || -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", broker.plaintext())
            .set("topic.metadata.refresh.interval.ms", "200")
            .create()
            .unwrap()
    };
    let (held, left, lifeline) = (client(), client(), Lifeline::default());
    let both_know = || match (named(&held), named(&left)) {
        (Ok(1..), Ok(1..)) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("the cluster names its broker", LIMIT, both_know);
    // As every reader and writer does; what it says is that the client knew brokers and knows none.
    let start = Instant::now();
    until("the lifeline was needed", LIMIT, || {
        // An answer without a broker is what does it.
        let told = named(&held);
        if lifeline.look(&held) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    println!("{:>7.2} s  all brokers are lost, and given again", start.elapsed().as_secs_f64());
    until("the other client has lost its brokers for good", LIMIT, || match (named(&left), named(&left)) {
        (Err(_), Err(error)) => {
            println!("          without a lifeline: {error}");
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    // The broker comes and goes on, and so may the client's knowledge of it.
    until("the client with a lifeline knows the broker again", LIMIT, || {
        lifeline.look(&held);
        match named(&held) {
            Ok(1..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(
        named(&left).is_err(),
        "the one without does not come back by itself: the lifeline is what did it"
    );
}
