//! What somebody wants to be sent again: ranges, checked as far as this can be done without asking a broker.
//!
//! A range comes from a command line, from a gap file that people carried here, or from whoever reaches the admin
//! listener; so it is read strictly and bounded, and what this ingress does not carry is refused by name.

use std::collections::BTreeMap;

use ddc_wire::TopicId;
use regex::Regex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{IngressConfig, KafkaSource, SiteName, Source, TopicPattern};
use crate::gaps::{GapFile, MAX_NAME_BYTES};

/// Most ranges of one replay.
pub const MAX_RANGES: usize = 20_000;
/// Most offsets of one replay; more is a slip of the pen, or a case for another consumer group.
pub const MAX_OFFSETS: u64 = 10_000_000_000;
/// Characters of a replay's id and of `by`.
const MAX_NAME: usize = 63;

/// A request: `POST /v1/replay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by whoever asks: the same id again is the same replay, not another one.
    pub id: String,
    /// For whom, if not for the one whom the connection shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What is wanted.
    pub ranges: Vec<Asked>,
}

/// Offsets `from..=to` of one partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The source's stream; a link from Kafka has only one, the empty one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// The topic at the source.
    pub topic: String,
    /// Which life of the topic: 32 hexadecimal digits or `epoch-N`; without it the one that there is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// Last offset, included.
    pub to: i64,
}

/// A range that is right as far as can be known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The topic at the source.
    pub topic: String,
    /// Which life of the topic, if that was said.
    pub topic_id: Option<TopicId>,
    /// The partition.
    pub partition: i32,
    /// First offset.
    pub first: i64,
    /// Last offset, included.
    pub last: i64,
}

impl Wanted {
    /// How many offsets it has.
    pub fn offsets(&self) -> u64 {
        self.last.abs_diff(self.first).saturating_add(1)
    }
}

/// What is wanted, by partition and ascending, no two of a partition touching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The ranges.
    pub ranges: Vec<Wanted>,
    /// How many ranges were joined with another one because they overlapped or touched.
    pub merged: usize,
}

/// Why nothing is replayed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The id or `by`.
    #[error("`{field}`: {text:?} is no name: 1 to {MAX_NAME} of A-Z, a-z, 0-9, '.', '_', '-', '@' and '+'")]
    Name {
        /// Which field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// Nothing is wanted.
    #[error("no range is named; for example: --topic orders --partition 3 --from 100 --to 199")]
    Nothing,
    /// Too many ranges.
    #[error("{found} ranges are more than the {MAX_RANGES} of one replay; split them")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// Too many offsets.
    #[error(
        "{offsets} offsets are more than the {MAX_OFFSETS} of one replay; name what is missing, or carry the topic anew with another `group`"
    )]
    TooLarge {
        /// How many.
        offsets: u64,
    },
    /// One range.
    #[error("{topic}[{partition}] {from} to {to}: {problem}")]
    Range {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// First offset.
        from: i64,
        /// Last offset.
        to: i64,
        /// What is wrong with it.
        problem: &'static str,
    },
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
    /// A gap file of another link or site.
    #[error("the gap file is of {found}, this is {own}: take the file to the ingress it belongs to")]
    Foreign {
        /// Of whom it is.
        found: String,
        /// Who we are.
        own: String,
    },
    /// A replay of a former run.
    #[error("it was begun under another version of ddc, which joined its ranges otherwise: ask for it again")]
    OtherNow,
    /// Every gap of the file is closed.
    #[error("the gap file names no range that is still missing: there is nothing to replay")]
    AllClosed,
}

impl Request {
    /// What is wanted, as far as this ingress may send it.
    pub fn check(&self, config: &IngressConfig) -> Result<Checked, RequestError> {
        name("id", &self.id)?;
        if let Some(by) = &self.by {
            name("by", by)?;
        }
        let link = config.link.name.as_str();
        match &config.source {
            Source::Kafka(source) => check(&self.ranges, link, source),
            Source::Udp(_) => Err(RequestError::NoKafka(link.to_owned())),
        }
    }
}

