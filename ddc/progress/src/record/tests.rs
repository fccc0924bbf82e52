//! Keys and values: recorded bytes, round trips, and what must be refused.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use ddc_link::receiver::MAX_HOLES;
use ddc_wire::TopicId;
use proptest::prelude::*;

use super::*;

/// Bytes that version 1 has written: a later version must read them, and write the same.
const PROGRESS_KEY: &str = r#"["plant","","orders","07070707070707070707070707070707",3]"#;
const CLAIM_KEY: &str = r#"["plant","syslog","é\"\u0001","epoch-18446744073709551615",0,"claim","plant-a"]"#;
const PROGRESS_VALUE: &str = concat!(
    r#"{"format":1,"owner":"plant-a","session":"00065e0b7f2a1c0000000009","epoch":1790000000000000,"#,
    r#""origin":100,"next":5000,"count":4711,"holes":[[200,209],[300,300]]}"#
);
const CLAIM_VALUE: &str = r#"{"format":1,"epoch":1790000000000001}"#;

fn progress() -> Progress {
    let holes = [(200, 209), (300, 300)].map(|(first, last)| OffsetRange { first, last }).to_vec();
    Progress {
        owner: "plant-a".parse().unwrap(),
        session: Session::new(0x0006_5e0b_7f2a_1c00, 9),
        position: Position::stored(5000, Epoch(1_790_000_000_000_000), 100, 4711, holes).unwrap(),
    }
}

#[test]
fn recorded_bytes() {
    let (stream, topic) = (String::new(), "orders".to_owned());
    let partition = PartitionKey { stream, topic, topic_id: TopicId::Uuid([7; 16]), partition: 3 };
    let key = RecordKey { set: "plant".parse().unwrap(), partition, kind: Kind::Progress };
    assert_eq!(String::from_utf8(key.encode()).unwrap(), PROGRESS_KEY);
    assert_eq!(RecordKey::decode(PROGRESS_KEY.as_bytes()), Ok(key));

    let (stream, topic) = ("syslog".to_owned(), "é\"\u{1}".to_owned());
    let partition = PartitionKey { stream, topic, topic_id: TopicId::Configured(u64::MAX), partition: 0 };
    let kind = Kind::Claim("plant-a".parse().unwrap());
    let key = RecordKey { set: "plant".parse().unwrap(), partition, kind };
    assert_eq!(String::from_utf8(key.encode()).unwrap(), CLAIM_KEY);
    assert_eq!(RecordKey::decode(CLAIM_KEY.as_bytes()), Ok(key));

    assert_eq!(String::from_utf8(progress().encode()).unwrap(), PROGRESS_VALUE);
    assert_eq!(Progress::decode(PROGRESS_VALUE.as_bytes()), Ok(progress()));
    assert_eq!(String::from_utf8(encode_claim(Epoch(1_790_000_000_000_001))).unwrap(), CLAIM_VALUE);
    assert_eq!(decode_claim(CLAIM_VALUE.as_bytes()), Ok(Epoch(1_790_000_000_000_001)));
}

#[test]
fn the_longest_key_and_value_fit_their_bounds() {
    let name = "a".repeat(63);
    let wide = "\u{1}".repeat(MAX_NAME_LEN);
    let topic_id = TopicId::Uuid([255; 16]);
    let partition = PartitionKey { stream: wide.clone(), topic: wide, topic_id, partition: i32::MAX };
    let kind = Kind::Claim(name.parse().unwrap());
    let key = RecordKey { set: name.parse().unwrap(), partition, kind };
    assert!(key.encode().len() <= MAX_KEY_LEN, "{}", key.encode().len());
    assert_eq!(RecordKey::decode(&key.encode()), Ok(key));

    let first = i64::MAX - 4 * MAX_HOLES as i64;
    let hole = |at| OffsetRange { first: first + 3 * at, last: first + 3 * at + 1 };
    let holes = (0..MAX_HOLES as i64).map(hole).collect();
    let position = Position::stored(i64::MAX, Epoch(u64::MAX), i64::MIN, u64::MAX, holes).unwrap();
    let longest = Progress { owner: name.parse().unwrap(), session: Session([255; 12]), position };
    let value = longest.encode();
    assert!(value.len() <= MAX_VALUE_LEN && value.len() > MAX_VALUE_LEN - 2048, "{}", value.len());
    assert_eq!(Progress::decode(&value), Ok(longest));
}

