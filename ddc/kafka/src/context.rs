//! librdkafka's log lines and client errors → tracing, and a state that can be shown.
//!
//! librdkafka repeats a line for every broker it cannot reach, several times a second. [`Reporter`] logs each kind of
//! line at most once in ten seconds and says how many it left out; the last client error stays readable for
//! `/readyz` and `/status` until something works again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::errors::{Verdict, classify};

/// Where the contexts of a cluster's clients report. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Reporter(Arc<Shared>);

struct Shared {
    link: String,
    client: &'static str,
    lines: Mutex<HashMap<String, Line>>,
    last_error: Mutex<Option<ClientError>>,
}

/// A line that was logged: when, and how many like it were not logged since.
struct Line {
    logged: Instant,
    suppressed: u64,
}

/// What is wrong with a client, as librdkafka said it last.
#[derive(Clone, Debug)]
pub struct ClientError {
    /// What it means.
    pub verdict: Verdict,
    /// librdkafka's words.
    pub text: String,
    /// When.
    pub at: Instant,
}

/// Lines of one kind are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Kinds of lines that are remembered; the table starts anew when full.
const LINE_KINDS: usize = 256;

impl Reporter {
    /// For the clients of `link`; `client` says which ("source", "sink", "admin").
    pub fn new(link: impl Into<String>, client: &'static str) -> Reporter {
        Reporter(Arc::new(Shared {
            link: link.into(),
            client,
            lines: Mutex::default(),
            last_error: Mutex::default(),
        }))
    }

    /// The last client error that nothing has cleared.
    pub fn last_error(&self) -> Option<ClientError> {
        lock(&self.0.last_error).clone()
    }

    /// Something worked (a record was read, an acknowledgement came): what was wrong is over.
    pub fn clear_error(&self) {
        *lock(&self.0.last_error) = None;
    }

    /// Takes an error librdkafka reports for the client as a whole.
    pub fn error(&self, error: &KafkaError, text: &str) {
        let verdict = classify(error);
        *lock(&self.0.last_error) = Some(ClientError { verdict, text: text.to_owned(), at: Instant::now() });
        let Some(suppressed) = self.admit(verdict.reason) else { return };
        tracing::warn!(
            link = self.0.link,
            client = self.0.client,
            reason = verdict.reason,
            error = text,
            advice = verdict.advice,
            suppressed,
            "Kafka client error"
        );
    }

    /// Takes a log line of librdkafka. Its levels are about one client; ours are about data (DESIGN §12): a broker that
    /// is away is something to look at, not a loss.
    pub fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            tracing::trace!(target: "librdkafka", link = self.0.link, client = self.0.client, facility, line, "librdkafka");
            return;
        }
        let Some(suppressed) = self.admit(facility) else { return };
        let (link, client) = (&self.0.link, self.0.client);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", link, client, facility, line, suppressed, "librdkafka");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", link, client, facility, line, suppressed, "librdkafka");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::info!(target: "librdkafka", link, client, facility, line, suppressed, "librdkafka");
            }
        }
    }

    /// Whether a line of this kind may be logged now: `Some(number left out since the last one)`.
    fn admit(&self, kind: &str) -> Option<u64> {
        let mut lines = lock(&self.0.lines);
        if let Some(line) = lines.get_mut(kind) {
            if line.logged.elapsed() < LOG_EVERY {
                line.suppressed += 1;
                return None;
            }
            let suppressed = line.suppressed;
            *line = Line { logged: Instant::now(), suppressed: 0 };
            return Some(suppressed);
        }
        if lines.len() >= LINE_KINDS {
            lines.clear();
        }
        lines.insert(kind.to_owned(), Line { logged: Instant::now(), suppressed: 0 });
        Some(0)
    }
}

/// The context of a client that needs no callbacks of its own (the admin client).
#[derive(Clone)]
pub struct ReportingContext(pub Reporter);

impl ClientContext for ReportingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

/// Nobody waits for the answers of a producer with this context: it is for what writes nothing.
impl ProducerContext for ReportingContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaErrorCode as Code;

    #[test]
    fn a_flood_of_one_kind_is_logged_once_and_counted() {
        let reporter = Reporter::new("l", "source");
        assert_eq!(reporter.admit("FAIL"), Some(0));
        for _ in 0..1000 {
            assert_eq!(reporter.admit("FAIL"), None);
        }
        assert_eq!(reporter.admit("OTHER"), Some(0));
        lock(&reporter.0.lines).get_mut("FAIL").unwrap().logged -= LOG_EVERY;
        assert_eq!(reporter.admit("FAIL"), Some(1000));
    }

    #[test]
    fn the_table_of_lines_is_bounded() {
        let reporter = Reporter::new("l", "source");
        for index in 0..10 * LINE_KINDS {
            reporter.admit(&index.to_string());
        }
        assert!(lock(&reporter.0.lines).len() <= LINE_KINDS);
    }

    #[test]
    fn the_last_error_stays_until_something_works() {
        let reporter = Reporter::new("l", "sink");
        assert!(reporter.last_error().is_none());
        reporter.error(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let shown = reporter.clone().last_error().unwrap();
        assert_eq!((shown.verdict.reason, shown.text.as_str()), ("unreachable", "1/1 brokers are down"));
        reporter.clear_error();
        assert!(reporter.last_error().is_none());
    }
}
