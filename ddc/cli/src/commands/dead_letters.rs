//! `ddc dead-letters`: what a side has refused and kept in its directory.
//!
//! ```text
//!  files ─▶ place ─▶ directory, read only ─▶ table | JSON lines | one letter
//! ```
//!
//! It stands beside the line and only reads, whether the link runs or not: no lock, no admin listener, no key. What a record
//! held is printed by `show --raw` alone.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ddc_proxy::config::{self, Place};
use ddc_proxy::dead_letters::letter::LeftOut;
use ddc_proxy::dead_letters::{Letter, StoreError, reading};
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::reasons::DeadLetterReason;

use super::{print, words};
use crate::exit::{Exit, Failure};

/// List or show records that were refused and kept as dead letters
///
/// Reads the directory of `[dead_letters]`, of either side; the link need not run. Give its configuration file; its keys are
/// not read. Dead letters in a topic are read with Kafka's own tools.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List dead letters, oldest first: which record, when, why; never what was in it
    List {
        #[command(flatten)]
        source: Source,
        /// Only this topic of the source
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        /// A table for people; json is a line for each letter
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Show one dead letter: all but what was in the record
    Show {
        #[command(flatten)]
        source: Source,
        /// The letter, as `list` names it: number of the file, a colon, line
        #[arg(value_name = "LETTER", value_parser = id)]
        id: Id,
        /// Print this of the record instead, byte by byte, and nothing else
        #[arg(long, value_enum, value_name = "PART")]
        raw: Option<Part>,
    },
}

/// Whose dead letters.
#[derive(Debug, clap::Args)]
struct Source {
    /// The configuration file of a link's side
    #[arg(short = 'c', long = "config", value_name = "FILE", required = true)]
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Key,
    Value,
}

/// A letter's file and line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    file: u32,
    line: u64,
}

/// The columns.
const TITLES: [&str; 8] = ["LETTER", "REFUSED", "REASON", "TOPIC", "PARTITION", "OFFSET", "BYTES", "ERROR"];
/// Numbers stand to the right.
const RIGHT: [bool; 8] = [false, false, false, false, true, true, true, false];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.what {
        What::List { source, topic, format } => {
            let directory = source.directory()?;
            let mut list = List::default();
            let wanted = |letter: &Letter| topic.as_ref().is_none_or(|topic| *topic == letter.source.topic);
            each(&directory, |id, letter| match letter {
                Ok(letter) if wanted(&letter) => list.add(id, &letter, *format),
                Ok(_) => {}
                Err(_) => list.unreadable.push(id),
            })?;
            list.print(*format)
        }
        What::Show { source, id, raw } => {
            let mut found = None;
            each(&source.directory()?, |at, letter| {
                if at == *id {
                    found = Some(letter);
                }
            })?;
            let letter = match found {
                Some(Ok(letter)) => letter,
                Some(Err(why)) => return Err(Failure::new(Exit::Unavailable, format!("{id}: {why}"))),
                None => {
                    let line = format!("there is no letter {id}; see: ddc dead-letters list");
                    return Err(Failure::new(Exit::Usage, line));
                }
            };
            match raw {
                Some(part) => print_raw(*id, &letter, *part),
                None => print(&page(*id, &letter)),
            }
        }
    }
}

impl Source {
    fn directory(&self) -> Result<PathBuf, Failure> {
        let place = config::load_place(&self.file)
            .map_err(|error| Failure { exit: Exit::Config, lines: error.lines() })?;
        let Place { link, dead_letters, .. } = place;
        dead_letters.ok_or_else(|| {
            let line = format!(
                "{}: link {link} has no `directory` in [dead_letters]; letters in a topic are read with Kafka's own tools",
                self.file.display()
            );
            Failure::new(Exit::Config, line)
        })
    }
}

/// Hands every line of every file to `take`.
fn each(
    directory: &Path,
    mut take: impl FnMut(Id, Result<Letter, ddc_proxy::dead_letters::line::BadLine>),
) -> Result<(), Failure> {
    let unavailable = |error: StoreError| Failure::new(Exit::Unavailable, error.to_string());
    for file in reading::files(directory).map_err(unavailable)? {
        reading::read(&file, |found| take(Id { file: found.file, line: found.line }, found.letter))
            .map_err(unavailable)?;
    }
    Ok(())
}

/// What `list` prints.
#[derive(Default)]
struct List {
    rows: Vec<[String; 8]>,
    lines: String,
    unreadable: Vec<Id>,
}

impl List {
    fn add(&mut self, id: Id, letter: &Letter, format: Format) {
        let source = &letter.source;
        if format == Format::Json {
            let LeftOut { key, value, headers } = letter.left_out;
            let line = serde_json::json!({
                "letter": id.to_string(), "refused_at": letter.refused_at, "link": letter.link,
                "side": letter.side.to_string(), "reason": letter.reason.as_str(), "error": letter.error,
                "destination_topic": letter.destination_topic, "stream": source.stream, "topic": source.topic,
                "topic_id": source.topic_id.to_string(), "partition": source.partition, "offset": source.offset,
                "timestamp": source.timestamp.map(ddc_wire::Timestamp::millis),
                "payload_bytes": letter.payload_bytes(),
                "left_out": { "key": key, "value": value, "headers": headers },
            });
            // Writing into a String cannot fail.
            let _ = writeln!(self.lines, "{line}");
            return;
        }
        self.rows.push([
            id.to_string(),
            letter.refused_at.to_string(),
            letter.reason.as_str().to_owned(),
            source.topic.clone(),
            source.partition.to_string(),
            source.offset.to_string(),
            format!("{}{}", letter.payload_bytes(), if letter.left_out.is_any() { "*" } else { "" }),
            letter.error.chars().take(80).collect(),
        ]);
    }

