//! The ingress's dead letters: records that were read and that the wire cannot carry.
//!
//! ```text
//!  refused by the packer ─▶ letter ─┬─ directory: appended, fsynced before the next commit
//!                                   └─ topic: waits here, one on its way at a time ─▶ acknowledged
//!  commits: an offset above a letter that is not safe is not committed ([`Letters::holds`], [`Letters::sync`])
//! ```
//!
//! One letter is on its way at a time, since a broker judges all of a produce request: so what is refused is refused for
//! itself. What waits is bounded by [`MAX_WAITING`] and [`QUEUE`]; beyond that reading waits. A letter whose partition is
//! read again (a restart, a takeover) is written again: `sourceTopicId`, `sourcePartition` and `sourceOffset` say which are one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_kafka::batch::Record;
use ddc_kafka::context::Reporter;
use ddc_kafka::errors::classify_code;
use ddc_link::sender::{PackError, Slot};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::exposition::LinkMetrics;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::reasons::{DeadLetterFailure, DeadLetterReason, SkipReason};
use ddc_wire::{RecordHeader, TopicId};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::kafka::time_of;
use crate::config::{DeadLetters as Settings, IngressConfig, KafkaSource, OnFailure, Side};
use crate::dead_letters::letter::Source;
use crate::dead_letters::{BACK_OFF, DeadLetters, Letter, Next, Refusal, failure_of, failure_of_store};
use crate::gaps::Timestamp;
use crate::sink::kafka::{NotTaken, Producer};

/// Letters that may wait for the topic.
const MAX_WAITING: usize = 1000;
/// And their bytes: one more is taken while there are fewer.
const QUEUE: usize = 16 << 20;
/// How long a topic may be unknown before librdkafka says so.
const UNKNOWN_AFTER: &str = "5000";
/// How often the directory is measured for the metric.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// One kind of trouble is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// See the module's text.
pub(super) struct Letters {
    link: Arc<str>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    kept: Option<Kept>,
    /// Until then nothing is read: the last letter found no place.
    stuck_until: Option<Instant>,
    trouble: Option<String>,
    limit: RateLimit<&'static str>,
    measured_at: Option<Instant>,
}

struct Kept {
    letters: DeadLetters,
    /// When letters go to a topic.
    topic: Option<Topic>,
}

struct Topic {
    name: String,
    producer: Producer,
    /// Oldest first; the first one is the one on its way, when any is.
    waiting: VecDeque<Waiting>,
    bytes: usize,
    on_its_way: bool,
    /// Of the last one handed over: answers of former ones do not count.
    number: usize,
    next_try: Option<Instant>,
}

struct Waiting {
    slot: Slot,
    letter: Letter,
    skip: SkipReason,
    attempts: u32,
}

/// What became of a refused record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is a letter, or it is stepped over by name: go on behind it.
    Done,
    /// Give it again later; read nothing until then.
    Later,
}

/// What is refused, and where it was read.
pub(super) struct Refused<'a> {
    pub(super) slot: Slot,
    pub(super) topic_id: TopicId,
    pub(super) record: Record<'a>,
    pub(super) error: &'a PackError,
}

impl Letters {
    /// Opens the directory, or makes the producer, which connects when there is a letter.
    pub(super) fn open(
        config: &IngressConfig,
        source: &KafkaSource,
        metrics: Arc<LinkMetrics<IngressMetrics>>,
    ) -> anyhow::Result<Self> {
        let link: Arc<str> = config.link.name.as_str().into();
        let kept = match &config.dead_letters {
            Some(settings) => Some(Kept {
                letters: DeadLetters::open(settings, &config.link.name, Side::Ingress)?,
                topic: Topic::open(settings, source, &link)?,
            }),
            None => None,
        };
        Ok(Self {
            link,
            metrics,
            kept,
            stuck_until: None,
            trouble: None,
            limit: RateLimit::new(LOG_EVERY),
            measured_at: None,
        })
    }

