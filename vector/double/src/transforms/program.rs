//! VRL: compiled with the real compiler, run on a log event or on a metric.
//!
//! On a metric VRL can read `.name .namespace .timestamp .kind .tags .type` and set all of these but `.type`; assigning anything else changes nothing
//! (recorded: `rename_touching_value_drops`). Its value is out of reach.

use chrono::{DateTime, Utc};
use vrl::compiler::runtime::{Runtime, Terminate};
use vrl::compiler::{SecretTarget, Target, TargetValue, TimeZone};
use vrl::diagnostic::Formatter;
use vrl::path::{OwnedSegment, OwnedTargetPath, PathPrefix};
use vrl::value::{KeyString, ObjectMap, Secrets, Value};

use crate::event::{Event, Kind, Metric};

/// A compiled program.
pub struct Program {
    program: vrl::compiler::Program,
    runtime: Runtime,
}

/// How a run ended, with the event as the program left it.
pub enum Run {
    /// The program's value and the changed event.
    Done(Value, Event),
    /// `abort`.
    Aborted(String),
    /// An error that the program did not handle.
    Failed(String),
}

impl Program {
    /// Compiles; the error is the compiler's own report, as Vector prints it. Warnings are added to `warnings`.
    pub fn compile(source: &str, warnings: &mut Vec<String>) -> Result<Self, String> {
        match vrl::compiler::compile(source, &vrl::stdlib::all()) {
            Ok(result) => {
                if !result.warnings.is_empty() {
                    warnings.push(Formatter::new(source, result.warnings).to_string());
                }
                Ok(Self { program: result.program, runtime: Runtime::default() })
            }
            Err(diagnostics) => Err(Formatter::new(source, diagnostics).to_string()),
        }
    }

    /// Runs on one event. The event is not changed unless the program came to its end.
    pub fn run(&mut self, event: &Event) -> Run {
        let zone = TimeZone::default();
        let (result, event) = match event {
            Event::Log(value) => {
                let mut target = TargetValue {
                    value: value.clone(),
                    metadata: Value::Object(ObjectMap::new()),
                    secrets: Secrets::default(),
                };
                let result = self.runtime.resolve(&mut target, &self.program, &zone);
                (result, Event::Log(target.value))
            }
            Event::Metric(metric) => {
                let mut target = MetricTarget::new(metric);
                let result = self.runtime.resolve(&mut target, &self.program, &zone);
                (result, Event::Metric(target.into_metric(metric)))
            }
        };
        self.runtime.clear();
        match result {
            Ok(value) => Run::Done(value, event),
            Err(Terminate::Abort(error)) => Run::Aborted(error.to_string()),
            Err(other) => Run::Failed(other.to_string()),
        }
    }

    fn returns_boolean(&self) -> bool {
        self.program.final_type_info().result.is_boolean()
    }
}

/// A program whose value is true or false.
pub struct Condition(std::cell::RefCell<Program>);

impl Condition {
    /// The program must always give a truth value; the compiler knows.
    pub fn new(program: Program, source: &str) -> Result<Self, String> {
        if program.returns_boolean() {
            Ok(Self(program.into()))
        } else {
            Err(format!("the condition must give true or false in every case: {source}"))
        }
    }

    /// Whether it holds; an error counts as no.
    pub fn holds(&self, event: &Event) -> bool {
        matches!(self.0.borrow_mut().run(event), Run::Done(Value::Boolean(true), _))
    }
}

/// What VRL sees of a metric.
#[derive(Debug)]
struct MetricTarget {
    value: Value,
    metadata: Value,
}

const SETTABLE: [&str; 5] = ["name", "namespace", "timestamp", "kind", "tags"];

impl MetricTarget {
    fn new(metric: &Metric) -> Self {
        let mut value = ObjectMap::new();
        value.insert("name".into(), metric.name.clone().into());
        value.insert("kind".into(), metric.kind.as_str().into());
        value.insert("type".into(), metric.value.type_name().into());
        if let Some(namespace) = &metric.namespace {
            value.insert("namespace".into(), namespace.clone().into());
        }
        if let Some(timestamp) = metric.timestamp {
            value.insert("timestamp".into(), timestamp.into());
        }
        if !metric.tags.is_empty() {
            // Bare tags are ignored with `metric_tag_values: single`, the default.
            let tags = metric
                .tags
                .iter()
                .filter_map(|(k, v)| Some((KeyString::from(k.as_str()), v.clone()?.into())));
            value.insert("tags".into(), Value::Object(tags.collect()));
        }
        Self { value: Value::Object(value), metadata: Value::Object(ObjectMap::new()) }
    }

