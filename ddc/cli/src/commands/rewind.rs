//! `ddc rewind`: an ingress goes back to where it was some time ago, and what it has sent since goes again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ddc_proxy::admin::client::Place;
use ddc_proxy::rewind::{
    Named, PartitionReport, PartitionState, Report, Request, RequestError, State, since,
};
use ddc_proxy::source::history::Reach;

use super::admin::{ask, new_id, place, read};
use super::print;
use crate::exit::{Exit, Failure};

/// Go back to where the ingress was some time ago: what it has sent since goes again
///
/// For records that went to an egress that was dead, or lost what it had. Each partition is read again from the offset that was
/// next at that time, under a new epoch; the egress skips what it has. How far back it can go, says `history` in
/// [source.kafka]. For exact ranges, and for older ones, there is `ddc replay`.
///
/// Exit code 69 when nothing went back, or the ingress does not answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The ingress's configuration file, of which only the admin listener counts
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: PathBuf,
    /// How long ago (20s, 5min), or when (2026-03-01T08:15:30Z)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = past)]
    since: String,
    /// Only this topic; may be repeated. Without --topic and --partition: all that is read
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only this partition; may be repeated
    #[arg(long = "partition", value_name = "TOPIC:NUMBER", value_parser = partition)]
    partitions: Vec<Named>,
    /// Say what would go again, partition by partition; do nothing
    #[arg(long)]
    dry_run: bool,
    /// A name for this rewind: the same name again is the same rewind, not another one
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// For whom it is, for the audit log
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// Between two looks at a rewind.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long its end is waited for: the brokers acknowledge the new starts within seconds, if they answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// Partitions that are printed; all are in the answer of the admin listener.
const SHOWN: usize = 50;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = place(&arguments.file)?;
    let report = rewind(
        &place,
        &Request {
            id: arguments.id.clone().unwrap_or_else(new_id),
            by: arguments.by.clone(),
            since: arguments.since.clone(),
            topics: arguments.topics.clone(),
            partitions: arguments.partitions.clone(),
            dry_run: arguments.dry_run,
        },
    )?;
    end(&report)
}

/// Asks for a rewind and waits for its end.
pub(super) fn rewind(place: &Place, request: &Request) -> Result<Report, Failure> {
    // Names and numbers only, which always can be written.
    let body = serde_json::to_vec(request).unwrap_or_default();
    let mut report: Report = read(place, &ask(place, "POST", "/v1/rewind", Some(&body))?)?;
    let (path, begun) = (format!("/v1/rewind/{}", request.id), Instant::now());
    while !report.state.is_over() && begun.elapsed() < PATIENCE {
        thread::sleep(LOOK_EVERY);
        report = read(place, &ask(place, "GET", &path, None)?)?;
    }
    Ok(report)
}

/// Prints how it ended.
pub(super) fn end(report: &Report) -> Result<(), Failure> {
    print(&text(report))?;
    let unavailable = |why: &str| {
        Err(Failure::new(
            Exit::Unavailable,
            format!("rewind {}: {}: {why}", report.id, report.state.as_str()),
        ))
    };
    match (report.state, &report.problem) {
        (State::Done, _) => Ok(()),
        (State::Failed, Some(problem)) => unavailable(problem),
        _ => unavailable(
            "the brokers have not acknowledged all new starts yet; it goes on by itself: GET /v1/rewind",
        ),
    }
}

fn text(report: &Report) -> String {
    // Writing into a String cannot fail.
    let mut text = String::new();
    let all = &report.partitions;
    for one in all.iter().filter(|one| one.state != PartitionState::Unchanged).take(SHOWN) {
        text += &line(one);
    }
    let unchanged = all.iter().filter(|one| one.state == PartitionState::Unchanged).count();
    let hidden = (all.len() - unchanged).saturating_sub(SHOWN);
    if hidden > 0 {
        let _ = writeln!(text, "  and {hidden} more partitions");
    }
    if unchanged > 0 {
        let _ = writeln!(text, "  {unchanged} partitions stay: nothing of them was sent since");
    }
    if report.state != State::Failed {
        let verb = if report.dry_run { "would go" } else { "go" };
        let _ = writeln!(text, "{} records {verb} again; the egress skips those that it has", report.records);
    }
    if let (Some(problem), State::Done) = (&report.problem, report.state) {
        let _ = writeln!(text, "note: {problem}");
    }
    if all.iter().any(|one| one.reached == Reach::History) {
        text += "note: the history is not that long; what is missing of older records: ddc replay\n";
    }
    if report.dry_run {
        text += "nothing was done\n";
    }
    text
}

