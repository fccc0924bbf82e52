//! The state directory of one side of a link: small files that must survive a crash.
//!
//! One process at a time holds a directory (an advisory lock on `lock`). A file is replaced as a
//! whole: written beside its place, fsynced, renamed, and the directory fsynced, so that after a
//! power cut either the old or the new content is there, never a mixture.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No state file is larger; what is larger is not ours.
const MAX_STATE_BYTES: u64 = 256 << 20;

/// An open, locked state directory.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    directory: File,
    _lock: File,
}

/// Why a state directory or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("state {what} {}: {error}; {}", path.display(), mend(error, directory))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The state directory, for the mend.
        directory: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Another process holds the directory.
    #[error("state directory {} is in use by another process; each side of a link needs its own `state_dir`", .0.display())]
    InUse(PathBuf),
    /// A file is not what this version writes.
    #[error("state file {} cannot be read: {problem}; move it away to start without it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// What the operator can do about it.
fn mend(error: &io::Error, directory: &Path) -> String {
    let directory = directory.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("make room on the file system of {directory}; it is tried again")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!(
                "make {directory} writable (systemd: ReadWritePaths or StateDirectory); it is tried again"
            )
        }
        _ => format!("run: install -d -m 0700 -o \"$(id -un)\" {directory}"),
    }
}

impl StateDir {
    /// Opens the directory, creates it when it is missing (mode 0700), and locks it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |what, error| StateError::Io { what, path: path.into(), directory: path.into(), error };
        if !path.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| failed("directory cannot be created:", error))?;
        }
        let directory = File::open(path).map_err(|error| failed("directory cannot be opened:", error))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| failed("lock cannot be opened in", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.into(), directory, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse(path.into())),
            Err(TryLockError::Error(error)) => Err(failed("directory cannot be locked:", error)),
        }
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file; `None` when there is none.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("file cannot be opened:", &path, error)),
        };
        let mut text = String::new();
        file.take(MAX_STATE_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| self.failed("file cannot be read:", &path, error))?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| StateError::Malformed { path, problem: error.to_string() })
    }

    /// Replaces a file; it is on disk when this returns.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let (path, beside) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let bytes = serde_json::to_vec(value)
            .map_err(|error| StateError::Malformed { path: path.clone(), problem: error.to_string() })?;
        let written = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            self.directory.sync_all()
        };
        written().map_err(|error| self.failed("file cannot be written:", &path, error))
    }

    /// Moves a file that cannot be used out of the way and says where it is. One that was moved there before is replaced.
    pub fn set_aside(&self, name: &str) -> Result<PathBuf, StateError> {
        let (path, aside) = (self.path.join(name), self.path.join(format!("{name}.refused")));
        fs::rename(&path, &aside)
            .and_then(|()| self.directory.sync_all())
            .map_err(|error| self.failed("file cannot be moved away:", &path, error))?;
        Ok(aside)
    }

    fn failed(&self, what: &'static str, path: &Path, error: io::Error) -> StateError {
        StateError::Io { what, path: path.into(), directory: self.path.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keeps_what_was_written() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.read::<u64>("n").unwrap(), None);
        state.write("n", &7u64).unwrap();
        state.write("n", &8u64).unwrap();
        assert_eq!(state.read::<u64>("n").unwrap(), Some(8));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!path.join("n.new").exists());
    }

    #[test]
    fn one_process_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::open(temporary.path()).unwrap();
        assert!(matches!(StateDir::open(temporary.path()), Err(StateError::InUse(_))));
        drop(state);
        assert!(StateDir::open(temporary.path()).is_ok());
    }

    #[test]
    fn a_full_disk_is_not_answered_with_a_change_of_rights() {
        let failed = |kind: io::ErrorKind| StateError::Io {
            what: "file cannot be written:",
            path: "/s/n".into(),
            directory: "/s".into(),
            error: kind.into(),
        };
        let full = failed(io::ErrorKind::StorageFull).to_string();
        assert!(full.contains("make room on the file system of /s") && !full.contains("install"), "{full}");
        let denied = failed(io::ErrorKind::PermissionDenied).to_string();
        assert!(denied.contains("install -d -m 0700"), "{denied}");
    }

    #[test]
    fn a_torn_or_foreign_file_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::open(temporary.path()).unwrap();
        fs::write(temporary.path().join("n"), b"{\"half\":").unwrap();
        let error = state.read::<u64>("n").unwrap_err().to_string();
        assert!(error.contains("/n cannot be read") && error.contains("move it away"), "{error}");
    }
}