    fn print(self, format: Format) -> Result<(), Failure> {
        for id in &self.unreadable {
            super::remark(&format!("{id} cannot be read: the line is torn or was changed"));
        }
        if format == Format::Json {
            return print(&self.lines);
        }
        let titles = TITLES.map(str::to_owned);
        let width = |column: usize| {
            self.rows.iter().chain([&titles]).map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
        let mut text = String::new();
        for row in [&titles].into_iter().filter(|_| !self.rows.is_empty()).chain(&self.rows) {
            let cells = row.iter().zip(&widths).zip(RIGHT).map(|((cell, &width), right)| {
                if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        let unreadable = self.unreadable.len();
        let _ = writeln!(text, "{} dead letters, {unreadable} lines that cannot be read", self.rows.len());
        print(&text)
    }
}

fn page(id: Id, letter: &Letter) -> String {
    let mut page = String::new();
    let mut row = |label: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = writeln!(page, "{label:<13}{value}");
    };
    let source = &letter.source;
    row("letter", &id.to_string());
    row("refused", &format!("{} by {}/{}", letter.refused_at, letter.link, letter.side));
    let (name, meaning) = DeadLetterReason::SET.values[letter.reason.index()];
    row("reason", &format!("{name}: {meaning}"));
    row("error", &letter.error);
    if !source.stream.is_empty() {
        row("stream", &source.stream);
    }
    row("topic", &format!("{} (id {})", source.topic, source.topic_id));
    row("partition", &source.partition.to_string());
    row("offset", &source.offset.to_string());
    let time =
        source.timestamp.map_or_else(|| "none".to_owned(), |time| format!("{} ms since 1970", time.millis()));
    row("timestamp", &time);
    if let Some(topic) = &letter.destination_topic {
        row("destination", topic);
    }
    let length = |bytes: Option<&Vec<u8>>, left_out: Option<u64>| match (bytes, left_out) {
        (Some(bytes), _) => format!("{} bytes", bytes.len()),
        (None, Some(length)) => format!("left out, {length} bytes"),
        (None, None) => "null".to_owned(),
    };
    row("key", &length(letter.key.as_ref(), letter.left_out.key));
    row("value", &length(letter.value.as_ref(), letter.left_out.value));
    match letter.left_out.headers {
        Some(length) => row("headers", &format!("left out, {length} bytes")),
        None => row("headers", &letter.headers.len().to_string()),
    }
    page
}

fn print_raw(id: Id, letter: &Letter, part: Part) -> Result<(), Failure> {
    let (what, bytes, left_out) = match part {
        Part::Key => ("key", &letter.key, letter.left_out.key),
        Part::Value => ("value", &letter.value, letter.left_out.value),
    };
    let Some(bytes) = bytes else {
        let why = if left_out.is_some() { "was left out" } else { "is null" };
        return Err(Failure::new(Exit::Unavailable, format!("{id}: its {what} {why}")));
    };
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Internal, format!("standard output: {}", words(&error))))
        }
        _ => Ok(()),
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

fn id(text: &str) -> Result<Id, String> {
    let parsed = text
        .split_once(':')
        .and_then(|(file, line)| Some(Id { file: file.parse().ok()?, line: line.parse().ok()? }));
    parsed.ok_or_else(|| "a letter is named by file and line, as 1:2; see: ddc dead-letters list".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use clap::Parser as _;

    use super::*;

    const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dead-letters.md"));

    #[test]
    fn the_documented_commands_are_understood() {
        let commands: Vec<_> = PAGE.lines().filter(|line| line.starts_with("ddc dead-letters ")).collect();
        assert!(commands.len() >= 5, "{commands:?}");
        for command in commands {
            let words = command.split(['#', '>']).next().unwrap().split_whitespace();
            if let Err(error) = crate::Arguments::try_parse_from(words) {
                panic!("{command}: {error}");
            }
        }
    }

    /// Each reason and each header that there is stands on the page.
    #[test]
    fn the_page_names_every_reason_and_header() {
        use ddc_proxy::dead_letters::letter;
        for reason in DeadLetterReason::ALL {
            assert!(PAGE.contains(&format!("\n| `{}` |", reason.as_str())), "{}", reason.as_str());
        }
        for header in [
            letter::ERROR,
            letter::ERROR_TEXT,
            letter::REFUSED_AT,
            letter::REFUSED_BY,
            letter::DESTINATION_TOPIC,
            letter::SOURCE_TOPIC_ID,
            letter::SOURCE_TIMESTAMP,
            letter::SOURCE_TIMESTAMP_TYPE,
            letter::KEY_LEFT_OUT,
            letter::VALUE_LEFT_OUT,
            letter::HEADERS_LEFT_OUT,
        ] {
            assert!(PAGE.contains(&format!("`{header}`")), "{header}");
        }
    }

    #[test]
    fn a_letter_is_named_by_file_and_line() {
        assert_eq!(id("3:17"), Ok(Id { file: 3, line: 17 }));
        for wrong in ["", "3", "3:", ":3", "3:x", "-1:2", "3:2:1", "4294967296:1"] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }
}
