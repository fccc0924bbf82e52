//! Which life of a topic is being read: topic ids, asked for at assignment and every second.
//!
//! A topic that was deleted and created again has the same name, another id, and offsets that begin anew. Brokers
//! without ids give `Configured(topic_epoch)`: a re-creation then goes unseen until the operator raises the epoch.
//!
//! Brokers that are away do not answer either, and must not be taken for brokers without ids: only an answer without
//! an id tells, or [`MISSES`] questions in a row without any answer while the group has just given us the topic. What
//! the start asks the brokers next must succeed too, see [`super::starting`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_kafka::NativeHandle;
use ddc_kafka::topic_id::{Answers, Poll, TopicIds};
use ddc_wire::TopicId;

/// How often ids are asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The same, once a cluster turned out to have none.
const ASK_WITHOUT_IDS_EVERY: Duration = Duration::from_mins(1);
/// An answer that takes longer is none.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
/// So many questions in a row without an answer, and the cluster counts as one without ids.
const MISSES: u32 = 2;

/// What a question yielded, for the source to act on.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Watched topics that have another id now.
    pub(crate) recreated: Vec<String>,
    /// Watched topics that have another number of partitions now.
    pub(crate) resized: Vec<(String, u32)>,
    /// The brokers answered: they are there.
    pub(crate) answered: bool,
}

/// Id and partition count of a topic, or a sentence that says why there is none.
pub(crate) type Answer = Result<(TopicId, u32), String>;

/// Knows the ids of topics, and notices when one changes.
pub(crate) struct TopicWatch {
    ids: TopicIds,
    book: Book,
    next_ask: Instant,
}

impl TopicWatch {
    /// Asks over `client`'s connections; topics of a cluster without ids are `Configured(topic_epoch)`. `named` are the
    /// topics that the configuration names: they are asked about always, so that a missing one is seen.
    pub(crate) fn new<C: NativeHandle + 'static>(
        client: &Arc<C>,
        topic_epoch: u64,
        named: Vec<String>,
        link: Arc<str>,
    ) -> Self {
        let client: Arc<dyn NativeHandle> = Arc::clone(client) as _;
        Self {
            ids: TopicIds::new(client, ANSWER_TIMEOUT),
            book: Book::new(TopicId::Configured(topic_epoch), named, link),
            next_ask: Instant::now(),
        }
    }

    /// Asks anew for these topics; [`TopicWatch::answer`] has them once they came.
    pub(crate) fn want(&mut self, topics: Vec<String>) {
        self.book.want(topics);
        self.next_ask = Instant::now();
    }

    /// What is known of a wanted topic, once something is.
    pub(crate) fn answer(&self, topic: &str) -> Option<&Answer> {
        self.book.answers.get(topic)
    }

    /// From now on [`TopicWatch::step`] tells when this topic's id is another one.
    pub(crate) fn watch(&mut self, topic: &str, id: TopicId) {
        self.book.watched.insert(topic.to_owned(), id);
    }

    /// Nothing of this topic is read any more.
    pub(crate) fn unwatch(&mut self, topic: &str) {
        self.book.watched.remove(topic);
    }

    /// A sentence about the topics that are named or read and that the brokers refuse.
    pub(crate) fn problem(&self) -> Option<String> {
        let sentences: Vec<&str> =
            self.book.refused.iter().take(5).map(|(_, sentence)| sentence.as_str()).collect();
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }

    /// Asks when it is time, and takes the answer.
    pub(crate) fn step(&mut self, now: Instant) -> Changes {
        if now >= self.next_ask && !self.ids.is_pending() {
            self.next_ask = now + self.book.ask_every();
            let names = self.book.names();
            if !names.is_empty()
                && let Err(error) = self.ids.ask(&names)
            {
                tracing::debug!(link = &*self.book.link, %error, "topic ids cannot be asked for");
            }
        }
        match self.ids.poll() {
            Poll::Idle | Poll::Pending => Changes::default(),
            Poll::Answered(answers) => self.book.answered(answers),
            Poll::NoAnswer { names, error } => {
                tracing::debug!(link = &*self.book.link, %error, "no answer about topic ids");
                if self.book.missed(&names) {
                    self.next_ask = now;
                }
                Changes::default()
            }
        }
    }
}

