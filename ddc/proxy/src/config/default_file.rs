//! The commented default file that `ddc config` prints, made from the schema.
//!
//! Keys that only the user can know stand there with an example; all others are commented out with their default, so a
//! later version's better default reaches everyone who did not choose.

use std::fmt::{Arguments, Write};

use serde_json::{Map, Value};

use super::Side;
use super::schema::{Key, schema};
use super::walk::toml_text;

/// How wide comments get.
const WIDTH: usize = 100;

/// The complete default file of a side, with every key explained.
pub fn default_file(side: Side) -> String {
    let schema = schema(side);
    let empty = Map::new();
    let root = schema.as_object().unwrap_or(&empty);
    let mut out = String::new();
    let about = root.get("description").and_then(Value::as_str).unwrap_or_default();
    comment(&mut out, about);
    out.push_str("#\n");
    comment(
        &mut out,
        "Keys without # must be set: their values here are examples. Keys behind # show their default, or an example \
         where the text says what holds without them. Relative paths start at this file's directory.",
    );
    tables(&mut out, root, &[], "", side);
    out
}

/// Writes the tables inside `table`, each followed by its own; behind `#` when `table` is.
fn tables(out: &mut String, table: &Map<String, Value>, path: &[&str], outer_off: &str, side: Side) {
    for key in Key::all(table) {
        let inner: Vec<&str> = path.iter().copied().chain([key.name]).collect();
        let header = inner.join(".");
        if let Some(entry) = key.table_of_list() {
            // Keys are needed for the default seal; other lists of tables are optional.
            let off = if key.name == "keys" { "" } else { "#" };
            out.push('\n');
            comment(out, key.description());
            put(out, format_args!("{off}[[{header}]]\n"));
            keys(out, entry, off, side);
        } else if key.is_table() {
            let off = if is_optional(&key) { "#" } else { outer_off };
            out.push('\n');
            comment(out, key.description());
            put(out, format_args!("{off}[{header}]\n"));
            keys(out, key.schema, off, side);
            tables(out, key.schema, &inner, off, side);
        } else if key.is_free_table() {
            out.push('\n');
            comment(out, key.description());
            put(out, format_args!("#[{header}]\n"));
            match key.example().and_then(Value::as_object) {
                Some(sample) => {
                    for (name, value) in sample {
                        put(out, format_args!("#{name} = {}\n", toml_text(value)));
                    }
                }
                None if key.name == "properties" => out.push_str("#\"socket.keepalive.enable\" = true\n"),
                None => out.push_str("#\"orders\" = \"plant-a.orders\"\n"),
            }
        }
    }
}

/// A table that is not there by default and changes what the program does when it is.
fn is_optional(key: &Key<'_>) -> bool {
    matches!(key.name, "sasl" | "tls" | "udp" | "missing_records" | "dead_letters")
}

fn keys(out: &mut String, table: &Map<String, Value>, off: &str, side: Side) {
    for key in Key::all(table) {
        if key.is_table() || key.is_free_table() || key.table_of_list().is_some() {
            continue;
        }
        comment(out, key.description());
        for (word, meaning) in key.choices().iter().filter(|(_, meaning)| !meaning.is_empty()) {
            comment(out, &format!("  \"{word}\": {meaning}"));
        }
        let value = key.example().filter(|_| key.required).or(key.default());
        let off = if key.required { off } else { "#" };
        let value = value.map_or_else(|| placeholder(&key, side), toml_text);
        put(out, format_args!("{off}{} = {value}\n", key.name));
    }
}

/// An example of an optional key that has no default.
fn placeholder(key: &Key<'_>, side: Side) -> String {
    match key.schema.get("format").and_then(Value::as_str) {
        Some("file-path") => format!("\"/path/to/{}\"", key.name),
        Some("interface-name") => "\"eth1\"".to_owned(),
        Some("ip-address") if key.name == "multicast_group" => "\"239.18.0.1\"".to_owned(),
        Some("ip-address") => "\"198.18.0.1\"".to_owned(),
        Some("admin-listen") if side == Side::Egress => "\"127.0.0.1:9661\"".to_owned(),
        Some("admin-listen") => "\"127.0.0.1:9641\"".to_owned(),
        Some("site-name") => "\"north\"".to_owned(),
        Some("duration-text") => "\"5min\"".to_owned(),
        Some("uint8") => "1".to_owned(),
        Some("double") => "0.7".to_owned(),
        _ if key.name.ends_with("_env") => "\"DDC_KAFKA_PASSWORD\"".to_owned(),
        _ if key.name == "group" => "\"ddc-plant-a\"".to_owned(),
        _ => "\"ddc\"".to_owned(),
    }
}

/// Writes text as comment lines, broken at [`WIDTH`]; an indented first line indents the rest.
fn comment(out: &mut String, text: &str) {
    let indent = &text[..text.len() - text.trim_start().len()];
    let mut line = format!("#{indent}");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && line.len() > 1 + indent.len() {
            out.push_str(&line);
            out.push('\n');
            line = format!("#{indent}  ");
            if indent.is_empty() {
                line.truncate(1);
            }
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// Appends formatted text.
pub(super) fn put(out: &mut String, text: Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = out.write_fmt(text);
}
