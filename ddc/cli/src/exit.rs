//! How `ddc` ends: the exit codes (sysexits.h) and the error that carries one.

use std::process::ExitCode;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Success = 0,
    /// The command line is wrong.
    Usage = 64,
    /// Something that is needed does not answer, or says it is not ready.
    Unavailable = 69,
    /// A fault of this program or of the system under it.
    Internal = 70,
    /// The configuration is wrong.
    Config = 78,
}

/// The table under `ddc --help`.
pub(crate) const HELP: &str = "\
Exit codes: 0 done, 64 wrong command line, 69 something needed is not available, 70 internal fault, 78 wrong configuration.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends the command. Each line is printed behind `ddc: `.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) lines: Vec<String>,
}

impl Failure {
    /// One line.
    pub(crate) fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, lines: vec![line.into()] }
    }
}
