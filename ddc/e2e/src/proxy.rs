//! The `ddc` binary with a generated configuration: started, signalled, asked.
//!
//! [`Link`] holds what both sides of a link share (key, ports, names, state directories) and outlives their processes, so
//! that a side can be killed and started again. A process that a failing test leaves behind is killed, and its log printed.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tempfile::TempDir;
pub use toml::Value as TomlValue;

use crate::broker::free_block;
use crate::http::{self, Version};
use crate::reaper;
use crate::verify::Named;
use crate::wait;

/// How long a side may take until it says that it is ready.
const READY: Duration = Duration::from_mins(2);
/// How long an answer of the admin listener may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines of a log that a failing test shows.
const SHOWN: usize = 60;

/// What both sides of a link share. Its directory lives as long as it and its processes do.
pub struct Link {
    name: String,
    destination: String,
    directory: Arc<TempDir>,
    ports: u16,
    /// The ingress's configuration, for its next start.
    pub ingress: Settings,
    /// The egress's configuration, for its next start.
    pub egress: Settings,
}

/// A configuration that a test changes before a start, and the environment of the process.
#[derive(Debug, Clone)]
pub struct Settings(toml::Table, Vec<(String, String)>);

impl Settings {
    /// Sets `a.b.c = value`, making the tables on the way. A name of the path that holds dots is not meant.
    pub fn set(&mut self, path: &str, value: impl Into<toml::Value>) -> &mut Self {
        let (tables, key) = path.rsplit_once('.').expect("every key is in a table");
        let table = tables.split('.').fold(&mut self.0, |table, name| {
            table
                .entry(name)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                .as_table_mut()
                .expect("it is a table")
        });
        table.insert(key.to_owned(), value.into());
        self
    }

    /// Sets a variable of the process's environment.
    pub fn environment(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.1.push((name.to_owned(), value.into()));
        self
    }

    /// Takes a key away, if it is there.
    pub fn remove(&mut self, path: &str) -> &mut Self {
        let (tables, key) = path.rsplit_once('.').expect("every key is in a table");
        let table =
            tables.split('.').try_fold(&mut self.0, |table, name| table.get_mut(name)?.as_table_mut());
        if let Some(table) = table {
            table.remove(key);
        }
        self
    }

    /// Takes a whole file as the base: what was set here stands above what is written there.
    ///
    /// # Panics
    /// When the file cannot be read or is not TOML.
    pub fn based_on(&mut self, file: &Path) -> &mut Self {
        let mut base: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
        lay_over(&mut base, &self.0);
        self.0 = base;
        self
    }

    /// Sets a property of librdkafka; `table` is `source` or `sink`.
    pub fn property(&mut self, table: &str, name: &str, value: impl Into<toml::Value>) -> &mut Self {
        let entry = self.0[table]["kafka"].as_table_mut().expect("it is a table");
        let properties = entry.entry("properties").or_insert_with(|| toml::Value::Table(toml::Table::new()));
        properties.as_table_mut().expect("it is a table").insert(name.to_owned(), value.into());
        self
    }
}

