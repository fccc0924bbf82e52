//! Records read many at a time, borrowed where librdkafka holds them.
//!
//! `BaseConsumer::poll` makes an event and an allocation per record; reading a queue in batches costs a third to a half
//! of that CPU. librdkafka's own batch call on the consumer queue serves no group events, so the partitions'
//! records are led into a queue of ours:
//!
//! ```text
//!  partition 0 ─┐
//!  partition 1 ─┼─▶ ReadQueue ── read ──▶ Batch of Record<'_>      (freed when the batch is dropped)
//!  partition 2 ─┘
//!  group events ──▶ consumer queue ── BaseConsumer::poll ──▶ rebalances, commits, errors
//! ```
//!
//! One queue for all partitions keeps librdkafka's bound on fetched records (`queued.max.messages.kbytes`) a bound
//! for the whole consumer, as without batches; a queue per partition would multiply it.
//!
//! What was fetched for a partition before it was taken away, paused or sought is never delivered afterwards:
//! librdkafka gives each record a version and drops old ones when they are read. Transaction markers and aborted
//! records are skipped by librdkafka. Errors of a partition come as items, in their place.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Timestamp;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaHeaders, RDKafkaMessage};

use crate::errors::{Verdict, classify_code};
use crate::native::{OwnedQueue, sealed::Native};

/// The queue that the records of attached partitions arrive in.
pub struct ReadQueue<C: ConsumerContext + 'static> {
    /// Owned messages: the first `filled` slots. The length is the most records of one batch.
    slots: Vec<*mut RDKafkaMessage>,
    filled: usize,
    /// What is filled was kept by [`Batch::keep`]: the next read gives it once more.
    kept: bool,
    // Queues before the consumer, fields are dropped in this order.
    attached: HashMap<(String, i32), OwnedQueue>,
    queue: OwnedQueue,
    consumer: Arc<BaseConsumer<C>>,
    last_reattach: Instant,
}

// SAFETY: the messages in `slots` are owned by this value alone, and librdkafka lets any thread read and free them.
unsafe impl<C: ConsumerContext> Send for ReadQueue<C> {}

/// How often the forwarding of attached partitions is renewed, see [`ReadQueue::reattach`].
const REATTACH_EVERY: Duration = Duration::from_millis(100);

impl<C: ConsumerContext + 'static> ReadQueue<C> {
    /// An empty queue that reads at most `batch_records` (1 … 65,536) at a time.
    pub fn new(consumer: Arc<BaseConsumer<C>>, batch_records: usize) -> ReadQueue<C> {
        ReadQueue {
            slots: vec![ptr::null_mut(); batch_records.clamp(1, 65_536)],
            filled: 0,
            kept: false,
            attached: HashMap::new(),
            queue: OwnedQueue::new(&*consumer),
            consumer,
            last_reattach: Instant::now(),
        }
    }

    /// Leads a partition's records here instead of into `BaseConsumer::poll`. To be called before each assignment of
    /// the partition, also after it was taken away and given back. `false`: no such partition name can exist.
    pub fn attach(&mut self, topic: &str, partition: i32) -> bool {
        let Ok(c_topic) = CString::new(topic) else { return false };
        // SAFETY: consumer and topic are valid during the call; the reference returned is ours.
        let queue = unsafe {
            OwnedQueue::from_ptr(sys::rd_kafka_queue_get_partition(
                self.consumer.native(),
                c_topic.as_ptr(),
                partition,
            ))
        };
        let Some(queue) = queue else { return false };
        forward(&queue, &self.queue);
        self.attached.insert((topic.to_owned(), partition), queue);
        true
    }

    /// Forgets a partition that was taken away, and what was kept of it. librdkafka stops its forwarding by itself.
    pub fn detach(&mut self, topic: &str, partition: i32) {
        self.forget_kept(topic, partition);
        self.attached.remove(&(topic.to_owned(), partition));
    }

    /// Renews the forwarding of every attached partition, at most each 100 ms; to be called in the read loop.
    ///
    /// librdkafka clears the forwarding when it stops a partition, which it does in its own thread some time after
    /// it was told to. When a partition is given up and taken again without a rebalance in between (a rewind), that
    /// may happen after [`attach`](ReadQueue::attach), and records would wait in the partition's own queue. Renewing moves them here, in order.
    pub fn reattach(&mut self) {
        if self.last_reattach.elapsed() < REATTACH_EVERY {
            return;
        }
        self.last_reattach = Instant::now();
        for queue in self.attached.values() {
            forward(queue, &self.queue);
        }
    }

    /// Number of attached partitions.
    pub fn attached(&self) -> usize {
        self.attached.len()
    }

    /// Takes what is there, up to the batch size; when nothing is, waits until the first record comes, `timeout` at
    /// most, and takes what came with it. An empty batch means nothing came.
    /// What the last batch [kept](Batch::keep) comes first, and alone.
    pub fn read(&mut self, timeout: Duration) -> Batch<'_> {
        if !std::mem::take(&mut self.kept) {
            self.free();
            self.fill(self.slots.len(), Duration::ZERO);
            if self.filled == 0 && !timeout.is_zero() {
                // librdkafka waits until it has all it was asked for: so it is asked for one.
                self.fill(1, timeout);
                if self.filled == 1 {
                    self.fill(self.slots.len() - 1, Duration::ZERO);
                }
            }
        }
        Batch { slots: &mut self.slots, filled: &mut self.filled, kept: &mut self.kept }
    }

    /// What was kept of a partition is from before it was taken away: it must not be read any more.
    fn forget_kept(&mut self, topic: &str, partition: i32) {
        let mut left = 0;
        for index in 0..self.filled {
            let message = self.slots[index];
            // SAFETY: the first `filled` slots hold valid messages.
            let of = unsafe { &*message };
            if of.partition == partition && topic_of(of) == topic {
                // SAFETY: the message is ours, and leaves the filled slots here, so it is freed once.
                unsafe { sys::rd_kafka_message_destroy(message) };
            } else {
                self.slots[left] = message;
                left += 1;
            }
        }
        self.slots[left..self.filled].fill(ptr::null_mut());
        self.filled = left;
    }

    fn fill(&mut self, most: usize, timeout: Duration) {
        let room = &mut self.slots[self.filled..];
        let most = most.min(room.len());
        let timeout = timeout.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: queue and consumer are alive; `room` holds at least `most` pointers, and librdkafka writes at most
        // as many, each a message that is ours from then on.
        let read =
            unsafe { sys::rd_kafka_consume_batch_queue(self.queue.ptr(), timeout, room.as_mut_ptr(), most) };
        self.filled += usize::try_from(read).unwrap_or(0);
    }

    fn free(&mut self) {
        free(&mut self.slots, &mut self.filled);
    }
}

