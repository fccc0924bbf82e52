//! What can be asked of a running egress from outside of its threads: `/healthz`, `/readyz`, `/metrics`, `/status`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ddc_kafka::context::Reporter;
use ddc_telemetry::notify::Watchdog;
use ddc_telemetry::reasons::MissingReason;
use ddc_telemetry::{EgressMetrics, LinkMetrics, Registry};
use serde_json::{Value, json};

use super::Options;
use super::control::Control;
use super::missing::MissingReport;
use super::shared::{HeartbeatView, Shared, lock};
use crate::certificates::Certificates;
use crate::config::{EgressConfig, Sink, UdpSink};
use crate::gaps::Timestamp;
use crate::maintenance::{Maintenance, tell};

/// A thread that has not moved for this long hangs.
const STALL: Duration = Duration::from_secs(30);
/// Heartbeats come every second; so many missing in a row are no accident.
const SILENCE: Duration = Duration::from_secs(5);
/// Two senders are complained about for so long after they were seen last; the finding repeats every 10 s.
const TWO_SENDERS: Duration = Duration::from_secs(30);

/// Cheap to clone; all clones show the same egress.
#[derive(Clone)]
pub struct View {
    config: Arc<EgressConfig>,
    local: SocketAddr,
    shared: Arc<Shared>,
    control: Arc<Control>,
    metrics: Arc<LinkMetrics<EgressMetrics>>,
    registry: Registry,
    watchdog: Watchdog,
    report: MissingReport,
    reporter: Reporter,
    maintenance: Arc<Maintenance>,
    certificates: Arc<Certificates>,
    started: Instant,
}

impl View {
    #[expect(clippy::too_many_arguments, reason = "called once, where all of them are at hand")]
    pub(super) fn new(
        config: &Arc<EgressConfig>,
        local: SocketAddr,
        shared: &Arc<Shared>,
        control: &Arc<Control>,
        metrics: &Arc<LinkMetrics<EgressMetrics>>,
        options: &Options,
        report: MissingReport,
        reporter: Reporter,
        maintenance: Maintenance,
    ) -> Self {
        Self {
            config: Arc::clone(config),
            local,
            shared: Arc::clone(shared),
            control: Arc::clone(control),
            metrics: Arc::clone(metrics),
            registry: options.registry.clone(),
            watchdog: options.watchdog.clone(),
            report,
            reporter,
            maintenance: Arc::new(maintenance),
            certificates: Arc::new(Certificates::of_egress(config)),
            started: Instant::now(),
        }
    }

    /// Whether its threads move; never depends on Kafka or on the link.
    pub fn health(&self) -> Result<(), String> {
        let mine = format!("{} ", self.config.link.name.as_str());
        let stalled: Vec<String> = self
            .watchdog
            .stalled(Instant::now(), STALL)
            .into_iter()
            .filter(|(name, _)| name.starts_with(&mine))
            .map(|(name, still)| format!("thread {name} has not moved for {} s", still.as_secs()))
            .collect();
        if stalled.is_empty() { Ok(()) } else { Err(stalled.join("; ")) }
    }

    /// Whether records arrive and can be delivered; else every reason why not.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The metrics page of the process.
    pub fn metrics(&self) -> String {
        self.registry.render()
    }

    /// The files were read again: looks at certificates anew.
    pub(super) fn reload_certificates(&self) {
        self.certificates.reload();
    }

    /// What is missing, the last hundred ranges, oldest first.
    pub fn missing(&self) -> Vec<super::missing::MissingRange> {
        self.report.last()
    }

