//! What the takeover protocol asks for, carried out: claims, fences, the progress topic read to its end.
//!
//! The protocol itself is [`ddc_progress::Owners`]; here are the calls to the cluster, and their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_kafka::admin::Admin;
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::ClientSettings;
use ddc_kafka::topic_log::{TopicLog, TopicLogError};
use ddc_link::receiver::PartitionKey;
use ddc_progress::{
    Action, Applied, MAX_CLAIMS, Memory, Notice, Outcome, Owners, OwnersConfig, Progress, ProgressTable,
    Ticket, transactional_id,
};
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use rdkafka::ClientConfig;

use super::writer::{CALL, Ended, Writer};
use crate::config::KafkaSink;
use crate::egress::control::GivenUp;
use crate::egress::shared::lock;
use crate::sink::destination::CALL_TIMEOUT;
use crate::sink::progress_topic::{self, Ensured, PROGRESS_TOPIC as TOPIC};

/// One kind of message is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The topic is looked at this often when nothing waits for it.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);

/// A record of the topic.
type KeyAndValue = (Vec<u8>, Vec<u8>);

/// What came of [`Ownership::act`].
#[derive(Debug)]
pub(super) enum Acted {
    Nothing,
    Notice(Notice),
    /// The producer or the reader is lost: [`Ownership::lost_producer`] is due, and nothing in memory holds any longer.
    Lost,
}

/// See the module's text.
pub(super) struct Ownership {
    link: String,
    client: ClientSettings,
    reporter: Reporter,
    transactional: bool,
    pub(super) owners: Owners,
    pub(super) table: ProgressTable,
    /// Built for the role `Admin`.
    admin_config: ClientConfig,
    admin: Option<Admin>,
    replication_factor: i32,
    /// What was said of the topic's settings.
    remarks: Vec<String>,
    log: Option<TopicLog>,
    /// There was a reader: when it is gone, that is to be noticed.
    was_open: bool,
    /// The topic is read until this offset, then the action is done.
    reading: Option<(Ticket, i64)>,
    /// What was known when the producer or the reader was lost.
    memory: Memory,
    /// The topic is to be held against it when it was read to its end.
    is_memory_due: bool,
    /// What the topic has lost of this link's records: to be written before the reading counts as done.
    owed: Option<(Ticket, Vec<KeyAndValue>)>,
    metrics: Arc<LinkMetrics<EgressMetrics>>,
    followed_at: Instant,
    limit: RateLimit<&'static str>,
}

impl Ownership {
    pub(super) fn new(
        settings: &KafkaSink,
        admin_config: ClientConfig,
        reporter: Reporter,
        transactional: bool,
        metrics: Arc<LinkMetrics<EgressMetrics>>,
    ) -> Self {
        let config = OwnersConfig {
            link: settings.link.clone(),
            takeover_timeout: settings.takeover_timeout,
            fencing: transactional,
        };
        Self {
            link: settings.link.to_string(),
            client: settings.client.clone(),
            reporter,
            transactional,
            owners: Owners::new(config),
            table: ProgressTable::new(settings.set.clone()),
            admin_config,
            admin: None,
            replication_factor: settings.replication_factor.map_or(-1, i32::from),
            remarks: Vec::new(),
            log: None,
            was_open: false,
            reading: None,
            memory: Memory::new(settings.link.clone()),
            is_memory_due: false,
            owed: None,
            metrics,
            followed_at: Instant::now(),
            limit: RateLimit::new(LOG_EVERY),
        }
    }

    /// Whether an action waits for an answer, so that there is no time to sleep.
    pub(super) fn is_busy(&self) -> bool {
        self.reading.is_some() || self.owed.is_some()
    }

    /// Where a partition stands that may be written now: as the topic says, or as it said before it lost that.
    pub(super) fn known(&self, key: &PartitionKey, progress: Option<Progress>) -> Option<Progress> {
        match (progress, self.memory.progress(key)) {
            (Some(now), Some(lost)) if now.position.next() >= lost.position.next() => Some(now),
            (_, Some(lost)) => {
                tracing::error!(
                    link = self.link,
                    topic = TOPIC,
                    source_topic = key.topic,
                    partition = key.partition,
                    next = lost.position.next(),
                    owner = %lost.owner,
                    "the progress topic has lost how far a partition of another link is settled; it is written from where it was known to stand"
                );
                Some(lost.clone())
            }
            (now, None) => now,
        }
    }

