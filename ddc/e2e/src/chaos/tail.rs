//! Follows a topic from its beginning while a run goes on, and keeps of each record what a comparison needs.
//!
//! Some hundred bytes a record, whatever its size: an hour's run has millions. When a record was first seen is kept, too.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ddc_kafka::lifeline::Lifeline;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::mark::{self, Mark};
use crate::verify::{HeaderList, provenance};

/// A question to a broker; they are stopped and killed meanwhile.
const CALL: Duration = Duration::from_secs(3);
/// How often it looks for new partitions.
const REFRESH: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// What is kept of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Where it stands.
    pub partition: i32,
    /// Where it stands.
    pub offset: i64,
    /// Hash of the key.
    pub key: u64,
    /// Hash of the value.
    pub value: u64,
    /// Hash of the headers, without those that the egress has added.
    pub headers: u64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// Who it says it is.
    pub mark: Option<Mark>,
    /// Whether its content is what was written under its mark.
    pub intact: bool,
    /// At a destination, where it says that it comes from.
    pub from: Option<From>,
    /// When it was seen, from the begin of the run.
    pub at: Duration,
}

/// The headers that the egress adds.
#[derive(Debug, Clone, PartialEq)]
pub struct From {
    /// The topic at the source.
    pub topic: Arc<str>,
    /// The partition at the source.
    pub partition: i32,
    /// The offset at the source.
    pub offset: i64,
    /// Marked as late.
    pub late: bool,
}

/// One topic, followed by a thread of its own until it is dropped.
pub struct Tail {
    topic: String,
    rows: Arc<Mutex<Vec<Seen>>>,
    questions: Option<Sender<Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tail {
    /// `brokers` is `host:port`; the topic need not be there yet. Read committed.
    pub fn start(brokers: &str, topic: &str, is_destination: bool, begin: Instant) -> Tail {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "chaos-tail")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.queue.backoff.ms", "1")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .unwrap();
        let rows = Arc::new(Mutex::new(Vec::new()));
        let (questions, asked) = mpsc::channel();
        let follower = Follower {
            consumer,
            lifeline: Lifeline::default(),
            topic: topic.to_owned(),
            names: None,
            is_destination,
            begin,
            next: BTreeMap::new(),
            rows: Arc::clone(&rows),
        };
        let thread = thread::Builder::new().name("tail".into()).spawn(move || follower.run(&asked)).unwrap();
        Tail { topic: topic.to_owned(), rows, questions: Some(questions), thread: Some(thread) }
    }

    /// Waits until everything is read that is in the topic now.
    #[track_caller]
    pub fn sync(&self, limit: Duration) {
        let (answer, answered) = mpsc::channel();
        let asked = self.questions.as_ref().is_some_and(|questions| questions.send(answer).is_ok());
        assert!(asked && answered.recv_timeout(limit).is_ok(), "{} is read within {limit:?}", self.topic);
    }

    /// What was read so far.
    pub fn rows(&self) -> Vec<Seen> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many records were read so far.
    pub fn count(&self) -> usize {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.questions.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            thread::panicking() || matches!(ended, Some(Ok(()))),
            "the tail of {} ended well",
            self.topic
        );
    }
}

struct Follower {
    consumer: BaseConsumer,
    lifeline: Lifeline,
    topic: String,
    /// The last topic's name in a header: nearly always the same.
    names: Option<Arc<str>>,
    is_destination: bool,
    begin: Instant,
    next: BTreeMap<i32, i64>,
    rows: Arc<Mutex<Vec<Seen>>>,
}

/// A question that waits until these offsets are reached; without them they are still to be asked for.
struct Open(Sender<()>, Option<BTreeMap<i32, i64>>);

