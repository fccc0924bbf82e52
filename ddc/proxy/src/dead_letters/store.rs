//! Dead letters in a directory: files of lines, bounded, fsynced when asked.
//!
//! ```text
//!  append ─▶ dead-letters-00000007.jsonl ─▶ sync (fsync) ─▶ settled
//!              full? the next number          failed? the next number, and everything since the last sync once more
//! ```
//!
//! The first line of a file says what it is and whose (`{"kind":"ddc-dead-letters","format":1,"link":…,"side":…}`); each
//! other one is a letter (module `line`). At the start what a crash left at the end of the newest file is cut off. Nothing
//! is ever deleted here: people remove or carry away whole files, all but the newest while a link runs. When the files
//! together reach `max_size`, no letter is taken before some are gone.
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
/// A file that has reached this many bytes is followed by the next one.
const FILE_BYTES: u64 = 32 << 20;
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
    #[error("the directory holds {bytes} bytes of dead letters, max_size is {max}; carry files away and remove them, or raise max_size")]
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
    file: File,
    bytes: u64,
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

    /// After a failed fsync nothing since the last good one counts as written, nor when somebody has removed the file: it goes
    /// into another one.
    fn settle_homeless(&mut self) -> io::Result<()> {
        let is_there = |current: &Current| current.file.metadata().is_ok_and(|data| data.nlink() > 0);
        if !self.file.as_ref().is_some_and(is_there) {
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
            Some(current) if current.bytes < FILE_BYTES => current,
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
        Ok(Current { file, bytes: head.len() as u64 })
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
        Ok((good < FILE_BYTES).then_some(Current { file, bytes: good }))
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
mod tests {
    use proptest::prelude::*;

    use super::super::line::tests::any_letter;
    use super::super::reading;
    use super::*;

    const MAX: u64 = 1 << 30;

    fn open(path: &Path) -> Store {
        Store::open(path, MAX, "plant-a", Side::Egress).unwrap()
    }

    /// All letters that a reader finds, and how many lines it cannot read.
    fn read(path: &Path) -> (Vec<Letter>, usize) {
        let (mut letters, mut bad) = (Vec::new(), 0);
        for file in reading::files(path).unwrap() {
            reading::read(&file, |found| match found.letter {
                Ok(letter) => letters.push(letter),
                Err(_) => bad += 1,
            })
            .unwrap();
        }
        (letters, bad)
    }

    fn letters(count: usize) -> Vec<Letter> {
        use proptest::strategy::ValueTree as _;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        (0..count).map(|_| any_letter().new_tree(&mut runner).unwrap().current()).collect()
    }

    #[test]
    fn letters_outlive_the_process_in_order() {
        let temporary = tempfile::tempdir().unwrap();
        let all = letters(30);
        for part in all.chunks(10) {
            let mut store = open(temporary.path());
            for letter in part {
                store.append(letter).unwrap();
            }
            assert!(!store.is_synced());
            store.sync().unwrap();
            assert!(store.is_synced());
            assert_eq!(store.bytes(), measured(temporary.path()));
        }
        assert_eq!(read(temporary.path()), (all, 0));
        assert_eq!(files(temporary.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_full_directory_takes_nothing_until_there_is_room() {
        let temporary = tempfile::tempdir().unwrap();
        let letter = &letters(1)[0];
        let mut store = Store::open(temporary.path(), 20_000, "plant-a", Side::Egress).unwrap();
        let mut kept = 0;
        let error = loop {
            match store.append(letter) {
                Ok(()) => kept += 1,
                Err(error) => break error.to_string(),
            }
        };
        assert!(kept > 5 && error.contains("max_size is 20000"), "{kept}: {error}");
        store.sync().unwrap();
        assert!(measured(temporary.path()) <= 20_000);
        assert_eq!(read(temporary.path()).0.len(), kept, "what was refused is not there");
        assert!(store.append(letter).is_err());
        // Somebody takes them away, the newest too.
        std::fs::remove_file(&files(temporary.path()).unwrap()[0].1).unwrap();
        store.looked_at = None;
        store.append(letter).unwrap();
        store.sync().unwrap();
        assert_eq!(read(temporary.path()), (vec![letter.clone()], 0));
        assert_eq!(files(temporary.path()).unwrap()[0].0, 2, "a number is not used again while it runs");
    }

    /// What was not synced when somebody removed the file is written again.
    #[test]
    fn a_removed_file_takes_nothing_with_it_that_is_not_settled() {
        let temporary = tempfile::tempdir().unwrap();
        let all = letters(3);
        let mut store = open(temporary.path());
        store.append(&all[0]).unwrap();
        store.sync().unwrap();
        store.append(&all[1]).unwrap();
        std::fs::remove_file(&files(temporary.path()).unwrap()[0].1).unwrap();
        store.sync().unwrap();
        store.append(&all[2]).unwrap();
        assert_eq!(read(temporary.path()), (all[1..].to_vec(), 0));
    }

    #[test]
    fn files_follow_each_other() {
        let temporary = tempfile::tempdir().unwrap();
        let mut letter = letters(1).remove(0);
        letter.value = Some(vec![7; 9 << 20]);
        let mut store = open(temporary.path());
        for _ in 0..4 {
            store.append(&letter).unwrap();
        }
        // Three times 12 MiB as base64 fill a file.
        assert_eq!(files(temporary.path()).unwrap().len(), 2);
        store.sync().unwrap();
        drop(store);
        assert_eq!(read(temporary.path()), (vec![letter; 4], 0));
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name() {
        let said = |content: &str| {
            let temporary = tempfile::tempdir().unwrap();
            std::fs::write(temporary.path().join("dead-letters-00000003.jsonl"), content).unwrap();
            Store::open(temporary.path(), MAX, "plant-a", Side::Egress).map(drop).unwrap_err().to_string()
        };
        let head = |format: u64, link: &str, side: &str| {
            format!("{{\"kind\":\"ddc-dead-letters\",\"format\":{format},\"link\":\"{link}\",\"side\":\"{side}\"}}\n")
        };
        assert!(said("something else\n").contains("holds no dead letters"));
        assert!(said(&"x".repeat(5000)).contains("holds no dead letters"));
        assert!(said(&head(2, "plant-a", "egress")).contains("has format 2"));
        assert!(said(&head(1, "plant-b", "egress")).contains("of link plant-b/egress, not of plant-a/egress"));
        assert!(said(&head(1, "plant-a", "ingress")).contains("not of plant-a/egress"));
        let temporary = tempfile::tempdir().unwrap();
        for other in ["dead-letters-3.jsonl", "dead-letters-00000003.jsonl.gz", "notes.txt"] {
            std::fs::write(temporary.path().join(other), "anything").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", temporary.path().join("dead-letters-00000009.jsonl")).unwrap();
        let mut store = open(temporary.path());
        store.append(&letters(1)[0]).unwrap();
        assert_eq!(files(temporary.path()).unwrap()[0].0, 1, "what is not ours is left alone");
        assert!(matches!(
            Store::open(temporary.path(), MAX, "plant-a", Side::Egress),
            Err(StoreError::Directory(StateError::InUse(_)))
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A crash leaves any prefix of what was written, and anything behind it that the disk made up: every letter that is
        /// whole in the prefix is kept, nothing else is read, and it goes on.
        #[test]
        fn a_torn_end_is_cut(keep: prop::sample::Index, behind in proptest::collection::vec(any::<u8>(), 0..80)) {
            let temporary = tempfile::tempdir().unwrap();
            let all = letters(8);
            let mut store = open(temporary.path());
            let mut ends = Vec::new();
            for letter in &all {
                store.append(letter).unwrap();
                ends.push(store.bytes());
            }
            drop(store);
            let path = files(temporary.path()).unwrap()[0].1.clone();
            let mut bytes = std::fs::read(&path).unwrap();
            let keep = keep.index(bytes.len() + 1);
            bytes.truncate(keep);
            bytes.extend_from_slice(&behind);
            std::fs::write(&path, &bytes).unwrap();
            let whole = ends.iter().filter(|end| **end <= keep as u64).count();
            let head = bytes.iter().position(|byte| *byte == b'\n');
            let reopened = Store::open(temporary.path(), MAX, "plant-a", Side::Egress);
            let Ok(mut store) = reopened else {
                // The first line itself is torn, and what lies behind looks like a line's end.
                prop_assert!(keep < 80 && head.is_some());
                return Ok(());
            };
            prop_assert_eq!(read(temporary.path()), (all[..whole].to_vec(), 0));
            store.append(&all[0]).unwrap();
            store.sync().unwrap();
            prop_assert_eq!(read(temporary.path()).0.len(), whole + 1);
        }
    }
}
