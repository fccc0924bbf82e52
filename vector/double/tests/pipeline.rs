//! The shipped files, run: every metric of the catalogue arrives under its Prometheus name, messages arrive whole, and bad input does no harm.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Page, Pipeline, datagram, get, scrape, until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Lines as our reporter sends them: many in a datagram of at most 1432 bytes.
fn send_lines(port: u16, lines: &[String]) {
    let mut packet = String::new();
    for line in lines {
        if !packet.is_empty() && packet.len() + line.len() + 1 > 1432 {
            datagram(port, packet.as_bytes());
            packet.clear();
        }
        if !packet.is_empty() {
            packet.push('\n');
        }
        packet.push_str(line);
    }
    datagram(port, packet.as_bytes());
}

/// The lines and the expected series of the catalogue, made by ddc-telemetry.
fn vectors() -> (Vec<String>, Page) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ddc/telemetry/tests/vectors.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let texts = |key: &str| -> Vec<String> {
        vectors[key].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    let expected = texts("expect").join("\n");
    (texts("lines"), Page::read(&expected))
}

/// Of a page only our own metrics.
fn ours(page: &Page) -> Page {
    let mut page = page.clone_parts();
    page.types.retain(|name, _| name.starts_with("ddc_"));
    page.series.retain(|name, _| name.starts_with("ddc_"));
    page
}

/// Two sets of series, told apart in words; sums of histograms may differ in their last digits.
fn difference(expected: &Page, got: &Page) -> Option<String> {
    let close = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
        _ => false,
    };
    for (series, values) in &expected.series {
        match got.series.get(series) {
            None => return Some(format!("{series} is missing")),
            Some(other) if other.len() != 1 => {
                return Some(format!("{series} is there {} times", other.len()));
            }
            Some(other) if !close(&values[0], &other[0]) => {
                return Some(format!("{series} is {} instead of {}", other[0], values[0]));
            }
            Some(_) => {}
        }
    }
    got.series
        .keys()
        .find(|series| !expected.series.contains_key(*series))
        .map(|series| format!("{series} is too much"))
}

/// The type that the catalogue's line says, by Prometheus name.
fn type_of(lines: &[String], family: &str) -> &'static str {
    let dotted = |line: &str| line.split(':').next().unwrap().replace('.', "_");
    let line = lines.iter().find(|line| {
        let name = dotted(line);
        family == name || family == format!("{name}_total")
    });
    match line.unwrap_or_else(|| panic!("no line for {family}")).split('|').nth(1).unwrap() {
        "c" => "counter",
        "g" => "gauge",
        _ => "histogram",
    }
}

#[test]
fn every_metric_of_the_catalogue_and_nothing_else() {
    let (lines, expected) = vectors();
    let pipeline = Pipeline::start(&["vector.yaml", "exporter.yaml"], &[]);
    send_lines(pipeline.statsd, &lines);
    until(PATIENCE, || difference(&expected, &ours(&pipeline.page())).is_none());
    let page = ours(&pipeline.page());
    assert_eq!(difference(&expected, &page), None);
    assert!(page.types.len() > 70, "only {} families", page.types.len());
    for (family, kind) in &page.types {
        assert_eq!(kind, type_of(&lines, family), "{family}");
    }
    // Counters are sent again when nothing changed, and must not move then.
    let again: Vec<String> =
        lines.iter().filter(|line| line.contains("|c")).map(|line| zeroed(line)).collect();
    send_lines(pipeline.statsd, &again);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(difference(&expected, &ours(&pipeline.page())), None);
}

fn zeroed(line: &str) -> String {
    let (name, rest) = line.split_once(':').unwrap();
    format!("{name}:0|{}", rest.split_once('|').unwrap().1)
}

