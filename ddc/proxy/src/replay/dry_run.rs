//! What a replay would send: the brokers are asked, some records are read and packed, nothing is sent.

use std::fmt;
use std::time::{Duration, Instant};

use ddc_fec::Code;
use ddc_kafka::context::Reporter;
use ddc_link::sender::{PackError, ReplayPacker, block_wire_bytes};

use super::answer::{Answer, Listener, Stopped};
use super::plan::{Gone, Planned};
use super::reading::Reading;
use super::request::{Request, RequestError};
use crate::config::{IngressConfig, Rate, Source};
use crate::ingress::pack_config;

/// Ranges of which a part is read, to know what a record takes.
const SAMPLED_RANGES: usize = 16;
/// How long reading these may take together.
const SAMPLING: Duration = Duration::from_secs(10);
/// How long the brokers may take to say what there is.
const PLANNING: Duration = Duration::from_secs(70);

/// What would be done.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// Range by range, as they would be sent: joined, and cut at the end of the log.
    pub ranges: Vec<DryRange>,
    /// Ranges that were joined with another one.
    pub merged: usize,
    /// Offsets that can be read: at most so many records.
    pub readable: u64,
    /// Offsets that are gone for certain.
    pub gone: u64,
    /// About so many bytes on the wire, repair symbols and framing counted; `None`: no sample could be read.
    pub wire_bytes: Option<u64>,
    /// About so long at half of the link's rate; `None` also with an unlimited rate.
    pub takes: Option<Duration>,
}

/// One range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRange {
    /// The topic at the source.
    pub topic: String,
    /// Which life of the topic.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// First offset.
    pub first: i64,
    /// Last offset that would be answered for.
    pub last: i64,
    /// From here on it would be read; `None`: all is gone.
    pub read_from: Option<i64>,
    /// Why something is gone.
    pub gone: Option<Gone>,
    /// From this offset on nothing is in the log yet.
    pub not_yet: Option<i64>,
}

/// Asks the source's brokers, for minutes at most, when they are away. Needs neither the state directory nor the link.
pub fn dry_run(config: &IngressConfig, request: &Request) -> anyhow::Result<DryRun> {
    let checked = request.check(config)?;
    let link = config.link.name.as_str();
    let Source::Kafka(source) = &config.source else {
        return Err(RequestError::NoKafka(link.to_owned()).into());
    };
    let packer = ReplayPacker::new(&pack_config(config))?;
    let reporter = Reporter::new(link, "replay");
    let mut reading = Reading::new(source, config.pack.max_record_bytes, packer, reporter)?;
    let code = Code::new(config.fec.code.source.into(), config.fec.code.repair.into())?;
    let mut sample = Sample {
        until: Instant::now() + PLANNING,
        code,
        symbol_size: config.link.mtu.symbol_size(config.target.ip()),
        ip_overhead: if config.target.is_ipv4() { 20 } else { 40 },
        wire_bytes: 0,
        offsets: 0,
    };
    let plan = reading.plan(&checked.ranges, &mut sample)?;
    sample.until = Instant::now() + SAMPLING;
    for planned in plan.iter().filter(|planned| planned.read_from.is_some()).take(SAMPLED_RANGES) {
        let from = planned.read_from.unwrap_or(planned.wanted.first);
        match reading.answer(std::slice::from_ref(planned), (0, from), &mut sample) {
            // It has seen enough, or its time is over.
            Ok(_) | Err(Stopped::Asked) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let readable: u64 = plan.iter().map(readable).sum();
    let gone = plan.iter().map(|planned| planned.wanted.offsets() - self::readable(planned)).sum();
    let wire_bytes = match (readable, sample.offsets) {
        (0, _) => Some(0),
        (_, 0) => None,
        (_, offsets) => Some((sample.wire_bytes as f64 / offsets as f64 * readable as f64) as u64),
    };
    let takes = match config.rate {
        Rate::Limited(rate) => wire_bytes
            .map(|bytes| Duration::from_secs_f64(bytes as f64 * 16.0 / rate.bits_per_second() as f64)),
        Rate::Unlimited => None,
    };
    Ok(DryRun {
        ranges: plan.into_iter().map(DryRange::of).collect(),
        merged: checked.merged,
        readable,
        gone,
        wire_bytes,
        takes,
    })
}

fn readable(planned: &Planned) -> u64 {
    planned.read_from.map_or(0, |from| planned.wanted.last.abs_diff(from) + 1)
}

impl DryRange {
    fn of(planned: Planned) -> Self {
        let Planned { wanted, topic_id, read_from, gone, cut, .. } = planned;
        Self {
            topic: wanted.topic,
            topic_id: topic_id.to_string(),
            partition: wanted.partition,
            first: wanted.first,
            last: wanted.last,
            read_from,
            gone,
            not_yet: cut,
        }
    }
}

impl fmt::Display for DryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, first, last, read_from, .. } = self;
        write!(f, "{topic}[{partition}] {first} to {last}: ")?;
        let why = match self.gone {
            Some(Gone::OlderTopic) => "of an older topic of this name",
            _ => "deleted at the source",
        };
        match read_from {
            None => write!(f, "gone, {why}")?,
            Some(from) if from > first => {
                write!(
                    f,
                    "{first} to {} gone, {why}; up to {} records from {from}",
                    from - 1,
                    last.abs_diff(*from) + 1
                )?;
            }
            Some(from) => write!(f, "up to {} records", last.abs_diff(*from) + 1)?,
        }
        if let Some(not_yet) = self.not_yet {
            write!(f, "; not in the log yet from {not_yet} on")?;
        }
        Ok(())
    }
}

/// Counts what the first slices of a range take.
struct Sample {
    until: Instant,
    code: Code,
    symbol_size: usize,
    ip_overhead: usize,
    wire_bytes: u64,
    offsets: u64,
}

impl Listener for Sample {
    fn go_on(&mut self) -> Result<(), Stopped> {
        if Instant::now() < self.until { Ok(()) } else { Err(Stopped::Asked) }
    }

    fn take(&mut self, answers: Vec<Answer>) -> Result<(), Stopped> {
        for Answer { slice, .. } in &answers {
            self.offsets += slice.end.abs_diff(slice.base);
            for block in &slice.blocks {
                self.wire_bytes +=
                    block_wire_bytes(block.bytes.len(), self.code, self.symbol_size, self.ip_overhead);
            }
        }
        Err(Stopped::Asked)
    }

    fn cut(&mut self, _range: usize, _end: i64) {}

    fn not_carried(&mut self, _range: usize, _offset: i64, _error: &PackError) {}
}
