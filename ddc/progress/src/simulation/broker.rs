//! A broker as far as transactions go: ids with generations, open transactions that hold up readers, markers without records.

use std::collections::BTreeMap;

/// What one `init_transactions` gave; worth nothing once there is a newer one of the same link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    link: usize,
    generation: u64,
}

/// The handle is not the newest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fenced;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

/// A record of the topic `ddc-progress`.
#[derive(Debug)]
struct Entry {
    /// `None`: a transaction's marker.
    record: Option<(Vec<u8>, Vec<u8>)>,
    transaction: usize,
}

/// A record at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) partition: usize,
    pub(super) offset: i64,
    /// It filled a hole.
    pub(super) late: bool,
    pub(super) by: usize,
}

#[derive(Debug, Default)]
pub(super) struct Broker {
    generations: BTreeMap<usize, u64>,
    /// By link: the transaction that is open, and since when.
    open: BTreeMap<usize, (usize, u64)>,
    fates: Vec<Fate>,
    topic: Vec<Entry>,
    data: Vec<(Written, usize)>,
}

impl Broker {
    /// `init_transactions`: what is open of this id is aborted, older handles are worth nothing.
    pub(super) fn init(&mut self, link: usize) -> Handle {
        self.end(link, Fate::Aborted);
        let generation = self.generations.entry(link).or_default();
        *generation += 1;
        Handle { link, generation: *generation }
    }

    pub(super) fn begin(&mut self, handle: Handle, now: u64) -> Result<(), Fenced> {
        self.check(handle)?;
        assert!(!self.open.contains_key(&handle.link), "one transaction at a time");
        self.fates.push(Fate::Open);
        self.open.insert(handle.link, (self.fates.len() - 1, now));
        Ok(())
    }

    pub(super) fn produce_topic(&mut self, handle: Handle, record: (Vec<u8>, Vec<u8>)) -> Result<(), Fenced> {
        let transaction = self.check(handle).map(|()| self.open[&handle.link].0)?;
        self.topic.push(Entry { record: Some(record), transaction });
        Ok(())
    }

    pub(super) fn produce_data(&mut self, handle: Handle, written: Written) -> Result<(), Fenced> {
        let transaction = self.check(handle).map(|()| self.open[&handle.link].0)?;
        self.data.push((written, transaction));
        Ok(())
    }

    pub(super) fn commit(&mut self, handle: Handle) -> Result<(), Fenced> {
        self.check(handle)?;
        self.end(handle.link, Fate::Committed);
        Ok(())
    }

    pub(super) fn abort(&mut self, handle: Handle) -> Result<(), Fenced> {
        self.check(handle)?;
        self.end(handle.link, Fate::Aborted);
        Ok(())
    }

    /// The coordinator aborts what was open too long, and fences its producer.
    pub(super) fn expire(&mut self, before: u64) {
        let late = self.open.iter().filter(|(_, (_, since))| *since < before);
        for link in late.map(|(link, _)| *link).collect::<Vec<_>>() {
            self.init(link);
        }
    }

    /// The offset behind the last record of the topic, committed or not.
    pub(super) fn high_watermark(&self) -> usize {
        self.topic.len()
    }

    /// The offset that a read_committed reader can reach now.
    pub(super) fn last_stable(&self) -> usize {
        let is_open = |entry: &Entry| self.fates[entry.transaction] == Fate::Open;
        self.topic.iter().position(is_open).unwrap_or(self.topic.len())
    }

    /// The next step of a read_committed reader of the topic: where it stands then, and a record if there is one.
    /// `None`: it cannot go on.
    #[expect(clippy::type_complexity, reason = "an offset, a key and a value")]
    pub(super) fn read(&self, position: usize) -> Option<(usize, Option<(&[u8], &[u8])>)> {
        let entry = self.topic.get(position)?;
        let record = entry.record.as_ref().map(|(key, value)| (key.as_slice(), value.as_slice()));
        match self.fates[entry.transaction] {
            Fate::Open => None,
            Fate::Committed => Some((position + 1, record)),
            Fate::Aborted => Some((position + 1, None)),
        }
    }

    /// What a read_committed consumer of the destination has read in the end.
    pub(super) fn committed(&self, partition: usize) -> impl Iterator<Item = Written> {
        let committed =
            self.data.iter().filter(|(_, transaction)| self.fates[*transaction] == Fate::Committed);
        committed.map(|(written, _)| *written).filter(move |written| written.partition == partition)
    }

    fn check(&self, handle: Handle) -> Result<(), Fenced> {
        if self.generations[&handle.link] == handle.generation { Ok(()) } else { Err(Fenced) }
    }

    fn end(&mut self, link: usize, fate: Fate) {
        if let Some((transaction, _)) = self.open.remove(&link) {
            self.fates[transaction] = fate;
            if self.topic.iter().rev().take(64).any(|entry| entry.transaction == transaction) {
                self.topic.push(Entry { record: None, transaction });
            }
        }
    }
}
