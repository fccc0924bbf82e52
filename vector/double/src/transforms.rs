//! The transforms our pipeline uses: remap (real VRL), route, filter, dedupe, tag_cardinality_limit.

mod cardinality;
mod dedupe;
pub mod program;
mod remap;

use std::collections::HashMap;

use serde_yaml_ng::Value as Yaml;
use vrl::value::Value;

use crate::config::Transform;
use crate::event::Event;
use cardinality::Limit;
use dedupe::Dedupe;
use program::{Condition, Program};
use remap::Remap;

/// A transform that is ready to run.
pub struct Node {
    name: String,
    work: Work,
}

enum Work {
    Remap(Box<Remap>),
    Route { routes: Vec<(String, Condition)>, unmatched: bool },
    Filter(Condition),
    Dedupe(Dedupe),
    Limit(Limit),
}

/// What a transform did with an event.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The events, each with the output it leaves by.
    pub out: Vec<(String, Event)>,
    /// Why the event failed, if it did.
    pub error: Option<String>,
    /// Events that went nowhere; `true` if that was meant.
    pub discarded: Option<bool>,
}

impl Node {
    /// Prepares a transform: compiles its VRL, or says what is wrong with it. `warnings` gets the compiler's.
    pub fn build(name: &str, transform: &Transform, warnings: &mut Vec<String>) -> Result<Self, String> {
        let options = &transform.options;
        let work = match transform.kind.as_str() {
            "remap" => Work::Remap(Box::new(Remap::build(name, options, warnings)?)),
            "route" => Work::Route {
                routes: options["route"]
                    .as_mapping()
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| {
                        Ok((format!("{name}.{}", key.as_str().unwrap_or("?")), condition(value)?))
                    })
                    .collect::<Result<_, String>>()?,
                unmatched: options["reroute_unmatched"].as_bool() != Some(false),
            },
            "filter" => Work::Filter(condition(&options["condition"])?),
            "dedupe" => Work::Dedupe(Dedupe::build(options)),
            "tag_cardinality_limit" => Work::Limit(Limit::build(options)),
            other => return Err(format!("the double does not run a `{other}` transform")),
        };
        Ok(Self { name: name.into(), work })
    }

    /// One event through the transform.
    pub fn process(&mut self, event: Event) -> Outcome {
        let single =
            |name: &str, event| Outcome { out: vec![(name.to_owned(), event)], ..Outcome::default() };
        let dropped = || Outcome { discarded: Some(true), ..Outcome::default() };
        match &mut self.work {
            Work::Remap(remap) => remap.process(event),
            Work::Route { routes, unmatched } => {
                let mut outcome = Outcome::default();
                for (output, condition) in routes {
                    if condition.holds(&event) {
                        outcome.out.push((output.clone(), event.clone()));
                    }
                }
                if outcome.out.is_empty() {
                    if *unmatched {
                        return single(&format!("{}._unmatched", self.name), event);
                    }
                    outcome.discarded = Some(true);
                }
                outcome
            }
            Work::Filter(condition) => {
                if condition.holds(&event) {
                    single(&self.name, event)
                } else {
                    dropped()
                }
            }
            Work::Dedupe(dedupe) => {
                if dedupe.is_new(&event) {
                    single(&self.name, event)
                } else {
                    dropped()
                }
            }
            Work::Limit(limit) => match limit.apply(event) {
                Some(event) => single(&self.name, event),
                // Vector counts this as meant, and besides as `tag_value_limit_exceeded_total`.
                None => dropped(),
            },
        }
    }
}

/// A condition as YAML has it: the VRL itself, or an object with `type` and `source`.
pub(crate) fn condition(value: &Yaml) -> Result<Condition, String> {
    let source = value.as_str().or_else(|| value["source"].as_str()).unwrap_or_default();
    Condition::new(Program::compile(source, &mut Vec::new())?, source)
}

/// The value at a dotted path of a log event, for `dedupe`.
fn at<'a>(event: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(event, |value, key| value.as_object()?.get(key))
}

/// All top-level fields of a log event.
fn fields(event: &Value) -> HashMap<String, &Value> {
    event.as_object().into_iter().flatten().map(|(key, value)| (key.to_string(), value)).collect()
}
