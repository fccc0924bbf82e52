//! Lines: what is written is read, and nothing else.

use ddc_wire::TopicId;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

type Header = (Vec<u8>, Option<Vec<u8>>);

pub(in super::super) fn any_letter() -> impl Strategy<Value = Letter> {
    let bytes = || vec(any::<u8>(), 0..60);
    let header = (prop_oneof![bytes(), "[a-zä]{0,8}".prop_map(String::into_bytes)], option::of(bytes()));
    let time = prop_oneof![
        Just(None),
        any::<i64>().prop_map(|millis| Some(RecordTime::Create(millis))),
        any::<i64>().prop_map(|millis| Some(RecordTime::LogAppend(millis))),
    ];
    let id =
        prop_oneof![any::<[u8; 16]>().prop_map(TopicId::Uuid), any::<u64>().prop_map(TopicId::Configured)];
    let source = ("[a-z]{0,5}", "[a-zA-Z0-9_-]{1,20}", id, 0..i32::MAX, 0..i64::MAX, time).prop_map(
        |(stream, topic, topic_id, partition, offset, timestamp)| Source {
            stream,
            topic,
            topic_id,
            partition,
            offset,
            timestamp,
        },
    );
    let parts = (option::of(bytes()), option::of(bytes()), vec(header, 0..4));
    let reason = 0..DeadLetterReason::ALL.len();
    (source, parts, reason, any::<bool>(), "[ -~ä]{0,30}", option::of("[ -~]{0,20}"), any::<u64>()).prop_map(
        |(source, (key, value, headers), reason, ingress, error, topic, at)| {
            let headers: Vec<Header> = headers;
            Letter {
                source,
                destination_topic: topic,
                reason: DeadLetterReason::ALL[reason],
                error,
                refused_at: Timestamp::from_millis(at),
                link: "plant-a".into(),
                side: if ingress { Side::Ingress } else { Side::Egress },
                key,
                value,
                headers,
                left_out: LeftOut::default(),
            }
        },
    )
}

fn line(letter: &Letter) -> Vec<u8> {
    let mut text = Vec::new();
    write(letter, &mut text);
    text
}

/// A line with another content and the checksum that fits it.
fn forged(content: &str) -> Vec<u8> {
    let content = content.strip_suffix('}').unwrap();
    let sum = crc32c::crc32c(content.as_bytes());
    format!("{content}{BEFORE_SUM}{sum:08x}{AFTER_SUM}\n").into_bytes()
}

proptest! {
    #[test]
    fn what_is_written_is_read(letter in any_letter()) {
        for letter in [letter.without_payload(), Some(letter)].into_iter().flatten() {
            let text = line(&letter);
            prop_assert_eq!(text.split(|byte| *byte == b'\n').count(), 2);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "it is JSON as it stands");
            prop_assert_eq!(parse(&text), Ok(letter));
        }
    }

    /// One byte changed, put in or taken away, or an end that is missing: refused, whatever it is.
    #[test]
    fn a_changed_line_is_refused(letter in any_letter(), at: prop::sample::Index, byte: u8, what in 0..4) {
        let good = line(&letter);
        let mut text = good.clone();
        let at = at.index(text.len());
        match what {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            2 => drop(text.remove(at)),
            _ => text.truncate(at),
        }
        prop_assume!(text != good);
        prop_assert_eq!(parse(&text), Err(BadLine::Sum));
        prop_assert!(!is_whole(&text));
    }

    #[test]
    fn bytes_are_no_letter(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(parse(&bytes).is_err());
        let text = forged(&(String::from_utf8_lossy(&bytes).into_owned() + "}"));
        prop_assert!(parse(&text).is_err());
    }
}

/// With the right checksum it still says nothing that a letter cannot.
#[test]
fn what_is_whole_and_wrong_is_refused_by_name() {
    let good = r#"{"refused_at":"2026-03-01T08:15:30.250Z","link":"plant-a","side":"egress","reason":"too_large","error":"e","destination_topic":"t","source":{"stream":"","topic":"t","topic_id":"epoch-1","partition":3,"offset":4711,"timestamp":1,"timestamp_type":"CreateTime"},"key":"a2V5","value":null,"headers":[{"name":"n","value":"MQ=="}],"left_out":{"key":null,"value":7,"headers":null}}"#;
    let letter = parse(&forged(good)).unwrap();
    assert_eq!((letter.key.as_deref(), letter.left_out.value), (Some(&b"key"[..]), Some(7)));
    for (from, to, said) in [
        ("\"side\":\"egress\"", "\"side\":\"both\"", "side"),
        ("too_large", "too_small", "reason"),
        ("plant-a", "../plant", "link"),
        ("\"error\":\"e\"", "\"error\":\"\\u001b[2J\"", "control"),
        ("\"destination_topic\":\"t\"", "\"destination_topic\":\"\\n\"", "control"),
        ("\"destination_topic\":\"t\",", "", "destination_topic"),
        ("\"topic\":\"t\"", "\"topic\":\"../../etc\"", "topic"),
        ("epoch-1", "epoch-01", "topic_id"),
        ("\"partition\":3", "\"partition\":-1", "negative"),
        ("\"offset\":4711", "\"offset\":-1", "negative"),
        ("\"offset\":4711", "\"offset\":9223372036854775808", "out of range|invalid"),
        ("\"CreateTime\"", "null", "do not fit"),
        ("\"CreateTime\"", "\"MyTime\"", "do not fit"),
        ("\"a2V5\"", "\"a2V5=\"", "key"),
        ("\"a2V5\"", "\"a2V\"", "key"),
        ("\"value\":null", "\"value\":\"\"", "left_out"),
        ("\"name\":\"n\",", "", "name"),
        ("\"name\":\"n\"", "\"name_base64\":\"bg==\"", "written as `name`"),
        ("\"key\":\"a2V5\"", "\"key\":\"a2V5\",\"more\":1", "more"),
        ("2026-03-01", "2026-02-30", "time"),
    ] {
        assert!(good.contains(from), "{from}");
        let answer = parse(&forged(&good.replacen(from, to, 1)));
        let Err(BadLine::Content(why)) = answer else { panic!("{from} → {to}: {answer:?}") };
        assert!(said.split('|').any(|said| why.contains(said)), "{from} → {to}: {why}");
    }
}

/// Nothing of a record can get into a log by way of `Debug`.
#[test]
fn debug_shows_no_payload() {
    let letter = parse(&forged(
        r#"{"refused_at":"2026-03-01T08:15:30.250Z","link":"plant-a","side":"egress","reason":"too_large","error":"e","destination_topic":null,"source":{"stream":"","topic":"t","topic_id":"epoch-1","partition":3,"offset":4711,"timestamp":null,"timestamp_type":null},"key":"c2VjcmV0","value":"c2VjcmV0","headers":[{"name":"secret","value":"c2VjcmV0"}],"left_out":{"key":null,"value":null,"headers":null}}"#,
    ))
    .unwrap();
    let shown = format!("{letter:?} {letter:#?}");
    assert!(!shown.contains("secret") && !shown.contains("115, 101"), "{shown}");
    assert!(shown.contains("4711") && shown.contains("payload_bytes: 24"), "{shown}");
}
