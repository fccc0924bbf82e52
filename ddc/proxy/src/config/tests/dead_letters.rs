//! `[dead_letters]`: one place, with Kafka at the end, and never in a circle; and `bad_timestamp`.

use super::*;

#[test]
fn it_is_off_by_default_and_names_one_place() {
    let fixture = Fixture::new();
    assert!(fixture.egress(EGRESS).dead_letters.is_none() && fixture.ingress(INGRESS).dead_letters.is_none());
    let letters =
        |lines: &str| fixture.egress(&format!("{EGRESS}[dead_letters]\n{lines}\n")).dead_letters.unwrap();
    let topic = letters("topic = \"dead\"\non_failure = \"wait\"");
    assert_eq!((topic.topic().unwrap().as_str(), topic.directory()), ("dead", None));
    assert_eq!(topic.on_failure, OnFailure::Wait);
    let directory = letters("directory = \"letters\"");
    let path = fixture.directory.path().join("letters");
    let expected = DeadLetterPlace::Directory { path: path.clone(), max_size: ByteSize::mib(1024) };
    assert_eq!(directory, DeadLetters { place: expected, on_failure: OnFailure::Gap });
    assert_eq!(directory.directory(), Some(&*path));
    assert!(!path.exists(), "nothing is made by reading a configuration");
    let ingress = fixture.ingress(&format!("{INGRESS}[dead_letters]\ntopic = \"dead\"\n"));
    let tables: Vec<_> = ingress.clients().into_iter().map(|(table, ..)| table).collect();
    assert_eq!(tables, ["source.kafka", "dead_letters"]);
    assert!(ingress.memory().iter().any(|item| item.purpose.contains("[dead_letters]")));
    let native = ingress.kafka().unwrap().0.build(&DeadLetters::role()).unwrap();
    assert_eq!(native.get("enable.idempotence"), Some("true"));
    assert_eq!(native.get("message.timeout.ms"), Some("0"), "an outage is waited for");
}

#[test]
fn what_is_wrong_in_it_is_named() {
    let fixture = Fixture::new();
    let pattern = INGRESS.replace("\"orders\"", "\"^dead-.*\"");
    assert_ne!(pattern, INGRESS);
    for (side, file, lines, said) in [
        (EGRESS, "egress.toml", "", "neither `topic` nor `directory`"),
        (EGRESS, "egress.toml", "topic = \"t\"\ndirectory = \"d\"", "keep one of them"),
        (EGRESS, "egress.toml", "topic = \"a b\"", "is no topic"),
        (
            EGRESS,
            "egress.toml",
            "topic = \"t\"\nmax_size = \"1GiB\"",
            "`max_size` in [dead_letters] bounds `directory`",
        ),
        (EGRESS, "egress.toml", "directory = \"d\"\nmax_size = \"1KiB\"", "less than 1MiB"),
        (EGRESS, "egress.toml", "directory = \"d\"\non_failure = \"drop\"", "`on_failure`"),
        (EGRESS, "egress.toml", "topics = \"t\"", "did you mean `topic`"),
        (EGRESS, "egress.toml", "directory = \"$HOME/d\"", "variable"),
        (EGRESS, "egress.toml", "topic = \"t\"\n[sink.kafka.rename]\na = \"t\"", "writes records to t too"),
        (INGRESS, "ingress.toml", "topic = \"orders\"", "letters would become letters again"),
        (&pattern, "ingress.toml", "topic = \"dead-letters\"", "is read by ^dead-.*"),
        (INGRESS, "ingress.toml", "brokers = [\"a:1\"]\ntopic = \"t\"", "unknown key `brokers`"),
    ] {
        let answer = fixture.said(file, &format!("{side}[dead_letters]\n{lines}\n"));
        assert!(answer.contains(said), "{lines}: {answer}");
    }
    let udp = "[link]\nname = \"u\"\nid = 2\nlisten = \"0.0.0.0:7402\"\nseal = \"none\"\n[sink.udp]\nstreams = { a = \"127.0.0.1:5141\" }\n";
    let answer = fixture.said("egress.toml", &format!("{udp}[dead_letters]\ndirectory = \"d\"\n"));
    assert!(answer.contains("[dead_letters] needs Kafka"), "{answer}");
}

#[test]
fn sides_do_not_share_a_directory() {
    let fixture = Fixture::new();
    let config = |text: &str| {
        fixture.write("one.toml", text, 0o600);
        load(&fixture.directory.path().join("one.toml")).unwrap()
    };
    let table = "[dead_letters]\ndirectory = \"letters\"\n";
    let both = [config(&format!("{INGRESS}{table}")), config(&format!("{EGRESS}{table}"))];
    let clashes = check_together(&both).join("\n");
    assert!(clashes.contains("[dead_letters] directory"), "{clashes}");
}

#[test]
fn timestamps_are_clamped_by_option_only() {
    let fixture = Fixture::new();
    let mode = |text: &str| {
        let Sink::Kafka(sink) = fixture.egress(text).sink else { panic!("Kafka") };
        sink.bad_timestamp
    };
    assert_eq!(mode(EGRESS), BadTimestamp::DeadLetter);
    let clamp = EGRESS.replace("[sink.kafka]\n", "[sink.kafka]\nbad_timestamp = \"clamp\"\n");
    assert_eq!(mode(&clamp), BadTimestamp::Clamp);
}
