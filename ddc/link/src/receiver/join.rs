//! From blocks in order to batches: a batch is one block, or fragments in blocks that follow each other.
//!
//! Nothing is decompressed here: that is done on the sink's thread (`unpack.rs`).

use std::time::Instant;

use bytes::Bytes;
use ddc_wire::{Codec, Content, KeyId, Prelude, Session};

/// A batch as it was packed, in order within its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedBatch {
    /// The session that sent it.
    pub session: Session,
    /// The key that sealed it.
    pub key_id: KeyId,
    /// The block in which it begins.
    pub first_block: u64,
    /// The block in which it ends.
    pub last_block: u64,
    /// Records or a ledger.
    pub content: Content,
    /// How its bytes are compressed.
    pub codec: Codec,
    /// Bytes before compression, at most `max_batch_bytes`; as the sender says, not yet verified.
    pub raw_len: usize,
    /// When its last block became whole; `None` of one that was kept meanwhile ([`Self::kept`]).
    pub received_at: Option<Instant>,
    body: Body,
}

/// Where the bytes of a batch are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    /// In a buffer of the receiver's, from an index on.
    Received(Vec<u8>, usize),
    /// In memory that others share.
    Kept(Bytes),
}

/// What is known of a batch besides its bytes: what must be kept with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHead {
    /// See [`ReleasedBatch::session`].
    pub session: Session,
    /// See [`ReleasedBatch::key_id`].
    pub key_id: KeyId,
    /// See [`ReleasedBatch::first_block`].
    pub first_block: u64,
    /// See [`ReleasedBatch::last_block`].
    pub last_block: u64,
    /// See [`ReleasedBatch::content`].
    pub content: Content,
    /// See [`ReleasedBatch::codec`].
    pub codec: Codec,
    /// See [`ReleasedBatch::raw_len`].
    pub raw_len: usize,
}

impl ReleasedBatch {
    /// A batch that was kept after its release: the same as before, without a copy of its bytes.
    pub fn kept(head: BatchHead, bytes: Bytes) -> Self {
        let BatchHead { session, key_id, first_block, last_block, content, codec, raw_len } = head;
        let body = Body::Kept(bytes);
        Self { session, key_id, first_block, last_block, content, codec, raw_len, received_at: None, body }
    }

    /// What must be kept besides [`Self::bytes`] to make it again.
    pub fn head(&self) -> BatchHead {
        BatchHead {
            session: self.session,
            key_id: self.key_id,
            first_block: self.first_block,
            last_block: self.last_block,
            content: self.content,
            codec: self.codec,
            raw_len: self.raw_len,
        }
    }

    /// The compressed batch, its fragments joined.
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Received(buffer, start) => &buffer[*start..],
            Body::Kept(bytes) => bytes,
        }
    }

    /// Bytes of memory that the batch keeps.
    pub fn memory_bytes(&self) -> usize {
        match &self.body {
            Body::Received(buffer, _) => buffer.capacity(),
            Body::Kept(bytes) => bytes.len(),
        }
    }

    /// The buffer, for [`super::Receiver::recycle`]; an empty one when the bytes are shared.
    pub fn into_buffer(self) -> Vec<u8> {
        match self.body {
            Body::Received(buffer, _) => buffer,
            Body::Kept(_) => Vec::new(),
        }
    }
}

/// What became of a block.
pub(crate) enum Joined {
    /// A batch is whole.
    Batch(Box<ReleasedBatch>),
    /// More fragments must come.
    Pending,
    /// The block belongs to a batch that lost another block.
    Discarded,
    /// The prelude is not one, or does not follow the fragment before it.
    Malformed,
    /// The batch is larger than this receiver accepts.
    TooLarge,
}

/// Joins the blocks of one session.
pub(crate) struct Joiner {
    session: Session,
    key_id: KeyId,
    max_batch_bytes: usize,
    run: Option<Run>,
}

/// The fragments of a batch so far; their bytes are bounded by `max_batch_bytes`.
struct Run {
    first_block: u64,
    prelude: Prelude,
    bytes: Vec<u8>,
}

impl Joiner {
    pub(crate) fn new(session: Session, key_id: KeyId, max_batch_bytes: usize) -> Self {
        Self { session, key_id, max_batch_bytes, run: None }
    }

    /// The next block of the session is missing: the batch it may belong to is lost. Returns how
    /// many blocks are discarded with it.
    pub(crate) fn gap(&mut self) -> u64 {
        self.run.take().map_or(0, |run| u64::from(run.prelude.fragment) + 1)
    }

