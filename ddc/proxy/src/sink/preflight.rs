//! Looks at a destination before anything is sent there: can it be reached, and would it keep records as they are?
//!
//! Changes nothing at the cluster. Bounded: [`CONNECT_TIMEOUT`] for everything together, to get in and one call for
//! the configuration of at most [`MAX_TOPICS`] topics.

pub mod progress;

use std::collections::BTreeSet;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use ddc_kafka::admin::{Admin, Limit, TimestampType, TopicConfig};
use ddc_kafka::context::Reporter;
use ddc_kafka::errors::{Kind, classify};
use ddc_kafka::settings::{ClientSettings, Role};

use super::kafka::Producer;
use super::progress_topic::PROGRESS_TOPIC;
use crate::config::{DeadLetters, DeliveryMode, EgressConfig, KafkaSink, MissingRecords, Sink};
use crate::dead_letters;
use progress::{ProgressUse, look_at_progress};

/// How long the cluster has to answer everything that is asked, TLS and SASL included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Topics whose configuration is looked at.
pub const MAX_TOPICS: usize = 500;
/// What is left for the topics' configuration when getting in took nearly all the time.
const LEAST: Duration = Duration::from_secs(1);
/// How long each of two questions about the topic for dead letters may take.
pub(crate) const LETTERS: Duration = Duration::from_secs(2);
/// Retention below this deletes records of a week-old backlog as soon as they are written.
const ENOUGH_RETENTION: Duration = Duration::from_hours(7 * 24);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Records would be changed, lost or refused under circumstances that the text names.
    Warning,
    /// The egress would not deliver.
    Problem,
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What, where and what to do; one line.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::Good => "ok: ",
            Severity::Warning => "warning: ",
            Severity::Problem => "problem: ",
        })?;
        f.write_str(&self.text)
    }
}

fn found(severity: Severity, text: impl Into<String>) -> Finding {
    Finding { severity, text: text.into() }
}

/// Connects and looks. `topics` are source topics that are known to come; without any, those of the cluster's
/// topics are looked at that the topic map could lead to.
pub fn preflight(config: &EgressConfig, topics: &[String]) -> Vec<Finding> {
    thread::scope(|scope| {
        // Two clusters at once take no longer than one.
        let missing = config.missing_records.as_ref();
        let missing =
            missing.map(|missing| scope.spawn(|| look_at_missing(config, missing, CONNECT_TIMEOUT)));
        let mut findings = match &config.sink {
            Sink::Kafka(sink) => look(config, sink, topics, CONNECT_TIMEOUT),
            Sink::Udp(sink) => super::udp::preflight(sink),
        };
        // A panic goes on here as it would without a thread.
        let joined =
            missing.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        findings.extend(joined.into_iter().flatten());
        findings
    })
}

/// The topic of `[missing_records]`.
fn look_at_missing(config: &EgressConfig, missing: &MissingRecords, patience: Duration) -> Vec<Finding> {
    let MissingRecords { client, topic } = missing;
    let brokers = client.brokers.join(", ");
    let what = format!("[missing_records] {brokers}");
    match connect(config, client, &MissingRecords::role(), &what, Instant::now() + patience) {
        Err(finding) => vec![finding],
        Ok(there) if there.iter().any(|name| name == topic.as_str()) => {
            vec![found(Severity::Good, format!("{what} answers, topic {topic} is there"))]
        }
        Ok(_) => vec![found(
            Severity::Problem,
            format!(
                "{what}: topic {topic} does not exist, or this client may not see it; create it, with cleanup.policy=compact if only the latest of each gap counts, and allow this client Describe and Write"
            ),
        )],
    }
}

