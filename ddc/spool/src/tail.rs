//! The newest frames in memory, so that a reader that keeps up never touches the disk.

use std::collections::VecDeque;

use crate::frame::Frame;

/// What a frame costs besides its payload.
const OVERHEAD: usize = 128;

/// The newest frames in order, bounded in bytes; the oldest go first.
#[derive(Debug)]
pub(crate) struct Tail {
    frames: VecDeque<Frame>,
    bytes: usize,
    limit: usize,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, limit }
    }

    /// Whether a frame of this size will be kept: what is not need not be copied.
    pub(crate) fn keeps(&self, payload: usize) -> bool {
        payload + OVERHEAD <= self.limit
    }

    /// Adds the newest frame. One that is too large by itself pushes out everything; it need not be added, holes are no fault.
    pub(crate) fn push(&mut self, frame: Frame) {
        self.bytes += cost(&frame);
        self.frames.push_back(frame);
        while self.bytes > self.limit {
            self.pop();
        }
    }

    /// Lets go of what every reader has passed.
    pub(crate) fn forget_below(&mut self, position: u64) {
        while self.frames.front().is_some_and(|frame| frame.span.end <= position) {
            self.pop();
        }
    }

    /// The frame that begins at this position.
    pub(crate) fn get(&self, position: u64) -> Option<&Frame> {
        let at = self.frames.binary_search_by_key(&position, Frame::position).ok()?;
        self.frames.get(at)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= cost(&frame);
        }
    }
}

fn cost(frame: &Frame) -> usize {
    frame.payload.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::frame::{Head, Span};

    #[test]
    fn the_newest_within_the_bound() {
        let frame = |start: u64, len: usize| Frame {
            span: Span { start, end: start + len as u64 + 64 },
            head: Head::default(),
            payload: Bytes::from(vec![0; len]),
        };
        let mut tail = Tail::new(3 * (100 + OVERHEAD));
        for n in 0..5 {
            tail.push(frame(n * 164, 100));
        }
        assert!(tail.get(164).is_none() && tail.get(2 * 164).is_some() && tail.get(2 * 164 + 1).is_none());
        tail.forget_below(3 * 164);
        assert!(tail.get(2 * 164).is_none() && tail.get(3 * 164).is_some());
        assert_eq!(tail.bytes(), 2 * (100 + OVERHEAD));
        assert!(tail.keeps(3 * 100 + 2 * OVERHEAD) && !tail.keeps(3 * 100 + 2 * OVERHEAD + 1));
        tail.push(frame(5 * 164, 1000));
        assert_eq!(tail.bytes(), 0, "too large, and nothing before it may stay");
    }
}
