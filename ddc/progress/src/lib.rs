//! How far each partition is settled at a Kafka destination, kept in the compacted topic `ddc-progress`, and who may write it.
//!
//! ```text
//!                         topic ddc-progress: progress and claims of all links of a set
//!                             │ read, read_committed                       ▲ in the transaction of the records
//!                             ▼                                            │
//!  chunk ─▶ Owners::judge ◀─ ProgressTable                                 │
//!             │   │ poll ─▶ Action: claim, fence, read, may write, lost    │
//!             ▼   ▼                                                        │
//!           WorkingCopy: judges records, knows what has changed ─ changes ─┘
//! ```
//!
//! - [`RecordKey`], [`Progress`], [`encode_claim`]: what stands in the topic, byte by byte.
//! - [`ProgressTable`]: what the topic says now, fed with every record that is read of it.
//! - [`Owners`]: the takeover protocol for all partitions of an egress, so that each has one writer.
//! - [`Memory`]: what the topic has lost, after it was deleted or made again.
//! - [`WorkingCopy`]: where the partitions that are owned stand, ahead of the topic by one transaction at most.
//!
//! No I/O, no clock, no threads, nothing of Kafka's client: the caller reads, writes, fences, and says what came of
//! it. docs/progress.md tells the same for operators.
#![forbid(unsafe_code)]

mod memory;
mod name;
mod owners;
mod record;
mod table;
mod working;

#[cfg(test)]
mod simulation;

pub use memory::Memory;
pub use name::{LinkName, NotAName, SetName, transactional_id};
pub use owners::{
    Action, Chain, ClaimToCommit, Heading, MAX_CLAIMS, Notice, Outcome, Owners, OwnersConfig, RETRY_AFTER,
    Ticket, Verdict,
};
pub use record::{
    FORMAT, Kind, MAX_KEY_LEN, MAX_VALUE_LEN, NotAKey, Progress, RecordKey, Unreadable, decode_claim,
    encode_claim,
};
pub use table::{Applied, Counts, MAX_LINKS, ProgressTable, Refusal, Rival};
pub use working::WorkingCopy;
