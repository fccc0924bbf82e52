//! The idempotent producer: records with every field as they were, answers by number.
//!
//! One thread owns it: it hands records over ([`Producer::send`]) and fetches the answers
//! ([`Producer::answers`]). These never wait; what to do about an answer is decided in `egress`.
//!
//! Two timestamps cannot be carried as they are, since librdkafka takes 0 for "now": 0 ms (1970 to the
//! millisecond) becomes 1 ms; "none" becomes −1, which is what Kafka itself stores for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddc_kafka::context::Reporter;
use ddc_kafka::errors::code_of;
use ddc_kafka::lifeline::Lifeline;
use ddc_kafka::produce::{Headers, Outgoing, TopicProducer};
use ddc_wire::{Record, Timestamp};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{DeliveryResult, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::headers::headers;
use crate::dead_letters::Clamped;
use crate::dead_letters::Letter;
use crate::dead_letters::letter::SOURCE_TIMESTAMP;

/// What became of a record: its number, and why it came back if it did.
pub type Answer = (usize, Result<(), Code>);

/// Filled by the callbacks, emptied by [`Producer::answers`]; bounded by librdkafka's queue.
type Answers = Arc<Mutex<Vec<Answer>>>;

/// Where a record goes, and where it came from.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// The topic at the destination.
    pub topic: &'a str,
    /// The partition at the destination; `None`: by the key (murmur2, as Java clients do; without a key by chance).
    pub partition: Option<i32>,
    /// The topic at the source.
    pub source_topic: &'a str,
    /// The partition at the source.
    pub source_partition: i32,
    /// Whether the record is marked as late.
    pub late: bool,
    /// Written instead of the record's own timestamp.
    pub clamped: Option<&'a Clamped>,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The queue is full: fetch answers, then try again.
    Full,
    /// librdkafka refuses it at once.
    Refused(Code),
}

/// See the module's text.
pub struct Producer {
    config: ClientConfig,
    reporter: Reporter,
    client: TopicProducer<Delivery>,
    lifeline: Lifeline,
    answers: Answers,
    provenance: bool,
}

impl Producer {
    /// With a configuration built for the role `Sink`. Connects in the background.
    pub fn new(config: ClientConfig, reporter: Reporter, provenance: bool) -> KafkaResult<Self> {
        let (client, answers) = open(&config, &reporter)?;
        Ok(Self { config, reporter, client, lifeline: Lifeline::default(), answers, provenance })
    }

    /// Hands a record over under a number that its answer will carry. Without waiting; what was taken is copied.
    pub fn send(&mut self, record: &Record<'_>, route: Route<'_>, number: usize) -> Result<(), NotTaken> {
        let provenance = self.provenance.then_some((route.source_topic, route.source_partition));
        let original = route.clamped.map(|clamped| (SOURCE_TIMESTAMP, clamped.original.as_str()));
        let millis = route.clamped.map(|clamped| clamped.millis);
        let timestamp = match millis.or_else(|| record.timestamp.map(Timestamp::millis)) {
            None => -1,
            Some(0) => 1,
            Some(millis) => millis,
        };
        self.hand_over(Outgoing {
            topic: route.topic,
            partition: route.partition,
            key: record.key,
            value: record.value,
            timestamp,
            headers: headers(record, provenance, route.late, original),
            number,
        })
    }

    /// Hands over a record of our own: by its key, now, without headers.
    pub fn send_text(&mut self, topic: &str, key: &str, value: &[u8], number: usize) -> Result<(), NotTaken> {
        self.hand_over(Outgoing {
            topic,
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(value),
            timestamp: NOW,
            headers: None,
            number,
        })
    }

    /// Hands over a dead letter: by its key, with its headers, at the time of the refusal.
    pub fn send_letter(&mut self, topic: &str, letter: &Letter, number: usize) -> Result<(), NotTaken> {
        let own = letter.headers();
        let mut headers = Headers::with_capacity(own.len());
        for (name, value) in own {
            headers.push(&name, value.as_deref());
        }
        self.hand_over(Outgoing {
            topic,
            partition: None,
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            timestamp: letter.millis().max(1),
            headers: Some(headers),
            number,
        })
    }

    fn hand_over(&mut self, record: Outgoing<'_>) -> Result<(), NotTaken> {
        self.client.send(record).map_err(|code| match code {
            Code::QueueFull => NotTaken::Full,
            code => NotTaken::Refused(code),
        })
    }

    /// Appends the answers that have come. Does not wait.
    pub fn answers(&self, out: &mut Vec<Answer>) {
        self.lifeline.look(self.client.client());
        // One poll serves one event; an event answers for a whole produce batch.
        for _ in 0..MAX_POLLS {
            self.client.client().poll(Duration::ZERO);
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.is_empty() {
                return;
            }
            if answers.iter().any(|(_, answer)| answer.is_ok()) {
                self.reporter.clear_error();
            }
            out.append(&mut answers);
        }
    }

