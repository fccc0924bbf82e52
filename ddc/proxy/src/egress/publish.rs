//! What becomes of gaps, to the topic of `[missing_records]`: a thread of its own beside the line.
//!
//! ```text
//!  book (changes after the last one published) ─ at most MAX_ON_THE_WAY ─▶ idempotent producer ─▶ topic
//!         ▲                                                                        │ acknowledged, in order
//!         └────────────────────────── journal: published up to ◀──────────────────┘
//! ```
//!
//! There is no queue: the book is what waits. While the topic cannot be written, for a day or a year, the changes of one gap
//! become one, its latest state; nothing else is lost but what the book itself forgets (some 50,000 gaps; counted, and named in
//! the log), and nothing of the link waits. The journal keeps what waits over restarts. After a crash the last second may be
//! published again: the key is the gap's id, and `sequence` tells which record is newer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ddc_kafka::context::Reporter;
use ddc_kafka::errors::{Kind, Verdict, classify_code};
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::reasons::GapRecordDrop;
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::control::Control;
use super::missing::MissingReport;
use super::shared::{Shared, lock};
use crate::config::{EgressConfig, MissingRecords};
use crate::gaps::{Entry, GapRecord};
use crate::reason::reason;
use crate::sink::kafka::{Answer, NotTaken, Producer};

/// Records that may be handed over and not acknowledged.
const MAX_ON_THE_WAY: usize = 500;
/// Between two looks, when nothing is on its way.
const NAP: Duration = Duration::from_millis(200);
/// The same while answers are waited for.
const SHORT_NAP: Duration = Duration::from_millis(10);
/// Before what came back is given again.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Without an answer for so long something is wrong.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits for the topic; what is left is published by the next life.
const LAST_CHANCE: Duration = Duration::from_secs(3);
/// How long the cluster may take to say which topics there are.
const ASK: Duration = Duration::from_millis(500);
/// The journal is told this often.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// One kind of trouble is logged this often at most.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// What a publisher is made of.
pub(crate) struct PublisherParts<'a> {
    pub(crate) config: &'a Arc<EgressConfig>,
    pub(crate) settings: &'a MissingRecords,
    pub(crate) report: MissingReport,
    /// The last change that a former life published.
    pub(crate) published: u64,
    pub(crate) metrics: Arc<LinkMetrics<EgressMetrics>>,
    pub(crate) control: Arc<Control>,
    pub(crate) shared: Arc<Shared>,
}

/// Starts the thread. It ends soon after the sink thread.
pub(crate) fn start(parts: PublisherParts<'_>) -> anyhow::Result<JoinHandle<()>> {
    let PublisherParts { config, settings, report, published, metrics, control, shared } = parts;
    let link = config.link.name.as_str();
    let reporter = Reporter::new(link, "missing_records");
    let producer = Producer::new(settings.client.build(&MissingRecords::role())?, reporter, false)?;
    report.acknowledged(published);
    let now = Instant::now();
    let publisher = Publisher {
        config: Arc::clone(config),
        topic: settings.topic.to_string(),
        producer,
        report,
        metrics,
        control,
        shared,
        acknowledged: published,
        noted: published,
        noted_at: now,
        on_the_way: VecDeque::new(),
        first_number: 0,
        came_back: None,
        alone_until: 0,
        answered_at: now,
        limit: RateLimit::new(LOG_EVERY),
    };
    Ok(thread::Builder::new().name(format!("ddc-gaps-{link}")).spawn(move || publisher.run())?)
}

struct Publisher {
    config: Arc<EgressConfig>,
    topic: String,
    producer: Producer,
    report: MissingReport,
    metrics: Arc<LinkMetrics<EgressMetrics>>,
    control: Arc<Control>,
    shared: Arc<Shared>,
    /// Everything up to this change is in the topic.
    acknowledged: u64,
    /// The same as the journal knows it.
    noted: u64,
    noted_at: Instant,
    /// Changes that were handed over, by their numbers, oldest first; whether each is answered.
    on_the_way: VecDeque<(u64, bool)>,
    /// What the oldest of them was handed over as.
    first_number: usize,
    /// The worst of what came back since the last time that all was given again.
    came_back: Option<Code>,
    /// Up to this change each is given alone, to find the one that is refused.
    alone_until: u64,
    answered_at: Instant,
    limit: RateLimit<&'static str>,
}

