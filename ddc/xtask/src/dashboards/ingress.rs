//! *Ingress*: the source side along the way of a record, source → pack → protect, seal, pace → socket.

use super::model::*;
use super::parts::*;
use super::query::{over, series};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "ingress",
        title: "Ingress",
        about: "The source side along the way of a record: source, packing, sending. At the destination it shows what crossed the diode.",
        variables: &[Variable::Site, Variable::Links],
        rows: vec![
            Row { title: "Now", panels: now() },
            Row { title: "Source", panels: source() },
            Row { title: "Packing and protection", panels: packing() },
            Row { title: "Sending", panels: sending() },
            Row { title: "Life of the ingress", panels: life() },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        number("Ready", "Whether the ingress can do its work.", series("ddc_ready").on("ingress").least())
            .words(&YES_IS_GOOD)
            .runbooks(&["NotReady", "IngressStopped"]),
        number(
            "Part of the rate used",
            "What is sent, by the configured limit; 0 without a limit. Near 1 for long: the lag will grow.",
            over(
                "8 * {0} / {1}",
                [
                    series("ddc_ingress_bytes_sent_total").rate(),
                    series("ddc_ingress_rate_limit_bits_per_second").now(),
                ],
            )
            .or_else("ingress", 0),
        )
        .unit("percentunit")
        .steps(&[(0.0, "green"), (0.9, "orange"), (0.99, "red")])
        .runbooks(&["RateLimited"]),
        number(
            "Lag",
            "Records that wait at the source, over all topics.",
            over("sum by (site, link) ({0})", [series("ddc_ingress_consumer_lag").by("topic").now()])
                .or_else("ingress", 0),
        )
        .unit("short")
        .runbooks(&["KafkaLag"]),
        number(
            "Source paused",
            "Whether the source is paused because the buffer is full.",
            series("ddc_ingress_kafka_paused").now(),
        )
        .runbooks(&["SourcePaused"])
        .words(&NO_IS_GOOD),
        number(
            "Skipped in the time shown",
            "Records read and never sent: the destination lacks them.",
            over(
                "sum by (site, link) ({0})",
                [series("ddc_ingress_records_skipped_total").by("reason").growth()],
            ),
        )
        .steps(&NONE_IS_GOOD)
        .runbooks(&["RecordsSkipped"]),
        number(
            "Partitions",
            "Partitions that this ingress reads.",
            series("ddc_ingress_assigned_partitions").now(),
        )
        .runbooks(&["NoPartitions"]),
    ]
}

