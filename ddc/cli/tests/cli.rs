//! The real binary, as a user or a script calls it: exit codes, what goes to which output, files that are made.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Exit code, standard output, standard error of `ddc` in a directory.
fn ddc(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_ddc")).current_dir(directory).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A directory with a key and both default files, their placeholders filled.
fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(ddc(directory.path(), &["keygen", "--out", "a.key"]).0, 0);
    for side in ["ingress", "egress"] {
        let (code, file, errors) = ddc(directory.path(), &["config", "--side", side]);
        assert_eq!((code, errors.as_str()), (0, ""));
        let file = file
            .replace("/etc/ddc/keys/plant-a.key", "a.key")
            .replace("#state_dir = \"/path/to/state_dir\"", &format!("state_dir = \"{side}\""));
        std::fs::write(directory.path().join(format!("{side}.toml")), file).unwrap();
    }
    directory
}

#[test]
fn wrong_command_lines_end_with_64() {
    let here = Path::new(".");
    for arguments in [&[][..], &["nope"], &["check"], &["config"], &["config", "--side", "left"], &["ready"]]
    {
        let (code, out, errors) = ddc(here, arguments);
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}");
        assert!(!errors.is_empty() && !errors.contains("error: "), "{errors}");
    }
    assert!(ddc(here, &["chekc"]).2.starts_with("ddc: unrecognized subcommand 'chekc'\n"));
    assert!(ddc(here, &["chekc"]).2.contains("'check'"), "the nearest is named");
    for arguments in
        [&["--help"][..], &["check", "--help"], &["--version"], &["version"], &["completions", "zsh"]]
    {
        let (code, out, errors) = ddc(here, arguments);
        assert_eq!((code, errors.as_str()), (0, ""), "{arguments:?}");
        assert!(!out.is_empty());
    }
}

/// A time that no ingress would take, though none runs.
#[test]
fn a_time_that_is_none_or_to_come_ends_with_64() {
    let directory = filled();
    for command in [&["rewind"][..], &["pause"], &["pause", "--dry-run"]] {
        for since in ["soon", "0s", "-5s", "2999-03-01T08:15:30Z"] {
            let arguments = [command, &["-c", "ingress.toml", "--since", since]].concat();
            let (code, out, errors) = ddc(directory.path(), &arguments);
            assert_eq!((code, out.as_str()), (64, ""), "{errors}");
            assert!(errors.contains(since) && errors.contains("20s"), "{errors}");
        }
    }
}

/// Nobody reads the errors: the exit code is still the right one.
#[test]
fn nobody_listens_on_standard_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddc"));
    let status = command.args(["check", "-c", "/nowhere.toml"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(78));
}

/// What can be seen to be wrong without anybody's answer ends with 64, and nothing was asked.
#[test]
fn a_replay_that_is_wrong_by_itself_is_refused() {
    let directory = filled();
    std::fs::write(directory.path().join("torn.json"), "{\"kind\": \"ddc-gaps\", \"format\": 1,").unwrap();
    std::fs::write(directory.path().join("later.json"), "{\"kind\": \"ddc-gaps\", \"format\": 2}").unwrap();
    let foreign = "{\"kind\": \"ddc-gaps\", \"format\": 1, \"site\": \"elsewhere\", \"link\": \"plant-z\", \"link_id\": 77, \"exported_at\": \"2026-03-01T08:15:30.000Z\", \"gaps\": []}";
    std::fs::write(directory.path().join("foreign.json"), foreign).unwrap();
    let one = ["--topic", "orders", "--partition", "0", "--from", "5", "--to"];
    let range = |more: &[&'static str]| [&one[..], more].concat();
    for (arguments, why) in [
        (vec![], "name a range"),
        (vec!["--topic", "orders"], "--partition"),
        (vec!["--from", "5"], "--topic"),
        (range(&["9", "--topic", "orders"]), "each range needs --topic, --partition, --from and --to"),
        (range(&["4"]), "reversed"),
        (range(&["99999999999"]), "of one replay"),
        (range(&["-9"]), "reversed"),
        (vec!["--topic", "orders", "--partition", "-1", "--from", "0", "--to", "9"], "count from 0"),
        (vec!["--topic", "orders", "--partition", "0", "--from", "-3", "--to", "9"], "count from 0"),
        (
            vec!["--topic", "nobodys", "--partition", "0", "--from", "0", "--to", "9"],
            "ask the ingress that carries it",
        ),
        (vec!["--gaps", "foreign.json"], "take the file to the ingress it belongs to"),
        (vec!["--status", "--cancel", "a"], "cannot be used with"),
        (range(&["9", "--gaps", "torn.json"]), "cannot be used with"),
        (vec!["--gaps", "torn.json"], "torn.json: "),
        (vec!["--gaps", "later.json"], "later.json: "),
        (vec!["--gaps", "none.json"], "none.json: "),
        (range(&["9", "--dry-run", "--offline"]), "cannot be used with"),
        (range(&["9", "--id", "a b"]), "`id`"),
    ] {
        let all = [&["replay", "-c", "ingress.toml"][..], &arguments].concat();
        let (code, out, errors) = ddc(directory.path(), &all);
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}: {errors}");
        assert!(errors.contains(why), "{arguments:?}: {errors}");
    }
    let nobody = [&["replay", "-c", "ingress.toml"][..], &range(&["9"])].concat();
    let (code, _, errors) = ddc(directory.path(), &nobody);
    assert!(code == 69 || errors.contains("not carried"), "{code}: {errors}");
    let egress = [&["replay", "-c", "egress.toml"][..], &range(&["9"])].concat();
    assert_eq!(ddc(directory.path(), &egress).0, 78, "the file of the other side");
}

