//! The topics at the destination: there, with enough partitions, or made so.
//!
//! Every answer is remembered; a topic that turns out to be gone is forgotten and asked for again. Calls to
//! the cluster are bounded by [`CALL_TIMEOUT`]; the caller waits between attempts, so that a destination that
//! is away, lacks a topic, or forbids one holds records back and loses none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_kafka::admin::{Admin, AdminError, Created, TimestampType, TopicSpec};
use ddc_kafka::context::Reporter;
use ddc_telemetry::log::RateLimit;
use rdkafka::ClientConfig;

/// The longest that one call to the cluster holds the sink thread.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// A topic that holds records back is named once in this time.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// What a chunk needs of its destination topic.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// The partition that must exist; `None` when keys decide.
    pub partition: Option<u32>,
    /// Partitions of the topic at the source; 0 when unknown.
    pub source_partitions: u32,
}

impl Need {
    /// The least number of partitions that will do.
    fn least(self) -> u32 {
        self.partition.map_or(1, |partition| partition.saturating_add(1))
    }
}

/// Why records cannot go to a topic now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// Not yet: try again later. The log and [`Destinations::waiting`] say why.
    Wait,
    /// The topic has so many partitions, too few, and DDC may not add any.
    TooFewPartitions(u32),
}

/// What is known of the destination's topics.
pub struct Destinations {
    link: String,
    config: ClientConfig,
    reporter: Reporter,
    /// Made when first needed, and kept.
    admin: Option<Admin>,
    create: bool,
    replication_factor: i32,
    partitions: HashMap<Arc<str>, u32>,
    limit: RateLimit<Arc<str>>,
    waiting: Option<String>,
}

impl Destinations {
    /// Of the cluster that `config` (built for the role `Admin`) leads to.
    pub fn new(
        link: &str,
        config: ClientConfig,
        reporter: Reporter,
        create: bool,
        replication_factor: Option<u16>,
    ) -> Self {
        Self {
            link: link.to_owned(),
            config,
            reporter,
            admin: None,
            create,
            replication_factor: replication_factor.map_or(-1, i32::from),
            partitions: HashMap::new(),
            limit: RateLimit::new(LOG_EVERY),
            waiting: None,
        }
    }

    /// Whether the topic is known to fit, without asking anybody.
    pub fn is_ready(&self, topic: &str, need: Need) -> bool {
        self.partitions.get(topic).is_some_and(|&has| has >= need.least())
    }

    /// Asks, and makes what is missing where that is allowed; then the topic fits.
    pub fn prepare(&mut self, topic: &Arc<str>, need: Need) -> Result<(), NotReady> {
        if self.is_ready(topic, need) {
            return Ok(());
        }
        let outcome = self.ask_and_make(topic, need);
        self.waiting = match outcome {
            Ok(has) => {
                self.partitions.insert(Arc::clone(topic), has);
                None
            }
            Err(Trouble::TooFew(has)) => {
                self.waiting = None;
                return Err(NotReady::TooFewPartitions(has));
            }
            Err(Trouble::Missing) => Some(format!(
                "topic {topic} does not exist at the destination; create it, or set create_topics = true"
            )),
            Err(Trouble::Admin(error)) => Some(error.to_string()),
            Err(Trouble::Client(error)) => Some(error),
        };
        let Some(why) = &self.waiting else { return Ok(()) };
        if let Some(suppressed) = self.limit.allow(Arc::clone(topic), Instant::now()) {
            tracing::warn!(
                link = self.link,
                topic = &**topic,
                why,
                suppressed,
                "records wait for their destination topic"
            );
        }
        Err(NotReady::Wait)
    }

    /// A topic has shown itself to be other than remembered: all are asked for again.
    pub fn forget_all(&mut self) {
        self.partitions.clear();
    }

    /// What records wait for, as a sentence.
    pub fn waiting(&self) -> Option<&str> {
        self.waiting.as_deref()
    }

