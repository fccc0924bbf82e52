//! A replay's thread: plans, reads range after range, hands slices over, and does again what was lost before it was sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ddc_kafka::context::Reporter;
use ddc_link::sender::{PackError, ReplayPacker};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::exposition::LinkMetrics;

use super::answer::{Answer, At, Ended, Listener, Stopped};
use super::kept::{Keeper, Progress};
use super::plan::{Gone, Planned};
use super::port::{NotTaken, ReplayIn};
use super::reading::Reading;
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
    /// Where it is kept over a restart; `None`: it ends with this process.
    pub(super) keeper: Option<Arc<Keeper>>,
}

impl Run {
    /// Until everything was handed to the kernel, or it cannot or shall not go on. The job says how it ended.
    pub(super) fn run(self) {
        let active = Active(&self);
        active.set(true);
        let ended = self.replay();
        drop(active);
        let (job, link) = (&self.job, self.config.link.name.as_str());
        let mut progress =
            self.keeper.as_ref().map(|keeper| Progress::new(Arc::clone(keeper), Instant::now()));
        let (state, problem) = match ended {
            Ok(()) => (State::Done, None),
            Err(_) if job.is_cancelled() => (State::Cancelled, None),
            Err(Stopped::Asked) => match &mut progress {
                Some(progress) => {
                    progress.write(job, link);
                    tracing::warn!(link, id = job.request.id, "a replay goes on when the ingress runs again");
                    return;
                }
                None => (State::Failed, Some("the link's thread has ended".to_owned())),
            },
            Err(error) => (State::Failed, Some(error.to_string())),
        };
        if state == State::Failed
            && let Some(metrics) = &self.metrics
        {
            metrics.replays_failed.inc();
        }
        job.end(state, problem.clone());
        if let Some(progress) = &mut progress {
            progress.write(job, link);
        }
        let report = job.report();
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
        let (skipped, at) = self.job.reached();
        let mut sending = Sending {
            run: self,
            losses: self.port.losses(),
            skipped,
            on_way: VecDeque::new(),
            again: (0, at),
            progress: self.keeper.as_ref().map(|keeper| Progress::new(Arc::clone(keeper), Instant::now())),
        };
        // What was sent before a restart need not be there any more.
        let plan = reading.plan(self.wanted.get(skipped..).unwrap_or_default(), &mut sending)?;
        self.job.planned(skipped, &plan);
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
    let (mut begin, mut at) = sending.again;
    while let Some(first) = plan.get(begin) {
        let life = |planned: &&Planned| {
            planned.topic_id == first.topic_id && planned.wanted.topic == first.wanted.topic
        };
        let end = begin + plan[begin..].iter().take_while(life).count();
        if let Ended::Recreated((range, from)) = reading.answer(&plan[..end], (begin, at), sending)? {
            (range..end).for_each(|range| sending.run.job.older_topic(sending.skipped + range));
            let older = |planned: &Planned| Planned {
                read_from: None,
                gone: Some(Gone::OlderTopic),
                ..planned.clone()
            };
            let gone: Vec<Planned> = plan[..end].iter().map(older).collect();
            reading.answer(&gone, (range, from), sending)?;
        }
        (begin, at) = (end, i64::MIN);
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
    /// Ranges before the plan's first one: they were sent before a restart.
    skipped: usize,
    /// Serial number, range of the plan, slice.
    on_way: VecDeque<(u64, usize, SentSlice)>,
    /// Everything before this offset of this range of the plan was sent.
    again: At,
    /// Keeps it over a restart.
    progress: Option<Progress>,
}

impl Sending<'_> {
    /// Notes what has been handed to the kernel.
    fn settle(&mut self) {
        let sent = self.run.port.sent();
        let before = self.again;
        while let Some((_, range, slice)) = self.on_way.pop_front_if(|(serial, ..)| *serial < sent) {
            self.run.job.sent(self.skipped + range, &slice);
            self.again = (range, slice.end);
            if let Some(metrics) = &self.run.metrics {
                metrics.replay_records_sent.add(slice.records.into());
                let offsets = slice.end.abs_diff(slice.base);
                metrics.replay_offsets_gone.add(offsets - u64::from(slice.records));
            }
        }
        if self.again != before
            && let Some(progress) = &mut self.progress
        {
            progress.tell(&self.run.job, self.run.config.link.name.as_str(), Instant::now());
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

    fn take(&mut self, answers: Vec<Answer>) -> Result<(), Stopped> {
        for Answer { range, mut slice, sent } in answers {
            loop {
                self.go_on()?;
                match self.run.port.hand(self.losses, slice) {
                    Ok(serial) => break self.on_way.push_back((serial, range, sent)),
                    Err(NotTaken::Full(back)) => slice = back,
                    Err(NotTaken::Closed) => return Err(Stopped::Asked),
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn cut(&mut self, range: usize, end: i64) {
        self.run.job.cut(self.skipped + range, end);
    }

    fn not_carried(&mut self, range: usize, offset: i64, error: &PackError) {
        let range = self.skipped + range;
        self.run.job.not_carried(range, offset);
        if let Some(wanted) = self.run.wanted.get(range) {
            tracing::error!(
                link = self.run.config.link.name.as_str(), topic = wanted.topic, partition = wanted.partition, offset, %error,
                "a record was not replayed and will not be; raise `max_record_bytes` in [link.pack] and [link.receive]"
            );
        }
    }
}
