//! The subcommands. Each has its arguments and one function that runs it.

use std::io::{self, Write};

use crate::exit::{Exit, Failure};

mod admin;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod dead_letters;
pub(crate) mod gaps;
pub(crate) mod keygen;
pub(crate) mod pause;
mod preflight;
pub(crate) mod ready;
pub(crate) mod replay;
mod replay_text;
pub(crate) mod rewind;
pub(crate) mod serve;
pub(crate) mod top;
pub(crate) mod version;

/// Prints to standard output. A reader that has gone away (`| head`) ends the command quietly.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Internal, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Tells a person something beside the answer, on standard error. When that is gone there is nobody left to tell.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(io::stderr().lock(), "ddc: {text}");
}

/// An error of the system in words, without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
