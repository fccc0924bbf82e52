//! The egress: one link that receives, one destination, two threads, and between them the spool or a bounded queue.
//!
//! ```text
//!  ddc-rx-LINK: socket → open → recover → order ──▶ feed: spool on disk, or at most [sink] buffer ──▶ ddc-sink-LINK:
//!                                                       unpack → gaps → Kafka → acknowledgements → state directory
//!                                                                     └→ UDP, or refused
//! ```
//!
//! [`start`] opens everything or nothing; [`Egress::stop`] begins the drain; [`Egress::join`] waits for its end.
//!
//! | module      | what it is for                                                            |
//! |-------------|---------------------------------------------------------------------------|
//! | `receive`   | the receive thread                                                        |
//! | `feed`      | what lies between the threads: the spool, or the bounded queue             |
//! | `kafka`     | the sink thread of a Kafka destination: records and progress in transactions |
//! | `deliver`   | the sink thread of a UDP destination: what is new, late, a duplicate, missing |
//! | `books`     | what every way out keeps                                                  |
//! | `datagrams` | the way out over UDP                                                      |
//! | `publish` | what becomes of gaps, to the topic of `[missing_records]`                    |
//! | `store`     | what survives a restart                                                   |
//! | [`missing`] | reports of what is missing, and of what has come after all                |
//! | `filled`  | holes that were filled, until that is acknowledged                          |
//! | `refused` | joins refused records into ranges                                           |
//! | `view`      | `/healthz`, `/readyz`, `/status`                                          |
//!

mod books;
mod control;
mod datagrams;
mod deliver;
mod feed;
mod filled;
mod kafka;
pub mod missing;
mod partitions;
mod publish;
mod receive;
mod refused;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Context;
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::Role;
use ddc_link::keys::{Keyring, LinkKey, SealMode};
use ddc_link::receiver::{PartitionKey, Receiver, ReceiverConfig, StoredSession, Unpacker};
use ddc_telemetry::notify::Watchdog;
use ddc_telemetry::{EgressMetrics, LinkMetrics, Registry};
use ddc_udp::clock::wall_clock_micros;
use ddc_udp::{ReceiverOptions, ReceiverSocket};

use crate::config::{EgressConfig, LateDatagrams, LateRecords, LinkKey as ConfiguredKey, Seal, Side, Sink};
use crate::dead_letters::DeadLetters;
use crate::gaps::Timestamp;
use crate::gaps::journal::Journal;
use crate::maintenance::Maintenance;
use crate::state::StateDir;
use books::{Books, BooksParts};
use control::Control;
use datagrams::DatagramOutlet;
use deliver::SinkThread;
use feed::{FeedIn, FeedOut};
use kafka::KafkaThread;
use missing::MissingReport;
use publish::PublisherParts;
use receive::ReceiveThread;
use shared::{Shared, lock};
use store::{Former, Store};
pub use view::View;

/// Room for the framing of the largest record: chunk header, record header, headers' lengths.
const BATCH_OVERHEAD: u64 = 1 << 20;
/// Buffers on their way back from the sink thread to the receive thread; more are freed.
const RECYCLED: usize = 64;

/// What an egress shares with the process around it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its metrics are registered.
    pub registry: Registry,
    /// Watches its threads.
    pub watchdog: Watchdog,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// No thread panicked.
    pub sound: bool,
    /// Everything that was received was acknowledged by the destination before the end.
    pub drained: bool,
    /// Records that the destination acknowledged.
    pub records_delivered: u64,
    /// Records that were reported as missing.
    pub records_missing: u64,
}

/// A running egress.
pub struct Egress {
    config: Arc<EgressConfig>,
    shared: Arc<Shared>,
    control: Arc<Control>,
    metrics: Arc<LinkMetrics<EgressMetrics>>,
    view: View,
    receive: JoinHandle<()>,
    sink: JoinHandle<bool>,
    publisher: Option<JoinHandle<()>>,
}