/// What is listed works: no subcommand stands in the help before its time.
#[test]
fn every_listed_command_has_help_of_its_own() {
    let (_, help, _) = ddc(Path::new("."), &["--help"]);
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is indented further goes on with a description.
    let names: Vec<&str> = commands
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        let (code, out, _) = ddc(Path::new("."), &[name, "--help"]);
        assert_eq!(code, 0, "{name}");
        assert!(out.contains(&format!("Usage: ddc {name}")), "{name}");
    }
}

#[test]
fn the_default_files_pass_check_once_filled() {
    let directory = filled();
    let (code, out, errors) = ddc(directory.path(), &["check", "-c", "ingress.toml", "-c", "egress.toml"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    for part in [
        "UDP to 198.18.0.2:7401",
        "UDP on 0.0.0.0:7401",
        "TCP 127.0.0.1:9641",
        "TCP 127.0.0.1:9661",
        "memory",
    ] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    let fingerprint = out.split("fingerprint ").nth(1).unwrap().get(..8).unwrap();
    assert_eq!(out.matches(fingerprint).count(), 2, "both sides show the same key");
    let key = std::fs::read_to_string(directory.path().join("a.key")).unwrap();
    assert!(!out.contains(key.trim()));
}

#[test]
fn wrong_files_end_with_78_and_one_line_each() {
    let directory = filled();
    std::fs::write(
        directory.path().join("wrong.toml"),
        "[link]\nname = \"A\"\nid = 1\nlisten = \"x\"\n[sink.kafka]\nbroker = 1\n",
    )
    .unwrap();
    let (code, out, errors) =
        ddc(directory.path(), &["check", "-c", "wrong.toml", "ingress.toml", "none.toml"]);
    assert_eq!(code, 78);
    assert!(out.starts_with("ingress.toml: ingress of link plant-a"), "{out}");
    let places: Vec<&str> = errors.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert!(errors.lines().all(|line| line.starts_with("ddc: ")), "{errors}");
    assert_eq!(
        places,
        ["wrong.toml:2", "wrong.toml:4", "wrong.toml:5", "wrong.toml:6", "none.toml"],
        "{errors}"
    );
    assert!(errors.contains("unknown key `broker` in [sink.kafka]; did you mean `brokers`?"), "{errors}");
    // Two links that take each other's port.
    let (code, _, errors) = ddc(directory.path(), &["check", "-c", "ingress.toml", "ingress.toml"]);
    assert_eq!(code, 78);
    assert!(errors.contains("[admin] listen = \"127.0.0.1:9641\" is also used by"), "{errors}");
}

#[test]
fn a_key_is_written_once_and_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let (code, out, _) = ddc(directory.path(), &["keygen", "--out", "a.key"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("a.key: key with fingerprint "), "{out}");
    let path = directory.path().join("a.key");
    let first = std::fs::read_to_string(&path).unwrap();
    assert_eq!((first.len(), first.ends_with('\n')), (65, true));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, _, errors) = ddc(directory.path(), &["keygen", "--out", "a.key"]);
    assert_eq!(code, 64);
    assert_eq!(errors, "ddc: a.key exists and is not overwritten; choose another name, or remove it first\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    assert_eq!(ddc(directory.path(), &["keygen", "--out", "no/a.key"]).0, 69);
    // Without --out only the key goes to standard output, and it is another one.
    let (code, out, errors) = ddc(directory.path(), &["keygen"]);
    assert_eq!((code, out.len()), (0, 65));
    assert_ne!(out, first);
    assert!(errors.starts_with("ddc: key with fingerprint "), "{errors}");
}

#[test]
fn ready_says_why_not() {
    let here = Path::new(".");
    let asked = |path: &'static str, arguments: &[&str], answer: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let result = ddc(here, &[&["ready", "--admin", &address], arguments].concat());
        let request = thread.join().unwrap();
        assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{request}");
        result
    };
    let answer_with = |answer| asked("/readyz", &[], answer);
    let (code, out, errors) = answer_with("HTTP/1.1 200 OK\r\n\r\nready\n");
    assert_eq!((code, out.as_str(), errors.as_str()), (0, "ready\n", ""));
    let (code, _, errors) = answer_with(
        "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready\nno broker answers\nno partition is assigned\n",
    );
    assert_eq!(code, 69);
    assert_eq!(errors, "ddc: not ready: no broker answers\nddc: not ready: no partition is assigned\n");
    let (code, _, errors) = answer_with("HTTP/1.1 404 Not Found\r\n\r\n");
    assert_eq!(code, 69);
    assert!(errors.contains("answers with HTTP 404: is this a ddc admin listener?"), "{errors}");
    let live = |answer| asked("/healthz", &["--live"], answer);
    let (code, out, errors) = live("HTTP/1.1 200 OK\r\n\r\nok\n");
    assert_eq!((code, out.as_str(), errors.as_str()), (0, "live\n", ""));
    let (code, _, errors) = live("HTTP/1.1 503 Service Unavailable\r\n\r\nthe link thread stands still\n");
    assert_eq!((code, errors.as_str()), (69, "ddc: not live: the link thread stands still\n"));
    let (code, _, errors) = ddc(here, &["ready", "--socket", "/nonexistent.sock"]);
    assert_eq!(code, 69);
    assert_eq!(errors, "ddc: /nonexistent.sock: nothing listens there (no such file or directory)\n");
}

/// A probe must not fail for what it does not need: keys, passwords, the rest of the file.
#[test]
fn ready_takes_only_the_listener_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let link = "[link]\nname = \"a\"\nid = 1\nlisten = \"0.0.0.0:7401\"\n[[link.keys]]\nid = 1\nfile = \"none\"\n[sink.kafka]\n";
    file("tcp.toml", &format!("{link}[admin]\nlisten = \"127.0.0.1:{port}\"\n"));
    file("unix.toml", &format!("{link}[admin]\nlisten = \"none\"\nsocket = \"admin.sock\"\n"));
    file("nobody.toml", &format!("{link}[admin]\nlisten = \"none\"\n"));
    file("open.toml", &format!("{link}[admin]\nlisten = \"10.0.0.1:9\"\n"));
    let ready = |arguments: &[&str]| ddc(directory.path(), &[&["ready"], arguments].concat());
    let (code, _, errors) = ready(&["-c", "tcp.toml"]);
    assert_eq!(code, 69);
    assert!(errors.starts_with(&format!("ddc: 127.0.0.1:{port}: nothing listens there ")), "{errors}");
    let (code, _, errors) = ready(&["-c", "tcp.toml", "unix.toml"]);
    assert_eq!((code, errors.lines().count()), (69, 2), "all must be: {errors}");
    assert!(errors.contains("admin.sock: nothing listens there"), "{errors}");
    let (code, _, errors) = ready(&["-c", "nobody.toml"]);
    assert!(code == 78 && errors.contains("no admin listener to ask"), "{errors}");
    let (code, _, errors) = ready(&["-c", "open.toml"]);
    assert!(code == 78 && errors.contains("is not on loopback"), "{errors}");
    assert_eq!(ready(&["-c", "tcp.toml", "--socket", "admin.sock"]).0, 64, "one of them");
}
