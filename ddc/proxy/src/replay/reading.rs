//! Ranges, read and packed: slices, each confirmed to be of the topic that it is answered for.
//!
//! ```text
//!  ranges of a partition:   [ a ]   [ b ]                                  [ c ]
//!  read:                  begin ───────▶ what lies between is dropped     begin ──▶
//! ```
//!
//! Beginning to read somewhere costs a question to the broker, so ranges that lie near to each other are read in one go.
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
use ddc_link::sender::{PackError, ReplayPacker, ReplayRange};
use ddc_wire::{RecordHeader, Timestamp, TopicId};

use super::answer::{Answer, At, Ended, Held, Listener, Stopped};
use super::plan::{Gone, Life, Planned, life};
use super::report::SentSlice;
use super::request::Wanted;
use super::standing::Standing;
use crate::config::{ByteSize, KafkaSource};

/// Most records of one read.
const BATCH_RECORDS: usize = 512;
/// One wait for records: it bounds how late a cancellation is seen.
const READ_WAIT: Duration = Duration::from_millis(100);
/// How long brokers that are away are waited for before a replay fails.
const PATIENCE: Duration = Duration::from_mins(1);
/// One question to the brokers.
const QUESTION: Duration = Duration::from_secs(5);
/// Between two questions that were not answered.
const PAUSE: Duration = Duration::from_millis(250);
/// librdkafka's queue of what is fetched and not read.
const QUEUE: ByteSize = ByteSize::mib(4);

/// Reads ranges of one source cluster.
pub(super) struct Reading {
    reader: RangeReader,
    packer: ReplayPacker,
    topic_epoch: u64,
    /// Where the reader stands.
    standing: Option<Standing>,
    /// Read, and not confirmed yet.
    held: Held,
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
        Ok(Self { reader, packer, topic_epoch: source.topic_epoch, standing: None, held: Held::default() })
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

    /// Answers for the ranges of `plan` from `from` on. From there, they are all of one life of one topic.
    pub(super) fn answer(
        &mut self,
        plan: &[Planned],
        from: At,
        listener: &mut dyn Listener,
    ) -> Result<Ended, Stopped> {
        self.held = Held::default();
        let result = self.answer_all(plan, from, listener);
        // An error here means that the consumer is beyond use, which the next call says too.
        let _ = self.release();
        self.packer.clear();
        result
    }

    fn answer_all(
        &mut self,
        plan: &[Planned],
        from: At,
        listener: &mut dyn Listener,
    ) -> Result<Ended, Stopped> {
        for (range, planned) in plan.iter().enumerate().skip(from.0) {
            let first = if range == from.0 { planned.wanted.first.max(from.1) } else { planned.wanted.first };
            if first > planned.wanted.last {
                continue;
            }
            self.packer.clear();
            let refused = |error: PackError| Stopped::Brokers(error.to_string());
            self.packer.begin(replay_range(planned, first)).map_err(refused)?;
            let mut offsets = VecDeque::new();
            let ended = if let Some(read_from) = planned.read_from {
                self.read(range, planned, first.max(read_from), &mut offsets, listener)?
            } else {
                self.packer.finish(planned.wanted.last + 1);
                self.hold(range, &mut offsets);
                Ended::Whole
            };
            if let Ended::Recreated(_) = ended {
                return Ok(ended);
            }
        }
        match plan.last() {
            Some(planned) => self.confirm(planned, listener),
            None => Ok(Ended::Whole),
        }
    }

    /// Reads one range, from offset `at` on.
    fn read(
        &mut self,
        range: usize,
        planned: &Planned,
        mut at: i64,
        offsets: &mut VecDeque<i64>,
        listener: &mut dyn Listener,
    ) -> Result<Ended, Stopped> {
        let Wanted { topic, partition, last, .. } = &planned.wanted;
        let (partition, last) = (*partition, *last);
        if !self.standing.as_ref().is_some_and(|standing| standing.is_near(partition, at)) {
            self.begin_at(topic, partition, at)?;
        }
        let mut alive = Instant::now();
        loop {
            listener.go_on()?;
            let Turn { end, again, trouble, came } = self.turn(range, planned, &mut at, offsets, listener);
            if came {
                alive = Instant::now();
            }
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
            let mut end = end;
            if again {
                // Deleted since it was planned: what the log begins with now is read, the rest is gone.
                let (low, high) = self.watermarks(topic, partition, listener)?;
                if low > last {
                    // Nothing of it is left: the next turn would never see a record of it.
                    end = Some(last + 1);
                } else if at.max(low) >= high {
                    // Or the log was cut off at its end.
                    end = Some(at.max(low));
                } else {
                    at = at.max(low);
                }
                match end {
                    // Where the reader stands, nothing comes.
                    Some(_) => self.release()?,
                    None => self.begin_at(topic, partition, at)?,
                }
            }
            if let Some(end) = end {
                self.packer.finish(end);
            }
            self.hold(range, offsets);
            if self.held.is_due(Instant::now()) {
                if let Ended::Recreated(at) = self.confirm(planned, listener)? {
                    return Ok(Ended::Recreated(at));
                }
                alive = Instant::now();
            }
            if let Some(end) = end {
                if end <= last {
                    listener.cut(range, end);
                }
                return Ok(Ended::Whole);
            }
        }
    }

