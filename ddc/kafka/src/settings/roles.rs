//! What a client is for, and what DDC sets for it where the operator says nothing.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a client is for; each has its own defaults, bounds and protected properties.
#[derive(Clone, Debug)]
pub enum Role {
    /// Reads as a member of a consumer group.
    Source(SourceSettings),
    /// Reads ranges that it is told, as a member of no group, and must know where a partition ends.
    Replay(SourceSettings),
    /// Writes, idempotent, in order.
    Sink(SinkSettings),
    /// Follows one topic of small records from its beginning, committed ones only, as a member of no group.
    Log,
    /// Creates and describes topics.
    Admin,
}

/// Settings of a reading client.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Consumer group.
    pub group: String,
    /// The largest record to be carried, in bytes; sizes librdkafka's receive limit.
    pub max_record_bytes: u64,
    /// Bound of librdkafka's queue of records that were fetched and not yet read, in bytes.
    pub queue_bytes: u64,
}

/// Settings of a writing client.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// The largest record to be written, in bytes of key, value and headers.
    pub max_record_bytes: u64,
    /// Bound of librdkafka's queue of records that are not acknowledged, in bytes. At least twice the largest
    /// record is taken, since a record larger than the queue would wait for ever.
    pub queue_bytes: u64,
    /// How long a batch may wait for more records.
    pub linger: Duration,
    /// Writes in transactions under this id.
    pub transactional_id: Option<String>,
}

impl Role {
    /// What DDC sets where the operator says nothing. The reason stands beside each value.
    pub(super) fn defaults(&self) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        let mut set = |key: &str, value: String| {
            settings.insert(key.to_owned(), value);
        };
        // A broker that vanished without a word is noticed; one that returns is met within 2 s, not 10.
        set("socket.keepalive.enable", "true".into());
        set("reconnect.backoff.max.ms", "2000".into());
        set("socket.connection.setup.timeout.ms", "10000".into());
        // Brokers close idle connections as a matter of course: no log line for that.
        set("log.connection.close", "false".into());
        // Nothing is sent to the cluster that the operator did not ask for (KIP-714 pushes client metrics).
        set("enable.metrics.push", "false".into());
        // Neither end creates a topic by asking for it; the sink creates them on purpose, with a partition count.
        set("allow.auto.create.topics", "false".into());
        match self {
            Role::Source(source) => source.defaults(&mut set),
            Role::Replay(source) => {
                source.defaults(&mut set);
                // The end of a range may hold no record: only the end of the log tells then that all of it was read.
                set("enable.partition.eof", "true".into());
                // At the end of the log a fetch waits for new records so long, and with it whoever begins to read elsewhere:
                // librdkafka has one fetch under way for each broker.
                set("fetch.wait.max.ms", "20".into());
            }
            Role::Sink(sink) => sink.defaults(&mut set),
            Role::Log => log_defaults(&mut set),
            Role::Admin => {}
        }
        settings
    }
}

/// Bytes a fetch response may hold above its records; librdkafka asks for at least 512.
const RESPONSE_OVERHEAD: u64 = 1 << 20;
/// librdkafka's upper limit of `receive.message.max.bytes`.
const RECEIVE_MAX: u64 = i32::MAX as u64;
/// Key, headers (provenance too) and framing that `message.max.bytes` counts besides the record.
const RECORD_OVERHEAD: u64 = 64 << 10;
/// librdkafka's upper limit of `message.max.bytes`.
const MESSAGE_MAX: u64 = 1_000_000_000;

impl SourceSettings {
    fn defaults(&self, set: &mut impl FnMut(&str, String)) {
        // librdkafka wants it also of who only assigns partitions to himself; the group is joined by `subscribe` alone.
        set("group.id", self.group.clone());
        // One commit rule, ours: only what was sent long enough ago is committed (DESIGN §5).
        set("enable.auto.commit", "false".into());
        set("enable.auto.offset.store", "false".into());
        // An offset that is gone must be an error that is reported, never a silent jump.
        set("auto.offset.reset", "error".into());
        set("enable.partition.eof", "false".into());
        set("partition.assignment.strategy", "cooperative-sticky".into());
        // The default of 1000 stalls fetching in steps of a second whenever the queue was full.
        set("fetch.queue.backoff.ms", "1".into());
        set("fetch.error.backoff.ms", "100".into());
        // A dead member's partitions move after 10 s instead of 45.
        set("session.timeout.ms", "10000".into());
        set("heartbeat.interval.ms", "2000".into());
        // New topics of a regex and new partitions are seen within 10 s, not 5 min.
        set("topic.metadata.refresh.interval.ms", "10000".into());
        let queue = self.queue_bytes.max(1 << 20);
        set("queued.max.messages.kbytes", (queue >> 10).clamp(1, 2_097_151).to_string());
        let fetch = queue.min(50 << 20);
        set("fetch.max.bytes", fetch.to_string());
        // A broker returns a record larger than any limit alone; the receive limit must let it in.
        let response = fetch.max(self.max_record_bytes) + RECORD_OVERHEAD + RESPONSE_OVERHEAD;
        set("receive.message.max.bytes", response.clamp(100_000_000, RECEIVE_MAX).to_string());
    }
}

/// Bytes that a [`Role::Log`] fetches at a time, and holds when they were fetched and not read yet.
const LOG_FETCH: u64 = 1 << 20;

fn log_defaults(set: &mut impl FnMut(&str, String)) {
    set("isolation.level", "read_committed".into());
    // A log that is cut must be an error, never a silent jump.
    set("auto.offset.reset", "error".into());
    // What compaction has emptied at the end delivers nothing: only the end of the log tells that it was passed.
    set("enable.partition.eof", "true".into());
    // The end is told by the answer to the next fetch, which waits this long when nothing comes.
    set("fetch.wait.max.ms", "100".into());
    set("fetch.queue.backoff.ms", "1".into());
    set("fetch.error.backoff.ms", "100".into());
    set("queued.max.messages.kbytes", (LOG_FETCH >> 10).to_string());
    set("fetch.max.bytes", LOG_FETCH.to_string());
    set("max.partition.fetch.bytes", LOG_FETCH.to_string());
    set("topic.metadata.refresh.interval.ms", "10000".into());
}

/// After so long the broker ends a transaction that its producer has left open (DESIGN §5).
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

impl SinkSettings {
    fn defaults(&self, set: &mut impl FnMut(&str, String)) {
        // No duplicates and no reordering by the client's own retries.
        set("enable.idempotence", "true".into());
        if let Some(id) = &self.transactional_id {
            set("transactional.id", id.clone());
            // A reader waits at most so long for what a dead egress has left open. librdkafka makes message.timeout.ms the same: a
            // destination that is away ends the transaction, and its records go into the next.
            set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        } else {
            // A destination that is away is waited for; the bound is the queue, not the clock.
            set("message.timeout.ms", "0".into());
        }
        set("linger.ms", self.linger.as_millis().min(900_000).to_string());
        // The hash of the Java client, so that keys meet the partitions the destination's own producers use.
        set("partitioner", "murmur2_random".into());
        let record = (self.max_record_bytes + RECORD_OVERHEAD).clamp(1_000_000, MESSAGE_MAX);
        set("message.max.bytes", record.to_string());
        let queue = self.queue_bytes.max(2 * record);
        set("queue.buffering.max.kbytes", (queue >> 10).clamp(1, i32::MAX as u64).to_string());
        set("queue.buffering.max.messages", "100000".into());
    }
}
