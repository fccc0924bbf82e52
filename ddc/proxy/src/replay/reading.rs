//! One range, read and packed: slices, each confirmed to be of the topic that it is answered for.
//!
//! A topic may be deleted and created again while it is read. Its name stays, so records of the new one would fill holes
//! of the old. Therefore a slice is given away only after the brokers have told the topic's id *since* it was read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ddc_kafka::batch::{ReadError, Record};
use ddc_kafka::errors::{Kind, classify};
use ddc_kafka::range::{RangeReader, end_of_log};
use ddc_kafka::settings::Role;
use ddc_kafka::topic_id::TopicError;
use ddc_link::sender::{PackError, ReplayPacker, ReplayRange, ReplaySlice};
use ddc_wire::{RecordHeader, Timestamp, TopicId};

use super::plan::{Life, PlanError, Planned, life};
use super::report::SentSlice;
use super::request::Wanted;
use crate::config::{ByteSize, KafkaSource};

/// Most records of one read.
const BATCH_RECORDS: usize = 512;
/// One wait for records: it bounds how late a cancellation is seen.
const READ_WAIT: Duration = Duration::from_millis(100);
/// Bytes of slices that are confirmed together. A read that brings more is confirmed by itself.
const CONFIRMED_TOGETHER: usize = 1 << 20;
/// How long brokers that are away are waited for before a replay fails.
const PATIENCE: Duration = Duration::from_mins(1);
/// One question to the brokers.
const QUESTION: Duration = Duration::from_secs(5);
/// Between two questions that were not answered.
const PAUSE: Duration = Duration::from_millis(250);
/// librdkafka's queue of what is fetched and not read.
const QUEUE: ByteSize = ByteSize::mib(4);

/// Why reading ends early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Somebody cancelled it, or the process stops.
    #[error("it was ended before its end")]
    Asked,
    /// The packed slices must be read again; see [`super::port`].
    #[error("blocks were lost before they were sent")]
    Lost,
    /// The brokers do not give what is needed.
    #[error("{0}")]
    Brokers(String),
    /// The request cannot be fulfilled.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Slices that may be sent, and what they hold.
pub(super) type Confirmed = Vec<(ReplaySlice, SentSlice)>;

/// How the reading of a range ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was read to its end.
    Whole,
    /// The log (as far as it can be read) ends at this offset.
    Short(i64),
    /// From this offset on nothing is confirmed: the topic is another one now.
    Recreated(i64),
}

/// What the reading tells and asks while it goes on.
pub(super) trait Listener {
    /// To be looked at often; an error ends the reading.
    fn go_on(&mut self) -> Result<(), Stopped>;
    /// Takes slices; may wait.
    fn take(&mut self, slices: Confirmed) -> Result<(), Stopped>;
    /// A record cannot be carried.
    fn not_carried(&mut self, offset: i64, error: &PackError);
}

/// Reads ranges of one source cluster.
pub(super) struct Reading {
    reader: RangeReader,
    packer: ReplayPacker,
    topic_epoch: u64,
}

impl Reading {
    /// Connects when first used.
    pub(super) fn new(
        source: &KafkaSource,
        max_record_bytes: ByteSize,
        packer: ReplayPacker,
        reporter: ddc_kafka::context::Reporter,
    ) -> anyhow::Result<Self> {
        let reading = source.client.build(&source.replay_role(max_record_bytes, QUEUE))?;
        let asking = source.client.build(&Role::Admin)?;
        let reader = RangeReader::new(&reading, &asking, reporter, BATCH_RECORDS, QUESTION)?;
        Ok(Self { reader, packer, topic_epoch: source.topic_epoch })
    }

    /// What is done for each range, from what the brokers say.
    pub(super) fn plan(
        &mut self,
        wanted: &[Wanted],
        listener: &mut dyn Listener,
    ) -> Result<Vec<Planned>, Stopped> {
        let mut planned = Vec::with_capacity(wanted.len());
        let mut topic: Option<(&str, super::plan::TopicAnswer)> = None;
        let mut marks: Option<(TopicId, i32, (i64, i64))> = None;
        // Ranges of a topic and of a partition stand side by side: each is asked about once.
        for range in wanted {
            listener.go_on()?;
            let answer = match &topic {
                Some((name, answer)) if *name == range.topic => answer,
                _ => {
                    let answer = self.ask_topic(&range.topic, listener)?;
                    marks = None;
                    &topic.insert((&range.topic, answer)).1
                }
            };
            let life = life(range, answer, self.topic_epoch)?;
            let watermarks = match (life, marks) {
                (Life::Older(_), _) => (0, 0),
                (Life::Today { topic_id, .. }, Some((id, partition, known)))
                    if id == topic_id && partition == range.partition =>
                {
                    known
                }
                (Life::Today { topic_id, .. }, _) => {
                    let found = self.watermarks(&range.topic, range.partition, listener)?;
                    marks = Some((topic_id, range.partition, found));
                    found
                }
            };
            planned.push(life.plan(range.clone(), watermarks)?);
        }
        Ok(planned)
    }

