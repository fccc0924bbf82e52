//! Word to the service manager, and the watch over the data path's threads.
//!
//! ```text
//!   thread ─ Tick::mark() ─┐
//!   thread ─ Tick::mark() ─┼─► Watchdog::poll ─ all moved? ─► `process_ticks` + 1, WATCHDOG=1 to systemd
//!   thread ─ Tick::mark() ─┘        └ some stand still ─► their names: for /readyz and the log; no ping
//! ```
//!
//! A thread marks its tick each time round its loop, idle or busy (idle loops wake at least every 100 ms). A thread that hangs, or
//! dies without saying that it is done, stops the pings, and systemd starts the service anew. A timer thread that runs by
//! itself can not keep a dead data path alive.
//!
//! Without systemd (no `NOTIFY_SOCKET`) everything here does nothing, except that `process_ticks` goes on.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::cells::Counter;

/// How many threads a [`Watchdog`] watches at most: two for each of [`crate::exposition::MAX_LINKS`] sides.
pub const MAX_THREADS: usize = 2 * crate::exposition::MAX_LINKS;

/// The longest pause between two [`Watchdog::poll`]s: it is also how finely `process_ticks` can be seen to move.
const POLL_AT_MOST: Duration = Duration::from_millis(500);

/// Tells systemd that the start is finished.
pub fn ready(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))])
}

/// Sets the line that `systemctl status` shows.
pub fn status(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Status(&one_line(status))])
}

/// Tells systemd that the process drains and will end.
pub fn stopping(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))])
}

/// A newline in a status would begin another assignment, such as `MAINPID=`.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Watches that every registered thread moves. Cheap to clone; clones watch the same threads.
#[derive(Debug, Clone)]
pub struct Watchdog {
    watched: Arc<Mutex<Watched>>,
    /// systemd's `WatchdogSec`, if it set one for this process.
    interval: Option<Duration>,
}

#[derive(Debug, Default)]
struct Watched {
    threads: Vec<Watch>,
    /// Before the first thread there is no data path, and nothing to say about it.
    begun: bool,
}

#[derive(Debug)]
struct Watch {
    id: u64,
    name: Arc<str>,
    ticks: Arc<AtomicU64>,
    /// `ticks` at the last ping.
    at_ping: u64,
    /// `ticks` when they were last seen to differ, and when that was.
    seen: u64,
    moved_at: Instant,
}

/// A thread's sign of life.
#[derive(Debug)]
pub struct Tick {
    id: u64,
    ticks: Arc<AtomicU64>,
    watched: Arc<Mutex<Watched>>,
}

impl Tick {
    /// To be called each time round the thread's loop: one relaxed atomic add.
    #[inline]
    pub fn mark(&self) {
        self.ticks.fetch_add(1, Relaxed);
    }

    /// The thread ends as planned and need not move any more. Merely dropping the tick (a panic does that) is no such word.
    pub fn retire(self) {
        lock(&self.watched).threads.retain(|watch| watch.id != self.id);
    }
}

/// Too many threads for one [`Watchdog`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "thread {name}: one process watches at most {MAX_THREADS} threads; start another process for more links"
)]
pub struct TooManyThreads {
    name: String,
}

/// What [`Watchdog::poll`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Every thread moved since the last time this was said.
    Moved,
    /// Not every thread has moved yet; [`Watchdog::stalled`] tells for how long.
    Waiting,
    /// No thread was ever registered.
    Idle,
}

impl Watchdog {
    /// With the interval systemd set for this process (`WATCHDOG_USEC`, `WATCHDOG_PID`), if it did.
    pub fn from_env() -> Self {
        Self::new(sd_notify::watchdog_enabled())
    }

    /// With a given interval; `None` or zero: no pings.
    pub fn new(interval: Option<Duration>) -> Self {
        Self { watched: Arc::default(), interval: interval.filter(|interval| !interval.is_zero()) }
    }

    /// systemd's interval, if it watches this process.
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// How long to wait between two polls: a quarter of the interval, since a poll may come just before a thread's tick; 500 ms at most.
    pub fn poll_every(&self) -> Duration {
        self.interval
            .map_or(POLL_AT_MOST, |interval| (interval / 4).clamp(Duration::from_millis(1), POLL_AT_MOST))
    }

    /// Registers a thread under a name for people (`plant-a link`). From now on no ping is sent before it has moved.
    pub fn register(&self, name: &str, now: Instant) -> Result<Tick, TooManyThreads> {
        let mut watched = lock(&self.watched);
        if watched.threads.len() >= MAX_THREADS {
            return Err(TooManyThreads { name: name.to_owned() });
        }
        let id = watched.threads.last().map_or(0, |last| last.id + 1);
        let ticks = Arc::new(AtomicU64::new(0));
        watched.begun = true;
        watched.threads.push(Watch {
            id,
            name: name.into(),
            ticks: Arc::clone(&ticks),
            at_ping: 0,
            seen: 0,
            moved_at: now,
        });
        Ok(Tick { id, ticks, watched: Arc::clone(&self.watched) })
    }

