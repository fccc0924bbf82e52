//! Create and describe topics from a thread without a runtime, each call bounded in time.
//!
//! rdkafka's admin client answers with futures; here a call parks the thread until the answer or the deadline.
//! librdkafka ends each request by its own timeout, so a future left behind ends too. Not for a hot path.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::context::{Reporter, ReportingContext};
use crate::errors::{Verdict, classify, classify_code};
use crate::lifeline::Lifeline;

/// An admin client of one cluster. Has a connection and a thread of its own; drop it when not needed.
pub struct Admin {
    client: Arc<AdminClient<ReportingContext>>,
    lifeline: Lifeline,
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions, ≥ 1.
    pub partitions: u32,
    /// Replication factor; −1 = the cluster's default.
    pub replication_factor: i32,
    /// Configuration entries (`message.timestamp.type` and so on).
    pub config: BTreeMap<String, String>,
}

/// How a creation ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was created by this call.
    Now,
    /// It was there already; its partitions and configuration may differ from the spec.
    Before,
}

/// The part of a topic's configuration that decides whether records are kept as they are. `None`: not said by this
/// broker (older ones lack some), or a value that is not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicConfig {
    /// Whether the broker replaces timestamps by its own.
    pub timestamp_type: Option<TimestampType>,
    /// How long records are kept, counted from their timestamps.
    pub retention: Option<Limit>,
    /// How far a timestamp may lie in the future.
    pub timestamp_after_max: Option<Limit>,
    /// How far a timestamp may lie in the past.
    pub timestamp_before_max: Option<Limit>,
    /// The largest record batch, in bytes.
    pub max_message_bytes: Option<u64>,
    /// `delete`, `compact` or both.
    pub cleanup_policy: Option<String>,
}

/// Each topic asked for, and what its configuration says.
pub type TopicConfigs = Vec<(String, Result<TopicConfig, AdminError>)>;

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's timestamp is kept.
    CreateTime,
    /// The broker's clock replaces it.
    LogAppendTime,
}

impl TimestampType {
    /// The value in a topic's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

/// A time limit that may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    None,
    /// This long.
    Of(Duration),
}

impl Limit {
    /// Whether a time span lies within it.
    pub fn allows(self, span: Duration) -> bool {
        match self {
            Limit::None => true,
            Limit::Of(limit) => span <= limit,
        }
    }

    /// Kafka writes "no limit" as −1 (retention) or as the largest i64 (timestamp limits).
    fn parse(millis: &str) -> Option<Limit> {
        match millis.parse::<i64>().ok()? {
            i64::MAX => Some(Limit::None),
            negative if negative < 0 => Some(Limit::None),
            millis => Some(Limit::Of(Duration::from_millis(millis as u64))),
        }
    }
}

/// An admin call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {text}; {}", .verdict.advice)]
pub struct AdminError {
    /// What was being done, and to which topic.
    pub doing: String,
    /// The cluster's or librdkafka's words.
    pub text: String,
    /// What it means.
    pub verdict: Verdict,
}

impl AdminError {
    fn new(doing: String, error: &KafkaError) -> AdminError {
        AdminError { doing, text: error.to_string(), verdict: classify(error) }
    }

    fn of_code(doing: String, code: Code) -> AdminError {
        AdminError { doing, text: code.to_string(), verdict: classify_code(code) }
    }
}

impl Admin {
    /// A client of the cluster; it connects when first used. `config` comes from
    /// [`ClientSettings::build`](crate::settings::ClientSettings::build) for [`Role::Admin`](crate::settings::Role::Admin).
    pub fn new(config: &ClientConfig, reporter: Reporter) -> KafkaResult<Admin> {
        let client = Arc::new(config.create_with_context(ReportingContext(reporter))?);
        Ok(Admin { client, lifeline: Lifeline::default() })
    }

    /// The client, for [`TopicIds`](crate::topic_id::TopicIds).
    pub fn client(&self) -> Arc<AdminClient<ReportingContext>> {
        Arc::clone(&self.client)
    }

    /// Creates a topic, and waits until the controller has it.
    pub fn create_topic(&self, spec: &TopicSpec, timeout: Duration) -> Result<Created, AdminError> {
        self.create(spec, &options(timeout), timeout)
    }

