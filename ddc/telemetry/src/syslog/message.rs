//! An event of the program as an RFC 5424 message.
//!
//! ```text
//!  <132>1 2026-11-22T03:00:00.123456Z edge7 ddc-egress 4711 receive [ddc@32473 link="plant-a" process="egress-plant-a"] socket drops
//!   PRI   the event's own time, UTC   host  app name  procid  MSGID  structured data: the event's fields               message
//! ```
//! The thread that logs only [captures](Event::capture) the event; the writer's thread of each target [renders](Renderer::render)
//! it within what that target takes.
//!
//! Replacements, the only ones: a control character, a line or paragraph separator, a character that turns the direction of writing,
//! and a byte order mark become their Rust escape (`\n`, `\u{1b}`); in a field's name, what RFC 5424 forbids
//! becomes `_`, and in the MSGID all but letters, digits, `.`, `-` and `_`; of both 32 characters are kept; values beyond 1 KiB and what is beyond the target's limit are cut and end in `…`; when the limit cost
//! structured data something, it says `truncated="yes"`. Blanks around the message go. When two fields have one name, the later one stands.
//!
//! Of the crate `syslog` come the formatter of structured data with its escapes, the facilities and the severities. The header is
//! written here: the crate's takes only a number as MSGID and reads the clock when it formats, which may be long after the event.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use ::syslog::{Formatter5424, Severity};
use time::OffsetDateTime;
use tracing::Level;
use tracing::field::{Field, Visit};

use super::Facility;

/// The name of our structured data element; 32473 is the enterprise number that RFC 5612 sets aside for examples.
pub const ELEMENT: &str = "ddc@32473";

/// The most bytes of a field's value that are kept.
const MAX_VALUE: usize = 1024;
/// The most bytes of a message's text that are kept: as many as fit any target.
const MAX_TEXT: usize = 8192;
/// Of the room of a message, so much is the text's, if it needs it; structured data has the rest.
const TEXT_SHARE: usize = 512;
/// Longest names of RFC 5424.
const MAX_HOST: usize = 255;
const MAX_APP: usize = 48;
const MAX_MSGID: usize = 32;
const MAX_NAME: usize = 32;
/// What is cut ends in it.
const CUT: char = '…';
/// Says in structured data that something of it is missing.
const TRUNCATED: (&str, &str) = ("truncated", "yes");

/// One event, as it was logged.
#[derive(Debug)]
pub(super) struct Event {
    at: SystemTime,
    level: Level,
    /// The module's last name, until a field `event` gives the MSGID.
    module: Cow<'static, str>,
    text: String,
    fields: Vec<(&'static str, String)>,
}

impl Event {
    /// Takes what is logged; at most [`MAX_VALUE`] bytes per field and [`MAX_TEXT`] of the text.
    pub(super) fn capture(event: &tracing::Event<'_>, at: SystemTime) -> Self {
        let metadata = event.metadata();
        let mut captured = Self {
            at,
            level: *metadata.level(),
            module: last_name(metadata.target()).into(),
            text: String::new(),
            fields: Vec::with_capacity(metadata.fields().len()),
        };
        event.record(&mut captured);
        captured
    }

    /// About how much memory it takes: what a queue counts.
    pub(super) fn bytes(&self) -> usize {
        let fields: usize = self.fields.iter().map(|field| size_of_val(field) + field.1.len()).sum();
        size_of::<Self>() + self.text.len() + fields
    }

    /// Another time than the one it was logged at.
    #[cfg(test)]
    pub(super) fn set_time(&mut self, at: SystemTime) {
        self.at = at;
    }

    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        match field.name() {
            "message" => keep(&mut self.text, MAX_TEXT, value),
            // A record of the `log` crate names its module here, and file and line, which nobody wants in a message.
            "log.target" => {
                let mut module = String::new();
                keep(&mut module, MAX_VALUE, value);
                self.module = last_name(&module).to_owned().into();
            }
            name if name.starts_with("log.") => {}
            name => {
                let mut text = String::new();
                keep(&mut text, MAX_VALUE, value);
                self.fields.push((name.strip_prefix("r#").unwrap_or(name), text));
            }
        }
    }

    fn message_id(&self) -> &str {
        let given = self.fields.iter().find(|(name, _)| *name == "event");
        given.map_or(&*self.module, |(_, value)| value)
    }
}

impl Visit for Event {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

/// `deliver` of `ddc_proxy::egress::deliver`.
fn last_name(target: &str) -> &str {
    target.rsplit("::").next().unwrap_or(target)
}

/// Writes `value` into `text`, and stops at `limit` bytes: what is logged may be of any length, and a queue may not.
fn keep(text: &mut String, limit: usize, value: fmt::Arguments<'_>) {
    struct Bounded<'t>(&'t mut String, usize);

    impl fmt::Write for Bounded<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let room = self.1.saturating_sub(self.0.len());
            if part.len() <= room {
                self.0.push_str(part);
                return Ok(());
            }
            self.0.push_str(&part[..part.floor_char_boundary(room)]);
            Err(fmt::Error)
        }
    }

    if Bounded(text, limit - CUT.len_utf8()).write_fmt(value).is_err() {
        text.push(CUT);
    }
}