    /// Does what the protocol asks for, until it has nothing to ask or a notice comes, which is the caller's. Only between
    /// transactions.
    pub(super) fn act(&mut self, writer: &mut Writer) -> Result<Acted, GivenUp> {
        if self.log.is_none() && self.was_open {
            // All that was known is to be read again, before anything is written.
            self.was_open = false;
            return Ok(Acted::Lost);
        }
        if let Some(acted) = self.restore(writer)? {
            return Ok(acted);
        }
        while let Some(action) = self.owners.poll(&self.table, Instant::now()) {
            match action {
                Action::Notice(notice) => return Ok(Acted::Notice(notice)),
                Action::Rebuild(ticket) => {
                    let outcome = self.rebuild(writer);
                    self.answer(ticket, outcome);
                }
                Action::CommitClaims(ticket, claims) => {
                    let records: Vec<_> =
                        claims.iter().map(|claim| self.owners.encode(&self.table, claim)).collect();
                    let outcome = match writer.commit_own(TOPIC, &records)? {
                        Ended::Committed => Outcome::Done,
                        Ended::Aborted(_) => Outcome::Failed,
                        Ended::Lost => Outcome::LostProducer,
                    };
                    if outcome == Outcome::LostProducer {
                        return Ok(Acted::Lost);
                    }
                    self.answer(ticket, outcome);
                }
                Action::Fence(ticket, link) => {
                    let outcome = match writer.fence(&transactional_id(self.table.set(), &link))? {
                        Ok(()) => Outcome::Done,
                        Err(why) => self.failed("another link's egress cannot be fenced", &why, writer),
                    };
                    if outcome == Outcome::Done {
                        tracing::info!(link = self.link, fenced = %link, "the egress of another link was fenced");
                    }
                    self.answer(ticket, outcome);
                }
                Action::ReadToEnd(ticket) => match self.high_watermark() {
                    Ok(end) => {
                        self.reading = Some((ticket, end));
                        self.follow(writer);
                    }
                    Err(why) => {
                        let outcome = self.failed("the progress topic cannot be read", &why, writer);
                        self.answer(ticket, outcome);
                    }
                },
            }
        }
        Ok(Acted::Nothing)
    }

    /// Reads on in the progress topic.
    pub(super) fn follow(&mut self, writer: &mut Writer) {
        let now = Instant::now();
        if self.reading.is_none() && now.saturating_duration_since(self.followed_at) < FOLLOW_EVERY {
            return;
        }
        self.followed_at = now;
        let Some(log) = &mut self.log else { return };
        let wait = if self.reading.is_some() { Duration::from_millis(2) } else { Duration::ZERO };
        let (table, limit, link) = (&mut self.table, &mut self.limit, &self.link);
        let read = log.poll(wait, |offset, key, value| {
            let refusal = match table.apply(offset, key, value) {
                Applied::BadValue(why) => why.to_string(),
                Applied::NoRoom => "there are more partitions or links than fit".to_owned(),
                Applied::BadKey => "a key that no version has written".to_owned(),
                Applied::Taken | Applied::Forgotten | Applied::Repeated | Applied::Foreign => return,
            };
            if let Some(suppressed) = limit.allow("record", now) {
                tracing::warn!(
                    link,
                    topic = TOPIC,
                    offset,
                    why = refusal,
                    suppressed,
                    "a record of the progress topic cannot be used"
                );
            }
        });
        if let Err(error) = read {
            self.log_lost(&error, writer);
        }
        if let (Some((ticket, end)), Some(log)) = (self.reading, &self.log)
            && log.position() >= end
        {
            self.reading = None;
            if std::mem::take(&mut self.is_memory_due) {
                self.memory.compare(&self.table);
                let records = self.memory.own_records(&self.table);
                if !records.is_empty() {
                    self.owed = Some((ticket, records));
                    return;
                }
            }
            self.answer(ticket, Outcome::Done);
        }
    }