    /// Takes the next block of the session. The second value is how many earlier blocks are
    /// discarded because their batch never ended.
    pub(crate) fn block(&mut self, number: u64, block: Vec<u8>, received_at: Instant) -> (Joined, u64) {
        let Ok((prelude, rest)) = Prelude::decode(&block) else {
            return (Joined::Malformed, self.gap());
        };
        let start = block.len() - rest.len();
        let mut discarded = 0;
        if prelude.fragment == 0 {
            // A batch that begins while another has not ended: the sender dropped the rest of that.
            discarded = self.gap();
            if prelude.raw_len as usize > self.max_batch_bytes {
                return (Joined::TooLarge, discarded);
            }
            if prelude.fragments == 1 {
                let whole = Run { first_block: number, prelude, bytes: block };
                return (Joined::Batch(Box::new(self.batch(whole, start, number, received_at))), discarded);
            }
            self.run = Some(Run { first_block: number, prelude, bytes: rest.to_vec() });
            return (Joined::Pending, discarded);
        }
        let Some(mut run) = self.run.take() else {
            return (Joined::Discarded, discarded);
        };
        let expected = Prelude { fragment: run.prelude.fragment + 1, ..run.prelude };
        let so_far = u64::from(run.prelude.fragment) + 1;
        if prelude != expected {
            return (Joined::Malformed, so_far);
        }
        if run.bytes.len() + rest.len() > self.max_batch_bytes {
            return (Joined::TooLarge, so_far);
        }
        run.bytes.extend_from_slice(rest);
        run.prelude = prelude;
        if prelude.fragment + 1 < prelude.fragments {
            self.run = Some(run);
            return (Joined::Pending, discarded);
        }
        (Joined::Batch(Box::new(self.batch(run, 0, number, received_at))), discarded)
    }

    fn batch(&self, run: Run, start: usize, last_block: u64, received_at: Instant) -> ReleasedBatch {
        ReleasedBatch {
            session: self.session,
            key_id: self.key_id,
            first_block: run.first_block,
            last_block,
            content: run.prelude.content,
            codec: run.prelude.codec,
            raw_len: run.prelude.raw_len as usize,
            received_at: Some(received_at),
            body: Body::Received(run.bytes, start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(fragment: u32, fragments: u32, bytes: &[u8]) -> Vec<u8> {
        let (codec, content) = (Codec::None, Content::Records);
        let mut block = Vec::new();
        Prelude { codec, content, fragment, fragments, raw_len: 20 }.encode(&mut block);
        block.extend_from_slice(bytes);
        block
    }

    fn joiner() -> Joiner {
        Joiner::new(Session::new(1, 1), KeyId(1), 20)
    }

    #[test]
    fn fragments_join_in_order() {
        let (mut joiner, now) = (joiner(), Instant::now());
        assert!(matches!(joiner.block(5, block(0, 3, b"one"), now), (Joined::Pending, 0)));
        assert!(matches!(joiner.block(6, block(1, 3, b"two"), now), (Joined::Pending, 0)));
        let (Joined::Batch(batch), 0) = joiner.block(7, block(2, 3, b"three"), now) else { panic!() };
        assert_eq!((batch.first_block, batch.last_block, batch.bytes()), (5, 7, &b"onetwothree"[..]));
        let (Joined::Batch(batch), 0) = joiner.block(8, block(0, 1, b"alone"), now) else { panic!() };
        assert_eq!((batch.first_block, batch.last_block, batch.bytes()), (8, 8, &b"alone"[..]));
    }

    #[test]
    fn a_batch_that_lost_a_block_is_discarded_whole_and_counted() {
        let (mut joiner, now) = (joiner(), Instant::now());
        joiner.block(0, block(0, 4, b"a"), now);
        joiner.block(1, block(1, 4, b"b"), now);
        assert_eq!(joiner.gap(), 2);
        assert!(matches!(joiner.block(3, block(3, 4, b"d"), now), (Joined::Discarded, 0)));
        assert!(matches!(joiner.block(4, block(0, 1, b"e"), now), (Joined::Batch(_), 0)));
        assert_eq!(joiner.gap(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_next_batch_goes_on() {
        let (mut joiner, now) = (joiner(), Instant::now());
        joiner.block(0, block(0, 3, b"a"), now);
        assert!(matches!(joiner.block(1, block(2, 3, b"c"), now), (Joined::Malformed, 1)));
        assert!(matches!(joiner.block(2, vec![], now), (Joined::Malformed, 0)));
        joiner.block(3, block(0, 3, &[0; 15]), now);
        assert!(matches!(joiner.block(4, block(1, 3, &[0; 6]), now), (Joined::TooLarge, 1)));
        joiner.block(5, block(0, 2, b"x"), now);
        assert!(matches!(joiner.block(6, block(0, 1, b"y"), now), (Joined::Batch(_), 1)));
        joiner.max_batch_bytes = 19;
        assert!(matches!(joiner.block(7, block(0, 1, b"z"), now), (Joined::TooLarge, 0)));
    }
}