/// Opens the state directory and the socket, makes the producer (which connects in the background), and starts the
/// threads.
pub fn start(config: EgressConfig, options: &Options) -> anyhow::Result<Egress> {
    let config = Arc::new(config);
    let link = config.link.name.as_str().to_owned();
    let metrics = options.registry.egress(&link)?;
    let state = Arc::new(StateDir::open(&config.link.state_dir)?);
    let (store, mut former) = Store::open(Arc::clone(&state), matches!(config.seal, Seal::None))
        .with_context(|| format!("link {link}"))?;
    let maintenance = Maintenance::open(&link, Side::Egress, state, Instant::now(), wall_clock_micros());
    let socket = open_socket(&config, &metrics).with_context(|| format!("link {link}"))?;
    let local = socket.local_addr();
    let (shared, control) = (Arc::new(Shared::default()), Arc::new(Control::default()));
    let (recycle, recycled) = crossbeam_channel::bounded(RECYCLED);
    // Before the receiver: what lies in the spool is not expected again.
    let (feed_in, feed_out) = feed(&config, &metrics, &shared, recycle, &mut former.sessions)
        .with_context(|| format!("link {link}"))?;
    let receiver = Receiver::new(receiver_config(&config), Instant::now(), &former.sessions);
    *lock(&shared.stored) = receiver.stored();
    let Gaps { report, ahead, published } =
        gaps(&config, &metrics, &former).with_context(|| format!("link {link}"))?;
    let reporter = Reporter::new(link.as_str(), "sink");

    let register = |thread: &str| options.watchdog.register(&format!("{link} {thread}"), Instant::now());
    let (receive_tick, sink_tick) = (register("receive")?, register("sink")?);
    let books = Books::new(BooksParts {
        metrics: Arc::clone(&metrics),
        report: report.clone(),
        control: Arc::clone(&control),
        tick: sink_tick,
        settler: feed_out.settler(),
        shared: Arc::clone(&shared),
        store,
    });
    let unpacker = Unpacker::new(max_batch_bytes(&config))?;
    let sink: Box<dyn FnOnce() -> bool + Send> = match &config.sink {
        Sink::Kafka(settings) => {
            let producer = settings.client.build(&settings.producer(config.receive.max_record_bytes));
            let admin = settings.client.build(&Role::Admin);
            let thread = KafkaThread {
                feed: feed_out,
                unpacker,
                settings: (**settings).clone(),
                producer: producer.with_context(|| format!("link {link}: [sink.kafka]"))?,
                admin: admin.with_context(|| format!("link {link}: [sink.kafka]"))?,
                reporter: reporter.clone(),
                books,
                dead_letters: dead_letters(&config)?,
                shared: Arc::clone(&shared),
                control: Arc::clone(&control),
                metrics: Arc::clone(&metrics),
            };
            Box::new(move || thread.run())
        }
        Sink::Udp(settings) => {
            let outlet = DatagramOutlet::new(&settings.streams, books);
            let thread = SinkThread {
                feed: feed_out,
                unpacker,
                former: former.positions,
                ahead,
                late: late(settings.late),
                shared: Arc::clone(&shared),
                control: Arc::clone(&control),
                metrics: Arc::clone(&metrics),
            };
            Box::new(move || thread.run(outlet))
        }
    };
    let receive = ReceiveThread {
        socket,
        receiver,
        feed: feed_in,
        recycled,
        shared: Arc::clone(&shared),
        control: Arc::clone(&control),
        metrics: Arc::clone(&metrics),
        tick: receive_tick,
    };
    let publisher = match &config.missing_records {
        Some(settings) => {
            let parts = PublisherParts {
                config: &config,
                settings,
                report: report.clone(),
                published,
                metrics: Arc::clone(&metrics),
                control: Arc::clone(&control),
                shared: Arc::clone(&shared),
            };
            Some(publish::start(parts).with_context(|| format!("link {link}: [missing_records]"))?)
        }
        None => None,
    };
    let view = View::new(&config, local, &shared, &control, &metrics, options, report, reporter, maintenance);
    let sink = thread::Builder::new().name(format!("ddc-sink-{link}")).spawn(sink)?;
    let receive = thread::Builder::new().name(format!("ddc-rx-{link}")).spawn(move || receive.run())?;
    tracing::info!(link, listen = %local, "egress started");
    Ok(Egress { config, shared, control, metrics, view, receive, sink, publisher })
}

