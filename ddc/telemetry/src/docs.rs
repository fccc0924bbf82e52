//! The catalogue as Markdown: the body of docs/metrics.md, which `cargo xtask` writes and CI compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::catalogue::{
    CommonMetrics, Descriptor, EgressMetrics, IngressMetrics, ProcessMetrics, Table, all,
};
use crate::cells::{BOUNDS, BUCKETS, LabelSet, MAX_TOPICS, OTHER_TOPICS, Side};
use crate::statsd::lines::{Batch, Lines};
use crate::vectors::example;

/// One section per table with its rows, the buckets, how many series there are, how StatsD carries them, then the values of each
/// label. The caller adds the file's header and title.
pub fn docs() -> String {
    let mut text = String::from(INTRODUCTION);
    section(&mut text, "Both sides", CommonMetrics::DESCRIPTORS);
    section(&mut text, "Ingress", IngressMetrics::DESCRIPTORS);
    section(&mut text, "Egress", EgressMetrics::DESCRIPTORS);
    section(&mut text, "Process", ProcessMetrics::DESCRIPTORS);
    histograms(&mut text);
    cardinality(&mut text);
    text.push_str(STATSD);
    for set in label_sets().values() {
        values(&mut text, set);
    }
    text
}

const INTRODUCTION: &str = "\
Every metric a proxy has, once. Prometheus names are those of the admin listener's `/metrics` and of Vector's exporter, StatsD names
those on the way to Vector. Metrics of a link have the labels `link` and `side` (`ingress` or `egress`), metrics of a process the label
`process`: `ingress-LINK` or `egress-LINK` with the first link the process runs, `demo` in the demo. Where `[telemetry] site` is set,
every series has the label `site`, too; what has crossed the diode to the far side's Vector has `via=\"diode\"` there.

Counters begin at 0 when a process starts and are shown from then on. A gauge that was measured or told is absent until it is known.

";

const STATSD: &str = "\
## As StatsD

With `[telemetry] statsd`, all of this goes to a list of collectors, over UDP, each second, in DogStatsD's dialect with labels as tags:

| kind | line | meaning |
|---|---|---|
| counter | `ddc.egress.packets_received:17\\|c\\|#link:plant-a,side:egress` | what was added since the second before; sent from the start and also when it is 0 |
| gauge | `ddc.egress.queue_bytes:4096\\|g\\|#…` | the value; a negative one is sent as 0 and then the signed value, in one datagram, since a sign means \"add\" |
| histogram | `ddc.egress.sink_latency_seconds:0.003\\|h\\|@0.0203\\|#…` | a bucket to which n observations were added: their mean, and the rate 1/(n + 0.25), which servers that cut 1/rate and servers that round it both count as n |
| histogram, never used | `ddc.egress.sink_latency_seconds:0\\|h\\|@2\\|#…` | Vector counts it 0 times and shows the series; other servers may take it for one observation of 0 |

Counts are exact, sums within a nanosecond per observation of what the proxy holds (which is itself within 0.05 %). A datagram has
at most 1432 bytes; many of them are spread over the second. A delta that a collector did not get is lost to it and counted in
`ddc_statsd_datagrams_dropped_total`. A gauge that is not known any more is not sent any more: the collector shows its last value until
it forgets the series.

netdata (1.37) was tested as a second server: it knows no tags, so several links add up; it reads counters as whole numbers, so
`ddc.thread_cpu_seconds` and `ddc.process_cpu_seconds` lose their fraction; it counts a histogram's line at most 100 times.

";

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

fn histograms(text: &mut String) {
    let bounds: Vec<String> = BOUNDS.iter().map(|bound| format!("`{bound}`")).collect();
    let _ = writeln!(
        text,
        "## Histograms\n\nAll have the same {BUCKETS} buckets, upper bounds in seconds: {}, `+Inf`. Vector's `buckets` are the same. What is \
         longer than a day counts as a day.\n",
        bounds.join(", ")
    );
}

