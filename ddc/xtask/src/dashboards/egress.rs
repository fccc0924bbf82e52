//! *Egress*: the destination side along the way of a record, socket → open, recover, order → sink.

use super::model::*;
use super::parts::*;
use super::query::{Query, over, series};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "egress",
        title: "Egress",
        about: "The destination side along the way of a record: receiving, recovering, delivering; and what the source tells by heartbeat.",
        variables: &[Variable::Site, Variable::Links],
        rows: vec![
            Row { title: "Now", panels: now() },
            Row { title: "Receiving", panels: receiving() },
            Row { title: "Recovering", panels: recovering() },
            Row { title: "Delivering", panels: delivering() },
            Row { title: "Spool", panels: spool() },
            Row { title: "Sessions and heartbeats", panels: sessions() },
            Row { title: "Life of the egress", panels: life() },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        number("Ready", "Whether the egress can do its work.", series("ddc_ready").on("egress").least())
            .words(&YES_IS_GOOD)
            .runbooks(&["NotReady", "EgressDown", "SinkDown"]),
        number("Heartbeat age", "Seconds since the last heartbeat came.", heartbeat_age())
            .steps(&[(0.0, "green"), (3.0, "orange"), (5.0, "red")])
            .runbooks(&["LinkInterrupted"]),
        number(
            "Loss on the way",
            "The part of the datagrams that did not come, before repair.",
            loss_ratio(),
        )
        .steps(&[(0.0, "green"), (0.001, "orange"), (0.01, "red")])
        .runbooks(&["PacketLoss"]),
        number("Missing in the time shown", "Records lost for good, after repair.", missing())
            .steps(&NONE_IS_GOOD)
            .runbooks(&["RecordsMissing"]),
        number(
            "Waits for the sink",
            "Bytes between the link and the sink.",
            series("ddc_egress_queue_bytes").now(),
        )
        .runbooks(&["SinkDown"]),
        number(
            "Receive buffer",
            "What the kernel gave: too small a buffer loses datagrams in bursts (net.core.rmem_max).",
            series("ddc_egress_receive_buffer_bytes").now(),
        )
        .runbooks(&["ReceiveBufferSmall"]),
    ]
}

fn receiving() -> Vec<Panel> {
    vec![
        lines("Rate received, framing included", "Bits on the wire of all datagrams that came.", vec![target(received_bits(), "{{link}} {{site}}")]),
        lines(
            "Datagrams received",
            "All datagrams, and the heartbeats among them: less than one each second is loss.",
            vec![
                target(series("ddc_egress_packets_received_total").rate(), "all {{link}}"),
                target(series("ddc_egress_heartbeats_received_total").rate(), "heartbeats {{link}}"),
            ],
        ),
        lines(
            "Datagrams lost",
            "By packet numbers; what came late was counted as lost before; what our socket dropped is part of the loss.",
            vec![
                target(series("ddc_egress_packet_loss_total").rate(), "lost {{link}}"),
                target(series("ddc_egress_packets_late_total").rate(), "late {{link}}"),
                target(series("ddc_egress_socket_drops_total").rate(), "socket {{link}}"),
            ],
        )
        .runbooks(&["PacketLoss", "SocketDrops"]),
        lines(
            "Datagrams refused by reason",
            "Datagrams that came and were not used. `seal`: wrong key or damaged. `block_old` and `duplicate`: late repair, no fault.",
            vec![target(series("ddc_dropped_packets_total").on("egress").by("reason").rate(), "{{link}} {{reason}}")],
        )
        .wide(24)
        .runbooks(&["SealRejects", "SessionRejects", "KeyMismatch", "PacketsRefused"]),
    ]
}

fn recovering() -> Vec<Panel> {
    vec![
        lines(
            "Blocks",
            "Received, and what became of those that were not whole.",
            vec![
                target(series("ddc_egress_blocks_received_total").rate(), "received {{link}}"),
                target(series("ddc_egress_blocks_repaired_total").rate(), "repaired {{link}}"),
                target(series("ddc_egress_blocks_unrepairable_total").rate(), "unrepairable {{link}}"),
                target(series("ddc_egress_blocks_lost_total").rate(), "lost whole {{link}}"),
                target(series("ddc_egress_blocks_late_total").rate(), "late {{link}}"),
            ],
        ).wide(12)
        .runbooks(&["UnrepairableBlocks"]),
        lines(
            "Symbols repaired and spare",
            "Computed from repair symbols, and not needed. On a clean path every repair symbol is spare.",
            vec![
                target(series("ddc_egress_symbols_repaired_total").rate(), "repaired {{link}}"),
                target(series("ddc_egress_symbols_spare_total").rate(), "spare {{link}}"),
            ],
        ).runbooks(&["RepairHigh"]).wide(12),
        lines(
            "Reorder window",
            "Bytes of blocks that wait for their order or for repair.",
            vec![target(series("ddc_egress_window_bytes").now(), "{{link}} {{site}}")],
        ).wide(12),
        lines(
            "Batches refused",
            "Whole batches that could not be read: the two sides are of different versions, or one has a fault.",
            vec![target(series("ddc_egress_batches_refused_total").rate(), "{{link}} {{site}}")],
        ).wide(12)
        .runbooks(&["VersionMismatch"]),
    ]
}

