//! *Link*: one pair, both sides on one time line.

use super::model::*;
use super::parts::*;
use super::query::{Query, over, series};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "link",
        title: "Link",
        about: "One link, both sides on one time line: what goes in, what is lost on which layer, what comes out, how late.",
        variables: &[Variable::Site, Variable::OneLink],
        rows: vec![
            Row { title: "Now", panels: now() },
            Row { title: "Traffic", panels: traffic() },
            Row { title: "Loss by layer", panels: loss() },
            Row { title: "Repair", panels: repair() },
            Row { title: "Latency and clocks", panels: latency() },
            Row { title: "Lag and queues", panels: queues() },
            Row { title: "Sessions and the source", panels: sessions() },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        number("Heartbeat age", "Seconds since the last heartbeat came; they are sent each second. From 5 s on the link counts as interrupted.", heartbeat_age())
            .legend("age")
            .steps(&[(0.0, "green"), (3.0, "orange"), (5.0, "red")])
            .runbooks(&["LinkInterrupted"]),
        number("Ready", "Whether each side can do its work.", series("ddc_ready").least())
            .legend("{{side}}")
            .words(&YES_IS_GOOD)
            .runbooks(&["NotReady", "EgressDown", "IngressStopped"]),
        number("Loss on the way", "The part of the datagrams that did not come, before repair.", loss_ratio())
            .legend("loss")
            .steps(&[(0.0, "green"), (0.001, "orange"), (0.01, "red")])
            .runbooks(&["PacketLoss"]),
        number("Missing in the time shown", "Records lost for good, after repair.", missing())
            .legend("records")
            .steps(&NONE_IS_GOOD)
            .runbooks(&["RecordsMissing"]),
        number("Alerts of this link", "Alerts that fire now.", alerts_of_link()).legend("alerts").steps(&NONE_IS_GOOD),
        number("Maintenance", "Whether an operator works on the link, so that its alerts are held back.", series("ddc_link_maintenance").now()).runbooks(&["Maintenance"])
            .legend("{{side}}")
            .words(&NO_IS_GOOD),
    ]
}

fn traffic() -> Vec<Panel> {
    vec![
        lines(
            "Rate on the wire",
            "What was sent and what came, and the configured limit. Apart for long: loss, or telemetry of one side is missing.",
            vec![
                target(sent_bits(), "sent"),
                target(received_bits(), "received"),
                target(series("ddc_egress_source_rate_bits_per_second").now(), "limit")
                    .may_be_empty("there is no limit with rate = \"unlimited\""),
            ],
        ),
        lines(
            "Datagrams",
            "Datagrams sent and received.",
            vec![
                target(series("ddc_ingress_packets_sent_total").rate(), "sent"),
                target(series("ddc_egress_packets_received_total").rate(), "received"),
            ],
        ),
        lines(
            "Records",
            "The way of the records: read from the source, sent, received, delivered. The four lie on each other when all is well.",
            vec![
                target(series("ddc_ingress_records_read_total").rate(), "read"),
                target(series("ddc_ingress_records_sent_total").rate(), "sent"),
                target(series("ddc_egress_records_received_total").rate(), "received"),
                target(series("ddc_egress_records_delivered_total").rate(), "delivered"),
            ],
        ).runbooks(&["IngressStalled"]),
    ]
}

fn rejected(reasons: &'static str) -> Query {
    over(
        "sum by (site, link) ({0})",
        [series("ddc_dropped_packets_total").on("egress").by("reason").only("reason", reasons).rate()],
    )
}

fn loss() -> Vec<Panel> {
    vec![
        stack(
            "Datagrams lost or refused",
            "Where datagrams end. Path: cables, converters, the diode. Socket: this host was too slow or its buffer too small. Seal: wrong \
             key, or not our traffic. Session, link, key: another sender or an old recording.",
            vec![
                target(path_loss(), "path"),
                target(series("ddc_egress_socket_drops_total").rate(), "socket"),
                target(rejected("seal|replay|packet_number"), "seal and replay"),
                target(rejected("session_.*|link|key|version|kind|reserved"), "session, link, key"),
                target(rejected("short|long|magic|header|payload"), "not ours or malformed"),
                target(rejected("window_full|block_old"), "window, too late"),
            ],
        )
        .runbooks(&["PacketLoss", "SocketDrops", "SealRejects", "SessionRejects"]),
        stack(
            "Blocks not whole",
            "Repaired blocks cost nothing, but show that there is loss; unrepairable and lost ones cost the records in them.",
            vec![
                target(series("ddc_egress_blocks_repaired_total").rate(), "repaired"),
                target(series("ddc_egress_blocks_unrepairable_total").rate(), "unrepairable"),
                target(series("ddc_egress_blocks_lost_total").rate(), "lost whole"),
                target(series("ddc_egress_blocks_late_total").rate(), "late"),
            ],
        ).runbooks(&["UnrepairableBlocks"]),
        stack(
            "Records missing by reason",
            "Records that were sent and will not be delivered. Anything but 0 is a loss: the egress's log names topic, partition and offsets.",
            vec![target(series("ddc_egress_records_missing_total").by("reason").rate(), "{{reason}}")],
        )
        .runbooks(&["RecordsMissing"]),
    ]
}