    /// The address and port on which datagrams arrive.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The state in full.
    pub fn status(&self) -> Value {
        let (config, metrics) = (&self.config, &self.metrics);
        json!({
            "side": "egress",
            "link": { "name": config.link.name.as_str(), "id": config.link.id.0, "listen": self.local.to_string() },
            "uptime_seconds": self.started.elapsed().as_secs(),
            "sessions": *lock(&self.shared.sessions),
            "heartbeat": lock(&self.shared.heartbeat).as_ref().map(heartbeat),
            "received": {
                "datagrams": metrics.packets_received.value(),
                "wire_bytes": metrics.bytes_received.value(),
                "blocks": metrics.blocks_received.value(),
                "records": metrics.records_received.value(),
            },
            "loss": {
                "path_datagrams": metrics.packet_loss.value().saturating_sub(metrics.packets_late.value()),
                "socket_datagrams": metrics.socket_drops.value(),
                "refused_datagrams": metrics.common.dropped_packets.total(),
                "repaired_symbols": metrics.symbols_repaired.value(),
                "repaired_blocks": metrics.blocks_repaired.value(),
                "unrepairable_blocks": metrics.blocks_unrepairable.value(),
                "lost_blocks": metrics.blocks_lost.value(),
                "late_blocks": metrics.blocks_late.value(),
                "buffer_full": metrics.common.buffer_full.value(),
                "missing_records": metrics.records_missing.total(),
            },
            "records": {
                "delivered": metrics.records_delivered.value(),
                "duplicate": metrics.records_duplicate.value(),
                "late": metrics.records_late.value(),
                "refused": metrics.records_missing.value(MissingReason::Refused),
            },
            "positions": self.shared.partitions.load(Relaxed),
            "queue": {
                "bytes": metrics.queue_bytes.value(),
                "limit_bytes": config.buffer.bytes(),
                "batches": self.shared.queued_batches.load(Relaxed),
            },
            "spool": *lock(&self.shared.spool),
            "sink": self.sink(),
            "missing": self.report.last(),
            "gaps": self.report.status(),
            "missing_records": config.missing_records.as_ref().map(|settings| json!({
                "brokers": settings.client.brokers,
                "topic": settings.topic.as_str(),
                "published": metrics.gap_records_published.value(),
                "waiting": metrics.gap_records_waiting.value(),
                "waiting_since": metrics.gap_records_oldest_timestamp_seconds.value()
                    .map(|seconds| Timestamp::from_millis((seconds * 1e3) as u64).to_string()),
                "dropped": metrics.gap_records_dropped.total(),
                "trouble": *lock(&self.shared.publish_trouble),
            })),
            "maintenance": self.maintenance.status(Instant::now()),
            "problems": self.problems(),
        })
    }

    fn sink(&self) -> Value {
        let sink = match &self.config.sink {
            Sink::Kafka(sink) => sink,
            Sink::Udp(sink) => return self.udp_sink(sink),
        };
        let error = self.reporter.last_error();
        json!({
            "brokers": sink.client.brokers,
            "connected": self.shared.connected.load(Relaxed),
            "delivery": sink.delivery.to_string(),
            "held_chunks": self.shared.held.load(Relaxed),
            "in_flight_records": self.shared.in_flight.load(Relaxed),
            "producer_rebuilds": self.shared.rebuilds.load(Relaxed),
            "topics": *lock(&self.shared.topics),
            "waiting_for": lock(&self.shared.sink_problem).clone().or_else(|| lock(&self.shared.held_long).clone()),
            "last_error": error.map(|error| json!({
                "reason": error.verdict.reason,
                "text": error.text,
                "advice": error.verdict.advice,
                "age_seconds": error.at.elapsed().as_secs(),
            })),
            "drained": self.shared.sink_done.load(Relaxed),
        })
    }

    fn udp_sink(&self, sink: &UdpSink) -> Value {
        let streams: BTreeMap<_, _> =
            sink.streams.iter().map(|stream| (stream.name.as_str(), stream.address.to_string())).collect();
        json!({
            "streams": streams,
            "trouble": *lock(&self.shared.sink_problem),
            "drained": self.shared.sink_done.load(Relaxed),
        })
    }

