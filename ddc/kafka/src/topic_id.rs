//! Kafka's topic ids, asked for without blocking.
//!
//! A topic that was deleted and created again has the same name and another id: only the id tells that its offsets
//! begin anew. librdkafka can ask for it (DescribeTopics, Kafka ≥ 2.8), rdkafka cannot. [`TopicIds::ask`] sends one
//! question for any number of topics; [`TopicIds::poll`] yields the answer when it is there, and never waits.
//!
//! A broker that has no ids shows in one of three ways: a topic without an id, an error "unsupported", or (librdkafka's
//! mock cluster) no answer at all within the timeout. The last cannot be told apart from a cluster that is away:
//! whoever asks knows whether other requests are answered.

use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::errors::{Verdict, classify_code};
use crate::lifeline::Lifeline;
use crate::native::{Event, NativeHandle, OwnedQueue};

/// The identity of a topic's life: another one after each re-creation. Printed as Kafka prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId([u8; 16]);

/// One outstanding question about topic ids, and where its answer arrives.
pub struct TopicIds {
    // Before the client: a queue must go first.
    queue: OwnedQueue,
    client: Arc<dyn NativeHandle>,
    lifeline: Lifeline,
    timeout: Duration,
    pending: Option<Pending>,
    /// Numbers the questions, so that a late answer to an older one is not taken for this one's.
    serial: usize,
}

struct Pending {
    serial: usize,
    names: Vec<String>,
    deadline: Instant,
}

/// What [`TopicIds::poll`] finds.
#[derive(Debug)]
pub enum Poll {
    /// Nothing was asked.
    Idle,
    /// Asked, not answered yet.
    Pending,
    /// One entry per topic asked for, in no particular order.
    Answered(Answers),
    /// No usable answer: treat these topics as without ids (and look whether the cluster answers at all).
    NoAnswer {
        /// The topics asked for.
        names: Vec<String>,
        /// Why; `timed_out` when nothing came.
        error: TopicError,
    },
}

/// What is said about each topic of a question.
pub type Answers = Vec<(String, Result<TopicFacts, TopicError>)>;

/// What the broker says about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// `None` from a broker that has no ids.
    pub id: Option<TopicId>,
    /// Number of partitions.
    pub partitions: u32,
}

/// Why a topic (or the whole question) got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({code:?})")]
pub struct TopicError {
    /// The code, for [`classify_code`].
    pub code: Code,
    /// What librdkafka says.
    pub text: String,
}

impl TopicError {
    /// What it means.
    pub fn verdict(&self) -> Verdict {
        classify_code(self.code)
    }
}

/// Why nothing was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// One question at a time.
    #[error("the last question about topic ids is not answered yet; poll it first")]
    Busy,
    /// DescribeTopics wants names.
    #[error("no topics were given to ask about")]
    NoTopics,
    /// Such a topic cannot exist.
    #[error("a topic name contains a zero byte")]
    ZeroByte,
}

impl TopicIds {
    /// Asks over this client's connections. A consumer's answer may wait behind its long poll, `fetch.wait.max.ms` at most
    /// (0.2–0.5 s measured); an admin client's comes in 1–3 ms. An answer that takes longer than `timeout` (1 s … 5 min) is none.
    pub fn new(client: Arc<dyn NativeHandle>, timeout: Duration) -> TopicIds {
        let timeout = timeout.clamp(Duration::from_secs(1), Duration::from_mins(5));
        TopicIds {
            queue: OwnedQueue::new(&*client),
            client,
            lifeline: Lifeline::default(),
            timeout,
            pending: None,
            serial: 0,
        }
    }

