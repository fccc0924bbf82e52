//! PromQL made from rows of the catalogue.
//!
//! Every series of the source side may exist twice at the destination: scraped there, and as the copy that crossed the diode (label
//! `via`). So each metric is first reduced with `max` (or `min`) by the labels that name it (`site`, `link`, `side` or `process`, and
//! its own), never with `sum`: what is there twice counts once, and a scrape's `job` and `instance` do not matter.

use ddc_telemetry::catalogue::{Descriptor, Unit, all};

/// The row of a metric, by its name in Prometheus.
pub(crate) fn row(name: &str) -> Option<&'static Descriptor> {
    all().find(|row| row.prometheus_name() == name)
}

/// One expression, and what a panel shows about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// PromQL with Grafana's variables in it.
    pub(crate) expr: String,
    /// Grafana's id of the unit, where the metric gives it.
    pub(crate) unit: Option<&'static str>,
    /// Metrics of the catalogue in it, for the description.
    pub(crate) metrics: Vec<&'static str>,
}

/// A metric with the labels that are asked for and kept.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    name: &'static str,
    side: Option<&'static str>,
    only: Vec<(&'static str, &'static str)>,
    by: Vec<&'static str>,
}

/// A metric of the catalogue by its name in Prometheus; a name that is not there is reported when the dashboard is made.
pub(crate) fn series(name: &'static str) -> Series {
    Series { name, side: None, only: Vec::new(), by: Vec::new() }
}

impl Series {
    /// Only that side's, for metrics that both sides have.
    pub(crate) fn on(mut self, side: &'static str) -> Self {
        self.side = Some(side);
        self
    }

    /// Keeps a label: one line for each of its values.
    pub(crate) fn by(mut self, label: &'static str) -> Self {
        self.by.push(label);
        self
    }

    /// Only where `label` matches the regular expression.
    pub(crate) fn only(mut self, label: &'static str, pattern: &'static str) -> Self {
        self.only.push((label, pattern));
        self
    }

    /// Its change per second.
    pub(crate) fn rate(self) -> Query {
        let expr =
            format!("max by ({}) (rate({}{}[$__rate_interval]))", self.kept(), self.name, self.selector());
        self.query(expr, |unit| match unit {
            Unit::Bytes => Some("Bps"),
            Unit::Datagrams => Some("pps"),
            Unit::Records => Some("recps"),
            Unit::Events => Some("eps"),
            // Seconds of CPU per second: parts of a core.
            Unit::Seconds => Some("percentunit"),
            _ => Some("cps"),
        })
    }

    /// How much it grew in the time shown.
    pub(crate) fn growth(self) -> Query {
        let expr = format!("max by ({}) (increase({}{}[$__range]))", self.kept(), self.name, self.selector());
        self.query(expr, unit_of)
    }

    /// Its value.
    pub(crate) fn now(self) -> Query {
        let expr = format!("max by ({}) ({}{})", self.kept(), self.name, self.selector());
        self.query(expr, unit_of)
    }

    /// The smallest of its values where several scrapes give it.
    pub(crate) fn least(self) -> Query {
        let expr = format!("min by ({}) ({}{})", self.kept(), self.name, self.selector());
        self.query(expr, unit_of)
    }

    /// Its last value in the time shown, also when nobody gives it any more.
    pub(crate) fn latest(self) -> Query {
        let expr =
            format!("max by ({}) (last_over_time({}{}[$__range]))", self.kept(), self.name, self.selector());
        self.query(expr, unit_of)
    }

    /// A quantile of a histogram, from 0 to 1.
    pub(crate) fn quantile(self, quantile: &str) -> Query {
        let expr = format!(
            "histogram_quantile({quantile}, max by ({}, le) (rate({}_bucket{}[$__rate_interval])))",
            self.kept(),
            self.name,
            self.selector()
        );
        self.query(expr, unit_of)
    }

    /// The mean of a histogram's observations.
    pub(crate) fn mean(self) -> Query {
        let (kept, name, selector) = (self.kept(), self.name, self.selector());
        let part = |suffix| format!("max by ({kept}) (rate({name}_{suffix}{selector}[$__rate_interval]))");
        let expr = format!("{} / {}", part("sum"), part("count"));
        self.query(expr, unit_of)
    }

