//! The sinks: prometheus_exporter, console, file. Sinks that only the snippets use (Loki, Elasticsearch, Kafka, StatsD) are checked but not run.

mod aggregate;
mod exporter;
pub(crate) mod http;
mod page;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use crate::config::Sink;
use crate::event::Event;
pub use aggregate::{Aggregate, Settings};
use exporter::Exporter;

/// A sink that is ready to take events.
pub(crate) enum Node {
    Exporter(Exporter),
    /// Lines of JSON, or only the messages.
    Lines {
        to: Box<dyn Write + Send>,
        text: bool,
    },
}

impl Node {
    /// Opens what the sink needs: its listener or its file.
    pub(crate) fn open(sink: &Sink, stop: &Arc<std::sync::atomic::AtomicBool>) -> Result<Self, String> {
        let options = &sink.options;
        let text = match options["encoding"]["codec"].as_str() {
            Some("json") | None => false,
            Some("text" | "raw_message") => true,
            Some(other) => return Err(format!("the double does not write `{other}`")),
        };
        Ok(match sink.kind.as_str() {
            "prometheus_exporter" => Self::Exporter(Exporter::start(options, stop)?),
            "console" if options["target"].as_str() == Some("stderr") => {
                Self::Lines { to: Box::new(std::io::stderr()), text }
            }
            "console" => Self::Lines { to: Box::new(std::io::stdout()), text },
            "file" => {
                let path = options["path"].as_str().unwrap_or_default();
                if path.contains(['%', '{']) {
                    return Err(format!("the double writes no templated paths: {path}"));
                }
                let file = File::options().create(true).append(true).open(path);
                let file = file.map_err(|error| format!("cannot open {path}: {error}"))?;
                Self::Lines { to: Box::new(file), text }
            }
            other => return Err(format!("the double checks a `{other}` sink but does not run it")),
        })
    }

    /// Takes one event; an error is what a real Vector would log.
    pub(crate) fn take(&mut self, event: Event) -> Result<(), String> {
        match (self, event) {
            (Self::Exporter(exporter), Event::Metric(metric)) => {
                exporter.take(metric);
                Ok(())
            }
            (Self::Exporter(_), Event::Log(_)) => Err("log events have no place on a page of metrics".into()),
            (Self::Lines { to, text }, event) => {
                let mut line = match (&event, *text) {
                    (Event::Log(value), true) => {
                        let message =
                            value.as_object().and_then(|fields| fields.get("message")?.to_str_lossy());
                        message.map(std::borrow::Cow::into_owned).unwrap_or_default()
                    }
                    _ => event.to_json().to_string(),
                };
                line.push('\n');
                to.write_all(line.as_bytes()).and_then(|()| to.flush()).map_err(|error| error.to_string())
            }
        }
    }
}
