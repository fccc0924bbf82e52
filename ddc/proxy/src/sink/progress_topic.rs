//! The topic in which an egress keeps how far each partition is settled: made as it must be, or looked at.
//!
//! docs/progress.md says what each setting is for. Two things make a topic unusable: more than one partition (no one
//! order of claims), and a clean-up that deletes (what is known to be delivered would be forgotten with age). All else
//! costs time at a start, and is said.

use std::collections::BTreeMap;
use std::time::Duration;

use ddc_kafka::admin::{Admin, AdminError, Created, TopicSpec};
use ddc_kafka::errors::Kind;

/// The topic's name, at every destination cluster.
pub const PROGRESS_TOPIC: &str = "ddc-progress";

/// The settings of the topic, beside one partition; docs/progress.md gives the reasons.
pub const PROGRESS_SETTINGS: [(&str, &str); 4] = [
    (CLEANUP_POLICY, "compact"),
    ("segment.bytes", "16777216"),
    ("segment.ms", "600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
];

const CLEANUP_POLICY: &str = "cleanup.policy";

/// Whether the topic can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ensured {
    /// It is there. Settings that differ from what they should be, each with its mend; nothing to say is empty.
    Ready(Vec<String>),
    /// It is there, and the cluster did not answer about its settings: why.
    Unread(String),
    /// It cannot be used now: why, and what to do. Try again later.
    Wait(String),
}

/// Creates the topic where it is missing, and judges the one that is there. Two or three calls to the cluster, each
/// bounded by `timeout`. `replication_factor` −1: the cluster's default.
pub fn ensure(admin: &Admin, topic: &str, replication_factor: i32, timeout: Duration) -> Ensured {
    match look(admin, topic, timeout) {
        Found::Missing => {}
        Found::There(ensured) => return ensured,
    }
    match admin.create_topic(&spec(topic, replication_factor), timeout) {
        Ok(Created::Now) => Ensured::Ready(Vec::new()),
        Ok(Created::Before) => Ensured::Wait(format!("topic {topic} was created by another client just now")),
        Err(error) => Ensured::Wait(why_not(topic, &error)),
    }
}

/// Whether [`ensure`] could create the topic; creates nothing.
pub fn may_create(
    admin: &Admin,
    topic: &str,
    replication_factor: i32,
    timeout: Duration,
) -> Result<(), String> {
    let answer = admin.may_create_topic(&spec(topic, replication_factor), timeout);
    answer.map(drop).map_err(|error| why_not(topic, &error))
}

/// Why the topic could not be created.
fn why_not(topic: &str, error: &AdminError) -> String {
    if error.verdict.kind == Kind::Authorization {
        return format!(
            "topic {topic} does not exist and this client may not create it; allow it Create (docs/acls.md), or {}",
            mend(topic)
        );
    }
    error.to_string()
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No such topic, or this client may not see it.
    Missing,
    /// It is there, or the cluster did not say.
    There(Ensured),
}

/// As [`ensure`], but changes nothing.
pub fn look(admin: &Admin, topic: &str, timeout: Duration) -> Found {
    let partitions = match admin.partition_counts(&[topic], timeout) {
        Ok(counts) => counts.get(topic).copied().flatten(),
        Err(error) => return Found::There(Ensured::Wait(error.to_string())),
    };
    match partitions {
        None => return Found::Missing,
        Some(1) => {}
        Some(more) => {
            return Found::There(Ensured::Wait(format!(
                "topic {topic} has {more} partitions and must have one: whoever claims later has to read the earlier claim; \
                 delete it, if no egress has written to it, and {}",
                mend(topic)
            )));
        }
    }
    Found::There(match admin.topic_settings(topic, timeout) {
        Ok(settings) => judge(topic, &settings),
        // It is there: this is how it looks when the cluster's ACLs hide the settings.
        Err(error) if error.verdict.kind == Kind::UnknownTopic => Ensured::Ready(vec![format!(
            "topic {topic} hides its settings from this client; allow it DescribeConfigs (docs/acls.md)"
        )]),
        Err(error) => Ensured::Unread(format!("the settings of topic {topic} are not known: {error}")),
    })
}

/// The topic as it should be.
fn spec(topic: &str, replication_factor: i32) -> TopicSpec {
    let config = PROGRESS_SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
    TopicSpec { name: topic.to_owned(), partitions: 1, replication_factor, config: BTreeMap::from(config) }
}

fn judge(topic: &str, settings: &BTreeMap<String, String>) -> Ensured {
    let mut differing = Vec::new();
    for (key, wanted) in PROGRESS_SETTINGS {
        let Some(found) = settings.get(key) else { continue };
        if same(found, wanted) {
            continue;
        }
        if key == CLEANUP_POLICY {
            return Ensured::Wait(format!(
                "topic {topic} has {key}={found}: what is known to be delivered would be deleted with age, and delivered \
                 again; run: kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {key}={wanted}"
            ));
        }
        differing.push(format!(
            "topic {topic} has {key}={found}, better {wanted}: a start has more to read; run: kafka-configs.sh --alter \
             --entity-type topics --entity-name {topic} --add-config {key}={wanted}"
        ));
    }
    Ensured::Ready(differing)
}

