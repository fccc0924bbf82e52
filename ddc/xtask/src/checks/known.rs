//! Every metric there is, with its labels and their values, and the check of an expression against it.

use std::collections::{BTreeMap, BTreeSet};

use ddc_telemetry::catalogue::{Descriptor, all};
use ddc_telemetry::cells::Kind;
use regex::Regex;

use super::rules::Rules;
use crate::promql::{MatchKind, Matcher, Selector, parse};

/// Labels that every series may have besides the catalogue's: the site where one is configured, and what the far copy carries.
pub(super) const EVERYWHERE: [&str; 2] = ["site", "via"];
/// Labels of alerts.
const OF_ALERTS: [&str; 3] = ["alertname", "alertstate", "severity"];
/// Labels of the host's metrics, as vector/vrl/host.vrl lets them pass.
const OF_HOSTS: [&str; 7] = ["collector", "host", "cpu", "mode", "device", "filesystem", "mountpoint"];
/// Labels of Vector's own metrics, as vector/vrl/vector_self.vrl lets them pass.
const OF_VECTOR: [&str; 8] = [
    "host",
    "version",
    "component_id",
    "component_kind",
    "component_type",
    "error_type",
    "intentional",
    "stage",
];
/// Labels that the scrape configuration gives, for rules about scrapes. Everything else keys on site, side and link.
const OF_SCRAPES: [&str; 2] = ["ddc_role", "ddc_side"];
/// Metrics of Prometheus, of Alertmanager and of scrapes: their names are theirs.
const FOREIGN: [&str; 5] = ["up", "scrape_", "prometheus_", "alertmanager_", "ALERTS"];

/// All names and labels.
pub(super) struct Known {
    /// Name in an exposition → its row, and whether the label `le` is on it.
    metrics: BTreeMap<String, (&'static Descriptor, bool)>,
    /// Names that recording rules make.
    recorded: BTreeSet<String>,
    /// Names of Vector's own metrics that its pipeline lets pass; empty when there is no such list.
    vector: BTreeSet<String>,
    /// Every label of anything.
    labels: BTreeSet<String>,
}

impl Known {
    /// From the catalogue, the rules, and the pipeline's list of Vector's own metrics.
    pub(super) fn new(rules: &Rules, vector_self: &str) -> Self {
        let mut metrics = BTreeMap::new();
        for row in all() {
            let name = row.prometheus_name();
            if row.kind == Kind::Histogram {
                metrics.insert(format!("{name}_bucket"), (row, true));
                metrics.insert(format!("{name}_sum"), (row, false));
                metrics.insert(format!("{name}_count"), (row, false));
            } else {
                metrics.insert(name, (row, false));
            }
        }
        let fixed = [&EVERYWHERE[..], &OF_ALERTS, &OF_HOSTS, &OF_VECTOR, &OF_SCRAPES, &["le"]].concat();
        let labels = all().flat_map(Descriptor::label_keys).chain(fixed).map(str::to_owned);
        Self {
            labels: labels.chain(rules.labels.iter().cloned()).collect(),
            metrics,
            recorded: rules.recorded.clone(),
            vector: quoted(vector_self, "wanted").into_iter().map(|name| format!("vector_{name}")).collect(),
        }
    }

    /// Whether something may be named so: a metric, one of a histogram's series, or what a rule records.
    pub(super) fn name(&self, name: &str) -> bool {
        self.metrics.contains_key(name) || self.recorded.contains(name)
    }

    /// The row of a metric, by a name in an exposition.
    pub(super) fn row(&self, name: &str) -> Option<&'static Descriptor> {
        self.metrics.get(name).map(|(row, _)| *row)
    }

    /// Everything in an expression that does not exist: metrics, labels, values of labels. The expression must have no
    /// variables of Grafana outside of strings.
    pub(super) fn check(&self, expression: &str) -> Vec<String> {
        let found = match parse(expression) {
            Ok(found) => found,
            Err(error) => return vec![format!("is not PromQL: {error}")],
        };
        let mut wrong = Vec::new();
        for selector in &found.selectors {
            self.check_selector(selector, &found.made, &mut wrong);
        }
        for grouped in &found.grouped {
            let label = &grouped.label;
            // Summing what one scrape gives, and then taking the largest, is how a copy is left out.
            let of_scrape = grouped.inside && (label == "job" || label == "instance");
            if !self.labels.contains(label) && !found.made.contains(label) && !of_scrape {
                wrong.push(format!("groups by `{label}`, which no metric has"));
            }
        }
        wrong
    }

    fn check_selector(&self, selector: &Selector, made: &[String], wrong: &mut Vec<String>) {
        let name = selector.metric.as_str();
        let allowed: BTreeSet<String> = if let Some((row, bucket)) = self.metrics.get(name) {
            let own = row.label_keys().chain(EVERYWHERE).chain(bucket.then_some("le"));
            own.map(str::to_owned).collect()
        } else if self.recorded.contains(name) {
            self.labels.clone()
        } else if name.starts_with("host_") {
            EVERYWHERE.iter().chain(&OF_HOSTS).map(|label| (*label).to_owned()).collect()
        } else if name.starts_with("vector_") {
            if !self.vector.is_empty() && !self.vector.contains(name) {
                wrong.push(format!("asks for {name}, which vector/vrl/vector_self.vrl does not let pass"));
            }
            EVERYWHERE.iter().chain(&OF_VECTOR).map(|label| (*label).to_owned()).collect()
        } else if FOREIGN.iter().any(|prefix| name.starts_with(prefix)) {
            return;
        } else {
            wrong.push(missing(name));
            return;
        };
        for matcher in &selector.matchers {
            if matcher.label == "job" || matcher.label == "instance" {
                wrong.push(format!(
                    "{name}: asks for `{}`: key on site, side, link or process",
                    matcher.label
                ));
            } else if !allowed.contains(&matcher.label) && !made.contains(&matcher.label) {
                wrong.push(format!("{name} has no label `{}`; it has {}", matcher.label, list(&allowed)));
            } else if let Some((row, _)) = self.metrics.get(name) {
                wrong.extend(values(row, matcher).map(|what| format!("{name}: {what}")));
            }
        }
    }
}

