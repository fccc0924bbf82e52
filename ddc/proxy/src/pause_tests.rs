use super::*;

const WALL: Duration = Duration::from_secs(1_772_352_930);

fn open(path: &std::path::Path) -> Result<Pauses, PauseError> {
    Pauses::open("t", Arc::new(StateDir::open(path).unwrap()))
}

fn request(by: &str, fence: Option<u64>) -> Request {
    Request { by: Some(by.to_owned()), fence, ..Request::default() }
}

fn pause(pauses: &Pauses, by: &str, fence: Option<u64>) -> Result<(), String> {
    pauses.pause(&request(by, fence), "test", Instant::now(), WALL).map_err(|error| error.to_string())
}

fn resume(pauses: &Pauses, by: &str, fence: Option<u64>) -> Result<(), String> {
    pauses.resume(&request(by, fence), "test").map_err(|error| error.to_string())
}

#[test]
fn it_goes_on_when_every_requester_has_withdrawn() {
    let directory = tempfile::tempdir().unwrap();
    let pauses = open(directory.path()).unwrap();
    assert!(!pauses.is_paused() && pauses.problem().is_none());
    resume(&pauses, "a", None).unwrap();
    pause(&pauses, "a", None).unwrap();
    pause(&pauses, "b", None).unwrap();
    pause(&pauses, "b", None).unwrap();
    assert_eq!(pauses.requesters().len(), 2);
    assert!(pauses.problem().unwrap().contains("paused by a, b"));
    let error = resume(&pauses, "c", None).unwrap_err();
    assert!(error.contains("c has not paused") && error.contains("a, b"), "{error}");
    resume(&pauses, "a", None).unwrap();
    assert!(pauses.is_paused());
    resume(&pauses, "b", None).unwrap();
    assert!(!pauses.is_paused());
    pause(&pauses, "a", None).unwrap();
    pauses.resume(&Request { all: true, ..request("ops", None) }, "test").unwrap();
    assert!(!pauses.is_paused());
}

#[test]
fn it_holds_over_a_restart_with_its_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Kept { topic: "t".into(), partition: 3, metadata: "m".into(), offset: 7 };
    {
        let pauses = open(directory.path()).unwrap();
        pause(&pauses, "checker", Some(7)).unwrap();
        pauses.keep(vec![kept.clone()]).unwrap();
    }
    let pauses = open(directory.path()).unwrap();
    assert!(pauses.is_paused() && pauses.kept() == [kept]);
    let error = resume(&pauses, "checker", Some(6)).unwrap_err();
    assert!(error.contains("comes too late"), "{error}");
    resume(&pauses, "checker", Some(8)).unwrap();
    let error = pause(&pauses, "checker", Some(7)).unwrap_err();
    assert!(error.contains("order 8 since"), "an order that was overtaken on its way: {error}");
    assert!(!pauses.is_paused());
    drop(pauses);
    let pauses = open(directory.path()).unwrap();
    assert!(!pauses.is_paused());
    assert!(pause(&pauses, "checker", Some(7)).is_err(), "also after a restart");
    pause(&pauses, "checker", Some(8)).unwrap();
    pause(&pauses, "other", Some(1)).unwrap();
}

#[test]
fn bad_orders_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let pauses = open(directory.path()).unwrap();
    let since = |text: &str| Request { since: Some(text.into()), ..Request::default() };
    for (request, why) in [
        (request("a b", None), "is no name"),
        (request("", None), "is no name"),
        (since("-1s"), "neither a duration"),
        (since("0s"), "nothing would go again"),
        (Request { all: true, ..Request::default() }, "`all` is not known here"),
    ] {
        let error = pauses.pause(&request, "test", Instant::now(), WALL).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(!pauses.is_paused() && pauses.take_since().is_none());
    assert!(pauses.resume(&since("20s"), "test").unwrap_err().to_string().contains("`since`"));
    for number in 0..MAX_REQUESTERS {
        pause(&pauses, &format!("r{number}"), Some(1)).unwrap();
    }
    assert!(pause(&pauses, "one-more", None).unwrap_err().contains("the most"));
    // A directory in the place of the file that is written first: as if the disk were full.
    pauses.resume(&Request { all: true, ..Request::default() }, "test").unwrap();
    std::fs::create_dir(directory.path().join("pause.json.new")).unwrap();
    assert!(pause(&pauses, "r1", None).unwrap_err().contains("stays as it was"));
    assert!(!pauses.is_paused());
}

/// It may say that nothing must flow.
#[test]
fn a_file_that_cannot_be_read_is_no_start() {
    let directory = tempfile::tempdir().unwrap();
    for (text, why) in [
        ("{\"half\":", "move it away"),
        ("[]", "move it away"),
        ("{\"format\":2,\"requesters\":[],\"fences\":{},\"kept\":[]}", "format 2"),
    ] {
        std::fs::write(directory.path().join(FILE), text).unwrap();
        let error = open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn it_is_over_when_the_source_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let pauses = open(directory.path()).unwrap();
    assert!(pauses.wait(Duration::ZERO));
    let since = Request { since: Some("20s".into()), ..Request::default() };
    let now = Instant::now();
    pauses.pause(&since, "test", now, WALL).unwrap();
    assert!(!pauses.wait(Duration::ZERO));
    assert_eq!(pauses.status(3)["state"], "pausing");
    let taken = pauses.take_since().unwrap();
    assert_eq!((taken.by.as_str(), taken.time), (OPERATOR, now.checked_sub(Duration::from_secs(20))));
    assert!(!pauses.wait(Duration::ZERO), "it is not done yet");
    pauses.set_left(true);
    assert!(pauses.wait(Duration::ZERO));
    assert_eq!(pauses.status(0)["state"], "paused");
}
