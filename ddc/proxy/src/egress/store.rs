//! What survives a restart of the egress: positions that the destination has acknowledged, and sessions.
//!
//! `positions.json` and `sessions.json` in the state directory, replaced as a whole when they have changed, once a
//! second. With `seal = "none"` nothing is kept: what anyone can send must not outlive the process.

use std::sync::Arc;

use ddc_link::receiver::{Positions, StoredSession};

use crate::state::{StateDir, StateError};

const POSITIONS: &str = "positions.json";
const SESSIONS: &str = "sessions.json";

/// The open state directory.
pub(crate) struct Store {
    directory: Arc<StateDir>,
    unsealed: bool,
    sessions: Vec<StoredSession>,
}

/// What a former life has left.
#[derive(Debug, Default)]
pub(crate) struct Former {
    pub(crate) positions: Positions,
    pub(crate) sessions: Vec<StoredSession>,
}

impl Store {
    /// Reads what is there.
    pub(crate) fn open(directory: Arc<StateDir>, unsealed: bool) -> Result<(Self, Former), StateError> {
        let former = if unsealed {
            Former::default()
        } else {
            Former {
                positions: directory.read(POSITIONS)?.unwrap_or_default(),
                sessions: directory.read(SESSIONS)?.unwrap_or_default(),
            }
        };
        Ok((Self { directory, unsealed, sessions: former.sessions.clone() }, former))
    }

    /// Replaces the positions.
    pub(crate) fn write_positions(&self, positions: &Positions) -> Result<(), StateError> {
        if self.unsealed {
            return Ok(());
        }
        self.directory.write(POSITIONS, positions)
    }

    /// Replaces the sessions, if they have changed.
    pub(crate) fn write_sessions(&mut self, sessions: Vec<StoredSession>) -> Result<(), StateError> {
        if self.unsealed || sessions == self.sessions {
            return Ok(());
        }
        self.directory.write(SESSIONS, &sessions)?;
        self.sessions = sessions;
        Ok(())
    }
}