#[test]
fn the_same_across_the_diode_has_via_and_is_another_series() {
    let (lines, expected) = vectors();
    let pipeline = Pipeline::start(
        &["vector.yaml", "exporter.yaml", "destination.yaml"],
        &[("DDC_SITE", "south".into())],
    );
    send_lines(pipeline.diode_statsd, &lines);
    let mut across = Page::default();
    for (series, values) in &expected.series {
        let (name, labels) = series.split_once('{').unwrap();
        let series = support::sorted(&format!("{name}{{via=\"diode\",{labels}"));
        across.series.insert(series, values.clone());
    }
    until(PATIENCE, || difference(&across, &ours(&pipeline.page())).is_none());
    assert_eq!(difference(&across, &ours(&pipeline.page())), None);
    send_lines(pipeline.statsd, &lines);
    let mut both = across.clone_parts();
    both.series.extend(expected.series.clone());
    until(PATIENCE, || difference(&both, &ours(&pipeline.page())).is_none());
    assert_eq!(difference(&both, &ours(&pipeline.page())), None);
}

/// What Prometheus itself says about the whole page: the catalogue's series, the host's and Vector's own.
#[test]
fn promtool_reads_the_page() {
    let (lines, _) = vectors();
    let pipeline = Pipeline::start(&["vector.yaml", "exporter.yaml", "destination.yaml"], &[]);
    send_lines(pipeline.statsd, &lines);
    send_lines(pipeline.diode_statsd, &lines);
    // What would break a page: dots, dashes, label names that are none, quotes and backslashes in values.
    datagram(pipeline.statsd, b"ddc.a-b.c:1|c|#k.e-y:v,1k:v,link:a\"b\\c,bare");
    let whole = |page: &Page| {
        page.series.contains_key("ddc_a_b_c_total{link=\"a\\\"b\\\\c\"}")
            && ours(page).types.len() > 70
            && page.types.contains_key("vector_uptime_seconds")
    };
    assert!(until(PATIENCE, || whole(&pipeline.page())));
    // 3 is promtool's code for matters of taste, such as bits instead of bytes; 1 is a page that Prometheus would refuse.
    let (code, said) = promtool(&scrape(pipeline.exporter));
    assert!(matches!(code, Some(0 | 3)), "{said}");
    assert_eq!(promtool("# TYPE a.b counter\na.b 1\n").0, Some(1), "a name with a dot is refused");
}

fn promtool(page: &str) -> (Option<i32>, String) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian: prometheus) is installed");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const MESSAGE: &str = r#"<131>1 2026-11-22T03:00:00.5Z host1 ddc-egress 12 gap [ddc@32473 link="plant-a" first="10" site="north"] 3 records missing"#;

#[test]
fn messages_by_every_way_arrive_whole() {
    let pipeline = Pipeline::start(&["vector.yaml", "exporter.yaml", "destination.yaml"], &[]);
    let numbered = |way: &str| MESSAGE.replace("3 records", way);
    datagram(pipeline.syslog, numbered("udp").as_bytes());
    datagram(pipeline.diode_syslog, numbered("diode").as_bytes());
    let tcp = numbered("tcp");
    write!(TcpStream::connect(("127.0.0.1", pipeline.syslog)).unwrap(), "{} {tcp}", tcp.len()).unwrap();
    let socket = pipeline.directory.path().join("s");
    writeln!(UnixStream::connect(socket).unwrap(), "{}", numbered("unix")).unwrap();
    assert!(until(PATIENCE, || pipeline.logs().len() == 4), "{:?}", pipeline.logs());
    let mut ways = Vec::new();
    for log in pipeline.logs() {
        let way = log["message"].as_str().unwrap().strip_suffix(" missing").unwrap().to_owned();
        assert_eq!(log["host"], "host1");
        assert_eq!(log["severity"], "err");
        assert_eq!(log["appname"], "ddc-egress");
        assert_eq!(log["timestamp"], "2026-11-22T03:00:00.500Z");
        assert_eq!(log["ddc"], serde_json::json!({ "link": "plant-a", "first": "10", "site": "north" }));
        assert_eq!(
            (&log["link"], &log["side"], &log["site"]),
            (&"plant-a".into(), &"egress".into(), &"north".into())
        );
        assert_eq!(log["via"].as_str(), (way == "diode").then_some("diode"));
        assert_eq!(log.get("minute"), None);
        ways.push(way);
    }
    ways.sort();
    assert_eq!(ways, ["diode", "tcp", "udp", "unix"]);
}