/// What all messages of a process have in common.
#[derive(Debug)]
pub(super) struct Renderer {
    formatter: Formatter5424,
    host: String,
    /// Fields of every message, unless the event has one of the same name.
    common: Vec<(&'static str, String)>,
}

impl Renderer {
    pub(super) fn new(
        facility: Facility,
        host: &str,
        app: &str,
        common: Vec<(&'static str, String)>,
    ) -> Self {
        let host = header_word(host, MAX_HOST);
        let process = header_word(app, MAX_APP);
        let formatter =
            Formatter5424 { facility: facility.0, hostname: None, process, pid: std::process::id() };
        Self { formatter, host, common }
    }

    /// The message of at most `limit` bytes, which is at least 2 KiB. Always one line, always valid RFC 5424.
    pub(super) fn render(&self, event: &Event, limit: usize) -> String {
        let mut message = String::with_capacity(512);
        self.header(event, &mut message);
        let text = harmless(event.text.trim());
        // The blanks before structured data and before the text.
        let room = limit - message.len() - 2;
        message.push(' ');
        message.push_str(&self.structured_data(event, room - text.len().min(TEXT_SHARE)));
        if !text.is_empty() {
            message.push(' ');
            let room = limit - message.len();
            match shortened(&text, room, char::len_utf8) {
                Some(short) => message.push_str(&short),
                None => message.push_str(&text),
            }
        }
        message
    }

    fn header(&self, event: &Event, out: &mut String) {
        let severity = match event.level {
            Level::ERROR => Severity::LOG_ERR,
            Level::WARN => Severity::LOG_WARNING,
            Level::INFO => Severity::LOG_INFO,
            Level::DEBUG | Level::TRACE => Severity::LOG_DEBUG,
        };
        let priority = self.formatter.facility as u8 | severity as u8;
        let at = utc(event.at);
        let (date, time) = (at.date(), at.time());
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<{priority}>1 {:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z {} {} {} {}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.microsecond(),
            self.host,
            self.formatter.process,
            self.formatter.pid,
            header_word(event.message_id(), MAX_MSGID),
        );
    }

    /// `[ddc@32473 name="value" …]` of at most `room` bytes.
    fn structured_data(&self, event: &Event, room: usize) -> String {
        // `[`, the element's name, `]`, and, should something be left out, the word that says so.
        let mut room = room - ELEMENT.len() - 2 - cost(TRUNCATED.0, TRUNCATED.1);
        let mut params = BTreeMap::new();
        let mut truncated = false;
        let common = self.common.iter().map(|(name, value)| (*name, value));
        for (name, value) in common.chain(event.fields.iter().map(|(name, value)| (*name, value))) {
            let name = param_name(name);
            let mut value = harmless(value);
            room += params.remove(&name).map_or(0, |old: String| cost(&name, &old));
            if cost(&name, &value) > room {
                truncated = true;
                let left = room.saturating_sub(cost(&name, ""));
                match shortened(&value, left, escaped_len) {
                    Some(short) if !short.is_empty() => value = short.into(),
                    _ => continue,
                }
            }
            room -= cost(&name, &value);
            params.insert(name, value.into_owned());
        }
        if truncated {
            params.insert(TRUNCATED.0.to_owned(), TRUNCATED.1.to_owned());
        }
        self.formatter.format_5424_structured_data(BTreeMap::from([(ELEMENT.to_owned(), params)]))
    }
}

/// Bytes of ` name="value"`.
fn cost(name: &str, value: &str) -> usize {
    name.len() + value.chars().map(escaped_len).sum::<usize>() + 4
}

/// Bytes of a character in a value of structured data.
fn escaped_len(c: char) -> usize {
    c.len_utf8() + usize::from(matches!(c, '"' | '\\' | ']'))
}

/// `text` cut at a character so that it and the sign of the cut take at most `room` bytes; `None` when it fits. Without room for the
/// sign, empty.
fn shortened(text: &str, room: usize, len: impl Fn(char) -> usize) -> Option<String> {
    let (mut used, mut kept) = (0, 0);
    for (at, c) in text.char_indices() {
        if used + CUT.len_utf8() <= room {
            kept = at;
        }
        used += len(c);
        if used > room {
            let sign = if room < CUT.len_utf8() { String::new() } else { CUT.to_string() };
            return Some(format!("{}{sign}", &text[..kept]));
        }
    }
    None
}

/// The text on one line, with nothing in it that drives a terminal or hides what it says.
fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

/// A word of the header: letters, digits, `.`, `-`, `_`; `_` for the rest and `-`, the nil of RFC 5424, for nothing. The RFC would allow
/// more, but the parser of Vector takes a colon there for the end of the header.
fn header_word(text: &str, limit: usize) -> String {
    match ascii(text, limit, |c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_')) {
        word if word.is_empty() => "-".to_owned(),
        word => word,
    }
}

/// A name in structured data.
fn param_name(name: &str) -> String {
    match ascii(name, MAX_NAME, |c| matches!(c, '=' | ']' | '"')) {
        word if word.is_empty() => "_".to_owned(),
        word => word,
    }
}

fn ascii(text: &str, limit: usize, forbidden: impl Fn(char) -> bool) -> String {
    text.chars().take(limit).map(|c| if c.is_ascii_graphic() && !forbidden(c) { c } else { '_' }).collect()
}

/// The time for a header, which Vector refuses without one: a clock outside the years 1970 to 9999 reads as 1970.
fn utc(at: SystemTime) -> OffsetDateTime {
    let nanos = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
