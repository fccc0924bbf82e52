//! Dead letters in a directory: files of lines, bounded, fsynced when asked.
//!
//! ```text
//!  append ─▶ dead-letters-00000007.jsonl ─▶ sync (fsync) ─▶ settled
//!              full? the next number          failed? the next number, and everything since the last sync once more
//! ```
//!
//! The first line of a file says what it is and whose (`{"kind":"ddc-dead-letters","format":1,"link":…,"side":…}`); each
//! other one is a letter (module `line`). At the start what a crash left at the end of the newest file is cut off. Nothing
//! is ever deleted here: people remove or carry away whole files. When the files together reach `max_size`, no letter is
//! taken before some are gone. Should the newest be taken away while a link writes it, what was not settled goes into another.
//!
//! One process at a time (the lock of [`StateDir`]). No name in the directory depends on anything that a record holds.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::letter::Letter;
use super::line;
use crate::config::Side;
use crate::state::{StateDir, StateError};

/// What the first line of a file says.
const KIND: &str = "ddc-dead-letters";
/// The version of the format.
pub const FORMAT: u64 = 1;
const PREFIX: &str = "dead-letters-";
const SUFFIX: &str = ".jsonl";
/// A file that has reached this many bytes is followed by the next one; or an eighth of `max_size`, if that is less.
const FILE_BYTES: u64 = 32 << 20;
/// But not less than this.
const LEAST_FILE_BYTES: u64 = 256 << 10;
/// The first line is not longer.
const LONGEST_HEAD: u64 = 1024;
/// Letters that are written and not fsynced, in bytes: more are fsynced before another is taken. They are held in memory,
/// because what an fsync has failed for may be gone from the page cache.
const MAX_UNSYNCED: usize = 8 << 20;
/// While the directory is full, it is looked this often whether somebody has made room.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a directory cannot hold dead letters.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory itself: in use by another process, or the system refuses.
    #[error("directory for dead letters: {0}")]
    Directory(#[from] StateError),
    /// The system refuses a file.
    #[error("dead letters {}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// A file of our name that is none of ours.
    #[error("{} holds no dead letters: its first line does not say so; move it away", .0.display())]
    Foreign(PathBuf),
    /// Another version's.
    #[error("{} has format {found}, this ddc knows format {FORMAT}: use the version of ddc that wrote it, or move it away", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u64,
    },
    /// Another link's or side's.
    #[error("{} is of link {found}, not of {wanted}: each side of a link needs its own directory", path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
}

/// Why a letter was not taken. Nothing of it is there.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// `max_size` would be exceeded.
    #[error(
        "the directory holds {bytes} bytes of dead letters, max_size is {max}; carry files away and remove them, or raise max_size"
    )]
    Full {
        /// What is there.
        bytes: u64,
        /// What may be there.
        max: u64,
    },
    /// The file system refuses.
    #[error("dead letters cannot be written: {0}")]
    Disk(#[from] io::Error),
}

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    kind: String,
    format: u64,
    pub(super) link: String,
    pub(super) side: String,
}

/// See the module's text.
#[derive(Debug)]
pub struct Store {
    directory: StateDir,
    head: Head,
    max_bytes: u64,
    /// The file that is written; `None`: the next letter begins another one.
    file: Option<Current>,
    /// Of the newest file that was ever seen.
    number: u32,
    /// Of all files.
    bytes: u64,
    /// Lines since the last sync, whole.
    unsynced: Vec<u8>,
    /// The lines of `unsynced` that are in no file that can be relied on.
    is_homeless: bool,
    looked_at: Option<Instant>,
    /// What was cut off at the start, in bytes.
    cut: u64,
}

#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Current {
    /// Whether it still lies where it was made: else somebody has removed it or carried it away.
    fn is_there(&self) -> bool {
        let same = |here: std::fs::Metadata| {
            self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (here.dev(), here.ino()))
        };
        std::fs::metadata(&self.path).is_ok_and(same)
    }
}

