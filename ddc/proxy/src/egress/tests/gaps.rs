//! What becomes of a gap: in the journal, in `/status`, over restarts and crashes.

use std::path::PathBuf;

use ddc_kafka::settings::ClientSettings;
use ddc_telemetry::reasons::KafkaErrorReason;
use serde_json::Value;

use super::*;
use crate::config::MissingRecords;
use crate::gaps::journal::{self, Found};
use crate::gaps::{Gap, GapEvent, GapState};

fn state(directory: &Path) -> PathBuf {
    directory.join("state")
}

fn kept(directory: &Path) -> Found {
    journal::read(&state(directory), "t").unwrap().unwrap()
}

fn gaps(directory: &Path) -> Vec<Gap> {
    kept(directory).book.entries().map(|entry| entry.gap.clone()).collect()
}

fn open(gap: &Gap) -> Vec<(i64, i64)> {
    gap.open.iter().map(|range| (range.first, range.last)).collect()
}

fn counts(egress: &Egress) -> [Value; 4] {
    let status = egress.view().status();
    ["open", "open_offsets", "given_up", "closed"].map(|name| status["gaps"][name].clone())
}

#[test]
fn a_gap_is_kept_over_restarts_and_closed_part_by_part() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("kept", 1)]);
    let begin = || start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    let egress = begin();
    lose_ten(&egress, "kept");
    // Written when it is reported, not a second later: a crash of the process loses nothing.
    let found = kept(directory.path());
    let entry = found.book.entries().next().unwrap();
    let session = entry.gap.session.unwrap();
    assert!(session.start_micros() > 1_700_000_000_000_000, "the session is the ingress's");
    assert_eq!(
        (entry.event, entry.gap.records, open(&entry.gap)),
        (GapEvent::Found, Some(10), vec![(10, 19)])
    );
    assert_eq!(egress.metrics().gaps_open.value(), 1);
    let id = entry.gap.id;
    send_again(&egress, "kept", 5..15);
    wait_for("a part", || open(&gaps(directory.path())[0]) == [(15, 19)]);
    assert_eq!(counts(&egress), [1, 5, 0, 0]);
    let shown = egress.view().missing();
    assert_eq!((shown[0].first, shown[0].last, shown[0].state, shown[0].open_offsets), (10, 19, "open", 5));
    assert!(egress.join().drained);

    let egress = begin();
    assert_eq!(counts(&egress), [1, 5, 0, 0]);
    assert_eq!(egress.metrics().gaps_open.value(), 1);
    send_again(&egress, "kept", 15..35);
    wait_for("the rest", || gaps(directory.path())[0].state == GapState::Closed);
    assert_eq!(offsets(&read(&mock, "kept", 1, 35), 0).len(), 35);
    assert_eq!((counts(&egress), egress.metrics().gaps_open.value()), ([0, 0, 0, 1].map(Value::from), 0));
    assert!(egress.join().drained);
    let all = gaps(directory.path());
    assert_eq!((all.len(), all[0].id, all[0].closed_at.is_some()), (1, id, true));
}

/// Nothing is closed before the destination has it.
#[test]
fn what_waits_for_the_destination_closes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("waits", 1)]);
    let egress = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    lose_ten(&egress, "waits");
    wait_for("delivery", || egress.metrics().records_delivered.value() == 20);
    mock.broker_down(1).unwrap();
    send_again(&egress, "waits", 10..30);
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(open(&gaps(directory.path())[0]), [(10, 19)]);
    mock.broker_up(1).unwrap();
    wait_for("the gap's end", || gaps(directory.path())[0].state == GapState::Closed);
    assert!(egress.join().drained);
}

/// A late record that the destination refuses fills nothing, and the gap stays what it was.
#[test]
fn a_late_record_that_is_refused_leaves_its_gap_open() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("picky", 1)]);
    let egress = start(config_in_turns(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    lose_ten(&egress, "picky");
    wait_for("delivery", || egress.metrics().records_delivered.value() == 20);
    // One that is known, so that the new epoch is claimed before anything is refused.
    let mut sender = TestSender::new(egress.view().local_addr(), (8, 0));
    let slot = sender.assign("picky", 0, 9, None);
    sender.record(slot, &Sent::plain(9, 100));
    sender.flush();
    wait_for("the claim", || egress.metrics().records_duplicate.value() == 1);
    // The batch of 10 to 13, then the half it is tried in, then 10 alone.
    let refused = Injected::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    mock.request_errors(RDKafkaApiKey::Produce, &[refused; 3]);
    for offset in 10..14 {
        sender.record(slot, &Sent::plain(offset, 100));
    }
    sender.flush();
    wait_for("a part", || open(&gaps(directory.path())[0]) == [(10, 10), (14, 19)]);
    assert_eq!(egress.metrics().records_missing.value(MissingReason::Refused), 1);
    assert!(egress.join().drained);
    assert_eq!(open(&gaps(directory.path())[0]), [(10, 10), (14, 19)]);
}

/// The same where a record is refused at once: there is no such partition.
#[test]
fn late_records_that_have_nowhere_to_go_leave_their_gap_open() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("narrow", 1)]);
    let egress = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    lose_ten_of(&egress, "narrow", 2);
    let refused = || egress.metrics().records_missing.value(MissingReason::Refused);
    wait_for("the others' refusal", || refused() == 20);
    send_again_of(&egress, "narrow", 2, 10..20);
    wait_for("their refusal", || refused() == 30);
    assert!(egress.join().drained);
    let mut all: Vec<_> = gaps(directory.path()).iter().flat_map(open).collect();
    all.sort_unstable();
    assert_eq!(all, [(0, 9), (10, 19), (20, 29)]);
}

