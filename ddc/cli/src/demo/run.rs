//! One crossing from its start to its end: waits for the group, lets produce, watches, judges when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use ddc_proxy::admin::AdminState as _;

use super::Demo;
use super::check::Tally;
use super::link::Link;
use super::observe::Observed;
use super::produce::{ProduceThread, Produced};
use super::records::TOPICS;
use super::relay::Relay;
use super::report::Report;
use super::verify::Verified;
use super::view::{Snapshot, View};
use super::window::Window;

/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(100);
/// How long the ingress may take to get its partitions.
const GROUP_TIMEOUT: Duration = Duration::from_mins(1);
/// After the last record: would a duplicate still come?
const AFTERMATH: Duration = Duration::from_millis(500);
/// When nothing has come for this long and both sides account for every record, nothing will come.
const ACCOUNTED: Duration = Duration::from_secs(3);
/// When nothing has come for this long and everything was sent, room is made for more (see [`Window`]).
const STALLED: Duration = Duration::from_secs(1);

/// A crossing under way.
pub(super) struct Run<'a> {
    pub(super) demo: &'a Demo,
    pub(super) view: &'a mut View,
    pub(super) interrupted: &'a AtomicBool,
    pub(super) link: Link,
    pub(super) observed: Observed,
    pub(super) produced: Arc<Produced>,
    pub(super) verified: Arc<Verified>,
    pub(super) window: Arc<Window>,
    pub(super) produce: Option<JoinHandle<anyhow::Result<()>>>,
    pub(super) started: Option<Instant>,
    pub(super) wanted: u64,
}

impl Run<'_> {
    /// Watches until the end. `true`: interrupted.
    pub(super) fn watch(&mut self, produce: ProduceThread) -> anyhow::Result<bool> {
        if !self.wait_for_group()? {
            return Ok(true);
        }
        let started = Instant::now();
        self.started = Some(started);
        let thread = thread::Builder::new().name("ddc-demo-produce".into());
        self.produce = Some(thread.spawn(move || produce.run())?);
        loop {
            thread::sleep(TICK);
            if self.interrupted.load(Relaxed) {
                return Ok(true);
            }
            self.link.check()?;
            self.check_producer()?;
            let state = self.verified.state();
            if let Some(trouble) = &state.trouble {
                bail!("reading the destination cluster: {trouble}");
            }
            let all_arrived = state.tally.distinct >= self.wanted;
            self.show(if all_arrived { "all have arrived" } else { "records cross" });
            let idle = state.last.unwrap_or(started).elapsed();
            let produced = self.produced.acknowledged.load(Relaxed) >= self.wanted;
            if (all_arrived && idle >= AFTERMATH)
                || (produced && idle >= ACCOUNTED && self.is_accounted_for(&state.tally))
                || idle >= self.demo.timeout.0
            {
                return Ok(false);
            }
            if idle >= STALLED && self.is_accounted_for(&state.tally) {
                self.window.settle_all();
            }
        }
    }

    /// Waits until the ingress has all partitions. `false`: interrupted.
    fn wait_for_group(&mut self) -> anyhow::Result<bool> {
        let partitions: u32 = TOPICS.iter().map(|(_, partitions)| partitions).sum();
        let deadline = Instant::now() + GROUP_TIMEOUT;
        while self.link.ingress.metrics().assigned_partitions.value() < i64::from(partitions) {
            self.show("waiting for the consumer group");
            self.link.check()?;
            if self.interrupted.load(Relaxed) {
                return Ok(false);
            }
            if Instant::now() >= deadline {
                let problems = self.link.ingress.view().ready().err().unwrap_or_default().join("; ");
                bail!(
                    "the ingress did not get its partitions within {} s: {problems}",
                    GROUP_TIMEOUT.as_secs()
                );
            }
            thread::sleep(TICK);
        }
        Ok(true)
    }

    fn check_producer(&mut self) -> anyhow::Result<()> {
        let Some(thread) = self.produce.take_if(|thread| thread.is_finished()) else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the producing thread panicked"))?
    }

    /// Whether the egress has delivered or reported every record that was produced so far, and all that it delivered was
    /// read.
    fn is_accounted_for(&self, tally: &Tally) -> bool {
        let egress = self.link.egress.metrics();
        let delivered = egress.records_delivered.value();
        let produced = self.produced.acknowledged.load(Relaxed);
        delivered + egress.records_missing.total() >= produced && tally.received >= delivered
    }

    pub(super) fn show(&mut self, phase: &'static str) {
        self.observed.look_after(Instant::now());
        let (ingress, egress) = (self.link.ingress.metrics(), self.link.egress.metrics());
        let tally = self.verified.state().tally;
        self.view.show(&Snapshot {
            phase,
            total: self.wanted,
            produced: self.produced.acknowledged.load(Relaxed),
            sent: ingress.records_sent.value(),
            arrived: tally.distinct,
            wrong: tally.duplicated + tally.mismatched + tally.out_of_order + egress.records_missing.total(),
            bytes: tally.bytes,
            datagrams: ingress.packets_sent.value(),
            datagrams_lost: egress.packet_loss.value().saturating_sub(egress.packets_late.value()),
            symbols_repaired: egress.symbols_repaired.value(),
            running: self.started.map_or(Duration::ZERO, |started| started.elapsed()),
        });
    }

    /// From the first record produced to the last one that came.
    pub(super) fn seconds(&self) -> f64 {
        let last = self.verified.state().last;
        self.started.zip(last).map_or(0.0, |(started, last)| last.duration_since(started).as_secs_f64())
    }

    pub(super) fn report(&self, tally: &Tally, seconds: f64, seed: u64) -> Report {
        let (ingress, egress) = (self.link.ingress.metrics(), self.link.egress.metrics());
        let passed = self.link.relay.as_ref().map(Relay::passed).unwrap_or_default();
        let records_sent = self.produced.acknowledged.load(Relaxed);
        Report {
            records_sent,
            records_received: tally.received,
            lost: records_sent.saturating_sub(tally.distinct),
            duplicated: tally.duplicated,
            mismatched: tally.mismatched,
            out_of_order: tally.out_of_order,
            datagrams_sent: ingress.packets_sent.value(),
            datagrams_dropped: passed.dropped,
            symbols_repaired: egress.symbols_repaired.value(),
            seconds,
            records_per_second: if seconds > 0.0 { tally.distinct as f64 / seconds } else { 0.0 },
            bytes_received: tally.bytes,
            reported_missing: egress.records_missing.total(),
            datagrams_lost: egress.packet_loss.value().saturating_sub(egress.packets_late.value()),
            datagrams_overrun: passed.overrun + egress.socket_drops.value(),
            seed,
            interrupted: false,
        }
    }

    pub(super) fn finish(self) {
        if let Some(thread) = self.produce {
            // It was told to stop; what it found no longer matters.
            let _ = thread.join();
        }
        self.link.stop();
        self.observed.stop();
    }
}