#[test]
fn repeated_errors_are_written_once_and_information_always() {
    let pipeline = Pipeline::start(&["vector.yaml", "exporter.yaml"], &[]);
    for _ in 0..50 {
        datagram(pipeline.syslog, MESSAGE.as_bytes());
    }
    let information = MESSAGE.replace("<131>", "<134>");
    for _ in 0..3 {
        datagram(pipeline.syslog, information.as_bytes());
    }
    datagram(pipeline.syslog, MESSAGE.replace("03:00:00.5Z", "03:01:00Z").as_bytes());
    assert!(until(PATIENCE, || pipeline.logs().len() >= 5));
    std::thread::sleep(Duration::from_millis(200));
    let count = |severity: &str| pipeline.logs().iter().filter(|log| log["severity"] == severity).count();
    assert_eq!((count("err"), count("info")), (2, 3));
}

#[test]
fn the_host_and_vector_itself_are_on_the_page() {
    let pipeline = Pipeline::start(&["vector.yaml", "exporter.yaml"], &[("DDC_SITE", "north".into())]);
    let has = |page: &Page, start: &str| page.series.keys().any(|series| series.starts_with(start));
    // Each source is on the page from its own first reading on: wait for every one.
    let names = [
        "host_memory_available_bytes",
        "host_load1",
        "host_cpu_seconds_total",
        "vector_uptime_seconds",
        "vector_component_received_events_total",
    ];
    until(PATIENCE, || {
        let page = pipeline.page();
        names.iter().all(|name| has(&page, name))
    });
    let page = pipeline.page();
    for name in names {
        assert!(has(&page, name), "{name} is missing");
    }
    for series in page.series.keys() {
        assert!(series.contains("site=\"north\""), "{series} has no site");
    }
    assert_eq!(get(pipeline.api, "/health", "").0, "HTTP/1.1 200 OK");
}

#[test]
fn hostile_datagrams_and_streams_leave_the_page_as_it_was() {
    let pipeline = Pipeline::start(&["vector.yaml", "exporter.yaml", "destination.yaml"], &[]);
    datagram(pipeline.statsd, b"ddc.good:1|c|#link:a");
    assert!(until(PATIENCE, || pipeline.page().value("ddc_good_total{link=\"a\"}") == Some(1.0)));
    let before = ours(&pipeline.page());
    let huge = vec![b'x'; 60_000];
    let long_line = format!("ddc.{}:1|c", "y".repeat(50_000));
    let bad: [&[u8]; 14] = [
        b"",
        b"\n\n\n",
        b"\x00\xff\xfe",
        b":",
        b"ddc.x",
        b"ddc.x:|c",
        b"ddc.x:abc|c",
        b"ddc.x:1|zz",
        b"ddc.x:1:2:3|h",
        b"nginx.requests:1|c|#link:a",
        b"ddc.a b:1|c",
        b"ddc.good:1|c\r",
        &huge,
        long_line.as_bytes(),
    ];
    for port in [pipeline.statsd, pipeline.syslog, pipeline.diode_statsd, pipeline.diode_syslog] {
        for bytes in bad {
            datagram(port, bytes);
        }
    }
    let mut tcp = TcpStream::connect(("127.0.0.1", pipeline.syslog)).unwrap();
    // A length that never comes, then a connection that is cut within a message.
    let _ = tcp.write_all(b"999999999 ");
    for _ in 0..50 {
        let _ = tcp.write_all(&huge);
    }
    drop(tcp);
    let mut tcp = TcpStream::connect(("127.0.0.1", pipeline.syslog)).unwrap();
    tcp.write_all(b"100 <131>1 half").unwrap();
    drop(tcp);
    std::thread::sleep(Duration::from_millis(300));
    // A name is lost with its line; what StatsD's own clean-up leaves of "ddc.a b" is a name of ours.
    let mut after = ours(&pipeline.page());
    after.types.remove("ddc_a_b_total");
    after.series.remove("ddc_a_b_total");
    after.series.remove("ddc_a_b_total{via=\"diode\"}");
    assert_eq!(difference(&before, &after), None);
    datagram(pipeline.statsd, b"ddc.good:1|c|#link:a");
    assert!(
        until(PATIENCE, || pipeline.page().value("ddc_good_total{link=\"a\"}") == Some(2.0)),
        "still works"
    );
}