    fn create(
        &self,
        spec: &TopicSpec,
        options: &AdminOptions,
        timeout: Duration,
    ) -> Result<Created, AdminError> {
        let doing = || format!("creating topic {}", spec.name);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let mut topic =
            NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(spec.replication_factor));
        for (key, value) in &spec.config {
            topic = topic.set(key, value);
        }
        let results = wait(self.usable().create_topics([&topic], options), timeout, doing)?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(Created::Now),
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(Created::Before),
            Some(Err((_, code))) => Err(AdminError::of_code(doing(), code)),
            None => Err(AdminError::of_code(doing(), Code::Unknown)),
        }
    }

    /// Asks whether [`create_topic`](Admin::create_topic) would succeed; creates nothing. `Before`: it is there already.
    pub fn may_create_topic(&self, spec: &TopicSpec, timeout: Duration) -> Result<Created, AdminError> {
        self.create(spec, &options(timeout).validate_only(true), timeout)
    }

    /// Raises a topic's number of partitions to `partitions`.
    pub fn add_partitions(&self, topic: &str, partitions: u32, timeout: Duration) -> Result<(), AdminError> {
        let doing = || format!("raising topic {topic} to {partitions} partitions");
        let wanted = NewPartitions::new(topic, partitions as usize);
        let results = wait(self.usable().create_partitions([&wanted], &options(timeout)), timeout, doing)?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => Err(AdminError::of_code(doing(), code)),
            None => Err(AdminError::of_code(doing(), Code::Unknown)),
        }
    }

    /// Deletes a topic. DDC itself never does; tests and the demo do.
    pub fn delete_topic(&self, topic: &str, timeout: Duration) -> Result<(), AdminError> {
        let doing = || format!("deleting topic {topic}");
        let results = wait(self.usable().delete_topics(&[topic], &options(timeout)), timeout, doing)?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => Err(AdminError::of_code(doing(), code)),
            None => Err(AdminError::of_code(doing(), Code::Unknown)),
        }
    }

    /// What the topics' configurations say, in the order asked for. An unknown topic is an entry of its own.
    pub fn topic_configs(&self, topics: &[&str], timeout: Duration) -> Result<TopicConfigs, AdminError> {
        let doing = || format!("reading the configuration of {} topics", topics.len());
        let specifiers: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let results = wait(self.usable().describe_configs(&specifiers, &options(timeout)), timeout, doing)?;
        Ok(topics
            .iter()
            .zip(results)
            .map(|(topic, result)| {
                let config = match result {
                    // A topic that does not exist comes back without entries, and rdkafka drops its error.
                    Ok(resource) if resource.entries.is_empty() => Err(Code::UnknownTopicOrPartition),
                    Ok(resource) => Ok(TopicConfig::of(&resource)),
                    Err(code) => Err(code),
                };
                let config = config.map_err(|code| {
                    AdminError::of_code(format!("reading the configuration of topic {topic}"), code)
                });
                ((*topic).to_owned(), config)
            })
            .collect())
    }

    /// Every configuration entry of one topic, as the broker words it; entries that it keeps to itself are left out.
    pub fn topic_settings(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, String>, AdminError> {
        let doing = || format!("reading the configuration of topic {topic}");
        let specifiers = [ResourceSpecifier::Topic(topic)];
        let results = wait(self.usable().describe_configs(&specifiers, &options(timeout)), timeout, doing)?;
        match results.into_iter().next() {
            Some(Ok(resource)) if !resource.entries.is_empty() => Ok(resource
                .entries
                .into_iter()
                .filter_map(|entry| Some((entry.name, entry.value?)))
                .collect()),
            // See `topic_configs`.
            Some(Ok(_)) | None => Err(AdminError::of_code(doing(), Code::UnknownTopicOrPartition)),
            Some(Err(code)) => Err(AdminError::of_code(doing(), code)),
        }
    }

    /// Number of partitions of each topic; `None` = there is no such topic (asking does not create it).
    pub fn partition_counts(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<BTreeMap<String, Option<u32>>, AdminError> {
        let deadline = Instant::now() + timeout;
        let mut counts = BTreeMap::new();
        for topic in topics {
            let doing = || format!("asking for the partitions of topic {topic}");
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let metadata = self
                .usable()
                .inner()
                .fetch_metadata(Some(topic), left)
                .map_err(|error| AdminError::new(doing(), &error))?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == *topic) else {
                counts.insert((*topic).to_owned(), None);
                continue;
            };
            let count = match found.error().map(Code::from) {
                None => Some(found.partitions().len() as u32),
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => None,
                Some(code) => return Err(AdminError::of_code(doing(), code)),
            };
            counts.insert((*topic).to_owned(), count.filter(|count| *count > 0));
        }
        Ok(counts)
    }

    fn usable(&self) -> &AdminClient<ReportingContext> {
        self.lifeline.look(&*self.client);
        &self.client
    }

    /// The cluster's id, as a sign that it answers.
    pub fn cluster_id(&self, timeout: Duration) -> Option<String> {
        self.usable().inner().fetch_cluster_id(timeout)
    }
}

