//! Who reads what: inputs with stars are expanded as Vector expands them, then the whole graph is checked.
//!
//! Stricter than Vector where our pipeline can go wrong silently: an output that nobody reads, and a sink that reads a source directly though a
//! transform exists for it (so that the rename is bypassed, vectordotdev/vector#710), are errors.

use std::collections::{BTreeSet, HashSet};

use indexmap::IndexMap;

use crate::config::{Config, Problem};

/// What kind of events an output or input carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Logs,
    Metrics,
    Either,
}

/// The expanded graph.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Every output (`name` or `name.port`), with the components that read it, in order.
    pub readers: IndexMap<String, Vec<String>>,
    /// For each transform and sink the outputs it reads.
    pub inputs: IndexMap<String, Vec<String>>,
}

/// Expands and checks; all that is wrong is reported at once.
pub fn build(config: &Config) -> (Topology, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut topology = Topology::default();
    for output in outputs(config) {
        topology.readers.insert(output, Vec::new());
    }
    let consumers = config
        .transforms
        .iter()
        .map(|(name, t)| (name, "transforms", &t.file, &t.inputs))
        .chain(config.sinks.iter().map(|(name, s)| (name, "sinks", &s.file, &s.inputs)));
    for (name, section, file, patterns) in consumers {
        let mut problem = |message| {
            problems.push(Problem { file: file.clone(), place: format!("{section}.{name}.inputs"), message });
        };
        if patterns.is_empty() {
            problem("nothing to read: name at least one source or transform".into());
        }
        let mut inputs = BTreeSet::new();
        for pattern in patterns {
            let matching: Vec<String> =
                topology.readers.keys().filter(|o| *o != name && matches(pattern, o)).cloned().collect();
            if matching.is_empty() {
                let known = topology.readers.keys().map(String::as_str);
                problem(crate::config::unknown("input", pattern, known));
            }
            inputs.extend(matching);
        }
        for input in &inputs {
            if let Some(readers) = topology.readers.get_mut(input) {
                readers.push(name.clone());
            }
        }
        topology.inputs.insert(name.clone(), inputs.into_iter().collect());
    }
    problems.extend(unread(config, &topology));
    problems.extend(bypasses(config, &topology));
    problems.extend(wrong_kinds(config, &topology));
    problems.extend(cycles(config, &topology));
    (topology, problems)
}

/// Whether a name matches a pattern with `*` (any characters, dots too) and `?`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // `star` is where the last star stands, and from where of the name it was tried.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*' {
            p += 1;
            n += 1;
        } else if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, n));
            p += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Every output of every source and transform.
fn outputs(config: &Config) -> Vec<String> {
    let mut outputs: Vec<String> = config.sources.keys().cloned().collect();
    for (name, transform) in &config.transforms {
        match transform.kind.as_str() {
            // A route has only named outputs.
            "route" => {
                let routes = transform.options["route"].as_mapping();
                outputs.extend(
                    routes
                        .into_iter()
                        .flat_map(|map| map.keys())
                        .filter_map(|key| Some(format!("{name}.{}", key.as_str()?))),
                );
                if transform.options["reroute_unmatched"].as_bool() != Some(false) {
                    outputs.push(format!("{name}._unmatched"));
                }
            }
            "remap" if transform.options["reroute_dropped"].as_bool() == Some(true) => {
                outputs.extend([name.clone(), format!("{name}.dropped")]);
            }
            _ => outputs.push(name.clone()),
        }
    }
    outputs
}

fn component(output: &str) -> &str {
    output.split('.').next().unwrap_or(output)
}

fn unread<'a>(config: &'a Config, topology: &'a Topology) -> impl Iterator<Item = Problem> + 'a {
    topology.readers.iter().filter(|(_, readers)| readers.is_empty()).map(|(output, _)| {
        let name = component(output);
        let (section, file) = match config.sources.get(name) {
            Some(source) => ("sources", source.file.clone()),
            None => ("transforms", config.transforms[name].file.clone()),
        };
        Problem { file, place: format!("{section}.{output}"), message: "nobody reads this output".into() }
    })
}

