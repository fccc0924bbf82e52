//! What the open transaction holds: the chunks that were judged for it, their records, and what is to be said once it is
//! committed.
//!
//! A plan is carried out as a whole or not at all. If it is not, its chunks are judged again; nothing was said of them,
//! so nothing is said twice.

use std::sync::Arc;
use std::time::Instant;

use ddc_link::receiver::{Missing, OffsetRange};
use ddc_telemetry::reasons::DeadLetterReason;
use ddc_wire::Session;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::held::HeldPart;
use crate::egress::feed::Item;
use crate::sink::latency::Times;

/// A transaction with so many records is committed, whatever its age. As many as librdkafka's queue holds.
pub(super) const MAX_RECORDS: usize = 100_000;
/// A transaction with so many bytes is committed, whatever its age.
pub(super) const MAX_BYTES: u64 = 16 << 20;
/// A transaction below both is committed as soon as nothing more waits.
const SMALL_RECORDS: usize = 512;
const SMALL_BYTES: u64 = 64 << 10;

/// A batch of which parts were judged.
#[derive(Debug)]
pub(super) struct PlannedFrame {
    /// Its place in the order of arrival.
    pub(super) number: u64,
    pub(super) item: Arc<Item>,
    /// The chunks that are in this plan.
    pub(super) parts: Vec<HeldPart>,
}

/// A record that was handed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handed {
    pub(super) slot: u32,
    pub(super) offset: i64,
    pub(super) fate: Fate,
    pub(super) times: Times,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Waiting,
    Done,
    Failed(Code),
}

/// What is said of a partition once the transaction is committed, in the order in which it was found.
#[derive(Debug)]
pub(super) enum Note {
    Missing(u32, Missing, Session),
    Filled(u32, OffsetRange),
    /// Holes that are not waited for any longer, and why.
    GivenUp(u32, OffsetRange, &'static str),
    /// The destination will never have it, and it is kept nowhere.
    Refused(u32, i64, String),
    /// It is a dead letter, and why.
    Letter(u32, i64, DeadLetterReason, String),
    /// It was written with another timestamp.
    Clamped,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) frames: Vec<PlannedFrame>,
    pub(super) records: Vec<Handed>,
    pub(super) notes: Vec<Note>,
    pub(super) bytes: u64,
    pub(super) opened: Option<Instant>,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) late: u64,
}

impl Plan {
    /// Begins with a batch, or goes on with the one that was begun last.
    pub(super) fn frame(&mut self, number: u64, item: &Arc<Item>) -> &mut PlannedFrame {
        self.opened.get_or_insert_with(Instant::now);
        if self.frames.last().is_none_or(|last| last.number != number) {
            self.bytes += item.batch.bytes().len() as u64;
            self.frames.push(PlannedFrame { number, item: Arc::clone(item), parts: Vec::new() });
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Nothing more goes in.
    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }

    /// So little that there is no use in waiting for more.
    pub(super) fn is_small(&self) -> bool {
        self.records.len() < SMALL_RECORDS && self.bytes < SMALL_BYTES
    }
}
