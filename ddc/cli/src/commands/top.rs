//! `ddc top`: links at a glance, from the admin listeners of one or both of their sides.
//!
//! ```text
//!  addresses ─▶ fetch ─▶ page, status ─▶ model (history, sides) ─▶ view ─▶ screen (list, detail) | table | JSON
//!  target.rs    HTTP     numbers, texts  what changed, what is whose       live.rs                  once.rs
//! ```
//!
//! It stands beside the line and only reads. What listeners say is not trusted: sizes and times are bounded, texts are
//! made harmless for the terminal, and one that is silent, slow or hostile is shown as such and holds up no other.

mod clean;
mod detail;
#[cfg(test)]
mod docs_test;
mod fetch;
mod format;
mod history;
mod list;
mod live;
mod model;
mod once;
mod page;
mod screen;
mod sides;
mod status;
mod target;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use ddc_proxy::config::{Span, ValueError};

use super::print;
use crate::exit::{Exit, Failure};

/// Watch links: rates, loss by layer, repair, lag, latency, sessions, gaps
///
/// Reads the admin listeners of one or both sides and changes nothing. Without arguments it looks at this host's
/// default ports, 9640 to 9679 on loopback. Keys: arrows, enter, p to pause, ? for help, q to quit.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// An admin listener: 127.0.0.1:9641, http://127.0.0.1:9641 or unix:/run/ddc/plant-a.sock
    #[arg(value_name = "ADDR")]
    addresses: Vec<String>,
    /// A configuration file, whose admin listener is asked; may be given several times
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Time between two samples, 100ms to 60s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Take two samples, print a table, end; exit code 69 when no listener answered
    #[arg(long)]
    once: bool,
    /// With --once: one JSON object, whose fields docs/top.md lists
    #[arg(long, requires = "once")]
    json: bool,
    /// No colours; the environment variable NO_COLOR does the same
    #[arg(long)]
    no_color: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !arguments.once && !io::stdout().is_terminal() {
        let line = "top draws on a terminal, and standard output is none; for scripts: ddc top --once --json";
        return Err(Failure::new(Exit::Usage, line));
    }
    let targets = target::targets(&arguments.files, &arguments.addresses)?;
    let internal = |error: io::Error| Failure::new(Exit::Internal, format!("top: {}", super::words(&error)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("ddc-top")
        .enable_all()
        .build()
        .map_err(internal)?;
    let result = if arguments.once {
        report(runtime.block_on(once::once(targets, arguments.interval)), arguments.json)
    } else {
        let no_color =
            arguments.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        live::live(&runtime, targets, arguments.interval, screen::Colors(!no_color)).map_err(internal)
    };
    // What is still asked is not waited for.
    runtime.shutdown_background();
    result
}

fn report(answer: Result<view::View, Vec<String>>, json: bool) -> Result<(), Failure> {
    let view = answer.map_err(|mut lines| {
        if lines.is_empty() {
            lines.push(
                "no admin listener answers on 127.0.0.1, ports 9640 to 9679; name one: ddc top ADDRESS"
                    .into(),
            );
        }
        Failure { exit: Exit::Unavailable, lines }
    })?;
    if json {
        let value = serde_json::to_value(&view)
            .map_err(|error| Failure::new(Exit::Internal, format!("top: the answer is no JSON: {error}")))?;
        return print(&format!("{}\n", view::whole(value)));
    }
    print(&list::table(&view))
}

fn interval(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|error: ValueError| error.to_string())?;
    let time = span.0;
    if time < Duration::from_millis(100) || time > Duration::from_mins(1) {
        return Err("between 100ms and 60s".to_owned());
    }
    Ok(time)
}
