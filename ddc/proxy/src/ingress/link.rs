//! The link thread: takes packed blocks, protects, seals and paces them, and hands datagrams to the kernel.
//!
//! ```text
//!  blocks ──▶ Sender (FEC, seal, packet numbers) ──▶ pacer ──▶ sendmmsg ──▶ sent_blocks
//! ```
//!
//! It also sends the heartbeats, every second, whatever the source does. A datagram that the kernel refuses for a
//! passing reason is offered again: nothing is counted as sent that was not handed over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as BlockReceiver, RecvTimeoutError};
use ddc_fec::Code;
use ddc_link::keys::{LinkKey, SealMode};
use ddc_link::sender::{
    Datagrams, HeartbeatFacts, PackedBlock, Sender, SenderConfig, Step, Totals, wire_bytes,
};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::exposition::LinkMetrics;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::notify::Tick;
use ddc_telemetry::process::thread_cpu;
use ddc_telemetry::reasons::{DropReason, SendErrorReason, Thread};
use ddc_udp::clock::{sleep_until, use_exact_timers, wall_clock_micros, wall_minus_boot_micros};
use ddc_udp::{SendError, SenderOptions, SenderSocket};
use ddc_wire::{GoodbyeReason, KeyId, Prelude, Session};
use ring::rand::{SecureRandom, SystemRandom};

use super::session;
use super::{Shared, UNKNOWN_LAG};
use crate::config::{IngressConfig, Seal};
use crate::state::StateDir;

/// One heartbeat a second.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// When the sender falls idle, a heartbeat follows after this time …
const IDLE_BEFORE_HEARTBEAT: Duration = Duration::from_millis(20);
/// … but not sooner after the one before, so that a trickle of records is not doubled.
const HEARTBEAT_AFTER: Duration = Duration::from_millis(200);
/// The longest wait for a block: it bounds how late a stop and the watchdog are served.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// How long the last goodbye may take on a stop: what was begun is sent, at the link's rate, then the goodbyes.
/// A session that ends for a new key has no such bound: nothing of it may be left behind.
pub(super) const GOODBYE_BOUND: Duration = Duration::from_secs(2);
/// Waits of the pacer that are shorter are slept exactly.
const EXACT_WAIT: Duration = Duration::from_micros(200);
/// Between two tries of what cannot work now: a first session without a clock, an interface that is down.
const RETRY: Duration = Duration::from_millis(200);
/// A difference between the wall clock and the time since boot that changes by more than this means that the machine
/// was stopped and taken up again, perhaps from a copy: packet numbers might be used twice, so a new session begins.
const CLOCK_JUMP_MICROS: u64 = 1_000_000;

/// The thread's state; made by [`LinkThread::open`], run by [`LinkThread::run`].
pub(crate) struct LinkThread {
    config: Arc<IngressConfig>,
    link: Arc<str>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    shared: Arc<Shared>,
    state: Arc<StateDir>,
    blocks: BlockReceiver<PackedBlock>,
    socket: SenderSocket,
    datagrams: Datagrams,
    /// What was reported of the present session's totals.
    reported: Totals,
    /// Blocks taken in the sessions before, and those that the present one refused: what turns the session's block
    /// numbers into the source's.
    blocks_before: u64,
    /// Whether the block taken last is not the last fragment of its batch: a session may not end there by itself,
    /// because the far end joins the fragments of one session only.
    mid_batch: bool,
    /// Blocks taken from the queue since the start of the process: the source's number of the next one.
    taken: u64,
    limit: RateLimit<&'static str>,
    rate: super::RateCell,
    seal: super::SealCell,
    /// Which change of the key the present session is of.
    seal_change: u64,
}