impl<C: ConsumerContext> Drop for ReadQueue<C> {
    fn drop(&mut self) {
        // Only a batch that was leaked leaves any.
        self.free();
    }
}

fn forward(from: &OwnedQueue, to: &OwnedQueue) {
    // SAFETY: both queues are alive; librdkafka takes its own reference to `to`.
    unsafe { sys::rd_kafka_queue_forward(from.ptr(), to.ptr()) }
}

fn free(slots: &mut [*mut RDKafkaMessage], filled: &mut usize) {
    for slot in &mut slots[..std::mem::take(filled)] {
        // SAFETY: a filled slot owns its message; it is emptied here, so freed once.
        unsafe { sys::rd_kafka_message_destroy(std::mem::replace(slot, ptr::null_mut())) }
    }
}

/// The records of one read. They live until it is dropped.
pub struct Batch<'q> {
    slots: &'q mut Vec<*mut RDKafkaMessage>,
    filled: &'q mut usize,
    kept: &'q mut bool,
}

impl Batch<'_> {
    /// Ends the batch, but keeps everything from item `from` on for the next read: there is no room for it now. What
    /// is kept of a partition goes when the partition is taken away.
    pub fn keep(self, from: usize) {
        let first = from.min(*self.filled);
        free(&mut self.slots[..first], &mut { first });
        self.slots[..*self.filled].rotate_left(first);
        *self.filled -= first;
        *self.kept = *self.filled > 0;
    }

    /// Records and errors in it.
    pub fn len(&self) -> usize {
        *self.filled
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        *self.filled == 0
    }

    /// Records in the order of each partition; an error of a partition stands in its place.
    pub fn iter(&self) -> impl Iterator<Item = Result<Record<'_>, ReadError>> {
        self.slots[..*self.filled].iter().map(|message| {
            // SAFETY: filled slots hold valid messages that live as long as this batch, hence as `&self`.
            Record::of(unsafe { &**message })
        })
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !*self.kept {
            free(self.slots, self.filled);
        }
    }
}

/// One record, where librdkafka holds it.
#[derive(Clone, Copy)]
pub struct Record<'b> {
    message: &'b RDKafkaMessage,
}