fn source() -> Vec<Panel> {
    vec![
        lines(
            "Records read, packed, sent",
            "The way of the records through the ingress. Read above sent for long: the rate or the link holds them back.",
            vec![
                target(series("ddc_ingress_records_read_total").rate(), "read {{link}}"),
                target(series("ddc_ingress_records_packed_total").rate(), "packed {{link}}"),
                target(series("ddc_ingress_records_sent_total").rate(), "sent {{link}}"),
            ],
        ).runbooks(&["IngressStalled"]),
        lines(
            "Lag by topic",
            "Records that wait at the source.",
            vec![target(
                series("ddc_ingress_consumer_lag").by("topic").now().or_else("ingress", 0),
                "{{link}} {{topic}}",
            )],
        )
        .runbooks(&["KafkaLag"]),
        lines(
            "Source errors by reason",
            "Errors of Kafka or of the socket that is read.",
            vec![target(
                series("ddc_ingress_source_errors_total").by("reason").rate(),
                "{{link}} {{reason}}",
            )],
        )
        .runbooks(&["SourceDown"]),
        lines(
            "Commits",
            "Commits of offsets. Failed ones cost nothing until a restart, which then sends again what they covered.",
            vec![
                target(series("ddc_ingress_commits_total").rate(), "done {{link}}"),
                target(series("ddc_ingress_commit_failures_total").rate(), "failed {{link}}"),
            ],
        ).runbooks(&["CommitFailures"]),
        lines(
            "Rebalances and topics made anew",
            "Partitions that come and go, and topics that were deleted and made again under the same name.",
            vec![
                target(series("ddc_ingress_rebalances_total").rate(), "rebalances {{link}}"),
                target(series("ddc_ingress_topics_recreated_total").rate(), "made anew {{link}}"),
            ],
        ).runbooks(&["GroupFlapping", "TopicRecreated"]),
        lines(
            "Replayed records",
            "Records sent again by `ddc replay`, and offsets that it answered for without one: gone at the source.",
            vec![
                target(series("ddc_ingress_replay_records_sent_total").rate(), "records {{link}}"),
                target(series("ddc_ingress_replay_offsets_gone_total").rate(), "gone {{link}}"),
            ],
        ),
        lines(
            "Replays under way",
            "Whether a replay is under way: it takes half of the rate at most, and leaves precedence to live records.",
            vec![target(series("ddc_ingress_replay_active").now(), "{{link}}")],
        ),
        lines(
            "Replays that failed",
            "Replays that ended before their end. They may be asked for again.",
            vec![target(series("ddc_ingress_replays_failed_total").rate(), "{{link}}")],
        ).runbooks(&["ReplayFailed"]),
        lines(
            "Paused",
            "Whether the ingress was paused (`ddc pause`): it reads nothing and Kafka keeps the records, until `ddc resume`.",
            vec![target(series("ddc_ingress_paused").now(), "{{link}}")],
        ).runbooks(&["NoPartitions"]),
        lines(
            "Rewinds",
            "Times that partitions went back to where they were (`ddc rewind`, `ddc pause --since`).",
            vec![target(series("ddc_ingress_rewinds_total").rate(), "{{link}}")],
        ),
        lines(
            "Records that rewinds send again",
            "Records between where partitions stood and where they went back to. The egress skips those that it has.",
            vec![target(series("ddc_ingress_rewound_records_total").rate(), "{{link}}")],
        ),
        lines(
            "Not taken by reason",
            "Datagrams that a UDP source could not take. They are lost for good: only Kafka keeps what waits.",
            vec![target(series("ddc_ingress_source_drops_total").by("reason").rate(), "{{link}} {{reason}}")],
        ).runbooks(&["SourceDrops"]),
        lines(
            "Records skipped by reason",
            "Records read and never sent: the destination lacks them, and the log names them.",
            vec![target(
                series("ddc_ingress_records_skipped_total").by("reason").rate(),
                "{{link}} {{reason}}",
            )],
        )
        .runbooks(&["RecordsSkipped"]),
        lines(
            "Dead letters by reason",
            "Records that cannot be sent and are kept, in the topic or directory of `[dead_letters]`; the log names each.",
            vec![target(series("ddc_ingress_dead_letters_total").by("reason").rate(), "{{link}} {{reason}}")],
        )
        .runbooks(&["DeadLetters"]),
        lines(
            "Dead letters not kept by reason",
            "Times a dead letter could not be kept. What then happens says `on_failure`: a gap, or waiting.",
            vec![target(
                series("ddc_ingress_dead_letter_errors_total").by("reason").rate(),
                "{{link}} {{reason}}",
            )],
        )
        .runbooks(&["DeadLettersNotKept"]),
        lines(
            "Dead letters in the directory",
            "Bytes of `[dead_letters] directory`, bounded by `max_size`. DDC deletes none: carry them away in time.",
            vec![target(series("ddc_ingress_dead_letter_bytes").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["DeadLettersNotKept"]),
        lines(
            "Partitions read",
            "Partitions assigned to this ingress; 0 means that another member of the group has them all, or that it is paused.",
            vec![target(series("ddc_ingress_assigned_partitions").now(), "{{link}} {{site}}")],
        ).runbooks(&["NoPartitions"]),
        states(
            "Pauses of the source",
            "While the buffer is full the source is paused: Kafka keeps the records.",
            vec![target(series("ddc_ingress_kafka_paused").now(), "{{link}} {{site}}")],
        )
        .words(&NO_IS_GOOD)
        .sized(8, 8)
        .runbooks(&["SourcePaused", "RateLimited"]),
    ]
}

fn packing() -> Vec<Panel> {
    vec![
        lines(
            "Batches, ledgers, blocks",
            "Batches go into blocks; a ledger tells the egress where each partition stands.",
            vec![
                target(series("ddc_ingress_batches_sent_total").rate(), "batches {{link}}"),
                target(series("ddc_ingress_ledgers_sent_total").rate(), "ledgers {{link}}"),
                target(series("ddc_ingress_blocks_sent_total").rate(), "blocks {{link}}"),
            ],
        ),
        lines(
            "Bytes before and after compression",
            "What the batches sent held, and what went into blocks.",
            vec![
                target(series("ddc_ingress_record_bytes_sent_total").rate(), "before {{link}}"),
                target(series("ddc_ingress_compressed_bytes_total").rate(), "after {{link}}"),
            ],
        ),
        lines(
            "Compression ratio",
            "Bytes before by bytes after: 3 means a third of the wire. 1 means that compression costs CPU for nothing.",
            vec![target(
                over("{0} / ({1} > 0) or on (site, link) 0 * {1}", [
                    series("ddc_ingress_record_bytes_sent_total").rate(),
                    series("ddc_ingress_compressed_bytes_total").rate(),
                ]),
                "{{link}} {{site}}",
            )],
        )
        .unit("none"),
        lines(
            "Symbols",
            "Source symbols carry data, repair symbols mend their loss. Many blocks that `linger` closes make relatively more repair symbols.",
            vec![
                target(series("ddc_ingress_source_symbols_total").rate(), "source {{link}}"),
                target(series("ddc_ingress_repair_symbols_total").rate(), "repair {{link}}"),
            ],
        ),
        lines(
            "Records in a batch",
            "Records sent by batches sent. Near 1: every record pays a whole datagram and its repair; a longer `linger` helps.",
            vec![target(
                over("{0} / ({1} > 0) or on (site, link) 0 * {1}", [
                    series("ddc_ingress_records_sent_total").rate(),
                    series("ddc_ingress_batches_sent_total").rate(),
                ]),
                "{{link}} {{site}}",
            )],
        )
        .unit("none"),
        lines(
            "Repair symbols per source symbol",
            "What protection costs on the wire.",
            vec![target(
                over("{0} / ({1} > 0) or on (site, link) 0 * {1}", [
                    series("ddc_ingress_repair_symbols_total").rate(),
                    series("ddc_ingress_source_symbols_total").rate(),
                ]),
                "{{link}} {{site}}",
            )],
        )
        .unit("percentunit"),
    ]
}

fn sending() -> Vec<Panel> {
    vec![
        lines(
            "Rate sent and its limit",
            "Bits on the wire, framing included, as `rate` counts them.",
            vec![
                target(sent_bits(), "sent {{link}}"),
                target(series("ddc_ingress_rate_limit_bits_per_second").now(), "limit {{link}}")
                    .may_be_empty("there is no limit with rate = \"unlimited\""),
            ],
        )
        .runbooks(&["RateLimited"]),
        lines(
            "Datagrams sent",
            "All datagrams, and the heartbeats among them: one each second, also when there is nothing to send.",
            vec![
                target(series("ddc_ingress_packets_sent_total").rate(), "all {{link}}"),
                target(series("ddc_ingress_heartbeats_sent_total").rate(), "heartbeats {{link}}"),
            ],
        ),
        lines(
            "Waits",
            "Pace: the pacer held a datagram back to keep the rate, as it should. Send buffer: the kernel was slower than the rate.",
            vec![
                target(series("ddc_ingress_pace_waits_total").rate(), "pace {{link}}"),
                target(series("ddc_ingress_send_buffer_full_total").rate(), "send buffer {{link}}"),
            ],
        ),
        lines(
            "Send errors by reason",
            "Times the kernel did not take a datagram. `unreachable` on a diode: the static neighbour entry is missing.",
            vec![target(series("ddc_ingress_send_errors_total").by("reason").rate(), "{{link}} {{reason}}")],
        ).wide(12)
        .runbooks(&["SendErrors"]),
        lines(
            "Datagrams not sent by reason",
            "What was not sent after all, for the egress to see as lost on the path.",
            vec![target(series("ddc_dropped_packets_total").on("ingress").by("reason").rate(), "{{link}} {{reason}}")],
        ).runbooks(&["SendErrors"]).wide(12),
        lines(
            "Bytes that wait",
            "Between the source and the socket, bounded by `[link] buffer`.",
            vec![target(series("ddc_ingress_queue_bytes").now(), "{{link}} {{site}}")],
        ).wide(12),
        lines(
            "Buffer found full, ingress",
            "Each time the source is paused: Kafka keeps the records. With a UDP source datagrams are lost, and counted.",
            vec![target(series("ddc_buffer_full_total").on("ingress").rate(), "{{link}} {{site}}")],
        ).runbooks(&["SourcePaused"]).wide(12),
    ]
}

fn life() -> Vec<Panel> {
    vec![
        lines(
            "CPU of the threads, ingress",
            "Each thread of the data path, in parts of one core. A thread near 1 is the bottleneck.",
            vec![target(
                series("ddc_thread_cpu_seconds_total").on("ingress").by("thread").rate(),
                "{{link}} {{thread}}",
            )],
        )
        .wide(12)
        .runbooks(&["CpuHigh"]),
        number(
            "Session began",
            "Start of the session the ingress sends in: each start of the ingress begins one.",
            date(series("ddc_ingress_session_start_timestamp_seconds").now()),
        )
        .unit("dateTimeFromNow")
        .sized(4, 8),
        number(
            "Key id",
            "The key it seals with: the egress must have it in its keyring.",
            series("ddc_ingress_key_id").now(),
        )
        .runbooks(&["KeyMismatch"])
        .sized(4, 8),
        certificates("ingress"),
    ]
}