impl Store {
    /// Opens the directory, makes it when it is missing (mode 0700), locks it, and cuts off a torn end.
    pub fn open(path: &Path, max_bytes: u64, link: &str, side: Side) -> Result<Self, StoreError> {
        let directory = StateDir::open(path)?;
        let head = Head { kind: KIND.into(), format: FORMAT, link: link.into(), side: side.to_string() };
        let mut store = Self {
            directory,
            head,
            max_bytes,
            file: None,
            number: 0,
            bytes: 0,
            unsynced: Vec::new(),
            is_homeless: false,
            looked_at: None,
            cut: 0,
        };
        let mut files = files(path)?;
        if let Some((_, path)) = files.pop_if(|(_, path)| is_unfinished(path)) {
            // A crash came before its first line was whole, so no letter is in it.
            std::fs::remove_file(&path).map_err(|error| StoreError::Io { path, error })?;
        }
        for (_, path) in &files {
            store.belongs(path)?;
        }
        if let Some((number, path)) = files.last() {
            store.number = *number;
            store.file = store.resume(path).map_err(|error| StoreError::Io { path: path.clone(), error })?;
        }
        store.bytes = measured(path);
        Ok(store)
    }

    /// Writes a letter; it is on disk after the next [`Self::sync`].
    pub fn append(&mut self, letter: &Letter) -> Result<(), NotKept> {
        if self.unsynced.len() >= MAX_UNSYNCED {
            self.sync()?;
        }
        let mut line = Vec::new();
        line::write(letter, &mut line);
        // A head more, in case another file begins.
        self.make_room(line.len() as u64 + LONGEST_HEAD)?;
        self.settle_homeless()?;
        self.write(&line)?;
        self.unsynced.extend_from_slice(&line);
        Ok(())
    }

    /// Everything that was appended is on disk when this returns. After an error it is not: call it again.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        self.settle_homeless()?;
        let Some(current) = &self.file else {
            // Invariant: lines that are not homeless are in the open file.
            return Err(io::Error::other("no file is open"));
        };
        current.file.sync_data().inspect_err(|_| self.is_homeless = true)?;
        self.unsynced = Vec::new();
        Ok(())
    }

    /// Whether everything that was appended is on disk.
    pub fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Bytes of all files, as far as is known: files that people remove are noticed when room is needed, and by
    /// [`Self::measure`].
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Looks how many bytes there are.
    pub fn measure(&mut self) -> u64 {
        self.bytes = measured(self.directory.path());
        self.bytes
    }

    /// Bytes that were cut off when it was opened: the end of a letter that a crash kept from being written whole. It was
    /// not committed either, so its record comes again.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    fn make_room(&mut self, wanted: u64) -> Result<(), NotKept> {
        let is_full = |bytes: u64| bytes.saturating_add(wanted) > self.max_bytes;
        if is_full(self.bytes) && self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            self.looked_at = Some(Instant::now());
            self.bytes = measured(self.directory.path());
        }
        if is_full(self.bytes) {
            return Err(NotKept::Full { bytes: self.bytes, max: self.max_bytes });
        }
        Ok(())
    }

    /// After a failed fsync nothing since the last good one counts as written, nor when somebody has taken the file away: it
    /// goes into another one.
    fn settle_homeless(&mut self) -> io::Result<()> {
        if !self.file.as_ref().is_some_and(Current::is_there) {
            self.file = None;
            self.is_homeless |= !self.unsynced.is_empty();
        }
        if self.is_homeless {
            self.file = None;
            let lines = std::mem::take(&mut self.unsynced);
            let written = self.write(&lines);
            self.unsynced = lines;
            written?;
            self.is_homeless = false;
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut current = match self.file.take() {
            Some(current) if current.bytes < self.file_bytes() => current,
            former => self.next_file(former)?,
        };
        match current.file.write_all(lines) {
            Ok(()) => {
                current.bytes += lines.len() as u64;
                self.bytes += lines.len() as u64;
                self.file = Some(current);
                Ok(())
            }
            Err(error) => {
                // A part of it may be there. If it cannot be taken away, a reader sees it as torn, and another file follows.
                if current.file.set_len(current.bytes).is_ok() {
                    self.file = Some(current);
                } else {
                    self.is_homeless |= !self.unsynced.is_empty();
                }
                Err(error)
            }
        }
    }

    fn next_file(&mut self, former: Option<Current>) -> io::Result<Current> {
        if let Some(former) = former.filter(|_| !self.unsynced.is_empty() && !self.is_homeless) {
            // What `sync` promises is of one file only.
            if let Err(error) = former.file.sync_data() {
                self.is_homeless = true;
                return Err(error);
            }
        }
        let mut head = serde_json::to_vec(&self.head)?;
        head.push(b'\n');
        let number = self.number.checked_add(1).ok_or_else(|| io::Error::other("no file number is left"))?;
        let path = self.directory.path().join(name(number));
        let mut file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path)?;
        let begun = file
            .write_all(&head)
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(self.directory.path())?.sync_all());
        if let Err(error) = begun {
            // A file without its first line would be foreign at the next start.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        self.number = number;
        self.bytes += head.len() as u64;
        Ok(Current { path, file, bytes: head.len() as u64 })
    }

    /// Goes on with the newest file of a former life: cuts off what is not whole at its end.
    fn resume(&mut self, path: &Path) -> io::Result<Option<Current>> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        let (mut at, mut good) = (0, 0);
        let mut lines = Lines::new(&file);
        while let Some(line) = lines.next()? {
            at += line.len() as u64;
            // The first one was looked at already.
            if good == 0 || line::is_whole(line) {
                good = at;
            }
        }
        drop(lines);
        if good < length {
            file.set_len(good)?;
            file.sync_all()?;
            self.cut = length - good;
        }
        Ok((good < self.file_bytes()).then_some(Current { path: path.into(), file, bytes: good }))
    }

    fn file_bytes(&self) -> u64 {
        (self.max_bytes / 8).clamp(LEAST_FILE_BYTES, FILE_BYTES)
    }

    fn belongs(&self, path: &Path) -> Result<(), StoreError> {
        let head = head_of(path)?;
        let whose = |head: &Head| format!("{}/{}", head.link, head.side);
        if (&head.link, &head.side) == (&self.head.link, &self.head.side) {
            return Ok(());
        }
        Err(StoreError::Link { path: path.into(), found: whose(&head), wanted: whose(&self.head) })
    }
}

