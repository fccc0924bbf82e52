//! Runs a configuration: sources on their threads, one bounded channel, transforms and sinks on the calling thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::config::Config;
use crate::event::Event;
use crate::sinks::{self, http};
use crate::sources::{self, Output};
use crate::topology::Topology;
use crate::transforms;

/// Batches that may wait for the transforms.
const CHANNEL: usize = 1024;

/// Errors that are written to stderr in a second; all are counted.
const LINES_PER_SECOND: u32 = 20;

/// What each component did.
#[derive(Debug, Default)]
pub struct Stats {
    components: Mutex<IndexMap<String, Counts>>,
    /// The second that is counted, and the lines written in it.
    lines: Mutex<Option<(Instant, u32)>>,
}

/// The figures of one component.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// `source`, `transform` or `sink`.
    pub section: &'static str,
    /// Its type.
    pub kind: String,
    /// Events it got.
    pub received: u64,
    /// Events it passed on.
    pub sent: u64,
    /// Errors.
    pub errors: u64,
    /// Events dropped on purpose.
    pub discarded_meant: u64,
    /// Events dropped because something failed.
    pub discarded: u64,
}

impl Stats {
    fn add(&self, name: &str, change: impl FnOnce(&mut Counts)) {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = components.get_mut(name) {
            change(counts);
        }
    }

    fn register(&self, name: &str, section: &'static str, kind: &str) {
        let counts = Counts { section, kind: kind.into(), ..Counts::default() };
        self.components.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), counts);
    }

    pub(crate) fn sent(&self, name: &str, count: usize) {
        self.add(name, |counts| {
            counts.sent += count as u64;
            if counts.section == "source" {
                counts.received += count as u64;
            }
        });
    }

    /// Counts, and writes to stderr; a flood of errors is not a flood of lines.
    pub(crate) fn error(&self, name: &str, message: &str) {
        self.add(name, |counts| counts.errors += 1);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (_, written) = match &mut *lines {
            Some(window) if now.duration_since(window.0) < Duration::from_secs(1) => window,
            other => other.insert((now, 0)),
        };
        *written += 1;
        if *written <= LINES_PER_SECOND {
            eprintln!("ERROR {name}: {message}");
        }
    }

    /// All figures now.
    pub fn snapshot(&self) -> Vec<(String, Counts)> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().map(|(name, counts)| (name.clone(), counts.clone())).collect()
    }
}

/// Transforms and sinks, ready to take events.
struct Engine {
    readers: HashMap<String, Vec<String>>,
    transforms: HashMap<String, transforms::Node>,
    sinks: HashMap<String, sinks::Node>,
    stats: Arc<Stats>,
}

impl Engine {
    fn deliver_all(&mut self, output: &str, events: &[Event]) {
        for event in events {
            self.deliver(output, event);
        }
    }

    /// Hands an event to everything that reads `output`. The topology has no cycles, so this ends.
    fn deliver(&mut self, output: &str, event: &Event) {
        let Some(readers) = self.readers.get(output).cloned() else { return };
        for reader in readers {
            self.stats.add(&reader, |counts| counts.received += 1);
            if let Some(sink) = self.sinks.get_mut(&reader) {
                match sink.take(event.clone()) {
                    Ok(()) => self.stats.sent(&reader, 1),
                    Err(error) => self.stats.error(&reader, &error),
                }
            } else if let Some(transform) = self.transforms.get_mut(&reader) {
                let outcome = transform.process(event.clone());
                if let Some(error) = &outcome.error {
                    self.stats.error(&reader, error);
                }
                match outcome.discarded {
                    Some(true) => self.stats.add(&reader, |counts| counts.discarded_meant += 1),
                    Some(false) => self.stats.add(&reader, |counts| counts.discarded += 1),
                    None => {}
                }
                self.stats.sent(&reader, outcome.out.len());
                for (output, event) in outcome.out {
                    self.deliver(&output, &event);
                }
            }
        }
    }
}

/// Runs until `stop` is set. An error is something that could not be opened or compiled at the start.
pub fn run(config: &Config, topology: &Topology, stop: &Arc<AtomicBool>) -> Result<(), String> {
    let stats = Arc::new(Stats::default());
    let mut engine = Engine {
        readers: topology.readers.iter().map(|(output, readers)| (output.clone(), readers.clone())).collect(),
        transforms: HashMap::new(),
        sinks: HashMap::new(),
        stats: stats.clone(),
    };
    for (name, source) in &config.sources {
        stats.register(name, "source", &source.kind);
    }
    for (name, transform) in &config.transforms {
        stats.register(name, "transform", &transform.kind);
        let mut warnings = Vec::new();
        let node = transforms::Node::build(name, transform, &mut warnings);
        engine.transforms.insert(name.clone(), node.map_err(|error| format!("transforms.{name}: {error}"))?);
    }
    for (name, sink) in &config.sinks {
        stats.register(name, "sink", &sink.kind);
        let node = sinks::Node::open(sink, stop).map_err(|error| format!("sinks.{name}: {error}"))?;
        engine.sinks.insert(name.clone(), node);
    }
    if let Some(address) = &config.api {
        let health = |request: &http::Request| match request.path.as_str() {
            "/health" => http::Answer {
                status: "200 OK",
                header: "Content-Type: application/json\r\n",
                body: "{\"ok\":true}".into(),
            },
            _ => http::Answer::not_found(),
        };
        http::serve(address, stop, health).map_err(|error| format!("api: {error}"))?;
    }
    let (sender, receiver) = sync_channel(CHANNEL);
    for (name, source) in &config.sources {
        let output = Output::new(name, sender.clone(), stats.clone(), stop.clone());
        sources::start(source, output).map_err(|error| format!("sources.{name}: {error}"))?;
    }
    drop(sender);
    // Tests and scripts wait for this line.
    eprintln!("INFO ddc-vector-double has started");
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok((source, events)) => engine.deliver_all(&source, &events),
            Err(RecvTimeoutError::Timeout) if !stop.load(Ordering::Relaxed) => {}
            Err(_) => return Ok(()),
        }
        if stop.load(Ordering::Relaxed) {
            // What the sources had handed over is still delivered.
            while let Ok((source, events)) = receiver.try_recv() {
                engine.deliver_all(&source, &events);
            }
            return Ok(());
        }
    }
}
