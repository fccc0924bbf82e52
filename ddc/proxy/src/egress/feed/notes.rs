//! What was dropped from the spool and the sink thread has not heard of: so that the gap which it then finds has the right
//! reason, also after a crash. The list is the table in the spool's checkpoint.

use ddc_link::receiver::MissingReason;
use ddc_spool::Span;

use super::frame::{code_of, reason_of};

/// Notes that are kept; beyond it neighbours are joined, whatever lies between them.
const MAX_NOTES: usize = 256;
/// The version of the table's form.
const FORMAT: u8 = 1;
/// Bytes of a note.
const NOTE: usize = 17;

/// See the module's text. In ascending order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Notes(Vec<(Span, MissingReason)>);

impl Notes {
    /// This was dropped; behind everything that was dropped before.
    pub(super) fn add(&mut self, span: Span, reason: MissingReason) {
        if let Some((last, why)) = self.0.last_mut()
            && last.end == span.start
            && *why == reason
        {
            last.end = span.end;
            return;
        }
        self.0.push((span, reason));
        if self.0.len() > MAX_NOTES {
            let (first, _) = self.0.remove(0);
            self.0[0].0.start = first.start;
        }
    }

    /// The last reason among what was dropped below a position.
    pub(super) fn before(&self, position: u64) -> Option<MissingReason> {
        self.0.iter().rev().find(|(span, _)| span.start < position).map(|(_, reason)| *reason)
    }

    /// The reason of what was dropped here.
    pub(super) fn within(&self, span: Span) -> Option<MissingReason> {
        let meets = |other: &Span| other.start < span.end && span.start < other.end;
        self.0.iter().rev().find(|(other, _)| meets(other)).map(|(_, reason)| *reason)
    }

    /// Something at this position is settled: what was dropped below is reported.
    pub(super) fn settled(&mut self, position: u64) {
        if self.0.first().is_some_and(|(span, _)| span.end <= position) {
            self.0.retain(|(span, _)| span.end > position);
        }
    }

    /// The table.
    pub(super) fn encode(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut bytes = vec![FORMAT];
        for (span, reason) in &self.0 {
            bytes.extend(span.start.to_be_bytes());
            bytes.extend(span.end.to_be_bytes());
            bytes.push(code_of(*reason));
        }
        bytes
    }

    /// Reads a table; `None` when it is none of this version's.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Some((&format, entries)) = bytes.split_first() else { return Some(Self::default()) };
        if format != FORMAT || entries.len() % NOTE != 0 || entries.len() > MAX_NOTES * NOTE {
            return None;
        }
        let mut notes = Self::default();
        for entry in entries.chunks_exact(NOTE) {
            let start = u64::from_be_bytes(*entry.first_chunk()?);
            let end = u64::from_be_bytes(*entry.get(8..)?.first_chunk()?);
            notes.0.push((Span { start, end }, reason_of(entry[16])?));
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
        for bad in [&b"\x02"[..], b"\x01\0", &[1; 19], &notes.encode()[1..]] {
            assert_eq!(Notes::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_list_is_bounded_and_forgets_no_position() {
        let mut notes = Notes::default();
        for n in 0..1000 {
            notes.add(Span { start: n * 10, end: n * 10 + 5 }, MissingReason::SpoolFull);
        }
        assert_eq!(notes.0.len(), MAX_NOTES);
        assert_eq!(notes.before(1), Some(MissingReason::SpoolFull));
        assert!(notes.encode().len() < ddc_spool::MAX_TABLE);
    }
}
