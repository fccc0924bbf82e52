//! The log: set-up, the level that can be changed while running, and the rate limit of repeated messages.
//!
//! ```text
//!  any thread ── tracing ──▶ level ─┬▶ text or JSON ──▶ queue, bounded ──▶ its thread ──▶ stderr
//!                                   └▶ syslog: a queue and a thread per target (crate::syslog)
//! ```
//! Everything goes to stderr, as text for people or one JSON object per line for machines, and to the syslog targets, if there are
//! any. Levels: ERROR = data was lost or will be; WARN = a human should look, nothing lost; INFO = life cycle. Messages are constant,
//! facts are fields.
//!
//! A thread that logs formats its line and hands it on; it never waits for a reader. What the readers are too slow for is dropped and
//! counted. Formatting costs some microseconds, so the data path logs only what [`RateLimit`] lets through.

mod rate_limit;
mod stderr;

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::panic;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::Subscriber;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::syslog::{self, Facility, Syslog, SyslogLayer, Target};
use crate::{Identity, ProcessMetrics};
pub use rate_limit::{MAX_KEYS, RateLimit};
use stderr::LineWriter;
pub use stderr::{MAX_LINE_BYTES, MAX_LINES};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line; the event's fields stand beside `timestamp`, `level`, `target` and `message`.
    Json,
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format(text.to_owned())),
        }
    }
}

/// Which messages are wanted: `info`, or per crate as in `info,ddc_link=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(String);

impl FromStr for LogLevel {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        // EnvFilter takes a misspelt level for the name of a crate and would then log nothing at all.
        let known = |level: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&level);
        let directives: Vec<&str> = text.split(',').map(str::trim).collect();
        let misspelt =
            directives.iter().find(|directive| !directive.contains(['=', '[']) && !known(directive));
        if let Some(misspelt) = misspelt {
            return Err(LogError::Level { text: text.to_owned(), why: format!("`{misspelt}` is no level") });
        }
        let level = directives.join(",");
        match EnvFilter::builder().parse(&level) {
            Ok(_) => Ok(Self(level)),
            Err(why) => Err(LogError::Level { text: text.to_owned(), why: why.to_string() }),
        }
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LogLevel {
    fn filter(&self) -> EnvFilter {
        // Parsed once already by `from_str`, or the default; a filter that is lenient with the rest changes nothing.
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a level.
    #[error(
        "log level `{text}`: {why}; use error, warn, info, debug, trace or off, or per crate as in `info,ddc_link=debug`"
    )]
    Level {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// Not a format.
    #[error("log format `{0}` is not known; use `text` or `json`")]
    Format(String),
    /// [`init`] was called twice, or a library took the place.
    #[error("the log is set up already in this process: {0}")]
    AlreadySet(String),
    /// The log is no longer there.
    #[error("the log level cannot be changed: {0}")]
    Gone(String),
    /// Too many syslog targets, or no thread for one.
    #[error("syslog cannot start: {0}")]
    Syslog(#[source] io::Error),
}

/// How long the end of the log may take per stage: syslog, then stderr.
const FLUSH: Duration = Duration::from_millis(500);

/// The running log: changes its level, and flushes it. Cheap to clone.
///
/// Keep one clone until the process ends: when the last is dropped, what was logged is written, for half a second of syslog and a
/// second of stderr at most, and the log ends; what is logged from then on is lost.
#[derive(Clone, Debug)]
pub struct LogHandle {
    level: reload::Handle<EnvFilter, Registry>,
    outputs: Option<Arc<Outputs>>,
}

/// Fields are dropped in order: syslog first, since it may have something to tell on stderr.
#[derive(Debug)]
struct Outputs {
    syslog: Syslog,
    stderr: LineWriter,
    _thread: WorkerGuard,
}

impl LogHandle {
    /// From now on only messages of this level are logged (SIGHUP, admin API).
    pub fn set_level(&self, level: &LogLevel) -> Result<(), LogError> {
        self.level.reload(level.filter()).map_err(|error| LogError::Gone(error.to_string()))
    }

    /// Waits until what was logged before is out, half a second for syslog and as long for stderr at most.
    pub fn flush(&self) {
        if let Some(outputs) = &self.outputs {
            outputs.flush();
        }
    }
}

impl Outputs {
    fn flush(&self) {
        self.syslog.flush(FLUSH);
        self.stderr.flush(FLUSH);
    }
}

/// Sets the log of the process up, on stderr and for the syslog targets, for [`tracing`] and for libraries that use the `log` crate.
/// Colours only on a terminal.
///
/// No target is waited for. A panic of any thread is logged as an error, and the log flushed, before the panic goes on: also when it
/// ends the process, its reason arrives.
pub fn init(
    level: &LogLevel,
    format: LogFormat,
    targets: &[Target],
    facility: Facility,
    identity: &Identity,
    metrics: &Arc<ProcessMetrics>,
) -> Result<LogHandle, LogError> {
    let (layer, syslog) = syslog::start(targets, facility, identity, metrics).map_err(LogError::Syslog)?;
    let (stderr, thread) = stderr::lines_to(io::stderr(), metrics);
    let layer = (!targets.is_empty()).then_some(layer);
    let (subscriber, mut handle) =
        subscriber(level, format, stderr.clone(), io::stderr().is_terminal(), layer);
    subscriber.try_init().map_err(|error| LogError::AlreadySet(error.to_string()))?;
    let outputs = Arc::new(Outputs { syslog, stderr, _thread: thread });
    log_panics(&outputs);
    handle.outputs = Some(outputs);
    Ok(handle)
}

/// The panic hook: into the log, out with the log, then whatever was the hook before (the standard one writes to stderr itself).
fn log_panics(outputs: &Arc<Outputs>) {
    let outputs = Arc::downgrade(outputs);
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let location = panic.location().map_or_else(String::new, ToString::to_string);
        let thread = thread::current();
        tracing::error!(
            event = "panic",
            thread = thread.name().unwrap_or("unnamed"),
            location,
            reason = panic.payload_as_str().unwrap_or("unknown"),
            "a thread panicked; please report it"
        );
        if let Some(outputs) = outputs.upgrade() {
            outputs.flush();
        }
        before(panic);
    }));
}

