use super::*;
use crate::source::commit::tests::slots;
use proptest::prelude::*;

const SPAN: Duration = Duration::from_mins(5);

fn mark(slot: Slot, end: i64) -> Mark {
    Mark { slot, end, last: end.checked_sub(1).filter(|last| *last >= 0), count: end as u64 }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_time_is_answered_with_what_was_sent_by_then() {
    let (mut history, slot, start) = (History::new(SPAN), slots(1)[0], Instant::now());
    history.start(start, mark(slot, 100));
    history.sent(start + secs(10), mark(slot, 180));
    history.sent(start + secs(30), mark(slot, 260));
    let at = |seconds| {
        let point = history.at(slot, Some(start + secs(seconds))).unwrap();
        (point.mark.end, point.reach)
    };
    assert_eq!(at(0), (100, Reach::Time));
    assert_eq!(at(9), (100, Reach::Time));
    assert_eq!(at(10), (180, Reach::Time));
    assert_eq!(at(29), (180, Reach::Time), "nothing was sent since");
    assert_eq!(at(900), (260, Reach::Time));
    let before = history.at(slot, start.checked_sub(secs(1))).unwrap();
    assert_eq!((before.mark.end, before.reach), (100, Reach::Start));
    let never = history.at(slot, None).unwrap();
    assert_eq!((never.mark.end, never.reach), (100, Reach::Start));
}

#[test]
fn what_is_older_than_the_span_is_forgotten_but_the_span_stays_answered() {
    let (mut history, slot, start) = (History::new(SPAN), slots(1)[0], Instant::now());
    history.start(start, mark(slot, 0));
    for second in 1..=1000 {
        history.sent(start + secs(second), mark(slot, second as i64));
    }
    assert!(history.len() <= 302, "{}", history.len());
    let at = |seconds| {
        let point = history.at(slot, Some(start + secs(seconds))).unwrap();
        (point.mark.end, point.reach)
    };
    assert_eq!(at(700), (700, Reach::Time), "300 s back");
    assert_eq!(at(600), (700, Reach::History), "as far as it goes, and said");
}

#[test]
fn a_quiet_partition_stands_where_it_stood() {
    let (mut history, slot, start) = (History::new(SPAN), slots(1)[0], Instant::now());
    history.start(start, mark(slot, 0));
    history.sent(start + secs(1), mark(slot, 7));
    let point = history.at(slot, Some(start + secs(90_000))).unwrap();
    assert_eq!((point.mark.end, point.reach), (7, Reach::Time));
}

/// A rewind at 40 s to 20 s, some is sent again, and another rewind to 30 s: then it stood further on than now.
#[test]
fn a_second_rewind_never_skips_forward() {
    let (mut history, both, start) = (History::new(SPAN), slots(2), Instant::now());
    history.start(start, mark(both[0], 0));
    for second in 1..=40 {
        history.sent(start + secs(second), mark(both[0], second as i64 * 10));
    }
    let target = history.at(both[0], Some(start + secs(20))).unwrap().mark;
    assert_eq!(target.end, 200);
    let past = history.cut(both[0], target.end);
    history.resume(both[1], past);
    history.sent(start + secs(41), mark(both[1], 230));
    for (seconds, end) in [(40, 200), (30, 200), (20, 200), (19, 190), (41, 230)] {
        assert_eq!(history.at(both[1], Some(start + secs(seconds))).unwrap().mark.end, end, "{seconds}");
    }
    assert_eq!(history.at(both[0], Some(start + secs(30))), None, "the old slot is gone");
}

#[test]
fn many_partitions_make_it_coarse_and_not_large() {
    let (mut history, all, start) = (History::new(SPAN), slots(2_000), Instant::now());
    for slot in &all {
        history.start(start, mark(*slot, 0));
    }
    for second in 1..=900 {
        for slot in &all {
            history.sent(start + secs(second), mark(*slot, second as i64));
        }
        assert!(history.len() <= MAX_ENTRIES as usize + 2 * all.len(), "{}", history.len());
    }
    let back = history.at(all[7], Some(start + secs(640))).unwrap();
    assert!((625..=640).contains(&back.mark.end) && back.reach == Reach::Time, "{back:?}");
}

proptest! {
    /// Against a list of everything that was ever sent: whatever was sent after the time goes again, and at most what was
    /// sent in the step before it as well; over rewinds, too.
    #[test]
    fn never_too_little_and_at_most_a_step_too_much(
        steps in proptest::collection::vec((1u64..3_000, 0i64..50, proptest::option::weighted(0.05, 0u64..200_000)), 1..300),
        asked in proptest::collection::vec(0u64..400_000, 1..20),
    ) {
        let all = slots(steps.len() + 1);
        let (mut history, mut slot, start) = (History::new(SPAN), 0, Instant::now());
        let mut now = start;
        history.start(now, mark(all[0], 0));
        // When the records from `.1` to `.2` were sent, of all that was ever sent.
        let mut sent: Vec<(Instant, i64, i64)> = Vec::new();
        let mut end = 0;
        for (pause, records, rewind) in steps {
            now += Duration::from_millis(pause);
            sent.push((now, end, end + records));
            end += records;
            history.sent(now, mark(all[slot], end));
            if let Some(back) = rewind {
                let target = history.at(all[slot], now.checked_sub(Duration::from_millis(back))).unwrap().mark;
                prop_assert!(target.end <= end);
                end = target.end;
                let past = history.cut(all[slot], end);
                slot += 1;
                history.resume(all[slot], past);
            }
        }
        for back in asked {
            let time = now.checked_sub(Duration::from_millis(back)).unwrap_or(start);
            let point = history.at(all[slot], Some(time)).unwrap();
            let needed = |since: Instant| {
                let later = sent.iter().filter(|(at, from, to)| *at > since && to > from);
                later.map(|(_, from, _)| *from).min().unwrap_or(end).min(end)
            };
            if point.reach == Reach::Time {
                prop_assert!(point.mark.end <= needed(time), "too little: {point:?} {}", needed(time));
                prop_assert!(point.at <= time);
                let step_before = time.checked_sub(STEP).unwrap_or(start);
                prop_assert!(point.mark.end >= needed(step_before), "too much: {point:?} {}", needed(step_before));
            } else if point.reach == Reach::History {
                prop_assert!(back > SPAN.as_millis() as u64);
            }
        }
    }
}
