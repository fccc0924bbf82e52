//! Messages as a real rsyslog (Debian's) takes them, over UDP, TCP and a Unix datagram socket such as `/dev/log`.
//!
//! It starts `rsyslogd` as a child with a configuration of its own, which writes each message to a file as a line of JSON, with the
//! fields and the structured data as rsyslog understood them. Without rsyslog the tests fail: install Debian's `rsyslog`.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ddc_telemetry::syslog::{self, ELEMENT, Facility, Syslog, Target};
use ddc_telemetry::{Identity, ProcessMetrics};
use serde_json::Value;
use tempfile::TempDir;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

/// What means something in structured data, in JSON, in rsyslog's templates, or to a terminal.
const HOSTILE: &str = "a\"b\\c]d[e=f' %msg% $x\n<0>1 forged\r\u{1b}[2J\0\u{7f}é€🦀 end";
/// The same with the documented replacements.
const TAMED: &str = "a\"b\\c]d[e=f' %msg% $x\\n<0>1 forged\\r\\u{1b}[2J\\u{0}\\u{7f}é€🦀 end";

const BINARY: &str = "/usr/sbin/rsyslogd";

struct Rsyslog {
    child: Child,
    directory: TempDir,
    udp: u16,
    tcp: u16,
}

impl Rsyslog {
    fn start() -> Self {
        assert!(Path::new(BINARY).exists(), "{BINARY} is missing; run: apt-get install rsyslog");
        let directory = tempfile::tempdir().unwrap();
        // Free a moment ago; rsyslog cannot tell which port it chose by itself.
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut rsyslog = Self { child: Self::spawn(directory.path(), udp, tcp), directory, udp, tcp };
        rsyslog.wait_until_ready();
        rsyslog
    }

