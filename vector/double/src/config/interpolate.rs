//! Environment variables in the text of a file, before it is read as YAML: so a variable can be a number, a truth value, or a whole flow map.
//!
//! As Vector does it since 0.38: `$NAME`, `${NAME}` (must be set), `${NAME:-default}` (unset or empty), `${NAME-default}` (unset),
//! `${NAME:?message}` and `${NAME?message}` (required), `$$` for one dollar. Comments are interpolated too. From 0.57 on Vector does this only
//! with `--dangerously-allow-env-var-interpolation`.

/// A variable that must be set and is not, or whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterpolationError {
    /// No default, and not set.
    #[error(
        "line {line}: environment variable {name} is not set and has no default; set it, or write ${{{name}:-default}}"
    )]
    Missing {
        /// The variable.
        name: String,
        /// Where it is named.
        line: usize,
    },
    /// `${NAME:?message}` without a value.
    #[error("line {line}: environment variable {name} is required: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The text after the question mark.
        message: String,
        /// Where it is named.
        line: usize,
    },
    /// A line break in a value could add sections to the file.
    #[error("line {line}: environment variable {name} contains a line break, which Vector refuses")]
    LineBreak {
        /// The variable.
        name: String,
        /// Where it is named.
        line: usize,
    },
}

/// The text with every variable replaced, or everything that is wrong with it.
pub fn interpolate(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, Vec<InterpolationError>> {
    let mut out = String::with_capacity(text.len());
    let mut errors = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let line = text[..text.len() - rest.len() + at].matches('\n').count() + 1;
        let (taken, replacement) = reference(&rest[at..], line, &variable);
        match replacement {
            Ok(value) => out.push_str(&value),
            Err(error) => errors.push(error),
        }
        rest = &rest[at + taken..];
    }
    out.push_str(rest);
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// Reads the reference at the start of `text` (which begins with `$`): how many bytes it takes, and what replaces it.
fn reference(
    text: &str,
    line: usize,
    variable: &impl Fn(&str) -> Option<String>,
) -> (usize, Result<String, InterpolationError>) {
    let body = &text[1..];
    if body.starts_with('$') {
        return (2, Ok("$".into()));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let braced = body.strip_prefix('{');
    let name_from = braced.unwrap_or(body);
    let name = &name_from[..name_from.find(|c| !is_name(c)).unwrap_or(name_from.len())];
    if name.is_empty() {
        return (1, Ok("$".into()));
    }
    let missing = || InterpolationError::Missing { name: name.into(), line };
    let checked = |value: String| {
        if value.contains(['\n', '\r']) {
            Err(InterpolationError::LineBreak { name: name.into(), line })
        } else {
            Ok(value)
        }
    };
    if braced.is_none() {
        return (1 + name.len(), variable(name).ok_or_else(missing).and_then(checked));
    }
    let after = &name_from[name.len()..];
    let Some(end) = after.find('}') else {
        return (1, Ok("$".into()));
    };
    let taken = 2 + name.len() + end + 1;
    let modifier = &after[..end];
    let value = variable(name);
    let non_empty = value.clone().filter(|v| !v.is_empty());
    let required =
        |message: &str| InterpolationError::Required { name: name.into(), message: message.into(), line };
    let result = if modifier.is_empty() {
        value.ok_or_else(missing)
    } else if let Some(default) = modifier.strip_prefix(":-") {
        Ok(non_empty.unwrap_or_else(|| default.into()))
    } else if let Some(default) = modifier.strip_prefix('-') {
        Ok(value.unwrap_or_else(|| default.into()))
    } else if let Some(message) = modifier.strip_prefix(":?") {
        non_empty.ok_or_else(|| required(message))
    } else if let Some(message) = modifier.strip_prefix('?') {
        value.ok_or_else(|| required(message))
    } else {
        return (1, Ok("$".into()));
    };
    (taken, result.and_then(checked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, Vec<InterpolationError>> {
        interpolate(text, |name| match name {
            "SET" => Some("value".into()),
            "EMPTY" => Some(String::new()),
            "LINES" => Some("a\nb: c".into()),
            _ => None,
        })
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("$SET", "value"),
            ("${SET}", "value"),
            ("x${SET}y", "xvaluey"),
            ("$SET-x", "value-x"),
            ("${NOT:-8125}", "8125"),
            ("${EMPTY:-8125}", "8125"),
            ("${EMPTY-8125}", ""),
            ("${NOT-a b}", "a b"),
            ("${SET:?why}", "value"),
            ("$$SET", "$SET"),
            ("a $ b", "a $ b"),
            ("${}", "${}"),
            ("${SET x", "${SET x"),
            ("ü${SET}ü", "üvalueü"),
        ] {
            assert_eq!(with(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        let errors = with("a\n${NOT} ${EMPTY:?say who}\n${LINES}").unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "line 2: environment variable NOT is not set and has no default; set it, or write ${NOT:-default}",
                "line 2: environment variable EMPTY is required: say who",
                "line 3: environment variable LINES contains a line break, which Vector refuses",
            ]
        );
    }
}
