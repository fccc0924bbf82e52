//! What is wrong with a configuration: every mistake with file, line and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// The most mistakes that are listed for one file; more would hide the first ones.
const MOST_LISTED: usize = 40;

/// A configuration that cannot be used. Displays one line per mistake: `FILE:LINE: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as it was named by the user.
    pub file: PathBuf,
    /// What is wrong, in the order of the file.
    pub problems: Vec<Remark>,
}

/// A mistake, or something the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The line of the file, counted from 1, when the remark is about one.
    pub line: Option<usize>,
    /// A sentence without the file's name.
    pub message: String,
}

impl ConfigError {
    /// One mistake of a whole file.
    pub(crate) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), problems: vec![Remark { line: None, message: message.into() }] }
    }

    /// The lines of the message, for a reader that wants to put something before each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.problems.iter().take(MOST_LISTED).map(|problem| problem.at(&self.file)).collect();
        if self.problems.len() > MOST_LISTED {
            let more = self.problems.len() - MOST_LISTED;
            lines.push(format!("{}: and {more} more", self.file.display()));
        }
        lines
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl Remark {
    /// The remark behind the place it is about: `FILE:LINE: message`.
    pub fn at(&self, file: &Path) -> String {
        match self.line {
            Some(line) => format!("{}:{line}: {}", file.display(), self.message),
            None => format!("{}: {}", file.display(), self.message),
        }
    }
}
