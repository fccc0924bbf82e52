//! Every recording of a real Vector, sent again through real sockets: the double must answer the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::{Page, Running, datagram, free_port, scrape, until};

const CASES: usize = 47;

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(kind);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs the cases side by side; all that differ are named.
fn each(kind: &str, run: fn(&Value, &Path) -> Result<(), String>) {
    let files = cases(kind);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = files
            .chunks(files.len().div_ceil(8))
            .map(|chunk| {
                scope.spawn(move || {
                    let mut failures = Vec::new();
                    for file in chunk {
                        let case: Value =
                            serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
                        let directory = tempfile::tempdir().unwrap();
                        if let Err(why) = run(&case, directory.path()) {
                            failures.push(format!("{}: {why}", case["case"]));
                        }
                    }
                    failures
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(
        failures.is_empty(),
        "{} of {} cases differ:\n{}",
        failures.len(),
        files.len(),
        failures.join("\n")
    );
}

/// Starts the case's configuration on free ports; returns the ports of its listener and its exporter.
fn start(case: &Value, directory: &Path) -> (Running, u16, u16) {
    let (listener, exporter) = (free_port(), free_port());
    let mut config = case["config"].clone();
    for source in config["sources"].as_object_mut().unwrap().values_mut() {
        if source["address"].is_string() {
            source["address"] = format!("127.0.0.1:{listener}").into();
        }
    }
    for sink in config["sinks"].as_object_mut().unwrap().values_mut() {
        if sink["address"].is_string() {
            sink["address"] = format!("127.0.0.1:{exporter}").into();
        }
    }
    // JSON is YAML.
    let file = directory.join("case.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    (Running::start(directory, &[file], &[]), listener, exporter)
}

fn statsd(case: &Value, directory: &Path) -> Result<(), String> {
    let (running, statsd, exporter) = start(case, directory);
    let mut expected = case["scrapes"].as_array().unwrap().iter();
    for step in case["steps"].as_array().unwrap() {
        if let Some(lines) = step["send"].as_array() {
            for line in lines {
                match line {
                    Value::String(text) => datagram(statsd, text.as_bytes()),
                    numbers => {
                        let bytes: Vec<u8> =
                            numbers.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u8).collect();
                        datagram(statsd, &bytes);
                    }
                }
                // One sender's datagrams over loopback keep their order, several sockets' do not.
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(150));
        } else if let Some(seconds) = step["sleep"].as_u64() {
            std::thread::sleep(Duration::from_secs(seconds));
        } else {
            let expected = Page::read(expected.next().unwrap().as_str().unwrap());
            if !until(Duration::from_secs(15), || Page::read(&scrape(exporter)) == expected) {
                return Err(format!("expected {expected:?}\n  got {:?}", Page::read(&scrape(exporter))));
            }
        }
    }
    errors(case, &running)
}

fn errors(case: &Value, running: &Running) -> Result<(), String> {
    for error in case["errors_logged"].as_array().unwrap().iter().filter_map(Value::as_str) {
        // Vector logs some errors twice, once wrapped.
        let inner = error.strip_prefix("ParsingError(").and_then(|e| e.strip_suffix(')')).unwrap_or(error);
        if !running.errors().contains(inner) {
            return Err(format!("did not log {inner:?} but {:?}", running.errors()));
        }
    }
    Ok(())
}

fn syslog(case: &Value, directory: &Path) -> Result<(), String> {
    let (running, port, _) = start(case, directory);
    let source = &case["config"]["sources"]["l"];
    let sent: Vec<&str> =
        case["sent"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    match source["mode"].as_str().unwrap() {
        "udp" => sent.iter().for_each(|text| {
            datagram(port, text.as_bytes());
            std::thread::sleep(Duration::from_millis(2));
        }),
        "tcp" => write_all(TcpStream::connect(("127.0.0.1", port)).unwrap(), &sent),
        _ => write_all(UnixStream::connect(directory.join(source["path"].as_str().unwrap())).unwrap(), &sent),
    }
    let mut expected = case["events"].as_array().unwrap().clone();
    let read = || -> Vec<Value> {
        let text = std::fs::read_to_string(directory.join("out.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    until(Duration::from_secs(15), || read().len() >= expected.len());
    // And nothing more comes.
    std::thread::sleep(Duration::from_millis(200));
    let mut got = read();
    if case["case"] == "udp_3164" {
        // The year is not in the message: it is the recording's, and today's.
        for event in expected.iter_mut().chain(&mut got) {
            let time = event["timestamp"].as_str().unwrap()[4..].to_owned();
            event["timestamp"] = time.into();
        }
    }
    for events in [&mut expected, &mut got] {
        events.sort_by_key(ToString::to_string);
    }
    if expected != got {
        return Err(format!("expected {}\n  got {}", Value::from(expected), Value::from(got)));
    }
    errors(case, &running)
}

/// All over one connection, which then is closed.
fn write_all(mut stream: impl Write, sent: &[&str]) {
    for text in sent {
        stream.write_all(text.as_bytes()).unwrap();
        stream.flush().unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn all_recordings_are_here() {
    assert_eq!(cases("statsd").len() + cases("syslog").len(), CASES);
}

#[test]
fn statsd_recordings() {
    each("statsd", statsd);
}

#[test]
fn syslog_recordings() {
    each("syslog", syslog);
}
