//! What the demo found: as JSON for programs, as a summary for people.

use std::fmt::Write as _;

use serde::Serialize;

use super::Demo;
use super::view::grouped;

/// The result. The order of the fields is the order in the JSON object.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Report {
    /// Acknowledged by the source cluster.
    pub(super) records_sent: u64,
    /// Read at the destination, duplicates included.
    pub(super) records_received: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) mismatched: u64,
    pub(super) out_of_order: u64,
    /// Handed to the kernel by the ingress.
    pub(super) datagrams_sent: u64,
    /// Dropped on purpose between the two.
    pub(super) datagrams_dropped: u64,
    pub(super) symbols_repaired: u64,
    /// From the first record produced to the last one compared.
    pub(super) seconds: f64,
    pub(super) records_per_second: f64,
    // Beyond what scripts may rely on:
    /// Bytes of keys and values that arrived.
    pub(super) bytes_received: u64,
    /// Records that the egress reported as missing: it should name what is lost.
    pub(super) reported_missing: u64,
    /// Datagrams lost by packet numbers, the dropped ones included.
    pub(super) datagrams_lost: u64,
    /// Datagrams that the machine lost: some thread was too slow for the rate.
    pub(super) datagrams_overrun: u64,
    pub(super) seed: u64,
    /// Ended before everything was produced and compared.
    pub(super) interrupted: bool,
}

impl Report {
    /// Everything arrived once, in order and as it was.
    pub(super) fn is_good(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.mismatched == 0
            && self.out_of_order == 0
            && !self.interrupted
    }

    /// One line: what is wrong, or not known.
    pub(super) fn verdict(&self) -> String {
        if self.interrupted {
            // What is still on its way is not lost.
            return format!(
                "interrupted when {} of {} records had arrived: {} duplicated, {} mismatched, {} out of order",
                grouped(self.records_sent - self.lost),
                grouped(self.records_sent),
                grouped(self.duplicated),
                grouped(self.mismatched),
                grouped(self.out_of_order)
            );
        }
        format!(
            "of {} records {} lost, {} duplicated, {} mismatched, {} out of order",
            grouped(self.records_sent),
            grouped(self.lost),
            grouped(self.duplicated),
            grouped(self.mismatched),
            grouped(self.out_of_order)
        )
    }

    /// The summary that a person reads at the end.
    pub(super) fn summary(&self, demo: &Demo, examples: &[String]) -> String {
        let mut text = String::from("\n");
        // Writing into a String cannot fail.
        let mut line = |args: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{args}");
        };
        if self.is_good() {
            line(format_args!(
                "All {} records crossed the one-way link: each once, in order, every field as it was.\n",
                grouped(self.records_sent)
            ));
        } else {
            line(format_args!("NOT proven: {}.\n", self.verdict()));
        }
        line(format_args!(
            "  compared  key, value, headers (order, repeats, nulls), timestamp, partition, provenance"
        ));
        line(format_args!(
            "  speed     {:.1} s: {} records/s, {:.1} MB/s of keys and values",
            self.seconds,
            grouped(self.records_per_second as u64),
            self.bytes_received as f64 / 1e6 / self.seconds.max(1e-3)
        ));
        line(format_args!(
            "  link      {} datagrams over UDP, AES-256-GCM, FEC {}, rate {}",
            grouped(self.datagrams_sent),
            demo.fec,
            demo.rate()
        ));
        if demo.loss > 0.0 {
            let share = self.datagrams_dropped as f64 * 100.0 / self.datagrams_sent.max(1) as f64;
            line(format_args!(
                "  loss      {} datagrams dropped on purpose ({share:.2} %, --seed {}), {} symbols repaired",
                grouped(self.datagrams_dropped),
                self.seed,
                grouped(self.symbols_repaired)
            ));
        }
        if self.datagrams_overrun > 0 {
            line(format_args!(
                "  overrun   {} datagrams lost because this machine was too slow for the rate; try a lower --rate",
                grouped(self.datagrams_overrun)
            ));
        }
        if self.lost > 0 && !self.interrupted {
            line(format_args!(
                "  missing   the egress reported {} records as missing",
                grouped(self.reported_missing)
            ));
        }
        for example in examples {
            line(format_args!("  differs   {example}"));
        }
        line(format_args!("\n{}", self.next(demo)));
        text.truncate(text.trim_end().len());
        text
    }

    fn next(&self, demo: &Demo) -> String {
        if self.interrupted {
            return "Next: let it run to its end; --records N makes it shorter.".to_owned();
        }
        if self.lost > 0 && demo.loss > 0.0 {
            return format!(
                "Next: the code {} repairs up to {} lost datagrams of a full block; try --fec 64+{}, or less --loss.",
                demo.fec,
                demo.fec.repair,
                enough_repair(demo.loss)
            );
        }
        if !self.is_good() {
            return "Next: run again with --verbose.".to_owned();
        }
        if demo.loss == 0.0 {
            return "Next: `ddc demo --loss 0.01` drops datagrams and shows them repaired.\n      \
                    For a link of your own: `ddc keygen`, `ddc config --side ingress`, `ddc check`."
                .to_owned();
        }
        "Next, for a link of your own: `ddc keygen`, `ddc config --side ingress`, `ddc check`.".to_owned()
    }
}

