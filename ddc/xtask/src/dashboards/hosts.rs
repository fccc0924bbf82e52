//! *Hosts and telemetry health*: the processes, their hosts, and whether what the other pages show can be believed.

use super::model::*;
use super::query::{Query, foreign, over, series};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "hosts",
        title: "Hosts and telemetry health",
        about: "The processes, their hosts, and whether telemetry itself is whole: can the other pages be believed?",
        variables: &[Variable::Site, Variable::Processes],
        rows: vec![
            Row { title: "Processes", panels: processes() },
            Row { title: "Telemetry of the processes", panels: telemetry() },
            Row { title: "Vector", panels: vector() },
            Row { title: "Hosts", panels: hosts() },
        ],
    }
}

const PROCESS: &str = "{{process}} {{site}}";
const HOST: &str = "{{host}} {{site}}";
/// Vector gathers its own figures each 5 s and the host's each 15 s: shorter windows would show combs.
const VECTOR_STEP: &str = "5s";
const HOST_STEP: &str = "15s";

fn processes() -> Vec<Panel> {
    vec![
        number(
            "Started",
            "When each process started, by its own clock.",
            super::parts::date(series("ddc_process_start_timestamp_seconds").now()),
        ).runbooks(&["ProxyRestarted", "ProxyFlapping"])
        .unit("dateTimeFromNow")
        .legend("{{process}}")
        .wide(8),
        number("Version", "What runs, and the id of this start: it changes with each.", series("ddc_build_info").by("version").by("instance_id").now()).runbooks(&["VersionMismatch"])
            .unit("none")
            .legend("{{process}} {{version}} {{instance_id}}")
            .names_only()
            .wide(16),
        lines(
            "Ticks",
            "Rounds in which every thread of the data path was seen to move. 0: a thread hangs, or the process is gone.",
            vec![target(series("ddc_process_ticks_total").rate(), PROCESS)],
        )
        .runbooks(&["ThreadsStuck", "EgressDown", "IngressStopped"]),
        lines(
            "CPU",
            "In cores: 1 is one core. The far side loses datagrams before a host is saturated.",
            vec![target(series("ddc_process_cpu_seconds_total").rate(), PROCESS)],
        )
        .unit("none")
        .runbooks(&["CpuHigh"]),
        lines("Memory", "Resident memory; it is bounded by the configuration.", vec![target(series("ddc_process_resident_memory_bytes").now(), PROCESS)]).runbooks(&["MemoryHigh"]),
    ]
}

fn telemetry() -> Vec<Panel> {
    vec![
        lines(
            "StatsD",
            "Datagrams sent to the collectors, and lost ones: then figures are missing, never data.",
            vec![
                target(series("ddc_statsd_datagrams_sent_total").rate(), "sent {{process}}"),
                target(series("ddc_statsd_datagrams_dropped_total").rate(), "dropped {{process}}"),
            ],
        )
        .runbooks(&["TelemetryDropped", "TelemetrySilent"]),
        lines(
            "Syslog",
            "Messages sent, and dropped because the target was away or slow.",
            vec![
                target(series("ddc_syslog_messages_sent_total").rate(), "sent {{process}}"),
                target(series("ddc_syslog_messages_dropped_total").rate(), "dropped {{process}}"),
            ],
        )
        .unit("mps")
        .runbooks(&["TelemetryDropped"]),
        lines(
            "Log lines dropped",
            "Lines that stderr's reader was too slow for.",
            vec![target(series("ddc_log_lines_dropped_total").rate(), PROCESS)],
        )
        .runbooks(&["TelemetryDropped"])
        .unit("cps"),
    ]
}

/// `of` by component, or zero for each Vector that runs: what never happened has no series.
fn or_zero(of: &str) -> Query {
    let none = r#"label_replace(0 * max by (site, host) (vector_uptime_seconds{site=~"$site"}), "component_id", "none", "", "")"#;
    foreign(&format!("({of}) or on (site, host) {none}"), "eps")
}

