//! A program that is not ours, as a child process: Prometheus, Alertmanager, Vector (or its double).
//!
//! It runs in the network namespace of the thread that starts it ([`crate::netns::Diode::at`]), writes to a log that a failing
//! test shows, and is asked over HTTP/1.0, which needs no chunks.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http::{self, Version};
use crate::{reaper, wait};

/// How long a program may take until it answers; Prometheus replays its log on a busy machine.
const READY: Duration = Duration::from_secs(40);
/// Lines of the log that a failing test shows.
const SHOWN: usize = 40;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running program, killed on drop.
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    port: u16,
}

impl Service {
    /// Starts `program`, which will answer HTTP on `port` of loopback; its log is `directory/NAME.log`.
    ///
    /// # Panics
    /// When it cannot be run: a missing tool is a failure, not a reason to skip.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, &str)],
        directory: &Path,
        port: u16,
    ) -> Service {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{program} can't be run ({error}); run: scripts/setup.sh --for test")
            });
        reaper::watch(&child);
        Service { name: name.to_owned(), child, log, port }
    }

    /// Waits until `path` answers 200. From the service's network namespace.
    #[track_caller]
    pub fn wait_ready(&mut self, path: &str) {
        let (port, name) = (self.port, self.name.clone());
        wait::until(&format!("{name} is ready"), READY, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{name} has ended: {status}\n{}", self.log_tail());
            }
            match get(port, path)? {
                (200, _) => Ok(()),
                (code, body) => Err(format!("{code} {body}")),
            }
        });
    }

    /// Asks it; status code and body. From the service's network namespace.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        get(self.port, path)
    }

    /// The answer of a Prometheus-like API: `data` of a body with `status` `success`, or the body of a plain JSON API.
    pub fn json(&self, path: &str) -> Result<Value, String> {
        let (code, body) = self.get(path)?;
        let mut value: Value =
            serde_json::from_str(&body).map_err(|error| format!("{path}: {code} {error}: {body}"))?;
        match value.get("status").and_then(Value::as_str) {
            Some("success") => Ok(value["data"].take()),
            Some(_) => Err(format!("{path}: {code} {body}")),
            None => Ok(value),
        }
    }

    /// An instant query of Prometheus: labels and value of each series.
    pub fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>, String> {
        let data = self.json(&format!("/api/v1/query?query={}", percent_encoded(expression)))?;
        let result = match data["resultType"].as_str() {
            Some("vector") => data["result"].as_array().cloned().unwrap_or_default(),
            Some("scalar") => vec![serde_json::json!({ "metric": {}, "value": data["result"] })],
            other => return Err(format!("{expression}: a result of type {other:?}")),
        };
        let series = result.into_iter().map(|mut series| {
            let value = series["value"][1].as_str().and_then(|text| text.parse().ok());
            value
                .map(|value| (series["metric"].take(), value))
                .ok_or_else(|| format!("{expression}: {series}"))
        });
        series.collect()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Ends it with SIGTERM and waits.
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        wait::until_true(&format!("{} ends", self.name), Duration::from_secs(20), || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::ended(&self.child);
        if std::thread::panicking() {
            println!("--- log of {}, its last lines:\n{}", self.name, self.log_tail());
        }
    }
}

fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    http::get(port, path, Version::Http10, PATIENCE).map(|answer| (answer.code, answer.body))
}

/// Everything but letters, digits and `-._~`.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
