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

mod stderr;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::io::{self, IsTerminal as _};
use std::panic;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::Subscriber;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::syslog::{self, Facility, Syslog, SyslogLayer, Target};
use crate::{Identity, ProcessMetrics};
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

/// How many keys a [`RateLimit`] tells apart; what comes beyond shares one.
pub const MAX_KEYS: usize = 256;

/// Lets a message through at most once per interval and key, and counts what it held back.
///
/// One per thread, without a lock. Keys are small and cheap (`&'static str`, an enum, a pair of numbers); one that comes from the
/// network may be of any number: beyond [`MAX_KEYS`] keys inside one interval the rest share one.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use ddc_telemetry::log::RateLimit;
/// let mut limit = RateLimit::new(Duration::from_secs(10));
/// if let Some(suppressed) = limit.allow("seal", Instant::now()) {
///     tracing::warn!(reason = "seal", suppressed, "datagram refused");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimit<K> {
    interval: Duration,
    keys: HashMap<K, Slot>,
    rest: Slot,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl Slot {
    fn is_due(&self, now: Instant, interval: Duration) -> bool {
        self.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= interval)
    }

    fn allow(&mut self, now: Instant, interval: Duration) -> Option<u64> {
        if self.is_due(now, interval) {
            self.logged_at = Some(now);
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }
}

impl<K: Eq + Hash + Clone> RateLimit<K> {
    /// At most one message per key and `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, keys: HashMap::with_capacity(MAX_KEYS), rest: Slot::default() }
    }

    /// `Some(n)`: log it, and say that `n` like it were held back before. `None`: don't.
    pub fn allow(&mut self, key: K, now: Instant) -> Option<u64> {
        if let Some(slot) = self.keys.get_mut(&key) {
            return slot.allow(now, self.interval);
        }
        if self.keys.len() >= MAX_KEYS && !self.make_room(now) {
            return self.rest.allow(now, self.interval);
        }
        let mut slot = Slot::default();
        let allowed = slot.allow(now, self.interval);
        self.keys.insert(key, slot);
        allowed
    }

    /// Forgets every key that is silent for an interval. What it held back is told with the next message of the shared key.
    /// The scan happens at most once per interval when it is in vain: `rest` is then not due.
    fn make_room(&mut self, now: Instant) -> bool {
        if !self.rest.is_due(now, self.interval) {
            return false;
        }
        let (interval, rest) = (self.interval, &mut self.rest);
        self.keys.retain(|_, slot| {
            let keep = !slot.is_due(now, interval);
            if !keep {
                rest.suppressed += slot.suppressed;
            }
            keep
        });
        self.keys.len() < MAX_KEYS
    }

    /// Calls `log` for each key (`None`: the shared one) that held messages back and whose interval is over, so that the end of a
    /// storm is told even if no such message comes again. To be called now and then.
    pub fn flush(&mut self, now: Instant, mut log: impl FnMut(Option<&K>, u64)) {
        let slots = self.keys.iter_mut().map(|(key, slot)| (Some(key), slot));
        for (key, slot) in slots.chain([(None, &mut self.rest)]) {
            if slot.suppressed > 0 && slot.is_due(now, self.interval) {
                slot.logged_at = Some(now);
                log(key, std::mem::take(&mut slot.suppressed));
            }
        }
    }
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

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn one_message_per_key_and_interval_and_the_rest_is_counted() {
        let (mut limit, start) = (RateLimit::new(INTERVAL), Instant::now());
        assert_eq!(limit.allow("seal", start), Some(0));
        for _ in 0..1_000 {
            assert_eq!(limit.allow("seal", start + INTERVAL / 2), None);
        }
        assert_eq!(limit.allow("magic", start + INTERVAL / 2), Some(0), "another key is free");
        assert_eq!(limit.allow("seal", start + INTERVAL), Some(1_000));
        assert_eq!(limit.allow("seal", start + INTERVAL), None);
        assert_eq!(limit.allow("seal", start), None, "a clock read earlier by another thread is harmless");
        assert_eq!(limit.allow("seal", start + INTERVAL * 2), Some(2));
    }

    #[test]
    fn keys_are_bounded_and_nothing_held_back_is_forgotten() {
        let (mut limit, start) = (RateLimit::new(INTERVAL), Instant::now());
        let mut told = 0;
        for key in 0..10_000 {
            told += limit.allow(key, start).map_or(0, |held_back| held_back + 1);
            assert!(limit.keys.len() <= MAX_KEYS);
        }
        assert_eq!(told, MAX_KEYS as u64 + 1, "each key once, and the shared one once");
        for _ in 0..7 {
            assert_eq!(limit.allow(3, start), None);
        }
        // An interval later the silent keys make room; all that was held back is told by and by.
        told += limit.allow(77_777, start + INTERVAL).map_or(0, |held_back| held_back + 1);
        limit.flush(start + INTERVAL, |_, held_back| told += held_back);
        assert_eq!(told, 10_000 + 7 + 1);
    }

    #[test]
    fn flush_tells_the_end_of_a_storm_once() {
        let (mut limit, start) = (RateLimit::new(INTERVAL), Instant::now());
        for _ in 0..5 {
            limit.allow("seal", start);
        }
        let mut told = Vec::new();
        limit.flush(start + INTERVAL / 2, |key, n| told.push((key.copied(), n)));
        assert_eq!(told, [], "not before the interval is over");
        limit.flush(start + INTERVAL, |key, n| told.push((key.copied(), n)));
        limit.flush(start + INTERVAL * 2, |key, n| told.push((key.copied(), n)));
        assert_eq!(told, [(Some("seal"), 4)]);
    }
}