/// The ranges of a gap file that are still missing, if the file is this link's.
pub fn of_gap_file(file: &GapFile, config: &IngressConfig) -> Result<Vec<Asked>, RequestError> {
    let (link, site) = (&config.link, config.telemetry.site.as_ref());
    let other_site = file.site.as_ref().zip(site).is_some_and(|(file, own)| file.as_str() != own.as_str());
    if file.link.as_str() != link.name.as_str() || file.link_id != link.id || other_site {
        let named = |name: &str, id: u16, site: Option<&str>| {
            let site = site.map(|site| format!(" of site {site}")).unwrap_or_default();
            format!("link {name} (id {id}){site}")
        };
        return Err(RequestError::Foreign {
            found: named(file.link.as_str(), file.link_id.0, file.site.as_ref().map(SiteName::as_str)),
            own: named(link.name.as_str(), link.id.0, site.map(SiteName::as_str)),
        });
    }
    let ranges: Vec<Asked> = file
        .gaps
        .iter()
        .flat_map(|gap| {
            gap.open.iter().map(|range| Asked {
                stream: gap.stream.clone(),
                topic: gap.topic.clone(),
                topic_id: Some(gap.topic_id.to_string()),
                partition: gap.partition,
                from: range.first,
                to: range.last,
            })
        })
        .collect();
    if ranges.is_empty() { Err(RequestError::AllClosed) } else { Ok(ranges) }
}

fn check(ranges: &[Asked], link: &str, source: &KafkaSource) -> Result<Checked, RequestError> {
    if ranges.is_empty() {
        return Err(RequestError::Nothing);
    }
    if ranges.len() > MAX_RANGES {
        return Err(RequestError::TooMany { found: ranges.len() });
    }
    let carried = Carried::new(&source.topics);
    let mut by_partition = BTreeMap::<(&str, Option<TopicId>, i32), Vec<(i64, i64)>>::new();
    for range in ranges {
        let topic_id = one(range)?;
        if !carried.has(&range.topic) {
            let names: Vec<&str> = source.topics.iter().map(TopicPattern::as_str).collect();
            return Err(RequestError::NotCarried {
                topic: range.topic.clone(),
                link: link.to_owned(),
                carried: names.join(", "),
            });
        }
        let key = (range.topic.as_str(), topic_id, range.partition);
        by_partition.entry(key).or_default().push((range.from, range.to));
    }
    let mut checked = Checked { ranges: Vec::new(), merged: 0 };
    for ((topic, topic_id, partition), offsets) in by_partition {
        let before = offsets.len();
        let joined = join(offsets);
        checked.merged += before - joined.len();
        checked.ranges.extend(joined.into_iter().map(|(first, last)| Wanted {
            topic: topic.to_owned(),
            topic_id,
            partition,
            first,
            last,
        }));
    }
    let offsets = checked.ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.offsets()));
    if offsets > MAX_OFFSETS {
        return Err(RequestError::TooLarge { offsets });
    }
    Ok(checked)
}

/// One range by itself.
fn one(range: &Asked) -> Result<Option<TopicId>, RequestError> {
    let Asked { stream, topic, topic_id, partition, from, to } = range;
    let wrong = |problem| {
        Err(RequestError::Range {
            // What is shown of a name that may be anything is bounded.
            topic: topic.chars().take(MAX_NAME_BYTES).collect(),
            partition: *partition,
            from: *from,
            to: *to,
            problem,
        })
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=MAX_NAME_BYTES).contains(&topic.len()) || !topic.bytes().all(allowed) {
        return wrong("this is no name of a topic");
    }
    if !stream.is_empty() {
        return wrong("a link from Kafka has no streams with names; leave `stream` away");
    }
    if *partition < 0 || *from < 0 {
        return wrong("partitions and offsets count from 0");
    }
    if to < from {
        return wrong("reversed: the last offset lies before the first");
    }
    if *to == i64::MAX {
        return wrong("the last offset is the greatest number there is, which is no offset");
    }
    match topic_id.as_deref().map(str::parse).transpose() {
        Ok(topic_id) => Ok(topic_id),
        Err(_) => wrong("its topic id is neither 32 hexadecimal digits nor epoch-N"),
    }
}

/// Sorts ranges and joins those that overlap or touch.
fn join(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

fn name(field: &'static str, text: &str) -> Result<(), RequestError> {
    if is_name(text) {
        return Ok(());
    }
    Err(RequestError::Name { field, text: text.chars().take(MAX_NAME).collect() })
}

/// Whether this is a name of a request, or of who asks: 1 to 63 of a few characters.
pub(crate) fn is_name(text: &str) -> bool {
    let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(right)
}

/// Which topics a link carries.
pub(crate) struct Carried<'a> {
    names: &'a [TopicPattern],
    /// Anchored by their `^`; compiled once when the configuration was checked.
    patterns: Vec<Regex>,
}

impl<'a> Carried<'a> {
    pub(crate) fn new(names: &'a [TopicPattern]) -> Self {
        let patterns = names.iter().filter(|topic| topic.is_pattern());
        Self { names, patterns: patterns.filter_map(|pattern| Regex::new(pattern.as_str()).ok()).collect() }
    }

    pub(crate) fn has(&self, topic: &str) -> bool {
        self.names.iter().any(|name| !name.is_pattern() && name.as_str() == topic)
            || self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
pub(super) mod tests;
