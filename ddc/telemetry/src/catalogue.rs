//! THE table of metrics: every metric once, with its name, kind, unit, labels and help.
//!
//! A row makes a field of a struct of atomics (what code adds to), a [`Descriptor`] (what docs/metrics.md and the checks of rules and
//! panels read) and a line of the exposition. The doc comment is the help text; there is no second one.
//! `packets_sent` in scope `ingress.` is `ddc.ingress.packets_sent` in StatsD and `ddc_ingress_packets_sent_total` in Prometheus.
//!
//! Every metric of a link has the labels `link` and `side`, every metric of a process the label `process`; all have `site` where one
//! is configured. Other labels come only from enums ([`crate::reasons`]) and, for one metric, from at most 64 topics, so the
//! number of series is bounded by the number of links.
//!
//! Counters of record counts count records, not events: a chunk of 500 records that is late adds 500.

use crate::cells::{
    ByTopic, Counter, Counters, CpuTimes, Describe, Gauge, Histogram, Kind, LabelSet, Metric, Reading,
    Readings, States,
};
use crate::process::{BuildInfo, CpuSeconds, ResidentMemory};
use crate::reasons::{
    Certificate, DeadLetterFailure, DeadLetterReason, DropReason, GapRecordDrop, KafkaErrorReason,
    MissingReason, SendErrorReason, SkipReason, SourceDropReason, SourceState, SpoolDrop, SpoolOperation,
    SpoolRefusal, Thread,
};

/// What a number counts or measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// UDP datagrams.
    Datagrams,
    /// Bytes.
    Bytes,
    /// Blocks of the wire format.
    Blocks,
    /// Symbols of a block.
    Symbols,
    /// Batches.
    Batches,
    /// Kafka records.
    Records,
    /// Partitions.
    Partitions,
    /// Sessions of the wire format.
    Sessions,
    /// Happenings of the kind the help names.
    Events,
    /// Seconds.
    Seconds,
    /// Seconds since 1970-01-01 UTC.
    Timestamp,
    /// Bits per second.
    BitsPerSecond,
    /// Lines of the log.
    Lines,
    /// Messages of the log.
    Messages,
    /// A number that names something.
    Identifier,
    /// 0 or 1.
    Flag,
}

impl Unit {
    /// The word in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Datagrams => "datagrams",
            Self::Bytes => "bytes",
            Self::Blocks => "blocks",
            Self::Symbols => "symbols",
            Self::Batches => "batches",
            Self::Records => "records",
            Self::Partitions => "partitions",
            Self::Sessions => "sessions",
            Self::Events => "events",
            Self::Seconds => "seconds",
            Self::Timestamp => "seconds since 1970",
            Self::BitsPerSecond => "bits per second",
            Self::Lines => "lines",
            Self::Messages => "messages",
            Self::Identifier => "number",
            Self::Flag => "0 or 1",
        }
    }
}

/// One row of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The name without the leading `ddc.`: `ingress.packets_sent`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// Labels of the whole table: `link` and `side`, or `process`.
    pub labels: &'static [&'static str],
    /// Further labels whose values are fixed for the life of the process.
    pub fixed: &'static [&'static str],
    /// The label with a fixed list of values, if there is one.
    pub by: Option<LabelSet>,
    /// Whether it has the label `topic`: at most [`crate::cells::MAX_TOPICS`] names, the rest summed as `other`.
    pub by_topic: bool,
    /// One sentence or two, from the doc comment.
    pub help: &'static str,
}

impl Descriptor {
    /// `ddc.ingress.packets_sent`
    pub fn statsd_name(&self) -> String {
        format!("ddc.{}", self.name)
    }

    /// `ddc_ingress_packets_sent_total`; gauges and histograms have no `_total`.
    pub fn prometheus_name(&self) -> String {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("ddc_{}{suffix}", self.name.replace('.', "_"))
    }

    /// Every label key, in the order of the exposition; without `site`, which all or none have.
    pub fn label_keys(&self) -> impl Iterator<Item = &'static str> + '_ {
        let topic = self.by_topic.then_some("topic");
        self.labels.iter().chain(self.fixed).copied().chain(self.by.map(|by| by.key)).chain(topic)
    }
}

/// A struct of metrics made by `metrics!`: its rows, and its cells in the same order.
pub trait Table: Default + Send + Sync + 'static {
    /// The rows.
    const DESCRIPTORS: &'static [Descriptor];

    /// The cell of row `row`. Panics when there is no such row: callers count with [`Table::DESCRIPTORS`].
    fn cell(&self, row: usize) -> &dyn Metric;
}

