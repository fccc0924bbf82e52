//! `ddc pause` and `ddc resume`: an ingress stops reading, for as long as somebody wants it to.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use ddc_proxy::admin::client::Place;
use ddc_proxy::pause::{Request, Requester};
use ddc_proxy::rewind;
use serde::Deserialize;

use super::admin::{ask, new_id, place, read};
use super::print;
use super::rewind::{end, past, rewind};
use crate::exit::{Exit, Failure};

/// Stop an ingress from reading until `ddc resume`; Kafka keeps the records
///
/// It leaves its consumer group: other members get its partitions, or they wait. Heartbeats go on. The pause holds over
/// restarts. Several requesters (`--by`) may pause; reading goes on when each of them has withdrawn.
///
/// Exit code 69 when the ingress does not answer, or has not left the group within a minute (it is paused all the same).
#[derive(Debug, clap::Args)]
pub(crate) struct PauseArguments {
    /// The ingress's configuration file, of which only the admin listener counts
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: PathBuf,
    /// When reading goes on, begin where it was so long ago (20s), or then (2026-03-01T08:15:30Z): what was sent since goes
    /// again, through whoever reads the partition next
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = past)]
    since: Option<String>,
    /// Who pauses: only by that name it is withdrawn
    #[arg(long, value_name = "NAME", default_value = ddc_proxy::pause::OPERATOR)]
    by: String,
    /// The number of this order: a later one with a lower number is refused
    #[arg(long, value_name = "NUMBER")]
    fence: Option<u64>,
    /// Say what --since would bring back; do nothing
    #[arg(long, requires = "since")]
    dry_run: bool,
}

/// Withdraw a pause; reading goes on when it was the last one
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArguments {
    /// The ingress's configuration file, of which only the admin listener counts
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: PathBuf,
    /// Who had paused
    #[arg(long, value_name = "NAME", default_value = ddc_proxy::pause::OPERATOR)]
    by: String,
    /// The number of this order: a later one with a lower number is refused
    #[arg(long, value_name = "NUMBER")]
    fence: Option<u64>,
    /// Withdraw for all who have paused
    #[arg(long)]
    all: bool,
}

/// Between two looks at a pause.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long its end is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// The answer, as far as it is used.
#[derive(Debug, Deserialize)]
struct Status {
    paused: bool,
    state: String,
    requesters: Vec<Requester>,
    kept_offsets: usize,
}

pub(crate) fn pause(arguments: &PauseArguments) -> Result<(), Failure> {
    let place = place(&arguments.file)?;
    if let Some(since) = arguments.since.as_ref().filter(|_| arguments.dry_run) {
        let request = rewind::Request {
            id: new_id(),
            by: Some(arguments.by.clone()),
            since: since.clone(),
            topics: Vec::new(),
            partitions: Vec::new(),
            dry_run: true,
        };
        return end(&rewind(&place, &request)?);
    }
    let request = Request {
        by: Some(arguments.by.clone()),
        fence: arguments.fence,
        since: arguments.since.clone(),
        all: false,
    };
    let status = order(&place, "/v1/pause", &request)?;
    let mut text = match (status.state.as_str(), &arguments.since) {
        // Somebody may have withdrawn it in the same moment.
        ("paused", _) => format!("paused by {}; heartbeats go on, Kafka keeps the records\n", names(&status)),
        (state, _) => format!("the pause is ordered and on disk; the ingress is {state}\n"),
    };
    if arguments.since.is_some() {
        text += &brought_back(&place)?;
    }
    if status.kept_offsets > 0 {
        let kept = status.kept_offsets;
        text.push_str(&kept.to_string());
        text.push_str(" partitions could not be committed where they go back to: that is kept here for the resumption\n");
    }
    print(&text)?;
    if status.state == "pausing" {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("{place}: it has not left its group yet; look: ddc top"),
        ));
    }
    Ok(())
}

pub(crate) fn resume(arguments: &ResumeArguments) -> Result<(), Failure> {
    let place = place(&arguments.file)?;
    let request =
        Request { by: Some(arguments.by.clone()), fence: arguments.fence, since: None, all: arguments.all };
    let status = order(&place, "/v1/resume", &request)?;
    if status.paused {
        return print(&format!("withdrawn; it stays paused by {}\n", names(&status)));
    }
    print("not paused: it joins its group and reads what it gets\n")
}

/// What the last pause has brought back, in a sentence.
fn brought_back(place: &Place) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Rewinds {
        rewinds: Vec<Summary>,
    }
    #[derive(Deserialize)]
    struct Summary {
        id: String,
        records: u64,
        partitions: u64,
        partitions_not_so_far: u64,
        problem: Option<String>,
    }
    let answer = ask(place, "GET", "/v1/rewind", None)?;
    let rewinds: Rewinds = read(place, &answer)?;
    let last = rewinds.rewinds.into_iter().rfind(|one| one.id.starts_with("pause-"));
    Ok(match last {
        None => String::new(),
        Some(Summary { problem: Some(problem), .. }) => format!("note: {problem}\n"),
        Some(Summary { records, partitions, partitions_not_so_far: short, .. }) => {
            let short = if short > 0 {
                format!("; {short} of them not as far back as asked: its reading or the history began later")
            } else {
                String::new()
            };
            format!("{records} records of {partitions} partitions go again when they are read next{short}\n")
        }
    })
}

fn order(place: &Place, path: &str, request: &Request) -> Result<Status, Failure> {
    // Names and numbers only, which always can be written.
    let body = serde_json::to_vec(request).unwrap_or_default();
    let mut answer = ask(place, "POST", path, Some(&body))?;
    let begun = Instant::now();
    loop {
        let status: Status = read(place, &answer)?;
        if status.state != "pausing" || begun.elapsed() > PATIENCE {
            return Ok(status);
        }
        thread::sleep(LOOK_EVERY);
        answer = ask(place, "GET", "/v1/pause", None)?;
    }
}

fn names(status: &Status) -> String {
    let names: Vec<&str> = status.requesters.iter().map(|requester| requester.by.as_str()).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}
