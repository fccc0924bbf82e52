//! An ingress and an egress as processes of their own, and what the kernel and their admin listeners tell of them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ddc_e2e::broker::free_block;
use ddc_e2e::http::{self, Answer, Version};
use ddc_e2e::reaper;
use tempfile::TempDir;

use crate::Options;

/// Clock ticks of `/proc/PID/stat` per second; 100 on every Linux there is (`USER_HZ`).
const TICKS: f64 = 100.0;

/// How the names of the threads begin that carry metrics and logs away.
const TELEMETRY_THREADS: [&str; 3] = ["ddc-statsd", "ddc-syslog", "tracing-appende"];

/// What differs between the pairs of a run.
pub(crate) struct Plan<'a> {
    /// Goes into names of groups, topics and directories.
    pub(crate) name: &'a str,
    /// `host:port`.
    pub(crate) source: &'a str,
    /// `host:port`.
    pub(crate) destination: &'a str,
    /// The topic that is read; at the destination `NAME-` stands before it.
    pub(crate) topic: &'a str,
    /// `earliest` or `latest`.
    pub(crate) start_at: &'a str,
    /// Of the link.
    pub(crate) rate: &'a str,
    /// `linger` of `[link.pack]`.
    pub(crate) linger: &'a str,
    /// `buffer` of both sides.
    pub(crate) buffer: &'a str,
    /// `delivery` of the egress.
    pub(crate) delivery: &'a str,
    /// Where both sides send StatsD and syslog, if they do.
    pub(crate) collector: Option<SocketAddr>,
}

/// Both sides of a link. The ingress is started by [`Pair::start_ingress`], so that the egress is there before.
pub(crate) struct Pair {
    pub(crate) egress: Process,
    pub(crate) ingress: Option<Process>,
    ddc: PathBuf,
    port: u16,
    directory: TempDir,
}

impl Pair {
    /// Writes both files and starts the egress.
    pub(crate) fn start(options: &Options, plan: &Plan<'_>) -> Pair {
        let directory = tempfile::tempdir().unwrap();
        // Link, admin of the ingress, admin of the egress.
        let port = free_block(3);
        write_files(options, directory.path(), port, plan);
        let egress = Process::start(&options.ddc, "egress", directory.path(), port + 2);
        Pair { egress, ingress: None, ddc: options.ddc.clone(), port, directory }
    }

    /// Starts the ingress.
    pub(crate) fn start_ingress(&mut self) -> &Process {
        let process = Process::start(&self.ddc, "ingress", self.directory.path(), self.port + 1);
        self.ingress.insert(process)
    }

    /// The ingress, which was started.
    pub(crate) fn ingress(&self) -> &Process {
        self.ingress.as_ref().expect("start_ingress was called")
    }

    /// The file of a side: `ingress` or `egress`.
    pub(crate) fn file(&self, side: &str) -> PathBuf {
        self.directory.path().join(format!("{side}.toml"))
    }
}