fn vector() -> Vec<Panel> {
    let events = |metric: &str| {
        or_zero(&format!(
            r#"sum by (site, host, component_id) (max by (site, host, component_id, component_kind, error_type, stage, intentional) (rate({metric}{{site=~"$site"}}[$__rate_interval])))"#
        ))
    };
    let panels = vec![
        lines(
            "Vector runs",
            "Seconds since each Vector started. It falls to 0 when Vector starts again.",
            vec![target(foreign(r#"max by (site, host) (vector_uptime_seconds{site=~"$site"})"#, "s"), HOST)],
        )
        .runbooks(&["VectorDown"]),
        lines(
            "Events received",
            "Metrics and log messages that came in, by component.",
            vec![target(events("vector_component_received_events_total"), "{{component_id}} {{host}}")],
        )
        .runbooks(&["TelemetrySilent", "FarTelemetrySilent"]),
        lines(
            "Events sent",
            "Metrics and log messages handed on, by component.",
            vec![target(events("vector_component_sent_events_total"), "{{component_id}} {{host}}")],
        ),
        lines(
            "Events discarded",
            "What a transform dropped: names that are not ours, or repeated errors.",
            vec![target(events("vector_component_discarded_events_total"), "{{component_id}} {{host}}")],
        )
        .runbooks(&["VectorErrors"]),
        lines(
            "Errors",
            "Errors of Vector's components: lines it could not read, targets it could not reach.",
            vec![target(events("vector_component_errors_total"), "{{component_id}} {{host}}")],
        )
        .runbooks(&["VectorErrors"]),
        lines(
            "Load of components",
            "The part of the time a component is at work: near 1 it is the bottleneck.",
            vec![target(
                foreign(
                    r#"max by (site, host, component_id) (vector_utilization{site=~"$site"})"#,
                    "percentunit",
                ),
                "{{component_id}} {{host}}",
            )],
        ),
    ];
    panels.into_iter().map(|panel| panel.step(VECTOR_STEP)).collect()
}

fn hosts() -> Vec<Panel> {
    let device = |metric: &str, unit| {
        foreign(
            &format!(r#"max by (site, host, device) (rate({metric}{{site=~"$site"}}[$__rate_interval]))"#),
            unit,
        )
    };
    let panels = vec![
        lines(
            "CPU of the hosts",
            "The part of all cores that is not idle.",
            vec![target(
                foreign(
                    r#"1 - avg by (site, host) (max by (site, host, cpu) (rate(host_cpu_seconds_total{site=~"$site",mode="idle"}[$__rate_interval])))"#,
                    "percentunit",
                ),
                HOST,
            )],
        )
        .runbooks(&["CpuHigh"]),
        lines(
            "Memory of the hosts",
            "The part that is in use.",
            vec![target(
                over("1 - {0} / {1}", [
                    foreign(r#"max by (site, host) (host_memory_available_bytes{site=~"$site"})"#, "percentunit"),
                    foreign(r#"max by (site, host) (host_memory_total_bytes{site=~"$site"})"#, "percentunit"),
                ]),
                HOST,
            )],
        ).runbooks(&["HostMemoryLow"]),
        lines("Load", "Processes that run or wait, mean of a minute.", vec![target(foreign(r#"max by (site, host) (host_load1{site=~"$site"})"#, "short"), HOST)]),
        lines(
            "Network",
            "Bytes by interface, in both directions.",
            vec![
                target(device("host_network_receive_bytes_total", "Bps"), "in {{device}} {{host}}"),
                target(device("host_network_transmit_bytes_total", "Bps"), "out {{device}} {{host}}"),
            ],
        ),
        lines(
            "Network errors and drops",
            "Errors by interface. Drops of our own socket are on the pages Link and Egress.",
            vec![
                target(device("host_network_receive_errs_total", "pps"), "in {{device}} {{host}}"),
                target(device("host_network_transmit_errs_total", "pps"), "out {{device}} {{host}}"),
                target(device("host_network_transmit_packets_drop_total", "pps"), "dropped {{device}} {{host}}"),
            ],
        ).runbooks(&["HostNetworkErrors"]),
        lines(
            "Disks",
            "The part of each file system that is used.",
            vec![target(
                over("1 - {0} / {1}", [
                    foreign(r#"min by (site, host, mountpoint) (host_filesystem_free_bytes{site=~"$site"})"#, "percentunit"),
                    foreign(r#"max by (site, host, mountpoint) (host_filesystem_total_bytes{site=~"$site"})"#, "percentunit"),
                ]),
                "{{mountpoint}} {{host}}",
            )],
        ).runbooks(&["HostDiskFull"]),
    ];
    panels.into_iter().map(|panel| panel.step(HOST_STEP)).collect()
}