    fn ask_and_make(&mut self, topic: &Arc<str>, need: Need) -> Result<u32, Trouble> {
        if self.admin.is_none() {
            let admin = Admin::new(&self.config, self.reporter.clone());
            self.admin = Some(admin.map_err(|error| Trouble::Client(error.to_string()))?);
        }
        let Some(admin) = &self.admin else { return Err(Trouble::Missing) };
        let counts = admin.partition_counts(&[&**topic], CALL_TIMEOUT)?;
        let least = need.least();
        match counts.get(&**topic).copied().flatten() {
            Some(has) if has >= least => Ok(has),
            Some(has) if !self.create => Err(Trouble::TooFew(has)),
            Some(has) => {
                // As many as the source has, so that a growing topic is raised once and not per partition.
                let wanted = least.max(need.source_partitions);
                admin.add_partitions(topic, wanted, CALL_TIMEOUT)?;
                tracing::info!(
                    link = self.link,
                    topic = &**topic,
                    from = has,
                    to = wanted,
                    "partitions added at the destination"
                );
                Ok(wanted)
            }
            None if !self.create => Err(Trouble::Missing),
            None => {
                let wanted = least.max(need.source_partitions);
                let created = admin.create_topic(&self.spec(topic, wanted), CALL_TIMEOUT)?;
                if created == Created::Before {
                    // Somebody was faster, perhaps with fewer partitions: look again.
                    return Err(Trouble::Client(format!(
                        "topic {topic} was created by another client just now"
                    )));
                }
                tracing::info!(
                    link = self.link,
                    topic = &**topic,
                    partitions = wanted,
                    "topic created at the destination"
                );
                Ok(wanted)
            }
        }
    }

    /// CreateTime whatever the source's topic has: with LogAppendTime the broker here would put its own clock in the
    /// place of each record's timestamp (docs/decisions/0006).
    fn spec(&self, topic: &str, partitions: u32) -> TopicSpec {
        let kind = TimestampType::CreateTime;
        TopicSpec {
            name: topic.to_owned(),
            partitions,
            replication_factor: self.replication_factor,
            config: BTreeMap::from([("message.timestamp.type".to_owned(), kind.name().to_owned())]),
        }
    }
}

enum Trouble {
    Missing,
    TooFew(u32),
    Admin(AdminError),
    Client(String),
}

impl From<AdminError> for Trouble {
    fn from(error: AdminError) -> Self {
        Self::Admin(error)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;
    use ddc_kafka::settings::{ClientSettings, Role};
    use rdkafka::mocking::MockCluster;

    fn destinations(brokers: &str, create: bool) -> Destinations {
        let config = ClientSettings::plaintext([brokers], "t").build(&Role::Admin).unwrap();
        Destinations::new("t", config, Reporter::new("t", "admin"), create, None)
    }

    fn need(partition: u32) -> Need {
        Need { partition: Some(partition), source_partitions: 0 }
    }

    #[test]
    fn a_topic_is_asked_for_once_and_a_missing_one_is_waited_for() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("three", 3, 1).unwrap();
        let mut destinations = destinations(&mock.bootstrap_servers(), false);
        let (three, absent): (Arc<str>, Arc<str>) = ("three".into(), "absent".into());
        assert!(!destinations.is_ready(&three, need(2)));
        destinations.prepare(&three, need(2)).unwrap();
        assert!(destinations.is_ready(&three, need(2)) && !destinations.is_ready(&three, need(3)));
        assert_eq!(destinations.prepare(&three, need(3)), Err(NotReady::TooFewPartitions(3)));
        assert_eq!(destinations.prepare(&absent, need(0)), Err(NotReady::Wait));
        assert!(
            destinations.waiting().unwrap().contains("topic absent does not exist"),
            "{:?}",
            destinations.waiting()
        );
        destinations.prepare(&three, need(0)).unwrap();
        destinations.forget_all();
        assert!(!destinations.is_ready(&three, need(0)));
    }

    #[test]
    fn a_created_topic_has_the_sources_partitions_and_keeps_timestamps() {
        let destinations = destinations("127.0.0.1:1", true);
        let spec = destinations.spec("t", 7);
        assert_eq!((spec.partitions, spec.replication_factor), (7, -1));
        assert_eq!(
            spec.config["message.timestamp.type"], "CreateTime",
            "or the broker would change timestamps"
        );
    }

    #[test]
    fn a_destination_that_is_away_holds_back_within_a_bound() {
        let mut destinations = destinations("127.0.0.1:1", true);
        let start = Instant::now();
        assert_eq!(destinations.prepare(&"t".into(), need(0)), Err(NotReady::Wait));
        assert!(start.elapsed() < CALL_TIMEOUT + Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