/// How many repair symbols 64 source symbols need at this share of loss: what is lost on average, and room for chance.
fn enough_repair(loss: f64) -> u32 {
    let average = 64.0 * loss / (1.0 - loss);
    ((average * 1.6 + 6.0).ceil() as u32).min(127)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        demo: Demo,
    }

    fn demo(arguments: &[&str]) -> Demo {
        Line::try_parse_from([&["demo"], arguments].concat()).unwrap().demo
    }

    fn good() -> Report {
        Report {
            records_sent: 1000,
            records_received: 1000,
            seconds: 2.0,
            records_per_second: 500.0,
            ..Report::default()
        }
    }

    #[test]
    fn the_json_object_has_the_promised_keys_first() {
        let json = serde_json::to_string(&good()).unwrap();
        let keys = [
            "records_sent",
            "records_received",
            "lost",
            "duplicated",
            "mismatched",
            "out_of_order",
            "datagrams_sent",
            "datagrams_dropped",
            "symbols_repaired",
            "seconds",
            "records_per_second",
        ];
        let mut rest = json.as_str();
        for key in keys {
            let key = format!("\"{key}\":");
            let at = rest.find(&key).unwrap_or_else(|| panic!("{key} not in its place: {json}"));
            assert!(
                at <= 1 || !rest[..at].contains(':') || rest[..at].matches(':').count() == 1,
                "{key}: {json}"
            );
            rest = &rest[at..];
        }
        assert!(!json.contains('\n'));
    }

    type Fault = (&'static str, fn(&mut Report));

    #[test]
    fn any_single_fault_spoils_the_result_and_is_named() {
        assert!(good().is_good());
        assert!(good().summary(&demo(&[]), &[]).contains("All 1,000 records crossed"));
        let faults: [Fault; 5] = [
            ("1 lost", |r| r.lost = 1),
            ("1 duplicated", |r| r.duplicated = 1),
            ("1 mismatched", |r| r.mismatched = 1),
            ("1 out of order", |r| r.out_of_order = 1),
            ("interrupted", |r| r.interrupted = true),
        ];
        for (said, spoil) in faults {
            let mut report = good();
            spoil(&mut report);
            assert!(!report.is_good(), "{said}");
            let summary = report.summary(&demo(&[]), &["orders partition 1 offset 2 has another key".into()]);
            assert!(
                summary.contains(said) && summary.contains("NOT") && !summary.contains("All"),
                "{summary}"
            );
            assert!(summary.contains("offset 2 has another key"));
        }
    }

    #[test]
    fn the_next_step_fits_the_result() {
        let lossy = demo(&["--loss", "0.2"]);
        let report = Report { lost: 5, datagrams_sent: 100, datagrams_dropped: 20, ..good() };
        let summary = report.summary(&lossy, &[]);
        assert!(
            summary.contains("20 datagrams dropped on purpose (20.00 %") && summary.contains("--fec 64+32"),
            "{summary}"
        );
        assert!(good().summary(&demo(&[]), &[]).contains("--loss 0.01"));
    }
}