/// The files of a directory by number, oldest first; all else that lies there is left alone.
pub(super) fn files(directory: &Path) -> Result<Vec<(u32, PathBuf)>, StoreError> {
    let failed = |error| StoreError::Io { path: directory.into(), error };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let number = entry.file_name().to_str().and_then(number);
        // No links and no pipes: only what lies here itself.
        if let Some(number) = number.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What the first line of a file says.
pub(super) fn head_of(path: &Path) -> Result<Head, StoreError> {
    let failed = |error| StoreError::Io { path: path.into(), error };
    let mut line = Vec::new();
    let file = BufReader::new(File::open(path).map_err(failed)?);
    file.take(LONGEST_HEAD).read_until(b'\n', &mut line).map_err(failed)?;
    let head: Head = serde_json::from_slice(&line).map_err(|_| StoreError::Foreign(path.into()))?;
    if head.kind != KIND || line.last() != Some(&b'\n') {
        return Err(StoreError::Foreign(path.into()));
    }
    if head.format != FORMAT {
        return Err(StoreError::Format { path: path.into(), found: head.format });
    }
    Ok(head)
}

/// Whether a file has not even its first line.
pub(super) fn is_unfinished(path: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_HEAD + 1).read_to_end(&mut bytes));
    read.is_ok_and(|length| length as u64 <= LONGEST_HEAD) && !bytes.contains(&b'\n')
}

/// Bytes of all files; one that cannot be asked counts as empty.
fn measured(directory: &Path) -> u64 {
    let files = files(directory).unwrap_or_default();
    files.iter().filter_map(|(_, path)| std::fs::metadata(path).ok()).map(|data| data.len()).sum()
}

fn name(number: u32) -> String {
    format!("{PREFIX}{number:08}{SUFFIX}")
}

fn number(file_name: &str) -> Option<u32> {
    let number = file_name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(number) == file_name).then_some(number)
}

/// Lines of a file with their newlines; the last one may lack it. One longer than any letter comes in pieces.
pub(super) struct Lines<'f> {
    reader: BufReader<&'f File>,
    line: Vec<u8>,
}

impl<'f> Lines<'f> {
    pub(super) fn new(file: &'f File) -> Self {
        Self { reader: BufReader::new(file), line: Vec::new() }
    }

    /// The next one; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        (&mut self.reader).take(line::MAX_LINE as u64).read_until(b'\n', &mut self.line)?;
        Ok((!self.line.is_empty()).then_some(&*self.line))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests;
