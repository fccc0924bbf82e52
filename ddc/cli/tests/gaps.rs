//! `ddc gaps` against journals as an egress leaves them: running, crashed, damaged, foreign.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use ddc_link::receiver::{OffsetRange, PartitionKey};
use ddc_proxy::gaps::journal::{self, Journal};
use ddc_proxy::gaps::{Finding, GapBook, GapFile, GapState, Timestamp};
use ddc_telemetry::reasons::MissingReason;
use ddc_wire::TopicId;

/// Exit code, standard output, standard error of `ddc gaps` in a directory.
fn gaps(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddc"));
    let output = command.current_dir(directory).arg("gaps").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn key(topic: &str, partition: i32) -> PartitionKey {
    PartitionKey {
        stream: String::new(),
        topic: topic.into(),
        topic_id: TopicId::Uuid([0xAB; 16]),
        partition,
    }
}

fn lost(first: i64, last: i64) -> Finding {
    let range = OffsetRange { first, last };
    Finding { range, records: Some(range.offsets()), reason: MissingReason::Lost, session: None }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The configuration of an egress (its key file does not exist: it is not needed), and its journal: one gap partly filled,
/// one closed, one given up.
fn site() -> (tempfile::TempDir, Journal, GapBook) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("egress.toml"),
        "[link]\nname = \"plant-a\"\nid = 1\nlisten = \"0.0.0.0:7401\"\nstate_dir = \"state\"\n[[link.keys]]\nid = 1\nfile = \"no.key\"\n\
         [sink.kafka]\nbrokers = [\"localhost:9092\"]\n[telemetry]\nsite = \"north\"\n",
    )
    .unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let (mut journal, found) = Journal::open(&state, "plant-a").unwrap();
    let mut book = found.book;
    let mut changed = book.found(&key("orders", 3), lost(100, 199), at("2026-03-01T08:00:00.000Z"));
    changed.extend(book.close(
        &key("orders", 3),
        OffsetRange { first: 120, last: 129 },
        at("2026-03-01T08:01:00.000Z"),
    ));
    changed.extend(book.found(&key("orders", 0), lost(5, 9), at("2026-03-01T09:00:00.000Z")));
    changed.extend(book.close(
        &key("orders", 0),
        OffsetRange { first: 5, last: 9 },
        at("2026-03-01T09:01:00.000Z"),
    ));
    changed.extend(book.found(&key("alarms", 0), lost(7, 7), at("2026-03-01T10:00:00.000Z")));
    changed.extend(book.give_up(
        &key("alarms", 0),
        OffsetRange { first: 7, last: 7 },
        at("2026-03-01T10:01:00.000Z"),
    ));
    journal.append(&changed).unwrap();
    (directory, journal, book)
}

