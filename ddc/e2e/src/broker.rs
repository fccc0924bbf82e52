//! Apache Kafka as a process of our own: started, killed with SIGKILL, started again on the same data.
//!
//! One node in KRaft mode, by deploy/kafka-dev/kafka.sh, with all four kinds of listener. Tests share the two pairs of
//! [`Pair::kafka_4`] and [`Pair::kafka_3`]; names of topics and groups keep them apart.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddc_kafka::admin::Admin;
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::{ClientSettings, Role};

use rustix::process::{Pid, Signal, kill_process};

use crate::reaper;
use crate::wait;

/// A start after a crash takes up to 13 s on an idle machine, and was seen to take more than 90 s on one with 70 threads waiting.
const READY: Duration = Duration::from_mins(3);
/// Small tools' compiler only, and little memory: four of them run at once. Starts faster, too.
const JVM: &str = "-Xmx400m -XX:+UseSerialGC -XX:TieredStopAtLevel=1";

/// One broker. Its data live as long as it does.
pub struct Broker {
    name: String,
    version: String,
    port: u16,
    directory: PathBuf,
    profile: &'static str,
    properties: Vec<String>,
    process: Mutex<Option<Child>>,
}

/// The two clusters of a link.
pub struct Pair {
    /// What the ingress reads.
    pub source: Broker,
    /// What the egress writes.
    pub destination: Broker,
}

impl Pair {
    /// Kafka 4.x, started when first asked for.
    pub fn kafka_4() -> &'static Pair {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| Pair::start("4"))
    }

    /// Kafka 3.9, started when first asked for.
    pub fn kafka_3() -> &'static Pair {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| Pair::start("3"))
    }

    fn start(line: &str) -> Pair {
        wait::timed(&format!("a pair of brokers, Kafka {line}"), || {
            let source = Broker::start(&format!("source-{line}"), line);
            let destination = Broker::start(&format!("destination-{line}"), line);
            source.wait_ready();
            destination.wait_ready();
            Pair { source, destination }
        })
    }
}

impl Broker {
    /// Starts one; `line` is `4` or `3`. It may not answer yet.
    pub fn start(name: &str, line: &str) -> Broker {
        Broker::start_with(name, line, &[])
    }

    /// As [`Self::start`], with properties of the broker beside the harness's own, as `name=value`.
    pub fn start_with(name: &str, line: &str, properties: &[&str]) -> Broker {
        let directory = tempfile::Builder::new().prefix("ddc-e2e-").tempdir().unwrap().keep();
        reaper::remove_at_end(&directory);
        Broker::start_in(directory, name, line, "secure", properties)
    }

    /// Starts one whose data and log stay in this directory; `profile` is `secure` or `plaintext`.
    pub fn start_in(
        directory: PathBuf,
        name: &str,
        line: &str,
        profile: &'static str,
        properties: &[&str],
    ) -> Broker {
        let broker = Broker {
            name: name.to_owned(),
            version: version(line),
            port: free_block(5),
            directory,
            profile,
            properties: properties.iter().map(|&property| property.to_owned()).collect(),
            process: Mutex::new(None),
        };
        broker.run();
        broker
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`] and waits until it answers.
    pub fn restart(&self) {
        self.run();
        self.wait_ready();
    }

    fn run(&self) {
        let log = fs::File::create(self.directory.join("kafka.sh.log")).unwrap();
        let child = Command::new(crate::repository().join("deploy/kafka-dev/kafka.sh"))
            .args(["run", &self.name, &self.version, &self.port.to_string()])
            .arg("--dir")
            .arg(&self.directory)
            .args(["--profile", self.profile])
            // So that a killed member's partitions are free again soon.
            .args(["--property", "group.min.session.timeout.ms=1000"])
            .args(self.properties.iter().flat_map(|property| ["--property", property]))
            .env("DDC_KAFKA_JVM_OPTS", JVM)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("kafka.sh can be run");
        reaper::watch(&child);
        *self.process() = Some(child);
    }

    /// Waits until it answers; a broker that ended shows its log.
    pub fn wait_ready(&self) {
        let settings = ClientSettings::plaintext([self.plaintext()], "e2e");
        let mut admin = None;
        wait::until(&format!("broker {} answers", self.name), READY, || {
            if let Some(child) = &mut *self.process()
                && let Ok(Some(status)) = child.try_wait()
            {
                panic!("broker {} ended: {status}\n{}", self.name, self.logs());
            }
            // Made only when the port is open: a client that was refused waits ever longer.
            std::net::TcpStream::connect(self.address(0)).map_err(|error| error.to_string())?;
            let admin = admin.get_or_insert_with(|| {
                Admin::new(&settings.build(&Role::Admin).unwrap(), Reporter::new("e2e", "admin")).unwrap()
            });
            admin.cluster_id(Duration::from_secs(5)).ok_or_else(|| "no cluster id".to_owned())
        });
    }

    /// SIGKILL, as a crash would.
    pub fn kill(&self) {
        if let Some(mut child) = self.process().take() {
            child.kill().unwrap();
            child.wait().unwrap();
            reaper::ended(&child);
        }
    }

    /// SIGTERM: a planned stop. Waits for its end.
    pub fn stop(&self) {
        self.signal(Signal::TERM);
        if let Some(mut child) = self.process().take() {
            wait::until(&format!("broker {} stops", self.name), READY, || {
                child.try_wait().unwrap().ok_or("it runs")
            });
            reaper::ended(&child);
        }
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &*self.process() {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> String {
        ["kafka.sh.log", "broker.log"]
            .map(|name| fs::read_to_string(self.directory.join(name)).unwrap_or_default())
            .concat()
    }

    fn address(&self, offset: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port + offset))
    }

    /// `host:port` without encryption or authentication.
    pub fn plaintext(&self) -> String {
        self.address(0).to_string()
    }

    /// `host:port` that wants SASL.
    pub fn sasl_plaintext(&self) -> String {
        self.address(2).to_string()
    }

    /// `host:port` that wants a client certificate.
    pub fn ssl(&self) -> String {
        self.address(3).to_string()
    }

    /// `host:port` that wants SASL over TLS.
    pub fn sasl_ssl(&self) -> String {
        self.address(4).to_string()
    }

    /// A file of its certificates: `ca.pem`, `client.pem`, `client.key`, `client-encrypted.key`, `stranger.…`.
    pub fn tls(&self, file: &str) -> String {
        self.directory.join("tls").join(file).to_str().unwrap().to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The version from the directory that the runner of the tests names, else the pinned one of the line.
fn version(line: &str) -> String {
    let home = std::env::var(format!("DDC_KAFKA_HOME_{line}")).unwrap_or_default();
    let name = Path::new(&home).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("kafka-").unwrap_or(line).to_owned()
}

/// The first of `count` ports in a row that nobody uses, outside the kernel's range for outgoing connections.
pub fn free_block(count: u16) -> u16 {
    const FIRST: u16 = 12_000;
    const LAST: u16 = 31_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs side by side begin at different places.
    let start = (std::process::id() % 180) as u16 * 100;
    for _ in 0..(LAST - FIRST) / count {
        let step = NEXT.fetch_add(count, Ordering::Relaxed);
        let first = FIRST + (start + step) % (LAST - FIRST);
        let free = |port| {
            TcpListener::bind(("127.0.0.1", port)).is_ok()
                && std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok()
        };
        if (first..first + count).all(free) {
            return first;
        }
    }
    panic!("no {count} free ports in a row between {FIRST} and {LAST}");
}
