//! The `/metrics` page: Prometheus text format, version 0.0.4, over the links registered.
//!
//! ```text
//!   # HELP ddc_buffer_full_total Times the bounded buffer was found full: …
//!   # TYPE ddc_buffer_full_total counter
//!   ddc_buffer_full_total{link="plant-a",side="ingress"} 0
//! ```
//! A family is written once, with the series of every link below it. Two readers may read at the same time; the hot path is
//! not held up by either, since reading is loads of atomics. It serves no HTTP: the admin listener does.

use std::fmt::Write as _;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use crate::catalogue::{CommonMetrics, Descriptor, EgressMetrics, IngressMetrics, ProcessMetrics, Table};
use crate::cells::{Side, Value};

/// The `Content-Type` of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most links (a side of a link counts as one) a registry takes; it bounds the page at some 32,000 lines.
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

/// Everything one page shows: a process and its links. Cheap to clone; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// The process; registries of several admin listeners may share it.
    process: Arc<ProcessMetrics>,
    links: Arc<RwLock<Links>>,
}

#[derive(Debug, Default)]
struct Links {
    ingress: Vec<Arc<LinkMetrics<IngressMetrics>>>,
    egress: Vec<Arc<LinkMetrics<EgressMetrics>>>,
}

impl Registry {
    /// A registry without links.
    pub fn new(process: Arc<ProcessMetrics>) -> Self {
        Self { process, links: Arc::default() }
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
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let mut page = Page { text: String::with_capacity(64 * 1024) };
        let common: Vec<_> = (links.ingress.iter().map(|link| (prefix(link), Some(link.side), &link.common)))
            .chain(links.egress.iter().map(|link| (prefix(link), Some(link.side), &link.common)))
            .collect();
        page.table(&common);
        page.table(&entries(&links.ingress));
        page.table(&entries(&links.egress));
        page.table(&[(String::new(), None, &*self.process)]);
        page.text
    }
}

/// A table's instance with its labels, already written.
type Entry<'a, T> = (String, Option<Side>, &'a T);

fn entries<T>(links: &[Arc<LinkMetrics<T>>]) -> Vec<Entry<'_, T>> {
    links.iter().map(|link| (prefix(link), Some(link.side), &link.metrics)).collect()
}

/// `link="plant-a",side="ingress"`
fn prefix<T>(link: &LinkMetrics<T>) -> String {
    let mut text = String::new();
    push_label(&mut text, "link", &link.link);
    push_label(&mut text, "side", link.side.as_str());
    text
}

struct Page {
    text: String,
}

impl Page {
    fn table<T: Table>(&mut self, entries: &[Entry<'_, T>]) {
        for (row, descriptor) in T::DESCRIPTORS.iter().enumerate() {
            let name = descriptor.prometheus_name();
            let mut headed = false;
            for (labels, side, table) in entries {
                table.cell(row).read(*side, &mut |more, value| {
                    if !headed {
                        self.head(&name, descriptor);
                        headed = true;
                    }
                    self.series(&name, labels, more, value);
                });
            }
        }
    }

    fn head(&mut self, name: &str, descriptor: &Descriptor) {
        let help = descriptor.help.replace('\\', r"\\").replace('\n', r"\n");
        let kind = descriptor.kind.as_str();
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn series(&mut self, name: &str, labels: &str, more: &[(&str, &str)], value: Value) {
        self.text.push_str(name);
        if !labels.is_empty() || !more.is_empty() {
            self.text.push('{');
            self.text.push_str(labels);
            for (key, value) in more {
                push_label(&mut self.text, key, value);
            }
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Adds `key="value"` with the value escaped, after a comma unless it is the first in `text`'s braces.
fn push_label(text: &mut String, key: &str, value: &str) {
    if !text.is_empty() && !text.ends_with('{') {
        text.push(',');
    }
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
