//! A replay's thread: plans, reads range after range, hands slices over, and does again what was lost before it was sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ddc_kafka::context::Reporter;
use ddc_link::sender::{PackError, ReplayPacker};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::exposition::LinkMetrics;

use super::plan::{Gone, Planned};
use super::port::{NotTaken, ReplayIn};
use super::reading::{Confirmed, Ended, Listener, Reading, Stopped};
use super::report::{Job, SentSlice, State};
use super::request::Wanted;
use crate::config::{IngressConfig, KafkaSource};
use crate::ingress::{Shared, pack_config};

/// Between two looks for room, or for what was sent.
const PAUSE: Duration = Duration::from_millis(1);

/// What a replay needs; [`Run::run`] is its life.
pub(super) struct Run {
    pub(super) config: Arc<IngressConfig>,
    pub(super) source: KafkaSource,
    pub(super) wanted: Vec<Wanted>,
    pub(super) job: Arc<Job>,
    pub(super) port: ReplayIn,
    /// Its `stop` ends the replay too.
    pub(super) stop: Arc<Shared>,
    pub(super) metrics: Option<Arc<LinkMetrics<IngressMetrics>>>,
}

impl Run {
    /// Until everything was handed to the kernel, or it cannot or shall not go on. The job says how it ended.
    pub(super) fn run(self) {
        let active = Active(&self);
        active.set(true);
        let ended = self.replay();
        drop(active);
        let job = &self.job;
        let (state, problem) = match ended {
            Ok(()) => (State::Done, None),
            Err(_) if job.is_cancelled() => (State::Cancelled, None),
            Err(Stopped::Asked) => {
                (State::Failed, Some("the ingress has stopped; ask again when it runs".to_owned()))
            }
            Err(error) => (State::Failed, Some(error.to_string())),
        };
        if state == State::Failed
            && let Some(metrics) = &self.metrics
        {
            metrics.replays_failed.inc();
        }
        job.end(state, problem.clone());
        let report = job.report();
        let link = self.config.link.name.as_str();
        let (records, offsets, gone) = (report.records, report.offsets_sent, report.offsets_gone);
        match state {
            State::Done => {
                tracing::info!(
                    link,
                    id = report.id,
                    by = report.by,
                    records,
                    offsets,
                    gone,
                    "a replay is done"
                );
            }
            state => tracing::warn!(
                link,
                id = report.id,
                by = report.by,
                records,
                offsets,
                gone,
                state = state.as_str(),
                problem = problem.unwrap_or_default(),
                "a replay has ended before its end; what was sent stays sent, and it may be asked for again"
            ),
        }
    }

    fn replay(&self) -> Result<(), Stopped> {
        let broken = |error: String| Stopped::Brokers(error);
        let packer =
            ReplayPacker::new(&pack_config(&self.config)).map_err(|error| broken(error.to_string()))?;
        let reporter = Reporter::new(self.config.link.name.as_str(), "replay");
        let reading = Reading::new(&self.source, self.config.pack.max_record_bytes, packer, reporter);
        let mut reading = reading.map_err(|error| broken(format!("{error:#}")))?;
        let mut sending = Sending {
            run: self,
            losses: self.port.losses(),
            range: 0,
            on_way: VecDeque::new(),
            again: (0, i64::MIN),
        };
        let plan = reading.plan(&self.wanted, &mut sending)?;
        self.job.planned(&plan);
        loop {
            match pass(&mut reading, &mut sending, &plan) {
                Err(Stopped::Lost) => sending.begin_again(),
                ended => return ended,
            }
        }
    }
}

/// Tells that a replay is under way, until it is dropped.
struct Active<'a>(&'a Run);

impl Active<'_> {
    fn set(&self, active: bool) {
        self.0.port.set_active(active);
        if let Some(metrics) = &self.0.metrics {
            metrics.replay_active.set(i64::from(active));
        }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Goes over the ranges from where everything before was sent.
fn pass(reading: &mut Reading, sending: &mut Sending<'_>, plan: &[Planned]) -> Result<(), Stopped> {
    let (begin, at) = sending.again;
    for (range, planned) in plan.iter().enumerate().skip(begin) {
        sending.range = range;
        let first = planned.wanted.first;
        let from = if range == begin { first.max(at) } else { first };
        if from > planned.wanted.last {
            continue;
        }
        match reading.answer(planned, from, sending)? {
            Ended::Whole => {}
            Ended::Short(end) => sending.run.job.cut(range, end),
            Ended::Recreated(from) => {
                sending.run.job.older_topic(range);
                let gone = Planned { read_from: None, gone: Some(Gone::OlderTopic), ..planned.clone() };
                reading.answer(&gone, from, sending)?;
            }
        }
    }
    while !sending.on_way.is_empty() {
        sending.go_on()?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// What was handed over, and what of it was sent.
struct Sending<'a> {
    run: &'a Run,
    /// As it was when the slices that are on their way were made.
    losses: u64,
    /// Of which slices are handed over now.
    range: usize,
    /// Serial number, range, slice.
    on_way: VecDeque<(u64, usize, SentSlice)>,
    /// Everything before this offset of this range was sent.
    again: (usize, i64),
}

impl Sending<'_> {
    /// Notes what has been handed to the kernel.
    fn settle(&mut self) {
        let sent = self.run.port.sent();
        while let Some((_, range, slice)) = self.on_way.pop_front_if(|(serial, ..)| *serial < sent) {
            self.run.job.sent(range, &slice);
            self.again = (range, slice.end);
            if let Some(metrics) = &self.run.metrics {
                metrics.replay_records_sent.add(slice.records.into());
                let offsets = slice.end.abs_diff(slice.base);
                metrics.replay_offsets_gone.add(offsets - u64::from(slice.records));
            }
        }
    }

    fn begin_again(&mut self) {
        self.losses = self.run.port.losses();
        self.on_way.clear();
    }
}

impl Listener for Sending<'_> {
    fn go_on(&mut self) -> Result<(), Stopped> {
        // In this order: what was sent before a loss is not sent again for it.
        let losses = self.run.port.losses();
        self.settle();
        if self.run.job.is_cancelled() || self.run.stop.stop.load(Ordering::Relaxed) {
            return Err(Stopped::Asked);
        }
        if losses == self.losses { Ok(()) } else { Err(Stopped::Lost) }
    }

    fn take(&mut self, slices: Confirmed) -> Result<(), Stopped> {
        for (mut slice, sent) in slices {
            loop {
                self.go_on()?;
                match self.run.port.hand(self.losses, slice) {
                    Ok(serial) => break self.on_way.push_back((serial, self.range, sent)),
                    Err(NotTaken::Full(back)) => slice = back,
                    Err(NotTaken::Closed) => return Err(Stopped::Asked),
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn not_carried(&mut self, offset: i64, error: &PackError) {
        self.run.job.not_carried(self.range, offset);
        if let Some(wanted) = self.run.wanted.get(self.range) {
            tracing::error!(
                link = self.run.config.link.name.as_str(), topic = wanted.topic, partition = wanted.partition, offset, %error,
                "a record was not replayed and will not be; raise `max_record_bytes` in [link.pack] and [link.receive]"
            );
        }
    }
}
