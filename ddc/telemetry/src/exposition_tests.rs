//! The page is read back by a strict reader of the format, which shares no code with the writer, and held to a golden copy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::catalogue::all;
use crate::cells::Kind;
use crate::reasons::{Certificate, DropReason, MissingReason, SourceState, Thread};

/// A series: metric name and labels in order.
type Series = (String, Vec<(String, String)>);

/// Reads a page and panics at the first thing a strict reader would refuse.
fn read(page: &str) -> BTreeMap<Series, f64> {
    assert!(page.ends_with('\n') && !page.contains('\r') && !page.contains("\n\n"));
    let (mut series, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut name, mut kind) = ("", "");
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let text;
            (name, text) = help.split_once(' ').expect("a help text");
            assert!(!text.trim().is_empty(), "{line}");
            assert!(families.insert(name), "family {name} in two places");
            let declared =
                lines.next().and_then(|line| line.strip_prefix("# TYPE ")).expect("TYPE after HELP");
            let of;
            (of, kind) = declared.split_once(' ').expect("a type");
            assert_eq!(of, name);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{declared}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{declared}");
            continue;
        }
        assert!(!line.starts_with('#'), "{line}");
        let (what, value) = line.rsplit_once(' ').expect("a value");
        let (of, labels) = match what.split_once('{') {
            Some((of, rest)) => (of, read_labels(rest.strip_suffix('}').expect("a closing brace"))),
            None => (what, Vec::new()),
        };
        let suffix = of.strip_prefix(name).expect("a series outside its family");
        match kind {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "a series outside its family: {line}"),
        }
        assert!(of.starts_with("ddc_") && of.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{of}");
        let keys: BTreeSet<_> = labels.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys.len(), labels.len(), "a label twice: {line}");
        let value: f64 = value.parse().expect("a number");
        assert!(!value.is_nan() && (kind != "counter" || value >= 0.0), "{line}");
        assert!(series.insert((of.to_owned(), labels), value).is_none(), "series twice: {line}");
    }
    series
}

fn read_labels(text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    let mut chars = text.chars();
    loop {
        let key: String = chars.by_ref().take_while(|c| *c != '=').collect();
        assert!(!key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{text}");
        assert_eq!(chars.next(), Some('"'), "{text}");
        let mut value = String::new();
        loop {
            match chars.next().expect("a closing quote") {
                '"' => break,
                '\\' => value.push(match chars.next() {
                    Some('n') => '\n',
                    Some(c @ ('"' | '\\')) => c,
                    other => panic!("unknown escape {other:?} in {text}"),
                }),
                c => value.push(c),
            }
        }
        labels.push((key, value));
        match chars.next() {
            None => return labels,
            Some(c) => assert_eq!(c, ',', "{text}"),
        }
    }
}

/// What must hold for the series of every histogram: buckets rise to `+Inf`, which is the count; the sum fits.
fn check_histogram(page: &BTreeMap<Series, f64>, name: &str, labels: &[(&str, &str)]) -> (f64, f64) {
    let count = page[&series(&format!("{name}_count"), labels)];
    let sum = page[&series(&format!("{name}_sum"), labels)];
    let bounds: Vec<String> =
        crate::cells::BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]).collect();
    let (mut last, mut least) = (0.0, 0.0);
    for (n, bound) in bounds.iter().enumerate() {
        let upto = page[&series(&format!("{name}_bucket"), &[labels, &[("le", bound)]].concat())];
        assert!(upto >= last, "{name}: {bound}");
        if n > 0 {
            least += (upto - last) * crate::cells::BOUNDS[n - 1];
        }
        last = upto;
    }
    assert!((last - count).abs() < f64::EPSILON, "{name}: +Inf is not the count");
    assert!(sum >= least * 0.999, "{name}: sum {sum} is less than the buckets allow, {least}");
    let buckets = page.keys().filter(|(of, found)| {
        *of == format!("{name}_bucket")
            && labels.iter().all(|(k, v)| found.contains(&((*k).into(), (*v).into())))
    });
    assert_eq!(buckets.count(), bounds.len());
    (count, sum)
}

