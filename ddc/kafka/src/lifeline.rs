//! Gives a client its brokers back when librdkafka has thrown away all of them.
//!
//! librdkafka (2.10 and later; seen with 2.12.1) ends its connections to every broker that an answer about metadata does
//! not name, the configured ones included. A cluster of one node answers without any broker while that is fenced: its
//! heartbeats to its own controller came late, the machine was busy or stood still. Then the client has nobody left to ask, and
//! nothing in it ever begins anew: `metadata.recovery.strategy` acts on brokers that are down, and there are none. (Of
//! the same kind: librdkafka issues 5456 and 5511.) So whoever holds a client calls [`Lifeline::look`] now and then.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaConfRes;

use crate::context::lock;
use crate::native::NativeHandle;

/// Between two looks. While the old connections end, what is given is taken for one of them: then the next look gives again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Room for the configured list of brokers.
const LIST_BYTES: usize = 16 << 10;

/// What is remembered of one client between looks. Its calls may come from any thread.
#[derive(Debug, Default)]
pub struct Lifeline {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<Instant>,
    /// Brokers were known once: before that, librdkafka is still at its first attempts, which go on for ever.
    brokers: bool,
}

impl Lifeline {
    /// Looks, at most once a second, and gives the configured brokers again if the client knows none any more. Does not wait.
    /// Whether it did.
    pub fn look(&self, client: &(impl NativeHandle + ?Sized)) -> bool {
        let mut seen = lock(&self.seen);
        let now = Instant::now();
        if seen.last.is_some_and(|last| now.saturating_duration_since(last) < LOOK_EVERY) {
            return false;
        }
        seen.last = Some(now);
        let known = known_brokers(client);
        seen.brokers |= known > 0;
        if known > 0 || !seen.brokers {
            return false;
        }
        give_brokers(client);
        tracing::warn!(
            "the Kafka client had no broker left (the cluster named none for a moment) and is given the configured ones again"
        );
        true
    }
}

/// How many brokers the cluster has named and the client still knows.
fn known_brokers(client: &(impl NativeHandle + ?Sized)) -> usize {
    let mut count = 0;
    // SAFETY: the client's pointer is valid while it is borrowed; the list is librdkafka's to allocate and is given back once.
    unsafe {
        let ids = sys::rd_kafka_brokers_learned_ids(client.native(), &raw mut count);
        sys::rd_kafka_mem_free(client.native(), ids.cast::<c_void>());
    }
    count
}

fn give_brokers(client: &(impl NativeHandle + ?Sized)) {
    let (mut list, mut room) = ([0 as c_char; LIST_BYTES], LIST_BYTES);
    // SAFETY: the client's pointer is valid while it is borrowed, its configuration as long as the client; at most `room` bytes
    // are written, with a zero byte at their end when the call says that it went well. The list is copied by the last call.
    unsafe {
        let configured = sys::rd_kafka_conf_get(
            sys::rd_kafka_conf(client.native()),
            c"bootstrap.servers".as_ptr(),
            list.as_mut_ptr(),
            &raw mut room,
        );
        if configured == RDKafkaConfRes::RD_KAFKA_CONF_OK && room <= LIST_BYTES {
            sys::rd_kafka_brokers_add(client.native(), CStr::from_ptr(list.as_ptr()).as_ptr());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn a_client_that_knows_brokers_or_never_knew_one_is_left_alone() {
        let mock = MockCluster::new(2).unwrap();
        let client = |servers: &str| -> BaseConsumer {
            ClientConfig::new().set("bootstrap.servers", servers).create().unwrap()
        };
        let nobody = client("127.0.0.1:1");
        assert!(!Lifeline::default().look(&nobody));
        let (known, lifeline) = (client(&mock.bootstrap_servers()), Lifeline::default());
        assert_eq!(known_brokers(&known), 0);
        known.fetch_metadata(None, Duration::from_secs(10)).unwrap();
        assert_eq!(known_brokers(&known), 2);
        assert!(!lifeline.look(&known));
        assert!(lock(&lifeline.seen).brokers);
    }

    #[test]
    fn configured_brokers_are_given_once_brokers_were_known_and_are_not() {
        let mock = MockCluster::new(1).unwrap();
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).create().unwrap();
        // As if it had known some.
        let lifeline = Lifeline { seen: Mutex::new(Seen { last: None, brokers: true }) };
        assert!(lifeline.look(&client));
        assert!(!lifeline.look(&client), "once a second");
        client.fetch_metadata(None, Duration::from_secs(10)).unwrap();
        assert_eq!(known_brokers(&client), 1);
    }
}
