//! What is asked of an ingress: which partitions, how far back. Strictly parsed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{KafkaSource, Span, TopicPattern};
use crate::gaps::{MAX_NAME_BYTES, Timestamp};
use crate::replay::{Carried, is_name};

/// Most topics and most partitions that one request names.
pub const MAX_NAMED: usize = 1000;
/// The longest text of a time.
const MAX_SINCE: usize = 64;

/// A request: `POST /v1/rewind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by whoever asks: the same id again is the same rewind, not another one. Empty: one is made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// For whom, if not for the one whom the connection shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How long ago (`20s`), or when (`2026-03-01T08:15:30Z`).
    pub since: String,
    /// Only these topics; with no topic and no partition all that are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// Only these partitions, beside those of `topics`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Named>,
    /// Say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The topic at the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// Which partitions are meant, of those that are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Which {
    pub(super) topics: BTreeSet<String>,
    pub(super) partitions: BTreeSet<(String, i32)>,
}

impl Which {
    /// Whether this partition is meant.
    pub fn has(&self, topic: &str, partition: i32) -> bool {
        self.is_all()
            || self.topics.contains(topic)
            || self.partitions.iter().any(|(of, number)| of == topic && *number == partition)
    }

    /// Whether all are.
    pub fn is_all(&self) -> bool {
        self.topics.is_empty() && self.partitions.is_empty()
    }
}

/// Why nothing goes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The id or `by`.
    #[error("`{field}`: {text:?} is no name: 1 to 63 of A-Z, a-z, 0-9, '.', '_', '-', '@' and '+'")]
    Name {
        /// Which field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// `since`.
    #[error(
        "`since`: {0:?} is neither a duration, such as 20s or 5min, nor a time, such as 2026-03-01T08:15:30Z"
    )]
    Since(String),
    /// Nothing was sent in no time.
    #[error("`since`: 0s ago is now: nothing would go again; for example \"20s\"")]
    Zero,
    /// A time to come.
    #[error("`since`: {0} is not past by this host's clock; for example \"20s\"")]
    Future(String),
    /// Too much is named.
    #[error(
        "{0} topics and partitions are more than the {MAX_NAMED} of one rewind; leave them out to mean all"
    )]
    TooMany(usize),
    /// No topic, no partition.
    #[error("{0:?} is no name of a topic")]
    Topic(String),
    /// Below 0.
    #[error("{0}[{1}]: partitions count from 0")]
    Partition(String, i32),
    /// The topic is not one of the link's.
    #[error(
        "topic {topic} is not carried by link {link}: its `topics` are {carried}; ask the ingress that carries it"
    )]
    NotCarried {
        /// The topic.
        topic: String,
        /// The link's name.
        link: String,
        /// Names and patterns.
        carried: String,
    },
    /// The source is not Kafka.
    #[error("link {0} does not read from Kafka: what it carries is kept nowhere and cannot be sent again")]
    NoKafka(String),
}

impl Request {
    /// How long ago, and which partitions, as far as that can be known here. `wall`: since 1970.
    pub(super) fn check(
        &self,
        link: &str,
        source: &KafkaSource,
        wall: Duration,
    ) -> Result<(Duration, Which), RequestError> {
        if !self.id.is_empty() {
            name("id", &self.id)?;
        }
        if let Some(by) = &self.by {
            name("by", by)?;
        }
        let named = self.topics.len() + self.partitions.len();
        if named > MAX_NAMED {
            return Err(RequestError::TooMany(named));
        }
        let carried = Carried::new(&source.topics);
        let names = self.topics.iter().chain(self.partitions.iter().map(|one| &one.topic));
        for topic in names {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            if !(1..=MAX_NAME_BYTES).contains(&topic.len()) || !topic.bytes().all(allowed) {
                return Err(RequestError::Topic(topic.chars().take(MAX_NAME_BYTES).collect()));
            }
            if !carried.has(topic) {
                let patterns: Vec<&str> = source.topics.iter().map(TopicPattern::as_str).collect();
                return Err(RequestError::NotCarried {
                    topic: topic.clone(),
                    link: link.to_owned(),
                    carried: patterns.join(", "),
                });
            }
        }
        if let Some(one) = self.partitions.iter().find(|one| one.partition < 0) {
            return Err(RequestError::Partition(one.topic.clone(), one.partition));
        }
        let which = Which {
            topics: self.topics.iter().cloned().collect(),
            partitions: self.partitions.iter().map(|one| (one.topic.clone(), one.partition)).collect(),
        };
        Ok((since(&self.since, wall)?, which))
    }
}

/// How long ago that is, by the clock `wall` (since 1970).
///
/// # Errors
/// Neither a duration above zero nor a time that is past.
pub fn since(text: &str, wall: Duration) -> Result<Duration, RequestError> {
    let wrong = || RequestError::Since(text.chars().take(MAX_SINCE).collect());
    if text.len() > MAX_SINCE {
        return Err(wrong());
    }
    if let Ok(span) = text.parse::<Span>() {
        return if span.0.is_zero() { Err(RequestError::Zero) } else { Ok(span.0) };
    }
    // People write whole seconds.
    let whole = text.strip_suffix('Z').filter(|text| !text.contains('.'));
    let written = whole.map_or_else(|| text.to_owned(), |whole| format!("{whole}.000Z"));
    let moment: Timestamp = written.parse().map_err(|_| wrong())?;
    let ago = wall.checked_sub(Duration::from_millis(moment.millis()));
    ago.filter(|ago| !ago.is_zero()).ok_or_else(|| RequestError::Future(text.to_owned()))
}

fn name(field: &'static str, text: &str) -> Result<(), RequestError> {
    if is_name(text) {
        return Ok(());
    }
    Err(RequestError::Name { field, text: text.chars().take(63).collect() })
}
