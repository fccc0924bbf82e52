//! Topics of a cluster: created, deleted, given more partitions. Each call waits until the cluster shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use ddc_kafka::admin::{Admin, Created, TopicSpec};
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::{ClientSettings, Role};

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

    /// Number of partitions; `None`: there is no such topic.
    pub fn partitions(&self, topic: &str) -> Option<u32> {
        wait::until(&format!("{} tells the partitions of {topic}", self.brokers), SHOWN, || {
            self.admin.partition_counts(&[topic], CALL).map(|counts| counts[topic])
        })
    }

    fn wait_for(&self, topic: &str, partitions: Option<u32>) {
        wait::until(&format!("{topic} has {partitions:?} partitions"), SHOWN, || {
            let found = self.partitions(topic);
            if found == partitions { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
}