    /// Sends one question about these topics. Returns at once.
    pub fn ask(&mut self, names: &[&str]) -> Result<(), AskError> {
        if self.pending.is_some() {
            return Err(AskError::Busy);
        }
        // librdkafka refuses a name given twice.
        let mut names: Vec<&str> = names.to_vec();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Err(AskError::NoTopics);
        }
        let c_names = names
            .iter()
            .map(|name| CString::new(*name))
            .collect::<Result<Vec<CString>, _>>()
            .map_err(|_| AskError::ZeroByte)?;
        self.lifeline.look(&*self.client);
        self.serial += 1;
        self.send(&c_names);
        self.pending = Some(Pending {
            serial: self.serial,
            names: names.into_iter().map(str::to_owned).collect(),
            // librdkafka's own timeout comes first; this one only guards against an answer that never does.
            deadline: Instant::now() + self.timeout + Duration::from_secs(1),
        });
        Ok(())
    }

    fn send(&self, names: &[CString]) {
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let mut error_text = [0; 256];
        // SAFETY: the client and the queue live as long as `self`; names and options are copied by the calls and are
        // destroyed here, once each. The opaque value is a number that is never dereferenced.
        unsafe {
            let client = self.client.native();
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let options = sys::rd_kafka_AdminOptions_new(
                client,
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            );
            // Cannot fail: the timeout is within librdkafka's bounds (see `new`).
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options,
                self.timeout.as_millis() as i32,
                error_text.as_mut_ptr(),
                error_text.len(),
            );
            sys::rd_kafka_AdminOptions_set_opaque(options, self.serial as *mut c_void);
            sys::rd_kafka_DescribeTopics(client, topics, options, self.queue.ptr());
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(topics);
        }
    }

    /// Whether an answer is outstanding.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Looks for the answer without waiting.
    pub fn poll(&mut self) -> Poll {
        // Bounded: one event per question ever asked.
        while let Some(event) = Event::next(&self.queue, Duration::ZERO) {
            match &self.pending {
                Some(pending) if event.opaque() == pending.serial => {}
                _ => continue,
            }
            // Invariant: matched just above.
            let Some(Pending { names, .. }) = self.pending.take() else { continue };
            return match answer_of(&event) {
                Ok(answers) => Poll::Answered(answers),
                Err(error) => Poll::NoAnswer { names, error },
            };
        }
        match &self.pending {
            None => Poll::Idle,
            Some(pending) if Instant::now() < pending.deadline => Poll::Pending,
            Some(_) => {
                let names = self.pending.take().map(|pending| pending.names).unwrap_or_default();
                let error =
                    TopicError { code: Code::OperationTimedOut, text: "no answer about topic ids".into() };
                Poll::NoAnswer { names, error }
            }
        }
    }
}

/// What the event says about each topic, or why it says nothing.
fn answer_of(event: &Event) -> Result<Answers, TopicError> {
    // SAFETY: the event is alive; its error text and result live as long, and everything is copied out.
    unsafe {
        if let Some(code) = event.error() {
            return Err(TopicError { code, text: text_of(sys::rd_kafka_event_error_string(event.ptr())) });
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.ptr());
        if result.is_null() {
            return Err(TopicError { code: Code::Unknown, text: "not an answer about topics".into() });
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        Ok((0..count).map(|index| describe(*topics.add(index))).collect())
    }
}

/// # Safety
/// `topic` is a description inside a result that is alive.
unsafe fn describe(
    topic: *const sys::rd_kafka_TopicDescription_t,
) -> (String, Result<TopicFacts, TopicError>) {
    // SAFETY: `topic` is valid (the caller's promise), and so is all that hangs on it.
    unsafe {
        let name = text_of(sys::rd_kafka_TopicDescription_name(topic));
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = sys::rd_kafka_error_code(error);
        if !error.is_null() && code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let text = text_of(sys::rd_kafka_error_string(error));
            return (name, Err(TopicError { code: code.into(), text }));
        }
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
        let id = (!uuid.is_null()).then(|| {
            TopicId::from_halves(
                sys::rd_kafka_Uuid_most_significant_bits(uuid),
                sys::rd_kafka_Uuid_least_significant_bits(uuid),
            )
        });
        (name, Ok(TopicFacts { id: id.filter(|id| *id != TopicId::NONE), partitions: partitions as u32 }))
    }
}

/// # Safety
/// `text` is null or a C string.
unsafe fn text_of(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, hence a C string (the caller's promise).
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl TopicId {
    /// Sixteen zero bytes: what stands on the wire for "no id". Kafka never gives it to a topic.
    pub const NONE: TopicId = TopicId([0; 16]);

    /// The id with these bytes, big-endian as in Kafka's protocol.
    pub const fn from_bytes(bytes: [u8; 16]) -> TopicId {
        TopicId(bytes)
    }

    /// The bytes, big-endian as in Kafka's protocol.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    fn from_halves(most: i64, least: i64) -> TopicId {
        TopicId((((most as u64 as u128) << 64) | least as u64 as u128).to_be_bytes())
    }
}

/// The alphabet of base64url (RFC 4648 §5).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 22 characters of base64url without padding, as Kafka's own tools print it.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are 21 characters of 6 bits and one of 2, which stand in its upper bits.
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0; 22];
        for (index, character) in text.iter_mut().enumerate() {
            let value = if index < 21 { bits >> (122 - 6 * index) } else { bits << 4 };
            *character = ALPHABET[(value & 63) as usize];
        }
        // Invariant: the alphabet is ASCII.
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// A text that is no topic id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no topic id; it has 22 characters like `{example}`", example = TopicId([0xa5; 16]))]
pub struct ParseTopicIdError(String);