impl LinkThread {
    /// Opens the socket. Sends nothing.
    pub(crate) fn open(
        config: Arc<IngressConfig>,
        blocks: BlockReceiver<PackedBlock>,
        shared: Arc<Shared>,
        state: Arc<StateDir>,
        metrics: Arc<LinkMetrics<IngressMetrics>>,
        rate: super::RateCell,
        seal: super::SealCell,
    ) -> anyhow::Result<Self> {
        let mut options = SenderOptions::new(config.target);
        options.source = config.source_address.map(|address| (address, 0).into());
        options.interface = config.link.interface.as_ref().map(ToString::to_string);
        options.send_buffer = config.link.socket_buffer.0 as usize;
        let socket = SenderSocket::open(&options)?;
        let link: Arc<str> = config.link.name.as_str().into();
        if let Some(shortfall) = socket.buffer().shortfall() {
            tracing::warn!(link = &*link, "{shortfall}");
        }
        Ok(Self {
            config,
            link,
            metrics,
            shared,
            state,
            blocks,
            socket,
            datagrams: Datagrams::default(),
            reported: Totals::default(),
            blocks_before: 0,
            mid_batch: false,
            taken: 0,
            limit: RateLimit::new(Duration::from_secs(10)),
            rate,
            seal,
            seal_change: 0,
        })
    }

    /// Runs until the source is done and everything is sent, or `bound` has passed since a stop was asked for.
    pub(crate) fn run(mut self, tick: &Tick, bound: Duration) {
        if let Err(error) = use_exact_timers() {
            tracing::debug!(link = &*self.link, %error, "timers stay inexact; the pacer spins a little longer");
        }
        let mut stop_by = None;
        while let Some(mut sender) = self.begin(tick) {
            match self.session(&mut sender, tick, &mut stop_by, bound) {
                End::Stop => {
                    self.goodbye(&mut sender, GoodbyeReason::Stop, tick);
                    break;
                }
                End::GivenUp => break,
                End::NewKey => {
                    if !self.goodbye(&mut sender, GoodbyeReason::NewSession, tick) {
                        break;
                    }
                }
                // No goodbye: its packet numbers may have been used by the copy that went on.
                End::ClockJump => tracing::warn!(
                    link = &*self.link,
                    "the wall clock jumped against the time since boot (it was set, or this machine was restored from \
                     a snapshot): a new session begins, and what was not committed is sent again"
                ),
            }
            self.close(&sender);
        }
    }

    /// Ends the accounts of a session. Blocks that it took and did not send whole keep their numbers, so that what
    /// comes after them is not taken for them; the source learns that they are lost before it learns those numbers,
    /// and reads again from what the group has committed.
    fn close(&mut self, sender: &Sender) {
        let lost = sender.blocks_waiting();
        if lost > 0 {
            self.shared.blocks_lost.fetch_add(lost, Ordering::Release);
        }
        self.blocks_before += sender.totals().blocks + lost;
        self.shared.sent_blocks.store(self.blocks_before, Ordering::Release);
    }

    /// Begins a session; waits while none may begin. `None` on a stop before that.
    fn begin(&mut self, tick: &Tick) -> Option<Sender> {
        loop {
            tick.mark();
            match self.new_sender() {
                Ok(sender) => {
                    self.shared.set_problem("session", None);
                    self.reported = Totals::default();
                    return Some(sender);
                }
                Err(error) => {
                    if let Some(suppressed) = self.limit.allow("session", Instant::now()) {
                        tracing::error!(link = &*self.link, %error, suppressed, "nothing can be sent yet");
                    }
                    self.shared.set_problem("session", Some(format!("nothing is sent: {error}")));
                }
            }
            if self.shared.stop.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(RETRY);
        }
    }

