//! `ddc ingress` and `ddc egress`: load, check, start, watch, drain.
//!
//! ```text
//!  files ─▶ configuration ─▶ proxies (threads of their own) + admin listeners (one thread)
//!                                  │ main thread: signals, watchdog, systemd │
//!                                  └──────── SIGTERM ─▶ drain ─▶ exit ───────┘
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use ddc_proxy::admin::{AdminServer, AdminState};
use ddc_proxy::config::{self, Config, ConfigError, Loaded, check_together, unused_together};
use ddc_proxy::egress::{self, Egress};
use ddc_proxy::ingress::{self, Ingress};
use ddc_telemetry::log::{self, LogHandle};
use ddc_telemetry::notify::{self, Watchdog};
use ddc_telemetry::statsd::Reporter;
use ddc_telemetry::{Identity, ProcessMetrics, Registry};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::admin_thread::AdminThread;
use crate::exit::{Exit, Failure};

/// How often readiness, maintenance and certificates are looked at for telemetry.
const EACH_SECOND: Duration = Duration::from_secs(1);
/// How often the line that `systemctl status` shows is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Read Kafka topics and send them over a one-way link
///
/// Runs until SIGTERM or SIGINT, then drains: sends what is packed, commits what may be committed, says goodbye. SIGHUP
/// reads the files again and takes over rate, active key and log level.
#[derive(Debug, clap::Args)]
pub(crate) struct IngressArguments {
    /// A configuration file of an ingress; give it several times for several links in one process
    #[arg(short = 'c', long = "config", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
}

/// Receive a one-way link and write its records to Kafka
///
/// Runs until SIGTERM or SIGINT, then drains: delivers what was received, keeps its positions. SIGHUP reads the files
/// again and takes over the keys and the log level.
#[derive(Debug, clap::Args)]
pub(crate) struct EgressArguments {
    /// A configuration file of an egress; give it several times for several links in one process
    #[arg(short = 'c', long = "config", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
}

pub(crate) fn ingress(arguments: &IngressArguments) -> Result<(), Failure> {
    serve(&arguments.files, |file| {
        let loaded = config::load_ingress(file)?;
        Ok(Loaded { file: loaded.file, config: Config::Ingress(loaded.config), notices: loaded.notices })
    })
}

pub(crate) fn egress(arguments: &EgressArguments) -> Result<(), Failure> {
    serve(&arguments.files, |file| {
        let loaded = config::load_egress(file)?;
        Ok(Loaded { file: loaded.file, config: Config::Egress(loaded.config), notices: loaded.notices })
    })
}

type Load = fn(&Path) -> Result<Loaded<Config>, ConfigError>;

/// One running side of a link.
enum Proxy {
    Ingress(Ingress),
    Egress(Box<Egress>),
}

impl Proxy {
    fn start(config: Config, registry: &Registry, watchdog: &Watchdog) -> anyhow::Result<Self> {
        let (registry, watchdog) = (registry.clone(), watchdog.clone());
        Ok(match config {
            Config::Ingress(config) => {
                Self::Ingress(ingress::start(config, &ingress::Options { registry, watchdog })?)
            }
            Config::Egress(config) => {
                Self::Egress(Box::new(egress::start(config, &egress::Options { registry, watchdog })?))
            }
        })
    }

    fn view(&self) -> Arc<dyn AdminState> {
        match self {
            Self::Ingress(ingress) => Arc::new(ingress.view()),
            Self::Egress(egress) => Arc::new(egress.view()),
        }
    }

    fn stop(&self) {
        match self {
            Self::Ingress(ingress) => ingress.stop(),
            Self::Egress(egress) => egress.stop(),
        }
    }

    fn has_failed(&self) -> bool {
        match self {
            Self::Ingress(ingress) => ingress.has_failed(),
            Self::Egress(egress) => egress.has_failed(),
        }
    }

    /// Waits for the end of the drain. `false`: a thread panicked.
    fn join(self) -> bool {
        match self {
            Self::Ingress(ingress) => ingress.join(),
            Self::Egress(egress) => egress.join().sound,
        }
    }

    /// How long a stop may take before it is not waited for any longer. An egress bounds its own by `drain_timeout`.
    fn stop_bound(&self) -> Option<Duration> {
        match self {
            Self::Ingress(_) => Some(ingress::STOP_BOUND),
            Self::Egress(_) => None,
        }
    }

    /// Takes over what can change while running.
    fn reload(&self, config: &Config) {
        match (self, config) {
            (Self::Ingress(ingress), Config::Ingress(config)) => {
                ingress.rate().set(config.rate);
                ingress.seal().set(config.seal.clone());
                ingress.reload_certificates();
            }
            (Self::Egress(egress), Config::Egress(config)) => {
                if let config::Seal::Aes256Gcm(keys) = &config.seal {
                    egress.reload_keyring(keys);
                }
                egress.reload_certificates();
            }
            // The loader of a side yields that side only.
            _ => {}
        }
    }
}

