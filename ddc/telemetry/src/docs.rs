//! The catalogue as Markdown: the body of docs/metrics.md, which `cargo xtask` writes and CI compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::catalogue::{
    CommonMetrics, Descriptor, EgressMetrics, IngressMetrics, ProcessMetrics, Table, all,
};
use crate::cells::LabelSet;

/// One section per table with its rows, then the values of each `reason` label. The caller adds the file's header and title.
pub fn docs() -> String {
    let mut text = String::new();
    section(&mut text, "Both sides", CommonMetrics::DESCRIPTORS);
    section(&mut text, "Ingress", IngressMetrics::DESCRIPTORS);
    section(&mut text, "Egress", EgressMetrics::DESCRIPTORS);
    section(&mut text, "Process", ProcessMetrics::DESCRIPTORS);
    for set in label_sets().values() {
        values(&mut text, set);
    }
    text
}

fn section(text: &mut String, title: &str, rows: &[Descriptor]) {
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "## {title}\n");
    text.push_str("| Prometheus | StatsD | kind | unit | labels | meaning |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let labels: Vec<String> = row
            .label_keys()
            .map(|key| match row.by {
                Some(by) if by.key == key => format!("`{key}` ([{}](#{}))", by.name, anchor(&by)),
                _ => format!("`{key}`"),
            })
            .collect();
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {} | {} | {} | {} |",
            row.prometheus_name(),
            row.statsd_name(),
            row.kind.as_str(),
            row.unit.as_str(),
            labels.join(", "),
            row.help,
        );
    }
    text.push('\n');
}

fn values(text: &mut String, set: &LabelSet) {
    let _ = writeln!(text, "## {}\n", set.name);
    let _ = writeln!(text, "| `{}` | meaning |\n|---|---|", set.key);
    for (value, help) in set.values {
        let _ = writeln!(text, "| `{value}` | {help} |");
    }
    text.push('\n');
}

fn label_sets() -> BTreeMap<&'static str, LabelSet> {
    all().filter_map(|row| row.by).map(|set| (set.name, set)).collect()
}

/// The anchor Markdown viewers give the heading.
fn anchor(set: &LabelSet) -> String {
    set.name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_and_every_label_value_is_documented_once() {
        let text = docs();
        for row in all() {
            assert_eq!(text.matches(&format!("| `{}` |", row.prometheus_name())).count(), 1, "{}", row.name);
            assert_eq!(text.matches(&format!("| `{}` |", row.statsd_name())).count(), 1, "{}", row.name);
        }
        for set in label_sets().values() {
            let heading = format!("## {}\n", set.name);
            let (_, section) = text.split_once(&heading).unwrap();
            let section = section.split("\n## ").next().unwrap();
            for (value, help) in set.values {
                assert!(section.contains(&format!("| `{value}` | {help} |")), "{value}");
            }
        }
    }

    /// A `|` in a text would make another column.
    #[test]
    fn every_table_row_has_the_columns_of_its_head() {
        let mut columns = None;
        for line in docs().lines() {
            if line.starts_with('|') {
                let count = line.matches('|').count();
                assert_eq!(*columns.get_or_insert(count), count, "{line}");
            } else {
                columns = None;
            }
        }
    }
}