    /// Why records do not reach the destination.
    fn sink_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let waiting = lock(&self.shared.sink_problem);
        let sink = match &self.config.sink {
            Sink::Kafka(sink) => sink,
            Sink::Udp(_) => {
                problems
                    .extend(waiting.iter().map(|why| format!("datagrams are dropped and counted: {why}")));
                return problems;
            }
        };
        let brokers = sink.client.brokers.join(", ");
        if let Some(error) = self.reporter.last_error() {
            problems.push(format!("destination {brokers}: {}; {}", error.text, error.verdict.advice));
        } else if !self.shared.connected.load(Relaxed) {
            problems.push(format!("destination {brokers} has not answered yet"));
        }
        if let Some(waiting) = &*waiting {
            problems.push(format!("records wait for their destination: {waiting}"));
        }
        problems
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.control.is_stopping() {
            problems.push("the egress is stopping".to_owned());
        } else if !self.shared.receiving.load(Relaxed) {
            problems.push(format!("the socket on {} is not read yet", self.local));
        }
        if let Some(error) = &*lock(&self.shared.socket_error) {
            problems.push(format!("the socket on {} cannot be read: {error}", self.local));
        }
        problems.extend(self.link_problem());
        if let Some((at, senders)) = &*lock(&self.shared.two_senders)
            && at.elapsed() < TWO_SENDERS
        {
            problems.push(format!("two ingresses send on this link: {senders}; stop one of them"));
        }
        problems.extend(self.sink_problems());
        problems.extend(self.spool_problems());
        problems
    }

    fn spool_problems(&self) -> Vec<String> {
        let spool = lock(&self.shared.spool);
        let Some(spool) = &*spool else { return Vec::new() };
        let mut problems = Vec::new();
        if let Some(why) = &spool.refusing {
            problems.push(format!("the spool refuses what comes, records are lost: {why}"));
        }
        if let Some(error) = &spool.fsync_error {
            problems.push(format!(
                "the spool in {} cannot be forced onto the disk: {error}; a power cut would cost what is in it; look at the kernel's log",
                spool.directory
            ));
        }
        if let Some(error) = &spool.checkpoint_error {
            problems.push(format!("the spool in {}: {error}", spool.directory));
        }
        problems
    }

    fn link_problem(&self) -> Option<String> {
        match &*lock(&self.shared.heartbeat) {
            None => Some(format!(
                "no heartbeat of an ingress has come on {}; check that it runs, its target, link id and key, and the path",
                self.local
            )),
            Some(heartbeat) if heartbeat.at.elapsed() > SILENCE => {
                Some(format!("no heartbeat of the ingress for {} s", heartbeat.at.elapsed().as_secs()))
            }
            Some(_) => None,
        }
    }
}

fn heartbeat(view: &HeartbeatView) -> Value {
    let heartbeat = &view.heartbeat;
    json!({
        "age_seconds": view.at.elapsed().as_secs_f64(),
        "session": view.session,
        "clock_difference_seconds": view.clock_difference_micros as f64 / 1e6,
        "source": {
            "state": heartbeat.source_state.as_str(),
            "uptime_seconds": heartbeat.uptime_micros / 1_000_000,
            "datagrams": heartbeat.packets,
            "blocks": heartbeat.blocks,
            "records": heartbeat.records,
            "bytes": heartbeat.bytes,
            "lag_records": heartbeat.lag,
            "rate_bits_per_second": (heartbeat.rate_bits > 0).then_some(heartbeat.rate_bits),
        },
    })
}

impl crate::admin::AdminState for View {
    fn health(&self) -> Result<(), String> {
        Self::health(self)
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        Self::ready(self)
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }

    fn status(&self) -> Value {
        Self::status(self)
    }

    fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    fn each_second(&self) -> Result<(), Vec<String>> {
        let ready = Self::ready(self);
        tell(&self.metrics.common, ready.is_ok(), &self.maintenance);
        self.certificates.serve(Instant::now(), &self.metrics);
        ready
    }
}