impl<'b> Record<'b> {
    pub(crate) fn of(message: &'b RDKafkaMessage) -> Result<Record<'b>, ReadError> {
        if message.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(Record { message });
        }
        // SAFETY: the text lives as long as the message (or is static) and is copied.
        let text = unsafe { CStr::from_ptr(sys::rd_kafka_message_errstr(message)) };
        Err(ReadError {
            topic: topic_of(message).to_owned(),
            partition: message.partition,
            offset: message.offset,
            code: message.err.into(),
            text: text.to_string_lossy().into_owned(),
        })
    }

    /// The topic's name.
    pub fn topic(&self) -> &'b str {
        topic_of(self.message)
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.message.partition
    }

    /// The record's offset.
    pub fn offset(&self) -> i64 {
        self.message.offset
    }

    /// The key; `None` is null, which differs from empty.
    pub fn key(&self) -> Option<&'b [u8]> {
        // SAFETY: librdkafka holds key_len bytes there as long as the message lives, or null.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    /// The value; `None` is null (a tombstone), which differs from empty.
    pub fn value(&self) -> Option<&'b [u8]> {
        // SAFETY: librdkafka holds len bytes there as long as the message lives, or null.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    /// The timestamp in ms since the epoch, and who set it.
    pub fn timestamp(&self) -> Timestamp {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid; the kind is written before the call returns.
        let value = unsafe { sys::rd_kafka_message_timestamp(self.message, &raw mut kind) };
        match kind {
            _ if value == -1 => Timestamp::NotAvailable,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => Timestamp::NotAvailable,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => Timestamp::CreateTime(value),
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
                Timestamp::LogAppendTime(value)
            }
        }
    }

    /// The headers in order, duplicates included. The first call parses them.
    pub fn headers(&self) -> Headers<'b> {
        let mut headers: *mut RDKafkaHeaders = ptr::null_mut();
        // SAFETY: the message is valid and we are the only ones that read it (parsing is done on first use: a `Record` is
        // neither Send nor Sync). The headers belong to the message.
        let code = unsafe { sys::rd_kafka_message_headers(self.message, &raw mut headers) };
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            headers = ptr::null_mut();
        }
        // SAFETY: the headers are valid (not null) as long as the message.
        let count = if headers.is_null() { 0 } else { unsafe { sys::rd_kafka_header_cnt(headers) } };
        Headers { native: headers, index: 0, count, message: PhantomData }
    }
}

/// Iterates over the headers of a record.
#[derive(Clone)]
pub struct Headers<'b> {
    native: *mut RDKafkaHeaders,
    index: usize,
    count: usize,
    message: PhantomData<&'b RDKafkaMessage>,
}

/// One header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'b> {
    /// UTF-8 by Kafka's convention, which nobody enforces. librdkafka ends it at the first zero byte.
    pub name: &'b [u8],
    /// `None` is null, which differs from empty.
    pub value: Option<&'b [u8]>,
}

impl<'b> Iterator for Headers<'b> {
    type Item = Header<'b>;

    fn next(&mut self) -> Option<Header<'b>> {
        if self.index >= self.count {
            return None;
        }
        let mut name = ptr::null();
        let mut value = ptr::null();
        let mut size = 0;
        // SAFETY: index < count; name (a C string) and value (size bytes or null) live as long as the message.
        let header = unsafe {
            let code = sys::rd_kafka_header_get_all(
                self.native,
                self.index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            );
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            Header { name: CStr::from_ptr(name).to_bytes(), value: bytes(value, size) }
        };
        self.index += 1;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count - self.index, Some(self.count - self.index))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// An error of one partition, as it came between its records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic}[{partition}] at offset {offset}: {text} ({code:?})")]
pub struct ReadError {
    /// Topic, empty when librdkafka names none.
    pub topic: String,
    /// Partition, −1 when librdkafka names none.
    pub partition: i32,
    /// The offset concerned; negative when none is.
    pub offset: i64,
    /// The code.
    pub code: Code,
    /// librdkafka's words.
    pub text: String,
}

impl ReadError {
    /// What it means.
    pub fn verdict(&self) -> Verdict {
        classify_code(self.code)
    }
}

fn topic_of(message: &RDKafkaMessage) -> &str {
    if message.rkt.is_null() {
        return "";
    }
    // SAFETY: the message holds a reference to its topic, whose name is a C string that never changes.
    let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)) };
    // Kafka allows ASCII letters, digits, '.', '_' and '-' in names only.
    name.to_str().unwrap_or("")
}

/// # Safety
/// `start` is null, or `length` bytes are readable there for as long as `'b`.
unsafe fn bytes<'b>(start: *const std::ffi::c_void, length: usize) -> Option<&'b [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast(), length) })
}