fn repair() -> Vec<Panel> {
    vec![
        lines(
            "Repair symbols",
            "Repair symbols sent, source symbols computed from them, and symbols that were not needed. Computed near sent: FEC is at its limit.",
            vec![
                target(series("ddc_ingress_repair_symbols_total").rate(), "sent"),
                target(series("ddc_egress_symbols_repaired_total").rate(), "computed"),
                target(series("ddc_egress_symbols_spare_total").rate(), "not needed"),
            ],
        )
        .wide(12),
        lines(
            "Used part of the repair symbols",
            "Near 1 a little more loss means missing records: take a stronger FEC preset, or mend the path.",
            vec![target(
                over(
                    "{0} / ({1} > 0) or on (site, link) 0 * {1}",
                    [
                        series("ddc_egress_symbols_repaired_total").rate(),
                        series("ddc_ingress_repair_symbols_total").rate(),
                    ],
                ),
                "used",
            )],
        )
        .unit("percentunit")
        .wide(12)
        .runbooks(&["RepairHigh", "PacketLoss"]),
    ]
}

fn latency() -> Vec<Panel> {
    let of = |name: &'static str| {
        vec![
            target(series(name).quantile("0.5"), "half below"),
            target(series(name).quantile("0.99"), "99 % below"),
            target(series(name).quantile("0.999"), "99.9 % below"),
        ]
    };
    vec![
        lines(
            "End to end",
            "From a record's timestamp at the source to the sink's acknowledgement. Old records that are read late are late here too.",
            of("ddc_egress_end_to_end_latency_seconds"),
        )
        .wide(12),
        lines("At the sink", "From handing a record to the sink to its acknowledgement: the destination's Kafka and its network.", of("ddc_egress_sink_latency_seconds"))
            .wide(12)
            .runbooks(&["SinkSlow", "SinkDown"]),
        lines("Transit of heartbeats", "From the ingress's clock to the egress's clock: the way across the diode, and the clocks' difference.", of("ddc_egress_transit_latency_seconds"))
            .wide(12),
        lines(
            "Clock difference",
            "The egress's clock less the ingress's. It is part of both latencies beside; sessions too far ahead are refused.",
            vec![target(series("ddc_egress_clock_difference_seconds").now(), "difference")],
        )
        .wide(12)
        .runbooks(&["ClockSkew"]),
    ]
}

fn queues() -> Vec<Panel> {
    vec![
        lines(
            "Records that wait at the source",
            "As the ingress counts them by topic, and their sum as its heartbeat told the egress. Rising: the link or its rate is too slow.",
            vec![
                target(series("ddc_ingress_consumer_lag").by("topic").now().or_else("ingress", 0), "topic {{topic}}"),
                target(series("ddc_egress_source_lag").now(), "told by heartbeat"),
            ],
        )
        .runbooks(&["KafkaLag"]),
        lines(
            "Bytes in queues",
            "Ingress: between source and socket; window: blocks that wait for their order; egress: between link and sink. Each is bounded by the configuration.",
            vec![
                target(series("ddc_ingress_queue_bytes").now(), "ingress"),
                target(series("ddc_egress_window_bytes").now(), "window"),
                target(series("ddc_egress_queue_bytes").now(), "egress"),
            ],
        ),
        lines(
            "Buffer found full",
            "At the ingress the source is then paused, which costs nothing; at the egress records are dropped, and reported.",
            vec![target(series("ddc_buffer_full_total").rate(), "{{side}}")],
        ).runbooks(&["BufferFull", "SourcePaused"]),
    ]
}

fn sessions() -> Vec<Panel> {
    vec![
        states(
            "What the source does",
            "As the ingress's last heartbeat told.",
            vec![target(series("ddc_egress_source_state").by("state").now(), "{{state}}")],
        )
        .words(&[("0", " ", "transparent"), ("1", "yes", "blue")])
        .runbooks(&["IngressStopped"]),
        lines(
            "Sessions open",
            "One; two for a moment after the ingress started again. Two that both send for long are two senders on one link.",
            vec![target(series("ddc_egress_sessions_open").now(), "open")],
        )
        .wide(6)
        .runbooks(&["TwoSenders"]),
        lines(
            "Sessions begun and ended",
            "A new session begins whenever the ingress starts.",
            vec![
                target(series("ddc_egress_sessions_opened_total").rate(), "opened"),
                target(series("ddc_egress_sessions_retired_total").rate(), "retired"),
                target(series("ddc_egress_two_senders_total").rate(), "two senders"),
            ],
        )
        .unit("cps")
        .wide(6)
        .runbooks(&["TwoSenders"]),
        number("Session's age, ingress", "Start of the session it sends in.", date(series("ddc_ingress_session_start_timestamp_seconds").now()))
            .unit("dateTimeFromNow")
            .legend("begun"),
        number("Session's age, egress", "Start of the newest session it received: the same as the ingress's, else the link is interrupted.", date(series("ddc_egress_session_start_timestamp_seconds").now()))
            .unit("dateTimeFromNow")
            .legend("begun"),
        number("Datagrams in this session", "As the ingress's last heartbeat told.", series("ddc_egress_source_packets_sent").now()).legend("sent"),
        number("Blocks in this session", "As the ingress's last heartbeat told.", series("ddc_egress_source_blocks_sent").now()).legend("sent"),
        number("Records in this session", "As the ingress's last heartbeat told.", series("ddc_egress_source_records_sent").now()).legend("sent"),
        number("Bytes in this session", "As the ingress's last heartbeat told.", series("ddc_egress_source_bytes_sent").now()).legend("sent"),
    ]
}
