//! `remap`: a VRL program for each event, and where an event goes when the program fails or aborts.

use serde_yaml_ng::Value as Yaml;
use vrl::path;
use vrl::value::{ObjectMap, Value};

use super::Outcome;
use super::program::{Program, Run};
use crate::event::Event;

/// The transform.
pub(super) struct Remap {
    name: String,
    program: Program,
    drop_on_error: bool,
    drop_on_abort: bool,
    reroute_dropped: bool,
}

impl Remap {
    pub(super) fn build(name: &str, options: &Yaml, warnings: &mut Vec<String>) -> Result<Self, String> {
        let source = match (options["source"].as_str(), options["file"].as_str()) {
            (Some(source), _) => source.to_owned(),
            // As in Vector, a relative path starts at the working directory.
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|error| format!("the VRL file {file} cannot be read: {error}"))?,
            (None, None) => return Err("either `source` or `file` must be given".into()),
        };
        Ok(Self {
            name: name.into(),
            program: Program::compile(&source, warnings)?,
            drop_on_error: options["drop_on_error"].as_bool().unwrap_or(false),
            drop_on_abort: options["drop_on_abort"].as_bool().unwrap_or(true),
            reroute_dropped: options["reroute_dropped"].as_bool().unwrap_or(false),
        })
    }

    pub(super) fn process(&mut self, event: Event) -> Outcome {
        match self.program.run(&event) {
            Run::Done(_, changed) => Outcome { out: self.split(changed), ..Outcome::default() },
            Run::Aborted(reason) => self.unhandled(event, self.drop_on_abort, "abort", &reason),
            Run::Failed(reason) => Outcome {
                error: Some(reason.clone()),
                ..self.unhandled(event, self.drop_on_error, "error", &reason)
            },
        }
    }

    /// A program that leaves a list in `.` makes several events of one.
    fn split(&self, event: Event) -> Vec<(String, Event)> {
        match event {
            Event::Log(Value::Array(values)) => {
                values.into_iter().map(|value| (self.name.clone(), Event::Log(value))).collect()
            }
            event => vec![(self.name.clone(), event)],
        }
    }

    fn unhandled(&self, event: Event, drop: bool, kind: &str, message: &str) -> Outcome {
        let mut outcome = Outcome::default();
        if !drop {
            outcome.out.push((self.name.clone(), event));
        } else if self.reroute_dropped {
            outcome.out.push((format!("{}.dropped", self.name), self.annotated(event, kind, message)));
        } else {
            outcome.discarded = Some(kind == "abort");
        }
        outcome
    }

    /// Why it was dropped: `.metadata.dropped` of a log event, tags of that name of a metric.
    fn annotated(&self, event: Event, reason: &str, message: &str) -> Event {
        let facts = [
            ("reason", reason),
            ("message", message),
            ("component_id", &self.name),
            ("component_type", "remap"),
            ("component_kind", "transform"),
        ];
        match event {
            Event::Log(mut value) => {
                let dropped: ObjectMap =
                    facts.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect();
                value.insert(path!("metadata", "dropped"), Value::Object(dropped));
                Event::Log(value)
            }
            Event::Metric(mut metric) => {
                for (key, text) in facts {
                    metric.tags.insert(format!("metadata.dropped.{key}"), Some(text.into()));
                }
                Event::Metric(metric)
            }
        }
    }
}
