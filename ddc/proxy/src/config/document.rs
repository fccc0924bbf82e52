//! docs/configuration.md, made from the schemas: every key with its type, default and meaning.

use serde_json::{Map, Value};

use super::Side;
use super::default_file::put;
use super::schema::{Key, is_type, schema};
use super::values;
use super::walk::toml_text;

/// What stands before the keys.
const INTRODUCTION: &str = "\
# Configuration

One TOML file configures one side of one link: `ddc ingress -c FILE` or `ddc egress -c FILE`. Give `-c` several times to run
several links in one process; each has its own socket, keys, state and admin listener.

- `ddc config --side ingress` (or `egress`) prints a complete file to begin with; `ddc check -c FILE` says what is wrong with
  one, or what it would open, without opening it.
- Files are strict: an unknown key is an error, with the line and the nearest known key. All mistakes are listed at once.
- Durations are written `\"250us\"`, `\"5ms\"`, `\"30s\"`, `\"5min\"`, `\"1h\"`, `\"7d\"`; rates `\"800Mbit/s\"`, `\"1.5Gbit/s\"`; sizes `\"512KiB\"`,
  `\"64MiB\"`, `\"1GiB\"`.
- Passwords and keys never stand in the file: they come from files that only their owner (and groups of the process) can
  read, or passwords from environment variables. Relative paths start at the directory of the configuration file. Links
  are followed, at SIGHUP anew: keys are taken as Kubernetes mounts them (`fsGroup`, mode 0440), as systemd hands them out
  (`LoadCredential=`, access control lists included) and as compose mounts them, if others cannot read them there.
- A path may begin with `${CREDENTIALS_DIRECTORY}/`, which systemd sets for a unit with `LoadCredential=`:
  `file = \"${CREDENTIALS_DIRECTORY}/link.key\"`; to check such a file by hand, run
  `CREDENTIALS_DIRECTORY=DIR ddc check -c FILE`. Nothing else is expanded: `${…}` elsewhere, or a name that begins with
  `$`, is an error. The same holds for a text in `properties` that begins so, such as a keytab's path.
- Editors can check a file while it is written: ingress.schema.json and egress.schema.json beside this page are JSON Schemas.
";

/// The page, without the header that names the generator.
pub fn configuration_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for side in [Side::Ingress, Side::Egress] {
        let title = if side == Side::Ingress { "Ingress" } else { "Egress" };
        let schema = schema(side);
        let empty = Map::new();
        let root = schema.as_object().unwrap_or(&empty);
        let about = root.get("description").and_then(Value::as_str).unwrap_or_default();
        put(&mut page, format_args!("\n## {title}\n\n{about}\n"));
        tables(&mut page, root, &[], side);
    }
    page
}

fn tables(page: &mut String, table: &Map<String, Value>, path: &[&str], side: Side) {
    for key in Key::all(table) {
        let inner: Vec<&str> = path.iter().copied().chain([key.name]).collect();
        let header = inner.join(".");
        let (list, table) = match (key.table_of_list(), key.is_table(), key.is_free_table()) {
            (Some(entry), ..) => (true, Some(entry)),
            (None, true, _) => (false, Some(key.schema)),
            (None, false, true) => (false, None),
            _ => continue,
        };
        let header = if list { format!("[[{header}]]") } else { format!("[{header}]") };
        put(page, format_args!("\n### {side}: `{header}`\n\n{}\n", key.description()));
        if let Some(table) = table {
            let mut rows = Key::all(table).filter(is_leaf).peekable();
            if rows.peek().is_some() {
                page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
            }
            rows.for_each(|row| page.push_str(&line(&row)));
            if !list {
                tables(page, table, &inner, side);
            }
        }
    }
}

fn is_leaf(key: &Key<'_>) -> bool {
    !key.is_table() && !key.is_free_table() && key.table_of_list().is_none()
}

fn line(key: &Key<'_>) -> String {
    let choices = key.choices();
    let default = match (key.required, key.default()) {
        (true, _) => {
            let example = key.example().map(|example| format!(", e.g. `{}`", toml_text(example)));
            format!("**required**{}", example.unwrap_or_default())
        }
        (false, Some(default)) => format!("`{}`", toml_text(default)),
        (false, None) => "—".to_owned(),
    };
    let mut meaning = key.description().to_owned();
    for (word, what) in choices.iter().filter(|(_, what)| !what.is_empty()) {
        put(&mut meaning, format_args!("<br>`{word}`: {what}"));
    }
    let value = if choices.is_empty() { kind(key.schema) } else { "choice".to_owned() };
    format!("| `{}` | {value} | {default} | {} |\n", key.name, meaning.replace('|', "\\|"))
}

/// What people call the type of a value.
fn kind(schema: &Map<String, Value>) -> String {
    if let Some(label) = schema.get("format").and_then(Value::as_str).and_then(values::label) {
        return label.to_owned();
    }
    if is_type(schema, "array") {
        let items = schema.get("items").and_then(Value::as_object).map(kind).unwrap_or_default();
        return format!("list of {items}");
    }
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    match (schema.get("type").and_then(Value::as_str), bound("minimum"), bound("maximum")) {
        (Some("integer"), Some(least), Some(most)) => format!("{least} to {most}"),
        (Some("integer"), ..) => "whole number".to_owned(),
        (Some("number"), ..) => "number".to_owned(),
        (Some("boolean"), ..) => "true or false".to_owned(),
        _ => "text".to_owned(),
    }
}
