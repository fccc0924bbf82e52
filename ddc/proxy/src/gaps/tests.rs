//! Gap files: what is written is read again; what is wrong is refused by name; hostile bytes never panic.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use ddc_link::receiver::{OffsetRange, PartitionKey};
use ddc_telemetry::cells::Label;
use ddc_telemetry::reasons::MissingReason;
use ddc_wire::{LinkId, Session, TopicId};
use proptest::prelude::*;

use super::*;

fn range(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

fn key(topic: &str, partition: i32) -> PartitionKey {
    PartitionKey {
        stream: String::new(),
        topic: topic.into(),
        topic_id: TopicId::Uuid([0xAB; 16]),
        partition,
    }
}

fn found(topic: &str, partition: i32, first: i64, last: i64) -> Gap {
    let now = Timestamp::from_millis(1_700_000_000_123);
    Gap::found("plant-a", &key(topic, partition), range(first, last), None, MissingReason::Lost, None, now)
}

fn file(gaps: Vec<Gap>) -> GapFile {
    GapFile {
        site: Some("north".parse().unwrap()),
        link: "plant-a".parse().unwrap(),
        link_id: LinkId(7),
        exported_at: Timestamp::from_millis(1_700_000_100_000),
        gaps,
    }
}

fn json(gaps: Vec<Gap>) -> String {
    String::from_utf8(file(gaps).to_json().unwrap()).unwrap()
}

fn csv(gaps: Vec<Gap>) -> String {
    String::from_utf8(file(gaps).to_csv().unwrap()).unwrap()
}

/// Two gaps: one partly filled and partly given up, one closed.
fn two() -> Vec<Gap> {
    let mut one = found("orders", 3, 100, 199);
    one.session = Some(Session::new(1_700_000_000_000_000, 5));
    one.records = Some(90);
    one.open = vec![range(100, 119), range(130, 150)];
    one.given_up = vec![range(160, 199)];
    let mut other = found("orders", 3, 300, 300);
    other.open.clear();
    other.state = GapState::Closed;
    other.closed_at = Some(Timestamp::from_millis(1_700_000_050_000));
    vec![one, other]
}

/// The file as the module's text describes it, byte by byte: a reader at the other site depends on it.
#[test]
fn the_written_form_is_as_documented() {
    let id = found("orders", 3, 100, 199).id;
    let other = found("orders", 3, 300, 300).id;
    let session = Session::new(1_700_000_000_000_000, 5);
    let topic_id = "ab".repeat(16);
    assert_eq!(
        json(two()),
        format!(
            "{{\n\"kind\": \"ddc-gaps\", \"format\": 1,\n\"site\": \"north\", \"link\": \"plant-a\", \"link_id\": 7, \
             \"exported_at\": \"2023-11-14T22:15:00.000Z\",\n\"gaps\": [\n\
             {{\"id\":\"{id}\",\"session\":\"{session}\",\"stream\":\"\",\"topic\":\"orders\",\"topic_id\":\"{topic_id}\",\
             \"partition\":3,\"first\":100,\"last\":199,\"records\":90,\"reason\":\"lost\",\
             \"found_at\":\"2023-11-14T22:13:20.123Z\",\"state\":\"open\",\"closed_at\":null,\
             \"open\":[[100,119],[130,150]],\"given_up\":[[160,199]]}},\n\
             {{\"id\":\"{other}\",\"session\":null,\"stream\":\"\",\"topic\":\"orders\",\"topic_id\":\"{topic_id}\",\
             \"partition\":3,\"first\":300,\"last\":300,\"records\":null,\"reason\":\"lost\",\
             \"found_at\":\"2023-11-14T22:13:20.123Z\",\"state\":\"closed\",\
             \"closed_at\":\"2023-11-14T22:14:10.000Z\",\"open\":[],\"given_up\":[]}}\n]\n}}\n"
        )
    );
    let rows = csv(two());
    let rows: Vec<_> = rows.split("\r\n").collect();
    assert_eq!(
        rows[..2],
        [
            "kind,format,site,link,link_id,exported_at,id,session,stream,topic,topic_id,partition,first,last,records,reason,\
             found_at,state,closed_at,open,given_up"
                .to_owned(),
            format!(
                "ddc-gaps,1,north,plant-a,7,2023-11-14T22:15:00.000Z,{id},{session},,orders,{topic_id},3,100,199,90,lost,\
                 2023-11-14T22:13:20.123Z,open,,100-119 130-150,160-199"
            ),
        ]
    );
    assert_eq!((rows.len(), rows[3]), (4, ""));
}

/// Each change of a right file is refused, and the message names the place.
#[test]
fn whatever_is_wrong_is_refused_by_name() {
    let right = json(two());
    assert!(GapFile::parse(right.as_bytes()).is_ok());
    let id = found("orders", 3, 100, 199).id.to_string();
    for (from, to, said) in [
        ("\"format\": 1", "\"format\": 2", "format 2; this ddc reads format 1"),
        ("\"format\": 1", "\"format\": \"1\"", "format \"1\""),
        ("\"format\": 1,", "", "does not say \"kind\""),
        ("ddc-gaps", "ddc-gap", "does not say \"kind\""),
        ("\"site\": \"north\",", "", "missing field `site`"),
        ("\"site\": \"north\"", "\"site\": \"no rth\"", "`site` of the gap file"),
        ("\"link\": \"plant-a\"", "\"link\": \"Plant\"", "`link` of the gap file"),
        ("\"link\": \"plant-a\"", "\"link\": \"plant-b\"", "gap number 1"),
        ("\"link_id\": 7", "\"link_id\": 65536", "line 3 column"),
        ("\"link_id\": 7", "\"link_id\": 7, \"x\": 1", "unknown field `x`"),
        ("\"partition\":3,\"first\":100", "\"partition\":3,\"y\":0,\"first\":100", "unknown field `y`"),
        (
            "\"partition\":3,\"first\":100",
            "\"partition\":3,\"partition\":3,\"first\":100",
            "duplicate field `partition`",
        ),
        ("\"partition\":3,\"first\":100", "\"partition\":-3,\"first\":100", "negative"),
        ("\"partition\":3,\"first\":100", "\"partition\":3,\"first\":-100", "negative"),
        ("\"partition\":3,\"first\":100", "\"partition\":3,\"first\":1e2", "line 5 column"),
        ("\"first\":100,\"last\":199", "\"first\":199,\"last\":100", "reversed"),
        ("\"last\":199", "\"last\":198", "outside of first to last"),
        ("\"last\":199", "\"last\":9223372036854775807", "no offset"),
        ("\"last\":199", "\"last\":200", "`id` does not belong to this range"),
        ("\"records\":90", "\"records\":101", "more than there are offsets"),
        ("\"records\":90,", "", "missing field `records`"),
        ("\"closed_at\":null,", "", "missing field `closed_at`"),
        ("\"session\":null,", "", "missing field `session`"),
        ("\"reason\":\"lost\"", "\"reason\":\"gone\"", "is none of lost, restart"),
        ("\"state\":\"open\"", "\"state\":\"closed\"", "it is \"open\""),
        ("\"state\":\"open\"", "\"state\":\"Open\"", "unknown variant `Open`"),
        (
            "\"closed_at\":null",
            "\"closed_at\":\"2023-11-14T22:14:10.000Z\"",
            "`closed_at` must be there exactly",
        ),
        ("[[100,119],[130,150]]", "[[100,119],[119,150]]", "overlap, touch or do not ascend"),
        ("[[100,119],[130,150]]", "[[100,119],[120,150]]", "overlap, touch or do not ascend"),
        ("[[100,119],[130,150]]", "[[119,100],[130,150]]", "end lies before its start"),
        ("[[100,119],[130,150]]", "[[100,119],[130,165]]", "overlaps `open`"),
        ("[[100,119],[130,150]]", "[[100,119,1],[130,150]]", "line 5 column"),
        ("\"orders\"", "\"or ders\"", "`topic` is no name"),
        ("\"orders\"", "\"\"", "`topic` is no name"),
        ("\"stream\":\"\"", "\"stream\":\"\\u0000\"", "`stream` is no name"),
        ("\"found_at\":\"2023", "\"found_at\":\"23", "a time is written as"),
        (&format!("\"id\":\"{id}"), &format!("\"id\":\"{}", id.to_uppercase()), "32 hexadecimal digits"),
        (&format!("\"topic_id\":\"{}", "ab".repeat(16)), "\"topic_id\":\"epoch-01", "epoch-N"),
        ("]\n}\n", "]\n}\n{}", "line 10 column 1"),
        ("]\n}\n", "]\n", "EOF"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from} is not in the file");
        let error = GapFile::parse(wrong.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{from} → {to}: {error}");
    }
}

#[test]
fn what_is_wrong_in_csv_is_refused_by_name() {
    let right = csv(two());
    assert!(GapFile::parse(right.as_bytes()).is_ok());
    for (from, to, said) in [
        ("kind,format", "kind,formats", "does not say \"kind\""),
        ("\r\nddc-gaps,1", "\r\nddc-gaps,2", "format 2; this ddc reads"),
        ("\r\nddc-gaps,1", "\r\nother,1", "does not say \"kind\""),
        ("state,closed_at,open", "closed_at,state,open", "the first line must be kind,format"),
        (",160-199\r\n", ",160-199,\r\n", "line 2: 22 columns"),
        (",100-119 130-150,", ",100-119  130-150,", "`open`: ranges are written"),
        (",100-119 130-150,", ",100-+119 130-150,", "`open`: ranges are written"),
        (",100-119 130-150,", ",100-119 130,", "`open`: ranges are written"),
        (",3,100,199,", ",03,100,199,", "`partition`: write 3"),
        (",3,100,199,", ",3,+100,199,", "`first`: write 100"),
        (",3,100,199,", ",3,199,100,", "reversed"),
        (",3,100,199,", ",3,,199,", "`first`: "),
        (",lost,", ",Lost,", "`reason`: \"Lost\" is not known"),
        (",open,,", ",opened,,", "`state`: \"opened\" is not known"),
        (",7,2023", ",8,2023", "line 3: `link_id` differs from the first row's"),
        (",100-119 130-150,", ",\"100-119 130-150,", "line 2: "),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from} is not in the file");
        let error = GapFile::parse(wrong.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said), "{from} → {to}: {error}");
    }
    let mut bytes = right.clone().into_bytes();
    let at = right.find("orders").unwrap();
    bytes[at] = 0xFF;
    let error = GapFile::parse(&bytes).unwrap_err().to_string();
    assert!(error.contains("line 2: column 10: is not UTF-8"), "{error}");
    let only_columns = right.split_once("\r\n").unwrap().0;
    assert!(GapFile::parse(only_columns.as_bytes()).unwrap_err().to_string().contains("no gap in it"));
    assert!(file(Vec::new()).to_csv().unwrap_err().to_string().contains("no gap to write"));
    assert!(matches!(GapFile::parse(b""), Err(GapFileError::Kind)));
}

