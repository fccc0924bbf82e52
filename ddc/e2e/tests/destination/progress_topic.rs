//! The topic `ddc-progress`: made as docs/progress.md says, and judged.

use std::time::Duration;

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::wait::until;
use ddc_kafka::admin::Admin;
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::{ClientSettings, Role};
use ddc_proxy::sink::progress_topic::{Ensured, Found, PROGRESS_SETTINGS, ensure, look};

use crate::LIMIT;

const CALL: Duration = Duration::from_secs(5);

fn made_and_judged(pair: &Pair) {
    let brokers = pair.destination.plaintext();
    let cluster = Cluster::new(&brokers);
    let config = ClientSettings::plaintext([brokers], "e2e").build(&Role::Admin).unwrap();
    let admin = Admin::new(&config, Reporter::new("e2e", "admin")).unwrap();
    let again = |topic: &str| {
        until("the cluster answers", LIMIT, || match look(&admin, topic, CALL) {
            Found::There(ensured) => Ok(ensured),
            Found::Missing => Err("not shown yet"),
        })
    };

    assert_eq!(look(&admin, "made-progress", CALL), Found::Missing);
    assert_eq!(ensure(&admin, "made-progress", -1, CALL), Ensured::Ready(vec![]));
    assert_eq!(again("made-progress"), Ensured::Ready(vec![]), "what was made is as it should be");
    assert_eq!(ensure(&admin, "made-progress", -1, CALL), Ensured::Ready(vec![]), "and is not made twice");
    assert_eq!(cluster.partitions("made-progress"), Some(1));
    let settings = admin.topic_settings("made-progress", CALL).unwrap();
    for (key, value) in PROGRESS_SETTINGS {
        assert_eq!(settings.get(key).map(String::as_str), Some(value), "{key}");
    }

    // As an operator makes it who has not read the documentation.
    cluster.create("plain-progress", 1, &[]);
    let Ensured::Wait(why) = ensure(&admin, "plain-progress", -1, CALL) else {
        panic!("cleanup.policy=delete")
    };
    assert!(why.contains("cleanup.policy=delete"), "{why}");
    cluster.create("big-progress", 1, &[("cleanup.policy", "compact")]);
    let Ensured::Ready(said) = ensure(&admin, "big-progress", -1, CALL) else { panic!("only warnings") };
    let named = |key: &str| said.iter().any(|line| line.contains(key));
    assert!(
        said.len() == 3 && ["segment.bytes", "segment.ms", "min.cleanable"].iter().all(|key| named(key)),
        "{said:?}"
    );
    cluster.create("wide-progress", 2, &[("cleanup.policy", "compact")]);
    let Ensured::Wait(why) = ensure(&admin, "wide-progress", -1, CALL) else { panic!("two partitions") };
    assert!(why.contains("has 2 partitions and must have one"), "{why}");
    let Ensured::Wait(why) = ensure(&admin, "unmade-progress", 3, CALL) else {
        panic!("one broker, three replicas")
    };
    assert!(why.contains("creating topic unmade-progress"), "{why}");
}

#[test]
fn the_progress_topic_on_kafka_4() {
    made_and_judged(Pair::kafka_4());
}

#[test]
fn the_progress_topic_on_kafka_3() {
    made_and_judged(Pair::kafka_3());
}
