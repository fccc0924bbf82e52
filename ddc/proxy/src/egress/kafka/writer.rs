//! The producer and the transaction that is open with it.
//!
//! ```text
//!  begin ─ send … send ─ progress ─▶ answers of all ─▶ commit ─▶ committed
//!                                     │ one came back    │ unknown, or fenced
//!                                     │                  └▶ lost: the topic says how far it came
//!                                     └▶ abort: its chunks are judged again
//! ```
//!
//! With `delivery = "at_least_once"` there is no transaction: the same records and, once they are answered, the progress, by an idempotent
//! producer. What came back is handed over again, what did not is remembered until the progress is written.
//!
//! Whatever waits here goes on marking the thread as alive, and ends when the drain's time is over.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use ddc_kafka::context::Reporter;
use ddc_kafka::errors::{Kind, classify_code};
use ddc_progress::WorkingCopy;
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::reasons::{DeadLetterFailure, DeadLetterReason};
use ddc_wire::{ChunkHeader, Record};
use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::super::books::Books;
use super::super::control::GivenUp;
use super::super::shared::lock;
use super::isolation::{Before, Isolation};
use super::letters::{Fate as LetterFate, Letters};
use super::plan::{Fate, Handed, MAX_RECORDS, Note, Plan};
use super::routes::ChunkRoute;
use crate::config::BadTimestamp;
use crate::dead_letters::{DeadLetters, Outcome, Refusal, clamped, verdict};
use crate::gaps::Timestamp;
use crate::reason::reason;
use crate::sink::kafka::{Answer, NotTaken, Producer, Route, TransactionError};
use crate::sink::latency::Latencies;

/// Answers are fetched after so many records at the latest.
const SERVICE_EVERY: u32 = 256;
/// One call to the cluster holds the thread so long; it is made again until it is answered.
pub(super) const CALL: Duration = Duration::from_secs(1);
/// Before something is tried again that is expected to go well.
const MOMENT: Duration = Duration::from_micros(500);
/// Answers are waited for so long before anything else is looked at.
const WAIT: Duration = Duration::from_millis(20);
/// Between two attempts that failed for something that may pass.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The number of a record of our own in the progress topic. Numbers of records never come near.
const OWN: usize = usize::MAX;

/// What a writer is made of.
pub(crate) struct WriterParts {
    /// Built for the role [`crate::config::KafkaSink::producer`].
    pub(crate) config: ClientConfig,
    pub(crate) reporter: Reporter,
    pub(crate) provenance: bool,
    pub(crate) transactional: bool,
    pub(crate) bad_timestamp: BadTimestamp,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) books: Books,
}

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum Ended {
    Committed,
    /// It is certainly not committed: its chunks are to be judged again, after this pause.
    Aborted(Duration),
    /// The producer can do no more, or whether it is committed is not known.
    Lost,
}

/// See the module's text.
pub(super) struct Writer {
    config: ClientConfig,
    reporter: Reporter,
    provenance: bool,
    transactional: bool,
    bad_timestamp: BadTimestamp,
    letters: Letters,
    producer: Option<Producer>,
    /// Its id is being registered.
    joining: Option<Producer>,
    pub(super) plan: Plan,
    pub(super) books: Books,
    /// The number of the plan's first record. Answers with lower numbers are of former attempts.
    base: usize,
    waiting: usize,
    /// Records that came back in this attempt. Once there is one, nothing more is handed over.
    failed: usize,
    own_waiting: usize,
    own_failed: Option<Code>,
    is_begun: bool,
    isolation: Isolation,
    /// At least once: what an attempt that failed has delivered all the same.
    delivered: HashSet<(u32, i64)>,
    answers: Vec<Answer>,
    since_service: u32,
    latencies: Latencies,
    pause: Duration,
    /// When the client error that was counted last occurred.
    counted_error: Option<Instant>,
}

impl Writer {
    pub(super) fn new(parts: WriterParts) -> Self {
        Self {
            config: parts.config,
            reporter: parts.reporter,
            provenance: parts.provenance,
            transactional: parts.transactional,
            bad_timestamp: parts.bad_timestamp,
            letters: Letters::new(parts.dead_letters),
            producer: None,
            joining: None,
            plan: Plan::default(),
            books: parts.books,
            base: 1,
            waiting: 0,
            failed: 0,
            own_waiting: 0,
            own_failed: None,
            is_begun: false,
            isolation: Isolation::default(),
            delivered: HashSet::new(),
            answers: Vec::new(),
            since_service: 0,
            latencies: Latencies::default(),
            pause: Duration::ZERO,
            counted_error: None,
        }
    }

