//! What `ddc check --host` asks of this host and `--connect` of the clusters, and how the answers are put: one line per
//! finding, which names link, side, thing, value and what to do.
//!
//! All sources are asked at once, then all destinations: by then it is known which topics a source would send, when
//! the same link's ingress is among the files. So two files take as long as twenty.

use std::thread;

use ddc_proxy::config::{Config, EgressConfig, IngressConfig, Loaded};
use ddc_proxy::sink::preflight::{Finding, Severity};
use ddc_proxy::source::preflight::SourceReport;
use ddc_proxy::{host, sink, source};

/// What was found.
#[derive(Default)]
pub(super) struct Preflight {
    /// What is as it should be, and warnings.
    pub(super) lines: Vec<String>,
    /// What would keep a link from running.
    pub(super) problems: Vec<String>,
}

/// Asks this host: what every link needs of it once, then what each file needs.
pub(super) fn of_host(files: &[Loaded<Config>]) -> Preflight {
    let mut found = Preflight::default();
    found.add("host", &host::machine());
    for Loaded { config, .. } in files {
        found.add(&format!("link {}, {} host", config.link().name, config.side()), &host::link_side(config));
    }
    found
}

/// Asks the cluster of every file. Takes at most twice what one cluster may take, however many there are.
pub(super) fn of_clusters(files: &[Loaded<Config>]) -> Preflight {
    let configs = || files.iter().map(|loaded| &loaded.config);
    let ingresses: Vec<&IngressConfig> = configs().filter_map(ingress).collect();
    let egresses: Vec<&EgressConfig> = configs().filter_map(egress).collect();
    let sources = at_once(&ingresses, |config| source::preflight::preflight(config));
    let destinations = at_once(&egresses, |config| {
        sink::preflight::preflight(config, &coming(config, &ingresses, &sources))
    });

    let mut found = Preflight::default();
    for (config, report) in ingresses.iter().zip(&sources) {
        found.add(&format!("link {}, source", config.link.name), &report.findings);
    }
    for (config, findings) in egresses.iter().zip(&destinations) {
        found.add(&format!("link {}, destination", config.link.name), findings);
    }
    found
}

impl Preflight {
    fn add(&mut self, whose: &str, findings: &[Finding]) {
        for finding in findings {
            let line = format!("{whose}: {finding}");
            if finding.severity == Severity::Problem {
                self.problems.push(line);
            } else {
                self.lines.push(line);
            }
        }
    }
}

/// The source topics that are known to come to this egress: those of the same link's ingress.
fn coming(egress: &EgressConfig, ingresses: &[&IngressConfig], sources: &[SourceReport]) -> Vec<String> {
    let same =
        |config: &IngressConfig| (config.link.id, &config.link.name) == (egress.link.id, &egress.link.name);
    let reports = ingresses.iter().zip(sources).filter(|(config, _)| same(config));
    reports.flat_map(|(_, report)| report.topics.iter().cloned()).collect()
}

/// Does the same for each on a thread of its own: waiting for one cluster does not delay the others. The number of
/// threads is the number of files on the command line.
fn at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        // A panic goes on here as it would without threads.
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn ingress(config: &Config) -> Option<&IngressConfig> {
    match config {
        Config::Ingress(config) => Some(config),
        Config::Egress(_) => None,
    }
}

fn egress(config: &Config) -> Option<&EgressConfig> {
    match config {
        Config::Egress(config) => Some(config),
        Config::Ingress(_) => None,
    }
}