    /// Takes a record that the packer refuses for ever.
    pub(super) fn take(&mut self, refused: &Refused<'_>, now: Instant) -> Taken {
        let (reason, skip) = match refused.error {
            PackError::TooLarge { .. } => (DeadLetterReason::TooLarge, SkipReason::TooLarge),
            _ => (DeadLetterReason::NotEncodable, SkipReason::NotEncodable),
        };
        let Refused { slot, topic_id, record, error } = refused;
        let Some(kept) = &mut self.kept else {
            self.step_over((record.topic(), record.partition(), record.offset()), skip, &error.to_string());
            return Taken::Done;
        };
        if let Some(topic) = &mut kept.topic {
            // Before the letter is made: it may be large.
            if topic.waiting.len() >= MAX_WAITING || topic.bytes >= QUEUE {
                return Taken::Later;
            }
            let letter = letter(&kept.letters, *record, *topic_id, reason, error);
            topic.bytes += letter.payload_bytes();
            topic.waiting.push_back(Waiting { slot: *slot, letter, skip, attempts: 0 });
            self.serve(now);
            return Taken::Done;
        }
        let letter = letter(&kept.letters, *record, *topic_id, reason, error);
        let failed = match kept.letters.append(&letter) {
            Ok(()) => {
                self.trouble = None;
                self.kept(&letter);
                return Taken::Done;
            }
            Err(failed) => failed,
        };
        let wait = kept.letters.on_failure() == OnFailure::Wait;
        self.failed(failure_of_store(&failed), &failed.to_string(), now);
        if wait {
            self.stuck_until = Some(now + BACK_OFF);
            return Taken::Later;
        }
        self.give_up(&letter, skip);
        Taken::Done
    }

    /// Whether nothing can be read now: a letter found no place, and somebody wants to wait.
    pub(super) fn is_stuck(&mut self, now: Instant) -> bool {
        self.stuck_until.take_if(|until| now >= *until);
        let full = |topic: &Topic| topic.waiting.len() >= MAX_WAITING || topic.bytes >= QUEUE;
        self.stuck_until.is_some()
            || self.kept.as_ref().and_then(|kept| kept.topic.as_ref()).is_some_and(full)
    }

    /// Whether letters wait for the topic: it is to be served soon.
    pub(super) fn is_busy(&self) -> bool {
        self.kept.as_ref().and_then(|kept| kept.topic.as_ref()).is_some_and(|topic| !topic.waiting.is_empty())
    }

    /// Whether committing `end` of a slot would pass a letter that is not safe yet.
    pub(super) fn holds(&self, slot: Slot, end: i64) -> bool {
        let Some(topic) = self.kept.as_ref().and_then(|kept| kept.topic.as_ref()) else { return false };
        topic.waiting.iter().any(|waiting| waiting.slot == slot && waiting.letter.source.offset < end)
    }

    /// What was written to the directory is on disk when this is true; nothing may be committed when it is not.
    #[must_use]
    pub(super) fn sync(&mut self, now: Instant) -> bool {
        let Some(kept) = &mut self.kept else { return true };
        match kept.letters.sync() {
            Ok(()) => true,
            Err(error) => {
                self.failed(DeadLetterFailure::Disk, &error.to_string(), now);
                false
            }
        }
    }

    /// Gives letters to the topic and takes its answers; to be called often. Never waits.
    pub(super) fn serve(&mut self, now: Instant) {
        self.measure(now);
        // Each turn settles a letter, makes it smaller, or ends: it ends.
        loop {
            let Some(Kept { letters, topic: Some(topic) }) = &mut self.kept else { return };
            let Some((mut waiting, answer)) = topic.next_answer(now) else { return };
            let Err(code) = answer else {
                self.trouble = None;
                self.kept(&waiting.letter);
                continue;
            };
            waiting.attempts += 1;
            match letters.after(&waiting.letter, code, waiting.attempts) {
                Next::Again => {
                    topic.put_back(waiting, Some(now + BACK_OFF));
                    self.failed(failure_of(code), &text(code), now);
                }
                Next::Instead(letter) => {
                    let source = &letter.source;
                    tracing::warn!(
                        link = &*self.link, topic = source.topic, partition = source.partition, offset = source.offset,
                        dead_letter_topic = topic.name, error = %code,
                        "the topic for dead letters does not take a letter; it is given without its payload"
                    );
                    waiting.letter = *letter;
                    topic.put_back(waiting, None);
                }
                Next::Gap => {
                    self.failed(failure_of(code), &text(code), now);
                    self.give_up(&waiting.letter, waiting.skip);
                }
            }
        }
    }