    pub(super) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.transactional
    }

    /// Makes the producer that is to replace the one there is, if it is not made yet; it connects in the background, and what keeps it
    /// from that is heard by its reporter.
    pub(super) fn prepare(&mut self) -> Result<(), String> {
        self.forget_attempt();
        // Before the new one is made, so that the two never live side by side.
        if self.producer.take().is_some() {
            self.books.shared.rebuilds.fetch_add(1, Relaxed);
        }
        let producer = match self.joining.take() {
            Some(producer) => producer,
            None => Producer::new(self.config.clone(), self.reporter.clone(), self.provenance)
                .map_err(|error| error.to_string())?,
        };
        producer.answers(&mut self.answers);
        self.answers.clear();
        self.joining = Some(producer);
        self.count_client_error();
        self.books.tick.mark();
        Ok(())
    }

    /// The producer that was prepared takes over; in transactions it is ready when its id is registered, which fences whoever had it
    /// before. The error says why not now; it is to be called again.
    pub(super) fn rebuild(&mut self) -> Result<(), String> {
        let Some(producer) = self.joining.take() else { return Err("no producer is prepared".to_owned()) };
        if self.transactional
            && let Err(error) = producer.init_transactions(CALL)
        {
            let again = matches!(error, TransactionError::Again(..));
            self.joining = again.then_some(producer);
            return Err(error.text().to_owned());
        }
        *lock(&self.books.shared.sink_problem) = None;
        self.producer = Some(producer);
        Ok(())
    }

    /// Ends what another link's egress has open, and keeps it from writing before it has read the progress anew.
    pub(super) fn fence(&mut self, transactional_id: &str) -> Result<Result<(), String>, GivenUp> {
        let mut config = self.config.clone();
        config.set("transactional.id", transactional_id);
        let producer = match Producer::new(config, self.reporter.clone(), false) {
            Ok(producer) => producer,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let done = self.call(|| producer.init_transactions(CALL))?;
        Ok(done.map_err(|error| error.text().to_owned()))
    }

    /// Asks the destination for a sign of life when there is reason to doubt it.
    pub(super) fn probe(&mut self) {
        self.count_client_error();
        let doubtful = self.reporter.last_error().is_some() || !self.books.shared.connected.load(Relaxed);
        if doubtful
            && self.plan.is_empty()
            && let Some(producer) = &self.producer
            && producer.topics(CALL / 2).is_ok()
        {
            self.reporter.clear_error();
            self.books.shared.connected.store(true, Relaxed);
        }
        self.books.tick.mark();
    }

    /// Makes new partitions of a topic known.
    pub(super) fn refresh(&self, topic: &str) {
        if let Some(producer) = &self.producer {
            producer.refresh(topic, CALL);
        }
    }

    /// Hands a record of the plan over; waits while there is no room.
    pub(super) fn send(
        &mut self,
        slot: u32,
        late: bool,
        header: &ChunkHeader<'_>,
        route: &ChunkRoute,
        record: &Record<'_>,
    ) -> Result<(), GivenUp> {
        let name = (slot, record.offset);
        let mut clamp = None;
        if !self.isolation.is_empty() && self.failed == 0 {
            match self.isolation.before(name) {
                Before::Send if self.isolation.has_group() => self.end_group()?,
                Before::Send | Before::SendWith => {}
                Before::SendApart => self.wait_for_answers()?,
                Before::Refused(code, times) => {
                    let reason = match verdict(code, true) {
                        Outcome::Refused(reason) => reason,
                        _ => DeadLetterReason::Other,
                    };
                    let now = Timestamp::now().millis().cast_signed();
                    clamp = clamped(self.bad_timestamp, reason, record, now).filter(|_| times == 1);
                    if clamp.is_none() {
                        let why = format!("{code}; {}", classify_code(code).advice);
                        return self.refuse(slot, header, record, Some(&route.topic), reason, why);
                    }
                    self.wait_for_answers()?;
                    self.isolation.apart(name);
                    self.plan.notes.push(Note::Clamped);
                }
            }
        }
        if self.delivered.contains(&name) {
            return Ok(());
        }
        self.since_service += 1;
        if self.since_service >= SERVICE_EVERY {
            self.pump();
        }
        while self.waiting >= MAX_RECORDS && self.failed == 0 {
            self.rest()?;
        }
        let number = self.base + self.plan.records.len();
        let times = self.latencies.times(record.timestamp);
        self.plan.records.push(Handed { slot, offset: record.offset, fate: Fate::Waiting, times });
        self.waiting += 1;
        loop {
            if self.failed > 0 || !self.begin() {
                // The attempt has failed already: this one goes with the next.
                self.answered(number, Err(Code::PurgeQueue));
                return Ok(());
            }
            let to = Route {
                topic: &route.topic,
                partition: route.partition,
                source_topic: header.topic,
                source_partition: header.partition,
                late,
                clamped: clamp.as_ref(),
            };
            let Some(producer) = &mut self.producer else { continue };
            match producer.send(record, to, number) {
                Ok(()) => break,
                Err(NotTaken::Full) => self.rest()?,
                Err(NotTaken::Refused(code)) => {
                    self.answered(number, Err(code));
                    break;
                }
            }
        }
        if clamp.is_some() || self.isolation.is_group_full() {
            self.end_group()?;
        }
        Ok(())
    }

    /// A record that the destination will never have as it is: a dead letter, where they are kept, else a missing range.
    pub(super) fn refuse(
        &mut self,
        slot: u32,
        header: &ChunkHeader<'_>,
        record: &Record<'_>,
        destination_topic: Option<&str>,
        reason: DeadLetterReason,
        why: String,
    ) -> Result<(), GivenUp> {
        let offset = record.offset;
        if self.failed > 0 || self.own_failed.is_some() {
            // It goes with the next attempt.
            return Ok(());
        }
        let refusal = Refusal { destination_topic, reason, error: &why, at: Timestamp::now() };
        match self.letters.refused((slot, offset), record, header, refusal) {
            LetterFate::Gap => self.plan.notes.push(Note::Refused(slot, offset, why)),
            LetterFate::Kept => self.plan.notes.push(Note::Letter(slot, offset, reason, why)),
            LetterFate::NotKept(failure, text) => {
                self.not_kept(failure, &text);
                self.plan.notes.push(Note::Refused(slot, offset, why));
            }
            LetterFate::Wait(failure, text) => {
                self.not_kept(failure, &text);
                self.own_failed = Some(Code::QueueFull);
            }
            LetterFate::Produce(topic) => {
                self.wait_for_answers()?;
                if self.failed > 0 || self.own_failed.is_some() || !self.begin() {
                    return Ok(());
                }
                let (Some(producer), Some(letter)) = (&mut self.producer, self.letters.letter()) else {
                    return Ok(());
                };
                match producer.send_letter(&topic, letter, OWN) {
                    Ok(()) => self.own_waiting += 1,
                    Err(NotTaken::Full) => self.own_failed = Some(Code::QueueFull),
                    Err(NotTaken::Refused(code)) => self.own_failed = Some(code),
                }
                self.wait_for_answers()?;
                match self.letters.answered(self.own_failed.map_or(Ok(()), Err)) {
                    Ok(()) => self.plan.notes.push(Note::Letter(slot, offset, reason, why)),
                    Err(failure) => self.not_kept(failure, &format!("topic {topic} did not take it")),
                }
            }
        }
        Ok(())
    }

    /// Bytes of dead letters in their directory.
    pub(super) fn letter_bytes(&mut self) -> Option<u64> {
        self.letters.bytes()
    }

    fn not_kept(&mut self, failure: DeadLetterFailure, why: &str) {
        self.books.metrics.dead_letter_errors.inc(failure);
        *lock(&self.books.shared.sink_problem) = Some(format!("a dead letter cannot be kept: {why}"));
        if let Some(suppressed) = self.books.limit.allow("letter", Instant::now()) {
            tracing::error!(
                link = self.books.metrics.link(),
                reason = failure.as_str(),
                why,
                suppressed,
                "a dead letter cannot be kept; [dead_letters] on_failure says what becomes of its record"
            );
        }
    }

    /// Everything planned is handed over: waits for it, writes the progress, commits.
    pub(super) fn commit(&mut self, working: &WorkingCopy, topic: &str) -> Result<Ended, GivenUp> {
        if self.isolation.has_group() {
            self.end_group()?;
        }
        if !self.transactional {
            self.wait_for_answers()?;
        }
        if let Err(error) = self.letters.sync() {
            self.not_kept(DeadLetterFailure::Disk, &error.to_string());
            self.own_failed.get_or_insert(Code::QueueFull);
        }
        if self.failed == 0 && self.own_failed.is_none() {
            let records: Vec<_> =
                working.changes().map(|(key, progress)| working.encode(key, &progress)).collect();
            self.send_own(topic, &records)?;
        }
        self.wait_for_answers()?;
        let ended = self.end()?;
        match ended {
            Ended::Committed => {
                self.tell_delivered();
                self.isolation.clear();
                self.letters.clear();
                self.delivered.clear();
            }
            Ended::Aborted(_) => self.remember_delivered(),
            Ended::Lost => {
                self.remember_delivered();
                self.isolation.clear();
            }
        }
        self.forget_attempt();
        Ok(ended)
    }

    /// Writes records of our own into the progress topic, in a transaction that holds nothing else.
    pub(super) fn commit_own(
        &mut self,
        topic: &str,
        records: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Ended, GivenUp> {
        self.send_own(topic, records)?;
        self.wait_for_answers()?;
        let ended = self.end()?;
        self.forget_attempt();
        Ok(ended)
    }

    fn send_own(&mut self, topic: &str, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), GivenUp> {
        for (key, value) in records {
            loop {
                if self.own_failed.is_some() || !self.begin() {
                    self.own_failed.get_or_insert(Code::PurgeQueue);
                    return Ok(());
                }
                let Some(producer) = &mut self.producer else { continue };
                // The keys are JSON.
                let key = std::str::from_utf8(key).unwrap_or_default();
                match producer.send_text(topic, key, value, OWN) {
                    Ok(()) => {
                        self.own_waiting += 1;
                        break;
                    }
                    Err(NotTaken::Full) => self.rest()?,
                    Err(NotTaken::Refused(code)) => self.own_failed = Some(code),
                }
            }
        }
        Ok(())
    }

    /// Commits, or takes back, what is open.
    fn end(&mut self) -> Result<Ended, GivenUp> {
        if self.failed > 0 || self.own_failed.is_some() {
            return self.take_back();
        }
        if !self.is_begun || !self.transactional {
            return Ok(self.succeeded());
        }
        let Some(producer) = self.producer.take() else { return Ok(Ended::Lost) };
        let committed = self.call(|| producer.commit_transaction(CALL));
        self.producer = Some(producer);
        match committed? {
            Ok(()) => Ok(self.succeeded()),
            Err(error @ TransactionError::Abort(..)) => {
                self.say(error.code(), "the destination did not take a transaction; it goes again");
                self.take_back()
            }
            Err(error) => {
                self.lost(&error);
                Ok(Ended::Lost)
            }
        }
    }

    fn succeeded(&mut self) -> Ended {
        self.pause = Duration::ZERO;
        *lock(&self.books.shared.sink_problem) = None;
        Ended::Committed
    }

    /// Aborts. What came back says how the next attempt goes.
    fn take_back(&mut self) -> Result<Ended, GivenUp> {
        let fatal = self.producer.as_ref().and_then(Producer::fatal);
        if fatal.is_none() {
            self.recall();
        }
        let failed: Vec<_> = (self.plan.records.iter())
            .filter_map(|record| match record.fate {
                Fate::Failed(code) => Some(((record.slot, record.offset), code)),
                Fate::Waiting | Fate::Done => None,
            })
            .collect();
        let cause = failed.iter().map(|(_, code)| *code).chain(self.own_failed).find(|code| !is_echo(*code));
        let learned = self.isolation.learn(&failed);
        if let Some(code) = cause.filter(|_| !learned) {
            let problem = format!("records come back: {code}; {}", classify_code(code).advice);
            *lock(&self.books.shared.sink_problem) = Some(problem);
        }
        self.books.metrics.sink_retries.inc();
        // After a refusal librdkafka gives the next transaction up as well, to raise its epoch: that is nobody's fault.
        let is_echo = cause.is_none() && self.pause.is_zero();
        self.pause = match self.pause {
            _ if learned => Duration::ZERO,
            _ if is_echo => MOMENT,
            pause => (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
        };
        if let Some((code, text)) = fatal {
            self.lost(&TransactionError::Fatal(code, text));
            return Ok(Ended::Lost);
        }
        if !self.transactional || !self.is_begun {
            return Ok(Ended::Aborted(self.pause));
        }
        let Some(producer) = self.producer.take() else { return Ok(Ended::Lost) };
        let aborted = self.call(|| producer.abort_transaction(CALL));
        self.producer = Some(producer);
        match aborted? {
            Ok(()) => Ok(Ended::Aborted(self.pause)),
            Err(error) => {
                self.lost(&error);
                Ok(Ended::Lost)
            }
        }
    }

    /// Gives up what is on its way in the transaction, and hears all answers: the one that says why may still be among them.
    fn recall(&mut self) {
        if !self.transactional || !self.is_begun {
            return;
        }
        if let Some(producer) = &self.producer {
            producer.purge();
        }
        self.pump();
        while self.is_queued() {
            thread::sleep(Duration::from_millis(1));
            self.pump();
        }
    }

    /// Calls until it is answered.
    fn call(
        &mut self,
        step: impl Fn() -> Result<(), TransactionError>,
    ) -> Result<Result<(), TransactionError>, GivenUp> {
        let mut pause = MOMENT;
        loop {
            self.books.tick.mark();
            match step() {
                Err(TransactionError::Again(code, text)) => {
                    self.say(code, "the destination does not answer about a transaction; asking again");
                    *lock(&self.books.shared.sink_problem) = Some(text);
                    self.count_client_error();
                    self.books.tick.mark();
                    self.books.store_sessions_in_time();
                    self.books.control.check()?;
                    thread::sleep(pause);
                    pause = (pause * 2).min(SHORTEST_PAUSE);
                }
                done => {
                    self.books.tick.mark();
                    if done.is_ok() {
                        *lock(&self.books.shared.sink_problem) = None;
                    }
                    return Ok(done);
                }
            }
        }
    }

    /// Makes sure that a transaction is open. `false`: it cannot be.
    fn begin(&mut self) -> bool {
        if self.is_begun {
            return true;
        }
        let Some(producer) = &self.producer else { return false };
        if self.transactional
            && let Err(error) = producer.begin_transaction()
        {
            self.say(error.code(), "a transaction cannot be begun");
            return false;
        }
        self.is_begun = true;
        true
    }

    fn end_group(&mut self) -> Result<(), GivenUp> {
        self.wait_for_answers()?;
        if self.failed == 0 {
            self.isolation.group_taken();
        }
        Ok(())
    }

    /// Waits until everything handed over is answered.
    fn wait_for_answers(&mut self) -> Result<(), GivenUp> {
        self.pump();
        while self.waiting > 0 || self.own_waiting > 0 || (self.is_begun && self.is_queued()) {
            if self.transactional && (self.failed > 0 || self.own_failed.is_some()) {
                // The transaction is over whatever the others say.
                return Ok(());
            }
            self.wait(Producer::flush)?;
        }
        Ok(())
    }

    fn is_queued(&self) -> bool {
        self.producer.as_ref().is_some_and(|producer| producer.queued() > 0)
    }

    /// Fetches answers, and waits a little when there are none.
    pub(super) fn rest(&mut self) -> Result<(), GivenUp> {
        self.wait(Producer::wait)
    }

    fn wait(&mut self, until_answered: impl Fn(&Producer, Duration)) -> Result<(), GivenUp> {
        self.books.control.check()?;
        if !self.pump() {
            match &self.producer {
                Some(producer) => until_answered(producer, WAIT),
                None => thread::sleep(WAIT),
            }
            self.pump();
        }
        if let Some((code, _)) = self.producer.as_ref().and_then(Producer::fatal) {
            // Answers of it no longer come.
            for number in self.base..self.base + self.plan.records.len() {
                if self.plan.records[number - self.base].fate == Fate::Waiting {
                    self.answered(number, Err(code));
                }
            }
            if self.own_waiting > 0 {
                (self.own_waiting, self.own_failed) = (0, Some(code));
            }
        }
        Ok(())
    }

    /// Takes the answers that have come. Whether there were any.
    fn pump(&mut self) -> bool {
        self.books.tick.mark();
        self.since_service = 0;
        let mut answers = std::mem::take(&mut self.answers);
        answers.clear();
        if let Some(producer) = &self.producer {
            producer.answers(&mut answers);
        }
        self.latencies.tick();
        let any = !answers.is_empty();
        for (number, answer) in answers.drain(..) {
            self.answered(number, answer);
        }
        self.answers = answers;
        self.books.shared.in_flight.store(self.waiting as u64, Relaxed);
        self.books.store_sessions_in_time();
        any
    }

    fn answered(&mut self, number: usize, answer: Result<(), Code>) {
        if number == OWN {
            self.own_waiting = self.own_waiting.saturating_sub(1);
            if let Err(code) = answer {
                self.own_failed.get_or_insert(code);
                self.count(code);
            }
            return;
        }
        let at = number.checked_sub(self.base);
        let Some(record) = at.and_then(|at| self.plan.records.get_mut(at)) else { return };
        if record.fate != Fate::Waiting {
            return;
        }
        self.waiting -= 1;
        match answer {
            Ok(()) => {
                record.fate = Fate::Done;
                self.books.shared.connected.store(true, Relaxed);
            }
            Err(code) => {
                record.fate = Fate::Failed(code);
                self.failed += 1;
                self.count(code);
            }
        }
    }

    /// What keeps the client as a whole away (a wrong password) comes back with no record: it is counted here.
    fn count_client_error(&mut self) {
        let error = self.reporter.last_error().filter(|error| self.counted_error != Some(error.at));
        if let Some(error) = error {
            self.counted_error = Some(error.at);
            self.books.metrics.sink_errors.inc(reason(error.verdict));
        }
    }

    fn count(&mut self, code: Code) {
        if is_echo(code) {
            return;
        }
        self.books.metrics.sink_errors.inc(reason(classify_code(code)));
        self.say(code, "the destination did not take records");
    }

    fn say(&mut self, code: Code, what: &'static str) {
        let verdict = classify_code(code);
        if let Some(suppressed) = self.books.limit.allow(verdict.reason, Instant::now()) {
            tracing::warn!(
                link = self.books.metrics.link(),
                reason = verdict.reason,
                error = %code,
                advice = verdict.advice,
                suppressed,
                "{what}"
            );
        }
    }

    fn lost(&mut self, error: &TransactionError) {
        let (code, text) = (error.code(), error.text());
        let consequence = if self.transactional {
            "the progress topic says how far it came"
        } else {
            "records without an answer are sent again and may arrive twice"
        };
        tracing::warn!(
            link = self.books.metrics.link(),
            error = %code,
            text,
            fenced = classify_code(code).kind == Kind::Fenced,
            "the producer is built anew; {consequence}"
        );
    }

    /// What is at the destination now counts as delivered.
    fn tell_delivered(&mut self) {
        let done = self.plan.records.iter().filter(|record| record.fate == Fate::Done);
        let mut delivered = 0;
        for record in done {
            self.latencies.acknowledged(record.times);
            delivered += 1;
        }
        self.books.metrics.records_delivered.add(delivered);
        self.latencies.flush(&self.books.metrics);
    }

    /// Without transactions what was answered is at the destination, whatever became of the rest.
    fn remember_delivered(&mut self) {
        if self.transactional {
            return;
        }
        let done = self.plan.records.iter().filter(|record| record.fate == Fate::Done);
        self.delivered.extend(done.map(|record| (record.slot, record.offset)));
        self.tell_delivered();
    }

    fn forget_attempt(&mut self) {
        self.base += self.plan.records.len();
        (self.waiting, self.failed, self.own_waiting, self.own_failed) = (0, 0, 0, None);
        self.is_begun = false;
        self.books.shared.in_flight.store(0, Relaxed);
    }
}

/// Codes of records that came back only because the attempt was over.
fn is_echo(code: Code) -> bool {
    matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::State | Code::InvalidDifferentRecord)
}