    /// The metric with what the program set.
    fn into_metric(self, old: &Metric) -> Metric {
        let text = |field: &str| {
            self.value.as_object()?.get(field)?.to_str_lossy().map(std::borrow::Cow::into_owned)
        };
        let mut new = old.clone();
        new.name = text("name").unwrap_or(new.name);
        new.namespace = text("namespace");
        new.timestamp = self.timestamp();
        new.kind = match text("kind").as_deref() {
            Some("absolute") => Kind::Absolute,
            Some("incremental") => Kind::Incremental,
            _ => old.kind,
        };
        let tags = self.value.as_object().and_then(|object| object.get("tags")).and_then(Value::as_object);
        let seen_before = |key: &str| old.tags.get(key).is_some_and(Option::is_none);
        new.tags = tags
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.to_string(), value.to_str_lossy().map(std::borrow::Cow::into_owned)))
            .filter(|(key, value)| value.is_some() || seen_before(key))
            .collect();
        // A program that never touched `.tags` leaves bare tags as they were.
        if tags.is_none_or(|now| now.len() == old.tags.values().flatten().count()) {
            let bare = old.tags.iter().filter(|(_, value)| value.is_none());
            new.tags.extend(bare.map(|(key, value)| (key.clone(), value.clone())));
        }
        new
    }

    fn timestamp(&self) -> Option<DateTime<Utc>> {
        self.value.as_object()?.get("timestamp")?.as_timestamp().copied()
    }

    /// Whether this path of a metric may be set to this value.
    fn may_set(path: &OwnedTargetPath, value: &Value) -> Result<(), String> {
        let fields: Vec<&str> = path
            .path
            .segments
            .iter()
            .map(|segment| match segment {
                OwnedSegment::Field(field) => field.as_str(),
                OwnedSegment::Index(_) => "[]",
            })
            .collect();
        let fits = match fields.as_slice() {
            ["name" | "namespace"] | ["tags", _] => value.is_bytes(),
            ["kind"] => value.to_str_lossy().is_some_and(|kind| kind == "absolute" || kind == "incremental"),
            ["timestamp"] => value.is_timestamp(),
            ["tags"] => value.is_object(),
            _ => return Err(format!("only {} of a metric can be set, not {path}", SETTABLE.join(", "))),
        };
        if fits { Ok(()) } else { Err(format!("{path} of a metric cannot be {}", value.kind_str())) }
    }
}

impl Target for MetricTarget {
    fn target_insert(&mut self, path: &OwnedTargetPath, value: Value) -> Result<(), String> {
        match path.prefix {
            PathPrefix::Metadata => {
                self.metadata.insert(&path.path, value);
            }
            PathPrefix::Event => {
                Self::may_set(path, &value)?;
                self.value.insert(&path.path, value);
            }
        }
        Ok(())
    }

    fn target_get(&self, path: &OwnedTargetPath) -> Result<Option<&Value>, String> {
        Ok(match path.prefix {
            PathPrefix::Metadata => self.metadata.get(&path.path),
            PathPrefix::Event => self.value.get(&path.path),
        })
    }

    fn target_get_mut(&mut self, path: &OwnedTargetPath) -> Result<Option<&mut Value>, String> {
        Ok(match path.prefix {
            PathPrefix::Metadata => self.metadata.get_mut(&path.path),
            PathPrefix::Event => self.value.get_mut(&path.path),
        })
    }

    fn target_remove(&mut self, path: &OwnedTargetPath, compact: bool) -> Result<Option<Value>, String> {
        Ok(match path.prefix {
            PathPrefix::Metadata => self.metadata.remove(&path.path, compact),
            PathPrefix::Event => self.value.remove(&path.path, compact),
        })
    }
}

/// Secrets are not used.
impl SecretTarget for MetricTarget {
    fn get_secret(&self, _key: &str) -> Option<&str> {
        None
    }

    fn insert_secret(&mut self, _key: &str, _value: &str) {}

    fn remove_secret(&mut self, _key: &str) {}
}