#[test]
fn keys_that_are_none() {
    for text in [
        "",
        "null",
        "[]",
        "{}",
        r#"["plant","","orders","epoch-0"]"#,
        r#"["plant","","orders","epoch-0",3,"claim"]"#,
        r#"["plant","","orders","epoch-0",3,"claims","plant-a"]"#,
        r#"["plant","","orders","epoch-0",3,"claim","plant-a",1]"#,
        r#"["plant","","orders","epoch-0",-1]"#,
        r#"["plant","","orders","epoch-0",2147483648]"#,
        r#"["plant","","orders","epoch-00",3]"#,
        r#"["plant","","orders","07",3]"#,
        r#"["Plant","","orders","epoch-0",3]"#,
        r#"["plant","","orders","epoch-0",3,"claim","plant.a"]"#,
        r#"["plant", "","orders","epoch-0",3]"#,
        r#"["plant","","\u006frders","epoch-0",3]"#,
        "[\"plant\",\"\",\"orders\",\"epoch-0\",3]\n",
    ] {
        assert!(RecordKey::decode(text.as_bytes()).is_err(), "{text}");
    }
    let long = format!(r#"["plant","","{}","epoch-0",3]"#, "a".repeat(MAX_NAME_LEN + 1));
    assert!(RecordKey::decode(long.as_bytes()).is_err());
    let longer = format!(r#"["plant","","{}","epoch-0",3]"#, "a".repeat(MAX_KEY_LEN));
    assert!(RecordKey::decode(longer.as_bytes()).unwrap_err().to_string().contains("bytes"));
}

#[test]
fn values_of_later_versions_are_named() {
    for text in
        [r#"{"format":2}"#, r#"{"owner":7,"format":2,"more":{"a":[1,2]}}"#, r#"{"format":2,"epoch":1}"#]
    {
        assert_eq!(Progress::decode(text.as_bytes()), Err(Unreadable::Format { found: 2 }), "{text}");
        assert_eq!(decode_claim(text.as_bytes()), Err(Unreadable::Format { found: 2 }), "{text}");
    }
    let error = Unreadable::Format { found: 2 }.to_string();
    assert!(
        error.contains("format 2") && error.contains("format 1") && error.contains("use the version"),
        "{error}"
    );
}

#[test]
fn values_that_are_damaged() {
    let good = PROGRESS_VALUE;
    let cases = [
        (good.replace("\"format\":1,", ""), "no format"),
        (good.replace(":1,", ":1.0,"), "format is no whole number"),
        (good.replace("{\"format\"", "{ \"format\""), "spelt otherwise"),
        (good.replace("plant-a", "plant.a"), "no name"),
        (good.replace("00065e0b", "00065E0B"), "another spelling of the session"),
        (good.replace("00065e0b", "065e0b"), "a short session"),
        (good.replace("5000", "-5"), "negative"),
        (good.replace("5000", "300"), "a hole at next"),
        (good.replace("5000", "9223372036854775808"), "more than i64"),
        (good.replace("209", "300"), "holes overlap"),
        (good.replace("209", "299"), "holes adjacent"),
        (good.replace("209", "199"), "reversed"),
        (good.replace("[200,209]", "[200,209,1]"), "three ends"),
        (good.replace("[200,209]", "[200]"), "one end"),
        (good.replace("\"count\"", "\"counted\""), "unknown field"),
        (good.replace("\"count\":4711", "\"count\":4711,\"count\":4711"), "twice"),
        (good.replace('}', ",\"more\":1}"), "one field more"),
        (good.replace('}', "} "), "something behind it"),
        (good[..good.len() - 1].to_owned(), "cut"),
        (CLAIM_VALUE.to_owned(), "a claim"),
        (String::new(), "nothing"),
        ("null".to_owned(), "null"),
        (format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)), "deep"),
        (r#"[1,"plant-a","00065e0b7f2a1c0000000009",1,1,1,1,[]]"#.to_owned(), "a list"),
    ];
    for (text, why) in cases {
        assert!(matches!(Progress::decode(text.as_bytes()), Err(Unreadable::Damaged(_))), "{why}: {text}");
        assert!(decode_claim(text.as_bytes()).is_err() || why == "a claim", "{why}");
    }
    let long = PROGRESS_VALUE.replace("plant-a", &"a".repeat(MAX_VALUE_LEN));
    let found = long.len();
    assert_eq!(Progress::decode(long.as_bytes()), Err(Unreadable::TooLong { found }));
}

fn any_partition() -> impl Strategy<Value = PartitionKey> {
    let id =
        prop_oneof![any::<[u8; 16]>().prop_map(TopicId::Uuid), any::<u64>().prop_map(TopicId::Configured)];
    ("\\PC{0,60}", "(?s).{0,60}", id, 0..=i32::MAX)
        .prop_map(|(stream, topic, topic_id, partition)| PartitionKey { stream, topic, topic_id, partition })
}

fn any_key() -> impl Strategy<Value = RecordKey> {
    let claim = proptest::option::of("[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?");
    ("[a-z0-9]{1,9}", any_partition(), claim).prop_map(|(set, partition, claim)| {
        let kind = claim.map_or(Kind::Progress, |link| Kind::Claim(link.parse().unwrap()));
        RecordKey { set: set.parse().unwrap(), partition, kind }
    })
}

prop_compose! {
    fn any_progress()(
        owner in "[a-z0-9]{1,9}",
        session: [u8; 12],
        epoch: u64,
        origin: i64,
        count: u64,
        beyond in 0i64..1000,
        steps in proptest::collection::vec((2i64..1 << 40, 0i64..1 << 20), 0..40),
    ) -> Progress {
        let mut next = 0;
        let holes: Vec<_> = steps.into_iter().map(|(gap, long)| {
            let first = next + gap;
            next = first + long + 1;
            OffsetRange { first, last: next - 1 }
        }).collect();
        let position = Position::stored(next + beyond, Epoch(epoch), origin, count, holes).unwrap();
        Progress { owner: owner.parse().unwrap(), session: Session(session), position }
    }
}

proptest! {
    #[test]
    fn keys_round_trip_and_differ(one in any_key(), other in any_key()) {
        prop_assert_eq!(RecordKey::decode(&one.encode()), Ok(one.clone()));
        prop_assert_eq!(one == other, one.encode() == other.encode());
    }

    #[test]
    fn values_round_trip(progress in any_progress(), epoch: u64) {
        prop_assert_eq!(Progress::decode(&progress.encode()), Ok(progress));
        prop_assert_eq!(decode_claim(&encode_claim(Epoch(epoch))), Ok(Epoch(epoch)));
    }

    /// Whatever is done to good bytes: it is refused, or it is the one spelling of something else.
    #[test]
    fn mutated(
        progress in any_progress(),
        key in any_key(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
        digits: bool,
    ) {
        for mut bytes in [progress.encode(), key.encode(), encode_claim(Epoch(5))] {
            for (at, byte, what) in &edits {
                if bytes.is_empty() { break }
                let at = at.index(bytes.len());
                let byte = if digits { b"0123456789[]{},\":- "[*byte as usize % 19] } else { *byte };
                match what {
                    0 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, byte),
                    2 => bytes.truncate(at),
                    _ => bytes[at] = byte,
                }
            }
            if let Ok(read) = Progress::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes.clone());
            }
            if let Ok(read) = RecordKey::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes.clone());
            }
            if let Ok(read) = decode_claim(&bytes) {
                prop_assert_eq!(encode_claim(read), bytes);
            }
        }
    }

    #[test]
    fn anything(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Progress::decode(&bytes).is_err());
        prop_assert!(RecordKey::decode(&bytes).is_err());
        prop_assert!(decode_claim(&bytes).is_err());
    }
}
