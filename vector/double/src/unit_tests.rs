//! The `tests:` of the configuration, as `vector test` runs them: events are inserted at a transform, and conditions are checked on what comes out
//! of this or a later one.
//!
//! Each test has transforms of its own, so a `dedupe` starts empty. Of several events from one output each condition list must hold for at least
//! one event, as in Vector.

use indexmap::IndexMap;
use serde_yaml_ng::Value as Yaml;
use vrl::value::{ObjectMap, Value};

use crate::config::{Config, TestCase, texts};
use crate::event::{Event, Kind, Metric, MetricValue};
use crate::topology::Topology;
use crate::transforms::Node;
use crate::transforms::program::{Program, Run};

/// What came of one test.
#[derive(Debug)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// The file it stands in.
    pub file: std::path::PathBuf,
    /// Everything that did not hold; empty when it passed.
    pub failures: Vec<String>,
}

/// Runs every test.
pub fn run(config: &Config, topology: &Topology) -> Vec<Report> {
    config
        .tests
        .iter()
        .map(|case| Report {
            name: case.value["name"].as_str().unwrap_or("without a name").into(),
            file: case.file.clone(),
            failures: one(config, topology, case).unwrap_or_else(|error| vec![error]),
        })
        .collect()
}

fn one(config: &Config, topology: &Topology, case: &TestCase) -> Result<Vec<String>, String> {
    let mut nodes = IndexMap::new();
    for (name, transform) in &config.transforms {
        nodes.insert(name.clone(), Node::build(name, transform, &mut Vec::new())?);
    }
    let mut seen: IndexMap<String, Vec<Event>> = IndexMap::new();
    for input in case.value["inputs"].as_sequence().into_iter().flatten() {
        let at = input["insert_at"].as_str().unwrap_or_default();
        if !nodes.contains_key(at) {
            return Err(format!("insert_at: there is no transform `{at}`"));
        }
        for event in events(input)? {
            through(&mut nodes, topology, at, event, &mut seen);
        }
    }
    let outputs = case.value["outputs"].as_sequence().map(Vec::as_slice).unwrap_or_default();
    let silent = texts(&case.value["no_outputs_from"]);
    if outputs.is_empty() && silent.is_empty() {
        return Err("has neither `outputs` nor `no_outputs_from`".into());
    }
    let mut failures = Vec::new();
    for output in outputs {
        let names = match &output["extract_from"] {
            Yaml::String(name) => vec![name.clone()],
            list => texts(list),
        };
        for name in &names {
            if !topology.readers.contains_key(name) {
                return Err(crate::config::unknown(
                    "output",
                    name,
                    topology.readers.keys().map(String::as_str),
                ));
            }
        }
        let events: Vec<Event> =
            names.iter().flat_map(|name| seen.get(name).cloned().unwrap_or_default()).collect();
        failures.extend(check_output(&names.join(", "), output, &events)?);
    }
    for name in silent {
        if !topology.readers.contains_key(&name) {
            return Err(crate::config::unknown("output", &name, topology.readers.keys().map(String::as_str)));
        }
        if let Some(event) = seen.get(&name).and_then(|events| events.first()) {
            failures.push(format!("nothing should come out of `{name}`, but this did: {}", event.to_json()));
        }
    }
    Ok(failures)
}

/// Sends an event through a transform and all that follow; notes what comes out of each.
fn through(
    nodes: &mut IndexMap<String, Node>,
    topology: &Topology,
    name: &str,
    event: Event,
    seen: &mut IndexMap<String, Vec<Event>>,
) {
    let Some(node) = nodes.get_mut(name) else { return };
    for (output, event) in node.process(event).out {
        seen.entry(output.clone()).or_default().push(event.clone());
        for reader in topology.readers.get(&output).into_iter().flatten() {
            through(nodes, topology, reader, event.clone(), seen);
        }
    }
}

fn check_output(name: &str, output: &Yaml, events: &[Event]) -> Result<Vec<String>, String> {
    if events.is_empty() {
        return Ok(vec![format!("nothing came out of `{name}`")]);
    }
    let mut programs = Vec::new();
    for condition in output["conditions"].as_sequence().into_iter().flatten() {
        let source = condition.as_str().or_else(|| condition["source"].as_str()).unwrap_or_default();
        programs.push(Program::compile(source, &mut Vec::new())?);
    }
    let mut failures = Vec::new();
    for event in events {
        let wrong: Vec<String> = programs.iter_mut().filter_map(|program| holds(program, event)).collect();
        if wrong.is_empty() {
            return Ok(Vec::new());
        }
        failures.extend(
            wrong.into_iter().map(|wrong| format!("`{name}`: {wrong}; the event is {}", event.to_json())),
        );
    }
    Ok(failures)
}

/// Why a condition does not hold.
fn holds(program: &mut Program, event: &Event) -> Option<String> {
    match program.run(event) {
        Run::Done(Value::Boolean(false), _) => Some("the condition is false".into()),
        Run::Done(Value::Boolean(true), _) => None,
        Run::Done(other, _) => Some(format!("the condition is neither true nor false, but {other}")),
        Run::Aborted(error) | Run::Failed(error) => Some(error),
    }
}

fn events(input: &Yaml) -> Result<Vec<Event>, String> {
    match input["type"].as_str().unwrap_or("raw") {
        "raw" => {
            let mut fields = ObjectMap::new();
            fields.insert("message".into(), input["value"].as_str().unwrap_or_default().into());
            Ok(vec![Event::Log(Value::Object(fields))])
        }
        "log" => {
            let fields = serde_json::to_value(&input["log_fields"]).map_err(|error| error.to_string())?;
            Ok(vec![Event::Log(fields.into())])
        }
        "metric" => Ok(vec![Event::Metric(metric(&input["metric"])?)]),
        _ => {
            let source = input["source"].as_str().ok_or("an input of type vrl needs `source`")?;
            let mut program = Program::compile(source, &mut Vec::new())?;
            match program.run(&Event::Log(Value::Object(ObjectMap::new()))) {
                Run::Done(_, event) => Ok(vec![event]),
                Run::Aborted(error) | Run::Failed(error) => {
                    Err(format!("the input's program failed: {error}"))
                }
            }
        }
    }
}

fn metric(input: &Yaml) -> Result<Metric, String> {
    let number = |kind: &str| input[kind]["value"].as_f64();
    let value = if let Some(value) = number("counter") {
        MetricValue::Counter(value)
    } else if let Some(value) = number("gauge") {
        MetricValue::Gauge(value)
    } else if input["set"].is_mapping() {
        MetricValue::Set(texts(&input["set"]["values"]).into_iter().collect())
    } else if let Some(samples) = input["distribution"]["samples"].as_sequence() {
        let sample = |item: &Yaml| Some((item["value"].as_f64()?, item["rate"].as_u64()? as u32));
        MetricValue::Distribution {
            samples: samples.iter().filter_map(sample).collect(),
            summary: input["distribution"]["statistic"].as_str() == Some("summary"),
        }
    } else {
        return Err("a metric needs counter, gauge, set or distribution".into());
    };
    let kind = if input["kind"].as_str() == Some("absolute") { Kind::Absolute } else { Kind::Incremental };
    let mut metric = Metric::new(input["name"].as_str().unwrap_or_default(), kind, value);
    metric = metric.with_namespace(input["namespace"].as_str().unwrap_or_default());
    for (key, value) in input["tags"].as_mapping().into_iter().flatten() {
        metric = metric.with_tag(key.as_str().unwrap_or_default(), value.as_str().unwrap_or_default());
    }
    Ok(metric)
}
