//! `make chaos`: faults on a link between two real clusters, by seed, and the verdict. docs/chaos.md says more.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use ddc_e2e::chaos::run::{Outcome, run};
use ddc_e2e::chaos::world::Setup;
use ddc_e2e::chaos::{PROMISE, Promise, report};

/// Kills, stops, cuts, fills and rolls everything around a link, then says what became of its records.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long faults strike
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides which faults strike when
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Records per second, all topics together
    #[arg(long, default_value_t = 400)]
    per_second: u64,
    /// What the egress promises; without it, what it does by default
    #[arg(long, value_enum)]
    promise: Option<Promised>,
    /// Where the run's directory is made
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
    /// Keep data, logs and configurations also when all is well
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Promised {
    /// Each record once
    #[value(name = "exactly_once")]
    ExactlyOnce,
    /// A crash of the egress may double records
    #[value(name = "at_least_once")]
    AtLeastOnce,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let name = format!("seed-{}-{}s", arguments.seed, arguments.seconds);
    std::fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let out = arguments.out.canonicalize().context("the run's directory")?;
    let directory = out.join(&name);
    if directory.exists() {
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("what an earlier run left in {}", directory.display()))?;
    }
    std::fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
    let promise = arguments.promise.map_or(PROMISE, |promised| match promised {
        Promised::ExactlyOnce => Promise::ExactlyOnce,
        Promised::AtLeastOnce => Promise::AtLeastOnce,
    });
    let setup = Setup {
        seed: arguments.seed,
        per_second: arguments.per_second,
        promise,
        directory: directory.clone(),
    };
    let length = Duration::from_secs(arguments.seconds);
    // What goes wrong in the harness has been printed by the panic; what remains to be said is how to run it again.
    let outcome = catch_unwind(AssertUnwindSafe(|| run(setup, length))).ok();
    let clean = outcome.as_ref().is_some_and(|outcome| outcome.verdict.is_clean());
    if let Some(outcome) = &outcome {
        let file = out.join(format!("{name}.md"));
        std::fs::write(&file, report::markdown(outcome)).with_context(|| file.display().to_string())?;
        print(outcome);
        println!("report: {}", file.display());
    }
    if clean && !arguments.keep {
        std::fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
    } else {
        println!("data, logs, configurations, gap journal: {}", directory.display());
    }
    if clean {
        println!("1 passed, 0 failed");
        return Ok(ExitCode::SUCCESS);
    }
    println!("FAILED; again: make chaos SECONDS={} SEED={}", arguments.seconds, arguments.seed);
    println!("0 passed, 1 failed");
    Ok(ExitCode::FAILURE)
}

fn print(outcome: &Outcome) {
    for (name, finding) in outcome.verdict.counters() {
        println!("{name}: {finding}");
    }
}
