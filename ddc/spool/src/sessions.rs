//! The highest block of each session: what tells a replay after a restart from something new.

/// Sessions that are remembered; the one appended to longest ago makes way.
pub const MAX_SESSIONS: usize = 64;

/// A session and its highest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionMark {
    /// The session.
    pub session: [u8; 12],
    /// The highest block that was appended.
    pub block: u64,
}

/// At most [`MAX_SESSIONS`], the one appended to last at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sessions(Vec<SessionMark>);

impl Sessions {
    /// Notes a block; a lower one than is known changes nothing.
    pub(crate) fn raise(&mut self, session: [u8; 12], block: u64) {
        if let Some(last) = self.0.last_mut().filter(|last| last.session == session) {
            last.block = last.block.max(block);
            return;
        }
        let known = self.0.iter().position(|mark| mark.session == session).map(|at| self.0.remove(at).block);
        if self.0.len() >= MAX_SESSIONS {
            self.0.remove(0);
        }
        self.0.push(SessionMark { session, block: known.map_or(block, |known| known.max(block)) });
    }

    /// Takes over what another table knows.
    pub(crate) fn merge(&mut self, other: &Self) {
        for mark in &other.0 {
            self.raise(mark.session, mark.block);
        }
    }

    pub(crate) fn marks(&self) -> &[SessionMark] {
        &self.0
    }

    /// Count (u16), then session (12) and block (u64) of each.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend((self.0.len() as u16).to_be_bytes());
        for mark in &self.0 {
            bytes.extend(mark.session);
            bytes.extend(mark.block.to_be_bytes());
        }
    }

    /// Reads the table and says how many bytes it had.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let count = usize::from(u16::from_be_bytes(*bytes.first_chunk::<2>()?));
        let len = 2 + count * 20;
        let entries = bytes.get(2..len).filter(|_| count <= MAX_SESSIONS)?;
        let mut sessions = Self::default();
        for entry in entries.chunks_exact(20) {
            let mut session = [0; 12];
            session.copy_from_slice(&entry[..12]);
            sessions.raise(session, crate::frame::u64_at(entry, 12));
        }
        Some((sessions, len))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn the_highest_block_stays_and_the_oldest_session_goes() {
        let mut sessions = Sessions::default();
        for n in 0..=MAX_SESSIONS as u8 {
            sessions.raise([n; 12], 10);
            sessions.raise([1; 12], u64::from(n));
        }
        let known = |sessions: &Sessions, session: u8| {
            sessions.marks().iter().find(|mark| mark.session == [session; 12]).map(|mark| mark.block)
        };
        assert_eq!(sessions.marks().len(), MAX_SESSIONS);
        assert_eq!(known(&sessions, 0), None);
        assert_eq!(known(&sessions, 1), Some(64));
        // Neither the one appended to last nor another one goes back.
        for session in [64, 1, 64, 1] {
            sessions.raise([session; 12], 3);
        }
        assert_eq!((known(&sessions, 64), known(&sessions, 1)), (Some(10), Some(64)));
        let mut bytes = Vec::new();
        sessions.encode(&mut bytes);
        assert_eq!(Sessions::decode(&bytes), Some((sessions, bytes.len())));
        assert_eq!(Sessions::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Sessions::decode(&[0xff; 2000]), None);
    }
}
