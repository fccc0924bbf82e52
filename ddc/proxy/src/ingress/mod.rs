//! The ingress: one source, one link that sends, two threads and a bounded queue between them.
//!
//! ```text
//!  ddc-src-LINK: consumer or UDP sockets → packer ──▶ blocks, at most [link] buffer ──▶ ddc-tx-LINK: FEC → seal → pace → socket
//! ```
//!
//! [`start`] opens everything or nothing; [`Ingress::stop`] begins the drain; [`Ingress::join`] waits for its end.

mod link;
mod session;
mod shared;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use ddc_kafka::context::Reporter;
use ddc_kafka::group::GroupMember;
use ddc_link::sender::{Compression, PackConfig, Packer};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::exposition::{LinkMetrics, Registry};
use ddc_telemetry::notify::{Tick, Watchdog};
use ddc_udp::clock::wall_clock_micros;

pub use shared::{Shared, UNKNOWN_LAG};

use crate::admin::AdminState;
use crate::certificates::Certificates;
use crate::config::{self, IngressConfig, LinkKey, Rate, Seal, Side, Source};
use crate::maintenance::{Maintenance, tell};
use crate::pause::Pauses;
use crate::replay::{self, Replays};
use crate::rewind::Rewinds;
use crate::source::kafka::{self, BATCH_RECORDS, KafkaSource, LAST_COMMIT};
use crate::source::udp::{self, UdpSource};
use crate::state::StateDir;
pub(crate) use link::LinkThread;
use shared::OnEnd;

/// Blocks that may wait for the link, however small they are; their bytes are bounded by `[link] buffer`.
const QUEUED_BLOCKS: usize = 65_536;
/// Partitions that one link carries at most.
const MAX_PARTITIONS: usize = 65_536;
/// Every partition is in a ledger this often, and a changed one each [`LEDGER_CHANGED`].
const LEDGER_INTERVAL: Duration = Duration::from_secs(30);
/// See [`LEDGER_INTERVAL`].
const LEDGER_CHANGED: Duration = Duration::from_secs(1);
/// How long a stop waits for what is packed to be sent.
const DRAIN: Duration = Duration::from_secs(15);
/// A stop takes no longer than this, also when the brokers and the network are away: `DRAIN`, the last commit, the
/// goodbye, and leaving the group. Whoever joins the threads may give up then.
pub const STOP_BOUND: Duration = Duration::from_secs(25);
/// A thread that has not moved for this long hangs.
const STALL: Duration = Duration::from_secs(30);

/// What an ingress shares with the process around it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its metrics are registered.
    pub registry: Registry,
    /// Watches its threads.
    pub watchdog: Watchdog,
}

/// The rate that the pacer holds; can be changed while it runs. Bits per second, 0 is unlimited.
#[derive(Debug, Clone)]
pub struct RateCell(Arc<AtomicU64>);

impl RateCell {
    pub(crate) fn new(rate: Rate) -> Self {
        let cell = Self(Arc::default());
        cell.set(rate);
        cell
    }

    /// Changes the rate; taken over with the next heartbeat.
    pub fn set(&self, rate: Rate) {
        let bits = match rate {
            Rate::Unlimited => 0,
            Rate::Limited(rate) => rate.bits_per_second(),
        };
        self.0.store(bits, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|bits| *bits > 0)
    }
}

/// The key that seals; can be changed while it runs.
#[derive(Debug, Clone)]
pub struct SealCell(Arc<Mutex<(Seal<LinkKey>, u64)>>);

impl SealCell {
    pub(crate) fn new(seal: Seal<LinkKey>) -> Self {
        Self(Arc::new(Mutex::new((seal, 0))))
    }

