//! Which life of a topic is being read: topic ids, asked for at assignment and every second.
//!
//! A topic that was deleted and created again has the same name, another id, and offsets that begin anew. Brokers
//! without ids give `Configured(topic_epoch)`: a re-creation then goes unseen until the operator raises the epoch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_kafka::NativeHandle;
use ddc_kafka::topic_id::{Poll, TopicIds};
use ddc_wire::TopicId;

/// How often ids are asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The same, once a cluster turned out to have none.
const ASK_WITHOUT_IDS_EVERY: Duration = Duration::from_mins(1);
/// An answer that takes longer is none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Knows the ids of topics, and notices when one changes.
pub(crate) struct TopicWatch {
    ids: TopicIds,
    configured: TopicId,
    link: Arc<str>,
    /// What partitions are being read under.
    watched: HashMap<String, TopicId>,
    /// The latest answers, with the partition count.
    answers: HashMap<String, (TopicId, u32)>,
    /// Topics that a start waits for.
    wanted: Vec<String>,
    without_ids: bool,
    next_ask: Instant,
}

impl TopicWatch {
    /// Asks over `client`'s connections; topics of a cluster without ids are `Configured(topic_epoch)`.
    pub(crate) fn new<C: NativeHandle + 'static>(client: &Arc<C>, topic_epoch: u64, link: Arc<str>) -> Self {
        let client: Arc<dyn NativeHandle> = Arc::clone(client) as _;
        Self {
            ids: TopicIds::new(client, ANSWER_TIMEOUT),
            configured: TopicId::Configured(topic_epoch),
            link,
            watched: HashMap::new(),
            answers: HashMap::new(),
            wanted: Vec::new(),
            without_ids: false,
            next_ask: Instant::now(),
        }
    }

    /// Asks anew for these topics; [`TopicWatch::answer`] has them once they came.
    pub(crate) fn want(&mut self, topics: Vec<String>) {
        if self.without_ids {
            let configured = self.configured;
            self.answers.extend(topics.into_iter().map(|topic| (topic, (configured, 0))));
            return;
        }
        for topic in &topics {
            self.answers.remove(topic);
        }
        self.wanted = topics;
        self.next_ask = Instant::now();
    }

    /// The id and partition count of a wanted topic, once known.
    pub(crate) fn answer(&self, topic: &str) -> Option<(TopicId, u32)> {
        self.answers.get(topic).copied()
    }

    /// From now on [`TopicWatch::step`] tells when this topic's id is another one.
    pub(crate) fn watch(&mut self, topic: &str, id: TopicId) {
        self.watched.insert(topic.to_owned(), id);
    }

    /// Asks when it is time, and takes the answer. Returns the topics that were created again.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<String> {
        if now >= self.next_ask && !self.ids.is_pending() {
            self.ask(now);
        }
        match self.ids.poll() {
            Poll::Idle | Poll::Pending => Vec::new(),
            Poll::Answered(answers) => {
                let mut recreated = Vec::new();
                for (topic, answer) in answers {
                    // A topic that is unknown now may be between its two lives: the next answer tells.
                    let Ok(facts) = answer else { continue };
                    let id = facts.id.map_or(self.configured, |id| TopicId::Uuid(id.to_bytes()));
                    self.note_ids(facts.id.is_some());
                    self.wanted.retain(|wanted| *wanted != topic);
                    self.answers.insert(topic.clone(), (id, facts.partitions));
                    if self.watched.get(&topic).is_some_and(|watched| *watched != id) {
                        self.watched.remove(&topic);
                        recreated.push(topic);
                    }
                }
                recreated
            }
            Poll::NoAnswer { names, error } => {
                if self.answers.values().any(|(id, _)| matches!(id, TopicId::Uuid(_))) {
                    return Vec::new();
                }
                tracing::debug!(link = &*self.link, %error, "no answer about topic ids");
                self.note_ids(false);
                let configured = self.configured;
                self.wanted.retain(|wanted| !names.contains(wanted));
                self.answers.extend(names.into_iter().map(|topic| (topic, (configured, 0))));
                Vec::new()
            }
        }
    }

    fn ask(&mut self, now: Instant) {
        let names: Vec<&str> = self.watched.keys().chain(&self.wanted).map(String::as_str).collect();
        self.next_ask = now + if self.without_ids { ASK_WITHOUT_IDS_EVERY } else { ASK_EVERY };
        if names.is_empty() {
            return;
        }
        if let Err(error) = self.ids.ask(&names) {
            tracing::debug!(link = &*self.link, %error, "topic ids cannot be asked for");
        }
    }

    fn note_ids(&mut self, present: bool) {
        if !present && !self.without_ids {
            tracing::warn!(
                link = &*self.link,
                "the source's brokers tell no topic ids: a topic that is deleted and created again goes unseen; \
                 raise `topic_epoch` in [source.kafka] by hand when you do that"
            );
        }
        self.without_ids = !present;
    }
}
