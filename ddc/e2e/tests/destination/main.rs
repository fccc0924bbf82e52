//! What an egress needs of its destination cluster beside writing records, with real brokers:
//! `cargo test --workspace --test destination -- --test-threads=1`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails should panic")]

use std::time::Duration;

mod acls;
mod lifeline;
mod progress_topic;
mod topic_log;

/// What should be so is so by then.
const LIMIT: Duration = Duration::from_mins(1);
