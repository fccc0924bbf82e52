//! A member of a consumer group whose rebalances the caller answers, all in one thread.
//!
//! rdkafka answers a rebalance inside a callback, where nothing can be committed, asked or waited for in peace. Here a
//! rebalance is an event: the caller does what it must (commit, ask for topic ids, choose offsets) and then
//! calls [`GroupMember::assign`] or [`GroupMember::release`]. Until then librdkafka waits, and the group with it, for
//! at most `max.poll.interval.ms`.
//!
//! ```text
//!  loop {
//!      while let Some(event) = member.serve() { … assign(…) | release(…) … }     every turn, at most some 100 ms apart
//!      let batch = member.read(timeout);                                          records of what is assigned
//!  }
//! ```
//!
//! After `release` returned, no record of the released partitions is read any more.

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};

use crate::batch::{Batch, ReadQueue};
use crate::commit::{CommitError, CommitId, CommitResult, Commits};
use crate::context::{Reporter, lock};
use crate::lifeline::Lifeline;
use crate::native::NativeHandle;
use crate::native::sealed::Native;

/// A consumer that reads in batches and leaves every answer to the group to its owner.
///
/// Dropping it leaves the group: partitions are given up at once, not after the session timeout. An `Arc` of the
/// consumer held elsewhere (by [`TopicIds`](crate::topic_id::TopicIds)) delays that until it is dropped too.
pub struct GroupMember {
    // Queues before the consumer, see `ReadQueue`.
    queue: ReadQueue<GroupContext>,
    commits: Commits,
    consumer: Arc<BaseConsumer<GroupContext>>,
    lifeline: Lifeline,
    /// The rebalance that was handed to the caller and not answered yet.
    unanswered: Option<Rebalance>,
}

/// What happened in the group.
#[derive(Debug)]
pub enum GroupEvent {
    /// These partitions are ours to read (possibly none). Answer with [`GroupMember::assign`].
    Assigned(TopicPartitionList),
    /// These partitions are no longer ours. Answer with [`GroupMember::release`], after a commit when they are not lost.
    Revoked {
        /// Which.
        partitions: TopicPartitionList,
        /// They may have an owner already: commits would be refused. Also when a subscribed topic was deleted.
        lost: bool,
    },
    /// A commit ended, see [`GroupMember::commit`].
    Committed(CommitResult),
    /// An error of the consumer that belongs to no partition, or to one that has no records yet (a topic that is unknown
    /// or forbidden).
    Failed(KafkaError),
    /// A record came past the queue, which must not happen: seek the partition to `offset`, or it is lost.
    Stray {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
    },
}

enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// Events that wait for `serve`; more are dropped, oldest first. Rebalances come one at a time (librdkafka waits
/// for the answer), so only results of commits can fill it.
const EVENT_BOUND: usize = 4096;

impl GroupMember {
    /// Makes the consumer; it connects and joins after [`subscribe`](GroupMember::subscribe). `config` comes from
    /// [`ClientSettings::build`](crate::settings::ClientSettings::build) for a source.
    pub fn new(config: &ClientConfig, reporter: Reporter, batch_records: usize) -> KafkaResult<GroupMember> {
        let context = GroupContext { reporter, events: Mutex::default(), closing: AtomicBool::new(false) };
        let consumer: Arc<BaseConsumer<GroupContext>> = Arc::new(config.create_with_context(context)?);
        let queue = ReadQueue::new(Arc::clone(&consumer), batch_records);
        let commits = Commits::new(Arc::clone(&consumer) as Arc<dyn NativeHandle>);
        Ok(GroupMember { queue, commits, consumer, lifeline: Lifeline::default(), unanswered: None })
    }

    /// Joins the group for these topics: names, or regular expressions that begin with `^`.
    pub fn subscribe(&self, topics: &[&str]) -> KafkaResult<()> {
        self.consumer.subscribe(topics)
    }

    /// Leaves the group; [`subscribe`](GroupMember::subscribe) joins it again. What is assigned comes as
    /// [`GroupEvent::Revoked`], to be answered as ever.
    pub fn unsubscribe(&self) {
        self.consumer.unsubscribe();
    }

    /// Commits these offsets (each with its metadata). Returns at once; the result comes as [`GroupEvent::Committed`].
    /// Also right while a rebalance waits for its answer.
    pub fn commit(&mut self, offsets: &TopicPartitionList) -> Result<CommitId, CommitError> {
        self.commits.send(offsets)
    }

    /// Commits and waits for the result, `timeout` at most. Without an answer the commit may still happen later. Results of
    /// earlier commits that arrive meanwhile come out of [`serve`](GroupMember::serve).
    pub fn commit_and_wait(
        &mut self,
        offsets: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<CommitResult, CommitError> {
        let deadline = Instant::now() + timeout;
        let id = self.commits.send(offsets)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.commits.poll(left) {
                Some(result) if result.id == id => return Ok(result),
                Some(earlier) => self.consumer.context().push(GroupEvent::Committed(earlier)),
                None => return Err(CommitError(Code::OperationTimedOut)),
            }
        }
    }

