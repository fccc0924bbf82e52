//! `ddc rewind` at the ingress: partitions go back to where they were some time ago, and what was sent since goes again.
//!
//! ```text
//!  POST /v1/rewind ─▶ request ─▶ Rewinds ─▶ source thread: history ─▶ start commit, new epoch ─▶ read again
//!  GET  /v1/rewind ◀─ report  ◀─────┘
//! ```
//!
//! Here: what is asked and what is told, between the admin listener and the source's thread, which does the work
//! (`source/kafka/rewind.rs`). One rewind at a time; the last ones are remembered until the process ends.

mod report;
mod request;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use report::{PartitionReport, PartitionState, Report, State};
pub use request::{MAX_NAMED, Named, Request, RequestError, Which, since};

use crate::config::{IngressConfig, Source};
use crate::ingress::Shared;

/// Rewinds that are remembered when they are over: the same id again is answered from them.
const REMEMBERED: usize = 16;
/// Their partitions together; the last rewind is remembered whatever it has.
const REMEMBERED_PARTITIONS: usize = 20_000;

/// Why a rewind does not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// What is wanted is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// One at a time.
    #[error("rewind {0} is under way; wait for its end: GET /v1/rewind/{0}")]
    Busy(String),
    /// The id was used for something else.
    #[error("rewind {0} was asked for otherwise; choose another id")]
    Other(String),
    /// The ingress ends.
    #[error("the ingress is stopping; ask again when it runs")]
    Stopping,
}

/// What the source's thread is to do.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) which: Which,
    /// `None`: before every clock.
    pub(crate) time: Option<Instant>,
    pub(crate) dry_run: bool,
}

/// The rewinds of a running ingress.
pub struct Rewinds {
    config: Arc<IngressConfig>,
    shared: Arc<Shared>,
    /// There is an order: a look at it each turn costs nothing.
    asked: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The newest last.
    known: VecDeque<Known>,
    order: Option<Order>,
    /// To name those that nobody named.
    made: u64,
}

struct Known {
    /// `None`: of a pause.
    request: Option<Request>,
    report: Report,
}

impl Rewinds {
    pub(crate) fn new(config: Arc<IngressConfig>, shared: Arc<Shared>) -> Self {
        Self { config, shared, asked: AtomicBool::new(false), inner: Mutex::default() }
    }

    /// Begins a rewind, or finds the one of the same id; `true`: begun. `peer`: who asks, as the connection shows.
    pub fn begin(
        &self,
        mut request: Request,
        peer: &str,
        now: Instant,
        wall: Duration,
    ) -> Result<(Report, bool), BeginError> {
        let link = self.config.link.name.as_str();
        let Source::Kafka(source) = &self.config.source else {
            return Err(RequestError::NoKafka(link.to_owned()).into());
        };
        let (ago, which) = request.check(link, source, wall)?;
        if self.shared.stop.load(Ordering::Relaxed) {
            return Err(BeginError::Stopping);
        }
        let mut inner = lock(&self.inner);
        if request.id.is_empty() {
            inner.made += 1;
            request.id = format!("rewind-{}-{}", wall.as_micros(), inner.made);
        }
        if let Some(known) = inner.known.iter().find(|known| known.report.id == request.id) {
            return match &known.request {
                Some(before) if *before == request => Ok((known.report.clone(), false)),
                _ => Err(BeginError::Other(request.id)),
            };
        }
        if let Some(known) = inner.known.iter().find(|known| !known.report.state.is_over()) {
            return Err(BeginError::Busy(known.report.id.clone()));
        }
        let by = request.by.as_ref().map_or_else(|| peer.to_owned(), |by| format!("{by} ({peer})"));
        let report = Report::asked(&request.id, &by, &request.since, request.dry_run, wall.as_secs());
        if !request.dry_run {
            tracing::warn!(link, by, id = request.id, since = request.since, "a rewind was asked for");
        }
        inner.order = Some(Order {
            id: request.id.clone(),
            which,
            time: now.checked_sub(ago),
            dry_run: request.dry_run,
        });
        inner.remember(Known { request: Some(request), report: report.clone() });
        self.asked.store(true, Ordering::Release);
        Ok((report, true))
    }

    /// The rewind of this id.
    pub fn get(&self, id: &str) -> Option<Report> {
        lock(&self.inner).known.iter().find(|known| known.report.id == id).map(|known| known.report.clone())
    }

    /// Those that are remembered, the newest last, without their partitions.
    pub fn summaries(&self) -> Vec<serde_json::Value> {
        lock(&self.inner).known.iter().map(|known| known.report.summary()).collect()
    }

    /// What the source's thread is to do, once.
    pub(crate) fn take(&self) -> Option<Order> {
        if !self.asked.swap(false, Ordering::AcqRel) {
            return None;
        }
        lock(&self.inner).order.take()
    }

    /// The source's thread tells how far it is.
    pub(crate) fn update(&self, id: &str, change: impl FnOnce(&mut Report)) {
        if let Some(known) = lock(&self.inner).known.iter_mut().find(|known| known.report.id == id) {
            change(&mut known.report);
        }
    }

    /// The source's thread has told of several partitions: it may be over.
    pub(crate) fn settle(&self) {
        let going = |known: &&mut Known| known.report.state == State::Going;
        if let Some(known) = lock(&self.inner).known.iter_mut().find(going) {
            known.report.settle();
            if known.report.state == State::Done {
                tracing::info!(
                    link = self.config.link.name.as_str(),
                    id = known.report.id,
                    records = known.report.records,
                    partitions = known.report.partitions.len(),
                    "a rewind is done: its partitions are read again"
                );
            }
        }
    }

    /// What a pause brought back: remembered beside the rewinds.
    pub(crate) fn tell(&self, report: Report) {
        lock(&self.inner).remember(Known { request: None, report });
    }
}

impl Inner {
    fn remember(&mut self, known: Known) {
        self.known.push_back(known);
        let partitions = |known: &VecDeque<Known>| -> usize {
            known.iter().map(|known| known.report.partitions.len()).sum()
        };
        while self.known.len() > REMEMBERED
            || (self.known.len() > 1 && partitions(&self.known) > REMEMBERED_PARTITIONS)
        {
            self.known.pop_front();
        }
    }
}

/// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