    /// Writes again what the topic has lost, and has the topic read once more: nothing is written from a state that was lost.
    /// `None`: there is nothing to do.
    fn restore(&mut self, writer: &mut Writer) -> Result<Option<Acted>, GivenUp> {
        let Some((ticket, records)) = self.owed.take() else { return Ok(None) };
        if let Some(suppressed) = self.limit.allow("restore", Instant::now()) {
            tracing::error!(
                link = self.link,
                topic = TOPIC,
                records = records.len(),
                suppressed,
                "the progress topic has lost what this egress wrote there: it was deleted, made again or cut; it is written again from memory. \
                 Find out who did that: had this egress been restarted meanwhile, records would be delivered twice"
            );
        }
        for some in records.chunks(MAX_CLAIMS) {
            match writer.commit_own(TOPIC, some)? {
                Ended::Committed => self.metrics.progress_restored.add(some.len() as u64),
                Ended::Aborted(_) => {
                    // What is there already is written once more, with the same values.
                    self.owed = Some((ticket, records));
                    return Ok(Some(Acted::Nothing));
                }
                Ended::Lost => return Ok(Some(Acted::Lost)),
            }
        }
        match self.high_watermark() {
            Ok(end) => {
                self.reading = Some((ticket, end));
                self.is_memory_due = true;
            }
            Err(why) => {
                self.is_memory_due = true;
                let outcome = self.failed("the progress topic cannot be read", &why, writer);
                self.answer(ticket, outcome);
            }
        }
        Ok(Some(Acted::Nothing))
    }

    /// The producer is lost: what it wrote last, the topic says; unless it has lost that itself. `committed`: what is known to
    /// be there, though it may not have been read yet.
    pub(super) fn lost_producer<'a>(
        &mut self,
        committed: impl Iterator<Item = (&'a Arc<PartitionKey>, Progress)>,
    ) {
        self.memory.absorb(&self.table, committed);
        self.is_memory_due = true;
        (self.reading, self.owed) = (None, None);
        self.owners.lost_producer();
    }

    /// Makes the topic, the reader and the producer.
    fn rebuild(&mut self, writer: &mut Writer) -> Outcome {
        self.reading = None;
        if let Err(why) = writer.prepare() {
            return self.failed("the producer cannot be built", &why, writer);
        }
        if let Err(why) = self.ensure_topic() {
            return self.failed("the progress topic is not ready", &why, writer);
        }
        writer.books.tick.mark();
        if self.log.is_none() {
            match TopicLog::open(&self.client, TOPIC, self.reporter.clone()) {
                Ok(log) => {
                    // From its first record on, into a table that knows nothing.
                    self.table = ProgressTable::new(self.table.set().clone());
                    (self.log, self.was_open) = (Some(log), true);
                }
                Err(error) => {
                    return self.failed("the progress topic cannot be read", &error.to_string(), writer);
                }
            }
        }
        match writer.rebuild() {
            Ok(()) => Outcome::Done,
            Err(why) => {
                let what = if self.transactional {
                    "the destination has not let this egress begin transactions; if it never will, set delivery = \"at_least_once\" in [sink.kafka]"
                } else {
                    "the producer is not ready"
                };
                self.failed(what, &why, writer)
            }
        }
    }

    /// Makes the topic, or looks at the one that is there.
    fn ensure_topic(&mut self) -> Result<(), String> {
        if self.admin.is_none() {
            let admin = Admin::new(&self.admin_config, self.reporter.clone());
            self.admin = Some(admin.map_err(|error| error.to_string())?);
        }
        let Some(admin) = &self.admin else { return Ok(()) };
        match progress_topic::ensure(admin, TOPIC, self.replication_factor, CALL_TIMEOUT) {
            Ensured::Wait(why) => Err(why),
            // `ddc check --connect` says it; here it is no reason to wake anybody.
            Ensured::Unread(why) => {
                tracing::debug!(link = self.link, topic = TOPIC, "{why}");
                Ok(())
            }
            Ensured::Ready(remarks) => {
                for remark in remarks.iter().filter(|remark| !self.remarks.contains(remark)) {
                    tracing::warn!(link = self.link, topic = TOPIC, "{remark}");
                }
                self.remarks = remarks;
                Ok(())
            }
        }
    }

    fn high_watermark(&mut self) -> Result<i64, String> {
        let Some(log) = &self.log else { return Err("its reader is being built anew".to_owned()) };
        log.high_watermark(CALL).map_err(|error| error.to_string())
    }

    fn log_lost(&mut self, error: &TopicLogError, writer: &Writer) {
        self.failed(
            "the progress topic cannot be read; it is read anew from its beginning",
            &error.to_string(),
            writer,
        );
        self.log = None;
    }

    fn failed(&mut self, what: &str, why: &str, writer: &Writer) -> Outcome {
        *lock(&writer.books.shared.sink_problem) = Some(format!("{what}: {why}"));
        if let Some(suppressed) = self.limit.allow("action", Instant::now()) {
            tracing::warn!(link = self.link, why, suppressed, "{what}");
        }
        Outcome::Failed
    }

    fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        self.owners.answer(ticket, outcome, Instant::now());
    }
}