impl Egress {
    /// Begins the drain: nothing more is received; what was received is delivered, for `drain_timeout` at most.
    pub fn stop(&self) {
        self.control.stop(self.config.drain_timeout());
    }

    /// Stops, and waits for the threads. Bounded by `drain_timeout` and a few seconds for calls that are under way.
    pub fn join(self) -> Summary {
        self.stop();
        let received = self.receive.join();
        let drained = self.sink.join();
        // Should that thread have panicked, the publisher would wait for it.
        self.shared.sink_done.store(true, Relaxed);
        let published = self.publisher.map_or(Ok(()), JoinHandle::join);
        Summary {
            sound: received.is_ok() && drained.is_ok() && published.is_ok(),
            drained: drained.unwrap_or(false),
            records_delivered: self.metrics.records_delivered.value(),
            records_missing: self.metrics.records_missing.total(),
        }
    }

    /// Whether a thread has ended though nobody asked for a stop.
    pub fn has_failed(&self) -> bool {
        !self.control.is_stopping() && (self.receive.is_finished() || self.sink.is_finished())
    }

    /// Replaces the keyring within 100 ms (SIGHUP). Sessions whose key is gone are retired. An egress with
    /// `seal = "none"` has no keys, and nothing changes.
    pub fn reload_keyring(&self, keys: &[ConfiguredKey]) {
        if matches!(self.config.seal, Seal::Aes256Gcm(_)) {
            *lock(&self.shared.keyring) = Some(keyring(keys));
        }
    }

