//! Chaos: real brokers, both proxies, a diode in between, a seeded plan of faults, and a verifier that forgives nothing.
//!
//! ```text
//!  load ─▶ source broker ─▶ ddc ingress ══▶ relay ══▶ ddc egress ─▶ destination broker
//!              │                  ▲           ▲           ▲              │
//!              │                  └── faults ─┴─ weather ─┘              │
//!              └────────── tail ──▶ judge ◀── gap journal, tail ─────────┘
//! ```
//!
//! A run: faults for as long as it was asked for; then all is healed and drains; what the egress reports as missing is
//! held against what is missing; `ddc gaps export`, one `ddc replay` of it; then both clusters are compared record by record.
//! docs/chaos.md says how to run it and how to read its report.
//!
//! | module     | what it is for                                                                  |
//! |------------|---------------------------------------------------------------------------------|
//! | [`plan`]   | which faults strike when, from seed and duration                                |
//! | [`world`]  | brokers, proxies, topics, disk, clocks: made, and looked at                      |
//! | [`faults`] | what each kind of fault does to the world                                        |
//! | [`relay`]  | the diode: drops, delays, reorders, duplicates by seed                           |
//! | [`load`]   | writes marked records; [`mark`] says how                                         |
//! | [`tail`]   | follows a topic and keeps what a comparison needs                                |
//! | [`run`]    | from the first record to the verdict                                             |
//! | [`judge`]  | the comparison, pure                                                             |
//! | [`report`] | the run as a page of Markdown                                                    |

pub mod dice;
pub mod faults;
pub mod judge;
pub mod load;
pub mod mark;
pub mod plan;
pub mod relay;
pub mod report;
pub mod run;
pub mod tail;
pub mod world;

pub use judge::Promise;

/// What the egress of a run is told to promise, and is held to.
pub const PROMISE: Promise = Promise::ExactlyOnce;
