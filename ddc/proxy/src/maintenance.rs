//! Announced work on a link: alarms about it are held back until it ends, which it does by itself.
//!
//! It stands beside the line: nothing here touches a record. `POST /maintenance?for=2h` on the admin listener begins it,
//! `ddc_link_maintenance` tells it to those who raise alarms, the state directory carries it over a restart (which is what
//! the work often is). Bounded by [`LONGEST`], so that a forgotten one does not silence a link for good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ddc_telemetry::CommonMetrics;
use serde::{Deserialize, Serialize};

use crate::config::{Side, Span};
use crate::state::{StateDir, StateError};

/// Less is over before anybody has begun.
pub const SHORTEST: Duration = Duration::from_mins(1);
/// More is forgotten.
pub const LONGEST: Duration = Duration::from_hours(7 * 24);

/// The state file, in the link side's state directory.
const FILE: &str = "maintenance.json";
const FORMAT: u32 = 1;

/// Why maintenance was not begun or ended.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// Not between [`SHORTEST`] and [`LONGEST`].
    #[error("maintenance for {} s is not possible: it can be 1 min to 7 d; for example: POST /maintenance?for=2h", .0.as_secs())]
    OutOfRange(Duration),
    /// It would not survive a restart, so it was not begun, or not ended.
    #[error("maintenance stays as it was: {0}")]
    State(#[from] StateError),
}

/// Maintenance that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Who began it, as the admin listener knows him.
    pub by: String,
    /// When it ends, in µs since 1970.
    pub until_micros: u64,
    ends: Instant,
}

impl Window {
    /// For `/status` and the answers of `/maintenance`.
    pub fn status(&self, now: Instant) -> serde_json::Value {
        serde_json::json!({
            "by": self.by,
            "until_timestamp_seconds": self.until_micros / 1_000_000,
            "seconds_left": self.ends.saturating_duration_since(now).as_secs(),
        })
    }
}

/// What lies in the state directory; nothing, or `null`, without maintenance.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    until_micros: u64,
    /// For how long it was begun: no clock that was set makes it last longer.
    seconds: u64,
    by: String,
}

/// The maintenance of one side of one link. Time is an argument: `now` for how long, `wall_micros` (µs since 1970) for
/// what must hold over a restart.
#[derive(Debug)]
pub struct Maintenance {
    link: String,
    side: Side,
    directory: Arc<StateDir>,
    /// Held while the file is written, which can take long: readers must not wait for it.
    writing: Mutex<()>,
    window: Mutex<Option<Window>>,
}

impl Maintenance {
    /// Takes up what a former life has left and is not over. A file that cannot be read is told and not used: it must
    /// not keep records from flowing.
    pub fn open(link: &str, side: Side, directory: Arc<StateDir>, now: Instant, wall_micros: u64) -> Self {
        let window = match directory.read::<Option<Stored>>(FILE) {
            Ok(stored) => stored.flatten().and_then(|stored| taken_up(stored, now, wall_micros)),
            Err(error) => {
                tracing::warn!(link, %side, %error, "maintenance of a former run is not known; begin it again if need be");
                None
            }
        };
        if let Some(window) = &window {
            let seconds = window.ends.saturating_duration_since(now).as_secs();
            tracing::warn!(link, %side, by = window.by, seconds, "maintenance goes on: alarms of this link are held back");
        }
        Self { link: link.to_owned(), side, directory, writing: Mutex::default(), window: Mutex::new(window) }
    }

    /// Begins it, or begins it anew: only the last call counts. On disk when this returns.
    pub fn begin(
        &self,
        length: Duration,
        by: &str,
        now: Instant,
        wall_micros: u64,
    ) -> Result<Window, MaintenanceError> {
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(MaintenanceError::OutOfRange(length));
        }
        let _writing = lock(&self.writing);
        let until_micros = wall_micros.saturating_add(length.as_micros() as u64);
        let stored = Stored { format: FORMAT, until_micros, seconds: length.as_secs(), by: by.to_owned() };
        self.directory.write(FILE, &Some(stored))?;
        let window = Window { by: by.to_owned(), until_micros, ends: now + length };
        *lock(&self.window) = Some(window.clone());
        tracing::warn!(
            link = self.link, side = %self.side, by, length = %Span(length),
            "maintenance has begun: alarms of this link are held back"
        );
        Ok(window)
    }

    /// Ends it before its time. `false`: there was none.
    pub fn end(&self, by: &str, now: Instant) -> Result<bool, MaintenanceError> {
        let _writing = lock(&self.writing);
        if self.current(now).is_none() {
            return Ok(false);
        }
        self.directory.write(FILE, &None::<Stored>)?;
        *lock(&self.window) = None;
        tracing::info!(link = self.link, side = %self.side, by, "maintenance was ended: alarms of this link are raised again");
        Ok(true)
    }

    /// What is under way, for `/status`.
    pub fn status(&self, now: Instant) -> Option<serde_json::Value> {
        self.current(now).map(|window| window.status(now))
    }

    /// What is under way; ends it when its time is over. Waits for nothing.
    pub fn current(&self, now: Instant) -> Option<Window> {
        let mut window = lock(&self.window);
        if let Some(over) = window.take_if(|window| now >= window.ends) {
            tracing::info!(link = self.link, side = %self.side, by = over.by, "maintenance is over: alarms of this link are raised again");
        }
        window.clone()
    }
}

