//! A link between two real Kafka clusters, with the real binary. `cargo test --workspace --test brokers`.
//!
//! Everything runs on Kafka 4.x, the main tests on 3.9 too. Each test prints what it did and how long it took; when one
//! fails, the logs of its proxies follow. Run them with `--test-threads=1`: they share brokers, and kill them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails should panic")]

use std::time::Duration;

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;

mod dead_letters;
mod fields;
mod gaps;
mod gone;
mod group;
mod progress_lost;
mod refusals;
mod refused;
mod replay;
mod replay_many;
mod restarts;
mod rewind;
mod security;
mod spool;
mod takeover;
mod topics;
mod troubles;

/// What crosses has crossed by then.
const LIMIT: Duration = Duration::from_mins(1);

/// Clients of both clusters.
fn clusters(pair: &Pair) -> (Cluster, Cluster) {
    (Cluster::new(&pair.source.plaintext()), Cluster::new(&pair.destination.plaintext()))
}
