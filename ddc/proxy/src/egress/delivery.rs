//! The ways out of the sink thread: what [`super::deliver`] asks of them.
//!
//! What is new, late, a duplicate or missing is decided in `deliver`, once for all; a way out only carries records away.
//! Kafka's ([`super::outlet`]) answers later and can give again; UDP's ([`super::datagrams`]) is done when
//! the call returns.

use std::sync::Arc;
use std::time::Duration;

use ddc_link::receiver::Positions;
use ddc_wire::{ChunkHeader, Record};

use super::books::Books;
use super::control::GivenUp;
use super::feed::Item;

/// A way out. Whatever waits in it goes on marking the thread as alive, and ends with [`GivenUp`] when the drain's time is over.
pub(crate) trait Delivery: Sized {
    /// Where the records of a chunk go.
    type Route;

    fn books(&self) -> &Books;

    fn books_mut(&mut self) -> &mut Books;

    /// The records that follow come from this batch.
    fn begin_batch(&mut self, item: Arc<Item>);

    /// All records of the batch were handed over.
    fn end_batch(&mut self) -> Result<(), GivenUp>;

    /// When all that was handed over before is settled, these positions are stored.
    fn checkpoint(&mut self, positions: Positions);

    /// Whether a checkpoint is on its way.
    fn has_checkpoint(&self) -> bool;

    /// Where a chunk's records go; waits until that place is there. The inner error: nowhere, and why.
    fn route(&mut self, header: &ChunkHeader<'_>) -> Result<Result<Self::Route, String>, GivenUp>;

    /// Takes the number of the next record of the batch, whether it is sent or not: so that it is found again.
    fn next_ordinal(&mut self) -> u32;

    /// Hands a record over; waits while there is no room.
    fn send(
        &mut self,
        slot: u32,
        ordinal: u32,
        late: bool,
        header: &ChunkHeader<'_>,
        route: &Self::Route,
        record: &Record<'_>,
    ) -> Result<(), GivenUp>;

    /// The destination will never have the record.
    fn refuse(&mut self, slot: u32, offset: i64, why: impl FnOnce() -> String);

    /// Fetches answers and does what is due.
    fn service(&mut self) -> Result<(), GivenUp>;

    /// Waits, alive.
    fn pause(&mut self, how_long: Duration) -> Result<(), GivenUp>;

    /// How long the thread may sleep before it should call [`Self::service`].
    fn nap(&mut self) -> Duration;

    /// Whether nothing is on its way.
    fn is_idle(&self) -> bool;

    /// Records handed over and not settled.
    fn in_flight(&self) -> usize;

    /// Once a second: asks the destination for a sign of life when there is reason to doubt it. Bounded in time.
    fn probe(&mut self);

    /// Names at the destination that records went to.
    fn destinations(&self) -> Vec<String>;

    /// What the destination complained of last.
    fn last_error(&self) -> Option<String>;

    /// The thread ends as planned.
    fn retire(self);
}
