//! A StatsD server that is not Vector and shares no code with it or us: netdata (Debian package `netdata-core`), started with a
//! configuration of its own on loopback. What it shows is what was counted.
//!
//! It knows no tags, so one link is told; it reads counters as whole numbers, so CPU seconds lose their fraction there.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ddc_telemetry::Registry;
use ddc_telemetry::statsd::Reporter;
use serde_json::Value;
use tempfile::TempDir;

/// How long netdata may take to start, and to show what it was told.
const PATIENCE: Duration = Duration::from_secs(30);

struct Netdata {
    child: Child,
    web: SocketAddr,
    statsd: SocketAddr,
    directory: TempDir,
}

impl Drop for Netdata {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Netdata {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let web = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let statsd = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        configure(directory.path(), web, statsd);
        let output = fs::File::create(directory.path().join("output")).unwrap();
        let child = Command::new("netdata")
            .arg("-D")
            .arg("-c")
            .arg(directory.path().join("netdata.conf"))
            .arg("-P")
            .arg(directory.path().join("pid"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("netdata is missing: apt-get install netdata-core");
        let mut netdata = Self { child, web, statsd, directory };
        let began = Instant::now();
        while netdata.get("/api/v1/info").is_none() {
            assert!(netdata.child.try_wait().unwrap().is_none(), "netdata has ended: {}", netdata.output());
            assert!(began.elapsed() < PATIENCE, "netdata does not answer: {}", netdata.output());
            std::thread::sleep(Duration::from_millis(100));
        }
        netdata
    }

    fn output(&self) -> String {
        ["output", "error.log"]
            .iter()
            .filter_map(|file| fs::read_to_string(self.directory.path().join(file)).ok())
            .collect()
    }

    /// The body of a page; none while nobody answers.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.web).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }

    /// What a chart shows now.
    fn value(&self, chart: &str, dimension: &str) -> Option<f64> {
        let page: Value = serde_json::from_str(&self.get("/api/v1/allmetrics?format=json")?).ok()?;
        let dimensions = page.get(chart)?.get("dimensions")?.as_object()?;
        dimensions.values().find(|found| found["name"] == dimension)?["value"].as_f64()
    }

    /// The total of a counter since netdata's start.
    fn total(&self, metric: &str) -> Option<f64> {
        let page = self.get("/api/v1/allmetrics?format=prometheus&source=as-collected&timestamps=no")?;
        let name = format!("netdata_statsd_{}_counter_total{{", metric.replace('.', "_"));
        page.lines().find(|line| line.starts_with(&name))?.rsplit_once(' ')?.1.parse().ok()
    }

    /// Waits until `what` is `expected`.
    fn await_value(&self, name: &str, expected: f64, what: impl Fn() -> Option<f64>) {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < PATIENCE {
            let found = what();
            if found.is_some_and(|found| (found - expected).abs() < 0.002) {
                return;
            }
            last = found.or(last);
            std::thread::sleep(Duration::from_millis(150));
        }
        panic!("{name}: netdata shows {last:?} instead of {expected}: {}", self.output());
    }
}

fn configure(directory: &Path, web: SocketAddr, statsd: SocketAddr) {
    let own = directory.display();
    let off = [
        "proc",
        "diskspace",
        "cgroups",
        "tc",
        "idlejitter",
        "timex",
        "apps",
        "python.d",
        "charts.d",
        "go.d",
        "ebpf",
        "perf",
        "slabinfo",
        "ioping",
        "freeipmi",
        "fping",
        "nfacct",
        "cups",
        "xenstat",
        "netdata monitoring",
        "profile",
        "enable running new plugins",
    ];
    let plugins = off.map(|plugin| format!("    {plugin} = no\n")).concat();
    let port = web.port();
    let conf = format!(
        "[global]\n    hostname = test\n    run as user = root\n\
         [directories]\n    config = {own}\n    cache = {own}/cache\n    lib = {own}/lib\n    log = {own}\n    lock = {own}\n\
         [db]\n    mode = ram\n    update every = 1\n    retention = 120\n\
         [logs]\n    error = {own}/error.log\n    debug = none\n    access = none\n\
         [plugins]\n{plugins}    statsd = yes\n\
         [health]\n    enabled = no\n[ml]\n    enabled = no\n[registry]\n    enabled = no\n[cloud]\n    enabled = no\n\
         [web]\n    bind to = 127.0.0.1\n    default port = {port}\n    web server threads = 1\n\
         [statsd]\n    enabled = yes\n    update every (flushInterval) = 1\n    bind to = udp:{statsd}\n    decimal detail = 1000\n"
    );
    let app = "[app]\n    name = ddc\n    metrics = ddc.*\n    private charts = yes\n    gaps when not collected = no\n\n\
               [latency]\n    name = latency\n    title = latency\n    family = ddc\n    context = ddc.latency\n    units = seconds\n\
               \x20   type = line\n    dimension = ddc.egress.sink_latency_seconds sum sum 1 1\n";
    for part in ["cache", "lib", "statsd.d"] {
        fs::create_dir(directory.join(part)).unwrap();
    }
    fs::write(directory.join("netdata.conf"), conf).unwrap();
    fs::write(directory.join("statsd.d/ddc.conf"), app).unwrap();
}

#[test]
fn netdata_shows_what_was_counted() {
    let netdata = Netdata::start();
    let registry = Registry::default();
    let egress = registry.egress("a").unwrap();
    egress.packets_received.add(1_000);
    egress.queue_bytes.set(4096);
    egress.clock_difference_seconds.set(-0.25);
    let reporter = Reporter::start(registry.clone(), vec![netdata.statsd]).unwrap();

    let packets = "ddc.egress.packets_received";
    netdata.await_value(packets, 1_000.0, || netdata.total(packets));
    egress.packets_received.add(234);
    netdata.await_value(packets, 1_234.0, || netdata.total(packets));
    let zero = "ddc.egress.packets_late";
    netdata.await_value(zero, 0.0, || netdata.total(zero));

    for (gauge, value) in [("queue_bytes", 4096.0), ("clock_difference_seconds", -0.25)] {
        let chart = format!("statsd_ddc.egress.{gauge}_gauge");
        netdata.await_value(&chart, value, || netdata.value(&chart, "gauge"));
        // A value that added up over flushes would be another one by now.
        std::thread::sleep(Duration::from_millis(2_200));
        netdata.await_value(&chart, value, || netdata.value(&chart, "gauge"));
    }

    // Five of 0.25 s and one of 3.5 s: the sum tells that five were counted, not four and not six. netdata forgets a histogram after each
    // second, so the same is observed until a reading has fallen into that second.
    let chart = "statsd_ddc.egress.sink_latency_seconds_histogram";
    let began = Instant::now();
    loop {
        egress.sink_latency_seconds.observe_many(Duration::from_millis(250), 5);
        egress.sink_latency_seconds.observe(Duration::from_millis(3_500));
        let observed = Instant::now();
        let mut found = Vec::new();
        while observed.elapsed() < Duration::from_millis(3_500) {
            found = ["min", "max", "average"].iter().map(|what| netdata.value(chart, what)).collect();
            found.push(netdata.value("ddc.latency", "sum"));
            let wanted = [0.25, 3.5, 4.75 / 6.0, 4.75];
            let is = |(found, wanted): (&Option<f64>, f64)| {
                found.is_some_and(|found| (found - wanted).abs() < 0.002)
            };
            if found.iter().zip(wanted).all(is) {
                reporter.stop();
                assert_eq!(registry.process().statsd_datagrams_dropped.value(), 0);
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(began.elapsed() < PATIENCE, "min, max, average, sum: {found:?}: {}", netdata.output());
    }
}
