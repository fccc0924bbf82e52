//! Source topic → destination topic, and a word when two of them meet in one.
//!
//! The rule itself (`rename`, else the first pattern, else the prefix) is [`KafkaSink::destination`]; here
//! its answers are remembered, checked as topic names, and compared.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{KafkaSink, TopicName};

/// Source topics that are remembered; names come from the link, so their number is bounded. Beyond it an
/// answer is worked out anew each time.
const MAX_TOPICS: usize = 100_000;

/// The destinations found so far.
#[derive(Debug)]
pub struct TopicMap {
    link: String,
    rule: KafkaSink,
    found: HashMap<String, Result<Arc<str>, Arc<str>>>,
    /// Destination → the first source topic that led to it.
    owners: HashMap<Arc<str>, String>,
}

impl TopicMap {
    /// For the link of this name.
    pub fn new(link: &str, rule: KafkaSink) -> Self {
        Self { link: link.to_owned(), rule, found: HashMap::new(), owners: HashMap::new() }
    }

    /// The destination of a source topic; the error is the name that the rule made and Kafka would not take.
    pub fn destination(&mut self, source: &str) -> Result<Arc<str>, Arc<str>> {
        if let Some(known) = self.found.get(source) {
            return known.clone();
        }
        let name: Arc<str> = self.rule.destination(source).into();
        let destination = if name.parse::<TopicName>().is_ok() { Ok(name) } else { Err(name) };
        if self.found.len() < MAX_TOPICS {
            self.found.insert(source.to_owned(), destination.clone());
        }
        if let Ok(name) = &destination {
            self.compare(source, name);
        }
        destination
    }

    /// Two source topics in one destination topic are allowed, and rarely meant.
    fn compare(&mut self, source: &str, destination: &Arc<str>) {
        match self.owners.get(destination) {
            Some(first) if first != source => tracing::warn!(
                link = self.link,
                destination = &**destination,
                first = first.as_str(),
                second = source,
                "two source topics go to one destination topic; their records mix there"
            ),
            None if self.owners.len() < MAX_TOPICS => {
                self.owners.insert(Arc::clone(destination), source.to_owned());
            }
            Some(_) | None => {}
        }
    }

    /// Destination topics seen so far.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<str>> {
        self.owners.keys()
    }
}
