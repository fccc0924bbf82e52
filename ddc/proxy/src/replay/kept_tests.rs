//! What survives a restart, and what a damaged file costs: itself.

use std::fs;

use super::*;
use crate::replay::report::{SentSlice, State};
use crate::replay::request::tests::{asked, kafka};

fn job() -> Job {
    let ranges = vec![asked("orders", 1, 100, 199), asked("orders", 1, 300, 309), asked("orders", 2, 0, 9)];
    let request = Request { id: "case-1".into(), by: Some("ops".into()), ranges };
    let checked = request.check(&kafka()).unwrap();
    Job::new(request, &checked, "ops (uid 0)".into(), 1_700_000_000)
}

fn sent(job: &Job, range: usize, base: i64, end: i64) {
    job.sent(range, &SentSlice { base, end, records: (end - base) as u32 - 1, gone: vec![(base, base)] });
}

#[test]
fn it_goes_on_where_it_was_after_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let open = || Keeper::new(Arc::new(StateDir::open(temporary.path()).unwrap()));
    let (keeper, job) = (open(), job());
    assert!(keeper.take_up().unwrap().is_none());
    keeper.begin(&job).unwrap();
    sent(&job, 0, 100, 150);
    sent(&job, 0, 150, 200);
    sent(&job, 1, 300, 304);
    keeper.keep(&job).unwrap();
    drop(keeper);
    let after = open().take_up().unwrap().unwrap();
    assert_eq!((after.report(), &after.request), (job.report(), &job.request));
    assert_eq!(after.reached(), (1, 304));
    let wanted = wanted(&after, &kafka()).unwrap().ranges;
    assert_eq!(wanted.iter().map(|one| one.first).collect::<Vec<_>>(), [100, 300, 0]);
    // Its bounds go on, too.
    sent(&after, 1, 304, 310);
    assert_eq!((after.report().records, after.report().offsets_gone), (106, 4));
}

#[test]
fn its_topic_is_that_of_before_the_restart() {
    let job = job();
    let mut report = job.report();
    let id = ddc_wire::TopicId::Uuid([7; 16]);
    report.ranges.iter_mut().for_each(|range| range.topic_id = Some(id.to_string()));
    let job = Job::told(job.request, report);
    assert!(wanted(&job, &kafka()).unwrap().ranges.iter().all(|one| one.topic_id == Some(id)));
}

#[test]
fn what_was_cancelled_does_not_go_on() {
    let temporary = tempfile::tempdir().unwrap();
    let keeper = Keeper::new(Arc::new(StateDir::open(temporary.path()).unwrap()));
    let job = job();
    keeper.begin(&job).unwrap();
    job.cancel();
    keeper.keep(&job).unwrap();
    assert_eq!(job.state(), State::Planning, "its thread has not ended it yet");
    assert_eq!(keeper.take_up().unwrap().unwrap().state(), State::Cancelled);
}

#[test]
fn the_file_is_that_of_the_last_replay() {
    let temporary = tempfile::tempdir().unwrap();
    let keeper = Keeper::new(Arc::new(StateDir::open(temporary.path()).unwrap()));
    let (first, mut second) = (job(), job());
    second.request.id = "case-2".into();
    let second = Job::told(second.request.clone(), Report { id: "case-2".into(), ..second.report() });
    keeper.begin(&first).unwrap();
    keeper.begin(&second).unwrap();
    first.end(State::Done, None);
    keeper.keep(&first).unwrap();
    assert_eq!(keeper.take_up().unwrap().unwrap().request.id, "case-2");
}

#[test]
fn a_file_that_is_wrong_is_refused_by_name_and_moved_away() {
    let temporary = tempfile::tempdir().unwrap();
    let keeper = Keeper::new(Arc::new(StateDir::open(temporary.path()).unwrap()));
    let (path, aside) = (temporary.path().join(FILE), temporary.path().join("replay.json.refused"));
    keeper.begin(&job()).unwrap();
    let right = fs::read_to_string(&path).unwrap();
    for (from, to, why) in [
        ("", "", "cannot be read"),
        ("\"format\":1", "\"format\":2", "has format 2, this version knows 1"),
        ("\"id\":\"case-1\"", "\"id\":\"case-2\"", "of two replays"),
        ("\"next\":100", "\"next\":201", "a range in it is none"),
        ("\"next\":100", "\"next\":-1", "a range in it is none"),
        ("\"to\":309,\"next\"", "\"to\":9223372036854775807,\"next\"", "a range in it is none"),
        ("\"topic_id\":null", "\"topic_id\":\"x\"", "a range in it is none"),
    ] {
        let wrong = if from.is_empty() {
            right[..right.len() / 2].to_owned()
        } else {
            assert!(right.contains(from), "{from} in {right}");
            right.replacen(from, to, 1)
        };
        fs::write(&path, &wrong).unwrap();
        let error = keeper.take_up().err().unwrap();
        assert!(error.to_string().contains(FILE) && error.to_string().contains(why), "{error}");
        keeper.refuse("plant-a", &error);
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(&aside).unwrap(), wrong);
        assert!(keeper.take_up().unwrap().is_none());
    }
}

#[test]
fn another_configuration_ends_it_by_name() {
    let job = job();
    let refused = |job: &Job| wanted(job, &kafka()).unwrap_err().to_string();
    let mut other = job.report();
    other.ranges.pop();
    assert!(refused(&Job::told(job.request.clone(), other)).contains("joined its ranges otherwise"));
    let mut request = job.request.clone();
    request.ranges.iter_mut().for_each(|range| range.topic = "other".into());
    assert!(refused(&Job::told(request, job.report())).contains("not carried by link plant-a"));
}