    /// Looks at every thread; when all have moved since the last ping, counts a process tick and pings systemd.
    /// When all threads have retired, the caller is all that is left, and its polls are the progress.
    ///
    /// # Errors
    ///
    /// systemd's socket cannot be written to. The tick is counted all the same.
    pub fn poll(&self, now: Instant, process_ticks: &Counter) -> io::Result<Progress> {
        let progress = lock(&self.watched).look(now);
        if progress == Progress::Moved {
            process_ticks.inc();
            if self.interval.is_some() {
                sd_notify::notify(&[NotifyState::Watchdog])?;
            }
        }
        Ok(progress)
    }

    /// Threads that have not been seen to move for `at_least`, with the time. Fed by [`Watchdog::poll`].
    pub fn stalled(&self, now: Instant, at_least: Duration) -> Vec<(Arc<str>, Duration)> {
        let watched = lock(&self.watched);
        watched
            .threads
            .iter()
            .map(|watch| (Arc::clone(&watch.name), now.saturating_duration_since(watch.moved_at)))
            .filter(|(_, still)| *still >= at_least)
            .collect()
    }
}

impl Watched {
    fn look(&mut self, now: Instant) -> Progress {
        if !self.begun {
            return Progress::Idle;
        }
        for watch in &mut self.threads {
            let ticks = watch.ticks.load(Relaxed);
            if ticks != watch.seen {
                watch.seen = ticks;
                watch.moved_at = now;
            }
        }
        if self.threads.iter().any(|watch| watch.seen == watch.at_ping) {
            return Progress::Waiting;
        }
        for watch in &mut self.threads {
            watch.at_ping = watch.seen;
        }
        Progress::Moved
    }
}

