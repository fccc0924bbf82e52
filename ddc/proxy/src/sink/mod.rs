//! The sink: records → the destination's Kafka, every field as it was.
//!
//! ```text
//!  record ─▶ topics ─▶ destination ─▶ headers ─▶ kafka ─▶ broker
//!            name      is it there?   provenance  │ idempotent producer
//!                                                 ▼
//!            in_flight ◀──────────── answers by number
//! ```
//!
//! | module          | what it is for                                                          |
//! |-----------------|-------------------------------------------------------------------------|
//! | [`topics`]      | source topic → destination topic                                        |
//! | [`destination`] | topics that exist, are created, get partitions, or are waited for        |
//! | [`headers`]     | the record's headers and its provenance                                 |
//! | [`kafka`]       | the producer                                                            |
//! | [`in_flight`]   | what was handed over and not settled, in order                          |
//! | [`latency`]     | how long records take                                                   |
//! | [`preflight`]   | what `ddc check --connect` finds out about a destination                 |
//! | [`progress_topic`] | the topic of the progress: made, or looked at                    |
//!
//! It decides nothing about gaps, duplicates and positions: that is `egress`.

pub mod destination;
pub mod headers;
pub mod in_flight;
pub mod kafka;
pub mod latency;
pub mod preflight;
pub mod progress_topic;
pub mod topics;
pub mod udp;
