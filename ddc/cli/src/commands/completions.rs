//! `ddc completions`: completion scripts for shells, from the same definition as the parser.

use clap::CommandFactory;

use super::print;
use crate::exit::Failure;

/// Print a completion script for a shell
///
/// For bash: ddc completions bash > /etc/bash_completion.d/ddc
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::Arguments::command(), "ddc", &mut script);
    print(&String::from_utf8_lossy(&script))
}