/// What is known about topics; decides without asking anybody.
struct Book {
    configured: TopicId,
    link: Arc<str>,
    named: Vec<String>,
    /// What partitions are being read under.
    watched: HashMap<String, TopicId>,
    /// The latest answers to what is wanted, watched or named.
    answers: HashMap<String, Answer>,
    /// Topics that a start waits for.
    wanted: Vec<String>,
    refused: BTreeMap<String, String>,
    without_ids: bool,
    has_ids: bool,
    misses: u32,
}

impl Book {
    fn new(configured: TopicId, named: Vec<String>, link: Arc<str>) -> Self {
        Self {
            configured,
            link,
            named,
            watched: HashMap::new(),
            answers: HashMap::new(),
            wanted: Vec::new(),
            refused: BTreeMap::new(),
            without_ids: false,
            has_ids: false,
            misses: 0,
        }
    }

    fn ask_every(&self) -> Duration {
        if self.without_ids { ASK_WITHOUT_IDS_EVERY } else { ASK_EVERY }
    }

    fn names(&self) -> Vec<&str> {
        self.watched.keys().chain(&self.wanted).chain(&self.named).map(String::as_str).collect()
    }

    fn want(&mut self, topics: Vec<String>) {
        self.misses = 0;
        // Answers are kept for what is read, and for what a start has asked about last.
        let watched = &self.watched;
        self.answers.retain(|topic, _| watched.contains_key(topic) && !topics.contains(topic));
        if self.without_ids {
            let configured = self.configured;
            self.answers.extend(topics.into_iter().map(|topic| (topic, Ok((configured, 0)))));
            return;
        }
        self.wanted = topics;
    }

    fn answered(&mut self, answers: Answers) -> Changes {
        let mut changes = Changes { answered: true, ..Changes::default() };
        self.misses = 0;
        for (topic, answer) in answers {
            self.wanted.retain(|wanted| *wanted != topic);
            let refused = match answer {
                Ok(facts) if facts.id.is_some() || !self.has_ids => Ok(facts),
                Ok(_) => Err(format!(
                    "topic {topic}: the brokers told its id before and tell none now; it is asked for again"
                )),
                // It may be between its two lives: whatever waits for it asks again.
                Err(error) => Err(format!("topic {topic}: {error}; {}", error.verdict().advice)),
            };
            let facts = match refused {
                Ok(facts) => facts,
                Err(sentence) => {
                    self.answers.insert(topic.clone(), Err(sentence.clone()));
                    self.refused.insert(topic, sentence);
                    continue;
                }
            };
            let id = facts.id.map_or(self.configured, |id| TopicId::Uuid(id.to_bytes()));
            self.note_ids(facts.id.is_some());
            self.refused.remove(&topic);
            let before = self.answers.insert(topic.clone(), Ok((id, facts.partitions)));
            match self.watched.get(&topic) {
                Some(watched) if *watched != id => {
                    self.watched.remove(&topic);
                    changes.recreated.push(topic);
                }
                Some(_) if !matches!(before, Some(Ok((_, count))) if count == facts.partitions) => {
                    changes.resized.push((topic, facts.partitions));
                }
                _ => {}
            }
        }
        let (watched, wanted, named) = (&self.watched, &self.wanted, &self.named);
        self.refused.retain(|topic, _| {
            watched.contains_key(topic) || wanted.contains(topic) || named.contains(topic)
        });
        changes
    }

