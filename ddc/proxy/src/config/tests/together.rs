//! Clashes of links on one host that the file's text alone does not show.

use std::os::unix::fs::symlink;

use super::*;

/// What is said about two files of one fixture.
fn said(fixture: &Fixture, a: &str, b: &str) -> Vec<String> {
    let load = |name: &str, text: &str| {
        let mut loaded = fixture.parse(name, text).unwrap();
        loaded.file = PathBuf::from(name);
        loaded
    };
    check_together(&[load("a.toml", a), load("b.toml", b)])
}

#[test]
fn one_directory_under_two_names_is_one() {
    let fixture = Fixture::new();
    let other = INGRESS.replace("plant-a", "plant-b").replace("id = 1\ntarget", "id = 2\ntarget");
    let state = |text: &str, path: &str| with(text, "[link]", &format!("state_dir = \"{path}\""));
    let clash = |path: &str| said(&fixture, &state(INGRESS, "state"), &state(&other, path));
    assert_eq!(clash("other"), Vec::<String>::new());
    assert_eq!(clash("./state").len(), 1, "before it is made");
    std::fs::create_dir(fixture.directory.path().join("state")).unwrap();
    symlink("state", fixture.directory.path().join("other")).unwrap();
    let said = clash("other");
    assert!(said.len() == 1 && said[0].starts_with("b.toml: [link] state_dir = "), "{said:?}");
}

#[test]
fn an_id_is_taken_once_on_a_path_whatever_the_port() {
    let fixture = Fixture::new();
    let renamed = |text: &str| {
        let admin = "[admin]\nlisten = \"127.0.0.1:9700\"\n";
        text.replace("plant-a", "plant-b").replace(":7401", ":7402") + admin
    };
    let (ingress, egress) = (renamed(INGRESS), renamed(EGRESS));
    assert_eq!(
        said(&fixture, INGRESS, &ingress),
        [
            "b.toml: [link] id = 1 with target = \"198.18.0.2:7402\" is also used by a.toml; every link side needs its own"
        ]
    );
    assert_eq!(
        said(&fixture, EGRESS, &egress),
        [
            "b.toml: [link] id = 1 with listen = \"0.0.0.0:7402\" is also used by a.toml; every link side needs its own"
        ]
    );
    // Other ways: another host, another interface.
    let elsewhere = ingress.replace("198.18.0.2", "198.18.0.6");
    assert_eq!(said(&fixture, INGRESS, &elsewhere), Vec::<String>::new());
    let on = |text: &str, name: &str| with(text, "[link]", &format!("interface = \"{name}\""));
    assert_eq!(said(&fixture, &on(EGRESS, "eth1"), &on(&egress, "eth2")), Vec::<String>::new());
    assert_eq!(said(&fixture, &on(EGRESS, "eth1"), &on(&egress, "eth1")).len(), 1);
}