fn look(config: &EgressConfig, sink: &KafkaSink, topics: &[String], patience: Duration) -> Vec<Finding> {
    let deadline = Instant::now() + patience;
    let what = format!("destination {}", sink.client.brokers.join(", "));
    let role = KafkaSink::role(config.receive.max_record_bytes);
    let there = match connect(config, &sink.client, &role, &what, deadline) {
        Ok(there) => there,
        Err(finding) => return vec![finding],
    };
    let mut findings = vec![found(Severity::Good, format!("{what} answers"))];
    let (known, missing) = candidates(sink, topics, &there);
    for topic in missing {
        findings.push(if sink.create_topics {
            found(Severity::Good, format!("topic {topic} does not exist yet and will be created; with the cluster's defaults for retention, timestamp limits and sizes; check again once it is there"))
        } else {
            found(Severity::Warning, format!("topic {topic} does not exist and create_topics = false: its records wait; create it"))
        });
    }
    findings.extend(look_at_topics(config, sink, &known, deadline));
    let wanted = ProgressUse {
        topic: PROGRESS_TOPIC,
        replication_factor: sink.replication_factor.map_or(-1, i32::from),
        set: &sink.set.to_string(),
        link: &sink.link.to_string(),
        transactional: sink.delivery == DeliveryMode::ExactlyOnce,
    };
    let producer = sink.producer(config.receive.max_record_bytes);
    findings.extend(look_at_progress(&sink.client, &producer, &wanted, deadline));
    if let Some(topic) = config.dead_letters.as_ref().and_then(DeadLetters::topic) {
        let (name, largest) = (&config.link.name, config.receive.max_record_bytes);
        findings.extend(dead_letters::preflight::topic(&sink.client, name, topic, largest, LETTERS));
    }
    findings
}

/// Gets in, and returns the names of the topics. `what` begins the message when it does not.
fn connect(
    config: &EgressConfig,
    client: &ClientSettings,
    role: &Role,
    what: &str,
    deadline: Instant,
) -> Result<Vec<String>, Finding> {
    let problem = |text: String| found(Severity::Problem, text);
    let native = client.build(role).map_err(|error| problem(error.to_string()))?;
    let reporter = Reporter::new(config.link.name.as_str(), "check");
    let producer =
        Producer::new(native, reporter.clone(), false).map_err(|error| problem(error.to_string()))?;
    loop {
        let error = match producer.topics(Duration::from_secs(1)) {
            Ok(topics) => return Ok(topics),
            Err(error) => error,
        };
        producer.answers(&mut Vec::new());
        let last = reporter.last_error();
        let refused = last.as_ref().is_some_and(|last| last.verdict.kind == Kind::Authentication);
        if refused || Instant::now() >= deadline {
            let (verdict, text) = match last {
                Some(last) => (last.verdict, last.text),
                None => (classify(&error), error.to_string()),
            };
            return Err(problem(format!("{what}: {text}; {}", verdict.advice)));
        }
    }
}

/// The topics to look at, and those that should be there and are not.
fn candidates(sink: &KafkaSink, topics: &[String], there: &[String]) -> (Vec<String>, Vec<String>) {
    let mut wanted: BTreeSet<String> = sink.rename.values().map(|name| name.as_str().to_owned()).collect();
    wanted.extend(topics.iter().map(|topic| sink.destination(topic)));
    let prefix = sink.topic_prefix.to_string();
    let could_be = |name: &&String| !name.starts_with("__") && name.starts_with(&prefix);
    let (mut known, missing): (BTreeSet<String>, BTreeSet<String>) =
        wanted.into_iter().partition(|name| there.contains(name));
    if topics.is_empty() {
        known.extend(there.iter().filter(could_be).cloned());
    }
    (known.into_iter().take(MAX_TOPICS).collect(), missing.into_iter().collect())
}

