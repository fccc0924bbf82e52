//! Ranges of partitions, read to their end by a client that is a member of no group.
//!
//! ```text
//!  topic (id, partitions) ── watermarks ── assign at an offset ── read … ── a record behind the range, or the end of the log
//! ```
//!
//! It commits nothing and moves nobody's partitions: nobody sees it but the brokers. One partition at a time. Calls wait
//! for the brokers, each with a bound: for a thread of its own. Whether aborted transactions' records are read is the
//! settings' choice (`isolation.level`, by default they are not).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::admin::Admin;
use crate::batch::{Batch, ReadError, ReadQueue};
use crate::context::{Reporter, ReportingContext};
use crate::lifeline::Lifeline;
use crate::topic_id::{Poll, TopicError, TopicFacts, TopicIds};

impl ConsumerContext for ReportingContext {}

/// Between two looks for an answer.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Reads one partition after the other, each from an offset on. See the module's text.
pub struct RangeReader {
    // Queues before the clients they came from.
    queue: ReadQueue<ReportingContext>,
    consumer: Arc<BaseConsumer<ReportingContext>>,
    lifeline: Lifeline,
    /// Over connections of their own: they do not wait behind a long poll.
    ids: TopicIds,
    reading: Option<(String, i32)>,
}

impl RangeReader {
    /// A reader that connects when first used. `reading` comes from
    /// [`ClientSettings::build`](crate::settings::ClientSettings::build) for [`Role::Replay`](crate::settings::Role::Replay),
    /// `asking` for [`Role::Admin`](crate::settings::Role::Admin).
    pub fn new(
        reading: &ClientConfig,
        asking: &ClientConfig,
        reporter: Reporter,
        batch_records: usize,
        answer_timeout: Duration,
    ) -> KafkaResult<RangeReader> {
        let context = ReportingContext(reporter.clone());
        let consumer: Arc<BaseConsumer<ReportingContext>> = Arc::new(reading.create_with_context(context)?);
        let queue = ReadQueue::new(Arc::clone(&consumer), batch_records);
        let ids = TopicIds::new(Admin::new(asking, reporter)?.client(), answer_timeout);
        Ok(RangeReader { queue, consumer, lifeline: Lifeline::default(), ids, reading: None })
    }

    /// What the brokers say of a topic. Brokers without topic ids tell none, but the number of partitions.
    pub fn topic(&mut self, name: &str, timeout: Duration) -> Result<TopicFacts, TopicError> {
        let error = |code: Code, text: String| TopicError { code, text };
        if let Err(refused) = self.ids.ask(&[name]) {
            return Err(error(Code::InvalidArgument, refused.to_string()));
        }
        loop {
            match self.ids.poll() {
                // Bounded by the deadline of the question.
                Poll::Pending => thread::sleep(LOOK_EVERY),
                Poll::Answered(answers) => {
                    let found = answers.into_iter().find(|(topic, _)| topic == name);
                    let none =
                        || Err(error(Code::UnknownTopicOrPartition, "the answer lacks the topic".into()));
                    return found.map_or_else(none, |(_, answer)| answer);
                }
                Poll::Idle => return Err(error(Code::OperationTimedOut, "no answer about the topic".into())),
                Poll::NoAnswer { .. } => break,
            }
        }
        // Brokers without ids do not know the question. Those that are away do not answer this one either.
        let metadata = self.consumer.fetch_metadata(Some(name), timeout).map_err(|failed| {
            error(failed.rdkafka_error_code().unwrap_or(Code::OperationTimedOut), failed.to_string())
        })?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        match topic.map(|topic| (topic.error(), topic.partitions().len())) {
            Some((None, partitions)) => Ok(TopicFacts { id: None, partitions: partitions as u32 }),
            Some((Some(code), _)) => Err(error(code.into(), "the brokers refuse the topic".into())),
            None => Err(error(Code::UnknownTopicOrPartition, "the brokers do not know the topic".into())),
        }
    }

    /// The lowest offset that the brokers have and the one behind the last that can be read.
    pub fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> KafkaResult<(i64, i64)> {
        self.lifeline.look(&*self.consumer);
        self.consumer.fetch_watermarks(topic, partition, timeout)
    }

    /// Begins to read a partition at an offset, and nothing else any more.
    pub fn assign(&mut self, topic: &str, partition: i32, offset: i64) -> KafkaResult<()> {
        self.release()?;
        self.queue.attach(topic, partition);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        self.reading = Some((topic.to_owned(), partition));
        self.consumer.assign(&list)
    }

    /// Reads nothing any more. What was fetched is dropped.
    pub fn release(&mut self) -> KafkaResult<()> {
        if let Some((topic, partition)) = self.reading.take() {
            self.queue.detach(&topic, partition);
            self.consumer.unassign()?;
        }
        Ok(())
    }

    /// Reads what is there, see [`ReadQueue::read`]. The end of the log comes as an error, see [`end_of_log`].
    pub fn read(&mut self, timeout: Duration) -> Batch<'_> {
        self.lifeline.look(&*self.consumer);
        self.queue.reattach();
        // Serves librdkafka's callbacks; no record comes this way, and errors come by the reporter too.
        let _ = self.consumer.poll(Duration::ZERO);
        self.queue.read(timeout)
    }
}

/// The end of the log, if that is what this is: there is nothing to read at or above the offset now.
pub fn end_of_log(error: &ReadError) -> Option<i64> {
    (error.code == Code::PartitionEOF && error.offset >= 0).then_some(error.offset)
}
