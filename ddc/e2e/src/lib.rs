//! End-to-end tests with real brokers, real sockets and the real `ddc` binary. This is their harness.
//!
//! ```text
//!  produce ─▶ source Broker ─▶ ddc ingress ═ UDP, loopback ═▶ ddc egress ─▶ destination Broker
//!                  └──────────────── verify: every record, every field ──────────────┘
//! ```
//!
//! | module      | what it is for                                                             |
//! |-------------|----------------------------------------------------------------------------|
//! | [`broker`]  | Apache Kafka as a process of our own: started, killed, restarted           |
//! | [`chaos`]   | both clusters, both proxies and a seeded plan of faults: what `make chaos` runs  |
//! | [`cluster`] | topics: created, deleted, given more partitions                            |
//! | [`http`]    | a plain GET to a listener on loopback                                      |
//! | [`netns`]   | a software diode: namespaces and a bridge that passes one direction only   |
//! | [`proxy`]   | the `ddc` binary with a generated configuration: signals, log, admin API   |
//! | [`produce`] | records of every kind, once or as a steady load                            |
//! | [`service`] | Prometheus, Alertmanager, Vector: other people's programs as child processes  |
//! | [`verify`]  | reads both clusters and compares; names what is lost, doubled, moved       |
//! | [`wait`]    | waiting with a deadline, never a bare sleep                                |
//! | [`reaper`]  | no process outlives the tests, however they end                            |
//!
//! What goes wrong here panics: the test has failed, and the place says where. It never hides what a proxy did.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a harness of tests: what goes wrong must fail the test")]

pub mod broker;
pub mod chaos;
pub mod cluster;
pub mod http;
pub mod netns;
pub mod produce;
pub mod proxy;
pub mod reaper;
pub mod service;
pub mod verify;
pub mod wait;

/// The root of the checkout.
pub fn repository() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("ddc/e2e lies in it")
        .to_owned()
}