    /// Answers for a range from offset `from` on; `from` lies within it.
    pub(super) fn answer(
        &mut self,
        planned: &Planned,
        from: i64,
        listener: &mut dyn Listener,
    ) -> Result<Ended, Stopped> {
        self.packer.clear();
        let refused = |error: PackError| Stopped::Brokers(error.to_string());
        self.packer.begin(replay_range(planned, from)).map_err(refused)?;
        let mut offsets = VecDeque::new();
        let last = planned.wanted.last;
        let Some(read_from) = planned.read_from else {
            // Known to be gone: there is nothing to be confirmed.
            self.packer.finish(last + 1);
            let slices = self.slices(&mut offsets);
            listener.take(slices)?;
            return Ok(Ended::Whole);
        };
        let result = self.read(planned, from.max(read_from), &mut offsets, listener);
        // An error here means that the consumer is beyond use, which the next call says too.
        let _ = self.reader.release();
        self.packer.clear();
        result
    }

    fn read(
        &mut self,
        planned: &Planned,
        mut at: i64,
        offsets: &mut VecDeque<i64>,
        listener: &mut dyn Listener,
    ) -> Result<Ended, Stopped> {
        let Wanted { topic, partition, last, .. } = &planned.wanted;
        let (partition, last) = (*partition, *last);
        let brokers = |error: rdkafka::error::KafkaError| Stopped::Brokers(error.to_string());
        self.reader.assign(topic, partition, at).map_err(brokers)?;
        let mut confirmed_to = None;
        let mut held: Confirmed = Vec::new();
        let (mut held_bytes, mut alive) = (0, Instant::now());
        loop {
            listener.go_on()?;
            let (mut end, mut again, mut trouble) = (None, false, None);
            let batch = self.reader.read(READ_WAIT);
            if !batch.is_empty() {
                alive = Instant::now();
            }
            for item in batch.iter() {
                match item {
                    Ok(record) if record.partition() != partition || record.offset() < at => {}
                    Ok(record) if record.offset() > last => {
                        end = Some(last + 1);
                        break;
                    }
                    Ok(record) => {
                        at = record.offset() + 1;
                        match push(&mut self.packer, record) {
                            Ok(()) => offsets.push_back(record.offset()),
                            Err(error) => listener.not_carried(record.offset(), &error),
                        }
                        if at > last {
                            end = Some(at);
                            break;
                        }
                    }
                    Err(error) => match (end_of_log(&error), error.verdict().kind) {
                        (Some(offset), _) => end = Some(offset.min(last + 1)),
                        (None, Kind::OffsetGone) => again = true,
                        (None, _) => trouble = Some(error),
                    },
                }
            }
            drop(batch);
            let idle = alive.elapsed() > PATIENCE;
            if let Some(error) = trouble.filter(|error| idle || lasts(error)) {
                return Err(Stopped::Brokers(format!("{error}; {}", error.verdict().advice)));
            }
            if idle && end.is_none() {
                let text = format!(
                    "{topic}[{partition}]: the brokers have given no record for {} s",
                    PATIENCE.as_secs()
                );
                return Err(Stopped::Brokers(text));
            }
            if let Some(end) = end {
                self.packer.finish(end);
            }
            let slices = self.slices(offsets);
            held_bytes += bytes(&slices);
            held.extend(slices);
            if !held.is_empty() && (end.is_some() || held_bytes >= CONFIRMED_TOGETHER) {
                let first = held.first().map_or(at, |(slice, _)| slice.base);
                if !self.is_still(planned, listener)? {
                    return Ok(Ended::Recreated(confirmed_to.unwrap_or(first)));
                }
                confirmed_to = held.last().map(|(slice, _)| slice.end);
                held_bytes = 0;
                listener.take(std::mem::take(&mut held))?;
                alive = Instant::now();
            }
            if let Some(end) = end {
                return Ok(if end > last { Ended::Whole } else { Ended::Short(end) });
            }
            if again {
                // Deleted since it was planned: what the log begins with now is read, the rest is gone.
                let (low, high) = self.watermarks(topic, partition, listener)?;
                at = at.max(low);
                if low > last || low >= high {
                    // Nothing of it is left: the next turn would never see a record of it.
                    self.packer.finish(last + 1);
                    let slices = self.slices(offsets);
                    if !self.is_still(planned, listener)? {
                        return Ok(Ended::Recreated(slices.first().map_or(at, |(slice, _)| slice.base)));
                    }
                    listener.take(slices)?;
                    return Ok(Ended::Whole);
                }
                self.reader.assign(topic, partition, at).map_err(brokers)?;
            }
        }
    }

