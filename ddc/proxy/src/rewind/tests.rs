use std::sync::atomic::Ordering;

use super::*;
use crate::config::{Config, parse};

const WALL: Duration = Duration::from_secs(1_772_352_930);

pub(crate) fn rewinds() -> Rewinds {
    let text = "[link]\nname = \"t\"\nid = 1\ntarget = \"127.0.0.1:7401\"\nstate_dir = \"/nowhere\"\nseal = \"none\"\n\
                [source.kafka]\nbrokers = [\"127.0.0.1:1\"]\ntopics = [\"orders\", \"^plant-.*\"]\n";
    let loaded = parse(std::path::Path::new("ingress.toml"), text, None, &|_| None).unwrap();
    let Config::Ingress(config) = loaded.config else { panic!("an ingress") };
    Rewinds::new(Arc::new(config), Arc::new(Shared::new()))
}

fn ask(text: &str) -> Result<(Report, bool), String> {
    let request: Request = serde_json::from_str(text).map_err(|error| error.to_string())?;
    rewinds().begin(request, "test", Instant::now(), WALL).map_err(|error| error.to_string())
}

#[test]
fn what_is_asked_is_read_strictly() {
    for (text, why) in [
        ("", "EOF"),
        ("[]", "invalid"),
        ("{}", "missing field `since`"),
        ("{\"since\": 20}", "expected a string"),
        ("{\"since\": \"-1\"}", "neither a duration"),
        ("{\"since\": \"-1s\"}", "neither a duration"),
        ("{\"since\": \"20\"}", "neither a duration"),
        ("{\"since\": \"1000000000y\"}", "neither a duration"),
        ("{\"since\": \"99999999999999999999d\"}", "neither a duration"),
        ("{\"since\": \"0s\"}", "nothing would go again"),
        ("{\"since\": \"2026-03-01\"}", "neither a duration"),
        ("{\"since\": \"2999-03-01T08:15:30Z\"}", "not past"),
        ("{\"since\": \"20s\", \"sinc\": 1}", "unknown field"),
        ("{\"since\": \"20s\", \"id\": \"a b\"}", "is no name"),
        ("{\"since\": \"20s\", \"by\": \"\"}", "is no name"),
        ("{\"since\": \"20s\", \"topics\": [\"payments\"]}", "not carried by link t"),
        ("{\"since\": \"20s\", \"topics\": [\"a\\u0000b\"]}", "no name of a topic"),
        ("{\"since\": \"20s\", \"topics\": [\"\"]}", "no name of a topic"),
        (
            "{\"since\": \"20s\", \"partitions\": [{\"topic\": \"orders\", \"partition\": -1}]}",
            "count from 0",
        ),
        ("{\"since\": \"20s\", \"partitions\": [{\"topic\": \"orders\"}]}", "missing field"),
        ("{\"since\": \"20s\", \"partitions\": [{\"topic\": \"orders\", \"partition\": 4294967296}]}", "i32"),
    ] {
        let error = ask(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    let many = format!("{{\"since\": \"20s\", \"topics\": [{}]}}", vec!["\"orders\""; 1001].join(","));
    assert!(ask(&many).unwrap_err().contains("more than the 1000"));
    let long = format!("{{\"since\": \"{}\"}}", "9".repeat(100_000));
    let error = ask(&long).unwrap_err();
    assert!(error.len() < 300 && error.contains("neither"), "{error}");
}

#[test]
fn times_are_durations_or_moments() {
    let of = |text: &str| since(text, WALL).map(|ago| ago.as_millis());
    assert_eq!(of("20s"), Ok(20_000));
    assert_eq!(of("1.5min"), Ok(90_000));
    // WALL is 2026-03-01T08:15:30Z.
    assert_eq!(of("2026-03-01T08:15:10Z"), Ok(20_000));
    assert_eq!(of("2026-03-01T08:15:10.250Z"), Ok(19_750));
    assert!(of("2026-03-01T08:15:30Z").is_err(), "now is nothing to go back to");
    assert!(of("2026-03-01T08:15:10+01:00").is_err());
}

#[test]
fn which_partitions_are_meant() {
    let which = |topics: &[&str], partitions: &[(&str, i32)]| Which {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        partitions: partitions.iter().map(|(topic, number)| ((*topic).to_owned(), *number)).collect(),
    };
    assert!(which(&[], &[]).has("a", 0) && which(&[], &[]).is_all());
    let some = which(&["a"], &[("b", 3)]);
    assert!(some.has("a", 0) && some.has("a", 9) && some.has("b", 3));
    assert!(!some.has("b", 2) && !some.has("c", 3));
}

#[test]
fn one_at_a_time_and_the_last_ones_are_remembered() {
    let rewinds = rewinds();
    let request = |id: &str| Request {
        id: id.to_owned(),
        by: Some("ops".into()),
        since: "20s".into(),
        topics: Vec::new(),
        partitions: Vec::new(),
        dry_run: false,
    };
    let begin = |id: &str| rewinds.begin(request(id), "uid 0", Instant::now(), WALL);
    assert!(rewinds.take().is_none());
    let (report, begun) = begin("a").unwrap();
    assert!(begun && report.by == "ops (uid 0)" && report.state == State::Asked);
    assert!(!begin("a").unwrap().1, "the same again");
    assert!(matches!(begin("b").unwrap_err(), BeginError::Busy(id) if id == "a"));
    let order = rewinds.take().unwrap();
    assert_eq!(order.id, "a");
    assert!(rewinds.take().is_none(), "once");
    rewinds.update("a", |report| report.decided(Vec::new()));
    assert_eq!(rewinds.get("a").unwrap().state, State::Done);
    for number in 0..40 {
        let (report, _) = begin("").unwrap();
        assert!(report.id.starts_with("rewind-"));
        rewinds.update(&report.id, |report| report.fail(number.to_string()));
    }
    assert_eq!(rewinds.summaries().len(), REMEMBERED);
    assert!(rewinds.get("a").is_none());
    rewinds.shared.stop.store(true, Ordering::Relaxed);
    assert!(matches!(begin("c").unwrap_err(), BeginError::Stopping));
}
