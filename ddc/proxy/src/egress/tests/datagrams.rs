//! The way out over UDP: what becomes of records that come after their gap was reported.

use super::*;
use crate::gaps::{GapState, journal};

/// An egress of one stream, `statsd`, which is sent on to this address.
fn config(directory: &Path, to: SocketAddr, late: &str) -> EgressConfig {
    let rest = format!("[sink.udp]\nstreams = {{ statsd = \"{to}\" }}\nlate = \"{late}\"\n");
    config_with(directory, &rest)
}

/// Loses `10..20` of thirty datagrams and sends them again. Returns the offsets in the order in which their datagrams came out,
/// what became of the gap, and how many records counted as late.
fn sent_again(late: &str) -> (Vec<i64>, GapState, u64) {
    let directory = tempfile::tempdir().unwrap();
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let egress = start(config(directory.path(), target.local_addr().unwrap(), late), &options()).unwrap();
    lose_ten(&egress, "statsd");
    // One that is new at the end: when it is out, so is all before it.
    send_again(&egress, "statsd", 5..31);
    let mut came = Vec::new();
    wait_for("the last datagram", || {
        let mut buffer = [0; 2048];
        while let Ok(length) = target.recv(&mut buffer) {
            let offset =
                (0..31).find(|&offset| Sent::plain(offset, 100).value.as_deref() == Some(&buffer[..length]));
            came.push(offset.expect("a datagram as it was sent"));
        }
        came.contains(&30)
    });
    let late = egress.metrics().records_late.value();
    assert!(egress.join().drained);
    let found = journal::read(&directory.path().join("state"), "t").unwrap().unwrap();
    let gaps: Vec<_> = found.book.entries().map(|entry| &entry.gap).collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].first, gaps[0].last), (10, 19));
    (came, gaps[0].state, late)
}

#[test]
fn late_datagrams_are_dropped_and_their_gap_given_up_if_that_is_said() {
    let expected: Vec<_> = (0..10).chain(20..31).collect();
    assert_eq!(sent_again("drop"), (expected, GapState::GivenUp, 10));
}

#[test]
fn late_datagrams_pass_and_close_their_gap_else() {
    let expected: Vec<_> = (0..10).chain(20..30).chain(10..20).chain([30]).collect();
    assert_eq!(sent_again("pass"), (expected, GapState::Closed, 10));
}