fn lay_over(base: &mut toml::Table, above: &toml::Table) {
    for (key, value) in above {
        match (base.get_mut(key).and_then(TomlValue::as_table_mut), value.as_table()) {
            (Some(base), Some(above)) => lay_over(base, above),
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

impl Link {
    /// A link named `name` (which must be unique in a run, since it names the consumer group) from one cluster to another.
    pub fn new(name: &str, source: &str, destination: &str, topics: &[&str]) -> Link {
        let directory = tempfile::Builder::new().prefix("ddc-e2e-link-").tempdir().unwrap();
        Link::new_in(directory, name, source, destination, topics)
    }

    /// The same with its files in this directory.
    pub fn new_in(directory: TempDir, name: &str, source: &str, destination: &str, topics: &[&str]) -> Link {
        let directory = Arc::new(directory);
        let ports = free_block(3);
        let key = directory.path().join("link.key");
        let made =
            Command::new(binary()).args(["keygen", "--out"]).arg(&key).output().expect("ddc can be run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let both = |side: &str, admin: u16| {
            let text = format!(
                "[link]\nname = \"{name}\"\nid = 7\nstate_dir = \"{side}-state\"\n\
                 [[link.keys]]\nid = 1\nfile = \"link.key\"\n\
                 [admin]\nlisten = \"127.0.0.1:{admin}\"\n[log]\nformat = \"json\"\n"
            );
            Settings(text.parse().expect("it is TOML"), Vec::new())
        };
        let (mut ingress, mut egress) = (both("ingress", ports + 1), both("egress", ports + 2));
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect::<Vec<toml::Value>>();
        ingress
            .set("link.target", format!("127.0.0.1:{ports}"))
            // What loopback carries on a small and busy machine without loss.
            .set("link.rate", "100Mbit/s")
            .set("source.kafka.brokers", strings(&[source]))
            .set("source.kafka.topics", strings(topics))
            .set("source.kafka.commit_delay", "2s")
            // New topics, new partitions and dead members are noticed within seconds.
            .property("source", "topic.metadata.refresh.interval.ms", 1000)
            .property("source", "session.timeout.ms", 3000)
            .property("source", "heartbeat.interval.ms", 500);
        egress
            .set("link.listen", format!("127.0.0.1:{ports}"))
            .set("sink.kafka.brokers", strings(&[destination]));
        let destination = destination.to_owned();
        Link { name: name.to_owned(), destination, directory, ports, ingress, egress }
    }

    /// Its name, by default also that of its set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The broker that its egress writes to.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// A file that only its owner can read, in the link's directory; its path.
    pub fn secret(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.directory.path().join(name);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The files of both sides: `ingress.toml`, `egress.toml`, `ingress-state`, `egress-state`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a subcommand of `ddc` in the link's directory to its end: exit code, standard output, standard error.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> (i32, String, String) {
        let done =
            Command::new(binary()).args(arguments).current_dir(self.directory.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code().unwrap_or(-1), text(&done.stdout), text(&done.stderr))
    }

    /// The egress's UDP port on loopback.
    pub fn port(&self) -> u16 {
        self.ports
    }

    /// Starts the ingress as configured now.
    pub fn start_ingress(&self) -> Proxy {
        Proxy::start(self, "ingress", &self.ingress, self.ports + 1)
    }

    /// Starts the egress as configured now.
    pub fn start_egress(&self) -> Proxy {
        Proxy::start(self, "egress", &self.egress, self.ports + 2)
    }

    /// Writes both configurations; a running side takes them over at SIGHUP, what it can.
    pub fn write(&self) {
        self.write_side("ingress", &self.ingress);
        self.write_side("egress", &self.egress);
    }

    fn write_side(&self, side: &str, settings: &Settings) -> PathBuf {
        let file = self.directory.path().join(format!("{side}.toml"));
        fs::write(&file, toml::to_string(&settings.0).unwrap()).unwrap();
        file
    }

    /// Starts both and waits until both are ready.
    pub fn start(&self) -> (Proxy, Proxy) {
        let (egress, ingress) = (self.start_egress(), self.start_ingress());
        ingress.wait_ready();
        egress.wait_ready();
        (ingress, egress)
    }
}

/// One side as a process.
pub struct Proxy {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where this process's lines begin in the log, which all lives of a side share.
    log_start: u64,
    admin: u16,
    ended: bool,
    // Removed when the last of its users goes.
    _directory: Arc<TempDir>,
}

impl Proxy {
    fn start(link: &Link, side: &str, settings: &Settings, admin: u16) -> Proxy {
        let file = link.write_side(side, settings);
        let path = link.directory.path().join(format!("{side}.log"));
        let log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let log_start = log.metadata().unwrap().len();
        let child = Command::new(binary())
            .arg(side)
            .arg("-c")
            .arg(&file)
            .envs(settings.1.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("ddc can be run");
        reaper::watch(&child);
        Proxy {
            name: format!("{} {side}", link.name),
            child,
            log: path,
            log_start,
            admin,
            ended: false,
            _directory: Arc::clone(&link.directory),
        }
    }

    /// Asks the admin listener; status code and body. An error: it does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        let http::Answer { code, head, body } = http::get(self.admin, path, Version::Http11, PATIENCE)?;
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "a body in one piece: {head}");
        Ok((code, body))
    }

    /// `/status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let text = wait::until(&format!("{} answers", self.name), READY, || self.get("/status"));
        serde_json::from_str(&text.1).expect("/status is JSON")
    }

    /// The sum of a counter's series whose labels hold all of `labels`, each written `name="value"`.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let (code, page) = wait::until(&format!("{} answers", self.name), READY, || self.get("/metrics"));
        assert_eq!(code, 200);
        page.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    }

    /// Waits until `/readyz` says yes.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait::until(&format!("{} is ready", self.name), READY, || match self.get("/readyz")? {
            (200, _) => Ok(()),
            (code, why) => Err(format!("{code} {why}")),
        });
    }

    /// Waits until `/readyz` says no and why, with all of `words` (in any case); the text.
    #[track_caller]
    pub fn wait_unready(&self, words: &[&str]) -> String {
        wait::until(&format!("{} names {words:?}", self.name), READY, || match self.get("/readyz")? {
            (503, why) if words.iter().all(|word| why.to_lowercase().contains(&word.to_lowercase())) => {
                Ok(why)
            }
            (code, why) => Err(format!("{code} {why}")),
        })
    }

    /// Waits until the log has a line of this process that holds all of `words` (in any case); the line.
    #[track_caller]
    pub fn wait_logged(&self, words: &[&str]) -> String {
        wait::until(&format!("{} logs {words:?}", self.name), READY, || {
            let log = self.log();
            let found = log.lines().find(|line| {
                let line = line.to_lowercase();
                words.iter().all(|word| line.contains(&word.to_lowercase()))
            });
            found.map(str::to_owned).ok_or("no such line")
        })
    }

    /// What this process has logged.
    pub fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(text.get(self.log_start as usize..).unwrap_or_default()).into_owned()
    }

    /// The missing ranges that this process's log names. It must agree with `/status`, which keeps the last hundred.
    pub fn named_missing(&self) -> Vec<Named> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["message"] == "records are missing")
            .map(|line| Named {
                topic: line["topic"].as_str().expect("a topic is named").to_owned(),
                partition: line["partition"].as_i64().expect("a partition is named") as i32,
                first: line["first"].as_i64().expect("an offset is named"),
                last: line["last"].as_i64().expect("an offset is named"),
                records: line["records"].as_str().and_then(|records| records.parse().ok()),
                reason: line["reason"].as_str().expect("a reason is named").to_owned(),
            })
            .collect()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.wait(Duration::from_secs(10)).signal(), Some(Signal::KILL.as_raw()));
    }

    /// SIGTERM; waits for the end of the drain and returns how long it took.
    pub fn stop(mut self) -> Duration {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let status = self.wait(Duration::from_secs(40));
        assert_eq!(status.code(), Some(0), "{} drained: {status}", self.name);
        start.elapsed()
    }

    /// Whether the process lives.
    pub fn lives(&mut self) -> bool {
        !self.ended && matches!(self.child.try_wait(), Ok(None))
    }

    fn wait(&mut self, limit: Duration) -> std::process::ExitStatus {
        let status = wait::until(&format!("{} ends", self.name), limit, || {
            self.child.try_wait().unwrap().ok_or("it runs")
        });
        self.ended = true;
        reaper::ended(&self.child);
        status
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !self.ended {
            // Nobody is left to hear of an error.
            let _ = self.child.kill();
            let _ = self.child.wait();
            reaper::ended(&self.child);
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("--- log of {}, {} lines, the last:", self.name, lines.len());
            lines[lines.len().saturating_sub(SHOWN)..].iter().for_each(|line| println!("{line}"));
        } else {
            let log = self.log();
            let panicked = log.lines().find(|line| line.contains("panicked at"));
            assert_eq!(panicked, None, "{} panicked", self.name);
        }
    }
}

/// The binary under test: `DDC_BIN`, else the one beside the tests.
pub fn binary() -> PathBuf {
    std::env::var_os("DDC_BIN").map_or_else(
        || {
            let tests = std::env::current_exe().unwrap();
            tests.ancestors().nth(2).unwrap_or(Path::new(".")).join("ddc")
        },
        PathBuf::from,
    )
}