/// What tells the series of this process from those of others: its first link, and the site that link's file names.
pub(super) fn identity(first: Option<&Config>) -> Identity {
    let process =
        first.map_or_else(|| "ddc".to_owned(), |config| format!("{}-{}", config.side(), config.link().name));
    let site = first.and_then(|config| config.telemetry().site.as_ref()).map(|site| site.as_str().to_owned());
    Identity { process, site }
}

fn serve(files: &[PathBuf], load: Load) -> Result<(), Failure> {
    let loaded = load_all(files, load)?;
    let process = Arc::new(ProcessMetrics::default());
    let first = loaded.first().map(|loaded| &loaded.config);
    let identity = identity(first);
    let log = start_log(first, &identity, &process)?;
    for loaded in &loaded {
        for notice in &loaded.notices {
            tracing::warn!(file = %loaded.file.display(), line = notice.line, "{}", notice.message);
        }
    }
    for unused in unused_together(&loaded) {
        tracing::warn!("{unused}");
    }
    let statsd = first.map(|config| config.telemetry().statsd.clone()).unwrap_or_default();
    let unavailable = |error: anyhow::Error| Failure::new(Exit::Unavailable, format!("{error:#}"));
    process.build_info.set(env!("CARGO_PKG_VERSION"), &instance_id());
    process.process_start_timestamp_seconds.set_time(SystemTime::now());
    let registry = Registry::new(Arc::clone(&process), identity);
    let watchdog = Watchdog::from_env();
    let signals = Signals::catch().map_err(unavailable)?;

    let mut proxies = Vec::new();
    let mut admins = Vec::new();
    for Loaded { config, .. } in loaded {
        let admin = config.admin().clone();
        let started = Proxy::start(config, &registry, &watchdog).and_then(|proxy| {
            let server = AdminServer::bind(&admin, proxy.view());
            proxies.push(proxy);
            admins.push(server?);
            Ok(())
        });
        if let Err(error) = started {
            proxies.iter().for_each(Proxy::stop);
            for proxy in proxies {
                proxy.join();
            }
            return Err(unavailable(error));
        }
    }
    let admin = AdminThread::start(admins).map_err(unavailable)?;
    let views: Vec<_> = proxies.iter().map(Proxy::view).collect();
    let reporter = Reporter::start(registry, statsd).map_err(|error| {
        unavailable(anyhow::Error::new(error).context("the thread for StatsD cannot start"))
    })?;
    tell(notify::ready("running"));
    let sound = watch_over(&proxies, files, load, &signals, &watchdog, &process, &log);
    tell(notify::stopping("draining"));
    tracing::info!("stopping: draining");
    let ended = drain(proxies, &watchdog, &process);
    // The end of the figures, of the listeners, and last, when `log` is dropped, of the messages.
    for view in &views {
        let _ = view.each_second();
    }
    reporter.stop();
    admin.stop();
    if sound && ended {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Internal,
        "a thread ended without being asked to; the log above says where; please report it",
    ))
}

/// Serves signals, the watchdog and the status line until a stop. `false`: a thread has failed.
fn watch_over(
    proxies: &[Proxy],
    files: &[PathBuf],
    load: Load,
    signals: &Signals,
    watchdog: &Watchdog,
    process: &ProcessMetrics,
    log: &LogHandle,
) -> bool {
    let views: Vec<_> = proxies.iter().map(Proxy::view).collect();
    let mut problems: Vec<String> = Vec::new();
    let (mut next_second, mut next_status) = (Instant::now(), Instant::now());
    while !signals.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        ping(watchdog, process);
        if proxies.iter().any(Proxy::has_failed) {
            tracing::error!(
                "a thread of the data path has ended; the process stops so that it is started anew"
            );
            return false;
        }
        if signals.reload.swap(false, Ordering::Relaxed) {
            reload(proxies, files, load, log);
        }
        if now >= next_second {
            next_second = now + EACH_SECOND;
            problems = views.iter().filter_map(|view| view.each_second().err()).flatten().collect();
        }
        if now >= next_status {
            next_status = now + STATUS_EVERY;
            tell(notify::status(
                if problems.is_empty() { "ready".into() } else { problems.join("; ") }.as_str(),
            ));
        }
        // A signal interrupts the sleep only by chance; this bounds how late it is served.
        thread::sleep(watchdog.poll_every().min(Duration::from_millis(100)));
    }
    true
}

