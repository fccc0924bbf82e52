//! Every mistake a user can make, with the message he gets.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

mod dead_letters;
mod missing_records;
mod mounted;
mod spool;
mod together;

/// A directory with a key, a password and the two smallest files that are right.
struct Fixture {
    directory: tempfile::TempDir,
}

const INGRESS: &str = r#"[link]
name = "plant-a"
id = 1
target = "198.18.0.2:7401"
[[link.keys]]
id = 1
file = "a.key"
[source.kafka]
brokers = ["localhost:9092"]
topics = ["orders", "^audit\\..*"]
"#;

const EGRESS: &str = r#"[link]
name = "plant-a"
id = 1
listen = "0.0.0.0:7401"
[[link.keys]]
id = 1
file = "a.key"
[sink.kafka]
brokers = ["localhost:9092"]
"#;

impl Fixture {
    fn new() -> Self {
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        fixture.write("a.key", &("0123456789abcdef".repeat(4) + "\n"), 0o600);
        fixture.write("b.key", &("fedcba9876543210".repeat(4) + "\n"), 0o640);
        fixture.write("open.key", &("0123456789abcdef".repeat(4) + "\n"), 0o644);
        fixture.write("password", "hunter2\n", 0o600);
        fixture.write("ca.pem", "not read here\n", 0o644);
        fixture
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn parse(&self, name: &str, text: &str) -> Result<Loaded<Config>, ConfigError> {
        let environment = |name: &str| (name == "PASSWORD").then(|| "hunter2".to_owned());
        parse(&self.directory.path().join(name), text, None, &environment)
    }

    /// What is said about a text: problems, or notices behind "notice:".
    fn said(&self, name: &str, text: &str) -> String {
        let lines = match self.parse(name, text) {
            Ok(loaded) => loaded.notices.iter().map(|n| format!("notice: {}", n.at(&loaded.file))).collect(),
            Err(error) => error.lines(),
        };
        // Whoever runs the tests.
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let owner = format!("owner {user}, group {group}");
        let said = lines.join("\n").replace(&format!("{}/", self.directory.path().display()), "");
        let said = said.replace(&owner, "owner U, group G");
        assert!(!said.contains("hunter2"), "a password is shown: {said}");
        if said.is_empty() { "ok".to_owned() } else { said }
    }

    fn ingress(&self, text: &str) -> IngressConfig {
        match self.parse("ingress.toml", text).unwrap().config {
            Config::Ingress(config) => config,
            Config::Egress(_) => panic!("not an ingress"),
        }
    }

    fn egress(&self, text: &str) -> EgressConfig {
        match self.parse("egress.toml", text).unwrap().config {
            Config::Egress(config) => config,
            Config::Ingress(_) => panic!("not an egress"),
        }
    }
}

fn kafka_source(config: &IngressConfig) -> &KafkaSource {
    let Source::Kafka(source) = &config.source else { panic!("Kafka") };
    source
}

fn kafka_sink(config: &EgressConfig) -> &KafkaSink {
    let Sink::Kafka(sink) = &config.sink else { panic!("Kafka") };
    sink
}

/// The ingress file with a line put after the header of a table.
fn with(text: &str, header: &str, line: &str) -> String {
    let header = format!("{header}\n");
    assert!(text.contains(&header), "{header}");
    text.replacen(&header, &format!("{header}{line}\n"), 1)
}

/// What is said about each change of a file, one paragraph per change.
fn table(file: &str, base: &str, changes: &[(&str, &str)]) -> String {
    let fixture = Fixture::new();
    let paragraph = |(header, line): &(&str, &str)| {
        let text = match *header {
            "" => line.to_string(),
            "+" => format!("{base}{line}\n"),
            header if header.starts_with('[') && header.ends_with(']') => with(base, header, line),
            replaced => {
                assert!(base.contains(replaced), "{replaced}");
                base.replacen(replaced, line, 1)
            }
        };
        format!("{}\n    {}", line.replace('\n', " ⏎ "), fixture.said(file, &text).replace('\n', "\n    "))
    };
    changes.iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_smallest_files_are_right_and_have_the_documented_defaults() {
    let fixture = Fixture::new();
    assert_eq!(fixture.said("ingress.toml", INGRESS), "ok");
    assert_eq!(fixture.said("egress.toml", EGRESS), "ok");
    let ingress = fixture.ingress(INGRESS);
    assert_eq!(ingress.link.mtu.symbol_size(ingress.target.ip()), 1412);
    assert_eq!(ingress.rate.to_string(), "800Mbit/s");
    assert_eq!(kafka_source(&ingress).group, "ddc-plant-a");
    assert_eq!(ingress.link.state_dir, PathBuf::from("/var/lib/ddc/plant-a"));
    assert_eq!(ingress.admin.listen.unwrap().to_string(), "127.0.0.1:9641");
    assert_eq!(kafka_source(&ingress).commit_delay.as_secs(), 30);
    assert!(matches!(&ingress.seal, Seal::Aes256Gcm(key) if key.key.expose()[0] == 0x01));
    let egress = fixture.egress(EGRESS);
    assert_eq!(egress.admin.listen.unwrap().to_string(), "127.0.0.1:9661");
    assert_eq!(kafka_sink(&egress).replication_factor, None);
    assert!(kafka_sink(&egress).create_topics && kafka_sink(&egress).provenance);
}

/// The two files of a telemetry link.
const UDP_INGRESS: &str = r#"[link]
name = "telemetry"
id = 2
target = "198.18.0.2:7402"
rate = "2Mbit/s"
buffer = "1MiB"
[[link.keys]]
id = 1
file = "a.key"
[source.udp]
streams = { statsd = "127.0.0.1:8126", syslog = "127.0.0.1:5141" }
"#;

const UDP_EGRESS: &str = r#"[link]
name = "telemetry"
id = 2
listen = "0.0.0.0:7402"
[[link.keys]]
id = 1
file = "a.key"
[sink.udp]
streams = { statsd = "127.0.0.1:8127", syslog = "127.0.0.1:5142" }
"#;

/// What is not committed yet can always be gone back to.
#[test]
fn the_history_covers_the_commit_delay() {
    let fixture = Fixture::new();
    let history = |lines: &str| {
        let ingress = fixture.ingress(&with(INGRESS, "[source.kafka]", lines));
        kafka_source(&ingress).history.as_secs()
    };
    assert_eq!(kafka_source(&fixture.ingress(INGRESS)).history.as_secs(), 300);
    assert_eq!(history("commit_delay = \"10min\""), 600);
    assert_eq!(history("history = \"1h\""), 3600);
    assert_eq!(history("history = \"30s\""), 30);
    for (lines, why) in [
        ("history = \"29s\"", "shorter than `commit_delay`, 30s"),
        ("history = \"25h\"", "longer than 86400s"),
        ("history = \"0s\"", "shorter than `commit_delay`"),
        ("history = \"-1s\"", "duration"),
    ] {
        let said = fixture.said("ingress.toml", &with(INGRESS, "[source.kafka]", lines));
        assert!(said.contains("history") && said.contains(why), "{lines}: {said}");
    }
}

#[test]
fn streams_of_datagrams_are_configured_and_what_is_wrong_with_them_is_named() {
    let fixture = Fixture::new();
    assert_eq!(fixture.said("ingress.toml", UDP_INGRESS), "ok");
    assert_eq!(fixture.said("egress.toml", UDP_EGRESS), "ok");
    let ingress = fixture.ingress(UDP_INGRESS);
    let Source::Udp(source) = &ingress.source else { panic!("UDP") };
    let shown: Vec<String> = source.streams.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["statsd 127.0.0.1:8126", "syslog 127.0.0.1:5141"]);
    assert_eq!((source.max_datagram, source.receive_buffer), (ByteSize(8 << 10), ByteSize(4 << 20)));
    assert!(ingress.kafka().is_none() && ingress.largest_record() == source.max_datagram);
    let total: u64 = ingress.memory().iter().map(|item| item.size.bytes()).sum();
    assert!(total < 40 << 20, "{:?}", ingress.memory());
    let egress = fixture.egress(UDP_EGRESS);
    let Sink::Udp(sink) = &egress.sink else { panic!("UDP") };
    assert_eq!((sink.streams.len(), sink.late), (2, LateDatagrams::Pass));
    assert!(egress.memory().iter().all(|item| !item.purpose.contains("Kafka")), "{:?}", egress.memory());

    let streams = "streams = { statsd = \"127.0.0.1:8126\", syslog = \"127.0.0.1:5141\" }";
    let many: Vec<String> = (0..17).map(|n| format!("s{n} = \"127.0.0.1:{}\"", 9000 + n)).collect();
    insta::assert_snapshot!(table(
        "ingress.toml",
        UDP_INGRESS,
        &[
            (streams, "streams = { Statsd = \"127.0.0.1:8126\" }"),
            (streams, "streams = { \"\" = \"127.0.0.1:8126\" }"),
            (streams, "streams = { a = \"127.0.0.1:8126\", b = \"127.0.0.1:8126\" }"),
            (streams, "streams = { a = \"0.0.0.0:8126\", b = \"127.0.0.1:8126\" }"),
            (streams, "streams = { a = \"127.0.0.1\" }"),
            (streams, "streams = { a = 8126 }"),
            (streams, "streams = {}"),
            (streams, "streams = \"127.0.0.1:8126\""),
            (streams, "# none"),
            (streams, "streams = { a = \"239.1.1.1:8126\" }"),
            (streams, "streams = { a = \"198.18.0.2:7402\" }"),
            (streams, "streams = { a = \"198.18.0.1:8126\" }"),
            (streams, &format!("streams = {{ {} }}", many.join(", "))),
            ("[source.udp]", "max_datagram = \"64KiB\""),
            ("[source.udp]", "max_datagram = \"0B\""),
            ("[source.udp]", "max_datagram = \"65507B\""),
            ("[source.udp]", "receive_buffer = \"1KiB\""),
            ("[source.udp]", "max_datagramm = \"1KiB\""),
            ("[source.udp]", "group = \"g\""),
            ("+", "[source.kafka]\nbrokers = [\"localhost:9092\"]\ntopics = [\"a\"]"),
            ("buffer = \"1MiB\"\n", ""),
            (
                "[source.udp]\nstreams = { statsd = \"127.0.0.1:8126\", syslog = \"127.0.0.1:5141\" }",
                "[source]"
            ),
        ]
    ));
    let streams = "streams = { statsd = \"127.0.0.1:8127\", syslog = \"127.0.0.1:5142\" }";
    insta::assert_snapshot!(table(
        "egress.toml",
        UDP_EGRESS,
        &[
            (streams, "streams = { statsd = \"0.0.0.0:8127\" }"),
            (streams, "streams = { statsd = \"127.0.0.1:7402\" }"),
            (streams, "streams = { statsd = \"198.18.0.9:7402\" }"),
            (streams, "streams = { a = \"127.0.0.1:1\", b = \"127.0.0.1:1\" }"),
            (streams, "streams = { a = \"255.255.255.255:1\" }"),
            ("[sink.udp]", "late = \"mark\""),
            ("[sink.udp]", "max_datagram = \"1KiB\""),
            ("+", "[sink.kafka]\nbrokers = [\"localhost:9092\"]"),
            ("[sink.udp]\nstreams = { statsd = \"127.0.0.1:8127\", syslog = \"127.0.0.1:5142\" }", "[sink]"),
        ]
    ));
}

#[test]
fn streams_of_two_links_do_not_share_an_address() {
    let fixture = Fixture::new();
    let second =
        UDP_INGRESS.replace("id = 2", "id = 3").replace("telemetry", "other").replace("7402", "7403");
    let parsed = |name: &str, text: &str| fixture.parse(name, text).unwrap();
    let clashes = check_together(&[parsed("a.toml", UDP_INGRESS), parsed("b.toml", &second)]);
    assert_eq!(clashes.len(), 2, "{clashes:?}");
    assert!(
        clashes[0].contains("[source.udp] streams.statsd = \"127.0.0.1:8126\" is also used by"),
        "{clashes:?}"
    );
    let egress = UDP_EGRESS.replace("id = 2", "id = 4").replace("telemetry", "third").replace("7402", "8126");
    let clashes = check_together(&[parsed("a.toml", UDP_INGRESS), parsed("c.toml", &egress)]);
    assert_eq!(clashes.len(), 1, "an ingress's stream and an egress's link: {clashes:?}");
    let clashes = check_together(&[parsed("c.toml", UDP_EGRESS), parsed("d.toml", &egress)]);
    assert_eq!(clashes, Vec::<String>::new(), "two sinks may have one receiver");
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(table(
        "ingress.toml",
        INGRESS,
        &[
            ("+", "[link.pack]\nlingr = \"5ms\""),
            ("[link]", "MTU = 1500"),
            ("[link]", "linger = \"5ms\""),
            ("[link]", "listen = \"0.0.0.0:7401\""),
            ("[link]", "colour = \"red\""),
            ("[[link.keys]]", "path = \"a.key\""),
            ("+", "[lnk]\na = 1"),
            ("+", "[sourc]\na = 1"),
            ("[source.kafka]", "security.sasl.user_name = \"x\""),
        ]
    ));
}

#[test]
fn wrong_values() {
    insta::assert_snapshot!(table(
        "ingress.toml",
        INGRESS,
        &[
            ("id = 1", "id = \"1\""),
            ("id = 1", "id = 70000"),
            ("id = 1", "id = -1"),
            ("id = 1", "id = 1.5"),
            ("name = \"plant-a\"", "name = \"Plant A\""),
            ("target = \"198.18.0.2:7401\"", "target = \"diode:7401\""),
            ("[link]", "rate = \"800Mb\""),
            ("[link]", "rate = 800"),
            ("[link]", "mtu = 100"),
            ("[link]", "mtu = \"1500\""),
            ("[link]", "burst = \"fast\""),
            ("[link]", "burst = \"1s\""),
            ("[link]", "seal = \"aes-128-gcm\""),
            ("[link]", "seal = true"),
            ("[link]", "buffer = \"64M\""),
            ("[link]", "buffer = \"1KiB\""),
            ("[link]", "fec = \"64+8\""),
            ("[link]", "fec.code = \"64-8\""),
            ("[link]", "fec.interleave = 0"),
            ("[link]", "pack = { level = 99, compression = \"gzip\" }"),
            ("[link]", "state_dir = \"\""),
            ("[link]", "interface = 1"),
            ("[link]", "active_key = 256"),
            ("[link]", "send_delay_ms = 0"),
            ("[link]", "send_delay_ms = \"1\""),
            ("brokers = [\"localhost:9092\"]", "brokers = \"localhost:9092\""),
            ("brokers = [\"localhost:9092\"]", "brokers = [\"a:9092,b:9092\"]"),
            ("brokers = [\"localhost:9092\"]", "brokers = []"),
            ("topics = [\"orders\", \"^audit\\\\..*\"]", "topics = [\"audit.*\", \"ok\", \"^(\"]"),
            ("[source.kafka]", "start_at = \"begin\""),
            ("[source.kafka]", "commit_on_stop = \"delay\""),
            ("[source.kafka]", "topic_epoch = -1"),
            ("[source.kafka]", "properties = { a = [1] }"),
            ("[source.kafka]", "security.tls.verify_hostname = \"no\""),
            ("[[link.keys]]\nid = 1\nfile = \"a.key\"\n", "keys = 3\n"),
            ("[link]", "mtu = 9_0_0_0"),
            ("[link]", "mtu = 0x5dc"),
        ]
    ));
}

#[test]
fn missing_keys_and_unfinished_files() {
    insta::assert_snapshot!(table(
        "ingress.toml",
        INGRESS,
        &[
            ("id = 1", "# no id"),
            ("target = \"198.18.0.2:7401\"", "# no target"),
            ("topics = [\"orders\", \"^audit\\\\..*\"]", "# no topics"),
            ("", "[source.kafka]"),
            ("", ""),
            ("", "[link]\ntarget = \"198.18.0.2:7401\""),
            ("+", "[sink.kafka]\nbrokers = [\"localhost:9092\"]"),
            ("id = 1\nfile = \"a.key\"", "# nothing"),
        ]
    ));
}

#[test]
fn text_that_is_not_toml() {
    insta::assert_snapshot!(table(
        "ingress.toml",
        INGRESS,
        &[
            ("id = 1", "id = "),
            ("id = 1", "id 1"),
            ("[link]", "name = \"again\""),
            ("target = \"198.18.0.2:7401\"", "target = 198.18.0.2:7401"),
            ("name = \"plant-a\"", "name = \"plant-a"),
        ]
    ));
}

#[test]
fn what_does_not_fit_together() {
    insta::assert_snapshot!(table(
        "ingress.toml",
        INGRESS,
        &[
            ("[link]", "send_delay_ms = 0.5"),
            ("[link]", "send_delay_ms = 1\nrate = \"1Gbit/s\""),
            ("[link]", "send_delay_ms = 1e-9"),
            ("[link]", "rate = \"unlimited\""),
            ("[link]", "seal = \"none\""),
            ("[link]", "active_key = 2"),
            ("[source.kafka]", "commit_delay = \"1ms\""),
            ("[source.kafka]", "commit_delay = \"1s\""),
            ("[source.kafka]", "commit_delay = \"2h\""),
            ("[link]", "buffer = \"8MiB\""),
            ("[link]", "pack.max_record_bytes = \"300MiB\""),
            ("[link]", "source_address = \"::1\""),
            ("target = \"198.18.0.2:7401\"", "target = \"0.0.0.0:7401\""),
            ("target = \"198.18.0.2:7401\"", "target = \"[fe80::1]:7401\""),
            ("target = \"198.18.0.2:7401\"", "target = \"[2001:db8::1]:7401\"\nmtu = 1000"),
            ("[link]", "fec = { code = \"128+127\", interleave = 64 }"),
            ("[link]", "fec = { code = \"64+0\" }"),
            ("+", "[admin]\nlisten = \"0.0.0.0:9641\""),
            ("id = 1", "id = 20"),
            ("[[link.keys]]", "id = 1\nfile = \"b.key\"\n[[link.keys]]"),
            ("[[link.keys]]", "id = 2\nfile = \"b.key\"\n[[link.keys]]"),
            ("[[link.keys]]\nid = 1\nfile = \"a.key\"\n", ""),
            ("a.key", "open.key"),
            ("a.key", "missing.key"),
            ("a.key", "password"),
        ]
    ));
    insta::assert_snapshot!(table(
        "egress.toml",
        EGRESS,
        &[
            ("[link]", "rate = \"1Gbit/s\""),
            ("[link]", "multicast_group = \"198.18.0.1\""),
            ("[link]", "multicast_group = \"ff02::1\""),
            ("listen = \"0.0.0.0:7401\"", "listen = \"239.18.0.1:7401\""),
            ("[link]", "receive = { window = \"1MiB\", reorder_timeout = \"0s\" }"),
            ("+", "[sink]\nbuffer = \"8MiB\""),
            ("[sink.kafka]", "replication_factor = 0"),
            ("[sink.kafka]", "rename = { \"a b\" = \"c\", d = \"e/f\" }"),
            ("[sink.kafka]", "rename_regex = [{ pattern = \"a-(.*)\", replacement = \"b-$1_x\" }]"),
            ("[sink.kafka]", "rename_regex = [{ pattern = \"a-(\", replacement = \"b\" }]"),
            ("[sink.kafka]", "rename_regex = [{ pattern = \"a\", replacement = \"b/c\" }]"),
            ("[sink.kafka]", "drain_timeout = \"1h\""),
        ]
    ));
}

#[test]
fn security_and_properties() {
    insta::assert_snapshot!(table(
        "ingress.toml",
        INGRESS,
        &[
            ("[source.kafka]", "security.protocol = \"SASL_SSL\""),
            ("[source.kafka]", "security.protocol = \"sasl_ssl\""),
            (
                "+",
                "[source.kafka.security.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"\npassword_file = \"password\""
            ),
            ("+", "[source.kafka.security.tls]\nca_file = \"ca.pem\""),
            (
                "+",
                "[source.kafka.security]\nprotocol = \"sasl_ssl\"\n[source.kafka.security.sasl]\nmechanism = \"SCRAM-SHA-512\""
            ),
            (
                "+",
                "[source.kafka.security]\nprotocol = \"sasl_plaintext\"\nsasl = { mechanism = \"PLAIN\", username = \"u\", password_env = \"PASSWORD\" }"
            ),
            (
                "+",
                "[source.kafka.security]\nprotocol = \"sasl_ssl\"\nsasl = { mechanism = \"PLAIN\", username = \"u\", password_env = \"UNSET\" }"
            ),
            (
                "+",
                "[source.kafka.security]\nprotocol = \"sasl_ssl\"\nsasl = { mechanism = \"PLAIN\", username = \"u\", password_env = \"PASSWORD\", password_file = \"password\" }"
            ),
            (
                "+",
                "[source.kafka.security]\nprotocol = \"sasl_ssl\"\nsasl = { mechanism = \"PLAIN\", username = \"u\", password_file = \"open.key\" }"
            ),
            (
                "+",
                "[source.kafka.security]\nprotocol = \"sasl_ssl\"\nsasl = { mechanism = \"PLAIN\", username = \"u\", password = \"hunter2\" }"
            ),
            (
                "+",
                "[source.kafka.security]\nprotocol = \"sasl_ssl\"\nsasl = { mechanism = \"GSSAPI\", username = \"u\" }"
            ),
            (
                "+",
                "[source.kafka.security]\nprotocol = \"ssl\"\ntls = { ca_file = \"no.pem\", key_file = \"open.key\" }"
            ),
            ("+", "[source.kafka.security]\nprotocol = \"ssl\"\ntls = { verify_hostname = false }"),
            ("+", "[source.kafka.properties]\n\"socket.keepalive.enable\" = true\n\"fetch.min.bytes\" = 1"),
            ("+", "[source.kafka.properties]\n\"fetch.min.byte\" = 1"),
            ("+", "[source.kafka.properties]\n\"fetch.min.bytes\" = \"many\""),
            ("+", "[source.kafka.properties]\n\"group.id\" = \"x\""),
            ("+", "[source.kafka.properties]\n\"sasl.password\" = \"hunter2\""),
            ("+", "[source.kafka.properties]\n\"ssl.keystore.password\" = \"hunter2\""),
            ("+", "[source.kafka.properties]\n\"ssl.keystore.password\" = { env = \"PASSWORD\" }"),
            ("+", "[source.kafka.properties]\n\"ssl.keystore.password\" = { vault = \"x\" }"),
            ("+", "[source.kafka.properties]\n\"plugin.library.paths\" = \"x.so\""),
        ]
    ));
}

/// All mistakes at once, in the order of the file.
#[test]
fn several_mistakes_are_all_named() {
    let text = r#"[link]
name = "Plant A"
id = 70000
trget = "198.18.0.2:7401"
rate = "fast"
[link.pack]
lingr = "5ms"
[source.kafka]
brokers = []
"#;
    insta::assert_snapshot!(Fixture::new().said("ingress.toml", text));
    let two_keys =
        INGRESS.replace("file = \"a.key\"", "file = \"open.key\"").replace("orders\"", "orders\", \"x\"")
            + "group = \"\"\n[admin]\nlisten = \"10.0.0.1:9641\"\n";
    insta::assert_snapshot!(Fixture::new().said("ingress.toml", &two_keys));
}

#[test]
fn files_that_cannot_be_read() {
    let fixture = Fixture::new();
    let said = |name: &str| {
        let path = fixture.directory.path().join(name);
        load(&path).unwrap_err().to_string().replace(&format!("{}/", fixture.directory.path().display()), "")
    };
    assert_eq!(
        said("none.toml"),
        "none.toml: no such file; `ddc config --side ingress|egress` prints one to begin with"
    );
    fixture.write("latin.toml", "", 0o644);
    std::fs::write(fixture.directory.path().join("latin.toml"), b"a = 1\n# caf\xe9\n").unwrap();
    assert_eq!(said("latin.toml"), "latin.toml:2: is not UTF-8 text");
    std::fs::create_dir(fixture.directory.path().join("dir")).unwrap();
    assert_eq!(said("dir"), "dir: is not a file");
    fixture.write("ingress.toml", INGRESS, 0o644);
    let wrong = load_egress(&fixture.directory.path().join("ingress.toml")).unwrap_err().to_string();
    assert!(
        wrong.ends_with("configures an ingress ([source]); run: ddc ingress -c with this file"),
        "{wrong}"
    );
    assert!(load_ingress(&fixture.directory.path().join("ingress.toml")).is_ok());
}

/// What `ddc config` prints is right as soon as the placeholders are filled, also with every default written out.
#[test]
fn the_default_files_are_right() {
    let fixture = Fixture::new();
    for side in [Side::Ingress, Side::Egress] {
        let file = default_file(side);
        let filled = file.replace("/etc/ddc/keys/plant-a.key", "a.key");
        assert_ne!(file, filled);
        assert_eq!(fixture.said("default.toml", &filled), "ok");
        let loaded = fixture.parse("default.toml", &filled).unwrap().config;
        assert_eq!(loaded.side(), side);
        // Every key of the schema is there.
        let schema = schema(side).to_string();
        for key in ["socket_buffer", "commit_delay", "topic_prefix", "verify_hostname", "format"] {
            assert_eq!(schema.contains(&format!("\"{key}\"")), file.contains(&format!("{key} = ")), "{key}");
        }
        // With the # of every key with a default removed it says the same.
        let is_default = |line: &str| {
            line.starts_with('#')
                && !line.starts_with("# ")
                && !line.contains("/path/to")
                && line.contains(" = ")
        };
        let optional = ["multicast_group", "source_address", "interface", "send_delay_ms", "password_env"];
        let written: Vec<&str> = filled
            .lines()
            .take_while(|line| !line.contains(".sasl]"))
            .chain(filled.lines().skip_while(|line| *line != "[admin]"))
            .map(|line| {
                let active = is_default(line) && !optional.iter().any(|key| line.contains(key));
                if active { &line[1..] } else { line }
            })
            .collect();
        let written = written.join("\n");
        assert_eq!(fixture.said("default.toml", &written), "ok", "{written}");
    }
}

#[test]
fn links_of_one_process_do_not_share() {
    let fixture = Fixture::new();
    let other = INGRESS.replace("plant-a", "plant-b").replace("id = 1\ntarget", "id = 2\ntarget");
    let load = |name: &str, text: &str| {
        let mut loaded = fixture.parse(name, text).unwrap();
        loaded.file = PathBuf::from(name);
        loaded
    };
    assert_eq!(check_together(&[load("a.toml", INGRESS), load("b.toml", &other)]), Vec::<String>::new());
    let said = |files: &[Loaded<Config>]| check_together(files).join("\n");
    insta::assert_snapshot!(said(&[load("a.toml", INGRESS), load("b.toml", INGRESS)]));
    insta::assert_snapshot!(said(&[
        load("a.toml", EGRESS),
        load("b.toml", &EGRESS.replace("0.0.0.0", "198.18.0.2"))
    ]));
    // Both sides of one link on one host: only the state directory stands in the way.
    insta::assert_snapshot!(said(&[load("a.toml", INGRESS), load("b.toml", EGRESS)]));
}

#[test]
fn topics_are_renamed_in_the_documented_order() {
    let fixture = Fixture::new();
    let text = with(
        EGRESS,
        "[sink.kafka]",
        r#"topic_prefix = "p."
rename = { orders = "bestellungen" }
rename_regex = [{ pattern = "audit-(.*)", replacement = "a.${1}.x" }, { pattern = "audit-.*", replacement = "never" }]"#,
    );
    let egress = fixture.egress(&text);
    let sink = kafka_sink(&egress);
    assert_eq!(sink.destination("orders"), "bestellungen");
    assert_eq!(sink.destination("audit-7"), "a.7.x");
    assert_eq!(sink.destination("my-audit-7"), "p.my-audit-7", "a pattern matches whole names only");
    assert_eq!(sink.destination("other"), "p.other");
}

/// Nothing that is loaded shows a secret when it is printed for debugging.
#[test]
fn debug_shows_no_secret() {
    let fixture = Fixture::new();
    let text = INGRESS.to_owned()
        + "[source.kafka.security]\nprotocol = \"sasl_ssl\"\nsasl = { mechanism = \"PLAIN\", username = \"u\", password_file = \"password\" }\n[source.kafka.properties]\n\"ssl.keystore.password\" = { env = \"PASSWORD\" }\n";
    let config = fixture.ingress(&text);
    let shown = format!("{config:?} {config:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains("0123456789abcdef"), "{shown}");
    let (client, role) = config.kafka().unwrap();
    assert!(client.build(&role).is_ok());
}

/// A made-up file never panics, whatever it holds.
#[test]
fn no_text_panics() {
    use proptest::prelude::*;
    let fixture = Fixture::new();
    let lines: Vec<&str> = INGRESS.lines().chain(EGRESS.lines()).collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let strategy = prop::collection::vec((0..lines.len(), any::<bool>(), "\\PC{0,6}"), 0..14);
    runner
        .run(&strategy, |picks| {
            let text: Vec<String> = picks
                .iter()
                .map(
                    |(line, whole, noise)| {
                        if *whole { lines[*line].to_owned() } else { format!("{noise}{}", lines[*line]) }
                    },
                )
                .collect();
            let _ = parse(Path::new("x.toml"), &text.join("\n"), None, &|_| None);
            Ok(())
        })
        .unwrap();
    drop(fixture);
}
