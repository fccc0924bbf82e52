//! `ddc demo`: the main job in one command. Two Kafka clusters, a real ingress and a real egress over UDP, and a proof
//! that what went in on one side came out on the other, record by record.
//!
//! ```text
//!  produce ──▶ source cluster ──▶ ingress ═▶ relay (--loss) ═▶ egress ──▶ destination cluster ──▶ verify
//!     │                                                                                             │
//!     └── records from a seed ───────────── window (embedded clusters keep little) ── the same seed ┘
//! ```
//!
//! The ingress and the egress are those of `ddc ingress` and `ddc egress`, started from configuration files. The demo
//! shows and judges; it takes part in nothing.

mod check;
mod clusters;
mod link;
mod observe;
mod produce;
mod records;
mod relay;
mod report;
mod run;
mod verify;
mod view;
mod window;

use std::io::{IsTerminal, Write as _};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use ddc_proxy::config::{ByteSize, Compression, FecCode, Rate, Span};
use ddc_telemetry::notify::Watchdog;
use ddc_telemetry::syslog::{self, Facility, Syslog};
use ddc_telemetry::{ProcessMetrics, Registry};
use ring::rand::{SecureRandom, SystemRandom};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::exit::{Exit, Failure};
use clusters::Cluster;
use link::Link;
use observe::{ObserveArguments, Observed};
use produce::{ProduceThread, Produced};
use records::{LARGEST_VALUE, Plan};
use report::Report;
use run::Run;
use verify::{Verified, VerifyThread};
use view::{Snapshot, View};
use window::Window;

/// How long the syslog targets may take for the last messages.
const SYSLOG_STOP: Duration = Duration::from_millis(500);

/// Show a link at work: embedded Kafka, a real ingress and egress, every record compared
///
/// Without options it starts two embedded Kafka clusters, one link between them over UDP on loopback, produces 100,000
/// records of all kinds (null keys, tombstones, repeated headers, 0 bytes to 1 MiB), reads all of them back at the
/// destination and compares every field. It ends with a summary; the exit code is not 0 when anything is lost or
/// differs.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// How many records are produced
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: u64,
    /// The size of every value, up to 1MiB [default: a mix of 0 bytes to 1 MiB, mostly small]
    #[arg(long, value_parser = size)]
    size: Option<u32>,
    /// How many records are produced per second; they then carry the present time [default: as many as are taken, with
    /// made-up times]
    #[arg(long, value_name = "N")]
    per_second: Option<NonZeroU32>,
    /// How fast the ingress sends, in bits per second on the wire; or `unlimited` [default: 400Mbit/s, less where the
    /// kernel gives small socket buffers]
    #[arg(long)]
    rate: Option<Rate>,
    /// The share of datagrams that are dropped between ingress and egress, for example 0.01
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    loss: f64,
    /// Decides what records are made and which datagrams are dropped [default: random, and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Forward error correction: source + repair symbols of a block
    #[arg(long, value_name = "K+R", default_value = "64+8")]
    fec: FecCode,
    /// Over how many blocks neighbouring datagrams are spread, against bursts of loss
    #[arg(long, value_name = "BLOCKS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    interleave: u8,
    /// How blocks are compressed
    #[arg(long, default_value = "zstd", value_parser = compression)]
    compression: Compression,
    /// The largest IP packet, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(576..=9216))]
    mtu: u16,
    /// A real source cluster (without TLS or SASL) instead of the embedded one, as host:port,…; topics of its own are
    /// created and deleted there
    #[arg(long, value_name = "BROKERS", value_delimiter = ',')]
    source_brokers: Vec<String>,
    /// A real destination cluster instead of the embedded one
    #[arg(long, value_name = "BROKERS", value_delimiter = ',')]
    destination_brokers: Vec<String>,
    /// How long to wait when no more records arrive
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: Span,
    /// Print the result as one JSON object, the last line of standard output; all else goes to standard error
    #[arg(long)]
    json: bool,
    /// Log what both sides do
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    observe: ObserveArguments,
}

fn size(text: &str) -> Result<u32, String> {
    let bytes = match text.parse::<u64>() {
        Ok(bytes) => bytes,
        Err(_) => text.parse::<ByteSize>().map_err(|error| error.to_string())?.bytes(),
    };
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= LARGEST_VALUE)
        .ok_or_else(|| format!("{text} is more than 1MiB, the largest value that the demo makes"))
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is no number; for example 0.01"))?;
    if (0.0..1.0).contains(&share) {
        return Ok(share);
    }
    Err(format!("{text} is no share of datagrams: it can be 0 to just below 1, for example 0.01"))
}

fn compression(text: &str) -> Result<Compression, String> {
    [Compression::Zstd, Compression::Lz4, Compression::None]
        .into_iter()
        .find(|compression| compression.to_string() == text)
        .ok_or_else(|| "it can be zstd, lz4 or none".to_owned())
}

