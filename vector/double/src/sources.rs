//! The sources: each a thread (or several) that sends batches of events to the engine.
//!
//! The channel is bounded: when the engine is slow, a UDP source stops reading and the kernel drops, as with a real Vector.

mod framing;
mod host;
mod internal;
mod sockets;
pub mod statsd;
pub mod syslog;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;

use serde_yaml_ng::Value as Yaml;

use crate::config::{Source, texts};
use crate::engine::Stats;
use crate::event::Event;

/// Events of one source.
pub type Batch = (String, Vec<Event>);

/// What a source's threads share.
#[derive(Clone)]
pub(crate) struct Output {
    name: String,
    channel: SyncSender<Batch>,
    stats: Arc<Stats>,
    stop: Arc<AtomicBool>,
}

impl Output {
    pub(crate) fn new(
        name: &str,
        channel: SyncSender<Batch>,
        stats: Arc<Stats>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { name: name.into(), channel, stats, stop }
    }

    fn send(&self, events: Vec<Event>) {
        if !events.is_empty() {
            self.stats.sent(&self.name, events.len());
            // The engine is gone only when the process ends.
            let _ = self.channel.send((self.name.clone(), events));
        }
    }

    /// An error of the source: counted, and written once per second at most.
    fn error(&self, message: &str) {
        self.stats.error(&self.name, message);
    }

    fn stopped(&self) -> bool {
        self.stop.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Binds what the source listens on and starts its threads.
pub(crate) fn start(source: &Source, output: Output) -> Result<(), String> {
    let options = &source.options;
    let address = options["address"].as_str().unwrap_or_default();
    let buffer = options["receive_buffer_bytes"].as_u64().map(|bytes| bytes as usize);
    let max_length = options["max_length"].as_u64().unwrap_or(102_400) as usize;
    match (source.kind.as_str(), options["mode"].as_str()) {
        ("statsd", _) => {
            let parser = statsd::Parser { sanitize: options["sanitize"].as_bool().unwrap_or(true) };
            sockets::udp(address, buffer, output, move |output, datagram, _| {
                let mut metrics = Vec::new();
                for line in parser.datagram(datagram) {
                    match line {
                        Ok(metric) => metrics.push(Event::Metric(metric)),
                        Err(error) => output.error(&error.to_string()),
                    }
                }
                metrics
            })
        }
        ("syslog", Some("udp")) => sockets::udp(address, buffer, output, |output, datagram, peer| {
            syslog_event(output, datagram, Some(&peer.ip().to_string())).into_iter().collect()
        }),
        ("syslog", Some("tcp")) => {
            let limit = options["connection_limit"].as_u64().unwrap_or(1024) as usize;
            sockets::tcp(address, limit, max_length, output)
        }
        ("syslog", Some("unix")) => {
            let path = PathBuf::from(options["path"].as_str().unwrap_or_default());
            let mode = options["socket_file_mode"].as_u64().map(|mode| mode as u32);
            sockets::unix(&path, mode, max_length, output)
        }
        ("host_metrics", _) => {
            host::start(host::Settings::read(options), interval(options, 15.0), output);
            Ok(())
        }
        ("internal_metrics", _) => {
            internal::start(
                options["namespace"].as_str().unwrap_or("vector"),
                interval(options, 1.0),
                output,
            );
            Ok(())
        }
        (kind, _) => Err(format!("the double does not run a `{kind}` source")),
    }
}

fn syslog_event(output: &Output, message: &[u8], peer: Option<&str>) -> Option<Event> {
    match syslog::parse(&String::from_utf8_lossy(message), peer) {
        Ok(value) => Some(Event::Log(value)),
        Err(error) => {
            output.error(&error);
            None
        }
    }
}

fn interval(options: &Yaml, default: f64) -> std::time::Duration {
    std::time::Duration::from_secs_f64(
        options["scrape_interval_secs"].as_f64().unwrap_or(default).clamp(0.1, 86_400.0),
    )
}

/// Lists of patterns to include and exclude.
#[derive(Clone, Debug, Default)]
struct Patterns {
    includes: Option<Vec<String>>,
    excludes: Vec<String>,
}

impl Patterns {
    fn read(options: &Yaml) -> Self {
        Self {
            includes: options["includes"].is_sequence().then(|| texts(&options["includes"])),
            excludes: texts(&options["excludes"]),
        }
    }

    fn take(&self, name: &str) -> bool {
        let any =
            |patterns: &[String]| patterns.iter().any(|pattern| crate::topology::matches(pattern, name));
        self.includes.as_deref().is_none_or(any) && !any(&self.excludes)
    }
}