fn bypasses<'a>(config: &'a Config, topology: &'a Topology) -> impl Iterator<Item = Problem> + 'a {
    config.sinks.iter().flat_map(move |(name, sink)| {
        topology.inputs.get(name).into_iter().flatten().filter_map(move |input| {
            config.sources.get(input)?;
            let through = topology.readers.get(input)?.iter().find(|r| config.transforms.contains_key(*r))?;
            Some(Problem {
                file: sink.file.clone(),
                place: format!("sinks.{name}.inputs"),
                message: format!("reads the source `{input}` directly and so bypasses `{through}`; name what comes after it"),
            })
        })
    })
}

fn carries(config: &Config, topology: &Topology, output: &str, depth: usize) -> Carries {
    let name = component(output);
    if let Some(source) = config.sources.get(name) {
        return if source.kind == "syslog" { Carries::Logs } else { Carries::Metrics };
    }
    // Cycles are reported elsewhere; here they only must end.
    if depth > config.transforms.len() {
        return Carries::Either;
    }
    let mut kinds =
        topology.inputs.get(name).into_iter().flatten().map(|i| carries(config, topology, i, depth + 1));
    let first = kinds.next().unwrap_or(Carries::Either);
    if kinds.all(|kind| kind == first) { first } else { Carries::Either }
}

fn takes(kind: &str) -> Carries {
    match kind {
        "prometheus_exporter" | "statsd" | "tag_cardinality_limit" => Carries::Metrics,
        "dedupe" | "loki" | "elasticsearch" => Carries::Logs,
        _ => Carries::Either,
    }
}

fn wrong_kinds<'a>(config: &'a Config, topology: &'a Topology) -> impl Iterator<Item = Problem> + 'a {
    let transforms = config.transforms.iter().map(|(name, t)| (name, "transforms", &t.kind, &t.file));
    let sinks = config.sinks.iter().map(|(name, s)| (name, "sinks", &s.kind, &s.file));
    transforms.chain(sinks).flat_map(move |(name, section, kind, file)| {
        topology.inputs.get(name).into_iter().flatten().filter_map(move |input| {
            let (takes, gets) = (takes(kind), carries(config, topology, input, 0));
            let message = match (takes, gets) {
                (Carries::Metrics, Carries::Logs) => {
                    format!("`{input}` carries log events, a {kind} takes metrics")
                }
                (Carries::Logs, Carries::Metrics) => {
                    format!("`{input}` carries metrics, a {kind} takes log events")
                }
                _ => return None,
            };
            Some(Problem { file: file.clone(), place: format!("{section}.{name}.inputs"), message })
        })
    })
}

fn cycles(config: &Config, topology: &Topology) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, transform) in &config.transforms {
        let mut seen = HashSet::new();
        let mut open = vec![name.as_str()];
        while let Some(at) = open.pop() {
            for input in topology.inputs.get(at).into_iter().flatten().map(|input| component(input)) {
                if input == name {
                    let message = "reads what comes out of itself".into();
                    let place = format!("transforms.{name}.inputs");
                    problems.push(Problem { file: transform.file.clone(), place, message });
                    open.clear();
                    break;
                }
                if seen.insert(input) {
                    open.push(input);
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_dots_too() {
        assert!(matches("*_metrics", "here_metrics"));
        assert!(matches("a*", "a.dropped"), "as in Vector: a star reaches named outputs");
        assert!(matches("*", ""));
        assert!(matches("a*c*e", "abcde"));
        assert!(!matches("a*c", "abcd"));
        assert!(!matches("*_metrics", "metrics"));
        assert!(matches("loop?", "loop0"));
        assert!(!matches("loop?", "loop10"));
    }
}
