//! Prometheus' rule files: what they record, and whether what they ask for exists.

use std::collections::BTreeSet;

use saphyr::{LoadableYamlNode as _, Yaml};

use super::known::Known;
use super::{File, Finding};
use crate::promql::parse;

/// All rules of all files.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) list: Vec<Rule>,
    /// Names of what is recorded.
    pub(super) recorded: BTreeSet<String>,
    /// Labels that rules add or make.
    pub(super) labels: BTreeSet<String>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// File and name.
    place: String,
    expression: String,
}

/// Reads the files; what is not a rule file is a finding.
pub(super) fn read(files: &[File], findings: &mut Vec<Finding>) -> Rules {
    let mut rules = Rules::default();
    for file in files {
        let documents = match Yaml::load_from_str(&file.text) {
            Ok(documents) => documents,
            Err(error) => {
                findings.push(Finding::new(&file.path, format!("is not YAML: {error}")));
                continue;
            }
        };
        let before = rules.list.len();
        for group in documents.iter().flat_map(|document| items(document, "groups")) {
            for rule in items(group, "rules") {
                take(file, rule, &mut rules, findings);
            }
        }
        if rules.list.len() == before {
            findings.push(Finding::new(&file.path, "has no rules: `groups` with `rules` in them are wanted"));
        }
    }
    rules
}

fn take(file: &File, rule: &Yaml<'_>, rules: &mut Rules, findings: &mut Vec<Finding>) {
    let text = |key: &str| rule.as_mapping_get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let (record, alert) = (text("record"), text("alert"));
    let Some(name) = record.clone().or(alert) else {
        findings.push(Finding::new(&file.path, "a rule has neither `record` nor `alert`"));
        return;
    };
    let place = format!("{}, rule {name}", file.path);
    let Some(expression) = text("expr") else {
        findings.push(Finding::new(place, "has no `expr`"));
        return;
    };
    if let Ok(found) = parse(&expression) {
        rules.labels.extend(found.made);
    }
    if let Some(labels) = rule.as_mapping_get("labels").and_then(|labels| labels.as_mapping()) {
        rules.labels.extend(labels.keys().filter_map(|key| key.as_str()).map(str::to_owned));
    }
    rules.recorded.extend(record);
    rules.list.push(Rule { place, expression });
}

fn items<'a, 'input>(node: &'a Yaml<'input>, key: &str) -> &'a [Yaml<'input>] {
    node.as_mapping_get(key).and_then(|value| value.as_sequence()).map_or(&[], Vec::as_slice)
}

/// What the rules ask for and does not exist.
pub(super) fn check(rules: &Rules, known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in &rules.list {
        for what in known.check(&rule.expression) {
            let expression = rule.expression.split_whitespace().collect::<Vec<_>>().join(" ");
            findings.push(Finding::new(&rule.place, format!("{what}; in: {expression}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let file = File { path: "rules/x.yml".into(), text: text.into() };
        let mut findings = Vec::new();
        let rules = read(&[file], &mut findings);
        findings.extend(check(&rules, &Known::new(&rules, "")));
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_rules_pass() {
        let text = r"
groups:
  - name: g
    rules:
      - record: ddc:loss:rate_1m
        expr: max by (site, link) (rate(ddc_egress_packet_loss_total[1m]))
      - alert: A
        expr: |
          ddc:loss:rate_1m > 1
        labels: {severity: critical}
";
        assert_eq!(found(text), Vec::<String>::new());
    }

    #[test]
    fn broken_rules_are_named_with_file_and_rule() {
        let rule = |lines: &str| format!("groups:\n  - name: g\n    rules:\n{lines}");
        for (text, part) in [
            (
                rule("      - alert: A\n        expr: rate(ddc_no_total[1m]) > 1\n"),
                "rules/x.yml, rule A: asks for ddc_no_total",
            ),
            (
                rule("      - record: ddc:x:y\n        expr: sum(\n"),
                "rules/x.yml, rule ddc:x:y: is not PromQL",
            ),
            (
                rule("      - alert: A\n        expr: ddc:no:such > 1\n"),
                "no rule in deploy/prometheus/rules records",
            ),
            (rule("      - alert: A\n"), "has no `expr`"),
            (rule("      - expr: vector(1)\n"), "neither `record` nor `alert`"),
            ("groups: []\n".to_owned(), "has no rules"),
            ("a: [".to_owned(), "is not YAML"),
        ] {
            let found = found(&text);
            assert!(found.iter().any(|f| f.contains(part)), "{text}: {found:?}");
        }
    }
}