#[test]
fn a_flood_of_labels_ends_at_the_bound() {
    let pipeline =
        Pipeline::start(&["vector.yaml", "exporter.yaml"], &[("DDC_MAX_LABEL_VALUES", "100".into())]);
    datagram(pipeline.statsd, b"ddc.known:1|c|#link:known");
    assert!(until(PATIENCE, || pipeline.page().value("ddc_known_total{link=\"known\"}") == Some(1.0)));
    for batch in 0..200 {
        let lines: Vec<String> =
            (0..25).map(|n| format!("ddc.flood:1|c|#link:l{},uid{n}:{batch}", batch * 25 + n)).collect();
        datagram(pipeline.statsd, lines.join("\n").as_bytes());
        std::thread::sleep(Duration::from_millis(2));
    }
    let flood = |page: &Page| page.series.keys().filter(|series| series.starts_with("ddc_flood")).count();
    assert!(until(PATIENCE, || flood(&pipeline.page()) == 99), "{}", flood(&pipeline.page()));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(flood(&pipeline.page()), 99, "100 values with the one known before");
    assert!(!scrape(pipeline.exporter).contains("uid"), "unknown labels make no series");
    datagram(pipeline.statsd, b"ddc.known:1|c|#link:known");
    assert!(
        until(PATIENCE, || pipeline.page().value("ddc_known_total{link=\"known\"}") == Some(2.0)),
        "known values still count"
    );
    let dropped = |page: &Page| {
        let counter = page
            .series
            .iter()
            .find(|(series, _)| series.starts_with("vector_tag_value_limit_exceeded_total"));
        counter.is_some_and(|(_, values)| values[0] == "4901")
    };
    assert!(until(PATIENCE, || dropped(&pipeline.page())), "Vector's own counter says so");
}

#[test]
fn scrapes_at_the_same_time_are_each_whole() {
    let (lines, expected) = vectors();
    let pipeline = Pipeline::start(&["vector.yaml", "exporter.yaml"], &[]);
    send_lines(pipeline.statsd, &lines);
    assert!(until(PATIENCE, || difference(&expected, &ours(&pipeline.page())).is_none()));
    let families = ours(&pipeline.page()).types.len();
    let (port, end) = (pipeline.exporter, Instant::now() + Duration::from_secs(1));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < end {
                    assert_eq!(ours(&Page::read(&scrape(port))).types.len(), families);
                }
            });
        }
        scope.spawn(|| {
            while Instant::now() < end {
                send_lines(pipeline.statsd, &lines);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // And somebody who connects and says nothing.
        let _silent: Vec<TcpStream> =
            (0..5).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(500));
    });
}

#[test]
fn the_page_with_a_password() {
    let secrets =
        [("DDC_EXPORTER_USER", "prometheus".to_owned()), ("DDC_EXPORTER_PASSWORD", "se:cret".to_owned())];
    let pipeline = Pipeline::start(&["vector.yaml", "exporter-auth.yaml"], &secrets);
    let get = |header: &str| get(pipeline.exporter, "/metrics", header);
    assert_eq!(get("").0, "HTTP/1.1 401 Unauthorized");
    assert_eq!(get("Authorization: Basic d3Jvbmc=\r\n").0, "HTTP/1.1 401 Unauthorized");
    assert!(get("").1.is_empty(), "nothing is told without the password");
    // prometheus:se:cret
    assert_eq!(get("Authorization: Basic cHJvbWV0aGV1czpzZTpjcmV0\r\n").0, "HTTP/1.1 200 OK");
}

#[test]
fn other_paths_are_not_found() {
    let pipeline = Pipeline::start(&["vector.yaml", "exporter.yaml"], &[]);
    assert_eq!(get(pipeline.exporter, "/", "").0, "HTTP/1.1 404 Not Found");
}
