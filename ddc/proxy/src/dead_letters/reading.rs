//! Reading a directory of dead letters, whether a link writes there or not: no lock, nothing is changed.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::letter::Letter;
use super::line::{self, BadLine};
use super::store::{self, Lines, StoreError};

/// A line of a file: which, and the letter or why it is none.
#[derive(Debug)]
pub struct Found {
    /// The file's number.
    pub file: u32,
    /// The line, from 1; the first one is not a letter.
    pub line: u64,
    /// The letter.
    pub letter: Result<Letter, BadLine>,
}

/// A file of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFile {
    /// Its number.
    pub number: u32,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The link and side that wrote it: `plant-a/egress`.
    pub whose: String,
}

/// The files of a directory, oldest first. A directory that is not there has none.
pub fn files(directory: &Path) -> Result<Vec<LetterFile>, StoreError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let file = |(number, path): (u32, PathBuf)| {
        let head = store::head_of(&path)?;
        let bytes = std::fs::metadata(&path).map_or(0, |data| data.len());
        Ok(LetterFile { number, path, bytes, whose: format!("{}/{}", head.link, head.side) })
    };
    // The newest may just be begun.
    store::files(directory)?.into_iter().filter(|(_, path)| !store::is_unfinished(path)).map(file).collect()
}

/// Reads a file line by line and hands each to `take`, one at a time: a file may be larger than memory.
pub fn read(file: &LetterFile, mut take: impl FnMut(Found)) -> Result<(), StoreError> {
    let failed = |error| StoreError::Io { path: file.path.clone(), error };
    let opened = File::open(&file.path).map_err(failed)?;
    let mut lines = Lines::new(&opened);
    let mut number = 0;
    while let Some(line) = lines.next().map_err(failed)? {
        number += 1;
        if number > 1 {
            take(Found { file: file.number, line: number, letter: line::parse(line) });
        }
    }
    Ok(())
}
