//! A running double (or the real Vector that `VECTOR_BIN` names), and what tests ask of it.
#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The folder with the shipped files.
pub(crate) fn pipeline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("VECTOR_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_ddc-vector-double").into(), PathBuf::from)
}

/// Whether a real Vector is tested.
pub(crate) fn real_vector() -> bool {
    std::env::var_os("VECTOR_BIN").is_some()
}

/// A command with the variables that both understand.
pub(crate) fn command(variables: &[(&str, String)]) -> Command {
    let mut command = Command::new(binary());
    command
        .env("TZ", "UTC")
        .env("VECTOR_DANGEROUSLY_ALLOW_ENV_VAR_INTERPOLATION", "true")
        .env_remove("DDC_SITE");
    command.env("DDC_VECTOR_DIR", pipeline());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

/// Runs to its end.
pub(crate) fn output(arguments: &[&str], variables: &[(&str, String)]) -> Output {
    command(variables).args(arguments).current_dir(pipeline()).output().unwrap()
}

/// A port that was free for UDP and TCP a moment ago.
pub(crate) fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A running process; ended when dropped.
pub(crate) struct Running {
    child: Child,
    errors: Arc<Mutex<String>>,
}

impl Running {
    /// Starts, and waits until it says that it has started.
    pub(crate) fn start(directory: &Path, files: &[PathBuf], variables: &[(&str, String)]) -> Self {
        let mut command = command(variables);
        for file in files {
            command.arg("--config").arg(file);
        }
        let stdout = std::fs::File::create(directory.join("stdout")).unwrap();
        let mut child = command.current_dir(directory).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let (written, lines) = (errors.clone(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut all = written.lock().unwrap();
                all.push_str(&line);
                all.push('\n');
            }
        });
        let mut running = Self { child, errors };
        let ready = until(Duration::from_secs(30), || {
            running.child.try_wait().unwrap().is_some() || running.errors().contains("has started")
        });
        assert!(ready && running.errors().contains("has started"), "no start: {}", running.errors());
        // A real Vector binds a moment after it said so.
        if real_vector() {
            std::thread::sleep(Duration::from_millis(500));
        }
        running
    }

    /// What it wrote to stderr so far.
    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
pub(crate) fn until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    holds()
}

/// Sends one datagram.
pub(crate) fn datagram(port: u16, bytes: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(bytes, ("127.0.0.1", port)).unwrap();
}

/// An HTTP request; the status line and the body.
pub(crate) fn get(port: u16, path: &str, header: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The page of metrics.
pub(crate) fn scrape(port: u16) -> String {
    let (status, body) = get(port, "/metrics", "");
    assert_eq!(status, "HTTP/1.1 200 OK");
    body
}

/// A page as a set: types by family; values by series (name and sorted labels).
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Page {
    /// Family to type.
    pub(crate) types: BTreeMap<String, String>,
    /// Family to help.
    pub(crate) helps: BTreeMap<String, String>,
    /// `name{a="b",c="d"}` to all its values, in order of size: a broken page has a series twice.
    pub(crate) series: BTreeMap<String, Vec<String>>,
}

impl Page {
    /// Reads a page; a line that is none is a failure of the test.
    pub(crate) fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.rsplit_once(' ').unwrap();
                assert_eq!(page.types.insert(name.into(), kind.into()), None, "two types of {name}");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                // With spaces in the name both halves are the name.
                page.helps.insert(rest.into(), String::new());
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
                let values = page.series.entry(sorted(series)).or_default();
                values.push(value.into());
                values.sort();
            }
        }
        page
    }

    /// Another page with the same types and series.
    pub(crate) fn clone_parts(&self) -> Self {
        Self { types: self.types.clone(), helps: BTreeMap::new(), series: self.series.clone() }
    }

    /// The value of a series.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        self.series.get(&sorted(series))?.first()?.parse().ok()
    }
}

/// A series with its labels in order.
pub(crate) fn sorted(series: &str) -> String {
    let Some((name, rest)) = series.split_once('{') else { return series.into() };
    let mut labels = Vec::new();
    let mut label = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in rest.strip_suffix('}').unwrap_or(rest).chars() {
        if c == ',' && !quoted {
            labels.push(std::mem::take(&mut label));
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && !escaped;
        label.push(c);
    }
    labels.push(label);
    labels.sort();
    format!("{name}{{{}}}", labels.join(","))
}

/// The shipped pipeline on free ports.
pub(crate) struct Pipeline {
    /// The process.
    pub(crate) running: Running,
    /// Its directory, with `stdout`.
    pub(crate) directory: tempfile::TempDir,
    /// StatsD, syslog, exporter, the diode's StatsD and syslog, API.
    pub(crate) statsd: u16,
    pub(crate) syslog: u16,
    pub(crate) exporter: u16,
    pub(crate) diode_statsd: u16,
    pub(crate) diode_syslog: u16,
    pub(crate) api: u16,
}

impl Pipeline {
    /// Starts these shipped files.
    pub(crate) fn start(files: &[&str], more: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [statsd, syslog, exporter, diode_statsd, diode_syslog, api] =
            std::array::from_fn(|_| free_port());
        let at = |port: u16| format!("127.0.0.1:{port}");
        let mut variables = vec![
            ("DDC_STATSD_LISTEN", at(statsd)),
            ("DDC_SYSLOG_LISTEN", at(syslog)),
            ("DDC_EXPORTER_LISTEN", at(exporter)),
            ("DDC_DIODE_STATSD_LISTEN", at(diode_statsd)),
            ("DDC_DIODE_SYSLOG_LISTEN", at(diode_syslog)),
            ("DDC_VECTOR_API_LISTEN", at(api)),
            ("DDC_SYSLOG_SOCKET", directory.path().join("s").display().to_string()),
            ("DDC_VECTOR_INTERVAL", "1".into()),
        ];
        variables.extend(more.iter().cloned());
        let files: Vec<PathBuf> = files.iter().map(|file| pipeline().join(file)).collect();
        let running = Running::start(directory.path(), &files, &variables);
        Self { running, directory, statsd, syslog, exporter, diode_statsd, diode_syslog, api }
    }

    /// The page now.
    pub(crate) fn page(&self) -> Page {
        Page::read(&scrape(self.exporter))
    }

    /// The log events written to the console so far.
    pub(crate) fn logs(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.directory.path().join("stdout")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