fn series(name: &str, labels: &[(&str, &str)]) -> Series {
    (name.to_owned(), labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

fn both_sides() -> Registry {
    fill(Registry::default())
}

fn fill(registry: Registry) -> Registry {
    let ingress = registry.ingress("plant-a").unwrap();
    ingress.packets_sent.add(1_000_000);
    ingress.consumer_lag.set_all([("orders", 12.0)]);
    ingress.common.dropped_packets.inc(DropReason::SendError);
    let egress = registry.egress("plant-a").unwrap();
    egress.records_missing.add(MissingReason::Lost, 500);
    egress.common.dropped_packets.add(DropReason::Seal, 3);
    egress.last_heartbeat_timestamp_seconds.set_time(UNIX_EPOCH + Duration::from_millis(1_760_000_000_250));
    egress.clock_difference_seconds.set(-0.004);
    egress.queue_bytes.set(4096);
    for micros in [90, 100, 101, 4_000, 400_000_000] {
        egress.sink_latency_seconds.observe(Duration::from_micros(micros));
    }
    egress.source_state.set(SourceState::Running);
    egress.common.thread_cpu_seconds.set(Thread::Sink, Duration::from_millis(1_250));
    egress.common.certificate_expiry_timestamp_seconds.set(Certificate::Ca, 2e9);
    registry.process().build_info.set("0.1.0", "0a1b2c3d");
    registry
}

#[test]
fn a_strict_reader_finds_the_values() {
    let page = read(&both_sides().render());
    let ingress = [("link", "plant-a"), ("side", "ingress")];
    let egress = [("link", "plant-a"), ("side", "egress")];
    let with = |labels: &[(&'static str, &'static str)], reason| [labels, &[("reason", reason)]].concat();
    for (name, labels, value) in [
        ("ddc_ingress_packets_sent_total", ingress.to_vec(), 1e6),
        ("ddc_ingress_bytes_sent_total", ingress.to_vec(), 0.0),
        ("ddc_ingress_consumer_lag", [&ingress[..], &[("topic", "orders")]].concat(), 12.0),
        ("ddc_egress_source_state", [&egress[..], &[("state", "running")]].concat(), 1.0),
        ("ddc_egress_source_state", [&egress[..], &[("state", "full")]].concat(), 0.0),
        ("ddc_thread_cpu_seconds_total", [&egress[..], &[("thread", "sink")]].concat(), 1.25),
        ("ddc_thread_cpu_seconds_total", [&egress[..], &[("thread", "receive")]].concat(), 0.0),
        ("ddc_certificate_expiry_timestamp_seconds", [&egress[..], &[("certificate", "ca")]].concat(), 2e9),
        ("ddc_ready", ingress.to_vec(), 0.0),
        ("ddc_dropped_packets_total", with(&ingress, "send_error"), 1.0),
        ("ddc_dropped_packets_total", with(&egress, "seal"), 3.0),
        ("ddc_dropped_packets_total", with(&egress, "magic"), 0.0),
        ("ddc_egress_records_missing_total", with(&egress, "lost"), 500.0),
        ("ddc_egress_last_heartbeat_timestamp_seconds", egress.to_vec(), 1_760_000_000.25),
        ("ddc_egress_clock_difference_seconds", egress.to_vec(), -0.004),
        ("ddc_egress_queue_bytes", egress.to_vec(), 4096.0),
        ("ddc_build_info", vec![("process", "test"), ("version", "0.1.0"), ("instance_id", "0a1b2c3d")], 1.0),
        ("ddc_process_ticks_total", vec![("process", "test")], 0.0),
    ] {
        assert_eq!(page.get(&series(name, &labels)), Some(&value), "{name}");
    }
    for name in ["ddc_egress_source_lag", "ddc_egress_key_id", "ddc_ingress_session_start_timestamp_seconds"]
    {
        assert!(!page.keys().any(|(of, _)| of == name), "{name} was never told and must be absent");
    }
}

#[test]
fn a_histogram_is_cumulative_and_whole() {
    let page = read(&both_sides().render());
    let egress = [("link", "plant-a"), ("side", "egress")];
    let (count, sum) = check_histogram(&page, "ddc_egress_sink_latency_seconds", &egress);
    assert!((count - 5.0).abs() < f64::EPSILON && (sum - 400.004_291).abs() < 0.001, "{count} {sum}");
    for (bound, upto) in [("0.0001", 2.0), ("0.00025", 3.0), ("0.005", 4.0), ("300", 4.0), ("+Inf", 5.0)] {
        let labels = [&egress[..], &[("le", bound)]].concat();
        let key = series("ddc_egress_sink_latency_seconds_bucket", &labels);
        assert_eq!(page.get(&key), Some(&upto), "{bound}");
    }
    let empty = check_histogram(&page, "ddc_egress_transit_latency_seconds", &egress);
    assert_eq!(empty, (0.0, 0.0), "a histogram is there before it moves");
}

#[test]
fn the_site_is_on_every_series() {
    let identity = Identity { process: "egress-plant-a".to_owned(), site: Some("north".to_owned()) };
    let registry = fill(Registry::new(Arc::default(), identity));
    let with = read(&registry.render());
    let site = ("site".to_owned(), "north".to_owned());
    assert!(with.keys().all(|(_, labels)| labels[0] == site));
    assert_eq!(with.len(), read(&both_sides().render()).len());
    let ticks = series("ddc_process_ticks_total", &[("site", "north"), ("process", "egress-plant-a")]);
    assert!(with.contains_key(&ticks));
}

/// Labels of a series are those of its row, and every counter is there from the start.
#[test]
fn the_page_is_the_catalogue() {
    let page = read(&both_sides().render());
    for row in all() {
        let name = row.prometheus_name();
        let mut found = 0;
        for (of, labels) in page.keys().filter(|(of, _)| row_name(of) == name) {
            found += 1;
            let le = of.ends_with("_bucket").then_some("le");
            assert_eq!(
                labels.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(),
                row.label_keys().chain(le).collect::<Vec<_>>()
            );
            if let (Some(by), Some((_, value))) = (row.by, labels.last()) {
                assert!(by.values.iter().any(|(known, _)| known == value), "{name}: {value}");
            }
        }
        assert!(found > 0 || row.kind == Kind::Gauge, "{name} is not there before it moves");
    }
    let known: BTreeSet<_> = all().map(Descriptor::prometheus_name).collect();
    assert!(page.keys().all(|(name, _)| known.contains(row_name(name))));
}

/// The catalogue's name of a series: without what a histogram adds.
fn row_name(series: &str) -> &str {
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix));
    histogram.filter(|name| name.ends_with("_latency_seconds")).unwrap_or(series)
}

