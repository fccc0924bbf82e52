//! The log of a whole process: what reaches its standard error and its collectors when it ends, when it panics, and when nobody reads.
//!
//! Each test starts this very test binary again as a child ([`child`]), since a process has only one log.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ddc_telemetry::log::{self, LogFormat, LogLevel, MAX_LINES};
use ddc_telemetry::syslog::{Facility, Target};
use ddc_telemetry::{Identity, ProcessMetrics};
use serde_json::Value;

const ROLE: &str = "DDC_TEST_LOG_CHILD";
const TARGET: &str = "DDC_TEST_LOG_TARGET";

/// Not a test by itself: what the children do.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let target: Option<Target> = std::env::var(TARGET).ok().map(|target| target.parse().unwrap());
    let metrics = Arc::new(ProcessMetrics::default());
    let identity = Identity { process: "ingress-plant-a".into(), site: None };
    let targets: Vec<Target> = target.into_iter().collect();
    let init = || {
        log::init(&LogLevel::default(), LogFormat::Json, &targets, Facility::default(), &identity, &metrics)
    };
    let log = init().unwrap();
    assert!(init().unwrap_err().to_string().contains("set up already"));
    let count = |numbers: std::ops::Range<u32>| numbers.for_each(|number| tracing::info!(number, "counted"));
    match role.as_str() {
        "end" => count(0..1000),
        "panic" => {
            count(0..500);
            let thread = thread::Builder::new().name("ddc-doomed".into());
            let outcome = thread.spawn(|| panic!("the flux is \"off\"\nby one")).unwrap().join();
            assert!(outcome.is_err());
            // As a process that is ended by the panic: nothing is flushed any more.
            std::process::abort();
        }
        "nobody reads" => {
            let start = Instant::now();
            count(0..100_000);
            let logged = start.elapsed();
            drop(log);
            let ended = start.elapsed();
            println!(
                "RESULT {} {} {}",
                logged.as_millis(),
                ended.as_millis(),
                metrics.log_lines_dropped.value()
            );
            return;
        }
        "collector away" => {
            count(0..3000);
            let start = Instant::now();
            while metrics.syslog_messages_sent.value() == 0 && start.elapsed() < Duration::from_secs(30) {
                thread::sleep(Duration::from_millis(10));
            }
            // Time for trouble to feed itself, if it could.
            thread::sleep(Duration::from_secs(3));
            drop(log);
            println!(
                "RESULT {} {}",
                metrics.syslog_messages_sent.value(),
                metrics.syslog_messages_dropped.value()
            );
            return;
        }
        role => panic!("{role}"),
    }
    drop(log);
}

