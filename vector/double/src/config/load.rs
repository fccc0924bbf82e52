//! Reads the files, merges them as `vector --config A --config B` does, and checks every option.
//!
//! All that is wrong in all files is reported at once; what can be understood is kept, so that later checks can report too.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_yaml_ng::{Mapping, Value};

use super::options::{self, Section};
use super::shape::unknown;
use super::{Problem, Shape, check, interpolate};

/// Everything the files say.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `sources`, by name.
    pub sources: IndexMap<String, Source>,
    /// `transforms`, by name.
    pub transforms: IndexMap<String, Transform>,
    /// `sinks`, by name.
    pub sinks: IndexMap<String, Sink>,
    /// `tests`, in order.
    pub tests: Vec<TestCase>,
    /// Where the API listens, if it is on.
    pub api: Option<String>,
}

/// A source.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file it stands in.
    pub file: PathBuf,
    /// Its `type`.
    pub kind: String,
    /// Its options.
    pub options: Value,
}

/// A transform.
#[derive(Clone, Debug)]
pub struct Transform {
    /// The file it stands in.
    pub file: PathBuf,
    /// Its `type`.
    pub kind: String,
    /// The names or patterns it reads.
    pub inputs: Vec<String>,
    /// Its options.
    pub options: Value,
}

/// A sink.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The file it stands in.
    pub file: PathBuf,
    /// Its `type`.
    pub kind: String,
    /// The names or patterns it reads.
    pub inputs: Vec<String>,
    /// Its options.
    pub options: Value,
}

/// One of `tests`.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// The file it stands in.
    pub file: PathBuf,
    /// The whole case.
    pub value: Value,
}

/// The configuration, and all that is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What could be understood.
    pub config: Config,
    /// What is wrong; empty when all is well.
    pub problems: Vec<Problem>,
}

/// Reads and merges these files; `variable` looks up environment variables.
pub fn load(files: &[PathBuf], variable: impl Fn(&str) -> Option<String>) -> Loaded {
    let mut loaded = Loaded::default();
    for file in files {
        match read(file, &variable) {
            Ok(top) => add_file(file, top, &mut loaded),
            Err(problems) => loaded.problems.extend(problems),
        }
    }
    loaded
}

fn read(file: &Path, variable: &impl Fn(&str) -> Option<String>) -> Result<Mapping, Vec<Problem>> {
    let problem = |message: String| Problem { file: file.into(), place: String::new(), message };
    let text =
        std::fs::read_to_string(file).map_err(|error| vec![problem(format!("cannot be read: {error}"))])?;
    let text = interpolate(&text, variable)
        .map_err(|errors| errors.iter().map(|error| problem(error.to_string())).collect::<Vec<_>>())?;
    match serde_yaml_ng::from_str(&text) {
        Ok(Value::Mapping(top)) => Ok(top),
        Ok(Value::Null) => Ok(Mapping::new()),
        Ok(_) => Err(vec![problem("must be an object with sources, transforms, sinks or tests".into())]),
        Err(error) => Err(vec![problem(format!("is no YAML: {error}"))]),
    }
}

fn add_file(file: &Path, top: Mapping, loaded: &mut Loaded) {
    let mut found = Vec::new();
    check(Shape::Object(options::TOP), &Value::Mapping(top.clone()), "", &mut found);
    for (key, value) in top {
        let key = key.as_str().unwrap_or("?").to_owned();
        match key.as_str() {
            "sources" => section(Section::Sources, file, value, loaded, &mut found),
            "transforms" => section(Section::Transforms, file, value, loaded, &mut found),
            "sinks" => section(Section::Sinks, file, value, loaded, &mut found),
            "tests" => {
                let cases = value.as_sequence().cloned().unwrap_or_default();
                loaded
                    .config
                    .tests
                    .extend(cases.into_iter().map(|value| TestCase { file: file.into(), value }));
            }
            "api" if value["enabled"].as_bool() == Some(true) => {
                loaded.config.api = Some(value["address"].as_str().unwrap_or("127.0.0.1:8686").to_owned());
            }
            _ => {}
        }
    }
    loaded.problems.extend(found.into_iter().map(|(place, message)| Problem {
        file: file.into(),
        place,
        message,
    }));
}

fn section(
    section: Section,
    file: &Path,
    value: Value,
    loaded: &mut Loaded,
    found: &mut Vec<(String, String)>,
) {
    let Value::Mapping(components) = value else {
        found.push((section.as_str().into(), "must be an object of components".into()));
        return;
    };
    for (name, mut options) in components {
        let name = name.as_str().unwrap_or("?").to_owned();
        let place = format!("{}.{name}", section.as_str());
        if name.contains(['.', '*']) || name.is_empty() {
            found.push((place.clone(), "a component's name has neither dots nor stars".into()));
        }
        let Some(kind) = component_kind(section, &place, &mut options, found) else { continue };
        check_component(section, &kind, &options, &place, found);
        let config = &mut loaded.config;
        if config.sources.contains_key(&name)
            || config.transforms.contains_key(&name)
            || config.sinks.contains_key(&name)
        {
            found.push((place, "another component has this name already".into()));
            continue;
        }
        let inputs = texts(&options["inputs"]);
        let file = file.to_owned();
        match section {
            Section::Sources => {
                config.sources.insert(name, Source { file, kind, options });
            }
            Section::Transforms => {
                config.transforms.insert(name, Transform { file, kind, inputs, options });
            }
            Section::Sinks => {
                config.sinks.insert(name, Sink { file, kind, inputs, options });
            }
        }
    }
}

/// Takes `type` out of the options; names what is wrong with it.
fn component_kind(
    section: Section,
    place: &str,
    options: &mut Value,
    found: &mut Vec<(String, String)>,
) -> Option<String> {
    let Some(map) = options.as_mapping_mut() else {
        found.push((place.into(), "must be an object".into()));
        return None;
    };
    let Some(Value::String(kind)) = map.remove("type") else {
        found.push((place.into(), "`type` is missing".into()));
        return None;
    };
    if !section.types().contains(&kind.as_str()) {
        found.push((place.into(), unknown("type", &kind, section.types().iter().copied())));
        return None;
    }
    Some(kind)
}

fn check_component(
    section: Section,
    kind: &str,
    options: &Value,
    place: &str,
    found: &mut Vec<(String, String)>,
) {
    let mode = options["mode"].as_str();
    if let Some(modes) = options::modes(section, kind) {
        match mode {
            Some(mode) if modes.contains(&mode) => {}
            Some(mode) => {
                found.push((format!("{place}.mode"), unknown("mode", mode, modes.iter().copied())));
                return;
            }
            None => {
                found.push((place.into(), format!("`mode` is missing: {}", modes.join(", "))));
                return;
            }
        }
    }
    if let Some(fields) = options::options(section, kind, mode) {
        check(Shape::Object(fields), options, place, found);
    }
    if kind == "remap" && options["source"].is_string() == options["file"].is_string() {
        found.push((place.into(), "either `source` or `file` must be given".into()));
    }
    if kind == "prometheus_exporter" {
        let bounds: Vec<f64> =
            options["buckets"].as_sequence().into_iter().flatten().filter_map(Value::as_f64).collect();
        if bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
            found.push((format!("{place}.buckets"), "must grow from one to the next".into()));
        }
    }
}

/// The texts of a list.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    value
        .as_sequence()
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(ToOwned::to_owned))
        .collect()
}
