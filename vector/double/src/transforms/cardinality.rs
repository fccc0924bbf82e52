//! `tag_cardinality_limit`: the bound on how many series a faulty sender can make. For each label so many values, never forgotten until a restart.

use std::collections::{HashMap, HashSet};

use serde_yaml_ng::Value as Yaml;

use crate::event::Event;

pub(super) struct Limit {
    most: usize,
    drop_tag: bool,
    /// At most `most` values for each of the label names that remap lets through.
    values: HashMap<String, HashSet<String>>,
}

impl Limit {
    pub(super) fn build(options: &Yaml) -> Self {
        Self {
            most: options["value_limit"].as_u64().unwrap_or(500) as usize,
            drop_tag: options["limit_exceeded_action"].as_str() != Some("drop_event"),
            values: HashMap::new(),
        }
    }

    /// The event, maybe with fewer tags, or nothing.
    pub(super) fn apply(&mut self, event: Event) -> Option<Event> {
        let Event::Metric(mut metric) = event else { return Some(event) };
        let over = |values: &HashMap<String, HashSet<String>>, key: &str, value: &str, limit: usize| {
            values.get(key).is_some_and(|known| !known.contains(value) && known.len() >= limit)
        };
        // First all are looked at, so that a dropped event leaves nothing behind.
        let exceeded: Vec<String> = metric
            .tags
            .iter()
            .filter(|(key, value)| over(&self.values, key, value.as_deref().unwrap_or(""), self.most))
            .map(|(key, _)| key.clone())
            .collect();
        if !exceeded.is_empty() && !self.drop_tag {
            return None;
        }
        metric.tags.retain(|key, _| !exceeded.contains(key));
        for (key, value) in &metric.tags {
            let known = self.values.entry(key.clone()).or_default();
            known.insert(value.clone().unwrap_or_default());
        }
        Some(Event::Metric(metric))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Kind, Metric, MetricValue};

    fn metric(link: &str) -> Event {
        Event::Metric(Metric::new("x", Kind::Incremental, MetricValue::Counter(1.0)).with_tag("link", link))
    }

    #[test]
    fn known_values_pass_when_the_limit_is_reached() {
        let options =
            serde_yaml_ng::from_str("{mode: exact, value_limit: 2, limit_exceeded_action: drop_event}")
                .unwrap();
        let mut limit = Limit::build(&options);
        assert!(limit.apply(metric("a")).is_some());
        assert!(limit.apply(metric("b")).is_some());
        for number in 0..1000 {
            assert!(limit.apply(metric(&format!("flood{number}"))).is_none());
        }
        assert!(limit.apply(metric("a")).is_some());
        assert_eq!(limit.values["link"].len(), 2, "what is dropped takes no memory");
    }

    #[test]
    fn by_default_only_the_label_is_dropped() {
        let mut limit = Limit::build(&serde_yaml_ng::from_str("{mode: exact, value_limit: 1}").unwrap());
        assert!(limit.apply(metric("a")).is_some());
        let Some(Event::Metric(metric)) = limit.apply(metric("b")) else { panic!("the event stays") };
        assert!(metric.tags.is_empty());
    }
}