#[test]
fn the_same_offsets_are_never_named_twice() {
    let parse = |gaps: Vec<Gap>| {
        let lines: Vec<_> = gaps.iter().map(|gap| serde_json::to_string(gap).unwrap()).collect();
        let text = json(Vec::new()).replace("\"gaps\": [\n]", &format!("\"gaps\": [{}]", lines.join(",")));
        GapFile::parse(text.as_bytes())
    };
    let twice = parse(vec![found("a", 0, 5, 9), found("b", 0, 5, 9), found("a", 0, 5, 9)]).unwrap_err();
    assert!(matches!(twice, GapFileError::Twice { number: 3, other: 1, .. }), "{twice}");
    let overlap = parse(vec![found("a", 0, 9, 12), found("a", 1, 5, 9), found("a", 0, 5, 9)]).unwrap_err();
    assert!(matches!(overlap, GapFileError::Overlap { number: 3, other: 1 }), "{overlap}");
    let apart = vec![found("a", 0, 10, 12), found("a", 1, 5, 9), found("a", 0, 5, 9), found("b", 0, 5, 9)];
    assert_eq!(parse(apart.clone()).unwrap().gaps, apart);
}

#[test]
fn files_are_bounded() {
    let large = vec![b' '; MAX_FILE_BYTES + 1];
    assert!(matches!(GapFile::read(&large[..]), Err(GapFileError::TooLarge)));
    assert!(matches!(GapFile::parse_csv(&large), Err(GapFileError::TooLarge)));
    let many: Vec<_> = (0..=MAX_GAPS as i64).map(|at| found("t", 0, at * 2, at * 2)).collect();
    assert!(
        matches!(file(many.clone()).to_json(), Err(GapFileError::TooMany { found }) if found == MAX_GAPS + 1)
    );
    let most = file(many[1..].to_vec());
    let (json, csv) = (most.to_json().unwrap(), most.to_csv().unwrap());
    assert_eq!(GapFile::parse(&json).unwrap(), most);
    assert_eq!(GapFile::parse(&csv).unwrap(), most);
    // One row more, as only somebody else would write it.
    let last = csv[..csv.len() - 2].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    let more = [&csv[..], &csv[last..]].concat();
    assert!(matches!(GapFile::parse(&more), Err(GapFileError::TooMany { .. })));
    let mut torn = found("t", 0, 0, 10_000);
    torn.open = (0..=MAX_RANGES as i64).map(|at| range(at * 2, at * 2)).collect();
    assert!(matches!(torn.check("plant-a"), Err(GapProblem::Ranges { field: "open", .. })));
}

