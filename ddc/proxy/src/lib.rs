//! The ingress and the egress: sources, sinks, pipelines, admin API, drain.

pub mod admin;
mod certificates;
pub mod config;
pub mod dead_letters;
pub mod egress;
pub mod gaps;
pub mod host;
pub mod ingress;
pub mod maintenance;
pub mod pause;
mod reason;
pub mod replay;
pub mod rewind;
pub mod sink;
pub mod source;
pub mod state;

/// When this program was built, in µs since 1970: a clock that is earlier is wrong for certain.
pub fn build_micros() -> u64 {
    // The build script writes digits; 0 would only switch the check of the clock off.
    env!("DDC_BUILD_SECONDS").parse::<u64>().unwrap_or(0) * 1_000_000
}