impl Demo {
    /// Runs the demo to its end.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        self.rate = Some(self.rate());
        let unavailable = |error: anyhow::Error| Failure::new(Exit::Unavailable, format!("demo: {error:#}"));
        let interrupted = interrupts().map_err(unavailable)?;
        let mut view = View::new(self.json, self.records);
        let process = Arc::new(ProcessMetrics::default());
        let syslog = self.init_log(&view, &process).map_err(unavailable)?;
        let result = self.perform(&mut view, &interrupted, &self.observe.registry(&process));
        syslog.stop(SYSLOG_STOP);
        let (report, examples) = match result {
            Ok(found) => found,
            Err(error) => {
                view.clear();
                return Err(unavailable(error));
            }
        };
        view.finish(&report.summary(&self, &examples));
        if self.json {
            let json = serde_json::to_string(&report).map_err(|error| unavailable(error.into()))?;
            // A reader that has gone away does not change the result.
            let _ = writeln!(std::io::stdout().lock(), "{json}");
        }
        if report.is_good() {
            return Ok(());
        }
        let exit = if report.interrupted { Exit::Unavailable } else { Exit::Internal };
        Err(Failure::new(exit, format!("demo: {}", report.verdict())))
    }

    /// The rate asked for, or what this machine bears.
    fn rate(&self) -> Rate {
        self.rate.unwrap_or_else(link::default_rate)
    }

    /// The log goes above the picture, and to the syslog targets, which take what is worth knowing also without `--verbose`.
    fn init_log(&self, view: &View, process: &Arc<ProcessMetrics>) -> anyhow::Result<Syslog> {
        // That an embedded cluster has no topic ids is nothing the user could do anything about.
        let quiet = "warn,ddc_proxy::source::topics=error";
        let filter = EnvFilter::new(if self.verbose { "info" } else { quiet });
        let colour =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let (layer, syslog) =
            syslog::start(&self.observe.syslog, Facility::default(), &self.observe.identity(), process)
                .context("--syslog")?;
        let text = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(view.log_writer());
        // The demo is the whole process: nobody has set a log up before.
        let _ = tracing_subscriber::registry()
            .with(text.with_filter(filter))
            .with(layer.with_filter(EnvFilter::new("info,ddc_proxy::source::topics=error")))
            .try_init();
        Ok(syslog)
    }

    /// Opens both clusters, and whatever happens then, cleans up.
    fn perform(
        &self,
        view: &mut View,
        interrupted: &AtomicBool,
        registry: &Registry,
    ) -> anyhow::Result<(Report, Vec<String>)> {
        let (seed, run) = (self.seed.map_or_else(random, Ok)?, random()? as u32);
        view.show(&Snapshot { phase: "starting the clusters", ..Snapshot::default() });
        let real = !(self.source_brokers.is_empty() && self.destination_brokers.is_empty());
        // On a real cluster every name must be this run's own; the group has the same, without the dot.
        let name = format!("ddc-demo-{run:08x}");
        let prefix = if real { format!("{name}.") } else { String::new() };
        let source = Cluster::open("source", &self.source_brokers, &prefix, &name)?;
        let prefix = format!("{}{prefix}", link::DESTINATION_PREFIX);
        let destination = match Cluster::open("destination", &self.destination_brokers, &prefix, &name) {
            Ok(destination) => destination,
            Err(error) => {
                source.remove();
                return Err(error);
            }
        };
        let result = self.cross(view, interrupted, registry, seed, &source, &destination);
        source.remove();
        destination.remove();
        result
    }

    fn cross(
        &self,
        view: &mut View,
        interrupted: &AtomicBool,
        registry: &Registry,
        seed: u64,
        source: &Cluster,
        destination: &Cluster,
    ) -> anyhow::Result<(Report, Vec<String>)> {
        let plan = Plan::new(seed, self.records, self.size);
        let plan = match self.per_second {
            Some(per_second) => plan.paced(per_second),
            None => plan,
        };
        let embedded = source.is_mock() || destination.is_mock();
        let window = Window::new(plan.slots().len(), embedded.then_some(clusters::MOCK_PARTITION_BYTES));
        let window = Arc::new(window);
        let (produced, verified) = (Arc::new(Produced::default()), Arc::new(Verified::default()));
        let verify = VerifyThread::new(
            destination,
            source.topics(),
            plan.clone(),
            Arc::clone(&window),
            Arc::clone(&verified),
        )?;
        let produce = ProduceThread::new(source, plan, Arc::clone(&window), Arc::clone(&produced))?;
        // Nobody kills the demo when a thread stands still; its own time-out ends it.
        let watchdog = Watchdog::new(None);
        let link = Link::start(self, seed, source, destination, registry, &watchdog)?;
        let observed = Observed::start(&self.observe, &link, registry, watchdog)?;
        let verify = thread::Builder::new().name("ddc-demo-verify".into()).spawn(move || verify.run())?;
        let mut run = Run {
            demo: self,
            view,
            interrupted,
            link,
            observed,
            produced,
            verified,
            window,
            produce: None,
            started: None,
            wanted: self.records,
        };
        let outcome = run.watch(produce);
        let seconds = run.seconds();
        run.produced.stop();
        run.verified.stop();
        let tally = verify.join().map_err(|_| anyhow!("the verifying thread panicked"));
        let report = tally.map(|(tally, examples)| (run.report(&tally, seconds, seed), examples));
        run.show("stopping both sides");
        run.finish();
        let interrupted = outcome?;
        report.map(|(report, examples)| (Report { interrupted, ..report }, examples))
    }
}

/// Set by SIGINT and SIGTERM; a second one ends the process at once.
fn interrupts() -> anyhow::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag)).context("signals")?;
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("signals")?;
    }
    Ok(flag)
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    // Short enough to be typed.
    Ok(u64::from_le_bytes(bytes) >> 24)
}