#[test]
fn many_links_share_a_family_and_odd_names_come_back() {
    let registry = Registry::default();
    let odd = "a\\b\"c\nd,e=\u{e9}{}\u{1f980}";
    for (n, link) in ["plant-a", "plant-b", odd].into_iter().enumerate() {
        registry.egress(link).unwrap().packet_loss.add(n as u64);
    }
    let page = read(&registry.render());
    for (link, lost) in [("plant-a", 0.0), ("plant-b", 1.0), (odd, 2.0)] {
        let key = series("ddc_egress_packet_loss_total", &[("link", link), ("side", "egress")]);
        assert_eq!(page.get(&key), Some(&lost), "{link:?}");
    }
}

#[test]
fn a_link_twice_and_a_link_too_many_are_refused() {
    let registry = Registry::default();
    registry.ingress("a").unwrap();
    registry.egress("a").expect("the other side of the same link is another one");
    let error = registry.ingress("a").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the ingress of link a is configured twice in this process; give each link its own [link] name"
    );
    for n in 2..MAX_LINKS {
        registry.egress(&format!("l{n}")).unwrap();
    }
    assert_eq!(registry.ingress("z").unwrap_err(), RegistryError::TooMany { link: "z".to_owned() });
}

/// The bound that [`MAX_LINKS`] and docs/metrics.md name.
#[test]
fn the_page_of_the_most_links_is_bounded() {
    let registry = Registry::default();
    for n in 0..MAX_LINKS {
        registry.egress(&format!("link-{n}")).unwrap();
    }
    let lines = registry.render().lines().count();
    // Prometheus takes 150,000 samples of one target (`sample_limit` in deploy/prometheus).
    assert!((70_000..140_000).contains(&lines), "{lines}");
}

#[test]
fn golden() {
    let page = both_sides().render();
    let links: Vec<&str> = page.lines().filter(|line| !line.contains("ddc_process_")).collect();
    insta::assert_snapshot!(links.join("\n"));
}

/// Counters move while the page is written; nothing waits for anything and no reading goes back.
#[test]
fn reading_while_counting() {
    let registry = Registry::default();
    let egress = registry.egress("a").unwrap();
    let key = series("ddc_egress_packets_received_total", &[("link", "a"), ("side", "egress")]);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| (0..200_000).for_each(|_| egress.packets_received.inc()));
        let mut last = 0.0;
        while !counting.is_finished() {
            let now = read(&registry.render())[&key];
            assert!(now >= last);
            last = now;
        }
    });
    assert!((read(&registry.render())[&key] - 200_000.0).abs() < f64::EPSILON);
}
