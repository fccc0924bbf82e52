//! What the next life of the egress must know besides the frames: the table in the spool's checkpoint.
//!
//! It says what was dropped and the sink thread has not heard of, so that the gap which it then finds has the right reason, also
//! after a crash; and whether progress was ever written from this spool, so that a destination that knows of none is noticed.
//!
//! ```text
//!  format (2) │ progress was written (0, 1) │ notes of 17 bytes: start u64, end u64, reason u8
//! ```

use ddc_link::receiver::MissingReason;
use ddc_spool::Span;

use super::frame::{code_of, reason_of};

/// Notes that are kept; beyond it neighbours are joined, whatever lies between them.
const MAX_NOTES: usize = 256;
/// The version of the table's form.
const FORMAT: u8 = 2;
/// Bytes of a note.
const NOTE: usize = 17;

/// See the module's text.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Notes {
    /// In ascending order.
    dropped: Vec<(Span, MissingReason)>,
    /// What was delivered from this spool is in the progress topic.
    pub(super) progress_written: bool,
}

impl Notes {
    /// This was dropped; behind everything that was dropped before.
    pub(super) fn add(&mut self, span: Span, reason: MissingReason) {
        if let Some((last, why)) = self.dropped.last_mut()
            && last.end == span.start
            && *why == reason
        {
            last.end = span.end;
            return;
        }
        self.dropped.push((span, reason));
        if self.dropped.len() > MAX_NOTES {
            let (first, _) = self.dropped.remove(0);
            self.dropped[0].0.start = first.start;
        }
    }

    /// The last reason among what was dropped below a position.
    pub(super) fn before(&self, position: u64) -> Option<MissingReason> {
        self.dropped.iter().rev().find(|(span, _)| span.start < position).map(|(_, reason)| *reason)
    }

    /// The reason of what was dropped here.
    pub(super) fn within(&self, span: Span) -> Option<MissingReason> {
        let meets = |other: &Span| other.start < span.end && span.start < other.end;
        self.dropped.iter().rev().find(|(other, _)| meets(other)).map(|(_, reason)| *reason)
    }

    /// Something at this position is settled: what was dropped below is reported.
    pub(super) fn settled(&mut self, position: u64) {
        if self.dropped.first().is_some_and(|(span, _)| span.end <= position) {
            self.dropped.retain(|(span, _)| span.end > position);
        }
    }

    /// The table.
    pub(super) fn encode(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        let mut bytes = vec![FORMAT, u8::from(self.progress_written)];
        for (span, reason) in &self.dropped {
            bytes.extend(span.start.to_be_bytes());
            bytes.extend(span.end.to_be_bytes());
            bytes.push(code_of(*reason));
        }
        bytes
    }

    /// Reads a table; `None` when it is none of this version's.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (progress_written, entries) = match bytes {
            [] => return Some(Self::default()),
            [FORMAT, flag @ (0 | 1), entries @ ..] => (*flag == 1, entries),
            _ => return None,
        };
        if entries.len() % NOTE != 0 || entries.len() > MAX_NOTES * NOTE {
            return None;
        }
        let mut notes = Self { progress_written, ..Self::default() };
        for entry in entries.chunks_exact(NOTE) {
            let start = u64::from_be_bytes(*entry.first_chunk()?);
            let end = u64::from_be_bytes(*entry.get(8..)?.first_chunk()?);
            notes.dropped.push((Span { start, end }, reason_of(entry[16])?));
        }
        Some(notes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_remembered_until_what_follows_is_settled() {
        let span = |start, end| Span { start, end };
        let mut notes = Notes::default();
        notes.add(span(0, 10), MissingReason::SpoolFull);
        notes.add(span(10, 20), MissingReason::SpoolFull);
        notes.add(span(20, 30), MissingReason::SpoolExpired);
        let mut read = Notes::decode(&notes.encode()).unwrap();
        assert_eq!(read, notes);
        assert_eq!(read.within(span(5, 15)), Some(MissingReason::SpoolFull));
        assert_eq!(read.within(span(30, 40)), None);
        assert_eq!(read.before(30), Some(MissingReason::SpoolExpired));
        assert_eq!((read.before(20), read.before(0)), (Some(MissingReason::SpoolFull), None));
        read.settled(19);
        assert_eq!(read, notes);
        read.settled(20);
        assert_eq!(read.within(span(5, 15)), None);
        read.settled(30);
        assert_eq!(read.encode(), b"");
        assert_eq!(Notes::decode(b"").unwrap(), Notes::default());
        read.progress_written = true;
        assert_eq!(Notes::decode(&read.encode()).unwrap(), read);
        for bad in [&b"\x02"[..], b"\x01\0", b"\x02\x02", &[2; 19], &notes.encode()[1..]] {
            assert_eq!(Notes::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_list_is_bounded_and_forgets_no_position() {
        let mut notes = Notes::default();
        for n in 0..1000 {
            notes.add(Span { start: n * 10, end: n * 10 + 5 }, MissingReason::SpoolFull);
        }
        assert_eq!(notes.dropped.len(), MAX_NOTES);
        assert_eq!(notes.before(1), Some(MissingReason::SpoolFull));
        assert!(notes.encode().len() < ddc_spool::MAX_TABLE);
    }
}
