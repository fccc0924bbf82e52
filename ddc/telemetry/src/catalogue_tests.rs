//! The table holds to its own rules.

use std::collections::BTreeSet;

use super::*;
use crate::cells::Sample;

fn find(name: &str) -> &'static Descriptor {
    all().find(|d| d.name == name).unwrap_or_else(|| panic!("{name} is not in the catalogue"))
}

#[test]
fn documented_names_stand() {
    for (statsd, prometheus) in [
        ("ddc.ingress.packets_sent", "ddc_ingress_packets_sent_total"),
        ("ddc.ingress.bytes_sent", "ddc_ingress_bytes_sent_total"),
        ("ddc.egress.packets_received", "ddc_egress_packets_received_total"),
        ("ddc.egress.packet_loss", "ddc_egress_packet_loss_total"),
        ("ddc.dropped_packets", "ddc_dropped_packets_total"),
        ("ddc.buffer_full", "ddc_buffer_full_total"),
        ("ddc.process_ticks", "ddc_process_ticks_total"),
        ("ddc.build_info", "ddc_build_info"),
    ] {
        let row = find(&statsd[4..]);
        assert_eq!((row.statsd_name().as_str(), row.prometheus_name().as_str()), (statsd, prometheus));
    }
}

#[test]
fn every_row_is_well_formed_and_unique() {
    let mut seen = BTreeSet::new();
    for row in all() {
        let name = row.prometheus_name();
        assert!(seen.insert(name.clone()), "{name} twice");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(row.help.ends_with('.') && !row.help.contains(['\n', '|']), "{name}: {:?}", row.help);
        assert!(!row.help.contains("  "), "{name}: {:?}", row.help);
        let timestamp = row.unit == Unit::Timestamp;
        assert_eq!(row.kind == Kind::Histogram, row.name.ends_with("_latency_seconds"), "{name}");
        assert_eq!(timestamp, row.name.ends_with("_timestamp_seconds"), "{name}");
        assert!(!timestamp || row.kind == Kind::Gauge, "{name}");
        assert!(!row.name.ends_with("_total"), "{name}: `_total` is added by the exposition");
        let keys: Vec<_> = row.label_keys().collect();
        assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len(), "{name}: {keys:?}");
    }
    assert!(seen.len() >= 85, "{}", seen.len());
}

/// Cells and rows must be in the same order, or counters would swap names.
#[test]
fn a_cell_is_found_under_its_own_row() {
    fn row_of(name: &str) -> usize {
        EgressMetrics::DESCRIPTORS.iter().position(|d| d.name == name).unwrap()
    }
    let metrics = EgressMetrics::default();
    metrics.packet_loss.add(41);
    metrics.source_lag.set(42.0);
    for (row, descriptor) in EgressMetrics::DESCRIPTORS.iter().enumerate() {
        let mut values = Vec::new();
        metrics.cell(row).read(None, &mut |_, sample| match sample {
            Sample::One(value) => values.push(value.to_string()),
            Sample::Histogram(snapshot) => values.push(snapshot.count().to_string()),
        });
        let expected = match row {
            row if row == row_of("egress.packet_loss") => vec!["41"],
            row if row == row_of("egress.source_lag") => vec!["42"],
            _ => values.iter().map(|_| "0").collect(),
        };
        assert_eq!(values, expected, "{}", descriptor.name);
    }
}
