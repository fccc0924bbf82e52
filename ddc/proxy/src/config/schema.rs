//! The JSON Schemas of the two files, made from the raw structs and their doc comments.
//!
//! The same schema, with all parts inlined, drives [`super::walk`] (unknown keys, wrong values), the default file and the
//! documentation, so none of them can say something else.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Side;
use super::paths;
use super::raw::{RawEgress, RawIngress};

/// The JSON Schema (draft 2020-12) of a side's configuration file.
pub fn schema(side: Side) -> Value {
    let mut schema = match side {
        Side::Ingress => schema_of::<RawIngress>(),
        Side::Egress => schema_of::<RawEgress>(),
    };
    if let Value::Object(root) = &mut schema {
        root.insert("title".to_owned(), format!("DDC {side} configuration").into());
    }
    schema
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// Says what serde means for TOML: there is no null, and tables take no other keys.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(schema) => {
            drop_null(schema);
            schema.values_mut().for_each(tidy);
            if schema.get("properties").is_some_and(Value::is_object) && is_type(schema, "object") {
                schema.entry("additionalProperties").or_insert(Value::Bool(false));
                // Defaults of whole tables repeat those of their keys.
                schema.remove("default");
            }
            let is_path = schema.get("format").is_some_and(|format| format == "file-path");
            if let Some(Value::String(text)) = schema.get_mut("description") {
                *text = unwrap_lines(text);
                if is_path {
                    text.push_str(paths::NOTE);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Removes the null that stands for an absent key: `type: [T, null]`, `anyOf: [T, null]`, `default: null`.
fn drop_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                // The text of the field counts, then that of its type.
                schema.entry(key).or_insert(value);
            }
        }
    }
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
}

/// Doc comments are broken at the width of the source; a description is one paragraph per blank line.
fn unwrap_lines(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

/// Whether a schema is of this JSON type.
pub(crate) fn is_type(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get("type").is_some_and(|found| found == name)
}

/// A key of a table, as the schema describes it.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    pub(crate) name: &'a str,
    pub(crate) schema: &'a Map<String, Value>,
    pub(crate) required: bool,
}

impl<'a> Key<'a> {
    /// The keys of a table's schema, in the order of the struct.
    pub(crate) fn all(table: &'a Map<String, Value>) -> impl Iterator<Item = Key<'a>> {
        let required = table.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        table.get("properties").and_then(Value::as_object).into_iter().flatten().filter_map(
            |(name, schema)| {
                Some(Key {
                    name: name.as_str(),
                    schema: schema.as_object()?,
                    required: required.iter().any(|key| key == name),
                })
            },
        )
    }

    /// Whether this key is a table with keys of its own (`[x]`).
    pub(crate) fn is_table(&self) -> bool {
        self.schema.get("properties").is_some_and(Value::is_object)
    }

    /// The schema of one table, when this key is a list of tables (`[[x]]`).
    pub(crate) fn table_of_list(&self) -> Option<&'a Map<String, Value>> {
        let items = self.schema.get("items")?.as_object()?;
        items.contains_key("properties").then_some(items)
    }

    /// Whether this key is a table whose keys are the user's.
    pub(crate) fn is_free_table(&self) -> bool {
        self.schema.get("additionalProperties").is_some_and(Value::is_object)
    }

    pub(crate) fn description(&self) -> &'a str {
        self.schema.get("description").and_then(Value::as_str).unwrap_or_default()
    }

    /// The example of a value that only the user can know.
    pub(crate) fn example(&self) -> Option<&'a Value> {
        self.schema.get("examples")?.as_array()?.first()
    }

    pub(crate) fn default(&self) -> Option<&'a Value> {
        self.schema.get("default")
    }

    /// The words a value is chosen from, each with its meaning; empty when it is no choice.
    pub(crate) fn choices(&self) -> Vec<(&'a str, &'a str)> {
        choices(self.schema)
    }
}

/// The words a schema allows, with what each means.
pub(crate) fn choices(schema: &Map<String, Value>) -> Vec<(&str, &str)> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(|word| Some((word.as_str()?, ""))).collect();
    }
    let alternatives = schema.get("oneOf").and_then(Value::as_array);
    alternatives
        .into_iter()
        .flatten()
        .filter_map(|choice| {
            let meaning = choice.get("description").and_then(Value::as_str).unwrap_or_default();
            Some((choice.get("const")?.as_str()?, meaning))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{raw, values};

    /// Every format that the schemas name is one the walker can check: a forgotten one would accept anything.
    #[test]
    fn every_format_has_a_reader() {
        fn formats(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(format)) = map.get("format") {
                        found.push(format.clone());
                    }
                    map.values().for_each(|value| formats(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| formats(value, found)),
                _ => {}
            }
        }
        // schemars' own names for numbers; the walker checks their range.
        let numbers = ["uint8", "uint16", "uint32", "uint64", "int32", "double"];
        let mut found = Vec::new();
        for side in [Side::Ingress, Side::Egress] {
            formats(&schema(side), &mut found);
        }
        assert!(found.len() > 40, "{found:?}");
        for format in found {
            assert!(
                values::label(&format).is_some()
                    || numbers.contains(&format.as_str())
                    || format == raw::PROPERTY_FORMAT,
                "{format} has no reader"
            );
        }
    }

    #[test]
    fn every_key_is_documented_and_nothing_is_null() {
        fn look(path: &str, table: &Map<String, Value>, keys: &mut usize) {
            for key in Key::all(table) {
                let path = format!("{path}.{}", key.name);
                assert!(!key.description().is_empty(), "{path} has no description");
                *keys += 1;
                if let Some(inner) = key.table_of_list() {
                    look(&path, inner, keys);
                } else if key.is_table() {
                    look(&path, key.schema, keys);
                }
            }
        }
        let mut keys = 0;
        for side in [Side::Ingress, Side::Egress] {
            let schema = schema(side);
            assert!(!schema.to_string().contains("null"), "{schema:#}");
            look(&side.to_string(), schema.as_object().unwrap_or(&Map::new()), &mut keys);
        }
        assert!(keys > 80, "only {keys} keys");
    }
}