    fn new_sender(&mut self) -> anyhow::Result<Sender> {
        let config = Arc::clone(&self.config);
        let mut random = [0; 4];
        // The kernel's generator does not fail once it is seeded; zeros would still give a session of its own start.
        let _ = SystemRandom::new().fill(&mut random);
        let (seal, change) = self.seal.get();
        self.seal_change = change;
        let (seal, key_id, key) = match &seal {
            Seal::Aes256Gcm(key) => (SealMode::Aes256Gcm, key.id, LinkKey::new(*key.key.expose())),
            Seal::None => (SealMode::None, KeyId(0), LinkKey::new([0; 32])),
        };
        let build_micros = crate::build_micros();
        let session = session::begin(
            &self.state,
            key_id,
            wall_clock_micros(),
            build_micros,
            u32::from_be_bytes(random),
        )?;
        let sender = Sender::new(
            SenderConfig {
                link_id: config.link.id,
                key_id,
                key,
                seal,
                session,
                code: Code::new(config.fec.code.source.into(), config.fec.code.repair.into())?,
                symbol_size: config.link.mtu.symbol_size(config.target.ip()),
                interleave: config.fec.interleave,
                interleave_span: config.fec.interleave_span,
                rate: self.rate.get(),
                burst: config.burst,
                ip_overhead: self.ip_overhead(),
            },
            Instant::now(),
        )?;
        self.announce(session, key_id);
        Ok(sender)
    }

    fn ip_overhead(&self) -> usize {
        if self.config.target.is_ipv4() { 20 } else { 40 }
    }

    fn announce(&self, session: Session, key_id: KeyId) {
        self.metrics.session_start_timestamp_seconds.set(session.start_micros() as f64 / 1e6);
        self.metrics.key_id.set(f64::from(key_id.0));
        self.shared.set_note("session", serde_json::json!({ "id": session.to_string(), "key_id": key_id.0 }));
        tracing::info!(link = &*self.link, %session, key_id = key_id.0, target = %self.config.target, "session begins");
    }

    /// Sends until the session must end.
    fn session(
        &mut self,
        sender: &mut Sender,
        tick: &Tick,
        stop_by: &mut Option<Instant>,
        bound: Duration,
    ) -> End {
        let clocks = wall_minus_boot_micros();
        let mut next_heartbeat = Instant::now();
        let mut blocks_told = 0;
        let mut new_key = false;
        loop {
            tick.mark();
            let now = Instant::now();
            if now >= next_heartbeat {
                if wall_minus_boot_micros().abs_diff(clocks) > CLOCK_JUMP_MICROS {
                    return End::ClockJump;
                }
                new_key = self.seal.get().1 != self.seal_change;
                next_heartbeat = now + HEARTBEAT_EVERY;
                blocks_told = sender.totals().blocks;
                self.heartbeat(sender, now);
            }
            if new_key && !self.mid_batch {
                return End::NewKey;
            }
            if self.shared.stop.load(Ordering::Relaxed) {
                let by = *stop_by.get_or_insert(now + bound);
                let sent = self.shared.source_done.load(Ordering::Acquire) && self.blocks.is_empty();
                if (sent && sender.blocks_waiting() == 0) || now >= by {
                    return End::Stop;
                }
            }
            while sender.ready() && (self.mid_batch || !new_key) {
                let Ok(block) = self.blocks.try_recv() else { break };
                self.take(sender, now, block);
            }
            match sender.poll(now, &mut self.datagrams) {
                Step::Send => {
                    if !self.send(tick) {
                        return End::GivenUp;
                    }
                    self.report(sender);
                }
                Step::Wait(until) => {
                    self.metrics.pace_waits.inc();
                    let until = until.min(next_heartbeat);
                    // The pacer's waits are short and exact; a group that waits for its blocks is left early by one.
                    let early = until.checked_sub(EXACT_WAIT).filter(|early| *early > now);
                    if let Some(early) = early.filter(|_| sender.ready()) {
                        self.wait_for_block(sender, early);
                    } else {
                        self.shared.link_idle.store(false, Ordering::Relaxed);
                        sleep_until(until);
                    }
                }
                Step::Idle => {
                    if sender.totals().blocks > blocks_told {
                        // Tells the egress that nothing more comes of these blocks: what is lost of them is named now.
                        let after =
                            next_heartbeat.checked_sub(HEARTBEAT_EVERY).unwrap_or(now) + HEARTBEAT_AFTER;
                        next_heartbeat = next_heartbeat.min(after.max(now + IDLE_BEFORE_HEARTBEAT));
                        blocks_told = sender.totals().blocks;
                    }
                    self.wait_for_block(sender, next_heartbeat);
                }
            }
        }
    }

