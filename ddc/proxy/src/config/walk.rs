//! The file as a tree with line numbers, and the walk that compares it with the schema.
//!
//! serde stops at the first mistake and knows little of places; so the tree is walked first, beside the schema, and
//! every unknown key, missing key and wrong value is reported. What passes here deserializes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Remark;
use super::raw::PROPERTY_FORMAT;
use super::schema::{Key, choices, is_type};
use super::values;

/// A parsed file that knows the line of every key.
pub(crate) struct Document<'a> {
    text: &'a str,
    tree: Spanned<DeTable<'a>>,
    /// The first byte of each line.
    line_starts: Vec<usize>,
}

/// The most syntax errors that are told: after the first few, the parser only guesses.
const MOST_SYNTAX_ERRORS: usize = 5;

impl<'a> Document<'a> {
    /// Parses the text; syntax errors come with their lines.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Vec<Remark>> {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect::<Vec<_>>();
        let (tree, errors) = DeTable::parse_recoverable(text);
        let document = Self { text, tree, line_starts };
        if errors.is_empty() {
            return Ok(document);
        }
        // One mistake can make several errors on its line: the first says it best.
        let mut by_line = BTreeMap::new();
        for error in errors {
            let line = error.span().map(|span| document.line_at(span.start));
            by_line.entry(line).or_insert_with(|| syntax(error.message()));
        }
        let remarks = by_line.into_iter().map(|(line, message)| Remark { line, message });
        Err(remarks.take(MOST_SYNTAX_ERRORS).collect())
    }

    /// Whether there is a table or key of this name at the top level.
    pub(crate) fn has(&self, path: &[&str]) -> bool {
        self.find(path).is_some_and(|(_, depth)| depth == path.len())
    }

    /// The line of a key (list elements are named by their number), or of its nearest parent that is written.
    pub(crate) fn line(&self, path: &[&str]) -> Option<usize> {
        self.find(path).map(|(at, _)| self.line_at(at))
    }

    /// The byte at which the deepest written part of `path` stands, and how many parts of it are written.
    fn find(&self, path: &[&str]) -> Option<(usize, usize)> {
        let (first, rest) = path.split_first()?;
        let (key, mut value) = self.tree.get_ref().get_key_value(*first)?;
        let (mut at, mut depth) = (key.span().start, 1);
        for part in rest {
            match value.get_ref() {
                DeValue::Table(table) => {
                    let Some((key, inner)) = table.get_key_value(*part) else { break };
                    at = key.span().start;
                    value = inner;
                }
                DeValue::Array(list) => {
                    let Some(inner) = part.parse().ok().and_then(|n: usize| list.get(n)) else { break };
                    at = inner.span().start;
                    value = inner;
                }
                _ => break,
            }
            depth += 1;
        }
        Some((at, depth))
    }

    fn line_at(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= byte)
    }

    /// Compares the file with `schema`; `other` is the other side's, to tell keys that belong there.
    pub(crate) fn check(&self, schema: &Value, other: &Value) -> Vec<Remark> {
        let empty = Map::new();
        let (schema, other) = (schema.as_object().unwrap_or(&empty), other.as_object());
        let mut walk = Walk { document: self, root: schema, found: Vec::new() };
        walk.table(&Place::root(), self.tree.get_ref(), schema, other);
        walk.found.sort_by_key(|remark| remark.line.unwrap_or(0));
        walk.found
    }

    /// The file as a typed struct; only called after [`Self::check`] found nothing.
    pub(crate) fn deserialize<T: serde::de::DeserializeOwned>(&self) -> Result<T, Remark> {
        toml::from_str(self.text).map_err(|error| Remark {
            line: error.span().map(|span| self.line_at(span.start)),
            message: one_line(error.message()),
        })
    }
}

