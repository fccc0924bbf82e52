//! `ddc gaps`: what is missing at a destination, from the gap journal of its egress.
//!
//! ```text
//!  files ─▶ place ─▶ journal, read only ─▶ choice (link, state, topic, time) ─▶ table | JSON | CSV | one gap
//! ```
//!
//! It stands beside the line and only reads, whether the egress runs or not: no lock, no admin listener, no key.

#[cfg(test)]
mod docs_test;
mod one;
mod table;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ddc_proxy::config::{self, Place, Side, Span};
use ddc_proxy::gaps::journal::{self, JournalError};
use ddc_proxy::gaps::{Counts, Gap, GapFile, GapFileError, GapState, Timestamp};

use super::{print, words};
use crate::exit::{Exit, Failure};

/// List, show or export what is missing at the destination
///
/// Reads the gap journal of an egress, which need not run. Give the egress's configuration file; its keys are not read.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List gaps: which offsets, why, since when, how many are still missing
    List {
        #[command(flatten)]
        choice: Choice,
        /// A table for people; json and csv are a gap file, as of `export`
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Show all of one gap, and what to type at the source side to bring it over
    Show {
        #[command(flatten)]
        source: Source,
        /// The gap's id, or its first digits
        #[arg(value_name = "ID", value_parser = id_prefix)]
        id: String,
    },
    /// Write a gap file to carry to the source side, where `ddc replay` reads it
    Export {
        #[command(flatten)]
        choice: Choice,
        /// JSON, or CSV for spreadsheets and for gateways that let no JSON pass
        #[arg(long, value_enum, default_value_t = FileFormat::Json)]
        format: FileFormat,
        /// The file to write, whole or not at all; standard output without it, and for "-"
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Whose gaps.
#[derive(Debug, clap::Args)]
struct Source {
    /// The egress's configuration file; may be given several times
    #[arg(short = 'c', long = "config", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only the link of this name
    #[arg(long, value_name = "NAME")]
    link: Option<String>,
}

/// Which gaps.
#[derive(Debug, clap::Args)]
struct Choice {
    #[command(flatten)]
    source: Source,
    /// Also those that are closed; without it, what is open or was given up
    #[arg(long, conflicts_with = "open")]
    all: bool,
    /// Only what is open: missing, and taken when it comes
    #[arg(long)]
    open: bool,
    /// Only this topic of the source
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only what was found since: a time span back from now (2h, 7d) or a time such as 2026-03-01T08:15:30.250Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FileFormat {
    Json,
    Csv,
}

/// The gaps of one link.
struct LinkGaps {
    place: Place,
    gaps: Vec<Gap>,
    counts: Counts,
    /// What a person should know about the journal.
    remark: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.what {
        What::List { choice, format: Format::Table } => {
            let links = choice.gaps()?;
            print(&table::table(&links))
        }
        What::List { choice, format } => {
            let format = if *format == Format::Csv { FileFormat::Csv } else { FileFormat::Json };
            print_bytes(&choice.file(format)?)
        }
        What::Show { source, id } => print(&one::page(&source.read()?, id)?),
        What::Export { choice, format, output } => {
            let bytes = choice.file(*format)?;
            match output {
                Some(path) if path.as_os_str() != "-" => write(path, &bytes),
                _ => print_bytes(&bytes),
            }
        }
    }
}

impl Choice {
    /// The gaps that were asked for, found longest ago first.
    fn gaps(&self) -> Result<Vec<LinkGaps>, Failure> {
        let mut links = self.source.read()?;
        for link in &mut links {
            link.gaps.retain(|gap| self.wants(gap));
        }
        Ok(links)
    }

    fn wants(&self, gap: &Gap) -> bool {
        let state = match gap.state {
            GapState::Open => true,
            GapState::GivenUp => !self.open,
            GapState::Closed => self.all,
        };
        state
            && self.topic.as_ref().is_none_or(|topic| *topic == gap.topic)
            && self.since.is_none_or(|since| gap.found_at >= since)
    }

    /// A gap file; it is of one link.
    fn file(&self, format: FileFormat) -> Result<Vec<u8>, Failure> {
        let mut links = self.gaps()?;
        let link = links.pop().filter(|_| links.is_empty());
        let Some(LinkGaps { place, gaps, remark, .. }) = link else {
            let line = "a gap file is of one link; say which, with --link NAME";
            return Err(Failure::new(Exit::Usage, line));
        };
        if let Some(remark) = remark {
            // Not into the file, and it is no failure.
            super::remark(&remark);
        }
        let Place { link, link_id, site, .. } = place;
        let file = GapFile { site, link, link_id, exported_at: Timestamp::now(), gaps };
        let written = match format {
            FileFormat::Json => file.to_json(),
            FileFormat::Csv => file.to_csv(),
        };
        written.map_err(|error| {
            let exit = match error {
                GapFileError::TooLarge | GapFileError::TooMany { .. } | GapFileError::Csv { .. } => {
                    Exit::Usage
                }
                _ => Exit::Internal,
            };
            Failure::new(exit, error.to_string())
        })
    }
}

impl Source {
    fn read(&self) -> Result<Vec<LinkGaps>, Failure> {
        let mut links = Vec::new();
        for file in &self.files {
            let place = config::load_place(file)
                .map_err(|error| Failure { exit: Exit::Config, lines: error.lines() })?;
            if place.side != Side::Egress {
                let line = format!(
                    "{}: configures an ingress; what is missing is known at the egress: name its file",
                    file.display()
                );
                return Err(Failure::new(Exit::Config, line));
            }
            if self.link.as_ref().is_none_or(|link| link == place.link.as_str()) {
                links.push(LinkGaps::read(place)?);
            }
        }
        match &self.link {
            Some(link) if links.is_empty() => {
                Err(Failure::new(Exit::Usage, format!("none of the files is of link {link:?}")))
            }
            _ => Ok(links),
        }
    }
}

impl LinkGaps {
    fn read(place: Place) -> Result<Self, Failure> {
        let link = place.link.as_str();
        let unavailable = |line: String| Err(Failure::new(Exit::Unavailable, format!("link {link}: {line}")));
        if !place.sealed {
            return unavailable(
                "with seal = \"none\" nothing that was received is written down; the running egress's /status has the gaps".into(),
            );
        }
        let found = match journal::read(&place.state_dir, link) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return unavailable(format!(
                    "no gap journal in {}: the egress has not run here yet, or has another state_dir",
                    place.state_dir.display()
                ));
            }
            Err(JournalError::Io { path, error }) if error.kind() == io::ErrorKind::PermissionDenied => {
                return unavailable(format!(
                    "{}: permission denied; run this as the egress's user (such as sudo -u ddc) or as root",
                    path.display()
                ));
            }
            Err(error) => return unavailable(error.to_string()),
        };
        let remark = (!found.damaged.is_empty()).then(|| {
            format!(
                "link {link}: {} lines of {} are damaged; what they said is not known",
                found.damaged.len(),
                place.state_dir.join(journal::FILE).display()
            )
        });
        let counts = found.book.counts();
        let mut gaps: Vec<Gap> = found.book.entries().map(|entry| entry.gap.clone()).collect();
        gaps.sort_by(|a, b| {
            (a.found_at, &a.topic, a.partition, a.first).cmp(&(b.found_at, &b.topic, b.partition, b.first))
        });
        Ok(Self { place, gaps, counts, remark })
    }
}

/// Gap files are ASCII: names are, and the rest is ours.
fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    print(&String::from_utf8_lossy(bytes))
}

/// Beside its place first: whoever carries the file never has half of one.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let written = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&beside);
        Failure::new(Exit::Unavailable, format!("{}: {}", path.display(), words(&error)))
    })
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let span: Span = text
        .parse()
        .map_err(|_| "neither a time span (2h, 7d) nor a time such as 2026-03-01T08:15:30.250Z".to_owned())?;
    let back = |span: Duration| Timestamp::now().millis().saturating_sub(span.as_millis() as u64);
    Ok(Timestamp::from_millis(back(span.0)))
}

fn id_prefix(text: &str) -> Result<String, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if digits && (4..=32).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("an id is 32 hexadecimal digits in lower case; 4 of them or more, as far as they are unique"
            .to_owned())
    }
}
