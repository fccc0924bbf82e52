//! One syslog message to the event that Vector makes of it. The parser is the one Vector uses (`syslog_loose`).

use chrono::{Datelike, Utc};
use syslog_loose::{IncompleteDate, ProcId, Protocol, Variant};
use vrl::value::{ObjectMap, Value};

/// The event, or the parser's refusal. `peer` is the host when the message names none.
pub fn parse(message: &str, peer: Option<&str>) -> Result<Value, String> {
    let parsed = syslog_loose::parse_message_with_year_exact(message, year_of, Variant::Either)?;
    let mut event = ObjectMap::new();
    let mut insert = |key: &str, value: Value| {
        event.insert(key.into(), value);
    };
    for element in &parsed.structured_data {
        let fields: ObjectMap = element.params().map(|(key, value)| ((*key).into(), value.into())).collect();
        insert(element.id, Value::Object(fields));
    }
    insert("message", parsed.msg.into());
    insert("source_type", "syslog".into());
    if let Some(timestamp) = parsed.timestamp {
        insert("timestamp", timestamp.with_timezone(&Utc).into());
    } else {
        insert("timestamp", Utc::now().into());
    }
    if let Some(hostname) = parsed.hostname {
        insert("hostname", hostname.into());
    }
    if let Some(host) = parsed.hostname.or(peer) {
        insert("host", host.into());
    }
    if let Some(severity) = parsed.severity {
        insert("severity", severity.as_str().into());
    }
    if let Some(facility) = parsed.facility {
        insert("facility", facility.as_str().into());
    }
    if let Protocol::RFC5424(version) = parsed.protocol {
        insert("version", i64::from(version).into());
    }
    if let Some(appname) = parsed.appname {
        insert("appname", appname.into());
    }
    if let Some(msgid) = parsed.msgid {
        insert("msgid", msgid.into());
    }
    match parsed.procid {
        Some(ProcId::PID(pid)) => insert("procid", i64::from(pid).into()),
        Some(ProcId::Name(name)) => insert("procid", name.into()),
        None => {}
    }
    Ok(Value::Object(event))
}

/// RFC 3164 has no year: this one, but in January December is last year's.
fn year_of((month, ..): IncompleteDate) -> i32 {
    let now = Utc::now();
    if now.month() == 1 && month == 12 { now.year() - 1 } else { now.year() }
}
