//! The verifier finds each kind of fault when it is put into its inputs, and nothing where there is none.

use super::super::mark::Mark;
use super::super::tail::From;
use super::*;

const TOPIC: &str = "t";

fn second(at: u64) -> Duration {
    Duration::from_secs(at)
}

fn sent(life: u32, partition: i32, offset: i64) -> Seen {
    let number = u64::from(life) * 1_000_000 + partition as u64 * 1000 + offset as u64;
    Seen {
        partition,
        offset,
        key: number,
        value: number + 1,
        headers: number + 2,
        timestamp: Some(number as i64),
        mark: Some(Mark { life, partition, sequence: offset as u64 }),
        intact: true,
        from: None,
        at: second(offset as u64),
    }
}

fn arrived(row: &Seen, offset: i64) -> Seen {
    let from = From { topic: TOPIC.into(), partition: row.partition, offset: row.offset, late: false };
    Seen { offset, from: Some(from), at: row.at + second(1), ..row.clone() }
}

/// Two lives of two partitions of twenty records each, all arrived; the first life has ended.
fn sound() -> Evidence {
    let mut source = Vec::new();
    for life in 0..2 {
        for offset in 0..20 {
            source.extend([sent(life, 0, offset), sent(life, 1, offset)]);
        }
    }
    let arrive = |(at, row): (usize, &Seen)| arrived(row, at as i64 / 2);
    let destination = source.iter().enumerate().map(arrive).collect();
    Evidence {
        source: vec![(TOPIC.into(), source)],
        destination: vec![("there".into(), destination)],
        reported: Vec::new(),
        ended: HashSet::from([(TOPIC.into(), 0)]),
        promise: Promise::ExactlyOnce,
        crashes: vec![(second(5), second(7))],
    }
}

fn rows(evidence: &mut Evidence) -> &mut Vec<Seen> {
    &mut evidence.destination[0].1
}

/// Where the record of this life, partition and offset stands.
fn at(evidence: &Evidence, life: u32, partition: i32, offset: i64) -> usize {
    let wanted = Mark { life, partition, sequence: offset as u64 };
    evidence.destination[0].1.iter().position(|row| row.mark == Some(wanted)).unwrap()
}

fn take(evidence: &mut Evidence, life: u32, partition: i32, offset: i64) -> Seen {
    let at = at(evidence, life, partition, offset);
    rows(evidence).remove(at)
}

fn report(life: Option<u32>, partition: i32, first: i64, last: i64) -> Reported {
    Reported { topic: TOPIC.into(), life, partition, first, last, reason: "lost".into() }
}

/// All counters: lost, duplicated, out of order, wrong, reported but present, missing but not reported.
fn counts(evidence: &Evidence) -> [u64; 6] {
    let (delivery, reports) = (evidence.delivery(), evidence.reports());
    [
        delivery.lost.count,
        delivery.duplicated.count,
        delivery.out_of_order.count,
        delivery.wrong.count,
        reports.present.count,
        reports.unreported.count,
    ]
}

#[test]
fn what_is_sound_is_found_sound() {
    let evidence = sound();
    assert_eq!(counts(&evidence), [0; 6]);
    assert_eq!((evidence.reports().missing, evidence.delivery().late), (0, 0));
    assert_eq!(evidence.truth().len(), 80);
}

#[test]
fn lost_and_not_reported() {
    let mut evidence = sound();
    take(&mut evidence, 1, 0, 7);
    assert_eq!(counts(&evidence), [1, 0, 0, 0, 0, 1]);
    assert_eq!(evidence.delivery().lost.examples, ["t[0] 7, life 1"]);
    // Reported: lost all the same, while no replay brings it.
    evidence.reported.push(report(Some(1), 0, 7, 7));
    assert_eq!(counts(&evidence), [1, 0, 0, 0, 0, 0]);
    assert_eq!(evidence.reports().missing, 1);
    // The last one is no tail of nobody: its topic is there.
    take(&mut evidence, 1, 1, 19);
    assert_eq!(counts(&evidence), [2, 0, 0, 0, 0, 1]);
}