prop_compose! {
    fn any_gap()(
        topic in "[a-zA-Z0-9_-]{1,20}",
        stream in prop::sample::select(vec!["", "syslog"]),
        topic_id in prop_oneof![any::<[u8; 16]>().prop_map(TopicId::Uuid), any::<u64>().prop_map(TopicId::Configured)],
        partition in 0..i32::MAX,
        // Alternately open, filled, given up, filled, …
        steps in prop::collection::vec(1_i64..1000, 1..20),
        first in 0..i64::MAX / 2,
        known in any::<Option<u64>>(),
        reason in prop::sample::select(MissingReason::ALL),
        session in any::<Option<[u8; 12]>>(),
        (found_at, closed_at) in (0_u64..253_402_300_800_000, 0_u64..253_402_300_800_000),
        kept in 0..3_u8,
    ) -> Gap {
        let key = PartitionKey { stream: stream.into(), topic, topic_id, partition };
        let whole = range(first, first + steps.iter().sum::<i64>() - 1);
        let records = known.map(|known| known % (whole.offsets() + 1));
        let session = session.map(Session);
        let mut gap =
            Gap::found("plant-a", &key, whole, records, reason, session, Timestamp::from_millis(found_at));
        gap.open.clear();
        let mut at = first;
        for (turn, step) in steps.iter().enumerate() {
            match turn % 4 {
                0 if kept > 1 => gap.open.push(range(at, at + step - 1)),
                2 if kept > 0 => gap.given_up.push(range(at, at + step - 1)),
                _ => {}
            }
            at += step;
        }
        gap.state = match (gap.open.is_empty(), gap.given_up.is_empty()) {
            (false, _) => GapState::Open,
            (true, false) => GapState::GivenUp,
            (true, true) => GapState::Closed,
        };
        if gap.state != GapState::Open {
            gap.closed_at = Some(Timestamp::from_millis(closed_at));
        }
        gap
    }
}

