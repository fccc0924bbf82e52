//! One single-partition topic, followed from its beginning by a client that is a member of no group.
//!
//! ```text
//!  topic (id, 1 partition) ── read_committed, from the first offset ──▶ poll ──▶ f(offset, key, value)
//!        └── end of the log, asked with read_uncommitted ──▶ high_watermark        position ≥ it: all of it was read
//! ```
//!
//! No group in any way: librdkafka's `assign` would look for a group's coordinator and want an ACL for it, so this uses
//! the older interface that knows none. It needs READ and DESCRIBE on the topic, nothing else.
//!
//! The position follows what delivers nothing: the markers that end transactions and the records of aborted ones, by
//! librdkafka's own position; and what compaction has emptied at the end of the log, by the end that the broker reports.
//! librdkafka's batch call is not used, because it moves the position one too far when it yields an error.

use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaMessage, RDKafkaTopic};

use crate::batch::{ReadError, Record};
use crate::context::{Reporter, ReportingContext};
use crate::errors::{Kind, Verdict, classify_code, code_of};
use crate::lifeline::Lifeline;
use crate::native::{NativeHandle, OwnedQueue, sealed::Native};
use crate::range::end_of_log;
use crate::settings::{ClientSettings, Role};
use crate::topic_id::{Poll, TopicError, TopicFacts, TopicId, TopicIds};

/// The only partition.
const PARTITION: i32 = 0;
/// Records that one call of [`TopicLog::poll`] delivers at most.
pub const MAX_POLL: usize = 10_000;
/// Between two looks at the position while nothing is delivered.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often the topic's id is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A topic is gone when the brokers have said so for this long: one of them may not have heard of a new topic yet.
const GONE_AFTER: Duration = Duration::from_secs(2);
/// How long one answer about the topic may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Callbacks of librdkafka that one turn serves at most.
const EVENTS_PER_TURN: usize = 64;

/// Follows a topic. See the module's text. Owned by one thread; every call but
/// [`high_watermark`](TopicLog::high_watermark) and the drop is bounded by the wait given to it.
pub struct TopicLog {
    topic: String,
    reading: Reading,
    lifeline: Lifeline,
    /// Over connections of their own, which no long poll holds up.
    ids: TopicIds,
    asking: Arc<BaseConsumer<ReportingContext>>,
    reporter: Reporter,
    position: i64,
    id: Option<TopicId>,
    asked: Option<Instant>,
    unknown_since: Option<Instant>,
    passing_errors: u64,
    /// An error that does not pass is told by every call that follows.
    failed: Option<TopicLogError>,
}

/// Why a topic cannot be followed any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicLogError {
    /// No client could be made.
    #[error("the clients that read topic {topic} cannot be made: {text}")]
    Client {
        /// The topic.
        topic: String,
        /// Why not.
        text: String,
    },
    /// The end of the log was not told in time, or not now. Ask again; what was read stays valid.
    #[error("the end of topic {topic} is not known: {text}; {advice}", advice = .verdict.advice)]
    Unanswered {
        /// The topic.
        topic: String,
        /// The cluster's or librdkafka's words.
        text: String,
        /// What it means.
        verdict: Verdict,
    },
    /// The cluster forbids reading or describing it.
    #[error("topic {topic} may not be read: {text}; this client needs READ and DESCRIBE on it")]
    Forbidden {
        /// The topic.
        topic: String,
        /// The cluster's or librdkafka's words.
        text: String,
    },
    /// There is no such topic, or not any more.
    #[error("topic {topic} does not exist, or this client may not see it")]
    Gone {
        /// The topic.
        topic: String,
    },
    /// It was deleted and created again: what was read is of another life.
    #[error("topic {topic} was deleted and created again (id {before}, now {now})")]
    Recreated {
        /// The topic.
        topic: String,
        /// The id it had.
        before: TopicId,
        /// The id it has.
        now: TopicId,
    },
    /// The log no longer holds what comes next, or ends before what was read: it was cut, or is another one.
    #[error(
        "topic {topic} does not go on at offset {position}: {text}; it was created again, cut or lost records"
    )]
    Cut {
        /// The topic.
        topic: String,
        /// The offset that would have come next.
        position: i64,
        /// The cluster's or librdkafka's words.
        text: String,
    },
    /// It has more than one partition, so there is no one order.
    #[error("topic {topic} has {partitions} partitions and must have one")]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: u32,
    },
}