/// Tells systemd that every thread moved, when every thread moved.
fn ping(watchdog: &Watchdog, process: &ProcessMetrics) {
    if let Err(error) = watchdog.poll(Instant::now(), &process.process_ticks) {
        tracing::debug!(%error, "the service manager's watchdog cannot be reached");
    }
}

/// Waits for the end of all drains, each within its bound. `false`: a thread panicked or was not waited for any longer.
fn drain(proxies: Vec<Proxy>, watchdog: &Watchdog, process: &ProcessMetrics) -> bool {
    proxies.iter().for_each(Proxy::stop);
    let start = Instant::now();
    let mut threads: Vec<(Option<Duration>, JoinHandle<bool>)> =
        proxies.into_iter().map(|proxy| (proxy.stop_bound(), thread::spawn(move || proxy.join()))).collect();
    let mut sound = true;
    while !threads.is_empty() {
        ping(watchdog, process);
        thread::sleep(Duration::from_millis(10));
        let late = |bound: &Option<Duration>| bound.is_some_and(|bound| start.elapsed() > bound);
        let (ended, running): (Vec<_>, Vec<_>) =
            threads.into_iter().partition(|(bound, thread)| thread.is_finished() || late(bound));
        threads = running;
        for (_, thread) in ended {
            if thread.is_finished() {
                sound &= thread.join().unwrap_or(false);
            } else {
                tracing::error!(
                    "an ingress did not end in time and is left; what it had not committed is sent again at the next start"
                );
                sound = false;
            }
        }
    }
    sound
}

fn load_all(files: &[PathBuf], load: Load) -> Result<Vec<Loaded<Config>>, Failure> {
    let mut wrong = Vec::new();
    let mut loaded = Vec::new();
    for file in files {
        match load(file) {
            Ok(config) => loaded.push(config),
            Err(error) => wrong.extend(error.lines()),
        }
    }
    wrong.extend(check_together(&loaded));
    if wrong.is_empty() { Ok(loaded) } else { Err(Failure { exit: Exit::Config, lines: wrong }) }
}

/// A bad new set is refused as a whole; the old one stays.
fn reload(proxies: &[Proxy], files: &[PathBuf], load: Load, log: &LogHandle) {
    match load_all(files, load) {
        Ok(loaded) => {
            for (proxy, loaded) in proxies.iter().zip(&loaded) {
                proxy.reload(&loaded.config);
            }
            if let Some(loaded) = loaded.first()
                && let Ok(level) = loaded.config.log().level.to_string().parse()
                && let Err(error) = log.set_level(&level)
            {
                tracing::warn!(%error, "the log level stays");
            }
            tracing::info!(
                "configuration read again: rate, keys and log level are taken over, the rest needs a restart"
            );
        }
        Err(failure) => {
            let problems = failure.lines.join("; ");
            tracing::error!(problems, "configuration read again and refused: everything stays as it was");
        }
    }
}

/// Starts the log as the first file says: on standard error, and for the syslog targets of `[telemetry]`.
pub(super) fn start_log(
    config: Option<&Config>,
    identity: &Identity,
    process: &Arc<ProcessMetrics>,
) -> Result<LogHandle, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Internal, format!("the log cannot start: {error}"))
    };
    let level = config.map_or("info".to_owned(), |config| config.log().level.to_string());
    let level = level.parse().map_err(|error| failed(&error))?;
    let format = match config.map(|config| config.log().format) {
        Some(config::LogFormat::Json) => log::LogFormat::Json,
        _ => log::LogFormat::Text,
    };
    let telemetry = config.map(Config::telemetry);
    let targets = telemetry.map(|telemetry| telemetry.syslog.as_slice()).unwrap_or_default();
    let facility = telemetry.map(|telemetry| telemetry.facility.to_string().parse()).transpose();
    let facility = facility.map_err(|error| failed(&error))?.unwrap_or_default();
    log::init(&level, format, targets, facility, identity, process).map_err(|error| failed(&error))
}

/// Tells this run of the process from every other.
pub(crate) fn instance_id() -> String {
    let micros = ddc_udp::clock::wall_clock_micros();
    format!("{micros:x}-{:x}", std::process::id())
}

fn tell(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// What was asked for by signals.
struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> anyhow::Result<Self> {
        let signals = Self { stop: Arc::default(), reload: Arc::default() };
        for signal in [SIGTERM, SIGINT] {
            // The second one ends the process at once: somebody does not want to wait for the drain.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))
                .context("signals cannot be caught")?;
            signal_hook::flag::register(signal, Arc::clone(&signals.stop))
                .context("signals cannot be caught")?;
        }
        signal_hook::flag::register(SIGHUP, Arc::clone(&signals.reload))
            .context("signals cannot be caught")?;
        Ok(signals)
    }
}
