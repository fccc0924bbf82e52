//! *Fleet*: all links at a glance, for the one who looks after many.

use super::model::*;
use super::parts::*;
use super::query::{foreign, over, series};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "fleet",
        title: "Fleet",
        about: "All links at a glance: is each one up, does it lose anything, does it keep up?",
        variables: &[Variable::Site, Variable::Links],
        rows: vec![
            Row { title: "At a glance", panels: glance() },
            Row { title: "Links", panels: vec![links()] },
            Row { title: "Over time", panels: over_time() },
        ],
    }
}

fn glance() -> Vec<Panel> {
    let mut up = over("sum({0}) or vector(0)", [link_up()]);
    up.unit = Some("short");
    let mut lost = over("sum({0}) or vector(0)", [missing()]);
    lost.unit = Some("short");
    vec![
        number(
            "Known links",
            "Links of which at least one side is seen.",
            over("count(max by (site, link) ({0}))", [series("ddc_ready").now()]),
        )
        .unit("short")
        .legend("links"),
        number("Links with heartbeats", "Links whose last heartbeat came less than 5 s ago; the others are cut, or a side is down.", up)
            .legend("up")
            .runbooks(&["LinkInterrupted", "EgressDown"]),
        number(
            "Alerts that fire",
            "Alerts that Prometheus' rules fire now. Each has its runbook.",
            foreign(
                r#"count(max by (alertname, site, link) (ALERTS{alertstate="firing",site=~"$site|",link=~"$link|"})) or vector(0)"#,
                "short",
            ),
        )
        .legend("alerts")
        .steps(&NONE_IS_GOOD),
        number("Records missing in the time shown", "Records that will not be delivered by themselves, on all links. The gap journal names topic, partition and offsets.", lost)
            .legend("records")
            .steps(&NONE_IS_GOOD)
            .runbooks(&["RecordsMissing"]),
        number("Received on all links", "Rate on the wire, summed over the links.", over("sum({0})", [received_bits()]))
            .unit("bps")
            .legend("received"),
        number(
            "Delivered on all links",
            "Records that the sinks acknowledged, summed over the links.",
            over("sum({0})", [series("ddc_egress_records_delivered_total").rate()]),
        )
        .legend("delivered"),
    ]
}

fn links() -> Panel {
    table(
        "All links",
        "One line for each link; click its name for its own page. Source: what the ingress says of its source. A link stays listed \
         while its last heartbeat lies in the time shown.",
        vec![
            target(over("{0} == 1", [series("ddc_egress_source_state").by("state").now()]), "Source state")
                .hide_value(),
            target(heartbeat_age(), "Heartbeat age").steps(&[(0.0, "green"), (3.0, "orange"), (5.0, "red")]),
            target(over("min by (site, link) ({0})", [series("ddc_ready").least()]), "Both sides ready")
                .words(&YES_IS_GOOD),
            target(received_bits(), "Received"),
            target(series("ddc_egress_records_delivered_total").rate(), "Delivered"),
            target(loss_ratio(), "Loss").steps(&[(0.0, "green"), (0.001, "orange"), (0.01, "red")]),
            target(missing(), "Missing").steps(&NONE_IS_GOOD),
            target(series("ddc_egress_source_lag").now(), "Lag"),
            target(alerts_of_link(), "Alerts").steps(&NONE_IS_GOOD),
            target(
                over("max by (site, link) ({0})", [series("ddc_link_maintenance").now()]),
                "Maintenance",
            )
            .words(&NO_IS_GOOD),
        ],
    )
    .unit("short")
}

fn over_time() -> Vec<Panel> {
    vec![
        states(
            "Heartbeats come",
            "Whether each link's heartbeats came: a gap is a cut link, a dead side, or lost telemetry.",
            vec![target(link_up(), "{{link}} {{site}}")],
        )
        .words(&YES_IS_GOOD)
        .runbooks(&["LinkInterrupted"]),
        lines(
            "Rate received",
            "Rate on the wire of each link.",
            vec![target(received_bits(), "{{link}} {{site}}")],
        )
        .wide(12),
        lines(
            "Loss",
            "The part of each link's datagrams that did not come, before repair.",
            vec![target(loss_ratio(), "{{link}} {{site}}")],
        )
        .runbooks(&["PacketLoss"]),
        lines(
            "Records missing",
            "Records that each link lost for good, after repair. Any value but 0 is a loss.",
            vec![target(
                over(
                    "sum by (site, link) ({0})",
                    [series("ddc_egress_records_missing_total").by("reason").rate()],
                ),
                "{{link}} {{site}}",
            )],
        )
        .runbooks(&["RecordsMissing"]),
        lines(
            "Lag at the source",
            "Records that wait at each source: rising means that the link, its rate or its sink is too slow.",
            vec![target(series("ddc_egress_source_lag").now(), "{{link}} {{site}}")],
        )
        .runbooks(&["KafkaLag"]),
    ]
}
