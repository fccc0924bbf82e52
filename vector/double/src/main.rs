//! The command: `ddc-vector-double --config A --config B` runs, `validate A B` checks, `test A B` runs the files' tests. The arguments are Vector's.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand, ValueEnum};
use ddc_vector_double::config::{Config, Problem, load};
use ddc_vector_double::topology::{self, Topology};
use ddc_vector_double::transforms::Node;
use ddc_vector_double::{engine, unit_tests};

/// Stands in for Vector: runs, checks and tests the files of the pipeline.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// A configuration file; may be given several times.
    #[arg(short, long = "config")]
    config: Vec<PathBuf>,
    /// Accepted as Vector 0.57 and later want it; the double always interpolates.
    #[arg(long)]
    dangerously_allow_env_var_interpolation: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Checks every option, the topology and all VRL; opens nothing.
    Validate {
        /// Accepted for Vector's sake: the double never opens what the files name when it validates.
        #[arg(long)]
        no_environment: bool,
        /// How faults are written to stderr.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// The files, loaded together.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Runs the tests in the files.
    Test {
        /// The files, loaded together.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// How faults are written.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// A line each, for people; reports of the VRL compiler are longer.
    Text,
    /// An object with `file`, `place` and `message` each, one per line.
    Json,
}

/// As sysexits.h has it, and Vector too: something is wrong with the configuration.
const CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Validate { files, format, .. }) => {
            checked(files, *format).map(|_| println!("{} files are valid", files.len()))
        }
        Some(Command::Test { files }) => {
            checked(files, Format::Text).and_then(|(config, topology)| test(&config, &topology))
        }
        None => {
            checked(&arguments.config, Format::Text).and_then(|(config, topology)| run(&config, &topology))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => ExitCode::from(code),
    }
}

/// Loads and checks; what is wrong goes to stderr.
fn checked(files: &[PathBuf], format: Format) -> Result<(Config, Topology), u8> {
    let loaded = load(files, |name| std::env::var(name).ok());
    let mut problems = loaded.problems;
    let (topology, more) = topology::build(&loaded.config);
    problems.extend(more);
    for (name, transform) in &loaded.config.transforms {
        let mut warnings = Vec::new();
        if let Err(message) = Node::build(name, transform, &mut warnings) {
            problems.push(Problem {
                file: transform.file.clone(),
                place: format!("transforms.{name}"),
                message,
            });
        }
        for warning in warnings.iter().filter(|_| format == Format::Text) {
            eprintln!("warning: {}: transforms.{name}: {warning}", transform.file.display());
        }
    }
    if loaded.config.sources.is_empty() || loaded.config.sinks.is_empty() {
        let message = "no sources or no sinks: name every file of the pipeline".to_owned();
        problems.push(Problem {
            file: files.first().cloned().unwrap_or_default(),
            place: String::new(),
            message,
        });
    }
    if problems.is_empty() {
        return Ok((loaded.config, topology));
    }
    for Problem { file, place, message } in &problems {
        match format {
            Format::Text if place.is_empty() => eprintln!("error: {}: {message}", file.display()),
            Format::Text => eprintln!("error: {}: {place}: {message}", file.display()),
            Format::Json => {
                eprintln!("{}", serde_json::json!({ "file": file, "place": place, "message": message }));
            }
        }
    }
    Err(CONFIG)
}

fn test(config: &Config, topology: &Topology) -> Result<(), u8> {
    let reports = unit_tests::run(config, topology);
    for report in &reports {
        println!("test {} ... {}", report.name, if report.failures.is_empty() { "passed" } else { "failed" });
        for failure in &report.failures {
            println!("  {}: {failure}", report.file.display());
        }
    }
    let failed = reports.iter().filter(|report| !report.failures.is_empty()).count();
    println!("{} passed, {failed} failed", reports.len() - failed);
    // No test at all is no success either.
    if failed > 0 || reports.is_empty() { Err(1) } else { Ok(()) }
}

fn run(config: &Config, topology: &Topology) -> Result<(), u8> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        if let Err(error) = signal_hook::flag::register(signal, stop.clone()) {
            eprintln!("error: signals cannot be handled: {error}");
            return Err(71);
        }
    }
    engine::run(config, topology, &stop).map_err(|error| {
        eprintln!("error: {error}");
        CONFIG
    })?;
    // A socket that stays behind would keep the next start from binding.
    for source in config.sources.values().filter(|source| source.kind == "syslog") {
        if let Some(path) = source.options["path"].as_str() {
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}