    /// `{site=~"$site",link=~"$link",…}`
    fn selector(&self) -> String {
        let mut matchers = vec![r#"site=~"$site""#.to_owned()];
        matchers
            .push(if self.of_process() { r#"process=~"$process""# } else { r#"link=~"$link""# }.to_owned());
        matchers.extend(self.side.map(|side| format!(r#"side="{side}""#)));
        matchers.extend(self.only.iter().map(|(label, pattern)| format!(r#"{label}=~"{pattern}""#)));
        format!("{{{}}}", matchers.join(","))
    }

    /// `site, link, …`
    fn kept(&self) -> String {
        let mut labels = if self.of_process() { vec!["site", "process"] } else { vec!["site", "link"] };
        // Metrics of one side are named after it; the others need the label.
        let both = row(self.name)
            .is_some_and(|row| !row.name.starts_with("ingress.") && !row.name.starts_with("egress."));
        if both && self.side.is_none() && !self.of_process() {
            labels.push("side");
        }
        labels.extend(&self.by);
        labels.join(", ")
    }

    fn of_process(&self) -> bool {
        row(self.name).is_some_and(|row| row.label_keys().all(|key| key != "link"))
    }

    fn query(&self, expr: String, unit: fn(Unit) -> Option<&'static str>) -> Query {
        Query { expr, unit: row(self.name).and_then(|row| unit(row.unit)), metrics: vec![self.name] }
    }
}

/// Grafana's unit for a value as it is.
fn unit_of(unit: Unit) -> Option<&'static str> {
    Some(match unit {
        Unit::Bytes => "bytes",
        Unit::Seconds => "s",
        Unit::BitsPerSecond => "bps",
        // Grafana wants milliseconds: such panels multiply, and say so by their own unit.
        Unit::Timestamp => return None,
        Unit::Identifier => "none",
        Unit::Flag => "bool_yes_no",
        _ => "short",
    })
}

/// An expression over others: `{0}`, `{1}` … stand for them. It has the unit of the first, where nothing else is said.
pub(crate) fn over(template: &str, parts: impl IntoIterator<Item = Query>) -> Query {
    let mut query = Query { expr: template.to_owned(), ..Query::default() };
    for (index, part) in parts.into_iter().enumerate() {
        if index == 0 {
            query.unit = part.unit;
        }
        query.expr = query.expr.replace(&format!("{{{index}}}"), &part.expr);
        for metric in part.metrics {
            if !query.metrics.contains(&metric) {
                query.metrics.push(metric);
            }
        }
    }
    query
}

/// PromQL over metrics that are not ours (Vector's, Prometheus').
pub(crate) fn foreign(expr: &str, unit: &'static str) -> Query {
    Query { expr: expr.to_owned(), unit: Some(unit), metrics: Vec::new() }
}

impl Query {
    /// `otherwise` for each link of that side that has no value: absent and zero look the same on a panel, empty looks broken.
    pub(crate) fn or_else(mut self, side: &str, otherwise: i32) -> Self {
        let known =
            format!(r#"max by (site, link) (ddc_ready{{site=~"$site",link=~"$link",side="{side}"}})"#);
        let offset = match otherwise {
            0 => String::new(),
            1.. => format!(" + {otherwise}"),
            _ => format!(" - {}", otherwise.unsigned_abs()),
        };
        self.expr = format!("({}) or on (site, link) (0 * {known}{offset})", self.expr);
        self
    }

    /// Times a factor, with the unit that this makes.
    pub(crate) fn times(mut self, factor: u32, unit: &'static str) -> Self {
        self.expr = format!("{factor} * {}", self.expr);
        self.unit = Some(unit);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_reduced_by_what_names_it() {
        let sent = series("ddc_ingress_packets_sent_total").rate();
        assert_eq!(
            sent.expr,
            "max by (site, link) (rate(ddc_ingress_packets_sent_total{site=~\"$site\",link=~\"$link\"}[$__rate_interval]))"
        );
        assert_eq!((sent.unit, sent.metrics), (Some("pps"), vec!["ddc_ingress_packets_sent_total"]));
        let full = series("ddc_buffer_full_total").rate().expr;
        assert!(full.starts_with("max by (site, link, side) "), "{full}");
        let full = series("ddc_buffer_full_total").on("egress").rate().expr;
        assert!(full.starts_with("max by (site, link) ") && full.contains(r#"side="egress""#), "{full}");
        let ticks = series("ddc_process_ticks_total").rate().expr;
        assert!(ticks.starts_with("max by (site, process) ") && !ticks.contains("link"), "{ticks}");
    }

    #[test]
    fn expressions_are_put_together() {
        let one = || Query { expr: "a".into(), unit: Some("s"), metrics: vec!["x"] };
        let both =
            over("{0} - {1}", [one(), Query { expr: "b".into(), unit: None, metrics: vec!["x", "y"] }]);
        assert_eq!((both.expr.as_str(), both.unit, both.metrics), ("a - b", Some("s"), vec!["x", "y"]));
        assert!(
            one().or_else("egress", 0).expr.ends_with(r#"side="egress"}))"#),
            "{}",
            one().or_else("egress", 0).expr
        );
        assert!(one().or_else("egress", -1).expr.ends_with(r#"side="egress"}) - 1)"#));
    }
}
