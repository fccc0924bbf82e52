//! The native things every module here needs: a client's pointer, an owned queue, an owned event.
//!
//! Nothing outside this crate sees a pointer.

use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Partitioner, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::{RDKafka, RDKafkaErrorCode, RDKafkaEvent, RDKafkaQueue};

/// A librdkafka client whose native handle this crate may use: consumers, producers, admin clients of
/// rdkafka. Sealed, since everything unsafe here trusts the pointer it yields.
pub trait NativeHandle: sealed::Native + Send + Sync {}

impl<T: sealed::Native + Send + Sync> NativeHandle for T {}

pub(crate) mod sealed {
    /// The pointer is valid for as long as `self` lives.
    pub trait Native {
        fn native(&self) -> *mut rdkafka::types::RDKafka;
    }
}

impl<C: ConsumerContext> sealed::Native for BaseConsumer<C> {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C, P> sealed::Native for BaseProducer<C, P>
where
    P: Partitioner,
    C: ProducerContext<P>,
{
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C, P> sealed::Native for ThreadedProducer<C, P>
where
    P: Partitioner + Send + Sync + 'static,
    C: ProducerContext<P> + 'static,
{
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C: ClientContext> sealed::Native for AdminClient<C> {
    fn native(&self) -> *mut RDKafka {
        self.inner().native_ptr()
    }
}

/// A reference to a librdkafka queue, given back on drop.
///
/// It must be dropped before the client it came from: its owners keep the client in an `Arc` that is
/// declared after the queue, and fields are dropped in the order of declaration.
pub(crate) struct OwnedQueue(NonNull<RDKafkaQueue>);

// SAFETY: librdkafka's queues are locked inside; every function on them may be called from any thread.
unsafe impl Send for OwnedQueue {}

impl OwnedQueue {
    /// A new, empty queue of this client.
    pub(crate) fn new(client: &(impl sealed::Native + ?Sized)) -> OwnedQueue {
        // SAFETY: the pointer is valid while `client` is borrowed.
        let queue = unsafe { sys::rd_kafka_queue_new(client.native()) };
        // Invariant: rd_kafka_queue_new aborts when memory is short and never returns null.
        OwnedQueue(NonNull::new(queue).expect("rd_kafka_queue_new returned null"))
    }

    /// Takes over a reference that librdkafka handed out; null means there is no such queue.
    ///
    /// # Safety
    /// `queue` is null or a reference that nobody else gives back.
    pub(crate) unsafe fn from_ptr(queue: *mut RDKafkaQueue) -> Option<OwnedQueue> {
        NonNull::new(queue).map(OwnedQueue)
    }

    pub(crate) fn ptr(&self) -> *mut RDKafkaQueue {
        self.0.as_ptr()
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: we own this reference and give it back once.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// One event off a queue, given back on drop.
pub(crate) struct Event(NonNull<RDKafkaEvent>);

impl Event {
    /// Takes the next event, if one comes within `timeout` (zero: returns at once).
    pub(crate) fn next(queue: &OwnedQueue, timeout: Duration) -> Option<Event> {
        let timeout = timeout.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: the queue is alive while borrowed, and the event is ours from then on.
        NonNull::new(unsafe { sys::rd_kafka_queue_poll(queue.ptr(), timeout) }).map(Event)
    }

    pub(crate) fn ptr(&self) -> *mut RDKafkaEvent {
        self.0.as_ptr()
    }

    /// The number its request was sent with; 0 for events that answer none.
    pub(crate) fn opaque(&self) -> usize {
        // SAFETY: the event is alive; the pointer is a number we put there and is not dereferenced.
        unsafe { sys::rd_kafka_event_opaque(self.ptr()) as usize }
    }

    /// The error of the request as a whole.
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the event is alive.
        match unsafe { sys::rd_kafka_event_error(self.ptr()) } {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => None,
            code => Some(code.into()),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: we own the event and give it back once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}
