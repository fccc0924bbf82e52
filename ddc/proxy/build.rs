//! Records when this program was built: a clock that is earlier is wrong for certain.

use std::env;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    // Reproducible where it can be: the date the packager gives, else that of the last commit.
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let seconds = given.or_else(commit_seconds).unwrap_or_else(now_seconds);
    println!("cargo::rustc-env=DDC_BUILD_SECONDS={seconds}");
}

fn commit_seconds() -> Option<u64> {
    let output = Command::new("git").args(["log", "-1", "--format=%ct"]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
