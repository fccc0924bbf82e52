//! Topics of a cluster: created, deleted, given more partitions. Each call waits until the cluster shows it.

use std::collections::BTreeMap;
use std::future::Future;
use std::task::{Context, Poll as Polled, Waker};
use std::time::Duration;

use ddc_kafka::admin::{Admin, Created, TopicSpec};
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::{ClientSettings, Role};
use ddc_kafka::topic_id::{Poll, TopicIds};

use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};

use crate::wait;

const CALL: Duration = Duration::from_secs(10);
const SHOWN: Duration = Duration::from_secs(20);

/// A client of one cluster, by its plaintext listener.
pub struct Cluster {
    brokers: String,
    admin: Admin,
}

impl Cluster {
    /// `brokers` is `host:port`.
    pub fn new(brokers: &str) -> Cluster {
        let settings = ClientSettings::plaintext([brokers], "e2e");
        let admin =
            Admin::new(&settings.build(&Role::Admin).unwrap(), Reporter::new("e2e", "admin")).unwrap();
        Cluster { brokers: brokers.to_owned(), admin }
    }

    /// `host:port`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Creates a topic that is not there yet.
    pub fn create(&self, topic: &str, partitions: u32, config: &[(&str, &str)]) {
        let config: BTreeMap<String, String> =
            config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let spec = TopicSpec { name: topic.to_owned(), partitions, replication_factor: 1, config };
        assert_eq!(self.admin.create_topic(&spec, CALL), Ok(Created::Now), "topic {topic} is new");
        self.wait_for(topic, Some(partitions));
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) {
        self.admin.delete_topic(topic, CALL).unwrap();
        self.wait_for(topic, None);
    }

    /// Raises the number of partitions.
    pub fn add_partitions(&self, topic: &str, partitions: u32) {
        self.admin.add_partitions(topic, partitions, CALL).unwrap();
        self.wait_for(topic, Some(partitions));
    }

    /// Deletes a partition's records below an offset.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let client = self.admin.client();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        let options = AdminOptions::new().operation_timeout(Some(CALL));
        let mut deleting = Box::pin(client.delete_records(&list, &options));
        let mut context = Context::from_waker(Waker::noop());
        wait::until(&format!("{topic}[{partition}] begins at {before}"), SHOWN, || {
            match deleting.as_mut().poll(&mut context) {
                Polled::Ready(answer) => answer.map(drop).map_err(|error| error.to_string()),
                Polled::Pending => Err("no answer".to_owned()),
            }
        });
    }

    /// Number of partitions; `None`: there is no such topic.
    pub fn partitions(&self, topic: &str) -> Option<u32> {
        wait::until(&format!("{} tells the partitions of {topic}", self.brokers), SHOWN, || {
            self.admin.partition_counts(&[topic], CALL).map(|counts| counts[topic])
        })
    }

    /// The id of the topic's present life, in hexadecimal, as the gap journal writes it.
    pub fn topic_id(&self, topic: &str) -> String {
        let mut ids = TopicIds::new(self.admin.client(), CALL);
        wait::until(&format!("{} tells the id of {topic}", self.brokers), SHOWN, || {
            match ids.poll() {
                Poll::Answered(answers) => {
                    let id = answers.into_iter().find_map(|(_, facts)| facts.ok()?.id);
                    return id
                        .map(|id| format!("{:032x}", u128::from_be_bytes(id.to_bytes())))
                        .ok_or("no id");
                }
                Poll::Pending => {}
                // Asked for the first time, or once more.
                Poll::Idle | Poll::NoAnswer { .. } => drop(ids.ask(&[topic])),
            }
            Err("no answer")
        })
    }

    fn wait_for(&self, topic: &str, partitions: Option<u32>) {
        wait::until(&format!("{topic} has {partitions:?} partitions"), SHOWN, || {
            let found = self.partitions(topic);
            if found == partitions { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
}
