//! `ddc replay` at the ingress: offsets that are missing at the destination are read again and sent, exactly those.
//!
//! ```text
//!  POST /v1/replay ─▶ request ─▶ plan ─▶ reading ─▶ slices ─▶ port ─▶ source's outlet ─▶ link thread
//!  ddc replay --offline ──┘        └ Kafka ┘                    └▶ an outlet of its own ─▶ link thread
//! ```
//!
//! It reads with a consumer of its own that is a member of no group: the live chain, its commits and its order are left
//! alone. What it sends stands outside of the chain (`ddc_link::sender::ReplayPacker`); the egress writes of it only what
//! lies in a hole, so that a replay may be repeated.
//!
//! | module    | what it is for                                               |
//! |-----------|--------------------------------------------------------------|
//! | `request` | what is wanted, checked without asking a broker              |
//! | `plan`    | what can be read, what is gone                               |
//! | `reading` | ranges: read, packed, confirmed to be of the right topic     |
//! | `standing`| whether the next range is read on to, or begun anew         |
//! | `answer`  | what the reading gives, until it is confirmed               |
//! | `run`     | a replay's thread: range after range, again after losses     |
//! | `port`    | the way to the link beside live records: half of the rate    |
//! | `report`  | how far it is                                                |
//! | `kept`    | the same on disk, to go on after a restart                   |
//! | `offline` | without a running ingress                                    |
//! | `dry_run` | what would be sent                                           |

mod answer;
mod dry_run;
mod kept;
mod offline;
mod plan;
mod port;
mod reading;
mod report;
mod request;
mod run;
mod standing;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::exposition::LinkMetrics;

use crate::config::{IngressConfig, Source};
use crate::ingress::Shared;
use crate::state::{StateDir, StateError};
use kept::Keeper;

pub use answer::Stopped;
pub use dry_run::{DryRange, DryRun, dry_run};
pub use offline::offline;
pub use plan::{Gone, PlanError};
pub use port::ReplayOut;
pub(crate) use port::{ReplayIn, port};
pub use report::{Job, MAX_GONE, RangeReport, Report, State};
pub use request::{Asked, Checked, MAX_OFFSETS, MAX_RANGES, Request, RequestError, Wanted, of_gap_file};
pub(crate) use request::{Carried, is_name};

/// Replays that are remembered when they are over: the same id again is answered from them.
const REMEMBERED: usize = 16;
/// Their ranges together; the last replay is remembered whatever it has.
const REMEMBERED_RANGES: usize = 2 * MAX_RANGES;

/// The replays of a running ingress: one at a time, the last ones remembered until the process ends, the very last also
/// over restarts.
pub struct Replays {
    config: Arc<IngressConfig>,
    shared: Arc<Shared>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    /// `None`: the source is not Kafka.
    port: Option<ReplayIn>,
    keeper: Arc<Keeper>,
    /// Held while one begins, which writes to disk: who asks how far it is must not wait for that.
    beginning: Mutex<()>,
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    /// The newest last.
    known: VecDeque<Arc<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a replay does not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// What is wanted is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// One at a time.
    #[error("replay {0} is under way; wait for its end, or cancel it: DELETE /v1/replay/{0}")]
    Busy(String),
    /// The id was used for something else.
    #[error("replay {0} was asked for with other ranges; choose another id")]
    OtherRanges(String),
    /// The ingress ends.
    #[error("the ingress is stopping; ask again when it runs")]
    Stopping,
    /// It would not survive a restart, so it was not begun.
    #[error("the replay was not begun: {0}")]
    State(#[from] StateError),
    /// No thread.
    #[error("no thread can be started for the replay: {0}")]
    Thread(std::io::Error),
}

impl Replays {
    /// Takes up what a former run has left, and goes on with it if it was not at its end.
    pub(crate) fn open(
        config: Arc<IngressConfig>,
        shared: Arc<Shared>,
        metrics: Arc<LinkMetrics<IngressMetrics>>,
        port: Option<ReplayIn>,
        directory: Arc<StateDir>,
    ) -> Self {
        let (keeper, beginning) = (Arc::new(Keeper::new(directory)), Mutex::default());
        let replays = Self { config, shared, metrics, port, keeper, beginning, jobs: Mutex::default() };
        if replays.port.is_some() {
            replays.go_on();
        }
        replays
    }

