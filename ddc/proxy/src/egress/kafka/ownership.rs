//! What the takeover protocol asks for, carried out: claims, fences, the progress topic read to its end.
//!
//! The protocol itself is [`ddc_progress::Owners`]; here are the calls to the cluster, and their answers.

use std::time::{Duration, Instant};

use ddc_kafka::admin::Admin;
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::ClientSettings;
use ddc_kafka::topic_log::{TopicLog, TopicLogError};
use ddc_progress::{
    Action, Applied, Notice, Outcome, Owners, OwnersConfig, ProgressTable, Ticket, transactional_id,
};
use ddc_telemetry::log::RateLimit;
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
    followed_at: Instant,
    limit: RateLimit<&'static str>,
}

impl Ownership {
    pub(super) fn new(
        settings: &KafkaSink,
        admin_config: ClientConfig,
        reporter: Reporter,
        transactional: bool,
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
            followed_at: Instant::now(),
            limit: RateLimit::new(LOG_EVERY),
        }
    }

    /// Whether an action waits for an answer, so that there is no time to sleep.
    pub(super) fn is_busy(&self) -> bool {
        self.reading.is_some()
    }

    /// Does what the protocol asks for, until it has nothing to ask or a notice comes, which is the caller's. Only between
    /// transactions.
    pub(super) fn act(&mut self, writer: &mut Writer) -> Result<Acted, GivenUp> {
        if self.log.is_none() && self.was_open {
            // All that was known is to be read again, before anything is written.
            self.was_open = false;
            return Ok(Acted::Lost);
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
            self.answer(ticket, Outcome::Done);
        }
    }

    /// The producer is lost: what it wrote last, the topic says.
    pub(super) fn lost_producer(&mut self) {
        self.reading = None;
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
