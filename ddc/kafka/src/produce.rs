//! Hands records to a producer with the fewest allocations that librdkafka allows.
//!
//! The binding's own call makes a C string of the topic and of every header's name for every record and looks the topic up by name,
//! under the client's lock. Here a topic is looked up once, and names go over as they are, so that also names that are not UTF-8 arrive
//! unchanged. Answers come as ever, through the producer's context.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::producer::{BaseProducer, ProducerContext};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaTopic};

use crate::native::sealed::Native as _;

/// A record as it is to be written.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub topic: &'a str,
    /// Which partition; `None`: the client's partitioner decides by the key.
    pub partition: Option<i32>,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970; 0 stands for the moment of the call.
    pub timestamp: i64,
    /// In their order; `None`: no headers.
    pub headers: Option<Headers>,
    /// The answer bears it.
    pub number: usize,
}

/// The headers of one record, in librdkafka's own form.
#[derive(Debug)]
pub struct Headers(NonNull<sys::rd_kafka_headers_t>);

// SAFETY: a list on the heap that nobody else has a pointer to.
unsafe impl Send for Headers {}

impl Headers {
    /// An empty list with room for so many.
    pub fn with_capacity(count: usize) -> Headers {
        // SAFETY: a constructor without conditions.
        let list = unsafe { sys::rd_kafka_headers_new(count) };
        // Invariant: it aborts when memory is short and never returns null.
        Headers(NonNull::new(list).expect("rd_kafka_headers_new returned null"))
    }

    /// Appends one. Any bytes are a name; a value may be null, which is not the same as empty.
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        // No slice is longer than isize::MAX. librdkafka copies both.
        let (bytes, length) =
            value.map_or((std::ptr::null(), 0), |value| (value.as_ptr().cast(), value.len() as isize));
        // SAFETY: the list is ours, the pointers are valid for the lengths that go with them.
        unsafe {
            // Fails only on a list of somebody else's record, which this is not.
            sys::rd_kafka_header_add(
                self.0.as_ptr(),
                name.as_ptr().cast(),
                name.len() as isize,
                bytes,
                length,
            );
        }
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: ours, and given back once: what librdkafka took over was forgotten.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) }
    }
}

/// A producer, and the topics it has written to.
pub struct TopicProducer<C: ProducerContext<DeliveryOpaque = usize> + 'static> {
    /// One reference each, given back before the client goes. As many as the client itself knows.
    topics: HashMap<Box<str>, NonNull<RDKafkaTopic>>,
    client: BaseProducer<C>,
}

// SAFETY: librdkafka's topics are locked inside; every function on them may be called from any thread.
unsafe impl<C: ProducerContext<DeliveryOpaque = usize> + 'static> Send for TopicProducer<C> {}

impl<C: ProducerContext<DeliveryOpaque = usize> + 'static> TopicProducer<C> {
    /// With a client that was made.
    pub fn new(client: BaseProducer<C>) -> Self {
        Self { topics: HashMap::new(), client }
    }

    /// The client: for everything but handing over.
    pub fn client(&self) -> &BaseProducer<C> {
        &self.client
    }

    /// Sends what lingers, and waits until all of it is answered, `wait` at the most; the context hears the answers.
    pub fn flush(&self, wait: Duration) {
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // What it says is whether anything is left; whoever waits asks that by itself.
        // SAFETY: the client is alive; the call may be made at any time.
        unsafe { sys::rd_kafka_flush(self.client.native(), millis) };
    }

    /// Hands a record over; without waiting, and all of it is copied. The error says why it was not taken: then no answer comes.
    pub fn send(&mut self, record: Outgoing<'_>) -> Result<(), Code> {
        use sys::rd_kafka_vtype_t as Type;
        let topic = self.topic(record.topic)?;
        let part = |vtype, u| sys::rd_kafka_vu_t { vtype, u };
        let bytes = |bytes: Option<&[u8]>| Union {
            mem: bytes.map_or(Bytes { ptr: std::ptr::null_mut(), size: 0 }, |bytes| Bytes {
                ptr: bytes.as_ptr().cast_mut().cast(),
                size: bytes.len(),
            }),
        };
        let headers = record.headers.as_ref().map_or(std::ptr::null_mut(), |headers| headers.0.as_ptr());
        let partition = record.partition.unwrap_or(UNASSIGNED);
        let parts = [
            part(Type::RD_KAFKA_VTYPE_RKT, Union { rkt: topic.as_ptr() }),
            part(Type::RD_KAFKA_VTYPE_PARTITION, Union { i32_: partition }),
            part(Type::RD_KAFKA_VTYPE_MSGFLAGS, Union { i: sys::RD_KAFKA_MSG_F_COPY }),
            part(Type::RD_KAFKA_VTYPE_KEY, bytes(record.key)),
            part(Type::RD_KAFKA_VTYPE_VALUE, bytes(record.value)),
            part(Type::RD_KAFKA_VTYPE_TIMESTAMP, Union { i64_: record.timestamp }),
            // How the binding hands a `usize` to the context's answer: see `IntoOpaque`.
            part(Type::RD_KAFKA_VTYPE_OPAQUE, Union { ptr: record.number as *mut c_void }),
            part(Type::RD_KAFKA_VTYPE_HEADERS, Union { headers }),
        ];
        // SAFETY: client and topic are alive and belong together; every part has the type that its tag says; bytes are read,
        // not written, and copied before the call returns.
        let error = unsafe { sys::rd_kafka_produceva(self.client.native(), parts.as_ptr(), parts.len()) };
        let Some(error) = NonNull::new(error) else {
            // The record has them now.
            std::mem::forget(record.headers);
            return Ok(());
        };
        // SAFETY: an error object that is ours from now on, given back once.
        let code = unsafe {
            let code = sys::rd_kafka_error_code(error.as_ptr());
            sys::rd_kafka_error_destroy(error.as_ptr());
            code
        };
        Err(code.into())
    }

    fn topic(&mut self, name: &str) -> Result<NonNull<RDKafkaTopic>, Code> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(*topic);
        }
        let text = CString::new(name).map_err(|_| Code::InvalidArgument)?;
        // SAFETY: the client is alive, the name ends with a zero; no settings of its own.
        let topic =
            unsafe { sys::rd_kafka_topic_new(self.client.native(), text.as_ptr(), std::ptr::null_mut()) };
        // Null: the name is longer than 512 bytes.
        let topic = NonNull::new(topic).ok_or(Code::InvalidArgument)?;
        self.topics.insert(name.into(), topic);
        Ok(topic)
    }
}

impl<C: ProducerContext<DeliveryOpaque = usize> + 'static> Drop for TopicProducer<C> {
    fn drop(&mut self) {
        for topic in self.topics.values() {
            // SAFETY: one reference each, given back once, while the client is alive.
            unsafe { sys::rd_kafka_topic_destroy(topic.as_ptr()) }
        }
    }
}

/// `RD_KAFKA_PARTITION_UA`, which the bindings lack: the partitioner decides.
const UNASSIGNED: i32 = -1;

type Union = sys::rd_kafka_vu_s__bindgen_ty_1;
type Bytes = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1;

#[cfg(test)]
#[path = "produce/tests.rs"]
mod tests;