impl TopicConfig {
    fn of(resource: &ConfigResource) -> TopicConfig {
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref());
        TopicConfig {
            timestamp_type: value("message.timestamp.type").and_then(|value| match value {
                "CreateTime" => Some(TimestampType::CreateTime),
                "LogAppendTime" => Some(TimestampType::LogAppendTime),
                _ => None,
            }),
            retention: value("retention.ms").and_then(Limit::parse),
            timestamp_after_max: value("message.timestamp.after.max.ms").and_then(Limit::parse),
            timestamp_before_max: value("message.timestamp.before.max.ms").and_then(Limit::parse),
            max_message_bytes: value("max.message.bytes").and_then(|value| value.parse().ok()),
            cleanup_policy: value("cleanup.policy").map(str::to_owned),
        }
    }
}

fn options(timeout: Duration) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout))
}

/// Waits for the answer to an admin request.
fn wait<T>(
    request: impl Future<Output = KafkaResult<T>>,
    timeout: Duration,
    doing: impl Fn() -> String,
) -> Result<T, AdminError> {
    // librdkafka's own timeout should end it; the second is for the way back.
    match block_on(request, Instant::now() + timeout + Duration::from_secs(1)) {
        None => Err(AdminError::of_code(doing(), Code::OperationTimedOut)),
        Some(result) => result.map_err(|error| AdminError::new(doing(), &error)),
    }
}

/// Runs a future on this thread until it is ready or the deadline has passed.
fn block_on<T>(future: impl Future<Output = T>, deadline: Instant) -> Option<T> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // A wake between poll and park is not lost: it makes the park return at once.
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ClientSettings, Role};
    use rdkafka::mocking::MockCluster;

    fn admin(brokers: &str) -> Admin {
        let config = ClientSettings::plaintext([brokers], "t").build(&Role::Admin).unwrap();
        Admin::new(&config, Reporter::new("t", "admin")).unwrap()
    }

    #[test]
    fn a_future_that_never_ends_is_given_up_at_the_deadline() {
        let start = Instant::now();
        assert_eq!(block_on(std::future::pending::<()>(), start + Duration::from_millis(50)), None);
        assert!(start.elapsed() >= Duration::from_millis(50) && start.elapsed() < Duration::from_secs(5));
        assert_eq!(block_on(std::future::ready(7), start), Some(7));
    }

    #[test]
    fn partitions_are_counted_and_asking_creates_nothing() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("three", 3, 1).unwrap();
        let admin = admin(&mock.bootstrap_servers());
        for _ in 0..2 {
            let counts = admin.partition_counts(&["three", "absent"], Duration::from_secs(5)).unwrap();
            assert_eq!(counts["three"], Some(3));
            assert_eq!(counts["absent"], None);
        }
    }

    #[test]
    fn a_cluster_that_cannot_do_it_says_so_in_time() {
        // The mock cluster knows neither CreateTopics nor DescribeConfigs.
        let mock = MockCluster::new(1).unwrap();
        let admin = admin(&mock.bootstrap_servers());
        let start = Instant::now();
        let spec =
            TopicSpec { name: "new".into(), partitions: 1, replication_factor: 1, config: BTreeMap::new() };
        let error = admin.create_topic(&spec, Duration::from_secs(2)).unwrap_err();
        assert!(error.to_string().starts_with("creating topic new: "), "{error}");
        admin.topic_configs(&["new"], Duration::from_secs(2)).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    }

    #[test]
    fn a_cluster_that_is_away_is_temporary_and_bounded() {
        let admin = admin("127.0.0.1:1");
        let start = Instant::now();
        let error = admin.topic_configs(&["a"], Duration::from_secs(1)).unwrap_err();
        assert!(error.verdict.is_temporary(), "{error}");
        let error = admin.partition_counts(&["a"], Duration::from_secs(1)).unwrap_err();
        assert!(error.verdict.is_temporary(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }

    #[test]
    fn limits_are_read_as_kafka_writes_them() {
        assert_eq!(Limit::parse("-1"), Some(Limit::None));
        assert_eq!(Limit::parse("9223372036854775807"), Some(Limit::None));
        assert_eq!(Limit::parse("3600000"), Some(Limit::Of(Duration::from_hours(1))));
        assert_eq!(Limit::parse("soon"), None);
        assert!(Limit::None.allows(Duration::MAX));
        assert!(!Limit::Of(Duration::from_secs(1)).allows(Duration::from_secs(2)));
    }
}