/// A panic while the lock is held leaves plain numbers behind, so a poisoned lock is as good as any other.
fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::{Child, Command};

    use super::*;

    fn poll(watchdog: &Watchdog, now: Instant, ticks: &Counter) -> Progress {
        watchdog.poll(now, ticks).unwrap()
    }

    #[test]
    fn every_thread_must_move_between_two_ticks_of_the_process() {
        let (watchdog, ticks, start) = (Watchdog::new(None), Counter::default(), Instant::now());
        assert_eq!(poll(&watchdog, start, &ticks), Progress::Idle);

        let link = watchdog.register("plant-a link", start).unwrap();
        let sink = watchdog.register("plant-a sink", start).unwrap();
        link.mark();
        assert_eq!(poll(&watchdog, start, &ticks), Progress::Waiting);
        sink.mark();
        assert_eq!(poll(&watchdog, start, &ticks), Progress::Moved);
        assert_eq!(poll(&watchdog, start, &ticks), Progress::Waiting, "nothing moved since");

        // The link spins on while the sink hangs.
        let later = start + Duration::from_secs(3);
        for _ in 0..10 {
            link.mark();
            assert_eq!(poll(&watchdog, later, &ticks), Progress::Waiting);
        }
        assert_eq!(ticks.value(), 1);
        let stalled = watchdog.stalled(later, Duration::from_secs(2));
        assert_eq!(stalled, [(Arc::from("plant-a sink"), Duration::from_secs(3))]);

        // A mark at an earlier poll counts: the threads need not move at the same time.
        sink.mark();
        assert_eq!(poll(&watchdog, later, &ticks), Progress::Moved);
        assert!(watchdog.stalled(later, Duration::from_secs(2)).is_empty());
    }

    #[test]
    fn a_retired_thread_is_not_waited_for_and_a_dead_one_is() {
        let (watchdog, ticks, now) = (Watchdog::new(None), Counter::default(), Instant::now());
        let first = watchdog.register("first", now).unwrap();
        let second = watchdog.register("second", now).unwrap();
        first.retire();
        let third = watchdog.register("third", now).unwrap();
        second.mark();
        assert_eq!(poll(&watchdog, now, &ticks), Progress::Waiting, "third has not moved");
        third.mark();
        assert_eq!(poll(&watchdog, now, &ticks), Progress::Moved);

        second.retire();
        third.mark();
        assert_eq!(poll(&watchdog, now, &ticks), Progress::Moved);
        drop(third); // as a panic would
        assert_eq!(poll(&watchdog, now, &ticks), Progress::Waiting);
        assert_eq!(watchdog.stalled(now + Duration::from_secs(9), Duration::from_secs(5)).len(), 1);
    }

    #[test]
    fn when_all_have_retired_the_caller_is_the_progress() {
        let (watchdog, ticks, now) = (Watchdog::new(None), Counter::default(), Instant::now());
        watchdog.register("only", now).unwrap().retire();
        assert_eq!(poll(&watchdog, now, &ticks), Progress::Moved);
        assert_eq!(poll(&watchdog, now, &ticks), Progress::Moved);
    }

    #[test]
    fn the_number_of_threads_is_bounded() {
        let (watchdog, now) = (Watchdog::new(None), Instant::now());
        for _ in 0..MAX_THREADS {
            watchdog.register("t", now).unwrap();
        }
        let error = watchdog.register("one more", now).unwrap_err();
        assert!(error.to_string().contains("one more"), "{error}");
    }

    #[test]
    fn polls_come_well_inside_the_interval() {
        assert_eq!(Watchdog::new(None).poll_every(), POLL_AT_MOST);
        assert_eq!(Watchdog::new(Some(Duration::ZERO)).interval(), None);
        assert_eq!(Watchdog::new(Some(Duration::from_secs(10))).poll_every(), POLL_AT_MOST);
        assert_eq!(Watchdog::new(Some(Duration::from_secs(1))).poll_every(), Duration::from_millis(250));
    }

    #[test]
    fn a_status_cannot_smuggle_an_assignment() {
        assert_eq!(one_line("up\nMAINPID=1\u{0}"), "up MAINPID=1 ");
    }

    /// Environment variables are the interface, so a process of its own plays the service: this test binary, running only
    /// [`service`], below.
    fn spawn_service(script: &str, socket: &std::path::Path, watchdog_usec: Option<&str>) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "notify::tests::service", "--ignored", "--quiet"]);
        command.env("NOTIFY_SOCKET", socket).env("DDC_TEST_SCRIPT", script);
        command.env_remove("WATCHDOG_PID").env_remove("WATCHDOG_USEC");
        if let Some(usec) = watchdog_usec {
            command.env("WATCHDOG_USEC", usec);
        }
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    }

    #[test]
    #[ignore = "the other process of the tests below, which start it"]
    fn service() {
        let script = std::env::var("DDC_TEST_SCRIPT").unwrap();
        let (watchdog, ticks, now) = (Watchdog::from_env(), Counter::default(), Instant::now());
        let (good, bad) = (watchdog.register("good", now).unwrap(), watchdog.register("bad", now).unwrap());
        ready("2 threads\nMAINPID=1").unwrap();
        for step in script.chars() {
            good.mark();
            if step == 'b' {
                bad.mark();
            }
            watchdog.poll(Instant::now(), &ticks).unwrap();
        }
        status("draining").unwrap();
        stopping("bye").unwrap();
        assert_eq!(ticks.value(), script.matches('b').count() as u64);
    }

    fn received(script: &str, watchdog_usec: Option<&str>) -> Vec<String> {
        let directory = std::env::temp_dir()
            .join(format!("ddc-notify-{}-{script}-{watchdog_usec:?}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut child = spawn_service(script, &path, watchdog_usec);
        let mut messages = Vec::new();
        let mut buffer = [0; 512];
        while messages.last().is_none_or(|last: &String| !last.starts_with("STOPPING=1")) {
            let length = socket.recv(&mut buffer).unwrap();
            messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        assert!(child.wait().unwrap().success());
        std::fs::remove_dir_all(&directory).unwrap();
        messages
    }

    #[test]
    fn systemd_hears_the_life_of_a_service() {
        // b = both threads move, g = only the good one: three pings for three times both moved, none for the rest.
        let ping = "WATCHDOG=1\n";
        assert_eq!(
            received("bbggggb", Some("10000000")),
            [
                "READY=1\nSTATUS=2 threads MAINPID=1\n",
                ping,
                ping,
                ping,
                "STATUS=draining\n",
                "STOPPING=1\nSTATUS=bye\n"
            ]
        );
    }

    #[test]
    fn a_thread_that_hangs_stops_the_pings() {
        let messages = received("gggggggg", Some("10000000"));
        assert!(!messages.iter().any(|m| m.contains("WATCHDOG")), "{messages:?}");
        assert_eq!(messages.len(), 3);
    }

    #[test]
    fn no_ping_when_systemd_does_not_watch() {
        for usec in [None, Some("0"), Some("nonsense")] {
            let messages = received("bbb", usec);
            assert!(!messages.iter().any(|m| m.contains("WATCHDOG")), "{usec:?}: {messages:?}");
        }
    }
}
