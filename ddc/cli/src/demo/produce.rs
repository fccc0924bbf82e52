//! The producing thread: makes the plan's records and writes them to the source cluster.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use ddc_kafka::context::Reporter;
use ddc_kafka::errors::code_of;
use ddc_kafka::settings::{Role, SinkSettings};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::clusters::Cluster;
use super::records::{LARGEST_VALUE, Plan, Sample};
use super::window::Window;

/// Waits for room in the window or in librdkafka's queue.
const PAUSE: Duration = Duration::from_millis(1);
/// Records between two looks at the answers.
const POLL_EVERY: u64 = 256;

/// What the thread tells.
#[derive(Debug, Default)]
pub(super) struct Produced {
    /// Records that the source cluster acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// The first thing that went wrong.
    failure: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Produced {
    /// Ends the thread soon.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn fail(&self, text: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    }

    fn check(&self) -> anyhow::Result<()> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(text) => Err(anyhow!("producing to the source cluster: {text}")),
            None => Ok(()),
        }
    }
}

/// See the module's text.
pub(super) struct ProduceThread {
    producer: BaseProducer<Delivery>,
    topics: Vec<String>,
    plan: Plan,
    window: Arc<Window>,
    shared: Arc<Produced>,
}

impl ProduceThread {
    pub(super) fn new(
        cluster: &Cluster,
        plan: Plan,
        window: Arc<Window>,
        shared: Arc<Produced>,
    ) -> anyhow::Result<Self> {
        let role = Role::Sink(SinkSettings {
            max_record_bytes: u64::from(LARGEST_VALUE) + 1024,
            queue_bytes: 64 << 20,
            linger: Duration::from_millis(20),
            transactional_id: None,
        });
        let mut config = cluster.settings().build(&role)?;
        // A batch is taken or thrown away whole by an embedded cluster, so it stays well below what that keeps.
        config.set("batch.size", "524288");
        let delivery = Delivery { reporter: Reporter::new("demo", "producer"), shared: Arc::clone(&shared) };
        let producer = config.create_with_context(delivery).context("the demo's producer")?;
        Ok(Self { producer, topics: cluster.topics().to_vec(), plan, window, shared })
    }

    /// Produces everything, and waits until all is acknowledged or a stop is asked for.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut sample = Sample::default();
        let started = Instant::now();
        self.plan.begin((ddc_udp::clock::wall_clock_micros() / 1000) as i64);
        for index in 0..self.plan.records() {
            let (slot, sequence) = self.plan.place(index);
            let weight = self.plan.weight(slot, sequence);
            while started.elapsed() < self.plan.due(index) {
                if !self.pause()? {
                    return Ok(());
                }
            }
            while !self.window.take(slot, weight) {
                if !self.pause()? {
                    return Ok(());
                }
            }
            self.plan.fill(slot, sequence, &mut sample);
            if !self.send(slot, sequence, &sample)? {
                return Ok(());
            }
            if index % POLL_EVERY == 0 {
                self.producer.poll(Duration::ZERO);
                self.shared.check()?;
            }
        }
        while self.producer.in_flight_count() > 0 {
            if !self.pause()? {
                return Ok(());
            }
        }
        self.shared.check()
    }

    /// `false`: a stop was asked for.
    fn pause(&self) -> anyhow::Result<bool> {
        self.producer.poll(PAUSE);
        self.shared.check()?;
        Ok(!self.shared.stop.load(Relaxed))
    }

    fn send(&self, slot: usize, sequence: u64, sample: &Sample) -> anyhow::Result<bool> {
        let place = self.plan.slots()[slot];
        loop {
            let mut record: BaseRecord<'_, [u8], [u8], usize> =
                BaseRecord::with_opaque_to(&self.topics[place.topic], sequence as usize);
            record.partition = Some(place.partition as i32);
            record.key = sample.key();
            record.payload = sample.value();
            record.timestamp = Some(sample.timestamp);
            record.headers = headers(sample);
            match self.producer.send(record) {
                Ok(()) => return Ok(true),
                Err((error, _)) if code_of(&error) == Some(Code::QueueFull) => {
                    if !self.pause()? {
                        return Ok(false);
                    }
                }
                Err((error, _)) => bail!("producing to the source cluster: {error}"),
            }
        }
    }
}

fn headers(sample: &Sample) -> Option<OwnedHeaders> {
    let headers = sample.headers();
    if headers.len() == 0 {
        return None;
    }
    let room = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.fold(room, |all, (key, value)| all.insert(Header { key, value })))
}

/// Answers of the source cluster; they come on the thread that polls.
struct Delivery {
    reporter: Reporter,
    shared: Arc<Produced>,
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.reporter.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(&error, reason);
    }
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: usize) {
        match result {
            // The verifier knows a record by its offset: the topic must be new and ours alone.
            Ok(message) if message.offset() != sequence as i64 => {
                self.shared.fail(format!(
                    "record {sequence} of {}[{}] got offset {}: somebody else writes to the topic",
                    message.topic(),
                    message.partition(),
                    message.offset()
                ));
            }
            Ok(_) => {
                self.shared.acknowledged.fetch_add(1, Relaxed);
            }
            Err((error, _)) => self.shared.fail(error.to_string()),
        }
    }
}
