//! The two Kafka clusters of the demo: librdkafka's mock clusters inside this process, or real ones.
//!
//! On a real cluster every run has topics and a consumer group of its own, which are deleted at its end; nothing else
//! there is touched.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use ddc_kafka::admin::{Admin, Created, TopicSpec};
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::{ClientSettings, Role};
use ddc_proxy::sink::progress_topic::PROGRESS_TOPIC;
use rdkafka::admin::AdminOptions;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaErrorCode;

use super::records::TOPICS;

/// Bound of each call to a real cluster.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A mock cluster keeps 5 MiB of each partition and throws older batches away. So no more than this may be on its way in
/// one partition; the rest of the 5 MiB is for batches (≤ 1 MiB) of which a part is still needed.
pub(super) const MOCK_PARTITION_BYTES: u64 = 7 << 19;

/// A cluster with the run's topics.
pub(super) struct Cluster {
    brokers: Vec<String>,
    topics: Vec<String>,
    group: String,
    kind: Kind,
}

enum Kind {
    /// Lives as long as this value.
    Mock {
        _cluster: MockCluster<'static, DefaultProducerContext>,
    },
    Real(Admin),
}

impl Cluster {
    /// Starts a mock cluster, or connects to `brokers`, and creates [`TOPICS`] there, `prefix` before each name. Topics
    /// that were made before something failed are deleted again.
    /// `group` is the consumer group that may read them.
    pub(super) fn open(
        side: &'static str,
        brokers: &[String],
        prefix: &str,
        group: &str,
    ) -> anyhow::Result<Self> {
        if brokers.is_empty() {
            return mock(prefix, group).with_context(|| format!("the embedded {side} cluster"));
        }
        let shown = brokers.join(",");
        let context = || format!("the {side} cluster at {shown}");
        let config = settings(brokers).build(&Role::Admin).with_context(context)?;
        let admin = Admin::new(&config, Reporter::new("demo", side)).with_context(context)?;
        let (brokers, group) = (brokers.to_vec(), group.to_owned());
        let mut cluster = Self { brokers, topics: Vec::new(), group, kind: Kind::Real(admin) };
        if let Err(error) = cluster.create_topics(prefix) {
            cluster.remove();
            return Err(error.context(context()));
        }
        Ok(cluster)
    }

    /// Whether it is embedded, so that it keeps little.
    pub(super) fn is_mock(&self) -> bool {
        matches!(self.kind, Kind::Mock { .. })
    }

    /// `host:port` of each broker that was given.
    pub(super) fn brokers(&self) -> &[String] {
        &self.brokers
    }

    /// The names in the order of [`TOPICS`].
    pub(super) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// The consumer group of the run.
    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// How its clients connect.
    pub(super) fn settings(&self) -> ClientSettings {
        settings(&self.brokers)
    }

    /// Deletes the topics and the group of the run. What cannot be deleted is said; the run's verdict stands.
    pub(super) fn remove(self) {
        let Kind::Real(admin) = &self.kind else { return };
        for topic in &self.topics {
            if let Err(error) = admin.delete_topic(topic, CALL_TIMEOUT) {
                tracing::warn!(topic, %error, "a topic of the demo stays behind; delete it by hand");
            }
        }
        if let Err(error) = delete_group(admin, &self.group) {
            tracing::warn!(group = self.group, %error, "the demo's consumer group stays behind; delete it by hand");
        }
    }

    fn create_topics(&mut self, prefix: &str) -> anyhow::Result<()> {
        let Kind::Real(admin) = &self.kind else { return Ok(()) };
        for (name, partitions) in TOPICS {
            let name = format!("{prefix}{name}");
            let spec = TopicSpec {
                name: name.clone(),
                partitions,
                replication_factor: -1,
                config: BTreeMap::from(
                    [
                        // The records have timestamps of years ago: retention would delete them at once.
                        ("retention.ms", "-1"),
                        ("retention.bytes", "-1"),
                        ("message.timestamp.type", "CreateTime"),
                        // 1 MiB of value, and what belongs to it.
                        ("max.message.bytes", "2097152"),
                    ]
                    .map(|(key, value)| (key.to_owned(), value.to_owned())),
                ),
            };
            if admin.create_topic(&spec, CALL_TIMEOUT)? == Created::Before {
                return Err(anyhow!("topic {name} is there already; run the demo again for another name"));
            }
            self.topics.push(name);
        }
        self.wait_for_topics(admin)
    }

    /// A topic that was just created is unknown to brokers for a moment, which the ingress would warn about.
    fn wait_for_topics(&self, admin: &Admin) -> anyhow::Result<()> {
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let deadline = Instant::now() + CALL_TIMEOUT;
        while Instant::now() < deadline {
            if admin.partition_counts(&names, CALL_TIMEOUT)?.values().all(Option::is_some) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // What is wrong shows when the topics are used.
        Ok(())
    }
}

/// That there is no such group is as good: the destination has none, and a run that failed early neither.
fn delete_group(admin: &Admin, group: &str) -> anyhow::Result<()> {
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let client = admin.client();
    // librdkafka ends the request by its own time-out.
    let results = runtime.block_on(client.delete_groups(&[group], &options))?;
    match results.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::GroupIdNotFound => Err(anyhow!("{code}")),
        _ => Ok(()),
    }
}

fn settings(brokers: &[String]) -> ClientSettings {
    ClientSettings::plaintext(brokers, "ddc-demo")
}

fn mock(prefix: &str, group: &str) -> anyhow::Result<Cluster> {
    let mock = MockCluster::new(1)?;
    let mut topics = Vec::new();
    for (name, partitions) in TOPICS {
        let name = format!("{prefix}{name}");
        // The table's counts are small.
        mock.create_topic(&name, partitions as i32, 1)?;
        topics.push(name);
    }
    // It makes no topics when it is asked to.
    mock.create_topic(PROGRESS_TOPIC, 1, 1)?;
    let (brokers, group) = (vec![mock.bootstrap_servers()], group.to_owned());
    Ok(Cluster { brokers, topics, group, kind: Kind::Mock { _cluster: mock } })
}