fn line(one: &PartitionReport) -> String {
    let mut line = format!(
        "  {}[{}] from {} back to {} ({} s ago): {} records",
        one.topic, one.partition, one.from, one.to, one.seconds, one.records
    );
    line += match one.reached {
        Reach::Time => "",
        Reach::Start => "; as far as this ingress has read it",
        Reach::History => "; as far as the history goes",
    };
    line += match one.state {
        PartitionState::Going => "; waits for the brokers",
        PartitionState::Taken => {
            "; another member of the group has it now, and goes on at the group's offset"
        }
        PartitionState::Elsewhere => {
            "; it began elsewhere (another owner or life of the topic meanwhile, or a truncated log)"
        }
        PartitionState::Kept => "; the group did not take that: it is kept for the resumption",
        PartitionState::Unchanged
        | PartitionState::Would
        | PartitionState::Done
        | PartitionState::Committed => "",
    };
    if let Some((first, last)) = one.deleted {
        let _ = write!(line, "; {first} to {last} are deleted in Kafka");
    }
    line + "\n"
}

/// As the ingress will read it by its own clock; a wrong one is said here, whether it runs or not.
pub(super) fn past(text: &str) -> Result<String, RequestError> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since(text, wall).map(|_| text.to_owned())
}

fn partition(text: &str) -> Result<Named, String> {
    let parsed = text.rsplit_once(':').and_then(|(topic, number)| Some((topic, number.parse::<i32>().ok()?)));
    match parsed.filter(|(topic, number)| !topic.is_empty() && *number >= 0) {
        Some((topic, partition)) => Ok(Named { topic: topic.to_owned(), partition }),
        None => Err("write the topic and the number, for example orders:3".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: State, partitions: Vec<PartitionReport>) -> Report {
        Report {
            id: "a".into(),
            by: "ops".into(),
            since: "20s".into(),
            dry_run: state == State::Done,
            state,
            problem: None,
            started_timestamp_seconds: 0,
            records: partitions.iter().map(|one| one.records).sum(),
            partitions,
        }
    }

    fn one(partition: i32, state: PartitionState, reached: Reach) -> PartitionReport {
        PartitionReport {
            topic: "orders".into(),
            partition,
            from: 260,
            to: 180,
            records: 80,
            reached,
            seconds: 21,
            state,
            deleted: None,
        }
    }

    #[test]
    fn it_is_told_partition_by_partition() {
        let all = vec![
            one(0, PartitionState::Would, Reach::Time),
            PartitionReport { deleted: Some((180, 199)), ..one(1, PartitionState::Would, Reach::History) },
            PartitionReport { records: 0, ..one(2, PartitionState::Unchanged, Reach::Time) },
        ];
        assert_eq!(
            text(&report(State::Done, all)),
            "  orders[0] from 260 back to 180 (21 s ago): 80 records\n  orders[1] from 260 back to 180 (21 s ago): 80 records; as far as the history goes; 180 to 199 are deleted in Kafka\n  1 partitions stay: nothing of them was sent since\n160 records would go again; the egress skips those that it has\nnote: the history is not that long; what is missing of older records: ddc replay\nnothing was done\n"
        );
        let many = (0..60).map(|number| one(number, PartitionState::Done, Reach::Start)).collect();
        let text = text(&report(State::Going, many));
        assert!(text.contains("and 10 more partitions") && text.lines().count() == 52, "{text}");
    }

    #[test]
    fn partitions_are_named_with_their_topic() {
        assert_eq!(partition("a:b:3").unwrap(), Named { topic: "a:b".into(), partition: 3 });
        for text in ["orders", "orders:", ":3", "orders:-1", "orders:3.5"] {
            assert!(partition(text).is_err(), "{text}");
        }
    }
}
