//! The file that people carry from the destination to the source: what is missing, exactly.
//!
//! ```json
//! {
//!   "kind": "ddc-gaps", "format": 1,
//!   "site": "north", "link": "plant-a", "link_id": 1, "exported_at": "2026-03-01T08:15:30.250Z",
//!   "gaps": [
//!     { "id": "…", "session": "…", "stream": "", "topic": "orders", "topic_id": "…", "partition": 3,
//!       "first": 100, "last": 199, "records": 100, "reason": "lost", "found_at": "…", "state": "open",
//!       "closed_at": null, "open": [[100, 119], [130, 199]], "given_up": [] }
//!   ]
//! }
//! ```
//!
//! It crosses a border between sites, so it is read strictly: each key must be there and no other, nothing may
//! contradict itself, and it is bounded by [`MAX_FILE_BYTES`] and [`MAX_GAPS`] before anything is built of it.

use std::collections::HashMap;
use std::io::{self, Read};

use ddc_wire::LinkId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Gap, GapId, GapProblem, Timestamp, text};
use crate::config::{LinkName, SiteName};

/// What `kind` says.
pub const KIND: &str = "ddc-gaps";
/// The version of the file's format.
pub const FORMAT: u32 = 1;
/// Largest file that is read or written, in bytes.
pub const MAX_FILE_BYTES: usize = 64 << 20;
/// Most gaps in a file.
pub const MAX_GAPS: usize = 100_000;

/// Gaps of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapFile {
    /// The egress's `[telemetry] site`, if it has one.
    pub site: Option<SiteName>,
    /// The link's name at the egress.
    pub link: LinkName,
    /// The link's number, equal on both sides.
    pub link_id: LinkId,
    /// When it was written.
    pub exported_at: Timestamp,
    /// At most [`MAX_GAPS`]; no two of a partition overlap.
    pub gaps: Vec<Gap>,
}

impl GapFile {
    /// Reads a file to its end, as JSON or CSV: JSON begins with `{`.
    pub fn read(source: impl Read) -> Result<Self, GapFileError> {
        let mut bytes = Vec::new();
        source.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(GapFileError::Read)?;
        Self::parse(&bytes)
    }

    /// As [`Self::read`], of bytes at hand.
    pub fn parse(bytes: &[u8]) -> Result<Self, GapFileError> {
        let begin = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if begin == Some(&b'{') { Self::parse_json(bytes) } else { Self::parse_csv(bytes) }
    }

    /// Reads JSON.
    pub fn parse_json(bytes: &[u8]) -> Result<Self, GapFileError> {
        bounded(bytes.len())?;
        // First what it is: another format may have other keys.
        let head: Head = serde_json::from_slice(bytes).map_err(|error| json(&error))?;
        match (head.kind.as_ref().and_then(|kind| kind.as_str()), head.format.as_ref()) {
            (Some(KIND), Some(format)) if format.as_u64() == Some(FORMAT.into()) => {}
            (Some(KIND), Some(format)) => return Err(GapFileError::Format { found: short(format) }),
            _ => return Err(GapFileError::Kind),
        }
        let written: Written = serde_json::from_slice(bytes).map_err(|error| json(&error))?;
        let Written { kind: _, format: _, site, link, link_id, exported_at, gaps } = written;
        let head = FileHead::parse(site.as_deref(), &link, link_id, exported_at)?;
        head.file(gaps)
    }

    /// Writes JSON: one gap a line.
    pub fn to_json(&self) -> Result<Vec<u8>, GapFileError> {
        self.check()?;
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!(
            "{{\n\"kind\": {}, \"format\": {FORMAT},\n\"site\": {}, \"link\": {}, \"link_id\": {}, \"exported_at\": {},\n\"gaps\": [",
            quoted(KIND),
            self.site.as_ref().map_or_else(|| "null".to_owned(), |site| quoted(site.as_str())),
            quoted(self.link.as_str()),
            self.link_id,
            quoted(&self.exported_at.to_string()),
        )
        .into_bytes();
        for (number, gap) in self.gaps.iter().enumerate() {
            text.extend_from_slice(if number == 0 { b"\n" } else { b",\n" });
            serde_json::to_writer(&mut text, gap).map_err(|error| json(&error))?;
            bounded(text.len())?;
        }
        text.extend_from_slice(b"\n]\n}\n");
        bounded(text.len())?;
        Ok(text)
    }