/// A syntax error in the parser's words; the most common one is put plainly.
fn syntax(message: &str) -> String {
    let message = one_line(message);
    let unquoted = ["string values must be quoted", "invalid float", "invalid integer", "invalid date"];
    if unquoted.iter().any(|start| message.starts_with(start)) {
        return "not TOML: this is no value; text stands in quotes, for example \"5ms\"".to_owned();
    }
    format!("not TOML: {message}")
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

/// Where the walk stands: the path of a table and how it is written in TOML.
#[derive(Clone)]
struct Place {
    path: Vec<String>,
    list: bool,
}

impl Place {
    fn root() -> Self {
        Self { path: Vec::new(), list: false }
    }

    fn into(&self, key: &str, list: bool) -> Self {
        Self { path: self.path.iter().cloned().chain([key.to_owned()]).collect(), list }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.path.is_empty(), self.list) {
            (true, _) => f.write_str("at the top"),
            (false, true) => write!(f, "in [[{}]]", self.path.join(".")),
            (false, false) => write!(f, "in [{}]", self.path.join(".")),
        }
    }
}

struct Walk<'d, 's> {
    document: &'d Document<'d>,
    root: &'s Map<String, Value>,
    found: Vec<Remark>,
}

impl Walk<'_, '_> {
    fn report(&mut self, byte: usize, message: String) {
        self.found.push(Remark { line: Some(self.document.line_at(byte)), message });
    }

    fn table(
        &mut self,
        place: &Place,
        table: &DeTable<'_>,
        schema: &Map<String, Value>,
        other: Option<&Map<String, Value>>,
    ) {
        for (name, value) in table {
            let Some(key) = Key::all(schema).find(|key| key.name == name.get_ref()) else {
                let message = self.unknown(place, name.get_ref(), schema, other);
                self.report(name.span().start, message);
                continue;
            };
            let inside = other
                .and_then(|other| Key::all(other).find(|other| other.name == key.name))
                .map(|other| other.table_of_list().unwrap_or(other.schema));
            self.value(place, &key, value, inside);
        }
        self.missing(place, table, schema);
    }

    fn missing(&mut self, place: &Place, table: &DeTable<'_>, schema: &Map<String, Value>) {
        for key in Key::all(schema).filter(|key| key.required && !table.contains_key(key.name)) {
            if key.is_table() {
                // What is required inside is named, each with its example.
                self.missing(&place.into(key.name, false), &DeTable::new(), key.schema);
                continue;
            }
            let example = key.example().map(toml_text).unwrap_or_default();
            let path: Vec<&str> = place.path.iter().map(String::as_str).collect();
            self.found.push(Remark {
                line: self.document.line(&path),
                message: format!("missing key `{}` {place}; for example: {} = {example}", key.name, key.name),
            });
        }
    }

    fn unknown(
        &self,
        place: &Place,
        name: &str,
        schema: &Map<String, Value>,
        other: Option<&Map<String, Value>>,
    ) -> String {
        let message = format!("unknown key `{name}` {place}");
        if other.is_some_and(|other| Key::all(other).any(|key| key.name == name)) {
            let ingress = self.root.get("properties").is_some_and(|keys| keys.get("source").is_some());
            let (theirs, ours) =
                if ingress { ("an egress", "an ingress") } else { ("an ingress", "an egress") };
            return format!("{message}: it is a key of {theirs}, and this file configures {ours}");
        }
        if name.ends_with("password") && Key::all(schema).any(|key| key.name == format!("{name}_file")) {
            return format!(
                "{message}: secrets do not stand in this file; write `{name}_file` or `{name}_env`"
            );
        }
        if let Some(near) = nearest(name, Key::all(schema).map(|key| key.name)) {
            return format!("{message}; did you mean `{near}`?");
        }
        if let Some(place) = home_of(name, self.root, &Place::root()) {
            return format!("{message}; it belongs {place}");
        }
        let known: Vec<_> = Key::all(schema).map(|key| format!("`{}`", key.name)).collect();
        format!("{message}; known here: {}", known.join(", "))
    }