    /// A file that cannot be used does not keep records from flowing.
    fn go_on(&self) {
        let link = self.config.link.name.as_str();
        let job = match self.keeper.take_up() {
            Ok(None) => return,
            Ok(Some(job)) => Arc::new(job),
            Err(error) => return self.keeper.refuse(link, &error),
        };
        if !job.state().is_over() {
            let begun = kept::wanted(&job, &self.config).map_err(BeginError::from).and_then(|checked| {
                tracing::warn!(link, id = job.request.id, "a replay of a former run goes on");
                self.start(&job, checked.ranges)
            });
            if let Err(error) = begun {
                tracing::error!(link, id = job.request.id, %error, "a replay of a former run does not go on");
                self.metrics.replays_failed.inc();
                job.end(State::Failed, Some(error.to_string()));
            }
        }
        lock(&self.jobs).remember(job);
    }

    fn start(&self, job: &Arc<Job>, wanted: Vec<Wanted>) -> Result<(), BeginError> {
        let link = self.config.link.name.as_str();
        let (Some(port), Source::Kafka(source)) = (&self.port, &self.config.source) else {
            return Err(RequestError::NoKafka(link.to_owned()).into());
        };
        let run = run::Run {
            config: Arc::clone(&self.config),
            source: (**source).clone(),
            wanted,
            job: Arc::clone(job),
            port: port.clone(),
            stop: Arc::clone(&self.shared),
            metrics: Some(Arc::clone(&self.metrics)),
            keeper: Some(Arc::clone(&self.keeper)),
        };
        let thread = std::thread::Builder::new().name(format!("ddc-rpl-{link}")).spawn(move || run.run());
        // The one before is over.
        lock(&self.jobs).thread = Some(thread.map_err(BeginError::Thread)?);
        Ok(())
    }

    /// Begins a replay, or finds the one of this id. `peer` is who asks, as the connection shows. `true`: it is new.
    pub fn begin(
        &self,
        request: Request,
        peer: &str,
        now_seconds: u64,
    ) -> Result<(Arc<Job>, bool), BeginError> {
        let checked = request.check(&self.config)?;
        let link = self.config.link.name.as_str();
        if self.port.is_none() {
            return Err(RequestError::NoKafka(link.to_owned()).into());
        }
        let _beginning = lock(&self.beginning);
        let known = self.all();
        if let Some(job) = known.iter().find(|job| job.request.id == request.id) {
            return if job.is(&request.ranges) {
                Ok((Arc::clone(job), false))
            } else {
                Err(BeginError::OtherRanges(request.id))
            };
        }
        if let Some(job) = known.iter().find(|job| !job.state().is_over()) {
            return Err(BeginError::Busy(job.request.id.clone()));
        }
        if self.shared.stop.load(Ordering::Relaxed) {
            return Err(BeginError::Stopping);
        }
        let by = request.by.as_ref().map_or_else(|| peer.to_owned(), |by| format!("{by} ({peer})"));
        let job = Arc::new(Job::new(request, &checked, by.clone(), now_seconds));
        self.keeper.begin(&job)?;
        let offsets: u64 = checked.ranges.iter().map(Wanted::offsets).sum();
        tracing::warn!(
            link,
            by,
            id = job.request.id,
            ranges = checked.ranges.len(),
            merged = checked.merged,
            offsets,
            "a replay was asked for"
        );
        if let Err(error) = self.start(&job, checked.ranges) {
            job.end(State::Failed, Some(error.to_string()));
            // Else it would begin after a restart. The answer is the first error all the same.
            let _ = self.keeper.keep(&job);
            return Err(error);
        }
        lock(&self.jobs).remember(Arc::clone(&job));
        Ok((job, true))
    }

    /// The replay of this id.
    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        lock(&self.jobs).known.iter().find(|job| job.request.id == id).cloned()
    }

    /// Those that are remembered, the newest last.
    pub fn all(&self) -> Vec<Arc<Job>> {
        lock(&self.jobs).known.iter().cloned().collect()
    }

    /// Ends a replay before its time, also over a restart; what was sent stays sent. `None`: there is none of this id.
    pub fn cancel(&self, id: &str, peer: &str) -> Result<Option<Arc<Job>>, StateError> {
        let Some(job) = self.get(id) else { return Ok(None) };
        if !job.state().is_over() {
            tracing::warn!(link = self.config.link.name.as_str(), by = peer, id, "a replay was cancelled");
            job.cancel();
            self.keeper.keep(&job)?;
        }
        Ok(Some(job))
    }

    /// Waits for the thread, which ends by itself once the ingress stops.
    pub(crate) fn join(&self) -> bool {
        let thread = lock(&self.jobs).thread.take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

impl Jobs {
    fn remember(&mut self, job: Arc<Job>) {
        self.known.push_back(job);
        let ranges =
            |known: &VecDeque<Arc<Job>>| -> usize { known.iter().map(|job| job.request.ranges.len()).sum() };
        while self.known.len() > REMEMBERED
            || (self.known.len() > 1 && ranges(&self.known) > REMEMBERED_RANGES)
        {
            self.known.pop_front();
        }
    }
}

/// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
