//! Looks at a source before anything is read there: can it be reached, may we read, and is there what is subscribed to?
//!
//! Changes nothing at the cluster: it joins no group, so nothing is rebalanced, and it commits nothing. Bounded in
//! time by [`CONNECT_TIMEOUT`] for everything together, and to [`MAX_TOPICS`] topics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ddc_kafka::context::Reporter;
use ddc_kafka::errors::{Kind, classify};
use ddc_kafka::group::GroupMember;
use ddc_kafka::topic_id::{Answers, Poll, TopicIds};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::{DeadLetters, IngressConfig, KafkaSource, Source, TopicPattern};
use crate::dead_letters;
use crate::sink::preflight::{CONNECT_TIMEOUT, Finding, LETTERS, MAX_TOPICS, Severity};

/// One attempt to ask: between two of them it is seen whether the cluster refuses us.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long topic ids have to come. The answer takes milliseconds; brokers without ids may give none.
const IDS_TIMEOUT: Duration = Duration::from_secs(3);
/// What is left for a last question when the time is nearly up.
const LEAST: Duration = Duration::from_millis(500);
/// Between two looks whether an answer has come.
const PAUSE: Duration = Duration::from_millis(5);

/// What was found at a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// One entry per thing looked at, in the order of looking.
    pub findings: Vec<Finding>,
    /// Topics that exist and would be read, at most [`MAX_TOPICS`]: what the paired egress will be sent.
    pub topics: Vec<String>,
}

/// Connects and looks.
pub fn preflight(config: &IngressConfig) -> SourceReport {
    match &config.source {
        Source::Kafka(settings) => look(config, settings, CONNECT_TIMEOUT),
        Source::Udp(settings) => super::udp::preflight(settings),
    }
}

fn look(config: &IngressConfig, settings: &KafkaSource, patience: Duration) -> SourceReport {
    let deadline = Instant::now() + patience;
    let mut report = Report::default();
    if let Err(problem) = Look::connect(config, settings, deadline).map(|mut look| look.run(&mut report)) {
        report.problem(problem);
    }
    SourceReport { findings: report.findings, topics: report.partitions.into_keys().collect() }
}

/// What was found so far.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    /// Number of partitions of each topic that would be read.
    partitions: BTreeMap<String, u32>,
}

impl Report {
    fn good(&mut self, text: String) {
        self.findings.push(Finding { severity: Severity::Good, text });
    }

    fn warn(&mut self, text: String) {
        self.findings.push(Finding { severity: Severity::Warning, text });
    }

    fn problem(&mut self, text: String) {
        self.findings.push(Finding { severity: Severity::Problem, text });
    }
}

/// A cluster that answers.
struct Look<'a> {
    config: &'a IngressConfig,
    settings: &'a KafkaSource,
    member: GroupMember,
    deadline: Instant,
    metadata: Metadata,
}

impl<'a> Look<'a> {
    /// Gets in. The error names the brokers, what they or librdkafka say, and what to do.
    fn connect(
        config: &'a IngressConfig,
        settings: &'a KafkaSource,
        deadline: Instant,
    ) -> Result<Self, String> {
        let brokers = brokers(settings);
        let role = settings.role(config.pack.max_record_bytes);
        let native = settings.client.build(&role).map_err(|error| error.to_string())?;
        let reporter = Reporter::new(config.link.name.as_str(), "check");
        let mut member = GroupMember::new(&native, reporter.clone(), 1).map_err(|error| error.to_string())?;
        loop {
            let attempt = ATTEMPT.min(left(deadline));
            let error = match member.consumer().fetch_metadata(None, attempt) {
                Ok(metadata) => return Ok(Self { config, settings, member, deadline, metadata }),
                Err(error) => error,
            };
            // Without topics subscribed there are no group events; this brings client errors to the reporter.
            while member.serve().is_some() {}
            let last = reporter.last_error();
            let refused = last.as_ref().is_some_and(|last| last.verdict.kind == Kind::Authentication);
            if refused || Instant::now() >= deadline {
                let (verdict, text) = match last {
                    Some(last) => (last.verdict, last.text),
                    None => (classify(&error), error.to_string()),
                };
                return Err(format!("brokers {brokers}: {text}; {}", verdict.advice));
            }
        }
    }

