//! When a session may begin, and which: the state behind "a session never begins twice".
//!
//! The last session of each key id is on disk before its first datagram leaves, so that a session is always greater
//! than every one before it, whatever the clock did meanwhile.

use std::collections::BTreeMap;

use ddc_wire::{KeyId, Session};
use serde::{Deserialize, Serialize};

use crate::state::{StateDir, StateError};

/// The state file, in the ingress's state directory.
const FILE: &str = "session.json";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// Start of the last session in µs since 1970, by key id.
    last: BTreeMap<u8, u64>,
}

const FORMAT: u32 = 1;

/// Why no session can begin yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSession {
    /// No earlier session is known and the clock is wrong for certain.
    #[error(
        "the clock says {now_micros} µs since 1970, which is before this program was built, and no earlier session is known: \
         set the clock (chrony, timedatectl); sending begins then by itself"
    )]
    ClockBeforeBuild {
        /// The wall clock.
        now_micros: u64,
    },
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file of a later version.
    #[error(
        "state file {FILE} has format {0}, this version knows {FORMAT}: install the version that wrote it, or move the file away"
    )]
    Format(u32),
}

/// Begins a session under a key: its start is max(now, last + 1) and is on disk when this returns.
pub(crate) fn begin(
    state: &StateDir,
    key: KeyId,
    now_micros: u64,
    build_micros: u64,
    random: u32,
) -> Result<Session, NoSession> {
    let mut stored: Stored = state.read(FILE)?.unwrap_or(Stored { format: FORMAT, last: BTreeMap::new() });
    if stored.format != FORMAT {
        return Err(NoSession::Format(stored.format));
    }
    let start = match stored.last.get(&key.0) {
        Some(last) => now_micros.max(last.saturating_add(1)),
        None if now_micros < build_micros => return Err(NoSession::ClockBeforeBuild { now_micros }),
        None => now_micros,
    };
    stored.last.insert(key.0, start);
    state.write(FILE, &stored)?;
    Ok(Session::new(start, random))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId(1);

    #[test]
    fn sessions_rise_whatever_the_clock_does() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        let mut last = Session::default();
        for now in [1000, 1000, 2000, 5, 2001] {
            let session = begin(&state, KEY, now, 100, 0).unwrap();
            assert!(session > last, "clock {now}");
            last = session;
        }
        assert!(begin(&state, KeyId(2), 1000, 100, 0).is_ok(), "another key has its own sessions");
    }

    #[test]
    fn no_first_session_with_a_clock_before_the_build() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        let refused = begin(&state, KEY, 99, 100, 0).unwrap_err();
        assert!(refused.to_string().contains("set the clock"), "{refused}");
        begin(&state, KEY, 100, 100, 0).unwrap();
        assert_eq!(
            begin(&state, KEY, 50, 100, 0).unwrap().start_micros(),
            101,
            "once one is known, any clock does"
        );
    }

    #[test]
    fn a_later_format_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        state.write(FILE, &Stored { format: 2, last: BTreeMap::new() }).unwrap();
        assert!(matches!(begin(&state, KEY, 100, 100, 0), Err(NoSession::Format(2))));
    }
}