    /// Waits for a block, until `until` and for [`LONGEST_WAIT`] at most.
    fn wait_for_block(&mut self, sender: &mut Sender, until: Instant) {
        let now = Instant::now();
        self.shared.link_idle.store(sender.could_send_now(now), Ordering::Relaxed);
        let wait = until.saturating_duration_since(now).min(LONGEST_WAIT);
        match self.blocks.recv_timeout(wait) {
            Ok(block) => {
                self.shared.link_idle.store(false, Ordering::Relaxed);
                self.take(sender, Instant::now(), block);
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The source thread has ended: a stop follows, or is under way.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
        }
    }

    fn take(&mut self, sender: &mut Sender, now: Instant, block: PackedBlock) {
        let number = self.taken;
        self.taken += 1;
        if self.is_void(number) {
            self.shared.queued_bytes.fetch_sub(block.bytes.len() as u64, Ordering::Relaxed);
            self.mid_batch = false;
            self.blocks_before += 1;
            self.shared.sent_blocks.store(self.blocks_before + self.reported.blocks, Ordering::Release);
            return;
        }
        self.mid_batch =
            Prelude::decode(&block.bytes).is_ok_and(|(prelude, _)| prelude.fragment + 1 < prelude.fragments);
        self.shared.queued_bytes.fetch_sub(block.bytes.len() as u64, Ordering::Relaxed);
        self.metrics.compressed_bytes.add(block.bytes.len() as u64);
        self.metrics.record_bytes_sent.add(block.record_bytes);
        match block.content {
            ddc_wire::Content::Records if !block.marks.is_empty() => self.metrics.batches_sent.inc(),
            ddc_wire::Content::Records => {}
            ddc_wire::Content::Ledger => self.metrics.ledgers_sent.inc(),
        }
        if let Err(error) = sender.push(now, block.bytes, block.full, block.records) {
            // The packer's blocks fit the sender's code, and there was room: both are made from one configuration.
            // It keeps its number all the same, see `close`.
            self.shared.blocks_lost.fetch_add(1, Ordering::Release);
            self.blocks_before += 1;
            if let Some(suppressed) = self.limit.allow("refused", now) {
                tracing::error!(link = &*self.link, %error, suppressed,
                    "a packed block was refused by the sender, a fault of this program; its records are read again");
            }
        }
    }

    /// Whether a block was packed before the source knew of a loss: it is packed again.
    fn is_void(&self, number: u64) -> bool {
        let lost = self.shared.blocks_lost.load(Ordering::Acquire);
        // In this order: whoever sees the loss acted on sees where the good blocks begin.
        lost != self.shared.loss_seen.load(Ordering::Acquire)
            || number < self.shared.good_from.load(Ordering::Acquire)
    }

    fn heartbeat(&mut self, sender: &mut Sender, now: Instant) {
        let rate = self.rate.get();
        if rate != sender.rate() {
            tracing::info!(link = &*self.link, bits_per_second = rate.unwrap_or(0), "the rate was changed");
            sender.set_rate(now, rate);
        }
        match rate {
            Some(rate) => self.metrics.rate_limit_bits_per_second.set(rate as f64),
            None => self.metrics.rate_limit_bits_per_second.clear(),
        }
        let lag = self.shared.lag.load(Ordering::Relaxed);
        sender.heartbeat(
            now,
            HeartbeatFacts {
                wall_clock_micros: wall_clock_micros(),
                lag: (lag != UNKNOWN_LAG).then_some(lag),
                source_state: self.shared.source_state(),
            },
        );
        self.metrics.heartbeats_sent.inc();
        self.metrics.common.thread_cpu_seconds.set(Thread::Link, thread_cpu());
    }

    /// Hands every datagram of the batch to the kernel, however long the network is away. `false`: given up on a stop.
    fn send(&mut self, tick: &Tick) -> bool {
        let datagrams: Vec<&[u8]> = self.datagrams.iter().collect();
        let mut left = &datagrams[..];
        let mut failing = false;
        while !left.is_empty() {
            match self.socket.send(left) {
                Ok(sent) => left = &left[sent..],
                Err(error) => {
                    self.metrics.send_errors.inc(send_error_reason(&error));
                    if matches!(error, SendError::Busy) {
                        self.metrics.send_buffer_full.inc();
                    }
                    if let Some(suppressed) = self.limit.allow("send", Instant::now()) {
                        tracing::warn!(link = &*self.link, %error, suppressed, "datagrams cannot be sent; they are tried again");
                    }
                    self.shared.set_problem("send", Some(format!("datagrams cannot be sent: {error}")));
                    failing = true;
                    tick.mark();
                    // On a stop what cannot be sent must not hold the process: it was not counted as sent.
                    if self.shared.stop.load(Ordering::Relaxed)
                        && self.shared.source_done.load(Ordering::Acquire)
                    {
                        self.metrics.common.dropped_packets.add(DropReason::SendError, left.len() as u64);
                        return false;
                    }
                    if !matches!(error, SendError::Busy) {
                        std::thread::sleep(RETRY);
                    }
                }
            }
        }
        if failing {
            self.shared.set_problem("send", None);
        }
        true
    }

    fn report(&mut self, sender: &Sender) {
        let totals = sender.totals();
        let before = &self.reported;
        self.metrics.packets_sent.add(totals.packets - before.packets);
        let on_wire: usize =
            self.datagrams.iter().map(|datagram| wire_bytes(datagram.len(), self.ip_overhead())).sum();
        self.metrics.bytes_sent.add(on_wire as u64);
        self.metrics.blocks_sent.add(totals.blocks - before.blocks);
        self.metrics.records_sent.add(totals.records - before.records);
        self.metrics.source_symbols.add(totals.source_symbols - before.source_symbols);
        self.metrics.repair_symbols.add(totals.repair_symbols - before.repair_symbols);
        self.shared.sent_blocks.store(self.blocks_before + totals.blocks, Ordering::Release);
        self.reported = totals;
    }

    /// Sends what the session has begun, and its goodbyes. `false`: given up, on a stop.
    fn goodbye(&mut self, sender: &mut Sender, reason: GoodbyeReason, tick: &Tick) -> bool {
        sender.goodbye(Instant::now(), reason);
        let mut by: Option<Instant> = None;
        while !sender.finished() {
            tick.mark();
            let now = Instant::now();
            if self.shared.stop.load(Ordering::Relaxed) && now >= *by.get_or_insert(now + GOODBYE_BOUND) {
                return false;
            }
            match sender.poll(now, &mut self.datagrams) {
                Step::Send => {
                    if !self.send(tick) {
                        return false;
                    }
                    self.report(sender);
                }
                Step::Wait(until) => {
                    sleep_until(until.min(now + LONGEST_WAIT));
                }
                Step::Idle => break,
            }
        }
        tracing::info!(
            link = &*self.link,
            packets = self.reported.packets,
            records = self.reported.records,
            "session ended"
        );
        true
    }
}

#[derive(Debug)]
enum End {
    /// Everything is sent, or the bound has passed.
    Stop,
    /// On a stop, what cannot be sent is left.
    GivenUp,
    /// The key was changed and no batch is half sent.
    NewKey,
    /// See [`CLOCK_JUMP_MICROS`].
    ClockJump,
}

fn send_error_reason(error: &SendError) -> SendErrorReason {
    match error {
        SendError::Unreachable { cause, .. }
        | SendError::Filtered { cause, .. }
        | SendError::Io { cause, .. } => SendErrorReason::of(cause),
        SendError::Busy => SendErrorReason::NoBuffer,
        SendError::TooLarge { .. } => SendErrorReason::TooBig,
    }
}

#[cfg(test)]
mod tests;
