//! Questions that several pages ask, each answered by one expression.

use super::model::{Panel, number};
use super::query::{Query, foreign, over, series};

/// Datagrams lost on the path per second: what packet numbers say, less what came late, less what our own socket dropped.
pub(super) fn path_loss() -> Query {
    over(
        "clamp_min({0} - {1} - {2}, 0)",
        [
            series("ddc_egress_packet_loss_total").rate(),
            series("ddc_egress_packets_late_total").rate(),
            series("ddc_egress_socket_drops_total").rate(),
        ],
    )
}

/// The part of the datagrams sent that did not come, whatever the cause; 0 while nothing is known to be sent.
pub(super) fn loss_ratio() -> Query {
    let mut query = over(
        "clamp_min({0} - {1}, 0) / ((clamp_min({0} - {1}, 0) + {2}) > 0) or on (site, link) 0 * {2}",
        [
            series("ddc_egress_packet_loss_total").rate(),
            series("ddc_egress_packets_late_total").rate(),
            series("ddc_egress_packets_received_total").rate(),
        ],
    );
    query.unit = Some("percentunit");
    query
}

/// Bits per second on the wire, as the egress counts them.
pub(super) fn received_bits() -> Query {
    series("ddc_egress_bytes_received_total").rate().times(8, "bps")
}

/// Bits per second on the wire, as the ingress counts them.
pub(super) fn sent_bits() -> Query {
    series("ddc_ingress_bytes_sent_total").rate().times(8, "bps")
}

/// Seconds since the last heartbeat came, also when the egress itself is gone.
pub(super) fn heartbeat_age() -> Query {
    let mut query = over("time() - {0}", [series("ddc_egress_last_heartbeat_timestamp_seconds").latest()]);
    query.unit = Some("s");
    query
}

/// 1 while heartbeats come.
pub(super) fn link_up() -> Query {
    let mut query =
        over("(time() - {0}) < bool 5", [series("ddc_egress_last_heartbeat_timestamp_seconds").now()]);
    query.unit = Some("bool_yes_no");
    query
}

/// Records lost for good in the time shown.
pub(super) fn missing() -> Query {
    over("sum by (site, link) ({0})", [series("ddc_egress_records_missing_total").by("reason").growth()])
}

/// Firing alerts of each link, 0 where there are none.
pub(super) fn alerts_of_link() -> Query {
    foreign(
        r#"count by (site, link) (max by (alertname, site, link) (ALERTS{alertstate="firing",site=~"$site",link=~"$link"}))"#,
        "short",
    )
    .or_else("egress", 0)
}

/// Milliseconds since 1970 for Grafana's date units; its unit is that of the panel.
pub(super) fn date(query: Query) -> Query {
    over("1000 * {0}", [query])
}

/// Seconds until the first certificate in each file ends, one number for each; -1 where a side has no files.
pub(super) fn certificates(side: &'static str) -> Panel {
    let mut left = over(
        "{0} - time()",
        [series("ddc_certificate_expiry_timestamp_seconds").on(side).by("certificate").now()],
    )
    .or_else(side, -1);
    left.unit = Some("dtdurations");
    number(
        "Certificates end in",
        "Until the end of the first certificate in each file of the connection to Kafka. A pair that speaks to Kafka without TLS has none.",
        left,
    )
    .legend("{{link}} {{certificate}}")
    .words(&[("-1", "no certificates", "text")])
    .steps(&[(0.0, "red"), (7.0 * DAY, "orange"), (30.0 * DAY, "green")])
    .runbooks(&["CertificateExpiring"])
    .sized(4, 8)
}

/// A day in seconds.
const DAY: f64 = 86_400.0;
