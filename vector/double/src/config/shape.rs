//! What a value in the configuration may look like, and the check of a value against it.
//!
//! The tables in [`super::options`] are made of these. A wrong key is named with the nearest right one.

use std::net::SocketAddr;

use serde_yaml_ng::Value;

/// What a value may look like.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A whole number in this range.
    Integer(i64, i64),
    /// Any number.
    Number,
    /// Any text.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `address:port` to listen on: never every address of the host.
    Listen,
    /// `host:port` or a URL to send to.
    Target,
    /// A list.
    List(&'static Shape),
    /// An object with these keys.
    Object(&'static [Field]),
    /// An object with keys of the user's choice.
    Map(&'static Shape),
    /// A VRL condition: its text, or an object with `type` and `source`.
    Condition,
    /// Anything: the component does not run here and Vector's own check is enough.
    Any,
}

/// One key of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// Its value.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
}

/// A key that may be left out.
pub(crate) const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false }
}

/// A key that must be there.
pub(crate) const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true }
}

const CONDITION: &[Field] = &[required("type", Shape::OneOf(&["vrl"])), required("source", Shape::Text)];

/// Adds to `problems` what is wrong with `value`: pairs of place and message.
pub fn check(shape: Shape, value: &Value, place: &str, problems: &mut Vec<(String, String)>) {
    let unless =
        |fits: bool, wanted: &str| (!fits).then(|| format!("must be {wanted}, not {}", shown(value)));
    let wrong = match shape {
        Shape::Any => None,
        Shape::Bool => unless(value.is_bool(), "true or false"),
        Shape::Integer(low, high) => {
            let fits = value.as_i64().is_some_and(|number| (low..=high).contains(&number));
            unless(fits, &format!("a whole number from {low} to {high}"))
        }
        Shape::Number => unless(value.is_number(), "a number"),
        Shape::Text | Shape::Target => unless(value.is_string(), "text"),
        Shape::OneOf(words) => {
            let fits = value.as_str().is_some_and(|word| words.contains(&word));
            unless(fits, &format!("one of {}", words.join(", ")))
        }
        Shape::Listen => listen_problem(value),
        Shape::List(item) => {
            for (index, value) in value.as_sequence().into_iter().flatten().enumerate() {
                check(*item, value, &format!("{place}[{index}]"), problems);
            }
            unless(value.is_sequence(), "a list")
        }
        Shape::Map(item) => {
            for (key, value) in value.as_mapping().into_iter().flatten() {
                check(*item, value, &join(place, key.as_str().unwrap_or("?")), problems);
            }
            unless(value.is_mapping(), "an object")
        }
        Shape::Condition if value.is_string() => None,
        Shape::Condition => return check_object(CONDITION, value, place, problems),
        Shape::Object(fields) => return check_object(fields, value, place, problems),
    };
    problems.extend(wrong.map(|message| (place.to_owned(), message)));
}

fn check_object(fields: &[Field], value: &Value, place: &str, problems: &mut Vec<(String, String)>) {
    let Some(map) = value.as_mapping() else {
        problems.push((place.to_owned(), format!("must be an object, not {}", shown(value))));
        return;
    };
    for (key, value) in map {
        let key = key.as_str().unwrap_or("?");
        match fields.iter().find(|field| field.name == key) {
            Some(field) => check(field.shape, value, &join(place, key), problems),
            None => {
                problems.push((place.to_owned(), unknown("key", key, fields.iter().map(|field| field.name))));
            }
        }
    }
    for field in fields.iter().filter(|field| field.required && !map.contains_key(field.name)) {
        problems.push((place.to_owned(), format!("`{}` is missing", field.name)));
    }
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

/// "unknown key `x`", with the nearest known word.
pub(crate) fn unknown<'a>(what: &str, word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 3.max(candidate.len() / 3))
        .min();
    match nearest {
        Some((_, candidate)) => format!("unknown {what} `{word}`; did you mean `{candidate}`?"),
        None => format!("unknown {what} `{word}`"),
    }
}

fn listen_problem(value: &Value) -> Option<String> {
    let Some(text) = value.as_str() else {
        return Some(format!("must be address:port, not {}", shown(value)));
    };
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => Some(format!(
            "`{text}` listens on every address of the host; name loopback or the management address"
        )),
        Ok(address) if address.port() == 0 => Some(format!("`{text}` has no port")),
        Ok(_) => None,
        Err(_) => Some(format!("`{text}` is no address:port, for example 127.0.0.1:8125")),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(value) => format!("`{value}`"),
        Value::String(value) => format!("the text `{value}`"),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) | Value::Tagged(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape::Object(&[
        required("address", Shape::Listen),
        optional("buckets", Shape::List(&Shape::Number)),
        optional("limit", Shape::Integer(1, 10)),
    ]);

    fn problems(yaml: &str) -> Vec<String> {
        let mut problems = Vec::new();
        check(SHAPE, &serde_yaml_ng::from_str(yaml).unwrap(), "sinks.x", &mut problems);
        problems.into_iter().map(|(place, message)| format!("{place}: {message}")).collect()
    }

    #[test]
    fn what_is_right_passes() {
        assert!(problems("{address: '127.0.0.1:9598', buckets: [1, 2.5], limit: 10}").is_empty());
        assert!(problems("{address: '[::1]:9598'}").is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        assert_eq!(
            problems("{adress: '127.0.0.1:1'}"),
            ["sinks.x: unknown key `adress`; did you mean `address`?", "sinks.x: `address` is missing",]
        );
        assert_eq!(
            problems("{address: '0.0.0.0:9598', limit: eleven, buckets: [a]}"),
            [
                "sinks.x.address: `0.0.0.0:9598` listens on every address of the host; name loopback or the management address",
                "sinks.x.limit: must be a whole number from 1 to 10, not the text `eleven`",
                "sinks.x.buckets[0]: must be a number, not the text `a`",
            ]
        );
        assert!(problems("{address: '[::]:9598'}")[0].contains("every address"));
        assert!(problems("[]")[0].contains("must be an object, not a list"));
    }
}