/// What telemetry is told each second of a link: whether it does its work, and whether anybody works on it.
pub(crate) fn tell(metrics: &CommonMetrics, ready: bool, maintenance: &Maintenance) {
    metrics.ready.set(i64::from(ready));
    metrics.link_maintenance.set(i64::from(maintenance.current(Instant::now()).is_some()));
}

/// What is left of stored maintenance: until its end by the wall clock, and never longer than it was begun for.
fn taken_up(stored: Stored, now: Instant, wall_micros: u64) -> Option<Window> {
    let Stored { format: FORMAT, until_micros, seconds, by } = stored else {
        tracing::warn!(
            format = stored.format,
            "maintenance of a former run was written by a later version and is not used"
        );
        return None;
    };
    let left = Duration::from_micros(until_micros.checked_sub(wall_micros).filter(|left| *left > 0)?);
    let left = left.min(Duration::from_secs(seconds)).min(LONGEST);
    let until_micros = wall_micros.saturating_add(left.as_micros() as u64);
    Some(Window { by, until_micros, ends: now + left })
}

/// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_800_000_000_000_000;
    const HOUR: Duration = Duration::from_hours(1);

    fn open(path: &std::path::Path, now: Instant, wall: u64) -> Maintenance {
        let directory = Arc::new(StateDir::open(path).unwrap());
        Maintenance::open("plant-a", Side::Egress, directory, now, wall)
    }

    fn micros(duration: Duration) -> u64 {
        duration.as_micros() as u64
    }

    #[test]
    fn it_ends_by_itself_and_by_hand() {
        let directory = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let maintenance = open(directory.path(), now, WALL);
        assert_eq!(maintenance.current(now), None);
        assert!(!maintenance.end("x", now).unwrap(), "there is none to end");
        maintenance.begin(HOUR, "TCP 127.0.0.1", now, WALL).unwrap();
        let just_before = now + Duration::from_millis(3_599_999);
        assert_eq!(maintenance.current(just_before).unwrap().by, "TCP 127.0.0.1");
        assert_eq!(maintenance.current(now + HOUR), None);
        assert_eq!(maintenance.current(now), None, "over is over");

        maintenance.begin(HOUR, "a", now, WALL).unwrap();
        maintenance.begin(2 * HOUR, "b", now, WALL).unwrap();
        let status = maintenance.current(now + HOUR).unwrap().status(now + HOUR);
        assert_eq!((status["by"].as_str(), status["seconds_left"].as_u64()), (Some("b"), Some(3600)));
        assert_eq!(status["until_timestamp_seconds"], 1_800_007_200);
        assert!(maintenance.end("c", now).unwrap());
        assert_eq!(maintenance.current(now), None);
    }

    #[test]
    fn it_survives_a_restart_and_no_clock_prolongs_it() {
        let directory = tempfile::tempdir().unwrap();
        let now = Instant::now();
        open(directory.path(), now, WALL).begin(2 * HOUR, "a", now, WALL).unwrap();
        let left = |wall: u64| {
            let window = open(directory.path(), now, wall).current(now);
            window.map(|window| window.ends.duration_since(now))
        };
        assert_eq!(left(WALL + micros(HOUR)), Some(HOUR));
        assert_eq!(left(WALL + micros(2 * HOUR)), None, "its time was over meanwhile");
        assert_eq!(
            left(WALL - micros(1000 * HOUR)),
            Some(2 * HOUR),
            "a clock set back does not make it longer"
        );
        assert!(open(directory.path(), now, WALL).end("a", now).unwrap());
        assert_eq!(left(WALL), None, "what was ended stays ended");
    }

    #[test]
    fn a_file_that_cannot_be_used_stops_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let now = Instant::now();
        for text in [
            "{\"half\":",
            "[]",
            "{\"format\":2,\"until_micros\":18446744073709551615,\"seconds\":60,\"by\":\"x\"}",
        ] {
            std::fs::write(directory.path().join(FILE), text).unwrap();
            assert_eq!(open(directory.path(), now, WALL).current(now), None, "{text}");
        }
        let endless = "{\"format\":1,\"until_micros\":18446744073709551615,\"seconds\":18446744073709551615,\"by\":\"x\"}";
        std::fs::write(directory.path().join(FILE), endless).unwrap();
        let window = open(directory.path(), now, WALL).current(now).unwrap();
        assert_eq!(window.ends.duration_since(now), LONGEST);
    }

    #[test]
    fn its_length_is_bounded_and_what_is_not_on_disk_is_not_begun() {
        let directory = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let maintenance = open(directory.path(), now, WALL);
        for length in [Duration::ZERO, Duration::from_millis(59_999), LONGEST + Duration::from_millis(1)] {
            let error = maintenance.begin(length, "a", now, WALL).unwrap_err().to_string();
            assert!(error.contains("1 min to 7 d"), "{error}");
        }
        maintenance.begin(SHORTEST, "a", now, WALL).unwrap();
        maintenance.begin(LONGEST, "a", now, WALL).unwrap();
        assert!(maintenance.end("a", now).unwrap());
        // A directory in the place of the file that is written first: as if the disk were full.
        std::fs::create_dir(directory.path().join("maintenance.json.new")).unwrap();
        let error = maintenance.begin(HOUR, "a", now, WALL).unwrap_err().to_string();
        assert!(error.starts_with("maintenance stays as it was"), "{error}");
        assert_eq!(maintenance.current(now), None);
    }
}