#[test]
fn the_list_shows_what_is_missing() {
    let (directory, _journal, book) = site();
    let (code, out, errors) = gaps(directory.path(), &["list", "-c", "egress.toml"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    let ids: Vec<String> = book.entries().map(|entry| entry.gap.id.to_string()[..12].to_owned()).collect();
    let expected = format!(
        "GAP           LINK     TOPIC   PARTITION  FIRST  LAST  MISSING  RECORDS  REASON  FOUND                     STATE\n\
         {}  plant-a  orders          3    100   199       90      100  lost    2026-03-01T08:00:00.000Z  open\n\
         {}  plant-a  alarms          0      7     7        0        1  lost    2026-03-01T10:00:00.000Z  given_up\n\n\
         link plant-a: 1 open (90 offsets), 1 given up, 1 closed\n",
        ids[0], ids[2]
    );
    assert_eq!(out, expected);
    let lines = |arguments: &[&str]| {
        let all = [&["list", "-c", "egress.toml"], arguments].concat();
        let (code, out, _) = gaps(directory.path(), &all);
        assert_eq!(code, 0, "{arguments:?}");
        out.lines().filter(|line| line.contains("  plant-a  ")).count()
    };
    assert_eq!(lines(&["--all"]), 3);
    assert_eq!(lines(&["--open"]), 1);
    assert_eq!(lines(&["--topic", "alarms"]), 1);
    assert_eq!(lines(&["--topic", "nothing"]), 0);
    assert_eq!(lines(&["--all", "--since", "2026-03-01T09:00:00.000Z"]), 2);
    assert_eq!(lines(&["--all", "--since", "1s"]), 0);
    assert_eq!(lines(&["--link", "plant-a"]), 2);
}

#[test]
fn one_gap_is_shown_with_what_to_do() {
    let (directory, _journal, book) = site();
    let gap = &book.entries().next().unwrap().gap;
    let id = gap.id.to_string();
    let (code, out, _) = gaps(directory.path(), &["show", "-c", "egress.toml", &id[..6]]);
    assert_eq!(code, 0);
    for line in [
        &format!("gap        {id}"),
        "link       plant-a (id 1)",
        "offsets    100 to 199, 100 in all",
        "missing    100 to 119",
        "missing    130 to 199",
        "ddc replay -c /etc/ddc/ingress-plant-a.toml --topic orders --partition 3 --from 100 --to 119",
        "ddc replay -c /etc/ddc/ingress-plant-a.toml --topic orders --partition 3 --from 130 --to 199",
    ] {
        assert!(out.lines().any(|has| has == line), "{line}\n{out}");
    }
    let closed = book.entries().map(|entry| &entry.gap).find(|gap| gap.state == GapState::Closed).unwrap();
    let (_, out, _) = gaps(directory.path(), &["show", "-c", "egress.toml", &closed.id.to_string()]);
    assert!(
        out.contains("state      closed since 2026-03-01T09:01:00.000Z") && !out.contains("replay"),
        "{out}"
    );
    let (code, _, errors) = gaps(directory.path(), &["show", "-c", "egress.toml", "0123456789abcdef"]);
    assert!(code == 64 && errors.contains("no gap begins with 0123456789abcdef"), "{errors}");
    for wrong in ["xyz", "abc", "ABCDEF"] {
        assert_eq!(gaps(directory.path(), &["show", "-c", "egress.toml", wrong]).0, 64, "{wrong}");
    }
}

#[test]
fn what_is_exported_is_a_gap_file() {
    let (directory, _journal, book) = site();
    let (code, json, _) = gaps(directory.path(), &["export", "-c", "egress.toml", "--all", "-o", "-"]);
    assert!(!directory.path().join("-").exists());
    assert_eq!(code, 0);
    let file = GapFile::parse(json.as_bytes()).unwrap();
    let (site, link) = (file.site.as_ref().map(ToString::to_string), file.link.as_str());
    assert_eq!((site.as_deref(), link, file.link_id.0), (Some("north"), "plant-a", 1));
    let expected: Vec<_> = book.entries().map(|entry| entry.gap.clone()).collect();
    assert_eq!(file.gaps.len(), 3);
    assert!(expected.iter().all(|gap| file.gaps.contains(gap)));
    let (code, out, _) = gaps(
        directory.path(),
        &["export", "-c", "egress.toml", "--open", "--format", "csv", "-o", "gaps.csv"],
    );
    assert_eq!((code, out.as_str()), (0, ""));
    let csv = GapFile::parse(&fs::read(directory.path().join("gaps.csv")).unwrap()).unwrap();
    assert_eq!(csv.gaps, [expected[0].clone()]);
    assert!(!directory.path().join("gaps.csv.new").exists());
    let (code, out, _) = gaps(directory.path(), &["list", "-c", "egress.toml", "--format", "csv", "--open"]);
    assert!(code == 0 && GapFile::parse(out.as_bytes()).unwrap().gaps == csv.gaps);
    let nothing = ["export", "-c", "egress.toml", "--topic", "nothing", "--format"];
    let (code, out, _) = gaps(directory.path(), &[&nothing[..], &["json"]].concat());
    assert!(code == 0 && GapFile::parse(out.as_bytes()).unwrap().gaps.is_empty());
    let (code, out, errors) = gaps(directory.path(), &[&nothing[..], &["csv"]].concat());
    assert!(code == 64 && out.is_empty() && errors.contains("no gap to write"), "{errors}");
    let (code, _, errors) =
        gaps(directory.path(), &["export", "-c", "egress.toml", "-o", "no/such/gaps.json"]);
    assert!(code == 69 && errors.contains("no/such/gaps.json: no such file or directory"), "{errors}");
}

/// The egress writes on while it is read; a crash leaves half a line.
#[test]
fn a_journal_is_read_while_it_is_written() {
    let (directory, mut journal, mut book) = site();
    let changed = book.found(&key("orders", 9), lost(1, 1), Timestamp::now());
    journal.append(&changed).unwrap();
    let open = |arguments: &[&str]| gaps(directory.path(), arguments).1;
    assert!(open(&["list", "-c", "egress.toml"]).contains("2 open"));
    let path = directory.path().join("state").join(journal::FILE);
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"0123abcd {\"seq\":99,\"ev").unwrap();
    let before = fs::read(&path).unwrap();
    let (code, out, errors) = gaps(directory.path(), &["list", "-c", "egress.toml"]);
    assert!(code == 0 && errors.is_empty() && out.contains("2 open"), "{out}{errors}");
    assert_eq!(fs::read(&path).unwrap(), before, "nothing is changed");
    journal.shorten(&book).unwrap();
    assert!(open(&["list", "-c", "egress.toml"]).contains("2 open"));
    let damaged = fs::read_to_string(&path).unwrap().replacen("\"first\":100", "\"first\":101", 1);
    fs::write(&path, damaged).unwrap();
    let (code, out, _) = gaps(directory.path(), &["list", "-c", "egress.toml"]);
    assert!(code == 0 && out.contains("1 open") && out.contains("1 lines of"), "{out}");
    let (code, out, errors) = gaps(directory.path(), &["export", "-c", "egress.toml"]);
    assert!(
        code == 0 && GapFile::parse(out.as_bytes()).is_ok() && errors.contains("are damaged"),
        "{errors}"
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let (directory, _journal, _) = site();
    let path = directory.path().join("egress.toml");
    let text = fs::read_to_string(&path).unwrap();
    let list = |text: &str| {
        fs::write(&path, text).unwrap();
        let (code, out, errors) = gaps(directory.path(), &["list", "-c", "egress.toml"]);
        assert_eq!(out, "");
        (code, errors)
    };
    for (from, to, exit, said) in [
        ("\"state\"", "\"elsewhere\"", 69, "no gap journal in "),
        ("plant-a", "plant-b", 69, "is of link plant-a, not of plant-b"),
        ("id = 1\nlisten", "id = 1\nseal = \"none\"\nlisten", 69, "with seal = \"none\""),
        (
            "[sink.kafka]",
            "[source.kafka]",
            78,
            "configures an ingress; what is missing is known at the egress",
        ),
        ("name = \"plant-a\"", "name = 7", 78, "egress.toml:2"),
    ] {
        let (code, errors) = list(&text.replacen(from, to, 1));
        assert!(code == exit && errors.starts_with("ddc: ") && errors.contains(said), "{errors}");
    }
    fs::write(&path, &text).unwrap();
    let (code, _, errors) = gaps(directory.path(), &["list", "-c", "egress.toml", "--link", "plant-c"]);
    assert!(code == 64 && errors.contains("none of the files is of link \"plant-c\""), "{errors}");
    assert_eq!(gaps(directory.path(), &["list", "-c", "nothing.toml"]).0, 78);
    assert_eq!(gaps(directory.path(), &["list"]).0, 64);
    assert_eq!(gaps(directory.path(), &["list", "-c", "egress.toml", "--all", "--open"]).0, 64);
    assert_eq!(gaps(directory.path(), &["list", "-c", "egress.toml", "--since", "soon"]).0, 64);
    let journal = directory.path().join("state").join(journal::FILE);
    let content = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, content.replacen("\"format\":1", "\"format\":2", 1)).unwrap();
    let (code, errors) = list(&text);
    assert!(code == 69 && errors.contains("has format 2, this ddc knows format 1"), "{errors}");
}
