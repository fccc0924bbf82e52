//! `ddc replay`: sends again what is missing at the destination, exactly that.
//!
//! Through the running ingress, by its admin listener; or, with `--offline`, by itself.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use ddc_proxy::admin::client::Place;
use ddc_proxy::config::{self, ByteSize, Config, IngressConfig, Loaded};
use ddc_proxy::gaps::GapFile;
use ddc_proxy::replay::{Asked, DryRun, MAX_RANGES, Report, Request, State, dry_run, of_gap_file, offline};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::admin::{ask, new_id, place, read};
use super::print;
use super::replay_text::{Known, dry, line, progress, summary};
use super::serve::{identity, start_log};
use crate::exit::{Exit, Failure};

/// Send records again that are missing at the destination
///
/// Takes ranges of offsets, or a gap file that was exported at the egress and carried here. Exactly these offsets are read
/// again, without touching the consumer group, and sent beside the live records, at half of the link's rate at most. The
/// egress writes what is missing there and skips the rest, so a replay may be repeated. What Kafka has deleted or compacted
/// meanwhile is named, and the gap is closed at the egress.
///
/// Exit code 69 when the replay did not come to its end, or the ingress does not answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The ingress's configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: PathBuf,
    /// The topic of a range; repeat it with --partition, --from and --to for several ranges
    #[arg(long = "topic", value_name = "TOPIC", requires_all = ["partitions", "from", "to"])]
    topics: Vec<String>,
    /// The partition of a range
    #[arg(long = "partition", value_name = "NUMBER", requires = "topics", allow_negative_numbers = true)]
    partitions: Vec<i32>,
    /// The first offset of a range
    #[arg(long, value_name = "OFFSET", requires = "topics", allow_negative_numbers = true)]
    from: Vec<i64>,
    /// The last offset of a range, included
    #[arg(long, value_name = "OFFSET", requires = "topics", allow_negative_numbers = true)]
    to: Vec<i64>,
    /// A gap file (JSON or CSV) of this link's egress: every range in it that is still missing, as several replays one after
    /// the other if there are more than 20,000
    #[arg(long, value_name = "FILE", conflicts_with = "topics")]
    gaps: Option<PathBuf>,
    /// Say what would be sent, how much is gone, and how long it takes; send nothing
    #[arg(long, conflicts_with_all = ["offline", "cancel", "detach"])]
    dry_run: bool,
    /// Send by itself, under the lock of the link's state directory: for an ingress that does not run
    #[arg(long, conflicts_with_all = ["cancel", "detach"])]
    offline: bool,
    /// A name for this replay: the same name again is the same replay, whose progress is shown, not another one
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// For whom it is, for the audit log
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
    /// End the replay of this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["topics", "gaps", "id"])]
    cancel: Option<String>,
    /// Show the replays that the ingress knows, or the one of this name, range by range
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["topics", "gaps", "id", "by", "cancel", "dry_run", "offline", "detach"])]
    status: Option<String>,
}

/// Between two looks at a replay.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two lines about it.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long an ingress may not answer while its replay is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(id) = &arguments.status {
        return status(&place(&arguments.file)?, id);
    }
    if let Some(id) = &arguments.cancel {
        let place = place(&arguments.file)?;
        let report: Report = read(&place, &ask(&place, "DELETE", &format!("/v1/replay/{id}"), None)?)?;
        let state = report.state.as_str();
        return print(&format!("replay {id} is ended (it was {state}); what was sent stays sent\n"));
    }
    let Loaded { config, .. } = config::load_ingress(&arguments.file)
        .map_err(|error| Failure { exit: Exit::Config, lines: error.lines() })?;
    let requests = split(&Request {
        id: arguments.id.clone().unwrap_or_else(new_id),
        by: arguments.by.clone(),
        ranges: ranges(arguments, &config)?,
    });
    // Said here with the exit code of a wrong command line, and before anything is sent; whoever sends it checks it too.
    let usage = |why: String| Failure::new(Exit::Usage, why);
    requests
        .iter()
        .try_for_each(|request| request.check(&config).map(drop))
        .map_err(|error| usage(error.to_string()))?;
    if arguments.detach && requests.len() > 1 {
        let text = format!("these are {} replays, one after the other: leave --detach away", requests.len());
        return Err(usage(text));
    }
    if arguments.offline {
        return by_itself(&config, requests);
    }
    for request in &requests {
        if arguments.dry_run {
            let found: DryRun = dry_run(&config, request).map_err(|error| unavailable(&error))?;
            print(&dry(&found))?;
        } else {
            through_ingress(&arguments.file, request, arguments.detach)?;
        }
    }
    Ok(())
}

/// As many requests as it takes, the first with the id itself.
fn split(request: &Request) -> Vec<Request> {
    let named =
        |part: usize| if part == 0 { request.id.clone() } else { format!("{}-{}", request.id, part + 1) };
    let chunks = request.ranges.chunks(MAX_RANGES).enumerate();
    chunks
        .map(|(part, ranges)| Request { id: named(part), by: request.by.clone(), ranges: ranges.to_vec() })
        .collect()
}