fn subscriber<W>(
    level: &LogLevel,
    format: LogFormat,
    writer: W,
    colours: bool,
    syslog: Option<SyslogLayer>,
) -> (impl Subscriber + Send + Sync, LogHandle)
where
    W: for<'w> MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(level.filter());
    let text = (format == LogFormat::Text)
        .then(|| tracing_subscriber::fmt::layer().with_writer(writer.clone()).with_ansi(colours));
    let json = (format == LogFormat::Json).then(|| {
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).json();
        layer.flatten_event(true).with_current_span(false).with_span_list(false)
    });
    let subscriber = Registry::default().with(filter).with(text).with(json).with(syslog);
    (subscriber, LogHandle { level: handle, outputs: None })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(level: &str, format: LogFormat, act: impl FnOnce(&LogHandle)) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let (subscriber, handle) =
            subscriber(&level.parse().unwrap(), format, move || writer.clone(), false, None);
        tracing::subscriber::with_default(subscriber, || act(&handle));
        memory.text()
    }

    #[test]
    fn json_is_one_object_per_line_with_the_fields_beside_the_message() {
        let text = logged("info", LogFormat::Json, |_| {
            tracing::warn!(link = "plant-a", suppressed = 3, topic = "a\"b\nc", "datagram refused");
            tracing::debug!("not wanted");
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["message"], "datagram refused");
        assert_eq!((&lines[0]["link"], &lines[0]["suppressed"]), (&"plant-a".into(), &3.into()));
        assert_eq!(lines[0]["topic"], "a\"b\nc");
        assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn text_has_no_colours_off_a_terminal_and_names_the_facts() {
        let text = logged("warn", LogFormat::Text, |_| {
            tracing::warn!(link = "plant-a", "socket drops");
            tracing::info!("not wanted");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("WARN") && text.contains("socket drops link=\"plant-a\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    /// A topic's name comes from outside; it must not forge a second line or drive the terminal.
    #[test]
    fn text_escapes_what_could_forge_a_line() {
        let text = logged("info", LogFormat::Text, |_| {
            tracing::warn!(topic = "x\n2026 ERROR forged\u{1b}[2J", "unknown topic");
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn the_level_changes_while_running() {
        let text = logged("error", LogFormat::Text, |handle| {
            tracing::info!("one");
            handle.set_level(&"info,ddc_telemetry::log=debug".parse().unwrap()).unwrap();
            tracing::debug!("two");
            handle.set_level(&"off".parse().unwrap()).unwrap();
            tracing::error!("three");
        });
        assert!(text.contains("two") && !text.contains("one") && !text.contains("three"), "{text}");
    }

    #[test]
    fn a_wrong_level_or_format_is_named_with_the_remedy() {
        for wrong in ["", "inof", "warning", "info,", "ddc_link=loud", "info,debg"] {
            let error = wrong.parse::<LogLevel>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("log level `{wrong}`: ")), "{error}");
            assert!(error.contains("use error, warn, info, debug, trace or off"), "{error}");
        }
        for right in ["info", "off", "info, ddc_link=debug", "warn,ddc_udp=trace,rdkafka=off"] {
            right.parse::<LogLevel>().unwrap();
        }
        assert_eq!(LogLevel::default().to_string(), "info");
        assert_eq!(
            "xml".parse::<LogFormat>().unwrap_err().to_string(),
            "log format `xml` is not known; use `text` or `json`"
        );
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
    }
}