    /// The files were read again: looks at certificates anew.
    pub fn reload_certificates(&self) {
        self.view.reload_certificates();
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &EgressConfig {
        &self.config
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Arc<LinkMetrics<EgressMetrics>> {
        &self.metrics
    }

    /// What the admin listener shows.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Whether the sink thread has ended: the drain is over.
    pub fn is_drained(&self) -> bool {
        self.shared.sink_done.load(Relaxed)
    }
}

/// What lies between the two threads. Half of `[sink] buffer` is for what the sink thread has not come to, half for what it holds.
fn feed(
    config: &EgressConfig,
    metrics: &Arc<LinkMetrics<EgressMetrics>>,
    shared: &Arc<Shared>,
    recycle: crossbeam_channel::Sender<Vec<u8>>,
    sessions: &mut [StoredSession],
) -> anyhow::Result<(FeedIn, FeedOut)> {
    let Some(spool) = &config.spool else {
        let (input, output) = feed::queue(config.buffer.bytes());
        return Ok((FeedIn::Queue(input), FeedOut::Queue(output, recycle)));
    };
    let half = config.buffer.bytes() / 2;
    let size = spool.size(crate::host::file_system(&spool.directory)?.bytes).map_err(anyhow::Error::msg)?;
    feed::open_spool(
        feed::SpoolParts {
            options: spool.options(&config.link, size, half as usize),
            held_limit: half,
            max_batch_bytes: max_batch_bytes(config),
            metrics: Arc::clone(metrics),
            shared: Arc::clone(shared),
            recycle,
        },
        sessions,
    )
}

/// What is known of gaps at the start.
struct Gaps {
    report: MissingReport,
    /// By partition, up to where gaps lie that the positions have not come to.
    ahead: HashMap<PartitionKey, i64>,
    /// The last change that is in the topic of `[missing_records]`.
    published: u64,
}

/// Takes up the gap journal of a former life and makes it agree with that life's positions.
fn gaps(
    config: &EgressConfig,
    metrics: &Arc<LinkMetrics<EgressMetrics>>,
    former: &Former,
) -> anyhow::Result<Gaps> {
    if matches!(config.seal, Seal::None) {
        let report = MissingReport::in_memory(Arc::clone(metrics));
        return Ok(Gaps { report, ahead: HashMap::new(), published: 0 });
    }
    let link = metrics.link();
    let (journal, found) = Journal::open(&config.link.state_dir, link)?;
    let mut book = found.book;
    if found.cut > 0 {
        tracing::warn!(
            link,
            bytes = found.cut,
            "the gap journal had a torn end, as a crash leaves it; it was cut off"
        );
    }
    if !found.damaged.is_empty() {
        let lines: Vec<_> = found.damaged.iter().take(20).map(ToString::to_string).collect();
        tracing::error!(
            link,
            lines = lines.join(", "),
            number = found.damaged.len(),
            "the gap journal is damaged; the gaps of these lines may be forgotten, or stand as they were before"
        );
    }
    let changed = book.reconcile(&former.positions, Timestamp::now()).len();
    let counts = book.counts();
    let (open, closed, given_up) = (counts.open, counts.closed, counts.given_up);
    tracing::info!(link, open, closed, given_up, changed, "gap journal read");
    let ahead = book.ahead(&former.positions);
    let report = MissingReport::new(Arc::clone(metrics), book, Some(journal));
    if changed > 0 {
        report.write_anew();
    }
    Ok(Gaps { report, ahead, published: found.published })
}

fn open_socket(
    config: &EgressConfig,
    metrics: &LinkMetrics<EgressMetrics>,
) -> anyhow::Result<ReceiverSocket> {
    let mut options = ReceiverOptions::new(config.listen);
    options.group = config.multicast_group;
    options.interface = config.link.interface.as_ref().map(ToString::to_string);
    options.receive_buffer = config.link.socket_buffer.bytes() as usize;
    let socket = ReceiverSocket::open(&options)?;
    let grant = socket.buffer();
    metrics.receive_buffer_bytes.set(grant.granted as f64);
    if let Some(shortfall) = grant.shortfall() {
        tracing::warn!(link = metrics.link(), "{shortfall}");
    }
    Ok(socket)
}

fn receiver_config(config: &EgressConfig) -> ReceiverConfig {
    let (seal, keyring) = match &config.seal {
        Seal::None => (SealMode::None, unsealed_keyring()),
        Seal::Aes256Gcm(keys) => (SealMode::Aes256Gcm, keyring(keys)),
    };
    ReceiverConfig {
        link_id: config.link.id,
        keyring,
        seal,
        reorder_timeout: config.receive.reorder_timeout,
        window_bytes: config.receive.window.bytes() as usize,
        max_batch_bytes: max_batch_bytes(config),
        build_micros: crate::build_micros(),
    }
}

fn max_batch_bytes(config: &EgressConfig) -> usize {
    (config.receive.max_record_bytes.bytes() + BATCH_OVERHEAD) as usize
}

fn keyring(keys: &[ConfiguredKey]) -> Keyring {
    let mut keyring = Keyring::default();
    for key in keys {
        keyring.insert(key.id, LinkKey::new(*key.key.expose()));
    }
    keyring
}

/// Without a seal there is only key id 0, as the ingress writes it; the key is not used.
fn unsealed_keyring() -> Keyring {
    let mut keyring = Keyring::default();
    keyring.insert(ddc_wire::KeyId(0), LinkKey::new([0; 32]));
    keyring
}

/// Opens the place of dead letters, if there is one.
fn dead_letters(config: &EgressConfig) -> anyhow::Result<Option<DeadLetters>> {
    let name = &config.link.name;
    let open = |settings| DeadLetters::open(settings, name, Side::Egress);
    let opened = config.dead_letters.as_ref().map(open).transpose();
    opened.with_context(|| format!("link {}: [dead_letters]", name.as_str()))
}

/// Whether records that fill a reported gap are still taken. A datagram has no room for a mark.
fn late(late: LateDatagrams) -> LateRecords {
    match late {
        LateDatagrams::Pass => LateRecords::Mark,
        LateDatagrams::Drop => LateRecords::Drop,
    }
}
