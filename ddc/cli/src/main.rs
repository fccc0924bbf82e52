//! The `ddc` command: one file per subcommand under `commands/`, nothing here but parsing, calling and exit codes.
//!
//! Errors go to standard error as `ddc: …`, one line each. A new subcommand is a file, a variant of [`Command`] and a
//! line in [`run`]; nothing is listed before it works.
#![forbid(unsafe_code)]

mod admin_thread;
mod commands;
mod demo;
mod exit;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use exit::{Exit, Failure};

/// Carries Kafka topics across a one-way link (a data diode): an ingress reads and sends, an egress receives and writes.
#[derive(Debug, Parser)]
#[command(name = "ddc", version, disable_help_subcommand = true, after_help = exit::HELP, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ingress(commands::serve::IngressArguments),
    Egress(commands::serve::EgressArguments),
    Demo(demo::Demo),
    Check(commands::check::Arguments),
    Config(commands::config::Arguments),
    Keygen(commands::keygen::Arguments),
    Ready(commands::ready::Arguments),
    Gaps(commands::gaps::Arguments),
    DeadLetters(commands::dead_letters::Arguments),
    Replay(Box<commands::replay::Arguments>),
    Rewind(commands::rewind::Arguments),
    Pause(commands::pause::PauseArguments),
    Resume(commands::pause::ResumeArguments),
    Top(commands::top::Arguments),
    Completions(commands::completions::Arguments),
    Version(commands::version::Arguments),
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ingress(arguments) => commands::serve::ingress(&arguments),
        Command::Egress(arguments) => commands::serve::egress(&arguments),
        Command::Demo(demo) => demo.run(),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Config(arguments) => commands::config::run(&arguments),
        Command::Keygen(arguments) => commands::keygen::run(&arguments),
        Command::Ready(arguments) => commands::ready::run(&arguments),
        Command::Gaps(arguments) => commands::gaps::run(&arguments),
        Command::DeadLetters(arguments) => commands::dead_letters::run(&arguments),
        Command::Replay(arguments) => commands::replay::run(&arguments),
        Command::Rewind(arguments) => commands::rewind::run(&arguments),
        Command::Pause(arguments) => commands::pause::pause(&arguments),
        Command::Resume(arguments) => commands::pause::resume(&arguments),
        Command::Top(arguments) => commands::top::run(&arguments),
        Command::Completions(arguments) => commands::completions::run(&arguments),
        Command::Version(arguments) => commands::version::run(&arguments),
    }
}

fn main() -> ExitCode {
    ddc_kafka::binary::confine_name_resolution();
    let result = match Arguments::try_parse() {
        Ok(arguments) => run(arguments.command),
        Err(error) => usage(&error),
    };
    match result {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            for line in &failure.lines {
                commands::remark(line);
            }
            failure.exit.into()
        }
    }
}

/// Prints clap's answer. Help and version are what was asked for; all else is a usage error.
fn usage(error: &clap::Error) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // When standard output is gone there is nobody left to tell.
            let _ = error.print();
            Ok(())
        }
        // `ddc` alone: the help is the answer, but nothing was done.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Err(Failure { exit: Exit::Usage, lines: Vec::new() })
        }
        _ => {
            let text = error.to_string();
            let text = text.trim_end();
            Err(Failure::new(Exit::Usage, text.strip_prefix("error: ").unwrap_or(text)))
        }
    }
}
