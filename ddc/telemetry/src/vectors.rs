//! Test vectors for the pipeline behind the proxies: the StatsD lines of one example of every series there is, and the Prometheus series
//! that must come out of Vector's exporter after the rename.
//!
//! Both are written from the same example values, by the reporter's code and by the native page's: a pipeline that turns the one
//! into the other shows what the native page shows. They are committed as tests/vectors.json, and a test compares.

use crate::cells::Side;
use crate::exposition::{Identity, Registry};
use crate::statsd::lines::{Batch, Lines};

/// Lines and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vectors {
    /// What is sent, in this order; an item may be two lines with a newline between them, which stay in one datagram.
    pub lines: Vec<String>,
    /// Series as the page writes them: `name{label="value",…} value`. Compare names and labels as sets, values as numbers.
    pub expect: Vec<String>,
}

/// One link with both sides at the site `north`, and the process `egress-plant-a`: each metric of the catalogue, each label value.
pub fn vectors() -> Vectors {
    let registry = example(&[Side::Ingress, Side::Egress]);
    let mut batch = Batch::default();
    Lines::default().render_examples(&registry, &mut batch);
    Vectors {
        lines: batch.units().map(str::to_owned).collect(),
        expect: registry
            .render_examples()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect(),
    }
}

/// A registry of one link with these sides.
pub(crate) fn example(sides: &[Side]) -> Registry {
    let identity = Identity { process: "egress-plant-a".to_owned(), site: Some("north".to_owned()) };
    let registry = Registry::new(std::sync::Arc::default(), identity);
    for side in sides {
        // An empty registry takes one link.
        let _ = match side {
            Side::Ingress => registry.ingress("plant-a").map(|_| ()),
            Side::Egress => registry.egress("plant-a").map(|_| ()),
        };
    }
    registry
}
