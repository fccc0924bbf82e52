//! A replay without a running ingress: by the command itself, which holds the link's state directory meanwhile.
//!
//! Its session is made as the ingress makes its own, so that the egress takes it for the ingress started anew: the
//! ingress's next session is a later one. The state directory's lock keeps both from sending at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use ddc_link::sender::Packer;
use ddc_telemetry::Registry;
use ddc_telemetry::notify::Watchdog;
use ddc_udp::clock::wall_clock_micros;

use super::port::port;
use super::report::{Job, Report, State};
use super::request::{Request, RequestError};
use super::run::Run;
use crate::config::{IngressConfig, Source};
use crate::ingress::{LinkThread, RateCell, SealCell, Shared, pack_config};
use crate::source::commit::CommitLog;
use crate::source::outlet::{Outlet, ROOM_WAIT};
use crate::state::{StateDir, StateError};

/// Blocks that may wait for the link.
const QUEUED_BLOCKS: usize = 1024;
/// How long the last datagrams and the goodbye may take.
const DRAIN: Duration = Duration::from_secs(15);
/// How often the caller is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Sends what is wanted and returns how it ended. `tell` hears each second how far it is; `cancel` ends it.
pub fn offline(
    config: IngressConfig,
    request: Request,
    by: &str,
    cancel: &AtomicBool,
    mut tell: impl FnMut(&Report),
) -> anyhow::Result<Report> {
    let checked = request.check(&config)?;
    let link = config.link.name.as_str().to_owned();
    let Source::Kafka(source) = &config.source else { return Err(RequestError::NoKafka(link).into()) };
    let source = (**source).clone();
    let by = request.by.as_ref().map_or_else(|| by.to_owned(), |name| format!("{name} ({by})"));
    let state = match StateDir::open(&config.link.state_dir) {
        Err(StateError::InUse(path)) => anyhow::bail!(
            "link {link}: an ingress runs with {}; leave --offline away, so that it sends what is missing itself, or stop it first",
            path.display()
        ),
        opened => Arc::new(opened?),
    };
    let offsets: u64 = checked.ranges.iter().map(super::Wanted::offsets).sum();
    let (id, ranges, merged) = (request.id.as_str(), checked.ranges.len(), checked.merged);
    tracing::warn!(link, by, id, ranges, merged, offsets, "a replay without a running ingress was asked for");
    let config = Arc::new(config);
    let shared = Arc::new(Shared::new());
    let registry = Registry::default();
    let metrics = registry.ingress(&link)?;
    let (rate, seal) = (RateCell::new(config.rate), SealCell::new(config.seal.clone()));
    let (blocks, queue) = crossbeam_channel::bounded(QUEUED_BLOCKS);
    let thread = LinkThread::open(
        Arc::clone(&config),
        queue,
        Arc::clone(&shared),
        state,
        Arc::clone(&metrics),
        rate.clone(),
        seal,
    )
    .with_context(|| format!("link {link}"))?;
    let packer = Packer::new(pack_config(&config), Instant::now()).with_context(|| format!("link {link}"))?;
    let (input, output) =
        port(&config, rate).with_context(|| format!("link {link}: the code cannot be used"))?;
    let mut outlet = Outlet::new(
        packer,
        CommitLog::new(Duration::ZERO),
        blocks,
        Arc::clone(&shared),
        Arc::clone(&metrics),
        config.buffer.0,
    );
    outlet.set_replay(output);
    let tick = Watchdog::new(None).register("replay link", Instant::now())?;
    let link_thread = std::thread::Builder::new()
        .name(format!("ddc-tx-{link}"))
        .spawn(move || thread.run(&tick, DRAIN))
        .context("no thread for the link")?;
    let job = Arc::new(Job::new(request, &checked, by, wall_clock_micros() / 1_000_000));
    let run = Run {
        config,
        source,
        wanted: checked.ranges,
        job: Arc::clone(&job),
        port: input,
        stop: Arc::clone(&shared),
        metrics: None,
        keeper: None,
    };
    let replay = std::thread::Builder::new()
        .name(format!("ddc-rpl-{link}"))
        .spawn(move || run.run())
        .context("no thread for the replay")?;

    carry(&mut outlet, &shared, &job, cancel, &mut tell);
    shared.source_done.store(true, Ordering::Release);
    shared.stop.store(true, Ordering::Release);
    let sound = replay.join().is_ok() & link_thread.join().is_ok();
    anyhow::ensure!(sound, "link {link}: a thread of the replay panicked; its message stands above");
    let report = job.report();
    tell(&report);
    Ok(report)
}

/// The source's thread of an ingress that reads nothing.
fn carry(
    outlet: &mut Outlet,
    shared: &Shared,
    job: &Job,
    cancel: &AtomicBool,
    tell: &mut impl FnMut(&Report),
) {
    let mut told = Instant::now();
    let mut said = String::new();
    // The job is done when everything of it was handed to the kernel; it ends by itself when nothing goes on.
    while !job.state().is_over() {
        let now = Instant::now();
        outlet.move_blocks(now);
        if outlet.note_sent(now) {
            tracing::warn!("blocks were packed and not sent; they are made again");
        }
        if cancel.load(Ordering::Relaxed) {
            job.cancel();
        }
        if shared.link_done.load(Ordering::Acquire) {
            job.end(State::Failed, Some("the link's thread has ended".to_owned()));
        }
        // What keeps a session from beginning, such as a clock before the build date.
        let problems = shared.problems().join("; ");
        if problems != said {
            tracing::warn!(problems, "nothing can be sent yet");
            said = problems;
        }
        if now.duration_since(told) >= TELL_EVERY {
            told = now;
            tell(&job.report());
        }
        std::thread::sleep(ROOM_WAIT);
    }
}