/// All rows, table after table, in the order of the exposition.
pub fn all() -> impl Iterator<Item = &'static Descriptor> {
    [
        CommonMetrics::DESCRIPTORS,
        IngressMetrics::DESCRIPTORS,
        EgressMetrics::DESCRIPTORS,
        ProcessMetrics::DESCRIPTORS,
    ]
    .into_iter()
    .flatten()
}

/// Labels of every metric of a link.
const LINK_LABELS: &[&str] = &["link", "side"];
/// Labels of the metrics of a process.
const PROCESS_LABELS: &[&str] = &["process"];

/// Makes a struct of metrics and its [`Table`].
macro_rules! metrics {
    (
        $(#[doc = $about:literal])+
        pub struct $Table:ident, scope = $scope:literal, labels = $labels:ident {
            $( $(#[doc = $help:literal])+ $name:ident: $Cell:ty, unit = $unit:ident; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Default)]
        pub struct $Table {
            $( $(#[doc = $help])+ pub $name: $Cell, )+
        }

        impl Table for $Table {
            const DESCRIPTORS: &'static [Descriptor] = &[
                $( Descriptor {
                    name: concat!($scope, stringify!($name)),
                    kind: <$Cell as Describe>::KIND,
                    unit: Unit::$unit,
                    labels: $labels,
                    fixed: <$Cell as Describe>::FIXED,
                    by: <$Cell as Describe>::BY,
                    by_topic: <$Cell as Describe>::BY_TOPIC,
                    help: concat!($($help),+).trim_ascii(),
                } ),+
            ];

            fn cell(&self, row: usize) -> &dyn Metric {
                let cells: &[&dyn Metric] = &[$(&self.$name),+];
                cells[row]
            }
        }
    };
}

metrics! {
    /// What both sides of a link measure.
    pub struct CommonMetrics, scope = "", labels = LINK_LABELS {
        /// Datagrams that were not used or not sent, by reason.
        dropped_packets: Counters<DropReason>, unit = Datagrams;
        /// Times the bounded buffer was found full: the ingress then pauses its source, the egress drops and reports.
        buffer_full: Counter, unit = Events;
        /// 1 while the proxy can do its work, as `/readyz` says.
        ready: Gauge, unit = Flag;
        /// 1 while an operator works on the link (`POST /maintenance`): alerts of the link are held back; ends by itself.
        link_maintenance: Gauge, unit = Flag;
        /// CPU time used by each thread of the data path, in user and kernel mode.
        thread_cpu_seconds: CpuTimes<Thread>, unit = Seconds;
        /// When the first certificate in that file ends; absent without the file.
        certificate_expiry_timestamp_seconds: Readings<Certificate>, unit = Timestamp;
    }
}

metrics! {
    /// What the ingress of one link measures: source → packer → FEC, seal, pacer → socket.
    pub struct IngressMetrics, scope = "ingress.", labels = LINK_LABELS {
        /// Datagrams handed to the kernel, of every kind.
        packets_sent: Counter, unit = Datagrams;
        /// Bytes of these datagrams on the wire, Ethernet, IP and UDP framing included: what `rate` counts.
        bytes_sent: Counter, unit = Bytes;
        /// Blocks of which all source symbols were handed to the kernel.
        blocks_sent: Counter, unit = Blocks;
        /// Batches packed and sent.
        batches_sent: Counter, unit = Batches;
        /// Batches that carried a ledger: where each partition stands.
        ledgers_sent: Counter, unit = Batches;
        /// Records read from the source.
        records_read: Counter, unit = Records;
        /// Records packed into batches.
        records_packed: Counter, unit = Records;
        /// Records of batches that were handed to the kernel.
        records_sent: Counter, unit = Records;
        /// Bytes of the batches sent, before compression.
        record_bytes_sent: Counter, unit = Bytes;
        /// Bytes of the batches sent, after compression.
        compressed_bytes: Counter, unit = Bytes;
        /// Source symbols sent.
        source_symbols: Counter, unit = Symbols;
        /// Repair symbols sent.
        repair_symbols: Counter, unit = Symbols;
        /// Heartbeats sent, one each second.
        heartbeats_sent: Counter, unit = Datagrams;
        /// Times the pacer held a datagram back to keep `rate`.
        pace_waits: Counter, unit = Events;
        /// Times the kernel did not take a datagram, by reason; what was not sent after all is in `ddc_dropped_packets_total`.
        send_errors: Counters<SendErrorReason>, unit = Events;
        /// Times the socket's send buffer had no room and the sender waited.
        send_buffer_full: Counter, unit = Events;
        /// 1 while the source is paused because `[link] buffer` is full.
        kafka_paused: Gauge, unit = Flag;
        /// Commits of offsets that the source acknowledged.
        commits: Counter, unit = Events;
        /// Commits of offsets that failed; what they covered is sent again after a restart.
        commit_failures: Counter, unit = Events;
        /// Times the consumer group gave or took partitions.
        rebalances: Counter, unit = Events;
        /// Partitions this ingress reads now.
        assigned_partitions: Gauge, unit = Partitions;
        /// Records in the assigned partitions that were not sent yet, by topic: 64 topics by name, the rest in `other`.
        consumer_lag: ByTopic, unit = Records;
        /// Bytes that wait between the source and the socket, bounded by `[link] buffer`.
        queue_bytes: Gauge, unit = Bytes;
        /// Records read and never sent, by reason: the destination lacks them.
        records_skipped: Counters<SkipReason>, unit = Records;
        /// Records that the ingress could not send and kept as dead letters, by reason.
        dead_letters: Counters<DeadLetterReason>, unit = Records;
        /// Times a dead letter could not be kept, by reason; what then happens says `[dead_letters] on_failure`.
        dead_letter_errors: Counters<DeadLetterFailure>, unit = Events;
        /// Bytes of the dead letters in `[dead_letters] directory`; absent without one.
        dead_letter_bytes: Reading, unit = Bytes;
        /// Start of the session the ingress sends in, by its own clock.
        session_start_timestamp_seconds: Reading, unit = Timestamp;
        /// The key id the ingress seals with.
        key_id: Reading, unit = Identifier;
        /// Times a topic was found to be another one of the same name.
        topics_recreated: Counter, unit = Events;
        /// 1 while the ingress is paused by an operator or the checker (`ddc pause`): nothing is read.
        paused: Gauge, unit = Flag;
        /// Times partitions were sent back to where they were (`ddc rewind`, `ddc pause --since`).
        rewinds: Counter, unit = Events;
        /// Records that go again because of that; the egress skips those that it has.
        rewound_records: Counter, unit = Records;
        /// 1 while a replay is under way (`ddc replay`).
        replay_active: Gauge, unit = Flag;
        /// Records that replays have sent again.
        replay_records_sent: Counter, unit = Records;
        /// Offsets that replays have answered for without a record: deleted, compacted or aborted at the source.
        replay_offsets_gone: Counter, unit = Records;
        /// Replays that failed before their end; the answer of `GET /v1/replay` says why.
        replays_failed: Counter, unit = Events;
        /// Errors of the source, by reason.
        source_errors: Counters<KafkaErrorReason>, unit = Events;
        /// Datagrams that a UDP source could not take, by reason.
        source_drops: Counters<SourceDropReason>, unit = Datagrams;
        /// The configured rate; absent when unlimited.
        rate_limit_bits_per_second: Reading, unit = BitsPerSecond;
    }
}

metrics! {
    /// What the egress of one link measures: socket → seal, FEC, order → sink.
    pub struct EgressMetrics, scope = "egress.", labels = LINK_LABELS {
        /// Datagrams read from the socket, ours or not.
        packets_received: Counter, unit = Datagrams;
        /// Bytes of these datagrams on the wire, Ethernet, IP and UDP framing included.
        bytes_received: Counter, unit = Bytes;
        /// Datagrams lost on the path, by packet numbers; those that come later are in `ddc_egress_packets_late_total`: subtract.
        packet_loss: Counter, unit = Datagrams;
        /// Datagrams that were counted as lost and came after all.
        packets_late: Counter, unit = Datagrams;
        /// Datagrams the kernel dropped because our receive buffer was full; they are part of `ddc_egress_packet_loss_total` too.
        socket_drops: Counter, unit = Datagrams;
        /// Bytes the kernel gave for the receive buffer.
        receive_buffer_bytes: Reading, unit = Bytes;
        /// Sessions opened.
        sessions_opened: Counter, unit = Sessions;
        /// Sessions retired: said goodbye, or silent while a newer one was open.
        sessions_retired: Counter, unit = Sessions;
        /// Sessions open now.
        sessions_open: Gauge, unit = Sessions;
        /// Start of the newest session, by the ingress's clock.
        session_start_timestamp_seconds: Reading, unit = Timestamp;
        /// The key id of the newest session.
        key_id: Reading, unit = Identifier;
        /// Times two sessions were found sending side by side for long: two ingresses on one link.
        two_senders: Counter, unit = Events;
        /// Blocks of which at least one symbol came.
        blocks_received: Counter, unit = Blocks;
        /// Blocks completed with repair symbols.
        blocks_repaired: Counter, unit = Blocks;
        /// Source symbols computed from repair symbols.
        symbols_repaired: Counter, unit = Symbols;
        /// Symbols that came for a block that was complete already: no fault, on a clean path every repair symbol.
        symbols_spare: Counter, unit = Symbols;
        /// Blocks given up with too few symbols to repair them.
        blocks_unrepairable: Counter, unit = Blocks;
        /// Blocks given up of which not one symbol came.
        blocks_lost: Counter, unit = Blocks;
        /// Blocks completed after they had been stepped over.
        blocks_late: Counter, unit = Blocks;
        /// Bytes of blocks in the reorder window, bounded by `[link.receive] window`.
        window_bytes: Gauge, unit = Bytes;
        /// Batches that came whole and could not be read: the two sides are of different versions, or one has a fault.
        batches_refused: Counter, unit = Batches;
        /// Records of batches that came whole.
        records_received: Counter, unit = Records;
        /// Records the sink acknowledged.
        records_delivered: Counter, unit = Records;
        /// Records skipped because they had been delivered before.
        records_duplicate: Counter, unit = Records;
        /// Records that came after they had been stepped over.
        records_late: Counter, unit = Records;
        /// Records that were sent and will not be delivered, by reason; the log names topic, partition and offsets.
        records_missing: Counters<MissingReason>, unit = Records;
        /// Records that the destination refuses and that were kept as dead letters, by reason.
        dead_letters: Counters<DeadLetterReason>, unit = Records;
        /// Times a dead letter could not be kept, by reason; what then happens says `[dead_letters] on_failure`.
        dead_letter_errors: Counters<DeadLetterFailure>, unit = Events;
        /// Bytes of the dead letters in `[dead_letters] directory`; absent without one.
        dead_letter_bytes: Reading, unit = Bytes;
        /// Records written with the time of their writing, because the destination refuses their own (`bad_timestamp = "clamp"`).
        timestamps_clamped: Counter, unit = Records;
        /// Gaps of which something is still missing and is taken when it comes; `ddc gaps list` names them.
        gaps_open: Gauge, unit = Events;
        /// Records about gaps that the topic of `[missing_records]` has acknowledged.
        gap_records_published: Counter, unit = Records;
        /// Errors of `[missing_records]`, by reason; what was not written is written later.
        gap_record_errors: Counters<KafkaErrorReason>, unit = Events;
        /// Gaps whose latest change is not in the topic of `[missing_records]` yet.
        gap_records_waiting: Gauge, unit = Events;
        /// When the oldest change of these happened, by the egress's clock; absent while nothing waits.
        gap_records_oldest_timestamp_seconds: Reading, unit = Timestamp;
        /// Changes of gaps that will never be in the topic of `[missing_records]`, by reason; the log names each gap.
        gap_records_dropped: Counters<GapRecordDrop>, unit = Records;
        /// Records that the topic `ddc-progress` had lost and that were written again from memory: somebody deleted it, made it again or cut it.
        progress_restored: Counter, unit = Records;
        /// Errors of the sink, by reason.
        sink_errors: Counters<KafkaErrorReason>, unit = Events;
        /// Times the sink tried records again.
        sink_retries: Counter, unit = Events;
        /// From handing a record to the sink to its acknowledgement.
        sink_latency_seconds: Histogram, unit = Seconds;
        /// From a record's timestamp at the source to its acknowledgement by the sink, so the clocks' difference is part of it; less than 0 counts as 0.
        end_to_end_latency_seconds: Histogram, unit = Seconds;
        /// From the ingress's clock to the egress's clock, by heartbeat, so the clocks' difference is part of it; less than 0 counts as 0.
        transit_latency_seconds: Histogram, unit = Seconds;
        /// Bytes in memory that wait between the link and the sink, bounded by `[sink] buffer`; what waits on disk is in `ddc_egress_spool_waiting_bytes`.
        queue_bytes: Gauge, unit = Bytes;
        /// Bytes of the spool's files; absent without a spool, as are the others that can only be read off one.
        spool_bytes: Reading, unit = Bytes;
        /// What the spool's files may take at most: `[spool] max_size`, or what was chosen for it at the start.
        spool_limit_bytes: Reading, unit = Bytes;
        /// Bytes in the spool from the oldest batch that is not settled on: what a crash of the destination would cost without it.
        spool_waiting_bytes: Reading, unit = Bytes;
        /// Age of the oldest batch in the spool that is not settled, within a second or so; time in which no egress ran does not count.
        spool_oldest_age_seconds: Reading, unit = Seconds;
        /// Bytes that are free for this process on the file system of the spool.
        spool_disk_free_bytes: Reading, unit = Bytes;
        /// For how long the oldest batch that is not forced onto the disk has been waiting for it: what a power cut would cost.
        spool_unsynced_seconds: Reading, unit = Seconds;
        /// Bytes in the spool that may not be on the disk, since forcing them there failed.
        spool_doubtful_bytes: Reading, unit = Bytes;
        /// 1 while the spool refuses batches: their records are lost and will be named.
        spool_refusing: Gauge, unit = Flag;
        /// Batches appended to the spool.
        spool_batches_appended: Counter, unit = Batches;
        /// Bytes appended to the spool, its framing included.
        spool_appended_bytes: Counter, unit = Bytes;
        /// Bytes read back from the spool's files; none while the sink keeps up.
        spool_read_bytes: Counter, unit = Bytes;
        /// Batches that the spool refused, by reason: their records are lost and will be named.
        spool_batches_refused: Counters<SpoolRefusal>, unit = Batches;
        /// Batches that went unsettled with the oldest file, by reason: their records are lost and will be named.
        spool_batches_dropped: Counters<SpoolDrop>, unit = Batches;
        /// Damaged places that were found in the spool; what was there is lost and will be named.
        spool_damaged_places: Counter, unit = Events;
        /// Times a file of the spool was forced onto the disk.
        spool_fsyncs: Counter, unit = Events;
        /// How long forcing a file of the spool onto the disk took, whether it succeeded or not; long on a disk that is slow, or busy with others.
        spool_fsync_latency_seconds: Histogram, unit = Seconds;
        /// Errors of the spool's disk, by what was tried.
        spool_errors: Counters<SpoolOperation>, unit = Events;
        /// Heartbeats received.
        heartbeats_received: Counter, unit = Datagrams;
        /// When the last heartbeat came, by the egress's clock.
        last_heartbeat_timestamp_seconds: Reading, unit = Timestamp;
        /// The egress's clock less the ingress's clock at the last heartbeat; the way of the heartbeat is part of it.
        clock_difference_seconds: Reading, unit = Seconds;
        /// Datagrams the ingress says it has sent in this session, at its last heartbeat.
        source_packets_sent: Reading, unit = Datagrams;
        /// Blocks the ingress says it has sent in this session, at its last heartbeat.
        source_blocks_sent: Reading, unit = Blocks;
        /// Records the ingress says it has sent in this session, at its last heartbeat.
        source_records_sent: Reading, unit = Records;
        /// Bytes of UDP payload the ingress says it has sent in this session, at its last heartbeat.
        source_bytes_sent: Reading, unit = Bytes;
        /// 1 for what the ingress says its source does, at its last heartbeat, 0 for the others.
        source_state: States<SourceState>, unit = Flag;
        /// Records the ingress says it has yet to send, at its last heartbeat.
        source_lag: Reading, unit = Records;
        /// The rate on the wire the ingress says it is limited to, at its last heartbeat; absent when unlimited.
        source_rate_bits_per_second: Reading, unit = BitsPerSecond;
    }
}

metrics! {
    /// What a process measures about itself, whatever links it runs.
    pub struct ProcessMetrics, scope = "", labels = PROCESS_LABELS {
        /// Times every thread of the data path was seen to have moved; standing still between two scrapes means that one hangs.
        process_ticks: Counter, unit = Events;
        /// When the process started, by its own clock.
        process_start_timestamp_seconds: Reading, unit = Timestamp;
        /// CPU time used by all threads, in user and kernel mode.
        process_cpu_seconds: CpuSeconds, unit = Seconds;
        /// Bytes of the process that are in memory.
        process_resident_memory_bytes: ResidentMemory, unit = Bytes;
        /// StatsD datagrams handed to the kernel, for all targets.
        statsd_datagrams_sent: Counter, unit = Datagrams;
        /// StatsD datagrams that the kernel did not take or whose target refused; what they carried is lost to that target.
        statsd_datagrams_dropped: Counter, unit = Datagrams;
        /// Log messages handed to the kernel for syslog, for all targets.
        syslog_messages_sent: Counter, unit = Messages;
        /// Log messages that syslog did not get: the target was away and the bounded queue was full.
        syslog_messages_dropped: Counter, unit = Messages;
        /// Log lines that stderr did not get: its reader was slow and the bounded queue was full.
        log_lines_dropped: Counter, unit = Lines;
        /// Always 1: the version, and an id that is new at each start.
        build_info: BuildInfo, unit = Flag;
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
