//! Opens the spool of a link: what a former life has left is said, and goes on.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use crossbeam_channel::Sender as ChannelSender;
use ddc_link::receiver::{StoredSession, StoredState};
use ddc_spool::{FsyncObserver, OpenReport, Opened, SessionMark, Spool};
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use ddc_wire::BlockNumber;

use super::keeper::{Keeper, KeeperParts};
use super::notes::Notes;
use super::spooled::{Common, SpoolIn, SpoolOut};
use super::{FeedIn, FeedOut};
use crate::egress::shared::Shared;

/// What a spool is opened with.
pub(crate) struct SpoolParts {
    pub(crate) options: ddc_spool::Options,
    /// What the sink thread may hold without its being settled, in bytes.
    pub(crate) held_limit: u64,
    pub(crate) max_batch_bytes: usize,
    pub(crate) metrics: Arc<LinkMetrics<EgressMetrics>>,
    pub(crate) shared: Arc<Shared>,
    /// Takes the buffers of batches that were appended; full = freed.
    pub(crate) recycle: ChannelSender<Vec<u8>>,
}

/// Opens, says what was found, and raises the sessions to what lies in the spool, so that an older block of a session that goes on is
/// refused as a replay.
pub(crate) fn open_spool(
    parts: SpoolParts,
    sessions: &mut [StoredSession],
) -> anyhow::Result<(FeedIn, FeedOut)> {
    let SpoolParts { mut options, held_limit, max_batch_bytes, metrics, shared, recycle } = parts;
    let durations = Arc::clone(&metrics);
    options.fsync_observer =
        FsyncObserver::new(move |took| durations.spool_fsync_latency_seconds.observe(took));
    let directory = options.directory.clone();
    let (when_full, limit_bytes) = (options.when_full, options.max_bytes);
    let Opened { spool, appender, reader, report } = Spool::open(options).context("[spool]")?;
    let link = metrics.link();
    say(link, &directory, &report, &metrics);
    raise(sessions, &report.sessions);
    let notes = Notes::decode(&report.table).unwrap_or_else(|| {
        tracing::warn!(
            link,
            bytes = report.table.len(),
            "the table in the spool's checkpoint is none of this version's; what was dropped before may get another reason, and a progress topic that was lost is not noticed"
        );
        Notes::default()
    });
    let common = Arc::new(Common::new(link, spool, report.frames, notes));
    let keeper = Keeper::start(KeeperParts {
        common: Arc::clone(&common),
        when_full,
        limit_bytes,
        directory,
        max_batch_bytes,
        metrics: Arc::clone(&metrics),
        shared,
    })
    .context("the spool's thread cannot be started")?;
    let input = SpoolIn::new(appender, Arc::clone(&common), recycle.clone());
    let output = SpoolOut::new(reader, common, recycle, held_limit, report.end, keeper);
    Ok((FeedIn::Spool(Box::new(input)), FeedOut::Spool(Box::new(output))))
}

/// Logs every finding: ERROR for what is lost, WARN for what somebody should look at.
fn say(link: &str, directory: &Path, report: &OpenReport, metrics: &LinkMetrics<EgressMetrics>) {
    for finding in &report.findings {
        if finding.is_loss() {
            metrics.spool_damaged_places.inc();
            tracing::error!(
                link,
                %finding,
                "the spool has lost something; records that were there are named as missing when the next ones come"
            );
        } else {
            tracing::warn!(link, %finding, "the spool is not as it was left");
        }
    }
    if report.more_findings > 0 {
        tracing::error!(link, findings = report.more_findings, "there is more that is wrong with the spool");
    }
    tracing::info!(
        link,
        directory = %directory.display(),
        segments = report.segments,
        bytes = report.bytes,
        waiting_bytes = report.end.saturating_sub(report.lowest),
        took_seconds = report.took.as_secs_f64(),
        "spool opened"
    );
}

/// No block that lies in the spool is expected any more. A session that is not stored (it began less than a second before a crash)
/// is met anew: what it sends twice is told by offsets.
fn raise(sessions: &mut [StoredSession], marks: &[SessionMark]) {
    for mark in marks {
        let known = sessions.iter_mut().filter(|stored| stored.session.0 == mark.session);
        for stored in known.filter(|stored| stored.state == StoredState::Open) {
            let next = mark.block.saturating_add(1).min(ddc_link::receiver::MAX_BLOCK - 1);
            stored.next_block = stored.next_block.max(BlockNumber(next));
        }
    }
}