impl TopicLogError {
    /// Whether the same [`TopicLog`] goes on. After any other error it tells the same for ever: open a new one.
    pub fn is_passing(&self) -> bool {
        matches!(self, TopicLogError::Unanswered { .. })
    }
}

impl TopicLog {
    /// Begins to read `topic` at its first offset. Returns at once: whether the topic can be read is heard from
    /// [`poll`](TopicLog::poll). What is held in memory is bounded by [`Role::Log`]'s settings, some 2 MiB.
    pub fn open(client: &ClientSettings, topic: &str, reporter: Reporter) -> Result<TopicLog, TopicLogError> {
        let cannot = |text: &dyn fmt::Display| TopicLogError::Client {
            topic: topic.to_owned(),
            text: text.to_string(),
        };
        let config = client.build(&Role::Log).map_err(|error| cannot(&error))?;
        let mut asking = config.clone();
        // A read_committed client is told the last stable offset as the end.
        asking.set("isolation.level", "read_uncommitted");
        let make = |config: &rdkafka::ClientConfig| -> Result<Arc<BaseConsumer<ReportingContext>>, _> {
            config.create_with_context(ReportingContext(reporter.clone())).map(Arc::new)
        };
        let asking = make(&asking).map_err(|error| cannot(&error))?;
        let reading = make(&config).map_err(|error| cannot(&error))?;
        let reading = Reading::start(reading, topic).map_err(|code| cannot(&code))?;
        let ids = TopicIds::new(Arc::clone(&asking) as Arc<dyn NativeHandle>, ANSWER_TIMEOUT);
        Ok(TopicLog {
            topic: topic.to_owned(),
            reading,
            lifeline: Lifeline::default(),
            ids,
            asking,
            reporter,
            position: 0,
            id: None,
            asked: None,
            unknown_since: None,
            passing_errors: 0,
            failed: None,
        })
    }