/// Series of one instance, without those by topic, and what StatsD says of it each second.
fn size(sides: &[Side]) -> (usize, usize) {
    let registry = example(sides);
    let page = registry.render_examples();
    let series = page.lines().filter(|line| !line.starts_with('#') && !line.contains(",topic=")).count();
    let mut batch = Batch::default();
    Lines::default().render_examples(&registry, &mut batch);
    (series, batch.bytes())
}

fn cardinality(text: &mut String) {
    let (process, process_bytes) = size(&[]);
    let (ingress, ingress_bytes) = size(&[Side::Ingress]);
    let (egress, egress_bytes) = size(&[Side::Egress]);
    let (ingress, egress) = (ingress - process, egress - process);
    let kib = |bytes: usize| format!("{:.1} KiB", bytes as f64 / 1024.0);
    let _ = writeln!(text, "## How many series\n");
    let _ = writeln!(text, "| of | series | StatsD each second |\n|---|---|---|");
    let _ = writeln!(
        text,
        "| an ingress link | {ingress}, and one for each topic in `ddc_ingress_consumer_lag`: at most {MAX_TOPICS} and `{OTHER_TOPICS}` | {} |",
        kib(ingress_bytes - process_bytes)
    );
    let _ = writeln!(text, "| an egress link | {egress} | {} |", kib(egress_bytes - process_bytes));
    let _ = writeln!(text, "| a process | {process} | {} |", kib(process_bytes));
    for links in [1, 200] {
        let (series, bytes) = (
            links * (ingress + egress) + 2 * process,
            links * (ingress_bytes + egress_bytes - 2 * process_bytes),
        );
        let _ = writeln!(
            text,
            "| {links} {}, both sides, a process each | {series}, and the topics | {} |",
            if links == 1 { "link" } else { "links" },
            kib(bytes + 2 * process_bytes)
        );
    }
    let _ = writeln!(
        text,
        "\nNothing else makes a series: every other label has a fixed list of values, below, and only those that can occur on a side are \
         there. StatsD's figures are for names of usual length, before UDP and IP. One process takes at most {} sides of links.\n",
        crate::exposition::MAX_LINKS
    );
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

    /// The sums of the table are those of the page that a process of that kind shows.
    #[test]
    fn the_number_of_series_is_that_of_the_page() {
        let series = |sides: &[Side]| {
            let registry = example(sides);
            registry.process().build_info.set("1", "2");
            let page = registry.render();
            page.lines().filter(|line| !line.starts_with('#')).count()
        };
        // What is absent until it is told is not on this page, so it has fewer series, never more.
        for sides in [&[][..], &[Side::Ingress], &[Side::Egress]] {
            let (all, bytes) = size(sides);
            let shown = series(sides);
            assert!(shown <= all && shown + 40 > all, "{sides:?}: {shown} of {all}");
            assert!(bytes > 100);
        }
        assert_eq!(size(&[]).0, series(&[]) + 1, "all but the start time, which nobody has told");
        let text = docs();
        let row = format!("| a process | {} |", size(&[]).0);
        assert!(text.contains(&row), "{row}");
        assert!(text.contains("| 200 links, both sides, a process each |"));
    }

    #[test]
    fn every_bucket_is_documented() {
        let text = docs();
        let (_, section) = text.split_once("## Histograms").unwrap();
        for bound in BOUNDS {
            assert!(section.contains(&format!("`{bound}`, ")), "{bound}");
        }
    }

    /// A `|` in a text would make another column.
    #[test]
    fn every_table_row_has_the_columns_of_its_head() {
        let mut columns = None;
        for line in docs().lines() {
            if line.starts_with('|') {
                let count = line.replace(r"\|", "").matches('|').count();
                assert_eq!(*columns.get_or_insert(count), count, "{line}");
            } else {
                columns = None;
            }
        }
    }
}
