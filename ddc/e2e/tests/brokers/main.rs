//! A link between two real Kafka clusters, with the real binary. `cargo test -p ddc-e2e --test brokers`.
//!
//! Everything runs on Kafka 4.x, the main tests on 3.9 too. Each test prints what it did and how long it took; when one
//! fails, the logs of its proxies follow.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails should panic")]

mod fields;
