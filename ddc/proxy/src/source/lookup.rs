//! What the brokers say about partitions before they are read: committed offsets and watermarks.
//!
//! These requests wait for the brokers, up to seconds each when some are away. So they are made on a thread of their
//! own, one at a time: the source goes on reading, committing and answering the group meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ddc_kafka::errors::classify;
use ddc_kafka::group::GroupContext;
use ddc_wire::TopicId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use regex::Regex;

use super::start::PartitionFacts;
use crate::config::TopicPattern;

/// One request to the brokers may take this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// The same, for a partition's watermarks once another one's had no answer: partitions without a leader must not hold
/// up the others.
const SHORT_TIMEOUT: Duration = Duration::from_millis(500);
/// What was not looked up by then is looked up next time.
const LOOKUP_BOUND: Duration = Duration::from_secs(10);

/// A partition to be looked up.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) topic_id: TopicId,
    /// 0 when unknown.
    pub(super) partition_count: u32,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// What is known of each partition that answered.
    pub(super) facts: Vec<PartitionFacts>,
    /// What did not answer, with the reason.
    pub(super) failed: Vec<(String, i32, String)>,
    /// Whether the group has committed anything for its subscription.
    pub(super) group_has_commits: bool,
}

/// A lookup that runs.
pub(super) struct Lookup {
    answer: Receiver<Result<Found, String>>,
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lookup {
    /// Begins to look up. `group_has_commits` when that is known already.
    pub(super) fn start(
        consumer: &Arc<BaseConsumer<GroupContext>>,
        asked: Vec<Asked>,
        subscription: Vec<TopicPattern>,
        group_has_commits: Option<bool>,
    ) -> std::io::Result<Self> {
        let (sender, answer) = sync_channel(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let (consumer, cancel) = (Arc::clone(consumer), Arc::clone(&cancelled));
        let thread = std::thread::Builder::new().name("ddc-lookup".into()).spawn(move || {
            let found = Asking { consumer: &consumer, cancelled: &cancel, subscription: &subscription }
                .look_up(&asked, group_has_commits);
            // Nobody waits for it any more when the partitions were taken away meanwhile.
            let _ = sender.send(found.map_err(|error| {
                format!(
                    "the source's Kafka does not tell where to start: {error}; {}",
                    classify(&error).advice
                )
            }));
        })?;
        Ok(Self { answer, cancelled, thread: Some(thread) })
    }

    /// The answer, once it is there.
    pub(super) fn poll(&mut self) -> Option<Result<Found, String>> {
        match self.answer.try_recv() {
            Ok(found) => Some(found),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("the lookup of offsets ended early".into())),
        }
    }

    /// Its answer is not wanted any more.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether its thread is done.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Lookup {
    /// Waits for the request under way, [`REQUEST_TIMEOUT`] at most: the thread holds the consumer, which must be closed
    /// for the group to be left at once.
    fn drop(&mut self) {
        self.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its hook, and the answer is missing.
            let _ = thread.join();
        }
    }
}

struct Asking<'a> {
    consumer: &'a BaseConsumer<GroupContext>,
    cancelled: &'a AtomicBool,
    subscription: &'a [TopicPattern],
}

impl Asking<'_> {
    fn look_up(&self, asked: &[Asked], group_has_commits: Option<bool>) -> KafkaResult<Found> {
        let until = Instant::now() + LOOKUP_BOUND;
        let mut list = TopicPartitionList::with_capacity(asked.len());
        for one in asked {
            list.add_partition(&one.topic, one.partition);
        }
        let committed = self.consumer.committed_offsets(list, REQUEST_TIMEOUT)?;
        let elements = committed.elements();
        let elements: HashMap<_, _> =
            elements.iter().map(|element| ((element.topic(), element.partition()), element)).collect();
        let mut found = Found { facts: Vec::new(), failed: Vec::new(), group_has_commits: false };
        let counts = self.partition_counts(asked)?;
        let mut timeout = REQUEST_TIMEOUT;
        for one in asked {
            self.go_on()?;
            let Some(element) = elements.get(&(one.topic.as_str(), one.partition)) else { continue };
            let looked = if Instant::now() > until {
                Err("not looked up yet".to_owned())
            } else {
                element
                    .error()
                    .and_then(|()| self.consumer.fetch_watermarks(&one.topic, one.partition, timeout))
                    .map_err(|error| format!("{error}; {}", classify(&error).advice))
            };
            match looked {
                Ok((low, high)) => found.facts.push(PartitionFacts {
                    topic: one.topic.as_str().into(),
                    topic_id: one.topic_id,
                    partition: one.partition,
                    partition_count: counts.get(&*one.topic).copied().unwrap_or(one.partition_count),
                    committed: committed_at(element.offset())
                        .map(|offset| (offset, element.metadata().parse().ok())),
                    low,
                    high,
                }),
                Err(why) => {
                    timeout = SHORT_TIMEOUT;
                    found.failed.push((one.topic.clone(), one.partition, why));
                }
            }
        }
        found.group_has_commits = match group_has_commits {
            Some(known) => known,
            None => {
                committed.elements().iter().any(|element| committed_at(element.offset()).is_some())
                    || self.any_commit()?
            }
        };
        Ok(found)
    }

    /// Partition counts of topics that brokers without topic ids did not tell. It also proves that those brokers answer
    /// at all, which their silence about ids does not.
    fn partition_counts<'n>(&self, asked: &'n [Asked]) -> KafkaResult<HashMap<&'n str, u32>> {
        let mut counts = HashMap::new();
        for one in asked.iter().filter(|one| one.partition_count == 0) {
            if counts.contains_key(&*one.topic) {
                continue;
            }
            self.go_on()?;
            let metadata = self.consumer.fetch_metadata(Some(&one.topic), REQUEST_TIMEOUT)?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            counts.insert(&*one.topic, count as u32);
        }
        Ok(counts)
    }

    /// Whether the group has committed anything for any partition of its subscription.
    fn any_commit(&self) -> KafkaResult<bool> {
        self.go_on()?;
        let metadata = self.consumer.fetch_metadata(None, REQUEST_TIMEOUT)?;
        let mut list = TopicPartitionList::new();
        // Patterns are anchored by their `^` and were compiled once when the configuration was checked.
        let patterns: Vec<Regex> = self
            .subscription
            .iter()
            .filter(|topic| topic.is_pattern())
            .filter_map(|pattern| Regex::new(pattern.as_str()).ok())
            .collect();
        let subscribed = |topic: &str| {
            self.subscription.iter().any(|name| name.as_str() == topic)
                || patterns.iter().any(|pattern| pattern.is_match(topic))
        };
        for topic in metadata.topics().iter().filter(|topic| subscribed(topic.name())) {
            for partition in topic.partitions() {
                list.add_partition(topic.name(), partition.id());
            }
        }
        if list.count() == 0 {
            return Ok(false);
        }
        self.go_on()?;
        let committed = self.consumer.committed_offsets(list, REQUEST_TIMEOUT)?;
        Ok(committed.elements().iter().any(|element| committed_at(element.offset()).is_some()))
    }

    fn go_on(&self) -> KafkaResult<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(KafkaError::Canceled) } else { Ok(()) }
    }
}

fn committed_at(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) if offset >= 0 => Some(offset),
        _ => None,
    }
}
