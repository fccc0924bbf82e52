//! What rdkafka lacks, over its FFI, and what both Kafka ends of a link share. Safe outside.
//!
//! ```text
//!  Kafka ──▶ group ──▶ batch ──▶ (proxy: pack … link … unpack) ──▶ rdkafka producer ──▶ Kafka
//!            who owns   records,                                    settings, admin,
//!            what       borrowed                                    errors
//! ```
//!
//! | module       | what it is for                                                                  |
//! |--------------|---------------------------------------------------------------------------------|
//! | [`settings`] | typed client settings → a configuration librdkafka accepts, or every mistake named |
//! | [`group`]    | a member of a consumer group whose rebalances the caller answers, one thread     |
//! | [`batch`]    | records read many at a time, borrowed where librdkafka holds them                |
//! | [`commit`]   | commits whose ends are heard of, with a bound on waiting                        |
//! | [`range`]    | ranges of partitions read to their end, as a member of no group                  |
//! | [`topic_log`] | one single-partition topic, followed from its beginning, read_committed, as a member of no group |
//! | [`produce`]  | records handed to a producer with few allocations                                |
//! | [`topic_id`] | Kafka's topic ids, asked for without blocking                                   |
//! | [`admin`]    | create and describe topics from a thread without a runtime, each call bounded    |
//! | [`operations`] | what the cluster's ACLs allow this client                                     |
//! | [`lifeline`] | brokers for a client that librdkafka has left without any                       |
//! | [`errors`]   | what an error means to an operator: kind, reason for metrics, advice             |
//! | [`binary`]   | what this binary's Kafka client can do, and which package has what it lacks        |
//! | [`context`]  | librdkafka's log lines and errors → tracing and a state that can be shown        |
//!
//! It decides nothing about delivery: the commit rule, epochs and retries live in ddc-proxy.

pub mod admin;
pub mod batch;
pub mod binary;
pub mod commit;
pub mod context;
pub mod errors;
pub mod group;
pub mod lifeline;
mod native;
pub mod operations;
pub mod produce;
pub mod range;
pub mod settings;
pub mod topic_id;
pub mod topic_log;

pub use native::NativeHandle;