    fn value(
        &mut self,
        place: &Place,
        key: &Key<'_>,
        value: &Spanned<DeValue<'_>>,
        other: Option<&Map<String, Value>>,
    ) {
        let at = value.span().start;
        if let Some(items) = key.table_of_list() {
            let inner = place.into(key.name, true);
            let tables = value
                .get_ref()
                .as_array()
                .map(|list| list.iter().filter_map(|item| item.get_ref().as_table()).collect::<Vec<_>>());
            match tables {
                Some(tables) if value.get_ref().as_array().is_some_and(|list| list.len() == tables.len()) => {
                    for table in tables {
                        self.table(&inner, table, items, other);
                    }
                }
                _ => {
                    let header = inner.path.join(".");
                    let message =
                        format!("`{}` {place}: must be a list of tables, written [[{header}]]", key.name);
                    self.report(at, message);
                }
            }
        } else if key.is_table() || key.is_free_table() {
            let inner = place.into(key.name, false);
            match value.get_ref().as_table() {
                Some(table) if key.is_table() => self.table(&inner, table, key.schema, other),
                Some(table) => self.free_table(&inner, table, key.schema),
                None => {
                    let header = inner.path.join(".");
                    self.report(at, format!("`{}` {place}: must be a table, written [{header}]", key.name));
                }
            }
        } else if let Err(why) = leaf(value.get_ref(), key.schema, key.example().or(key.default())) {
            self.report(at, format!("`{}` {place}: {why}", key.name));
        } else if let (Some(list), Some(Value::Object(items))) =
            (value.get_ref().as_array(), key.schema.get("items"))
        {
            for item in list {
                let example = key.example().and_then(|example| example.get(0));
                if let Err(why) = leaf(item.get_ref(), items, example) {
                    self.report(item.span().start, format!("`{}` {place}: {why}", key.name));
                }
            }
        }
    }

    /// A table whose keys are the user's: only the values are checked.
    fn free_table(&mut self, place: &Place, table: &DeTable<'_>, schema: &Map<String, Value>) {
        let Some(Value::Object(values)) = schema.get("additionalProperties") else { return };
        for (name, value) in table {
            if let Err(why) = leaf(value.get_ref(), values, None) {
                self.report(value.span().start, format!("`{}` {place}: {why}", name.get_ref()));
            }
        }
    }
}

/// Checks one value against its schema; the text says what is wrong and shows what would be right.
fn leaf(value: &DeValue<'_>, schema: &Map<String, Value>, example: Option<&Value>) -> Result<(), String> {
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    if format == PROPERTY_FORMAT {
        return property(value);
    }
    let example = example.map(|example| format!("; for example {}", toml_text(example))).unwrap_or_default();
    let words = choices(schema);
    if !words.is_empty() {
        let Some(word) = value.as_str() else {
            return Err(format!("must be one of {}, not {}", list(&words), described(value)));
        };
        if words.iter().any(|(known, _)| *known == word) {
            return Ok(());
        }
        let near = nearest(word, words.iter().map(|(known, _)| *known));
        return Err(match near {
            Some(near) => format!("{word:?} is not known; did you mean {near:?}? Known: {}", list(&words)),
            None => format!("{word:?} is not known; known: {}", list(&words)),
        });
    }
    if is_type(schema, "string") {
        let text = value.as_str().ok_or_else(|| {
            let example = if example.is_empty() { sample(format) } else { example.clone() };
            let label = values::label(format).map(|label| format!(" ({label})")).unwrap_or_default();
            format!("must be text in quotes{label}, not {}{example}", described(value))
        })?;
        return values::check(format, text).map_err(|error| error.to_string());
    }
    if is_type(schema, "boolean") {
        return value
            .as_bool()
            .map(drop)
            .ok_or_else(|| format!("must be true or false, not {}", described(value)));
    }
    if is_type(schema, "array") {
        let length = value
            .as_array()
            .map(|list| list.len())
            .ok_or_else(|| format!("must be a list, not {}{example}", described(value)))?;
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
        return if length < least { Err(format!("must not be empty{example}")) } else { Ok(()) };
    }
    number(value, schema, &example)
}

