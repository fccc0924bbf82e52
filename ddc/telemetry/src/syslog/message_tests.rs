//! Messages read back: by a parser of our own, by the one that Vector uses, and against what a real Vector made of messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::message::{ELEMENT, Event, Renderer};
use super::rfc5424::{Parsed, parse};
use super::{Facility, Target};

/// 2026-11-22T03:00:00.012345Z
fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_316_400_012_345)
}

/// What was logged by `act`.
fn captured(act: impl FnOnce()) -> Vec<Event> {
    #[derive(Clone, Default)]
    struct Catch(Arc<Mutex<Vec<Event>>>);

    impl<S: Subscriber> Layer<S> for Catch {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(Event::capture(event, then()));
        }
    }

    let catch = Catch::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(catch.clone()), act);
    std::mem::take(&mut *catch.0.lock().unwrap())
}

fn renderer() -> Renderer {
    let common = vec![("process", "ingress-plant-a".to_owned()), ("site", "north".to_owned())];
    Renderer::new(Facility::default(), "edge7", "ddc-ingress", common)
}

const UDP: usize = 2048;
const STREAM: usize = 8000;

fn one(act: impl FnOnce()) -> String {
    let events = captured(act);
    assert_eq!(events.len(), 1);
    renderer().render(&events[0], STREAM)
}

/// Parsed by both parsers, which must agree.
fn read(message: &str) -> Parsed {
    let parsed = parse(message).unwrap_or_else(|error| panic!("{error}: {message}"));
    let vector = syslog_loose::parse_message(message, syslog_loose::Variant::RFC5424);
    assert_eq!(vector.severity.map(|severity| severity as u8), Some(parsed.severity), "{message}");
    assert!(vector.timestamp.is_some(), "{message}");
    assert_eq!(vector.hostname.map(str::to_owned), parsed.host, "{message}");
    assert_eq!(vector.appname.map(str::to_owned), parsed.app, "{message}");
    assert_eq!(vector.procid.map(|id| id.to_string()), parsed.procid, "{message}");
    assert_eq!(vector.msgid.map(str::to_owned), parsed.msgid, "{message}");
    let elements: BTreeMap<String, BTreeMap<String, String>> = vector
        .structured_data
        .iter()
        .map(|element| {
            (element.id.to_owned(), element.params().map(|(key, value)| ((*key).to_owned(), value)).collect())
        })
        .collect();
    assert_eq!(elements, parsed.elements, "{message}");
    assert_eq!(vector.msg, parsed.text, "{message}");
    parsed
}

#[test]
fn a_message_is_written_as_the_page_says() {
    let message =
        one(|| tracing::warn!(link = "plant-a", session = 1_732_244_400_000_000_u64, "socket drops"));
    let pid = std::process::id();
    assert_eq!(
        message,
        format!(
            "<132>1 2026-11-22T03:00:00.012345Z edge7 ddc-ingress {pid} message_tests \
             [ddc@32473 link=\"plant-a\" process=\"ingress-plant-a\" session=\"1732244400000000\" site=\"north\"] socket drops"
        )
    );
    read(&message);
}

#[test]
fn severity_follows_the_level() {
    let events = captured(|| {
        tracing::error!("a");
        tracing::warn!("a");
        tracing::info!("a");
        tracing::debug!("a");
        tracing::trace!("a");
    });
    let severities: Vec<u8> = events.iter().map(|e| read(&renderer().render(e, UDP)).severity).collect();
    assert_eq!(severities, [3, 4, 6, 7, 7]);
}

#[test]
fn the_msgid_is_the_module_or_the_event() {
    assert_eq!(read(&one(|| tracing::info!(event = "gap", "x"))).msgid.unwrap(), "gap");
    let parsed = read(&one(|| tracing::info!(target: "ddc_proxy::egress::deliver", "x")));
    assert_eq!(parsed.msgid.unwrap(), "deliver");
    let parsed = read(&one(|| tracing::info!(event = "a b\n\u{e9}:\"]", "x")));
    assert_eq!(parsed.msgid.unwrap(), "a_b_____");
    assert_eq!(parsed.elements[ELEMENT]["event"], "a b\\n\u{e9}:\"]", "whole in structured data");
    assert_eq!(read(&one(|| tracing::info!(event = "", "x"))).msgid, None);
    let long = "e".repeat(40);
    assert_eq!(read(&one(|| tracing::info!(event = long, "x"))).msgid.unwrap().len(), 32);
}