#[test]
fn duplicated() {
    let mut evidence = sound();
    let again = Seen { offset: 99, at: second(30), ..rows(&mut evidence)[0].clone() };
    rows(&mut evidence).push(again);
    assert_eq!(counts(&evidence), [0, 1, 0, 0, 0, 0]);
    // Marked as late it is no less there twice.
    rows(&mut evidence).last_mut().unwrap().from.as_mut().unwrap().late = true;
    assert_eq!(counts(&evidence), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn duplicates_are_excused_by_a_crash_and_by_nothing_else() {
    // Delivered at 6 s, in the window; the other at 11 s, outside.
    for (offset, excused) in [(5, true), (10, false)] {
        let mut evidence = sound();
        let original = at(&evidence, 1, 0, offset);
        let again = Seen { offset: 99, at: second(30), ..rows(&mut evidence)[original].clone() };
        rows(&mut evidence).push(again);
        assert_eq!(evidence.delivery().duplicated.count, 1, "exactly once excuses nothing");
        evidence.promise = Promise::AtLeastOnce;
        assert_eq!(evidence.delivery().duplicated.count, u64::from(!excused), "offset {offset}");
        assert_eq!(evidence.delivery().excused, u64::from(excused));
    }
}

#[test]
fn out_of_order() {
    let mut evidence = sound();
    let row = take(&mut evidence, 1, 1, 3);
    rows(&mut evidence).push(row);
    assert_eq!(counts(&evidence), [0, 0, 1, 0, 0, 0]);
    rows(&mut evidence).last_mut().unwrap().from.as_mut().unwrap().late = true;
    assert_eq!(counts(&evidence), [0; 6], "marked as late");
    assert_eq!(evidence.delivery().late, 1);
    // A record of an earlier life behind one of the next.
    let mut evidence = sound();
    let row = take(&mut evidence, 0, 1, 19);
    rows(&mut evidence).push(row);
    assert_eq!(counts(&evidence), [0, 0, 1, 0, 0, 0]);
}

/// What is said of a change, and the change.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Seen));

#[test]
fn wrong_in_every_field() {
    let changes: [Change<'_>; 7] = [
        ("another key", &|row| row.key += 1),
        ("another value", &|row| row.value += 1),
        ("another headers", &|row| row.headers += 1),
        ("another timestamp", &|row| row.timestamp = None),
        ("another partition", &|row| row.partition = 1),
        ("another mark", &|row| row.intact = false),
        ("another mark", &|row| row.mark.as_mut().unwrap().sequence += 1),
    ];
    for (said, change) in changes {
        let mut evidence = sound();
        let row = at(&evidence, 1, 0, 4);
        change(&mut rows(&mut evidence)[row]);
        assert_eq!(counts(&evidence), [0, 0, 0, 1, 0, 0], "{said}");
        assert!(evidence.delivery().wrong.examples[0].ends_with(said), "{:?}", evidence.delivery().wrong);
    }
}

#[test]
fn what_nobody_sent_is_wrong() {
    let changes: [&dyn Fn(&mut Seen); 4] = [
        &|row| row.from = None,
        &|row| row.mark = None,
        &|row| row.from.as_mut().unwrap().offset = 77,
        &|row| row.from.as_mut().unwrap().topic = "u".into(),
    ];
    for change in changes {
        let mut evidence = sound();
        let mut row = arrived(&sent(1, 0, 4), 99);
        change(&mut row);
        rows(&mut evidence).push(row);
        assert_eq!(counts(&evidence), [0, 0, 0, 1, 0, 0]);
    }
}

#[test]
fn reported_but_present() {
    let mut evidence = sound();
    evidence.reported.push(report(Some(1), 0, 5, 6));
    assert_eq!(counts(&evidence), [0, 0, 0, 0, 2, 0]);
    // Not the reason of a crash.
    evidence.promise = Promise::AtLeastOnce;
    assert_eq!(evidence.reports().present.count, 2);
    // That of a crash; delivered at 6 and 7 s, in the window.
    evidence.reported[0].reason = "restart".into();
    assert_eq!((evidence.reports().present.count, evidence.reports().excused), (0, 2));
    evidence.promise = Promise::ExactlyOnce;
    assert_eq!(evidence.reports().present.count, 2);
    // Of an ended life, too.
    evidence.reported = vec![report(Some(0), 0, 5, 5)];
    assert_eq!(evidence.reports().present.count, 1);
}

#[test]
fn reported_and_never_there() {
    for reported in [report(Some(1), 0, 20, 20), report(None, 0, 3, 3), report(Some(2), 0, 3, 3)] {
        let mut evidence = sound();
        evidence.reported.push(reported);
        assert_eq!(counts(&evidence), [0, 0, 0, 0, 1, 0]);
    }
}

#[test]
fn the_unread_tail_of_an_ended_life_is_nobodys_and_nothing_else_is() {
    let mut evidence = sound();
    for offset in 15..20 {
        take(&mut evidence, 0, 0, offset);
    }
    assert_eq!(counts(&evidence), [0; 6], "a tail");
    take(&mut evidence, 0, 0, 9);
    assert_eq!(counts(&evidence), [0, 0, 0, 0, 0, 1], "a hole");
    evidence.reported.push(report(Some(0), 0, 9, 9));
    assert_eq!(counts(&evidence), [0; 6], "a hole with a name, which nothing can fill");
    // What was reported was read: what is before it too.
    evidence.reported.push(report(Some(0), 0, 18, 18));
    assert_eq!(counts(&evidence), [0, 0, 0, 0, 0, 3]);
    // The same of a life that goes on.
    evidence.ended.clear();
    assert_eq!(counts(&evidence), [6, 0, 0, 0, 0, 4]);
}

#[test]
fn a_load_that_is_not_as_written_is_no_load() {
    let rows: Vec<Seen> = (0..5).map(|offset| sent(1, 0, offset)).collect();
    assert_eq!(unsound(TOPIC, 1, &[5], &rows), Finding::default());
    assert_eq!(unsound(TOPIC, 1, &[6], &rows).count, 1, "the source lost one");
    assert_eq!(unsound(TOPIC, 1, &[5, 1], &rows).count, 1, "a whole partition");
    assert_eq!(unsound(TOPIC, 0, &[5], &rows).count, 5, "of another life");
    let mut swapped = rows.clone();
    swapped.swap(1, 2);
    assert_eq!(unsound(TOPIC, 1, &[5], &swapped).count, 2);
    let mut changed = rows;
    changed[3].intact = false;
    assert_eq!(unsound(TOPIC, 1, &[5], &changed).count, 1);
}