/// What the command line names.
fn ranges(arguments: &Arguments, config: &IngressConfig) -> Result<Vec<Asked>, Failure> {
    let usage = |why: String| Failure::new(Exit::Usage, why);
    if let Some(path) = &arguments.gaps {
        let wrong = |error: &dyn std::fmt::Display| usage(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(|error| wrong(&super::words(&error)))?;
        let file = GapFile::read(file).map_err(|error| wrong(&error))?;
        return of_gap_file(&file, config).map_err(|error| wrong(&error));
    }
    let Arguments { topics, partitions, from, to, .. } = arguments;
    let counts = [partitions.len(), from.len(), to.len()];
    if counts.iter().any(|count| *count != topics.len()) {
        return Err(usage(format!(
            "each range needs --topic, --partition, --from and --to: there are {} topics, {} partitions, {} first and {} last offsets",
            topics.len(),
            counts[0],
            counts[1],
            counts[2]
        )));
    }
    let parts = topics.iter().zip(partitions).zip(from).zip(to);
    let range = |(((topic, partition), from), to): (((&String, &i32), &i64), &i64)| Asked {
        stream: String::new(),
        topic: topic.clone(),
        topic_id: None,
        partition: *partition,
        from: *from,
        to: *to,
    };
    let ranges: Vec<Asked> = parts.map(range).collect();
    if ranges.is_empty() {
        return Err(usage("name a range (--topic, --partition, --from, --to) or a gap file (--gaps)".into()));
    }
    Ok(ranges)
}

fn by_itself(config: &IngressConfig, requests: Vec<Request>) -> Result<(), Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&cancel))
            .map_err(|error| Failure::new(Exit::Internal, format!("signal {signal}: {error}")))?;
    }
    // The audit trail of the link is where its ingress writes it.
    let side = Config::Ingress(config.clone());
    let log = start_log(Some(&side), &identity(Some(&side)), &Arc::default())?;
    // The owner of a process's own entry is its user.
    let user = std::fs::metadata("/proc/self").map_or(0, |entry| entry.uid());
    let by = format!("uid {user} pid {}", std::process::id());
    for request in requests {
        let report = offline(config.clone(), request, &by, &cancel, |report| {
            // Its end is told once, below. Who does not read the progress does not want it.
            if !report.state.is_over() {
                let _ = print(&progress(report));
            }
        });
        end(&report.map_err(|error| unavailable(&error))?)?;
    }
    drop(log);
    Ok(())
}

fn through_ingress(file: &Path, request: &Request, detach: bool) -> Result<(), Failure> {
    let place = place(file)?;
    // Names and numbers only, which always can be written.
    let body = serde_json::to_vec(request).unwrap_or_default();
    let mut report: Report = read(&place, &ask(&place, "POST", "/v1/replay", Some(&body))?)?;
    print(&format!("replay {}: {} offsets in {} ranges\n", report.id, report.offsets, report.ranges.len()))?;
    if detach {
        return Ok(());
    }
    let (path, mut told, mut heard) = (format!("/v1/replay/{}", request.id), Instant::now(), Instant::now());
    while !report.state.is_over() {
        thread::sleep(LOOK_EVERY);
        match ask(&place, "GET", &path, None) {
            Ok(answer) => {
                report = read(&place, &answer)?;
                heard = Instant::now();
            }
            Err(mut failure) if heard.elapsed() > PATIENCE => {
                let id = &request.id;
                failure.lines.push(format!(
                    "replay {id} is kept, and goes on when the ingress runs again; look then: ddc replay -c {} --status {id}",
                    file.display()
                ));
                return Err(failure);
            }
            Err(_) => {}
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            print(&progress(&report))?;
        }
    }
    end(&report)
}

/// What the ingress knows; the newest last.
fn status(place: &Place, id: &str) -> Result<(), Failure> {
    if !id.is_empty() {
        let report: Report = read(place, &ask(place, "GET", &format!("/v1/replay/{id}"), None)?)?;
        return print(&summary(&report));
    }
    let known: Known = read(place, &ask(place, "GET", "/v1/replay", None)?)?;
    if known.replays.is_empty() {
        return print("no replay is known\n");
    }
    print(&known.replays.iter().map(line).collect::<String>())
}

/// Prints how it ended.
fn end(report: &Report) -> Result<(), Failure> {
    print(&summary(report))?;
    match report.state {
        State::Done => Ok(()),
        state => {
            let problem = report.problem.as_deref().unwrap_or("what was sent stays sent");
            let line = format!("replay {}: {}: {problem}", report.id, state.as_str());
            Err(Failure::new(Exit::Unavailable, line))
        }
    }
}

fn unavailable(error: &anyhow::Error) -> Failure {
    Failure::new(Exit::Unavailable, format!("{error:#}"))
}

/// Bytes for people.
pub(super) fn bytes(count: u64) -> String {
    ByteSize(count).rounded().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_ranges_than_one_replay_takes_are_several() {
        let range = |from| Asked {
            stream: String::new(),
            topic: "orders".into(),
            topic_id: None,
            partition: 0,
            from,
            to: from,
        };
        let of = |count: i64| {
            let ranges = (0..count).map(|number| range(2 * number)).collect();
            split(&Request { id: "case".into(), by: Some("ops".into()), ranges })
        };
        let most = MAX_RANGES as i64;
        assert_eq!(of(most).iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["case"]);
        let three = of(2 * most + 1);
        assert_eq!(three.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["case", "case-2", "case-3"]);
        assert_eq!(
            three.iter().flat_map(|one| &one.ranges).map(|one| one.from / 2).collect::<Vec<_>>(),
            (0..=2 * most).collect::<Vec<_>>()
        );
        assert!(three.iter().all(|one| one.ranges.len() <= MAX_RANGES && one.by.is_some()));
    }
}
