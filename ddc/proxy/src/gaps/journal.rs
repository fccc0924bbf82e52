//! The gap journal: the book of one link on disk, in the egress's state directory.
//!
//! ```text
//!  gaps.journal   {"kind":"ddc-gap-journal","format":1,"link":"plant-a"}
//!                 8f1c09aa {"seq":1,"event":"found","gap":{…}}             CRC-32C of the JSON, a space, the JSON
//!                 0b33d7e1 {"seq":2,"event":"closed","gap":{…}}
//!                 51e00f27 {"published":2}
//! ```
//!
//! A line is appended and handed to the kernel when its change happens, so it survives a crash of the process, and is
//! fsynced each second. A gap's last line is what holds. When the file has grown to a multiple of what it must hold it
//! is replaced by a shorter one. What is torn or damaged at its end is cut off at start, with a message; a damaged line
//! before that is left out, named.
//!
//! Readers need no lock ([`read`]): the file only grows, or is replaced whole by a rename. A line at its end that is
//! not complete yet is not read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Entry, GapBook};

/// The file in the state directory.
pub const FILE: &str = "gaps.journal";
/// The version of its format.
pub const FORMAT: u32 = 1;
/// No journal is larger; what is larger is not ours.
pub const MAX_BYTES: u64 = 256 << 20;

const KIND: &str = "ddc-gap-journal";
const NEW: &str = "gaps.journal.new";
/// A file is not made shorter before it has this size: it must be worth the while.
const SHORTEN_FROM: u64 = 1 << 20;
/// Nor before it is so many times as large as after it was last made shorter.
const SHORTEN_FACTOR: u64 = 4;

/// The journal of a running egress; [`Journal::open`] also gives the book it holds.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    link: String,
    file: Option<File>,
    /// The file's length, if all that was written to it was written whole.
    bytes: u64,
    /// Its length after it was made shorter.
    short: u64,
    /// Written and not fsynced.
    unsynced: bool,
    published: u64,
}

/// What [`Journal::open`] and [`read`] found.
#[derive(Debug)]
pub struct Found {
    /// The gaps.
    pub book: GapBook,
    /// Up to which change everything was published to `[missing_records]`.
    pub published: u64,
    /// What was cut off at the end, in bytes; for [`read`]: what was not read.
    pub cut: u64,
    /// Lines before the end that could not be read.
    pub damaged: Vec<u64>,
    /// How far it could be read.
    end: u64,
}

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The system refused.
    #[error("gap journal {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// Something else lies there.
    #[error("{} is no gap journal: {problem}; move it away to begin a new one", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another version's.
    #[error(
        "gap journal {} has format {found}, this ddc knows format {FORMAT}: use the version of ddc that wrote it, or move it away to begin a new one",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u64,
    },
    /// Another link's.
    #[error("gap journal {} is of link {found}, not of {link}: each link needs its own `state_dir`", path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        link: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    kind: String,
    format: u64,
    #[serde(default)]
    link: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    published: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Entry(Box<Entry>),
    Published(Published),
}

/// Reads the journal of an egress, running or not, and changes nothing. `None`: there is none.
pub fn read(directory: &Path, link: &str) -> Result<Option<Found>, JournalError> {
    let path = directory.join(FILE);
    match File::open(&path) {
        Ok(file) => load(&file, &path, link).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::Io { path, error }),
    }
}