impl FromStr for TopicId {
    type Err = ParseTopicIdError;

    fn from_str(text: &str) -> Result<TopicId, ParseTopicIdError> {
        let refuse = || ParseTopicIdError(text.to_owned());
        let bytes = text.strip_suffix("==").unwrap_or(text).as_bytes();
        if bytes.len() != 22 {
            return Err(refuse());
        }
        let mut bits = 0_u128;
        for (index, byte) in bytes.iter().enumerate() {
            let value = ALPHABET.iter().position(|c| c == byte).ok_or_else(refuse)? as u128;
            if index < 21 {
                bits = bits << 6 | value;
            } else if value.trailing_zeros() >= 4 {
                bits = bits << 2 | value >> 4;
            } else {
                // Two texts must not stand for one id.
                return Err(refuse());
            }
        }
        Ok(TopicId(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ClientSettings, Role, SourceSettings};
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::mocking::MockCluster;

    /// The vectors were made with Python's base64.urlsafe_b64encode.
    #[test]
    fn prints_and_parses_as_kafka_does() {
        for (bytes, text) in [
            ([0; 16], "AAAAAAAAAAAAAAAAAAAAAA"),
            ([0xff; 16], "_____________________w"),
            (*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f", "AAECAwQFBgcICQoLDA0ODw"),
            ([0xfb; 16], "-_v7-_v7-_v7-_v7-_v7-w"),
        ] {
            let id = TopicId::from_bytes(bytes);
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(format!("{text}==").parse(), Ok(id));
        }
        let id = TopicId::from_halves(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
        assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!(TopicId::from_halves(-1, -1).to_bytes(), [0xff; 16]);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "AAAA",
            "AAAAAAAAAAAAAAAAAAAAA!",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "ÄAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(text.parse::<TopicId>().is_err(), "{text}");
        }
    }

    fn client(brokers: &str) -> Arc<BaseConsumer> {
        let role = Role::Source(SourceSettings {
            group: "g".into(),
            max_record_bytes: 1 << 20,
            queue_bytes: 1 << 20,
        });
        let config = ClientSettings::plaintext([brokers], "t").build(&role).unwrap();
        Arc::new(config.create().unwrap())
    }

    fn wait(ids: &mut TopicIds) -> (Poll, Duration) {
        let start = Instant::now();
        loop {
            let call = Instant::now();
            let poll = ids.poll();
            assert!(call.elapsed() < Duration::from_millis(50), "poll must not wait");
            if !matches!(poll, Poll::Pending) {
                return (poll, start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_broker_without_ids_is_no_answer_within_the_timeout() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("a", 3, 1).unwrap();
        let client = client(&mock.bootstrap_servers());
        let mut ids = TopicIds::new(client.clone(), Duration::from_secs(1));
        assert!(matches!(ids.poll(), Poll::Idle));
        ids.ask(&["a", "a"]).unwrap();
        assert_eq!(ids.ask(&["a"]), Err(AskError::Busy));
        let (poll, took) = wait(&mut ids);
        match poll {
            Poll::NoAnswer { names, .. } => assert_eq!(names, ["a"]),
            Poll::Answered(answers) => {
                assert!(
                    answers.iter().all(|(_, facts)| !matches!(facts, Ok(TopicFacts { id: Some(_), .. }))),
                    "{answers:?}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(took < Duration::from_secs(3), "{took:?}");
        // It can be asked again.
        ids.ask(&["a"]).unwrap();
        // Dropped with a question open: neither hangs nor crashes.
        drop(ids);
        drop(client);
    }

    #[test]
    fn a_cluster_that_is_away_does_not_block() {
        let client = client("127.0.0.1:1");
        let mut ids = TopicIds::new(client, Duration::from_secs(1));
        ids.ask(&["a", "b"]).unwrap();
        let (poll, took) = wait(&mut ids);
        let Poll::NoAnswer { names, error } = poll else { panic!("{poll:?}") };
        assert_eq!(names, ["a", "b"]);
        assert!(error.verdict().is_temporary(), "{error}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }

    #[test]
    fn questions_that_cannot_be_asked() {
        let mut ids = TopicIds::new(client("127.0.0.1:1"), Duration::from_secs(1));
        assert_eq!(ids.ask(&[]), Err(AskError::NoTopics));
        assert_eq!(ids.ask(&["a\0b"]), Err(AskError::ZeroByte));
        assert!(matches!(ids.poll(), Poll::Idle));
    }
}
