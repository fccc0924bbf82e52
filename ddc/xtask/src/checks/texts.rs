//! Names of metrics in pages, pipelines and scripts, wherever they stand in the text.

use std::collections::BTreeSet;

use ddc_telemetry::catalogue::{Descriptor, all};
use regex::Regex;

use super::known::{EVERYWHERE, Known, missing, quoted};
use super::{File, Finding};

/// Words that look like a metric and are none.
const NO_METRICS: [&str; 22] = [
    // Our crates.
    "ddc_wire",
    "ddc_fec",
    "ddc_link",
    "ddc_udp",
    "ddc_kafka",
    "ddc_telemetry",
    "ddc_proxy",
    "ddc_cli",
    "ddc_e2e",
    "ddc_spool",
    "ddc_health",
    "ddc_xtask",
    // Labels that Prometheus' configuration gives.
    "ddc_role",
    "ddc_side",
    "ddc_docs",
    "ddc_grafana",
    // Ansible's roles and variables, and a table of the packet filter.
    "ddc_common",
    "ddc_ingress",
    "ddc_egress",
    "ddc_airgapped",
    "ddc_versions_lock",
    "ddc_one_way_diode0",
];

/// What begins so stands for any metric, in examples and tests of pipelines.
const EXAMPLE: &str = "ddc_x_";

/// Every name that is no metric. A line with `not-a-metric` in it is left out: tests of pipelines need names that do not exist.
pub(super) fn check(files: &[File], known: &Known) -> Vec<Finding> {
    // The patterns are constants, tried by the tests.
    #[expect(clippy::expect_used, reason = "the patterns are constants, tried by the tests")]
    let pattern = |text| Regex::new(text).expect("a valid pattern");
    let prometheus = pattern(r"\bddc_[a-z0-9_]+(\{[^}\n]*\}|::)?");
    let recorded = pattern(r"\bddc:[a-z0-9_]+:[a-z0-9_]+");
    let statsd = pattern(r"\bddc\.(?:ingress|egress)\.[a-z0-9_-]+");
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            if line.contains("not-a-metric") {
                continue;
            }
            let place = || format!("{}:{}", file.path, number + 1);
            for found in prometheus.find_iter(line) {
                findings.extend(word(found.as_str(), known).map(|what| Finding::new(place(), what)));
            }
            for found in recorded.find_iter(line).filter(|found| !known.name(found.as_str())) {
                findings.push(Finding::new(place(), missing(found.as_str())));
            }
            for found in statsd.find_iter(line) {
                // Ours have no dash: one with a dash shows what a pipeline does with it.
                if !found.as_str().contains('-') && !all().any(|row| row.statsd_name() == found.as_str()) {
                    findings.push(Finding::new(
                        place(),
                        format!("names {}, which is not in the catalogue", found.as_str()),
                    ));
                }
            }
        }
    }
    findings
}

/// What is wrong with `ddc_…`, `ddc_…{label="…"}` or the start of several names, `ddc_…_`.
fn word(word: &str, known: &Known) -> Option<String> {
    let (name, labels) = word.split_once('{').unwrap_or((word, ""));
    if name.ends_with("::") || NO_METRICS.contains(&name) || name.starts_with(EXAMPLE) {
        return None;
    }
    if let Some(start) = name.strip_suffix('_') {
        let any = all().any(|row| row.prometheus_name().starts_with(start));
        return (!any).then(|| format!("no metric in the catalogue begins with {name}"));
    }
    let histogram = |row: &Descriptor| row.prometheus_name() == name;
    let row = known.row(name).or_else(|| all().find(|row| histogram(row)));
    let Some(row) = row else {
        return (!known.name(name))
            .then(|| format!("names {name}, which is not in the catalogue (docs/metrics.md)"));
    };
    let allowed: BTreeSet<&str> = row.label_keys().chain(EVERYWHERE).chain(["le"]).collect();
    labels
        .trim_end_matches('}')
        .split(',')
        .filter_map(|one| one.split_once(['=', '!']))
        .map(|(label, _)| label.trim())
        .find(|label| !allowed.contains(label) && label.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .map(|label| format!("{name} has no label `{label}`"))
}

/// The pipeline drops labels that it does not know: it must know every one of the catalogue.
pub(super) fn labels_pass(path: &str, program: &str) -> Vec<Finding> {
    let known = quoted(program, "known");
    let wanted: BTreeSet<&str> = all().flat_map(Descriptor::label_keys).chain(EVERYWHERE).collect();
    wanted
        .into_iter()
        .filter(|label| !known.contains(*label))
        .map(|label| Finding::new(path, format!("does not let the label `{label}` pass: add it to `known`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rules;
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let file = File { path: "x.md".into(), text: text.into() };
        let known = Known::new(&Rules::default(), "");
        check(&[file], &known).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_exists_is_taken() {
        let text = "`ddc_ready{side=\"egress\", link!=\"a\"}` and ddc_egress_sink_latency_seconds_bucket{le=\"1\"}\n\
                    ddc_egress_sink_latency_seconds, ddc_process_*, ddc_link::Reject, `ddc.ingress.packets_sent`, the crate ddc_fec\n\
                    ddc_invented_total # not-a-metric\nddc_x_total ddc.egress.a-b\n";
        assert_eq!(found(text), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_exist_is_named_with_its_line() {
        for (text, part) in [
            ("a\nddc_nonsense_total", "x.md:2: names ddc_nonsense_total"),
            ("ddc_egress_packet_loss", "names ddc_egress_packet_loss,"),
            ("ddc_ready{topic=\"a\"}", "ddc_ready has no label `topic`"),
            ("ddc_nonsense_*", "begins with ddc_nonsense_"),
            ("ddc.ingress.nonsense", "names ddc.ingress.nonsense"),
            ("ddc:nonsense:rate_1m", "no rule"),
        ] {
            let found = found(text);
            assert!(found.iter().any(|f| f.contains(part)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_label_that_would_be_dropped_is_named() {
        let found = labels_pass("x.vrl", "known = [\n \"link\", \"side\",\n]");
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|f| f.contains("x.vrl") && f.contains("`reason`")), "{found:?}");
        assert!(!found.iter().any(|f| f.contains("`link`")), "{found:?}");
    }
}