    /// Waits until an answer comes, `wait` at the most.
    pub fn wait(&self, wait: Duration) {
        self.client.client().poll(wait);
    }

    /// Sends what lingers, and waits until all is answered, `wait` at the most.
    pub fn flush(&self, wait: Duration) {
        self.client.flush(wait);
    }

    /// Registers its `transactional.id`: whoever had it before is fenced, what that one left open is aborted.
    pub fn init_transactions(&self, wait: Duration) -> Result<(), TransactionError> {
        step(self.client.client().init_transactions(wait))
    }

    /// What is handed over from now on belongs to one transaction. Local: asks nobody.
    pub fn begin_transaction(&self) -> Result<(), TransactionError> {
        step(self.client.client().begin_transaction())
    }

    /// Ends the transaction. All answers must have come ([`Self::queued`] is 0), else it waits for nothing.
    pub fn commit_transaction(&self, wait: Duration) -> Result<(), TransactionError> {
        step(self.client.client().commit_transaction(wait))
    }

    /// Takes the transaction back. What was on its way is given up first ([`Self::purge`]), and its answers fetched.
    pub fn abort_transaction(&self, wait: Duration) -> Result<(), TransactionError> {
        step(self.client.client().abort_transaction(wait))
    }

    /// Gives up what is on its way; it is answered as purged.
    pub fn purge(&self) {
        self.client.client().purge(PurgeConfig::default().queue().inflight());
    }

    /// Why this producer can do no more, if so: it must be [rebuilt](Self::rebuild).
    pub fn fatal(&self) -> Option<(Code, String)> {
        self.client.client().client().fatal_error()
    }

    /// Replaces the producer. Answers of the old one no longer come: the caller sends again what was not answered.
    pub fn rebuild(&mut self) -> KafkaResult<()> {
        let (client, answers) = open(&self.config, &self.reporter)?;
        (self.client, self.answers, self.lifeline) = (client, answers, Lifeline::default());
        Ok(())
    }

    /// Asks for a topic's partitions, so that new ones are known before the regular refresh.
    pub fn refresh(&self, topic: &str, timeout: Duration) {
        // The answer goes into librdkafka's cache; a failure shows when a record is sent.
        let _ = self.client.client().client().fetch_metadata(Some(topic), timeout);
    }

    /// The names of all topics of the cluster: a sign that it answers and lets us in.
    pub fn topics(&self, timeout: Duration) -> KafkaResult<Vec<String>> {
        let metadata = self.client.client().client().fetch_metadata(None, timeout)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Records and other events that are with librdkafka.
    pub fn queued(&self) -> usize {
        usize::try_from(self.client.client().in_flight_count()).unwrap_or(0)
    }

    /// Where client errors are kept.
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }
}

/// Why a step of a transaction was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionError {
    /// It may succeed when it is tried again as it is.
    Again(Code, String),
    /// The transaction cannot be committed any more; it must be aborted.
    Abort(Code, String),
    /// This producer can do no more: it was fenced, or whether its transaction is committed is not known.
    Fatal(Code, String),
}

impl TransactionError {
    /// What Kafka or librdkafka says.
    pub fn code(&self) -> Code {
        match self {
            Self::Again(code, _) | Self::Abort(code, _) | Self::Fatal(code, _) => *code,
        }
    }

    /// The same in words.
    pub fn text(&self) -> &str {
        match self {
            Self::Again(_, text) | Self::Abort(_, text) | Self::Fatal(_, text) => text,
        }
    }
}

fn step(result: KafkaResult<()>) -> Result<(), TransactionError> {
    match result {
        Ok(()) => Ok(()),
        Err(KafkaError::Transaction(error)) => {
            let (code, text) = (error.code(), error.string());
            Err(if error.is_fatal() {
                TransactionError::Fatal(code, text)
            } else if error.txn_requires_abort() {
                TransactionError::Abort(code, text)
            } else if error.is_retriable() {
                TransactionError::Again(code, text)
            } else {
                // Not in a state for this step, or not allowed: a new producer finds out which.
                TransactionError::Fatal(code, text)
            })
        }
        // Only a flush ends otherwise: answers are still to come.
        Err(error) => Err(TransactionError::Again(code_of(&error).unwrap_or(Code::Fail), error.to_string())),
    }
}

/// librdkafka takes this timestamp for the moment of the call.
const NOW: i64 = 0;
/// Events served in one go, so that a flood of answers does not keep the thread from handing over.
const MAX_POLLS: usize = 64;

fn open(config: &ClientConfig, reporter: &Reporter) -> KafkaResult<(TopicProducer<Delivery>, Answers)> {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let context = Delivery { reporter: reporter.clone(), answers: Arc::clone(&answers) };
    Ok((TopicProducer::new(config.create_with_context(context)?), answers))
}

/// librdkafka's callbacks; they run on the thread that polls.
struct Delivery {
    reporter: Reporter,
    answers: Answers,
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

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let answer = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(code_of(error).unwrap_or(Code::Fail)),
        };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((number, answer));
    }
}
