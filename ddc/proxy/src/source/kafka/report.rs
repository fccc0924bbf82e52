//! What others see of the source: lag, state, and the sentences for `/readyz`, which go away when what they say is over.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ddc_kafka::errors::{Kind, Verdict};
use ddc_telemetry::process::thread_cpu;
use ddc_telemetry::reasons::Thread;
use ddc_wire::SourceState;

use super::KafkaSource;
use crate::config::TopicPattern;
use crate::reason::reason;

/// How often lag and problems are worked out.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Trouble that passes by itself is a problem once the brokers have given no sign of life for this long.
const SILENT: Duration = Duration::from_secs(5);

/// The last error of the source's Kafka.
pub(super) struct Trouble {
    sentence: String,
    kind: Kind,
}

impl KafkaSource {
    /// The brokers did something for us: what was wrong with them is over.
    pub(super) fn note_alive(&mut self, now: Instant) {
        self.alive_at = now;
        if self.trouble.as_ref().is_some_and(|trouble| !lasts(trouble.kind)) {
            self.trouble = None;
        }
    }

    pub(super) fn on_error(&mut self, verdict: &Verdict, error: &str) {
        self.metrics.source_errors.inc(reason(*verdict));
        // A partition whose offset is gone starts again, which is told by itself.
        if verdict.kind != Kind::OffsetGone {
            let sentence = format!("the source's Kafka: {error}; {}", verdict.advice);
            self.trouble = Some(Trouble { sentence, kind: verdict.kind });
        }
        if let Some(suppressed) = self.limit.allow(verdict.reason.to_owned(), Instant::now()) {
            tracing::warn!(
                link = &*self.link,
                error,
                reason = verdict.reason,
                advice = verdict.advice,
                suppressed,
                "the source's Kafka reported an error"
            );
        }
    }

    pub(super) fn report(&mut self, now: Instant) {
        self.shared.set_source_state(if self.paused {
            SourceState::Paused
        } else if self.outlet.is_full() {
            SourceState::Full
        } else if self.reading.is_empty() {
            SourceState::Starting
        } else {
            SourceState::Running
        });
        if now < self.next_report {
            return;
        }
        self.next_report = now + REPORT_EVERY;
        self.metrics.common.thread_cpu_seconds.set(Thread::Source, thread_cpu());
        self.measure_lag();
        self.shared.set_problem("start", self.starting.problem(now));
        self.shared.set_problem("source", self.source_problem(now));
        self.shared.set_problem("topics", self.topics.problem());
        self.shared.set_problem("dead_letters", self.letters.trouble());
        self.shared.set_problem("packer", self.refused.values().next().cloned());
        self.shared.set_problem("pause", self.pauses.problem());
        let unassigned =
            self.reading.is_empty() && self.refused.is_empty() && !self.starting.is_waiting() && !self.paused;
        self.shared.set_problem("assignment", unassigned.then(|| self.no_partition()));
    }

    /// Records at the source behind what was *sent*, not behind what was committed.
    fn measure_lag(&mut self) {
        let mut lag = Some(0u64);
        let mut topics = BTreeMap::<&str, f64>::new();
        for (slot, reading) in &self.reading {
            let sent =
                self.outlet.log.newest_sent(*slot).map_or(reading.start.partition.next, |mark| mark.end);
            let high = self.member.cached_watermarks(&reading.topic, reading.partition).map(|(_, high)| high);
            let behind = high.map(|high| high.saturating_sub(sent).max(0) as u64);
            lag = lag.zip(behind).map(|(sum, behind)| sum + behind);
            *topics.entry(&reading.topic).or_default() += behind.unwrap_or(0) as f64;
        }
        let lag = lag.filter(|_| !self.reading.is_empty());
        self.shared.lag.store(lag.unwrap_or(crate::ingress::UNKNOWN_LAG), Ordering::Relaxed);
        match lag {
            Some(_) => self.metrics.consumer_lag.set_all(topics),
            None => self.metrics.consumer_lag.clear(),
        }
    }

    fn source_problem(&self, now: Instant) -> Option<String> {
        let silent = now.duration_since(self.alive_at) > SILENT;
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| lasts(trouble.kind)) {
            return Some(trouble.sentence.clone());
        }
        if !silent {
            return None;
        }
        // librdkafka tells the client which broker is away or refuses us, and why; the caller of `poll` hears the kind only.
        match self.reporter.last_error().filter(|error| error.at > self.alive_at) {
            Some(error) => Some(format!("the source's Kafka: {}; {}", error.text, error.verdict.advice)),
            None => self.trouble.as_ref().map(|trouble| trouble.sentence.clone()),
        }
    }

    fn no_partition(&self) -> String {
        let topics: Vec<&str> = self.settings.topics.iter().map(TopicPattern::as_str).collect();
        format!(
            "no partition is assigned: group {}, topics {}; the brokers may be away, no topic may match, or other members \
             of the group may have all partitions",
            self.settings.group,
            topics.join(", ")
        )
    }
}

/// Whether somebody must mend it: a sign of life of the brokers says nothing about it.
fn lasts(kind: Kind) -> bool {
    matches!(kind, Kind::Fatal | Kind::Fenced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddc_kafka::errors::classify_code;
    use ddc_telemetry::reasons::KafkaErrorReason;
    use rdkafka::types::RDKafkaErrorCode as Code;

    #[test]
    fn errors_have_the_label_that_an_alert_looks_for() {
        for (code, label) in [
            (Code::AllBrokersDown, KafkaErrorReason::Connection),
            (Code::Resolve, KafkaErrorReason::Connection),
            (Code::OperationTimedOut, KafkaErrorReason::Timeout),
            (Code::SaslAuthenticationFailed, KafkaErrorReason::Authentication),
            (Code::TopicAuthorizationFailed, KafkaErrorReason::Authorization),
            (Code::UnknownTopicOrPartition, KafkaErrorReason::UnknownTopic),
            (Code::OffsetOutOfRange, KafkaErrorReason::OffsetOutOfRange),
        ] {
            assert_eq!(reason(classify_code(code)), label, "{code:?}");
        }
    }
}