/// Numbers are compared as numbers: brokers write 0.1 as they like.
fn same(found: &str, wanted: &str) -> bool {
    match (found.parse::<f64>(), wanted.parse::<f64>()) {
        (Ok(found), Ok(wanted)) => (found - wanted).abs() <= f64::EPSILON * wanted.abs(),
        _ => found == wanted,
    }
}

/// How to make the topic by hand.
fn mend(topic: &str) -> String {
    let settings: Vec<_> =
        PROGRESS_SETTINGS.iter().map(|(key, value)| format!("--config {key}={value}")).collect();
    format!("run: kafka-topics.sh --create --topic {topic} --partitions 1 {}", settings.join(" "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;
    use ddc_kafka::context::Reporter;
    use ddc_kafka::settings::{ClientSettings, Role};

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn settings(changes: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        PROGRESS_SETTINGS.iter().chain(changes).map(own).collect()
    }

    fn admin(brokers: &str) -> Admin {
        let config = ClientSettings::plaintext([brokers], "t").build(&Role::Admin).unwrap();
        Admin::new(&config, Reporter::new("t", "admin")).unwrap()
    }

    #[test]
    fn a_topic_as_it_should_be_is_not_blamed() {
        assert_eq!(judge("p", &settings(&[])), Ensured::Ready(vec![]));
        assert_eq!(judge("p", &settings(&[("min.cleanable.dirty.ratio", "0.10")])), Ensured::Ready(vec![]));
        // What a broker does not say is not held against it.
        assert_eq!(judge("p", &BTreeMap::new()), Ensured::Ready(vec![]));
    }

    #[test]
    fn each_setting_that_differs_is_named_with_its_mend() {
        for (key, value) in [
            ("segment.bytes", "1073741824"),
            ("segment.ms", "604800000"),
            ("min.cleanable.dirty.ratio", "0.5"),
        ] {
            let Ensured::Ready(said) = judge("p", &settings(&[(key, value)])) else { panic!("{key}") };
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(
                said[0].contains(&format!("{key}={value}")) && said[0].contains("--add-config"),
                "{said:?}"
            );
        }
        let all =
            settings(&[("segment.bytes", "1"), ("segment.ms", "1"), ("min.cleanable.dirty.ratio", "1")]);
        assert!(matches!(judge("p", &all), Ensured::Ready(said) if said.len() == 3));
    }

    #[test]
    fn a_clean_up_that_deletes_is_refused() {
        for policy in ["delete", "compact,delete", "delete,compact", ""] {
            let Ensured::Wait(why) = judge("p", &settings(&[("cleanup.policy", policy)])) else {
                panic!("{policy}")
            };
            assert!(why.contains("cleanup.policy=compact") && why.contains("topic p"), "{why}");
        }
    }

    #[test]
    fn more_than_one_partition_is_refused_before_anything_else() {
        let mock = rdkafka::mocking::MockCluster::new(1).unwrap();
        mock.create_topic("p", 3, 1).unwrap();
        let Ensured::Wait(why) = ensure(&admin(&mock.bootstrap_servers()), "p", -1, TIMEOUT) else {
            panic!()
        };
        assert!(why.contains("has 3 partitions and must have one"), "{why}");
    }

    /// The mock cluster knows neither DescribeConfigs nor CreateTopics: as a cluster that forbids the one, lacks the other.
    #[test]
    fn what_cannot_be_asked_is_said_and_what_cannot_be_made_is_waited_for() {
        let mock = rdkafka::mocking::MockCluster::new(1).unwrap();
        mock.create_topic("p", 1, 1).unwrap();
        let admin = admin(&mock.bootstrap_servers());
        let Ensured::Unread(why) = ensure(&admin, "p", -1, TIMEOUT) else { panic!() };
        assert!(why.contains("settings of topic p are not known"), "{why}");
        assert_eq!(look(&admin, "absent", TIMEOUT), Found::Missing);
        let Ensured::Wait(why) = ensure(&admin, "absent", -1, TIMEOUT) else { panic!() };
        assert!(why.contains("creating topic absent"), "{why}");
    }

    #[test]
    fn the_topic_is_made_with_every_setting() {
        let spec = spec("p", 3);
        assert_eq!((spec.partitions, spec.replication_factor), (1, 3));
        assert_eq!(spec.config, settings(&[]));
        assert!(mend("p").contains("--config cleanup.policy=compact --config segment.bytes=16777216"));
    }
}
