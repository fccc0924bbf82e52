//! Commits whose ends are heard of.
//!
//! rdkafka 0.39 never reports the end of an asynchronous commit (it asks librdkafka for events, which makes them only for
//! a callback it does not set), and its synchronous commit waits without a bound. Here a commit is sent with a
//! number, and its result, partition by partition, arrives on a queue of its own.

use std::ffi::{CStr, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::errors::{Verdict, classify_code};
use crate::native::{Event, NativeHandle, OwnedQueue};

/// The number of a commit, unique within its consumer; rises by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(usize);

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitResult {
    /// Which commit.
    pub id: CommitId,
    /// What went wrong as a whole, if something did.
    pub error: Option<CommitError>,
    /// Each partition of it.
    pub partitions: Vec<CommittedPartition>,
}

/// One partition of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedPartition {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The offset that was to be committed: the next to be read.
    pub offset: i64,
    /// Whether the group has it now.
    pub result: Result<(), CommitError>,
}

/// A commit that was refused or got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the group's offsets were not committed: {0}; {advice}", advice = self.verdict().advice)]
pub struct CommitError(pub Code);

impl CommitError {
    /// What it means.
    pub fn verdict(&self) -> Verdict {
        classify_code(self.0)
    }
}

impl CommitResult {
    /// Whether the group has every offset of it now.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && self.partitions.iter().all(|partition| partition.result.is_ok())
    }
}

/// The commits of one consumer that are under way.
pub(crate) struct Commits {
    // Before the client: a queue must go first.
    queue: OwnedQueue,
    client: Arc<dyn NativeHandle>,
    last: usize,
}

impl Commits {
    pub(crate) fn new(client: Arc<dyn NativeHandle>) -> Commits {
        Commits { queue: OwnedQueue::new(&*client), client, last: 0 }
    }

    /// Sends a commit; its result comes out of `poll`.
    pub(crate) fn send(&mut self, offsets: &TopicPartitionList) -> Result<CommitId, CommitError> {
        self.last += 1;
        // SAFETY: client, list and queue are alive; librdkafka copies the list and takes its own reference to the queue. The
        // opaque value is a number that is never dereferenced. Without a callback the result becomes an event.
        let code = unsafe {
            sys::rd_kafka_commit_queue(
                self.client.native(),
                offsets.ptr(),
                self.queue.ptr(),
                None,
                self.last as *mut c_void,
            )
        };
        match code {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(CommitId(self.last)),
            code => Err(CommitError(code.into())),
        }
    }

    /// The next result, if one comes within `timeout`.
    pub(crate) fn poll(&mut self, timeout: Duration) -> Option<CommitResult> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = Event::next(&self.queue, left)?;
            if let Some(result) = result_of(&event) {
                return Some(result);
            }
        }
    }
}

fn result_of(event: &Event) -> Option<CommitResult> {
    // SAFETY: the event is alive, and so is its list, which is copied out; elems holds cnt elements.
    unsafe {
        if sys::rd_kafka_event_type(event.ptr()) != sys::RD_KAFKA_EVENT_OFFSET_COMMIT {
            return None;
        }
        let list = sys::rd_kafka_event_topic_partition_list(event.ptr());
        let partitions = if list.is_null() {
            Vec::new()
        } else {
            (0..(*list).cnt.max(0) as usize).map(|index| partition_of(&*(*list).elems.add(index))).collect()
        };
        let error = event.error().map(CommitError);
        Some(CommitResult { id: CommitId(event.opaque()), error, partitions })
    }
}

/// # Safety
/// `element` is an element of a list that is alive.
unsafe fn partition_of(element: &sys::rd_kafka_topic_partition_t) -> CommittedPartition {
    // SAFETY: the topic of an element is a C string (the caller's promise).
    let topic = unsafe { CStr::from_ptr(element.topic) }.to_string_lossy().into_owned();
    let result = match element.err {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(CommitError(code.into())),
    };
    CommittedPartition { topic, partition: element.partition, offset: element.offset, result }
}