fn look_at_topics(
    config: &EgressConfig,
    sink: &KafkaSink,
    topics: &[String],
    deadline: Instant,
) -> Vec<Finding> {
    if topics.is_empty() {
        return Vec::new();
    }
    let unknown = |why: String| {
        vec![found(Severity::Warning, format!("the topics' configuration cannot be read: {why}"))]
    };
    let native = match sink.client.build(&Role::Admin) {
        Ok(native) => native,
        Err(error) => return unknown(error.to_string()),
    };
    let admin = match Admin::new(&native, Reporter::new(config.link.name.as_str(), "check")) {
        Ok(admin) => admin,
        Err(error) => return unknown(error.to_string()),
    };
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let left = deadline.saturating_duration_since(Instant::now()).max(LEAST);
    match admin.topic_configs(&names, left) {
        Err(error) => unknown(error.to_string()),
        Ok(answers) => answers
            .into_iter()
            .flat_map(|(topic, answer)| match answer {
                Ok(answer) => judge(&topic, &answer, config.receive.max_record_bytes.bytes()),
                Err(error) => unknown(error.to_string()),
            })
            .collect(),
    }
}

/// What a topic's configuration would do to records that keep their own timestamps.
fn judge(topic: &str, config: &TopicConfig, max_record_bytes: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |text: String| findings.push(found(Severity::Warning, format!("topic {topic}: {text}")));
    if config.timestamp_type == Some(TimestampType::LogAppendTime) {
        warn("message.timestamp.type=LogAppendTime replaces the records' timestamps; set CreateTime to keep them".into());
    }
    if let Some(Limit::Of(retention)) = config.retention
        && config.cleanup_policy.as_deref() != Some("compact")
        && retention <= ENOUGH_RETENTION
    {
        warn(format!(
            "retention.ms is {}; retention goes by the records' own timestamps, so older records are deleted within minutes of their arrival; raise it above the age of your oldest record, or set -1",
            Age(retention)
        ));
    }
    if let Some(Limit::Of(limit)) = config.timestamp_before_max {
        warn(format!(
            "message.timestamp.before.max.ms refuses records older than {}; they would be stepped over as refused",
            Age(limit)
        ));
    }
    if let Some(Limit::Of(limit)) = config.timestamp_after_max {
        warn(format!(
            "message.timestamp.after.max.ms refuses records with timestamps more than {} ahead of the broker's clock (Kafka 4 sets 1 h); they would be stepped over as refused",
            Age(limit)
        ));
    }
    if let Some(limit) = config.max_message_bytes.filter(|&limit| limit < max_record_bytes) {
        warn(format!(
            "max.message.bytes is {limit}, less than max_record_bytes ({max_record_bytes}); larger records would be stepped over as refused"
        ));
    }
    findings
}