    /// Takes what the brokers have given. What lies behind the range is kept for the next one.
    fn turn(
        &mut self,
        range: usize,
        planned: &Planned,
        at: &mut i64,
        offsets: &mut VecDeque<i64>,
        listener: &mut dyn Listener,
    ) -> Turn {
        let Wanted { partition, last, .. } = planned.wanted;
        let Self { reader, packer, standing, .. } = self;
        let batch = reader.read(READ_WAIT);
        let (mut turn, mut done) = (Turn { came: !batch.is_empty(), ..Turn::default() }, 0);
        for item in batch.iter() {
            match item {
                Ok(record) if record.partition() != partition => {}
                Ok(record) if record.offset() > last => {
                    turn.end = Some(last + 1);
                    break;
                }
                Ok(record) => {
                    if let Some(standing) = standing {
                        let size =
                            record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
                        standing.pass(record.offset(), size);
                    }
                    if record.offset() >= *at {
                        *at = record.offset() + 1;
                        match push(packer, record) {
                            Ok(()) => offsets.push_back(record.offset()),
                            Err(error) => listener.not_carried(range, record.offset(), &error),
                        }
                    }
                }
                // Of another one, which is not read any more.
                Err(error) if error.partition >= 0 && error.partition != partition => {}
                Err(error) => match (end_of_log(&error), error.verdict().kind) {
                    (Some(offset), _) => {
                        turn.end = Some(offset.clamp(*at, last + 1));
                        // It is told once, and the next range may end there as well: it is kept for it.
                        break;
                    }
                    (None, Kind::OffsetGone) => turn.again = true,
                    (None, _) => turn.trouble = Some(error),
                },
            }
            done += 1;
            if *at > last {
                turn.end = Some(*at);
                break;
            }
        }
        batch.keep(done);
        turn
    }

    /// Reads from this offset on, and nothing else any more.
    fn begin_at(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), Stopped> {
        let before = self.standing.take();
        self.reader.assign(topic, partition, offset).map_err(|error| Stopped::Brokers(error.to_string()))?;
        self.standing = Some(Standing::new(partition, offset, before));
        Ok(())
    }

    fn release(&mut self) -> Result<(), Stopped> {
        self.standing = None;
        self.reader.release().map_err(|error| Stopped::Brokers(error.to_string()))
    }

    /// Takes the packer's slices.
    fn hold(&mut self, range: usize, offsets: &mut VecDeque<i64>) {
        while let Some(slice) = self.packer.pop() {
            let sent = SentSlice::of(&slice, offsets);
            self.held.push(Answer { range, slice, sent }, Instant::now());
        }
    }

    /// Gives away what is held, if the topic is still the same.
    fn confirm(&mut self, planned: &Planned, listener: &mut dyn Listener) -> Result<Ended, Stopped> {
        let Some(first) = self.held.first() else { return Ok(Ended::Whole) };
        // What is known to be of an older life need not be confirmed.
        if planned.gone != Some(Gone::OlderTopic) && !self.is_still(planned, listener)? {
            return Ok(Ended::Recreated(first));
        }
        listener.take(self.held.take())?;
        Ok(Ended::Whole)
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

/// What one read has brought.
#[derive(Default)]
struct Turn {
    /// The range was read up to here.
    end: Option<i64>,
    /// The log does not have the offset any more, or not yet.
    again: bool,
    /// Another error.
    trouble: Option<ReadError>,
    /// Something came.
    came: bool,
}

/// Whether somebody must mend it: waiting does not help.
fn lasts(error: &ReadError) -> bool {
    !matches!(error.verdict().kind, Kind::Temporary | Kind::OffsetGone)
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
