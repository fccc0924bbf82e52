//! Where the records of a chunk go: the topic map, and topics that are there, with enough partitions, or made so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_telemetry::reasons::DeadLetterReason;
use ddc_wire::ChunkHeader;

use super::writer::Writer;
use crate::config::PartitionMode;
use crate::egress::shared::lock;
use crate::sink::destination::{Destinations, Need, NotReady};
use crate::sink::topics::TopicMap;

/// How long a missing topic is left alone before it is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Where the records of a chunk go.
#[derive(Debug, Clone)]
pub(super) struct ChunkRoute {
    pub(super) topic: Arc<str>,
    pub(super) partition: Option<i32>,
}

/// What is known of a chunk's way.
#[derive(Debug)]
pub(super) enum Way {
    To(ChunkRoute),
    /// Its topic is not there yet.
    Wait,
    /// Nowhere, for ever, and why.
    Nowhere(DeadLetterReason, String),
}

/// See the module's text.
pub(crate) struct Routes {
    pub(crate) destinations: Destinations,
    pub(crate) topics: TopicMap,
    pub(crate) partition_mode: PartitionMode,
    /// Topics that were asked for in vain, and when they are asked for again; as many as there are topics.
    pub(crate) waiting: HashMap<Arc<str>, Instant>,
}

impl Routes {
    /// Finds the way of a chunk; asks the cluster, bounded in time, where it is not known.
    pub(super) fn find(&mut self, header: &ChunkHeader<'_>, writer: &mut Writer) -> Way {
        let topic = match self.topics.destination(header.topic) {
            Ok(topic) => topic,
            Err(name) => {
                let why = format!("the topic map makes {name:?} of it, which is no topic name");
                return Way::Nowhere(DeadLetterReason::TopicName, why);
            }
        };
        let partition = (self.partition_mode == PartitionMode::Keep).then_some(header.partition);
        let need = Need {
            partition: partition.and_then(|partition| u32::try_from(partition).ok()),
            source_partitions: header.partition_count,
        };
        if !self.destinations.is_ready(&topic, need) {
            let now = Instant::now();
            if self.waiting.get(&topic).is_some_and(|at| now < *at) {
                return Way::Wait;
            }
            writer.books.tick.mark();
            let ready = self.destinations.prepare(&topic, need);
            writer.books.tick.mark();
            match ready {
                Ok(()) => {
                    self.waiting.remove(&topic);
                    writer.refresh(&topic);
                }
                Err(NotReady::Wait) => {
                    self.waiting.insert(topic, Instant::now() + RETRY);
                    self.show(writer);
                    return Way::Wait;
                }
                Err(NotReady::TooFewPartitions(has)) => {
                    return Way::Nowhere(
                        DeadLetterReason::Partitions,
                        format!(
                            "topic {topic} has {has} partitions at the destination and create_topics = false; add partitions, or set partition = \"hash\"",
                        ),
                    );
                }
            }
            self.show(writer);
        }
        Way::To(ChunkRoute { topic, partition })
    }

    /// Records came back: what is known of the topics may be wrong.
    pub(super) fn forget(&mut self) {
        self.destinations.forget_all();
    }

    fn show(&self, writer: &Writer) {
        *lock(&writer.books.shared.sink_problem) = self.destinations.waiting().map(str::to_owned);
    }
}