impl Publisher {
    fn run(mut self) {
        let mut last_chance = None;
        loop {
            self.answers();
            if self.came_back.is_some() && self.on_the_way.iter().all(|(_, answered)| *answered) {
                self.begin_again();
            } else if self.came_back.is_none() {
                self.hand_over();
            }
            self.look_for_trouble();
            self.note(NOTE_EVERY);
            if self.control.is_stopping() && self.shared.sink_done.load(Relaxed) {
                let end = *last_chance.get_or_insert_with(|| Instant::now() + LAST_CHANCE);
                let waiting = self.report.waiting(self.acknowledged);
                if waiting == 0 || Instant::now() >= end {
                    break;
                }
            }
            thread::sleep(if self.on_the_way.is_empty() { NAP } else { SHORT_NAP });
        }
        self.note(Duration::ZERO);
        let waiting = self.report.waiting(self.acknowledged);
        if waiting > 0 {
            let link = self.metrics.link();
            tracing::warn!(
                link,
                waiting,
                "records about gaps are not published yet; the next start goes on with them"
            );
        }
    }

    fn hand_over(&mut self) {
        let alone = self.acknowledged < self.alone_until;
        let room = if alone { 1 } else { MAX_ON_THE_WAY }.saturating_sub(self.on_the_way.len());
        let after = self.on_the_way.back().map_or(self.acknowledged, |(seq, _)| *seq);
        if room == 0 {
            return;
        }
        for entry in self.report.changes_after(after, room) {
            let (key, value) = self.message(&entry);
            let number = self.first_number + self.on_the_way.len();
            if self.on_the_way.is_empty() {
                self.answered_at = Instant::now();
            }
            match self.producer.send_text(&self.topic, &key, &value, number) {
                Ok(()) => self.on_the_way.push_back((entry.seq, false)),
                Err(NotTaken::Full) => return,
                Err(NotTaken::Refused(code)) => {
                    self.on_the_way.push_back((entry.seq, false));
                    self.answer((number, Err(code)));
                    return;
                }
            }
        }
    }

    fn message(&self, entry: &Entry) -> (String, Vec<u8>) {
        let site = self.config.telemetry.site.as_ref().map(ToString::to_string);
        let link = &self.config.link;
        let record = GapRecord::new(site, &link.name, link.id, self.config.set(), entry);
        // Texts and numbers only: this cannot fail.
        (entry.gap.id.to_string(), serde_json::to_vec(&record).unwrap_or_default())
    }

    fn answers(&mut self) {
        let mut answers = Vec::new();
        self.producer.answers(&mut answers);
        for answer in answers {
            self.answer(answer);
        }
        // After something came back nothing behind it counts: all of that is given again, in order.
        while self.came_back.is_none()
            && let Some((seq, true)) = self.on_the_way.front()
        {
            self.acknowledged = *seq;
            self.on_the_way.pop_front();
            self.first_number += 1;
            self.report.acknowledged(self.acknowledged);
            *lock(&self.shared.publish_trouble) = None;
        }
    }

    fn answer(&mut self, (number, answer): Answer) {
        let at = number.checked_sub(self.first_number);
        let Some(place) = at.and_then(|at| self.on_the_way.get_mut(at)) else { return };
        place.1 = true;
        self.answered_at = Instant::now();
        match answer {
            Ok(()) => self.metrics.gap_records_published.inc(),
            Err(code) => self.failed(at.unwrap_or_default(), code),
        }
    }

    fn failed(&mut self, at: usize, code: Code) {
        let verdict = classify_code(code);
        self.metrics.gap_record_errors.inc(reason(verdict));
        self.told(verdict, &code.to_string());
        if self.came_back.is_none() {
            // What was answered before it is in the topic.
            if let Some((seq, _)) =
                self.on_the_way.iter().take(at).take_while(|(_, answered)| *answered).last()
            {
                self.acknowledged = *seq;
            }
            self.came_back = Some(code);
        }
    }

