//! The `/metrics` page: Prometheus text format, version 0.0.4, over the links registered.
//!
//! ```text
//!   # HELP ddc_buffer_full_total Times the bounded buffer was found full: …
//!   # TYPE ddc_buffer_full_total counter
//!   ddc_buffer_full_total{link="plant-a",side="ingress"} 0
//! ```
//! A family is written once, with the series of every link below it; a histogram is its cumulative buckets, its sum and its count.
//! Where a site is configured, every series begins with the label `site`. Two readers may read at the same time; the hot path is
//! not held up by either, since reading is loads of atomics. It serves no HTTP: the admin listener does.

use std::fmt::{Display, Write as _};
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use crate::catalogue::{CommonMetrics, Descriptor, EgressMetrics, IngressMetrics, ProcessMetrics, Table};
use crate::cells::{BOUNDS, BUCKETS, Emit, Metric, Sample, Side, Snapshot, Value};

/// The `Content-Type` of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most links (a side of a link counts as one) a registry takes; it bounds the page at some 84,000 lines.
pub const MAX_LINKS: usize = 512;

/// The metrics of one side of one link: those of the side, and [`LinkMetrics::common`].
#[derive(Debug)]
pub struct LinkMetrics<T> {
    link: Box<str>,
    side: Side,
    /// What both sides have.
    pub common: CommonMetrics,
    metrics: T,
}

impl<T> LinkMetrics<T> {
    /// The link's name: the label `link`.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// The label `side`.
    pub fn side(&self) -> Side {
        self.side
    }
}

impl LinkMetrics<IngressMetrics> {
    /// Metrics of an ingress outside any registry, for tests and benches.
    pub fn ingress(link: &str) -> Self {
        Self {
            link: link.into(),
            side: Side::Ingress,
            common: CommonMetrics::default(),
            metrics: IngressMetrics::default(),
        }
    }
}

impl LinkMetrics<EgressMetrics> {
    /// Metrics of an egress outside any registry, for tests and benches.
    pub fn egress(link: &str) -> Self {
        Self {
            link: link.into(),
            side: Side::Egress,
            common: CommonMetrics::default(),
            metrics: EgressMetrics::default(),
        }
    }
}

impl<T> Deref for LinkMetrics<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.metrics
    }
}

/// Why a link was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The same side of the same link twice: their series could not be told apart.
    #[error("the {side} of link {link} is configured twice in this process; give each link its own [link] name", side = .side.as_str())]
    Duplicate {
        /// The link's name.
        link: String,
        /// Its side.
        side: Side,
    },
    /// More than [`MAX_LINKS`].
    #[error("link {link}: one process measures at most {MAX_LINKS} links; start another process for it")]
    TooMany {
        /// The link's name.
        link: String,
    },
}

/// What tells the series of this process from those of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The label `process` of the metrics that belong to no link: `ingress-LINK`, `egress-LINK` with the first link of the process,
    /// or `demo`. It must be another one for each process of a site.
    pub process: String,
    /// The label `site` of every series; no such label when there is none.
    pub site: Option<String>,
}

/// For tests: the process is called `test`, there is no site.
impl Default for Identity {
    fn default() -> Self {
        Self { process: "test".to_owned(), site: None }
    }
}

/// Everything one page shows: a process and its links. Cheap to clone; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// The process; registries of several admin listeners may share it.
    process: Arc<ProcessMetrics>,
    identity: Arc<Identity>,
    links: Arc<RwLock<Links>>,
}

#[derive(Debug, Default)]
struct Links {
    ingress: Vec<Arc<LinkMetrics<IngressMetrics>>>,
    egress: Vec<Arc<LinkMetrics<EgressMetrics>>>,
}

impl Registry {
    /// A registry without links.
    pub fn new(process: Arc<ProcessMetrics>, identity: Identity) -> Self {
        Self { process, identity: Arc::new(identity), links: Arc::default() }
    }

    /// What tells this process from others.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The metrics of the process.
    pub fn process(&self) -> &Arc<ProcessMetrics> {
        &self.process
    }

    /// Registers the ingress of a link.
    pub fn ingress(&self, link: &str) -> Result<Arc<LinkMetrics<IngressMetrics>>, RegistryError> {
        self.add(LinkMetrics::ingress(link), |links| &mut links.ingress)
    }

    /// Registers the egress of a link.
    pub fn egress(&self, link: &str) -> Result<Arc<LinkMetrics<EgressMetrics>>, RegistryError> {
        self.add(LinkMetrics::egress(link), |links| &mut links.egress)
    }

    fn add<T>(
        &self,
        metrics: LinkMetrics<T>,
        list: impl Fn(&mut Links) -> &mut Vec<Arc<LinkMetrics<T>>>,
    ) -> Result<Arc<LinkMetrics<T>>, RegistryError> {
        // A panic while the lock is held leaves whole vectors behind, so a poisoned lock is as good as any other.
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let link = metrics.link().to_owned();
        if links.ingress.len() + links.egress.len() >= MAX_LINKS {
            return Err(RegistryError::TooMany { link });
        }
        let list = list(&mut links);
        if list.iter().any(|other| other.link() == link) {
            return Err(RegistryError::Duplicate { link, side: metrics.side() });
        }
        let metrics = Arc::new(metrics);
        list.push(Arc::clone(&metrics));
        Ok(metrics)
    }