/// What to say of a name that does not exist.
pub(super) fn missing(name: &str) -> String {
    if name.starts_with("ddc:") {
        return format!("asks for {name}, which no rule in deploy/prometheus/rules records");
    }
    if name.starts_with("ddc_") {
        return format!("asks for {name}, which is not in the catalogue (docs/metrics.md lists it)");
    }
    format!("asks for {name:?}: neither ours, nor Vector's (host_*, vector_*), nor Prometheus' own")
}

fn list(labels: &BTreeSet<String>) -> String {
    labels.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Values that a bounded label never has.
fn values(row: &Descriptor, matcher: &Matcher) -> Option<String> {
    // A variable of Grafana may be anything.
    if matcher.value.contains('$') {
        return None;
    }
    let possible: Vec<&str> = match matcher.label.as_str() {
        "side" => vec!["ingress", "egress"],
        key => row.by.filter(|by| by.key == key)?.values.iter().map(|(value, _)| *value).collect(),
    };
    let matches = |value: &str| match matcher.kind {
        MatchKind::Equal | MatchKind::NotEqual => value == matcher.value,
        MatchKind::Pattern | MatchKind::NotPattern => {
            Regex::new(&format!("^(?:{})$", matcher.value)).is_ok_and(|pattern| pattern.is_match(value))
        }
    };
    // Each alternative must be some value, or a mistyped one would hide behind the others.
    let alternatives: Vec<&str> = if matcher.value.contains(['(', '[', '.']) {
        vec![]
    } else {
        matcher.value.split('|').filter(|value| !value.is_empty()).collect()
    };
    if let Some(unknown) = alternatives.iter().find(|value| !possible.contains(value)) {
        return Some(format!("`{}` is never {unknown:?}; it is {}", matcher.label, possible.join(", ")));
    }
    (!possible.iter().any(|value| matches(value)) && !matcher.value.is_empty())
        .then(|| format!("no value of `{}` matches {:?}", matcher.label, matcher.value))
}

/// The strings in `name = ["a", "b"]` of a VRL program.
pub(super) fn quoted(program: &str, name: &str) -> BTreeSet<String> {
    let Some((_, rest)) = program.split_once(&format!("{name} = [")) else { return BTreeSet::new() };
    let inside = rest.split(']').next().unwrap_or_default();
    inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let mut rules = Rules::default();
        rules.recorded.insert("ddc:link_loss:ratio_1m".to_owned());
        Known::new(&rules, r#"wanted = ["uptime_seconds", "utilization"]"#)
    }

    #[track_caller]
    fn wrong(expression: &str, part: &str) {
        let found = known().check(expression);
        assert!(found.iter().any(|what| what.contains(part)), "{expression}: {found:?}");
    }

    #[test]
    fn what_exists_is_taken() {
        for right in [
            r#"max by (site, link) (rate(ddc_egress_records_missing_total{reason="lost",site="a",via=""}[5m]))"#,
            r#"sum by (le) (rate(ddc_egress_sink_latency_seconds_bucket{le="+Inf"}[5m]))"#,
            r#"ddc:link_loss:ratio_1m{link="a"} > 0.1"#,
            r#"max by (host) (host_load1{host="a"}) / max by (host) (vector_uptime_seconds)"#,
            r#"up{ddc_role="vector"} == 0"#,
            r#"ALERTS{alertname="a"}"#,
            r#"ddc_dropped_packets_total{reason=~"seal|replay"} + ddc_dropped_packets_total{reason=~"session_.*"}"#,
            r#"sum by (to) (label_replace(ddc_ready, "to", "$1", "link", "(.*)"))"#,
            r#"ddc_ready{side=~"$side"}"#,
            "max by (link) (sum by (link, job, instance) (ddc_ready))",
        ] {
            assert_eq!(known().check(right), Vec::<String>::new(), "{right}");
        }
    }

    #[test]
    fn what_does_not_exist_is_named() {
        wrong(
            "rate(ddc_egress_nonsense_total[5m])",
            "ddc_egress_nonsense_total, which is not in the catalogue",
        );
        // A counter without its ending, and a histogram without its part.
        wrong("ddc_egress_packet_loss", "ddc_egress_packet_loss, which is not");
        wrong("ddc_egress_sink_latency_seconds", "ddc_egress_sink_latency_seconds, which is not");
        wrong("ddc:nonsense:rate", "which no rule");
        wrong("node_load1", "neither ours");
        wrong(r#"{link="a"}"#, "neither ours");
        wrong("rate(x[5m]", "is not PromQL");
        wrong("vector_cpu_seconds_total", "does not let pass");
        wrong(r#"ddc_ready{topic="x"}"#, "has no label `topic`");
        wrong(r#"host_load1{link="x"}"#, "has no label `link`");
        wrong(r#"ddc_ready{job="x"}"#, "key on site");
        wrong("sum by (instance) (ddc_ready)", "groups by `instance`");
        wrong(r#"ddc_egress_records_missing_total{reason="lots"}"#, "never \"lots\"");
        wrong(r#"ddc_egress_records_missing_total{reason=~"lost|lots"}"#, "never \"lots\"");
        wrong(r#"ddc_egress_records_missing_total{reason=~"x.*"}"#, "no value of `reason`");
        wrong(r#"ddc_ready{side="inside"}"#, "never \"inside\"");
    }
}
