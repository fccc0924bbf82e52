//! Secrets as systemd, Kubernetes and compose put them there.

use std::os::unix::fs::symlink;

use super::*;

const CREDENTIAL: &str = "${CREDENTIALS_DIRECTORY}/link.key";

/// What is said with `CREDENTIALS_DIRECTORY` set to the fixture's directory, or to nothing.
fn said(fixture: &Fixture, text: &str, set: bool) -> String {
    let directory = fixture.directory.path().display().to_string();
    let environment = |name: &str| (set && name == "CREDENTIALS_DIRECTORY").then(|| directory.clone());
    let lines = match parse(&fixture.directory.path().join("egress.toml"), text, None, &environment) {
        Ok(_) => vec!["ok".to_owned()],
        Err(error) => error.lines(),
    };
    lines.join("\n").replace(&directory, "DIR")
}

#[test]
fn credentials_are_found_by_their_directory_in_every_path() {
    let fixture = Fixture::new();
    fixture.write("link.key", &("0123456789abcdef".repeat(4) + "\n"), 0o400);
    fixture.write("kafka.password", "hunter2", 0o400);
    fixture.write("krb5.keytab", "keys", 0o400);
    let text = EGRESS.replace("a.key", CREDENTIAL)
        + "security.protocol = \"sasl_ssl\"\n[sink.kafka.security.sasl]\nmechanism = \"PLAIN\"\nusername = \"ddc\"\n\
           password_file = \"${CREDENTIALS_DIRECTORY}/kafka.password\"\n\
           [sink.kafka.properties]\n\"sasl.kerberos.keytab\" = \"${CREDENTIALS_DIRECTORY}/krb5.keytab\"\n\
           \"ssl.crl.location\" = \"$ is text here\"\n";
    assert_eq!(said(&fixture, &text, true), "ok");
    let unset = said(&fixture, &text, false);
    assert_eq!(unset.lines().count(), 3, "each of the three is named: {unset}");
    let first = unset.lines().next().unwrap();
    assert!(first.starts_with("DIR/egress.toml:7: `file` in [[link.keys]]: "), "{first}");
    assert!(
        first.ends_with("by hand run: CREDENTIALS_DIRECTORY=DIR ddc check -c DIR/egress.toml"),
        "{first}"
    );
    assert!(unset.contains(": `password_file` in [sink.kafka.security.sasl]: "), "{unset}");
    assert!(unset.contains(": `sasl.kerberos.keytab` in [sink.kafka.properties]: "), "{unset}");
}

#[test]
fn what_is_wrong_with_a_credential_or_a_variable_is_said() {
    let fixture = Fixture::new();
    fixture.write("link.key", "", 0o400);
    let of = |path: &str| said(&fixture, &EGRESS.replace("a.key", path), true);
    let state = said(&fixture, &with(EGRESS, "[link]", "state_dir = \"/var/lib/$LINK\""), true);
    insta::assert_snapshot!(
        [
            of(CREDENTIAL),
            of("${CREDENTIALS_DIRECTORY}/none.key"),
            of("${HOME}/a.key"),
            of("$HOME/a.key"),
            state
        ]
        .join("\n")
    );
}

/// The kubelet writes a new directory and moves one link: whoever reads again, at SIGHUP, follows it.
#[test]
fn an_exchanged_secret_is_there_at_the_next_look() {
    let fixture = Fixture::new();
    let at = |name: &str| fixture.directory.path().join(name);
    for (directory, digit) in [("..one", "1"), ("..two", "2")] {
        std::fs::create_dir(at(directory)).unwrap();
        fixture.write(&format!("{directory}/link.key"), &digit.repeat(64), 0o440);
    }
    symlink("..one", at("..data")).unwrap();
    symlink("..data/link.key", at("link.key")).unwrap();
    let first_byte = || match fixture.egress(&EGRESS.replace("a.key", "link.key")).seal {
        Seal::Aes256Gcm(keys) => keys[0].key.expose()[0],
        Seal::None => panic!("sealed"),
    };
    assert_eq!(first_byte(), 0x11);
    symlink("..two", at("..next")).unwrap();
    std::fs::rename(at("..next"), at("..data")).unwrap();
    assert_eq!(first_byte(), 0x22);
}