    /// Everything on its way is answered, and not all of it was taken: goes on behind what was acknowledged last. One
    /// that is refused for ever is found by giving each alone, and left out.
    fn begin_again(&mut self) {
        let Some(code) = self.came_back.take() else { return };
        let newest = self.on_the_way.back().map(|(seq, _)| *seq);
        self.first_number += self.on_the_way.len();
        self.on_the_way.clear();
        if let (Kind::RecordTooLarge | Kind::RecordRefused, Some(newest)) = (classify_code(code).kind, newest)
        {
            if self.acknowledged < self.alone_until {
                // It was given alone, so it is the one. If its gap has changed since, the newer record is tried.
                self.acknowledged = newest;
                self.report.acknowledged(newest);
                self.metrics.gap_records_dropped.inc(GapRecordDrop::Refused);
                tracing::error!(
                    link = self.metrics.link(),
                    topic = self.topic,
                    change = newest,
                    error = %code,
                    "the topic of [missing_records] refuses a record about a gap for ever; it is left out there, the gap journal has it"
                );
            } else {
                self.alone_until = newest;
            }
            return;
        }
        if let Some((code, text)) = self.producer.fatal() {
            self.told(classify_code(code), &text);
            if let Err(error) = self.producer.rebuild() {
                tracing::warn!(link = self.metrics.link(), %error, "no new producer for [missing_records] yet");
            }
        }
        self.rest(BACK_OFF);
    }

    /// Sleeps, unless the egress stops.
    fn rest(&self, how_long: Duration) {
        let until = Instant::now() + how_long;
        while Instant::now() < until && !self.control.is_stopping() {
            thread::sleep(NAP);
        }
    }

    /// No answer at all: what keeps the client away comes back with no record.
    fn look_for_trouble(&mut self) {
        if self.on_the_way.is_empty() || self.answered_at.elapsed() < PATIENCE {
            return;
        }
        self.answered_at = Instant::now();
        if let Some(error) = self.producer.reporter().last_error() {
            self.metrics.gap_record_errors.inc(reason(error.verdict));
            self.told(error.verdict, &error.text);
            return;
        }
        match self.producer.topics(ASK) {
            Ok(topics) if !topics.contains(&self.topic) => {
                let verdict = classify_code(Code::UnknownTopicOrPartition);
                self.metrics.gap_record_errors.inc(reason(verdict));
                self.told(verdict, &format!("topic {} does not exist", self.topic));
            }
            Ok(_) => {}
            Err(error) => {
                let verdict = ddc_kafka::errors::classify(&error);
                self.metrics.gap_record_errors.inc(reason(verdict));
                self.told(verdict, &error.to_string());
            }
        }
    }

    fn told(&mut self, verdict: Verdict, text: &str) {
        *lock(&self.shared.publish_trouble) = Some(format!("{text}; {}", verdict.advice));
        if let Some(suppressed) = self.limit.allow(verdict.reason, Instant::now()) {
            tracing::warn!(
                link = self.metrics.link(),
                topic = self.topic,
                reason = verdict.reason,
                error = text,
                advice = verdict.advice,
                suppressed,
                "records about gaps cannot be published; they are kept, and published later"
            );
        }
    }

    /// Tells the journal how far it is, and the metric what waits.
    fn note(&mut self, every: Duration) {
        if self.noted_at.elapsed() < every {
            return;
        }
        self.noted_at = Instant::now();
        self.metrics.gap_records_waiting.set(self.report.waiting(self.acknowledged) as i64);
        let oldest = &self.metrics.gap_records_oldest_timestamp_seconds;
        match self.report.waiting_since(self.acknowledged) {
            Some(since) => oldest.set(since.millis() as f64 / 1e3),
            None => oldest.clear(),
        }
        if self.acknowledged != self.noted {
            self.noted = self.acknowledged;
            self.report.published(self.acknowledged);
        }
    }
}