    fn spawn(directory: &Path, udp: u16, tcp: u16) -> Child {
        let at = directory.display();
        let field = |out: &str, property: &str| {
            format!(
                "property(outname=\"{out}\" name=\"{property}\" format=\"jsonf\") constant(value=\",\")\n"
            )
        };
        let fields: String = [
            ("host", "hostname"),
            ("app", "app-name"),
            ("procid", "procid"),
            ("msgid", "msgid"),
            ("severity", "syslogseverity-text"),
            ("facility", "syslogfacility-text"),
            ("version", "protocol-version"),
            ("input", "inputname"),
            ("message", "msg"),
        ]
        .iter()
        .map(|(out, property)| field(out, property))
        .collect();
        let configuration = format!(
            "global(workDirectory=\"{at}\")\n\
             module(load=\"imudp\")\nmodule(load=\"imtcp\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\nmodule(load=\"mmpstrucdata\")\n\
             template(name=\"line\" type=\"list\") {{\nconstant(value=\"{{\")\n{fields}\
             property(outname=\"time\" name=\"timereported\" dateFormat=\"rfc3339\" format=\"jsonf\") constant(value=\",\\\"data\\\":\")\n\
             property(name=\"$!rfc5424-sd\")\nconstant(value=\"}}\\n\")\n}}\n\
             ruleset(name=\"all\") {{\naction(type=\"mmpstrucdata\")\n\
             action(type=\"omfile\" file=\"{at}/out\" template=\"line\" asyncWriting=\"off\" flushOnTXEnd=\"on\")\n}}\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{udp}\" ruleset=\"all\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tcp}\" ruleset=\"all\")\n\
             input(type=\"imuxsock\" socket=\"{at}/log\" useSpecialParser=\"off\" ruleset=\"all\")\n"
        );
        let file = directory.join("rsyslog.conf");
        fs::write(&file, configuration).unwrap();
        Command::new(BINARY)
            .arg("-n")
            .arg("-f")
            .arg(&file)
            .arg("-i")
            .arg(directory.join("pid"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        while !self.socket().exists() || std::net::TcpStream::connect(("127.0.0.1", self.tcp)).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut why = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
                panic!("rsyslogd ended with {status}: {why}");
            }
            assert!(start.elapsed() < Duration::from_secs(20), "rsyslogd does not listen");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a service manager would.
    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn targets(&self) -> [(&'static str, Target); 3] {
        [
            ("imudp", format!("udp://127.0.0.1:{}", self.udp)),
            ("imtcp", format!("tcp://127.0.0.1:{}", self.tcp)),
            ("imuxsock", format!("unixgram://{}", self.socket().display())),
        ]
        .map(|(input, target)| (input, target.parse().unwrap()))
    }

    /// What it has written, once there are `count` messages that `of` picks.
    fn messages(&self, count: usize, of: impl Fn(&Value) -> bool) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let text = fs::read_to_string(self.directory.path().join("out")).unwrap_or_default();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let all = whole
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
            let picked: Vec<Value> = all.filter(&of).collect();
            if picked.len() >= count {
                assert_eq!(picked.len(), count);
                return picked;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{} of {count}: {text}", picked.len());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that logs to `targets`.
fn process(targets: &[Target]) -> (Dispatch, Syslog, Arc<ProcessMetrics>) {
    let metrics = Arc::new(ProcessMetrics::default());
    let identity = Identity { process: "egress-plant-a".into(), site: Some("north".into()) };
    let facility: Facility = "local3".parse().unwrap();
    let (layer, syslog) = syslog::start(targets, facility, &identity, &metrics).unwrap();
    (Dispatch::new(tracing_subscriber::registry().with(layer)), syslog, metrics)
}

#[test]
fn every_field_arrives_over_every_transport() {
    let rsyslog = Rsyslog::start();
    let targets = rsyslog.targets();
    let (dispatch, syslog, metrics) = process(&targets.clone().map(|(_, target)| target));
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::error!(
            event = "gap",
            link = "plant-a",
            session = 7_u64,
            topic = HOSTILE,
            empty = "",
            "{HOSTILE}"
        );
        tracing::warn!(target: "ddc_proxy::egress::deliver", "warned");
        tracing::info!("informed");
        tracing::debug!("debugged");
    });
    syslog.stop(Duration::from_secs(10));
    assert_eq!((metrics.syslog_messages_sent.value(), metrics.syslog_messages_dropped.value()), (12, 0));

    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (input, _) in targets {
        let messages = rsyslog.messages(4, |message| message["input"] == input);
        for message in &messages {
            assert_eq!(message["host"], host, "{message}");
            assert_eq!(message["app"], "ddc-egress");
            assert_eq!(message["procid"], std::process::id().to_string());
            assert_eq!(message["facility"], "local3");
            assert_eq!(message["version"], "1");
            let data = &message["data"][ELEMENT];
            assert_eq!(
                (&data["process"], &data["site"]),
                (&"egress-plant-a".into(), &"north".into()),
                "{message}"
            );
            let time = message["time"].as_str().unwrap();
            // The time of a Unix datagram is taken from the kernel by rsyslog, in its own zone.
            let micros = time.split('.').nth(1).unwrap_or_default();
            assert_eq!(micros.chars().take_while(char::is_ascii_digit).count(), 6, "{time}");
        }
        let of = |severity: &str| messages.iter().find(|message| message["severity"] == severity).unwrap();
        let gap = of("err");
        assert_eq!(gap["msgid"], "gap");
        assert_eq!(gap["message"], TAMED, "{input}");
        let data = &gap["data"][ELEMENT];
        assert_eq!(data["topic"], TAMED, "{input}");
        assert_eq!(
            (&data["link"], &data["session"], &data["empty"]),
            (&"plant-a".into(), &"7".into(), &"".into())
        );
        assert_eq!(
            (&of("warning")["msgid"], &of("warning")["message"]),
            (&"deliver".into(), &"warned".into())
        );
        assert_eq!((&of("info")["msgid"], &of("debug")["message"]), (&"rsyslog".into(), &"debugged".into()));
    }
}

/// Messages at the limits of each transport are taken whole, and what is longer was cut by us, not by rsyslog.
#[test]
fn the_longest_messages_are_taken_whole() {
    let rsyslog = Rsyslog::start();
    let targets = rsyslog.targets();
    let (dispatch, syslog, _) = process(&targets.clone().map(|(_, target)| target));
    let long = "€".repeat(10_000);
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::info!(number = 1, detail = "]".repeat(900), "{long}");
        tracing::info!(number = 2, "after it");
    });
    syslog.stop(Duration::from_secs(10));
    for (input, target) in targets {
        let messages = rsyslog.messages(2, |message| message["input"] == input);
        let text = messages[0]["message"].as_str().unwrap();
        assert!(text.ends_with("€…"), "{input}: cut by us");
        let detail = messages[0]["data"][ELEMENT]["detail"].as_str().unwrap();
        assert!(detail.starts_with("]]]]"), "{input}");
        assert!(text.len() + detail.len() * 2 > target.message_limit() - 400, "{input}: {}", text.len());
        assert_eq!(messages[1]["message"], "after it");
        assert_eq!(messages[1]["data"][ELEMENT]["number"], "2");
    }
}

/// rsyslog ends and starts again: what is logged meanwhile arrives afterwards, in order, each once.
#[test]
fn a_restart_loses_nothing_that_waits() {
    let mut rsyslog = Rsyslog::start();
    let targets = rsyslog.targets();
    let (dispatch, syslog, metrics) = process(&targets.clone().map(|(_, target)| target));
    let log = |numbers: std::ops::Range<u32>| {
        tracing::dispatcher::with_default(&dispatch, || {
            numbers.for_each(|number| tracing::info!(number, "counted"));
        });
    };
    log(0..100);
    for (input, _) in &targets {
        rsyslog.messages(100, |message| message["input"] == *input);
    }
    rsyslog.stop();
    log(100..200);
    thread::sleep(Duration::from_millis(300));
    rsyslog.child = Rsyslog::spawn(rsyslog.directory.path(), rsyslog.udp, rsyslog.tcp);
    rsyslog.wait_until_ready();
    log(200..300);
    syslog.flush(Duration::from_millis(1));
    for (input, _) in &targets {
        let messages = rsyslog.messages(300, |message| message["input"] == *input);
        let numbers: Vec<u32> = messages
            .iter()
            .map(|m| m["data"][ELEMENT]["number"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>(), "{input}");
    }
    drop(syslog);
    assert_eq!((metrics.syslog_messages_sent.value(), metrics.syslog_messages_dropped.value()), (900, 0));
}
