//! A strict parser of RFC 5424 §6, for tests: written from the grammar, sharing nothing with what writes messages.

use std::collections::BTreeMap;

/// A message taken apart; `None` is the grammar's nil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) facility: u8,
    pub(super) severity: u8,
    pub(super) timestamp: String,
    pub(super) host: Option<String>,
    pub(super) app: Option<String>,
    pub(super) procid: Option<String>,
    pub(super) msgid: Option<String>,
    pub(super) elements: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) text: String,
}

/// Reads a whole message, or says what breaks the grammar.
pub(super) fn parse(message: &str) -> Result<Parsed, String> {
    let rest = message.strip_prefix('<').ok_or("no <")?;
    let (priority, rest) = rest.split_once('>').ok_or("no >")?;
    if priority.is_empty() || priority.len() > 3 || (priority.len() > 1 && priority.starts_with('0')) {
        return Err(format!("priority {priority:?}"));
    }
    let priority: u8 = priority.parse().map_err(|_| format!("priority {priority:?}"))?;
    if priority > 191 {
        return Err(format!("priority {priority}"));
    }
    let rest = rest.strip_prefix("1 ").ok_or("no version 1")?;
    let (timestamp, rest) = rest.split_once(' ').ok_or("no timestamp")?;
    check_timestamp(timestamp)?;
    let (host, rest) = word(rest, 255)?;
    let (app, rest) = word(rest, 48)?;
    let (procid, rest) = word(rest, 128)?;
    let (msgid, rest) = word(rest, 32)?;
    let (elements, rest) = structured_data(rest)?;
    let text = match rest {
        "" => "",
        rest => rest.strip_prefix(' ').ok_or("no blank behind structured data")?,
    };
    Ok(Parsed {
        facility: priority / 8,
        severity: priority % 8,
        timestamp: timestamp.to_owned(),
        host,
        app,
        procid,
        msgid,
        elements,
        text: text.to_owned(),
    })
}

/// `2026-11-22T03:00:00.123456Z`: what we send; the grammar would allow other zones and fewer digits.
fn check_timestamp(text: &str) -> Result<(), String> {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let number = |at: usize, len: usize| text[at..at + len].parse::<u32>().unwrap_or(u32::MAX);
    if shape != "9999-99-99T99:99:99.999999Z"
        || !(1..=12).contains(&number(5, 2))
        || !(1..=31).contains(&number(8, 2))
        || number(11, 2) > 23
        || number(14, 2) > 59
        || number(17, 2) > 59
    {
        return Err(format!("timestamp {text:?}"));
    }
    Ok(())
}

fn word(rest: &str, longest: usize) -> Result<(Option<String>, &str), String> {
    let (word, rest) = rest.split_once(' ').ok_or("header ends early")?;
    let printable = word.bytes().all(|byte| (33..=126).contains(&byte));
    if word.is_empty() || word.len() > longest || !printable {
        return Err(format!("header word {word:?}"));
    }
    Ok(((word != "-").then(|| word.to_owned()), rest))
}

type Elements = BTreeMap<String, BTreeMap<String, String>>;

fn structured_data(mut rest: &str) -> Result<(Elements, &str), String> {
    let mut elements = Elements::new();
    if let Some(rest) = rest.strip_prefix('-') {
        return Ok((elements, rest));
    }
    while let Some(inside) = rest.strip_prefix('[') {
        let end = inside.find([' ', ']']).ok_or("element without end")?;
        let id = name(&inside[..end])?;
        let mut params = BTreeMap::new();
        rest = &inside[end..];
        while let Some(param) = rest.strip_prefix(' ') {
            let (key, behind) = param.split_once("=\"").ok_or("param without value")?;
            let (value, behind) = value(behind)?;
            if params.insert(name(key)?, value).is_some() {
                return Err(format!("{key} twice"));
            }
            rest = behind;
        }
        rest = rest.strip_prefix(']').ok_or("element not closed")?;
        if elements.insert(id.clone(), params).is_some() {
            return Err(format!("element {id} twice"));
        }
    }
    if elements.is_empty() { Err("no structured data".to_owned()) } else { Ok((elements, rest)) }
}

fn name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| (33..=126).contains(&byte) && !matches!(byte, b'=' | b']' | b'"');
    if text.is_empty() || text.len() > 32 || !text.bytes().all(allowed) {
        return Err(format!("name {text:?}"));
    }
    Ok(text.to_owned())
}

/// Up to the closing quote, with the escapes undone.
fn value(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            ']' => return Err("] not escaped".to_owned()),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\' | ']'))) => value.push(escaped),
                other => return Err(format!("\\ before {other:?}")),
            },
            c => value.push(c),
        }
    }
    Err("value not closed".to_owned())
}

#[test]
fn the_parser_itself_is_strict() {
    let good = "<134>1 2026-11-22T03:00:00.123456Z h a 1 M [x@1 k=\"a\\\"b\\\\c\\]d\" e=\"\"][y] hi [there]";
    let parsed = parse(good).unwrap();
    assert_eq!((parsed.facility, parsed.severity, parsed.text.as_str()), (16, 6, "hi [there]"));
    assert_eq!(parsed.elements["x@1"]["k"], "a\"b\\c]d");
    assert_eq!((parsed.elements["x@1"]["e"].as_str(), parsed.elements["y"].len()), ("", 0));
    for (from, to) in [
        ("<134>", "<192>"),
        ("<134>", "<0134>"),
        (">1 ", ">2 "),
        ("2026-11-22T03:00:00.123456Z", "-"),
        ("2026-11-22", "2026-13-22"),
        (" h ", " h\u{e9} "),
        ("k=\"", "k k=\""),
        ("\\]d", "]d"),
        ("\\\\c", "\\c"),
        ("[y]", "[x@1]"),
        ("[y] hi", "[y]hi"),
        (" e=\"\"", " k=\"\""),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(parse(&bad).is_err(), "{bad}");
    }
}