    /// The page. See [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut page = Page { text: String::with_capacity(64 * 1024) };
        self.visit(|family| page.family(family));
        page.text
    }

    /// The page as it would be if every metric had its example values; what they hold plays no part.
    pub(crate) fn render_examples(&self) -> String {
        let mut page = Page { text: String::new() };
        self.visit_examples(|family| page.family(family));
        page.text
    }

    /// Goes through every metric, in the order of the catalogue: one call for each, with all instances of it (one for each link that
    /// has it, or the process).
    pub(crate) fn visit(&self, family: impl FnMut(&Family<'_>)) {
        self.go(&|metric, _, side, emit| metric.read(side, emit), family);
    }

    /// The same with example values; they differ from metric to metric.
    pub(crate) fn visit_examples(&self, family: impl FnMut(&Family<'_>)) {
        self.go(&|metric, row, side, emit| metric.example(row as u64 + 1, side, emit), family);
    }

    fn go(&self, how: &How, mut family: impl FnMut(&Family<'_>)) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let common: Vec<Instance<'_, CommonMetrics>> =
            (links.ingress.iter().map(|link| Instance::common(self, link)))
                .chain(links.egress.iter().map(|link| Instance::common(self, link)))
                .collect();
        visit_table(how, &common, &mut family);
        let ingress: Vec<_> = links.ingress.iter().map(|link| Instance::side(self, link)).collect();
        visit_table(how, &ingress, &mut family);
        let egress: Vec<_> = links.egress.iter().map(|link| Instance::side(self, link)).collect();
        visit_table(how, &egress, &mut family);
        let labels = self.labels([("process", self.identity.process.as_str())]);
        visit_table(how, &[Instance { labels, side: None, table: &*self.process }], &mut family);
    }

    fn labels<'a, const N: usize>(
        &'a self,
        own: [(&'static str, &'a str); N],
    ) -> Vec<(&'static str, &'a str)> {
        let site = self.identity.site.as_deref().map(|site| ("site", site));
        site.into_iter().chain(own).collect()
    }
}

/// One metric with everything that has it.
pub(crate) struct Family<'a> {
    pub(crate) descriptor: &'static Descriptor,
    read: &'a dyn Fn(&mut Visit<'_>),
}

/// Takes a series: the labels of its instance, its own labels, what it reads.
type Visit<'a> = dyn FnMut(&[(&'static str, &str)], &[(&str, &str)], Sample<'_>) + 'a;

impl Family<'_> {
    /// Reads all series.
    pub(crate) fn read(&self, mut visit: impl FnMut(&[(&'static str, &str)], &[(&str, &str)], Sample<'_>)) {
        (self.read)(&mut visit);
    }
}

/// A table of metrics with the labels of all its series.
struct Instance<'a, T> {
    labels: Vec<(&'static str, &'a str)>,
    side: Option<Side>,
    table: &'a T,
}

impl<'a> Instance<'a, CommonMetrics> {
    fn common<T>(registry: &'a Registry, link: &'a LinkMetrics<T>) -> Self {
        let labels = registry.labels([("link", link.link()), ("side", link.side.as_str())]);
        Self { labels, side: Some(link.side), table: &link.common }
    }
}

impl<'a, T> Instance<'a, T> {
    fn side(registry: &'a Registry, link: &'a LinkMetrics<T>) -> Self {
        let labels = registry.labels([("link", link.link()), ("side", link.side.as_str())]);
        Self { labels, side: Some(link.side), table: &link.metrics }
    }
}

/// How a metric is read; the number is its row.
type How = dyn Fn(&dyn Metric, usize, Option<Side>, &mut Emit<'_>);

fn visit_table<T: Table>(how: &How, instances: &[Instance<'_, T>], family: &mut impl FnMut(&Family<'_>)) {
    for (row, descriptor) in T::DESCRIPTORS.iter().enumerate() {
        let read = |visit: &mut Visit<'_>| {
            for Instance { labels, side, table } in instances {
                how(table.cell(row), row, *side, &mut |more, sample| visit(labels, more, sample));
            }
        };
        family(&Family { descriptor, read: &read });
    }
}

struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, family: &Family<'_>) {
        let name = family.descriptor.prometheus_name();
        let mut headed = false;
        family.read(|labels, more, sample| {
            if !headed {
                self.head(&name, family.descriptor);
                headed = true;
            }
            match sample {
                Sample::One(value) => self.series(&name, "", &[labels, more], value),
                Sample::Histogram(snapshot) => self.histogram(&name, &[labels, more], snapshot),
            }
        });
    }

    fn head(&mut self, name: &str, descriptor: &Descriptor) {
        let help = descriptor.help.replace('\\', r"\\").replace('\n', r"\n");
        let kind = descriptor.kind.as_str();
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn histogram(&mut self, name: &str, labels: &[&[(&str, &str)]; 2], snapshot: &Snapshot) {
        let mut upto = 0;
        for bucket in 0..BUCKETS {
            upto += snapshot.bucket_count(bucket);
            let bound = BOUNDS.get(bucket).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.series(name, "_bucket", &[labels[0], labels[1], &[("le", &bound)]], upto);
        }
        self.series(name, "_sum", labels, Value::Float(snapshot.sum()));
        self.series(name, "_count", labels, upto);
    }

    fn series(&mut self, name: &str, suffix: &str, labels: &[&[(&str, &str)]], value: impl Display) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut open = '{';
        for (key, value) in labels.iter().copied().flatten() {
            self.text.push(open);
            push_label(&mut self.text, key, value);
            open = ',';
        }
        if open == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Adds `key="value"` with the value escaped.
fn push_label(text: &mut String, key: &str, value: &str) {
    text.push_str(key);
    text.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str(r"\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str(r"\n"),
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
