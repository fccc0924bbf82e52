//! What was lost on the path, by packet numbers: decided late, corrected later still.
//!
//! A number is counted as lost when it lies `DECIDE_BEHIND` behind the highest or is missing for
//! `DECIDE_AFTER`; reordering alone therefore counts nothing. What comes after that is counted
//! as late, so that lost − late is what never came. Blocks are not looked at here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::replay::ReplayWindow;

/// How far a number lies behind the highest when it is called lost.
pub const DECIDE_BEHIND: u64 = 1024;
/// How long a number is missing when it is called lost (and up to `MARK_EVERY` longer).
pub const DECIDE_AFTER: Duration = Duration::from_secs(1);
/// How often the highest number is noted with its time.
const MARK_EVERY: Duration = Duration::from_millis(100);
/// Notes kept: those of `DECIDE_AFTER`, and room for a caller that polls late.
const MAX_MARKS: usize = 16;

/// The loss on the path of one session.
pub(crate) struct PathLoss {
    /// Numbers below it are not ours to judge: they were sent before we joined.
    base: u64,
    /// Numbers from `base` up to here have been counted, as lost when they had not come.
    decided: u64,
    /// Numbers below the first part have been due since `MARK_EVERY` after the second at the latest.
    marks: VecDeque<(u64, Instant)>,
}

impl PathLoss {
    /// Judges the numbers from `base` on.
    pub(crate) fn new(base: u64) -> Self {
        Self { base, decided: base, marks: VecDeque::with_capacity(MAX_MARKS) }
    }

    /// A new number came; `window` does not have it yet.
    pub(crate) fn packet(
        &mut self,
        window: &ReplayWindow,
        number: u64,
        now: Instant,
        counters: &mut Counters,
    ) {
        if number < self.decided {
            counters.packets_late += u64::from(number >= self.base);
            return;
        }
        if window.highest().is_some_and(|highest| number <= highest) {
            return;
        }
        // Before the window moves up: what leaves it has been judged.
        self.decide(window, number.saturating_sub(DECIDE_BEHIND), counters);
        let full = self.marks.len() == MAX_MARKS;
        match self.marks.back_mut() {
            Some((end, at)) if now.saturating_duration_since(*at) < MARK_EVERY => *end = number,
            // Only a caller that never polls gets here: everything is judged later.
            Some(last) if full => *last = (number, now),
            _ => self.marks.push_back((number, now)),
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, window: &ReplayWindow, now: Instant, counters: &mut Counters) {
        while let Some((end, at)) = self.marks.front().copied() {
            if now.saturating_duration_since(at) < DECIDE_AFTER + MARK_EVERY {
                break;
            }
            self.marks.pop_front();
            self.decide(window, end, counters);
        }
    }

    /// Every number below `end` was sent and what is missing of it is lost.
    pub(crate) fn decide(&mut self, window: &ReplayWindow, end: u64, counters: &mut Counters) {
        if end > self.decided {
            let came = window.count(self.decided, end);
            counters.packets_lost += (end - self.decided).saturating_sub(came);
            self.decided = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Path {
        window: ReplayWindow,
        loss: PathLoss,
        counters: Counters,
        now: Instant,
    }

    impl Path {
        fn new(base: u64) -> Self {
            let counters = Counters::default();
            Self { window: ReplayWindow::new(), loss: PathLoss::new(base), counters, now: Instant::now() }
        }

        fn packet(&mut self, number: u64) {
            self.loss.packet(&self.window, number, self.now, &mut self.counters);
            self.window.mark(number);
        }

        fn tick(&mut self, after: Duration) -> (u64, u64) {
            self.now += after;
            self.loss.tick(&self.window, self.now, &mut self.counters);
            (self.counters.packets_lost, self.counters.packets_late)
        }
    }

    #[test]
    fn reordering_is_not_loss_and_lateness_is_subtracted() {
        let mut path = Path::new(0);
        for number in [0, 3, 1, 2, 7] {
            path.packet(number);
        }
        assert_eq!(path.tick(Duration::from_millis(900)), (0, 0));
        path.packet(5);
        assert_eq!(path.tick(Duration::from_millis(1200)), (2, 0), "4 and 6");
        path.packet(4);
        assert_eq!(path.tick(Duration::from_secs(9)), (2, 1));
    }

    #[test]
    fn a_number_far_behind_is_lost_at_once() {
        let mut path = Path::new(10);
        path.packet(10);
        path.packet(10 + DECIDE_BEHIND + 1);
        assert_eq!(path.tick(Duration::ZERO), (0, 0), "11 is just within");
        path.packet(10 + DECIDE_BEHIND + 2);
        assert_eq!(path.tick(Duration::ZERO), (1, 0));
        path.packet(4);
        assert_eq!(path.tick(Duration::ZERO), (1, 0), "before we joined is neither lost nor late");
    }

    #[test]
    fn a_jump_wider_than_the_window_counts_once() {
        let mut path = Path::new(0);
        path.packet(0);
        let far = 1 << 40;
        path.packet(far);
        path.packet(far + DECIDE_BEHIND + 1);
        assert_eq!(path.tick(Duration::ZERO), (far - 1, 0));
        path.loss.decide(&path.window, far + DECIDE_BEHIND + 3, &mut path.counters);
        assert_eq!(path.counters.packets_lost, far - 1 + DECIDE_BEHIND + 1, "a tail named by the goodbye");
    }
}
