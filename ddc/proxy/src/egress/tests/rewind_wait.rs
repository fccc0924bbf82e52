//! After a restart a partition whose first records leave a gap waits for its ingress to go back.

use super::*;

/// An egress that got `0..10`, missed `10..20` because it was down, and got `20..30` from the same session.
fn restarted(directory: &Path, mock: &Mock, wait: Duration) -> (Egress, TestSender, Slot) {
    let begin = || {
        let mut config = config(directory, &mock.bootstrap_servers());
        kafka(&mut config).rewind_wait = wait;
        start(config, &options()).unwrap()
    };
    let first = begin();
    let mut sender = TestSender::new(first.view().local_addr(), (8, 2));
    let slot = sender.assign("back", 0, 0, None);
    send(&mut sender, slot, 0..10);
    wait_for("delivery", || first.metrics().records_delivered.value() == 10);
    assert!(first.join().drained);
    send(&mut sender, slot, 10..20);
    let second = begin();
    sender.socket.connect(second.view().local_addr()).unwrap();
    send(&mut sender, slot, 20..30);
    (second, sender, slot)
}

fn send(sender: &mut TestSender, slot: Slot, range: std::ops::Range<i64>) {
    for offset in range {
        sender.record(slot, &Sent::plain(offset, 50));
    }
    sender.flush();
}

fn held(egress: &Egress) -> u64 {
    egress.view().status()["sink"]["held_chunks"].as_u64().unwrap()
}

#[test]
fn an_ingress_that_goes_back_in_time_leaves_no_gap_and_nothing_is_late() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("back", 1)]);
    let (egress, mut sender, slot) = restarted(directory.path(), &mock, Duration::from_mins(1));
    wait_for("the wait", || held(&egress) > 0);
    // The ledger tells of the same gap, and waits too.
    sender.ledger();
    send(&mut sender, slot, 30..35);
    wait_for("more to wait", || held(&egress) >= 3);
    assert_eq!((egress.metrics().records_delivered.value(), egress.view().missing().len()), (0, 0));
    send_again(&egress, "back", 5..40);
    wait_for("delivery", || egress.metrics().records_delivered.value() == 30);
    // What had waited is settled: it was a duplicate.
    wait_for("the end of all waiting", || held(&egress) == 0);
    assert_eq!(offsets(&read(&mock, "back", 1, 40), 0), (0..40).collect::<Vec<_>>(), "each once, in order");
    assert_eq!((egress.view().missing(), egress.metrics().records_late.value()), (vec![], 0));
    assert_eq!(egress.metrics().records_missing.total(), 0);
    assert!(egress.join().drained);
}

#[test]
fn when_nobody_goes_back_the_gap_is_named_after_the_wait() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("back", 1)]);
    let begun = Instant::now();
    let wait = Duration::from_secs(1);
    let (egress, mut sender, slot) = restarted(directory.path(), &mock, wait);
    send(&mut sender, slot, 30..40);
    wait_for("the gap", || egress.view().missing().len() == 1);
    assert!(begun.elapsed() >= wait);
    let missing = egress.view().missing();
    assert_eq!((missing[0].first, missing[0].last, missing[0].reason), (10, 19, "restart"));
    let got = read(&mock, "back", 1, 30);
    assert_eq!(offsets(&got, 0), (0..10).chain(20..40).collect::<Vec<_>>(), "in order");
    // A later gap is named at once.
    sender.lose = Box::new(|_| true);
    send(&mut sender, slot, 40..41);
    sender.lose = Box::new(|_| false);
    send(&mut sender, slot, 41..42);
    wait_for("the second gap", || egress.view().missing().len() == 2);
    assert!(egress.join().drained);
}

/// A stop in the wait: what waits is in the spool, and the next life waits for the same.
#[test]
fn what_waits_outlives_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("back", 1)]);
    let (egress, _sender, _) = restarted(directory.path(), &mock, Duration::from_mins(1));
    wait_for("the wait", || held(&egress) > 0);
    assert_eq!(egress.join().records_missing, 0);
    let mut config = config(directory.path(), &mock.bootstrap_servers());
    kafka(&mut config).rewind_wait = Duration::from_mins(1);
    let egress = start(config, &options()).unwrap();
    wait_for("the wait", || held(&egress) > 0);
    send_again(&egress, "back", 10..30);
    wait_for("delivery", || egress.metrics().records_delivered.value() == 20);
    assert_eq!(offsets(&read(&mock, "back", 1, 30), 0), (0..30).collect::<Vec<_>>());
    assert_eq!(egress.view().missing(), []);
    assert!(egress.join().drained);
}