    /// Changes the key: the session ends with a goodbye and another begins under the new key. The mode stays.
    pub fn set(&self, seal: Seal<LinkKey>) {
        let mut cell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = match (&cell.0, &seal) {
            (Seal::Aes256Gcm(old), Seal::Aes256Gcm(new)) => {
                old.id == new.id && old.key.expose() == new.key.expose()
            }
            (Seal::None, Seal::None) => true,
            // Both sides must change together, which a running link cannot.
            _ => {
                tracing::warn!("`seal` was changed in the file: it stays as it is until a restart");
                true
            }
        };
        if !same {
            *cell = (seal, cell.1 + 1);
        }
    }

    /// The key, and a number that rises with each change.
    fn get(&self) -> (Seal<LinkKey>, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running ingress.
pub struct Ingress {
    config: Arc<IngressConfig>,
    shared: Arc<Shared>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    watchdog: Watchdog,
    rate: RateCell,
    seal: SealCell,
    registry: Registry,
    maintenance: Arc<Maintenance>,
    certificates: Arc<Certificates>,
    replays: Arc<Replays>,
    rewinds: Arc<Rewinds>,
    pauses: Arc<Pauses>,
    started: Instant,
    threads: Vec<JoinHandle<()>>,
}

/// Opens the state directory and the socket, joins the group or opens the streams, and starts the threads.
pub fn start(config: IngressConfig, options: &Options) -> anyhow::Result<Ingress> {
    let config = Arc::new(config);
    let name = config.link.name.as_str().to_owned();
    let metrics = options.registry.ingress(&name)?;
    let shared = Arc::new(Shared::new());
    let state = Arc::new(StateDir::open(&config.link.state_dir)?);
    let maintenance =
        Maintenance::open(&name, Side::Ingress, Arc::clone(&state), Instant::now(), wall_clock_micros());
    let certificates = Arc::new(Certificates::of(config.kafka().map(|(client, _)| client)));
    let (rate, seal) = (RateCell::new(config.rate), SealCell::new(config.seal.clone()));
    let (blocks, queue) = crossbeam_channel::bounded(QUEUED_BLOCKS);
    let link = LinkThread::open(
        Arc::clone(&config),
        queue,
        Arc::clone(&shared),
        Arc::clone(&state),
        Arc::clone(&metrics),
        rate.clone(),
        seal.clone(),
    )
    .with_context(|| format!("link {name}"))?;
    let packer = Packer::new(pack_config(&config), Instant::now()).with_context(|| format!("link {name}"))?;
    let rewinds = Arc::new(Rewinds::new(Arc::clone(&config), Arc::clone(&shared)));
    let pauses = Arc::new(Pauses::open(&name, Arc::clone(&state)).with_context(|| format!("link {name}"))?);
    let (mut replay_in, mut replay_out) = (None, None);
    if config.kafka().is_some() {
        (replay_in, replay_out) = replay::port(&config, rate.clone()).unzip();
    }
    let source = match &config.source {
        Source::Kafka(settings) => {
            let reporter = Reporter::new(name.as_str(), "source");
            let parts = kafka::Parts {
                config: Arc::clone(&config),
                settings: (**settings).clone(),
                member: group_member(&config, settings, reporter.clone())?,
                reporter,
                packer,
                blocks,
                shared: Arc::clone(&shared),
                state: Arc::clone(&state),
                metrics: Arc::clone(&metrics),
                replay: replay_out.take(),
                rewinds: Arc::clone(&rewinds),
                pauses: Arc::clone(&pauses),
            };
            let source = KafkaSource::new(parts);
            SourceThread::Kafka(Box::new(
                source.with_context(|| format!("link {name}: the Kafka source cannot start"))?,
            ))
        }
        Source::Udp(settings) => {
            let parts = udp::Parts {
                config: &config,
                settings,
                packer,
                blocks,
                shared: Arc::clone(&shared),
                state: &state,
                metrics: Arc::clone(&metrics),
            };
            let source = UdpSource::open(parts);
            SourceThread::Udp(Box::new(source.with_context(|| format!("link {name}: [source.udp]"))?))
        }
    };

    let (source_tick, link_tick) = (
        options.watchdog.register(&format!("{name} source"), Instant::now())?,
        options.watchdog.register(&format!("{name} link"), Instant::now())?,
    );
    let ended = Arc::clone(&shared);
    let source_thread = std::thread::Builder::new().name(format!("ddc-src-{name}")).spawn(move || {
        let end = OnEnd(ended, |shared| &shared.source_done);
        source.run(&source_tick, DRAIN);
        drop(end);
        source_tick.retire();
    })?;
    let ended = Arc::clone(&shared);
    let link_thread = std::thread::Builder::new().name(format!("ddc-tx-{name}")).spawn(move || {
        let end = OnEnd(ended, |shared| &shared.link_done);
        link.run(&link_tick, DRAIN + LAST_COMMIT);
        drop(end);
        link_tick.retire();
    })?;
    let replays =
        Replays::open(Arc::clone(&config), Arc::clone(&shared), Arc::clone(&metrics), replay_in, state);
    Ok(Ingress {
        config,
        shared,
        metrics,
        replays: Arc::new(replays),
        rewinds,
        pauses,
        watchdog: options.watchdog.clone(),
        rate,
        seal,
        registry: options.registry.clone(),
        maintenance: Arc::new(maintenance),
        certificates,
        started: Instant::now(),
        threads: vec![source_thread, link_thread],
    })
}

/// What the source thread runs.
enum SourceThread {
    Kafka(Box<KafkaSource>),
    Udp(Box<UdpSource>),
}

impl SourceThread {
    fn run(self, tick: &Tick, drain: Duration) {
        match self {
            Self::Kafka(source) => source.run(tick, drain),
            Self::Udp(source) => source.run(tick, drain),
        }
    }
}

impl Ingress {
    /// Begins the drain: what is packed is sent, offsets are committed by the rule, a goodbye follows.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the threads after [`Ingress::stop`]. `false`: one of them panicked.
    pub fn join(self) -> bool {
        self.stop();
        let ended: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        ended.iter().all(Result::is_ok) & self.replays.join()
    }

    /// Whether a thread has ended though nobody asked for a stop.
    pub fn has_failed(&self) -> bool {
        !self.shared.stop.load(Ordering::Relaxed) && self.threads.iter().any(JoinHandle::is_finished)
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &IngressConfig {
        &self.config
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Arc<LinkMetrics<IngressMetrics>> {
        &self.metrics
    }

    /// The rate, to be changed while it runs.
    pub fn rate(&self) -> &RateCell {
        &self.rate
    }

    /// The key, to be changed while it runs.
    pub fn seal(&self) -> &SealCell {
        &self.seal
    }

    /// The files were read again: looks at certificates anew.
    pub fn reload_certificates(&self) {
        self.certificates.reload();
    }

    /// What the admin listener shows.
    pub fn view(&self) -> View {
        View {
            config: Arc::clone(&self.config),
            shared: Arc::clone(&self.shared),
            metrics: Arc::clone(&self.metrics),
            watchdog: self.watchdog.clone(),
            registry: self.registry.clone(),
            maintenance: Arc::clone(&self.maintenance),
            certificates: Arc::clone(&self.certificates),
            replays: Arc::clone(&self.replays),
            rewinds: Arc::clone(&self.rewinds),
            pauses: Arc::clone(&self.pauses),
            started: self.started,
        }
    }
}

/// What can be asked of a running ingress from outside of its threads.
#[derive(Clone)]
pub struct View {
    config: Arc<IngressConfig>,
    shared: Arc<Shared>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    watchdog: Watchdog,
    registry: Registry,
    maintenance: Arc<Maintenance>,
    certificates: Arc<Certificates>,
    replays: Arc<Replays>,
    rewinds: Arc<Rewinds>,
    pauses: Arc<Pauses>,
    started: Instant,
}

impl AdminState for View {
    /// Whether its threads move.
    fn health(&self) -> Result<(), String> {
        let stalled = self.watchdog.stalled(Instant::now(), STALL);
        if stalled.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = stalled.iter().map(|(name, _)| &**name).collect();
        Err(format!("threads that do not move: {}", names.join(", ")))
    }

    /// Whether records flow or could; else why not.
    fn ready(&self) -> Result<(), Vec<String>> {
        let mut problems = self.shared.problems();
        if self.shared.stop.load(Ordering::Relaxed) {
            problems.push("the ingress is stopping".into());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn metrics(&self) -> String {
        self.registry.render()
    }

    /// The state in full.
    fn status(&self) -> serde_json::Value {
        let (config, metrics) = (&self.config, &self.metrics);
        let lag = self.shared.lag.load(Ordering::Relaxed);
        serde_json::json!({
            "side": "ingress",
            "link": { "name": config.link.name.as_str(), "id": config.link.id.0, "target": config.target.to_string() },
            "uptime_seconds": self.started.elapsed().as_secs(),
            "source": {
                "state": self.shared.source_state().as_str(),
                "assigned_partitions": metrics.assigned_partitions.value(),
                "lag_records": (lag != UNKNOWN_LAG).then_some(lag),
            },
            "queued_bytes": self.shared.queued_bytes.load(Ordering::Relaxed),
            "sent": {
                "datagrams": metrics.packets_sent.value(),
                "wire_bytes": metrics.bytes_sent.value(),
                "blocks": metrics.blocks_sent.value(),
                "records": metrics.records_sent.value(),
            },
            "maintenance": self.maintenance.status(Instant::now()),
            "replay": self.replays.all().last().map(|job| job.summary()),
            "rewind": self.rewinds.summaries().pop(),
            "pause": self.pause_status(),
            "notes": self.shared.notes(),
            "problems": self.shared.problems(),
        })
    }

    fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    fn replays(&self) -> Option<&Replays> {
        Some(&self.replays)
    }

    fn rewinds(&self) -> Option<&Rewinds> {
        Some(&self.rewinds)
    }

    fn pauses(&self) -> Option<&Pauses> {
        self.config.kafka().map(|_| &*self.pauses)
    }

    fn pause_status(&self) -> Option<serde_json::Value> {
        Some(self.pauses()?.status(self.metrics.assigned_partitions.value()))
    }

    fn each_second(&self) -> Result<(), Vec<String>> {
        let ready = self.ready();
        tell(&self.metrics.common, ready.is_ok(), &self.maintenance);
        self.certificates.serve(Instant::now(), &self.metrics);
        ready
    }
}

/// How records of this link are packed, live ones and replayed ones.
pub(crate) fn pack_config(config: &IngressConfig) -> PackConfig {
    PackConfig {
        stream: String::new(),
        symbol_size: config.link.mtu.symbol_size(config.target.ip()),
        source_symbols: config.fec.code.source.into(),
        linger: config.pack.linger,
        compression: match config.pack.compression {
            config::Compression::None => Compression::None,
            config::Compression::Lz4 => Compression::Lz4,
            config::Compression::Zstd => Compression::Zstd(config.pack.level),
        },
        max_record_bytes: config.largest_record().0 as usize,
        ledger_interval: LEDGER_INTERVAL,
        ledger_changed: LEDGER_CHANGED,
        max_partitions: MAX_PARTITIONS,
    }
}

fn group_member(
    config: &IngressConfig,
    settings: &config::KafkaSource,
    reporter: Reporter,
) -> anyhow::Result<GroupMember> {
    let name = config.link.name.as_str();
    let settings = settings
        .client
        .build(&settings.role(config.pack.max_record_bytes))
        .with_context(|| format!("link {name}: [source.kafka]"))?;
    GroupMember::new(&settings, reporter, BATCH_RECORDS)
        .with_context(|| format!("link {name}: the Kafka consumer cannot be made"))
}