    /// A question had no answer. `true`: ask again at once.
    fn missed(&mut self, names: &[String]) -> bool {
        // A cluster that ever told an id is away now; and without a start that waits, nothing needs to be concluded.
        if self.has_ids || self.wanted.is_empty() {
            return false;
        }
        self.misses += 1;
        if self.misses < MISSES {
            return true;
        }
        self.note_ids(false);
        let (configured, wanted) = (self.configured, std::mem::take(&mut self.wanted));
        let (asked, left) = wanted.into_iter().partition(|topic| names.contains(topic));
        self.wanted = left;
        let asked: Vec<String> = asked;
        self.answers.extend(asked.into_iter().map(|topic| (topic, Ok((configured, 0)))));
        false
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
        self.has_ids |= present;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddc_kafka::topic_id::{TopicError, TopicFacts, TopicId as KafkaId};
    use rdkafka::types::RDKafkaErrorCode as Code;

    fn book() -> Book {
        Book::new(TopicId::Configured(7), vec!["named".into()], "l".into())
    }

    fn facts(id: u8, partitions: u32) -> TopicFacts {
        TopicFacts { id: (id > 0).then(|| KafkaId::from_bytes([id; 16])), partitions }
    }

    fn unknown() -> TopicError {
        TopicError { code: Code::UnknownTopicOrPartition, text: "unknown".into() }
    }

    const ONE: TopicId = TopicId::Uuid([1; 16]);

    #[test]
    fn a_cluster_that_is_away_is_not_one_without_ids() {
        let mut book = book();
        let names = ["t".to_owned(), "named".to_owned()];
        for _ in 0..10 {
            assert!(!book.missed(&names), "nobody waits: brokers may just be away at the start");
        }
        assert!(!book.without_ids);
        book.want(vec!["t".into()]);
        assert!(book.missed(&names), "one miss tells nothing, it is asked again at once");
        assert_eq!(book.answers.get("t"), None);
        book.answered(vec![("t".into(), Ok(facts(1, 3)))]);
        assert_eq!(book.answers["t"], Ok((ONE, 3)));
        book.want(vec!["t".into()]);
        for _ in 0..10 {
            book.missed(&names);
        }
        assert_eq!(book.answers.get("t"), None, "a cluster that has ids is waited for");
    }

    #[test]
    fn without_answers_the_configured_epoch_stands_in() {
        let mut book = book();
        book.want(vec!["t".into(), "later".into()]);
        book.missed(&["t".into()]);
        assert!(!book.missed(&["t".into()]));
        assert_eq!(book.answers["t"], Ok((TopicId::Configured(7), 0)));
        assert_eq!(book.answers.get("later"), None, "it was not asked about");
        book.want(vec!["later".into()]);
        assert_eq!(book.answers["later"], Ok((TopicId::Configured(7), 0)), "known by now");
    }

    #[test]
    fn one_unknown_topic_is_an_answer_too_and_is_named_until_it_is_there() {
        let mut book = book();
        book.want(vec!["gone".into(), "t".into()]);
        let changes = book.answered(vec![("gone".into(), Err(unknown())), ("t".into(), Ok(facts(1, 1)))]);
        assert!(changes.answered && changes.recreated.is_empty());
        assert_eq!(book.answers["t"], Ok((ONE, 1)));
        let sentence = book.answers["gone"].as_ref().unwrap_err();
        assert!(sentence.starts_with("topic gone:") && sentence.contains("does not exist"), "{sentence}");
        book.answered(vec![("named".into(), Err(unknown()))]);
        assert_eq!(book.refused.keys().collect::<Vec<_>>(), ["named"], "nobody waits for `gone` any more");
        book.answered(vec![("named".into(), Ok(facts(2, 1)))]);
        assert!(book.refused.is_empty());
    }

    /// Half of a cluster that is being upgraded, or a fault: never a reason to read everything under another name.
    #[test]
    fn a_cluster_that_told_ids_is_not_taken_for_one_without() {
        let mut book = book();
        book.want(vec!["t".into()]);
        book.answered(vec![("t".into(), Ok(facts(1, 1)))]);
        book.watched.insert("t".into(), ONE);
        let changes = book.answered(vec![("t".into(), Ok(facts(0, 1)))]);
        assert!(changes.recreated.is_empty() && !book.without_ids);
        assert!(book.refused["t"].contains("tell none now"));
        book.want(vec!["other".into()]);
        assert_eq!(book.answers.get("other"), None, "it is asked for");
        book.answered(vec![("t".into(), Ok(facts(1, 1))), ("other".into(), Ok(facts(2, 1)))]);
        book.watched.remove("t");
        assert!(book.answers["other"].is_ok(), "what a start waits for stays when another topic is let go");
        assert!(book.refused.is_empty());
    }

    #[test]
    fn another_id_and_another_number_of_partitions_are_noticed_once() {
        let mut book = book();
        book.want(vec!["t".into()]);
        book.answered(vec![("t".into(), Ok(facts(1, 1)))]);
        book.watched.insert("t".into(), ONE);
        let changes = book.answered(vec![("t".into(), Ok(facts(1, 2)))]);
        assert_eq!((changes.resized, changes.recreated), (vec![("t".into(), 2)], vec![]));
        assert!(book.answered(vec![("t".into(), Ok(facts(1, 2)))]).resized.is_empty());
        assert!(book.answered(vec![("t".into(), Err(unknown()))]).recreated.is_empty(), "between two lives");
        assert_eq!(book.answered(vec![("t".into(), Ok(facts(2, 2)))]).recreated, ["t"]);
        assert!(book.answered(vec![("t".into(), Ok(facts(2, 2)))]).recreated.is_empty());
    }
}