    /// Whether the topic is still the one that was planned for.
    fn is_still(&mut self, planned: &Planned, listener: &mut dyn Listener) -> Result<bool, Stopped> {
        if let TopicId::Configured(_) = planned.topic_id {
            // Brokers without ids cannot tell.
            return Ok(true);
        }
        let answer = self.ask_topic(&planned.wanted.topic, listener)?;
        let wanted = Wanted { topic_id: Some(planned.topic_id), ..planned.wanted.clone() };
        Ok(matches!(life(&wanted, &answer, self.topic_epoch)?, Life::Today { .. }))
    }

    fn slices(&mut self, offsets: &mut VecDeque<i64>) -> Confirmed {
        std::iter::from_fn(|| self.packer.pop())
            .map(|slice| {
                let sent = SentSlice::of(&slice, offsets);
                (slice, sent)
            })
            .collect()
    }

    fn ask_topic(
        &mut self,
        topic: &str,
        listener: &mut dyn Listener,
    ) -> Result<super::plan::TopicAnswer, Stopped> {
        let passes = |error: &TopicError| error.verdict().kind == Kind::Temporary;
        insist(listener, passes, || self.reader.topic(topic, QUESTION))
    }

    fn watermarks(
        &self,
        topic: &str,
        partition: i32,
        listener: &mut dyn Listener,
    ) -> Result<(i64, i64), Stopped> {
        let passes = |error: &rdkafka::error::KafkaError| classify(error).kind == Kind::Temporary;
        insist(listener, passes, || self.reader.watermarks(topic, partition, QUESTION))?.map_err(|error| {
            Stopped::Brokers(format!("{topic}[{partition}]: {error}; {}", classify(&error).advice))
        })
    }
}

/// Asks until there is an answer that lasts, for [`PATIENCE`] at most.
fn insist<T, E>(
    listener: &mut dyn Listener,
    passes: impl Fn(&E) -> bool,
    mut ask: impl FnMut() -> Result<T, E>,
) -> Result<Result<T, E>, Stopped> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        listener.go_on()?;
        match ask() {
            Err(error) if passes(&error) && Instant::now() < deadline => std::thread::sleep(PAUSE),
            answer => return Ok(answer),
        }
    }
}

/// Whether somebody must mend it: waiting does not help.
fn lasts(error: &ReadError) -> bool {
    !matches!(error.verdict().kind, Kind::Temporary | Kind::OffsetGone)
}

fn bytes(slices: &Confirmed) -> usize {
    slices.iter().flat_map(|(slice, _)| &slice.blocks).map(|block| block.bytes.len()).sum()
}

fn replay_range(planned: &Planned, from: i64) -> ReplayRange {
    ReplayRange {
        topic: planned.wanted.topic.as_str().into(),
        topic_id: planned.topic_id,
        partition: planned.wanted.partition,
        partition_count: planned.partition_count,
        first: from,
        last: planned.wanted.last,
    }
}

fn push(packer: &mut ReplayPacker, record: Record<'_>) -> Result<(), PackError> {
    let timestamp = match record.timestamp() {
        rdkafka::Timestamp::NotAvailable => None,
        rdkafka::Timestamp::CreateTime(millis) => Some(Timestamp::Create(millis)),
        rdkafka::Timestamp::LogAppendTime(millis) => Some(Timestamp::LogAppend(millis)),
    };
    let headers = record.headers().map(|header| RecordHeader { name: header.name, value: header.value });
    packer.push(record.offset(), timestamp, record.key(), record.value(), headers)
}