fn start(role: &str, target: Option<String>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(ROLE, role).env("RUST_BACKTRACE", "0");
    if let Some(target) = target {
        command.env(TARGET, target);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Its standard error, as far as it is JSON, and the rest.
fn lines(stderr: &[u8]) -> (Vec<Value>, String) {
    let (mut json, mut rest) = (Vec::new(), String::new());
    for line in str::from_utf8(stderr).unwrap().lines() {
        match serde_json::from_str(line) {
            Ok(value) => json.push(value),
            Err(_) => rest.extend([line, "\n"]),
        }
    }
    (json, rest)
}

fn result(stdout: &[u8]) -> Vec<u64> {
    let text = str::from_utf8(stdout).unwrap();
    let line = text.lines().find_map(|line| line.split("RESULT ").nth(1)).unwrap_or_else(|| panic!("{text}"));
    line.split(' ').map(|number| number.parse().unwrap()).collect()
}

/// Whole frames of one connection, until it ends.
fn frames(stream: TcpStream) -> Vec<String> {
    let (mut stream, mut frames) = (BufReader::new(stream), Vec::new());
    loop {
        let mut length = Vec::new();
        if stream.read_until(b' ', &mut length).unwrap() == 0 {
            return frames;
        }
        let length: usize = str::from_utf8(&length).unwrap().trim_end().parse().unwrap();
        let mut frame = vec![0; length];
        if stream.read_exact(&mut frame).is_err() {
            return frames;
        }
        frames.push(String::from_utf8(frame).unwrap());
    }
}

#[test]
fn the_last_lines_arrive_when_the_process_ends() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = start("end", Some(format!("tcp://{}", collector.local_addr().unwrap())));
    let sent = thread::spawn(move || frames(collector.accept().unwrap().0));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let (json, rest) = lines(&output.stderr);
    let numbers: Vec<_> = json.iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert_eq!((numbers, rest.as_str()), ((0..1000).collect(), ""));
    let sent = sent.join().unwrap();
    assert!(sent.last().unwrap().contains("number=\"999\""), "{:?}", sent.last());
}

#[test]
fn a_panic_reaches_stderr_and_the_collector_with_all_that_was_before() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = start("panic", Some(format!("tcp://{}", collector.local_addr().unwrap())));
    let sent = thread::spawn(move || frames(collector.accept().unwrap().0));
    let output = child.wait_with_output().unwrap();
    let (json, rest) = lines(&output.stderr);
    let numbers: Vec<_> = json.iter().filter_map(|line| line["number"].as_u64()).collect();
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    let panic = json.last().unwrap();
    assert_eq!(
        (&panic["level"], &panic["event"], &panic["thread"]),
        (&"ERROR".into(), &"panic".into(), &"ddc-doomed".into())
    );
    assert_eq!(panic["reason"], "the flux is \"off\"\nby one");
    assert!(panic["location"].as_str().unwrap().contains("tests/log.rs:"));
    assert!(
        rest.contains("thread 'ddc-doomed'") && rest.contains("the flux is \"off\""),
        "the standard message: {rest}"
    );
    let sent = sent.join().unwrap();
    let last = sent.last().unwrap();
    assert!(
        last.starts_with("<131>1 ") && last.contains(" ddc-ingress ") && last.contains(" panic [ddc@32473 "),
        "{last}"
    );
    assert!(last.contains("reason=\"the flux is \\\"off\\\"\\\\nby one\""), "{last}");
    assert_eq!(sent.len(), 501);
}

/// Standard error is a pipe that nobody reads: the process goes on, counts what it drops, and ends.
#[test]
fn nobody_reads_standard_error() {
    let mut child = start("nobody reads", None);
    let mut stdout = Vec::new();
    let start = Instant::now();
    child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    // It has ended, though not a byte was read.
    child.wait().unwrap();
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    let [logged, ended, dropped] = result(&stdout)[..] else { panic!("{stdout:?}") };
    assert!(logged < 20_000, "100,000 lines took {logged} ms");
    assert!(ended - logged < 3000, "the end took {} ms", ended - logged);
    let mut stderr = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    let written = stderr.split(|byte| *byte == b'\n').count() as u64 - 1;
    // What waited in the queue at the end was not dropped then, but not written either.
    assert!(
        written + dropped <= 100_000 && written + dropped + MAX_LINES as u64 + 1 >= 100_000,
        "{written} {dropped}"
    );
    assert!(dropped > 50_000, "{dropped}");
}

/// The collector is away, messages are lost, it comes: each of the two things is said once, on stderr and to the collector, and
/// nothing feeds itself.
#[test]
fn trouble_with_syslog_is_told_once_and_does_not_feed_itself() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = start("collector away", Some(format!("tcp://{address}")));
    thread::sleep(Duration::from_secs(2));
    let collector = TcpListener::bind(address).unwrap();
    let sent = thread::spawn(move || frames(collector.accept().unwrap().0));
    let output = child.wait_with_output().unwrap();
    let sent = sent.join().unwrap();
    let (json, _) = lines(&output.stderr);
    let told: Vec<_> = json.iter().filter(|line| line.get("collector").is_some()).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(json.len(), 3000 + 2);
    let collector = format!("tcp://{address}");
    assert!(told.iter().all(|line| line["collector"] == collector.as_str() && line["level"] == "WARN"));
    assert!(told[0]["message"].as_str().unwrap().contains("cannot be reached"));
    assert!(told[0]["error"].as_str().unwrap().contains("refused"), "{}", told[0]);
    assert!(told[1]["message"].as_str().unwrap().contains("were lost"));
    let [counted, dropped] = result(&output.stdout)[..] else { panic!() };
    assert_eq!(told[1]["messages"], dropped, "the line says what the metric says");
    assert_eq!((counted + dropped, sent.len() as u64), (3002, counted), "everything is accounted for");
    let last = sent.last().unwrap();
    assert!(last.contains(&format!("messages=\"{dropped}\"")) && last.contains("were lost"), "{last}");
}
