//! The last replay on disk: in the ingress's state directory before it is acknowledged, so that it goes on after a restart.
//!
//! What is kept is the request and the report, so that whoever asks sees the same replay before and after. It goes on at
//! the first offset that is not known to be sent; what went since then goes again, and the egress has it already.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::report::{Job, Report};
use super::request::{Checked, MAX_RANGES, Request, RequestError};
use crate::config::IngressConfig;
use crate::state::{StateDir, StateError};

/// The state file, in the ingress's state directory.
const FILE: &str = "replay.json";
const FORMAT: u32 = 1;
/// Between two writes of how far a replay is.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// A slow disk gets a longer pause: so many times what the last write took.
const PAUSE_FACTOR: u32 = 20;

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    request: Request,
    report: Report,
}

/// Why what a former run has left is not taken up.
#[derive(Debug, Error)]
pub(super) enum KeptError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("state file {FILE} has format {0}, this version knows {FORMAT}")]
    Format(u32),
    #[error("state file {FILE}: {0}")]
    Wrong(&'static str),
}

/// The file. It belongs to one replay at a time.
pub(super) struct Keeper {
    directory: Arc<StateDir>,
    /// Whose it is. Held while the file is written.
    owner: Mutex<String>,
}

impl Keeper {
    pub(super) fn new(directory: Arc<StateDir>) -> Self {
        Self { directory, owner: Mutex::default() }
    }

    /// What a former run has left, which owns the file from now on.
    pub(super) fn take_up(&self) -> Result<Option<Job>, KeptError> {
        let Some(Stored { format, request, report }) = self.directory.read::<Stored>(FILE)? else {
            return Ok(None);
        };
        if format != FORMAT {
            return Err(KeptError::Format(format));
        }
        sound(&request, &report).map_err(KeptError::Wrong)?;
        request.id.clone_into(&mut self.owner.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Some(Job::told(request, report)))
    }

    /// Moves a file that was not taken up away, so that it is neither lost nor in the way; says so.
    pub(super) fn refuse(&self, link: &str, error: &KeptError) {
        match self.directory.set_aside(FILE) {
            Ok(aside) => tracing::error!(
                link,
                %error,
                moved_to = %aside.display(),
                "the replay of a former run is not known any more; what is still missing at the destination is named there: ask for it again (`ddc gaps export`, `ddc replay --gaps`)"
            ),
            Err(aside) => tracing::error!(
                link,
                %error,
                %aside,
                "the replay of a former run is not known any more, and its file is in the way until the next replay replaces it"
            ),
        }
    }

    /// A new replay owns the file; on disk when this returns.
    pub(super) fn begin(&self, job: &Job) -> Result<(), StateError> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(job)?;
        job.request.id.clone_into(&mut owner);
        Ok(())
    }

    /// How far it is; on disk when this returns, if the file is still its own.
    pub(super) fn keep(&self, job: &Job) -> Result<(), StateError> {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if *owner == job.request.id { self.write(job) } else { Ok(()) }
    }

    fn write(&self, job: &Job) -> Result<(), StateError> {
        #[derive(Serialize)]
        struct Written<'a> {
            format: u32,
            request: &'a Request,
            report: Report,
        }
        self.directory
            .write(FILE, &Written { format: FORMAT, request: &job.request, report: job.to_be_kept() })
    }
}

/// Whether a file says something that may be told.
fn sound(request: &Request, report: &Report) -> Result<(), &'static str> {
    if request.id != report.id {
        return Err("its request and its report are of two replays");
    }
    if report.ranges.is_empty() || report.ranges.len() > MAX_RANGES || request.ranges.len() > MAX_RANGES {
        return Err("it has no range, or too many");
    }
    let right = |range: &super::RangeReport| {
        (0..=range.to).contains(&range.from)
            && range.to < i64::MAX
            && (range.from..=range.to + 1).contains(&range.next)
            && range.topic_id.as_ref().is_none_or(|id| id.parse::<ddc_wire::TopicId>().is_ok())
    };
    if report.ranges.iter().all(right) { Ok(()) } else { Err("a range in it is none") }
}

/// What is still wanted of a replay that goes on: its ranges in the life that they were planned for.
pub(super) fn wanted(job: &Job, config: &IngressConfig) -> Result<Checked, RequestError> {
    let mut checked = job.request.check(config)?;
    let report = job.report();
    let same = |(wanted, told): (&super::Wanted, &super::RangeReport)| {
        wanted.topic == told.topic
            && wanted.partition == told.partition
            && (wanted.first, wanted.last) == (told.from, told.to)
    };
    if checked.ranges.len() != report.ranges.len() || !checked.ranges.iter().zip(&report.ranges).all(same) {
        return Err(RequestError::OtherNow);
    }
    for (wanted, told) in checked.ranges.iter_mut().zip(&report.ranges) {
        wanted.topic_id = told.topic_id.as_ref().and_then(|id| id.parse().ok()).or(wanted.topic_id);
    }
    Ok(checked)
}

/// Keeps how far a replay is, now and then.
pub(super) struct Progress {
    keeper: Arc<Keeper>,
    next: Instant,
    /// A disk that refuses is told once.
    failed: bool,
}

impl Progress {
    pub(super) fn new(keeper: Arc<Keeper>, now: Instant) -> Self {
        Self { keeper, next: now + KEEP_EVERY, failed: false }
    }

    /// Writes it if it is time.
    pub(super) fn tell(&mut self, job: &Job, link: &str, now: Instant) {
        if now >= self.next {
            self.write(job, link);
        }
    }

    /// Writes it.
    pub(super) fn write(&mut self, job: &Job, link: &str) {
        let begun = Instant::now();
        let written = self.keeper.keep(job);
        self.next = Instant::now() + KEEP_EVERY.max(begun.elapsed() * PAUSE_FACTOR);
        if let Err(error) = &written
            && !self.failed
        {
            tracing::warn!(link, id = job.request.id, %error, "how far a replay is cannot be kept: after a restart it goes on from where it was kept last");
        }
        self.failed = written.is_err();
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