    /// The offset behind the last record of the log now, records of open transactions included. Asks the leader and
    /// waits for the answer, `timeout` at most. A log that ends before the [`position`](TopicLog::position) is another
    /// log: [`TopicLogError::Cut`].
    pub fn high_watermark(&self, timeout: Duration) -> Result<i64, TopicLogError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let (_, high) = self.asking.fetch_watermarks(&self.topic, PARTITION, timeout).map_err(|error| {
            let code = code_of(&error).unwrap_or(Code::Unknown);
            let verdict = classify_code(code);
            if verdict.kind == Kind::Authorization {
                return TopicLogError::Forbidden { topic: self.topic.clone(), text: error.to_string() };
            }
            // Also when the topic is unknown: brokers that have just started say that of any topic. The id tells.
            TopicLogError::Unanswered { topic: self.topic.clone(), text: error.to_string(), verdict }
        })?;
        if high < self.position {
            let text = format!("the log ends at offset {high}");
            return Err(TopicLogError::Cut { topic: self.topic.clone(), position: self.position, text });
        }
        Ok(high)
    }

    /// Delivers what is there, in order, at most [`MAX_POLL`] records; waits at most `wait` for the first, and less
    /// when the position moves without a record. Returns how many were delivered. What passes by itself (a broker that
    /// is away) is told to the reporter and counted ([`passing_errors`](TopicLog::passing_errors)); what does not is returned.
    pub fn poll(
        &mut self,
        wait: Duration,
        mut f: impl FnMut(i64, Option<&[u8]>, Option<&[u8]>),
    ) -> Result<usize, TopicLogError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let result = self.serve().and_then(|()| self.deliver(wait, &mut f));
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Every offset below it was delivered or delivers nothing: transaction markers, aborted records, what compaction
    /// removed. 0 at first; it never falls. An open transaction holds it back.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// How many errors were passed over because they pass by themselves.
    pub fn passing_errors(&self) -> u64 {
        self.passing_errors
    }

    /// The topic's id, once the brokers have told it.
    pub fn topic_id(&self) -> Option<TopicId> {
        self.id
    }

    fn deliver(
        &mut self,
        wait: Duration,
        f: &mut impl FnMut(i64, Option<&[u8]>, Option<&[u8]>),
    ) -> Result<usize, TopicLogError> {
        let deadline = Instant::now() + wait;
        let before = self.position;
        let mut delivered = 0;
        while delivered < MAX_POLL {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if delivered > 0 { Duration::ZERO } else { left.min(LOOK_EVERY) };
            let Some(message) = self.reading.next(wait) else {
                self.position = self.position.max(self.reading.position());
                if delivered > 0 || self.position != before || left.is_zero() {
                    break;
                }
                continue;
            };
            match message.record() {
                Ok(record) => {
                    f(record.offset(), record.key(), record.value());
                    self.position = self.position.max(record.offset() + 1);
                    delivered += 1;
                }
                Err(error) => match end_of_log(&error) {
                    Some(end) => self.position = self.position.max(end),
                    None => self.judge(error)?,
                },
            }
        }
        if self.position != before {
            self.reporter.clear_error();
        }
        Ok(delivered)
    }

    /// An error that came in the place of a record.
    fn judge(&mut self, error: ReadError) -> Result<(), TopicLogError> {
        let verdict = error.verdict();
        let topic = self.topic.clone();
        match verdict.kind {
            Kind::Authorization => Err(TopicLogError::Forbidden { topic, text: error.text }),
            Kind::OffsetGone => Err(TopicLogError::Cut { topic, position: self.position, text: error.text }),
            // librdkafka has waited for it already; without ids nobody else will say so.
            Kind::UnknownTopic if self.id.is_none() => Err(TopicLogError::Gone { topic }),
            Kind::UnknownTopic => {
                self.asked = None;
                Ok(())
            }
            _ => {
                self.passing_errors += 1;
                self.reporter.error(&rdkafka::error::KafkaError::MessageConsumption(error.code), &error.text);
                Ok(())
            }
        }
    }

    /// Callbacks of librdkafka, and the topic's id.
    fn serve(&mut self) -> Result<(), TopicLogError> {
        for client in [&self.reading.client, &self.asking] {
            // Errors come by the reporter too; records do not come this way.
            let mut events = 0;
            while client.poll(Duration::ZERO).is_some() && events < EVENTS_PER_TURN {
                events += 1;
            }
        }
        self.lifeline.look(&*self.reading.client);
        match self.ids.poll() {
            Poll::Pending => return Ok(()),
            // No answer: brokers without ids, or away; the reading client says which.
            Poll::Idle | Poll::NoAnswer { .. } => {}
            Poll::Answered(answers) => {
                for (_, answer) in answers {
                    self.compare(answer)?;
                }
            }
        }
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            self.asked = Some(Instant::now());
            // Refused only for a name that cannot exist, which the reading client refuses as well.
            let _ = self.ids.ask(&[&self.topic]);
        }
        Ok(())
    }

    fn compare(&mut self, answer: Result<TopicFacts, TopicError>) -> Result<(), TopicLogError> {
        let topic = self.topic.clone();
        let facts = match answer {
            Ok(facts) => facts,
            Err(error) => {
                return match error.verdict().kind {
                    Kind::Authorization => Err(TopicLogError::Forbidden { topic, text: error.text }),
                    Kind::UnknownTopic => {
                        let since = *self.unknown_since.get_or_insert_with(Instant::now);
                        if since.elapsed() >= GONE_AFTER {
                            Err(TopicLogError::Gone { topic })
                        } else {
                            Ok(())
                        }
                    }
                    _ => Ok(()),
                };
            }
        };
        self.unknown_since = None;
        if facts.partitions > 1 {
            return Err(TopicLogError::Partitions { topic, partitions: facts.partitions });
        }
        match (self.id, facts.id) {
            (Some(before), Some(now)) if before != now => {
                Err(TopicLogError::Recreated { topic, before, now })
            }
            (_, Some(now)) => {
                self.id = Some(now);
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }
}

/// The partition while it is read, by librdkafka's interface that knows no groups.
struct Reading {
    // The queue and the topic before the client they came from; see `drop`.
    queue: OwnedQueue,
    topic: NonNull<RDKafkaTopic>,
    place: TopicPartitionList,
    client: Arc<BaseConsumer<ReportingContext>>,
}

// SAFETY: the topic's handle is locked inside; librdkafka lets any thread use it.
unsafe impl Send for Reading {}

impl Reading {
    fn start(client: Arc<BaseConsumer<ReportingContext>>, name: &str) -> Result<Reading, Code> {
        let c_name = CString::new(name).map_err(|_| Code::InvalidTopic)?;
        let mut place = TopicPartitionList::new();
        place.add_partition(name, PARTITION);
        let queue = OwnedQueue::new(&*client);
        // SAFETY: the client is alive and the name a C string, which is copied. Null: the client's default settings.
        let topic =
            unsafe { sys::rd_kafka_topic_new(client.native(), c_name.as_ptr(), std::ptr::null_mut()) };
        let topic = NonNull::new(topic).ok_or(Code::InvalidTopic)?;
        let reading = Reading { queue, topic, place, client };
        // SAFETY: topic and queue are alive; librdkafka takes its own references to both.
        let started = unsafe {
            sys::rd_kafka_consume_start_queue(
                topic.as_ptr(),
                PARTITION,
                i64::from(sys::RD_KAFKA_OFFSET_BEGINNING),
                reading.queue.ptr(),
            )
        };
        // Fails for a client with a group's assignment, which this one never has.
        if started == 0 { Ok(reading) } else { Err(Code::Unknown) }
    }

    /// The next record or error, if one comes within `timeout`.
    fn next(&self, timeout: Duration) -> Option<Message> {
        let timeout = timeout.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: the queue is alive; the message is ours from then on.
        NonNull::new(unsafe { sys::rd_kafka_consume_queue(self.queue.ptr(), timeout) }).map(Message)
    }

    /// What librdkafka has gone past; negative before the first record.
    fn position(&self) -> i64 {
        // SAFETY: the client is alive; the list is ours and not shared, and librdkafka writes into its elements.
        let code = unsafe { sys::rd_kafka_position(self.client.native(), self.place.ptr()) };
        let elements = self.place.elements();
        match (code, elements.first().map(TopicPartitionListElem::offset)) {
            (sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, Some(rdkafka::Offset::Offset(offset))) => {
                offset
            }
            _ => -1,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // SAFETY: the topic's handle is ours and given back once, here; the fetcher was started at most once, and stopping
        // one that was not is an error that changes nothing. The queue goes after this, the client last.
        unsafe {
            sys::rd_kafka_consume_stop(self.topic.as_ptr(), PARTITION);
            sys::rd_kafka_topic_destroy(self.topic.as_ptr());
        }
    }
}

/// One message, freed on drop.
struct Message(NonNull<RDKafkaMessage>);

impl Message {
    fn record(&self) -> Result<Record<'_>, ReadError> {
        // SAFETY: the message is ours and lives as long as the borrow.
        Record::of(unsafe { self.0.as_ref() })
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests;
