//! Measurements: what a record costs on its way through DDC, beside a bare loop that only copies, in one run.
//!
//! ```text
//!  source broker ─▶ ddc ingress ═ UDP, loopback ═▶ ddc egress ─▶ destination broker      measured
//!  source broker ─────────────▶ bare loop ─────────────────────▶ destination broker      what it is compared with
//! ```
//!
//! `scripts/measure.sh` builds everything, starts the brokers and runs this. Each round measures both, one after the
//! other, so that a machine that changes its mind in between spoils neither more; the table shows medians and
//! begins with ratios, which travel between machines better than figures do.
//!
//! | module       | what it is for                                                                  |
//! |--------------|---------------------------------------------------------------------------------|
//! | `bare`       | the bare loop: rdkafka, every field, three provenance headers, nothing else      |
//! | `throughput` | records per second, and CPU time per million records of each process             |
//! | `mirror`     | MirrorMaker 2, in the same rounds                                                |
//! | `latency`    | one record alone: end to end, and the link's own part beside a bare UDP datagram |
//! | `memory`     | idle; a slow link; a destination that is away: resident memory beside the budget |
//! | `outage`     | a destination that is away for a minute, then back                              |
//! | `demo`       | `ddc demo`, as a user runs it                                                    |
//! | `pair`       | an ingress and an egress as processes, and what /proc and /metrics tell of them   |
//! | `load`       | the records                                                                     |
//! | `table`      | medians and Markdown                                                            |
//!
//! It is no test: a figure that is bad is printed, not judged. Only what makes a figure meaningless ends the run: a
//! record that did not arrive, or arrived twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot be made must end the run"
)]

mod bare;
mod demo;
mod latency;
mod load;
mod memory;
mod mirror;
mod outage;
mod pair;
mod table;
mod throughput;

use std::path::PathBuf;

use table::Table;

/// What to measure, and where.
pub(crate) struct Options {
    /// The binary.
    ddc: PathBuf,
    /// Where Kafka's jars are, in `lib`.
    kafka_home: PathBuf,
    /// `host:port` of the broker that is read.
    source: String,
    /// `host:port` of the broker that is written.
    destination: String,
    /// Records of one round.
    records: u64,
    /// Bytes of a value.
    size: usize,
    /// Rounds.
    rounds: usize,
    /// `rate` of the link; what is not delivered as fast waits in the egress's buffer, so it must not be far above it.
    rate: String,
    /// Names of the parts to be run; empty = all.
    only: Vec<String>,
}

const USAGE: &str = "measure --ddc PATH --kafka-home DIR --source HOST:PORT --destination HOST:PORT [--records N] \
                     [--size BYTES] [--rounds N] [--rate RATE] [--only throughput,mirror,latency,memory,outage,demo]";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "bare") {
        return bare::main(&arguments[1..]);
    }
    let options = parse(&arguments);
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    let mut table = Table::default();
    if wanted("throughput") || wanted("mirror") {
        throughput::measure(&options, wanted("mirror"), &mut table);
    }
    if wanted("latency") {
        latency::measure(&options, &mut table);
    }
    if wanted("memory") {
        memory::measure(&options, &mut table);
    }
    if wanted("outage") {
        outage::measure(&options, &mut table);
    }
    if wanted("demo") {
        demo::measure(&options, &mut table);
    }
    print!("{}", table.markdown());
}

fn parse(arguments: &[String]) -> Options {
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} needs a value; {USAGE}")).clone())
    };
    let number = |name: &str, otherwise: u64| {
        value(name).map_or(otherwise, |text| {
            text.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {text:?}; {USAGE}"))
        })
    };
    let needed = |name: &str| value(name).unwrap_or_else(|| panic!("{name} is missing; {USAGE}"));
    Options {
        ddc: needed("--ddc").into(),
        kafka_home: needed("--kafka-home").into(),
        source: needed("--source"),
        destination: needed("--destination"),
        records: number("--records", 2_000_000),
        size: number("--size", 100) as usize,
        rounds: number("--rounds", 3).max(1) as usize,
        rate: value("--rate").unwrap_or_else(|| "400Mbit/s".to_owned()),
        only: value("--only").map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default(),
    }
}