fn write_files(options: &Options, directory: &Path, port: u16, plan: &Plan<'_>) {
    let key_file = directory.join("link.key");
    let made = Command::new(&options.ddc).args(["keygen", "--out"]).arg(&key_file).output();
    assert!(made.is_ok_and(|made| made.status.success()), "ddc keygen makes a key");
    let Plan { name, source, destination, topic, start_at, rate, linger, buffer, delivery, collector } = plan;
    let (link, ingress_admin, egress_admin) = (port, port + 1, port + 2);
    let directory = directory.display();
    let telemetry = collector.map_or(String::new(), |address| {
        format!("[telemetry]\nstatsd = [\"{address}\"]\nsyslog = [\"udp://{address}\"]\n")
    });
    let keys = format!("[[link.keys]]\nid = 1\nfile = \"{}\"\n", key_file.display());
    let ingress = format!(
        "[link]\nname = \"{name}\"\nid = 1\ntarget = \"127.0.0.1:{link}\"\nrate = \"{rate}\"\nbuffer = \"{buffer}\"\n\
         state_dir = \"{directory}/ingress\"\nactive_key = 1\n{keys}[link.pack]\nlinger = \"{linger}\"\n\
         [source.kafka]\nbrokers = [\"{source}\"]\ngroup = \"measure-{name}\"\ntopics = [\"{topic}\"]\n\
         start_at = \"{start_at}\"\n[admin]\nlisten = \"127.0.0.1:{ingress_admin}\"\n{telemetry}"
    );
    let egress = format!(
        "[link]\nname = \"{name}\"\nid = 1\nlisten = \"127.0.0.1:{link}\"\nstate_dir = \"{directory}/egress\"\n{keys}\
         [sink]\nbuffer = \"{buffer}\"\n[sink.kafka]\nbrokers = [\"{destination}\"]\ntopic_prefix = \"{name}-\"\n\
         delivery = \"{delivery}\"\n\
         [admin]\nlisten = \"127.0.0.1:{egress_admin}\"\n{telemetry}"
    );
    fs::write(format!("{directory}/ingress.toml"), ingress).unwrap();
    fs::write(format!("{directory}/egress.toml"), egress).unwrap();
}

/// A running `ddc`. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    admin: u16,
    log: PathBuf,
}

impl Process {
    fn start(ddc: &Path, side: &str, directory: &Path, admin: u16) -> Process {
        let log = directory.join(format!("{side}.log"));
        let file = fs::File::create(&log).unwrap();
        let child = Command::new(ddc)
            .arg(side)
            .arg("-c")
            .arg(directory.join(format!("{side}.toml")))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .expect("ddc can be run");
        reaper::watch(&child);
        let process = Process { child, admin, log };
        process.wait("answers", || process.get("/healthz").is_some());
        process
    }

    /// Waits until something holds; ends the run with the process's log when it does not within a minute.
    pub(crate) fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            let late = start.elapsed() > Duration::from_mins(1);
            assert!(!late, "{what}: not within a minute; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU-seconds so far, user and system.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_seconds(self.id())
    }

    /// CPU-seconds so far of the threads that only carry metrics and logs away.
    pub(crate) fn telemetry_cpu(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let nanoseconds = threads.filter_map(|thread| {
            let thread = thread.ok()?.path();
            let name = fs::read_to_string(thread.join("comm")).ok()?;
            let ours = TELEMETRY_THREADS.iter().any(|prefix| name.starts_with(prefix));
            // The kernel's own count of nanoseconds on a CPU: the ticks of `stat` are too coarse for so little.
            let told = fs::read_to_string(thread.join("schedstat")).ok()?;
            ours.then(|| told.split(' ').next()?.parse::<f64>().ok()).flatten()
        });
        nanoseconds.sum::<f64>() / 1e9
    }

    /// A line of `/proc/PID/status` in MiB: `VmRSS` (now), `VmHWM` (most so far).
    pub(crate) fn mib(&self, line: &str) -> f64 {
        mib(self.id(), line)
    }

    /// The sum of a metric over its labels; 0 when it has not been seen.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").map(|answer| answer.body).unwrap_or_default();
        page.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Whether `/readyz` says so.
    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|answer| answer.code == 200)
    }

    fn get(&self, path: &str) -> Option<Answer> {
        http::get(self.admin, path, Version::Http11, Duration::from_secs(5)).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(keep) = std::env::var("MEASURE_KEEP_LOGS") {
            let name = format!("{}-{}", self.id(), self.log.file_name().unwrap().to_string_lossy());
            let _ = fs::copy(&self.log, Path::new(&keep).join(name));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::ended(&self.child);
    }
}

/// CPU-seconds of a process so far, all its threads, user and system.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

/// A line of `/proc/PID/status` in MiB.
pub(crate) fn mib(process: u32, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|text| text.strip_prefix(line)).expect("the kernel tells it");
    line.trim_start_matches(':').trim().split(' ').next().unwrap().parse::<f64>().unwrap() / 1024.0
}