#[test]
fn values_of_every_type_arrive_as_text() {
    let parsed = read(&one(|| {
        tracing::info!(a = -3, b = 1.5, c = true, d = ?Some("x\"y"), e = %"]", r#type = "t", dotted.name = 1, "");
    }));
    let params = &parsed.elements[ELEMENT];
    for (key, value) in [
        ("a", "-3"),
        ("b", "1.5"),
        ("c", "true"),
        ("d", "Some(\"x\\\"y\")"),
        ("e", "]"),
        ("type", "t"),
        ("dotted.name", "1"),
    ] {
        assert_eq!(params[key], value, "{key}");
    }
    assert_eq!(parsed.text, "");
}

#[test]
fn a_field_stands_before_the_processs_own() {
    let parsed = read(&one(|| tracing::info!(process = "other", "x")));
    assert_eq!(parsed.elements[ELEMENT]["process"], "other");
    assert_eq!(parsed.elements[ELEMENT]["site"], "north");
}

#[test]
fn control_characters_cannot_forge_a_line_or_drive_a_terminal() {
    let message = one(|| {
        tracing::warn!(topic = "x\n<0>1 forged\r\u{1b}[2J\0\u{85}\u{202e}\u{2028}", "a\nb\u{feff}\tc\n");
    });
    assert!(!message.contains(char::is_control), "{message:?}");
    let parsed = read(&message);
    assert_eq!(
        parsed.elements[ELEMENT]["topic"],
        "x\\n<0>1 forged\\r\\u{1b}[2J\\u{0}\\u{85}\\u{202e}\\u{2028}"
    );
    assert_eq!(parsed.text, "a\\nb\\u{feff}\\tc");
}

#[test]
fn a_long_text_is_cut_and_structured_data_stays_whole() {
    let text = "\u{20ac}".repeat(5000);
    let events = captured(|| tracing::error!(link = "plant-a", detail = "\"".repeat(600), "{text}"));
    for limit in [UDP, STREAM] {
        let message = renderer().render(&events[0], limit);
        assert!(message.len() <= limit && message.len() > limit - 4, "{}", message.len());
        let parsed = read(&message);
        assert_eq!(parsed.elements[ELEMENT]["link"], "plant-a");
        assert!(parsed.text.starts_with('\u{20ac}') && parsed.text.ends_with('…'));
        assert!(parsed.elements[ELEMENT]["detail"].starts_with("\"\"\""));
    }
}

#[test]
fn structured_data_that_is_too_much_is_cut_at_values_and_says_so() {
    let long = "]".repeat(5000);
    let events = captured(|| tracing::error!(a = long, b = long, c = long, d = long, link = "z", "text"));
    for limit in [UDP, STREAM] {
        let message = renderer().render(&events[0], limit);
        assert!(message.len() <= limit, "{}", message.len());
        let parsed = read(&message);
        let params = &parsed.elements[ELEMENT];
        assert_eq!((params["truncated"].as_str(), parsed.text.as_str()), ("yes", "text"));
        assert!(params["a"].ends_with('…'));
    }
}

#[test]
fn a_clock_out_of_range_never_makes_a_nil_timestamp() {
    let far = Duration::from_secs(1 << 40);
    for at in [SystemTime::UNIX_EPOCH - far, SystemTime::UNIX_EPOCH + far] {
        let mut event = captured(|| tracing::info!("x")).remove(0);
        event.set_time(at);
        assert_eq!(read(&renderer().render(&event, UDP)).timestamp, "1970-01-01T00:00:00.000000Z");
    }
}

#[test]
fn a_host_without_a_usable_name_is_nil() {
    let renderer = Renderer::new(Facility::default(), "", "ddc egress\u{e9}", Vec::new());
    let event = captured(|| tracing::info!("x")).remove(0);
    let parsed = read(&renderer.render(&event, UDP));
    assert_eq!((parsed.host, parsed.app.as_deref()), (None, Some("ddc_egress_")));
    assert!(
        parsed.elements.contains_key(ELEMENT),
        "never nil, so that a text in brackets is not taken for it"
    );
}

/// The second parser is the crate that Vector uses, in a later version; these are messages sent to a real Vector 0.43, and what came
/// out of it. The later version takes a nil timestamp, which Vector 0.43 refuses: [`read`] wants one.
#[test]
fn the_parser_reads_what_a_real_vector_read() {
    let cases = [
        (
            "<134>1 2026-11-22T03:00:00.123456Z host1 ddc-ingress 4711 LINK [ddc@32473 link=\"plant-a\" session=\"1732244400000000\"] link is up",
            "LINK",
            vec![("link", "plant-a"), ("session", "1732244400000000")],
            "link is up",
        ),
        (
            "<134>1 2026-11-22T03:00:00Z h a 1 M [ddc@32473 q=\"a\\\"b\\\\c\\]d\"] x",
            "M",
            vec![("q", "a\"b\\c]d")],
            "x",
        ),
        (
            "<134>1 2026-11-22T03:00:00Z h ddc-egress 1 STAT [ddc@32473 link=\"p\"] {\"event\":\"gap\",\"first\":1,\"last\":3}",
            "STAT",
            vec![("link", "p")],
            "{\"event\":\"gap\",\"first\":1,\"last\":3}",
        ),
    ];
    for (message, msgid, params, text) in cases {
        let read =
            syslog_loose::parse_message_with_year_exact(message, |_| 2026, syslog_loose::Variant::Either)
                .unwrap();
        assert_eq!((read.msgid, read.msg), (Some(msgid), text));
        let element = &read.structured_data[0];
        assert_eq!(element.id, ELEMENT);
        let got: Vec<_> = element.params().map(|(key, value)| ((*key).to_owned(), value)).collect();
        let expected: Vec<_> =
            params.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert_eq!(got, expected);
    }
    for refused in ["hello", "<999>1 2026-11-22T03:00:00Z h a 1 M - bad pri"] {
        let read =
            syslog_loose::parse_message_with_year_exact(refused, |_| 2026, syslog_loose::Variant::Either);
        assert!(read.is_err(), "{read:?}");
    }
}

/// The documented replacement of harmful characters, said another way.
fn expected(value: &str) -> String {
    let mut clean = String::new();
    for c in value.chars() {
        match c {
            '\n' => clean.push_str("\\n"),
            '\r' => clean.push_str("\\r"),
            '\t' => clean.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => clean.extend(c.escape_unicode()),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                clean.extend(c.escape_unicode());
            }
            c => clean.push(c),
        }
    }
    clean
}