impl Follower {
    fn run(mut self, asked: &Receiver<Sender<()>>) {
        let (mut refreshed, mut open) = (None::<Instant>, Vec::<Open>::new());
        loop {
            match asked.try_recv() {
                Ok(answer) => open.push(Open(answer, None)),
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
            let pending = open.iter().any(|open| open.1.is_none());
            if pending || refreshed.is_none_or(|at| at.elapsed() >= REFRESH) {
                refreshed = Some(Instant::now());
                // A broker that is away is asked again in a second.
                if let Ok(ends) = self.refresh(pending) {
                    open.iter_mut().filter(|open| open.1.is_none()).for_each(|open| open.1.clone_from(&ends));
                }
            }
            self.read();
            open.retain(|Open(answer, ends)| {
                let reached =
                    ends.as_ref().is_some_and(|ends| ends.iter().all(|(at, end)| self.has(*at, *end)));
                // Whoever asked and does not wait any longer wants no answer.
                !(reached && matches!(answer.send(()), Ok(()) | Err(_)))
            });
        }
    }

    /// Follows new partitions too; the ends of all, when asked for.
    fn refresh(&mut self, want_ends: bool) -> Result<Option<BTreeMap<i32, i64>>, String> {
        self.lifeline.look(&self.consumer);
        let told = |error: rdkafka::error::KafkaError| error.to_string();
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), CALL).map_err(told)?;
        let found = metadata.topics().first().ok_or("no topic")?;
        if let Some(error) = found.error() {
            // A destination's topic is there once something was written.
            let absent = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
            return if error == absent { Ok(Some(BTreeMap::new())) } else { Err(format!("{error:?}")) };
        }
        let mut new = TopicPartitionList::new();
        for partition in found.partitions() {
            if !self.next.contains_key(&partition.id()) {
                new.add_partition_offset(&self.topic, partition.id(), Offset::Offset(0)).map_err(told)?;
            }
        }
        if new.count() > 0 {
            self.consumer.incremental_assign(&new).map_err(told)?;
            self.next.extend(new.elements().iter().map(|element| (element.partition(), 0)));
        }
        if !want_ends {
            return Ok(None);
        }
        let end = |partition: &i32| {
            self.consumer
                .fetch_watermarks(&self.topic, *partition, CALL)
                .map(|(_, high)| (*partition, high))
                .map_err(told)
        };
        self.next.keys().map(end).collect::<Result<_, _>>().map(Some)
    }

    /// By position, since the marker of a transaction is no message.
    fn has(&self, partition: i32, end: i64) -> bool {
        let position = self.consumer.position().ok().and_then(|list| {
            list.find_partition(&self.topic, partition).and_then(|found| found.offset().to_raw())
        });
        self.next.get(&partition).copied().max(position) >= Some(end)
    }

    fn read(&mut self) {
        let mut wait = POLL;
        let mut fresh = Vec::new();
        // At most so many at once, so that questions are heard.
        while fresh.len() < 1000 {
            match self.consumer.poll(wait) {
                None => break,
                // Brokers are killed: librdkafka goes on by itself.
                Some(Err(_)) => {}
                Some(Ok(message)) => {
                    self.next.insert(message.partition(), message.offset() + 1);
                    fresh.push(seen(&message, self.is_destination, self.begin.elapsed(), &mut self.names));
                }
            }
            wait = Duration::ZERO;
        }
        if !fresh.is_empty() {
            self.rows.lock().unwrap_or_else(PoisonError::into_inner).append(&mut fresh);
        }
    }
}

fn seen(message: &impl Message, is_destination: bool, at: Duration, names: &mut Option<Arc<str>>) -> Seen {
    let all: HeaderList = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    let added = if is_destination { provenance(&all) } else { None };
    let own = added.map_or(&all[..], |(own, ..)| own);
    let timestamp = message.timestamp().to_millis();
    let read = mark::read((message.key(), message.payload(), own, timestamp.unwrap_or(-1)));
    Seen {
        partition: message.partition(),
        offset: message.offset(),
        key: hash(&message.key()),
        value: hash(&message.payload()),
        headers: hash(&own),
        timestamp,
        mark: read.map(|(mark, _)| mark),
        intact: read.is_some_and(|(_, intact)| intact),
        from: added.map(|(_, late, topic, (partition, offset))| {
            let topic = match names {
                Some(known) if **known == *topic => Arc::clone(known),
                _ => Arc::clone(names.insert(topic.into())),
            };
            From { topic, partition, offset, late }
        }),
        at,
    }
}

fn hash(part: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    part.hash(&mut hasher);
    hasher.finish()
}
