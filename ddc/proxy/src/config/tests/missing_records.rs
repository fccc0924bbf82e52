//! `[missing_records]`: a cluster of its own, checked as `[sink.kafka]` is; and where a link's state lies.

use super::*;

fn with_table(lines: &str) -> String {
    format!("{EGRESS}{lines}\n")
}

#[test]
fn it_has_brokers_security_and_a_topic_of_its_own() {
    let fixture = Fixture::new();
    assert!(fixture.egress(EGRESS).missing_records.is_none());
    let config = fixture.egress(&with_table(
        "[missing_records]\nbrokers = [\"gaps:9093\"]\ntopic = \"ddc-missing-records\"\n[missing_records.security]\nprotocol = \"sasl_ssl\"\n\
         sasl = { mechanism = \"SCRAM-SHA-512\", username = \"u\", password_file = \"password\" }\n\
         [missing_records.properties]\n\"socket.timeout.ms\" = 5000",
    ));
    let missing = config.missing_records.as_ref().unwrap();
    assert_eq!(
        (missing.topic.as_str(), &missing.client.brokers[..]),
        ("ddc-missing-records", &["gaps:9093".to_owned()][..])
    );
    let native = missing.client.build(&MissingRecords::role()).unwrap();
    for (key, value) in [
        ("enable.idempotence", "true"),
        ("security.protocol", "sasl_ssl"),
        ("sasl.password", "hunter2"),
        ("socket.timeout.ms", "5000"),
    ] {
        assert_eq!(native.get(key), Some(value), "{key}");
    }
    let tables: Vec<_> = config.clients().into_iter().map(|(table, ..)| table).collect();
    assert_eq!(tables, ["sink.kafka", "missing_records"]);
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.memory().iter().any(|item| item.purpose.contains("[missing_records]")));
}

#[test]
fn what_is_wrong_in_it_is_named() {
    let fixture = Fixture::new();
    for (lines, said) in [
        ("[missing_records]\ntopic = \"t\"", "`brokers`"),
        ("[missing_records]\nbrokers = [\"a:1\"]", "`topic`"),
        ("[missing_records]\nbrokers = []\ntopic = \"t\"", "brokers"),
        ("[missing_records]\nbrokers = [\"a:1\"]\ntopic = \"a b\"", "is no topic"),
        ("[missing_records]\nbrokers = [\"a:1\"]\ntopics = \"t\"", "did you mean `topic`"),
        (
            "[missing_records]\nbrokers = [\"a:1\"]\ntopic = \"t\"\nsecurity.protocol = \"sasl_ssl\"",
            "`protocol` in [missing_records.security]: \"sasl_ssl\" needs [missing_records.security.sasl]",
        ),
        (
            "[missing_records]\nbrokers = [\"a:1\"]\ntopic = \"t\"\nproperties = { \"enable.idempotence\" = false }",
            "[missing_records.properties]: ",
        ),
        (
            "[missing_records]\nbrokers = [\"a:1\"]\ntopic = \"t\"\n[missing_records.security]\nprotocol = \"sasl_plaintext\"\n\
             sasl = { mechanism = \"PLAIN\", username = \"u\", password_file = \"password\" }",
            "notice: egress.toml:14: PLAIN over sasl_plaintext",
        ),
    ] {
        let answer = fixture.said("egress.toml", &with_table(lines));
        assert!(answer.contains(said) && answer.contains("egress.toml:1"), "{lines}: {answer}");
    }
    let answer = fixture.said("ingress.toml", &format!("{INGRESS}[missing_records]\ntopic = \"t\"\n"));
    assert!(answer.contains("missing_records"), "{answer}");
}

#[test]
fn a_place_needs_neither_keys_nor_passwords() {
    let fixture = Fixture::new();
    let place = |text: &str| {
        fixture.write("place.toml", text, 0o600);
        load_place(&fixture.directory.path().join("place.toml"))
    };
    let text = EGRESS.replace("a.key", "nothing.key") + "[telemetry]\nsite = \"north\"\n";
    let expected = Place {
        side: Side::Egress,
        link: "plant-a".parse().unwrap(),
        link_id: LinkId(1),
        site: Some("north".parse().unwrap()),
        state_dir: "/var/lib/ddc/plant-a".into(),
        sealed: true,
        dead_letters: None,
    };
    assert_eq!(place(&text).unwrap(), expected);
    let relative = place(&with(&text, "[link]", "state_dir = \"state\"\nseal = \"none\"")).unwrap();
    assert_eq!(
        relative,
        Place { state_dir: fixture.directory.path().join("state"), sealed: false, ..expected }
    );
    assert_eq!(place(INGRESS).unwrap().side, Side::Ingress);
    let letters = place(&format!("{text}[dead_letters]\ndirectory = \"letters\"\n")).unwrap().dead_letters;
    assert_eq!(letters, Some(fixture.directory.path().join("letters")));
    assert!(place(&text.replace("plant-a", "Plant")).is_err());
    assert!(place("").is_err());
}
