//! What the cluster's ACLs allow this client to do with a topic, asked without doing it.
//!
//! Brokers tell it with a topic's description (KIP-430, Kafka ≥ 2.3); rdkafka does not ask. A cluster without an
//! authorizer allows everything. Waits for the answer: for `ddc check`, not for the line.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_AclOperation_t as Acl;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::native::{Event, NativeHandle, OwnedQueue};
use crate::topic_id::TopicError;

/// What may be done with a topic, as far as DDC asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// READ: fetch its records.
    pub read: bool,
    /// WRITE: produce to it.
    pub write: bool,
    /// DESCRIBE: see that it is there; implied by READ, WRITE, DELETE and ALTER.
    pub describe: bool,
    /// DESCRIBE_CONFIGS: see its settings.
    pub describe_configs: bool,
    /// ALTER: add partitions.
    pub alter: bool,
}

/// Each topic asked for: what may be done with it.
pub type TopicOperations = BTreeMap<String, Result<Operations, TopicError>>;

/// Asks about at least one topic; `timeout` 1 s … 5 min.
pub fn topic_operations(
    client: &Arc<dyn NativeHandle>,
    topics: &[&str],
    timeout: Duration,
) -> Result<TopicOperations, TopicError> {
    let timeout = timeout.clamp(Duration::from_secs(1), Duration::from_mins(5));
    let names = topics.iter().map(|name| CString::new(*name)).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|_| refused(Code::InvalidTopic, "a topic name contains a zero byte"))?;
    if names.is_empty() {
        return Ok(TopicOperations::new());
    }
    let queue = OwnedQueue::new(&**client);
    send(client, &names, timeout, &queue);
    // librdkafka's own timeout comes first; this one only guards against an answer that never does.
    let deadline = Instant::now() + timeout + Duration::from_secs(1);
    let event = Event::next(&queue, deadline.saturating_duration_since(Instant::now()))
        .ok_or_else(|| refused(Code::OperationTimedOut, "no answer about the topics"))?;
    if let Some(code) = event.error() {
        return Err(refused(code, &code.to_string()));
    }
    // SAFETY: the event is alive and so is its result, which is copied out; it holds `count` descriptions.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.ptr());
        if result.is_null() {
            return Err(refused(Code::Unknown, "not an answer about topics"));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        Ok((0..count).map(|index| describe(*topics.add(index))).collect())
    }
}

fn refused(code: Code, text: &str) -> TopicError {
    TopicError { code, text: text.to_owned() }
}

fn send(client: &Arc<dyn NativeHandle>, names: &[CString], timeout: Duration, queue: &OwnedQueue) {
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let mut error_text = [0; 256];
    // SAFETY: client and queue are alive; names and options are copied by the calls and destroyed here, once each.
    unsafe {
        let client = client.native();
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = sys::rd_kafka_AdminOptions_new(client, operation);
        // Neither can fail: the timeout is within librdkafka's bounds, and the other option is one of this operation.
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            timeout.as_millis() as i32,
            error_text.as_mut_ptr(),
            error_text.len(),
        );
        sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        sys::rd_kafka_DescribeTopics(client, topics, options, queue.ptr());
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
    }
}

/// # Safety
/// `topic` is a description inside a result that is alive.
unsafe fn describe(
    topic: *const sys::rd_kafka_TopicDescription_t,
) -> (String, Result<Operations, TopicError>) {
    // SAFETY: `topic` is valid (the caller's promise), and so is all that hangs on it.
    unsafe {
        let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = sys::rd_kafka_error_code(error);
        if !error.is_null() && code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let text = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
            return (name, Err(TopicError { code: code.into(), text }));
        }
        let mut count = 0;
        let listed = sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
        let listed = if listed.is_null() { &[] } else { slice::from_raw_parts(listed, count) };
        let has =
            |operation| listed.contains(&operation) || listed.contains(&Acl::RD_KAFKA_ACL_OPERATION_ALL);
        let operations = Operations {
            read: has(Acl::RD_KAFKA_ACL_OPERATION_READ),
            write: has(Acl::RD_KAFKA_ACL_OPERATION_WRITE),
            describe: has(Acl::RD_KAFKA_ACL_OPERATION_DESCRIBE),
            describe_configs: has(Acl::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS),
            alter: has(Acl::RD_KAFKA_ACL_OPERATION_ALTER),
        };
        (name, Ok(operations))
    }
}

/// The operations as `kafka-acls.sh` spells them.
impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operations { read, write, describe, describe_configs, alter } = *self;
        let all = [
            (read, "Read"),
            (write, "Write"),
            (describe, "Describe"),
            (describe_configs, "DescribeConfigs"),
            (alter, "Alter"),
        ];
        let names: Vec<_> = all.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Admin;
    use crate::context::Reporter;
    use crate::settings::{ClientSettings, Role};

    fn client(brokers: &str) -> Arc<dyn NativeHandle> {
        let config = ClientSettings::plaintext([brokers], "t").build(&Role::Admin).unwrap();
        Admin::new(&config, Reporter::new("t", "admin")).unwrap().client()
    }

    #[test]
    fn a_cluster_that_is_away_is_bounded_and_bad_names_are_refused() {
        let client = client("127.0.0.1:1");
        let start = Instant::now();
        let error = topic_operations(&client, &["a"], Duration::ZERO).unwrap_err();
        assert!(error.verdict().is_temporary(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        assert_eq!(topic_operations(&client, &["a\0"], Duration::ZERO).unwrap_err().code, Code::InvalidTopic);
        assert_eq!(topic_operations(&client, &[], Duration::ZERO), Ok(TopicOperations::new()));
    }

    #[test]
    fn operations_are_named_as_the_tool_names_them() {
        let some = Operations { write: true, describe: true, ..Operations::default() };
        assert_eq!(some.to_string(), "Write, Describe");
        assert_eq!(Operations::default().to_string(), "");
    }
}
