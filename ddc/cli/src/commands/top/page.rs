//! A `/metrics` page as numbers by link and side.
//!
//! prometheus-parse reads the lines; here is what is bounded and what is believed. A page comes from the network: what
//! is no finite number, has a name that is not ours, or labels without a link is left out, and nothing panics.

use std::collections::BTreeMap;

use prometheus_parse::{Labels, Scrape, Value};

use super::clean::clean;

/// Lines of a page that are read: 512 links with every metric of the catalogue fit twice.
const MAX_LINES: usize = 200_000;
/// Bytes of a line; longer ones are skipped.
const MAX_LINE_BYTES: usize = 4096;
/// Links of one page, as many as one process may have.
pub(super) const MAX_LINKS: usize = 512;
/// Values of one side of one link: the catalogue with every reason and 65 topics has under 300.
const MAX_VALUES: usize = 1024;
/// Buckets of a histogram; ours have 20.
const MAX_BUCKETS: usize = 64;
/// Characters of a label's value that are kept; the longest name Kafka allows has 249.
const LONGEST_LABEL: usize = 249;

/// An end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Side {
    /// The source side.
    Ingress,
    /// The destination side.
    Egress,
}

impl Side {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Ingress, Self::Egress].into_iter().find(|side| side.as_str() == text)
    }
}

/// One side of one link, by the link's name.
pub(super) type Key = (String, Side);

/// What a process says about itself and its links.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    pub(super) process: Process,
    pub(super) sides: BTreeMap<Key, Series>,
}

/// The process behind a listener.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Process {
    /// New at every start.
    pub(super) instance: Option<String>,
    pub(super) version: Option<String>,
    pub(super) started: Option<f64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) memory_bytes: Option<f64>,
    /// Moves as long as every thread moves.
    pub(super) ticks: Option<f64>,
}

/// The values of one side.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    pub(super) site: Option<String>,
    /// By name and, for metrics that have one, the value of the label beside link and side (reason, topic, …).
    values: BTreeMap<(String, String), f64>,
    histograms: BTreeMap<String, Buckets>,
}

/// Upper bounds and cumulative counts, rising; the last bound may be infinite.
pub(super) type Buckets = Vec<(f64, f64)>;

impl Series {
    /// The value of a metric without a further label, or the sum over that label's values.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        let mut values = self.by(name).map(|(_, value)| value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The value for one value of the further label.
    pub(super) fn of(&self, name: &str, label: &str) -> Option<f64> {
        self.values.get(&(name.to_owned(), label.to_owned())).copied()
    }

    /// All values of a metric with the further label's value, which is empty when there is no such label.
    pub(super) fn by(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.values
            .range((name.to_owned(), String::new())..)
            .take_while(move |((found, _), _)| found == name)
            .map(|((_, label), value)| (label.as_str(), *value))
    }

    pub(super) fn histogram(&self, name: &str) -> Option<&Buckets> {
        self.histograms.get(name)
    }

    fn insert(&mut self, name: String, label: String, value: f64) {
        if self.values.len() < MAX_VALUES {
            self.values.insert((name, label), value);
        }
    }
}

impl Page {
    /// Reads a page; the error says what is wrong with it, for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.lines().take(MAX_LINES + 1).count() > MAX_LINES {
            return Err(format!("its metrics page has more than {MAX_LINES} lines"));
        }
        let ours = text
            .lines()
            .filter(|line| line.len() <= MAX_LINE_BYTES)
            .filter(|line| line.starts_with("ddc_") || line.starts_with("# TYPE ddc_"))
            .map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(ours).map_err(|error| clean(&error.to_string(), 100))?;
        let mut page = Self::default();
        let mut found = false;
        for sample in scrape.samples {
            found |= page.take(sample.metric, sample.value, &sample.labels);
        }
        if found {
            Ok(page)
        } else {
            Err("it answers, but not with ddc's metrics: is this a ddc admin listener?".to_owned())
        }
    }

    /// Whether the sample is one of ours.
    fn take(&mut self, name: String, value: Value, labels: &Labels) -> bool {
        let label = |key| labels.get(key).map(|value| clean(value, LONGEST_LABEL));
        let link = label("link").filter(|link| !link.is_empty());
        let side = labels.get("side").and_then(Side::parse);
        let (Some(link), Some(side)) = (link, side) else {
            return number(&name, &value).is_some_and(|value| self.process.take(&name, value, &label));
        };
        if !self.sides.contains_key(&(link.clone(), side)) && self.sides.len() >= 2 * MAX_LINKS {
            return false;
        }
        let series = self.sides.entry((link, side)).or_default();
        series.site = series.site.take().or_else(|| label("site"));
        if let Value::Histogram(buckets) = value {
            let Some(buckets) = believable(buckets.iter().map(|bucket| (bucket.less_than, bucket.count)))
            else {
                return false;
            };
            series.histograms.insert(name, buckets);
            return true;
        }
        let Some(value) = number(&name, &value) else { return false };
        let by = ["reason", "topic", "state", "thread", "certificate"].into_iter().find_map(label);
        series.insert(name, by.unwrap_or_default(), value);
        true
    }
}

