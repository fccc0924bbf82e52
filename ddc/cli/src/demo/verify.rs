//! The verifying thread: reads everything at the destination cluster and compares each record with what it must be.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use ddc_kafka::batch::{ReadQueue, Record};
use ddc_kafka::settings::{Role, SourceSettings};
use rdkafka::consumer::{BaseConsumer, Consumer as _, DefaultConsumerContext};
use rdkafka::{Offset, Timestamp, TopicPartitionList};

use super::check::{Arrived, Checker, Header, Tally};
use super::clusters::Cluster;
use super::records::{Plan, TOPICS};
use super::window::Window;

/// How long a stop may go unseen.
const WAIT: Duration = Duration::from_millis(20);
/// Records read at a time.
const BATCH_RECORDS: usize = 2048;

/// What the thread tells.
#[derive(Debug, Default)]
pub(super) struct Verified {
    state: Mutex<State>,
    stop: AtomicBool,
}

/// What was found, and when the last record came.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) tally: Tally,
    pub(super) last: Option<Instant>,
    /// Why the destination can not be read, when that is so.
    pub(super) trouble: Option<String>,
}

impl Verified {
    /// The latest.
    pub(super) fn state(&self) -> State {
        self.lock().clone()
    }

    /// Ends the thread soon.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module's text.
pub(super) struct VerifyThread {
    consumer: Arc<BaseConsumer<DefaultConsumerContext>>,
    queue: ReadQueue<DefaultConsumerContext>,
    topics: Vec<String>,
    plan: Plan,
    checker: Checker,
    window: Arc<Window>,
    shared: Arc<Verified>,
}

impl VerifyThread {
    /// Reads `destination` from the beginning; `source_topics` are what provenance must name.
    pub(super) fn new(
        destination: &Cluster,
        source_topics: &[String],
        plan: Plan,
        window: Arc<Window>,
        shared: Arc<Verified>,
    ) -> anyhow::Result<Self> {
        let role = Role::Source(SourceSettings {
            group: "ddc-demo-verifier".into(),
            max_record_bytes: 2 << 20,
            queue_bytes: 32 << 20,
        });
        let mut config = destination.settings().build(&role)?;
        if destination.is_mock() {
            config.set("fetch.wait.max.ms", super::link::MOCK_FETCH_WAIT_MS.to_string());
        }
        let consumer: Arc<BaseConsumer> = Arc::new(config.create().context("the demo's verifying consumer")?);
        let mut queue = ReadQueue::new(Arc::clone(&consumer), BATCH_RECORDS);
        let mut assignment = TopicPartitionList::new();
        for (topic, (_, partitions)) in destination.topics().iter().zip(TOPICS) {
            for partition in 0..partitions as i32 {
                queue.attach(topic, partition);
                assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        // A consumer that only assigns partitions joins no group and commits nothing.
        consumer.assign(&assignment).context("the demo's verifying consumer")?;
        let checker = Checker::new(plan.clone(), source_topics.to_vec());
        Ok(Self { consumer, queue, topics: destination.topics().to_vec(), plan, checker, window, shared })
    }

    /// Reads until told to stop; returns what was found, and the first differences as sentences.
    pub(super) fn run(mut self) -> (Tally, Vec<String>) {
        while !self.shared.stop.load(Relaxed) {
            self.serve();
            self.read();
        }
        (self.checker.tally(), self.checker.examples().to_vec())
    }

    /// Client errors.
    fn serve(&mut self) {
        self.queue.reattach();
        if let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
            tracing::debug!(%error, "the verifying consumer");
        }
    }

    fn read(&mut self) {
        let batch = self.queue.read(WAIT);
        if batch.is_empty() {
            return;
        }
        let mut trouble = None;
        let mut touched = vec![false; self.plan.slots().len()];
        for record in batch.iter() {
            match record {
                Err(error) => trouble = Some(error.to_string()),
                Ok(record) => {
                    let topic = self.topics.iter().position(|topic| topic == record.topic());
                    let Some(slot) = topic.and_then(|topic| self.plan.slot_of(topic, record.partition()))
                    else {
                        // Only what was assigned is read, and that is the plan's.
                        continue;
                    };
                    self.checker.take(slot, &arrived(record));
                    touched[slot] = true;
                }
            }
        }
        drop(batch);
        for slot in (0..touched.len()).filter(|slot| touched[*slot]) {
            self.window.settle(slot, self.checker.settled(slot));
        }
        let mut state = self.shared.lock();
        if trouble.is_some() {
            state.trouble = trouble;
        }
        if touched.contains(&true) {
            state.tally = self.checker.tally();
            state.last = Some(Instant::now());
        }
    }
}

fn arrived(record: Record<'_>) -> Arrived<'_, impl ExactSizeIterator<Item = Header<'_>> + Clone> {
    Arrived {
        key: record.key(),
        value: record.value(),
        timestamp: match record.timestamp() {
            Timestamp::CreateTime(millis) => Some(millis),
            Timestamp::LogAppendTime(_) | Timestamp::NotAvailable => None,
        },
        headers: record.headers().map(|header| (header.name, header.value)),
    }
}