#[test]
fn late_records_that_are_dropped_are_given_up_and_not_closed() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("drop", 1)]);
    let mut config = config(directory.path(), &mock.bootstrap_servers());
    kafka(&mut config).late = LateRecords::Drop;
    let egress = start(config, &options()).unwrap();
    lose_ten(&egress, "drop");
    send_again(&egress, "drop", 5..30);
    wait_for("the end", || gaps(directory.path())[0].state == GapState::GivenUp);
    assert_eq!(counts(&egress), [0, 0, 1, 0]);
    assert!(egress.join().drained);
}

/// More than 1024 missing ranges: the oldest goes, and that is written down.
#[test]
fn the_oldest_of_too_many_gaps_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("many", 1)]);
    let egress = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    let mut sender = TestSender::new(egress.view().local_addr(), (8, 0));
    let slot = sender.assign("many", 0, 0, None);
    for offset in 0..2052 {
        let lost = offset % 2 == 0;
        sender.lose = Box::new(move |_| lost);
        sender.record(slot, &Sent::plain(offset, 10));
        sender.flush();
    }
    wait_for("all of them", || gaps(directory.path()).len() == 1026);
    let all = gaps(directory.path());
    let given_up: Vec<_> =
        all.iter().filter(|gap| gap.state == GapState::GivenUp).map(|gap| gap.first).collect();
    assert_eq!(given_up, [0, 2]);
    assert!(egress.join().drained);
}

#[test]
fn a_journal_that_cannot_be_written_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("disk", 1)]);
    let state = state(directory.path());
    fs::create_dir_all(state.join("gaps.journal.new")).unwrap();
    let egress = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    lose_ten(&egress, "disk");
    assert_eq!(offsets(&read(&mock, "disk", 1, 20), 0).len(), 20);
    let trouble = || egress.view().status()["gaps"]["journal_trouble"].clone();
    wait_for("the trouble", || trouble().is_string());
    assert_eq!(counts(&egress), [1, 10, 0, 0]);
    fs::remove_dir(state.join("gaps.journal.new")).unwrap();
    wait_for("its end", || trouble().is_null());
    assert_eq!(open(&gaps(directory.path())[0]), [(10, 19)]);
    assert!(egress.join().drained);
}

#[test]
fn a_foreign_journal_stops_the_start_and_an_unsealed_link_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("t", 1)]);
    let state = state(directory.path());
    fs::create_dir_all(&state).unwrap();
    let journal = state.join(journal::FILE);
    fs::write(&journal, "{\"kind\":\"ddc-gap-journal\",\"format\":9,\"link\":\"t\"}\n").unwrap();
    let error = start(config(directory.path(), &mock.bootstrap_servers()), &options()).err().unwrap();
    let error = format!("{error:#}");
    assert!(
        error.contains("has format 9, this ddc knows format 1") && error.starts_with("link t: "),
        "{error}"
    );
    let mut unsealed = config(directory.path(), &mock.bootstrap_servers());
    unsealed.seal = Seal::None;
    fs::remove_file(&journal).unwrap();
    let egress = start(unsealed, &options()).unwrap();
    assert_eq!(counts(&egress), [0, 0, 0, 0]);
    assert!(!journal.exists());
    assert!(egress.join().drained);
}

/// A cluster of its own; what it refuses at first is given again.
#[test]
fn each_change_is_published_and_that_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let (mock, other) = (mock(&[("told", 1)]), mock(&[("gaps", 1)]));
    let begin = || {
        let mut config = config(directory.path(), &mock.bootstrap_servers());
        let client = ClientSettings::plaintext([other.bootstrap_servers()], "ddc-t");
        config.missing_records = Some(MissingRecords { client, topic: "gaps".parse().unwrap() });
        start(config, &options()).unwrap()
    };
    let events = |count: usize| -> Vec<Value> {
        let got = read(&other, "gaps", 1, count);
        got.iter().map(|got| serde_json::from_slice(got.value.as_deref().unwrap()).unwrap()).collect()
    };
    let egress = begin();
    lose_ten(&egress, "told");
    let first = events(1);
    assert_eq!((&first[0]["event"], &first[0]["open"]), (&"found".into(), &serde_json::json!([[10, 19]])));
    other.request_errors(RDKafkaApiKey::Produce, &[Injected::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    send_again(&egress, "told", 5..15);
    let second = &events(2)[1];
    assert_eq!((&second["event"], &second["state"]), (&"closed".into(), &"open".into()));
    assert_eq!((&second["open"], &second["id"]), (&serde_json::json!([[15, 19]]), &first[0]["id"]));
    assert_eq!(egress.metrics().gap_record_errors.value(KafkaErrorReason::Authorization), 1);
    wait_for("the journal's note", || {
        let found = kept(directory.path());
        found.published == found.book.seq()
    });
    assert!(egress.join().sound);
    let egress = begin();
    send_again(&egress, "told", 15..30);
    let third = &events(3)[2];
    assert_eq!((&third["event"], &third["state"]), (&"closed".into(), &"closed".into()));
    let status = || egress.view().status()["missing_records"].clone();
    wait_for("nothing waits", || status()["waiting"] == 0 && status()["published"] == 1);
    assert!(status()["trouble"].is_null() && status()["waiting_since"].is_null());
    assert_eq!(status()["dropped"], 0);
    assert!(egress.join().sound);
    assert_eq!(events(3).len(), 3, "nothing twice");
}
