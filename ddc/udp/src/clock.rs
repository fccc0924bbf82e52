//! Time for pacing, and the clocks that betray a restored machine.
//!
//! The pacer (DESIGN §6) needs to be woken within microseconds of a deadline; the kernel's timers alone are late by the
//! thread's timer slack (50 µs unless changed) and by the wake-up. So [`sleep_until`] asks the kernel for a moment a
//! little before the deadline and spins for the rest. Nothing here wakes *early*: that would exceed the rate.

use std::io;
use std::num::NonZeroU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::thread::{clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::system;

/// The last part of every sleep, spent spinning: the most CPU time that one call burns.
pub const SPIN: Duration = Duration::from_micros(50);

/// Blocks until `deadline` and returns the time then, which is never before it.
///
/// Sleeps by absolute time (being preempted between computing and sleeping costs no lateness) and spins for at most the
/// last [`SPIN`]. A deadline that has passed returns at once, without a system call.
pub fn sleep_until(deadline: Instant) -> Instant {
    loop {
        // `Instant` keeps its inside to itself, so the kernel's clock is read beside it. Reading it second makes the
        // wake-up later, if at all, by the few nanoseconds between; `SPIN` has room for that.
        let now = Instant::now();
        let Some(left) = deadline.checked_duration_since(now).filter(|left| !left.is_zero()) else {
            return now;
        };
        if left <= SPIN {
            return spin_until(deadline);
        }
        let wake = duration_of(clock_gettime(ClockId::Monotonic)) + left.saturating_sub(SPIN);
        // A signal ends the sleep early (EINTR); the loop then sleeps for the rest.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &timespec_of(wake));
    }
}

fn spin_until(deadline: Instant) -> Instant {
    loop {
        let now = Instant::now();
        if now >= deadline {
            return now;
        }
        std::hint::spin_loop();
    }
}

/// Makes the kernel's timers of the calling thread exact: a slack of 1 ns instead of 50 µs.
///
/// Once, at the start of a thread that paces. Without it [`sleep_until`] is still never early, only later.
pub fn use_exact_timers() -> io::Result<()> {
    Ok(set_current_timer_slack(NonZeroU64::new(1))?)
}

/// How far the wall clock may be off at most, when something (chrony, ntpd, timesyncd, a virtual machine's host) keeps it;
/// nothing when nothing does. Only asks; a sandbox may forbid even that.
pub fn kept_within() -> io::Result<Option<Duration>> {
    system::clock_error()
}

/// Microseconds since 1970 by this host's wall clock; 0 when the clock stands before that.
///
/// May jump either way when the clock is set. Asked through the C library, as the rest of the process does: rustix asks
/// the kernel past it, and then the chaos harness could not set one process's clock back without the whole machine's.
pub fn wall_clock_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// Time since this host was started, suspension included. Never goes back, while it runs.
pub fn boot_time() -> Duration {
    duration_of(clock_gettime(ClockId::Boottime))
}

/// Wall clock minus boot time, in microseconds: when this host was started, by its own wall clock.
///
/// It stays put while both clocks run together. It jumps when the wall clock is set, and when a machine is restored
/// from a snapshot and its clock corrected; after either, packet numbers of the running session may be in use by
/// another copy of the machine, so the caller compares two readings and starts a new session when they differ by more
/// than the clock discipline explains (NTP slews by at most 500 µs per second).
pub fn wall_minus_boot_micros() -> i64 {
    // Being preempted between the two readings would look like a jump: the wall clock is read on both sides, and the
    // reading repeated (a few times, not for ever) when they lie apart.
    const CLOSE_ENOUGH_MICROS: i64 = 50;
    const ATTEMPTS: u32 = 5;
    let mut best = (i64::MAX, 0);
    for _ in 0..ATTEMPTS {
        let before = wall_clock_micros() as i64;
        let boot = boot_time().as_micros() as i64;
        let after = wall_clock_micros() as i64;
        let apart = (after - before).abs();
        if apart < best.0 {
            best = (apart, before - boot);
        }
        if apart <= CLOSE_ENOUGH_MICROS {
            break;
        }
    }
    best.1
}

/// Of a clock that counts from the host's start, so never negative.
fn duration_of(time: Timespec) -> Duration {
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32)
}

fn timespec_of(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never early is the promise. The upper bound is lax: the machine that runs the tests may be busy.
    #[test]
    fn sleeps_are_never_early_and_not_absurdly_late() {
        use_exact_timers().expect("any thread may set its own timer slack");
        for micros in [0u64, 1, 49, 51, 200, 1_000, 20_000] {
            let deadline = Instant::now() + Duration::from_micros(micros);
            let woken = sleep_until(deadline);
            assert!(woken >= deadline, "woken {:?} before a deadline {micros} µs ahead", deadline - woken);
            assert!(Instant::now() >= woken, "the time returned lies in the future");
            assert!(woken - deadline < Duration::from_secs(2), "{micros} µs: {:?} late", woken - deadline);
        }
    }

    #[test]
    fn a_passed_deadline_returns_at_once() {
        let before = Instant::now();
        let woken =
            sleep_until(before.checked_sub(Duration::from_secs(1)).expect("the host runs for a second"));
        assert!(woken >= before);
        assert!(woken - before < Duration::from_secs(2));
    }

    #[test]
    fn sleeping_is_not_spinning() {
        let thread_cpu = || duration_of(clock_gettime(ClockId::ThreadCPUTime));
        let before = thread_cpu();
        sleep_until(Instant::now() + Duration::from_millis(200));
        let used = thread_cpu().saturating_sub(before);
        assert!(used < Duration::from_millis(50), "{used:?} of CPU time for a sleep of 200 ms");
    }

    #[test]
    fn the_clocks_agree_with_the_standard_library() {
        let std = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let ours = Duration::from_micros(wall_clock_micros());
        assert!(ours.abs_diff(std) < Duration::from_secs(5), "{ours:?} against {std:?}");

        let boot = boot_time();
        assert!(boot > Duration::ZERO);
        assert!(boot_time() >= boot);

        let started = wall_minus_boot_micros();
        std::thread::sleep(Duration::from_millis(20));
        let drift = wall_minus_boot_micros() - started;
        assert!(drift.abs() < 10_000, "the wall clock ran away by {drift} µs within 20 ms");
    }
}