/// The lines of a histogram of durations.
fn durations(name: &'static str) -> Vec<Target> {
    vec![
        target(series(name).quantile("0.5"), "half below {{link}}"),
        target(series(name).quantile("0.99"), "99 % below {{link}}"),
        target(series(name).mean(), "mean {{link}}"),
    ]
}

fn delivering() -> Vec<Panel> {
    vec![
        lines(
            "Records received and delivered",
            "Duplicates are what an ingress sends again after a restart; late ones fill a gap that was reported.",
            vec![
                target(series("ddc_egress_records_received_total").rate(), "received {{link}}"),
                target(series("ddc_egress_records_delivered_total").rate(), "delivered {{link}}"),
                target(series("ddc_egress_records_duplicate_total").rate(), "duplicate {{link}}"),
                target(series("ddc_egress_records_late_total").rate(), "late {{link}}"),
            ],
        ).runbooks(&["RecordsLate"]),
        stack(
            "Records missing by reason",
            "Sent, and not delivered. The log names topic, partition and offsets.",
            vec![target(series("ddc_egress_records_missing_total").by("reason").rate(), "{{link}} {{reason}}")],
        )
        .runbooks(&["RecordsMissing"]),
        lines(
            "Dead letters by reason",
            "Records that the destination refuses and that are kept, in the topic or directory of `[dead_letters]`; and those written with another time (`clamp`).",
            vec![
                target(series("ddc_egress_dead_letters_total").by("reason").rate(), "{{link}} {{reason}}"),
                target(series("ddc_egress_timestamps_clamped_total").rate(), "{{link}} clamped"),
            ],
        )
        .runbooks(&["DeadLetters"]),
        lines(
            "Dead letters not kept by reason",
            "Times a dead letter could not be kept. What then happens says `on_failure`: a gap, or waiting.",
            vec![target(
                series("ddc_egress_dead_letter_errors_total").by("reason").rate(),
                "{{link}} {{reason}}",
            )],
        )
        .runbooks(&["DeadLettersNotKept"]),
        lines(
            "Dead letters in the directory",
            "Bytes of `[dead_letters] directory`, bounded by `max_size`. DDC deletes none: carry them away in time.",
            vec![target(series("ddc_egress_dead_letter_bytes").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["DeadLettersNotKept"]),
        lines(
            "Progress written again",
            "Records of `ddc-progress` that the topic had lost and that the egress wrote again from memory: somebody deleted it, made it again or cut it.",
            vec![target(series("ddc_egress_progress_restored_total").rate(), "{{link}} {{site}}")],
        )
        .runbooks(&["ProgressLost"]),
        lines(
            "Open gaps",
            "Gaps of which something is still missing and is taken when it comes; and those whose latest change is not in the topic of `[missing_records]` yet. `ddc gaps list` names them.",
            vec![
                target(series("ddc_egress_gaps_open").now(), "open {{link}}"),
                target(series("ddc_egress_gap_records_waiting").now(), "not published {{link}}"),
            ],
        )
        .runbooks(&["RecordsMissing", "MissingRecordsNotPublished"]),
        lines(
            "Records about gaps",
            "What the topic of `[missing_records]` has acknowledged: each change of a gap is a record. And what it will never have.",
            vec![
                target(series("ddc_egress_gap_records_published_total").rate(), "published {{link}}"),
                target(series("ddc_egress_gap_records_dropped_total").by("reason").rate(), "dropped, {{reason}} {{link}}"),
            ],
        )
        .runbooks(&["MissingRecordsNotPublished"]),
        lines(
            "Oldest record about a gap that waits",
            "For how long the oldest change of a gap has not been in the topic of `[missing_records]`, the clocks' difference included; 0 while nothing waits.",
            vec![target(
                Query {
                    unit: Some("s"),
                    ..over(
                        "(time() - {0}) * ({1} > bool 0) or {1} * 0",
                        [
                            series("ddc_egress_gap_records_oldest_timestamp_seconds").now(),
                            series("ddc_egress_gap_records_waiting").now(),
                        ],
                    )
                },
                "{{link}} {{site}}",
            )],
        )
        .runbooks(&["MissingRecordsNotPublished"]),
        lines(
            "Errors of [missing_records] by reason",
            "Why records about gaps were not written. They are written later; no record of the link waits for that.",
            vec![target(series("ddc_egress_gap_record_errors_total").by("reason").rate(), "{{link}} {{reason}}")],
        )
        .runbooks(&["MissingRecordsNotPublished"]),
        lines(
            "Sink errors by reason",
            "Errors of the destination's Kafka or of the socket that is written.",
            vec![target(series("ddc_egress_sink_errors_total").by("reason").rate(), "{{link}} {{reason}}")],
        )
        .runbooks(&["SinkErrors", "SinkDown"]),
        lines("Sink latency", "From handing a record to the sink to its acknowledgement.", durations("ddc_egress_sink_latency_seconds"))
            .runbooks(&["SinkSlow"]),
        lines(
            "End-to-end latency",
            "From a record's timestamp at the source to the sink's acknowledgement; the clocks' difference is part of it.",
            durations("ddc_egress_end_to_end_latency_seconds"),
        ),
        lines(
            "Transit latency",
            "Of heartbeats, from clock to clock; the clocks' difference is part of it.",
            durations("ddc_egress_transit_latency_seconds"),
        )
        .runbooks(&["ClockSkew"]),
        lines(
            "Sink retries",
            "Times the sink tried records again.",
            vec![target(series("ddc_egress_sink_retries_total").rate(), "{{link}} {{site}}")],
        )
        .runbooks(&["SinkDown"]),
        lines(
            "Bytes that wait for the sink",
            "In memory, between the link and the sink, bounded by `[sink] buffer`; when it is full and there is no spool, records are dropped and reported.",
            vec![target(series("ddc_egress_queue_bytes").now(), "{{link}} {{site}}")],
        )
        .wide(16)
        .runbooks(&["SinkDown"]),
        lines(
            "Buffer found full, egress",
            "Each time records were dropped and reported.",
            vec![target(series("ddc_buffer_full_total").on("egress").rate(), "{{link}} {{site}}")],
        )
        .runbooks(&["BufferFull"]),
    ]
}

fn spool() -> Vec<Panel> {
    vec![
        lines(
            "Bytes in the spool",
            "Of its files, and what of that is not settled; at the limit records are lost.",
            vec![
                target(series("ddc_egress_spool_bytes").now(), "files {{link}}"),
                target(series("ddc_egress_spool_waiting_bytes").now(), "waiting {{link}}"),
                target(series("ddc_egress_spool_limit_bytes").now(), "limit {{link}}"),
                target(series("ddc_egress_spool_disk_free_bytes").now(), "free on the disk {{link}}"),
            ],
        )
        .runbooks(&["SpoolFilling", "SpoolFull"]),
        lines(
            "Oldest that waits",
            "Age of the oldest batch that is not settled.",
            vec![target(series("ddc_egress_spool_oldest_age_seconds").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["SpoolFilling", "SinkDown"]),
        lines(
            "Bytes into the spool and back",
            "Appended, and read back from the disk: nothing is read while the sink keeps up.",
            vec![
                target(series("ddc_egress_spool_appended_bytes_total").rate(), "appended {{link}}"),
                target(series("ddc_egress_spool_read_bytes_total").rate(), "read {{link}}"),
            ],
        ),
        lines(
            "Batches of the spool",
            "Appended; refused and dropped, whose records are lost and named.",
            vec![
                target(series("ddc_egress_spool_batches_appended_total").rate(), "appended {{link}}"),
                target(
                    series("ddc_egress_spool_batches_refused_total").rate(),
                    "refused, {{reason}} {{link}}",
                ),
                target(
                    series("ddc_egress_spool_batches_dropped_total").rate(),
                    "dropped, {{reason}} {{link}}",
                ),
            ],
        )
        .runbooks(&["SpoolFull"]),
        lines(
            "Not forced onto the disk",
            "For how long the oldest such batch has been waiting: what a power cut would cost.",
            vec![target(series("ddc_egress_spool_unsynced_seconds").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["SpoolErrors"]),
        lines(
            "Disk of the spool",
            "Calls that forced data onto the disk, and what failed there.",
            vec![
                target(series("ddc_egress_spool_fsyncs_total").rate(), "fsync {{link}}"),
                target(series("ddc_egress_spool_errors_total").rate(), "failed: {{operation}} {{link}}"),
            ],
        )
        .runbooks(&["SpoolErrors"]),
        lines(
            "Time to force the spool onto the disk",
            "Of each call, failed ones included. A disk that needs longer than `[spool] fsync` names is too slow, or shared with somebody: a power cut costs that much more.",
            durations("ddc_egress_spool_fsync_latency_seconds"),
        )
        .wide(24)
        .runbooks(&["SpoolErrors", "SpoolFilling"]),
        lines(
            "Damaged places in the spool",
            "What was there is lost and named.",
            vec![target(series("ddc_egress_spool_damaged_places_total").rate(), "{{link}} {{site}}")],
        )
        .runbooks(&["SpoolDamaged"]),
        lines(
            "Bytes of the spool in doubt",
            "Forcing them onto the disk failed: they may not be there after a power cut.",
            vec![target(series("ddc_egress_spool_doubtful_bytes").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["SpoolErrors"]),
        lines(
            "Spool refuses",
            "1 while what arrives is refused.",
            vec![target(series("ddc_egress_spool_refusing").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["SpoolFull"]),
    ]
}

fn sessions() -> Vec<Panel> {
    vec![
        lines(
            "Sessions",
            "Open now. More than one for long: two senders on one link.",
            vec![target(series("ddc_egress_sessions_open").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["TwoSenders"]),
        lines(
            "Sessions opened, retired, side by side",
            "Sessions come with each start of the ingress.",
            vec![
                target(series("ddc_egress_sessions_opened_total").rate(), "opened {{link}}"),
                target(series("ddc_egress_sessions_retired_total").rate(), "retired {{link}}"),
                target(series("ddc_egress_two_senders_total").rate(), "two senders {{link}}"),
            ],
        )
        .unit("cps")
        .runbooks(&["TwoSenders"]),
        lines(
            "Clock difference",
            "The egress's clock less the ingress's. Neither side can see the other's: set both from good time sources.",
            vec![target(series("ddc_egress_clock_difference_seconds").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["ClockSkew"]),
        states(
            "What the sources do",
            "As each ingress's last heartbeat told.",
            vec![target(series("ddc_egress_source_state").by("state").now(), "{{link}} {{state}}")],
        )
        .words(&[("0", " ", "transparent"), ("1", "yes", "blue")])
        .runbooks(&["IngressStopped"]),
        lines(
            "Lag the sources tell",
            "Records that wait at each source, by its last heartbeat.",
            vec![target(series("ddc_egress_source_lag").now(), "{{link}} {{site}}")],
        )
        .wide(6)
        .runbooks(&["KafkaLag"]),
        lines(
            "Rate limit the sources tell",
            "By the last heartbeat; 0: unlimited.",
            vec![target(
                series("ddc_egress_source_rate_bits_per_second").now().or_else("egress", 0),
                "{{link}} {{site}}",
            )],
        )
        .wide(6),
        lines(
            "Sent in the session, by heartbeat",
            "What the ingress says it has sent in this session. Compare with what came: it is the absolute truth about loss.",
            vec![
                target(series("ddc_egress_source_packets_sent").now(), "datagrams {{link}}"),
                target(series("ddc_egress_source_blocks_sent").now(), "blocks {{link}}"),
                target(series("ddc_egress_source_records_sent").now(), "records {{link}}"),
            ],
        )
        .wide(12),
        lines(
            "Bytes sent in the session, by heartbeat",
            "Bytes of UDP payload, without framing.",
            vec![target(series("ddc_egress_source_bytes_sent").now(), "{{link}} {{site}}")],
        )
        .wide(12),
    ]
}

fn life() -> Vec<Panel> {
    vec![
        lines(
            "CPU of the threads, egress",
            "Each thread of the data path, in parts of one core. The far side loses datagrams well before the receive thread is at 1.",
            vec![target(series("ddc_thread_cpu_seconds_total").on("egress").by("thread").rate(), "{{link}} {{thread}}")],
        ).wide(12)
        .runbooks(&["CpuHigh"]),
        number(
            "Session began",
            "Start of the newest session, by the ingress's clock.",
            date(series("ddc_egress_session_start_timestamp_seconds").now()),
        )
        .unit("dateTimeFromNow")
        .sized(4, 8),
        number("Key id", "The key of the newest session.", series("ddc_egress_key_id").now()).runbooks(&["KeyMismatch"]).sized(4, 8),
        certificates("egress"),
    ]
}