    /// Waits until no letter of these slots is unsafe, or the time is over: for the last commit.
    pub(super) fn settle(&mut self, slots: &[Slot], bound: Duration) {
        let until = Instant::now() + bound;
        while slots.iter().any(|slot| self.holds(*slot, i64::MAX)) && Instant::now() < until {
            self.serve(Instant::now());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What is wrong, for `/readyz`.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// For the log and the metric; the promise "every one counted and logged", so without a rate limit.
    fn kept(&self, letter: &Letter) {
        self.metrics.dead_letters.inc(letter.reason);
        let source = &letter.source;
        tracing::warn!(
            link = &*self.link,
            topic = source.topic,
            partition = source.partition,
            offset = source.offset,
            reason = letter.reason.as_str(),
            error = letter.error,
            without_payload = letter.left_out.is_any(),
            "a record was not sent and is kept as a dead letter"
        );
    }

    fn failed(&mut self, failure: DeadLetterFailure, error: &str, now: Instant) {
        self.metrics.dead_letter_errors.inc(failure);
        self.trouble = Some(format!("dead letters cannot be kept: {error}"));
        if let Some(suppressed) = self.limit.allow(failure.as_str(), now) {
            tracing::error!(
                link = &*self.link,
                reason = failure.as_str(),
                error,
                suppressed,
                "a dead letter could not be kept"
            );
        }
    }

    fn give_up(&self, letter: &Letter, skip: SkipReason) {
        let Source { topic, partition, offset, .. } = &letter.source;
        self.step_over((topic, *partition, *offset), skip, &letter.error);
    }

    /// It will never fit, and nobody keeps it: named, and only that.
    fn step_over(&self, (topic, partition, offset): (&str, i32, i64), skip: SkipReason, error: &str) {
        let advice = match skip {
            SkipReason::TooLarge => {
                "raise `max_record_bytes` in [link.pack] and [link.receive], then read it again with another group"
            }
            _ => "carry this record by other means",
        };
        self.metrics.records_skipped.inc(skip);
        tracing::error!(
            link = &*self.link,
            topic,
            partition,
            offset,
            error,
            advice,
            "a record was not sent and will not be"
        );
    }

    fn measure(&mut self, now: Instant) {
        let Some(kept) = &mut self.kept else { return };
        if self.measured_at.is_none_or(|at| now.duration_since(at) >= MEASURE_EVERY) {
            self.measured_at = Some(now);
            if let Some(bytes) = kept.letters.bytes() {
                self.metrics.dead_letter_bytes.set(bytes as f64);
            }
        }
    }
}

impl Topic {
    /// `None` when letters go to a directory.
    fn open(settings: &Settings, source: &KafkaSource, link: &str) -> anyhow::Result<Option<Self>> {
        let Some(name) = settings.topic() else { return Ok(None) };
        let mut config = source.client.build(&Settings::role())?;
        config.set("topic.metadata.propagation.max.ms", UNKNOWN_AFTER);
        let producer = Producer::new(config, Reporter::new(link, "dead_letters"), false)?;
        Ok(Some(Self {
            name: name.as_str().to_owned(),
            producer,
            waiting: VecDeque::new(),
            bytes: 0,
            on_its_way: false,
            number: 0,
            next_try: None,
        }))
    }

    /// Gives the first letter, unless it is on its way; and takes it out once it is answered.
    fn next_answer(&mut self, now: Instant) -> Option<(Waiting, Result<(), Code>)> {
        if !self.on_its_way {
            if self.next_try.is_some_and(|at| now < at) {
                return None;
            }
            self.next_try = None;
            let first = self.waiting.front()?;
            self.number += 1;
            match self.producer.send_letter(&self.name, &first.letter, self.number) {
                Ok(()) => self.on_its_way = true,
                Err(NotTaken::Full) => {
                    self.next_try = Some(now + BACK_OFF);
                    return None;
                }
                Err(NotTaken::Refused(code)) => return self.take_first(Err(code)),
            }
        }
        let mut answers = Vec::new();
        self.producer.answers(&mut answers);
        if let Some((_, answer)) = answers.into_iter().find(|(number, _)| *number == self.number) {
            return self.take_first(answer);
        }
        let (code, _) = self.producer.fatal()?;
        // Without a new one the next look is at the old one, which says the same.
        let rebuilt = self.producer.rebuild();
        if rebuilt.is_ok() { self.take_first(Err(code)) } else { None }
    }

    fn take_first(&mut self, answer: Result<(), Code>) -> Option<(Waiting, Result<(), Code>)> {
        self.on_its_way = false;
        let first = self.waiting.pop_front()?;
        self.bytes -= first.letter.payload_bytes();
        Some((first, answer))
    }

    fn put_back(&mut self, waiting: Waiting, next_try: Option<Instant>) {
        self.bytes += waiting.letter.payload_bytes();
        self.waiting.push_front(waiting);
        self.next_try = next_try;
    }
}

fn letter(
    letters: &DeadLetters,
    record: Record<'_>,
    topic_id: TopicId,
    reason: DeadLetterReason,
    error: &PackError,
) -> Letter {
    let source = Source {
        stream: String::new(),
        topic: record.topic().to_owned(),
        topic_id,
        partition: record.partition(),
        offset: record.offset(),
        timestamp: time_of(record),
    };
    let headers = record.headers().map(|header| RecordHeader { name: header.name, value: header.value });
    // The packer's errors speak of lengths and numbers only.
    let error = error.to_string();
    let refusal = Refusal { destination_topic: None, reason, error: &error, at: Timestamp::now() };
    Letter::new(letters.by(), source, record.key(), record.value(), headers, refusal)
}

fn text(code: Code) -> String {
    format!("{code}; {}", classify_code(code).advice)
}