/// A duration as people think of it.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 4] =
            [(86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
        let millis = self.0.as_millis();
        for (unit, name) in UNITS {
            if millis >= unit && millis.is_multiple_of(unit) {
                return write!(f, "{} {name}", millis / unit);
            }
        }
        write!(f, "{millis} ms")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn texts(config: &TopicConfig) -> String {
        judge("t", config, 16 << 20).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn config(brokers: &str) -> EgressConfig {
        let text = format!(
            "[link]\nname = \"t\"\nid = 1\nlisten = \"127.0.0.1:7401\"\nseal = \"none\"\n[sink.kafka]\nbrokers = [\"{brokers}\"]\n\
             create_topics = false\ntopic_prefix = \"a-\"\n[sink.kafka.rename]\norders = \"elsewhere\"\n"
        );
        let loaded = crate::config::parse("egress.toml".as_ref(), &text, None, &|_| None).unwrap();
        let crate::config::Config::Egress(config) = loaded.config else { panic!("an egress") };
        config
    }

    fn kafka(config: &EgressConfig) -> &KafkaSink {
        let Sink::Kafka(sink) = &config.sink else { panic!("Kafka") };
        sink
    }

    #[test]
    fn an_unreachable_destination_is_one_problem_that_names_the_brokers() {
        let config = config("127.0.0.1:1");
        let findings = look(&config, kafka(&config), &[], Duration::from_millis(1500));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, Severity::Problem);
        let text = findings[0].to_string();
        assert!(
            text.starts_with("problem: destination 127.0.0.1:1: ") && text.contains("no broker answers"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_topic_is_named_under_its_destination() {
        let mock = rdkafka::mocking::MockCluster::new(1).unwrap();
        mock.create_topic("a-there", 1, 1).unwrap();
        let config = config(&mock.bootstrap_servers());
        let wanted = ["there".to_owned(), "absent".to_owned(), "orders".to_owned()];
        let sink = kafka(&config);
        let role = KafkaSink::role(config.receive.max_record_bytes);
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let there = connect(&config, &sink.client, &role, "destination", deadline).unwrap();
        let (known, missing) = candidates(kafka(&config), &wanted, &there);
        assert_eq!(
            (known, missing),
            (vec!["a-there".to_owned()], vec!["a-absent".to_owned(), "elsewhere".to_owned()])
        );
        let (known, _) = candidates(kafka(&config), &[], &there);
        assert_eq!(known, ["a-there"], "what the prefix could lead to");
    }

    #[test]
    fn the_topic_of_missing_records_is_looked_for() {
        let mock = rdkafka::mocking::MockCluster::new(1).unwrap();
        mock.create_topic("gaps", 1, 1).unwrap();
        let with = |brokers: &str, topic: &str| {
            let text = format!(
                "[link]\nname = \"t\"\nid = 1\nlisten = \"127.0.0.1:7401\"\nseal = \"none\"\n[sink.udp]\nstreams = {{ s = \"127.0.0.1:9\" }}\n\
                 [missing_records]\nbrokers = [\"{brokers}\"]\ntopic = \"{topic}\"\n"
            );
            let loaded = crate::config::parse("egress.toml".as_ref(), &text, None, &|_| None).unwrap();
            let crate::config::Config::Egress(config) = loaded.config else { panic!("an egress") };
            let missing = config.missing_records.as_ref().unwrap();
            let findings = look_at_missing(&config, missing, Duration::from_secs(5));
            assert_eq!(findings.len(), 1);
            (findings[0].severity, findings[0].to_string())
        };
        let brokers = mock.bootstrap_servers();
        assert_eq!(with(&brokers, "gaps").0, Severity::Good);
        let (severity, text) = with(&brokers, "absent");
        assert!(severity == Severity::Problem && text.contains("topic absent does not exist"), "{text}");
        let (severity, text) = with("127.0.0.1:1", "gaps");
        assert!(severity == Severity::Problem && text.contains("[missing_records] 127.0.0.1:1: "), "{text}");
    }

    #[test]
    fn a_topic_that_keeps_everything_is_not_blamed() {
        let config = TopicConfig {
            timestamp_type: Some(TimestampType::CreateTime),
            retention: Some(Limit::None),
            timestamp_after_max: Some(Limit::None),
            timestamp_before_max: Some(Limit::None),
            max_message_bytes: Some(17 << 20),
            cleanup_policy: Some("delete".into()),
        };
        assert_eq!(texts(&config), "");
        assert_eq!(texts(&TopicConfig::default()), "", "what a broker does not say is not held against it");
    }

    #[test]
    fn kafka_4s_defaults_are_named_with_what_they_do() {
        let config = TopicConfig {
            timestamp_type: Some(TimestampType::LogAppendTime),
            retention: Some(Limit::Of(Duration::from_hours(168))),
            timestamp_after_max: Some(Limit::Of(Duration::from_hours(1))),
            timestamp_before_max: Some(Limit::None),
            max_message_bytes: Some(1_048_588),
            cleanup_policy: Some("delete".into()),
        };
        let texts = texts(&config);
        for part in
            ["LogAppendTime", "retention.ms is 7 days", "more than 1 h ahead", "max.message.bytes is 1048588"]
        {
            assert!(texts.contains(part), "{part}: {texts}");
        }
        assert!(!texts.contains("before.max"), "{texts}");
        let compacted = TopicConfig { cleanup_policy: Some("compact".into()), ..config };
        assert!(!judge("t", &compacted, 1).iter().any(|finding| finding.text.contains("retention")));
    }
}