/// Hostile characters more often than chance has them.
fn any_text(longest: usize) -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        '"', '\\', ']', '[', '=', ' ', '\n', '\r', '\0', '\u{1b}', '\u{7f}', '\u{85}', '\u{2028}',
        '\u{202e}', '\u{feff}', '\u{20ac}', '🦀', 'n', '<', '>', '-', '…',
    ]);
    prop::collection::vec(prop_oneof![hostile, any::<char>()], 0..longest).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the values, the message is valid, one line, and says the same.
    #[test]
    fn any_values_parse_back(topic in any_text(60), reason in any_text(60), event in any_text(40), text in any_text(100)) {
        let message = one(|| tracing::info!(topic, reason = %reason, event, offset = 7, "{text}"));
        prop_assert!(!message.contains(char::is_control));
        let parsed = read(&message);
        let params = &parsed.elements[ELEMENT];
        prop_assert_eq!(&params["topic"], &expected(&topic));
        prop_assert_eq!(&params["reason"], &expected(&reason));
        prop_assert_eq!(&params["event"], &expected(&event));
        prop_assert_eq!(&params["offset"], "7");
        prop_assert_eq!(params.len(), 6);
        prop_assert_eq!(parsed.text, expected(text.trim()));
        prop_assert_eq!(parsed.facility, 16);
    }

    /// Whatever the lengths, the limit holds and what is cut is the beginning of the value.
    #[test]
    fn any_lengths_stay_within_the_limit(a in any_text(1500), b in any_text(700), text in any_text(3000), limit in 2048..8001_usize) {
        let events = captured(|| tracing::warn!(a, b, link = "plant-a", "{text}"));
        let message = renderer().render(&events[0], limit);
        prop_assert!(message.len() <= limit, "{} > {limit}", message.len());
        let parsed = read(&message);
        for (key, whole) in [("a", &a), ("b", &b)] {
            if let Some(value) = parsed.elements[ELEMENT].get(key) {
                let whole = expected(whole);
                let cut = value.strip_suffix('…').is_some_and(|value| whole.starts_with(value));
                prop_assert!(*value == whole || cut, "{key}: {value:?}");
            }
        }
        let whole = expected(text.trim());
        let cut = parsed.text.strip_suffix('…').is_some_and(|text| whole.starts_with(text.trim_end()));
        prop_assert!(parsed.text == whole || cut);
    }
}

#[test]
fn limits_are_what_the_page_says() {
    for (target, limit) in [
        ("udp://127.0.0.1:1", UDP),
        ("tcp://127.0.0.1:1", STREAM),
        ("unix:///x", STREAM),
        ("unixgram:///x", STREAM),
    ] {
        assert_eq!(target.parse::<Target>().unwrap().message_limit(), limit);
    }
}