    fn run(&mut self, report: &mut Report) {
        let source = self.settings;
        report.good(format!(
            "brokers {} answer ({}; {} in the cluster)",
            brokers(self.settings),
            source.client.protocol.name(),
            self.metadata.brokers().len()
        ));
        let wanted = self.wanted(report);
        self.topics(&wanted, report);
        self.group(report);
        if let Some(topic) = self.config.dead_letters.as_ref().and_then(DeadLetters::topic) {
            let (name, largest) = (&self.config.link.name, self.config.pack.max_record_bytes);
            report.findings.extend(dead_letters::preflight::topic(
                &source.client,
                name,
                topic,
                largest,
                LETTERS,
            ));
        }
    }

    /// The topics that are subscribed to: those named, and those that a pattern matches now.
    fn wanted(&self, report: &mut Report) -> Vec<String> {
        let mut wanted = Vec::new();
        for pattern in &self.settings.topics {
            if !pattern.is_pattern() {
                wanted.push(pattern.as_str().to_owned());
                continue;
            }
            let before = wanted.len();
            wanted.extend(self.matching(pattern));
            match wanted.len() - before {
                0 => report.warn(format!(
                    "pattern {pattern} matches no topic that this client may see; topics that come later are taken up within seconds; check the pattern and the ACLs (DESCRIBE)"
                )),
                count => report.good(format!("pattern {pattern} matches {count} topics")),
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.len() > MAX_TOPICS {
            report.warn(format!(
                "{} topics are subscribed to; only the first {MAX_TOPICS} are looked at",
                wanted.len()
            ));
            wanted.truncate(MAX_TOPICS);
        }
        wanted
    }

    fn matching(&self, pattern: &TopicPattern) -> Vec<String> {
        // librdkafka matches with POSIX extended expressions; what the configuration lets through means the same here.
        // Invariant: it was compiled when the configuration was read.
        let Ok(pattern) = regex::Regex::new(pattern.as_str()) else { return Vec::new() };
        let names = self.metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name);
        names.filter(|name| pattern.is_match(name)).map(str::to_owned).collect()
    }

    /// Existence, permission, partitions and ids.
    fn topics(&mut self, wanted: &[String], report: &mut Report) {
        if wanted.is_empty() {
            return;
        }
        let answers = self.ids(wanted).unwrap_or_else(|| self.by_metadata(wanted));
        let mut without_ids = false;
        for (topic, answer) in answers {
            match answer {
                Ok(facts) => {
                    let id = facts.id.map_or("no topic id".to_owned(), |id| format!("topic id {id}"));
                    without_ids |= facts.id.is_none();
                    report.good(format!("topic {topic} has {} partitions, {id}", facts.partitions));
                    report.partitions.insert(topic, facts.partitions);
                }
                Err(error) => {
                    let verdict = error.verdict();
                    match verdict.kind {
                        Kind::UnknownTopic => report.warn(format!(
                            "topic {topic} does not exist: nothing is read of it before it does; create it, or correct `topics` in [source.kafka]"
                        )),
                        Kind::Authorization | Kind::Authentication => {
                            report.problem(format!("topic {topic}: {}; {}", error.text, verdict.advice));
                        }
                        _ => report.warn(format!("topic {topic}: {}; {}", error.text, verdict.advice)),
                    }
                }
            }
        }
        if without_ids {
            report.warn(format!(
                "the brokers tell no topic ids: a topic that is deleted and created again goes unseen; raise `topic_epoch` (now {}) in [source.kafka] by hand when you do that",
                self.settings.topic_epoch
            ));
        }
    }

    /// What the brokers say about the topics; `None` when they do not answer this question.
    fn ids(&self, wanted: &[String]) -> Option<Answers> {
        let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let timeout = IDS_TIMEOUT.min(left(self.deadline));
        let mut ids = TopicIds::new(std::sync::Arc::clone(self.member.consumer()) as _, timeout);
        ids.ask(&names).ok()?;
        loop {
            match ids.poll() {
                Poll::Answered(mut answers) => {
                    answers.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                    return Some(answers);
                }
                Poll::Pending => std::thread::sleep(PAUSE),
                Poll::Idle | Poll::NoAnswer { .. } => return None,
            }
        }
    }

    /// The same from what every cluster answers; it has no ids.
    fn by_metadata(&self, wanted: &[String]) -> Answers {
        use ddc_kafka::topic_id::{TopicError, TopicFacts};
        use rdkafka::types::RDKafkaErrorCode as Code;
        let topics = self.metadata.topics();
        let answer = |name: &String| match topics.iter().find(|topic| topic.name() == name) {
            None => {
                let code = Code::UnknownTopicOrPartition;
                Err(TopicError { code, text: code.to_string() })
            }
            Some(topic) => match topic.error().map(Code::from) {
                Some(code) => Err(TopicError { code, text: code.to_string() }),
                None => Ok(TopicFacts { id: None, partitions: topic.partitions().len() as u32 }),
            },
        };
        wanted.iter().map(|name| (name.clone(), answer(name))).collect()
    }

    /// Whether the group may be used, and where it stands.
    fn group(&mut self, report: &mut Report) {
        let source = self.settings;
        let group = &source.group;
        let asked = self.partitions(report);
        match self.committed(&asked) {
            Ok(committed) => {
                let known =
                    committed.elements().iter().filter(|e| matches!(e.offset(), Offset::Offset(_))).count();
                let of: u32 = report.partitions.values().sum();
                report.good(match known {
                    0 => {
                        format!("group {group} may be used and has no commits: starts at {}", source.start_at)
                    }
                    _ => format!("group {group} may be used and has commits for {known} of {of} partitions"),
                });
            }
            Err(error) => {
                let verdict = classify(&error);
                report.problem(format!("group {group}: {error}; {}", verdict.advice));
            }
        }
    }

    /// The partitions to ask the group's commits for. Without any, one that need not exist: the answer still tells
    /// whether the group may be used.
    fn partitions(&self, report: &Report) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, count) in &report.partitions {
            list.add_partition_range(topic, 0, *count as i32 - 1);
        }
        if list.count() == 0 {
            let named = self.settings.topics.iter().find(|topic| !topic.is_pattern());
            list.add_partition(named.map_or("ddc-check", TopicPattern::as_str), 0);
        }
        list
    }

    /// Asks again while the group's coordinator starts or moves.
    fn committed(&mut self, asked: &TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
        loop {
            let attempt = (2 * ATTEMPT).min(left(self.deadline));
            let result = self.member.consumer().committed_offsets(asked.clone(), attempt);
            let error = match result {
                Ok(committed) => match committed.elements().iter().find_map(|e| e.error().err()) {
                    None => return Ok(committed),
                    Some(error) => error,
                },
                Err(error) => error,
            };
            while self.member.serve().is_some() {}
            if !classify(&error).is_temporary() || Instant::now() >= self.deadline {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn brokers(settings: &KafkaSource) -> String {
    settings.client.brokers.join(", ")
}

/// Never nothing: the last question gets a chance.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(LEAST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaRespErr as Code;

    use super::*;

    fn look_at(config: &IngressConfig, patience: Duration) -> SourceReport {
        let Source::Kafka(settings) = &config.source else { panic!("Kafka") };
        look(config, settings, patience)
    }

    fn config(brokers: &str, topics: &str) -> IngressConfig {
        let text = format!(
            "[link]\nname = \"t\"\nid = 1\ntarget = \"127.0.0.1:7401\"\nseal = \"none\"\n\
             [source.kafka]\nbrokers = [\"{brokers}\"]\ntopics = {topics}\ntopic_epoch = 7\n"
        );
        let loaded = crate::config::parse("ingress.toml".as_ref(), &text, None, &|_| None).unwrap();
        let crate::config::Config::Ingress(config) = loaded.config else { panic!("an ingress") };
        config
    }

    fn texts(report: &SourceReport) -> Vec<String> {
        report.findings.iter().map(ToString::to_string).collect()
    }

    /// Exactly one finding has this beginning and these parts.
    fn assert_found(report: &SourceReport, beginning: &str, parts: &[&str]) {
        let texts = texts(report);
        let fits =
            |text: &&String| text.starts_with(beginning) && parts.iter().all(|part| text.contains(part));
        assert_eq!(texts.iter().filter(fits).count(), 1, "{beginning:?} with {parts:?}: {texts:#?}");
    }

    #[test]
    fn an_unreachable_source_is_one_problem_that_names_the_brokers() {
        let begun = Instant::now();
        let report = look_at(&config("127.0.0.1:1", "[\"a\"]"), Duration::from_millis(1500));
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        assert_eq!((report.findings.len(), report.topics.len()), (1, 0), "{report:?}");
        assert_found(&report, "problem: brokers 127.0.0.1:1: ", &["no broker answers"]);
    }

    #[test]
    fn what_is_there_what_is_not_and_what_a_pattern_matches() {
        let mock = MockCluster::new(1).unwrap();
        for (topic, partitions) in [("orders", 3), ("audit.one", 1), ("audit.two", 2), ("other", 1)] {
            mock.create_topic(topic, partitions, 1).unwrap();
        }
        let topics = "[\"orders\", \"absent\", \"^audit\\\\..*\", \"^none-.*\"]";
        let report = look_at(&config(&mock.bootstrap_servers(), topics), CONNECT_TIMEOUT);
        assert_eq!(report.topics, ["audit.one", "audit.two", "orders"], "{report:#?}");
        assert_found(&report, "ok: brokers ", &["answer", "1 in the cluster"]);
        assert_found(&report, "ok: topic orders has 3 partitions", &["no topic id"]);
        assert_found(&report, "ok: pattern ^audit\\..* matches 2 topics", &[]);
        assert_found(&report, "warning: pattern ^none-.* matches no topic", &[]);
        assert_found(&report, "warning: topic absent does not exist", &["create it"]);
        assert_found(&report, "warning: the brokers tell no topic ids", &["topic_epoch", "now 7"]);
        assert_found(&report, "ok: group ddc-t may be used and has no commits", &["starts at earliest"]);
        assert!(!texts(&report).iter().any(|text| text.contains("other")), "not subscribed to");
        assert!(report.findings.iter().all(|finding| finding.severity < Severity::Problem));
    }

    #[test]
    fn commits_are_counted_and_none_is_made_by_looking() {
        use rdkafka::consumer::{BaseConsumer, CommitMode};
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("orders", 3, 1).unwrap();
        let config = config(&mock.bootstrap_servers(), "[\"orders\"]");
        let (client, role) = config.kafka().unwrap();
        let native = client.build(&role).unwrap();
        let consumer: BaseConsumer = native.create().unwrap();
        let committed = || consumer.committed_offsets(range(), Duration::from_secs(5)).unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("orders", 1, Offset::Offset(5)).unwrap();
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
        let before = committed();
        let report = look_at(&config, CONNECT_TIMEOUT);
        assert_found(&report, "ok: group ddc-t may be used", &["commits for 1 of 3 partitions"]);
        assert_eq!(committed(), before);
    }

    fn range() -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition_range("orders", 0, 2);
        list
    }

    #[test]
    fn a_group_that_is_forbidden_is_a_problem() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("orders", 1, 1).unwrap();
        let denied = [Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 20];
        mock.request_errors(rdkafka::types::RDKafkaApiKey::OffsetFetch, &denied);
        let report = look_at(&config(&mock.bootstrap_servers(), "[\"orders\"]"), CONNECT_TIMEOUT);
        assert_found(&report, "problem: group ddc-t: ", &["forbid this consumer group"]);
        assert_eq!(report.topics, ["orders"], "the rest is looked at all the same");
    }

    #[test]
    fn a_coordinator_that_only_starts_is_waited_for() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("orders", 1, 1).unwrap();
        let busy = [Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 2];
        mock.request_errors(rdkafka::types::RDKafkaApiKey::OffsetFetch, &busy);
        let report = look_at(&config(&mock.bootstrap_servers(), "[\"orders\"]"), CONNECT_TIMEOUT);
        assert_found(&report, "ok: group ddc-t may be used", &[]);
    }
}