    /// Whether it is free of contradictions; what is read and what is written is.
    pub fn check(&self) -> Result<(), GapFileError> {
        if self.gaps.len() > MAX_GAPS {
            return Err(GapFileError::TooMany { found: self.gaps.len() });
        }
        let mut numbers = HashMap::with_capacity(self.gaps.len());
        for (at, gap) in self.gaps.iter().enumerate() {
            let number = at + 1;
            gap.check(self.link.as_str()).map_err(|problem| GapFileError::Gap {
                number,
                id: gap.id,
                problem,
            })?;
            if let Some(other) = numbers.insert(gap.id, number) {
                return Err(GapFileError::Twice { number, other, id: gap.id });
            }
        }
        let place = |at: &usize| {
            let gap = &self.gaps[*at];
            (&gap.stream, &gap.topic, gap.topic_id, gap.partition, gap.first)
        };
        let mut order: Vec<usize> = (0..self.gaps.len()).collect();
        order.sort_by(|a, b| place(a).cmp(&place(b)));
        for pair in order.windows(2) {
            let (one, next) = (&self.gaps[pair[0]], &self.gaps[pair[1]]);
            let same = one.stream == next.stream
                && one.topic == next.topic
                && one.topic_id == next.topic_id
                && one.partition == next.partition;
            if same && next.first <= one.last {
                return Err(GapFileError::Overlap { number: pair[0] + 1, other: pair[1] + 1 });
            }
        }
        Ok(())
    }
}

/// What stands once in a file, checked.
pub(super) struct FileHead {
    site: Option<SiteName>,
    link: LinkName,
    link_id: LinkId,
    exported_at: Timestamp,
}

impl FileHead {
    pub(super) fn parse(
        site: Option<&str>,
        link: &str,
        link_id: u16,
        exported_at: Timestamp,
    ) -> Result<Self, GapFileError> {
        let wrong = |field| {
            move |error: crate::config::ValueError| GapFileError::Head { field, problem: error.to_string() }
        };
        Ok(Self {
            site: site.map(str::parse).transpose().map_err(wrong("site"))?,
            link: link.parse().map_err(wrong("link"))?,
            link_id: LinkId(link_id),
            exported_at,
        })
    }

    pub(super) fn file(self, gaps: Vec<Gap>) -> Result<GapFile, GapFileError> {
        let Self { site, link, link_id, exported_at } = self;
        let file = GapFile { site, link, link_id, exported_at, gaps };
        file.check()?;
        Ok(file)
    }
}

pub(super) fn bounded(bytes: usize) -> Result<(), GapFileError> {
    if bytes > MAX_FILE_BYTES { Err(GapFileError::TooLarge) } else { Ok(()) }
}

/// A value that was not expected, for a message; never long.
fn short(value: &serde_json::Value) -> String {
    value.to_string().chars().take(40).collect()
}

fn json(error: &serde_json::Error) -> GapFileError {
    GapFileError::Json { line: error.line(), column: error.column(), problem: error.to_string() }
}

/// Enough of a file to know whether the rest can be read. All else is skipped.
#[derive(Deserialize)]
struct Head {
    kind: Option<serde_json::Value>,
    format: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    kind: String,
    format: u32,
    #[serde(deserialize_with = "text::nullable")]
    site: Option<String>,
    link: String,
    link_id: u16,
    exported_at: Timestamp,
    gaps: Vec<Gap>,
}

/// Why a gap file cannot be used. Numbers of gaps count from 1, in the order of the file.
#[derive(Debug, Error)]
pub enum GapFileError {
    /// The system could not read it.
    #[error("the gap file cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("a gap file has at most {MAX_FILE_BYTES} bytes; export less, with --topic or --since")]
    TooLarge,
    /// More than [`MAX_GAPS`].
    #[error("{found} gaps; a gap file has at most {MAX_GAPS}; export less, with --topic or --since")]
    TooMany {
        /// Gaps found.
        found: usize,
    },
    /// No JSON of the right shape.
    #[error("no gap file as `ddc gaps export` writes it: {problem}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// Something else.
    #[error(
        "no gap file: it does not say \"kind\": \"{KIND}\" with a format; make one with `ddc gaps export`"
    )]
    Kind,
    /// Written by another version.
    #[error(
        "a gap file of format {found}; this ddc reads format {FORMAT}: use the version of ddc that wrote it"
    )]
    Format {
        /// The format found.
        found: String,
    },
    /// A key of the file as a whole.
    #[error("`{field}` of the gap file: {problem}")]
    Head {
        /// Which key.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// No CSV of the right shape.
    #[error("no gap file as `ddc gaps export --format csv` writes it: line {line}: {problem}")]
    Csv {
        /// Line, from 1.
        line: u64,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A gap that contradicts itself.
    #[error("gap number {number} ({id}): {problem}")]
    Gap {
        /// Which.
        number: usize,
        /// What it calls itself.
        id: GapId,
        /// What is wrong.
        #[source]
        problem: GapProblem,
    },
    /// A gap is there twice.
    #[error("gap number {number} ({id}) is gap number {other} once more; remove one of them")]
    Twice {
        /// The second.
        number: usize,
        /// The first.
        other: usize,
        /// Both.
        id: GapId,
    },
    /// Two gaps of a partition have offsets in common.
    #[error(
        "gaps number {number} and {other} overlap: they name the same offsets of the same partition; export the file again"
    )]
    Overlap {
        /// One.
        number: usize,
        /// The other.
        other: usize,
    },
}
