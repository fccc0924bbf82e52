//! The parts of the chain, each a process of its own in the network namespace of its side.
//!
//! ```text
//!  source                                        │ diode │  destination
//!  ddc ingress ─┬─ StatsD, syslog ─▶ Vector      │       │             Vector ◀─ StatsD, syslog ─ ddc egress
//!               │                                │       │    via="diode" ▲ │
//!               └▶ telemetry ingress ════════════╪═══════╪═▶ telemetry egress
//!                  ([source.udp])                │       │  ([sink.udp])    └▶ Prometheus ─▶ Alertmanager
//! ```
//! Vector, Prometheus and Alertmanager run with the files that are shipped, on their usual ports.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::netns::{DESTINATION, Diode, End, INTERFACE};
use ddc_e2e::produce::Load;
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::repository;
use ddc_e2e::service::Service;
use ddc_e2e::wait;
use serde_json::Value;
use tempfile::TempDir;

/// The site of every series.
pub(crate) const SITE: &str = "test-site";
/// The link that carries records.
pub(crate) const LINK: &str = "observed";
/// Records per second.
const LOAD: u64 = 400;
/// Losses on the way, per mille of the frames.
const LOSS: u32 = 10;
/// Everything is up and first figures have arrived by then.
const LIMIT: Duration = Duration::from_mins(1);

/// See the module's text. Fields are dropped in this order: processes before their namespaces.
pub(crate) struct Chain {
    pub(crate) load: Option<Load>,
    pub(crate) ingress: Option<Proxy>,
    pub(crate) egress: Option<Proxy>,
    _telemetry: (Proxy, Proxy),
    _source_vector: Service,
    pub(crate) vector: Service,
    pub(crate) alertmanager: Service,
    pub(crate) prometheus: Service,
    pub(crate) link: Link,
    _telemetry_link: Link,
    pub(crate) diode: Diode,
    _directory: TempDir,
}

impl Chain {
    pub(crate) fn start() -> Chain {
        let directory = tempfile::Builder::new().prefix("ddc-e2e-observe-").tempdir().unwrap();
        let pair = Pair::kafka_4();
        let (source, destination) = (pair.source.plaintext(), pair.destination.plaintext());
        let mut diode = Diode::new(LOSS);
        diode.lend(End::Source, &source);
        diode.lend(End::Destination, &destination);
        Cluster::new(&source).create(LINK, 4, &[]);

        let at = |end, name: &str, files: &[&str]| {
            let directory = directory.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            diode.at(end, || start_vector(&directory, files))
        };
        let source_vector = at(End::Source, "source", &["vector.yaml", "exporter.yaml"]);
        let vector =
            at(End::Destination, "destination", &["vector.yaml", "exporter.yaml", "destination.yaml"]);
        let (alertmanager, prometheus) = diode.at(End::Destination, || {
            (start_alertmanager(directory.path()), start_prometheus(directory.path()))
        });

        let telemetry_link = telemetry_link(&source, &destination);
        let link = data_link(&source, &destination);
        // Egresses first: a closed port would make their host's kernel answer.
        let (telemetry_egress, egress) = diode.at(End::Destination, || {
            let proxies = (telemetry_link.start_egress(), link.start_egress());
            for proxy in [&proxies.0, &proxies.1] {
                wait::until("an egress listens", LIMIT, || proxy.get("/healthz"));
            }
            proxies
        });
        let (telemetry_ingress, ingress) =
            diode.at(End::Source, || (telemetry_link.start_ingress(), link.start_ingress()));
        diode.at(End::Source, || {
            telemetry_ingress.wait_ready();
            ingress.wait_ready();
        });
        diode.at(End::Destination, || {
            telemetry_egress.wait_ready();
            egress.wait_ready();
        });
        let load = Load::start(&source, LINK, 4, LOAD);
        Chain {
            load: Some(load),
            ingress: Some(ingress),
            egress: Some(egress),
            _telemetry: (telemetry_ingress, telemetry_egress),
            _source_vector: source_vector,
            vector,
            alertmanager,
            prometheus,
            link,
            _telemetry_link: telemetry_link,
            diode,
            _directory: directory,
        }
    }