impl Process {
    fn take(&mut self, name: &str, value: f64, label: &dyn Fn(&'static str) -> Option<String>) -> bool {
        let place = match name {
            "ddc_process_start_timestamp_seconds" => &mut self.started,
            "ddc_process_cpu_seconds_total" => &mut self.cpu_seconds,
            "ddc_process_resident_memory_bytes" => &mut self.memory_bytes,
            "ddc_process_ticks_total" => &mut self.ticks,
            "ddc_build_info" => {
                self.instance = label("instance_id");
                self.version = label("version");
                return true;
            }
            _ => return false,
        };
        *place = Some(value);
        true
    }
}

/// A finite number; a counter's is not negative.
fn number(name: &str, value: &Value) -> Option<f64> {
    let (Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value)) = *value else { return None };
    (value.is_finite() && (value >= 0.0 || !name.ends_with("_total"))).then_some(value)
}

/// Sorted and cumulative, or nothing.
fn believable(buckets: impl Iterator<Item = (f64, f64)>) -> Option<Buckets> {
    let mut buckets: Buckets = buckets.take(MAX_BUCKETS + 1).collect();
    let sound = |&(bound, count): &(f64, f64)| !bound.is_nan() && count.is_finite() && count >= 0.0;
    if buckets.len() > MAX_BUCKETS || !buckets.iter().all(sound) {
        return None;
    }
    buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
    buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1).then_some(buckets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn key(link: &str, side: Side) -> Key {
        (link.to_owned(), side)
    }

    #[test]
    fn links_sides_reasons_and_histograms_are_told_apart() {
        let page = Page::parse(include_str!("fixtures/egress-1.prom")).unwrap();
        let series = &page.sides[&key("plant-a", Side::Egress)];
        assert_eq!(series.get("ddc_egress_records_delivered_total"), Some(1000.0));
        assert_eq!(series.of("ddc_dropped_packets_total", "seal"), Some(2.0));
        assert_eq!(series.get("ddc_dropped_packets_total"), Some(5.0));
        assert_eq!(series.get("ddc_egress_nothing_total"), None);
        let buckets = series.histogram("ddc_egress_sink_latency_seconds").unwrap();
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 1000.0)));
        assert_eq!(page.process.instance.as_deref(), Some("abc-1"));
        assert_eq!(page.process.cpu_seconds, Some(10.5));
    }

    #[test]
    fn what_cannot_be_believed_is_left_out() {
        let page = Page::parse(concat!(
            "ddc_ready{link=\"a\",side=\"egress\"} 1\n",
            "ddc_ready{link=\"b\",side=\"left\"} 1\nddc_ready 1\n",
            "ddc_x_total{link=\"a\",side=\"egress\"} -5\nddc_y_total{link=\"a\",side=\"egress\"} NaN\n",
            "ddc_z{link=\"a\",side=\"egress\"} +Inf\nddc_w{link=\"a\",side=\"egress\"\nddc_v{} 99999999999999999999 x\n",
            "go_threads{link=\"c\",side=\"egress\"} 7\n",
            "# TYPE ddc_h histogram\nddc_h_bucket{link=\"a\",side=\"egress\",le=\"1\"} 5\n",
            "ddc_h_bucket{link=\"a\",side=\"egress\",le=\"+Inf\"} 3\n",
        ))
        .unwrap();
        assert_eq!(page.sides.len(), 1, "{page:?}");
        let series = &page.sides[&key("a", Side::Egress)];
        assert_eq!((series.get("ddc_ready"), series.values.len()), (Some(1.0), 1), "{series:?}");
        assert!(series.histogram("ddc_h").is_none(), "counts that fall are no histogram");
    }

    #[test]
    fn other_pages_are_refused_with_a_reason() {
        for page in ["", "<html>ddc_</html>", "up 1\n", "ddc_ready{link=\"\",side=\"egress\"} 1", "ddc_ready"]
        {
            assert!(Page::parse(page).unwrap_err().contains("is this a ddc admin listener"), "{page:?}");
        }
        assert!(Page::parse(&"a 1\n".repeat(MAX_LINES + 1)).unwrap_err().contains("more than"));
    }

    #[test]
    fn a_page_of_too_many_links_or_values_is_bounded() {
        let line = |n| {
            format!(
                "ddc_a{{link=\"l{n}\",side=\"egress\"}} 1\nddc_b{{link=\"l0\",side=\"egress\",topic=\"t{n}\"}} 1\n"
            )
        };
        let text: String = (0..3000).map(line).collect();
        let page = Page::parse(&text).unwrap();
        assert_eq!(page.sides.len(), 2 * MAX_LINKS);
        assert_eq!(page.sides[&key("l0", Side::Egress)].values.len(), MAX_VALUES);
    }

    #[test]
    fn label_texts_are_neutralised() {
        let page = Page::parse("ddc_ready{link=\"a\u{1b}[2Jb\",side=\"egress\"} 1\n").unwrap();
        assert_eq!(page.sides.keys().next().unwrap().0, "a?[2Jb");
    }

    /// Bytes turned at random: whatever a listener sends, reading it ends and never panics.
    #[test]
    fn damaged_pages_never_panic() {
        let good = include_str!("fixtures/egress-1.prom").as_bytes();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            // xorshift64: the same damage at every run.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        let mut understood = 0;
        for _ in 0..100 {
            let mut page = good.to_vec();
            for _ in 0..200 {
                let place = next(page.len());
                page[place] = b"{}\"=,. \n\\#+-e9\x1b\xc3NaInf"[next(21)];
            }
            page.truncate(next(good.len()));
            understood += usize::from(Page::parse(&String::from_utf8_lossy(&page)).is_ok());
        }
        assert!(understood > 50, "{understood}: the damage should leave most of a page");
    }
}