prop_compose! {
    fn any_file()(
        gaps in prop::collection::vec(any_gap(), 1..8),
        link_id in any::<u16>(),
        site in any::<bool>(),
        exported_at in 0_u64..253_402_300_800_000,
    ) -> GapFile {
        let exported_at = Timestamp::from_millis(exported_at);
        let site = site.then(|| "north.1_a-B".parse().unwrap());
        let mut file = GapFile { site, link_id: LinkId(link_id), exported_at, ..file(gaps) };
        // Chance seldom makes two of a partition; when it does, one is enough.
        file.gaps.sort_by_key(Gap::key);
        file.gaps.dedup_by_key(|gap| gap.key());
        file
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(file in any_file()) {
        prop_assert_eq!(&GapFile::parse(&file.to_json().unwrap()).unwrap(), &file);
        prop_assert_eq!(&GapFile::parse(&file.to_csv().unwrap()).unwrap(), &file);
    }

    /// A file with a few bytes changed is refused, or read as something that contradicts nothing.
    #[test]
    fn damaged_files_never_panic(
        file in any_file(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        as_csv in any::<bool>(),
    ) {
        let mut bytes = if as_csv { file.to_csv().unwrap() } else { file.to_json().unwrap() };
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(read) = GapFile::parse(&bytes) {
            prop_assert!(read.check().is_ok());
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = GapFile::parse(&bytes);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), begin in 0..3_u8) {
        let begin: &[u8] = match begin {
            0 => b"{\"kind\":\"ddc-gaps\",\"format\":1,",
            1 => b"kind,format,",
            _ => b"",
        };
        let bytes = [begin, &bytes].concat();
        prop_assert!(GapFile::parse(&bytes).is_err());
    }
}