    /// Asks Prometheus.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>, String> {
        self.diode.at(End::Destination, || self.prometheus.query(expression))
    }

    /// Waits until Prometheus answers with a value above 0; the largest.
    #[track_caller]
    pub(crate) fn wait_positive(&self, expression: &str) -> f64 {
        wait::until(&format!("{expression} is above 0"), LIMIT, || {
            let series = self.query(expression)?;
            let largest = series.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
            if largest > 0.0 { Ok(largest) } else { Err(format!("{series:?}")) }
        })
    }

    /// Names of the alerts that fire for the link.
    pub(crate) fn firing(&self) -> Vec<String> {
        let series = self.query("ALERTS{alertstate=\"firing\"}").unwrap_or_default();
        let of_link = |labels: &Value| labels["link"].as_str().is_none_or(|link| link == LINK);
        let mut names: Vec<String> = series
            .iter()
            .filter(|(labels, _)| of_link(labels))
            .filter_map(|(labels, _)| labels["alertname"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Waits until an alert fires for the link, and is told to Alertmanager; the time it took.
    #[track_caller]
    pub(crate) fn wait_firing(&self, alert: &str, limit: Duration) -> Duration {
        let start = Instant::now();
        wait::until(&format!("{alert} fires"), limit, || {
            let firing = self.firing();
            if firing.iter().any(|name| name == alert) { Ok(()) } else { Err(format!("firing: {firing:?}")) }
        });
        let took = start.elapsed();
        wait::until(&format!("Alertmanager knows of {alert}"), limit, || {
            let alerts = self.diode.at(End::Destination, || self.alertmanager.json("/api/v2/alerts"))?;
            let known = alerts
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["labels"]["alertname"] == alert));
            if known { Ok(()) } else { Err("not yet".to_owned()) }
        });
        took
    }

    /// Waits until an alert no longer fires for the link.
    #[track_caller]
    pub(crate) fn wait_over(&self, alert: &str, limit: Duration) -> Duration {
        let start = Instant::now();
        wait::until(&format!("{alert} is over"), limit, || {
            let firing = self.firing();
            if firing.iter().any(|name| name == alert) { Err(format!("firing: {firing:?}")) } else { Ok(()) }
        });
        start.elapsed()
    }
}

/// The real Vector when `VECTOR_BIN` is set, else the double, with the pipeline that is shipped.
fn start_vector(directory: &Path, files: &[&str]) -> Service {
    let shipped = repository().join("vector");
    let double = || shipped.join("double/target/debug/ddc-vector-double").display().to_string();
    let program = std::env::var("VECTOR_BIN")
        .or_else(|_| std::env::var("DDC_VECTOR_DOUBLE"))
        .unwrap_or_else(|_| double());
    let arguments: Vec<PathBuf> =
        files.iter().flat_map(|file| [PathBuf::from("--config"), shipped.join(file)]).collect();
    let (socket, shipped) =
        (directory.join("syslog.sock").display().to_string(), shipped.display().to_string());
    let environment = [("DDC_VECTOR_DIR", &*shipped), ("DDC_SYSLOG_SOCKET", &*socket), ("DDC_SITE", SITE)];
    let mut vector = Service::start("vector", &program, arguments, &environment, directory, 9598);
    vector.wait_ready("/metrics");
    vector
}

fn start_prometheus(directory: &Path) -> Service {
    let config = repository().join("deploy/prometheus/prometheus-destination.yml");
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", directory.join("tsdb").display()),
        "--web.listen-address=127.0.0.1:9090".to_owned(),
    ];
    let mut prometheus = Service::start("prometheus", "prometheus", arguments, &[], directory, 9090);
    prometheus.wait_ready("/-/ready");
    prometheus
}

fn start_alertmanager(directory: &Path) -> Service {
    let config = repository().join("deploy/prometheus/alertmanager.yml");
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.path={}", directory.join("alertmanager").display()),
        "--web.listen-address=127.0.0.1:9093".to_owned(),
        "--cluster.listen-address=".to_owned(),
    ];
    let mut alertmanager =
        Service::start("alertmanager", "prometheus-alertmanager", arguments, &[], directory, 9093);
    alertmanager.wait_ready("/-/ready");
    alertmanager
}

fn data_link(source: &str, destination: &str) -> Link {
    let mut link = Link::new(LINK, source, destination, &[LINK]);
    through_the_diode(&mut link);
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect::<Vec<toml::Value>>();
    link.ingress
        .set("telemetry.site", SITE)
        .set("telemetry.statsd", strings(&["127.0.0.1:8125", "127.0.0.1:8126"]))
        .set("telemetry.syslog", strings(&["tcp://127.0.0.1:5140", "udp://127.0.0.1:5141"]));
    link.egress
        .set("telemetry.site", SITE)
        .set("telemetry.statsd", strings(&["127.0.0.1:8125"]))
        .set("telemetry.syslog", strings(&["udp://127.0.0.1:5140"]));
    // Their size has a panel.
    link.ingress.set("dead_letters.directory", "ingress-dead-letters");
    link.egress.set("dead_letters.directory", "egress-dead-letters");
    link
}

/// The pair that carries the source side's StatsD and syslog datagrams, with the files that are shipped for it.
fn telemetry_link(source: &str, destination: &str) -> Link {
    let mut link = Link::new("telemetry", source, destination, &["unused"]);
    through_the_diode(&mut link);
    let shipped = repository().join("vector/snippets/diode");
    link.ingress.remove("source.kafka").remove("link.id").remove("link.rate").set("telemetry.site", SITE);
    link.ingress.based_on(&shipped.join("ingress.toml"));
    link.egress.remove("sink.kafka").remove("link.id").set("telemetry.site", SITE);
    link.egress.based_on(&shipped.join("egress.toml"));
    link
}

fn through_the_diode(link: &mut Link) {
    let target = format!("{DESTINATION}:{}", link.port());
    link.ingress.set("link.target", target.as_str()).set("link.interface", INTERFACE);
    link.egress.set("link.listen", target.as_str()).set("link.interface", INTERFACE);
}