    /// The first offset and the one behind the last record of a partition that is being read, as the last fetch told
    /// them; asks nobody. `None` before the first fetch.
    pub fn cached_watermarks(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        let topic = CString::new(topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the consumer is alive, the name is a C string, and both numbers are written before the call returns.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.consumer.native(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && low >= 0 && high >= 0).then_some((low, high))
    }

    /// The consumer, for what needs no batches: committed offsets, seek, pause, position, watermarks, metadata.
    /// Not for `poll`, `commit`, `assign` and their kin.
    pub fn consumer(&self) -> &Arc<BaseConsumer<GroupContext>> {
        &self.consumer
    }

    /// Serves librdkafka (callbacks, logs, errors) and yields the next event; returns at once. To be called until
    /// `None` in every turn of the loop, also while nothing is read: it is what keeps the membership.
    pub fn serve(&mut self) -> Option<GroupEvent> {
        self.lifeline.look(&*self.consumer);
        self.queue.reattach();
        if let Some(event) = self.next_event() {
            return Some(event);
        }
        if let Some(result) = self.commits.poll(Duration::ZERO) {
            return Some(GroupEvent::Committed(result));
        }
        match self.consumer.poll(Duration::ZERO) {
            Some(Err(error)) => return Some(GroupEvent::Failed(error)),
            Some(Ok(record)) => {
                return Some(GroupEvent::Stray {
                    topic: record.topic().to_owned(),
                    partition: record.partition(),
                    offset: record.offset(),
                });
            }
            None => {}
        }
        self.next_event()
    }

    fn next_event(&mut self) -> Option<GroupEvent> {
        let event = lock(&self.consumer.context().events).pop_front()?;
        match &event {
            GroupEvent::Assigned(partitions) => self.unanswered = Some(Rebalance::Assign(partitions.clone())),
            GroupEvent::Revoked { partitions, .. } => {
                self.unanswered = Some(Rebalance::Revoke(partitions.clone()));
            }
            _ => {}
        }
        Some(event)
    }

    /// Begins to read these partitions, each at the offset set in the list (`Offset::Stored` = where the group committed).
    /// Answers [`GroupEvent::Assigned`]; also used between rebalances to take up again what was released for a rewind.
    pub fn assign(&mut self, partitions: &TopicPartitionList) -> KafkaResult<()> {
        // Before the assignment, or the first records would take the way past the queue.
        for element in partitions.elements() {
            self.queue.attach(element.topic(), element.partition());
        }
        if matches!(self.unanswered, Some(Rebalance::Assign(_))) {
            self.unanswered = None;
        }
        self.consumer.incremental_assign(partitions)
    }

    /// Stops reading these partitions; none of their records is read afterwards. Answers [`GroupEvent::Revoked`].
    pub fn release(&mut self, partitions: &TopicPartitionList) -> KafkaResult<()> {
        if matches!(self.unanswered, Some(Rebalance::Revoke(_))) {
            self.unanswered = None;
        }
        let result = self.consumer.incremental_unassign(partitions);
        for element in partitions.elements() {
            self.queue.detach(element.topic(), element.partition());
        }
        result
    }

    /// Reads what is there, see [`ReadQueue::read`]. Wakes for records only: keep `timeout` short (some 20 ms), so that
    /// group events are served in time.
    pub fn read(&mut self, timeout: Duration) -> Batch<'_> {
        self.queue.read(timeout)
    }
}

impl Drop for GroupMember {
    /// Leaves the group. A rebalance that was not answered would be waited for without end, so it is answered here.
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::SeqCst);
        let mut open: Vec<Rebalance> = self.unanswered.take().into_iter().collect();
        for event in lock(&self.consumer.context().events).drain(..) {
            match event {
                GroupEvent::Assigned(partitions) => open.push(Rebalance::Assign(partitions)),
                GroupEvent::Revoked { partitions, .. } => open.push(Rebalance::Revoke(partitions)),
                _ => {}
            }
        }
        for rebalance in open {
            let result = match &rebalance {
                Rebalance::Assign(partitions) => self.consumer.incremental_assign(partitions),
                Rebalance::Revoke(partitions) => self.consumer.incremental_unassign(partitions),
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a rebalance could not be answered while closing");
            }
        }
    }
}

/// The callbacks of a [`GroupMember`]'s consumer: they only note what happened.
pub struct GroupContext {
    reporter: Reporter,
    events: Mutex<VecDeque<GroupEvent>>,
    /// Nobody will answer any more: rebalances are answered on the spot.
    closing: AtomicBool,
}

impl GroupContext {
    fn push(&self, event: GroupEvent) {
        let mut events = lock(&self.events);
        if events.len() >= EVENT_BOUND {
            let oldest_commit = events.iter().position(|event| matches!(event, GroupEvent::Committed(_)));
            events.remove(oldest_commit.unwrap_or(0));
        }
        events.push_back(event);
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.reporter.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(&error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            let result = if assigned {
                consumer.incremental_assign(partitions)
            } else {
                consumer.incremental_unassign(partitions)
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a rebalance could not be answered while closing");
            }
            return;
        }
        // Copied: the list belongs to librdkafka's event and dies with it.
        let partitions = partitions.clone();
        self.push(if assigned {
            GroupEvent::Assigned(partitions)
        } else {
            GroupEvent::Revoked { partitions, lost: consumer.assignment_lost() }
        });
    }
}

#[cfg(test)]
mod tests;