fn number(value: &DeValue<'_>, schema: &Map<String, Value>, example: &str) -> Result<(), String> {
    let whole = is_type(schema, "integer");
    let what = if whole { "a whole number" } else { "a number" };
    let number = match value {
        // Radix prefixes and underscores are the parser's business; its digits are without either.
        DeValue::Integer(integer) => {
            i128::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64)
        }
        DeValue::Float(float) if !whole => float.as_str().parse::<f64>().ok(),
        _ => None,
    };
    let number = number.ok_or_else(|| format!("must be {what}, not {}{example}", described(value)))?;
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let (format_least, format_most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (0.0, u8::MAX as f64),
        Some("uint16") => (0.0, u16::MAX as f64),
        Some("uint64") => (0.0, i64::MAX as f64),
        _ => (f64::NEG_INFINITY, f64::INFINITY),
    };
    let (least, most) = (bound("minimum").unwrap_or(format_least), bound("maximum").unwrap_or(format_most));
    if number < least || number > most {
        return Err(match most {
            0.0..1e15 => format!("{number} is out of range; it can be {least} to {most}"),
            _ => format!("{number} is out of range; it can be {least} or more"),
        });
    }
    match bound("exclusiveMinimum") {
        Some(least) if number <= least || !number.is_finite() => {
            Err(format!("{number} must be more than {least}"))
        }
        _ => Ok(()),
    }
}

/// A value of a `properties` table: see [`super::raw::RawProperty`].
fn property(value: &DeValue<'_>) -> Result<(), String> {
    const SHAPE: &str = "must be text, a number, true, false, { file = \"PATH\" } or { env = \"NAME\" }";
    match value {
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => Ok(()),
        DeValue::Table(table) => match table.iter().collect::<Vec<_>>().as_slice() {
            [(name, source)] if matches!(name.get_ref().as_ref(), "file" | "env") => {
                match source.get_ref().as_str().filter(|text| !text.is_empty()) {
                    Some(path) if name.get_ref() == "file" => {
                        values::check("file-path", path).map_err(|error| error.to_string())
                    }
                    Some(_) => Ok(()),
                    None => Err(SHAPE.to_owned()),
                }
            }
            _ => Err(SHAPE.to_owned()),
        },
        _ => Err(format!("{SHAPE}, not {}", described(value))),
    }
}

/// A value in words, for "must be X, not …". Text is not repeated: a password may stand in the wrong place.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "text".to_owned(),
        DeValue::Integer(integer) => format!("the number {}", integer.as_str()),
        DeValue::Float(float) => format!("the number {}", float.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// What a value of this format may look like, for keys without example and default.
fn sample(format: &str) -> String {
    let sample = match format {
        "file-path" => "/etc/ddc/file",
        "ip-address" => "198.18.0.1",
        "interface-name" => "eth1",
        "admin-listen" => "127.0.0.1:9641",
        _ => return String::new(),
    };
    format!("; for example {sample:?}")
}

fn list(words: &[(&str, &str)]) -> String {
    words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

/// The known word that is most like `name`, when one is like it at all.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_ascii_lowercase().replace('-', "_");
    known
        .map(|word| {
            (strsim::damerau_levenshtein(&folded, &word.to_ascii_lowercase().replace('-', "_")), word)
        })
        .filter(|(distance, word)| *distance <= (word.len().max(3) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The first table of the schema that has a key of this name.
fn home_of(name: &str, table: &Map<String, Value>, place: &Place) -> Option<Place> {
    for key in Key::all(table) {
        if key.name == name && !place.path.is_empty() {
            return Some(place.clone());
        }
        let inner = key.table_of_list().or_else(|| key.is_table().then_some(key.schema));
        if let Some(found) =
            inner.and_then(|inner| home_of(name, inner, &place.into(key.name, key.table_of_list().is_some())))
        {
            return Some(found);
        }
    }
    None
}

/// A JSON value as TOML writes it on one line.
pub(crate) fn toml_text(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pairs: Vec<_> =
                table.iter().map(|(key, value)| format!("{key} = {}", toml_text(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        // JSON's text escapes are TOML's.
        other => other.to_string(),
    }
}