impl Journal {
    /// Opens the journal in a state directory that this process has locked; makes one if there is none. What cannot be
    /// read at its end is cut off.
    pub fn open(directory: &Path, link: &str) -> Result<(Self, Found), JournalError> {
        let path = directory.join(FILE);
        let failed = |error| JournalError::Io { path: path.clone(), error };
        let options = || {
            let mut options = OpenOptions::new();
            options.read(true).append(true).mode(0o600);
            options
        };
        let mut journal = Self {
            directory: directory.into(),
            link: link.into(),
            file: None,
            bytes: 0,
            short: 0,
            unsynced: false,
            published: 0,
        };
        let file = match options().open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let found =
                    Found { book: GapBook::new(link), published: 0, cut: 0, damaged: Vec::new(), end: 0 };
                // A full disk keeps no record from flowing: [`Self::is_broken`] says so, and it is tried again.
                let _ = journal.shorten(&found.book);
                return Ok((journal, found));
            }
            Err(error) => return Err(failed(error)),
        };
        let found = load(&file, &path, link)?;
        if found.cut > 0 {
            file.set_len(found.end).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        (journal.file, journal.bytes, journal.published) = (Some(file), found.end, found.published);
        // How much of it is needed is not known; a damaged line in it is to go at the first chance.
        journal.short = SHORTEN_FROM / SHORTEN_FACTOR;
        if !found.damaged.is_empty() {
            journal.distrust();
        }
        Ok((journal, found))
    }

    /// Appends changes. After an error nothing of them counts as written: [`Self::shorten`] writes all.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        for entry in entries {
            line(&mut text, entry)?;
        }
        self.write(&text)
    }

    /// Notes that everything up to a change was published.
    pub fn published(&mut self, seq: u64) -> io::Result<()> {
        self.published = seq;
        let mut text = Vec::new();
        line(&mut text, &Published { published: seq })?;
        self.write(&text)
    }

    /// What was appended is on disk when this returns.
    pub fn sync(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if self.unsynced {
            file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Whether it has grown so much that it should be made shorter.
    pub fn is_long(&self) -> bool {
        (self.bytes >= SHORTEN_FROM && self.bytes / SHORTEN_FACTOR >= self.short)
            || self.bytes >= MAX_BYTES / 2
    }

    /// Whether an append failed and it must be written anew.
    pub fn is_broken(&self) -> bool {
        self.file.is_none()
    }

    /// What the file holds must not be relied on: before anything is appended it is written anew.
    pub fn distrust(&mut self) {
        self.file = None;
    }

    /// Replaces the file by one that holds the book as it is; on disk when this returns. After an error the old one
    /// stays, if it was sound.
    pub fn shorten(&mut self, book: &GapBook) -> io::Result<()> {
        let head = Head { kind: KIND.into(), format: FORMAT.into(), link: self.link.clone() };
        let mut text = serde_json::to_vec(&head)?;
        text.push(b'\n');
        for entry in book.entries() {
            line(&mut text, entry)?;
        }
        // The last of the numbers too: the gap that had it may be forgotten.
        line(&mut text, &Published { published: self.published })?;
        let (path, beside) = (self.directory.join(FILE), self.directory.join(NEW));
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        if let Err(error) = file.write_all(&text).and_then(|()| file.sync_all()) {
            // On a full disk half a file only takes room.
            let _ = std::fs::remove_file(&beside);
            return Err(error);
        }
        drop(file);
        let file = OpenOptions::new().read(true).append(true).open(&beside)?;
        std::fs::rename(&beside, &path)?;
        File::open(&self.directory)?.sync_all()?;
        (self.bytes, self.short) = (text.len() as u64, text.len() as u64);
        (self.file, self.unsynced) = (Some(file), false);
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the journal is to be written anew first"));
        };
        match file.write_all(text) {
            Ok(()) => {
                self.bytes += text.len() as u64;
                self.unsynced = true;
                Ok(())
            }
            Err(error) => {
                // A part of it may be there, which a reader takes for a torn end. What is not there must not be forgotten:
                // before anything else the file is written anew.
                let _ = file.set_len(self.bytes);
                self.file = None;
                Err(error)
            }
        }
    }
}

fn line(text: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(value)?;
    writeln!(text, "{:08x} {}", crc32c::crc32c(&json), String::from_utf8_lossy(&json))
}

fn load(mut file: &File, path: &Path, link: &str) -> Result<Found, JournalError> {
    let failed = |error| JournalError::Io { path: path.into(), error };
    let foreign = |problem: &str| JournalError::Foreign { path: path.into(), problem: problem.into() };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(foreign("it is larger than any journal can be"));
    }
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let head: Head = serde_json::from_slice(first).map_err(|_| foreign("its first line does not say so"))?;
    if head.kind != KIND {
        return Err(foreign("its first line does not say so"));
    }
    if head.format != u64::from(FORMAT) {
        return Err(JournalError::Format { path: path.into(), found: head.format });
    }
    if head.link != link {
        return Err(JournalError::Link { path: path.into(), found: head.link, link: link.into() });
    }
    let mut found = Found {
        book: GapBook::new(link),
        published: 0,
        cut: 0,
        damaged: Vec::new(),
        end: first.len() as u64,
    };
    let mut at = found.end;
    // Bad lines count as damage only when a good one follows; else they are the torn end.
    let mut bad = Vec::new();
    for (number, text) in lines.enumerate() {
        at += text.len() as u64;
        let good = match parse(text) {
            Some(Line::Entry(entry)) => found.book.restore(*entry),
            Some(Line::Published(Published { published })) => {
                found.published = published;
                found.book.continue_from(published);
                true
            }
            None => false,
        };
        if good {
            found.damaged.append(&mut bad);
            found.end = at;
        } else {
            // Lines count from 1, and the head was the first.
            bad.push(number as u64 + 2);
        }
    }
    found.cut = bytes.len() as u64 - found.end;
    Ok(found)
}

fn parse(text: &[u8]) -> Option<Line> {
    let text = text.strip_suffix(b"\n")?;
    let (sum, json) = text.split_at_checked(9)?;
    let sum = std::str::from_utf8(sum.strip_suffix(b" ")?).ok()?;
    if format!("{:08x}", crc32c::crc32c(json)) != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}
