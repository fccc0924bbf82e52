//! `dedupe`: an event whose chosen fields were seen among the last N different ones is dropped.

use indexmap::IndexSet;
use serde_yaml_ng::Value as Yaml;

use super::{at, fields};
use crate::config::texts;
use crate::event::Event;

pub(super) struct Dedupe {
    fields: Fields,
    /// The oldest first; never more than `capacity`.
    seen: IndexSet<Vec<String>>,
    capacity: usize,
}

enum Fields {
    Match(Vec<String>),
    Ignore(Vec<String>),
}

impl Dedupe {
    pub(super) fn build(options: &Yaml) -> Self {
        let fields = if options["fields"]["ignore"].is_sequence() {
            Fields::Ignore(texts(&options["fields"]["ignore"]))
        } else if options["fields"]["match"].is_sequence() {
            Fields::Match(texts(&options["fields"]["match"]))
        } else {
            Fields::Match(["timestamp", "host", "message"].map(String::from).to_vec())
        };
        let capacity = options["cache"]["num_events"].as_u64().unwrap_or(5000) as usize;
        Self { fields, seen: IndexSet::new(), capacity }
    }

    /// Whether the event is let through. A metric always is.
    pub(super) fn is_new(&mut self, event: &Event) -> bool {
        let Event::Log(value) = event else { return true };
        let key = match &self.fields {
            Fields::Match(names) => names
                .iter()
                .map(|name| at(value, name).map_or_else(|| "absent".into(), |v| format!("={v}")))
                .collect(),
            Fields::Ignore(names) => {
                let mut rest: Vec<String> = fields(value)
                    .into_iter()
                    .filter(|(name, _)| !names.contains(name))
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                rest.sort();
                rest
            }
        };
        // A repeat makes the entry the newest again.
        if let Some(index) = self.seen.get_index_of(&key) {
            let last = self.seen.len() - 1;
            self.seen.move_index(index, last);
            return false;
        }
        if self.seen.len() == self.capacity {
            self.seen.shift_remove_index(0);
        }
        self.seen.insert(key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(json: &str) -> Event {
        Event::Log(serde_json::from_str::<serde_json::Value>(json).unwrap().into())
    }

    #[test]
    fn repeats_are_dropped_until_others_push_them_out() {
        let options =
            serde_yaml_ng::from_str("{fields: {match: [message, ddc.link]}, cache: {num_events: 2}}")
                .unwrap();
        let mut dedupe = Dedupe::build(&options);
        let (a, b, c) = (
            log(r#"{"message":"m","ddc":{"link":"a"},"other":1}"#),
            log(r#"{"message":"m","ddc":{"link":"b"}}"#),
            log(r#"{"message":"m"}"#),
        );
        assert!(dedupe.is_new(&a));
        assert!(!dedupe.is_new(&log(r#"{"message":"m","ddc":{"link":"a"},"other":2}"#)));
        assert!(dedupe.is_new(&b));
        assert!(!dedupe.is_new(&a), "a is the newer of the two now");
        assert!(dedupe.is_new(&c), "b is pushed out");
        assert!(!dedupe.is_new(&a));
        assert!(dedupe.is_new(&b));
        assert_eq!(dedupe.seen.len(), 2);
    }
}
